//! A service's log, as a process of its own: it reads what the service says, and writes lines.
//!
//! A write to a file may hang for ever, on a volume whose server is dead; a pipe may have nobody who reads it. The
//! keeper supervises and must not wait for either, so it forks this. What it cannot write waits in a queue of bounded
//! size, and what has no room there is dropped, counted, and told in the log itself as soon as that takes something
//! again. The service waits for nothing but a write that hangs.
//!
//! | it ends when | and before that |
//! |---|---|
//! | nobody has the other end of both pipes any more | it writes what is left, for a second at most |
//! | the keeper says that the tree is empty ([`Logger::finish`]) | likewise, with what is in the pipes |
//! | the keeper has died (its link is closed) | likewise |
//!
//! It is no child that `wait` counts ([`spawn::fork_aside`]), but a process below the keeper like any other: whoever
//! ends what is there leaves [`Logger::pid`] out.

mod lines;
mod sink;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    thread::sleep,
    time::{Duration, SystemTime},
};

use crate::{
    base::{Name, Pid, Signal, Tick},
    core::service::{Log, Sink as Where},
    sys::{
        clock, fd,
        link::{Link, Received},
        outlet::Outlet,
        poll::{Interest, wait_any},
        process, signals, spawn, wait,
    },
};
use lines::Lines;
use sink::{Rotated, STREAMS, Sink};

/// For what is left at the end: half of it for what is in the pipes.
const DRAIN: Duration = Duration::from_secs(1);
/// More for the process's end, and after SIGKILL.
const END: Duration = Duration::from_millis(500);
/// Between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(1);
/// How often it says how many lines were dropped, at most.
const TELL: Duration = Duration::from_secs(1);
/// The last message of each side.
const LAST: &[u8] = b"end";
/// What is read at once.
const CHUNK: usize = 64 * 1024;

/// A logger that runs.
#[derive(Debug)]
pub struct Logger {
    /// For the service's standard output.
    pub stdout: OwnedFd,
    /// For its standard error.
    pub stderr: OwnedFd,
    /// Its process id.
    pub pid: Pid,
    link: Link,
    /// It has closed its end.
    gone: bool,
}

/// How a logger ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finished {
    /// It has ended.
    Ended {
        /// Lines that it could not write; `None`: it died and did not say.
        dropped: Option<u64>,
    },
    /// It hangs in the kernel, and SIGKILL has not ended it yet. It is left to whoever is our parent.
    Stuck(Pid),
}

/// Starts one for the service `name`. `stdout` and `stderr` are what it would inherit; `None`: there is none, and what
/// would go there goes nowhere. They are not changed.
pub fn start(log: &Log, name: &Name, stdout: Option<BorrowedFd>, stderr: Option<BorrowedFd>) -> io::Result<Logger> {
    let name = name.as_str();
    // Before the fork: who cannot have them is told.
    let sinks = match &log.sink {
        Where::File { path, max, keep } => {
            vec![Sink::file(name, log.format, Rotated::new(path, *max, *keep))]
        }
        Where::Inherit => {
            let output = |fd: Option<BorrowedFd>| match fd {
                Some(fd) => Outlet::new(fd),
                None => Outlet::new(std::fs::File::options().write(true).open("/dev/null")?.as_fd()),
            };
            let outlets = [output(stdout)?, output(stderr)?];
            outlets.into_iter().map(|outlet| Sink::output(name, log.format, outlet)).collect()
        }
    };
    let (out, stdout) = fd::pipe()?;
    let (err, stderr) = fd::pipe()?;
    let (ours, link) = Link::pair()?;
    let inputs = [out, err];
    let mut sinks = Some(sinks);
    let pid = spawn::fork_aside(|| {
        process::set_name(&format!("log {name}"));
        fd::detach_stdio();
        let sinks = sinks.take().unwrap_or_default();
        let own = sinks.iter().filter_map(Sink::raw_fd);
        let kept: Vec<i32> = inputs.iter().map(AsRawFd::as_raw_fd).chain([ours.fd().as_raw_fd()]).chain(own).collect();
        fd::close_all_but(&kept);
        let mut worker = Worker {
            name,
            inputs: inputs.each_ref().map(Some),
            lines: [(); 2].map(|()| Lines::new(log.format)),
            sinks,
            link: &ours,
            end: None,
            told: (0, Tick::default()),
        };
        let lost = worker.run();
        if lost > 0 {
            log::warn!("{name}: {lost} lines of its log were dropped");
        }
        let _ = ours.send(&lost.to_ne_bytes()).and_then(|()| ours.send(LAST));
        0
    })?;
    Ok(Logger { stdout, stderr, pid, link, gone: false })
}

/// A message of its process: how many lines were dropped so far.
fn count(message: Vec<u8>) -> Option<u64> {
    message.try_into().ok().map(u64::from_ne_bytes)
}

