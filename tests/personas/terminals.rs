//! On a terminal, as the leader of its session, as in a container.

use super::*;
use crate::support::pty::*;

#[test]
fn what_the_kernel_says_to_a_leader_without_its_terminal_is_not_mains() {
    for (case, way) in cases(DUMB_INIT).into_iter().flat_map(|case| [(case, &[][..]), (case, &["-c"])]) {
        case.compare("leader of a session", |program| {
            let pty = Pty::open();
            let mark = mark("recorder");
            let mut command = case.leader(program, &[way, &["--", "perl", "-e", RECORDER, &mark]].concat());
            let mut child = pty.attach(&mut command).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let got = lines(child.stdout.take().unwrap());
            (0..2).for_each(|_| drop(got.recv_timeout(PATIENCE).unwrap()));
            let recorder = Recorder { case, init: case.init(&child), child, mark, got };
            let told = || recorder.told(&["main"]).into_iter().filter(|line| line.starts_with("main")).collect();
            // SIGHUP and SIGCONT, once, when dumb-init has left it.
            let at_first: Vec<_> = told();
            assert_eq!(at_first, ["main 64"], "{case:?} {program:?}");
            [1, 18].iter().for_each(|signal| recorder.send(*signal));
            let sent: Vec<_> = told();
            pty.close();
            let hung_up: Vec<_> = told();
            (at_first, sent, hung_up, recorder.end())
        });
    }
}

#[test]
fn a_shell_below_it_has_job_control() {
    let ways: &[(&[&str], &[&[&str]])] =
        &[(&["tini"], &[&["-s", "--"]]), (DUMB_INIT, &[&["--"], &["-c", "--"]]), (CATATONIT, &[&["--"]])];
    for (case, way) in ways
        .iter()
        .flat_map(|(who, ways)| cases(who).into_iter().flat_map(|case| ways.iter().map(move |way| (case, *way))))
    {
        case.compare("job control", |program| {
            let mut pty = Pty::open();
            let mut command = case.leader(program, &[way, &["bash", "--norc", "--noprofile", "-i"]].concat());
            let mut child = pty.attach(command.env("PS1", "in> ").env("TERM", "vt100")).spawn().unwrap();
            let mut seen = vec![pty.expect("in> ").contains("no job control")];
            let code = |pty: &mut Pty, expected: i32| {
                pty.expect("in> ");
                pty.enter("echo code=$?");
                // When a job's end is told depends on the moment, so it is not compared.
                pty.expect(&format!("code={expected}\r\n"));
                pty.expect("in> ");
            };
            pty.enter("sh -c 'echo \"re\"ady; exec cat'");
            pty.expect("ready\r\n");
            let main = pty.foreground();
            // catatonit's main blocks what would stop it: see below.
            if case.who != "catatonit" {
                pty.type_in(SUSPEND);
                pty.expect("Stopped");
                pty.expect("in> ");
                seen.push(pty.foreground() == main);
                pty.enter("fg");
                pty.expect("exec cat'\r\n");
            }
            pty.enter("again");
            pty.expect("again\r\nagain\r\n");
            seen.push(pty.foreground() != main);
            pty.type_in(INTERRUPT);
            code(&mut pty, 130);
            pty.enter("sleep 1000 & kill %1; wait %1");
            code(&mut pty, 143);
            // One that reads in the background stops, and reads in the foreground.
            if case.who != "catatonit" {
                pty.enter("head -1 & until [[ $(jobs -s) == *head* ]]; do sleep 0.01; done; echo \"sto\"od");
                pty.expect("stood\r\n");
                pty.expect("in> ");
                pty.enter("fg");
                pty.expect("head -1\r\n");
                pty.enter("read");
                code(&mut pty, 0);
            }
            pty.enter("exit 7");
            assert!(!seen.contains(&true), "{case:?} {program:?}: {seen:?}");
            (seen, pty.end(&mut child).0)
        });
    }
}

#[test]
fn a_key_stops_what_a_shell_below_catatonit_runs() {
    for case in cases(CATATONIT) {
        case.compare("a shell's ^Z", |program| {
            let mut pty = Pty::open();
            let mut command = case.leader(program, &["--", "bash", "--norc", "--noprofile", "-i"]);
            let mut child = pty.attach(command.env("PS1", "in> ").env("TERM", "vt100")).spawn().unwrap();
            pty.expect("in> ");
            pty.enter("sh -c 'echo \"re\"ady; exec cat'");
            pty.expect("ready\r\n");
            // Read by whoever has the foreground then.
            pty.type_in(SUSPEND);
            pty.enter("ever");
            let shown = pty.expect_one(&["ever\r\never\r\n", "Stopped"]);
            child.kill().unwrap();
            pty.end(&mut child);
            shown
        });
    }
}
