use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Bytes, VERSION};
use crate::base::{ExecFailure, Exit, JobId, Name, Pid, Signal};

/// Why a job ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// Its command ended by itself.
    Exited,
    /// Its command could not be started.
    ExecFailed(ExecFailure),
    /// It could not be served: a bad request, or something that the system would not give.
    Refused {
        /// Why.
        reason: String,
    },
    /// Its time was over.
    Timeout,
    /// Its client went away.
    ClientGone,
    /// Somebody asked for its end with `lastout stop`.
    Stopped,
    /// Somebody sent it a signal with `lastout kill`, and it died of it.
    Killed {
        /// The last signal that was sent so.
        signal: Signal,
    },
    /// The init is shutting down.
    Shutdown,
    /// The init died.
    InitGone,
    /// Its keeper died; the init ended what was left.
    KeeperGone,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Cause::Exited => f.write_str("ended by itself"),
            Cause::ExecFailed(failure) => failure.fmt(f),
            Cause::Refused { reason } => f.write_str(reason),
            Cause::Timeout => f.write_str("timeout"),
            Cause::ClientGone => f.write_str("its client went away"),
            Cause::Stopped => f.write_str("stopped by request"),
            Cause::Killed { signal } => write!(f, "{signal} by request"),
            Cause::Shutdown => f.write_str("shutdown"),
            Cause::InitGone => f.write_str("the init died"),
            Cause::KeeperGone => f.write_str("its keeper died"),
        }
    }
}

/// What a job's tree used, added up over every process that was reaped in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode, microseconds.
    pub cpu_user_us: u64,
    /// CPU time in the kernel, microseconds.
    pub cpu_system_us: u64,
    /// The largest resident set of any one process, bytes.
    pub max_rss_bytes: u64,
}

/// A process that SIGKILL did not end (yet).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Leftover {
    /// Its process id, as the init sees it.
    pub pid: Pid,
    /// Its command's name, from `/proc/PID/stat`.
    pub comm: String,
    /// Its state's letter, from `/proc/PID/stat`.
    pub state: char,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "pid {} ({}, state {})", self.pid, self.comm, self.state)
    }
}

/// The account of how one job ended: `jobs/<id>/record.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// The job's number.
    pub job: JobId,
    /// The job's name, if it was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The command and its arguments.
    pub command: Vec<Bytes>,
    /// When it started: RFC 3339, UTC.
    pub started: String,
    /// When its tree had ended: RFC 3339, UTC.
    pub ended: String,
    /// Between the two, by a clock that is not set, microseconds.
    pub wall_us: u64,
    /// How the command ended; null if it never started or has not ended.
    pub exit: Option<Exit>,
    /// Why.
    pub cause: Cause,
    /// What its tree used.
    pub usage: Usage,
}

impl Record {
    /// Reads `record.json`.
    pub fn parse(json: &[u8]) -> Result<Record, String> {
        let record: Record = serde_json::from_slice(json).map_err(|error| format!("bad record: {error}"))?;
        match record.version {
            VERSION => Ok(record),
            version => Err(format!("record version {version}: this program reads version {VERSION}")),
        }
    }

    /// `record.json`.
    pub fn to_json(&self) -> Vec<u8> {
        super::to_line(self)
    }
}
