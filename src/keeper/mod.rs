//! A keeper: the small process between the init and one job. It may block; only its job would notice.
//!
//! It is a fork of the init without exec and the subreaper of its tree. It serves one request from
//! beginning to end: opens the client's FIFOs, starts the command, watches over it as [`Job`] decides,
//! writes the record, and exits.

mod cgroup;
mod late;
pub mod limits;
pub mod logger;
mod output;
mod stuck;
mod users;

pub use cgroup::Cgroup;
pub use late::let_go;
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
    base::{Exit, JobId, Name, Pid, RequestId, Signal, Subject},
    core::{Job, JobAction, JobConfig, JobEvent, Source},
    inspect,
    proto::{
        Alive, Bytes, Cause, Io, Leftover, Notice, OomKill, Order, Record, Reply, Request, Usage, VERSION, files,
        place, record_time,
    },
    sys::{
        clock,
        dir::{Access, Dir},
        fd,
        link::{Link, Received},
        poll::{Interest, wait_any},
        process,
        signals::{self, Signals},
        spawn,
        start::Original,
        wait::{self, Reaped, children_usage, reap},
    },
};
use output::Output;

/// The largest `request.json` that is read, in bytes: more than `execve(2)` takes.
pub const LARGEST_REQUEST: u64 = 64 << 20;
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
    pub environment: &'a dyn Fn(&[Vec<u8>]) -> spawn::Environment,
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
}

/// Why a job did not even begin: the cause, and whether the client is told.
struct Refusal(Cause);

/// The client's ends of a request.
#[derive(Default)]
struct Client {
    reply: Option<File>,
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
}

