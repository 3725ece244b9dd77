//! What the init does about each fact. See [`Phase`] for the order of its life.
//!
//! It promises: every child that it is told of is accounted for; every client that it holds is answered;
//! the phases only go forward; when nothing is left to do it leaves at once, and as long as something is
//! left there is a deadline, a child, a watched process or a helper whose end will wake it.

use std::{collections::BTreeSet, mem, time::Duration};

use super::{
    Action, Ending, Event, Level, Phase, Relay, STUCK_AFTER, STUCK_EVERY, Sender, Source, flood::Flood, relay,
    shutdown::Budget, table::Table,
};
use crate::{
    base::{ExecFailure, Exit, GRACE, JobId, JobRef, Name, Pgid, Pid, Process, RequestId, Signal, Tick},
    proto::{BadLine, Cause, JobInfo, JobState, Line, Notice, Order, Reply},
};

/// A half line in the control FIFO is given up after this time: whoever writes a whole line writes it at once.
const HALF_LINE: Duration = Duration::from_secs(1);

/// Whether the init has a PID namespace of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// PID 1: everything in the namespace is its own.
    Pid1,
    /// Below somebody else: its descendants are its own.
    Subreaper,
}

/// What an init was asked to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// PID 1 or not.
    pub role: Role,
    /// Our own process id.
    pub me: Pid,
    /// There is a command; otherwise hold.
    pub main: bool,
    /// Between TERM and KILL, if somebody said so.
    pub grace: Option<Duration>,
    /// How long main may take after a stop signal; for ever, if it is not given.
    pub stop_timeout: Option<Duration>,
    /// Not PID 1: how long to wait for what SIGKILL does not end.
    pub stuck_timeout: Duration,
    /// Jobs at once; the rest is queued.
    pub max_jobs: Option<usize>,
    /// Main's exit codes that become 0.
    pub remap: Vec<u8>,
    /// Say so when an orphan is reaped.
    pub warn_reaps: bool,
    /// The highest number of a job that the control directory knows already.
    pub last_job: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Main {
    None,
    Forking,
    Running(Pid),
    Ended(Exit),
}

/// The processes that the engine started beside us.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Engine {
    Unknown,
    Looking,
    Known { alive: BTreeSet<Pid>, kill_at: Tick, killed: bool },
}

