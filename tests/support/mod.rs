//! What the tests share: what a machine must have, running lastout, waiting for events.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod hangfs;
pub mod pty;

use nix::{
    mount::{MsFlags, mount, umount},
    sched::{CloneFlags, unshare},
};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        LazyLock,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// The binary under test.
pub const LASTOUT: &str = env!("CARGO_BIN_EXE_lastout");
/// The parser of OpenMetrics.
pub const OPEN_METRICS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openmetrics");
static COUNTER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// How long to wait for an event that must come. Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the machine has what a test needs: `root`, `docker`, `fuse`, ... What is missing is printed with its reason;
/// if `LASTOUT_TEST_REQUIRE` (a list with commas, or `all`) names it, missing is failing.
pub fn has(what: &str) -> bool {
    let reason = match what {
        "root" => (!is_root()).then(|| "namespaces and mounts need root".to_string()),
        "docker" => fails("docker", &["version"]),
        // Its packages take minutes the first time.
        "ray" => fails(concat!(env!("CARGO_MANIFEST_DIR"), "/docker/ray/build"), &[]),
        "podman" => fails("podman", &["--version"]),
        "runc" => fails("runc", &["--version"]),
        "crun" => fails("crun", &["--version"]),
        "compose" => fails("docker-compose", &["version"]),
        "fuse" => match is_root() {
            true => {
                fs::File::options().read(true).write(true).open("/dev/fuse").err().map(|e| format!("/dev/fuse: {e}"))
            }
            false => Some("a volume for every user needs root".to_string()),
        },
        "strace" => fails("strace", &["-o", "/dev/null", "true"]).or_else(|| {
            let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
            (!is_root() && !["", "0"].contains(&scope.trim())).then(|| "kernel.yama.ptrace_scope is not 0".into())
        }),
        "bindfs" => fails("bindfs", &["--version"]),
        "prometheus" => fails("prometheus-node-exporter", &["--version"])
            .or_else(|| fails("sh", &["-c", "echo '# EOF' | \"$0\"", OPEN_METRICS])),
        "perl" => fails("perl", &["-e", "1"]),
        "systemd-notify" => fails("systemd-notify", &["--version"]),
        "cc" => fails("cc", &["--version"]),
        "bash-completion" => fails("bash", &["-c", ". /usr/share/bash-completion/bash_completion"]),
        "fish" => fails("fish", &["--version"]),
        "zsh" => fails("zsh", &["--version"]),
        "man" => fails("man", &["--version"]).or_else(|| fails("sh", &["-c", "command -v mandoc"])),
        "kubernetes-validate" => fails(concat!(env!("CARGO_MANIFEST_DIR"), "/docker/kubernetes/check"), &[]),
        "slurm" => ["slurmctld", "slurmd", "sbatch", "munged"].iter().find_map(|name| fails("which", &[name])),
        "dpkg-deb" => fails("dpkg-deb", &["--version"]).or_else(|| fails("lintian", &["--version"])),
        "ext4" => fails("mkfs.ext4", &["-V"]),
        // Its packages take minutes the first time.
        "apptainer" => match is_root() {
            true => fails("docker", &["version"])
                .or_else(|| fails(concat!(env!("CARGO_MANIFEST_DIR"), "/docker/apptainer/host"), &["true"])),
            false => Some("another root directory needs root".to_string()),
        },
        "user-namespaces" => {
            fails("unshare", &["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "true"])
        }
        "tini" => fails("tini", &["--version"]),
        "dumb-init" => fails("dumb-init", &["--version"]),
        "vi" => fails("vi", &["--version"]),
        "htop" => fails("htop", &["--version"]),
        "python3" => fails("python3", &["--version"]),
        "catatonit" => fails("catatonit", &["--version"]),
        other => panic!("the tests do not know '{other}'"),
    };
    let Some(reason) = reason else { return true };
    let required = std::env::var("LASTOUT_TEST_REQUIRE").unwrap_or_default();
    let required = required.split(',').any(|name| name == what || name == "all");
    assert!(!required, "{what} is required and missing: {reason}");
    // Past the harness's capture, so that a skipped check is seen.
    let name = thread::current().name().unwrap_or("?").to_string();
    let line = format!("skipped {name}: no {what}: {reason}\n");
    let _ = fs::OpenOptions::new()
        .append(true)
        .open("/dev/stderr")
        .map(|mut e| std::io::Write::write_all(&mut e, line.as_bytes()));
    false
}

pub fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t0\t"))
}

fn fails(program: &str, args: &[&str]) -> Option<String> {
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_string()),
        Err(error) => Some(format!("{program}: {error}")),
    }
}

