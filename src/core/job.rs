//! One job, as its keeper runs it.
//!
//! | state | what is true | left by |
//! |---|---|---|
//! | Starting | the command is forked and not yet executed: it may hang on a dead volume | Executed, NotExecuted, any reason to end |
//! | Running | the command runs | its end; timeout; an order; the client's or the init's death |
//! | Ending | the tree is asked, then forced ([`Ending`]) | the tree is empty |
//! | Ended | the record can be written; the keeper exits | |
//!
//! The first reason to end is the cause; later ones can only make it quicker. "The tree is empty" is the
//! kernel's word: the keeper is the subreaper of everything that the command started, so when `wait` says
//! that no child is left, nothing is.

use std::time::Duration;

use super::{Ending, STUCK_AFTER, STUCK_EVERY};
use crate::{
    base::{ExecFailure, Exit, Pgid, Pid, Process, Signal, Tick},
    proto::{Cause, Leftover, Order},
};

/// What a job was asked to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobConfig {
    /// End it after this time.
    pub timeout: Option<Duration>,
    /// The grace that it was given by name.
    pub grace: Option<Duration>,
    /// The grace that everything has.
    pub default_grace: Duration,
    /// It ends when its client goes.
    pub bound_to_client: bool,
}

/// What a keeper saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobEvent {
    /// The command was forked.
    Forked(Pid),
    /// The command was executed.
    Executed,
    /// The command could not be forked or executed.
    NotExecuted(ExecFailure),
    /// A child ended and was reaped: the command, or an orphan of its tree.
    Reaped(Pid, Exit),
    /// No child is left: the tree is empty.
    Alone,
    /// The answer to [`JobAction::Look`].
    Looked(Vec<Process>),
    /// The init ordered something.
    Order(Order),
    /// The client has gone.
    ClientGone,
    /// The init has died.
    InitGone,
    /// A deadline, or any other moment.
    Tick,
}

/// What a keeper is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobAction {
    /// Tell client and init that the command was executed.
    TellStarted(Pid),
    /// Tell the init that the tree is being ended.
    TellEnding,
    /// Tell the init what SIGKILL does not end.
    TellStuck(Vec<Leftover>),
    /// Look at every process of the tree.
    Look,
    /// Send a signal to one process.
    Signal(Pid, Signal),
    /// Send a signal to the command's process group.
    SignalGroup(Pgid, Signal),
    /// Tell the client how it ended. `left` is empty, or names what SIGKILL does not end.
    Report {
        /// How the command ended, if it did.
        exit: Option<Exit>,
        /// Why.
        cause: Cause,
        /// What is left.
        left: Vec<Leftover>,
    },
    /// The tree is empty: write the record and exit.
    Finish {
        /// How the command ended, if it ran.
        exit: Option<Exit>,
        /// Why.
        cause: Cause,
    },
}

#[derive(Clone, Debug)]
enum State {
    Starting,
    Running,
    Ending(Ending),
    Ended,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Job {
    config: JobConfig,
    me: Pid,
    state: State,
    command: Option<Pid>,
    exit: Option<Exit>,
    cause: Option<Cause>,
    timeout_at: Option<Tick>,
    /// The last signal that `lastout kill` sent.
    killed: Option<Signal>,
    reported: bool,
    told_ending: bool,
    stuck_told: Option<Tick>,
}

impl Job {
    /// A job whose command is about to be forked by `me`, its keeper.
    pub fn new(config: JobConfig, me: Pid) -> Job {
        Job {
            config,
            me,
            state: State::Starting,
            command: None,
            exit: None,
            cause: None,
            timeout_at: None,
            killed: None,
            reported: false,
            told_ending: false,
            stuck_told: None,
        }
    }

    /// Whether the keeper may exit.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// When [`JobEvent::Tick`] is due.
    pub fn deadline(&self) -> Option<Tick> {
        match &self.state {
            State::Starting | State::Running => self.timeout_at,
            State::Ending(ending) => Some(ending.deadline()),
            State::Ended => None,
        }
    }

