//! Leaving: last, with nothing lost and nothing held.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::*;

/// A process that saves its work when it is asked to end, a moment later. Says that it is up by a file.
fn saver(up: &Path, saved: &Path) -> String {
    format!(
        "trap 'sleep 0.3; echo saved > {}; exit 0' TERM; echo up > {}; while :; do sleep 0.02; done",
        saved.display(),
        up.display()
    )
}

fn wait_for_file(path: &Path) {
    until(&path.display().to_string(), || path.exists().then_some(()));
}

#[test]
fn leftovers_jobs_and_the_engines_processes_save_their_work() {
    if !has("root") {
        return;
    }
    for round in 0..rounds(5, 50) {
        let scratch = scratch();
        let file = |name: &str| scratch.path().join(name);
        let control = file("control");
        let main = format!(
            "setsid sh -c \"$SAVER\" & trap 'exit 7' TERM; echo up > {}; while :; do sleep 0.02; done",
            file("main-up").display()
        );
        let mut command = lastout_as_pid1(&["--control", control.to_str().unwrap(), "--", "sh", "-c", &main]);
        command.env("SAVER", saver(&file("left-up"), &file("left-saved"))).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        wait_for_file(&file("left-up"));
        wait_for_file(&file("main-up"));
        let init = children(child.id() as i32)[0];
        // What `docker exec` does: into the namespaces from outside, with a parent that is not in them.
        let enter =
            ["-t", &init.to_string(), "-p", "-m", "sh", "-c", &saver(&file("engine-up"), &file("engine-saved"))];
        let mut engine = Command::new("nsenter").args(enter).spawn().unwrap();
        let mut job = lastout(&["exec", "--control", control.to_str().unwrap(), "--", "sh", "-c"]);
        let mut job = job.arg(saver(&file("job-up"), &file("job-saved"))).stderr(Stdio::null()).spawn().unwrap();
        wait_for_file(&file("engine-up"));
        wait_for_file(&file("job-up"));
        run("kill", &[&init.to_string()]);
        assert_eq!(status(wait(&mut child)), 7);
        for name in ["left-saved", "job-saved", "engine-saved"] {
            assert_eq!(fs::read_to_string(file(name)).ok().as_deref(), Some("saved\n"), "round {round}: {name}");
        }
        wait(&mut engine);
        assert_eq!(status(wait(&mut job)), 0, "its handler ended it with 0");
    }
}

#[test]
fn what_mains_group_saves_with_a_helper_of_its_own_is_saved() {
    // Main and its background child get the signal together; main ends first, and the child saves its work by
    // means of another process, which must not be asked while it works for one that was.
    for role in [As::Subreaper, As::Pid1] {
        if role == As::Pid1 && !has("root") {
            continue;
        }
        let scratch = scratch();
        let file = |name: &str| scratch.path().join(name);
        let child = format!(
            "trap 'trap : TERM; sh -c \"sleep 0.4; echo saved > {}\"; exit' TERM; echo up > {}; while :; do sleep 0.02; done",
            file("saved").display(),
            file("up").display()
        );
        let main = "trap 'sleep 0.1; exit 5' TERM; sh -c \"$CHILD\" & while :; do sleep 0.02; done";
        let control = file("c");
        let args = ["--control", control.to_str().unwrap(), "--", "sh", "-c", main];
        let mut command = if role == As::Pid1 { lastout_as_pid1(&args) } else { lastout(&args) };
        let mut init = command.env("CHILD", &child).spawn().unwrap();
        wait_for_file(&file("up"));
        assert!(lastout(&["shutdown", "--control", control.to_str().unwrap()]).status().unwrap().success());
        assert_eq!(status(wait(&mut init)), 5);
        assert!(file("saved").exists(), "{role:?}");
    }
}

#[test]
fn as_pid_1_what_is_deaf_is_killed_and_a_bounded_fork_bomb_ends() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    let up = scratch.path().join("up");
    // Forks for ever, always a few at a time, each ignoring SIGTERM.
    let bomb = format!(
        "$SIG{{TERM}} = 'IGNORE'; $SIG{{CHLD}} = 'IGNORE'; open F, '>{}'; close F; \
         while (1) {{ for (1..8) {{ if (!fork) {{ if (!fork) {{ select undef, undef, undef, 0.02 }} exit }} }} select undef, undef, undef, 0.005 }}",
        up.display()
    );
    let script = format!("setsid perl -e \"$BOMB\" & until [ -e {} ]; do :; done; exit 3", up.display());
    for role in [As::Pid1, As::Subreaper] {
        let _ = fs::remove_file(&up);
        let control = scratch.path().join("c");
        let args = ["--grace", "200ms", "--control", control.to_str().unwrap(), "--", "sh", "-c", &script];
        let mut command = if role == As::Pid1 { lastout_as_pid1(&args) } else { lastout(&args) };
        let mut child = command.env("BOMB", &bomb).spawn().unwrap();
        assert_eq!(status(wait(&mut child)), 3, "{role:?}");
        assert!(!is_running(up.to_str().unwrap()), "{role:?}");
    }
}

