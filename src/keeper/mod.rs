//! A keeper: the small process between the init and one job, or one run of a service. It may block; only its job would notice.
//!
//! It is a fork of the init without exec and the subreaper of its tree. It serves one request from
//! beginning to end: opens the client's FIFOs, starts the command, watches over it as [`Job`] decides,
//! writes the record, and exits.

mod check;
mod late;
mod mount;
mod output;
mod record;
mod relay;
mod request;
mod service;
mod sink;
mod stuck;

pub use late::let_go;
pub use record::usage;
pub use request::LARGEST_REQUEST;
pub use stuck::explain;

use std::{
    collections::VecDeque,
    ffi::CString,
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    thread::sleep,
    time::{Duration, SystemTime},
};

use crate::{
    base::{ExecFailure, Exit, JobId, Name, Pid, Signal},
    core::{Job, JobAction, JobConfig, JobEvent, Source},
    inspect,
    proto::{Alive, Bytes, Cause, Leftover, Notice, OomKill, Order, Reply, Request, files, place},
    sys::{
        clock,
        dir::Dir,
        fd,
        link::{Link, Received},
        poll::{Interest, wait_any},
        process,
        signals::{self, Signals},
        spawn,
        start::Original,
        wait::{Reaped, children_usage, reap},
    },
};
use output::Output;
use record::make_job_directory;
use request::{Client, forget_request, load};
use service::Service;

/// Characters of a command that `ps` may show.
const COMMAND_TEXT: usize = 200;
/// How often what must not be lost is tried, and the pause in between.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// What the init gives a keeper.
pub struct Start<'a> {
    /// The job's number.
    pub job: JobId,
    /// The job's name.
    pub name: Option<Name>,
    /// What to run.
    pub source: Source,
    /// Ended jobs whose directories to remove.
    pub prune: Vec<JobId>,
    /// To the init.
    pub link: &'a Link,
    /// The control directory.
    pub control: &'a Dir,
    /// The whole environment, from the job's own entries.
    pub environment: &'a dyn Fn(&[Vec<u8>]) -> Vec<CString>,
    /// The init's original working directory.
    pub cwd: &'a Path,
    /// The grace that everything has.
    pub grace: Duration,
    /// What a command gets back.
    pub original: &'a Original,
    /// Where the kernel counts the OOM killer's kills.
    pub oom: Option<&'a inspect::OomCounter>,
    /// The signals that the init was started to ignore (by `nohup`, by a script's `&`): a job is not.
    pub ignored: &'a [Signal],
    /// The init's original standard output, for a service; `/dev/null` if it is not given.
    pub stdout: Option<&'a OwnedFd>,
    /// The init's original standard error, likewise.
    pub stderr: Option<&'a OwnedFd>,
}

/// Why a job did not even begin: the cause, and whether the client is told.
struct Refusal(Cause);

/// Serves one job. Answers with the keeper's exit code, which nobody needs: the init was told.
pub fn run(start: Start) -> u8 {
    match (&start.source, &start.name) {
        (Source::Service(_), Some(name)) => process::set_name(&format!("keeper {name}")),
        (Source::Service(_) | Source::Request(_) | Source::Words(_), _) => {
            process::set_name(&format!("keeper {}", start.job));
        }
    }
    let mut client = Client::default();
    // The reply first: whatever fails afterwards can be said.
    let served = load(&start, &mut client).and_then(|request| {
        // Who copies a service's output is not below us: it is to end after us.
        let service = match &start.source {
            Source::Service(run) => Some(Service::open(&start, run)?),
            Source::Request(_) | Source::Words(_) => None,
        };
        let signals = process::become_subreaper().and_then(|()| Signals::some(&[Signal::CHLD]));
        let signals = signals.map_err(refuse("keep a job"))?;
        match service {
            Some(service) => Ok(Keeper::begin_service(&start, signals, request, service)),
            None => Keeper::begin(&start, signals, request, &mut client),
        }
    });
    match served {
        Ok(mut keeper) => keeper.run(),
        Err(Refusal(cause)) => {
            if let (Some(reply), Cause::Refused { reason }) = (&client.reply, &cause) {
                let line = Reply::Refused { reason: reason.clone() }.to_line();
                let _ = patiently(|| fd::write(reply, &line));
            }
            let cause = record::shortened(cause);
            let notice = Notice::Ended { exit: None, cause, wall_us: 0, usage: None }.to_bytes();
            let _ = patiently(|| start.link.send(&notice).map(Some));
        }
    }
    0
}

