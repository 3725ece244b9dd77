//! Where a service's output goes, and that nothing waits for it.

use std::os::fd::OwnedFd;

use super::*;

const SAY: &str = "command = 'echo out; echo err >&2; exec sleep 600'\n";

#[test]
fn output_is_inherited_prefixed_or_in_json() {
    let scratch = scratch();
    let files = ["out", "err"].map(|name| scratch.path().join(name));
    let [out, err] = files.each_ref().map(|path| Stdio::from(fs::File::create(path).unwrap()));
    let file = format!(
        "[service.raw]\n{SAY}\n[service.pre]\n{SAY}log = {{ format = 'prefix' }}\n[service.obj]\n{SAY}log = {{ format = 'json' }}"
    );
    let services = Supervised::begin_with(&file, &[], out, err);
    let read = |at: usize| {
        until("three lines", || {
            let text = fs::read_to_string(&files[at]).unwrap();
            (text.lines().count() == 3).then_some(text)
        })
    };
    for (at, word) in [(0, "out"), (1, "err")] {
        let text = read(at);
        let line = |is: &dyn Fn(&str) -> bool| {
            text.lines().find(|line| is(line)).unwrap_or_else(|| panic!("{text}")).to_string()
        };
        line(&|line| line == word);
        let prefixed =
            line(&|line| line.ends_with(&format!(" pre: {word}")) || line.ends_with(&format!(" pre {word}")));
        assert!(prefixed.starts_with("20") && prefixed.contains('T') && prefixed.contains('Z'), "{prefixed}");
        let object: Value = serde_json::from_str(&line(&|line| line.starts_with('{'))).unwrap();
        let stream = ["stdout", "stderr"][at];
        assert_eq!(
            (&object["service"], &object["stream"], &object["text"]),
            (&"obj".into(), &stream.into(), &word.into())
        );
    }
    for name in ["raw", "pre"] {
        let told = services.init.ask(&["logs", name]);
        assert_eq!(told.status.code(), Some(125));
        assert!(both(&told).contains("lastout's own standard output"), "{}", both(&told));
    }
    assert_eq!(services.end().0, 0);
}

#[test]
fn raw_output_is_not_copied() {
    let scratch = scratch();
    let path = scratch.path().join("out");
    let out = Stdio::from(fs::File::create(&path).unwrap());
    let services = Supervised::begin_with(&format!("[service.it]\n{SAY}"), &[], out, Stdio::null());
    services.until_state("it", "ready");
    assert_eq!(fs::read_link(format!("/proc/{}/fd/1", services.pid("it"))).unwrap(), path);
    assert_eq!(services.end().0, 0);
}

