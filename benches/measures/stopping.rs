//! Reaping, and leaving.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::mount::{MntFlags, MsFlags, mount, umount, umount2};

use crate::{
    engines,
    lab::{
        Contender, Lab, Namespace, Role, Turn, in_turns, kill, monotonic, ms, quiet, scratch, term, wait_for, words,
    },
    report::{Row, Value, single, summary},
    support::{FIXTURES, children, until},
};

fn with(init: &Contender, command: &[&str]) -> Vec<String> {
    [&init.words[..], &words(command, &[])].concat()
}

/// From the start until none of 10,000 orphans is a zombie; and how many were at once.
pub fn orphans(lab: &Lab) -> Vec<Row> {
    const COUNT: &str = "10000";
    let scratch = scratch();
    let orphans = FIXTURES.join("orphans");
    let contenders = lab.contenders(true, "floor", &scratch.path().join("control"));
    let rounds = lab.rounds(9, 3);
    let mut most = vec![Vec::new(); contenders.len()];
    let turns = contenders.iter().zip(&mut most).map(|(one, most)| {
        let words = with(one, &[orphans.to_str().unwrap(), COUNT]);
        Turn::new(one.name, one.role, move || {
            let start = Instant::now();
            let mut namespace = Namespace::start(&words);
            let init = namespace.init;
            // What the init has as children: main, and who is not reaped yet.
            let (mut at_once, mut took) = (0, 0.0);
            let done = std::sync::atomic::AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    loop {
                        let made = done.load(std::sync::atomic::Ordering::Acquire);
                        let left = children(init).len().saturating_sub(1);
                        at_once = at_once.max(left);
                        if made && left == 0 {
                            took = ms(start);
                            return;
                        }
                        thread::sleep(Duration::from_millis(1));
                    }
                });
                namespace.says("made");
                done.store(true, std::sync::atomic::Ordering::Release);
            });
            most.push(f64::from(at_once as u32));
            took
        })
    });
    let values = in_turns(rounds, turns.collect());
    let met = |row: &Row| row.at_most(1.0, "tini-static");
    let row = Row::new("10,000 orphans: until none is a zombie", "ms from the start", values);
    let most = contenders.iter().zip(most).map(|(one, most)| summary(one.name, one.role, most)).collect();
    vec![
        row.target("≤ tini", met).not_there(lab.missing()),
        Row::new("... most zombies at once", "seen by looking every ms", most).target("≤ tini", met),
    ]
}

fn last(path: &Path) -> (usize, i64) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let times: Vec<i64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    (times.len(), times.iter().copied().max().unwrap_or(0))
}

/// From the last one's end to the init's, as PID 1.
pub fn many(lab: &Lab) -> Vec<Row> {
    let scratch = scratch();
    let (control, log) = (scratch.path().join("control"), scratch.path().join("log"));
    let mut rows = Vec::new();
    for count in [1_usize, 100, 1000] {
        let contenders = lab.contenders(true, "leave", &control);
        let mut saved = vec![Vec::new(); contenders.len()];
        let turns = contenders.iter().zip(&mut saved).map(|(one, saved)| {
            let words = with(one, &[&lab.program("load"), "handlers", &count.to_string(), log.to_str().unwrap()]);
            let log = &log;
            Turn::new(one.name, one.role, move || {
                let _ = fs::remove_file(log);
                let mut namespace = Namespace::start(&words);
                namespace.says("up");
                let asked = monotonic();
                namespace.signal();
                namespace.end();
                let ended = monotonic();
                let (handled, last) = last(log);
                saved.push(handled as f64);
                // Who asked nobody just goes.
                (ended - if handled == 0 { asked } else { last }) as f64 / 1e6
            })
        });
        let values = in_turns(lab.rounds(20, 5), turns.collect());
        let (values, lost) = apart(values, saved, count);
        let title = format!(
            "stop with {count} that handle{} SIGTERM: from the last one's end to the exit",
            if count == 1 { "s" } else { "" }
        );
        let row = Row::new(title, "ms", values)
            .target("≤ 20 + floor", |row| Some((row.of("lastout")?.median <= 20.0 + row.of("floor")?.median).into()));
        rows.push(row.note(lost));
    }
    rows.push(jobs(lab, &control, &log));
    rows
}

