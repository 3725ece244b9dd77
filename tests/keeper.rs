//! One run of a service, as its keeper serves it: a keeper is forked as the init forks it, and driven by hand.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{Read, Write},
    net::TcpListener,
    os::{
        fd::{AsRawFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use lastout::{
    base::{Exit, JobId, Pid, Signal},
    core::{
        Source,
        service::{Check, Health, Ready, RunConfig, Stop, StopTo},
    },
    keeper,
    proto::{Cause, Notice, Order, Record},
    sys::{
        dir::Dir,
        fd,
        link::{Link, Received},
        poll::{Interest, wait_any},
        spawn, start,
    },
};
use nix::sys::wait::waitpid;

use crate::support::{
    hangfs::{HangFs, apart},
    *,
};

const FOR_EVER: Duration = Duration::from_secs(600);

/// A service `sh -c SCRIPT`.
fn service(script: &str) -> RunConfig {
    RunConfig { setup_timeout: FOR_EVER, ..RunConfig::new(shell(script)) }
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(String::from).into()
}

fn health(check: Check) -> Option<Health> {
    let every = Duration::from_millis(20);
    Some(Health { check, every, timeout: FOR_EVER, retries: 1, start_period: Duration::ZERO })
}

/// Log lines to standard error.
struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let _ = fd::write(fd::standard(2), format!("{}: {}\n", record.level(), record.args()).as_bytes());
    }

    fn flush(&self) {}
}

/// A keeper, and our end of its link.
struct Keeper {
    link: Link,
    pid: nix::unistd::Pid,
    job: JobId,
    mark: String,
    scratch: tempfile::TempDir,
    notices: Vec<Notice>,
}

impl Keeper {
    fn start(run: RunConfig) -> Keeper {
        Keeper::start_in(scratch(), run)
    }

