//! How a mount is stopped: unmounted first, so that its daemon writes everything out, and only then ended.
//!
//! | state | what is true | left by |
//! |---|---|---|
//! | Trying | a child unmounts | its end; the end of the grace: its daemon does not answer, and is ended |
//! | Busy | somebody holds it; who does has been said | a moment; the end of the grace |
//! | Detaching | a child unmounts lazily, which was said | its end; it does not come to its end |
//! | Flushing | it is unmounted; the daemon has a grace of its own to end by itself | the end of that |
//! | Over | what is left of the tree is ended, and with its daemon all that waits for it | |

use std::time::Duration;

use crate::base::{Exit, Tick};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// To detach waits for nobody; it may wait for the kernel's locks.
pub(in crate::core) const DETACH: Duration = Duration::from_secs(2);
/// The exit code of a child that found it busy.
pub const BUSY: u8 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Trying,
    Busy { again: Tick },
    Detaching,
    Flushing,
    Over,
}

/// What is to be done now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::core) enum Todo {
    Nothing,
    Unmount,
    NameHolders,
    Detach,
    EndTree,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(in crate::core) struct Unmount {
    state: State,
    grace: Duration,
    /// When this state is over.
    until: Tick,
    named: bool,
}

impl Unmount {
    /// Begins; the first try is to be made now.
    pub(in crate::core) fn begin(now: Tick, grace: Duration) -> Unmount {
        Unmount { state: State::Trying, grace, until: now + grace, named: false }
    }

    /// What is left of it, each part of it, takes no longer than this.
    pub(in crate::core) fn hurry(&mut self, now: Tick, grace: Duration) {
        self.grace = self.grace.min(grace);
        self.until = self.until.min(now + grace);
    }

    /// The daemon says that it needs no less than this.
    pub(in crate::core) fn extend(&mut self, now: Tick, time: Duration) {
        self.until = self.until.max(now + time);
    }

    pub(in crate::core) fn grace(&self) -> Duration {
        self.grace
    }

    /// It is unmounted.
    pub(in crate::core) fn is_flushing(&self) -> bool {
        self.state == State::Flushing
    }

    pub(in crate::core) fn deadline(&self) -> Tick {
        match self.state {
            State::Busy { again } => again.min(self.until),
            State::Trying | State::Detaching | State::Flushing | State::Over => self.until,
        }
    }

    /// A moment.
    pub(in crate::core) fn tick(&mut self, now: Tick) -> Todo {
        match self.state {
            // Whoever waits for an answer gets one when the daemon ends: the connection's end.
            State::Trying if now >= self.until => self.over(),
            State::Busy { .. } if now >= self.until => {
                self.state = State::Detaching;
                self.until = now + DETACH;
                Todo::Detach
            }
            State::Busy { again } if now >= again => {
                self.state = State::Trying;
                Todo::Unmount
            }
            State::Detaching | State::Flushing if now >= self.until => self.over(),
            State::Trying | State::Busy { .. } | State::Detaching | State::Flushing | State::Over => Todo::Nothing,
        }
    }

    /// A child that unmounts or detaches has ended, or (`None`) could not be forked.
    pub(in crate::core) fn ended(&mut self, now: Tick, exit: Option<Exit>) -> Todo {
        match (self.state, exit) {
            (State::Trying | State::Detaching, Some(Exit::Code(0))) => self.flush(now),
            (State::Trying, Some(Exit::Code(BUSY)) | None) => {
                self.state = State::Busy { again: now + PAUSE };
                if std::mem::replace(&mut self.named, true) || exit.is_none() {
                    Todo::Nothing
                } else {
                    Todo::NameHolders
                }
            }
            // It cannot be unmounted from here; its daemon may know how.
            (State::Trying | State::Detaching, _) => self.over(),
            // From a try that was given up.
            (State::Busy { .. } | State::Flushing | State::Over, _) => Todo::Nothing,
        }
    }

    /// It is no mount point any more, whoever did it.
    pub(in crate::core) fn gone(&mut self, now: Tick) {
        if matches!(self.state, State::Trying | State::Busy { .. } | State::Detaching) {
            self.flush(now);
        }
    }

    fn over(&mut self) -> Todo {
        self.state = State::Over;
        Todo::EndTree
    }

    fn flush(&mut self, now: Tick) -> Todo {
        self.state = State::Flushing;
        self.until = now + self.grace;
        Todo::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Tick {
        Tick(ms * 1000)
    }

    const DONE: Option<Exit> = Some(Exit::Code(0));
    const IS_BUSY: Option<Exit> = Some(Exit::Code(BUSY));

    fn begun() -> Unmount {
        Unmount::begin(at(0), Duration::from_secs(1))
    }

    #[test]
    fn unmounted_the_daemon_has_a_grace_of_its_own() {
        let mut unmount = begun();
        assert_eq!(unmount.ended(at(900), DONE), Todo::Nothing);
        assert_eq!((unmount.deadline(), unmount.tick(at(1899))), (at(1900), Todo::Nothing));
        assert_eq!(unmount.tick(at(1900)), Todo::EndTree);
    }

    #[test]
    fn what_is_busy_is_tried_again_and_its_holders_named_once_and_detached_when_the_grace_is_over() {
        let mut unmount = begun();
        let mut now = 0;
        let mut named = 0;
        while now < 1000 {
            named += u32::from(unmount.ended(at(now), IS_BUSY) == Todo::NameHolders);
            now += 100;
            assert_eq!(unmount.deadline(), at(now));
            let todo = unmount.tick(at(now));
            assert_eq!(todo, if now < 1000 { Todo::Unmount } else { Todo::Detach });
        }
        assert_eq!(named, 1);
        assert_eq!(unmount.ended(at(1000), DONE), Todo::Nothing);
        assert_eq!(unmount.tick(at(2000)), Todo::EndTree);
    }

    #[test]
    fn what_hangs_is_ended_after_the_grace_and_what_then_hangs_is_left() {
        let mut unmount = begun();
        assert_eq!((unmount.tick(at(999)), unmount.tick(at(1000))), (Todo::Nothing, Todo::EndTree));
        // The try comes back with the daemon's end.
        assert_eq!(unmount.ended(at(1100), DONE), Todo::Nothing);
        assert_eq!(unmount.tick(at(9000)), Todo::Nothing);

        let mut unmount = begun();
        unmount.ended(at(0), IS_BUSY);
        assert_eq!(unmount.tick(at(1000)), Todo::Detach);
        assert_eq!((unmount.tick(at(2999)), unmount.tick(at(3000))), (Todo::Nothing, Todo::EndTree));
    }

    #[test]
    fn what_may_not_be_unmounted_is_left_to_its_daemon_at_once() {
        assert_eq!(begun().ended(at(5), Some(Exit::Code(1))), Todo::EndTree);
    }

    #[test]
    fn somebody_else_may_unmount_it() {
        let mut unmount = begun();
        unmount.ended(at(0), IS_BUSY);
        unmount.gone(at(50));
        assert_eq!(unmount.deadline(), at(1050));
    }

    #[test]
    fn what_is_hurried_takes_less_and_what_needs_more_gets_it() {
        let mut unmount = begun();
        unmount.hurry(at(100), Duration::from_millis(200));
        assert_eq!(unmount.deadline(), at(300));
        unmount.ended(at(150), DONE);
        assert_eq!(unmount.deadline(), at(350));
        unmount.extend(at(200), Duration::from_secs(5));
        assert_eq!(unmount.deadline(), at(5200));
    }
}
