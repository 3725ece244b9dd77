//! `lastout exec`.

use std::{
    io::Write,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{
    FAILURE, Outcome, Target,
    pump::Pump,
    session::{Connection, Ready, Session},
    terminal::{self, Terminal},
};
use crate::{
    base::{JobId, JobRef, Name, Signal, Size, plain},
    proto::{Alive, Bytes, Cause, Line, Reply, Request, files},
    sys::{
        dir::Access,
        poll::{Interest, wait_any},
        signals::{self, Signals},
        start::Original,
    },
};

/// The exit code of a job that its timeout ended.
const TIMED_OUT: u8 = 124;
/// The exit code of a client whose terminal has gone: that of SIGHUP.
const HUNG_UP: u8 = 129;
/// Signals that a client passes on to its job.
const PASSED_ON: [Signal; 6] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];
/// The same signal sooner than this is the same wish: timeout(1) signals its child, and then its whole group.
const AGAIN: Duration = Duration::from_secs(1);
/// So long a client that was asked to go waits for whoever is to read the job's last words,
const LAST_WORDS: Duration = Duration::from_secs(5);
/// and so long for the init to say that there is a job at all.
const NO_JOB: Duration = Duration::from_secs(2);

/// What `lastout exec` was asked for.
#[derive(Clone, Debug)]
pub struct Exec {
    /// Where the init is.
    pub target: Target,
    /// What to run.
    pub request: Request,
    /// The job's name.
    pub name: Option<Name>,
    /// The job gets a terminal of its own, of the size and kind of ours.
    pub tty: bool,
}

/// Runs a command as a job. Answers with the command's exit code.
pub fn exec(exec: &Exec, original: &Original) -> Outcome {
    let mut request = exec.request.clone();
    let mut taken = PASSED_ON.to_vec();
    if exec.tty {
        if request.stdin {
            terminal::check_input()?;
        }
        taken.extend(terminal::TOLD);
        request.tty = Some(terminal::size().unwrap_or(Size::USUAL));
        // What somebody sets for it counts more.
        let kind = std::env::var_os("TERM").map(|kind| Bytes([b"TERM=", kind.as_bytes()].concat()));
        request.env.splice(..0, kind);
    }
    let signals = signals::take_over(&taken, original).context("cannot take signals")?;
    let connection = Connection::open(&exec.target)?;
    let session = connection.request()?;
    let stdin = request.stdin.then(|| session.make_fifo(files::STREAMS[0], Access::Both)).transpose()?;
    let mut outputs = Vec::new();
    if !request.detach {
        for number in 1..=if exec.tty { 1u8 } else { 2 } {
            let fifo = session.make_fifo(files::STREAMS[usize::from(number)], Access::Read)?;
            outputs.push(Pump::out_of(fifo.into(), number));
        }
    }
    let resize =
        request.tty.map(|size| Ok::<_, anyhow::Error>((session.make_fifo(files::RESIZE, Access::Both)?, size)));
    let terminal = resize.transpose()?.map(|(resize, size)| Terminal::new(resize, size, request.stdin));
    session.write_file(files::REQUEST, &request.to_json())?;
    connection.send(&Line::Exec(session.id, exec.name.clone()))?;
    Client {
        session,
        signals,
        stdin: stdin.map(|fifo| Pump::into(fifo.into())),
        outputs,
        terminal,
        detach: request.detach,
        job: None,
        started: false,
        asked: None,
        pending: Vec::new(),
        hung_up: false,
    }
    .run()
}

struct Client<'a> {
    session: Session<'a>,
    signals: Signals,
    stdin: Option<Pump>,
    outputs: Vec<Pump>,
    /// Ours, for a job that has one of its own.
    terminal: Option<Terminal>,
    detach: bool,
    job: Option<JobId>,
    started: bool,
    /// By which signal it was asked to go, and since when.
    asked: Option<(Signal, Instant)>,
    /// Signals for a job that has not started.
    pending: Vec<Signal>,
    /// The terminal has gone.
    hung_up: bool,
}