#[test]
fn logs_shows_a_services_file_and_follows_it_across_rotation() {
    let services = Supervised::begin(
        "[service.it]\nlog = { file = '@/log', max = 1000, keep = 3 }
        command = 'i=0; until [ -e @/go ]; do sleep 0.01; done; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.002; done; echo last; exec sleep 600'",
    );
    let mut follower = services.init.client(&["logs", "-f", "it"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = lines(follower.stdout.take().unwrap());
    services.put("go");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|line| line != "last") {
        seen.push(lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{seen:?}")));
    }
    let expected: Vec<String> = (0..200).map(|i| format!("line {i}")).chain(["last".into()]).collect();
    assert_eq!(seen, expected);
    assert!(services.path("log.1").exists());
    let shown = services.init.must(&["logs", "it"]);
    assert!(shown.ends_with("line 199\nlast\n"), "{shown}");
    // Of its run by number, too.
    let run = services.info("it")["job"].as_str().unwrap().to_string();
    assert_eq!(services.init.must(&["logs", &run]), shown);
    assert_eq!(services.end().0, 0);
    assert_eq!(status(wait(&mut follower)), 0);
}

/// A pipe that is full, with nobody who reads.
fn full_pipe() -> (std::io::PipeReader, OwnedFd) {
    let (read, write) = std::io::pipe().unwrap();
    let write = OwnedFd::from(write);
    lastout::sys::fd::set_nonblocking(&write, true).unwrap();
    while lastout::sys::fd::write(&write, &[b'.'; 4096]).is_ok_and(|count| count.is_some()) {}
    lastout::sys::fd::set_nonblocking(&write, false).unwrap();
    (read, write)
}

#[test]
fn a_blocked_reader_stops_no_supervision() {
    for log in ["", "log = { format = 'prefix' }", "log = { format = 'json' }"] {
        let (read, full) = full_pipe();
        let file = format!(
            "[service.chatty]\n{log}\ncommand = 'yes'\n
            [service.setup]\n{log}\nsetup = ['yes']\ncommand = ['true']\n
            [service.crashes]\n{log}\ncommand = 'exit 3'\nbackoff = {{ initial = '10ms', max = '10ms' }}"
        );
        let services = Supervised::begin_with(&file, &[], Stdio::from(full.try_clone().unwrap()), Stdio::from(full));
        services.until_info("crashes", "restarts", |info| info["restarts"].as_u64() > Some(3));
        assert_eq!((services.state("chatty").as_str(), services.state("setup").as_str()), ("ready", "starting"));
        services.init.must(&["stop", "chatty"]);
        services.init.must(&["stop", "setup"]);
        assert_eq!(services.end().0, 0);
        drop(read);
    }
}

#[test]
fn a_log_whose_directory_is_not_there_stops_no_service() {
    let services = Supervised::begin(
        "[service.it]\ncommand = 'while :; do echo line; sleep 0.01; done'\nlog = { file = '@/missing/log' }",
    );
    services.until_state("it", "ready");
    services.init.log("missing/log");
    fs::create_dir(services.path("missing")).unwrap();
    services.until_text("missing/log", "line\n");
    assert_eq!(services.info("it")["restarts"], 0);
    assert_eq!(services.end().0, 0);
}

#[test]
fn a_full_disk_stops_no_supervision() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    let volume = Volume::mount_with(&scratch.path().join("small"), &["-o", "size=64k"]);
    let file = format!("[service.chatty]\ncommand = 'yes'\nlog = {{ file = '{}/log' }}
        [service.crashes]\ncommand = 'echo x; exit 3'\nbackoff = {{ initial = '10ms', max = '10ms' }}\nlog = {{ format = 'prefix' }}", volume.path.display());
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let services = Supervised::begin_with(&file, &[], full(), full());
    services.until_info("crashes", "restarts", |info| info["restarts"].as_u64() > Some(3));
    services.init.must(&["stop", "chatty"]);
    assert_eq!(services.state("chatty"), "stopped");
    assert!(services.init.ask(&["logs", "chatty"]).stdout.starts_with(b"y\ny\n"));
    assert_eq!(services.end().0, 0);
    volume.unmount().unwrap();
}

#[test]
fn a_log_that_somebody_removes_from_a_full_disk_is_begun_anew() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    let volume = Volume::mount_with(&scratch.path().join("small"), &["-o", "size=256k"]);
    let log = volume.path.join("log");
    // As logrotate moves it, and as somebody makes room.
    let file = format!(
        "[service.it]\ncommand = 'line=$(printf %0200d 0); until [ -e @/end ]; do echo $line; sleep 0.01; done; exec sleep 600'\nlog = {{ file = '{}' }}",
        log.display()
    );
    let services = Supervised::begin(&file);
    let has_lines = || fs::metadata(&log).is_ok_and(|log| log.len() > 0).then_some(());
    until("its log", has_lines);
    fs::rename(&log, volume.path.join("log.old")).unwrap();
    until("a new log", has_lines);
    // No room but what the log itself has: a line is half written.
    fs::remove_file(volume.path.join("log.old")).unwrap();
    let mut filler = fs::File::create(volume.path.join("filler")).unwrap();
    while filler.write(&[0; 4096]).is_ok_and(|count| count > 0) {}
    drop(filler);
    until("a full log", || {
        fs::metadata(&log).is_ok_and(|log| log.len() > 0 && log.len().is_multiple_of(4096)).then_some(())
    });
    fs::remove_file(&log).unwrap();
    until("a log again", has_lines);
    services.put("end");
    assert_eq!(services.end().0, 0);
    volume.unmount().unwrap();
}

#[test]
fn what_is_dropped_is_told_while_it_runs() {
    // Both outputs are blocked, so that nobody could tell it there.
    let (read, full) = full_pipe();
    let services = Supervised::begin_with(
        "[service.chatty]\nlog = { format = 'prefix' }\ncommand = 'yes $(printf %0200d 0)'\n[service.quiet]\nlog = { format = 'prefix' }\ncommand = ['sleep', '600']",
        &[],
        Stdio::from(full.try_clone().unwrap()),
        Stdio::from(full),
    );
    let dropped = |info: &Value| info["dropped"].as_u64().unwrap_or(0);
    let first = dropped(&services.until_info("chatty", "dropped lines", |info| dropped(info) > 0));
    let more = dropped(&services.until_info("chatty", "more", |info| dropped(info) > first));
    services.init.must(&["restart", "chatty"]);
    services.until_info("chatty", "more still", |info| dropped(info) > more && info["state"] == "ready");
    assert!(services.init.must(&["ps"]).contains(" lines of its log dropped"));
    let metrics = services.init.must(&["metrics"]);
    let total = |name: &str| {
        let label = format!("lastout_service_log_dropped_lines_total{{service=\"{name}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&label)?.parse::<u64>().ok()).unwrap()
    };
    assert!(total("chatty") > more, "{metrics}");
    assert_eq!(total("quiet"), 0);
    assert_eq!(services.end().0, 0);
    drop(read);
}
