//! System calls of the init, its keepers and its helpers fail one at a time: the init lives on, nothing hangs, no
//! exit code is lost, and what could not be served gets its reason.
//!
//! strace does it (`-e inject`), attached to a running init. It follows forks and lets go of what executes
//! something (`-b execve`), so commands do not fail. Every process counts its own calls: the first job meets the
//! init's n-th, a later one only its keeper's. A sweep goes through all of them, until there is no n-th any more.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::*;

const O_NONBLOCK: i32 = 0o4000;
/// An end that does not come within this time is a hang. Only a failing test waits so long.
const HANG: Duration = Duration::from_secs(60);

/// An error's name, and how lastout writes it.
type Errno = (&'static str, &'static str);
const EAGAIN: Errno = ("EAGAIN", "resource temporarily unavailable");
const EBUSY: Errno = ("EBUSY", "device or resource busy");
const EINTR: Errno = ("EINTR", "interrupted system call");
const EIO: Errno = ("EIO", "input/output error");
const EMFILE: Errno = ("EMFILE", "too many open files");
const ENFILE: Errno = ("ENFILE", "too many open files in system");
const ENOBUFS: Errno = ("ENOBUFS", "no buffer space available");
const ENOMEM: Errno = ("ENOMEM", "cannot allocate memory");
const ENOSPC: Errno = ("ENOSPC", "no space left on device");
const EPERM: Errno = ("EPERM", "operation not permitted");

// The C libraries and the architectures call some of them differently.
const FORK: &str = "?fork,clone";
const OPEN: &str = if cfg!(all(target_env = "musl", target_arch = "x86_64")) { "open" } else { "openat" };
const EPOLL: &str = if cfg!(target_env = "musl") { "epoll_pwait" } else { "epoll_wait" };

