//! A job's tree ends with the job, whatever it does to escape.

use std::{
    fs,
    io::Read,
    os::unix::fs::OpenOptionsExt,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::support::*;

/// A command that leaves a process behind which double-forked, called setsid and cleared its environment,
/// and one that ignores SIGTERM; all carry the mark in their command line. Says "ready" when they are up.
fn escaping(mark: &str, then: &str) -> String {
    format!(
        "perl -e 'use POSIX; if (!fork) {{ setsid(); exit if fork; %ENV = (); exec {{\"perl\"}} \"perl\", \"-e\", \"open F, q(>), q(/dev/null); sleep 1000 while 1 # {mark} daemon\" }} wait' \
         ; perl -e '$SIG{{TERM}} = \"IGNORE\"; sleep 1000 while 1 # {mark} deaf' & \
         until grep -q deaf /proc/$!/cmdline; do :; done; echo ready; {then}"
    )
}

fn start(init: &Init, options: &[&str], script: &str) -> (Child, std::sync::mpsc::Receiver<String>) {
    let mut args = vec!["exec"];
    args.extend(options);
    args.extend(["--", "bash", "-c", script]);
    let mut client = init.client(&args).stdout(Stdio::piped()).spawn().unwrap();
    let got = lines(client.stdout.take().unwrap());
    assert_eq!(got.recv_timeout(PATIENCE).unwrap(), "ready");
    (client, got)
}

fn gone(mark: &str) {
    until(&format!("the end of {:?}", running(mark)), || (!is_running(mark)).then_some(()));
}

fn both_roles(test: impl Fn(&Init)) {
    test(&Init::start(As::Subreaper, &[]));
    if has("root") {
        test(&Init::start(As::Pid1, &[]));
    }
}

#[test]
fn when_the_command_ends_its_daemons_end_before_exec_returns() {
    both_roles(|init| {
        let mark = mark("ends");
        let (mut client, _got) = start(init, &["--grace", "200ms"], &escaping(&mark, "exit 3"));
        assert_eq!(status(wait(&mut client)), 3);
        assert_eq!(running(&mark), Vec::<i32>::new());
    });
}

#[test]
fn a_timeout_ends_the_whole_tree_in_time() {
    both_roles(|init| {
        let mark = mark("timeout");
        let begin = Instant::now();
        let options = ["--timeout", "1s", "--grace", "500ms"];
        let (mut client, _got) = start(init, &options, &escaping(&mark, "trap '' TERM; while :; do sleep 0.1; done"));
        assert_eq!(status(wait(&mut client)), 124);
        let took = begin.elapsed();
        assert_eq!(running(&mark), Vec::<i32>::new());
        // Not a measurement: 10 s would be the time of a timeout that does not work.
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
    });
}

#[test]
fn a_client_that_is_killed_ends_its_jobs_tree() {
    both_roles(|init| {
        let mark = mark("client");
        let (mut client, _got) = start(init, &["--grace", "200ms"], &escaping(&mark, "wait"));
        client.kill().unwrap();
        client.wait().unwrap();
        gone(&mark);
        until("the record", || init.must(&["ps", "-a"]).contains("client gone").then_some(()));
    });
}

#[test]
fn a_kept_job_outlives_its_client_and_keeps_its_output() {
    let init = Init::start(As::Subreaper, &[]);
    let go = init.scratch.path().join("go");
    run("mkfifo", &[go.to_str().unwrap()]);
    let script = format!("echo ready; read line < {}; echo after; exit 4", go.display());
    let (mut client, _got) = start(&init, &["--keep", "--name", "kept"], &script);
    client.kill().unwrap();
    client.wait().unwrap();
    fs::write(&go, "go\n").unwrap();
    assert_eq!(init.ask(&["wait", "kept"]).status.code(), Some(4));
    assert_eq!(init.must(&["logs", "kept"]), "ready\nafter\n");
}

#[test]
fn stop_ends_the_whole_tree_and_kill_only_the_group() {
    both_roles(|init| {
        let mark = mark("stop");
        let (mut client, _got) = start(init, &["--name", "x"], &escaping(&mark, "wait"));
        init.must(&["kill", "-s", "WINCH", "x"]);
        assert!(is_running(&mark));
        init.must(&["stop", "--grace", "200ms", "x"]);
        // The client's own command line has the mark, too.
        assert_eq!(status(wait(&mut client)), 143);
        assert_eq!(running(&mark), Vec::<i32>::new());
    });
}

#[test]
fn a_shutdown_ends_every_tree() {
    both_roles(|init| {
        let mark = mark("shutdown");
        let (mut client, _got) = start(init, &["--grace", "200ms"], &escaping(&mark, "wait"));
        init.must(&["shutdown"]);
        assert_eq!(status(wait(&mut client)), 143);
        assert_eq!(running(&mark), Vec::<i32>::new());
    });
}

#[test]
fn a_killed_init_is_the_end_of_its_jobs_and_its_client_knows_at_once() {
    let mut init = Init::start(As::Subreaper, &["--grace", "300ms"]);
    let marks = [mark("attached"), mark("detached")];
    let (mut client, _got) = start(&init, &[], &escaping(&marks[0], "trap '' TERM; wait; wait"));
    init.must(&["exec", "-d", "--", "bash", "-c", &escaping(&marks[1], "wait")]);
    until("the detached one", || (running(&marks[1]).len() >= 3).then_some(()));
    init.child.kill().unwrap();
    assert_eq!(status(wait(&mut client)), 125);
    // Keepers see their init die, and give each tree its grace, with a client or without.
    marks.iter().for_each(|mark| gone(mark));
}

#[test]
fn a_killed_keeper_takes_nothing_down_and_leaves_nothing() {
    for role in [As::Subreaper, As::Pid1] {
        if role == As::Pid1 && !has("root") {
            continue;
        }
        let init = Init::start(role, &["--grace", "300ms"]);
        let mark = mark("keeper");
        let (mut client, _got) = start(&init, &[], &escaping(&mark, "wait"));
        let keeper = children(init.pid)
            .into_iter()
            .find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with("keeper")));
        run("kill", &["-KILL", &keeper.unwrap().to_string()]);
        assert_eq!(status(wait(&mut client)), 125);
        gone(&mark);
        init.must(&["exec", "--", "true"]);
    }
}

