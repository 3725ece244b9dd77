//! A service's log: what comes of it where all is well, and where nothing takes it.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use lastout::{
    core::service::{Format, Log, Sink},
    keeper::logger::{self, Finished, Logger},
    sys::{fd, process, signals, spawn, wait},
};

use crate::support::*;

/// A process of one thread, as keepers are, that runs this; it must succeed.
fn in_keeper(what: impl FnOnce()) {
    let said = |pid: u32| std::env::temp_dir().join(format!("lastout-logger-{pid}"));
    let pid = spawn::fork_child(|| {
        // Its panics are this process's own.
        let path = said(std::process::id());
        std::panic::set_hook(Box::new(move |panic| {
            let _ = fs::write(&path, panic.to_string());
            process::exit_now(125)
        }));
        what();
        fs::write(said(std::process::id()), "done").unwrap();
        0
    });
    let pid = pid.unwrap();
    until("the keeper's end", || wait::has_ended(pid).then_some(()));
    let said = said(pid.get() as u32);
    let text = fs::read_to_string(&said).unwrap_or_default();
    let _ = fs::remove_file(&said);
    assert_eq!(text, "done");
}

fn file_log(path: &Path, max: u64, keep: u32, format: Format) -> Log {
    Log { sink: Sink::File { path: path.into(), max, keep }, format }
}

fn start(log: &Log) -> Logger {
    logger::start(log, &"ray".parse().unwrap(), None, None).unwrap()
}

fn say(to: &OwnedFd, text: &str) {
    File::from(to.try_clone().unwrap()).write_all(text.as_bytes()).unwrap();
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn ended(logger: Logger) -> u64 {
    match logger.finish() {
        Finished::Ended { dropped: Some(dropped) } => dropped,
        other => panic!("{other:?}"),
    }
}

/// Waits for something to be true of a file.
fn until_file(path: &Path, what: &str, is: impl Fn(&str) -> bool) {
    until(what, || is(&text(path)).then_some(()));
}

#[test]
fn lines_are_prefixed_json_or_raw_and_come_at_once() {
    let scratch = scratch();
    let path = |name: &str| scratch.path().join(name);
    in_keeper(|| {
        for (name, format) in [("prefix", Format::Prefix), ("json", Format::Json), ("raw", Format::Raw)] {
            let logger = start(&file_log(&path(name), 1 << 20, 1, format));
            say(&logger.stdout, "one\ntwo \"2\"\nhalf");
            until_file(&path(name), "two lines", |text| text.contains("two"));
            if format == Format::Raw {
                until_file(&path(name), "half a line", |text| text.ends_with("half"));
            }
            say(&logger.stdout, " and half\nno end");
            until_file(&path(name), "a line", |text| text.contains("half and half"));
            say(&logger.stderr, "\nerror\n");
            until_file(&path(name), "an error", |text| text.contains("error"));
            assert_eq!(ended(logger), 0);
        }
    });
    assert_eq!(text(path("raw")), "one\ntwo \"2\"\nhalf and half\nno end\nerror\n");
    let lines: Vec<(String, String)> = text(path("prefix"))
        .lines()
        .map(|line| line.split_once(' ').map(|(time, rest)| (time.into(), rest.into())).unwrap())
        .collect();
    let rest: Vec<&str> = lines.iter().map(|(_, rest)| rest.as_str()).collect();
    assert_eq!(rest, ["ray: one", "ray: two \"2\"", "ray: half and half", "ray: ", "ray: error", "ray: no end"]);
    for (time, _) in lines {
        let shape = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z");
    }
    let json: Vec<serde_json::Value> =
        text(path("json")).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json[1]["text"], "two \"2\"");
    assert_eq!((&json[1]["service"], &json[1]["stream"]), (&"ray".into(), &"stdout".into()));
    assert_eq!((&json[4]["text"], &json[4]["stream"]), (&"error".into(), &"stderr".into()));
}

#[test]
fn a_full_file_becomes_the_first_of_those_that_are_kept_and_nothing_between_is_lost() {
    let scratch = scratch();
    let path = scratch.path().join("log");
    in_keeper(|| {
        let logger = start(&file_log(&path, 10_000, 3, Format::Raw));
        for number in 0..4500 {
            say(&logger.stdout, &format!("line {number:04}\n"));
        }
        assert_eq!(ended(logger), 0);
    });
    let kept = [".3", ".2", ".1", ""].map(|end| text(format!("{}{end}", path.display())));
    let lines: Vec<String> = kept.concat().lines().map(String::from).collect();
    let expected: Vec<String> = (4500 - lines.len()..4500).map(|number| format!("line {number:04}")).collect();
    assert_eq!(lines, expected);
    assert!(
        kept[..3].iter().all(|text| text.len() == 10_000) && lines.len() >= 3000,
        "{:?}",
        kept.map(|text| text.len())
    );
    assert!(!PathBuf::from(format!("{}.4", path.display())).exists());
}

