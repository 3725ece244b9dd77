use std::{fmt, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{Bytes, Cause, VERSION};
use crate::base::{Exit, Name, Pid, Subject};

/// What a job's tree used, added up over every process that was reaped in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode, microseconds.
    pub cpu_user_us: u64,
    /// CPU time in the kernel, microseconds.
    pub cpu_system_us: u64,
    /// The largest resident set of any one process, bytes. The kernel keeps no sum over a tree.
    pub max_rss_bytes: u64,
    /// Processes of this container, its own or not, that the kernel's OOM killer ended meanwhile.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oom_kills: u64,
    /// Bytes read and written, where the kernel counts them (`/proc/PID/io`).
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Io>,
}

/// Bytes that processes read and wrote (`proc_pid_io(5)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Io {
    /// By `read(2)` and the like: files, pipes and terminals, cached or not.
    pub read_chars: u64,
    /// By `write(2)` and the like.
    pub written_chars: u64,
    /// Fetched from storage.
    pub read_bytes: u64,
    /// Sent to storage, or to be sent.
    pub written_bytes: u64,
}

/// A process that does not end, and what it waits for, as far as that could be seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Leftover {
    /// Its process id, as the init sees it.
    pub pid: Pid,
    /// Its command's name, from `/proc/PID/stat`.
    pub comm: String,
    /// Its state's letter, from `/proc/PID/stat`.
    pub state: char,
    /// The system call that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// The file that this call is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where the file's volume is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// The volume's filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<String>,
    /// The volume's device, `major:minor`, as `/proc/self/mountinfo` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The kernel's function that it waits in, from `/proc/PID/wchan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// For how long it has not run, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// What could not be seen, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cannot: Option<String>,
}

impl Leftover {
    /// One of which nothing more is known.
    pub fn new(pid: Pid, comm: String, state: char) -> Leftover {
        Leftover {
            pid,
            comm,
            state,
            call: None,
            file: None,
            volume: None,
            filesystem: None,
            device: None,
            kernel: None,
            for_ms: None,
            cannot: None,
        }
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "pid {} ({}, state {})", self.pid, self.comm, self.state)?;
        let mut details = Vec::new();
        match (&self.call, &self.file) {
            (Some(call), Some(file)) => details.push(format!("{call} of {file}")),
            (Some(call), None) => details.push(call.clone()),
            (None, Some(file)) => details.push(file.clone()),
            (None, None) => {}
        }
        if let Some(volume) = &self.volume {
            let kind = self.filesystem.as_deref().unwrap_or("?");
            details.push(format!("volume {volume} ({kind})"));
        }
        if let Some(kernel) = &self.kernel {
            details.push(format!("in the kernel's {kernel}"));
        }
        if let Some(time) = self.for_ms {
            details.push(format!("for {} s", time / 1000));
        }
        if let Some(cannot) = &self.cannot {
            details.push(cannot.clone());
        }
        if !details.is_empty() {
            write!(f, ": {}", details.join(", "))?;
        }
        Ok(())
    }
}

/// The account of how one job, or main, ended: `jobs/<id>/record.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// The job's number, or `main`.
    pub job: Subject,
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

/// A moment as records have it: RFC 3339, UTC.
pub fn record_time(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

/// For a number that is left out.
pub(super) fn is_zero(number: &u64) -> bool {
    *number == 0
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
