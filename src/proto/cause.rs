//! Why a job or main ended, and who did it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Who;
use crate::base::{ExecFailure, Exit, Name, Pid, Signal};

/// Who sent a signal, as the kernel tells it (`si_code`, `si_pid`, `si_uid`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sender {
    /// The kernel itself: a terminal, a fault, a timer.
    Kernel,
    /// A process outside the PID namespace: the engine or somebody on the host.
    Outside,
    /// A process that we can see.
    Process {
        /// Its process id.
        pid: Pid,
        /// Its real user id.
        uid: u32,
        /// Its command's name, if it was still there to be looked at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comm: Option<String>,
    },
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Sender::Kernel => f.write_str("the kernel"),
            Sender::Outside => f.write_str("outside the namespace"),
            Sender::Process { pid, uid, comm: Some(comm) } => write!(f, "pid {pid} ({comm}, uid {uid})"),
            Sender::Process { pid, uid, comm: None } => write!(f, "pid {pid} (uid {uid})"),
        }
    }
}

/// Why a job or main ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// Its command ended by itself.
    Exited,
    /// It died of a signal that a program's own fault gives it, SIGSEGV for instance. (`kill` can send them, too.)
    Fault,
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
    Stopped {
        /// Who, as that one says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Who>,
    },
    /// The configuration file was read again, and has something else of it.
    Reconfigured,
    /// Somebody sent it a signal through lastout, and it died of it.
    Killed {
        /// The last signal that was sent so.
        signal: Signal,
        /// Who, as that one says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Who>,
    },
    /// Main died of a signal that the init was sent and passed on.
    Signalled {
        /// Who sent it.
        from: Sender,
    },
    /// The kernel's OOM killer sent SIGKILL.
    OomKilled {
        /// The memory limit that was reached, bytes; null if the whole machine was out of memory.
        limit_bytes: Option<u64>,
    },
    /// A command of its setup failed, so it was not started.
    SetupFailed {
        /// Which, as a person would type it, shortened.
        command: String,
        /// How it ended; null if its time was over.
        exit: Option<Exit>,
        /// The end of what it said.
        output: String,
    },
    /// It was not ready in time.
    NotReady,
    /// Its health check failed too often.
    Unhealthy {
        /// What the last check said.
        why: String,
    },
    /// It did not say `WATCHDOG=1` in time.
    Watchdog,
    /// It said itself that it does not live, by `WATCHDOG=trigger`.
    WatchdogTriggered,
    /// It said that it stops, by `STOPPING=1`, and did not end in time.
    NotStopped,
    /// Somebody else has unmounted what it serves.
    Unmounted,
    /// What it needs has failed for good.
    DependencyFailed {
        /// Which.
        name: Name,
    },
    /// The init is shutting down.
    Shutdown {
        /// What began it.
        why: String,
    },
    /// The init died.
    InitGone,
    /// Its keeper died; the init ended what was left.
    KeeperGone,
    /// It died of a signal, and the kernel does not tell whose: not lastout's, not the OOM killer's.
    Unknown,
}

impl Cause {
    /// What is to be said of an end that nobody ordered. `oom_limit`: the OOM killer has just killed somebody
    /// here, at this limit.
    pub fn of(exit: Exit, oom: Option<OomKill>) -> Cause {
        match (exit, oom) {
            (exit, Some(OomKill { limit_bytes })) if exit.may_be_kill() => Cause::OomKilled { limit_bytes },
            (Exit::Code(_), _) => Cause::Exited,
            (Exit::Signal(signal), _) if signal.is_fault() => Cause::Fault,
            (Exit::Signal(_), _) => Cause::Unknown,
        }
    }

    /// In a word, for a table.
    pub fn word(&self) -> &'static str {
        match self {
            Cause::Exited => "by itself",
            Cause::Fault => "fault",
            Cause::ExecFailed(_) => "not executed",
            Cause::Refused { .. } => "refused",
            Cause::Timeout => "timeout",
            Cause::ClientGone => "client gone",
            Cause::Stopped { .. } => "stopped",
            Cause::Reconfigured => "reconfigured",
            Cause::Killed { .. } => "killed",
            Cause::Signalled { .. } => "signalled",
            Cause::OomKilled { .. } => "OOM-killed",
            Cause::SetupFailed { .. } => "setup failed",
            Cause::NotReady => "not ready",
            Cause::Unhealthy { .. } => "unhealthy",
            Cause::Watchdog | Cause::WatchdogTriggered => "watchdog",
            Cause::NotStopped => "not stopped",
            Cause::Unmounted => "unmounted",
            Cause::DependencyFailed { .. } => "dependency",
            Cause::Shutdown { .. } => "shutdown",
            Cause::InitGone => "init died",
            Cause::KeeperGone => "keeper died",
            Cause::Unknown => "signal",
        }
    }

    /// Whether it is the command's own business, or what somebody asked for: nothing to warn of.
    pub fn is_ordinary(&self) -> bool {
        match self {
            Cause::Exited
            | Cause::Stopped { .. }
            | Cause::Reconfigured
            | Cause::Killed { .. }
            | Cause::Signalled { .. }
            | Cause::Shutdown { .. } => true,
            Cause::Fault
            | Cause::ExecFailed(_)
            | Cause::Refused { .. }
            | Cause::Timeout
            | Cause::ClientGone
            | Cause::OomKilled { .. }
            | Cause::SetupFailed { .. }
            | Cause::NotReady
            | Cause::Unhealthy { .. }
            | Cause::Watchdog
            | Cause::WatchdogTriggered
            | Cause::NotStopped
            | Cause::Unmounted
            | Cause::DependencyFailed { .. }
            | Cause::InitGone
            | Cause::KeeperGone
            | Cause::Unknown => false,
        }
    }
}