    fn start_in(scratch: tempfile::TempDir, mut run: RunConfig) -> Keeper {
        static JOBS: AtomicU64 = AtomicU64::new(1);
        let job = JobId(JOBS.fetch_add(1, Ordering::Relaxed));
        let mark = mark("keeper");
        run.env.push(("MARK".into(), mark.clone()));
        let here = scratch.path().to_owned();
        fs::create_dir_all(here.join("jobs")).unwrap();
        let control = Dir::open(&here).unwrap();
        let (ours, theirs) = Link::pair().unwrap();
        let open = |name: &str| File::options().append(true).create(true).open(here.join(name)).unwrap();
        let (stdout, stderr) = (OwnedFd::from(open("out")), OwnedFd::from(open("err")));
        let lines = open("log");
        let path = std::env::var("PATH").unwrap();
        let name = Some("web".parse().unwrap());
        let pid = spawn::fork_child(|| {
            fd::let_go_of_stdio();
            nix::unistd::dup2_stderr(&lines).unwrap();
            let keep = [theirs.fd(), control.fd(), &stdout, &stderr].map(|fd| fd.as_raw_fd());
            fd::close_all_but(&keep);
            if log::set_logger(&Lines).is_ok() {
                log::set_max_level(log::LevelFilter::Debug);
            }
            let original = start::begin();
            keeper::run(keeper::Start {
                job,
                name,
                source: Source::Service(Rc::new(run)),
                prune: Vec::new(),
                link: &theirs,
                control: Some(&control),
                environment: &|own| {
                    let path = format!("PATH={path}").into_bytes();
                    [&[path][..], own]
                        .concat()
                        .into_iter()
                        .filter_map(|entry| CString::new(entry).ok().map(Into::into))
                        .collect()
                },
                cwd: &here,
                grace: Duration::from_secs(600),
                original: &original,
                oom: None,
                ignored: &[],
                stdout: Some(&stdout),
                stderr: Some(&stderr),
            })
        });
        let pid = nix::unistd::Pid::from_raw(pid.unwrap().get());
        Keeper { link: ours, pid, job, mark, scratch, notices: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits for a notice, and answers with it.
    fn until(&mut self, what: impl Fn(&Notice) -> bool) -> Notice {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(notice) = self.notices.iter().find(|notice| what(notice)) {
                return notice.clone();
            }
            let fds = [(std::os::fd::AsFd::as_fd(self.link.fd()), Interest::Read)];
            wait_any(&fds, Some(deadline.saturating_duration_since(Instant::now()))).unwrap();
            match self.link.receive() {
                Received::Message(message) => self.notices.push(Notice::parse(&message).expect("a notice")),
                Received::Nothing => {}
                Received::Gone => panic!("it has gone: {:?}; {}", self.notices, self.read("log")),
            }
            assert!(Instant::now() < deadline, "waited in vain: {:?}; {}", self.notices, self.read("log"));
        }
    }

    fn until_ready(&mut self) {
        self.until(|notice| *notice == Notice::Ready);
    }

    /// The same for [`daemon`], which must not lose its mount before it has looked at it.
    fn until_serving(&mut self) {
        self.until_ready();
        until("it to serve", || fs::remove_file(self.path("serving")).ok());
    }

    fn started(&mut self) -> Pid {
        match self.until(|notice| matches!(notice, Notice::Started(_))) {
            Notice::Started(pid) => pid,
            _ => unreachable!(),
        }
    }

    fn stop(&self, grace_ms: u64) {
        let cause = Cause::Stopped { by: None };
        self.link.send(&Order::Stop { cause, grace_ms, asked: false }.to_bytes()).unwrap();
    }

    /// Waits for the end, after which nobody is left; answers with what the init is told, which the record says, too.
    fn ended(&mut self) -> (Option<Exit>, Cause) {
        let ended = self.until(|notice| matches!(notice, Notice::Ended { .. }));
        let Notice::Ended { exit, cause, .. } = ended else { unreachable!() };
        let left: Vec<String> = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|entry| {
                let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
                String::from_utf8_lossy(&environ).contains(&format!("MARK={}", self.mark))
            })
            .map(|entry| entry.file_name().display().to_string())
            .collect();
        assert!(left.is_empty(), "{left:?} are left");
        waitpid(self.pid, None).unwrap();
        if let Ok(record) = fs::read(self.path("jobs").join(self.job.to_string()).join("record.json")) {
            let record = Record::parse(&record).unwrap();
            assert_eq!((record.exit, &record.cause), (exit, &cause));
        }
        (exit, cause)
    }

    fn cause(&mut self) -> Cause {
        self.ended().1
    }
}

const STOPPED: Cause = Cause::Stopped { by: None };
const SIGTERM: Option<Exit> = Some(Exit::Signal(Signal::TERM));

/// Sends a message to the notify socket, as sd_notify(3) has it.
const NOTIFY: &str = r#"notify() { perl -MSocket -e '
    socket my $s, PF_UNIX, SOCK_DGRAM, 0; ($a = $ENV{NOTIFY_SOCKET}) =~ s/^@/\0/;
    send $s, join("\n", @ARGV), 0, pack_sockaddr_un $a or die $!; kill STOP => $$ if $ENV{STAY}' "$@"; }
"#;

#[test]
fn a_setup_is_run_in_order_and_its_output_goes_where_the_services_goes() {
    let mut keeper = Keeper::start(RunConfig {
        setup: vec![shell("echo one; echo two >&2"), ["echo", "a  b"].map(String::from).into()],
        ..service("echo $LASTOUT_SERVICE $LASTOUT_JOB; echo four >&2; exit 3")
    });
    assert_eq!(keeper.ended(), (Some(Exit::Code(3)), Cause::Exited));
    let expected = format!("one\na  b\nweb {}\n", keeper.job);
    assert_eq!((keeper.read("out"), keeper.read("err")), (expected, "two\nfour\n".into()));
    let told: Vec<_> = keeper.notices.iter().filter(|n| matches!(n, Notice::Setup(_) | Notice::Started(_))).collect();
    assert!(matches!(told[..], [Notice::Setup(1), Notice::Setup(2), Notice::Started(_)]), "{told:?}");
}

