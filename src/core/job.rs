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
    proto::{Cause, Leftover, OomKill, Order, Who},
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
    /// Tell the client so often how it is.
    pub heartbeat: Option<Duration>,
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
    /// The kernel's OOM killer has killed a process of this container. Before the end that it caused.
    OomKill(OomKill),
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
    /// Tell the client what the tree uses.
    Beat,
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
    /// Wait until the kernel has let go of what the tree held.
    AwaitKernel,
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
    beat_at: Option<Tick>,
    /// The last signal that was sent through lastout, and by whom.
    killed: Option<(Signal, Option<Who>)>,
    oom: Option<OomKill>,
    reported: bool,
    told_ending: bool,
    stuck_told: Option<Tick>,
    /// Of somebody who has been seen, the kernel may hold files a moment longer.
    lingers: bool,
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
            beat_at: None,
            killed: None,
            oom: None,
            reported: false,
            told_ending: false,
            stuck_told: None,
            lingers: false,
        }
    }

    /// Whether the keeper may exit.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// When [`JobEvent::Tick`] is due.
    pub fn deadline(&self) -> Option<Tick> {
        match &self.state {
            State::Starting | State::Running => [self.timeout_at, self.beat_at].into_iter().flatten().min(),
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
                self.beat_at = self.config.heartbeat.map(|heartbeat| now + heartbeat);
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
            JobEvent::OomKill(kill) => self.oom = Some(kill),
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
            JobEvent::Order(Order::Kill { signal, by }) => {
                self.killed = Some((signal, by));
                if let (Some(group), None) = (self.command.and_then(Pgid::led_by), self.exit) {
                    orders.push(JobAction::SignalGroup(group, signal));
                }
            }
            JobEvent::ClientGone if self.config.bound_to_client => self.end(now, Cause::ClientGone, self.grace()),
            JobEvent::ClientGone => self.beat_at = None,
            JobEvent::InitGone => self.end(now, Cause::InitGone, self.grace()),
            JobEvent::Tick => {
                if self.timeout_at.is_some_and(|at| now >= at) {
                    self.end(now, Cause::Timeout, self.grace());
                }
                if matches!(self.state, State::Starting | State::Running)
                    && let (Some(at), Some(pause)) = (self.beat_at, self.config.heartbeat)
                    && now >= at
                {
                    self.beat_at = Some(now + pause);
                    orders.push(JobAction::Beat);
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
            let cause = match self.killed.take() {
                Some((signal, by)) if exit == Exit::Signal(signal) => Cause::Killed { signal, by },
                Some(_) | None => Cause::of(exit, self.oom),
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
        self.lingers |= seen.iter().any(|process| process.lingers);
        if !self.told_ending {
            self.told_ending = true;
            orders.push(JobAction::TellEnding);
        }
        orders.extend(ending.looked(now, seen).into_iter().map(|(pid, signal)| JobAction::Signal(pid, signal)));
        if ending.forced_for(now).is_none_or(|forced| forced < STUCK_AFTER) {
            return;
        }
        let left = seen.iter().filter(|p| !p.is_dead());
        let left: Vec<_> = left.map(|p| Leftover::new(p.id.pid, p.comm.clone(), p.state)).collect();
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
        if self.lingers {
            orders.push(JobAction::AwaitKernel);
        }
        // The init first: what the client asks for next (the same name again) finds the job ended.
        orders.push(JobAction::Finish { exit: self.exit, cause: cause.clone() });
        if !self.reported {
            self.reported = true;
            orders.push(JobAction::Report { exit: self.exit, cause, left: Vec::new() });
        }
    }
}

#[cfg(test)]
mod tests;
