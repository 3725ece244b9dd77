use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};

use super::Tick;

/// A process id. Positive by construction, so that it can never address "every process" (-1) or
/// "my own group" (0), as `kill(2)` would read them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct Pid(i32);

impl Pid {
    /// The init of a PID namespace.
    pub const INIT: Pid = Pid(1);

    /// `None` unless `raw` is positive.
    pub const fn new(raw: i32) -> Option<Pid> {
        if raw > 0 { Some(Pid(raw)) } else { None }
    }

    /// The number, for a system call.
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl TryFrom<i32> for Pid {
    type Error = String;
    fn try_from(raw: i32) -> Result<Pid, String> {
        Pid::new(raw).ok_or_else(|| format!("not a process id: {raw}"))
    }
}

impl From<Pid> for i32 {
    fn from(pid: Pid) -> i32 {
        pid.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process group id that may be signalled. Above 1 by construction: `kill(-1, ...)` is every process,
/// `kill(0, ...)` our own group, and group 1 is the init's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pgid(i32);

impl Pgid {
    /// The group that `leader` leads; `None` for PID 1.
    pub const fn led_by(leader: Pid) -> Option<Pgid> {
        if leader.0 > 1 { Some(Pgid(leader.0)) } else { None }
    }

    /// A group as the kernel tells it: 0 where it is outside the PID namespace.
    pub const fn seen(raw: i32) -> Option<Pgid> {
        if raw > 1 { Some(Pgid(raw)) } else { None }
    }

    /// The number, for a system call.
    pub const fn get(self) -> i32 {
        self.0
    }
}

/// Whom a signal is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Whom {
    /// One process.
    One(Pid),
    /// Every member of a process group, in one instant: no fork escapes that.
    Group(Pgid),
}

/// One process and no other: a pid can be used again, a pid with its start time cannot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ProcId {
    /// Its process id.
    pub pid: Pid,
    /// Field 22 of `/proc/PID/stat`: clock ticks between boot and the process's start.
    pub start: u64,
}

impl ProcId {
    /// Whether it started before or after this moment of the same clock. The kernel counts in hundredths of a second
    /// (`USER_HZ`): within one it cannot tell, and they are equal.
    pub fn started(self, moment: Tick) -> Ordering {
        const CLOCK_TICK_US: u64 = 10_000;
        self.start.cmp(&(moment.0 / CLOCK_TICK_US))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kill_would_misread_cannot_be_made() {
        for raw in [0, -1, -42, i32::MIN] {
            assert_eq!(Pid::new(raw), None);
        }
        assert_eq!(Pgid::led_by(Pid::INIT), None);
        assert_eq!(Pgid::led_by(Pid(2)).map(Pgid::get), Some(2));
        assert!(serde_json::from_str::<Pid>("0").is_err());
    }
}