impl Client<'_> {
    fn run(mut self) -> Outcome {
        loop {
            let (ready, signalled) = self.wait()?;
            for reply in self.session.take(ready)? {
                match reply {
                    Reply::Queued { job } if self.detach => {
                        self.session.leave();
                        return say(job);
                    }
                    Reply::Queued { job } => self.job = Some(job),
                    Reply::Started { job, .. } => {
                        self.job = Some(job);
                        self.started = true;
                        // Its keeper has removed it.
                        self.session.leave();
                        if self.detach {
                            return say(job);
                        }
                        if let Some(terminal) = &mut self.terminal {
                            terminal.begin().context("cannot make the terminal raw")?;
                        }
                    }
                    Reply::Refused { reason } => {
                        eprintln!("lastout exec: {}", plain(&reason));
                        return Ok(FAILURE);
                    }
                    Reply::Ended { .. } => {
                        self.drain()?;
                        self.terminal = None;
                        return Ok(conclude(&reply));
                    }
                    Reply::Alive(alive) => self.say_alive(&alive),
                    Reply::Done
                    | Reply::Services(_)
                    | Reply::Jobs(_)
                    | Reply::Events(_)
                    | Reply::Event(_)
                    | Reply::Status(_) => {}
                }
            }
            if self.session.gone() {
                let who = if wait_any(
                    &[(self.session.connection.control().as_fd(), Interest::Hangup)],
                    Some(Duration::ZERO),
                )? == [true]
                {
                    "the init died"
                } else {
                    "the job's keeper died"
                };
                // What the job has said is in its FIFOs, and is not lost with them.
                self.drain()?;
                self.terminal = None;
                eprintln!("lastout exec: {who}");
                return Ok(FAILURE);
            }
            if let Some(code) = self.take_signals(signalled)? {
                return Ok(code);
            }
            // Our request goes with us.
            if let (Some(Duration::ZERO), Some((signal, _))) = (self.patience(), self.asked) {
                return Ok(128 + signal.get() as u8);
            }
            self.session.say_if_silent();
        }
    }

    fn say_alive(&self, alive: &Alive) {
        let last = self.outputs.iter().filter_map(Pump::last).max();
        eprintln!("{}", heartbeat(self.job, alive, last.map(|last| last.elapsed())));
    }

    /// Waits for anything, and moves the streams. Answers what is there besides: for the session, and signals.
    fn wait(&mut self) -> anyhow::Result<(Ready, bool)> {
        // Before the job has opened its end, closing ours would lose what is in the FIFO.
        self.stdin.take_if(|pump| pump.has_ended() && self.started);
        let mut fds = vec![(self.signals.fd().as_fd(), Interest::Read)];
        fds.extend(self.session.wait_on());
        let first = fds.len();
        // What a job with a terminal asks is shown when its answer's keys are its own.
        if self.terminal.is_none() || self.started {
            fds.extend(self.outputs.iter().chain(&self.stdin).filter_map(Pump::interest));
        }
        let streams = fds.len();
        fds.extend(self.terminal.as_ref().and_then(Terminal::hangup));
        let all = wait_any(&fds, self.session.patience().into_iter().chain(self.patience()).min())?;
        self.hung_up = all[streams..].contains(&true);
        let mut ready = all[first..streams].iter();
        for pump in &mut self.outputs {
            if pump.interest().is_some() && ready.next() == Some(&true) {
                pump.turn().context("cannot write the job's output")?;
            }
        }
        if let Some(pump) = &mut self.stdin {
            // Signals come before keys.
            let is_ready = pump.interest().is_some() && ready.next() == Some(&true) && !all[0];
            // The job's end of its input is the job's business.
            if is_ready && pump.turn().is_err() {
                self.stdin = None;
            }
        }
        Ok((Ready::of(&all[1..first]), all[0]))
    }

    /// How long to wait for a job that nobody has told us of, if we were asked to go.
    fn patience(&self) -> Option<Duration> {
        let (_, since) = self.asked.filter(|_| self.job.is_none())?;
        Some(NO_JOB.saturating_sub(since.elapsed()))
    }

    /// The tree has ended, so nobody writes any more: passes on what is in the FIFOs. Waits for whoever reads
    /// our output; not for ever, once somebody has asked us to go.
    fn drain(&mut self) -> anyhow::Result<()> {
        self.stdin = None;
        let ended = Instant::now();
        loop {
            while let Some(arrived) = self.signals.next() {
                if is_again(&mut self.asked, arrived.signal, Instant::now()) {
                    return Ok(());
                }
            }
            let mut fds: Vec<_> = self.outputs.iter().filter_map(Pump::interest).collect();
            if fds.is_empty() {
                return Ok(());
            }
            let streams = fds.len();
            fds.push((self.signals.fd().as_fd(), Interest::Read));
            // A target without room is waited for; a source without bytes is empty for good.
            let idle = self.outputs.iter().all(|pump| pump.has_ended() || pump.is_idle());
            let limit = self.asked.map(|(_, since)| LAST_WORDS.saturating_sub(since.max(ended).elapsed()));
            let patience = if idle { Some(Duration::ZERO) } else { limit };
            let ready = wait_any(&fds, patience)?;
            if patience == Some(Duration::ZERO) && !ready[..streams].contains(&true) {
                return Ok(());
            }
            let mut ready = ready[..streams].iter().copied();
            for pump in &mut self.outputs {
                if pump.interest().is_some() && ready.next() == Some(true) {
                    pump.turn().context("cannot write the job's output")?;
                }
            }
        }
    }

    /// A signal goes to the job, as soon as it has started, and we stay until that has ended; the same signal again,
    /// and the client goes: then the job's tree ends too. A job in the queue is taken out of it.
    fn take_signals(&mut self, arrived: bool) -> anyhow::Result<Option<u8>> {
        while let Some(arrived) = arrived.then(|| self.signals.next()).flatten() {
            let signal = arrived.signal;
            match &mut self.terminal {
                Some(terminal) if terminal::TOLD.contains(&signal) => {
                    terminal.take(signal);
                    continue;
                }
                Some(_) if signal == Signal::HUP => return Ok(Some(HUNG_UP)),
                Some(_) | None => {}
            }
            let again = is_again(&mut self.asked, signal, Instant::now());
            let queued = self.job.filter(|_| !self.started);
            if let Some(job) = queued {
                self.session.connection.send(&Line::Stop(None, JobRef::Id(job), None, super::who("exec")))?;
            }
            if again || queued.is_some() || self.session.is_silent() {
                return Ok(Some(128 + signal.get() as u8));
            }
            self.pending.push(signal);
        }
        if self.hung_up {
            return Ok(Some(HUNG_UP));
        }
        if let Some(job) = self.job {
            for signal in self.pending.drain(..) {
                self.session.connection.send(&Line::Kill(None, signal, JobRef::Id(job), super::who("exec")))?;
            }
        }
        Ok(None)
    }
}

