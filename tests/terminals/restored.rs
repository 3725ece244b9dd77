//! The client's terminal is given back as it was, whatever ends the client, and its end is the job's.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Child, Command},
};

use lastout::{
    base::{Pid, Signal},
    sys::signals,
};

use super::exec::{roles, watcher};
use crate::support::{pty::*, *};

/// A client with a watcher as its job, which has begun.
fn started(init: &Init, options: &[&str]) -> (Pty, Child) {
    let path = watcher(init);
    let mut pty = Pty::open();
    let args = [&["exec", "-it"], options, &["--", "perl", path.to_str().unwrap()]].concat();
    let child = pty.start(&init.client(&args));
    pty.expect("<up>");
    (pty, child)
}

fn send(child: &Child, signal: &str) {
    run("kill", &["-s", signal, &child.id().to_string()]);
}

fn state(child: &Child) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    stat.rsplit(')').next().unwrap().trim().chars().next().unwrap()
}

#[test]
fn a_signal_to_the_client() {
    let init = Init::start(As::Subreaper, &[]);
    let plain = Pty::open().modes();
    for (signal, code) in [("TERM", 143), ("INT", 130), ("QUIT", 131), ("HUP", 129)] {
        let (mut pty, mut child) = started(&init, &[]);
        assert_ne!(pty.modes(), plain, "it is raw meanwhile");
        send(&child, signal);
        assert_eq!(pty.end(&mut child).0, code, "{signal}");
        assert_eq!(pty.modes(), plain, "{signal}");
    }
    // A job that does not care: the second one ends the client, as soon as it is a second wish.
    let mut pty = Pty::open();
    let job = "trap 'echo \"<term>\"' TERM; trap 'echo \"<usr1>\"' USR1; echo up; while :; do sleep 0.05; done";
    let mut child = pty.start(&init.client(&["exec", "-it", "--grace", "0", "--", "sh", "-c", job]));
    pty.expect("up");
    for (signal, said) in [("TERM", "<term>"), ("USR1", "<usr1>")] {
        send(&child, signal);
        pty.expect(said);
    }
    assert_ne!(pty.modes(), plain);
    let code = until("the client's end", || {
        send(&child, "TERM");
        child.try_wait().unwrap().map(status)
    });
    assert_eq!(code, 143);
    assert_eq!(pty.modes(), plain);
}

#[test]
fn every_signal_that_ends_the_client() {
    let init = Init::start(As::Subreaper, &[]);
    let path = watcher(&init);
    let plain = Pty::open().modes();
    // Passed on, see above; those that end nobody, or that nobody can do anything about; and those of the C library's
    // own that it has ignored in what a program with threads spawns (musl).
    let others = [1, 2, 3, 10, 12, 15, 9, 17, 18, 19, 20, 21, 22, 23, 28, 32, 33, 34];
    for signal in (1..=64).filter(|signal| !others.contains(signal)).filter_map(Signal::new) {
        let mut pty = Pty::open();
        let mut command = Command::new("prlimit");
        command.args(["--core=0", LASTOUT, "exec", "-it", "--", "perl"]).arg(&path);
        let mut child = pty.start(command.env("LASTOUT_CONTROL", init.control()));
        pty.expect("<up>");
        assert_ne!(pty.modes(), plain, "it is raw meanwhile");
        signals::send(Pid::new(child.id() as i32).unwrap(), signal).unwrap();
        let ended = until(&format!("the end by {signal}"), || child.try_wait().unwrap());
        assert_eq!(ended.signal(), Some(signal.get()), "{signal}: {ended}");
        assert_eq!(pty.modes(), plain, "{signal}");
    }
}