/// Waits until `condition` gives something, looking often. For what has no event of its own.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A directory of the test's own, removed at its end.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("lastout-test-").tempdir().expect("a temporary directory")
}

/// Scripts of `tests/fixtures`, and its C programs, compiled.
pub static FIXTURES: LazyLock<PathBuf> = LazyLock::new(|| {
    let into = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fixtures");
    fs::create_dir_all(&into).unwrap();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")).unwrap() {
        let source = entry.unwrap().path();
        let name = source.file_stem().unwrap().to_str().unwrap();
        // Under a name of our own first: another run may be using the file.
        let made = into.join(format!("{name}.{}", std::process::id()));
        match source.extension().and_then(|e| e.to_str()) {
            Some("c") => {
                run("cc", &["-static", "-O", "-o", made.to_str().unwrap(), source.to_str().unwrap()]);
                fs::rename(made, into.join(name)).unwrap();
            }
            Some("sh") => {
                fs::copy(&source, &made).unwrap();
                fs::rename(made, into.join(source.file_name().unwrap())).unwrap();
            }
            _ => {}
        }
    }
    into
});

/// Runs a command to its end; panics with its output if it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}\n{}", output.status, both(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Rounds of a loop: more with `LASTOUT_TEST_LONG`, as the figures in the README are made.
pub fn rounds(usual: u32, long: u32) -> u32 {
    if std::env::var_os("LASTOUT_TEST_LONG").is_some() { long } else { usual }
}

/// Standard output and error, for a message.
pub fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Exit code, or 128 + signal, as a shell has it.
pub fn status(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// `lastout` with these arguments.
pub fn lastout(args: &[&str]) -> Command {
    let mut command = Command::new(LASTOUT);
    command.args(args).env_remove("LASTOUT_CONTROL").env_remove("LASTOUT_LOG").stdin(Stdio::null());
    command
}

/// `lastout` as PID 1 of a PID and mount namespace of its own, with its own `/proc`. Needs root.
pub fn lastout_as_pid1(args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", LASTOUT]);
    command.args(args).env_remove("LASTOUT_CONTROL").env_remove("LASTOUT_LOG").stdin(Stdio::null());
    command
}

/// An init in the background, with a control directory of its own. Killed if the test forgets it.
pub struct Init {
    pub child: Child,
    /// The init's own process id, in the namespace of the tests.
    pub pid: i32,
    pub scratch: tempfile::TempDir,
    stderr: Receiver<String>,
}

/// How an [`Init`] is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum As {
    Pid1,
    Subreaper,
}

impl Init {
    /// Starts one and waits until it listens.
    pub fn start(role: As, args: &[&str]) -> Init {
        Init::start_in(scratch(), role, args)
    }

    pub fn start_in(scratch: tempfile::TempDir, role: As, args: &[&str]) -> Init {
        Init::start_with(scratch, role, args, Stdio::piped(), Stdio::piped())
    }

    /// The same with outputs of the test's own; without a pipe for standard error it has no log to read.
    pub fn start_with(scratch: tempfile::TempDir, role: As, args: &[&str], stdout: Stdio, stderr: Stdio) -> Init {
        let control = scratch.path().join("control");
        let mut all = vec!["--control", control.to_str().unwrap()];
        all.extend(args);
        let mut command = match role {
            As::Pid1 => lastout_as_pid1(&all),
            As::Subreaper => lastout(&all),
        };
        let mut child = command.stdout(stdout).stderr(stderr).spawn().expect("lastout");
        let stderr = child.stderr.take().map_or_else(|| channel().1, lines);
        let output = Command::new(LASTOUT)
            .args(["exec", "--wait", "30", "--control", control.to_str().unwrap(), "--", "true"])
            .output()
            .unwrap();
        assert!(output.status.success(), "the init does not listen: {}{:?}", both(&output), drain(&stderr));
        let pid = match role {
            As::Subreaper => child.id() as i32,
            As::Pid1 => until("the namespace's init", || children(child.id() as i32).first().copied()),
        };
        Init { child, pid, scratch, stderr }
    }

