//! Main's terminal, which is the one that lastout was started on.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Child, Command},
};

use super::exec::watcher_in;
use crate::support::{pty::*, *};

const SHELL: [&str; 3] = ["--norc", "--noprofile", "-i"];

/// A shell with job control, at its prompt.
fn shell(directory: &tempfile::TempDir) -> (Pty, Child) {
    let mut pty = Pty::open();
    let mut shell = Command::new("bash");
    shell.args(SHELL).env("PS1", "outer> ").env("TERM", "vt100").env_remove("LASTOUT_CONTROL");
    let child = pty.start(shell.env("HOME", directory.path()));
    pty.expect("outer> ");
    (pty, child)
}

/// `lastout`, with a control directory of its own, for a shell.
fn words(directory: &tempfile::TempDir, main: &str) -> String {
    format!("{LASTOUT} --control {} -- {main}", directory.path().join("control").display())
}

#[test]
fn a_shells_keys_interrupt_it_stop_it_and_fg_lets_it_go_on() {
    let scratch = scratch();
    let (mut pty, mut child) = shell(&scratch);
    let before = pty.modes();
    let perl = format!("perl {}", watcher_in(&scratch).display());
    pty.enter("set -o pipefail");
    pty.expect("outer> ");
    // Alone, below a shell without job control, and as a part of a pipeline.
    let main = words(&scratch, &perl);
    for command in [main.clone(), format!("sh -c '{main}; exit $?'"), format!("{main} | cat")] {
        pty.enter(&command);
        pty.expect("<up>");
        for in_background in [false, true] {
            pty.type_in(SUSPEND);
            pty.expect("Stopped");
            pty.expect("outer> ");
            if in_background {
                pty.enter("bg");
                pty.expect_all(&["<again>", "outer> "]);
            }
            pty.enter("fg");
            match in_background {
                true => until("the foreground", || (pty.foreground() != child.id() as i32).then_some(())),
                false => drop(pty.expect("<again>")),
            }
            for columns in [WINDOW.columns + 1, WINDOW.columns] {
                pty.resize(columns, WINDOW.rows);
                pty.expect(&format!("<size {} {columns}>", WINDOW.rows));
            }
        }
        pty.type_in(INTERRUPT);
        pty.expect("outer> ");
        pty.enter("echo code=$?");
        let said = pty.expect("outer> ");
        assert!(said.contains("code=130\r\n"), "{command}: {said}");
        assert_eq!(pty.modes(), before, "{command}");
    }
    pty.enter("exit");
    pty.end(&mut child);
}

#[test]
fn one_that_reads_in_the_background_stops_and_reads_on_in_the_foreground() {
    let scratch = scratch();
    let (mut pty, mut child) = shell(&scratch);
    pty.enter("set -b");
    pty.expect("outer> ");
    pty.enter(&words(&scratch, "sh -c 'echo \"re\"ads; exec cat'"));
    pty.expect("reads\r\n");
    pty.enter("first");
    pty.expect("first\r\nfirst\r\n");
    pty.type_in(SUSPEND);
    pty.expect("Stopped");
    pty.expect("outer> ");
    pty.enter("bg");
    // It wants to read, which only the foreground may.
    pty.expect_all(&["Stopped", "outer> "]);
    pty.enter("fg");
    pty.expect("exec cat'\r\n");
    pty.enter("second");
    pty.expect("second\r\nsecond\r\n");
    pty.type_in(END);
    pty.expect("outer> ");
    pty.enter("echo code=$?");
    pty.expect("code=0\r\n");
    pty.enter("exit");
    pty.end(&mut child);
}

#[test]
fn one_that_ends_in_the_background_leaves_the_terminal_to_the_shell() {
    let scratch = scratch();
    let (mut pty, mut child) = shell(&scratch);
    let file = scratch.path().join("goes-on").display().to_string();
    // No shell: while that forks as vfork(2) does it cannot stop.
    let main = r#"perl -e '$| = 1; print "re" . "ady\n"; select(undef, undef, undef, 0.01) until -e $ARGV[0]'"#;
    pty.enter(&words(&scratch, &format!("{main} {file}")));
    pty.expect("ready\r\n");
    pty.type_in(SUSPEND);
    pty.expect("Stopped");
    pty.expect("outer> ");
    pty.enter("bg");
    pty.expect("outer> ");
    fs::write(&file, "").unwrap();
    until("its end", || (!is_running(&file)).then_some(()));
    pty.enter("echo \"go\"es; cat");
    pty.expect("goes\r\n");
    pty.type_in(END);
    pty.expect("outer> ");
    pty.enter("exit");
    pty.end(&mut child);
}

