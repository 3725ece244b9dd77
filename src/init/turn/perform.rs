//! Orders become system calls. None of it may block.

use std::{
    borrow::Cow,
    ffi::CString,
    io::ErrorKind,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    time::{Duration, SystemTime},
};

use super::{Keeper, Turn};
use crate::{
    base::{Errno, ExecFailure, Exit, GRACE, JobId, Name, Pgid, Pid, RequestId, Subject},
    core::{Action, Event, Level, Source},
    init::{
        control::Control,
        helper::{self, Helper},
        manner::Place,
        token::Token,
    },
    inspect, keeper,
    proto::{Bytes, Cause, Entry, Happening, MAX_LINE, Record, Reply, Usage, VERSION, place, record_time as time},
    sys::{
        clock, fd, is_shortage,
        link::Link,
        pidfd, process, signals, spawn,
        wait::{AT_ONCE, Reaped, has_children, reap},
    },
};

/// Whose descriptors are passed on by socket activation (sd_listen_fds(3)).
const LISTEN_PID: &str = "LISTEN_PID";
/// Until what was short is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// Orders that may wait for that.
const MOST_AGAIN: usize = 1000;

impl Turn<'_> {
    pub(super) fn perform(&mut self, order: Action) {
        match order {
            Action::ForkMain => self.fork_main(),
            Action::ForkKeeper { job, source, name, prune } => self.fork_keeper(job, source, name, prune),
            Action::Tell { job, order } => match self.keepers.get(&job).map(|k| k.link.send(&order.to_bytes())) {
                Some(Err(error)) if is_shortage(&error) => self.later(Action::Tell { job, order }),
                // One that has ended meanwhile is no news: what it said, and its end, are on their way.
                Some(Err(error)) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
                Some(Err(error)) => {
                    log::warn!("{job}: its keeper does not take orders: {}", crate::sys::errno(&error));
                }
                Some(Ok(())) | None => {}
            },
            Action::Hold(to) => self.hold(to),
            Action::LetGo(request) => self.let_client_go(request),
            Action::Answer { to, reply, last } => self.answer(to, reply, last),
            Action::List(to) => self.list(to),
            Action::Status(to) => self.status(to),
            Action::ListServices(to) => self.list_services(to),
            Action::Reload => self.reload(),
            Action::SignalGroup(group, signal) => {
                let is_led = |main: &Pid| self.main_exit.is_none() && Pgid::led_by(*main) == Some(group);
                let sent = match self.core.main_pid().filter(is_led) {
                    Some(main) => signals::send_to_led(main, signal),
                    None => signals::send_group(group, signal),
                };
                report(sent, || format!("cannot send {signal} to process group {}", group.get()));
            }
            Action::Signal(pid, signal) => {
                report(signals::send(pid, signal), || format!("cannot send {signal} to pid {pid}"));
            }
            Action::StopSelf => {
                // A shell has it then, and whose it is afterwards is not told to who has left it.
                if self.plan.manner.place == Place::Session && process::me() != Pid::INIT {
                    self.terminal = None;
                }
                report(process::stop_self(), || "cannot stop ourselves".into());
            }
            Action::Suspend { main, by } => {
                let suspended = self.terminal.as_mut().map(|terminal| terminal.suspend(main, by));
                report(suspended.unwrap_or(Ok(())), || "cannot stop with main".into());
            }
            Action::Watch(pid) => self.watch(pid),
            Action::CheckAlone => {
                let alone = self.is_alone();
                self.facts.push_back(Event::Alone(alone));
            }
            Action::Look { kill } => self.look(kill),
            Action::Explain { all } => self.explain(all),
            Action::AwaitKernel => {
                let asked = helper::await_kernel(self.original);
                self.ask(Action::AwaitKernel, asked, "wait for the kernel", Event::KernelLetGo);
            }
            Action::Census => {
                let asked = helper::census(self.original);
                self.ask(Action::Census, asked, "see who holds volumes", Event::Counted(Vec::new()));
            }
            Action::AbortFuse { device, volume } => match helper::abort_fuse(self.original, &device, &volume) {
                Ok(pid) => drop(self.helpers.insert(pid, Helper::Other)),
                Err(_) if self.tries_again() => self.later(Action::AbortFuse { device, volume }),
                Err(error) => log::error!("cannot fork a helper to abort {volume}: {}", crate::sys::errno(&error)),
            },
            Action::EndStrays { job, command, all } => {
                let mark = format!("{}={job}", place::JOB_VARIABLE);
                let spare: Vec<Pid> = self
                    .keepers
                    .values()
                    .map(|keeper| keeper.pid)
                    .chain(self.helpers.keys().copied())
                    .chain(self.writer)
                    .collect();
                match helper::end_strays(self.original, process::me(), &mark, command, all, &spare) {
                    Ok(pid) => drop(self.helpers.insert(pid, Helper::Other)),
                    Err(error) if is_shortage(&error) => self.later(Action::EndStrays { job, command, all }),
                    Err(error) => {
                        let reason = crate::sys::errno(&error);
                        log::error!("{job}: cannot fork a helper to end what it left: {reason}");
                    }
                }
            }
            Action::Sync => self.sync(),
            Action::TellSyncing { volumes, time } => {
                let dirty = inspect::dirty().map(|text| format!(" ({text})")).unwrap_or_default();
                let seconds = time.as_secs();
                log::warn!("still waiting for {} to take what was written, for {seconds} s{dirty}", volumes.join(", "));
            }
            Action::DropHalfLine => {
                self.half_line = false;
                self.facts.extend(self.lines.give_up().map(Event::BadLine));
            }
            Action::Release => {
                if let Some(control) = self.control {
                    if let Some(record) = &self.main_record {
                        control.keep_record(record);
                    }
                    control.release();
                }
                if let Some(terminal) = &self.terminal {
                    terminal.take_back(matches!(self.main_exit, Some(Exit::Signal(_))));
                }
            }
            Action::Enter(phase) => log::debug!("now {phase:?}"),
            Action::Exit(code) => self.code = Some(code),
            Action::Log(level, text) => say(level, &text),
            Action::Note(level, what) => {
                say(level, &what);
                self.note(what);
            }
            Action::History(to) => self.history(to),
            Action::Follow(to) => {
                self.hold(to);
                self.followers.insert(to);
            }
        }
    }

    /// Keeps it, and tells those who follow. One that does not read misses some, and sees it by the numbers.
    fn note(&mut self, what: Happening) {
        if let Happening::Ended { job: Subject::Main, exit, cause, wall_us, usage, .. } = &what
            && self.control.is_some_and(Control::stays)
        {
            self.main_record = Some(Record {
                command: self.plan.command.iter().map(|word| Bytes(word.as_bytes().to_vec())).collect(),
                started: time(self.started),
                wall_us: *wall_us,
                exit: *exit,
                usage: Usage {
                    oom_kills: self.oom_counter().map_or(0, |counter| counter.kills().saturating_sub(self.oom_kills)),
                    ..usage.unwrap_or_default()
                },
                ..record(Subject::Main, cause.clone())
            });
        }
        // What no keeper could count, none has written down.
        if let Happening::Ended { job: Subject::Job(job), name, exit, cause, usage: None, .. } = &what {
            let record = Record { name: name.clone(), exit: *exit, ..record(Subject::Job(*job), cause.clone()) };
            let written = self.control.map(|control| helper::keep_record(self.original, control, &record));
            match written {
                Some(Ok(pid)) => drop(self.helpers.insert(pid, Helper::Other)),
                Some(Err(error)) => log::warn!("{job}: cannot write its record: {}", crate::sys::errno(&error)),
                None => {}
            }
        }
        let number = self.history.number();
        let now = SystemTime::now();
        self.followers.retain(|follower| self.clients.contains_key(follower));
        if !self.followers.is_empty() {
            let entry = Entry { seq: number, time: time(now), what: what.clone() };
            let line = Reply::Event(entry).to_line();
            let told = self.followers.iter().filter_map(|follower| self.clients.get(follower));
            told.filter(|_| line.len() <= MAX_LINE).for_each(|(_, file)| drop(fd::write(file, &line)));
        }
        self.history.keep(number, now, what);
    }

    /// As PID 1: nobody in the namespace. Otherwise: no child, and with that nobody below us.
    fn is_alone(&mut self) -> bool {
        if process::me() == Pid::INIT {
            return signals::is_last_of_namespace();
        }
        for _ in 0..AT_ONCE {
            match reap() {
                Reaped::Child(pid, exit, usage) => self.ended(pid, exit, usage),
                Reaped::Stopped(pid, signal) => self.facts.push_back(Event::Stopped(pid, signal)),
                // The process that writes our log is none of those that we wait for.
                Reaped::NoneYet => return self.writer.is_some() && !has_children(),
                Reaped::NoChild => return true,
            }
        }
        signals::come_back_for_children();
        false
    }

    fn fork_main(&mut self) {
        let manner = &self.plan.manner;
        let fresh = self.original.for_jobs();
        let mut ignored = if manner.fresh_signals { signals::ignored() } else { Vec::new() };
        // dumb-init knows no real-time signals.
        ignored.retain(|signal| signal.get() < 32);
        let mut env = self.control.map(|control| {
            environment(Some(control), &[format!("{}={}", place::JOB_VARIABLE, place::MAIN).into_bytes()])
        });
        let pid_variable = Some(LISTEN_PID).filter(|name| {
            manner.listen_pid && std::env::var(name).is_ok_and(|pid| pid.trim() == process::me().to_string())
        });
        if let Some(name) = pid_variable {
            let env = env.get_or_insert_with(|| environment(None, &[]));
            env.retain(|entry| entry.to_bytes().split(|byte| *byte == b'=').next() != Some(name.as_bytes()));
        }
        let command = spawn::Command {
            words: self.plan.command.clone(),
            env,
            cwd: None,
            stdio: [None; 3],
            third: None,
            pid_variable,
            original: if manner.fresh_signals { &fresh } else { self.original },
            reset: &ignored,
            group: match manner.place {
                Place::Session => spawn::Group::SessionOfTerminal,
                Place::Ours => spawn::Group::Ours,
                Place::Group | Place::GroupOfTerminal if self.terminal.is_some() => spawn::Group::Foreground,
                Place::Group | Place::GroupOfTerminal => spawn::Group::Own,
            },
            limits: None,
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
                Err(ExecFailure { what, errno: Errno(error.raw_os_error().unwrap_or(0)), interpreter: None })
            }
        };
        self.facts.push_back(Event::MainForked(result));
    }

    fn fork_keeper(&mut self, job: JobId, source: Source, name: Option<Name>, prune: Vec<JobId>) {
        let result =
            self.try_fork_keeper(job, source, name, prune).map_err(|error| crate::sys::errno(&error).to_string());
        self.facts.push_back(Event::KeeperForked { job, keeper: result });
    }

    fn try_fork_keeper(
        &mut self,
        job: JobId,
        source: Source,
        name: Option<Name>,
        prune: Vec<JobId>,
    ) -> std::io::Result<Pid> {
        let control = self.control;
        let ignored = self.ignored.get_or_init(signals::ignored);
        let oom = self.oom.get_or_init(inspect::OomCounter::find).as_ref();
        let (ours, theirs) = Link::pair()?;
        self.poller.add(ours.fd(), Token::Keeper(job).pack())?;
        let pid = spawn::fork_child(|| {
            let streams = self.streams.iter().flatten().map(AsRawFd::as_raw_fd);
            let directory = control.map(|control| control.dir.fd().as_raw_fd());
            let kept =
                streams.chain(directory).chain(oom.map(inspect::OomCounter::raw_fd)).chain([theirs.fd().as_raw_fd()]);
            fd::close_all_but(&kept.collect::<Vec<_>>());
            if self.streams.is_some() {
                // The first services begin before the init has let go of what is main's.
                let _ = std::env::set_current_dir("/");
                fd::detach_stdio();
            }
            // As in `take_signals`.
            if cfg!(debug_assertions) && std::env::var_os("LASTOUT_TEST_PANIC").is_some_and(|who| who == "keeper") {
                panic!("ordered by the test");
            }
            keeper::run(keeper::Start {
                job,
                name,
                source,
                prune,
                link: &theirs,
                control: control.map(|control| &control.dir),
                environment: &|own| environment(control, &[&self.export[..], own].concat()),
                cwd: &self.cwd,
                grace: self.plan.grace.unwrap_or(GRACE),
                original: self.original,
                ignored,
                oom,
                stdout: self.streams.as_ref().map(|[stdout, _]| stdout),
                stderr: self.streams.as_ref().map(|[_, stderr]| stderr),
            })
        })?;
        self.keepers.insert(job, Keeper { pid, link: ours });
        Ok(pid)
    }

    /// Performs this in a moment: what it takes is short now.
    pub(super) fn later(&mut self, order: Action) {
        if self.again.len() < MOST_AGAIN {
            self.again.push(order);
            self.again_at.get_or_insert(clock::now() + AGAIN);
        } else {
            log::error!("too much cannot be done for now, so this will not be: {order:?}");
        }
    }

    fn hold(&mut self, to: RequestId) {
        let Some(control) = self.control else { return };
        let opened = match self.clients.remove(&to) {
            Some((_, file)) => Ok(file),
            None => control.reply(to),
        };
        self.last_client += 1;
        let number = self.last_client;
        match opened {
            Ok(file) => match self.poller.add_hangup(&file, Token::Client(number).pack()) {
                Err(error) if !is_shortage(&error) => self.facts.push_back(Event::ClientGone(to)),
                added => {
                    // Closed, it would tell the client that we have died.
                    self.clients.insert(to, (number, file));
                    if added.is_err() {
                        self.later(Action::Hold(to));
                    }
                }
            },
            Err(error) if is_shortage(&error) => self.later(Action::Hold(to)),
            Err(_) => self.facts.push_back(Event::ClientGone(to)),
        }
    }

    /// Somebody else answers this client, or nobody any more.
    fn let_client_go(&mut self, request: RequestId) {
        self.clients.remove(&request);
        self.again.retain(|order| *order != Action::Hold(request));
    }

    /// An empty FIFO takes a whole reply; a client that does not read loses it.
    pub(super) fn answer(&mut self, to: RequestId, reply: Reply, last: bool) {
        if !self.clients.contains_key(&to) {
            match self.control.map(|control| control.reply(to)) {
                // Held until it is written: closed, it would tell the client that we have died.
                Some(Ok(file)) => drop(self.clients.insert(to, (0, file))),
                Some(Err(error)) if is_shortage(&error) => return self.later(Action::Answer { to, reply, last }),
                Some(Err(_)) | None => return self.let_client_go(to),
            }
        }
        let Some((number, file)) = self.clients.get(&to) else { return };
        let held = *number > 0;
        if fd::write(file, &reply.to_line()).is_err_and(|error| is_shortage(&error)) {
            self.later(Action::Answer { to, reply, last });
        } else if last || !held {
            self.let_client_go(to);
        }
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
}