    pub fn control(&self) -> PathBuf {
        self.scratch.path().join("control")
    }

    /// A client command for this init.
    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = lastout(args);
        command.env("LASTOUT_CONTROL", self.control());
        command
    }

    /// Runs a client command to its end.
    pub fn ask(&self, args: &[&str]) -> Output {
        self.client(args).output().unwrap()
    }

    /// Runs a client command that must succeed; answers with its standard output.
    pub fn must(&self, args: &[&str]) -> String {
        let output = self.ask(args);
        assert!(output.status.success(), "{args:?}: {}\n{}", output.status, both(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn signal(&self, name: &str) {
        run("kill", &["-s", name, &self.pid.to_string()]);
    }

    /// The next line of its log that contains `part`.
    pub fn log(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stderr.recv_timeout(left) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("its log has no '{part}': {seen:#?}"),
            }
        }
    }

    /// Waits for its end: exit code and the rest of its log.
    pub fn end(mut self) -> (i32, Vec<String>) {
        let code = status(wait(&mut self.child));
        (code, self.stderr.iter().collect())
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        // What a subreaper that is killed leaves, nobody ends.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let left = children(self.pid);
            let _ = self.child.kill();
            for pid in left.iter().flat_map(|pid| children(*pid)).chain(left.iter().copied()) {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child's end; panics if it does not come.
pub fn wait(child: &mut Child) -> ExitStatus {
    until("a process's end", || child.try_wait().unwrap())
}

/// The lines that come out of something, as they come.
pub fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

fn drain(lines: &Receiver<String>) -> Vec<String> {
    lines.try_iter().collect()
}

/// A process's children.
pub fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether some process's command line contains `mark`. Every test has marks of its own.
pub fn is_running(mark: &str) -> bool {
    !running(mark).is_empty()
}

/// The processes whose command line contains `mark`, zombies left out (they have none).
pub fn running(mark: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let own = std::process::id() as i32;
    let has = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    };
    pids.filter(|pid| *pid != own).filter(has).collect()
}

/// A process's children that nobody has waited for, as the host sees them.
pub fn zombies_of(parent: i32) -> Vec<i32> {
    let is_zombie = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.trim_start().starts_with(&format!("Z {parent} "))
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(is_zombie).collect()
}

/// A mark that no other test and no other run has.
pub fn mark(name: &str) -> String {
    // With an end: the first is no part of the eleventh.
    format!("mark-{name}-{}-{}e", std::process::id(), COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

/// Runs `body` where crun, and so Podman, runs: it refuses cgroups of version 1 with those of version 2 beside them, so
/// that here, in a mount namespace of the thread's own, the latter are not seen.
pub fn without_unified_cgroups<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let inner = || {
        // Without the right to do it everything but crun runs all the same.
        if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
            let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            let _ = mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
                .and_then(|()| umount("/sys/fs/cgroup/unified"));
        }
        body()
    };
    thread::scope(|scope| scope.spawn(inner).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// A small filesystem of its own (tmpfs), unmounted at its end. Needs root.
pub struct Volume {
    pub path: PathBuf,
    mounted: bool,
}

impl Volume {
    pub fn mount(path: &Path) -> Volume {
        Volume::mount_with(path, &[])
    }

    pub fn mount_with(path: &Path, options: &[&str]) -> Volume {
        fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs"]).args(options).arg("lastout-test").arg(path).output().unwrap();
        assert!(output.status.success(), "mount: {}", both(&output));
        Volume { path: path.into(), mounted: true }
    }

    /// One try, no retry: the promise is that nothing holds it.
    pub fn unmount(mut self) -> Result<(), String> {
        let output = Command::new("umount").arg(&self.path).output().unwrap();
        self.mounted = !output.status.success();
        if self.mounted { Err(both(&output)) } else { Ok(()) }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.path).output();
        }
    }
}