/// Whether a signal that asks us to go has asked before, and not only a moment ago.
fn is_again(asked: &mut Option<(Signal, Instant)>, signal: Signal, now: Instant) -> bool {
    if ![Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT].contains(&signal) {
        return false;
    }
    match *asked {
        Some((before, since)) if before == signal => now.duration_since(since) >= AGAIN,
        Some(_) | None => {
            *asked = Some((signal, now));
            false
        }
    }
}

/// The heartbeat's line.
fn heartbeat(job: Option<JobId>, alive: &Alive, silent: Option<Duration>) -> String {
    let job = job.map(|job| format!("{job}: ")).unwrap_or_default();
    let seconds = |time: Duration| Duration::from_secs(time.as_secs());
    let time = |time: Duration| humantime::format_duration(seconds(time)).to_string().replace(' ', "");
    let cpus = |milli: u64| format!("{:.1}", milli as f64 / 1000.0);
    let memory = match alive.rss_bytes {
        bytes if bytes >= 1 << 30 => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        bytes => format!("{} MiB", bytes >> 20),
    };
    let output = silent.map_or("no output yet".into(), |silent| format!("last output {} ago", time(silent)));
    format!(
        "lastout exec: {job}still running: {}, cpu {} of {}, {memory}, {} process{}, {output}",
        time(Duration::from_millis(alive.wall_ms)),
        cpus(alive.cpu_milli),
        cpus(alive.cpus_milli).trim_end_matches(".0"),
        alive.processes,
        if alive.processes == 1 { "" } else { "es" },
    )
}

/// Tells the number of a job that goes on without us.
fn say(job: JobId) -> Outcome {
    writeln!(std::io::stdout(), "{job}").context("cannot write")?;
    Ok(0)
}

/// The exit code of a job's end, and a line about it where it was not the command's own.
fn conclude(reply: &Reply) -> u8 {
    let Reply::Ended { job, exit, cause, left, oom_kills } = reply else { return FAILURE };
    if *oom_kills > 0 && !matches!(cause, Cause::OomKilled { .. }) {
        eprintln!("lastout exec: {job}: the kernel's OOM killer has ended {oom_kills} in this container meanwhile");
    }
    for process in left {
        eprintln!(
            "lastout exec: {job}: SIGKILL has not ended {}: it is stuck in the kernel",
            plain(&process.to_string())
        );
    }
    match (cause, exit) {
        (Cause::Exited, _) => {}
        (Cause::ExecFailed(failure), _) => eprintln!("lastout exec: {}", plain(&failure.to_string())),
        (cause, Some(exit)) => eprintln!("lastout exec: {job}: {} ({exit})", plain(&cause.to_string())),
        (cause, None) => eprintln!("lastout exec: {job}: {}", plain(&cause.to_string())),
    }
    match (cause, exit) {
        (Cause::Timeout, _) => TIMED_OUT,
        (_, Some(exit)) => exit.status(),
        (_, None) => FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_signal_after_a_while_is_a_second_wish() {
        let begin = Instant::now();
        let mut asked = None;
        let mut again = |signal, ms| is_again(&mut asked, signal, begin + Duration::from_millis(ms));
        let rows = [
            (Signal::TERM, 0, false),
            // timeout(1), once more to its group.
            (Signal::TERM, 1, false),
            (Signal::TERM, 999, false),
            // Since the first one: who repeats himself all the time is heard.
            (Signal::TERM, 1000, true),
            // Another one is another wish.
            (Signal::INT, 1500, false),
            (Signal::TERM, 1600, false),
            (Signal::TERM, 2600, true),
            // These are for the job.
            (Signal::USR1, 3000, false),
            (Signal::USR1, 5000, false),
            (Signal::TERM, 5000, true),
        ];
        for (signal, ms, expected) in rows {
            assert_eq!(again(signal, ms), expected, "{signal} at {ms}");
        }
    }
}
