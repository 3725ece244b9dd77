//! What the init does about each fact. See [`Phase`] for the order of its life.
//!
//! It promises: every child that it is told of is accounted for; every client that it holds is answered;
//! the phases only go forward; when nothing is left to do it leaves at once, and as long as something is
//! left there is a deadline, a child, a watched process or a helper whose end will wake it.

mod jobs;
mod leaving;
mod services;
mod stuck;

use std::{mem, time::Duration};

pub use stuck::Stuck;

use super::{
    Action, Ending, Event, Forwarding, Level, Phase, Relay, STUCK_AFTER, STUCK_EVERY,
    event::Account,
    flood::Flood,
    relay,
    service::{ServiceConfig, Services},
    shutdown::Budget,
    table::Table,
};
use stuck::Explaining;

use crate::{
    base::{
        Errno, ExecFailure, Exit, GRACE, Map, Name, Pgid, Pid, ProcId, Process, RequestId, Set, Signal, Subject, Tick,
    },
    proto::{BadLine, Cause, Happening, JobInfo, Sender, Total},
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

/// The exit codes of a command that could not be executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotExecuted {
    /// ENOENT.
    pub missing: u8,
    /// EACCES.
    pub denied: u8,
    /// Any other reason.
    pub other: u8,
}

impl NotExecuted {
    fn exit(self, failure: &ExecFailure) -> Exit {
        Exit::Code(match failure.errno {
            Errno::ENOENT => self.missing,
            Errno::EACCES => self.denied,
            Errno(_) => self.other,
        })
    }
}

/// What an init was asked to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// PID 1 or not.
    pub role: Role,
    /// Our own process id.
    pub me: Pid,
    /// Our own process group, in which others are.
    pub own_group: Option<Pgid>,
    /// There is a command; otherwise hold.
    pub main: bool,
    /// Between TERM and KILL, if somebody said so.
    pub grace: Option<Duration>,
    /// How long main may take after a stop signal; for ever, if it is not given.
    pub stop_timeout: Option<Duration>,
    /// Not PID 1: how long to wait for what SIGKILL does not end.
    pub stuck_timeout: Duration,
    /// Abort the FUSE connection of a volume that holds what SIGKILL does not end.
    pub abort_fuse: bool,
    /// Before leaving, tell who else holds volumes. Not PID 1: as PID 1 nobody else is there.
    pub census: bool,
    /// Jobs at once; the rest is queued.
    pub max_jobs: Option<usize>,
    /// Main's exit codes that become 0.
    pub remap: Vec<u8>,
    /// Say so when an orphan is reaped.
    pub warn_reaps: bool,
    /// Not PID 1: what main leaves behind is nobody's business.
    pub spare_leftovers: bool,
    /// To whom signals go on, and as what.
    pub forwarding: Forwarding,
    /// Signals of which the next one is passed over.
    pub swallowed: Vec<Signal>,
    /// The exit codes of a main that could not be executed, if they are not those of shells.
    pub not_executed: Option<NotExecuted>,
    /// The exit code where main cannot even be forked.
    pub failure: u8,
    /// The services.
    pub services: Vec<ServiceConfig>,
    /// There is a file to read them from again.
    pub reloads: bool,
    /// For what is random in a backoff.
    pub seed: u64,
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
    Known { alive: Set<Pid>, kill_at: Tick, killed: bool },
}

/// Volumes that have not yet taken what was written.
#[derive(Clone, Debug)]
struct Syncing {
    since: Tick,
    say_at: Tick,
    /// When mounts of ours have had their time: they end, whether they have taken it or not.
    until: Option<Tick>,
    /// With the device of those that are FUSE.
    volumes: Map<String, Option<String>>,
}

/// `EX_IOERR` of `sysexits.h`: main ended with 0, but what was written has not reached a volume.
const NOT_SYNCED: u8 = 74;

