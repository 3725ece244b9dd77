//! The order of leaving.

use std::time::Duration;

use crate::base::Tick;

/// The phases of an init's life. The declaration order is the order in which they are passed; none is
/// passed twice.
///
/// | phase | what happens | ends when |
/// |---|---|---|
/// | Running | main, jobs | main ends; SIGTERM; `shutdown`; in hold SIGINT too |
/// | Stopping | main, jobs and the engine's processes were asked to end | none of them is left |
/// | Sweeping | everything else is asked, then forced | nothing is left |
/// | Census | the kernel lets go of what those who were seen held; what is left is named | always |
/// | Syncing | network and FUSE volumes take what was written | they have, or said why not |
/// | Releasing | FIFO and directory go, the terminal is given back | always |
/// | Gone | | |
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Business as usual.
    Running,
    /// Main, jobs and the engine's processes are ending.
    Stopping,
    /// Everything else is ending.
    Sweeping,
    /// Waiting for the kernel, and a last look.
    Census,
    /// Waiting for volumes.
    Syncing,
    /// Tidying up.
    Releasing,
    /// The exit code has been given.
    Gone,
}

/// What Sweeping gets at least, of a budget that Stopping has used up.
pub(super) const SWEEP_AT_LEAST: Duration = Duration::from_secs(1);

/// The time that leaving may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    grace: Duration,
    /// Set by a stop from outside: it is one budget for all phases, because `docker stop` counts too.
    until: Option<Tick>,
}

impl Budget {
    pub(super) fn new(grace: Duration) -> Budget {
        Budget { grace, until: None }
    }

    /// Somebody outside has begun to count.
    pub(super) fn begin(&mut self, now: Tick) {
        self.until.get_or_insert(now + self.grace);
    }

    /// When the time that somebody outside counts is over.
    pub(super) fn until(&self) -> Option<Tick> {
        self.until
    }

    /// What a phase that begins now may take for asking.
    pub(super) fn left(&self, now: Tick) -> Duration {
        self.until.map_or(self.grace, |until| until.since(now))
    }

    /// The same for Sweeping.
    pub(super) fn for_sweeping(&self, now: Tick) -> Duration {
        self.left(now).max(SWEEP_AT_LEAST.min(self.grace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_pass_in_the_order_of_their_declaration() {
        use Phase::*;
        assert!([Running, Stopping, Sweeping, Census, Syncing, Releasing, Gone].is_sorted());
    }

    #[test]
    fn an_outside_stop_is_one_budget_and_sweeping_gets_at_least_a_second() {
        let second = Duration::from_secs(1);
        let mut budget = Budget::new(7 * second);
        assert_eq!(budget.left(Tick(0) + 100 * second), 7 * second);
        budget.begin(Tick(0));
        budget.begin(Tick(0) + 5 * second);
        assert_eq!(budget.left(Tick(0) + 5 * second), 2 * second);
        assert_eq!(budget.for_sweeping(Tick(0) + 5 * second), 2 * second);
        assert_eq!(budget.for_sweeping(Tick(0) + 9 * second), second);
    }

    #[test]
    fn a_grace_of_nothing_is_nothing() {
        assert_eq!(Budget::new(Duration::ZERO).for_sweeping(Tick(0)), Duration::ZERO);
    }
}