#[test]
fn where_nobody_could_let_it_go_on_the_key_stops_nothing() {
    let scratch = scratch();
    let path = watcher_in(&scratch).display().to_string();
    let control = scratch.path().join("control").display().to_string();
    let main = ["--control", &control, "--", "perl", &path];
    let mut commands = vec![lastout(&main), lastout(&[&["--pid-namespace"][..], &main].concat())];
    if has("root") {
        commands.push(lastout_as_pid1(&main));
    }
    for command in commands {
        let mut pty = Pty::open();
        let before = pty.modes();
        let mut child = pty.start(&command);
        pty.expect("<up>");
        pty.type_in(SUSPEND);
        pty.expect("<again>");
        pty.type_in(INTERRUPT);
        assert_eq!(pty.end(&mut child).0, 130, "{command:?}");
        assert_eq!(pty.modes(), before, "{command:?}");
    }
}

#[test]
fn the_modes_come_back_when_a_signal_ends_main_and_stay_when_it_ends_by_itself() {
    let scratch = scratch();
    let control = scratch.path().join("control").display().to_string();
    let lastout_itself = ["lastout", "--control", &control];
    let itself = [&lastout_itself[..], &[&lastout_itself[..], &["--pid-namespace"]].concat()].map(<[&str]>::to_vec);
    let personas = [vec!["tini", "-s"], vec!["dumb-init"], vec!["dumb-init", "-c"], vec!["catatonit"]];
    for init in itself.into_iter().chain(personas) {
        for (main, by, comes_back) in [
            ("stty raw -echo; echo up; read line; kill -9 $$", None, true),
            ("stty raw -echo; echo up; exec sleep 1000", Some("TERM"), true),
            ("stty raw -echo; echo up; read line; exit 0", None, false),
        ] {
            let mut pty = Pty::open();
            let before = pty.modes();
            let mut child = pty.start(called(&scratch, &init).args(["--", "sh", "-c", main]));
            pty.expect("up");
            assert_ne!(pty.modes(), before, "{main}");
            match by {
                Some(signal) => drop(run("kill", &["-s", signal, &child.id().to_string()])),
                None => pty.type_in("\n"),
            }
            pty.end(&mut child);
            assert_eq!(pty.modes() == before, comes_back, "{init:?} {main}");
        }
    }
}

/// An init by the name that is the first of these words, with the others before its command.
fn called(directory: &tempfile::TempDir, words: &[&str]) -> Command {
    let path = directory.path().join(words[0]);
    let _ = symlink(LASTOUT, &path);
    let mut command = Command::new(path);
    command.args(&words[1..]).env_remove("LASTOUT_CONTROL");
    command
}

#[test]
fn the_modes_come_back_below_a_shell_too() {
    let scratch = scratch();
    for words in [&["dumb-init"][..], &["dumb-init", "-c"], &["tini", "-s"]] {
        let (mut pty, mut child) = shell(&scratch);
        let init = format!("{} {}", called(&scratch, words).get_program().display(), words[1..].join(" "));
        // As commands see them: the shell has its own while a line is typed.
        let [before, after] = ["before", "after"].map(|name| scratch.path().join(name));
        let main = "stty raw -echo; kill -KILL $$";
        pty.enter(&format!("stty -g >{}; {init} -- sh -c '{main}'; stty -g >{}", before.display(), after.display()));
        pty.expect("outer> ");
        let [before, after] = [before, after].map(|path| fs::read_to_string(path).unwrap());
        assert_eq!(before, after, "{words:?}");
        pty.enter("exit");
        pty.end(&mut child);
    }
}

#[test]
fn a_terminal_that_hangs_up_is_told_to_main() {
    let scratch = scratch();
    let saved = scratch.path().join("saved");
    let control = scratch.path().join("control").display().to_string();
    let main = format!(
        "trap 'echo saved > {}; exit 5' HUP; echo up; while :; do sleep 0.02; done >/dev/null 2>&1",
        saved.display()
    );
    let mut pty = Pty::open();
    let mut child = pty.start(&lastout(&["--control", &control, "--", "sh", "-c", &main]));
    pty.expect("up");
    pty.close();
    assert_eq!(status(wait(&mut child)), 5);
    assert_eq!(fs::read_to_string(saved).unwrap(), "saved\n");
}