    /// Takes one fact and adds the orders that follow.
    pub fn step(&mut self, now: Tick, event: JobEvent, orders: &mut Vec<JobAction>) {
        match event {
            JobEvent::Forked(pid) => {
                self.command = Some(pid);
                self.timeout_at = self.config.timeout.map(|timeout| now + timeout);
            }
            JobEvent::Executed => {
                if let Some(pid) = self.command {
                    orders.push(JobAction::TellStarted(pid));
                }
                if matches!(self.state, State::Starting) {
                    self.state = State::Running;
                }
            }
            JobEvent::NotExecuted(failure) => {
                self.exit = Some(failure.exit());
                let forked = self.command.is_some();
                self.end(now, Cause::ExecFailed(failure), self.grace());
                if !forked {
                    self.finish(orders);
                }
            }
            JobEvent::Reaped(pid, exit) => self.reaped(now, pid, exit),
            JobEvent::Alone => {
                if self.command.is_some() && self.exit.is_some() {
                    self.finish(orders);
                }
            }
            JobEvent::Looked(seen) => self.looked(now, &seen, orders),
            JobEvent::Order(Order::Stop { cause, grace_ms, asked }) => {
                let ordered = Duration::from_millis(grace_ms);
                let grace = if asked { ordered } else { self.config.grace.unwrap_or(ordered) };
                self.end(now, cause, grace);
            }
            JobEvent::Order(Order::Kill(signal)) => {
                self.killed = Some(signal);
                if let (Some(group), None) = (self.command.and_then(Pgid::led_by), self.exit) {
                    orders.push(JobAction::SignalGroup(group, signal));
                }
            }
            JobEvent::ClientGone if self.config.bound_to_client => self.end(now, Cause::ClientGone, self.grace()),
            JobEvent::ClientGone => {}
            JobEvent::InitGone => self.end(now, Cause::InitGone, self.grace()),
            JobEvent::Tick => {
                if self.timeout_at.is_some_and(|at| now >= at) {
                    self.end(now, Cause::Timeout, self.grace());
                }
                // Only here: what is known at once (no child is left) makes a look needless.
                if let State::Ending(ending) = &self.state
                    && ending.wants_look(now)
                {
                    orders.push(JobAction::Look);
                }
            }
        }
    }

    fn grace(&self) -> Duration {
        self.config.grace.unwrap_or(self.config.default_grace)
    }

    /// Begins to end the tree, or ends it sooner.
    fn end(&mut self, now: Tick, cause: Cause, grace: Duration) {
        match &mut self.state {
            State::Starting | State::Running => {
                self.cause.get_or_insert(cause);
                self.timeout_at = None;
                self.state = State::Ending(Ending::begin(now, self.me, grace));
            }
            State::Ending(ending) => ending.hurry(now + grace),
            State::Ended => {}
        }
    }

    fn reaped(&mut self, now: Tick, pid: Pid, exit: Exit) {
        if self.command == Some(pid) {
            self.exit.get_or_insert(exit);
            let cause = match (exit, self.killed) {
                (Exit::Signal(died), Some(sent)) if died == sent => Cause::Killed { signal: sent },
                (Exit::Signal(_) | Exit::Code(_), _) => Cause::Exited,
            };
            if matches!(self.state, State::Starting | State::Running) {
                self.end(now, cause, self.grace());
            }
        }
        if let State::Ending(ending) = &mut self.state {
            ending.child_ended(now);
        }
    }

    fn looked(&mut self, now: Tick, seen: &[Process], orders: &mut Vec<JobAction>) {
        let State::Ending(ending) = &mut self.state else { return };
        if !self.told_ending {
            self.told_ending = true;
            orders.push(JobAction::TellEnding);
        }
        orders.extend(ending.looked(now, seen).into_iter().map(|(pid, signal)| JobAction::Signal(pid, signal)));
        if ending.forced_for(now).is_none_or(|forced| forced < STUCK_AFTER) {
            return;
        }
        let left = seen.iter().filter(|p| !p.is_dead());
        let left: Vec<_> = left.map(|p| Leftover { pid: p.id.pid, comm: p.comm.clone(), state: p.state }).collect();
        if self.stuck_told.is_none_or(|told| now.since(told) >= STUCK_EVERY) {
            self.stuck_told = Some(now);
            orders.push(JobAction::TellStuck(left.clone()));
        }
        if !self.reported {
            self.reported = true;
            let cause = self.cause.clone().unwrap_or(Cause::Exited);
            orders.push(JobAction::Report { exit: self.exit, cause, left });
        }
    }