#[test]
fn a_setup_that_fails_is_the_cause_with_what_it_said() {
    let failed = |command: &str, exit, output: &str| {
        (None, Cause::SetupFailed { command: command.into(), exit, output: output.into() })
    };
    let mut keeper =
        Keeper::start(RunConfig { setup: vec![shell("sleep 600 & echo no bucket; exit 4")], ..service("echo never") });
    let command = "sleep 600 & echo no bucket; exit 4";
    assert_eq!(keeper.ended(), failed(command, Some(Exit::Code(4)), "no bucket"));
    assert_eq!(keeper.read("out"), "no bucket\n");
    let setup = vec![vec!["/nowhere/x".to_string()]];
    let mut keeper = Keeper::start(RunConfig { setup, ..service("echo never") });
    let output = "cannot execute /nowhere/x: no such file or directory";
    assert_eq!(keeper.ended(), failed("/nowhere/x", Some(Exit::Code(127)), output));
    let setup_timeout = Duration::from_millis(300);
    let setup = vec![shell("echo slow; sleep 600")];
    let mut keeper = Keeper::start(RunConfig { setup, setup_timeout, ..service("echo never") });
    assert_eq!(keeper.ended(), failed("echo slow; sleep 600", None, "slow"));
}

#[test]
fn a_service_says_that_it_is_ready_and_how_it_is() {
    let script = format!("{NOTIFY} notify READY=1 STATUS=warm; exec sleep 600");
    let mut keeper =
        Keeper::start(RunConfig { ready: Ready::Notify, ..service(&format!("STAY=1; export STAY; {script}")) });
    // Its sender stays, so that it can be seen whose it is.
    keeper.until_ready();
    keeper.until(|notice| *notice == Notice::Status("warm".into()));
    keeper.stop(600_000);
    assert_eq!(keeper.ended(), (SIGTERM, STOPPED));
}

#[test]
fn nobody_else_can_say_it_for_a_service() {
    let mut keeper = Keeper::start(RunConfig {
        ready: Ready::Notify,
        start_timeout: Some(Duration::from_millis(1500)),
        ..service("echo $NOTIFY_SOCKET > address.new; mv address.new address; exec sleep 600")
    });
    let address = until("its address", || fs::read_to_string(keeper.path("address")).ok());
    let address = SocketAddr::from_abstract_name(address.trim().trim_start_matches('@')).unwrap();
    UnixDatagram::unbound().unwrap().send_to_addr(b"READY=1", &address).unwrap();
    assert_eq!(keeper.cause(), Cause::NotReady);
    assert!(!keeper.notices.contains(&Notice::Ready));
    assert!(keeper.read("log").contains("which is not of the service"), "{}", keeper.read("log"));
}

#[test]
fn a_newline_on_descriptor_3_is_readiness() {
    let mut keeper = Keeper::start(RunConfig { ready: Ready::Fd, ..service("echo >&3; exec 3>&-; exec sleep 600") });
    keeper.until_ready();
    keeper.stop(600_000);
    assert_eq!(keeper.ended(), (SIGTERM, STOPPED));
    // What is executed finds no descriptor of ours besides, and none that was not asked for.
    for (ready, expected) in [(Ready::Fd, "0 1 2 3 "), (Ready::Started, "0 1 2 ")] {
        let list = r#"exec perl -e 'opendir $d, "/proc/self/fd"; print "$_ " for grep { $_ ne fileno $d } sort grep /\d/, readdir $d'"#;
        let mut keeper = Keeper::start(RunConfig { ready, ..service(list) });
        keeper.ended();
        assert_eq!(keeper.read("out"), expected, "{ready:?}");
    }
}

#[test]
fn a_watchdog_is_told_to_the_command_and_bites() {
    let mut keeper = Keeper::start(RunConfig {
        watchdog: Some(Duration::from_millis(400)),
        ..service("echo $WATCHDOG_USEC $WATCHDOG_PID $$; exec sleep 600")
    });
    let pid = keeper.started();
    assert_eq!(keeper.ended(), (SIGTERM, Cause::Watchdog));
    assert_eq!(keeper.read("out"), format!("400000 {pid} {pid}\n"));
}

