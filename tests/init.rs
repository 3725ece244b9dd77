//! The init and main: what main gets, what becomes of signals, how it ends.

use std::{
    fs,
    io::{Read, Write},
    process::{Command, Stdio},
};

use crate::support::*;

fn code_of(args: &[&str]) -> i32 {
    status(lastout(args).stderr(Stdio::null()).status().unwrap())
}

#[test]
fn mains_code_is_the_inits() {
    for code in [0, 1, 7, 125, 255] {
        assert_eq!(code_of(&["--", "sh", "-c", &format!("exit {code}")]), code);
    }
    for (signal, code) in [("TERM", 143), ("KILL", 137), ("INT", 130)] {
        assert_eq!(code_of(&["--", "sh", "-c", &format!("kill -s {signal} $$")]), code);
    }
    assert_eq!(code_of(&["-e", "143", "--", "sh", "-c", "kill -s TERM $$"]), 0);
    assert_eq!(code_of(&["/nonexistent"]), 127);
    assert_eq!(code_of(&["lastout-no-such-program"]), 127);
    assert_eq!(code_of(&["/etc/passwd"]), 126);
    assert_eq!(code_of(&["/etc"]), 126);
}

#[test]
fn as_pid_1_mains_code_is_the_containers() {
    if !has("root") {
        return;
    }
    for (script, code) in [("exit 9", 9), ("kill -s TERM $$", 143)] {
        let output = lastout_as_pid1(&["--", "sh", "-c", script]).output().unwrap();
        assert_eq!(status(output.status), code, "{}", both(&output));
    }
    let output = lastout_as_pid1(&["--", "sh", "-c", "test $PPID = 1 && echo $$"]).output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
}

#[test]
fn it_is_silent_unless_something_is_wrong() {
    let scratch = scratch();
    let control = scratch.path().join("c");
    let output = lastout(&["--control", control.to_str().unwrap(), "--", "true"]).output().unwrap();
    assert_eq!(both(&output), "");
    let output = lastout(&["-v", "--control", control.to_str().unwrap(), "--", "true"]).output().unwrap();
    assert!(both(&output).contains("main"), "{}", both(&output));
    let mut command = lastout(&["--control", control.to_str().unwrap(), "--", "true"]);
    let output = command.env("LASTOUT_LOG", "debug").output().unwrap();
    assert!(both(&output).contains("now Stopping"), "{}", both(&output));
    let output = lastout(&["--control", control.to_str().unwrap(), "--", "nope-nope"]).output().unwrap();
    assert_eq!(both(&output), "lastout: error: cannot execute nope-nope: no such file or directory\n");
}

#[test]
fn usage_errors_are_125_and_say_what_to_do() {
    for (args, words) in [
        (&["--nope"][..], "Usage:"),
        (&["--grace", "soon", "--", "true"], "500ms"),
        (&["-e", "300", "true"], "0 to 255"),
        (&["-p", "SIGNOPE", "true"], "unknown signal"),
        (&["exec"], "Usage:"),
        (&["exec", "--timeout", "x", "--", "true"], "500ms"),
        (&["exec", "--nope", "true"], "Usage:"),
        (&["exec", "--name", "a/b", "true"], "not a name"),
        (&["wait"], "Usage:"),
        (&["kill", "-s", "NOPE", "j1"], "unknown signal"),
    ] {
        let output = lastout(args).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{args:?}");
        assert!(output.stdout.is_empty());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    for args in [&["--help"][..], &["--version"], &["exec", "--help"], &["help", "exec"]] {
        let output = lastout(args).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}");
    }
}

/// Says what it was given besides signals, by whatever standard descriptor is open.
const REPORT: &str = r#"
    my @said = (readlink('/proc/self/cwd'), ' ', umask, ' ', $ENV{GIVEN}, ' ');
    opendir D, '/proc/self/fd';
    push @said, join ' ', sort map { "$_=" . readlink "/proc/self/fd/$_" } grep { /^\d+$/ && $_ != fileno D } readdir D;
    open O, '>', $ENV{OUT}; print O @said;