    fn finish(&mut self, orders: &mut Vec<JobAction>) {
        let cause = self.cause.clone().unwrap_or(Cause::Exited);
        self.state = State::Ended;
        orders.push(JobAction::Finish { exit: self.exit, cause: cause.clone() });
        if !self.reported {
            self.reported = true;
            orders.push(JobAction::Report { exit: self.exit, cause, left: Vec::new() });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::{Errno, ProcId};

    const ME: Pid = Pid::INIT;

    fn pid(raw: i32) -> Pid {
        Pid::new(raw).unwrap()
    }

    fn at(ms: u64) -> Tick {
        Tick(ms * 1000)
    }

    fn process(raw: i32, parent: i32) -> Process {
        let id = ProcId { pid: pid(raw), start: 1 };
        Process { id, parent: Pid::new(parent), state: 'S', threads: 1, comm: "x".into() }
    }

    fn config() -> JobConfig {
        JobConfig { timeout: None, grace: None, default_grace: Duration::from_secs(7), bound_to_client: true }
    }

    /// A running job and everything that it ordered so far.
    fn running(config: JobConfig) -> (Job, Vec<JobAction>) {
        let (mut job, mut orders) = (Job::new(config, ME), Vec::new());
        job.step(at(0), JobEvent::Forked(pid(10)), &mut orders);
        job.step(at(0), JobEvent::Executed, &mut orders);
        assert_eq!(std::mem::take(&mut orders), [JobAction::TellStarted(pid(10))]);
        (job, orders)
    }

    fn finished(orders: &[JobAction]) -> Option<(Option<Exit>, Cause)> {
        orders.iter().find_map(|order| match order {
            JobAction::Finish { exit, cause } => Some((*exit, cause.clone())),
            _ => None,
        })
    }

    #[test]
    fn a_command_that_ends_alone_is_finished_without_a_look() {
        let (mut job, mut orders) = running(config());
        job.step(at(5), JobEvent::Reaped(pid(10), Exit::Code(3)), &mut orders);
        job.step(at(5), JobEvent::Alone, &mut orders);
        assert_eq!(finished(&orders), Some((Some(Exit::Code(3)), Cause::Exited)));
        assert!(!orders.contains(&JobAction::Look) && job.has_ended());
        assert_eq!(job.deadline(), None);
    }

    #[test]
    fn whatever_a_command_leaves_ends_before_the_job_does() {
        let (mut job, mut orders) = running(config());
        job.step(at(5), JobEvent::Reaped(pid(10), Exit::Code(0)), &mut orders);
        assert_eq!(job.deadline(), Some(at(5)));
        job.step(at(5), JobEvent::Tick, &mut orders);
        assert_eq!(orders, [JobAction::Look]);
        orders.clear();
        job.step(at(5), JobEvent::Looked(vec![process(11, 1)]), &mut orders);
        assert_eq!(orders, [JobAction::TellEnding, JobAction::Signal(pid(11), Signal::TERM)]);
        assert!(finished(&orders).is_none());
        job.step(at(9), JobEvent::Reaped(pid(11), Exit::Code(0)), &mut orders);
        job.step(at(9), JobEvent::Alone, &mut orders);
        assert_eq!(finished(&orders), Some((Some(Exit::Code(0)), Cause::Exited)));
    }

    #[test]
    fn every_reason_to_end_asks_the_whole_tree_and_is_the_cause() {
        let stop = Order::Stop { cause: Cause::Stopped, grace_ms: 7000, asked: false };
        for (event, cause) in [
            (JobEvent::ClientGone, Cause::ClientGone),
            (JobEvent::InitGone, Cause::InitGone),
            (JobEvent::Order(stop), Cause::Stopped),
        ] {
            let (mut job, mut orders) = running(config());
            job.step(at(5), event, &mut orders);
            job.step(at(5), JobEvent::Tick, &mut orders);
            job.step(at(5), JobEvent::Looked(vec![process(10, 1), process(11, 10)]), &mut orders);
            for each in [10, 11] {
                assert!(orders.contains(&JobAction::Signal(pid(each), Signal::TERM)), "{cause}");
            }
            job.step(at(7005), JobEvent::Looked(vec![process(10, 1)]), &mut orders);
            assert!(orders.contains(&JobAction::Signal(pid(10), Signal::KILL)), "{cause}");
            job.step(at(7006), JobEvent::Reaped(pid(10), Exit::Signal(Signal::KILL)), &mut orders);
            job.step(at(7006), JobEvent::Alone, &mut orders);
            assert_eq!(finished(&orders), Some((Some(Exit::Signal(Signal::KILL)), cause)));
        }
    }

    #[test]
    fn a_timeout_counts_from_the_start_and_keeps_being_the_cause() {
        let timeout = Some(Duration::from_secs(1));
        let (mut job, mut orders) = running(JobConfig { timeout, ..config() });
        assert_eq!(job.deadline(), Some(at(1000)));
        job.step(at(1000), JobEvent::Tick, &mut orders);
        job.step(at(1001), JobEvent::ClientGone, &mut orders);
        job.step(at(1002), JobEvent::Reaped(pid(10), Exit::Code(0)), &mut orders);
        job.step(at(1002), JobEvent::Alone, &mut orders);
        assert_eq!(finished(&orders), Some((Some(Exit::Code(0)), Cause::Timeout)));
    }

    #[test]
    fn the_grace_that_was_asked_for_wins() {
        let second = Duration::from_secs(1);
        for (own, asked, expected) in
            [(None, false, 3), (Some(30), false, 30), (Some(30), true, 3), (Some(1), false, 1)]
        {
            let grace = own.map(|own| own * second);
            let (mut job, mut orders) = running(JobConfig { grace, ..config() });
            job.step(
                at(0),
                JobEvent::Order(Order::Stop { cause: Cause::Shutdown, grace_ms: 3000, asked }),
                &mut orders,
            );
            job.step(at(0), JobEvent::Looked(vec![]), &mut orders);
            assert_eq!(job.deadline(), Some(at(expected * 1000)), "{own:?} {asked}");
        }
    }

    #[test]
    fn a_kept_job_outlives_its_client() {
        let (mut job, mut orders) = running(JobConfig { bound_to_client: false, ..config() });
        job.step(at(5), JobEvent::ClientGone, &mut orders);
        assert_eq!((orders, job.deadline()), (vec![], None));
    }

    #[test]
    fn what_cannot_be_executed_ends_with_its_reason() {
        let failure = ExecFailure { what: "execute x".into(), errno: Errno::ENOENT };
        let expected = Some((Some(Exit::Code(127)), Cause::ExecFailed(failure.clone())));
        let (mut job, mut orders) = (Job::new(config(), ME), Vec::new());
        job.step(at(0), JobEvent::NotExecuted(failure.clone()), &mut orders);
        assert_eq!(finished(&orders), expected, "not even forked");
        let (mut job, mut orders) = (Job::new(config(), ME), Vec::new());
        job.step(at(0), JobEvent::Forked(pid(10)), &mut orders);
        job.step(at(0), JobEvent::NotExecuted(failure), &mut orders);
        assert_eq!(finished(&orders), None, "its process is still there");
        job.step(at(0), JobEvent::Reaped(pid(10), Exit::Code(127)), &mut orders);
        job.step(at(0), JobEvent::Alone, &mut orders);
        assert_eq!(finished(&orders), expected);
    }

    #[test]
    fn a_client_is_told_of_what_sigkill_does_not_end_and_the_keeper_stays() {
        let (mut job, mut orders) = running(JobConfig { timeout: Some(Duration::from_secs(1)), ..config() });
        job.step(at(1000), JobEvent::Tick, &mut orders);
        job.step(at(1000), JobEvent::Looked(vec![process(10, 1)]), &mut orders);
        job.step(at(8000), JobEvent::Looked(vec![process(10, 1)]), &mut orders);
        orders.clear();
        job.step(at(10_000), JobEvent::Looked(vec![process(10, 1)]), &mut orders);
        let left = vec![Leftover { pid: pid(10), comm: "x".into(), state: 'S' }];
        let report = JobAction::Report { exit: None, cause: Cause::Timeout, left: left.clone() };
        assert_eq!(orders, [JobAction::TellStuck(left), report]);
        assert!(!job.has_ended());
        orders.clear();
        job.step(at(60_000), JobEvent::Reaped(pid(10), Exit::Signal(Signal::KILL)), &mut orders);
        job.step(at(60_000), JobEvent::Alone, &mut orders);
        assert_eq!(orders.len(), 1, "reported once: {orders:?}");
    }

    #[test]
    fn a_kill_reaches_the_group_and_is_the_cause_only_if_it_was_deadly() {
        for (exit, cause) in
            [(Exit::Signal(Signal::INT), Cause::Killed { signal: Signal::INT }), (Exit::Code(0), Cause::Exited)]
        {
            let (mut job, mut orders) = running(config());
            job.step(at(1), JobEvent::Order(Order::Kill(Signal::INT)), &mut orders);
            assert_eq!(orders, [JobAction::SignalGroup(Pgid::led_by(pid(10)).unwrap(), Signal::INT)]);
            job.step(at(2), JobEvent::Reaped(pid(10), exit), &mut orders);
            job.step(at(2), JobEvent::Alone, &mut orders);
            assert_eq!(finished(&orders), Some((Some(exit), cause)));
        }
    }

    fn any_event() -> impl Strategy<Value = JobEvent> {
        let failure = ExecFailure { what: "execute x".into(), errno: Errno(13) };
        prop_oneof![
            Just(JobEvent::Executed),
            Just(JobEvent::NotExecuted(failure)),
            (10..14i32).prop_map(|raw| JobEvent::Reaped(pid(raw), Exit::Code(0))),
            proptest::collection::vec((10..14i32, 1..12i32), 0..4)
                .prop_map(|list| JobEvent::Looked(list.into_iter().map(|(p, parent)| process(p, parent)).collect())),
            (0u64..9000, any::<bool>()).prop_map(|(grace_ms, asked)| JobEvent::Order(Order::Stop {
                cause: Cause::Stopped,
                grace_ms,
                asked
            })),
            Just(JobEvent::Order(Order::Kill(Signal::TERM))),
            Just(JobEvent::ClientGone),
            Just(JobEvent::InitGone),
            Just(JobEvent::Tick),
        ]
    }

    proptest! {
        #[test]
        fn every_sequence_ends_once_the_tree_is_empty_and_leaves_no_deadline(
            events in proptest::collection::vec((any_event(), 0u64..3000), 0..40),
            timeout in proptest::option::of(0u64..5000),
        ) {
            let timeout = timeout.map(Duration::from_millis);
            let (mut job, mut orders) = (Job::new(JobConfig { timeout, ..config() }, ME), Vec::new());
            let mut now = 0;
            job.step(at(now), JobEvent::Forked(pid(10)), &mut orders);
            for (event, later) in events {
                now += later;
                job.step(at(now), event, &mut orders);
                prop_assert!(!job.has_ended(), "nobody said that the tree is empty");
                if matches!(job.state, State::Ending(_)) {
                    prop_assert!(job.deadline().is_some());
                }
            }
            job.step(at(now), JobEvent::Reaped(pid(10), Exit::Code(0)), &mut orders);
            job.step(at(now), JobEvent::Alone, &mut orders);
            prop_assert!(job.has_ended());
            prop_assert_eq!(job.deadline(), None);
            let finishes = orders.iter().filter(|o| matches!(o, JobAction::Finish { .. })).count();
            let reports = orders.iter().filter(|o| matches!(o, JobAction::Report { .. })).count();
            prop_assert_eq!((finishes, reports), (1, 1));
            let own = orders.iter().any(|o| matches!(o, JobAction::Signal(p, _) if *p == ME));
            prop_assert!(!own, "it never signals itself");
        }
    }
}