#[test]
fn a_health_command_that_begins_to_fail_ends_the_service() {
    let check = Check::Command(shell("echo looking; test -e well || { echo no answer; exit 1; }"));
    let mut keeper = Keeper::start(RunConfig {
        ready: Ready::Healthy,
        health: health(check),
        setup: vec![shell("touch well")],
        ..service("exec sleep 600")
    });
    keeper.until_ready();
    fs::remove_file(keeper.path("well")).unwrap();
    assert_eq!(keeper.ended(), (SIGTERM, Cause::Unhealthy { why: "no answer (exit code 1)".into() }));
    let told: Vec<_> = keeper.notices.iter().filter(|notice| matches!(notice, Notice::Healthy(_))).collect();
    assert_eq!(told, [&Notice::Healthy(true), &Notice::Healthy(false)], "only what has changed is told");
    assert_eq!(keeper.read("out"), "", "what checks say is nobody's output");
}

#[test]
fn a_check_that_hangs_is_ended_with_all_that_it_started() {
    // In its group, out of it, and deaf.
    let check =
        shell("trap '' TERM; sleep 601 & setsid sh -c 'trap \"\" TERM; sleep 602 & wait' & echo x >> checks; wait");
    let mut health = health(Check::Command(check)).unwrap();
    (health.timeout, health.retries) = (Duration::from_millis(500), u32::MAX);
    let mut keeper = Keeper::start(RunConfig { health: Some(health), ..service("echo $$; exec sleep 600") });
    keeper.started();
    let is_checked = || (keeper.read("checks").lines().count() >= 3).then_some(());
    until("three checks", is_checked);
    let mark = format!("MARK={}", keeper.mark);
    let processes = || {
        let pids = fs::read_dir("/proc").unwrap().flatten();
        pids.filter(|entry| {
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            String::from_utf8_lossy(&environ).contains(&mark)
        })
        .count()
    };
    // The service and one check: sh, sh, two sleeps. Of those before nobody is left.
    until("the end of those before", || (processes() <= 5).then_some(()));
    keeper.stop(600_000);
    assert_eq!(keeper.ended(), (SIGTERM, STOPPED));
}

#[test]
fn built_in_checks_ask_a_port() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        for answer in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 503 No\r\n\r\n"] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
        // Whoever connects from now on hangs.
        listener
    });
    let host = || "127.0.0.1".to_string();
    let check = health(Check::Http { host: host(), port, path: "/".into() });
    let mut keeper = Keeper::start(RunConfig { ready: Ready::Healthy, health: check, ..service("exec sleep 600") });
    keeper.until_ready();
    assert_eq!(keeper.cause(), Cause::Unhealthy { why: "status 503".into() });
    let listener = server.join().unwrap();
    let mut check = health(Check::Http { host: host(), port, path: "/".into() }).unwrap();
    check.timeout = Duration::from_millis(200);
    let mut keeper = Keeper::start(RunConfig { health: Some(check), ..service("exec sleep 600") });
    assert_eq!(keeper.cause(), Cause::Unhealthy { why: "no answer within 200ms".into() });
    let tcp = health(Check::Tcp { host: host(), port });
    let mut keeper = Keeper::start(RunConfig { health: tcp, ready: Ready::Healthy, ..service("exec sleep 600") });
    keeper.until_ready();
    drop(listener);
    let why = format!("cannot connect to 127.0.0.1:{port}: connection refused");
    assert_eq!(keeper.cause(), Cause::Unhealthy { why });
}