/// Those whose processes all came to handle the signal; and what the others lost.
fn apart(values: Vec<Value>, saved: Vec<Vec<f64>>, count: usize) -> (Vec<Value>, String) {
    let mut kept = Vec::new();
    let mut lost = Vec::new();
    for (value, saved) in values.into_iter().zip(saved) {
        let handled: f64 = saved.iter().sum();
        let of = saved.len() * count;
        if handled as usize == of {
            kept.push(value);
        } else {
            lost.push(format!("{} {handled:.0} of {of}", value.name));
        }
    }
    let lost = if lost.is_empty() { String::new() } else { format!("came to handle it under {}", lost.join(", ")) };
    (kept, lost)
}

/// The same with jobs.
fn jobs(lab: &Lab, control: &Path, log: &Path) -> Row {
    const JOBS: usize = 100;
    let all = words(&[&lab.program("lastout"), "--control", control.to_str().unwrap()], &[]);
    let client = [&lab.program("lastout"), "exec", "-d", "--control", control.to_str().unwrap(), "--"];
    let mut command = quiet(&words(&client, &[&lab.program("load"), "handler", log.to_str().unwrap()]));
    let take = || {
        let _ = fs::remove_file(log);
        let mut namespace = Namespace::start(&all);
        wait_for(lab, control);
        for _ in 0..JOBS {
            crate::lab::time(&mut command);
        }
        // Until each of them sleeps: it waits for the signal then.
        let keepers = until("the keepers", || Some(children(namespace.init)).filter(|all| all.len() == JOBS));
        for keeper in keepers {
            until("a job", || {
                let job = *children(keeper).first()?;
                let text = fs::read_to_string(format!("/proc/{job}/stat")).ok()?;
                text.contains("(load) S").then_some(())
            });
        }
        namespace.signal();
        namespace.end();
        let ended = monotonic();
        let (handled, last) = last(log);
        assert_eq!(handled, JOBS);
        (ended - last) as f64 / 1e6
    };
    let values = in_turns(lab.rounds(10, 3), vec![Turn::new("lastout", Role::Lastout, take)]);
    let row = Row::new("stop with 100 jobs that handle SIGTERM: from the last one's end to the exit", "ms", values);
    row.target("≤ 20", |row| Some((row.values[0].median <= 20.0).into()))
}

pub const NOTHING: &str = "stop with nothing to wait for, as PID 1";

/// From the signal to the end.
pub fn nothing(lab: &Lab) -> Vec<Row> {
    let scratch = scratch();
    let control = scratch.path().join("control");
    let contenders = lab.contenders(true, "leave", &control);
    let hold = words(&[&lab.program("lastout"), "--control", control.to_str().unwrap()], &[]);
    let mut turns = Vec::new();
    for one in &contenders {
        let words = with(one, &[&lab.program("load"), "sleepers", "0"]);
        turns.push(Turn::new(one.name, one.role, move || stop(&words, |namespace| namespace.says("up"))));
    }
    turns.push(Turn::new("lastout holding", Role::Beside, || stop(&hold, |_| wait_for(lab, &control))));
    let values = in_turns(lab.rounds(300, 50), turns);
    let met = |row: &Row| row.at_most(1.0, "tini-static");
    let row = Row::new(NOTHING, "ms", values).target("≤ tini", met).not_there(lab.missing());
    vec![row, docker_stop(lab)]
}

fn stop(words: &[String], ready: impl FnOnce(&mut Namespace)) -> f64 {
    let mut namespace = Namespace::start(words);
    ready(&mut namespace);
    let start = Instant::now();
    namespace.signal();
    namespace.end();
    ms(start)
}