/// The kernel's OOM killer has killed a process of our memory cgroup.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OomKill {
    /// The cgroup's limit, bytes, if it has one.
    pub limit_bytes: Option<u64>,
}

impl OomKill {
    /// Whether a kill is to be put down to the OOM killer: it has struck somebody in this container, and it ends the
    /// largest. What was small beside the limit was not worth its while. `None`: somebody else was.
    pub fn blame(limit_bytes: Option<u64>, max_rss_bytes: u64) -> Option<OomKill> {
        const SHARE: u64 = 16;
        const WITHOUT_LIMIT: u64 = 1 << 30;
        (max_rss_bytes >= limit_bytes.unwrap_or(WITHOUT_LIMIT) / SHARE).then_some(OomKill { limit_bytes })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let by = |by: &Option<Who>| by.as_ref().map_or("by request".into(), |by| format!("by {by}"));
        match self {
            Cause::Exited => f.write_str("ended by itself"),
            Cause::Fault => f.write_str("a fault of its own"),
            Cause::ExecFailed(failure) => failure.fmt(f),
            Cause::Refused { reason } => f.write_str(reason),
            Cause::Timeout => f.write_str("timeout"),
            Cause::ClientGone => f.write_str("its client went away"),
            Cause::Stopped { by: who } => write!(f, "stopped {}", by(who)),
            Cause::Reconfigured => f.write_str("stopped: its configuration has changed"),
            Cause::Killed { signal, by: who } => write!(f, "{signal} {}", by(who)),
            Cause::Signalled { from } => write!(f, "signal from {from}"),
            Cause::OomKilled { limit_bytes: Some(limit) } => {
                write!(f, "the kernel's OOM killer, at the memory limit of {} MiB", limit >> 20)
            }
            Cause::OomKilled { limit_bytes: None } => {
                f.write_str("the kernel's OOM killer: the machine has no memory left")
            }
            Cause::SetupFailed { command, exit, output } => {
                match exit {
                    Some(exit) => write!(f, "its setup failed ({exit}): {command}")?,
                    None => write!(f, "its setup took too long: {command}")?,
                }
                if output.is_empty() { Ok(()) } else { write!(f, ": {}", output.trim_end()) }
            }
            Cause::NotReady => f.write_str("it was not ready in time"),
            Cause::Unhealthy { why } => write!(f, "unhealthy: {why}"),
            Cause::Watchdog => f.write_str("it did not say WATCHDOG=1 in time"),
            Cause::WatchdogTriggered => f.write_str("it said WATCHDOG=trigger"),
            Cause::NotStopped => f.write_str("it said STOPPING=1 and did not end in time"),
            Cause::Unmounted => f.write_str("somebody has unmounted it"),
            Cause::DependencyFailed { name } => write!(f, "{name}, which it needs, has failed"),
            Cause::Shutdown { why } => write!(f, "shutdown ({why})"),
            Cause::InitGone => f.write_str("the init died"),
            Cause::KeeperGone => f.write_str("its keeper died"),
            Cause::Unknown => f.write_str("sender unknown: neither lastout nor the OOM killer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oom_killer_is_blamed_only_for_what_was_not_small() {
        const MIB: u64 = 1 << 20;
        for (limit, rss, blamed) in [
            (Some(64 * MIB), 60 * MIB, true),
            (Some(64 * MIB), 2 * MIB, false),
            (None, 900 * MIB, true),
            (None, MIB, false),
        ] {
            assert_eq!(OomKill::blame(limit, rss).is_some(), blamed, "{limit:?} {rss}");
        }
    }

    #[test]
    fn an_end_that_nobody_ordered_is_told_apart() {
        let signal = |raw| Exit::Signal(Signal::new(raw).unwrap());
        let oom = Some(OomKill { limit_bytes: Some(1 << 26) });
        for (exit, oom, cause) in [
            (Exit::Code(0), None, Cause::Exited),
            (Exit::Code(1), oom, Cause::Exited),
            // As a shell tells of what it ran.
            (Exit::Code(137), oom, Cause::OomKilled { limit_bytes: Some(1 << 26) }),
            (Exit::Code(137), None, Cause::Exited),
            (signal(9), oom, Cause::OomKilled { limit_bytes: Some(1 << 26) }),
            (signal(9), None, Cause::Unknown),
            (signal(15), oom, Cause::Unknown),
            (signal(11), None, Cause::Fault),
            (signal(6), None, Cause::Fault),
        ] {
            assert_eq!(Cause::of(exit, oom), cause, "{exit}");
        }
    }
}