#[test]
fn the_inits_death_and_a_timeout() {
    for role in roles() {
        let init = Init::start(role, &[]);
        let plain = Pty::open().modes();
        let (mut pty, mut child) = started(&init, &["--timeout", "1s"]);
        let (code, shown) = pty.end(&mut child);
        assert_eq!(code, 124, "{shown}");
        assert_eq!(pty.modes(), plain);
        // A message is on lines of its own.
        assert!(shown.ends_with("\r\n"), "{shown:?}");
        let (mut pty, mut child) = started(&init, &[]);
        init.signal("KILL");
        let (code, shown) = pty.end(&mut child);
        assert_eq!(code, 125, "{shown}");
        assert!(shown.contains("died\r\n"), "{shown:?}");
        assert_eq!(pty.modes(), plain);
    }
}

#[test]
fn a_stop_gives_it_back_and_going_on_takes_it_again() {
    let init = Init::start(As::Subreaper, &[]);
    let path = watcher(&init);
    // A shell with job control is around it, or nobody could let it go on.
    let mut pty = Pty::open();
    let mut shell = Command::new("bash");
    shell.args(["--norc", "--noprofile", "-i"]).env("PS1", "outer> ").env("LASTOUT_CONTROL", init.control());
    let mut child = pty.start(&shell);
    pty.expect("outer> ");
    let before = pty.modes();
    pty.enter(&format!("{LASTOUT} exec -it --name w -- perl {}", path.display()));
    pty.expect("<up>");
    let raw = pty.modes();
    assert_ne!(raw, before);
    let client = until("the client", || running("exec\0-it\0--name\0w").first().copied());
    run("kill", &["-s", "TSTP", &client.to_string()]);
    pty.expect("Stopped");
    pty.expect("outer> ");
    assert_eq!(pty.modes(), before, "the shell has its own modes");
    // The window is another one meanwhile.
    pty.resize(90, 20);
    pty.enter("fg");
    pty.expect("<size 20 90>");
    until("raw mode", || (pty.modes() == raw).then_some(()));
    pty.type_in(INTERRUPT);
    pty.expect("outer> ");
    pty.enter("echo code=$?; stty size");
    pty.expect("code=130\r\n20 90");
    pty.expect("outer> ");
    assert_eq!(pty.modes(), before);
    pty.enter("exit");
    pty.end(&mut child);
}

#[test]
fn a_window_that_is_closed_ends_the_job() {
    let init = Init::start(As::Subreaper, &[]);
    let path = watcher(&init);
    let (pty, mut child) = started(&init, &["--grace", "1000s"]);
    // By the kernel's SIGHUP.
    pty.close();
    assert_eq!(status(wait(&mut child)), 129);
    until("the job's end", || (!is_running(path.to_str().unwrap())).then_some(()));
    // And where the client is not of the terminal's session.
    let mut pty = Pty::open();
    let shell = ["--", "bash", "--norc", "--noprofile", "-i"];
    let mut client = init.client(&[&["exec", "-it", "--grace", "1000s", "-e", "PS1=ready> "][..], &shell].concat());
    let mut child = pty.attach(&mut client).spawn().unwrap();
    pty.expect("ready> ");
    let jobs = init.must(&["ps"]);
    assert!(jobs.contains("running"), "{jobs}");
    pty.close();
    assert_eq!(status(wait(&mut child)), 129);
    // It would not care for SIGTERM, and has all the time.
    until("the job's end", || (!init.must(&["ps"]).contains("bash")).then_some(()));
}

#[test]
fn an_init_that_stands_still_is_named_and_can_be_left() {
    let init = Init::start(As::Subreaper, &[]);
    let mut pty = Pty::open();
    let before = pty.modes();
    init.signal("STOP");
    let mut child = pty.start(&init.client(&["exec", "-it", "--", "cat"]));
    pty.expect(&format!("lastout: the init (PID {}) is stopped", init.pid));
    assert_eq!(pty.modes(), before);
    pty.type_in(INTERRUPT);
    assert_eq!(pty.end(&mut child).0, 130);
    init.signal("CONT");
    assert_eq!(init.must(&["exec", "--", "echo", "again"]), "again\n");
    until("rest", || (state(&init.child) == 'S').then_some(()));
}
