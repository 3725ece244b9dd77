use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Cause, Leftover, Sender, ServiceState, Usage};
use crate::base::{Exit, Name, Pid, Signal, Subject, in_words};

/// Something that happened, for `lastout events`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Counted from 1 for the life of the init. Without a gap, but where one is not remembered any more.
    pub seq: u64,
    /// When: RFC 3339, UTC.
    pub time: String,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    /// The init was sent a signal.
    Signal {
        /// Which.
        signal: Signal,
        /// By whom.
        from: Sender,
    },
    /// A command was executed.
    Started {
        /// Whose.
        job: Subject,
        /// A job's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
        /// Its process id.
        pid: Pid,
        /// The command as a person would type it, shortened.
        command: String,
    },
    /// A job's tree, or main, has ended.
    Ended {
        /// Whose.
        job: Subject,
        /// A job's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
        /// How the command ended, if it ran.
        exit: Option<Exit>,
        /// Why.
        cause: Cause,
        /// How long it took, microseconds.
        wall_us: u64,
        /// What it used, where somebody could count it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// A service has come into another state.
    Service {
        /// Which.
        name: Name,
        /// What it is now.
        state: ServiceState,
        /// How its last run ended, if one has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<Exit>,
        /// Why, if a run has ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// Until the next try, milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_ms: Option<u64>,
    },
    /// The configuration file was read again.
    Reloaded {
        /// Why it was refused, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// The init has begun to leave.
    Stopping {
        /// Why.
        why: String,
    },
    /// A process hangs, or SIGKILL does not end it.
    Stuck {
        /// Whose it is, if it is somebody's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<Subject>,
        /// Since SIGKILL, milliseconds; without it, it was not sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        killed_for_ms: Option<u64>,
        /// Which, and where.
        process: Box<Leftover>,
    },
    /// Something was not written to a volume.
    SyncFailed {
        /// Which volume, and why.
        what: String,
    },
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let named = |name: &Option<Name>| name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        match self {
            Happening::Signal { signal, from } => write!(f, "{signal} from {from}"),
            Happening::Started { job, name, pid, command } => {
                write!(f, "{job}{}: started as pid {pid}: {command}", named(name))
            }
            Happening::Ended { job, name, exit, cause, wall_us, usage } => {
                let exit = match (exit, cause) {
                    (Some(exit), _) => exit.to_string(),
                    (None, Cause::KeeperGone) => "its end was not seen".into(),
                    (None, _) => "never ran".into(),
                };
                write!(f, "{job}{}: {exit}, {cause}", named(name))?;
                let seconds = |us: u64| format!("{}.{:03} s", us / 1_000_000, us / 1000 % 1000);
                write!(f, ", after {}", seconds(*wall_us))?;
                if let Some(usage) = usage {
                    let cpu = usage.cpu_user_us + usage.cpu_system_us;
                    write!(f, ", cpu {}, {} MiB", seconds(cpu), usage.max_rss_bytes >> 20)?;
                    if usage.oom_kills > 0 {
                        write!(f, "; the OOM killer has ended {} in this container meanwhile", usage.oom_kills)?;
                    }
                }
                Ok(())
            }
            Happening::Service { name, state, exit, cause, next_ms } => {
                write!(f, "{name}: {}", state.word())?;
                match (exit, cause) {
                    (Some(exit), Some(cause)) => write!(f, ": {exit}, {cause}")?,
                    (None, Some(cause)) => write!(f, ": {cause}")?,
                    (_, None) => {}
                }
                match next_ms {
                    Some(ms) => write!(f, "; next try in {}", in_words(*ms)),
                    None => Ok(()),
                }
            }
            Happening::Reloaded { problem: None } => f.write_str("the configuration file was read again"),
            Happening::Reloaded { problem: Some(why) } => write!(f, "the configuration file was not taken: {why}"),
            Happening::Stopping { why } => write!(f, "stopping: {why}"),
            Happening::Stuck { job, killed_for_ms, process } => {
                let whose = job.map(|job| format!("{job}: ")).unwrap_or_default();
                match killed_for_ms {
                    Some(time) => write!(f, "{whose}SIGKILL has not ended {process} (sent {} s ago)", time / 1000),
                    None => write!(f, "{whose}it hangs: {process}"),
                }
            }
            Happening::SyncFailed { what } => f.write_str(what),
        }
    }
}
