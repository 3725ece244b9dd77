use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Cause, Entry, Leftover};
use crate::base::{Exit, JobId, Name, Pid};

/// What a client reads from its `reply` FIFO, one JSON object a line. The FIFO's end-of-file says that
/// whoever answered has gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The request cannot be served. The last reply.
    Refused {
        /// Why, and what to do about it.
        reason: String,
    },
    /// The job waits for its turn (`--max-jobs`).
    Queued {
        /// Its number.
        job: JobId,
    },
    /// The job's command is running: its `exec` succeeded.
    Started {
        /// Its number.
        job: JobId,
        /// The command's process id, as the init sees it.
        pid: Pid,
    },
    /// The job's tree has ended. The last reply.
    Ended {
        /// Its number.
        job: JobId,
        /// How the command ended, if it ran.
        exit: Option<Exit>,
        /// Why.
        cause: Cause,
        /// What SIGKILL has not ended: stuck in the kernel. Empty in all other cases.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        left: Vec<Leftover>,
        /// Processes of this container that the kernel's OOM killer ended meanwhile.
        #[serde(default, skip_serializing_if = "super::record::is_zero")]
        oom_kills: u64,
    },
    /// Done as asked. The last reply.
    Done,
    /// The services. The last reply.
    Services(Vec<ServiceInfo>),
    /// The jobs. The last reply.
    Jobs(Vec<JobInfo>),
    /// The job's tree lives (`heartbeat_ms`).
    Alive(Alive),
    /// What has happened. The last reply.
    Events(Vec<Entry>),
    /// Something happened.
    Event(Entry),
    /// The init itself. The last reply.
    Status(Status),
}

/// What a job's tree does at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alive {
    /// Since its start, milliseconds.
    pub wall_ms: u64,
    /// CPU time per time since the last heartbeat: thousandths of one CPU.
    pub cpu_milli: u64,
    /// CPUs that it may use, in thousandths.
    pub cpus_milli: u64,
    /// Resident memory of its processes, bytes; shared pages count for each.
    pub rss_bytes: u64,
    /// Its processes.
    pub processes: u64,
}

/// What the init and its own processes are, by process ids as the init sees them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The init.
    pub pid: Pid,
    /// Main, while it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main: Option<Pid>,
    /// Where the init is in its life: `running`, `stopping`, ...
    pub phase: String,
    /// The keepers that live.
    #[serde(default)]
    pub keepers: Vec<KeeperInfo>,
    /// Its helpers.
    #[serde(default)]
    pub helpers: Vec<Pid>,
    /// What has ended since the init began, also what is not remembered any more.
    #[serde(default)]
    pub totals: Vec<Total>,
}

/// Of jobs, or of services' runs, that have ended in one way.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Total {
    /// Runs of services, and hooks.
    pub service: bool,
    /// `succeeded`, `failed`, or why else it was.
    pub outcome: String,
    /// So many.
    pub count: u64,
    /// Their time, microseconds.
    pub wall_us: u64,
    /// The CPU time of their trees, microseconds.
    pub cpu_us: u64,
    /// The largest resident set of any one of their processes, bytes.
    pub max_rss_bytes: u64,
}

/// A keeper and its job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeeperInfo {
    /// The keeper's process id.
    pub pid: Pid,
    /// Whose.
    pub job: JobId,
}

impl Reply {
    /// One line, with its newline.
    pub fn to_line(&self) -> Vec<u8> {
        super::to_line(self)
    }

    /// Reads one line.
    pub fn parse(line: &[u8]) -> Result<Reply, String> {
        serde_json::from_slice(line).map_err(|error| format!("a reply that is not understood: {error}"))
    }
}

/// Where a job is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its turn.
    Queued,
    /// Its keeper is there; its command has not been executed yet.
    Starting,
    /// Its command runs.
    Running,
    /// Its tree is being ended.
    Ending,
    /// Its tree has ended.
    Ended,
}

impl JobState {
    /// For a table.
    pub fn word(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Starting => "starting",
            JobState::Running => "running",
            JobState::Ending => "ending",
            JobState::Ended => "ended",
        }
    }
}

/// Where a service is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Somebody has stopped it.
    Stopped,
    /// What it needs has not happened yet.
    Waiting,
    /// Its setup or its command runs; it is not ready.
    Starting,
    /// It is ready.
    Ready,
    /// Its run is being ended.
    Ending,
    /// Its run has ended; the next one is due soon.
    Backoff,
    /// It has ended well and is not started again.
    Succeeded,
    /// It has failed for good.
    Failed,
}

impl ServiceState {
    /// For a table.
    pub fn word(self) -> &'static str {
        match self {
            ServiceState::Stopped => "stopped",
            ServiceState::Waiting => "waiting",
            ServiceState::Starting => "starting",
            ServiceState::Ready => "ready",
            ServiceState::Ending => "ending",
            ServiceState::Backoff => "backoff",
            ServiceState::Succeeded => "succeeded",
            ServiceState::Failed => "failed",
        }
    }
}

/// One service in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Its name.
    pub service: Name,
    /// It is a mount.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mount: bool,
    /// Where it is in its life.
    pub state: ServiceState,
    /// Time in this state, milliseconds.
    pub for_ms: u64,
    /// The job that is its run, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// How often it was started again.
    pub restarts: u64,
    /// Its failures in a row.
    pub failures: u32,
    /// What its health checks say, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// What it says of itself (`STATUS=` of `sd_notify(3)`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Until its next try, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ms: Option<u64>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<Name>,
    /// How its last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Why its last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The file that its output goes to; otherwise it is lastout's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// Lines of its log that were dropped, by all its runs.
    #[serde(default, skip_serializing_if = "super::record::is_zero")]
    pub dropped: u64,
}

/// One job in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobInfo {
    /// Its number.
    pub job: JobId,
    /// Its name, if it was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Where it is in its life.
    pub state: JobState,
    /// Its command's process id, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<Pid>,
    /// Time in this state, milliseconds.
    pub for_ms: u64,
    /// The command as a person would type it, shortened; empty where only the request knows it yet.
    pub command: String,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}
