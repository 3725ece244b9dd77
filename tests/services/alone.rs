//! What a service may use, and services of an init that nobody can talk to.

use super::*;

#[test]
fn a_service_has_the_limits_that_its_file_gives_it() {
    if !has("root") {
        return;
    }
    let services = Supervised::begin(
        "[service.it]\nuser = 'nobody'\nlimits = { nofile = 77, nice = 5, core = 0, oom_score_adj = 300 }
        log = { file = '@/log' }
        command = 'id -un; ulimit -n; ulimit -c; nice; cat /proc/self/oom_score_adj; echo $HOME $USER; exec sleep 600'",
    );
    let log = services.until_text("log", " nobody\n");
    assert!(log.starts_with("nobody\n77\n0\n5\n300\n/"), "{log}");
    // Of its setup and checks, likewise; and nobody else's.
    assert_eq!(services.init.must(&["exec", "--", "id", "-un"]), "root\n");
    assert_eq!(services.end().0, 0);
}

#[test]
fn a_service_that_nobody_may_be_has_failed_and_says_why() {
    let (code, _, err) = to_its_end("[service.it]\nuser = 'no-such-user'\ncommand = ['true']\nrestart = 'never'", &[]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("no-such-user"), "{err}");
}

#[test]
fn a_service_is_held_to_the_memory_of_its_own_group() {
    if !crate::limits::has_cgroup() {
        return;
    }
    let services = Supervised::begin(
        "[service.it]\nlimits = { memory = '20MiB' }\nretries = 1\nbackoff = { initial = '10ms' }
        command = ['perl', '-e', 'my $x = \"x\" x 200_000_000; sleep 600']
        [service.shell]\nlimits = { memory = '20MiB' }\nrestart = 'never'
        command = '''perl -e 'my $x = \"x\" x 200_000_000; sleep 600'; exit $?'''
        [service.hold]\ncommand = ['sleep', '600']",
    );
    // Who is told of it by a shell, with 137, is told of it all the same.
    for name in ["it", "shell"] {
        let failed = services.until_state(name, "failed");
        assert!(failed["cause"].to_string().contains("oom_killed"), "{failed}");
    }
    let failed = services.info("it");
    assert_eq!((&failed["restarts"], services.state("hold").as_str()), (&1.into(), "ready"));
    assert_eq!(services.end().0, 137);
}