/// Serves one job. Answers with the keeper's exit code, which nobody needs: the init was told.
pub fn run(start: Start) -> u8 {
    process::set_name(&format!("keeper {}", start.job));
    let mut client = Client::default();
    // The reply first: whatever fails afterwards can be said.
    let served = load(&start, &mut client).and_then(|(request, place)| {
        let signals = process::become_subreaper().and_then(|()| Signals::some(&[Signal::CHLD]));
        let keeper = Keeper::begin(&start, signals.map_err(refuse("keep a job"))?, request, &mut client)?;
        // What nobody waits for, while the command is being executed.
        if let Some(place) = place {
            place.remove();
        }
        prune(&start);
        Ok(keeper)
    });
    match served {
        Ok(mut keeper) => keeper.run(),
        Err(Refusal(cause)) => {
            if let (Some(reply), Cause::Refused { reason }) = (&client.reply, &cause) {
                let line = Reply::Refused { reason: reason.clone() }.to_line();
                let _ = patiently(|| fd::write(reply, &line));
            }
            let notice = Notice::Ended { exit: None, cause, wall_us: 0, usage: None }.to_bytes();
            let _ = patiently(|| start.link.send(&notice).map(Some));
            prune(&start);
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

/// Reads the request and opens its FIFOs. Answers also with where it is, if it is anywhere.
fn load(start: &Start, client: &mut Client) -> Result<(Request, Option<Place>), Refusal> {
    let id = match &start.source {
        Source::Request(id) => *id,
        Source::Words(words) => {
            let words = words.iter().map(|word| Bytes::from(word.as_str())).collect();
            return Ok((Request { detach: true, ..Request::new(words) }, None));
        }
        Source::Service(run) => {
            let words = run.command.iter().map(|word| Bytes::from(word.as_str())).collect();
            return Ok((Request { detach: true, ..Request::new(words) }, None));
        }
    };
    let shortage = |error: std::io::Error, what: &str| match crate::sys::is_shortage(&error) {
        true => refuse(what)(error),
        // Gone with its client.
        false => Refusal(Cause::ClientGone),
    };
    let place = Place::open(start.control, id).map_err(|error| shortage(error, "open the request"))?;
    let directory = &place.directory;
    // Whoever may command us: the directory's owner, and root, who may drive us from the host.
    let owners = [0, process::uid()];
    client.reply = match directory.open_fifo(files::REPLY, Access::Write, Some(&owners)) {
        Err(error) if crate::sys::is_shortage(&error) => return Err(shortage(error, "open the client's reply")),
        reply => reply.ok(),
    };
    let json = directory.read_file(files::REQUEST, LARGEST_REQUEST, &owners);
    let json = json.map_err(refuse(format!("read {}", files::REQUEST)))?;
    let request = Request::parse(&json).map_err(|bad| Refusal(Cause::Refused { reason: bad.to_string() }))?;
    if client.reply.is_none() && !request.detach {
        return Err(Refusal(Cause::ClientGone));
    }
    let open = |number: usize, access| {
        let name = files::STREAMS[number];
        let file = directory.open_fifo(name, access, Some(&owners));
        file.map(Some).map_err(refuse(format!("open {name}")))
    };
    if request.stdin {
        client.stdin = open(0, Access::Read)?;
    }
    if !request.detach {
        client.stdout = open(1, Access::Write)?;
        client.stderr = open(2, Access::Write)?;
    }
    Ok((request, Some(place)))
}

/// A request's directory, and where that is.
struct Place {
    requests: Dir,
    name: String,
    directory: Dir,
}

impl Place {
    fn open(control: &Dir, id: RequestId) -> std::io::Result<Place> {
        let requests = control.dir(files::REQUESTS)?;
        let name = id.to_string();
        let directory = requests.dir(&name)?;
        Ok(Place { requests, name, directory })
    }

    /// Both ends are open, nobody needs the names.
    fn remove(self) {
        for file in [files::REQUEST, files::REPLY].iter().chain(&files::STREAMS) {
            let _ = self.directory.remove(file);
        }
        let _ = self.requests.remove_dir(&self.name);
    }
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
    /// Its own control group.
    group: Option<Cgroup>,
    /// What that gives it of the CPUs.
    cpu_milli: Option<u64>,
    signals: Signals,
    job: Job,
    reply: Option<File>,
    outputs: Vec<Output>,
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
        let refused = |reason| Refusal(Cause::Refused { reason });
        let wanted = limits::of_request(&request);
        let init = process::parent().unwrap_or(Pid::INIT);
        let resolved = limits::resolve(&wanted, init, &start.job.to_string()).map_err(refused)?;
        // What somebody gave it by name counts more.
        own.splice(..0, resolved.env.iter().cloned());

        let mut outputs = Vec::new();
        let mut stdio: [Option<OwnedFd>; 3] = [None, None, None];
        stdio[0] = Some(match client.stdin.take() {
            Some(fifo) => blocking(fifo).map_err(refuse("open stdin"))?,
            None => fd::open(Path::new("/dev/null")).map_err(refuse("open /dev/null"))?.into(),
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
            original: &start.original.for_jobs(),
            reset: start.ignored,
            group: spawn::Group::Session,
            limits: Some(&resolved.limits),
        };
        let started = (SystemTime::now(), clock::now());
        let oom_kills = resolved.oom().or(start.oom).map_or(0, inspect::OomCounter::kills);
        let spawned = command.spawn().map_err(refuse("fork"))?;
        let words = command.words;
        drop(stdio);
        let group = resolved.group;

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
            group,
            cpu_milli: wanted.cpu_milli,
            signals,
            outputs,
            started,
            oom_kills: (oom_kills, oom_kills),
            beat: (started.1, Duration::ZERO),
        };
        keeper.tell(&Notice::Command(command_text(&keeper.request.command)));
        Ok(keeper)
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
        let timeout = self.job.deadline().map(|deadline| deadline.since(clock::now()));
        let ready = match wait_any(&fds, timeout) {
            Ok(ready) => ready,
            Err(error) => {
                log::error!("{}: cannot wait for events: {error}", self.start.job);
                return;
            }
        };
        let is_ready = |index: Option<usize>| index.is_some_and(|index| ready[index]);
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
            // SIGCHLD does not queue: one read takes it.
            let _ = self.signals.next();
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
                    self.facts.push_back(JobEvent::Reaped(pid, exit));
                }
                Reaped::Stopped(_) => {}
                Reaped::NoneYet => return,
                Reaped::NoChild => {
                    self.facts.push_back(JobEvent::Alone);
                    return;
                }
            }
        }
    }

    /// Where kills are counted: in the job's own group, if it has one for memory.
    fn oom(&self) -> Option<&inspect::OomCounter> {
        self.group.as_ref().and_then(Cgroup::oom).or(self.start.oom)
    }

    /// The kernel counts a kill before it sends the signal.
    fn look_for_oom(&mut self) -> bool {
        let kills = self.oom().map_or(0, inspect::OomCounter::kills);
        let more = kills > self.oom_kills.1;
        self.oom_kills.1 = self.oom_kills.1.max(kills);
        more
    }

    fn blame_oom(&mut self, max_rss_bytes: u64) {
        let limit_bytes = self.oom().and_then(inspect::OomCounter::limit);
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
                self.facts.push_back(JobEvent::Looked(seen));
            }
            JobAction::Signal(pid, signal) => report(signals::send(pid, signal), job, signal, pid),
            JobAction::SignalGroup(group, signal) => {
                if let Some(leader) = Pid::new(group.get()) {
                    report(signals::send_group(group, signal), job, signal, leader);
                }
            }
            JobAction::Report { exit, cause, left } => {
                // What it said comes before that it has ended. Where it has, this is done.
                if !self.job.has_ended() {
                    self.finish_outputs();
                    self.look_for_oom();
                }
                let oom_kills = self.oom_kills.1 - self.oom_kills.0;
                self.answer(&Reply::Ended { job, exit, cause, left: explained(&left), oom_kills });
            }
            JobAction::AwaitKernel => let_go(),
            JobAction::Finish { exit, cause } => self.finish(exit, cause),
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
            cpus_milli: cpus_milli().min(self.cpu_milli.unwrap_or(u64::MAX)),
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
    }

    fn finish(&mut self, exit: Option<Exit>, cause: Cause) {
        self.finish_outputs();
        self.look_for_oom();
        if let Some(group) = &mut self.group {
            group.remove();
        }
        let (started, tick) = self.started;
        let wall_us = u64::try_from(clock::now().since(tick).as_micros()).unwrap_or(u64::MAX);
        let oom_kills = self.oom_kills.1 - self.oom_kills.0;
        let usage = Usage { oom_kills, ..usage(&children_usage(), inspect::children_io()) };
        let record = Record {
            version: VERSION,
            job: Subject::Job(self.start.job),
            name: self.start.name.clone(),
            command: self.request.command.clone(),
            started: record_time(started),
            ended: record_time(SystemTime::now()),
            wall_us,
            exit,
            cause: cause.clone(),
            usage,
        };
        let written = make_job_directory(self.start).and_then(|dir| dir.write_file(files::RECORD, &record.to_json()));
        if let Err(error) = written {
            log::warn!("{}: cannot write its record: {}", self.start.job, crate::sys::errno(&error));
        }
        self.tell(&Notice::Ended { exit, cause, wall_us, usage: Some(usage) });
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

/// Removes the directories that are no longer kept.
fn prune(start: &Start) {
    if start.prune.is_empty() {
        return;
    }
    if let Ok(jobs) = start.control.dir(files::JOBS) {
        for old in start.prune.iter().map(JobId::to_string) {
            // Usually there is a record and nothing else.
            let record = jobs.dir(&old).and_then(|directory| directory.remove(files::RECORD));
            if record.and_then(|()| jobs.remove_dir(&old)).is_err() {
                let _ = jobs.remove_tree(&old);
            }
        }
    }
}

/// The job's directory.
fn make_job_directory(start: &Start) -> std::io::Result<Dir> {
    let jobs = start.control.dir(files::JOBS)?;
    let name = start.job.to_string();
    jobs.make_dir(&name)?;
    jobs.dir(&name)
}

/// What processes used, as a record has it.
pub fn usage(used: &wait::Usage, io: Option<inspect::Io>) -> Usage {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let io = io.map(|inspect::Io { chars, bytes }| Io {
        read_chars: chars[0],
        written_chars: chars[1],
        read_bytes: bytes[0],
        written_bytes: bytes[1],
    });
    Usage {
        cpu_user_us: micros(used.user),
        cpu_system_us: micros(used.system),
        max_rss_bytes: used.max_rss_bytes,
        io,
        oom_kills: 0,
    }
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
