//! Terminals of containers: main's, and one that a client on the host asks for.

use std::process::Command;

use super::engine::*;
use crate::support::{pty::*, *};

/// A shell whose words for its prompt are its own.
pub(crate) const SHELL: [&str; 4] = ["bash", "--norc", "--noprofile", "-i"];

/// What somebody does in a shell who is at its prompt: job control, sizes, the end.
pub(crate) fn work_in(pty: &mut Pty) {
    // The engine gives a terminal its size when it is there already.
    let has_size =
        |size: &str| format!("until [ \"$(stty size)\" = '{size}' ]; do :; done; echo \"size=$(stty size)\"");
    pty.enter(&has_size("37 101"));
    pty.expect("size=37 101");
    pty.expect("ready> ");
    pty.resize(120, 50);
    pty.enter(&has_size("50 120"));
    pty.expect("size=50 120");
    pty.expect("ready> ");
    pty.enter("sh -c 'echo \"re\"ads; exec cat'");
    pty.expect("reads");
    pty.enter("line");
    pty.expect("line\r\nline\r\n");
    pty.type_in(SUSPEND);
    pty.expect("Stopped");
    pty.expect("ready> ");
    pty.enter("fg");
    // Printed when the terminal is no longer the prompt's.
    pty.expect("exec cat'\r\n");
    pty.enter("other");
    pty.expect("other\r\nother\r\n");
    pty.type_in(INTERRUPT);
    pty.expect("ready> ");
    pty.enter("echo code=$?");
    pty.expect("code=130\r\n");
    pty.expect("ready> ");
    pty.enter("exit 7");
}

#[test]
fn a_shell_as_main_has_all_of_its_terminal() {
    if !has("docker") {
        return;
    }
    let name = mark("terminal");
    let run = |words: &[&str]| {
        let mut command = docker();
        command.args(["run", "--rm", "-it", "--env", "PS1=ready> ", "--name", &name, *DEBIAN, "--"]).args(words);
        command
    };
    let mut pty = Pty::open();
    let before = pty.modes();
    let mut child = pty.start(&run(&SHELL));
    pty.expect("ready> ");
    work_in(&mut pty);
    assert_eq!(pty.end(&mut child).0, 7);
    assert_eq!(pty.modes(), before);
    // Nobody could let it go on, so ^Z is not to stop it.
    let mut child = pty.start(&run(&["sh", "-c", "echo \"re\"ads; exec cat"]));
    pty.expect("reads");
    for line in ["first", "second"] {
        pty.enter(line);
        pty.expect(&format!("{line}\r\n{line}\r\n"));
        pty.type_in(SUSPEND);
    }
    pty.enter("third");
    pty.expect("third\r\n");
    pty.expect("third\r\n");
    pty.type_in(END);
    assert_eq!(pty.end(&mut child).0, 0);
}

#[test]
fn a_client_on_the_host_has_a_terminal_in_the_container() {
    if !has("docker") {
        return;
    }
    let container = Container::start(&DEBIAN, &[], &[]);
    let mut pty = Pty::open();
    let before = pty.modes();
    let mut client = Command::new(release());
    client.args(["exec", "-it", "--wait", "30s", "-e", "PS1=ready> ", "-u", "nobody", "--"]).args(SHELL);
    let mut child = pty.start(client.env("LASTOUT_CONTROL", container.control()));
    pty.expect("ready> ");
    pty.enter("echo $(tty) is $(stat -c %U $(tty))\\'s in $HOSTNAME");
    let id = container.docker(&["inspect", "--format", "{{.Config.Hostname}}"]);
    let said = pty.expect(&format!(" is nobody's in {}", id.trim()));
    assert!(said.contains("/dev/pts/"), "{said}");
    pty.expect("ready> ");
    work_in(&mut pty);
    assert_eq!(pty.end(&mut child).0, 7);
    assert_eq!(pty.modes(), before);
    // And back it is when the container goes.
    let mut client = Command::new(release());
    client.args(["exec", "-it", "--", "sh", "-c", "echo \"re\"ads; exec cat"]);
    let mut child = pty.start(client.env("LASTOUT_CONTROL", container.control()));
    pty.expect("reads");
    assert_ne!(pty.modes(), before);
    container.docker(&["kill"]);
    assert_eq!(pty.end(&mut child).0, 125);
    assert_eq!(pty.modes(), before);
}

/// `vi`, `htop` and `python` as a person uses them, by a client in this way.
fn use_programs(client: &dyn Fn(&[&str]) -> Command) {
    let file = format!("/tmp/{}", mark("vi"));
    let mut pty = Pty::open();
    let before = pty.modes();
    let mut child = pty.start(&client(&["vi", "-u", "NONE", &file]));
    pty.expect(&file);
    pty.type_in("ihello from vi");
    pty.expect("hello from vi");
    pty.type_in(ESCAPE);
    // It draws all anew, down to lines that were not there.
    pty.resize(WINDOW.columns + 10, WINDOW.rows + 10);
    pty.expect(&format!("\x1b[{};", WINDOW.rows + 9));
    pty.enter(":wq");
    assert_eq!(pty.end(&mut child).0, 0);
    assert_eq!(pty.modes(), before);
    let mut child = pty.start(&client(&["cat", &file]));
    let (code, shown) = pty.end(&mut child);
    assert_eq!((code, &*shown), (0, "hello from vi\r\n"));

    let mut child = pty.start(&client(&["env", "HTOPRC=/dev/null", "htop", "-C"]));
    // Its header, a process, and its row of keys below.
    pty.expect("Tasks");
    pty.expect("lastout");
    pty.expect("Quit");
    pty.type_in("q");
    assert_eq!(pty.end(&mut child).0, 0);
    assert_eq!(pty.modes(), before);

    let mut child = pty.start(&client(&["python3", "-q"]));
    pty.expect(">>> ");
    pty.enter("import os; print(6 * 7, 'is it, below', open('/proc/1/comm').read())");
    pty.expect("42 is it, below lastout");
    pty.expect(">>> ");
    pty.enter("for i in range(10 ** 12): i or print('up and', 'running')");
    pty.expect("... ");
    pty.enter("");
    pty.expect("up and running");
    pty.type_in(INTERRUPT);
    pty.expect("KeyboardInterrupt");
    pty.expect(">>> ");
    // Or its end would be one by that signal.
    pty.enter("print('goes', 'on')");
    pty.expect("goes on");
    pty.expect(">>> ");
    pty.type_in(END);
    assert_eq!(pty.end(&mut child).0, 0);
    assert_eq!(pty.modes(), before);
}

#[test]
fn vi_htop_and_python_work_from_inside_and_from_the_host() {
    if !has("docker") {
        return;
    }
    let container = Container::start(&TERMINALS, &[], &[]);
    let terminal = ["exec", "-it", "--wait", "30s", "-e", "TERM=xterm", "--"];
    use_programs(&|words| {
        let mut command = Command::new(release());
        command.args(terminal).args(words).env("LASTOUT_CONTROL", container.control());
        command
    });
    use_programs(&|words| {
        let mut command = docker();
        command.args(["exec", "-it", &container.name, "lastout"]).args(terminal).args(words);
        command
    });
}
