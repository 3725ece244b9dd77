//! Where it is measured: programs, peers, turns.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    report::{Value, summary},
    support::{LASTOUT, PATIENCE, children, run, until},
};

/// On tmpfs, so that no disk's noise is measured.
const SHM: &str = "/dev/shm";

/// What a run has.
pub struct Lab {
    pub quick: bool,
    /// The programs below `benches/programs`, compiled; copies of lastout and of the static peers.
    pub programs: PathBuf,
}

/// Who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Role {
    Lastout,
    Peer,
    Floor,
    /// Told beside, no competitor.
    Beside,
}

/// An init, by how it is called.
#[derive(Clone)]
pub struct Contender {
    pub name: &'static str,
    pub role: Role,
    /// Up to the command.
    pub words: Vec<String>,
}

/// Somebody who takes turns. A turn answers with what was measured.
pub struct Turn<'a> {
    pub name: String,
    pub role: Role,
    pub take: Box<dyn FnMut() -> f64 + 'a>,
}

impl<'a> Turn<'a> {
    pub fn new(name: &str, role: Role, take: impl FnMut() -> f64 + 'a) -> Turn<'a> {
        Turn { name: name.into(), role, take: Box::new(take) }
    }
}

/// A B C A B C ...: every one a turn a round, after one round that does not count.
pub fn in_turns(rounds: usize, turns: Vec<Turn>) -> Vec<Value> {
    rounds_of(rounds, Duration::ZERO, turns)
}

/// The same with a rest and a try that does not count before each turn: a daemon goes on working when its client has
/// returned, and who comes next is not to pay for it, nor for the rest.
pub fn in_turns_apart(rounds: usize, turns: Vec<Turn>) -> Vec<Value> {
    rounds_of(rounds, Duration::from_millis(50), turns)
}

fn rounds_of(rounds: usize, rest: Duration, mut turns: Vec<Turn>) -> Vec<Value> {
    let mut taken: Vec<Vec<f64>> = vec![Vec::with_capacity(rounds); turns.len()];
    for round in 0..=rounds {
        for (turn, taken) in turns.iter_mut().zip(&mut taken) {
            if !rest.is_zero() {
                thread::sleep(rest);
                (turn.take)();
            }
            let value = (turn.take)();
            if round > 0 {
                taken.push(value);
            }
        }
    }
    turns.iter().zip(taken).map(|(turn, taken)| summary(&turn.name, turn.role, taken)).collect()
}

/// Milliseconds from `start`.
pub fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// CLOCK_MONOTONIC in nanoseconds, as `load handler` writes it.
pub fn monotonic() -> i64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() * 1_000_000_000 + now.tv_nsec()
}

