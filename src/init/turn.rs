use std::{
    cell::OnceCell,
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    ffi::CString,
    fs::File,
    mem,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

use super::{
    Plan, Sync,
    control::{self, Control},
    helper::{self, Helper},
    token::Token,
};
use crate::{
    base::{Errno, ExecFailure, Exit, GRACE, JobId, Name, Pid, RequestId, Signal},
    core::{Action, Config, Event, Init, Level, Role, Sender, Source},
    inspect, keeper,
    proto::{JobInfo, Lines, Notice, Reply, Request, files, place},
    sys::{
        clock, fd,
        link::{Link, Received},
        pidfd,
        poll::Poller,
        process,
        signals::{self, Signals},
        spawn,
        start::Original,
        tty,
        wait::{Reaped, reap},
    },
};

/// Read from the control FIFO in one turn: its whole buffer.
const FIFO_BUFFER: usize = 64 * 1024;

/// A keeper, while it lives.
#[derive(Debug)]
struct Keeper {
    pid: Pid,
    link: Link,
}

/// The init's descriptors and its decisions.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    plan: &'a Plan,
    original: &'a Original,
    core: Init,
    poller: Poller,
    signals: Signals,
    terminal: Option<OwnedFd>,
    cwd: PathBuf,
    /// Read when the first job comes.
    ignored: OnceCell<Vec<Signal>>,
    control: Option<Control>,
    lines: Lines,
    half_line: bool,
    main: Option<spawn::Spawned>,
    keepers: BTreeMap<JobId, Keeper>,
    helpers: BTreeMap<Pid, Helper>,
    watched: BTreeMap<Pid, OwnedFd>,
    clients: BTreeMap<RequestId, (u64, File)>,
    last_client: u64,
    facts: VecDeque<Event>,
    code: Option<u8>,
}