/// See the module's documentation.
#[derive(Debug)]
pub struct Init {
    config: Config,
    phase: Phase,
    main: Main,
    main_failure: Option<ExecFailure>,
    main_started: Tick,
    /// The signals that were sent to main, and why it would die of each.
    passed_on: Map<Signal, Cause>,
    main_kill_at: Option<Tick>,
    table: Table,
    services: Services,
    /// The exit code of a critical service that has failed; and which it was, until everything stops.
    services_code: Option<u8>,
    critical_failed: Option<Name>,
    /// Clients that wait for the configuration file.
    reloading: Vec<RequestId>,
    budget: Budget,
    engine: Engine,
    /// Main's process group and when SIGTERM was forwarded to it; and who was in it then, certainly or perhaps.
    asked_group: Option<(Pgid, Tick)>,
    asked: Vec<(ProcId, bool)>,
    sweep: Option<Ending>,
    looking: bool,
    /// Who ended since the look began that is being made: it may show them still.
    ended_meanwhile: Vec<Pid>,
    /// Whether anybody is left: unknown until asked, and again after every end.
    alone: Option<bool>,
    asked_alone: bool,
    killed_all: bool,
    /// When it was said last that nothing can be seen.
    blind_said: Option<Tick>,
    syncing: Option<Syncing>,
    /// Something was not written back.
    sync_failed: bool,
    explaining: Explaining,
    last_seen: Vec<Process>,
    /// Of somebody who has been seen, the kernel may hold files a moment longer.
    lingers: bool,
    /// Not PID 1, and a job's tree is stuck: when to leave without it.
    give_up_at: Option<Tick>,
    gave_up: bool,
    /// One for each kind of [`BadLine`].
    bad_lines: [Flood; 4],
    half_line_at: Option<Tick>,
    /// What has ended so far.
    totals: Vec<Total>,
}

