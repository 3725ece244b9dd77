//! What a job may use and as whom it runs; what a container may.

use std::{fs, path::PathBuf, process::Command};

use lastout::inspect;

use crate::support::*;

/// Whether we may make groups below our own.
fn has_cgroup() -> bool {
    let may_make = |controller: &str| {
        let group = inspect::own_group(controller).unwrap_or_default();
        let probe = group.join(format!("lastout-probe-{}", std::process::id()));
        fs::create_dir(&probe).is_ok_and(|()| fs::remove_dir(&probe).is_ok())
    };
    has("root") && ["memory", "cpu", "pids"].into_iter().all(may_make)
}

/// The groups of an init that are there.
fn groups(init: &Init) -> Vec<PathBuf> {
    let name = format!("lastout-{}-", init.pid);
    let below = |controller: &&str| fs::read_dir(inspect::own_group(controller).unwrap()).unwrap().flatten();
    let all = ["memory", "cpu", "pids"].iter().flat_map(|controller| below(controller).map(|entry| entry.path()));
    all.filter(|path| path.to_string_lossy().contains(&name)).collect()
}

#[test]
fn a_job_has_the_limits_that_were_asked_for_and_its_neighbour_has_not() {
    let init = Init::start(As::Subreaper, &[]);
    let script = "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -v; nice; cat /proc/self/oom_score_adj";
    let before = init.must(&["exec", "--", "sh", "-c", script]);
    let mut args = vec!["exec"];
    for limit in ["nofile=100", "core=0", "as=1G", "nice=7", "oom_score_adj=600"] {
        args.extend(["--limit", limit]);
    }
    args.extend(["--", "sh", "-c", script]);
    assert_eq!(init.must(&args), "100\n100\n0\n1048576\n7\n600\n");
    assert_eq!(init.must(&["exec", "--", "sh", "-c", script]), before);
}

#[test]
fn a_limit_that_cannot_be_had_is_told_and_nothing_runs() {
    let init = Init::start(As::Subreaper, &[]);
    let mark = init.scratch.path().join("ran");
    let touch = ["--", "touch", mark.to_str().unwrap()];
    for (limit, code, told) in [
        // More than fs.nr_open is refused to everybody.
        ("nofile=unlimited", 126, "cannot set RLIMIT_NOFILE to unlimited: operation not permitted"),
        ("nofile=x", 2, "use nofile=1024 or unlimited"),
        ("stack=1", 2, "there is no limit stack"),
    ] {
        let output = init.ask(&[&["exec", "--limit", limit][..], &touch].concat());
        assert!(both(&output).contains(told), "{limit}: {}", both(&output));
        assert!(
            output.status.code() == Some(code) || code == 2 && output.status.code() == Some(125),
            "{limit}: {output:?}"
        );
    }
    for (user, told) in
        [("no-such-user", "no user \"no-such-user\""), ("root:no-such-group", "no group \"no-such-group\"")]
    {
        let output = init.ask(&[&["exec", "-u", user][..], &touch].concat());
        assert_eq!(output.status.code(), Some(125));
        assert!(both(&output).contains(told), "{}", both(&output));
    }
    assert!(!mark.exists());
}

#[test]
fn a_job_runs_as_the_user_with_its_groups_home_and_output() {
    if !has("root") {
        return;
    }
    let init = Init::start(As::Subreaper, &[]);
    let script = "id -u; id -G; echo $HOME $USER $LOGNAME; echo ours > /dev/stdout";
    let nobody = run("id", &["-G", "nobody"]);
    let uid = run("id", &["-u", "nobody"]);
    let home = run("sh", &["-c", "getent passwd nobody | cut -d: -f6"]);
    let expected = format!("{uid}{nobody}{} nobody nobody\nours\n", home.trim());
    assert_eq!(init.must(&["exec", "-u", "nobody", "-w", "/", "--", "sh", "-c", script]), expected);
    let other = init.must(&["exec", "-u", "4242:7", "-e", "HOME=/mine", "-w", "/", "--", "sh", "-c", script]);
    assert_eq!(other, "4242\n7\n/mine 4242 4242\nours\n");
    // Kept output goes through lastout's own pipes.
    let job = init.must(&["exec", "-d", "-u", "nobody", "-w", "/", "--", "sh", "-c", script]);
    init.must(&["wait", job.trim()]);
    assert_eq!(init.must(&["logs", job.trim()]), expected);
    // Nobody else is anybody else.
    assert_eq!(init.must(&["exec", "--", "id", "-u"]), "0\n");
}