#[test]
fn a_stop_ends_it_wherever_it_is() {
    let hanging = shell("touch here; exec sleep 600");
    let setup = RunConfig { setup: vec![hanging.clone()], ..service("echo never") };
    let check = RunConfig { health: health(Check::Command(hanging)), ..service("exec sleep 600") };
    let starting = RunConfig { ready: Ready::Notify, ..service("touch here; exec sleep 600") };
    for run in [setup, check, starting] {
        let mut keeper = Keeper::start(run);
        until("it to be there", || keeper.path("here").exists().then_some(()));
        keeper.stop(600_000);
        assert_eq!(keeper.cause(), STOPPED);
        assert_eq!(keeper.read("out"), "");
    }
}

#[test]
fn it_is_asked_in_its_own_way_and_forced_after_its_own_grace() {
    let stop = |signal, grace: u64| Stop { signal, to: StopTo::Tree, grace: Some(Duration::from_millis(grace)) };
    let script = "trap 'exit 7' USR1; trap '' TERM; touch here; while :; do sleep 0.01; done";
    let mut keeper = Keeper::start(RunConfig { stop: stop(Signal::USR1, 600_000), ..service(script) });
    until("it to be there", || keeper.path("here").exists().then_some(()));
    keeper.stop(600_000);
    assert_eq!(keeper.ended(), (Some(Exit::Code(7)), STOPPED));
    let mut keeper = Keeper::start(RunConfig { stop: stop(Signal::TERM, 100), ..service(script) });
    until("it to be there", || keeper.path("here").exists().then_some(()));
    keeper.stop(600_000);
    assert_eq!(keeper.ended(), (Some(Exit::Signal(Signal::KILL)), STOPPED));
}

#[test]
fn an_escaped_child_that_holds_its_output_ends_with_it() {
    let mut keeper = Keeper::start(service("setsid sh -c 'sleep 600 & sleep 600' & exit 5"));
    assert_eq!(keeper.ended(), (Some(Exit::Code(5)), Cause::Exited));
}

/// The command of a mount's daemon: this very program, see [`a_fuse_server_for_the_other_tests`].
fn daemon(path: &Path) -> RunConfig {
    let exe = std::env::current_exe().unwrap();
    let words = [exe.to_str().unwrap(), "--exact", "keeper::a_fuse_server_for_the_other_tests", "--ignored"];
    RunConfig {
        command: words.map(String::from).into(),
        mount: Some(path.to_owned()),
        ready: Ready::Mounted,
        env: vec![("LASTOUT_TEST_MOUNT".into(), path.to_str().unwrap().into())],
        stop: Stop { signal: Signal::TERM, to: StopTo::Tree, grace: Some(Duration::from_secs(20)) },
        ..service("")
    }
}