"#;

#[test]
fn main_gets_exactly_what_lastout_was_given() {
    let scratch = scratch();
    let out = scratch.path().join("out");
    let control = scratch.path().join("c");
    let report = |through: bool, closed: &str, report: &[&str]| {
        // Ignored and blocked signals, a directory, a descriptor, and closed ones, made by a language that can.
        let set_up = format!(
            "use POSIX; $SIG{{$_}} = 'IGNORE' for qw(HUP PIPE CHLD USR2); \
             sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGUSR1, SIGTERM, SIGCHLD)); umask 027; \
             $^F = 100; open(my $f, '<', '/dev/zero'); POSIX::close($_) for ({closed}); exec @ARGV"
        );
        let mut command = Command::new("perl");
        command.args(["-e", &set_up]);
        if through {
            command.args([LASTOUT, "--control", control.to_str().unwrap(), "--"]);
        }
        command.args(report).env("GIVEN", "x").env("OUT", &out).env_remove("LASTOUT_CONTROL");
        let output = command.current_dir("/usr").stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{closed} {through}: {}", both(&output));
        fs::read_to_string(&out).unwrap()
    };
    for closed in ["", "0", "1", "2", "0, 2", "0, 1, 2"] {
        // Pipes have numbers of their own.
        let plain = |said: String| {
            said.split(' ').map(|word| word.split(":[").next().unwrap_or(word).to_string()).collect::<Vec<_>>()
        };
        let expected = plain(report(false, closed, &["perl", "-e", REPORT]));
        assert!(expected[..3] == ["/usr", "23", "x"] && expected.contains(&"3=/dev/zero".into()), "{expected:?}");
        assert_eq!(plain(report(true, closed, &["perl", "-e", REPORT])), expected, "{closed}");
    }
    // Perl and shells change their signals at their start; cp does not.
    let signals = |said: String| {
        said.lines()
            .filter(|line| line.starts_with("Sig") && !line.starts_with("SigQ"))
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let cp = ["cp", "/proc/self/status", out.to_str().unwrap()];
    let expected = signals(report(false, "", &cp));
    assert!(expected.iter().any(|line| line.starts_with("SigIgn:") && line.ends_with("11801")), "{expected:?}");
    assert_eq!(signals(report(true, "", &cp)), expected);
}

#[test]
fn closed_standard_descriptors_are_no_problem() {
    let scratch = scratch();
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let script = format!("{LASTOUT} --control {}/c -- sh -c 'exit 5' {closed}", scratch.path().display());
        let status = Command::new("sh").args(["-c", &script]).env_remove("LASTOUT_CONTROL").status().unwrap();
        assert_eq!(status.code(), Some(5), "{closed}");
    }
    // A closed descriptor stays closed for main; it does not become one of ours.
    let script = format!("{LASTOUT} --control {}/c -- ls -l /proc/self/fd/0 <&-", scratch.path().display());
    let output = Command::new("sh").args(["-c", &script]).env_remove("LASTOUT_CONTROL").output().unwrap();
    assert!(!both(&output).contains("/c/"), "{}", both(&output));
}

#[test]
fn the_init_itself_keeps_nothing_of_mains() {
    let scratch = scratch();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = lastout(&["--control", scratch.path().join("c").to_str().unwrap(), "--", "sh", "-c"]);
    command.arg("exec >&-; echo $PPID > ready; exec sleep 1000").current_dir(scratch.path());
    let mut child = command.stdout(writer).spawn().unwrap();
    drop(command);
    // Main has closed its output: nobody else may hold it.
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    let ready = scratch.path().join("ready");
    let pid = until("main", || fs::read_to_string(&ready).ok().filter(|text| text.ends_with('\n')));
    let pid = pid.trim();
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    run("kill", &[pid]);
    assert_eq!(status(wait(&mut child)), 143);
}

