//! What the originals' own suites count: every exit code, deaths by a signal that was passed on, processes.

use super::*;

const THREE: &[&str] = &["tini", "dumb-init", "catatonit"];

/// As few words as each takes before a command.
fn options(who: &str) -> &'static [&'static str] {
    if who == "tini" { &["-s", "--"] } else { &["--"] }
}

#[test]
fn every_exit_code_is_passed_on_and_remapped_as_by_the_original() {
    for case in cases(THREE).into_iter().filter(|case| !case.pid1) {
        let exits = |program, code: &str, before: &[&str]| {
            let script = format!("exit {code}");
            let args = [before, options(case.who), &["sh", "-c", &script]].concat();
            status(case.command(program, &args).status().unwrap())
        };
        for code in 0..=255 {
            let code = code.to_string();
            case.compare("every exit code", |program| exits(program, &code, &[]));
            if case.who == "tini" {
                case.compare("every exit code, remapped", |program| exits(program, &code, &["-e", &code]));
            }
        }
    }
}

#[test]
fn a_main_that_dies_of_a_signal_to_the_init_gives_128_and_its_number() {
    for (case, signal) in cases(&ALL).into_iter().flat_map(|case| [(case, 15), (case, 10), (case, 12), (case, 1)]) {
        case.compare("death by a signal passed on", |program| {
            let mark = mark("dies");
            // Not before it has executed it, or the signal would be the init's own child's.
            let main = ["perl", "-e", "$| = 1; print \"up\\n\"; sleep 1000", &mark];
            let args = [if TINI.contains(&case.who) { &["-s", "--"][..] } else { &["--"] }, &main].concat();
            let mut child = case.command(program, &args).stdout(Stdio::piped()).spawn().unwrap();
            assert_eq!(lines(child.stdout.take().unwrap()).recv_timeout(PATIENCE).unwrap(), "up");
            run("kill", &["-s", &signal.to_string(), &case.init(&child).to_string()]);
            let code = status(wait(&mut child));
            assert_eq!(code, 128 + signal, "{case:?} {program:?}");
            code
        });
    }
}

#[test]
fn a_pipeline_is_no_process_more_and_as_many_survive() {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let ways: &[(&[&str], &[&[&str]])] = &[
        (&["tini"], &[&["-s", "--"], &["-s", "-g", "--"]]),
        (DUMB_INIT, &[&["--"], &["-c", "--"]]),
        (CATATONIT, &[&["--"], &["-g", "--"]]),
    ];
    for (who, ways) in ways {
        for (case, way) in
            cases(who).into_iter().filter(|case| !case.pid1).flat_map(|case| ways.iter().map(move |way| (case, *way)))
        {
            case.compare("pipelines", |program| {
                // A time to sleep that nobody else sleeps.
                let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let mark = format!("{}{number:05}", std::process::id());
                let sleep = format!("1000.{mark}");
                // Two pipelines, one of them in the background.
                let script = format!("sleep {sleep} | sleep {sleep} & sleep {sleep} | sleep {sleep}");
                let mut child = case.command(program, &[way, &["sh", "-c", &script]].concat()).spawn().unwrap();
                // The init and its shell have the script's text: those that are just forked off are not counted yet.
                let sleepers = || -> Vec<i32> {
                    let is_sleep =
                        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n");
                    running(&sleep).into_iter().filter(is_sleep).collect()
                };
                until("four sleepers", || (sleepers().len() == 4).then_some(()));
                let all = running(&sleep).len();
                run("kill", &["-s", "TERM", &child.id().to_string()]);
                let code = status(wait(&mut child));
                let spared = !way.contains(&"-g") && (case.who != "dumb-init" || way.contains(&"-c"));
                if !spared {
                    until("their ends", || sleepers().is_empty().then_some(()));
                }
                let left = sleepers();
                for pid in &left {
                    let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
                }
                assert_eq!((all, left.len()), (6, if spared { 4 } else { 0 }), "{case:?} {program:?} {way:?}");
                (code, all, left.len())
            });
        }
    }
}
