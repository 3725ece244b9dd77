//! PID 1 never blocks: a volume that hangs, pipes that are full, clients that do not read.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{Read, Write},
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::support::{
    hangfs::{HangFs, Op, apart},
    *,
};

/// Main: on SIGUSR1 it leaves an orphan to the init, whose pid it writes to `orphan`; on SIGTERM it exits with 5.
/// It writes to its standard output and error all the time, from processes of their own.
const MAIN: &str = r#"
    ($dir) = @ARGV;
    for $fd (1, 2) { if (!fork) { open my $f, ">&=", $fd; 1 while syswrite $f, "x" x 4096; exit } }
    $SIG{TERM} = sub { exit 5 };
    $SIG{USR1} = sub {
        if (!fork) {
            if (!fork) { open my $f, ">", "$dir/orphan.new"; print $f $$; close $f; rename "$dir/orphan.new", "$dir/orphan"; exit }
            exit
        }
        wait
    };
    open my $f, ">", "$dir/up";
    sleep 1 while 1
"#;

/// Ways to get stuck, the request that is then held, and the exit code of a job that goes on when it thaws.
const WAYS: [(&str, Op, i32); 7] = [
    ("read", Op::Read, 3),
    ("write", Op::Write, 3),
    ("flush", Op::Flush, 3),
    ("exit", Op::Flush, 3),
    ("fsync", Op::Fsync, 3),
    ("fault", Op::Read, 3),
    ("exec", Op::Read, 0),
];

/// A volume with a file for each way.
fn volume(path: &Path) -> HangFs {
    let volume = HangFs::mount(path);
    for (way, ..) in WAYS {
        volume.put(way, b"x\n", 0o666);
    }
    volume.put("exec", &fs::read("/bin/true").unwrap(), 0o755);
    volume.put("directory/file", b"", 0o666);
    volume
}

/// Freezes it and starts a job for each way, all of them stuck.
fn stick(init: &Init, volume: &HangFs) -> Vec<(Child, &'static str, i32)> {
    volume.freeze(&[Op::Read, Op::Write, Op::Flush, Op::Fsync]);
    let on = |name: &str| volume.path.join(name).display().to_string();
    let mut jobs = Vec::new();
    let mut start = |name: &'static str, words: &[&str], code| {
        let mut command = init.client(&["exec", "--name", name]);
        let child = command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        jobs.push((child, name, code));
    };
    let program = FIXTURES.join("stuck").display().to_string();
    for (way, op, code) in WAYS {
        match way {
            "exec" => start(way, &["--", &on(way)], code),
            _ => start(way, &["--", &program, way, &on(way)], code),
        }
        volume.until_waiting(op, way);
    }
    // A name on it does not resolve: the job's directory.
    volume.freeze(&[Op::Lookup, Op::Getattr, Op::Open, Op::Statfs, Op::Release]);
    start("chdir", &["--workdir", &on("directory"), "--", "true"], 0);
    volume.until_waiting(Op::Lookup, "directory");
    jobs
}

/// A pipe without room; its reading end must live on.
fn full_pipe() -> (File, File) {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    fill(&File::from(write.try_clone().unwrap()));
    (read.into(), write.into())
}

fn fill(mut write: &File) {
    let set = |flags| fcntl(write.as_fd(), FcntlArg::F_SETFL(flags)).unwrap();
    set(OFlag::O_NONBLOCK);
    for piece in [4096, 1] {
        while write.write(&vec![b'x'; piece]).is_ok() {}
    }
    set(OFlag::empty());
}