/// A command without input and output. The standard library starts it by `posix_spawn`, which does not copy the harness.
pub fn quiet(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_remove("LASTOUT_CONTROL").env_remove("LASTOUT_JOB").env_remove("LASTOUT_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// From its start to its end, in ms. It must succeed.
pub fn time(command: &mut Command) -> f64 {
    let start = Instant::now();
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let took = ms(start);
    assert!(status.success(), "{command:?}: {status}");
    took
}

pub fn words(first: &[&str], rest: &[&str]) -> Vec<String> {
    first.iter().chain(rest).map(|word| word.to_string()).collect()
}

/// A directory on tmpfs, removed at its end.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("lastout-bench-").tempdir_in(SHM).expect("a directory on tmpfs")
}

/// Where a program is, by `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// The peers, as Debian packages them, and the words that they take before a command as PID 1 and otherwise.
const PEERS: [(&str, &[&str], &[&str]); 3] =
    [("tini-static", &["--"], &["-s", "--"]), ("dumb-init", &["--"], &["--"]), ("catatonit", &["--"], &["--"])];

impl Lab {
    pub fn set_up(quick: bool) -> Lab {
        let programs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench/programs");
        fs::create_dir_all(&programs).unwrap();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/programs");
        for entry in fs::read_dir(sources).unwrap() {
            let source = entry.unwrap().path();
            let made = programs.join(source.file_stem().unwrap());
            run("cc", &["-static", "-s", "-O2", "-Wall", "-o", made.to_str().unwrap(), source.to_str().unwrap()]);
        }
        for (name, path) in
            PEERS.iter().map(|(name, ..)| (*name, find(name))).chain([("lastout", Some(LASTOUT.into()))])
        {
            if let Some(path) = path {
                let _ = fs::remove_file(programs.join(name));
                fs::copy(path, programs.join(name)).unwrap();
            }
        }
        Lab { quick, programs }
    }

    pub fn rounds(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// A program of `benches/programs`.
    pub fn program(&self, name: &str) -> String {
        self.programs.join(name).to_str().unwrap().into()
    }

    pub fn say_what_is_missing(&self) {
        let wanted = [
            "tini-static",
            "dumb-init",
            "catatonit",
            "docker",
            "podman",
            "runc",
            "crun",
            "valgrind",
            "strace",
            "unshare",
            "s6-svscan",
            "runsvdir",
            "supervisord",
        ];
        let missing: Vec<&str> = wanted.into_iter().filter(|program| find(program).is_none()).collect();
        if !missing.is_empty() {
            eprintln!("missing on this machine, so not in the table: {}", missing.join(", "));
        }
        if !crate::support::is_root() {
            eprintln!("not root: what needs namespaces fails");
        }
    }

    /// lastout, the peers that are there, and the floor.
    pub fn contenders(&self, pid1: bool, floor: &'static str, control: &Path) -> Vec<Contender> {
        let control = control.to_str().unwrap();
        let lastout = words(&[&self.program("lastout"), "--control", control, "--"], &[]);
        let mut all = vec![Contender { name: "lastout", role: Role::Lastout, words: lastout }];
        for (name, as_pid1, otherwise) in PEERS {
            if find(name).is_some() {
                let words = words(&[&self.program(name)], if pid1 { as_pid1 } else { otherwise });
                all.push(Contender { name, role: Role::Peer, words });
            }
        }
        if !floor.is_empty() {
            all.push(Contender { name: "floor", role: Role::Floor, words: vec![self.program(floor)] });
        }
        all
    }

    /// Which of the peers are not there.
    pub fn missing(&self) -> Vec<String> {
        PEERS.iter().map(|(name, ..)| *name).filter(|name| find(name).is_none()).map(String::from).collect()
    }
}

/// An init as PID 1 of a PID and mount namespace of its own.
pub struct Namespace {
    pub unshare: Child,
    /// The init, as this side has it.
    pub init: i32,
    pub stdout: ChildStdout,
}

impl Namespace {
    pub fn start(init: &[String]) -> Namespace {
        let mut all = words(&["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"], &[]);
        all.extend_from_slice(init);
        let mut unshare = quiet(&all).stdout(Stdio::piped()).process_group(0).spawn().expect("unshare");
        let stdout = unshare.stdout.take().unwrap();
        let init = until("the namespace's init", || children(unshare.id() as i32).first().copied());
        Namespace { unshare, init, stdout }
    }

    /// Waits until main says a line.
    pub fn says(&mut self, what: &str) {
        let mut line = Vec::new();
        let mut byte = [0];
        while std::io::Read::read(&mut self.stdout, &mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        assert_eq!(String::from_utf8_lossy(&line), what);
    }

    pub fn signal(&self) {
        term(self.init);
    }

    /// Waits for its end.
    pub fn end(&mut self) {
        let ended = self.unshare.wait();
        assert!(ended.is_ok(), "{ended:?}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // SIGKILL for `unshare` is one for the init, and with it for all that is in the namespace.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

pub fn term(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
}

/// Kills what is left of a measurement; it may have gone.
pub fn kill(pid: i32) {
    if pid > 1 {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Waits for a lastout to answer.
pub fn wait_for(lab: &Lab, control: &Path) {
    let seconds = PATIENCE.as_secs().to_string();
    let exec = [&lab.program("lastout"), "exec", "--wait", &seconds, "--control", control.to_str().unwrap(), "--"];
    time(&mut quiet(&words(&exec, &[&lab.program("true")])));
}

/// A number of `/proc/PID/FILE`, after its name.
pub fn number(pid: i32, file: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Anonymous memory in kB.
pub fn anonymous(pid: i32) -> f64 {
    number(pid, "smaps_rollup", "Anonymous").expect("smaps_rollup of another's process")
}