impl Logger {
    /// What to wait on for [`Logger::dropped`], while there may be more.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.link.fd().as_fd()).filter(|_| !self.gone)
    }

    /// How many lines were dropped so far, if it says something new.
    pub fn dropped(&mut self) -> Option<u64> {
        match self.link.receive() {
            Received::Message(message) => count(message),
            Received::Nothing => None,
            Received::Gone => {
                self.gone = true;
                None
            }
        }
    }

    /// The tree is empty: has it write what is left, which takes no more than a second, and waits for its end, which may
    /// take half a second more.
    pub fn finish(self) -> Finished {
        let Logger { stdout, stderr, pid, link, gone: _ } = self;
        drop((stdout, stderr));
        let _ = link.send(LAST);
        let deadline = clock::now() + DRAIN + END;
        let (mut dropped, mut said_all) = (None, false);
        loop {
            match link.receive() {
                Received::Message(message) if message == LAST => said_all = true,
                Received::Message(message) => dropped = count(message),
                Received::Gone => break,
                Received::Nothing => {
                    let left = deadline.since(clock::now());
                    if left.is_zero() {
                        let _ = signals::send(pid, Signal::KILL);
                        break;
                    }
                    let _ = wait_any(&[(link.fd().as_fd(), Interest::Read)], Some(left));
                }
            }
        }
        let deadline = clock::now() + END;
        while !wait::has_ended(pid) {
            if clock::now() >= deadline {
                return Finished::Stuck(pid);
            }
            sleep(PAUSE);
        }
        Finished::Ended { dropped: dropped.filter(|_| said_all) }
    }
}

/// The process itself.
struct Worker<'a> {
    name: &'a str,
    inputs: [Option<&'a OwnedFd>; 2],
    lines: [Lines; 2],
    /// One for both streams, or one for each.
    sinks: Vec<Sink>,
    link: &'a Link,
    /// Nothing more comes: by when it is over.
    end: Option<Tick>,
    /// What the keeper was told of lines that were dropped, and when.
    told: (u64, Tick),
}

impl Worker<'_> {
    /// Answers how many lines were lost.
    fn run(&mut self) -> u64 {
        loop {
            self.sinks.iter_mut().for_each(|sink| sink.flush(false));
            if let Some(end) = self.end
                && (self.sinks.iter().all(Sink::is_idle) || clock::now() >= end)
            {
                return self.sinks.drain(..).map(Sink::give_up).sum();
            }
            self.tell_dropped();
            self.wait();
            if self.end.is_none() {
                let told = !matches!(self.link.receive(), Received::Nothing);
                for stream in 0..STREAMS.len() {
                    self.read(stream, told);
                }
                if told || self.inputs.iter().all(Option::is_none) {
                    self.finish();
                }
            }
        }
    }

    fn dropped(&self) -> u64 {
        self.sinks.iter().map(Sink::dropped).sum()
    }

    /// When the keeper is to be told, if it does not know.
    fn tell_at(&self) -> Option<Tick> {
        let (known, at) = self.told;
        (self.end.is_none() && self.dropped() != known).then(|| at + TELL)
    }

    fn tell_dropped(&mut self) {
        let now = clock::now();
        if self.tell_at().is_some_and(|at| now >= at) {
            self.told = (self.dropped(), now);
            // One that does not read now is told the next time.
            let _ = self.link.send(&self.told.0.to_ne_bytes());
        }
    }

    /// For something to read, room to write, or time to try again.
    fn wait(&self) {
        let mut fds: Vec<(BorrowedFd, Interest)> = Vec::new();
        if self.end.is_none() {
            fds.push((self.link.fd().as_fd(), Interest::Read));
            fds.extend(self.inputs.iter().flatten().map(|input| (input.as_fd(), Interest::Read)));
        }
        fds.extend(self.sinks.iter().filter_map(|sink| Some((sink.room()?, Interest::Write))));
        let deadline = self.sinks.iter().filter_map(Sink::deadline).chain(self.end).chain(self.tell_at()).min();
        if let Err(error) = wait_any(&fds, deadline.map(|deadline| deadline.since(clock::now()))) {
            log::error!("{}: its log cannot wait: {}", self.name, crate::sys::errno(&error));
            sleep(PAUSE);
        }
    }

    /// Takes what has come, or with `all` what is there.
    fn read(&mut self, stream: usize, all: bool) {
        let mut buffer = [0; CHUNK];
        // Whoever has taken the other end elsewhere may write for ever.
        let until = clock::now() + DRAIN / 4;
        while let Some(input) = self.inputs[stream] {
            let count = match fd::read(input, &mut buffer) {
                Ok(None) => return,
                Ok(Some(0)) | Err(_) => {
                    self.inputs[stream] = None;
                    return;
                }
                Ok(Some(count)) => count,
            };
            let last = self.sinks.len() - 1;
            let (now, sink) = (SystemTime::now(), &mut self.sinks[stream.min(last)]);
            self.lines[stream].take(&buffer[..count], &mut |line| sink.push(stream, now, line));
            if !all || clock::now() >= until {
                return;
            }
            sink.flush(false);
        }
    }

    fn finish(&mut self) {
        let last = self.sinks.len() - 1;
        for (stream, lines) in self.lines.iter_mut().enumerate() {
            let sink = &mut self.sinks[stream.min(last)];
            lines.end(&mut |line| sink.push(stream, SystemTime::now(), line));
        }
        self.end = Some(clock::now() + DRAIN / 2);
        // One more try at what has failed: there is no other.
        self.sinks.iter_mut().for_each(|sink| sink.flush(true));
    }
}