/// An init that has no place for a control directory.
#[test]
fn without_a_control_directory_services_run_and_end_in_order() {
    let scratch = scratch();
    let mark = mark("services");
    let file = "[service.base]\nsetup = ['echo setup']
        command = '''trap 'echo base ends; exit 0' TERM; touch @/base; while :; do sleep 600 & wait $!; done'''
        [service.user]\nafter = { base = 'ready' }\nbackoff = { initial = '10ms' }
        command = '''[ -e @/again ] || { touch @/again; exit 1; }; trap 'echo user ends; exit 0' TERM; touch @/user; while :; do sleep 600 & wait $!; done'''";
    write(scratch.path(), file, &mark);
    let path = |name: &str| scratch.path().join(name);
    let command = lastout(&["--config", path("services.toml").to_str().unwrap()]);
    let mut command = if is_root() {
        // Nowhere to write but in the test's own directory.
        let mut outer = std::process::Command::new("unshare");
        let script = "mount -t tmpfs none /run && mount -o remount,ro /run && mount -t tmpfs none /dev/shm && mount -o remount,ro /dev/shm && exec \"$@\"";
        outer.args(["--mount", "sh", "-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
        outer.env_remove("LASTOUT_CONTROL").stdin(Stdio::null());
        outer
    } else {
        command
    };
    let (out, err) = (path("out"), path("err"));
    let file = |path: &Path| fs::File::create(path).unwrap();
    let mut child = command.stdout(file(&out)).stderr(file(&err)).spawn().unwrap();
    until("the services", || (path("base").exists() && path("user").exists()).then_some(()));
    run("kill", &[&child.id().to_string()]);
    let code = status(wait(&mut child));
    let (out, err) = (fs::read_to_string(out).unwrap(), fs::read_to_string(err).unwrap());
    assert_eq!((code, out.as_str()), (0, "setup\nuser ends\nbase ends\n"), "{err}");
    assert_eq!(marked(&mark), [0i32; 0]);
}

#[test]
fn a_second_init_does_not_run_the_same_services_once_more() {
    let services = Supervised::begin("[service.it]\ncommand = 'echo run >> @/runs; exec sleep 600'");
    services.until_text("runs", "run\n");
    let config = services.path("services.toml");
    let mut second = lastout(&["--config", config.to_str().unwrap()])
        .env("LASTOUT_CONTROL", services.init.control())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let told = lines(second.stderr.take().unwrap());
    assert_eq!(status(wait(&mut second)), 125);
    let told: Vec<String> = told.iter().collect();
    assert!(told[0].contains("another lastout uses") && told[0].contains("--control DIR"), "{told:?}");
    assert_eq!(services.text("runs"), "run\n");
    // A job's are its own, and it is not to be named another directory.
    fs::write(services.path("job.toml"), "[service.job]\ncommand = ['echo', 'of a job']\nrestart = 'never'\n").unwrap();
    let job = ["exec", "--", LASTOUT, "--config", services.path("job.toml").to_str().unwrap()].map(String::from);
    let output = services.init.ask(&job.each_ref().map(String::as_str));
    assert_eq!((status(output.status), output.stdout.as_slice()), (0, &b"of a job\n"[..]), "{}", both(&output));
    assert!(both(&output).contains("no control directory of its own"), "{}", both(&output));
    assert_eq!(services.end().0, 0);
}

#[test]
fn nor_does_one_that_finds_another_at_the_default_place() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    let config = scratch.path().join("services.toml");
    fs::write(&config, "[service.it]\ncommand = 'echo run; exec sleep 600'\n").unwrap();
    let script = "mount -t tmpfs none /run; \"$@\" & until [ -p /run/lastout/control ]; do sleep 0.01; done
        \"$@\"; echo code $?; \"$1\" shutdown; wait";
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", script, "sh", LASTOUT, "--config"]).arg(config).env_remove("LASTOUT_CONTROL");
    let output = unshare.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["code 125", "run"], "{}", both(&output));
}

#[test]
fn a_user_has_all_its_groups_in_services_and_jobs() {
    if !has("root") {
        return;
    }
    crate::support::hangfs::apart(|| {
        let scratch = scratch();
        let put = |name: &str, text: &str| {
            fs::write(scratch.path().join(name), text).unwrap();
            run("mount", &["--bind", scratch.path().join(name).to_str().unwrap(), &format!("/etc/{name}")]);
        };
        put("passwd", "root:x:0:0::/root:/bin/sh\nmember:x:4343:4344::/:/bin/sh\n");
        put("group", "root:x:0:\nown:x:4344:\none:x:4345:other,member\ntwo:x:4346:member\nnot:x:4347:other,remember\n");
        let services = Supervised::begin(
            "[service.it]\nuser = 'member'\nlog = { file = '@/log' }\nsetup = ['id -G']\ncommand = 'id -u; id -G; exec sleep 600'
            [service.group]\nuser = 'member'\ngroup = 'not'\nlog = { file = '@/group' }\ncommand = 'id -g; id -G; exec sleep 600'",
        );
        let groups = "4344 4345 4346\n";
        assert_eq!(services.until_text("log", "4343\n4344"), format!("{groups}4343\n{groups}"));
        let log = services.until_text("group", "4347\n4347");
        assert_eq!(log, "4347\n4347 4345 4346\n");
        assert_eq!(services.init.must(&["exec", "-u", "member", "-w", "/", "--", "id", "-G"]), groups);
        assert_eq!(services.end().0, 0);
        ["passwd", "group"].iter().for_each(|name| drop(run("umount", &[&format!("/etc/{name}")])));
    });
}