fn docker_stop(lab: &Lab) -> Row {
    const TITLE: &str = "`docker stop` with nothing to wait for";
    let control = scratch();
    let entries: [(&str, Role, &[&str]); 3] = [
        ("lastout", Role::Lastout, &["/bench/lastout", "--", "/bench/load", "sleepers", "0"]),
        ("tini-static", Role::Peer, &["/bench/tini-static", "--", "/bench/load", "sleepers", "0"]),
        ("catatonit", Role::Peer, &["/bench/catatonit", "--", "/bench/load", "sleepers", "0"]),
    ];
    let entries = entries.into_iter().filter(|(_, _, entry)| lab.programs.join(&entry[0]["/bench/".len()..]).exists());
    if engines::docker(lab, control.path(), &["/bench/load", "sleep"], &[]).is_err() {
        return Row::failed(TITLE).not_there(vec!["docker".into()]);
    }
    let turns = entries.map(|(name, role, entry)| {
        let control = &control;
        Turn::new(name, role, move || {
            let container = engines::docker(lab, control.path(), entry, &[]).unwrap();
            until("the container", || {
                let output = Command::new("docker").args(["logs", &container.name]).output().unwrap();
                output.stdout.starts_with(b"up").then_some(())
            });
            crate::lab::time(&mut quiet(&words(&["docker", "stop", &container.name], &[])))
        })
    });
    let row = Row::new(TITLE, "ms", in_turns(lab.rounds(20, 5), turns.collect()));
    row.target("≤ tini", |row| row.at_most(1.0, "tini-static"))
}

/// Processes that need a moment after SIGTERM to save their work: begun and saved; and whether a volume that one of them
/// is on can be unmounted by one call right after the init.
pub fn savers(lab: &Lab) -> Vec<Row> {
    const MS: &str = "100";
    let rounds = lab.rounds(20, 5);
    let scratch = scratch();
    let file = |name: &str| scratch.path().join(name);
    let volume = file("volume");
    fs::create_dir(&volume).unwrap();
    let (mut saved, mut busy) = (Vec::new(), Vec::new());
    let contenders = lab.contenders(true, "", &file("control"));
    let mut counts = vec![(0, 0); contenders.len()];
    for _ in 0..rounds {
        for (one, counts) in contenders.iter().zip(&mut counts) {
            for name in ["background", "background.up", "entered", "entered.up"] {
                let _ = fs::remove_file(file(name));
            }
            let background = file("background");
            let main = with(one, &[&lab.program("load"), "daemon", background.to_str().unwrap(), MS]);
            let mut namespace = Namespace::start(&main);
            namespace.says("up");
            // What `docker exec` does: into the namespaces from outside, with a parent that is not in them.
            let enter = ["nsenter", "-t", &namespace.init.to_string(), "-p", "-m", &lab.program("load"), "saver"];
            let mut entered = quiet(&words(&enter, &[file("entered").to_str().unwrap(), MS])).spawn().unwrap();
            until("who entered", || file("entered.up").exists().then_some(()));
            namespace.signal();
            namespace.end();
            let _ = entered.wait();
            counts.0 += ["background", "entered"].iter().filter(|name| file(name).exists()).count();
        }
        let subreapers = lab.contenders(false, "", &file("control"));
        for (one, counts) in subreapers.iter().zip(&mut counts) {
            counts.1 += usize::from(is_busy(lab, one, &volume, MS));
        }
    }
    for (one, (files, ebusy)) in contenders.iter().zip(counts) {
        saved.push(single(one.name, one.role, files as f64));
        busy.push(single(one.name, one.role, ebusy as f64));
    }
    let begun = 2 * rounds;
    let mut row =
        Row::more(format!("shutdown: files saved of {begun} begun by exec'd and background processes"), "", saved);
    // A ratio to nothing is none.
    row.to_best_peer = None;
    let mut busy = Row::new(format!("EBUSY at the unmount after it, of {rounds}, not as PID 1"), "", busy);
    busy.to_best_peer = None;
    vec![
        row.target("all", |row| Some((row.of("lastout")?.median as usize == begun).into())).not_there(lab.missing()),
        busy.target("0", |row| Some((row.of("lastout")?.median == 0.0).into())),
    ]
}

fn is_busy(lab: &Lab, init: &Contender, volume: &Path, takes: &str) -> bool {
    mount(Some("lastout-bench"), volume, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
    let file = volume.join("file");
    let words = with(init, &[&lab.program("load"), "daemon", file.to_str().unwrap(), takes]);
    let mut child = quiet(&words).stdout(Stdio::piped()).spawn().unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    let saver: i32 = fs::read_to_string(volume.join("file.up")).unwrap().trim().parse().unwrap();
    // The inits forward it to main only: what is in the background is theirs to ask.
    term(child.id() as i32);
    let _ = child.wait();
    let busy = umount(volume).is_err();
    if busy {
        kill(saver);
        umount2(volume, MntFlags::MNT_DETACH).unwrap();
    }
    busy
}