#[test]
fn a_user_may_be_himself_and_nobody_else() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    fs::set_permissions(scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let control = scratch.path().join("c");
    let mut init = Command::new("setpriv");
    init.args([
        "--reuid",
        "4242",
        "--regid",
        "4242",
        "--clear-groups",
        LASTOUT,
        "--control",
        control.to_str().unwrap(),
    ]);
    let mut init = init.current_dir("/").env_remove("LASTOUT_CONTROL").spawn().unwrap();
    let exec = |user: &str| {
        let control = control.to_str().unwrap();
        lastout(&["exec", "--wait", "30", "--control", control, "-u", user, "--", "id", "-u"]).output().unwrap()
    };
    let output = exec("4242:4242");
    assert_eq!(both(&output), "4242\n");
    let output = exec("root");
    assert_eq!(output.status.code(), Some(126));
    assert!(both(&output).contains("cannot become user root: operation not permitted"), "{}", both(&output));
    run("kill", &[&init.id().to_string()]);
    wait(&mut init);
}

#[test]
fn a_tree_is_held_to_the_memory_of_its_own_group_and_the_record_says_so() {
    if !has_cgroup() {
        return;
    }
    let init = Init::start(As::Subreaper, &[]);
    // What has no end must be kept whole.
    let output = init.ask(&["exec", "--name", "greedy", "--limit", "memory=40M", "--", "tail", "/dev/zero"]);
    assert_eq!(output.status.code(), Some(137));
    assert!(both(&output).contains("OOM killer, at the memory limit of 40 MiB"), "{}", both(&output));
    let record: serde_json::Value =
        serde_json::from_str(&String::from_utf8(init.ask(&["wait", "--json", "greedy"]).stdout).unwrap()).unwrap();
    assert_eq!(record["cause"], serde_json::json!({"kind": "oom_killed", "limit_bytes": 40 << 20}), "{record}");
    assert_eq!(record["usage"]["oom_kills"], 1, "{record}");
    assert_eq!(groups(&init), Vec::<PathBuf>::new(), "it is removed");
}

#[test]
fn what_a_job_starts_is_in_its_group_too_and_sees_its_limits() {
    if !has_cgroup() {
        return;
    }
    let init = Init::start(As::Subreaper, &[]);
    let limits = ["--limit", "memory=64M", "--limit", "cpus=1.5", "--limit", "pids=20"];
    let json = init.must(&[&["exec"][..], &limits, &["--", LASTOUT, "limits", "--json"]].concat());
    let seen: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(seen["cpus"]["usable"], 1, "{json}");
    assert_eq!(seen["memory"]["limit"]["value"], 64 << 20, "{json}");
    assert_eq!(seen["pids"]["limit"]["value"], 20, "{json}");
    let file = seen["memory"]["limit"]["file"].as_str().unwrap();
    assert!(file.contains(&format!("/lastout-{}-j2/", init.pid)), "{json}");
    let script = "for i in 1 2 3 4 5 6 7 8; do (exec setsid sleep 600) & done; wait";
    let output = init.ask(&["exec", "--limit", "pids=4", "--timeout", "1", "--", "bash", "-c", script]);
    assert!(both(&output).contains("esource temporarily unavailable"), "{}", both(&output));
    assert_eq!(groups(&init), Vec::<PathBuf>::new(), "removed, also when the tree did not end by itself");
}

#[test]
fn without_a_writable_group_a_job_that_needs_one_is_refused() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    let control = scratch.path().join("c");
    let read_only =
        "for each in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts); do mount -o remount,bind,ro $each; done";
    let script = format!("{read_only}; exec {LASTOUT} --control {}", control.display());
    let mut init = Command::new("unshare").args(["--mount", "sh", "-c", &script]).spawn().unwrap();
    let mut client = lastout(&["exec", "--wait", "30", "--control", control.to_str().unwrap(), "--limit", "pids=5"]);
    let output = client.args(["--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", both(&output));
    for part in ["cannot limit it to 5 processes", "/lastout-", "read-only file system", "limit the whole container"] {
        assert!(both(&output).contains(part), "{part}: {}", both(&output));
    }
    run("kill", &[&init.id().to_string()]);
    wait(&mut init);
}

#[test]
fn what_may_be_used_is_told_without_an_init() {
    let output = lastout(&["limits"]).env("LASTOUT_CONTROL", "/nowhere").output().unwrap();
    let text = both(&output);
    assert!(output.status.success(), "{text}");
    for part in ["cpus", "affinity ", "/proc/self/status", "memory", "swap", "pids"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let one = Command::new("taskset").args(["-c", "0", LASTOUT, "limits", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!((&json["cpus"]["usable"], &json["cpus"]["affinity"]["value"]), (&1.into(), &1.into()));
}
