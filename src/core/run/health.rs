//! When a service's health is checked, and what follows.
//!
//! | state | what is true | left by |
//! |---|---|---|
//! | Due | no check runs | its time |
//! | Running | one runs | its end; its timeout |
//! | Killed | it took too long and was killed; the kernel may not let go of it | its end |
//! | Off | nobody asks any more | |
//!
//! There are never two checks at once: while one that was killed does not end, no other is started, and each time that
//! one would have been due counts as a failure.

use std::time::Duration;

use crate::{
    base::{Exit, Tick},
    core::service::Health,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Due(Tick),
    Running { until: Tick },
    Killed { again: Tick },
    Off,
}

/// What a check, or its absence, comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Nothing new.
    Same,
    /// It is healthy, and was not known to be.
    Healthy,
    /// Too many checks have failed in a row: the last one for this reason.
    Unhealthy(String),
}

/// What is to be done with a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    Nothing,
    Start,
    Kill,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Checks {
    state: State,
    every: Duration,
    timeout: Duration,
    retries: u32,
    /// Failures before this do not count.
    counts_from: Tick,
    failures: u32,
    healthy: bool,
}

impl Checks {
    /// The service has started: the first check is due at once.
    pub(super) fn begin(now: Tick, health: &Health) -> Checks {
        Checks {
            state: State::Due(now),
            every: health.every,
            timeout: health.timeout,
            retries: health.retries.max(1),
            counts_from: now + health.start_period,
            failures: 0,
            healthy: false,
        }
    }

    /// Nobody asks any more.
    pub(super) fn stop(&mut self) {
        self.state = State::Off;
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        match self.state {
            State::Due(at) | State::Running { until: at } | State::Killed { again: at } => Some(at),
            State::Off => None,
        }
    }

    /// A moment: what is to be done now, and what the time alone tells.
    pub(super) fn tick(&mut self, now: Tick) -> (Due, Verdict) {
        match self.state {
            State::Due(at) if now >= at => {
                self.state = State::Running { until: now + self.timeout };
                (Due::Start, Verdict::Same)
            }
            State::Running { until } if now >= until => {
                self.state = State::Killed { again: now + self.every };
                (Due::Kill, self.failed(now, format!("no answer within {:?}", self.timeout)))
            }
            State::Killed { again } if now >= again => {
                self.state = State::Killed { again: now + self.every };
                (Due::Nothing, self.failed(now, "the check before was killed and does not end".into()))
            }
            State::Due(_) | State::Running { .. } | State::Killed { .. } | State::Off => (Due::Nothing, Verdict::Same),
        }
    }

    /// The check has ended, or (`None`) could not be started; `why` is what it said.
    pub(super) fn ended(&mut self, now: Tick, exit: Option<Exit>, why: Option<String>) -> Verdict {
        match self.state {
            State::Running { .. } => {
                self.state = State::Due(now + self.every);
                let why = match (exit, why) {
                    (Some(Exit::Code(0)), _) => {
                        self.failures = 0;
                        let news = !std::mem::replace(&mut self.healthy, true);
                        return if news { Verdict::Healthy } else { Verdict::Same };
                    }
                    (Some(exit), Some(why)) => format!("{why} ({exit})"),
                    (Some(exit), None) => exit.to_string(),
                    (None, why) => why.unwrap_or_default(),
                };
                self.failed(now, why)
            }
            // Its failure has been counted.
            State::Killed { .. } => {
                self.state = State::Due(now + self.every);
                Verdict::Same
            }
            State::Due(_) | State::Off => Verdict::Same,
        }
    }

