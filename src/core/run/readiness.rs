//! Whether a service is ready, and whether it still says that it lives.
//!
//! | state | what is true | left by |
//! |---|---|---|
//! | Starting | it has until its start timeout, longer if it asks | it is ready; that timeout |
//! | Ready | its watchdog runs, if it has one | that timeout; it says that it stops |
//! | Stopping | it has said so: it has its grace, longer if it asks | that timeout |
//! | Over | the tree is being ended: nothing counts any more | |

use std::time::Duration;

use crate::{base::Tick, proto::Cause};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Starting { until: Option<Tick> },
    Ready { watchdog: Option<Tick> },
    Stopping { until: Tick },
    Over,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Readiness {
    state: State,
    /// How often it is to say that it lives.
    watchdog: Option<Duration>,
}

impl Readiness {
    /// Its command has not started.
    pub(super) fn new(watchdog: Option<Duration>) -> Readiness {
        Readiness { state: State::Starting { until: None }, watchdog }
    }

    /// Its command has started.
    pub(super) fn started(&mut self, now: Tick, timeout: Option<Duration>) {
        if let State::Starting { until } = &mut self.state {
            *until = timeout.map(|timeout| now + timeout);
        }
    }

    /// It is ready. Whether that is news.
    pub(super) fn ready(&mut self, now: Tick) -> bool {
        let is_news = matches!(self.state, State::Starting { .. });
        if is_news {
            self.state = State::Ready { watchdog: self.watchdog.map(|watchdog| now + watchdog) };
        }
        is_news
    }

    /// It lives.
    pub(super) fn alive(&mut self, now: Tick) {
        if let State::Ready { watchdog } = &mut self.state {
            *watchdog = self.watchdog.map(|watchdog| now + watchdog);
        }
    }

    /// How often it will say so from now on; zero: never again.
    pub(super) fn set_watchdog(&mut self, now: Tick, every: Duration) {
        self.watchdog = Some(every).filter(|every| !every.is_zero());
        self.alive(now);
    }

    /// It says that it does not live: whether that counts.
    pub(super) fn trigger(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Ready { .. })
    }

    /// It says that it stops, and has this grace to do so.
    pub(super) fn stopping(&mut self, now: Tick, grace: Duration) {
        if matches!(self.state, State::Starting { .. } | State::Ready { .. }) {
            self.state = State::Stopping { until: now + grace };
        }
    }

    /// It needs no less than this from now on. The watchdog is another thing (sd_notify(3)).
    pub(super) fn extend(&mut self, now: Tick, time: Duration) {
        match &mut self.state {
            State::Starting { until: Some(until) } | State::Stopping { until } => *until = (*until).max(now + time),
            State::Starting { until: None } | State::Ready { .. } | State::Over => {}
        }
    }

    /// The tree is being ended.
    pub(super) fn over(&mut self) {
        self.state = State::Over;
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        match self.state {
            State::Starting { until } => until,
            State::Ready { watchdog } => watchdog,
            State::Stopping { until } => Some(until),
            State::Over => None,
        }
    }

    /// Why it is to be ended now, if it is.
    pub(super) fn overdue(&self, now: Tick) -> Option<Cause> {
        self.deadline().filter(|deadline| now >= *deadline)?;
        match self.state {
            State::Starting { .. } => Some(Cause::NotReady),
            State::Ready { .. } => Some(Cause::Watchdog),
            State::Stopping { .. } => Some(Cause::NotStopped),
            State::Over => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn at(seconds: u64) -> Tick {
        Tick(seconds * 1_000_000)
    }

    #[derive(Clone, Copy, Debug)]
    enum Says {
        Ready,
        Alive,
        Every(u64),
        Extend(u64),
        Stopping,
        Over,
    }

    #[test]
    fn when_it_is_too_late() {
        use Says::*;
        // Start timeout, watchdog; what it says when; when it is too late for what.
        let (not_ready, watchdog, timeout) = (Some(Cause::NotReady), Some(Cause::Watchdog), Some(Cause::NotStopped));
        for (start, dog, says, due, cause) in [
            (None, None, vec![], None, None),
            (Some(10), Some(3), vec![], Some(10), not_ready.clone()),
            (Some(10), None, vec![(4, Ready)], None, None),
            // More time to start, never less, and each time from now on.
            (Some(10), None, vec![(4, Extend(2))], Some(10), not_ready.clone()),
            (Some(10), None, vec![(9, Extend(5)), (13, Extend(5))], Some(18), not_ready),
            (None, None, vec![(1, Extend(5))], None, None),
            // The watchdog begins when it is ready; what extends timeouts does not touch it.
            (Some(10), Some(3), vec![(4, Ready)], Some(7), watchdog.clone()),
            (None, Some(3), vec![(1, Alive)], None, None),
            (None, Some(3), vec![(4, Ready), (6, Alive)], Some(9), watchdog.clone()),
            (None, Some(3), vec![(4, Ready), (6, Extend(60))], Some(7), watchdog.clone()),
            (None, Some(3), vec![(4, Ready), (6, Every(60))], Some(66), watchdog.clone()),
            (None, Some(3), vec![(4, Ready), (6, Every(0))], None, None),
            (None, None, vec![(1, Every(5)), (4, Ready)], Some(9), watchdog),
            // It stops: neither readiness nor watchdog count, only the grace.
            (Some(10), Some(3), vec![(4, Stopping), (5, Ready), (5, Alive)], Some(11), timeout.clone()),
            (Some(10), Some(3), vec![(4, Ready), (5, Stopping), (6, Stopping)], Some(12), timeout.clone()),
            (None, None, vec![(4, Stopping), (5, Extend(60))], Some(65), timeout),
            (Some(10), Some(3), vec![(4, Ready), (5, Over), (6, Alive), (6, Stopping)], None, None),
        ] {
            let mut readiness = Readiness::new(dog.map(s));
            readiness.started(at(0), start.map(s));
            for (when, what) in &says {
                assert_eq!(readiness.overdue(at(*when)), None, "{says:?}");
                match *what {
                    Ready => drop(readiness.ready(at(*when))),
                    Alive => readiness.alive(at(*when)),
                    Every(time) => readiness.set_watchdog(at(*when), s(time)),
                    Extend(time) => readiness.extend(at(*when), s(time)),
                    Stopping => readiness.stopping(at(*when), s(7)),
                    Over => readiness.over(),
                }
            }
            assert_eq!(readiness.deadline(), due.map(at), "{says:?}");
            assert_eq!(readiness.overdue(due.map_or(at(999), at)), cause, "{says:?}");
        }
    }

    #[test]
    fn it_becomes_ready_once() {
        let mut readiness = Readiness::new(None);
        assert_eq!((readiness.ready(at(1)), readiness.ready(at(2))), (true, false));
    }
}