impl Init {
    /// An init that has not begun.
    pub fn new(mut config: Config) -> Init {
        Init {
            phase: Phase::Running,
            main: if config.main { Main::Forking } else { Main::None },
            main_failure: None,
            main_started: Tick::default(),
            passed_on: Map::new(),
            main_kill_at: None,
            table: Table::starting_after(config.last_job),
            services: Services::new(mem::take(&mut config.services), config.seed),
            services_code: None,
            critical_failed: None,
            reloading: Vec::new(),
            budget: Budget::new(config.grace.unwrap_or(GRACE)),
            engine: Engine::Unknown,
            asked_group: None,
            asked: Vec::new(),
            sweep: None,
            looking: false,
            ended_meanwhile: Vec::new(),
            alone: None,
            asked_alone: false,
            killed_all: false,
            blind_said: None,
            syncing: None,
            sync_failed: false,
            explaining: Explaining::default(),
            last_seen: Vec::new(),
            lingers: false,
            give_up_at: None,
            gave_up: false,
            bad_lines: Default::default(),
            half_line_at: None,
            totals: Vec::new(),
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

    /// What has ended so far, by its outcome.
    pub fn totals(&self) -> &[Total] {
        &self.totals
    }

    /// Main's process, while it lives.
    pub fn main_pid(&self) -> Option<Pid> {
        match self.main {
            Main::Running(pid) => Some(pid),
            Main::None | Main::Forking | Main::Ended(_) => None,
        }
    }

    /// Whether it leaves though somebody is left.
    pub fn has_given_up(&self) -> bool {
        self.gave_up
    }

    /// The code that main's end, or that of services, means, after remapping.
    pub fn exit_code(&self) -> u8 {
        let code = match self.main {
            Main::Ended(exit) => exit.status(),
            // Services are its life.
            Main::None => self.services.exit_code(),
            Main::Forking | Main::Running(_) => 0,
        };
        let code = self.services_code.unwrap_or(code);
        let code = if self.config.remap.contains(&code) { 0 } else { code };
        match code {
            _ if self.gave_up => 125,
            0 if self.sync_failed => NOT_SYNCED,
            code => code,
        }
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
        let sweeping = matches!(self.phase, Phase::Stopping | Phase::Sweeping) && !self.looking;
        let sweep = self.sweep.as_ref().filter(|_| sweeping).map(Ending::deadline);
        let bad_lines = self.bad_lines.iter().filter_map(Flood::deadline).min();
        let main = self.main_kill_at.filter(|_| self.main_pid().is_some());
        let sync = self
            .syncing
            .as_ref()
            .filter(|_| self.phase == Phase::Syncing)
            .map(|syncing| syncing.until.map_or(syncing.say_at, |until| until.min(syncing.say_at)));
        let explain = self.explaining.deadline().filter(|_| self.leaving_others());
        let services = self.services.deadline();
        let all = [services, engine, sweep, main, sync, explain, self.give_up_at, self.half_line_at, bad_lines];
        all.into_iter().flatten().min()
    }

    /// Takes one fact and adds the orders that follow.
    pub fn step(&mut self, now: Tick, event: Event, orders: &mut Vec<Action>) {
        match event {
            Event::Begin => {
                if self.main == Main::Forking {
                    orders.push(Action::ForkMain);
                }
                self.begin_services(now, orders);
            }
            Event::Tick => self.tick(now, orders),
            Event::Signal { signal, sender } => self.signal(now, signal, sender, orders),
            Event::MainForked(Ok(pid)) => {
                self.main = Main::Running(pid);
                self.main_started = now;
            }
            Event::MainForked(Err(failure)) => {
                orders.push(Action::Log(Level::Error, failure.to_string()));
                self.main = Main::Ended(Exit::Code(self.config.failure));
            }
            Event::MainNotExecuted(failure) => {
                orders.push(Action::Log(Level::Error, failure.to_string()));
                self.main_failure = Some(failure);
            }
            Event::Reaped { pid, exit, account } => self.reaped(now, pid, exit, account, orders),
            Event::Stopped(pid, signal) => {
                // A keeper that stands still keeps no time: neither its job's timeout nor a shutdown's.
                if let Some(job) = self.table.of_keeper(pid) {
                    orders.push(Action::Log(Level::Warn, format!("{job}: somebody stopped its keeper: SIGCONT")));
                    orders.push(Action::Signal(pid, Signal::CONT));
                } else if self.main_pid() == Some(pid) {
                    orders.push(Action::Suspend { main: pid, by: signal });
                }
            }
            Event::HelperEnded => self.somebody_ended(now),
            Event::KeeperForked { job, keeper } => self.keeper_forked(now, job, keeper, orders),
            Event::Notice { job, notice } => self.notice(now, job, notice, orders),
            Event::Line(line) => self.line(now, line, orders),
            Event::BadLine(bad) => self.bad_line(now, &bad, orders),
            Event::HalfLine(half) => self.half_line_at = half.then(|| now + HALF_LINE),
            Event::ClientGone(client) => {
                self.table.forget_client(client);
                self.services.forget(client);
                self.reloading.retain(|waiter| *waiter != client);
            }
            Event::Reloaded(read) => {
                self.somebody_ended(now);
                self.reloaded(now, read, orders);
            }
            Event::Alone(alone) => {
                self.alone = Some(alone);
                self.asked_alone = false;
            }
            Event::Looked(seen) => self.looked(now, seen, orders),
            Event::WatchedEnded(pid) => {
                if let Engine::Known { alive, .. } = &mut self.engine {
                    alive.remove(&pid);
                }
                self.ended(now, pid);
            }
            Event::Explained(found) => {
                self.somebody_ended(now);
                self.explained(now, found, orders);
            }
            Event::KernelLetGo => {
                if self.phase == Phase::Census {
                    self.begin_census(now, orders);
                }
            }
            Event::Counted(told) => {
                orders.extend(told.into_iter().map(|text| Action::Log(Level::Info, text)));
                if self.phase == Phase::Census {
                    self.begin_syncing(now, orders);
                }
            }
            Event::Syncing(volumes) => {
                if let Some(syncing) = &mut self.syncing {
                    syncing.volumes = volumes.into_iter().collect();
                }
                self.synced(now, orders);
            }
            Event::Synced { volume, error } => {
                if let Some(syncing) = &mut self.syncing {
                    syncing.volumes.remove(&volume);
                }
                if let Some(what) = error {
                    self.sync_failed = true;
                    orders.push(Action::Note(Level::Error, Happening::SyncFailed { what }));
                }
                self.synced(now, orders);
            }
        }
        self.advance(now, orders);
    }

    fn tick(&mut self, now: Tick, orders: &mut Vec<Action>) {
        self.with_services(now, orders, |services, todo| services.tick(now, todo));
        if self.main_kill_at.is_some_and(|at| now >= at) {
            self.main_kill_at = None;
            if let Some(order) = self.to_main(Signal::KILL) {
                orders.push(Action::Log(Level::Warn, "main's stop timeout is over: SIGKILL".into()));
                self.passed_on.insert(Signal::KILL, Cause::Timeout);
                orders.push(order);
                if self.config.role == Role::Subreaper {
                    self.give_up_at.get_or_insert(now + self.config.stuck_timeout);
                }
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
        let mut hanging = Vec::new();
        if let Some(syncing) = &mut self.syncing
            && now >= syncing.say_at
        {
            syncing.say_at = now + STUCK_EVERY;
            let time = now.since(syncing.since);
            orders.push(Action::TellSyncing { volumes: syncing.volumes.keys().cloned().collect(), time });
            let fuse = syncing.volumes.iter().filter_map(|(name, device)| Some((name.clone(), device.clone()?)));
            hanging.extend(fuse);
            if self.config.role == Role::Subreaper && time >= self.config.stuck_timeout && !self.gave_up {
                self.gave_up = true;
                let names = syncing.volumes.keys().map(|volume| format!("left behind: not synced: {volume}"));
                orders.extend(names.map(|text| Action::Log(Level::Error, text)));
            }
        }
        self.give_up_own_volumes(now, orders);
        for (volume, device) in hanging {
            self.abort(&device, &volume, "which does not take what was written", orders);
        }
        if self.half_line_at.is_some_and(|at| now >= at) {
            self.half_line_at = None;
            orders.push(Action::DropHalfLine);
        }
        for flood in &mut self.bad_lines {
            orders.extend(flood.tick(now).map(passed_over));
        }
        self.explain_if_due(now, orders);
    }

    fn signal(&mut self, now: Tick, signal: Signal, sender: Sender, orders: &mut Vec<Action>) {
        let group = self.main_group();
        let main = self.main_pid().is_some();
        let relay = relay(&self.config.forwarding, signal, &sender, self.config.me, main);
        let why = format!("{signal} from {sender}");
        if signal == Signal::HUP && self.config.reloads && sender != Sender::Kernel {
            orders.push(Action::Note(Level::Info, Happening::Signal { signal, from: sender }));
            return self.reload(None, None, orders);
        }
        orders.push(Action::Note(Level::Debug, Happening::Signal { signal, from: sender.clone() }));
        if let Some(at) = self.config.swallowed.iter().position(|swallowed| *swallowed == signal) {
            self.config.swallowed.remove(at);
            return;
        }
        if matches!(relay, Relay::Forward | Relay::ForwardAndStop) {
            if let Some(sent) = self.config.forwarding.becomes(signal) {
                orders.extend(self.to_main(sent));
                self.passed_on.insert(sent, Cause::Signalled { from: sender });
            }
            if self.config.forwarding.suspends && signal.is_from_terminal_to_stop() {
                orders.push(Action::StopSelf);
            }
            if signal == Signal::TERM {
                // Whoever sent it may be counting the seconds.
                self.budget.begin(now);
            }
        }
        if relay == Relay::ForwardAndStop {
            self.asked_group = group.map(|group| (group, now));
        }
        if matches!(relay, Relay::ForwardAndStop | Relay::Stop) {
            self.stop(now, &why, orders);
        }
    }

    /// Somebody wants us to leave, and may be counting the seconds.
    fn stop(&mut self, now: Tick, why: &str, orders: &mut Vec<Action>) {
        self.budget.begin(now);
        if self.main_kill_at.is_none() && !self.passed_on.contains_key(&Signal::KILL) {
            self.main_kill_at = self.config.stop_timeout.map(|timeout| now + timeout);
        }
        if self.phase == Phase::Running {
            self.begin_stopping(now, why, orders);
        }
    }

    /// Asks main to end.
    fn stop_main(&mut self, now: Tick, cause: Cause, orders: &mut Vec<Action>) {
        if let Some(order) = self.to_main(Signal::TERM) {
            self.asked_group = self.main_group().map(|group| (group, now));
            orders.push(order);
            self.passed_on.insert(Signal::TERM, cause);
        }
    }

    /// Main's process group, if signals go to it.
    fn main_group(&self) -> Option<Pgid> {
        self.main_pid().and_then(Pgid::led_by).filter(|_| !self.config.forwarding.to_main_only)
    }

    /// Sends main a signal, while it lives.
    fn to_main(&self, signal: Signal) -> Option<Action> {
        match self.main_group() {
            Some(group) => Some(Action::SignalGroup(group, signal)),
            None => self.main_pid().map(|pid| Action::Signal(pid, signal)),
        }
    }

    fn reaped(&mut self, now: Tick, pid: Pid, exit: Exit, account: Option<Account>, orders: &mut Vec<Action>) {
        self.ended(now, pid);
        if self.main == Main::Running(pid) {
            self.main_ended(now, exit, account.unwrap_or_default(), orders);
        } else if let Some(job) = self.table.of_keeper(pid) {
            self.keeper_ended(now, job, exit, orders);
        } else {
            let level = if self.config.warn_reaps { Level::Warn } else { Level::Debug };
            orders.push(Action::Log(level, format!("reaped pid {pid}: {exit}")));
        }
    }

    fn main_ended(&mut self, now: Tick, exit: Exit, account: Account, orders: &mut Vec<Action>) {
        let sent = match exit {
            Exit::Signal(signal) => self.passed_on.remove(&signal),
            Exit::Code(_) => None,
        };
        let (exit, cause) = match (&self.main_failure, sent) {
            (Some(failure), _) => {
                let exit = self.config.not_executed.map_or_else(|| failure.exit(), |codes| codes.exit(failure));
                (exit, Cause::ExecFailed(failure.clone()))
            }
            (None, Some(cause)) => (exit, cause),
            (None, None) => (exit, Cause::of(exit, account.oom)),
        };
        // Its failure to start was told when it happened.
        let told = cause.is_ordinary() || self.main_failure.is_some();
        let wall_us = u64::try_from(now.since(self.main_started).as_micros()).unwrap_or(u64::MAX);
        let usage = Some(account.usage);
        let ended = Happening::Ended { job: Subject::Main, name: None, exit: Some(exit), cause, wall_us, usage };
        orders.push(Action::Note(if told { Level::Info } else { Level::Warn }, ended));
        let after = self.config.forwarding.after_main.and_then(|signal| self.config.forwarding.becomes(signal));
        if let (Some(signal), Some(group)) = (after, self.main_group()) {
            orders.push(Action::SignalGroup(group, signal));
            self.asked_group = Some((group, now));
        }
        self.main = Main::Ended(exit);
        self.is_less_stuck();
    }

    /// Somebody who may have been stuck has ended. Who still is will be told again, main apart.
    fn is_less_stuck(&mut self) {
        if self.main_pid().is_none() || !self.passed_on.contains_key(&Signal::KILL) {
            self.give_up_at = None;
        }
    }

    fn bad_line(&mut self, now: Tick, bad: &BadLine, orders: &mut Vec<Action>) {
        let kind = match bad {
            BadLine::TooLong => 0,
            BadLine::NotUtf8 => 1,
            BadLine::Unfinished => 2,
            BadLine::NotUnderstood(_) => 3,
        };
        if self.bad_lines[kind].tell(now) {
            orders.push(Action::Log(Level::Warn, format!("control: a line was passed over: {bad}")));
        }
    }
}

fn passed_over(counted: u64) -> Action {
    Action::Log(Level::Warn, format!("control: {counted} more lines like these were passed over"))
}

#[cfg(test)]
mod tests;