    fn failed(&mut self, now: Tick, why: String) -> Verdict {
        if now < self.counts_from {
            return Verdict::Same;
        }
        self.failures += 1;
        if self.failures < self.retries {
            return Verdict::Same;
        }
        self.stop();
        Verdict::Unhealthy(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::service::Check;

    fn at(s: u64) -> Tick {
        Tick(s * 1_000_000)
    }

    fn checks(retries: u32, start_period: u64) -> Checks {
        let check = Check::Tcp { host: "x".into(), port: 1 };
        let start_period = Duration::from_secs(start_period);
        let (every, timeout) = (Duration::from_secs(30), Duration::from_secs(10));
        Checks::begin(at(0), &Health { check, every, timeout, retries, start_period })
    }

    const GOOD: Option<Exit> = Some(Exit::Code(0));
    const BAD: Option<Exit> = Some(Exit::Code(1));

    #[test]
    fn the_first_is_due_at_once_and_the_next_after_the_end_of_the_one_before() {
        let mut checks = checks(3, 0);
        assert_eq!(checks.tick(at(0)), (Due::Start, Verdict::Same));
        assert_eq!((checks.tick(at(5)), checks.deadline()), ((Due::Nothing, Verdict::Same), Some(at(10))));
        assert_eq!(checks.ended(at(7), GOOD, None), Verdict::Healthy);
        assert_eq!((checks.tick(at(36)), checks.deadline()), ((Due::Nothing, Verdict::Same), Some(at(37))));
        assert_eq!(checks.tick(at(37)).0, Due::Start);
        assert_eq!(checks.ended(at(38), GOOD, None), Verdict::Same, "only news are told");
    }

    #[test]
    fn only_failures_in_a_row_after_the_start_period_count() {
        let bad = |why: &str| Verdict::Unhealthy(why.into());
        // Retries, start period; how each check ends, 30 s from one to the next; what is said at the end.
        for (retries, period, ends, last) in [
            (1, 0, vec![BAD], bad("x (exit code 1)")),
            (3, 0, vec![BAD, BAD], Verdict::Same),
            (3, 0, vec![BAD, BAD, BAD], bad("x (exit code 1)")),
            (3, 0, vec![BAD, BAD, GOOD, BAD, BAD], Verdict::Same),
            (2, 60, vec![BAD, BAD, BAD], Verdict::Same),
            (2, 60, vec![BAD, BAD, BAD, BAD], bad("x (exit code 1)")),
            (2, 0, vec![BAD, None], bad("x")),
        ] {
            let mut checks = checks(retries, period);
            let mut said = Verdict::Same;
            for (round, exit) in (0..).zip(&ends) {
                assert_eq!(said, Verdict::Same);
                let now = at(round * 30);
                assert_eq!(checks.tick(now).0, Due::Start, "{ends:?} {round}");
                said = checks.ended(now, *exit, Some("x".into()));
                said = if said == Verdict::Healthy { Verdict::Same } else { said };
            }
            assert_eq!(said, last, "{retries} {period} {ends:?}");
            assert_eq!(checks.deadline().is_none(), last != Verdict::Same);
        }
    }

    #[test]
    fn a_check_that_hangs_is_killed_and_none_is_started_beside_it() {
        let mut checks = checks(3, 0);
        checks.tick(at(0));
        assert_eq!(checks.tick(at(10)), (Due::Kill, Verdict::Same));
        assert_eq!(checks.ended(at(10), Some(Exit::Code(0)), None), Verdict::Same, "too late");
        assert_eq!(checks.tick(at(40)).0, Due::Start);
        // This one does not even die: what cannot be asked counts as no answer.
        assert_eq!(checks.tick(at(50)), (Due::Kill, Verdict::Same));
        assert_eq!(checks.tick(at(79)), (Due::Nothing, Verdict::Same));
        let why = "the check before was killed and does not end";
        assert_eq!(checks.tick(at(80)), (Due::Nothing, Verdict::Unhealthy(why.into())));
    }

    #[test]
    fn once_off_nothing_is_due_and_nothing_counts() {
        let mut checks = checks(1, 0);
        checks.tick(at(0));
        checks.stop();
        assert_eq!((checks.deadline(), checks.tick(at(99))), (None, (Due::Nothing, Verdict::Same)));
        assert_eq!(checks.ended(at(99), BAD, None), Verdict::Same);
    }
}
