//! What the configuration file says, checked. Pure data: `config` reads it from TOML.

use std::{path::PathBuf, rc::Rc, time::Duration};

use crate::base::{Map, Name, Signal};

/// A whole file.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ServicesConfig {
    /// Between TERM and KILL, for what has no grace of its own.
    pub grace: Option<Duration>,
    /// How long main may take after a stop signal.
    pub stop_timeout: Option<Duration>,
    /// Jobs at once.
    pub max_jobs: Option<usize>,
    /// Environment entries for services and jobs, their `{cpus}` and `{memory}` filled in already.
    pub export: Vec<(String, String)>,
    /// Services and mounts, in the order of the file.
    pub services: Vec<ServiceConfig>,
}

/// `[service.NAME]` or `[mount.NAME]`.
#[derive(Clone, PartialEq, Debug)]
pub struct ServiceConfig {
    /// NAME. Services and mounts share one set of names.
    pub name: Name,
    /// What must have happened to others before it starts. There is no cycle, and all are there.
    pub after: Map<Name, Condition>,
    /// When it is started again.
    pub restart: Restart,
    /// How long it waits before.
    pub backoff: Backoff,
    /// With one failure more in a row it has failed for good; 0: never.
    pub retries: u32,
    /// When it has failed for good, everything stops, with its exit code.
    pub critical: bool,
    /// Run as a job when it has failed for good, with the record in its environment.
    pub on_failure: Option<Vec<String>>,
    /// Run as a job when it is to be started again, likewise.
    pub on_restart: Option<Vec<String>>,
    /// The time that each of these two has; `None`: for ever.
    pub hook_timeout: Option<Duration>,
    /// What its keeper does. All who know the service share it: every keeper, a fork, has what the init has.
    pub run: Rc<RunConfig>,
}

/// What one start of a service is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunConfig {
    /// Words of commands that run before, one after the other. A string of the file is `/bin/sh -c` here already.
    pub setup: Vec<Vec<String>>,
    /// The time that each of them has; `Duration::MAX`: for ever.
    pub setup_timeout: Duration,
    /// The words of its command; not empty.
    pub command: Vec<String>,
    /// Where it is mounted, if it is a mount.
    pub mount: Option<PathBuf>,
    /// Working directory; the init's, if it is not given.
    pub cwd: Option<PathBuf>,
    /// Environment entries over the init's own and `export`.
    pub env: Vec<(String, String)>,
    /// When it is ready.
    pub ready: Ready,
    /// The time that it has to become ready, from its command's start; `None`: for ever.
    pub start_timeout: Option<Duration>,
    /// Its health check.
    pub health: Option<Health>,
    /// It must say `WATCHDOG=1` that often (`sd_notify(3)`).
    pub watchdog: Option<Duration>,
    /// The time that it has, from its command's start; only hooks have one.
    pub timeout: Option<Duration>,
    /// How it is asked to end.
    pub stop: Stop,
    /// Where its output goes.
    pub log: Log,
    /// What it may use, and as whom it runs.
    pub limits: Limits,
}

impl RunConfig {
    /// A run of `command`, with everything else left out.
    pub fn new(command: Vec<String>) -> RunConfig {
        RunConfig {
            setup: Vec::new(),
            setup_timeout: Duration::from_secs(300),
            command,
            mount: None,
            cwd: None,
            env: Vec::new(),
            ready: Ready::Started,
            start_timeout: None,
            health: None,
            watchdog: None,
            timeout: None,
            stop: Stop { signal: Signal::TERM, to: StopTo::Tree, grace: None },
            log: Log::default(),
            limits: Limits::default(),
        }
    }
}

/// When a dependency lets another start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Condition {
    /// Its command has been executed.
    Started,
    /// It is ready ([`Ready`]).
    Ready,
    /// A health check has succeeded and none has failed `retries` times since.
    Healthy,
    /// It has ended with exit code 0.
    Succeeded,
}

/// When a service is started again by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    /// Never.
    Never,
    /// When it did not end with exit code 0.
    OnFailure,
    /// Whenever it has ended.
    Always,
}

