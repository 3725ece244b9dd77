//! Signals for a job: by `lastout kill`, and through its client, which stays for the job's last words.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use crate::support::*;

#[test]
fn signals_reach_a_job_by_kill_and_through_its_client() {
    let init = Init::start(As::Subreaper, &[]);
    let script = "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.05; done";
    for through_client in [false, true] {
        let mut client = init
            .client(&["exec", "--name", "x", "--", "sh", "-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let got = lines(client.stdout.take().unwrap());
        assert_eq!(got.recv_timeout(PATIENCE).unwrap(), "ready");
        if through_client {
            run("kill", &["-USR1", &client.id().to_string()]);
        } else {
            init.must(&["kill", "-s", "USR1", "x"]);
        }
        assert_eq!(got.recv_timeout(PATIENCE).unwrap(), "got");
        assert_eq!(status(wait(&mut client)), 5);
    }
}

#[test]
fn every_real_time_signal_reaches_a_job() {
    let init = Init::start(As::Subreaper, &[]);
    let script = "use POSIX; $| = 1; \
        for my $n (34..64) { sigaction($n, POSIX::SigAction->new(sub { syswrite STDOUT, qq($n\n) })) } \
        syswrite STDOUT, qq(ready\n); sleep 1000 while 1";
    let mut client =
        init.client(&["exec", "--name", "x", "--", "perl", "-e", script]).stdout(Stdio::piped()).spawn().unwrap();
    let got = lines(client.stdout.take().unwrap());
    assert_eq!(got.recv_timeout(PATIENCE).unwrap(), "ready");
    for (name, number) in [("RTMIN", 34), ("RTMIN+1", 35), ("34", 34), ("RTMAX", 64)] {
        init.must(&["kill", "-s", name, "x"]);
        assert_eq!(got.recv_timeout(PATIENCE).unwrap(), number.to_string(), "{name}");
    }
    init.must(&["stop", "x"]);
    assert_eq!(status(wait(&mut client)), 143);
}

/// At SIGTERM it says that it was asked; its last words come when it is let go.
fn talker(init: &Init, output: Stdio) -> (Child, PathBuf, Receiver<String>) {
    let [go, asked] = ["go", "asked"].map(|name| init.scratch.path().join(name));
    fs::remove_file(&go).ok();
    fs::remove_file(&asked).ok();
    run("mkfifo", &[go.to_str().unwrap()]);
    // A second SIGTERM finds it deaf.
    let script = format!(
        "trap 'trap \"\" TERM; echo > {}; read line < {}; echo last words; exit 7' TERM; echo ready >&2; \
         while :; do sleep 0.05; done",
        asked.display(),
        go.display()
    );
    let mut client = init.client(&["exec", "--name", "talker", "--", "sh", "-c", &script]);
    let mut client = client.stdout(output).stderr(Stdio::piped()).spawn().unwrap();
    // Its reader stays: a shell may say that its sleep was terminated.
    let errors = lines(client.stderr.take().unwrap());
    assert_eq!(errors.recv_timeout(PATIENCE).unwrap(), "ready");
    (client, go, errors)
}

fn terminate(client: &Child) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(client.id() as i32), nix::sys::signal::SIGTERM).unwrap();
}

/// Waits until it has taken its signals, or has gone.
fn taken(client: &Child) {
    let status = format!("/proc/{}/status", client.id());
    until("the signal to be taken", || {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap_or("0");
        (u64::from_str_radix(pending.trim(), 16) == Ok(0)).then_some(())
    });
}

/// Until a test was quick enough: on a busy machine a moment may be long.
fn in_time(limit: Duration, mut attempt: impl FnMut() -> (Duration, bool)) {
    until("a quick moment", || {
        let (took, passed) = attempt();
        assert!(passed || took >= limit, "after {took:?}");
        passed.then_some(())
    });
}

#[test]
fn a_signal_that_comes_twice_in_a_moment_costs_no_last_words() {
    let init = Init::start(As::Subreaper, &[]);
    let asked = init.scratch.path().join("asked");
    in_time(Duration::from_secs(1), || {
        let (mut client, go, _errors) = talker(&init, Stdio::piped());
        // As timeout(1) does: its child, and then its group.
        let begin = Instant::now();
        terminate(&client);
        taken(&client);
        terminate(&client);
        let took = begin.elapsed();
        taken(&client);
        until("the job to be asked", || asked.exists().then_some(()));
        // A client that has gone has nobody who opens it.
        let fifo = fs::File::options().read(true).write(true).open(&go).unwrap();
        (&fifo).write_all(b"go\n").unwrap();
        let mut said = String::new();
        client.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        (took, (said.as_str(), status(wait(&mut client))) == ("last words\n", 7))
    });
}