/// The init's own environment in its order, where the control directory is, and what a job adds: the last word counts.
fn environment(control: Option<&Control>, own: &[Vec<u8>]) -> spawn::Environment {
    let place = control.map(|control| [place::VARIABLE.as_bytes(), b"=", control.path.as_os_str().as_bytes()].concat());
    let added: Vec<&[u8]> = place.iter().chain(own).map(Vec::as_slice).collect();
    // With what stands behind it, so that a longer name is another.
    let name = |entry: &[u8]| entry.iter().position(|b| *b == b'=').map_or(entry.len(), |at| at + 1);
    let names: Vec<&[u8]> = added.iter().map(|entry| &entry[..name(entry)]).collect();
    let inherited = spawn::environment().filter(|entry| !names.iter().any(|name| entry.to_bytes().starts_with(name)));
    let again = |at: usize| names[at + 1..].contains(&names[at]);
    let last = (0..added.len()).filter(|at| !again(*at)).filter_map(|at| CString::new(added[at]).ok());
    let mut all = Vec::with_capacity(spawn::environment().count() + added.len());
    all.extend(inherited.map(Cow::Borrowed));
    all.extend(last.map(Cow::Owned));
    all
}

/// A record of something that ends now, and never ran.
fn record(job: Subject, cause: Cause) -> Record {
    let now = time(SystemTime::now());
    Record {
        version: VERSION,
        job,
        name: None,
        command: Vec::new(),
        started: now.clone(),
        ended: now,
        wall_us: 0,
        exit: None,
        cause,
        usage: Usage::default(),
    }
}

fn say(level: Level, text: &dyn std::fmt::Display) {
    match level {
        Level::Error => log::error!("{text}"),
        Level::Warn => log::warn!("{text}"),
        Level::Info => log::info!("{text}"),
        Level::Debug => log::debug!("{text}"),
    }
}

/// A process that has ended meanwhile is no news.
fn report(result: std::io::Result<()>, what: impl FnOnce() -> String) {
    if let Err(error) = result
        && crate::sys::errno(&error) != Errno::ESRCH
    {
        log::warn!("{}: {}", what(), crate::sys::errno(&error));
    }
}