/// A main in perl that writes each signal that it gets, by its number.
const RECORDER: &str = r#"
    use POSIX; $| = 1;
    my @all = grep { !($_ == 9 || $_ == 19 || $_ == 17 || $_ == 32 || $_ == 33) } 1..64;
    my $set = POSIX::SigSet->new(@all);
    for my $n (@all) { sigaction($n, POSIX::SigAction->new(sub { syswrite(STDOUT, "$n\n") }, $set)) }
    syswrite(STDOUT, "ready\n");
    while (1) { select(undef, undef, undef, 1000) }
"#;

#[test]
fn every_forwardable_signal_arrives_at_main_once() {
    let scratch = scratch();
    let mut command = lastout(&["--control", scratch.path().join("c").to_str().unwrap(), "--", "perl", "-e", RECORDER]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let got = lines(child.stdout.take().unwrap());
    assert_eq!(got.recv_timeout(PATIENCE).unwrap(), "ready");
    for number in (1..=64).filter(|n| ![9, 17, 19, 32, 33].contains(n)) {
        run("kill", &["-s", &number.to_string(), &child.id().to_string()]);
        assert_eq!(got.recv_timeout(PATIENCE).unwrap(), number.to_string());
    }
    let main = children(child.id() as i32)[0];
    run("kill", &["-KILL", &main.to_string()]);
    assert_eq!(status(wait(&mut child)), 137);
    assert_eq!(got.iter().collect::<Vec<_>>(), Vec::<String>::new(), "nothing twice");
}

#[test]
fn signals_go_to_mains_whole_group() {
    let scratch = scratch();
    let mut command = lastout(&["--control", scratch.path().join("c").to_str().unwrap(), "--", "perl", "-e"]);
    // The outer one ignores the signal and the inner one gets it.
    command.arg("$SIG{USR1} = 'IGNORE'; my $p = fork; if (!$p) { $SIG{USR1} = sub { print \"inner\\n\"; exit }; $| = 1; print \"ready\\n\"; sleep 1000 while 1 } waitpid $p, 0; exit 4");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let got = lines(child.stdout.take().unwrap());
    assert_eq!(got.recv_timeout(PATIENCE).unwrap(), "ready");
    run("kill", &["-USR1", &child.id().to_string()]);
    assert_eq!(got.recv_timeout(PATIENCE).unwrap(), "inner");
    assert_eq!(status(wait(&mut child)), 4);
}

#[test]
fn ten_thousand_orphans_leave_no_zombie() {
    if !has("root") {
        return;
    }
    let script = "use POSIX; for (1..10000) { if (!fork) { if (!fork) { _exit(0) } _exit(0) } wait } \
                  sleep 0; for (1..10000) { opendir(D, '/proc'); my $z = 0; \
                  for (grep /^\\d+$/, readdir D) { open(F, \"/proc/$_/stat\") or next; $z++ if <F> =~ /\\) Z/ } \
                  exit 0 if !$z; select(undef, undef, undef, 0.01) } exit 1";
    let output = lastout_as_pid1(&["--", "perl", "-e", script]).output().unwrap();
    assert_eq!(status(output.status), 0, "{}", both(&output));
}

#[test]
fn a_dead_parent_ends_a_subreaper_in_order() {
    let scratch = scratch();
    let saved = scratch.path().join("saved");
    let mark = mark("orphaned");
    // The parent asks for SIGKILL on its own death, as Apptainer's starter does, and is killed.
    let script = format!(
        "require 'syscall.ph' if 0; if (!fork) {{ syscall(157, 1, 9, 0, 0, 0); exec('{LASTOUT}', '--control', '{dir}/c', '--', 'sh', '-c', 'trap \"echo yes > {saved}; exit\" TERM; echo {mark} > {dir}/up; while :; do sleep 0.05; done') }} sleep 1000",
        dir = scratch.path().display(),
        saved = saved.display()
    );
    let mut parent = Command::new("perl").args(["-e", &script]).env_remove("LASTOUT_CONTROL").spawn().unwrap();
    until("main", || scratch.path().join("up").exists().then_some(()));
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("main's saving", || fs::read_to_string(&saved).ok().filter(|text| text == "yes\n"));
    until("the end", || (!is_running(scratch.path().to_str().unwrap())).then_some(()));
}

#[test]
fn in_hold_it_ends_in_order_and_at_once() {
    for signal in ["TERM", "INT"] {
        let init = Init::start(As::Subreaper, &[]);
        init.signal(signal);
        let control = init.control();
        assert_eq!(init.end().0, 0);
        assert!(!control.exists(), "what it made it removes");
    }
}

#[test]
fn a_full_standard_error_costs_log_lines_and_not_the_init() {
    let scratch = scratch();
    let (reader, writer) = std::io::pipe().unwrap();
    let control = scratch.path().join("c");
    let mut command = lastout(&["-vvv", "--control", control.to_str().unwrap()]);
    let mut child = command.stderr(writer).spawn().unwrap();
    drop(command);
    // Nobody reads: at "trace" a few hundred jobs fill the pipe many times over.
    let exec = |command: &[&str]| {
        let mut client = lastout(&["exec", "--wait", "30", "--control", control.to_str().unwrap(), "--"]);
        client.args(command).output().unwrap()
    };
    for _ in 0..200 {
        assert!(exec(&["true"]).status.success());
    }
    drop(reader);
    run("kill", &[&child.id().to_string()]);
    assert_eq!(status(wait(&mut child)), 0);
}

#[test]
fn the_terminal_comes_back() {
    // `script` gives a terminal; the shell in it reads after lastout has gone.
    let scratch = scratch();
    let inner = format!("sh -c '{LASTOUT} --control {}/c -- true; head -1'", scratch.path().display());
    let mut command = Command::new("script");
    command
        .args(["-qec", &inner, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .env_remove("LASTOUT_CONTROL");
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.matches("hello").count(), 2, "echoed and read: {said}");
}

#[test]
fn a_bug_in_it_does_not_take_the_container_down() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    let up = scratch.path().join("up");
    let control = scratch.path().join("c");
    // Main ends with 6 when it gets USR1, and leaves an orphan that must be reaped.
    let script = format!("trap 'exit 6' USR1; (sleep 0 &); echo up > {}; while :; do sleep 0.02; done", up.display());
    let args = ["--control", control.to_str().unwrap(), "--", "sh", "-c", &script];
    let mut command = lastout_as_pid1(&args);
    let mut child = command.env("LASTOUT_TEST_PANIC", "1").stderr(Stdio::piped()).spawn().unwrap();
    let log = lines(child.stderr.take().unwrap());
    until("main", || up.exists().then_some(()));
    let init = children(child.id() as i32)[0].to_string();
    let running = mark("job");
    let mut job = lastout(&["exec", "--control", control.to_str().unwrap(), "--", "perl", "-e"]);
    let mut job =
        job.arg(format!("$| = 1; print qq(up\\n); sleep 1000 # {running}")).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(lines(job.stdout.take().unwrap()).recv_timeout(PATIENCE).unwrap(), "up");
    run("kill", &["-PWR", &init]);
    until("its word", || log.recv_timeout(PATIENCE).ok().filter(|line| line.contains("going on as a bare init")));
    assert!(is_running(&running), "jobs run on");
    let late = lastout(&["exec", "--control", control.to_str().unwrap(), "--", "true"]).output().unwrap();
    assert_eq!(late.status.code(), Some(125), "and new clients are told");
    run("kill", &["-USR1", &init]);
    assert_eq!(status(wait(&mut child)), 6);
    assert_eq!(status(wait(&mut job)), 125);
}
