//! A keeper: the small process between the init and one job, or one run of a service. It may block; only its job would notice.
//!
//! It is a fork of the init without exec and the subreaper of its tree. It serves one request from
//! beginning to end: opens the client's FIFOs, starts the command, watches over it as [`Job`] decides,
//! writes the record, and exits.

mod begin;
mod cgroup;
mod check;
mod hear;
mod late;
pub mod limits;
pub mod logger;
mod mount;
mod output;
mod record;
mod relay;
mod request;
mod service;
mod sink;
mod stuck;
mod task;
mod terminal;
mod users;

pub use cgroup::Cgroup;
pub use late::let_go;
pub use record::{remove_kept, usage};
pub use request::LARGEST_REQUEST;
pub use stuck::explain;

use std::{
    collections::VecDeque,
    ffi::CString,
    fs::File,
    os::fd::OwnedFd,
    path::Path,
    thread::sleep,
    time::{Duration, SystemTime},
};

use crate::{
    base::{ExecFailure, Exit, JobId, Name, Pid, Signal},
    core::{Job, JobAction, JobEvent, Source},
    inspect,
    proto::{Alive, Bytes, Cause, Leftover, Notice, Reply, Request},
    sys::{
        clock,
        dir::Dir,
        fd,
        link::Link,
        process,
        signals::{self, Signals},
        spawn,
        start::Original,
        wait::{self, children_usage},
    },
};
use output::Output;
use request::{Client, load};
use service::Service;
use terminal::Terminal;

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
    /// The control directory, where there is one; only a service can do without.
    pub control: Option<&'a Dir>,
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
    match begin(&start, &mut client) {
        Ok(mut keeper) => keeper.run(),
        Err(Refusal(cause)) => {
            if let (Some(reply), Cause::Refused { reason }) = (&client.reply, &cause) {
                let line = Reply::Refused { reason: reason.clone() }.to_line();
                let _ = patiently(|| fd::write(reply, &line));
            }
            let cause = record::shortened(cause);
            let notice = Notice::Ended { exit: None, cause, wall_us: 0, usage: None }.to_bytes();
            let _ = patiently(|| start.link.send(&notice).map(Some));
            record::prune(&start);
        }
    }
    0
}

/// In a frame of its own: below a larger one a keeper would need more of its own memory for as long as it lives.
#[inline(never)]
fn begin<'a>(start: &'a Start<'a>, client: &mut Client) -> Result<Box<Keeper<'a>>, Refusal> {
    // The reply first: whatever fails afterwards can be said.
    let (request, place) = load(start, client)?;
    // Who copies a service's output is not below us: it is to end after us.
    let service = match &start.source {
        Source::Service(run) => Some(Service::open(start, run)?),
        Source::Request(_) | Source::Words(_) => None,
    };
    let signals = process::become_subreaper().and_then(|()| Signals::some(&[Signal::CHLD]));
    let signals = signals.map_err(refuse("keep a job"))?;
    let keeper = match service {
        Some(service) => Keeper::begin_service(start, signals, request, service),
        None => Keeper::begin(start, signals, request, client)?,
    };
    // What nobody waits for, while the command is being executed.
    if let Some(place) = place {
        place.remove();
    }
    record::prune(start);
    Ok(keeper)
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
    /// Its own control group.
    group: Option<Cgroup>,
    /// What that gives it of the CPUs.
    cpu_milli: Option<u64>,
    signals: Signals,
    job: Job,
    reply: Option<File>,
    outputs: Vec<Output>,
    /// Instead of those.
    terminal: Option<Terminal>,
    service: Option<Service<'a>>,
    /// The exec's outcome, until it is known.
    outcome: Option<OwnedFd>,
    started: (SystemTime, crate::base::Tick),
    /// The OOM killer's kills in this container before the start, and now.
    oom_kills: (u64, u64),
    /// The last heartbeat, and the CPU time that had been used by then.
    beat: (crate::base::Tick, Duration),
    init_gone: bool,
    /// It has said that it cannot see its processes.
    blind_said: bool,
    facts: VecDeque<JobEvent>,
}

impl Keeper<'_> {
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
                // Who forks all the time may have ended by now.
                self.reap();
                let Some(mut seen) = inspect::below(process::me()) else {
                    if !std::mem::replace(&mut self.blind_said, true) {
                        log::warn!("{job}: cannot inspect its processes, only end its process group: no usable /proc");
                    }
                    self.reap();
                    let in_group = self.job.group().is_some_and(wait::has_child_in);
                    return self.facts.push_back(JobEvent::LookedInVain(in_group));
                };
                inspect::note_lingering(&mut seen);
                // Who writes its log is not of the tree.
                let logger = self.service.as_ref().and_then(Service::logger);
                seen.retain(|process| Some(process.id.pid) != logger);
                if seen.is_empty() {
                    self.reap();
                }
                self.facts.push_back(JobEvent::Looked(seen));
            }
            JobAction::Signal(pid, signal) => report(signals::send(pid, signal), job, signal, pid),
            JobAction::SignalGroup(group, signal) => {
                if let Some(leader) = Pid::new(group.get()) {
                    let sent = match self.job.command() == Some(leader) {
                        true => signals::send_to_led(leader, signal),
                        false => signals::send_group(group, signal),
                    };
                    report(sent, job, signal, leader);
                }
            }
            JobAction::Report { exit, cause, left } => {
                // What it said comes before that it has ended. Where it has, this is done.
                if !self.job.has_ended() {
                    self.finish_outputs();
                    self.look_for_oom();
                }
                let oom_kills = self.oom_kills.1 - self.oom_kills.0;
                let cause = self.blame(exit, cause);
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
            JobAction::EndTask(pid) => task::end(pid),
            JobAction::NameHolders { lazily } => {
                if let Some(service) = &self.service {
                    service.name_holders(lazily);
                }
            }
            JobAction::Tell(notice) => self.tell(&notice),
            JobAction::AwaitKernel => let_go(),
            JobAction::Finish { exit, cause } => {
                let cause = self.blame(exit, cause);
                self.finish(exit, cause);
            }
        }
    }

    fn blame(&self, exit: Option<Exit>, cause: Cause) -> Cause {
        match &self.terminal {
            Some(terminal) => terminal.blame(exit, cause),
            None => cause,
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
        if let Some(terminal) = &mut self.terminal {
            terminal.finish(self.start.grace);
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
