//! The loop: descriptors become facts.

mod helpers;
mod history;
mod perform;

use std::{
    cell::OnceCell,
    collections::VecDeque,
    fs::File,
    mem,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::{
    Plan, Sync,
    bare::{self, Bare},
    control::{self, Control},
    helper::Helper,
    token::Token,
    voice::{Gravity, Speaker, TARGET, Voice},
};
use crate::{
    base::{Exit, JobId, Map, Pid, RequestId, Set, Signal, Tick},
    core::{Account, Action, Config, Event, Init, Phase, Role},
    inspect, keeper,
    proto::{Lines, Notice, OomKill, Record, Sender, place},
    sys::{
        clock, fd,
        link::{Link, Received},
        memory, mount,
        outlet::Outlet,
        poll::Poller,
        process,
        signals::{self, Signals},
        spawn,
        start::Original,
        stderr,
        tty::Lent,
        wait::{AT_ONCE, Reaped, Usage, reap},
    },
};
use history::History;

/// Read from the control FIFO in one turn: a page. What is left wakes the next turn, and others have theirs before.
const FIFO_BUFFER: usize = 4096;
/// An init that gives up waits so long for its log to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// When nothing has happened for so long, there is time to count what the OOM killer did before.
const FIRST_COUNT: Duration = Duration::from_millis(20);

/// A keeper, while it lives.
#[derive(Debug)]
struct Keeper {
    pid: Pid,
    link: Link,
}

/// Why the loop has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// With this exit code.
    Over(u8),
    /// The system gives no more memory: what comes next could abort us.
    NoMemory,
}

/// The init's descriptors and its decisions.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    /// What outlives a panic.
    bare: &'static Bare,
    plan: &'static Plan,
    original: &'a Original,
    core: Init,
    poller: Poller,
    signals: &'static Signals,
    /// Where a persona has something to say there.
    stdout: Option<Outlet>,
    terminal: Option<Lent>,
    cwd: PathBuf,
    /// Read when the first job comes.
    ignored: OnceCell<Vec<Signal>>,
    control: Option<&'static Control>,
    /// Our original standard output and error, where services write.
    streams: Option<[OwnedFd; 2]>,
    /// What the configuration file adds to every environment but main's.
    export: Vec<Vec<u8>>,
    lines: Lines,
    half_line: bool,
    main: Option<spawn::Spawned>,
    /// How main ended, as soon as it is reaped: no bug in what follows can lose it.
    main_exit: Option<Exit>,
    keepers: Map<JobId, Keeper>,
    helpers: Map<Pid, Helper>,
    watched: Map<Pid, OwnedFd>,
    clients: Map<RequestId, (u64, File)>,
    last_client: u64,
    /// Clients that are told of whatever happens.
    followers: Set<RequestId>,
    history: History,
    started: SystemTime,
    oom: OnceCell<Option<inspect::OomCounter>>,
    /// What it had counted at our start.
    oom_kills: u64,
    main_record: Option<Record>,
    /// Mounts that need not be synced.
    local: mount::Local,
    /// Volumes whose helpers are still to be forked.
    to_sync: Option<Vec<inspect::Volume>>,
    /// Writes our log to a volume that may hang (see [`stderr::hand_over`]).
    writer: Option<Pid>,
    facts: VecDeque<Event>,
    /// Orders for which something was short, and when they are performed again.
    again: Vec<Action>,
    again_at: Option<Tick>,
    /// Failures to have a helper, in a row.
    attempts: u32,
    code: Option<u8>,
}

/// The control directory, where there is to be one.
fn open_control(plan: &Plan) -> Result<Option<Control>, String> {
    let (named, inherited) = (plan.control.as_deref(), plan.inherited_control.as_deref());
    let by_other_name = plan.manner.no_default_control;
    if by_other_name && named.or(inherited).is_none() {
        return Ok(None);
    }
    // A job's own services are those of its init at no time.
    let in_job = std::env::var_os(place::JOB_VARIABLE).is_some();
    match control::open(named, inherited, plan.config.is_some() && !in_job) {
        // Whoever calls us by another's name wants main to run. The variable may be an outer lastout's.
        Err(why) if by_other_name => {
            log::error!("{why}: going on without one");
            Ok(None)
        }
        opened => opened,
    }
}

