//! Orders become system calls. None of it may block.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ffi::CString,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
};

use super::{Keeper, Turn};
use crate::{
    base::{Errno, ExecFailure, GRACE, JobId, Name, Pid, RequestId},
    core::{Action, Event, Level, Source},
    init::{
        Sync,
        control::Control,
        helper::{self, Helper},
        token::Token,
    },
    inspect, keeper,
    proto::{JobInfo, Reply, Request, files, place},
    sys::{
        clock, fd,
        link::Link,
        pidfd, process, signals, spawn, tty,
        wait::{Reaped, reap},
    },
};

impl Turn<'_> {
    pub(super) fn perform(&mut self, order: Action) {
        match order {
            Action::ForkMain => self.fork_main(),
            Action::ForkKeeper { job, source, name, prune } => self.fork_keeper(job, source, name, prune),
            Action::Tell { job, order } => {
                let sent = self.keepers.get(&job).map(|keeper| keeper.link.send(&order.to_bytes()));
                // One that has ended meanwhile is no news: what it said, and its end, are on their way.
                let gone = [std::io::ErrorKind::BrokenPipe, std::io::ErrorKind::ConnectionReset];
                if let Some(Err(error)) = sent
                    && !gone.contains(&error.kind())
                {
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
                Reaped::Stopped(pid) => self.facts.push_back(Event::Stopped(pid)),
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