/// A system call, how it fails, and how many of a process's calls are tried.
type Row = (&'static str, Errno, u32);
const ALL: u32 = 100;

/// Main, and a daemon of main's, each with something to do at SIGTERM.
const MAIN: &str = r#"
    sub touch { open my $f, ">", "$dir/$_[0]" }
    ($dir) = @ARGV;
    if (!fork) { setpgrp; $SIG{TERM} = sub { touch "saved"; exit }; touch "daemon"; sleep 1 while 1 }
    $SIG{TERM} = sub { exit 5 }; touch "main"; sleep 1 while 1
"#;

fn start(role: As, options: &[&str]) -> Init {
    let scratch = scratch();
    let dir = scratch.path().to_str().unwrap().to_string();
    let init = Init::start_in(scratch, role, &[options, &["--", "perl", "-e", MAIN, &dir]].concat());
    until("main", || ["main", "daemon"].iter().all(|name| init.scratch.path().join(name).exists()).then_some(()));
    init
}

/// strace, making calls fail.
struct Faults {
    strace: Child,
    log: PathBuf,
}

impl Faults {
    /// `calls`: one, or several with commas. `when`: as strace has it, `3` or `1+`.
    fn inject(init: &Init, pids: &[i32], calls: &str, errno: Errno, when: &str) -> Faults {
        let log = init.scratch.path().join("strace");
        let _ = fs::remove_file(&log);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-b", "execve", "-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={calls}:error={}:when={when}", errno.0)]).arg("-o").arg(&log);
        for pid in pids {
            strace.args(["-p", &pid.to_string()]);
        }
        let mut strace = strace.stderr(Stdio::piped()).spawn().unwrap();
        let said = lines(strace.stderr.take().unwrap());
        for _ in pids {
            let line = said.recv_timeout(PATIENCE).unwrap_or_default();
            assert!(line.ends_with(" attached"), "{calls}: {line}");
        }
        // It goes on talking, and must not be made to wait.
        thread::spawn(move || said.iter().count());
        Faults { strace, log }
    }

    /// Ends it. Answers with what was injected.
    fn end(mut self) -> Vec<String> {
        let _ = Command::new("kill").args(["-s", "INT", &self.strace.id().to_string()]).status();
        wait(&mut self.strace);
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.contains("(INJECTED)")).map(String::from).collect()
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

fn end_of(child: &mut Child) -> Option<i32> {
    let begin = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            Some(ended) => return Some(status(ended)),
            None if begin.elapsed() > HANG => return None,
            None => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Runs a client to its end, which must come.
fn client(init: &Init, args: &[&str]) -> Result<Output, String> {
    let mut child = init.client(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if end_of(&mut child).is_none() {
        let _ = child.kill();
        return Err(format!("{args:?} hangs"));
    }
    Ok(child.wait_with_output().unwrap())
}

/// Either it was served, or it was told why not.
fn served(init: &Init, args: &[&str], code: i32, says: &str, errno: Errno) -> Result<String, String> {
    let output = client(init, args)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(ended) if ended == code && said.starts_with(says) => Ok(said),
        // 126: the command's own process failed before it could execute it.
        Some(125 | 126) if both(&output).contains(errno.1) => Ok(String::new()),
        _ => Err(format!("{args:?}: {}: {}", output.status, both(&output))),
    }
}

const SAY: [&str; 4] = ["--", "sh", "-c", "echo said; exit 7"];

/// Two plain jobs and one whose output is kept.
fn jobs(init: &Init, errno: Errno) -> Vec<String> {
    let serve = |options: &[&str]| served(init, &[&["exec"], options, &SAY].concat(), 7, "said\n", errno);
    [serve(&[]), serve(&[]), serve(&["--keep"])].into_iter().filter_map(Result::err).collect()
}

/// Every other command.
fn commands(init: &Init, errno: Errno) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ask = |args: &[&str], code, says: &str| {
        served(init, args, code, says, errno).map_err(|error| wrong.push(error)).unwrap_or_default()
    };
    for _ in 0..2 {
        let job = ask(&["exec", "-d", "--", "sh", "-c", "exit 7"], 0, "j");
        if !job.is_empty() {
            ask(&["wait", job.trim()], 7, "");
        }
        let job = ask(&["exec", "-d", "--", "sleep", "1000"], 0, "j");
        if !job.is_empty() {
            ask(&["kill", "-s", "CONT", job.trim()], 0, "");
            ask(&["stop", job.trim()], 0, "");
        }
        ask(&["ps"], 0, "JOB");
    }
    wrong
}

/// Records that are not whole.
fn half_records(init: &Init) -> Vec<String> {
    let jobs = fs::read_dir(init.control().join("jobs")).unwrap().flatten();
    let records = jobs.filter_map(|job| fs::read_to_string(job.path().join("record.json")).ok());
    records.filter(|record| !record.ends_with("}\n")).map(|record| format!("half a record: '{record}'")).collect()
}

/// Fails the calls of a row one after the other, until there is none any more.
fn sweep(rows: &[Row], ask: impl Fn(&Init, Errno) -> Vec<String>) {
    if !has("strace") {
        return;
    }
    let mut failures = Vec::new();
    for (call, errno, most) in rows {
        let begin = Instant::now();
        let mut init = start(As::Subreaper, &["--grace", "1s"]);
        let mut count = 0;
        for n in 1..=*most {
            let faults = Faults::inject(&init, &[init.pid], call, *errno, &n.to_string());
            let mut wrong = ask(&init, *errno);
            let injected = faults.end();
            count += injected.len();
            wrong.extend(init.child.try_wait().unwrap().map(|ended| format!("the init has ended: {ended}")));
            wrong.extend(
                served(&init, &[&["exec"], &SAY[..]].concat(), 7, "said\n", ("", "nothing fails any more")).err(),
            );
            wrong.extend(half_records(&init));
            if !wrong.is_empty() {
                failures.push(format!("{call} {} {n}: {wrong:#?} {injected:#?}", errno.0));
                init = start(As::Subreaper, &["--grace", "1s"]);
            }
            if injected.is_empty() {
                break;
            }
        }
        if count == 0 {
            failures.push(format!("{call} {}: nobody calls it", errno.0));
        }
        init.signal("TERM");
        let code = end_of(&mut init.child);
        if code != Some(5) {
            failures.push(format!("{call} {}: main's code became {code:?}", errno.0));
        }
        println!("{call} {}: {count} faults, {:?}", errno.0, begin.elapsed());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_job_is_served_or_told_why_not_whatever_its_processes_lack() {
    let rows = [
        (FORK, EAGAIN, ALL),
        ("pipe2", EMFILE, ALL),
        ("socketpair", EMFILE, ALL),
        ("signalfd4", ENFILE, ALL),
        ("openat", ENFILE, ALL),
        ("openat", EINTR, ALL),
        (OPEN, ENFILE, ALL),
        (OPEN, EINTR, ALL),
        ("epoll_ctl", ENOMEM, ALL),
        ("epoll_ctl", ENOSPC, ALL),
        ("mkdirat", ENOSPC, ALL),
        ("write", ENOSPC, ALL),
        ("unlinkat", EIO, ALL),
        ("poll", ENOMEM, ALL),
        ("sendto", ENOBUFS, ALL),
        ("recvfrom", ENOBUFS, ALL),
    ];
    sweep(&rows, jobs);
}

#[test]
fn a_job_is_served_or_told_why_not_whatever_else_fails() {
    let rows = [
        ("read", EIO, ALL),
        ("dup2", EBUSY, ALL),
        ("setsid", EPERM, ALL),
        ("prctl", EPERM, ALL),
        ("fcntl", EPERM, 8),
        ("close_range", EPERM, ALL),
        ("getrusage", EPERM, ALL),
        ("close", EINTR, ALL),
    ];
    sweep(&rows, jobs);
}

#[test]
fn every_command_is_answered_whatever_fails() {
    let rows = [
        (FORK, EAGAIN, 12),
        ("openat", EMFILE, 20),
        (OPEN, EMFILE, 8),
        ("epoll_ctl", ENOMEM, 8),
        ("write", ENOMEM, 8),
        ("sendto", ENOBUFS, 8),
        ("recvfrom", ENOBUFS, 8),
        ("read", ENOMEM, 10),
    ];
    sweep(&rows, commands);
}

#[test]
fn interruptions_cost_nothing() {
    let calls = [EPOLL, "poll,read,write,wait4,recvfrom,sendto,dup2"].join(",");
    if has("strace") {
        let mut init = start(As::Subreaper, &["--grace", "1s"]);
        // Every second and every third call.
        for when in ["1+2", "1+3", "2+3"] {
            let faults = Faults::inject(&init, &[init.pid], &calls, EINTR, when);
            let nothing = ("", "nothing may fail");
            let wrong = [jobs(&init, nothing), commands(&init, nothing)].concat();
            let injected = faults.end();
            assert!(wrong.is_empty(), "{when}: {wrong:#?} {injected:#?}");
            for call in calls.split(',') {
                assert!(injected.iter().any(|line| line.contains(&format!("{call}("))), "{call}");
            }
        }
        init.signal("TERM");
        assert_eq!(end_of(&mut init.child), Some(5));
    }
}

/// A stop with a job, and with a daemon of main's that is to be asked, and not only killed.
fn stop(role: As, call: &str, errno: Errno, when: &str, patient: bool) -> (Vec<String>, Vec<String>) {
    let mut init = start(role, &["--grace", if patient { "15s" } else { "500ms" }]);
    let mark = mark("stop");
    let script = format!("$SIG{{TERM}} = sub {{ exit 9 }}; $| = 1; print qq(up\\n); sleep 1 while 1 # {mark}");
    let mut job = init
        .client(&["exec", "--", "perl", "-e", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(lines(job.stdout.take().unwrap()).recv_timeout(PATIENCE).unwrap(), "up");
    let keeper = until("the keeper", || {
        let perl = *running(&mark).iter().find(|pid| Some(**pid) != Some(job.id() as i32))?;
        children(init.pid).into_iter().find(|pid| children(*pid).contains(&perl))
    });
    let faults = Faults::inject(&init, &[init.pid, keeper], call, errno, when);
    init.signal("TERM");
    let code = end_of(&mut init.child);
    let mut wrong = Vec::new();
    if code != Some(5) {
        wrong.push(format!("main's code became {code:?}"));
    }
    let code = end_of(&mut job);
    if code != Some(9) && (patient || code != Some(125)) {
        wrong.push(format!("the job's code became {code:?}"));
    }
    if patient && !init.scratch.path().join("saved").exists() {
        wrong.push("main's daemon was not asked".into());
    }
    if is_running(&mark) {
        wrong.push("the job runs on".into());
    }
    (wrong, faults.end())
}

fn stops(role: As, rows: &[Row]) {
    if !has("strace") || role == As::Pid1 && !has("root") {
        return;
    }
    let mut failures = Vec::new();
    for (call, errno, most) in rows {
        let begin = Instant::now();
        let mut count = 0;
        for n in 1..=*most {
            let (wrong, injected) = stop(role, call, *errno, &n.to_string(), true);
            if !wrong.is_empty() {
                failures.push(format!("{call} {} {n}: {wrong:#?} {injected:#?}", errno.0));
            }
            count += injected.len();
            if injected.is_empty() {
                break;
            }
        }
        if count == 0 {
            failures.push(format!("{call} {}: nobody calls it", errno.0));
        }
        println!("{call} {}: {count} faults, {:?}", errno.0, begin.elapsed());
    }
    assert!(failures.is_empty(), "{role:?}: {}", failures.join("\n"));
}

const LEAVING: [Row; 10] = [
    (FORK, EAGAIN, 3),
    ("pipe2", EMFILE, 3),
    ("openat", ENFILE, 10),
    (OPEN, ENFILE, 10),
    ("epoll_ctl", ENOMEM, 3),
    ("sendto", ENOBUFS, 4),
    ("recvfrom", ENOBUFS, 4),
    ("write", ENOMEM, 3),
    ("read", EINTR, 3),
    ("wait4", EINTR, 3),
];

#[test]
fn a_stop_asks_everybody_and_keeps_every_code_whatever_fails() {
    stops(As::Subreaper, &LEAVING);
}

#[test]
fn a_stop_as_pid_1_asks_everybody_and_keeps_every_code_whatever_fails() {
    stops(As::Pid1, &LEAVING);
}

#[test]
fn what_cannot_fork_any_more_still_leaves_with_its_code() {
    if !has("strace") || !has("root") {
        return;
    }
    for (call, errno) in [(FORK, EAGAIN), ("pipe2", EMFILE)] {
        let (wrong, injected) = stop(As::Pid1, call, errno, "1+", false);
        assert!(wrong.is_empty() && injected.len() > 3, "{call}: {wrong:#?} {injected:#?}");
    }
}

#[test]
fn a_shortage_that_lasts_costs_answers_only_their_time() {
    if !has("strace") {
        return;
    }
    let init = start(As::Subreaper, &[]);
    let go = init.scratch.path().join("go");
    run("mkfifo", &[go.to_str().unwrap()]);
    let script = format!("read line < {}; exit 7", go.display());
    let job = init.must(&["exec", "-d", "--", "sh", "-c", &script]);
    let faults = Faults::inject(&init, &[init.pid], "openat", ENFILE, "1+");
    let ask = |args: &[&str]| init.client(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The init cannot open their replies; the last one's keeper cannot even be given to them.
    let mut waiting =
        [ask(&["wait", job.trim()]), ask(&["ps"]), ask(&["kill", "j999"]), ask(&[&["exec"], &SAY[..]].concat())];
    until("five attempts", || {
        (fs::read_to_string(&faults.log).unwrap().matches("reply").count() >= 5
            || fs::read_to_string(&faults.log).unwrap().matches("INJECTED").count() >= 20)
            .then_some(())
    });
    fs::write(&go, "go\n").unwrap();
    assert!(waiting.iter_mut().all(|client| client.try_wait().unwrap().is_none()), "nothing can be answered");
    faults.end();
    let codes: Vec<_> = waiting.iter_mut().map(end_of).collect();
    assert_eq!(codes, [Some(7), Some(0), Some(125), Some(125)]);
}

/// From here on the kernel gives it none: `brk` and `mmap` fail.
fn no_more_memory(pid: i32) {
    run("prlimit", &["--pid", &pid.to_string(), "--as=1"]);
}

/// The keeper's every allocation fails, from its command's start to its end.
#[test]
fn a_keeper_without_memory_serves_its_job_to_the_end() {
    let init = start(As::Subreaper, &[]);
    let go = init.scratch.path().join("go");
    run("mkfifo", &[go.to_str().unwrap()]);
    let mark = mark("memory");
    let script = format!("read line < {}; yes {mark} | head -c 300000; exit 7", go.display());
    // Its record has the command in full, and is larger than what it has left.
    let long = "x".repeat(50_000);
    let job =
        init.client(&["exec", "--keep", "--", "sh", "-c", &script, &long]).stdout(Stdio::piped()).spawn().unwrap();
    let keeper = until("the keeper", || {
        let shell = *running(&mark).iter().find(|pid| Some(**pid) != Some(job.id() as i32))?;
        children(init.pid).into_iter().find(|pid| children(*pid).contains(&shell))
    });
    no_more_memory(keeper);
    fs::write(&go, "go\n").unwrap();
    let output = job.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(7), 300_000));
    assert_eq!(init.must(&["logs", "j2"]).len(), 300_000);
}

/// A bare init reaps, forwards, and ends with main's code.
fn is_bare(init: &mut Init, mark: &str) {
    init.log("going on as a bare init");
    let late = init.ask(&["exec", "--", "true"]);
    assert_eq!(late.status.code(), Some(125), "new clients are told");
    assert!(is_running(mark), "jobs run on");
    init.signal("USR2");
    until("its orphan", || init.scratch.path().join("orphan").exists().then_some(()));
    let zombie = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    until("no zombie", || (!children(init.pid).iter().any(zombie)).then_some(()));
    init.signal("USR1");
    assert_eq!(end_of(&mut init.child), Some(6));
}

const BARE: &str = r#"
    ($dir) = @ARGV;
    $SIG{USR1} = sub { exit 6 };
    $SIG{USR2} = sub { system("sh -c 'sleep 0 &'"); open my $f, ">", "$dir/orphan" };
    sleep 1 while 1
"#;

fn start_bare(role: As) -> (Init, Child, String) {
    let scratch = scratch();
    let dir = scratch.path().to_str().unwrap().to_string();
    let init = Init::start_in(scratch, role, &["--max-jobs", "1", "--", "perl", "-e", BARE, &dir]);
    let mark = mark("bare");
    let script = format!("$| = 1; print qq(up\n); sleep 1000 # {mark}");
    let mut job = init.client(&["exec", "--", "perl", "-e", &script]).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(lines(job.stdout.take().unwrap()).recv_timeout(PATIENCE).unwrap(), "up");
    (init, job, mark)
}

#[test]
fn an_init_without_memory_goes_on_as_a_bare_init() {
    for role in [As::Subreaper, As::Pid1] {
        if role == As::Pid1 && !has("root") {
            continue;
        }
        let (mut init, mut job, mark) = start_bare(role);
        no_more_memory(init.pid);
        // Every line is a job in the queue, until there is no room for one; then nobody reads any more.
        let path = init.control().join("control");
        let mut fifo = fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&path).unwrap();
        until("a failed allocation", || {
            let _ = fifo.write_all(format!("run {}\n", "x".repeat(4000)).as_bytes());
            (!path.exists()).then_some(())
        });
        is_bare(&mut init, &mark);
        end_of(&mut job);
    }
}

/// Starts an init that panics at SIGPWR; `end`: when main has ended. Its standard error is a pipe.
fn start_buggy(dir: &std::path::Path, options: &[&str], when: &str, main: &str) -> Child {
    let control = dir.join("control");
    let mut command = lastout(&["--control", control.to_str().unwrap()]);
    command.args(options).args(["--", "perl", "-e", main, dir.to_str().unwrap()]).env("LASTOUT_TEST_PANIC", when);
    let init = command.stderr(Stdio::piped()).spawn().unwrap();
    until("main", || dir.join("main").exists().then_some(()));
    init
}

#[test]
fn a_bug_with_a_full_standard_error_is_survived() {
    let scratch = scratch();
    // Main fills the pipe, and then is up.
    let main = r#"
        vec(my $error, 2, 1) = 1;
        1 while select(undef, my $room = $error, undef, 0) && syswrite STDERR, "x" x 4096;
        $SIG{USR1} = sub { exit 6 }; open my $f, ">", "$ARGV[0]/main"; sleep 1 while 1
    "#;
    let mut init = start_buggy(scratch.path(), &[], "1", main);
    let pid = init.id().to_string();
    run("kill", &["-PWR", &pid]);
    until("the bare init", || (!scratch.path().join("control/control").exists()).then_some(()));
    run("kill", &["-USR1", &pid]);
    assert_eq!(end_of(&mut init), Some(6));
}

/// It is a copy of the init, and must not go on as one.
#[test]
fn a_bug_in_a_keeper_ends_that_keeper_and_nothing_else() {
    let scratch = scratch();
    let main = r#"open my $f, ">", "$ARGV[0]/main"; $SIG{USR1} = sub { exit 6 }; sleep 1 while 1"#;
    let mut init = start_buggy(scratch.path(), &[], "keeper", main);
    let said = lines(init.stderr.take().unwrap());
    let control = scratch.path().join("control");
    for _ in 0..2 {
        let job = lastout(&["exec", "--control", control.to_str().unwrap(), "--", "true"]).output().unwrap();
        assert_eq!(job.status.code(), Some(125), "{}", both(&job));
    }
    until("main to be alone", || (children(init.id() as i32).len() == 1).then_some(()));
    run("kill", &["-USR1", &init.id().to_string()]);
    assert_eq!(end_of(&mut init), Some(6));
    let said: Vec<String> = said.iter().collect();
    assert_eq!(said.iter().filter(|line| line.contains("ordered by the test")).count(), 2, "{said:#?}");
    assert!(!said.iter().any(|line| line.contains("bare init")), "{said:#?}");
}

#[test]
fn no_bug_loses_the_code_of_a_main_that_has_ended() {
    let main = r#"open my $f, ">", "$ARGV[0]/main"; $SIG{TERM} = sub { exit 5 }; sleep 1 while 1"#;
    // In the turn that reaps it; and later, while a job is still ending.
    for (when, options, code) in [("end", &[][..], 5), ("end", &["-e", "5"], 0), ("1", &[], 5)] {
        let scratch = scratch();
        let mut init = start_buggy(scratch.path(), &[&["--grace", "30s"], options].concat(), when, main);
        let pid = init.id().to_string();
        let mark = mark("deaf");
        let deaf = format!(
            "$SIG{{TERM}} = sub {{ $| = 1; print qq(asked\n) }}; $| = 1; print qq(up\n); sleep 1 while 1 # {mark}"
        );
        let control = scratch.path().join("control");
        let mut job = lastout(&["exec", "--control", control.to_str().unwrap(), "--", "perl", "-e", &deaf]);
        let mut job = job.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said = lines(job.stdout.take().unwrap());
        assert_eq!(said.recv_timeout(PATIENCE).unwrap(), "up");
        run("kill", &["-TERM", &pid]);
        if when == "1" {
            assert_eq!(said.recv_timeout(PATIENCE).unwrap(), "asked");
            until("main's end", || (children(init.id() as i32).len() == 1).then_some(()));
            run("kill", &["-PWR", &pid]);
        }
        assert_eq!(end_of(&mut init), Some(code), "{when} {options:?}");
        // Its keeper gives it its grace; nobody here needs it.
        running(&mark).iter().for_each(|pid| drop(Command::new("kill").args(["-KILL", &pid.to_string()]).status()));
        end_of(&mut job);
    }
}
