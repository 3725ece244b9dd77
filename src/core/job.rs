//! One job, or one run of a service, as its keeper runs it.
//!
//! | state | what is true | left by |
//! |---|---|---|
//! | Preparing | a service's setup runs, step by step ([`Run`]) | the last step's success; any reason to end |
//! | Starting | the command is forked and not yet executed: it may hang on a dead volume | Executed, NotExecuted, any reason to end |
//! | Running | the command runs | its end; timeout; an order; the client's or the init's death |
//! | Vacating | a mount's run is over by itself; who uses it ends first, or would write beneath it | the init's word that they have; the init's death |
//! | Unmounting | a mount is unmounted before its daemon is ended ([`Unmount`]) | that is done; the command's end |
//! | Ending | the tree is asked, then forced ([`Ending`]) | the tree is empty |
//! | Detaching | the tree is empty, and its mount still there: it is detached | that is done, or takes too long |
//! | Ended | the record can be written; the keeper exits | |
//!
//! The first reason to end is the cause; later ones can only make it quicker. "The tree is empty" is the
//! kernel's word: the keeper is the subreaper of everything that the command started, so when `wait` says
//! that no child is left, nothing is.

use std::{rc::Rc, time::Duration};

use super::{
    Ending, STUCK_AFTER, STUCK_EVERY,
    run::{DETACH, Note, Run, Task, Todo, Unmount},
    service::{Ready, RunConfig, StopTo},
};
use crate::{
    base::{ExecFailure, Exit, Pgid, Pid, Process, Signal, Tick, Whom},
    proto::{Cause, Leftover, Notice, OomKill, Order, Who},
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
    /// The keeper's own process group, in which others are.
    pub own_group: Option<Pgid>,
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
    /// The same without a usable `/proc`; whether a child of ours is in the command's group.
    LookedInVain(bool),
    /// The init ordered something.
    Order(Order),
    /// The client has gone.
    ClientGone,
    /// The init has died.
    InitGone,
    /// A deadline, or any other moment.
    Tick,
    /// First of all for a service: the keeper is there.
    Begin,
    /// A task was forked.
    TaskForked(Task, Pid),
    /// A task could not be forked.
    TaskNotForked(Task, String),
    /// A task wrote this. Before its end.
    Said(Task, Vec<u8>),
    /// The service says this of itself.
    Noted(Note),
    /// The service wrote a newline to descriptor 3.
    Newline,
    /// So many lines of its log were dropped so far.
    Dropped(u64),
    /// What the mount's path is a mount point of has changed: a device. It is none at first.
    Mounted(Option<String>),
}