/// The delay before the next start: `initial × factor^(failures − 1)`, at most `max`, more or less by `jitter`.
#[derive(Clone, PartialEq, Debug)]
pub struct Backoff {
    /// The first delay; zero: at once. The second is at least twice 10 ms, then.
    pub initial: Duration,
    /// The longest delay.
    pub max: Duration,
    /// At least 1.
    pub factor: f64,
    /// 0 to 1: this part of the delay is random.
    pub jitter: f64,
    /// A run that was ready for so long makes the failures before it count no more.
    pub reset_after: Duration,
}

/// When a service is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ready {
    /// When its command has been executed.
    Started,
    /// When it says `READY=1` (`sd_notify(3)`).
    Notify,
    /// When it writes a newline to file descriptor 3.
    Fd,
    /// When its first health check succeeds.
    Healthy,
    /// When its path is a mount point.
    Mounted,
}

/// A health check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// What is checked.
    pub check: Check,
    /// From the end of one check to the next.
    pub every: Duration,
    /// A check that takes longer has failed, and is ended.
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy; at least 1.
    pub retries: u32,
    /// Failures in this time after the start do not count.
    pub start_period: Duration,
}

/// What a health check does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Check {
    /// Runs this; exit code 0 is healthy.
    Command(Vec<String>),
    /// `http://HOST[:PORT]/PATH`: an answer of 200 to 399 is healthy.
    Http {
        /// HOST; an IPv6 address without its brackets.
        host: String,
        /// The port; 80 if none is given.
        port: u16,
        /// With its leading slash and its query.
        path: String,
    },
    /// `tcp://HOST:PORT`: a connection is healthy.
    Tcp {
        /// HOST; an IPv6 address without its brackets.
        host: String,
        /// PORT.
        port: u16,
    },
}

/// How a service is asked to end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stop {
    /// Instead of SIGTERM, to its command; what else is in its tree gets SIGTERM.
    pub signal: Signal,
    /// Who gets one at once.
    pub to: StopTo,
    /// Until SIGKILL; the file's `grace`, if it is not given.
    pub grace: Option<Duration>,
}

/// Whom a stop asks at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopTo {
    /// Everybody in its tree.
    Tree,
    /// Its command, which ends what it has started; what it leaves is asked when it has ended.
    Command,
}

/// Where a service's output goes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Log {
    /// Where.
    pub sink: Sink,
    /// How.
    pub format: Format,
}

/// Where a service's output goes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Sink {
    /// lastout's own standard output and error; without a copy if the format is raw.
    #[default]
    Inherit,
    /// A file. When it has `max` bytes it becomes `FILE.1`, that one `FILE.2`, up to `keep`.
    File {
        /// Where.
        path: PathBuf,
        /// Bytes.
        max: u64,
        /// Old files.
        keep: u32,
    },
}

/// How a service's output is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// As it comes.
    #[default]
    Raw,
    /// Each line after its time (RFC 3339) and the service's name.
    Prefix,
    /// Each line as a JSON object: `time`, `service`, `stream`, `text`.
    Json,
}

/// What a service or job may use, and as whom it runs. What is not given is inherited.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// `RLIMIT_NOFILE`.
    pub nofile: Option<u64>,
    /// `RLIMIT_CORE`, bytes; `u64::MAX` is `RLIM_INFINITY`.
    pub core: Option<u64>,
    /// `RLIMIT_AS`, bytes; `u64::MAX` is `RLIM_INFINITY`.
    pub address_space: Option<u64>,
    /// -20 to 19.
    pub nice: Option<i32>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// A name or number; with its supplementary groups.
    pub user: Option<String>,
    /// A name or number; the user's own, if it is not given.
    pub group: Option<String>,
    /// Bytes, through a cgroup.
    pub memory: Option<u64>,
    /// Thousandths of a CPU, through a cgroup.
    pub cpu_milli: Option<u64>,
    /// Processes, through a cgroup.
    pub pids: Option<u64>,
}

impl Limits {
    /// Whether a cgroup of its own is needed.
    pub fn needs_cgroup(&self) -> bool {
        self.memory.is_some() || self.cpu_milli.is_some() || self.pids.is_some()
    }
}