impl<'a> Turn<'a> {
    /// Everything that can fail, before anything runs.
    pub(super) fn new(plan: &'a Plan, original: &'a Original) -> Result<Turn<'a>, String> {
        let failed = |what: &str| {
            let what = what.to_string();
            move |error: std::io::Error| format!("cannot {what}: {}", crate::sys::errno(&error))
        };
        let control = control::open(plan.control.as_deref(), plan.inherited_control.as_deref())?;
        let me = process::me();
        let core = Init::new(Config {
            role: if me == Pid::INIT { Role::Pid1 } else { Role::Subreaper },
            me,
            main: !plan.command.is_empty(),
            grace: plan.grace,
            stop_timeout: plan.stop_timeout,
            stuck_timeout: plan.stuck_timeout,
            max_jobs: plan.max_jobs,
            remap: plan.remap.clone(),
            warn_reaps: plan.warn_reaps,
            last_job: control.as_ref().map_or(0, Control::last_job),
        });
        let poller = Poller::new().map_err(failed("make an epoll instance"))?;
        let signals = Signals::all().map_err(failed("make a signalfd"))?;
        poller.add(signals.fd(), Token::Signals.pack()).map_err(failed("wait for signals"))?;
        if let Some(control) = &control {
            poller.add(&control.fifo, Token::Control.pack()).map_err(failed("wait for the control FIFO"))?;
        }
        Ok(Turn {
            plan,
            original,
            core,
            poller,
            signals,
            terminal: tty::foreground_terminal(),
            cwd: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            ignored: OnceCell::new(),
            control,
            lines: Lines::default(),
            half_line: false,
            main: None,
            keepers: BTreeMap::new(),
            helpers: BTreeMap::new(),
            watched: BTreeMap::new(),
            clients: BTreeMap::new(),
            last_client: 0,
            facts: VecDeque::new(),
            code: None,
        })
    }

    pub(super) fn signals(&self) -> &Signals {
        &self.signals
    }

    pub(super) fn main_pid(&self) -> Option<Pid> {
        self.core.main_pid()
    }

    pub(super) fn exit_code(&self) -> u8 {
        self.core.exit_code()
    }

    /// Nobody reads the FIFO any more: new clients are not to find it. It stays open, because its end would
    /// tell the clients of running jobs that the init has died.
    pub(super) fn hide_control(&self) {
        if let Some(control) = &self.control {
            control.hide();
        }
    }

    /// Turns until it is over.
    pub(super) fn run(&mut self) -> u8 {
        self.facts.push_back(Event::Begin);
        self.until_quiet();
        self.let_go();
        // Children may be there already, if lastout was executed by a process that had some.
        self.reap();
        self.until_quiet();
        let mut ready = Vec::new();
        loop {
            if let Some(code) = self.code {
                return code;
            }
            let timeout = self.core.deadline().map(|deadline| deadline.since(clock::now()));
            ready.clear();
            if let Err(error) = self.poller.wait(timeout, |token| ready.extend(Token::unpack(token))) {
                log::error!("cannot wait for events: {error}");
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
        }
    }

    /// Facts in, orders out, until no fact is left. Every fact and order passes here.
    fn until_quiet(&mut self) {
        let mut orders = Vec::new();
        while let Some(event) = self.facts.pop_front() {
            log::trace!("{event:?}");
            self.core.step(clock::now(), event, &mut orders);
            for order in mem::take(&mut orders) {
                log::trace!("  {order:?}");
                self.perform(order);
            }
        }
    }

    /// Main has what it needs: the init keeps nothing that could hold a volume or hide a pipe's end.
    fn let_go(&mut self) {
        if let Err(error) = std::env::set_current_dir("/") {
            log::warn!("cannot change to /: {error}");
        }
        let mut own = vec![self.poller.fd().as_raw_fd(), self.signals.fd().as_raw_fd()];
        own.extend(self.control.iter().flat_map(Control::fds));
        own.extend(self.main.iter().map(|main| main.outcome.as_raw_fd()));
        own.extend(self.terminal.iter().map(AsRawFd::as_raw_fd));
        fd::close_all_but(&own);
        fd::detach_stdio();
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
                (false, Some(pid)) => Sender::Process { pid, uid: arrived.uid },
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
        while let Reaped::Child(pid, exit) = reap() {
            self.ended(pid, exit);
            self.until_quiet();
        }
    }

    fn ended(&mut self, pid: Pid, exit: Exit) {
        if let Some(helper) = self.helpers.remove(&pid) {
            self.facts.push_back(helper.finish());
            return;
        }
        // What it said before its end comes first.
        if self.main.as_ref().is_some_and(|main| main.pid == pid) {
            self.take_main_outcome();
        }
        let job = self.keepers.iter().find(|(_, keeper)| keeper.pid == pid).map(|(job, _)| *job);
        if let Some(job) = job {
            self.take_notices(job);
            self.keepers.remove(&job);
        }
        self.facts.push_back(Event::Reaped { pid, exit });
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

    fn take_lines(&mut self) {
        let Some(control) = &self.control else { return };
        let mut buffer = vec![0; FIFO_BUFFER];
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

    fn perform(&mut self, order: Action) {
        match order {
            Action::ForkMain => self.fork_main(),
            Action::ForkKeeper { job, source, name, prune } => self.fork_keeper(job, source, name, prune),
            Action::Tell { job, order } => {
                let sent = self.keepers.get(&job).map(|keeper| keeper.link.send(&order.to_bytes()));
                if let Some(Err(error)) = sent {
                    log::warn!("{job}: its keeper does not take orders: {error}");
                }
            }
            Action::Hold(to) => self.hold(to),
            Action::LetGo(request) => drop(self.clients.remove(&request)),
            Action::Answer { to, reply, last } => self.answer(to, &reply, last),
            Action::List(to) => self.list(to),
            Action::SignalGroup(group, signal) => report(signals::send_group(group, signal), || {
                format!("cannot send {signal} to process group {}", group.get())
            }),
            Action::Signal(pid, signal) => {
                report(signals::send(pid, signal), || format!("cannot send {signal} to pid {pid}"));
            }
            Action::Watch(pid) => self.watch(pid),
            Action::CheckAlone => {
                let alone = self.is_alone();
                self.facts.push_back(Event::Alone(alone));
            }
            Action::Look { kill } => match helper::look(self.original, process::me(), kill) {
                Ok((pid, helper)) => self.add_helper(pid, helper),
                Err(error) => {
                    log::warn!("cannot fork a helper to look around: {error}");
                    self.facts.push_back(Event::Looked(None));
                }
            },
            Action::EndStrays { job, command, all } => {
                let mark = format!("{}={job}", place::JOB_VARIABLE);
                let spare: Vec<Pid> =
                    self.keepers.values().map(|keeper| keeper.pid).chain(self.helpers.keys().copied()).collect();
                match helper::end_strays(self.original, process::me(), &mark, command, all, &spare) {
                    Ok(pid) => self.add_helper(pid, Helper::Other),
                    Err(error) => log::error!("{job}: cannot fork a helper to end what it left: {error}"),
                }
            }
            Action::Sync => self.sync(),
            Action::DropHalfLine => {
                self.half_line = false;
                self.facts.extend(self.lines.give_up().map(Event::BadLine));
            }
            Action::Release => {
                if let Some(control) = &self.control {
                    control.release();
                }
                if let Some(terminal) = &self.terminal {
                    let _ = tty::take_foreground(terminal);
                }
            }
            Action::Exit(code) => self.code = Some(code),
            Action::Log(level, text) => match level {
                Level::Error => log::error!("{text}"),
                Level::Warn => log::warn!("{text}"),
                Level::Info => log::info!("{text}"),
                Level::Debug => log::debug!("{text}"),
            },
        }
    }

    /// As PID 1: nobody in the namespace. Otherwise: no child, and with that nobody below us.
    fn is_alone(&mut self) -> bool {
        if process::me() == Pid::INIT {
            return signals::is_last_of_namespace();
        }
        loop {
            match reap() {
                Reaped::Child(pid, exit) => self.ended(pid, exit),
                Reaped::NoneYet => return false,
                Reaped::NoChild => return true,
            }
        }
    }

    fn fork_main(&mut self) {
        let command = spawn::Command {
            words: self.plan.command.clone(),
            env: self.control.as_ref().map(|control| environment(control, &[])),
            cwd: None,
            stdio: [None; 3],
            original: self.original,
            reset: &[],
            group: if self.terminal.is_some() { spawn::Group::Foreground } else { spawn::Group::Own },
        };
        let forked = command.spawn().and_then(|spawned| {
            self.poller.add(&spawned.outcome, Token::Main.pack())?;
            Ok(spawned)
        });
        let result = match forked {
            Ok(spawned) => {
                let pid = spawned.pid;
                self.main = Some(spawned);
                Ok(pid)
            }
            Err(error) => {
                let what = format!("start {}", self.plan.command[0].to_string_lossy());
                Err(ExecFailure { what, errno: Errno(error.raw_os_error().unwrap_or(0)) })
            }
        };
        self.facts.push_back(Event::MainForked(result));
    }

    fn fork_keeper(&mut self, job: JobId, source: Source, name: Option<Name>, prune: Vec<JobId>) {
        let result = self.try_fork_keeper(job, source, name, prune).map_err(|error| error.to_string());
        self.facts.push_back(Event::KeeperForked { job, keeper: result });
    }

    fn try_fork_keeper(
        &mut self,
        job: JobId,
        source: Source,
        name: Option<Name>,
        prune: Vec<JobId>,
    ) -> std::io::Result<Pid> {
        let Some(control) = &self.control else { return Err(std::io::ErrorKind::NotFound.into()) };
        let ignored = self.ignored.get_or_init(signals::ignored);
        let (ours, theirs) = Link::pair()?;
        self.poller.add(ours.fd(), Token::Keeper(job).pack())?;
        let pid = spawn::fork_child(|| {
            fd::close_all_but(&[theirs.fd().as_raw_fd(), control.dir.fd().as_raw_fd()]);
            keeper::run(keeper::Start {
                job,
                name,
                source,
                prune,
                link: &theirs,
                control: &control.dir,
                environment: &|own| environment(control, own),
                cwd: &self.cwd,
                grace: self.plan.grace.unwrap_or(GRACE),
                original: self.original,
                ignored,
            })
        })?;
        self.keepers.insert(job, Keeper { pid, link: ours });
        Ok(pid)
    }

    fn hold(&mut self, to: RequestId) {
        let opened = self.control.as_ref().and_then(|control| control.reply(to).ok());
        self.last_client += 1;
        let number = self.last_client;
        match opened {
            Some(file) if self.poller.add_hangup(&file, Token::Client(number).pack()).is_ok() => {
                self.clients.insert(to, (number, file));
            }
            _ => self.facts.push_back(Event::ClientGone(to)),
        }
    }

    /// An empty FIFO takes a whole reply; a client that does not read loses it.
    fn answer(&mut self, to: RequestId, reply: &Reply, last: bool) {
        let line = reply.to_line();
        if let Some((_, file)) = self.clients.get(&to) {
            let _ = fd::write(file, &line);
        } else if let Some(file) = self.control.as_ref().and_then(|control| control.reply(to).ok()) {
            let _ = fd::write(&file, &line);
        }
        if last {
            self.clients.remove(&to);
        }
    }

    fn list(&mut self, to: RequestId) {
        let Some(control) = &self.control else { return };
        let Ok(reply) = control.reply(to) else { return };
        let jobs = || self.core.list(clock::now()).into_iter().map(|(info, request)| describe(control, info, request));
        match helper::list(self.original, &reply, control.requests(), || jobs().collect()) {
            Ok(pid) => self.add_helper(pid, Helper::Other),
            Err(error) => {
                let reason = format!("cannot fork a helper to list the jobs: {}", crate::sys::errno(&error));
                self.answer(to, &Reply::Refused { reason }, true);
            }
        }
    }

    fn add_helper(&mut self, pid: Pid, helper: Helper) {
        if let Some(answer) = helper.answer_fd()
            && let Err(error) = self.poller.add(answer, Token::Helper(pid).pack())
        {
            log::warn!("cannot wait for a helper: {error}");
        }
        self.helpers.insert(pid, helper);
    }

    fn watch(&mut self, pid: Pid) {
        if self.watched.contains_key(&pid) {
            return;
        }
        let watched = pidfd::open(pid).and_then(|fd| {
            self.poller.add(&fd, Token::Watched(pid).pack())?;
            Ok(fd)
        });
        match watched {
            Ok(fd) => drop(self.watched.insert(pid, fd)),
            // Gone already; or it cannot be watched, and Sweeping finds it.
            Err(_) => self.facts.push_back(Event::WatchedEnded(pid)),
        }
    }

    fn sync(&mut self) {
        let wanted = |volume: &inspect::Volume| match self.plan.sync {
            Sync::Auto => volume.is_remote(),
            Sync::All => true,
            Sync::None => false,
        };
        let volumes: Vec<_> = match self.plan.sync {
            Sync::None => Vec::new(),
            Sync::Auto | Sync::All => inspect::volumes().into_iter().filter(wanted).collect(),
        };
        if volumes.is_empty() {
            self.facts.push_back(Event::Synced(Vec::new()));
            return;
        }
        match helper::sync(self.original, volumes) {
            Ok((pid, helper)) => self.add_helper(pid, helper),
            Err(error) => {
                self.facts.push_back(Event::Synced(vec![format!("cannot fork a helper to sync volumes: {error}")]))
            }
        }
    }
}

/// The init's own environment in its order, where the control directory is, and what a job adds.
fn environment(control: &Control, own: &[Vec<u8>]) -> Vec<CString> {
    let key = |entry: &[u8]| entry.split(|b| *b == b'=').next().unwrap_or_default().to_vec();
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut places: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut set = |entry: Vec<u8>| match places.entry(key(&entry)) {
        Entry::Occupied(place) => all[*place.get()] = entry,
        Entry::Vacant(place) => {
            place.insert(all.len());
            all.push(entry);
        }
    };
    for (name, value) in std::env::vars_os() {
        set([name.as_bytes(), b"=", value.as_bytes()].concat());
    }
    set([place::VARIABLE.as_bytes(), b"=", control.path.as_os_str().as_bytes()].concat());
    own.iter().cloned().for_each(set);
    all.into_iter().filter_map(|entry| CString::new(entry).ok()).collect()
}

/// What only the request's file knows of a queued job. In a helper.
fn describe(control: &Control, mut info: JobInfo, request: Option<RequestId>) -> JobInfo {
    let owners = [0, process::uid()];
    let read = |request: RequestId| -> std::io::Result<Request> {
        let json = control.requests().dir(&request.to_string())?.read_file(
            files::REQUEST,
            keeper::LARGEST_REQUEST,
            &owners,
        )?;
        Request::parse(&json).map_err(|_| std::io::ErrorKind::InvalidData.into())
    };
    if let Some(Ok(request)) = request.map(read) {
        info.command = keeper::command_text(&request.command);
    }
    info
}

/// A process that has ended meanwhile is no news.
fn report(result: std::io::Result<()>, what: impl FnOnce() -> String) {
    if let Err(error) = result
        && crate::sys::errno(&error) != Errno::ESRCH
    {
        log::warn!("{}: {}", what(), crate::sys::errno(&error));
    }
}