/// What a keeper is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobAction {
    /// Fork a service's command. Answered by `Forked` or `NotExecuted`.
    ForkCommand,
    /// Fork a task. Answered by `TaskForked` or `TaskNotForked`.
    Fork(Task),
    /// Kill a task, with its process group and all that is below it, and what they have left.
    EndTask(Pid),
    /// Say who holds the mount; `lazily`: it is detached now all the same.
    NameHolders {
        /// Its grace is over.
        lazily: bool,
    },
    /// Tell the init.
    Tell(Notice),
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
    Preparing,
    Starting,
    Running,
    Vacating,
    Unmounting(Unmount),
    Ending(Ending),
    Detaching { until: Tick },
    Ended,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Job {
    config: JobConfig,
    me: Pid,
    state: State,
    run: Option<Run>,
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
    /// Nobody is left who could use its mount: the init says so, or has died.
    vacated: bool,
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
            run: None,
            command: None,
            exit: None,
            cause: None,
            timeout_at: None,
            beat_at: None,
            killed: None,
            oom: None,
            reported: false,
            told_ending: false,
            vacated: false,
            stuck_told: None,
            lingers: false,
        }
    }

    /// One run of a service, which [`JobEvent::Begin`] begins.
    pub fn service(config: JobConfig, me: Pid, run: Rc<RunConfig>) -> Job {
        Job { state: State::Preparing, run: Some(Run::new(run)), ..Job::new(config, me) }
    }

    /// Whether the keeper may exit.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The command's process, until it is known to have ended.
    pub fn command(&self) -> Option<Pid> {
        self.command.filter(|_| self.exit.is_none())
    }

    /// When [`JobEvent::Tick`] is due.
    pub fn deadline(&self) -> Option<Tick> {
        let status = self.run.as_ref().and_then(Run::status_at);
        let or_status = |deadline: Tick| Some(status.map_or(deadline, |status| status.min(deadline)));
        match &self.state {
            State::Preparing | State::Starting | State::Running => {
                let run = self.run.as_ref().and_then(Run::deadline);
                [self.timeout_at, self.beat_at, run].into_iter().flatten().min()
            }
            State::Vacating => status,
            State::Unmounting(unmount) => or_status(unmount.deadline()),
            State::Ending(ending) => or_status(ending.deadline()),
            State::Detaching { until } => Some(*until),
            State::Ended => None,
        }
    }

    /// Takes one fact and adds the orders that follow.
    pub fn step(&mut self, now: Tick, event: JobEvent, orders: &mut Vec<JobAction>) {
        // What was known at the same moment as the end is no second one.
        if self.has_ended() {
            return;
        }
        match event {
            JobEvent::Begin => self.with_run(now, orders, |run, now, orders| {
                run.next_step(now, orders);
                None
            }),
            JobEvent::Forked(pid) => {
                self.command = Some(pid);
                self.timeout_at = self.config.timeout.map(|timeout| now + timeout);
                self.beat_at = self.config.heartbeat.map(|heartbeat| now + heartbeat);
                if let Some(run) = &mut self.run {
                    run.command_forked(now);
                }
                if matches!(self.state, State::Preparing) {
                    self.state = State::Starting;
                }
            }
            JobEvent::Executed => {
                if let Some(pid) = self.command {
                    orders.push(JobAction::TellStarted(pid));
                }
                if matches!(self.state, State::Starting) {
                    self.state = State::Running;
                    if let Some(run) = &mut self.run {
                        run.executed(now, orders);
                    }
                }
            }
            JobEvent::NotExecuted(failure) => {
                self.exit = Some(failure.exit());
                let forked = self.command.is_some();
                self.end(now, Cause::ExecFailed(failure), self.grace(), orders);
                // What a service's setup has left is still to be ended.
                if !forked && self.run.is_none() {
                    self.finish(orders);
                }
            }
            JobEvent::Reaped(pid, exit) => {
                match self.run.as_mut().and_then(|run| run.take(pid)) {
                    Some(task) => {
                        if task == Task::Check {
                            orders.push(JobAction::EndTask(pid));
                        }
                        self.task_ended(now, task, Ok(exit), orders);
                    }
                    None => self.reaped(now, pid, exit, orders),
                }
                if let State::Ending(ending) = &mut self.state {
                    ending.child_ended(now);
                }
            }
            JobEvent::OomKill(kill) => self.oom = Some(kill),
            JobEvent::Alone => self.alone(now, orders),
            JobEvent::Looked(seen) => self.looked(now, &seen, orders),
            JobEvent::LookedInVain(in_group) => self.looked_in_vain(now, in_group, orders),
            JobEvent::Order(Order::Stop { cause, grace_ms, asked }) => {
                let ordered = Duration::from_millis(grace_ms);
                let grace = if asked { ordered } else { self.config.grace.unwrap_or(ordered) };
                self.vacated = true;
                self.end(now, cause, grace, orders);
            }
            JobEvent::Order(Order::Kill { signal, by }) => {
                self.killed = Some((signal, by));
                if let (Some(group), None) = (self.group(), self.exit) {
                    orders.push(JobAction::SignalGroup(group, signal));
                }
            }
            JobEvent::ClientGone if self.config.bound_to_client => {
                self.end(now, Cause::ClientGone, self.grace(), orders);
            }
            JobEvent::ClientGone => self.beat_at = None,
            JobEvent::InitGone => {
                self.vacated = true;
                self.end(now, Cause::InitGone, self.grace(), orders);
            }
            JobEvent::Tick => self.tick(now, orders),
            JobEvent::TaskForked(task, pid) => {
                if let Some(run) = &mut self.run {
                    run.task_forked(task, pid, orders);
                }
            }
            JobEvent::TaskNotForked(task, reason) => {
                if let Some(run) = &mut self.run {
                    run.forget(task);
                }
                self.task_ended(now, task, Err(reason), orders);
            }
            JobEvent::Said(task, bytes) => {
                if let Some(run) = &mut self.run {
                    run.said(task, &bytes);
                }
            }
            JobEvent::Noted(note) => self.noted(now, note, orders),
            JobEvent::Dropped(lines) => orders.push(JobAction::Tell(Notice::Dropped(lines))),
            JobEvent::Newline => self.with_run(now, orders, |run, now, orders| {
                run.is_ready(now, Ready::Fd, orders);
                None
            }),
            JobEvent::Mounted(device) => {
                let mounted = device.is_some();
                self.with_run(now, orders, |run, now, orders| run.mounted(now, device, orders));
                if !mounted {
                    self.unmounted(now);
                }
                if let (
                    State::Vacating | State::Unmounting(_) | State::Ending(_) | State::Detaching { .. },
                    Some(run),
                ) = (&self.state, &mut self.run)
                {
                    run.set_mounted(mounted);
                }
            }
        }
    }

    /// For as long as nothing is being ended: what happens to a service's run, and why it is over, if it is.
    fn with_run(
        &mut self,
        now: Tick,
        orders: &mut Vec<JobAction>,
        step: impl FnOnce(&mut Run, Tick, &mut Vec<JobAction>) -> Option<Cause>,
    ) {
        if let (State::Preparing | State::Starting | State::Running, Some(run)) = (&self.state, &mut self.run)
            && let Some(cause) = step(run, now, orders)
        {
            self.end(now, cause, self.grace(), orders);
        }
    }

    fn tick(&mut self, now: Tick, orders: &mut Vec<JobAction>) {
        if self.timeout_at.is_some_and(|at| now >= at) {
            self.end(now, Cause::Timeout, self.grace(), orders);
        }
        self.with_run(now, orders, Run::tick);
        if let (State::Vacating | State::Unmounting(_) | State::Ending(_), Some(run)) = (&self.state, &mut self.run) {
            run.tell_status(now, orders);
        }
        if matches!(self.state, State::Starting | State::Running)
            && let (Some(at), Some(pause)) = (self.beat_at, self.config.heartbeat)
            && now >= at
        {
            self.beat_at = Some(now + pause);
            orders.push(JobAction::Beat);
        }
        if let State::Unmounting(unmount) = &mut self.state {
            let todo = unmount.tick(now);
            self.unmount(now, todo, orders);
        }
        // Only here: what is known at once (no child is left) makes a look needless.
        if let State::Ending(ending) = &self.state
            && ending.wants_look(now)
        {
            orders.push(JobAction::Look);
        }
        if let State::Detaching { until } = self.state
            && now >= until
        {
            self.finish(orders);
        }
    }

    fn noted(&mut self, now: Tick, note: Note, orders: &mut Vec<JobAction>) {
        let grace = self.grace();
        match (&mut self.state, note) {
            (State::Preparing | State::Starting | State::Running, note) => {
                self.with_run(now, orders, |run, now, orders| run.noted(now, note, grace, orders));
            }
            (State::Vacating | State::Unmounting(_) | State::Ending(_), Note::Status(status)) => {
                if let Some(run) = &mut self.run {
                    run.says(now, status, orders);
                }
            }
            (State::Unmounting(unmount), Note::Extend(time)) => unmount.extend(now, time),
            (State::Ending(ending), Note::Extend(time)) => {
                if !ending.is_due(now) {
                    ending.not_before(now + time);
                }
            }
            (State::Vacating | State::Unmounting(_) | State::Ending(_) | State::Detaching { .. } | State::Ended, _) => {
            }
        }
    }

    fn task_ended(&mut self, now: Tick, task: Task, exit: Result<Exit, String>, orders: &mut Vec<JobAction>) {
        match task {
            Task::Prepare | Task::Setup(_) => {
                self.with_run(now, orders, |run, now, orders| run.step_ended(now, task, exit, orders));
            }
            Task::Check => self.with_run(now, orders, |run, now, orders| run.check_ended(now, exit, orders)),
            Task::Unmount | Task::Detach => match &mut self.state {
                State::Unmounting(unmount) => {
                    let todo = unmount.ended(now, exit.ok());
                    self.unmount(now, todo, orders);
                }
                State::Detaching { .. } if task == Task::Detach => self.finish(orders),
                State::Preparing
                | State::Starting
                | State::Running
                | State::Vacating
                | State::Ending(_)
                | State::Detaching { .. }
                | State::Ended => {}
            },
        }
    }

    /// It is no mount point any more, whoever did it. A daemon that lives has its time to write back what it holds.
    fn unmounted(&mut self, now: Tick) {
        if matches!(self.state, State::Vacating) {
            self.state = State::Unmounting(Unmount::begin(now, self.grace()));
        }
        if let State::Unmounting(unmount) = &mut self.state {
            unmount.gone(now);
            self.end_the_dead(now);
        }
    }

    /// Unmounted, a daemon that has ended is not waited for.
    fn end_the_dead(&mut self, now: Tick) {
        if let State::Unmounting(unmount) = &self.state
            && unmount.is_flushing()
            && self.exit.is_some()
        {
            self.state = State::Ending(self.ending(now, unmount.grace()));
        }
    }

    fn unmount(&mut self, now: Tick, todo: Todo, orders: &mut Vec<JobAction>) {
        let Some(run) = &mut self.run else { return };
        match todo {
            Todo::Nothing => self.end_the_dead(now),
            Todo::Unmount => run.fork(Task::Unmount, orders),
            Todo::NameHolders => orders.push(JobAction::NameHolders { lazily: false }),
            // Without its daemon it is detached when nothing else of the tree is left.
            Todo::Detach if self.exit.is_none() => {
                orders.push(JobAction::NameHolders { lazily: true });
                run.fork(Task::Detach, orders);
            }
            Todo::Detach | Todo::EndTree => {
                let grace = match &self.state {
                    State::Unmounting(unmount) => unmount.grace(),
                    State::Preparing
                    | State::Starting
                    | State::Running
                    | State::Vacating
                    | State::Ending(_)
                    | State::Detaching { .. }
                    | State::Ended => self.grace(),
                };
                self.state = State::Ending(self.ending(now, grace));
            }
        }
    }

    fn grace(&self) -> Duration {
        self.config.grace.unwrap_or(self.config.default_grace)
    }

    /// The command's process group.
    pub fn group(&self) -> Option<Pgid> {
        self.command.and_then(Pgid::led_by)
    }

    fn ending(&self, now: Tick, grace: Duration) -> Ending {
        let stop = self.run.as_ref().map(|run| &run.config().stop);
        // A hook that takes too long is not let finish, as one that a shutdown finds is.
        let signal = stop.filter(|_| self.cause != Some(Cause::Timeout)).map_or(Signal::TERM, |stop| stop.signal);
        let alone = stop.filter(|stop| stop.to == StopTo::Command).and(self.command);
        let ending = Ending::begin(now, self.me, grace).by_groups(self.config.own_group);
        ending.asking(self.group(), signal).asking_alone(alone)
    }

    /// Begins to end the tree, or ends it sooner.
    fn end(&mut self, now: Tick, cause: Cause, grace: Duration, orders: &mut Vec<JobAction>) {
        match &mut self.state {
            State::Preparing | State::Starting | State::Running => {
                self.cause.get_or_insert(cause);
                self.timeout_at = None;
                if let Some(run) = &mut self.run {
                    run.quit(orders);
                    if run.is_mounted() || self.cause == Some(Cause::Unmounted) {
                        self.told_ending = true;
                        orders.push(JobAction::TellEnding);
                        self.state = State::Vacating;
                        return match run.is_mounted() {
                            true => self.vacate(now, grace, orders),
                            false => self.unmounted(now),
                        };
                    }
                }
                self.state = State::Ending(self.ending(now, grace));
            }
            State::Vacating => self.vacate(now, grace, orders),
            State::Unmounting(unmount) => unmount.hurry(now, grace),
            State::Ending(ending) => ending.hurry(now + grace),
            State::Detaching { .. } | State::Ended => {}
        }
    }

    /// Begins to unmount, if nobody is left who could use it.
    fn vacate(&mut self, now: Tick, grace: Duration, orders: &mut Vec<JobAction>) {
        if let Some(run) = self.run.as_mut().filter(|_| self.vacated) {
            run.fork(Task::Unmount, orders);
            self.state = State::Unmounting(Unmount::begin(now, grace));
        }
    }

    fn reaped(&mut self, now: Tick, pid: Pid, exit: Exit, orders: &mut Vec<JobAction>) {
        if self.command != Some(pid) {
            return;
        }
        self.exit.get_or_insert(exit);
        let cause = match self.killed.take() {
            Some((signal, by)) if exit == Exit::Signal(signal) => Cause::Killed { signal, by },
            Some(_) | None => Cause::of(exit, self.oom),
        };
        match &self.state {
            State::Preparing | State::Starting | State::Running => self.end(now, cause, self.grace(), orders),
            State::Unmounting(unmount) => self.state = State::Ending(self.ending(now, unmount.grace())),
            State::Vacating | State::Ending(_) | State::Detaching { .. } | State::Ended => {}
        }
    }

    /// No child was left at some moment: whether that is the end.
    fn alone(&mut self, now: Tick, orders: &mut Vec<JobAction>) {
        let Some(run) = &mut self.run else {
            if self.command.is_some() && self.exit.is_some() {
                self.finish(orders);
            }
            return;
        };
        let is_over = matches!(self.state, State::Ending(_));
        if !is_over || run.has_tasks() || run.is_commanded() && self.exit.is_none() {
            return;
        }
        if run.wants_detach() {
            orders.push(JobAction::NameHolders { lazily: true });
            run.fork(Task::Detach, orders);
            self.state = State::Detaching { until: now + DETACH };
        } else {
            self.finish(orders);
        }
    }

    fn looked(&mut self, now: Tick, seen: &[Process], orders: &mut Vec<JobAction>) {
        let State::Ending(ending) = &mut self.state else { return };
        self.lingers |= seen.iter().any(|process| process.lingers);
        if !self.told_ending {
            self.told_ending = true;
            orders.push(JobAction::TellEnding);
        }
        orders.extend(ending.looked(now, seen).into_iter().map(|(whom, signal)| match whom {
            Whom::One(pid) => JobAction::Signal(pid, signal),
            Whom::Group(group) => JobAction::SignalGroup(group, signal),
        }));
        // What unmounts it is ours, and waits for the others.
        let is_own = |p: &Process| self.run.as_ref().is_some_and(|run| run.is_own(p.id.pid));
        let mut left = ending.stuck(now, seen);
        left.retain(|p| !is_own(p));
        if left.is_empty() {
            return;
        }
        let all = left.len() == seen.iter().filter(|p| !p.is_dead() && !is_own(p)).count();
        let left: Vec<_> = left.iter().map(|p| Leftover::new(p.id.pid, p.comm.clone(), p.state)).collect();
        if self.stuck_told.is_none_or(|told| now.since(told) >= STUCK_EVERY) {
            self.stuck_told = Some(now);
            orders.push(JobAction::TellStuck(left.clone()));
        }
        // As long as others still go, its client is not told of an end.
        if all && !self.reported {
            self.reported = true;
            let cause = self.cause.clone().unwrap_or(Cause::Exited);
            orders.push(JobAction::Report { exit: self.exit, cause, left });
        }
    }

    /// Whoever has left the command's group cannot be found: he is left to the init, which has more to end him by.
    fn looked_in_vain(&mut self, now: Tick, in_group: bool, orders: &mut Vec<JobAction>) {
        // The command may not have made its group yet.
        let group = self.group().filter(|_| in_group || self.command().is_some());
        let State::Ending(ending) = &mut self.state else { return };
        if !self.told_ending {
            self.told_ending = true;
            orders.push(JobAction::TellEnding);
        }
        let signal = ending.looked_in_vain(now, group);
        orders.extend(signal.map(|(group, signal)| JobAction::SignalGroup(group, signal)));
        if group.is_none() && ending.forced_for(now).is_some_and(|time| time >= STUCK_AFTER) {
            self.finish(orders);
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