fn refuse(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Refusal {
    let what = what.into();
    move |error| Refusal(Cause::Refused { reason: format!("cannot {what}: {}", crate::sys::errno(&error)) })
}

/// What must not be lost to a passing shortage: tries for about a second. `Ok(None)`: no room.
fn patiently<T>(mut attempt: impl FnMut() -> std::io::Result<Option<T>>) -> std::io::Result<Option<T>> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Ok(None) => {}
            Err(error) if crate::sys::is_shortage(&error) => {}
            done => return done,
        }
        sleep(PAUSE);
    }
    attempt()
}

/// A command as a person would type it, shortened.
pub fn command_text(command: &[Bytes]) -> String {
    let text = shell_words::join(command.iter().map(Bytes::text));
    match text.char_indices().nth(COMMAND_TEXT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

struct Keeper<'a> {
    start: &'a Start<'a>,
    request: Request,
    words: Vec<CString>,
    cwd: Option<std::path::PathBuf>,
    signals: Signals,
    job: Job,
    reply: Option<File>,
    outputs: Vec<Output>,
    service: Option<Service<'a>>,
    /// The exec's outcome, until it is known.
    outcome: Option<OwnedFd>,
    started: (SystemTime, crate::base::Tick),
    /// The OOM killer's kills in this container before the start, and now.
    oom_kills: (u64, u64),
    /// The last heartbeat, and the CPU time that had been used by then.
    beat: (crate::base::Tick, Duration),
    init_gone: bool,
    facts: VecDeque<JobEvent>,
}

impl<'a> Keeper<'a> {
    fn begin(
        start: &'a Start<'a>,
        signals: Signals,
        request: Request,
        client: &mut Client,
    ) -> Result<Keeper<'a>, Refusal> {
        let words: Vec<CString> = request.command.iter().filter_map(|word| CString::new(word.0.clone()).ok()).collect();
        let cwd = request.cwd.as_ref().map(|cwd| start.cwd.join(cwd.os()));
        let mut own: Vec<Vec<u8>> = request.env.iter().map(|entry| entry.0.clone()).collect();
        own.push(format!("{}={}", place::JOB_VARIABLE, start.job).into_bytes());

        let mut outputs = Vec::new();
        let mut stdio: [Option<OwnedFd>; 3] = [None, None, None];
        stdio[0] = Some(match client.stdin.take() {
            Some(fifo) => blocking(fifo).map_err(refuse("open stdin"))?,
            None => File::open("/dev/null").map_err(refuse("open /dev/null"))?.into(),
        });
        if request.detach || request.keep {
            let directory = make_job_directory(start).map_err(refuse("make the job's directory"))?;
            for (number, fifo) in [(1, client.stdout.take()), (2, client.stderr.take())] {
                let (read, write) = fd::pipe().map_err(refuse("make a pipe"))?;
                let log = output::Log::create(&directory, files::LOGS[number - 1]).map_err(refuse("keep output"))?;
                outputs.push(Output::new(read, log, fifo));
                stdio[number] = Some(write);
            }
        } else {
            // Straight into the client's FIFO: no copy of ours.
            for (number, fifo) in [(1, client.stdout.take()), (2, client.stderr.take())] {
                stdio[number] = fifo.map(blocking).transpose().map_err(refuse("open output"))?;
            }
        }

        let command = spawn::Command {
            words,
            env: Some((start.environment)(&own)),
            cwd: Some(cwd.as_deref().unwrap_or(start.cwd)),
            stdio: [stdio[0].as_ref(), stdio[1].as_ref(), stdio[2].as_ref()],
            third: None,
            pid_variable: None,
            original: &start.original.for_jobs(),
            reset: start.ignored,
            group: spawn::Group::Session,
        };
        let started = (SystemTime::now(), clock::now());
        let oom_kills = start.oom.map_or(0, inspect::OomCounter::kills);
        let spawned = command.spawn().map_err(refuse("fork"))?;
        let words = command.words;
        drop(stdio);

        let config = JobConfig {
            timeout: request.timeout(),
            grace: request.grace(),
            default_grace: start.grace,
            bound_to_client: !request.detach && !request.keep,
            heartbeat: request.heartbeat().filter(|_| !request.detach),
        };
        let mut keeper = Keeper {
            job: Job::new(config, process::me()),
            reply: client.reply.take(),
            outcome: Some(spawned.outcome),
            facts: VecDeque::from([JobEvent::Forked(spawned.pid)]),
            init_gone: false,
            start,
            request,
            words,
            cwd,
            signals,
            outputs,
            service: None,
            started,
            oom_kills: (oom_kills, oom_kills),
            beat: (started.1, Duration::ZERO),
        };
        keeper.tell(&Notice::Command(command_text(&keeper.request.command)));
        if let Source::Request(id) = start.source {
            forget_request(start.control, id);
        }
        Ok(keeper)
    }

    /// The same for one run of a service: what is forked when, its [`Job`] says.
    fn begin_service(start: &'a Start<'a>, signals: Signals, request: Request, service: Service<'a>) -> Keeper<'a> {
        let config = JobConfig {
            timeout: None,
            grace: service.run().stop.grace,
            default_grace: start.grace,
            bound_to_client: false,
            heartbeat: None,
        };
        let started = (SystemTime::now(), clock::now());
        let oom_kills = start.oom.map_or(0, inspect::OomCounter::kills);
        let mut keeper = Keeper {
            job: Job::service(config, process::me(), service.run().clone()),
            reply: None,
            outcome: None,
            facts: VecDeque::from([JobEvent::Begin]),
            init_gone: false,
            start,
            request,
            words: service.words(),
            cwd: Some(service.cwd().to_owned()),
            signals,
            outputs: Vec::new(),
            service: Some(service),
            started,
            oom_kills: (oom_kills, oom_kills),
            beat: (started.1, Duration::ZERO),
        };
        keeper.tell(&Notice::Command(command_text(&keeper.request.command)));
        keeper
    }

    fn run(&mut self) {
        self.until_quiet();
        while !self.job.has_ended() {
            self.wait();
            self.until_quiet();
            if self.job.deadline().is_some_and(|deadline| deadline <= clock::now()) {
                self.facts.push_back(JobEvent::Tick);
                self.until_quiet();
            }
        }
    }

    /// Facts in, orders out, until no fact is left. Every fact and order passes here.
    fn until_quiet(&mut self) {
        let mut orders = Vec::new();
        while let Some(event) = self.facts.pop_front() {
            log::trace!("{}: {event:?}", self.start.job);
            self.job.step(clock::now(), event, &mut orders);
            for order in std::mem::take(&mut orders) {
                log::trace!("{}:   {order:?}", self.start.job);
                self.perform(order);
            }
        }
    }

    /// Waits for the next thing and takes it in: ends last, so that what was said before them comes first.
    fn wait(&mut self) {
        let mut fds = vec![(self.signals.fd().as_fd(), Interest::Read)];
        let link = add(&mut fds, (!self.init_gone).then(|| (self.start.link.fd().as_fd(), Interest::Read)));
        let outcome = add(&mut fds, self.outcome.as_ref().map(|fd| (fd.as_fd(), Interest::Read)));
        let reply = add(&mut fds, self.reply.as_ref().map(|fd| (fd.as_fd(), Interest::Hangup)));
        let outputs: Vec<_> = self.outputs.iter().map(|output| add(&mut fds, output.interest())).collect();
        let of_service = self.service.as_ref().map(Service::interests).unwrap_or_default();
        let first_of_service = fds.len();
        fds.extend(of_service.iter().map(|(_, fd, interest)| (*fd, *interest)));
        let timeout = self.job.deadline().map(|deadline| deadline.since(clock::now()));
        let ready = match wait_any(&fds, timeout) {
            Ok(ready) => ready,
            Err(error) => {
                log::error!("{}: cannot wait for events: {error}", self.start.job);
                return;
            }
        };
        let is_ready = |index: Option<usize>| index.is_some_and(|index| ready[index]);
        let heard = of_service.iter().zip(&ready[first_of_service..]).filter(|(_, ready)| **ready);
        let heard: Vec<service::Ear> = heard.map(|((ear, ..), _)| *ear).collect();
        if let Some(service) = &mut self.service {
            service.hear(&heard, &mut self.facts);
        }
        for (output, index) in self.outputs.iter_mut().zip(&outputs) {
            if is_ready(*index) {
                output.relay();
            }
        }
        if is_ready(link) {
            self.take_orders();
        }
        if is_ready(outcome) {
            self.take_outcome();
        }
        if is_ready(reply) {
            self.reply = None;
            self.facts.push_back(JobEvent::ClientGone);
        }
        if ready[0] {
            while self.signals.next().is_some() {}
            if let Some(service) = &mut self.service {
                service.hear_all(&mut self.facts);
            }
            self.reap();
        }
    }

    fn take_orders(&mut self) {
        loop {
            match self.start.link.receive() {
                Received::Message(message) => match Order::parse(&message) {
                    Some(order) => self.facts.push_back(JobEvent::Order(order)),
                    None => log::warn!("{}: an order that is not understood", self.start.job),
                },
                Received::Nothing => return,
                Received::Gone => {
                    self.init_gone = true;
                    // The client is not to wait for a grace that its init did not survive.
                    self.reply = None;
                    self.facts.push_back(JobEvent::InitGone);
                    return;
                }
            }
        }
    }

    fn take_outcome(&mut self) {
        let Some(fd) = &self.outcome else { return };
        let cwd = self.cwd.as_deref().unwrap_or(self.start.cwd);
        if let Some(outcome) = spawn::outcome(fd, &self.words, Some(cwd)) {
            self.outcome = None;
            self.facts.push_back(outcome.map_or_else(JobEvent::NotExecuted, |()| JobEvent::Executed));
        }
    }

    fn reap(&mut self) {
        // Its exec's outcome was there before its end.
        self.take_outcome();
        loop {
            match reap() {
                Reaped::Child(pid, exit, used) => {
                    if exit == Exit::Signal(Signal::KILL) && self.look_for_oom() {
                        self.blame_oom(used.max_rss_bytes);
                    }
                    if let Some(service) = &mut self.service {
                        service.task_ended(pid, exit, &mut self.facts);
                    }
                    self.facts.push_back(JobEvent::Reaped(pid, exit));
                }
                Reaped::Stopped(_) => {}
                Reaped::NoneYet => return,
                Reaped::NoChild => {
                    // The mount may have gone with its daemon.
                    if let Some(service) = &mut self.service {
                        service.hear_all(&mut self.facts);
                    }
                    self.facts.push_back(JobEvent::Alone);
                    return;
                }
            }
        }
    }

    /// The kernel counts a kill before it sends the signal.
    fn look_for_oom(&mut self) -> bool {
        let kills = self.start.oom.map_or(0, inspect::OomCounter::kills);
        let more = kills > self.oom_kills.1;
        self.oom_kills.1 = self.oom_kills.1.max(kills);
        more
    }

    fn blame_oom(&mut self, max_rss_bytes: u64) {
        let limit_bytes = self.start.oom.and_then(inspect::OomCounter::limit);
        self.facts.extend(OomKill::blame(limit_bytes, max_rss_bytes).map(JobEvent::OomKill));
    }

    fn perform(&mut self, order: JobAction) {
        let job = self.start.job;
        match order {
            JobAction::TellStarted(pid) => {
                self.tell(&Notice::Started(pid));
                self.answer(&Reply::Started { job, pid });
            }
            JobAction::TellEnding => self.tell(&Notice::Ending),
            JobAction::TellStuck(left) => self.tell(&Notice::Stuck(explained(&left))),
            JobAction::Beat => self.beat(),
            JobAction::Look => {
                let mut seen = inspect::below(process::me()).unwrap_or_else(|| {
                    log::warn!("{job}: cannot inspect its processes: no usable /proc");
                    Vec::new()
                });
                inspect::note_lingering(&mut seen);
                if seen.is_empty() {
                    self.reap();
                }
                self.facts.push_back(JobEvent::Looked(seen));
            }
            JobAction::Signal(pid, signal) => report(signals::send(pid, signal), job, signal, pid),
            JobAction::SignalGroup(group, signal) => {
                if let Some(leader) = Pid::new(group.get()) {
                    report(signals::send_group(group, signal), job, signal, leader);
                }
            }
            JobAction::Report { exit, cause, left } => {
                // What it said comes before that it has ended.
                self.finish_outputs();
                self.look_for_oom();
                let oom_kills = self.oom_kills.1 - self.oom_kills.0;
                self.answer(&Reply::Ended { job, exit, cause, left: explained(&left), oom_kills });
            }
            JobAction::ForkCommand => self.fork_command(),
            JobAction::Fork(task) => {
                if let Some(service) = &mut self.service {
                    let fact = match service.fork(task) {
                        Ok(pid) => JobEvent::TaskForked(task, pid),
                        Err(error) => {
                            JobEvent::TaskNotForked(task, format!("cannot fork: {}", crate::sys::errno(&error)))
                        }
                    };
                    self.facts.push_back(fact);
                }
            }
            JobAction::EndTask(pid) => service::end_task(pid),
            JobAction::NameHolders { lazily } => {
                if let Some(service) = &self.service {
                    service.name_holders(lazily);
                }
            }
            JobAction::Tell(notice) => self.tell(&notice),
            JobAction::AwaitKernel => let_go(),
            JobAction::Finish { exit, cause } => self.finish(exit, cause),
        }
    }

    fn fork_command(&mut self) {
        let Some(service) = &mut self.service else { return };
        match service.fork_command() {
            Ok(spawned) => {
                self.outcome = Some(spawned.outcome);
                self.facts.push_back(JobEvent::Forked(spawned.pid));
            }
            Err(error) => {
                let failure = ExecFailure { what: "fork".into(), errno: crate::sys::errno(&error), interpreter: None };
                self.facts.push_back(JobEvent::NotExecuted(failure));
            }
        }
    }

    fn beat(&mut self) {
        let Some(load) = inspect::load_below(process::me()) else { return };
        let now = clock::now();
        let cpu = load.cpu + self.reaped_cpu();
        let (since, before) = std::mem::replace(&mut self.beat, (now, cpu));
        let milli = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let passed = now.since(since).as_micros().max(1);
        let alive = Alive {
            wall_ms: milli(now.since(self.started.1)),
            cpu_milli: u64::try_from(cpu.saturating_sub(before).as_micros() * 1000 / passed).unwrap_or(u64::MAX),
            cpus_milli: cpus_milli(),
            rss_bytes: load.rss_bytes,
            processes: load.processes,
        };
        self.answer(&Reply::Alive(alive));
    }

    fn reaped_cpu(&self) -> Duration {
        let used = children_usage();
        used.user + used.system
    }

    fn tell(&mut self, notice: &Notice) {
        let message = notice.to_bytes();
        if !self.init_gone && patiently(|| self.start.link.send(&message).map(Some)).is_err() {
            log::debug!("{}: the init does not listen", self.start.job);
        }
    }

    fn answer(&mut self, reply: &Reply) {
        if let Some(fifo) = &self.reply {
            let line = reply.to_line();
            let _ = patiently(|| fd::write(fifo, &line));
        }
    }

    fn finish_outputs(&mut self) {
        for output in &mut self.outputs {
            output.finish(self.start.grace);
        }
        if let Some(service) = &mut self.service {
            service.finish_outputs();
        }
    }
}

/// The CPUs that the job may use, in thousandths: those that it may run on, and what its group may have of them.
fn cpus_milli() -> u64 {
    let own = process::cpus() as u64 * 1000;
    let share = inspect::limits(process::me()).cpu.and_then(|cpu| cpu.limit);
    share.map_or(own, |share| own.min((share * 1000.0) as u64))
}

fn add<T>(list: &mut Vec<T>, entry: Option<T>) -> Option<usize> {
    list.push(entry?);
    Some(list.len() - 1)
}

fn blocking(file: File) -> std::io::Result<OwnedFd> {
    fd::set_nonblocking(&file, false)?;
    Ok(file.into())
}

/// The same processes, with all that can be seen of where they hang.
fn explained(left: &[Leftover]) -> Vec<Leftover> {
    let pids: Vec<Pid> = left.iter().map(|process| process.pid).collect();
    if pids.is_empty() { Vec::new() } else { explain(&pids, false, stuck::MOST) }
}

/// A process that has ended meanwhile is no news.
fn report(result: std::io::Result<()>, job: JobId, signal: Signal, pid: Pid) {
    if let Err(error) = result {
        let errno = crate::sys::errno(&error);
        if errno != crate::base::Errno::ESRCH {
            log::warn!("{job}: cannot send {signal} to pid {pid}: {errno}");
        }
    }
}
