//! `lastout exec` and the other commands: what goes in comes out, unchanged.

use std::{
    ffi::OsString,
    fs,
    io::{Read, Write},
    os::unix::{ffi::OsStringExt, fs::PermissionsExt},
    path::Path,
    process::Stdio,
    thread,
};

use crate::support::*;

#[test]
fn output_code_and_input_are_the_commands_own() {
    for role in [As::Subreaper, As::Pid1] {
        if role == As::Pid1 && !has("root") {
            continue;
        }
        let init = Init::start(role, &[]);
        let output = init.ask(&["exec", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((output.status.code(), &*output.stdout, &*output.stderr), (Some(7), &b"out\n"[..], &b"err\n"[..]));
        for (command, code) in
            [(&["no-such-thing"][..], 127), (&["/etc/passwd"], 126), (&["sh", "-c", "kill -9 $$"], 137)]
        {
            let mut args = vec!["exec", "--"];
            args.extend(command);
            assert_eq!(init.ask(&args).status.code(), Some(code), "{command:?}");
        }
        let mut child = init
            .client(&["exec", "-i", "--", "tr", "a-z", "A-Z"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"shout\n").unwrap();
        assert_eq!(child.wait_with_output().unwrap().stdout, b"SHOUT\n");
        assert_eq!(init.must(&["exec", "--", "cat"]), "", "without -i there is no input");
    }
}

#[test]
fn environment_directory_and_marks_are_as_asked() {
    let init = Init::start(As::Subreaper, &[]);
    let file = init.scratch.path().join("env");
    fs::write(&file, "# comment\nFROM_FILE=1\nOVER=file\nTAKEN\n").unwrap();
    let mut client =
        init.client(&["exec", "-e", "OVER=line", "-e", "MINE", "-w", "/usr/bin", "--env-file", file.to_str().unwrap()]);
    client.args(["--", "sh", "-c", "pwd; echo $FROM_FILE $OVER $MINE $TAKEN $LASTOUT_JOB $LASTOUT_CONTROL"]);
    let output = client.env("MINE", "mine").env("TAKEN", "taken").env("NOT", "passed").output().unwrap();
    let expected = format!("/usr/bin\n1 line mine taken j2 {}\n", init.control().display());
    assert_eq!(both(&output), expected);
    let output = init.ask(&["exec", "-w", "/nope", "--", "true"]);
    assert_eq!(output.status.code(), Some(126));
    assert!(both(&output).contains("cannot change to directory /nope"), "{}", both(&output));
    let output = init.ask(&["exec", "-e", "=x", "--", "true"]);
    assert_eq!(output.status.code(), Some(125));
}

#[test]
fn a_job_starts_where_main_was_started_and_ignores_nothing() {
    let scratch = scratch();
    let control = scratch.path().join("c");
    // 34, SIGRTMIN for everybody else, is one that musl keeps for itself.
    let script = "use POSIX; $SIG{$_} = 'IGNORE' for qw(INT HUP RTMIN RTMAX); \
        sigprocmask(SIG_BLOCK, POSIX::SigSet->new(34, 64)); exec @ARGV";
    let mut child = std::process::Command::new("perl")
        .args(["-e", script, LASTOUT, "--control", control.to_str().unwrap()])
        .current_dir("/usr/lib")
        .env_remove("LASTOUT_CONTROL")
        .spawn()
        .unwrap();
    let mut client = lastout(&["exec", "--wait", "30", "--control", control.to_str().unwrap(), "--"]);
    let output = client.args(["sh", "-c", "pwd; kill -INT $$; echo ignored"]).output().unwrap();
    assert_eq!(&*output.stdout, b"/usr/lib\n", "{}", both(&output));
    let mut client = lastout(&["exec", "--control", control.to_str().unwrap(), "--"]);
    let output = client.args(["grep", "^Sig[BI]", "/proc/self/status"]).output().unwrap();
    assert_eq!(both(&output), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    run("kill", &[&child.id().to_string()]);
    wait(&mut child);
}

#[test]
fn a_megabyte_of_arguments_and_environment_arrives_unchanged() {
    let init = Init::start(As::Subreaper, &[]);
    // Everything but NUL, in pieces below the kernel's 128 KiB for one string.
    let nasty: Vec<u8> = (1..=255u8).chain(*b"'\"\\\n\r\t$`*?~ {}").cycle().take(100_000).collect();
    let word = OsString::from_vec(nasty.clone());
    let mut client = init.client(&["exec"]);
    for number in 0..5 {
        let mut entry = OsString::from(format!("NASTY{number}="));
        entry.push(&word);
        client.arg("-e").arg(entry);
    }
    client.args(["--", "perl", "-e", "print $_, chr(0) for @ARGV; print $ENV{\"NASTY$_\"}, chr(0) for 0..4"]);
    for _ in 0..5 {
        client.arg(&word);
    }
    let output = client.output().unwrap();
    let expected = [&nasty[..], &[0]].concat().repeat(10);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == expected, "{} bytes of {}", output.stdout.len(), expected.len());
}

#[test]
fn a_hundred_megabytes_arrive_unchanged_both_ways() {
    let init = Init::start(As::Subreaper, &[]);
    let size = 100 << 20;
    // Never the same for long, and cheap to make again.
    let byte = |n: usize| (n ^ (n >> 8) ^ (n >> 16)).wrapping_mul(167) as u8;
    let mut child =
        init.client(&["exec", "-i", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        let mut at = 0;
        while at < size {
            let piece: Vec<u8> = (at..(at + 65_536).min(size)).map(byte).collect();
            stdin.write_all(&piece).unwrap();
            at += piece.len();
        }
    });
    let mut stdout = child.stdout.take().unwrap();
    let (mut at, mut buffer) = (0, vec![0; 65_536]);
    loop {
        let count = stdout.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        for (offset, got) in buffer[..count].iter().enumerate() {
            assert_eq!(*got, byte(at + offset), "at {}", at + offset);
        }
        at += count;
    }
    writer.join().unwrap();
    assert_eq!(at, size);
    assert!(child.wait().unwrap().success());
}

#[test]
fn output_reaches_a_file_that_is_appended_to_and_one_that_is_not() {
    let init = Init::start(As::Subreaper, &[]);
    let file = init.scratch.path().join("out");
    fs::write(&file, "before\n").unwrap();
    for append in [true, false] {
        let out = fs::OpenOptions::new().append(append).write(true).truncate(!append).open(&file).unwrap();
        let status = init.client(&["exec", "--", "seq", "100000"]).stdout(out).status().unwrap();
        assert!(status.success());
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert_eq!(lines, if append { 100_001 } else { 100_000 });
    }
}

/// A pipe that is full, and that nobody reads.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'x'; 65_536]).unwrap();
    (reader, writer)
}

#[test]
fn a_full_pipe_holds_up_only_who_has_something_to_say() {
    let init = Init::start(As::Subreaper, &[]);
    let (_reader, writer) = full_pipe();
    for (stdout, stderr) in [(true, false), (false, true)] {
        let mut client = init.client(&["exec", "--", "true"]);
        client.stdout(if stdout { writer.try_clone().unwrap().into() } else { Stdio::null() });
        client.stderr(if stderr { writer.try_clone().unwrap().into() } else { Stdio::null() });
        assert_eq!(status(wait(&mut client.spawn().unwrap())), 0);
    }
    // With something to say it waits for its reader, until it is told to go.
    let mut client =
        init.client(&["exec", "--", "echo", "something"]).stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    until("the job's end", || init.must(&["ps", "-a"]).contains("echo something").then_some(()));
    assert!(client.try_wait().unwrap().is_none());
    run("kill", &[&client.id().to_string()]);
    wait(&mut client);
}

#[test]
fn two_hundred_at_once_are_not_mixed() {
    let init = Init::start(As::Subreaper, &[]);
    let clients: Vec<_> = (0..200)
        .map(|number| {
            let script = format!("for i in 1 2 3; do echo {number} out; echo {number} err >&2; done; exit {number}");
            let mut client = init.client(&["exec", "--", "sh", "-c", &script]);
            client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (number, client) in clients.into_iter().enumerate() {
        let output = client.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(number as i32), "{}", both(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{number} out\n").repeat(3));
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{number} err\n").repeat(3));
    }
    let requests = fs::read_dir(init.control().join("requests")).unwrap().count();
    assert_eq!(requests, 0, "every request's directory is gone");
}

#[test]
fn a_detached_job_keeps_its_output_and_its_record() {
    let init = Init::start(As::Subreaper, &[]);
    let id = init.must(&["exec", "-d", "--name", "talk", "--", "sh", "-c", "echo one; echo two >&2; exit 3"]);
    assert_eq!(id, "j2\n");
    assert_eq!(init.ask(&["wait", "talk"]).status.code(), Some(3));
    let output = init.ask(&["logs", "talk"]);
    assert_eq!((&*output.stdout, &*output.stderr), (&b"one\n"[..], &b"two\n"[..]));
    let output = init.ask(&["wait", "j2", "--json"]);
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record["exit"]["code"], 3);
    assert_eq!(record["cause"]["kind"], "exited");
    assert_eq!(record["name"], "talk");
    assert!(record["wall_us"].as_u64().unwrap() > 0, "{record}");
    let output = init.ask(&["logs", "j1"]);
    assert!(both(&output).contains("keeps no output"), "{}", both(&output));
    for args in [&["logs", "nobody"][..], &["wait", "j99"], &["kill", "j99"], &["stop", "nobody"]] {
        let output = init.ask(args);
        assert_eq!(output.status.code(), Some(125));
        assert!(both(&output).contains("no job"), "{}", both(&output));
    }
}

#[test]
fn by_hand_a_line_is_a_job_and_stop_is_the_end() {
    let init = Init::start(As::Subreaper, &[]);
    fs::write(init.control().join("control"), "run sh -c 'echo \"by  hand\"; exit 6'\n").unwrap();
    assert_eq!(init.ask(&["wait", "j2"]).status.code(), Some(6));
    assert_eq!(init.must(&["logs", "j2"]), "by  hand\n");
    fs::write(init.control().join("control"), "stop\n").unwrap();
    assert_eq!(init.end().0, 0);
}

#[test]
fn logs_follow_until_the_end_and_across_the_cap() {
    let init = Init::start(As::Subreaper, &[]);
    let go = init.scratch.path().join("go");
    run("mkfifo", &[go.to_str().unwrap()]);
    let script = format!("echo first; read line < {}; seq 400000; echo last", go.display());
    init.must(&["exec", "-d", "--", "sh", "-c", &script]);
    let mut follower = init.client(&["logs", "-f", "j2"]);
    let mut follower = follower.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let got = lines(follower.stdout.take().unwrap());
    let said = lines(follower.stderr.take().unwrap());
    assert_eq!(got.recv_timeout(PATIENCE).unwrap(), "first");
    // One that is slower than the job misses what is no longer kept, and says so; never the end.
    let pid = follower.id().to_string();
    run("kill", &["-STOP", &pid]);
    fs::write(&go, "go\n").unwrap();
    init.must(&["wait", "j2"]);
    run("kill", &["-CONT", &pid]);
    let rest: Vec<String> = got.iter().collect();
    assert_eq!(&rest[rest.len() - 2..], ["400000", "last"]);
    assert!(said.iter().any(|line| line.contains("is gone")));
    assert!(wait(&mut follower).success());
    // 2.7 MB were written; what is kept is bounded, and is the latest.
    let kept = init.must(&["logs", "j2"]);
    assert!(kept.ends_with("400000\nlast\n") && kept.len() < 1_200_000, "{} bytes", kept.len());
}

#[test]
fn ps_shows_what_runs_and_what_waits() {
    let init = Init::start(As::Subreaper, &["--max-jobs", "1"]);
    let mark = mark("ps");
    init.must(&["exec", "-d", "--name", "first", "--", "sleep", "1000"]);
    let mut second =
        init.client(&["exec", "--name", "second", "--", "echo", &mark]).stdout(Stdio::piped()).spawn().unwrap();
    let list = || -> serde_json::Value { serde_json::from_str(&init.must(&["ps", "--json"])).unwrap() };
    // The first may have waited for an instant, too: for the keeper of the start's own job to go.
    let jobs = until("the queue", || Some(list()).filter(|jobs| jobs[0]["state"] == "running" && jobs[1].is_object()));
    assert_eq!(jobs[0]["name"], "first");
    assert_eq!((&jobs[1]["name"], &jobs[1]["state"]), (&"second".into(), &"queued".into()));
    assert_eq!(jobs[1]["command"], format!("echo {mark}"));
    let table = init.must(&["ps"]);
    assert!(table.contains("sleep 1000") && table.contains("queued"), "{table}");
    assert!(second.try_wait().unwrap().is_none());
    init.must(&["stop", "first"]);
    let mut said = String::new();
    second.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, format!("{mark}\n"));
    assert!(second.wait().unwrap().success());
    let all = init.must(&["ps", "-a"]);
    assert!(all.contains("143 (stopped)"), "{all}");
}

#[test]
fn input_that_ends_before_the_job_starts_is_not_lost() {
    let init = Init::start(As::Subreaper, &["--max-jobs", "1"]);
    init.must(&["exec", "-d", "--name", "first", "--", "sleep", "1000"]);
    let mut second =
        init.client(&["exec", "-i", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    second.stdin.take().unwrap().write_all(b"early\n").unwrap();
    until("the queue", || init.must(&["ps"]).contains("queued").then_some(()));
    // The client has seen its input's end when it waits for something else.
    let wchan = format!("/proc/{}/wchan", second.id());
    until("the client's rest", || fs::read_to_string(&wchan).is_ok_and(|at| at.contains("poll")).then_some(()));
    init.must(&["stop", "first"]);
    let mut said = String::new();
    second.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "early\n");
    assert!(second.wait().unwrap().success());
}

#[test]
fn a_detached_job_that_is_queued_does_not_keep_its_client() {
    let init = Init::start(As::Subreaper, &["--max-jobs", "1"]);
    init.must(&["exec", "-d", "--name", "first", "--", "sleep", "1000"]);
    assert_eq!(init.must(&["exec", "-d", "--name", "second", "--", "echo", "later"]), "j3\n");
    assert!(init.must(&["ps"]).contains("echo later"));
    init.must(&["stop", "first"]);
    assert_eq!(init.ask(&["wait", "second"]).status.code(), Some(0));
    assert_eq!(init.must(&["logs", "second"]), "later\n");
}

#[test]
fn output_that_cannot_be_written_is_an_error_not_a_panic() {
    let init = Init::start(As::Subreaper, &[]);
    for args in [&["ps", "-a"][..], &["ps", "--json"], &["exec", "-d", "--", "true"], &["exec", "--", "echo", "x"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = init.client(args).stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{args:?}");
        let said = both(&output);
        assert!(
            said.contains("cannot write") && !said.contains("os error") && !said.contains("panicked"),
            "{args:?}: {said}"
        );
    }
}

#[test]
fn a_table_has_one_line_a_job_and_nothing_that_a_terminal_obeys() {
    let init = Init::start(As::Subreaper, &[]);
    init.must(&["exec", "--", "printf", "", "a\nb\u{1b}[2Jc"]);
    let table = init.must(&["ps", "-a"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
    assert_eq!(init.ask(&["exec", "--", ""]).status.code(), Some(127));
}

#[test]
fn exec_waits_for_an_init_that_is_not_up_yet() {
    let scratch = scratch();
    let control = scratch.path().join("c");
    let output = lastout(&["exec", "--control", control.to_str().unwrap(), "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(both(&output).contains("no lastout listens"), "{}", both(&output));
    let mut early = lastout(&["exec", "--wait", "60s", "--control", control.to_str().unwrap(), "--", "echo", "up"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut init = lastout(&["--control", control.to_str().unwrap()]).spawn().unwrap();
    let mut said = String::new();
    early.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "up\n");
    assert!(early.wait().unwrap().success());
    assert!(lastout(&["shutdown", "--control", control.to_str().unwrap()]).status().unwrap().success());
    assert_eq!(wait(&mut init).code(), Some(0));
}

/// Writes a script without `#!`, which says with what it was called.
fn plain_script(path: &Path, mode: u32, says: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("echo \"{says} $0 $#:$1:$2\"\nexit 7\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_program_without_an_interpreter_line_is_run_by_the_shell() {
    let scratch = scratch();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_string();
    // Those before it in PATH: no directory, nothing there, and one that nobody may execute, not even root.
    plain_script(&scratch.path().join("not/script"), 0o644, "wrong");
    plain_script(&scratch.path().join("bin/script"), 0o755, "plain");
    fs::create_dir(path("empty")).unwrap();
    let search =
        ["/etc/passwd", &path("nothing"), &path("empty"), &path("not"), &path("bin"), "/usr/bin:/bin"].join(":");
    let script = path("bin/script");
    let said = format!("plain {script} 2:a b:c\n");

    for called in [script.as_str(), "script"] {
        let mut main = lastout(&["--control", &path("c"), "--", called, "a b", "c"]);
        let output = main.env("PATH", &search).output().unwrap();
        assert_eq!((both(&output), output.status.code()), (said.clone(), Some(7)), "main, {called}");
    }

    let init = Init::start(As::Subreaper, &[]);
    for called in [script.as_str(), "script"] {
        let output = init.ask(&["exec", "-e", &format!("PATH={search}"), "--", called, "a b", "c"]);
        assert_eq!((both(&output), output.status.code()), (said.clone(), Some(7)), "a job's own PATH, {called}");
    }
    fs::write(init.control().join("control"), format!("run {script} 'a b' c\n")).unwrap();
    until("the job", || init.must(&["ps", "-a"]).contains("\nj4 ").then_some(()));
    assert_eq!(init.ask(&["wait", "j4"]).status.code(), Some(7));
    assert_eq!(init.must(&["logs", "j4"]), said, "by hand");
}

#[test]
fn a_program_that_nobody_may_execute_is_told_from_one_that_is_not_there() {
    let init = Init::start(As::Subreaper, &[]);
    plain_script(&init.scratch.path().join("not/script"), 0o644, "wrong");
    let path = format!("PATH={}:/nonexistent", init.scratch.path().join("not").display());
    let output = init.ask(&["exec", "-e", &path, "--", "script"]);
    assert_eq!(output.status.code(), Some(126));
    assert!(both(&output).contains("cannot execute script: permission denied"), "{}", both(&output));
    let output = init.ask(&["exec", "-e", &path, "--", "sh"]);
    assert_eq!(output.status.code(), Some(127));
    // Without a PATH it is where every system has its own.
    let mut main = lastout(&["--control", init.scratch.path().join("c").to_str().unwrap(), "--", "sh", "-c", "exit 7"]);
    assert_eq!(main.env_remove("PATH").status().unwrap().code(), Some(7));
}

#[test]
fn a_record_survives_in_a_directory_that_was_there_before() {
    let scratch = scratch();
    let control = scratch.path().join("control");
    fs::create_dir(&control).unwrap();
    fs::set_permissions(&control, fs::Permissions::from_mode(0o700)).unwrap();
    let init = Init::start_in(scratch, As::Subreaper, &[]);
    init.must(&["exec", "-d", "--", "true"]);
    init.ask(&["wait", "j2"]);
    init.signal("TERM");
    let mut init = init;
    wait(&mut init.child);
    assert!(init.control().join("jobs/j2/record.json").exists());
    assert!(!init.control().join("control").exists());
    let scratch = std::mem::replace(&mut init.scratch, crate::support::scratch());
    let again = Init::start_in(scratch, As::Subreaper, &[]);
    assert_eq!(again.must(&["exec", "-d", "--", "true"]), "j4\n", "numbers go on: j3 was the start's own");
}