fn is_mounted(path: &Path) -> bool {
    let path = path.canonicalize().unwrap_or(path.to_owned());
    // Of this thread: it has a namespace of its own.
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// Mounts, and when it is unmounted takes a moment to write out what it has.
#[test]
#[ignore = "not a test but a program"]
fn a_fuse_server_for_the_other_tests() {
    let Some(path) = std::env::var_os("LASTOUT_TEST_MOUNT") else { return };
    let path = PathBuf::from(path);
    let server = HangFs::mount(&path);
    fs::write(path.parent().unwrap().join("serving"), "").unwrap();
    while is_mounted(&path) {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(200));
    fs::write(path.parent().unwrap().join("flushed"), "").unwrap();
    std::mem::forget(server);
    std::process::exit(0);
}

fn with_mount(test: impl FnOnce(&Path, tempfile::TempDir) + Send) {
    if has("root") && has("fuse") {
        apart(|| {
            let scratch = scratch();
            let path = scratch.path().join("mnt");
            fs::create_dir(&path).unwrap();
            test(&path, scratch);
        });
    }
}

#[test]
fn a_mount_is_ready_when_it_is_mounted_and_its_daemon_ends_by_itself() {
    with_mount(|path, scratch| {
        let mut keeper = Keeper::start_in(scratch, daemon(path));
        keeper.until_serving();
        assert!(is_mounted(path));
        keeper.stop(600_000);
        assert_eq!(keeper.ended(), (Some(Exit::Code(0)), STOPPED));
        assert!(!is_mounted(path) && keeper.path("flushed").exists());
    });
}

#[test]
fn a_mount_that_is_held_waits_for_its_holder_who_is_named() {
    with_mount(|path, scratch| {
        let mut keeper = Keeper::start_in(scratch, daemon(path));
        keeper.until_serving();
        let hold = || Command::new("sleep").arg("600").current_dir(path).stdin(Stdio::null()).spawn().unwrap();
        let mut holder = hold();
        keeper.stop(600_000);
        let names = |keeper: &Keeper| keeper.read("log").contains(&format!("pid {} (sleep) holds", holder.id()));
        until("its holder to be named", || names(&keeper).then_some(()));
        assert!(is_mounted(path));
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert_eq!(keeper.ended(), (Some(Exit::Code(0)), STOPPED));
        assert!(!keeper.read("log").contains("lazily"));
        // One who does not let go does not hold it for longer than the grace.
        fs::remove_file(keeper.path("flushed")).unwrap();
        let stop = Stop { signal: Signal::TERM, to: StopTo::Tree, grace: Some(Duration::from_secs(2)) };
        let mut keeper = Keeper::start_in(keeper.scratch, RunConfig { stop, ..daemon(path) });
        keeper.until_serving();
        let mut holder = hold();
        keeper.stop(600_000);
        until("it to be detached", || (!is_mounted(path)).then_some(()));
        let lazily = format!("detached lazily: it is still held: pid {} (sleep) holds", holder.id());
        assert!(keeper.read("log").contains(&lazily), "{}", keeper.read("log"));
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert_eq!(keeper.ended(), (Some(Exit::Code(0)), STOPPED));
        assert!(keeper.path("flushed").exists());
    });
}

#[test]
fn a_daemon_that_is_killed_leaves_no_mount() {
    with_mount(|path, scratch| {
        let mut keeper = Keeper::start_in(scratch, daemon(path));
        let pid = keeper.started();
        keeper.until_serving();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.get()), nix::sys::signal::SIGKILL).unwrap();
        keeper.until(|notice| *notice == Notice::Ending);
        // As the init does when nobody is left who uses it.
        keeper.stop(600_000);
        assert_eq!(keeper.ended(), (Some(Exit::Signal(Signal::KILL)), Cause::Unknown));
        assert!(!is_mounted(path));
    });
}

#[test]
fn what_an_earlier_run_has_left_dead_is_detached_and_what_lives_is_not_touched() {
    with_mount(|path, scratch| {
        // A keeper that is killed cannot clean up; nor can its daemon.
        let mut keeper = Keeper::start_in(scratch, daemon(path));
        let pid = keeper.started();
        keeper.until_serving();
        for pid in [keeper.pid, nix::unistd::Pid::from_raw(pid.get())] {
            nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
        }
        waitpid(keeper.pid, None).unwrap();
        until("its server to be gone", || fs::metadata(path).is_err().then_some(()));
        let mut keeper = Keeper::start_in(keeper.scratch, daemon(path));
        keeper.until_serving();
        assert!(keeper.read("log").contains("its server has gone, so it is unmounted"), "{}", keeper.read("log"));
        // A second run while the first one serves.
        let beside = tempfile::tempdir().unwrap();
        let mut second = Keeper::start_in(beside, daemon(path));
        let Cause::Refused { reason } = second.cause() else { panic!("refused") };
        assert!(reason.ends_with("hangfs (fuse) is mounted there already"), "{reason}");
        assert!(is_mounted(path));
        keeper.stop(600_000);
        assert_eq!(keeper.cause(), STOPPED);
    });
}

#[test]
fn a_mount_needs_its_directory() {
    let scratch = scratch();
    let path = scratch.path().join("missing");
    let mut keeper = Keeper::start_in(scratch, RunConfig { mount: Some(path.clone()), ..service("echo never") });
    let reason = format!("cannot mount on {}: no such file or directory", path.display());
    assert_eq!(keeper.ended(), (None, Cause::Refused { reason }));
}
