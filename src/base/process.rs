use serde::{Deserialize, Serialize};

use super::{Pid, ProcId};

/// One process as a look into `/proc` saw it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Which one.
    pub id: ProcId,
    /// Its parent; `None` where the parent is outside the PID namespace (`docker exec`), shown as 0.
    pub parent: Option<Pid>,
    /// Its process group; 0 if that is outside the PID namespace.
    pub group: i32,
    /// The state's letter.
    pub state: char,
    /// Threads in its group.
    pub threads: i64,
    /// The command's name (at most 15 bytes).
    pub comm: String,
    /// The kernel may hold its files for a moment longer than it lives. Only looks that are to end processes tell.
    pub lingers: bool,
    /// It was forked and has executed nothing since: it may be about to, and have its parent's handlers until then.
    pub forked: bool,
}

impl Process {
    /// Ended, and only waiting to be reaped. A zombie with more than one thread is none: its leader called
    /// `pthread_exit` and the others run on, holding all that the process holds.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }

    /// Stopped by a signal: it takes SIGTERM only after SIGCONT.
    pub fn is_stopped(&self) -> bool {
        self.state == 'T'
    }
}