/// A client that asks for the list of jobs and has left no room for it. Its pipe, to be kept.
fn client_that_never_reads(init: &Init, number: u32) -> File {
    let id = format!("{number:032x}");
    let request = init.control().join("requests").join(&id);
    fs::create_dir(&request).unwrap();
    let reply = request.join("reply");
    nix::unistd::mkfifo(&reply, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let reply = File::options().read(true).write(true).open(reply).unwrap();
    fill(&reply);
    let mut control = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(init.control().join("control"));
    control.as_mut().unwrap().write_all(format!("\nps @{id}\n").as_bytes()).unwrap();
    reply
}

/// Signals are forwarded, orphans are reaped, `ps` answers, a job runs.
fn all_is_well(init: &Init) {
    let orphan = init.scratch.path().join("orphan");
    init.signal("USR1");
    until("main's orphan", || fs::remove_file(&orphan).ok());
    until("the orphan's end", || children(init.pid).into_iter().all(|child| !is_zombie(child)).then_some(()));
    let listed = init.must(&["ps"]);
    for (way, ..) in WAYS {
        assert!(listed.contains(way), "{listed}");
    }
    assert_eq!(init.must(&["exec", "--", "echo", "fresh"]), "fresh\n");
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// The 50th and 99th percentile.
fn percentiles(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[test]
fn with_a_frozen_volume_full_pipes_and_deaf_clients_pid_1_does_its_work() {
    if !has("fuse") {
        return;
    }
    for role in [As::Subreaper, As::Pid1] {
        let scratch = scratch();
        let volume_scratch = crate::support::scratch();
        let volume = volume(&volume_scratch.path().join("volume"));
        let (stdout, stdout_write) = full_pipe();
        let (stderr, stderr_write) = full_pipe();
        let dir = scratch.path().display().to_string();
        let args = ["-vv", "--grace", "300ms", "--", "perl", "-e", MAIN, &dir];
        let mut init = Init::start_with(scratch, role, &args, stdout_write.into(), stderr_write.into());
        until("main", || init.scratch.path().join("up").exists().then_some(()));

        let jobs = stick(&init, &volume);
        // A client that does not take what its job says, and stands still.
        let mut deaf = init.client(&["exec", "--name", "deaf", "--", "yes"]).stdout(Stdio::piped()).spawn().unwrap();
        deaf.stdout.as_mut().unwrap().read_exact(&mut [0; 4096]).unwrap();
        run("kill", &["-STOP", &deaf.id().to_string()]);
        let unread: Vec<File> = (0..20).map(|number| client_that_never_reads(&init, number)).collect();
        all_is_well(&init);
        assert!(init.must(&["ps"]).contains("deaf"));

        // It thaws: everything goes on and ends by itself.
        volume.thaw();
        for (mut job, name, code) in jobs {
            assert_eq!(status(wait(&mut job)), code, "{role:?}: {name}");
        }

        // Frozen again, it is told to stop: what is stuck cannot, but it answers.
        for (way, ..) in WAYS.iter().filter(|(way, ..)| *way != "exec") {
            volume.put(way, b"x\n", 0o666);
        }
        let jobs = stick(&init, &volume);
        // One that only SIGKILL ends: when it is gone, the others have had theirs.
        let stubborn = mark("stubborn");
        let script = format!("trap '' TERM; echo up; while :; do sleep 0.01; done # {stubborn}");
        let mut client = init.client(&["exec", "--", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        client.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
        init.signal("TERM");
        assert_eq!(status(wait(&mut client)), 137);
        assert!(!is_running(&stubborn));
        assert!(init.must(&["ps"]).matches("ending").count() >= jobs.len() - 1);
        assert!(init.child.try_wait().unwrap().is_none(), "{role:?}: it left somebody behind");
        volume.thaw();
        assert_eq!(init.end().0, 5, "{role:?}");
        for (mut job, ..) in jobs {
            wait(&mut job);
        }
        deaf.kill().unwrap();
        deaf.wait().unwrap();
        drop((stdout, stderr, unread));
        volume.unmount().unwrap_or_else(|error| panic!("{role:?}: something is left on it: {error}"));
    }
}

/// Prints how long `ps` takes with a volume frozen and jobs stuck on it, and without. Alternating, because other
/// work on the machine makes more of a difference. Nothing is asserted about time.
#[test]
fn ps_answers_with_a_frozen_volume() {
    if !has("fuse") {
        return;
    }
    let rounds = if std::env::var_os("LASTOUT_TEST_LONG").is_some() { 500 } else { 50 };
    for role in [As::Subreaper, As::Pid1] {
        let scratch = scratch();
        let volume = volume(&scratch.path().join("volume"));
        let [frozen, free] = [(); 2].map(|()| Init::start(role, &["--grace", "300ms"]));
        let jobs = stick(&frozen, &volume);
        for _ in &jobs {
            free.must(&["exec", "--detach", "--", "sleep", "1000"]);
        }
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (init, times) in [&frozen, &free].into_iter().zip(&mut times) {
                let start = Instant::now();
                let listed = init.must(&["ps"]);
                times.push(start.elapsed());
                assert!(listed.lines().count() > jobs.len(), "{listed}");
            }
        }
        let [(frozen_50, frozen_99), (free_50, free_99)] = times.each_mut().map(|times| percentiles(times));
        println!(
            "{rounds} ps, {role:?}: frozen p50 {frozen_50:.2?} p99 {frozen_99:.2?}, free p50 {free_50:.2?} p99 {free_99:.2?}"
        );
        volume.thaw();
        for (mut job, ..) in jobs {
            wait(&mut job);
        }
    }
}

#[test]
fn a_log_on_a_volume_that_hangs_stops_nobody_and_is_written_when_it_thaws() {
    if has("fuse") {
        log_on_a_volume_that_hangs();
        // Somebody else's volume, with a name that is no text, does not hide what ours is.
        apart(|| {
            let scratch = scratch();
            let _odd = Volume::mount(&scratch.path().join(OsStr::from_bytes(b"no\ntext \xff")));
            log_on_a_volume_that_hangs();
        });
    }
}

fn log_on_a_volume_that_hangs() {
    for role in [As::Subreaper, As::Pid1] {
        let scratch = scratch();
        let volume = HangFs::mount(&scratch.path().join("volume"));
        let log = || File::options().create(true).append(true).open(volume.path.join("log")).unwrap();
        let (stdout, stderr) = (log(), log());
        let main = ["--", "sh", "-c", "trap 'exit 4' TERM; trap : USR1; while :; do sleep 0.01; done"];
        let args = [&["-v", "-w", "--grace", "300ms"][..], &main].concat();
        let mut init = Init::start_with(crate::support::scratch(), role, &args, stdout.into(), stderr.into());
        // Whatever holds the file would hang when it closes it; and every look at it hangs, too.
        volume.freeze(&[Op::Write, Op::Flush, Op::Getattr, Op::Lookup, Op::Fsync]);
        for round in 0..200 {
            // Each bad line costs a line of log.
            let mut control = File::options().write(true).open(init.control().join("control")).unwrap();
            control.write_all(format!("\nnonsense {round}\n").as_bytes()).unwrap();
        }
        volume.until_waiting(Op::Write, "log");
        init.signal("USR1");
        assert_eq!(init.must(&["exec", "--", "echo", "fresh"]), "fresh\n");
        init.must(&["exec", "--detach", "--", "sh", "-c", "trap '' TERM; while :; do sleep 0.01; done"]);
        assert!(init.must(&["ps"]).contains("running"));
        // It waits for the end, too.
        let mut shutdown = init.client(&["shutdown"]).spawn().unwrap();
        // All that was to end has ended; only the log is not written. (Main and its children have the file open.)
        until("the job's end", || (!is_running("trap '' TERM; while :; do sleep 0.01")).then_some(()));
        assert!(init.child.try_wait().unwrap().is_none());
        volume.thaw();
        assert_eq!(init.end().0, 4, "{role:?}");
        assert_eq!(status(wait(&mut shutdown)), 0);
        let said = String::from_utf8(volume.contents("log").unwrap()).unwrap();
        assert!(said.contains("nonsense"), "{said}");
        assert!(said.contains("more lines like these were passed over"), "the last line: {said}");
        volume.unmount().unwrap_or_else(|error| panic!("{role:?}: something is left on it: {error}"));
    }
}

#[test]
fn a_bug_is_survived_though_nobody_reads_of_it() {
    let scratch = scratch();
    let (stderr, stderr_write) = full_pipe();
    let control = scratch.path().join("c");
    // Not a shell: it would say on standard error that its child was killed.
    let main = "$SIG{USR1} = sub { exit 6 }; $| = 1; print qq(up\\n); sleep 1 while 1";
    let mut command = lastout(&["--control", control.to_str().unwrap(), "--", "perl", "-e", main]);
    command.env("LASTOUT_TEST_PANIC", "1").stdout(Stdio::piped()).stderr(stderr_write);
    let mut init = command.spawn().unwrap();
    init.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    run("kill", &["-s", "PWR", &init.id().to_string()]);
    until("the end of control", || (!control.join("control").exists()).then_some(()));
    run("kill", &["-s", "USR1", &init.id().to_string()]);
    assert_eq!(status(wait(&mut init)), 6);
    drop(stderr);
}
