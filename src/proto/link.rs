//! Between the init and one keeper: JSON messages on a `SOCK_SEQPACKET` pair, which keeps their bounds.
//! End-of-file means that the other side is dead.

use serde::{Deserialize, Serialize};

use super::{Cause, Leftover, Usage, Who};
use crate::base::{Exit, Pid, Signal};

/// From the init to a keeper.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// End the tree: TERM, grace, KILL.
    Stop {
        /// What the job's record will say.
        cause: Cause,
        /// Time between TERM and KILL, milliseconds, unless the job asked for one of its own.
        grace_ms: u64,
        /// `grace_ms` is what somebody asked for in this very order: it wins over the job's own.
        asked: bool,
    },
    /// Send a signal to the command's process group.
    Kill {
        /// Which.
        signal: Signal,
        /// Who wants it.
        by: Option<Who>,
    },
}

/// From a keeper to the init.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// What the job is, for `ps`.
    Command(String),
    /// The command was executed.
    Started(Pid),
    /// A setup command was executed; counted from 1.
    Setup(usize),
    /// The mount is there: its device, as `/proc/PID/mountinfo` has it.
    Mounted(String),
    /// The service is ready.
    Ready,
    /// A health check has changed what is known.
    Healthy(bool),
    /// What the service says of itself (`STATUS=` of `sd_notify(3)`).
    Status(String),
    /// So many lines of its log were dropped in this run so far.
    Dropped(u64),
    /// The tree is being ended.
    Ending,
    /// SIGKILL does not end these.
    Stuck(Vec<Leftover>),
    /// The tree has ended; the keeper exits now.
    Ended {
        /// How the command ended, if it ran.
        exit: Option<Exit>,
        /// Why.
        cause: Cause,
        /// From its start to its tree's end, microseconds.
        wall_us: u64,
        /// What its tree used, if it ran.
        usage: Option<Usage>,
    },
}

macro_rules! message {
    ($name:ident) => {
        impl $name {
            /// As one message.
            pub fn to_bytes(&self) -> Vec<u8> {
                super::to_line(self)
            }

            /// From one message.
            pub fn parse(bytes: &[u8]) -> Option<$name> {
                serde_json::from_slice(bytes).ok()
            }
        }
    };
}
message!(Order);
message!(Notice);