#[test]
fn main_has_the_time_that_it_wants_and_its_leftovers_wait_for_it() {
    let scratch = scratch();
    let file = |name: &str| scratch.path().join(name);
    // Main drains for longer than the grace, with a child of its own that it still needs, and that has a
    // session of its own, so that the forwarded signal does not reach it.
    let script = format!(
        "setsid sh -c 'echo > {}; exec sleep 1000' & helper=$!; \
         trap 'sleep 0.6; kill -0 $helper && echo there > {}; exit 0' TERM; \
         echo up > {}; while :; do sleep 0.02; done",
        file("helper-up").display(),
        file("there").display(),
        file("up").display()
    );
    let control = file("c");
    let args = ["--grace", "100ms", "--control", control.to_str().unwrap(), "--", "sh", "-c", &script];
    let mut child = lastout(&args).spawn().unwrap();
    wait_for_file(&file("helper-up"));
    wait_for_file(&file("up"));
    run("kill", &[&child.id().to_string()]);
    assert_eq!(status(wait(&mut child)), 0);
    assert!(file("there").exists(), "its helper was ended before it");
}

#[test]
fn a_stop_timeout_ends_a_deaf_main() {
    let scratch = scratch();
    let up = scratch.path().join("up");
    let script = format!("trap '' TERM; echo up > {}; while :; do sleep 0.02; done", up.display());
    let control = scratch.path().join("c");
    let args = ["--stop-timeout", "200ms", "--control", control.to_str().unwrap(), "--", "sh", "-c", &script];
    let mut child = lastout(&args).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_file(&up);
    run("kill", &[&child.id().to_string()]);
    assert_eq!(status(wait(&mut child)), 137);
}

#[test]
fn a_jobs_own_grace_counts_in_full_and_later_requests_are_refused() {
    let init = Init::start(As::Subreaper, &["--grace", "100ms"]);
    let file = |name: &str| init.scratch.path().join(name);
    let script = saver(&file("up"), &file("saved")).replace("sleep 0.3", "echo stopping; sleep 0.8");
    let mut job =
        init.client(&["exec", "--grace", "30s", "--", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let said = lines(job.stdout.take().unwrap());
    wait_for_file(&file("up"));
    init.signal("TERM");
    assert_eq!(said.recv_timeout(PATIENCE).unwrap(), "stopping");
    let late = init.ask(&["exec", "--", "true"]);
    assert_eq!(late.status.code(), Some(125));
    assert!(both(&late).contains("shutting down"), "{}", both(&late));
    assert!(init.must(&["ps"]).contains("ending"), "it still answers");
    assert_eq!(status(wait(&mut job)), 0);
    assert!(file("saved").exists());
    assert_eq!(init.end().0, 0);
}

#[test]
fn nothing_that_is_not_its_own_is_touched() {
    // A neighbour in the same session, no descendant: a subreaper leaves it alone.
    let mut neighbour = Command::new("sleep").arg("1000").spawn().unwrap();
    let scratch = scratch();
    let control = scratch.path().join("c");
    let script = "trap '' TERM; setsid sh -c \"trap '' TERM; sleep 1000\" & exit 2";
    let args = ["--grace", "100ms", "--control", control.to_str().unwrap(), "--", "sh", "-c", script];
    assert_eq!(lastout(&args).status().unwrap().code(), Some(2));
    assert!(neighbour.try_wait().unwrap().is_none());
    neighbour.kill().unwrap();
    neighbour.wait().unwrap();
}

#[test]
fn without_proc_it_says_that_it_cannot_inspect() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    let inner = format!(
        "mount --make-rprivate /; umount -l /proc; exec {LASTOUT} --grace 100ms --stuck-timeout 1s --control {}/c -- \
         sh -c 'setsid sleep 30 > /dev/null 2>&1 & exit 4'",
        scratch.path().display()
    );
    // In a PID namespace of its own, so that what it must leave ends with the test; not as its PID 1.
    let script = "sh -c \"$INNER\"; echo code $?";
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount", "sh", "-c", script]).env("INNER", inner).env_remove("LASTOUT_CONTROL");
    let said = both(&command.output().unwrap());
    assert!(said.contains("no usable /proc") && said.contains("cannot be inspected"), "{said}");
    assert!(said.contains("code 125"), "{said}");
}

#[test]
fn what_cannot_be_ended_is_named_and_a_subreaper_gives_up() {
    if !has("root") {
        return;
    }
    // A process that SIGKILL does not reap: its tracer holds it. (Truly stuck ones need a dead volume.)
    let scratch = scratch();
    let file = |name: &str| scratch.path().join(name);
    let script = format!(
        "setsid sleep 1000 > /dev/null 2>&1 & echo $! > {}; until [ -e {} ]; do :; done",
        file("pid").display(),
        file("held").display()
    );
    let control = file("c");
    let args = [
        "--grace",
        "100ms",
        "--stuck-timeout",
        "3s",
        "--control",
        control.to_str().unwrap(),
        "--",
        "sh",
        "-c",
        &script,
    ];
    let child = lastout(&args).stderr(Stdio::piped()).spawn().unwrap();
    let pid = until("the daemon", || fs::read_to_string(file("pid")).ok()?.trim().parse::<i32>().ok());
    // PTRACE_SEIZE with PTRACE_O_TRACEEXIT: it stops in its exit until the tracer lets it go.
    let tracer =
        "my $p = 0 + shift; syscall(101, 0x4206, $p, 0, 0x40) == 0 or die $!; open F, '>', shift; close F; sleep 1000";
    let mut tracer =
        Command::new("perl").args(["-e", tracer, &pid.to_string(), file("held").to_str().unwrap()]).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    let said = both(&output);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains(&format!("SIGKILL has not ended pid {pid} (sleep")), "{said}");
    assert!(said.contains(&format!("left behind: pid {pid}")), "{said}");
}