#[derive(Clone, Copy, Debug)]
struct Syncing {
    since: Tick,
    say_at: Tick,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Init {
    config: Config,
    phase: Phase,
    main: Main,
    main_failure: Option<ExecFailure>,
    main_kill_at: Option<Tick>,
    table: Table,
    budget: Budget,
    engine: Engine,
    sweep: Option<Ending>,
    looking: bool,
    /// Whether anybody is left: unknown until asked, and again after every end.
    alone: Option<bool>,
    asked_alone: bool,
    killed_all: bool,
    stuck_said: Option<Tick>,
    syncing: Option<Syncing>,
    last_seen: Vec<Process>,
    /// Not PID 1, and a job's tree is stuck: when to leave without it.
    give_up_at: Option<Tick>,
    gave_up: bool,
    bad_lines: Flood,
    half_line_at: Option<Tick>,
}

impl Init {
    /// An init that has not begun.
    pub fn new(config: Config) -> Init {
        Init {
            phase: Phase::Running,
            main: if config.main { Main::Forking } else { Main::None },
            main_failure: None,
            main_kill_at: None,
            table: Table::starting_after(config.last_job),
            budget: Budget::new(config.grace.unwrap_or(GRACE)),
            engine: Engine::Unknown,
            sweep: None,
            looking: false,
            alone: None,
            asked_alone: false,
            killed_all: false,
            stuck_said: None,
            syncing: None,
            last_seen: Vec::new(),
            give_up_at: None,
            gave_up: false,
            bad_lines: Flood::default(),
            half_line_at: None,
            config,
        }
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Every job, and for a queued one the request that describes it.
    pub fn list(&self, now: Tick) -> Vec<(JobInfo, Option<RequestId>)> {
        self.table.list(now)
    }

    /// Main's process, while it lives.
    pub fn main_pid(&self) -> Option<Pid> {
        match self.main {
            Main::Running(pid) => Some(pid),
            Main::None | Main::Forking | Main::Ended(_) => None,
        }
    }

    /// The code that main's end means, after remapping.
    pub fn exit_code(&self) -> u8 {
        let code = match self.main {
            Main::Ended(exit) => exit.status(),
            Main::None | Main::Forking | Main::Running(_) => 0,
        };
        let code = if self.config.remap.contains(&code) { 0 } else { code };
        if self.gave_up { 125 } else { code }
    }

    /// When [`Event::Tick`] is due; `None`: nothing is, so nothing wakes.
    pub fn deadline(&self) -> Option<Tick> {
        if self.phase == Phase::Gone {
            return None;
        }
        let engine = match &self.engine {
            Engine::Known { alive, kill_at, .. } if !alive.is_empty() && self.phase == Phase::Stopping => {
                Some(*kill_at)
            }
            Engine::Known { .. } | Engine::Unknown | Engine::Looking => None,
        };
        let sweeping = self.phase == Phase::Sweeping && !self.looking;
        let sweep = self.sweep.as_ref().filter(|_| sweeping).map(Ending::deadline);
        let main = self.main_kill_at.filter(|_| self.main_pid().is_some());
        let sync = self.syncing.filter(|_| self.phase == Phase::Syncing).map(|syncing| syncing.say_at);
        [engine, sweep, main, sync, self.give_up_at, self.half_line_at, self.bad_lines.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes one fact and adds the orders that follow.
    pub fn step(&mut self, now: Tick, event: Event, orders: &mut Vec<Action>) {
        match event {
            Event::Begin => {
                if self.main == Main::Forking {
                    orders.push(Action::ForkMain);
                }
            }
            Event::Tick => self.tick(now, orders),
            Event::Signal { signal, sender } => self.signal(now, signal, sender, orders),
            Event::MainForked(Ok(pid)) => self.main = Main::Running(pid),
            Event::MainForked(Err(failure)) => {
                orders.push(Action::Log(Level::Error, failure.to_string()));
                self.main = Main::Ended(Exit::Code(125));
            }
            Event::MainNotExecuted(failure) => {
                orders.push(Action::Log(Level::Error, failure.to_string()));
                self.main_failure = Some(failure);
            }
            Event::Reaped { pid, exit } => self.reaped(now, pid, exit, orders),
            Event::HelperEnded => self.somebody_ended(now),
            Event::KeeperForked { job, keeper } => self.keeper_forked(now, job, keeper, orders),
            Event::Notice { job, notice } => self.notice(now, job, notice, orders),
            Event::Line(line) => self.line(now, line, orders),
            Event::BadLine(bad) => self.bad_line(now, &bad, orders),
            Event::HalfLine(half) => self.half_line_at = half.then(|| now + HALF_LINE),
            Event::ClientGone(client) => self.table.forget_client(client),
            Event::Alone(alone) => {
                self.alone = Some(alone);
                self.asked_alone = false;
            }
            Event::Looked(seen) => self.looked(now, seen, orders),
            Event::WatchedEnded(pid) => {
                if let Engine::Known { alive, .. } = &mut self.engine {
                    alive.remove(&pid);
                }
                self.somebody_ended(now);
            }
            Event::Synced(errors) => {
                self.syncing = None;
                for error in errors {
                    orders.push(Action::Log(Level::Error, error));
                }
                if self.phase == Phase::Syncing {
                    self.enter(Phase::Releasing, orders);
                }
            }
        }
        self.advance(now, orders);
    }

    fn enter(&mut self, phase: Phase, orders: &mut Vec<Action>) {
        debug_assert!(phase > self.phase, "{:?} after {:?}", phase, self.phase);
        orders.push(Action::Log(Level::Debug, format!("{:?} -> {phase:?}", self.phase)));
        self.phase = phase;
        match phase {
            Phase::Syncing => orders.push(Action::Sync),
            Phase::Releasing => orders.push(Action::Release),
            Phase::Gone => orders.push(Action::Exit(self.exit_code())),
            Phase::Running | Phase::Stopping | Phase::Sweeping | Phase::Census => {}
        }
    }

    /// Passes every phase whose end has come.
    fn advance(&mut self, now: Tick, orders: &mut Vec<Action>) {
        loop {
            match self.phase {
                Phase::Running => {
                    if !matches!(self.main, Main::Ended(_)) {
                        return;
                    }
                    self.begin_stopping(now, "main has ended", orders);
                }
                Phase::Stopping if self.gave_up => self.enter(Phase::Census, orders),
                Phase::Stopping => {
                    let asked = matches!(self.main, Main::None | Main::Ended(_)) && self.table.active().is_empty();
                    if !asked {
                        self.look_for_engine(orders);
                        return;
                    }
                    match self.alone {
                        None => return self.check_alone(orders),
                        Some(true) => self.enter(Phase::Census, orders),
                        Some(false) => {
                            self.look_for_engine(orders);
                            match &self.engine {
                                Engine::Unknown | Engine::Looking => return,
                                Engine::Known { alive, .. } if !alive.is_empty() => return,
                                Engine::Known { .. } => {}
                            }
                            let time = self.budget.for_sweeping(now);
                            self.sweep = Some(Ending::begin(now, self.config.me, time));
                            self.enter(Phase::Sweeping, orders);
                        }
                    }
                }
                Phase::Sweeping => match self.alone {
                    None => return self.check_alone(orders),
                    Some(true) => self.enter(Phase::Census, orders),
                    Some(false) if self.gave_up => self.enter(Phase::Census, orders),
                    Some(false) => {
                        let due = self.sweep.as_ref().is_some_and(|sweep| sweep.wants_look(now));
                        if due && !self.looking {
                            self.looking = true;
                            orders.push(Action::Look { kill: self.kills_all(now) });
                        }
                        return;
                    }
                },
                Phase::Census => {
                    for process in self.last_seen.iter().filter(|p| self.gave_up && !p.is_dead()) {
                        orders.push(Action::Log(Level::Error, format!("left behind: {}", describe(process))));
                    }
                    self.syncing = Some(Syncing { since: now, say_at: now + STUCK_EVERY });
                    self.enter(if self.gave_up { Phase::Releasing } else { Phase::Syncing }, orders);
                }
                Phase::Syncing if self.gave_up => self.enter(Phase::Releasing, orders),
                Phase::Syncing | Phase::Gone => return,
                Phase::Releasing => {
                    // Clients that wait for our end see it as end-of-file.
                    self.enter(Phase::Gone, orders);
                }
            }
        }
    }

    fn begin_stopping(&mut self, now: Tick, why: &str, orders: &mut Vec<Action>) {
        orders.push(Action::Log(Level::Info, format!("stopping: {why}")));
        self.enter(Phase::Stopping, orders);
        for job in self.table.drain_queue() {
            self.end_job(now, job, None, Cause::Shutdown, orders);
        }
        let grace_ms = u64::try_from(self.budget.left(now).as_millis()).unwrap_or(u64::MAX);
        for job in self.table.active() {
            let order = Order::Stop { cause: Cause::Shutdown, grace_ms, asked: false };
            orders.push(Action::Tell { job, order });
        }
    }

    /// As PID 1, finds what the engine started beside us: its parent is outside.
    fn look_for_engine(&mut self, orders: &mut Vec<Action>) {
        if self.engine != Engine::Unknown {
            return;
        }
        match self.config.role {
            Role::Subreaper => {
                self.engine = Engine::Known { alive: BTreeSet::new(), kill_at: Tick(0), killed: true };
            }
            Role::Pid1 => {
                self.engine = Engine::Looking;
                self.looking = true;
                orders.push(Action::Look { kill: false });
            }
        }
    }

    fn check_alone(&mut self, orders: &mut Vec<Action>) {
        // A helper that looks around is one of us: ask when it has come back.
        if !self.asked_alone && !self.looking {
            self.asked_alone = true;
            orders.push(Action::CheckAlone);
        }
    }

    fn somebody_ended(&mut self, now: Tick) {
        if self.phase >= Phase::Stopping {
            self.alone = None;
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.child_ended(now);
        }
    }

    /// The grace of Sweeping is over: as PID 1 one system call ends even what forks all the time.
    fn kills_all(&mut self, now: Tick) -> bool {
        let forced = self.sweep.as_ref().and_then(|sweep| sweep.forced_for(now)).is_some();
        forced && self.config.role == Role::Pid1 && !mem::replace(&mut self.killed_all, true)
    }

    fn looked(&mut self, now: Tick, seen: Option<Vec<Process>>, orders: &mut Vec<Action>) {
        self.looking = false;
        let Some(seen) = seen else {
            orders.push(Action::Log(Level::Warn, "cannot inspect processes: no usable /proc".into()));
            return self.looked_in_vain(now);
        };
        let from_engine = |p: &&Process| p.parent.is_none() && p.id.pid != self.config.me && !p.is_dead();
        if self.engine == Engine::Looking {
            let alive: BTreeSet<Pid> = seen.iter().filter(from_engine).map(|p| p.id.pid).collect();
            for pid in &alive {
                orders.extend([Action::Watch(*pid), Action::Signal(*pid, Signal::TERM)]);
            }
            let stopped = seen.iter().filter(from_engine).filter(|p| p.is_stopped());
            orders.extend(stopped.map(|p| Action::Signal(p.id.pid, Signal::CONT)));
            self.engine = Engine::Known { alive, kill_at: now + self.budget.left(now), killed: false };
            self.alone = None;
            return;
        }
        if self.config.role == Role::Pid1 {
            orders.extend(seen.iter().filter(from_engine).map(|p| Action::Watch(p.id.pid)));
            // What is dead and not our child is its parent's to reap, outside.
            if seen.iter().all(|p| p.is_dead() || p.id.pid == self.config.me) {
                self.alone = Some(true);
            }
        }
        if let Some(sweep) = &mut self.sweep {
            orders.extend(sweep.looked(now, &seen).into_iter().map(|(pid, signal)| Action::Signal(pid, signal)));
            if let Some(forced) = sweep.forced_for(now).filter(|forced| *forced >= STUCK_AFTER) {
                self.name_stuck(now, &seen, forced, orders);
            }
        }
        self.last_seen = seen;
    }

    /// Without `/proc` nobody can be asked one by one; the deadline and SIGKILL to all remain.
    fn looked_in_vain(&mut self, now: Tick) {
        if self.engine == Engine::Looking {
            self.engine = Engine::Known { alive: BTreeSet::new(), kill_at: now, killed: true };
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.looked(now, &[]);
        }
    }

    fn name_stuck(&mut self, now: Tick, seen: &[Process], forced: Duration, orders: &mut Vec<Action>) {
        if self.config.role == Role::Subreaper && forced >= self.config.stuck_timeout {
            self.gave_up = true;
        }
        if self.stuck_said.is_some_and(|said| now.since(said) < STUCK_EVERY) {
            return;
        }
        self.stuck_said = Some(now);
        for process in seen.iter().filter(|p| !p.is_dead() && p.id.pid != self.config.me) {
            let text = format!("SIGKILL has not ended {} for {} s", describe(process), forced.as_secs());
            orders.push(Action::Log(Level::Warn, text));
        }
    }

    fn tick(&mut self, now: Tick, orders: &mut Vec<Action>) {
        if self.main_kill_at.is_some_and(|at| now >= at) {
            self.main_kill_at = None;
            if let Some(group) = self.main_pid().and_then(Pgid::led_by) {
                orders.push(Action::Log(Level::Warn, "main's stop timeout is over: SIGKILL".into()));
                orders.push(Action::SignalGroup(group, Signal::KILL));
            }
        }
        if let Engine::Known { alive, kill_at, killed } = &mut self.engine
            && now >= *kill_at
        {
            if mem::replace(killed, true) {
                // Stuck: Sweeping finds and names them.
                alive.clear();
            } else {
                *kill_at = now + STUCK_AFTER;
                orders.extend(alive.iter().map(|pid| Action::Signal(*pid, Signal::KILL)));
            }
        }
        if self.give_up_at.is_some_and(|at| now >= at) {
            self.give_up_at = None;
            self.gave_up = true;
        }
        if let Some(syncing) = &mut self.syncing
            && now >= syncing.say_at
        {
            syncing.say_at = now + STUCK_EVERY;
            let time = now.since(syncing.since);
            orders.push(Action::Log(Level::Warn, format!("volumes are still being synced, for {} s", time.as_secs())));
            self.gave_up |= self.config.role == Role::Subreaper && time >= self.config.stuck_timeout;
        }
        if self.half_line_at.is_some_and(|at| now >= at) {
            self.half_line_at = None;
            orders.push(Action::DropHalfLine);
        }
        if let Some(counted) = self.bad_lines.tick(now) {
            orders.push(Action::Log(Level::Warn, format!("control: {counted} more lines like these were passed over")));
        }
    }

    fn signal(&mut self, now: Tick, signal: Signal, sender: Sender, orders: &mut Vec<Action>) {
        let group = self.main_pid().and_then(Pgid::led_by);
        let relay = relay(signal, sender, self.config.me, group.is_some());
        orders.push(Action::Log(Level::Debug, format!("{signal} from {sender}: {relay:?}")));
        if let (Relay::Forward | Relay::ForwardAndStop, Some(group)) = (relay, group) {
            orders.push(Action::SignalGroup(group, signal));
        }
        if matches!(relay, Relay::ForwardAndStop | Relay::Stop) {
            self.stop(now, &format!("{signal} from {sender}"), orders);
        }
    }

    /// Somebody wants us to leave, and may be counting the seconds.
    fn stop(&mut self, now: Tick, why: &str, orders: &mut Vec<Action>) {
        self.budget.begin(now);
        if self.main_kill_at.is_none() {
            self.main_kill_at = self.config.stop_timeout.map(|timeout| now + timeout);
        }
        if self.phase == Phase::Running {
            self.begin_stopping(now, why, orders);
        }
    }

    fn reaped(&mut self, now: Tick, pid: Pid, exit: Exit, orders: &mut Vec<Action>) {
        self.somebody_ended(now);
        if self.main == Main::Running(pid) {
            let exit = self.main_failure.as_ref().map_or(exit, ExecFailure::exit);
            orders.push(Action::Log(Level::Info, format!("main (pid {pid}): {exit}")));
            self.main = Main::Ended(exit);
        } else if let Some(job) = self.table.of_keeper(pid) {
            self.keeper_ended(now, job, exit, orders);
        } else {
            let level = if self.config.warn_reaps { Level::Warn } else { Level::Debug };
            orders.push(Action::Log(level, format!("reaped pid {pid}: {exit}")));
        }
    }

    fn keeper_forked(&mut self, now: Tick, id: JobId, keeper: Result<Pid, String>, orders: &mut Vec<Action>) {
        match keeper {
            Ok(pid) => {
                if let Some(job) = self.table.get(id) {
                    job.keeper = Some(pid);
                }
            }
            Err(reason) => {
                orders.push(Action::Log(Level::Error, format!("{id}: cannot start its keeper: {reason}")));
                self.end_job(now, id, None, Cause::KeeperGone, orders);
                self.start_queued(now, orders);
            }
        }
    }

    /// A keeper that has said how its job ended is done; one that has not was killed, and its tree is ours.
    fn keeper_ended(&mut self, now: Tick, id: JobId, exit: Exit, orders: &mut Vec<Action>) {
        let Some(job) = self.table.get(id) else { return };
        let command = job.command;
        let outcome = job.outcome.take();
        if outcome.is_none() {
            orders.push(Action::Log(Level::Error, format!("{id}: its keeper died ({exit}): ending what it left")));
            let all = self.main_pid().is_none();
            orders.push(Action::EndStrays { job: id, command, all });
        }
        let (exit, cause) = outcome.unwrap_or((None, Cause::KeeperGone));
        self.end_job(now, id, exit, cause, orders);
        self.start_queued(now, orders);
    }

    fn notice(&mut self, now: Tick, id: JobId, notice: Notice, orders: &mut Vec<Action>) {
        let Some(job) = self.table.get(id) else { return };
        // It speaks, so it has opened the client's reply: from here on the keeper answers.
        if let Some(Source::Request(request)) = job.source.take() {
            orders.push(Action::LetGo(request));
        }
        match notice {
            Notice::Command(text) => job.describe(&text),
            Notice::Started(pid) => {
                job.command = Some(pid);
                if job.state == JobState::Starting {
                    job.enter(now, JobState::Running);
                }
            }
            Notice::Ending => job.enter(now, JobState::Ending),
            Notice::Stuck(left) => {
                for process in &left {
                    let text = format!("{id}: SIGKILL has not ended {process}");
                    orders.push(Action::Log(Level::Warn, text));
                }
                if self.phase == Phase::Stopping && self.config.role == Role::Subreaper {
                    self.give_up_at.get_or_insert(now + self.config.stuck_timeout);
                }
            }
            Notice::Ended { exit, cause } => {
                let status = exit.map_or("never ran".into(), |exit| exit.to_string());
                orders.push(Action::Log(Level::Info, format!("{id}: {status}, {cause}")));
                job.enter(now, JobState::Ending);
                job.outcome = Some((exit, cause));
            }
        }
    }

    fn end_job(&mut self, now: Tick, id: JobId, exit: Option<Exit>, cause: Cause, orders: &mut Vec<Action>) {
        // A job without a keeper has nobody else to tell its client.
        let owner = match self.table.get(id).and_then(|job| job.source.take()) {
            Some(Source::Request(request)) => Some(request),
            Some(Source::Words(_)) | None => None,
        };
        if let Some(to) = owner {
            let reply = Reply::Ended { job: id, exit, cause: cause.clone(), left: Vec::new() };
            orders.push(Action::Answer { to, reply, last: true });
        }
        for (to, reply) in self.table.end(now, id, exit, cause) {
            orders.push(Action::Answer { to, reply, last: true });
        }
    }

    fn start_queued(&mut self, now: Tick, orders: &mut Vec<Action>) {
        if self.phase != Phase::Running {
            return;
        }
        while let Some((job, source, name)) = self.table.start_next(now, self.config.max_jobs) {
            let prune = mem::take(&mut self.table.prune);
            orders.push(Action::ForkKeeper { job, source, name, prune });
        }
    }

    fn bad_line(&mut self, now: Tick, bad: &BadLine, orders: &mut Vec<Action>) {
        if self.bad_lines.tell(now) {
            orders.push(Action::Log(Level::Warn, format!("control: a line was passed over: {bad}")));
        }
    }

    fn line(&mut self, now: Tick, line: Line, orders: &mut Vec<Action>) {
        match line {
            Line::Run(words) => self.new_job(now, Source::Words(words), None, orders),
            Line::Exec(request, name) => self.new_job(now, Source::Request(request), name, orders),
            Line::Ps(to) => orders.push(Action::List(to)),
            Line::Wait(to, job) => match self.table.find(&job) {
                None => refuse(Some(to), no_such(&job), orders),
                Some(id) => self.when_ended(id, Some(to), orders),
            },
            Line::Kill(to, signal, job) => self.kill(to, signal, &job, orders),
            Line::Stop(to, job, grace) => self.stop_job(now, to, &job, grace, orders),
            Line::Shutdown(to) => {
                if let Some(to) = to {
                    orders.push(Action::Hold(to));
                    orders.push(Action::Answer { to, reply: Reply::Done, last: false });
                }
                if let Some(group) = self.main_pid().and_then(Pgid::led_by) {
                    orders.push(Action::SignalGroup(group, Signal::TERM));
                }
                self.stop(now, "asked through the control FIFO", orders);
            }
        }
    }

    fn new_job(&mut self, now: Tick, source: Source, name: Option<Name>, orders: &mut Vec<Action>) {
        let client = match source {
            Source::Request(request) => Some(request),
            Source::Words(_) => None,
        };
        if self.phase != Phase::Running {
            return refuse(client, "the init is shutting down".into(), orders);
        }
        if let Some(name) = name.as_ref().filter(|name| self.table.is_name_taken(name)) {
            return refuse(client, format!("a job named {name} has not ended yet"), orders);
        }
        let id = self.table.add(now, source, name);
        self.start_queued(now, orders);
        let queued = self.table.get(id).is_some_and(|job| job.state == JobState::Queued);
        if let Some(to) = client.filter(|_| queued) {
            orders.push(Action::Hold(to));
            orders.push(Action::Answer { to, reply: Reply::Queued { job: id }, last: false });
        }
    }

    /// Answers `to` when the job has ended, which may be now.
    fn when_ended(&mut self, id: JobId, to: Option<RequestId>, orders: &mut Vec<Action>) {
        let (Some(to), Some(job)) = (to, self.table.get(id)) else { return };
        match job.end_reply(id).filter(|_| job.state == JobState::Ended) {
            Some(reply) => orders.push(Action::Answer { to, reply, last: true }),
            None => {
                job.waiters.push(to);
                orders.push(Action::Hold(to));
            }
        }
    }

    fn kill(&mut self, to: Option<RequestId>, signal: Signal, job: &JobRef, orders: &mut Vec<Action>) {
        let Some(id) = self.table.find(job) else { return refuse(to, no_such(job), orders) };
        let state = self.table.get(id).map_or(JobState::Ended, |job| job.state);
        match state {
            JobState::Queued => {
                refuse(to, format!("{id} has not started; `lastout stop {id}` takes it out of the queue"), orders)
            }
            JobState::Ended => refuse(to, format!("{id} has ended"), orders),
            JobState::Starting | JobState::Running | JobState::Ending => {
                orders.push(Action::Tell { job: id, order: Order::Kill(signal) });
                if let Some(to) = to {
                    orders.push(Action::Answer { to, reply: Reply::Done, last: true });
                }
            }
        }
    }

    fn stop_job(
        &mut self,
        now: Tick,
        to: Option<RequestId>,
        job: &JobRef,
        grace: Option<Duration>,
        orders: &mut Vec<Action>,
    ) {
        let Some(id) = self.table.find(job) else { return refuse(to, no_such(job), orders) };
        let state = self.table.get(id).map_or(JobState::Ended, |job| job.state);
        match state {
            JobState::Queued => {
                self.table.unqueue(id);
                self.end_job(now, id, None, Cause::Stopped, orders);
            }
            JobState::Starting | JobState::Running | JobState::Ending => {
                let time = grace.unwrap_or_else(|| self.budget.left(now));
                let grace_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                let order = Order::Stop { cause: Cause::Stopped, grace_ms, asked: grace.is_some() };
                orders.push(Action::Tell { job: id, order });
            }
            JobState::Ended => {}
        }
        self.when_ended(id, to, orders);
    }
}

fn refuse(to: Option<RequestId>, reason: String, orders: &mut Vec<Action>) {
    match to {
        Some(to) => orders.push(Action::Answer { to, reply: Reply::Refused { reason }, last: true }),
        None => orders.push(Action::Log(Level::Warn, format!("control: {reason}"))),
    }
}

fn no_such(job: &JobRef) -> String {
    format!("no job {job}: `lastout ps -a` lists them")
}

fn describe(process: &Process) -> String {
    format!("pid {} ({}, state {})", process.id.pid, process.comm, process.state)
}

#[cfg(test)]
mod tests;
