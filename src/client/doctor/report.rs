//! What the doctor found, as data: `--json` prints it, and the page is made from it.

use serde::Serialize;

use crate::{
    base::Pid,
    inspect::{Holder, Limits, Lock, Unseen, Volume, Wait},
    proto::JobInfo,
    sys::mount::Space,
};

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) version: u32,
    /// Something hangs or does not answer.
    pub(super) hangs: bool,
    /// Which processes were looked at.
    pub(super) scope: String,
    pub(super) init: InitReport,
    pub(super) stuck: Vec<Wait>,
    pub(super) lock_waits: Vec<LockWait>,
    pub(super) volumes: Vec<VolumeReport>,
    pub(super) processes: Vec<Row>,
    pub(super) zombies: Vec<Zombie>,
    pub(super) limits: Limits,
    pub(super) jobs: Vec<JobInfo>,
    pub(super) unseen: Vec<Unseen>,
    /// What else could not be found out.
    pub(super) notes: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct InitReport {
    /// Its control directory.
    pub(super) control: Option<String>,
    /// By its number here, if it can be seen here.
    pub(super) pid: Option<Pid>,
    pub(super) phase: Option<String>,
    pub(super) answers: bool,
    /// Why there is none, or no answer.
    pub(super) problem: Option<String>,
}

/// One process.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) pid: Pid,
    /// Its number in its own PID namespace, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) inside: Option<Pid>,
    pub(super) parent: Option<Pid>,
    pub(super) comm: String,
    /// Its command line, where that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<String>,
    pub(super) state: char,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kernel: Option<String>,
    /// Milliseconds since it last ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) for_ms: Option<u64>,
    pub(super) threads: i64,
    /// What it is to the init: `init`, `main`, `keeper of j3`, `j3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<String>,
    pub(super) stuck: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct VolumeReport {
    #[serde(flatten)]
    pub(super) volume: Volume,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) space: Option<Space>,
    /// It was asked for its free space, and said something.
    pub(super) answers: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    /// Requests that its FUSE daemon has not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests_waiting: Option<u64>,
    pub(super) holders: Vec<Holder>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Zombie {
    pub(super) pid: Pid,
    pub(super) comm: String,
    pub(super) parent: Option<Pid>,
    pub(super) parent_comm: Option<String>,
}

/// Somebody waits for a file lock that somebody has.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LockWait {
    pub(super) pid: Pid,
    pub(super) comm: String,
    pub(super) lock: Lock,
    pub(super) file: String,
    pub(super) owner: Option<Pid>,
    pub(super) owner_comm: Option<String>,
}