#[test]
fn a_keeper_that_is_stopped_goes_on() {
    let init = Init::start(As::Subreaper, &["--grace", "200ms"]);
    let mark = mark("stopped");
    let script = format!("kill -STOP $PPID; exec perl -e 'sleep 1000 # {mark}'");
    let output = init.ask(&["exec", "--timeout", "300ms", "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(124), "{}", both(&output));
    init.must(&["exec", "-d", "--", "sh", "-c", &script]);
    until("the job", || is_running(&mark).then_some(()));
    init.must(&["shutdown"]);
    assert!(!is_running(&mark));
}

#[test]
fn what_asks_for_time_gets_it() {
    let init = Init::start(As::Subreaper, &[]);
    let file = init.scratch.path().join("saved");
    // The leader ends; a daemon of its needs a moment after SIGTERM to save its work.
    let script = format!(
        "(trap 'sleep 0.3; echo saved > {}; exit' TERM; echo ready; while :; do sleep 0.05; done) & while :; do sleep 0.05; done",
        file.display()
    );
    let (mut client, _got) = start(&init, &["--timeout", "100ms"], &script);
    assert_eq!(status(wait(&mut client)), 124);
    assert_eq!(fs::read_to_string(&file).unwrap(), "saved\n");
}

/// A family of sixteen lines that fork all the time, and the end of the pipe that all of them hold.
fn forking(init: &Init) -> (String, fs::File) {
    let pipe = init.scratch.path().join("pipe");
    run("mkfifo", &[pipe.to_str().unwrap()]);
    let end = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
    (format!("9> {} {} 1 16 60", pipe.display(), FIXTURES.join("forks").display()), end)
}

/// Whether nobody holds the pipe: then a read comes to its end, and does not say that there may be more.
fn is_let_go(mut pipe: &fs::File) -> bool {
    let mut said = Vec::new();
    pipe.read_to_end(&mut said).map(|_| assert_eq!(said, b"up\n")).is_ok()
}

#[test]
fn what_forks_all_the_time_ends_with_its_job_and_the_client_is_not_told_before() {
    if !has("cc") {
        return;
    }
    both_roles(|init| {
        let (script, pipe) = forking(init);
        let output = init.ask(&["exec", "--grace", "100ms", "--", "sh", "-c", &format!("{script}; exit 3")]);
        assert!(is_let_go(&pipe), "some of the family live");
        assert_eq!(output.status.code(), Some(3), "{}", both(&output));
    });
}

#[test]
fn what_forks_all_the_time_ends_with_main() {
    if !has("cc") {
        return;
    }
    let place = scratch();
    let go = place.path().join("go");
    run("mkfifo", &[go.to_str().unwrap()]);
    let script = format!("read script < {}; eval \"$script\"; exit 3", go.display());
    let init = Init::start(As::Subreaper, &["--grace", "100ms", "--", "sh", "-c", &script]);
    let (families, pipe) = forking(&init);
    fs::write(&go, format!("{families}\n")).unwrap();
    let (code, said) = init.end();
    assert!(is_let_go(&pipe), "some of the family live");
    assert_eq!(code, 3, "{said:?}");
    assert!(!said.iter().any(|line| line.contains("stuck")), "{said:?}");
}