#[test]
fn a_blocked_reader_costs_lines_which_are_counted_and_the_service_no_time() {
    let scratch = scratch();
    let path = scratch.path().join("out");
    in_keeper(|| {
        let (read, write) = fd::pipe().unwrap();
        let log = Log { sink: Sink::Inherit, format: Format::Prefix };
        let logger = logger::start(&log, &"ray".parse().unwrap(), Some(write.as_fd()), None).unwrap();
        let begun = Instant::now();
        for number in 0..20_000 {
            say(&logger.stdout, &format!("{number:05} {}\n", "x".repeat(90)));
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        // The description that others share is as it was: a write of theirs waits.
        assert!(!is_nonblocking(&write));
        drop(write);
        let mut taken = Vec::new();
        let mut take = |part: &str| {
            until(part, || {
                let mut buffer = [0; 65536];
                while let Ok(Some(count @ 1..)) = fd::read(&read, &mut buffer) {
                    taken.extend_from_slice(&buffer[..count]);
                }
                String::from_utf8_lossy(&taken).contains(part).then_some(())
            });
        };
        take("lines dropped");
        say(&logger.stdout, "after\n");
        take("ray: after");
        let dropped = ended(logger);
        fs::write(&path, &taken).unwrap();
        fs::write(path.with_extension("dropped"), dropped.to_string()).unwrap();
    });
    let out = text(&path);
    let came = out.lines().filter(|line| line.ends_with('x')).count();
    let told: usize =
        out.lines().filter_map(|line| line.split("lastout: ").nth(1)?.split(' ').next()?.parse::<usize>().ok()).sum();
    assert_eq!((came + told, told.to_string()), (20_000, text(path.with_extension("dropped"))));
    assert!(came * 127 > 300 * 1024 && told > 0, "the queue was used: {came}");
    let numbers: Vec<&str> = out.lines().filter(|line| line.ends_with('x')).map(|line| &line[30..35]).collect();
    assert!(numbers.is_sorted(), "in order, and whole");
}

fn is_nonblocking(of: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", of.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    u32::from_str_radix(flags.trim(), 8).unwrap() & 0o4000 != 0
}

#[test]
fn a_reader_that_is_only_slow_gets_everything() {
    let scratch = scratch();
    let path = scratch.path().join("out");
    in_keeper(|| {
        let (read, write) = fd::pipe().unwrap();
        let log = Log { sink: Sink::Inherit, format: Format::Json };
        let logger = logger::start(&log, &"ray".parse().unwrap(), None, Some(write.as_fd())).unwrap();
        drop(write);
        let mut read = File::from(read);
        fd::set_nonblocking(&read, false).unwrap();
        let (out, pid) = (path.clone(), logger.pid);
        for number in 0..2000 {
            say(&logger.stderr, &format!("{number}\n"));
        }
        let reader = spawn::fork_child(|| {
            fd::close_all_but(&[std::os::fd::AsRawFd::as_raw_fd(&read)]);
            let mut all = String::new();
            sleep(Duration::from_millis(300));
            read.read_to_string(&mut all).unwrap();
            fs::write(out, all).unwrap();
            0
        });
        assert_eq!(ended(logger), 0);
        assert!(wait::has_ended(pid));
        until("the reader's end", || wait::has_ended(*reader.as_ref().unwrap()).then_some(()));
    });
    let texts: Vec<String> = text(&path)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].as_str().unwrap().into())
        .collect();
    assert_eq!(texts, (0..2000).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_costs_lines_and_the_log_goes_on_when_there_is_room() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    let volume = Volume::mount_with(&scratch.path().join("small"), &["-o", "size=128k"]);
    let (path, ballast) = (volume.path.join("log"), volume.path.join("ballast"));
    fs::write(&ballast, vec![0; 64 * 1024]).unwrap();
    in_keeper(|| {
        // What is kept is as large as the volume: it fills.
        let logger = start(&file_log(&path, 1 << 30, 1, Format::Raw));
        let begun = Instant::now();
        for number in 0..5000 {
            say(&logger.stdout, &format!("{number:05} {}\n", "x".repeat(93)));
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
        until_file(&path, "a full disk", |text| text.len() > 60 * 1024);
        // Room for all that waits.
        run("mount", &["-o", "remount,size=4m", volume_path(&path)]);
        until_file(&path, "a notice", |text| text.contains("lines dropped\n"));
        say(&logger.stdout, "after\n");
        until_file(&path, "more", |text| text.ends_with("after\n"));
        let dropped = ended(logger);
        let all = text(&path);
        let told =
            all.lines().filter_map(|line| line.strip_prefix("lastout: ")?.split(' ').next()?.parse::<u64>().ok());
        let told: u64 = told.sum();
        assert_eq!(told, dropped);
        assert_eq!(all.lines().filter(|line| line.len() == 99 && line.ends_with('x')).count() as u64 + told, 5000);
    });
    volume.unmount().unwrap();
}

fn volume_path(log: &Path) -> &str {
    log.parent().unwrap().to_str().unwrap()
}

#[test]
fn a_path_that_cannot_be_written_costs_lines_until_it_can() {
    let scratch = scratch();
    let path = scratch.path().join("not").join("yet").join("log");
    in_keeper(|| {
        let logger = start(&file_log(&path, 1 << 20, 1, Format::Raw));
        say(&logger.stdout, "early\n");
        sleep(Duration::from_millis(50));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        until_file(&path, "what had waited", |text| text == "early\n");
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert_eq!(ended(logger), 0);
        let nowhere = start(&file_log(Path::new("/proc/nowhere/log"), 1 << 20, 1, Format::Raw));
        say(&nowhere.stdout, "a\nb\nc\n");
        let begun = Instant::now();
        assert_eq!(ended(nowhere), 3);
        assert!(begun.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn an_escaped_holder_of_a_pipe_keeps_no_logger_and_a_dead_keeper_neither() {
    let scratch = scratch();
    let path = scratch.path().join("log");
    in_keeper(|| {
        let logger = start(&file_log(&path, 1 << 20, 1, Format::Raw));
        let escaped = logger.stdout.try_clone().unwrap();
        say(&escaped, "last words\n");
        let begun = Instant::now();
        assert_eq!(ended(logger), 0);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(text(&path), "last words\n");
        drop(escaped);

        // Both pipes at their end.
        let logger = start(&file_log(&path, 1 << 20, 1, Format::Raw));
        let Logger { stdout, stderr, pid, .. } = logger;
        say(&stdout, "the very last\n");
        drop((stdout, stderr));
        until("its end", || wait::has_ended(pid).then_some(()));
        assert_eq!(text(&path), "last words\nthe very last\n");

        // A keeper that is killed, whose service lives.
        let (read, write) = fd::pipe().unwrap();
        let keeper = spawn::fork_child(|| {
            let logger = start(&file_log(&path, 1 << 20, 1, Format::Raw));
            spawn::fork_child(|| {
                fd::close_all_but(&[std::os::fd::AsRawFd::as_raw_fd(&logger.stdout)]);
                sleep(Duration::from_secs(20));
                0
            })
            .unwrap();
            say(&logger.stdout, "from a lost keeper\n");
            say(&write, &format!("{}\n", logger.pid));
            sleep(Duration::from_secs(600));
            0
        })
        .unwrap();
        let pid = until("the logger", || {
            let mut buffer = [0; 64];
            let count = fd::read(&read, &mut buffer).ok()??;
            String::from_utf8_lossy(&buffer[..count]).trim().parse::<i32>().ok()
        });
        signals::send(keeper, "KILL".parse().unwrap()).unwrap();
        until("the logger's end", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
        assert!(text(&path).ends_with("from a lost keeper\n"));
    });
}

#[test]
fn a_logger_is_none_of_those_that_are_left() {
    let scratch = scratch();
    in_keeper(|| {
        let logger = start(&file_log(&scratch.path().join("log"), 1 << 20, 1, Format::Raw));
        assert!(!wait::has_children());
        assert_eq!(ended(logger), 0);
    });
}

#[test]
fn a_logger_that_hangs_keeps_no_run_from_ending() {
    // A process that is stopped does as little as one that hangs in a write.
    let scratch = scratch();
    let path = scratch.path().join("log");
    in_keeper(|| {
        let logger = start(&file_log(&path, 1 << 20, 1, Format::Raw));
        say(&logger.stdout, "a\n");
        until_file(&path, "a line", |text| !text.is_empty());
        signals::send(logger.pid, "STOP".parse().unwrap()).unwrap();
        let (pid, begun) = (logger.pid, Instant::now());
        assert_eq!(logger.finish(), Finished::Ended { dropped: None });
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(wait::has_ended(pid));
    });
}
