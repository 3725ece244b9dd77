//! Programs that people use in a terminal.

use std::fs;

use super::exec::roles;
use crate::support::{pty::*, *};

#[test]
fn vi_writes_a_file() {
    for role in roles() {
        if !has("vi") {
            return;
        }
        let init = Init::start(role, &[]);
        let file = init.scratch.path().join("written");
        fs::write(&file, "first line\n").unwrap();
        let mut pty = Pty::open();
        let before = pty.modes();
        let mut client = init.client(&["exec", "-it", "--", "vi", "-u", "NONE", file.to_str().unwrap()]);
        let mut child = pty.start(client.env("TERM", "vt100"));
        pty.expect("first line");
        pty.type_in("Ohello from vi");
        pty.expect("hello from vi");
        pty.type_in(ESCAPE);
        pty.enter(":wq");
        assert_eq!(pty.end(&mut child).0, 0);
        assert_eq!(fs::read_to_string(&file).unwrap(), "hello from vi\nfirst line\n");
        assert_eq!(pty.modes(), before);
    }
}

#[test]
fn htop_shows_the_jobs_processes_and_quits() {
    if !has("htop") {
        return;
    }
    let init = Init::start(As::Subreaper, &[]);
    let mut pty = Pty::open();
    let before = pty.modes();
    let mut client = init.client(&["exec", "-it", "-e", "HTOPRC=/dev/null", "--", "htop", "-C"]);
    let mut child = pty.start(client.env("TERM", "xterm"));
    // Its header, and its row of keys below.
    pty.expect("Tasks");
    pty.expect("Quit");
    pty.type_in("q");
    assert_eq!(pty.end(&mut child).0, 0);
    assert_eq!(pty.modes(), before);
}

#[test]
fn python_answers() {
    if !has("python3") {
        return;
    }
    let init = Init::start(As::Subreaper, &[]);
    let mut pty = Pty::open();
    let before = pty.modes();
    let mut child = pty.start(init.client(&["exec", "-it", "--", "python3", "-q"]).env("TERM", "xterm"));
    pty.expect(">>> ");
    pty.enter("print(6 * 7, 'is it')");
    pty.expect("42 is it");
    pty.expect(">>> ");
    pty.type_in(END);
    assert_eq!(pty.end(&mut child).0, 0);
    assert_eq!(pty.modes(), before);
}
