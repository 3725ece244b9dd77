//! What does not end is named: who, in which call, on which file of which volume, for how long.
//!
//! A helper looks, because to look can block as well: first a moment after a stop has begun, while everything
//! still has its grace, for what hangs in the kernel; and once SIGKILL has been sent, for all that is left. Where
//! the user wishes it, the FUSE connection of a volume that holds somebody longer than his grace is aborted:
//! that one only, and once.

use std::time::Duration;

use super::{Init, Role};
use crate::{
    base::{Set, Subject, Tick},
    core::{Action, Level, Phase, STUCK_AFTER, STUCK_EVERY},
    proto::{Happening, Leftover},
};

/// After a stop: what ends at once is not worth a look.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Between two looks that find nothing, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After the grace, for what only an abort ends.
const ABORT_AFTER: Duration = Duration::from_secs(1);

/// A process that does not end, and whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stuck {
    /// Main's or a job's; `None` for what is nobody's.
    pub job: Option<Subject>,
    /// Which, and where it hangs.
    pub process: Leftover,
}

#[derive(Debug, Default)]
pub(super) struct Explaining {
    next: Option<Tick>,
    pause: Duration,
    looking: bool,
    /// SIGKILL has been sent to all that is left.
    forced: bool,
    /// What the last look found.
    pub(super) found: Vec<Stuck>,
    aborted: Set<String>,
}

impl Explaining {
    pub(super) fn begin(&mut self, now: Tick) {
        self.next = Some(now + FIRST_LOOK);
        self.pause = STUCK_EVERY;
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        self.next.filter(|_| !self.looking)
    }
}

impl Init {
    /// Has somebody look, if it is time to.
    pub(super) fn explain_if_due(&mut self, now: Tick, orders: &mut Vec<Action>) {
        if self.leaving_others() && self.explaining.deadline().is_some_and(|next| now >= next) {
            self.explaining.looking = true;
            orders.push(Action::Explain { all: self.explaining.forced });
        }
    }

    /// Whether there is anybody whose end is waited for.
    pub(super) fn leaving_others(&self) -> bool {
        matches!(self.phase, Phase::Stopping | Phase::Sweeping)
    }

    /// SIGKILL was sent so long ago: whatever is left does not go. `somebody`: there is one who lives although he has it.
    pub(super) fn is_stuck(&mut self, now: Tick, forced: Duration, somebody: bool) {
        if forced < STUCK_AFTER {
            return;
        }
        if somebody && !std::mem::replace(&mut self.explaining.forced, true) {
            self.explaining.next = Some(now);
        }
        if self.phase == Phase::Sweeping && self.config.role == Role::Subreaper && forced >= self.config.stuck_timeout {
            self.gave_up = true;
        }
    }

    pub(super) fn explained(&mut self, now: Tick, found: Vec<Stuck>, orders: &mut Vec<Action>) {
        self.explaining.looking = false;
        if !self.leaving_others() {
            return;
        }
        let forced = self.sweep.as_ref().and_then(|sweep| sweep.forced_for(now));
        let killed_for_ms = forced.filter(|_| self.explaining.forced);
        let killed_for_ms = killed_for_ms.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        for Stuck { job, process } in &found {
            let stuck = Happening::Stuck { job: *job, killed_for_ms, process: Box::new(process.clone()) };
            orders.push(Action::Note(Level::Warn, stuck));
        }
        let pause = if found.is_empty() && !self.explaining.forced { self.explaining.pause } else { STUCK_EVERY };
        self.explaining.pause = (pause * 2).min(LONGEST_PAUSE);
        let mut next = now + pause;
        if self.config.abort_fuse {
            let over = self.budget.until().map(|until| until + ABORT_AFTER);
            if forced.is_some_and(|time| time >= ABORT_AFTER) || over.is_some_and(|over| now >= over) {
                self.abort_fuse(found.iter().map(|stuck| &stuck.process), orders);
            } else if let Some(over) = over {
                next = next.min(over);
            }
        }
        if self.explaining.forced {
            self.end_servers_of(now, found.iter().map(|stuck| &stuck.process), orders);
        }
        self.explaining.next = Some(next);
        self.explaining.found = found;
    }

    /// Aborts the connections of the FUSE volumes that hold these.
    pub(super) fn abort_fuse<'a>(&mut self, stuck: impl IntoIterator<Item = &'a Leftover>, orders: &mut Vec<Action>) {
        let is_fuse = |process: &&Leftover| process.filesystem.as_ref().is_some_and(|kind| kind.starts_with("fuse"));
        for process in stuck.into_iter().filter(is_fuse) {
            if let (Some(device), Some(volume)) = (&process.device, &process.volume) {
                self.abort(device, volume, &format!("which holds pid {}", process.pid), orders);
            }
        }
    }

    /// Aborts one connection, once, if the user wishes that. What it had not yet written is lost, by our own hand.
    pub(super) fn abort(&mut self, device: &str, volume: &str, why: &str, orders: &mut Vec<Action>) {
        if self.config.abort_fuse && self.explaining.aborted.insert(device.into()) {
            let text = format!("aborting the FUSE connection of {volume} ({device}), {why}");
            orders.push(Action::Log(Level::Warn, text));
            self.sync_failed = true;
            orders.push(Action::AbortFuse { device: device.into(), volume: volume.into() });
        }
    }
}