#[test]
fn a_client_that_was_asked_to_go_waits_a_while_for_who_reads_its_output() {
    let init = Init::start(As::Subreaper, &[]);
    in_time(Duration::from_secs(4), || {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&[b'x'; 65_536]).unwrap();
        let (mut client, go, _errors) = talker(&init, writer.into());
        terminate(&client);
        let begin = Instant::now();
        fs::write(&go, "go\n").unwrap();
        until("the job's end", || (!init.must(&["ps"]).contains("talker")).then_some(()));
        // Whoever went at once has gone by now.
        let wchan = format!("/proc/{}/wchan", client.id());
        until("its rest or its end", || {
            let at = fs::read_to_string(&wchan).unwrap_or_default();
            (at.contains("poll") || client.try_wait().unwrap().is_some()).then_some(())
        });
        let took = begin.elapsed();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        let code = status(wait(&mut client));
        (took, said.ends_with("xlast words\n") && code == 7)
    });
    // And not for ever, nor against the same signal again.
    let (_reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'x'; 65_536]).unwrap();
    let (mut client, go, _errors) = talker(&init, writer.into());
    terminate(&client);
    fs::write(&go, "go\n").unwrap();
    assert_eq!(status(wait(&mut client)), 7);
}

#[test]
fn the_same_signal_again_later_means_the_client() {
    let init = Init::start(As::Subreaper, &["--grace", "100ms"]);
    let (mut client, _go, _errors) = talker(&init, Stdio::null());
    let ended = until("its end", || {
        terminate(&client);
        client.try_wait().unwrap()
    });
    assert_eq!(status(ended), 143);
    until("the job's end", || init.must(&["ps", "-a"]).contains("client gone").then_some(()));
}

#[test]
fn every_client_says_why_an_init_is_silent_and_is_answered_when_it_goes_on() {
    let init = Init::start(As::Subreaper, &[]);
    init.must(&["exec", "-d", "--name", "job", "--", "sleep", "1000"]);
    init.signal("STOP");
    let ask = |args: &[&str]| {
        let mut client = init.client(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = lines(client.stderr.take().unwrap());
        (client, said)
    };
    let waiting = [
        ask(&["exec", "--", "echo", "said"]),
        ask(&["ps"]),
        ask(&["kill", "-s", "CONT", "job"]),
        ask(&["events"]),
        ask(&["wait", "job"]),
    ];
    let words = format!("lastout: the init (PID {}) is stopped: it goes on with SIGCONT", init.pid);
    for (_, said) in &waiting {
        assert_eq!(said.recv_timeout(PATIENCE).unwrap(), words);
    }
    init.signal("CONT");
    init.must(&["stop", "job"]);
    for ((mut client, said), code) in waiting.into_iter().zip([0, 0, 0, 0, 143]) {
        assert_eq!(status(wait(&mut client)), code);
        assert_eq!(said.iter().collect::<Vec<_>>(), Vec::<String>::new(), "it is said once");
    }
}

/// It has a group or session of its own as soon as it is forked, but not quite: strace holds it there.
#[test]
fn a_stop_reaches_a_main_that_has_not_made_its_group() {
    let scratch = scratch();
    for (number, (name, options)) in
        [("lastout", &[][..]), ("tini", &["-s", "-g"]), ("dumb-init", &[]), ("dumb-init", &["-c"]), ("catatonit", &[])]
            .into_iter()
            .enumerate()
    {
        let path = scratch.path().join(name);
        if !path.exists() {
            std::os::unix::fs::symlink(LASTOUT, &path).unwrap();
        }
        let control = scratch.path().join(format!("control{number}"));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", "trace=setpgid,setsid"]);
        strace.args(["-e", "inject=setpgid,setsid:delay_enter=2s"]).arg(&path).args(options);
        strace.args(["--", "sleep", "600"]).env("LASTOUT_CONTROL", &control).stderr(Stdio::null());
        let mut strace = strace.spawn().unwrap();
        // strace has children of its own at its start.
        let is_init = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(LASTOUT));
        let init = until("the init", || children(strace.id() as i32).into_iter().find(is_init));
        until("main", || children(init).first().copied());
        run("kill", &["-TERM", &init.to_string()]);
        assert_eq!(status(wait(&mut strace)), 143, "{name} {options:?}");
    }
}