fn streams() -> std::io::Result<[OwnedFd; 2]> {
    Ok([fd::standard(1).try_clone_to_owned()?, fd::standard(2).try_clone_to_owned()?])
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Without, two inits may take the same pauses.
    let _ = process::random(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// As environments have them.
pub(super) fn entries(export: &[(String, String)]) -> Vec<Vec<u8>> {
    export.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect()
}

impl<'a> Turn<'a> {
    /// Everything that can fail, before anything runs.
    pub(super) fn new(
        plan: &'static Plan,
        original: &'a Original,
        terminal: Option<Lent>,
        swallowed: Vec<Signal>,
    ) -> Result<Turn<'a>, String> {
        let failed = |what: &str| {
            let what = what.to_string();
            move |error: std::io::Error| format!("cannot {what}: {}", crate::sys::errno(&error))
        };
        let manner = &plan.manner;
        let control = open_control(plan)?;
        let me = process::me();
        let core = Init::new(Config {
            role: if me == Pid::INIT { Role::Pid1 } else { Role::Subreaper },
            me,
            own_group: process::group(),
            main: !plan.command.is_empty(),
            grace: plan.grace,
            stop_timeout: plan.stop_timeout,
            stuck_timeout: plan.stuck_timeout,
            abort_fuse: plan.abort_fuse,
            census: log::log_enabled!(log::Level::Info),
            max_jobs: plan.max_jobs,
            remap: plan.remap.clone(),
            warn_reaps: plan.warn_reaps,
            spare_leftovers: manner.spare_leftovers,
            forwarding: manner.forwarding.clone(),
            swallowed,
            not_executed: manner.not_executed,
            failure: plan.failure(),
            services: plan.config.as_ref().map_or_else(Vec::new, |(_, config)| config.services.clone()),
            reloads: plan.config.is_some(),
            seed: plan.config.as_ref().map_or(1, |_| seed()),
            last_job: control.as_ref().map_or(0, Control::last_job),
        });
        let poller = Poller::new().map_err(failed("make an epoll instance"))?;
        let signals = Signals::all().map_err(failed("make a signalfd"))?;
        poller.add(signals.fd(), Token::Signals.pack()).map_err(failed("wait for signals"))?;
        if let Some(control) = &control {
            poller.add(&control.fifo, Token::Control.pack()).map_err(failed("wait for the control FIFO"))?;
        }
        let bare = Bare::new(plan, signals, control);
        Ok(Turn {
            bare,
            plan,
            original,
            core,
            poller,
            signals: &bare.signals,
            terminal,
            // Nobody else has words for standard output.
            stdout: match &manner.voice {
                Some(voice) if voice.speaker == Speaker::Tini && voice.level >= Gravity::Info as u32 => {
                    Outlet::new(fd::standard(1)).ok()
                }
                Some(_) | None => None,
            },
            cwd: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            ignored: OnceCell::new(),
            control: bare.control.as_ref(),
            streams: match plan.config {
                Some(_) => Some(streams().map_err(failed("keep standard output for services"))?),
                None => None,
            },
            export: plan.config.as_ref().map_or_else(Vec::new, |(_, config)| entries(&config.export)),
            lines: Lines::default(),
            half_line: false,
            main: None,
            main_exit: None,
            keepers: Map::new(),
            helpers: Map::new(),
            watched: Map::new(),
            clients: Map::new(),
            last_client: 0,
            followers: Set::new(),
            history: History::default(),
            started: SystemTime::now(),
            oom: OnceCell::new(),
            oom_kills: 0,
            main_record: None,
            local: mount::Local::default(),
            to_sync: None,
            writer: None,
            facts: VecDeque::new(),
            again: Vec::new(),
            again_at: None,
            attempts: 0,
            code: None,
        })
    }

    pub(super) fn bare(&self) -> &'static Bare {
        self.bare
    }

    /// What a bare init would go by, should the next thing be a panic.
    fn remember(&self) {
        let main = self.core.main_pid();
        let leaving = match self.main_exit.filter(|_| main.is_some()) {
            Some(exit) => Some(bare::remapped(exit, &self.plan.remap)),
            None => (self.core.phase() != Phase::Running).then(|| self.core.exit_code()),
        };
        self.bare.note(main.filter(|_| self.main_exit.is_none()), leaving, self.writer);
    }

    /// Turns until it is over.
    pub(super) fn run(&mut self) -> End {
        self.facts.push_back(Event::Begin);
        self.until_quiet();
        self.let_go();
        if self.plan.sync == Sync::Auto {
            // Main is being executed: who asks now asks only for new ones at the end, which somebody waits for.
            self.local.is_every_mount();
        }
        // Children may be there already, if lastout was executed by a process that had some.
        self.reap();
        self.until_quiet();
        let mut ready = Vec::new();
        // A container's own memory group has been made for it, so nobody was killed in it before; but not its PID 1, we
        // are one of many. What main does first is not to wait for this count.
        let mut has_counted = process::me() == Pid::INIT && !self.plan.pid_namespace;
        loop {
            if let Some(code) = self.code {
                return End::Over(code);
            }
            if memory::is_short() {
                return End::NoMemory;
            }
            let deadline = self.core.deadline().into_iter().chain(self.again_at).min();
            let mut timeout = deadline.map(|deadline| deadline.since(clock::now()));
            if !has_counted {
                timeout = Some(timeout.map_or(FIRST_COUNT, |timeout| timeout.min(FIRST_COUNT)));
            }
            ready.clear();
            if let Err(error) = self.poller.wait(timeout, |token| ready.extend(Token::unpack(token))) {
                log::error!("cannot wait for events: {error}");
            }
            if !has_counted && ready.is_empty() {
                has_counted = true;
                self.oom_kills = self.oom_counter().map_or(0, inspect::OomCounter::kills);
            }
            // The order of `Token`'s declaration: signals and ends, then keepers, the FIFO last.
            ready.sort_unstable();
            for token in &ready {
                self.take(*token);
            }
            if self.core.deadline().is_some_and(|deadline| deadline <= clock::now()) {
                self.facts.push_back(Event::Tick);
                self.until_quiet();
            }
            if self.again_at.take_if(|at| *at <= clock::now()).is_some() {
                for order in mem::take(&mut self.again) {
                    self.perform(order);
                }
                self.until_quiet();
            }
        }
    }

    /// Facts in, orders out, until no fact is left. Every fact and order passes here.
    fn until_quiet(&mut self) {
        let mut orders = Vec::new();
        while let Some(event) = self.facts.pop_front() {
            log::trace!("{event:?}");
            // The original ends with main, and has no words for what comes after.
            let voice = self.plan.manner.voice.as_ref().filter(|_| self.core.phase() == Phase::Running);
            let told = voice.map(|voice| (voice, event.clone()));
            self.core.step(clock::now(), event, &mut orders);
            self.remember();
            if let Some((voice, event)) = told {
                self.tell(voice, &event, &mut orders);
            }
            for order in mem::take(&mut orders) {
                log::trace!("  {order:?}");
                self.perform(order);
            }
        }
    }

    /// In another's words; why main could not be started is then not said again in ours.
    fn tell(&self, voice: &Voice, event: &Event, orders: &mut Vec<Action>) {
        let words = voice.words(&self.plan.manner.forwarding, event, orders);
        if words.iter().any(|(gravity, _)| *gravity == Gravity::Fatal) {
            orders.retain(|order| !matches!(order, Action::Log(..)));
        }
        for (gravity, text) in words {
            match (voice.line(gravity, &text), &self.stdout) {
                (Some((line, true)), Some(stdout)) => drop(stdout.write(format!("{line}\n").as_bytes())),
                (Some((line, false)), _) => log::error!(target: TARGET, "{line}"),
                (Some((_, true)), None) | (None, _) => {}
            }
        }
    }

    /// Main has what it needs: the init keeps nothing that could hold a volume or hide a pipe's end.
    fn let_go(&mut self) {
        if let Err(error) = std::env::set_current_dir("/") {
            log::warn!("cannot change to /: {error}");
        }
        let mut own = vec![self.poller.fd().as_raw_fd(), self.signals.fd().as_raw_fd()];
        own.extend(self.control.into_iter().flat_map(Control::fds));
        own.extend(self.main.iter().map(|main| main.outcome.as_raw_fd()));
        own.extend(self.streams.iter().flatten().map(AsRawFd::as_raw_fd));
        own.extend(self.keepers.values().map(|keeper| keeper.link.fd().as_raw_fd()));
        own.extend(self.terminal.iter().map(AsRawFd::as_raw_fd));
        own.extend(self.stdout.iter().map(Outlet::raw_fd));
        own.extend(self.oom.get().into_iter().flatten().map(inspect::OomCounter::raw_fd));
        fd::close_all_but(&own);
        fd::detach_stdio();
        match stderr::hand_over() {
            Ok(writer) => self.writer = writer,
            Err(error) => log::warn!("the log may block: cannot fork its writer: {}", crate::sys::errno(&error)),
        }
    }

    /// Waits until the log is written, the last thing of all.
    pub(super) fn end_log(&mut self) {
        // Whoever gives up leaves the writer behind, too.
        bare::end_log(self.writer.take(), self.core.has_given_up().then_some(LOG_PATIENCE));
    }

    fn take(&mut self, token: Token) {
        match token {
            Token::Signals => self.take_signals(),
            Token::Keeper(job) => self.take_notices(job),
            Token::Main => self.take_main_outcome(),
            Token::Helper(pid) => {
                if let Some(helper) = self.helpers.get_mut(&pid)
                    && helper.read()
                    && let Some(answer) = helper.answer_fd()
                {
                    // It is over; what counts is its end.
                    let _ = self.poller.remove(answer);
                }
            }
            Token::Watched(pid) => {
                if self.watched.remove(&pid).is_some() {
                    self.facts.push_back(Event::WatchedEnded(pid));
                }
            }
            Token::Client(number) => {
                let gone = self.clients.iter().find(|(_, (client, _))| *client == number).map(|(request, _)| *request);
                if let Some(request) = gone {
                    self.clients.remove(&request);
                    self.facts.push_back(Event::ClientGone(request));
                }
            }
            Token::Control => self.take_lines(),
        }
        self.until_quiet();
    }

    fn take_signals(&mut self) {
        let mut children = false;
        while let Some(arrived) = self.signals.next() {
            if arrived.signal == Signal::CHLD {
                children = true;
                continue;
            }
            // A bug to order, for the test of what then remains. Not in the binary that is shipped.
            if cfg!(debug_assertions)
                && arrived.signal == Signal::PWR
                && std::env::var_os("LASTOUT_TEST_PANIC").is_some()
            {
                panic!("ordered by the test");
            }
            let sender = match (arrived.from_kernel, Pid::new(arrived.pid)) {
                (true, _) => Sender::Kernel,
                (false, None) => Sender::Outside,
                (false, Some(pid)) => Sender::Process { pid, uid: arrived.uid, comm: process::name_of(pid) },
            };
            self.facts.push_back(Event::Signal { signal: arrived.signal, sender });
        }
        self.until_quiet();
        if children {
            self.reap();
        }
    }

    /// Any number of ends may stand behind one SIGCHLD.
    fn reap(&mut self) {
        for _ in 0..AT_ONCE {
            match reap() {
                Reaped::Child(pid, exit, usage) => self.ended(pid, exit, usage),
                Reaped::Stopped(pid, signal) => self.facts.push_back(Event::Stopped(pid, signal)),
                Reaped::NoneYet | Reaped::NoChild => return,
            }
            self.until_quiet();
        }
        signals::come_back_for_children();
    }

    fn ended(&mut self, pid: Pid, exit: Exit, usage: Usage) {
        if self.core.main_pid() == Some(pid) {
            self.main_exit = Some(exit);
            self.remember();
            if cfg!(debug_assertions) && std::env::var_os("LASTOUT_TEST_PANIC").is_some_and(|when| when == "end") {
                panic!("ordered by the test");
            }
        }
        if let Some(helper) = self.helpers.remove(&pid) {
            let mut fact = helper.finish();
            if let Event::Looked(Some(seen)) = &mut fact {
                // A list that is being written is nobody's leftover, nor is our log.
                let own = |pid| self.helpers.contains_key(&pid) || self.writer == Some(pid);
                seen.retain(|process| !own(process.id.pid));
            }
            if let Event::Reloaded(Ok(config)) = &fact {
                self.export = entries(&config.export);
            }
            self.facts.push_back(fact);
            return;
        }
        if self.writer.take_if(|writer| *writer == pid).is_some() {
            return;
        }
        // What it said before its end comes first.
        if self.main.as_ref().is_some_and(|main| main.pid == pid) {
            self.take_main_outcome();
            self.until_quiet();
        }
        let is_main = self.core.main_pid() == Some(pid);
        let killed = exit.may_be_kill();
        let oom = if is_main && killed { self.oom_kill(usage.max_rss_bytes) } else { None };
        let account = is_main.then(|| Account { usage: keeper::usage(&usage, None), oom });
        let job = self.keepers.iter().find(|(_, keeper)| keeper.pid == pid).map(|(job, _)| *job);
        if let Some(job) = job {
            self.take_notices(job);
            self.keepers.remove(&job);
        }
        self.facts.push_back(Event::Reaped { pid, exit, account });
    }

    /// Whether the OOM killer has struck since the start: what the kernel says of its cgroup, in files of its own.
    fn oom_kill(&self, max_rss_bytes: u64) -> Option<OomKill> {
        let counter = self.oom_counter()?;
        if counter.kills() <= self.oom_kills {
            return None;
        }
        OomKill::blame(counter.limit(), max_rss_bytes)
    }

    fn oom_counter(&self) -> Option<&inspect::OomCounter> {
        self.oom.get_or_init(inspect::OomCounter::find).as_ref()
    }

    fn take_main_outcome(&mut self) {
        let Some(main) = &self.main else { return };
        match spawn::outcome(&main.outcome, &self.plan.command, None) {
            None => {}
            Some(Ok(())) => self.main = None,
            Some(Err(failure)) => {
                self.main = None;
                self.facts.push_back(Event::MainNotExecuted(failure));
            }
        }
    }

    fn take_notices(&mut self, job: JobId) {
        let Some(keeper) = self.keepers.get(&job) else { return };
        loop {
            match keeper.link.receive() {
                Received::Message(message) => match Notice::parse(&message) {
                    Some(notice) => self.facts.push_back(Event::Notice { job, notice }),
                    None => log::warn!("{job}: its keeper said something that is not understood"),
                },
                Received::Nothing => return,
                Received::Gone => {
                    // Its process ends, or has ended: SIGCHLD says the rest.
                    let _ = self.poller.remove(keeper.link.fd());
                    return;
                }
            }
        }
    }

    // In a frame of its own: keepers live below the loop's.
    #[inline(never)]
    fn take_lines(&mut self) {
        let Some(control) = self.control else { return };
        let mut buffer = [0; FIFO_BUFFER];
        let Ok(Some(count)) = fd::read(&control.fifo, &mut buffer) else { return };
        let facts = &mut self.facts;
        self.lines.feed(&buffer[..count], |line| {
            facts.push_back(line.map_or_else(Event::BadLine, Event::Line));
        });
        let half = self.lines.unfinished();
        if half || self.half_line {
            self.half_line = half;
            facts.push_back(Event::HalfLine(half));
        }
    }
}
