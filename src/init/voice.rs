//! What the small inits say, in their words. Facts and orders in, lines out: [`Voice::words`] is all that differs.

use crate::{
    base::{Errno, Exit, Pid, Signal, Subject},
    core::{Action, Event, Forwarding},
    proto::Happening,
    sys::{process, wait},
};

/// The log's target for lines that are complete as they are.
pub const TARGET: &str = "voice";

/// Whose words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaker {
    /// tini's.
    Tini,
    /// dumb-init's.
    DumbInit,
    /// catatonit's.
    Catatonit,
}

/// How grave a line is. The numbers are tini's levels of verbosity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Gravity {
    /// It does not go on.
    Fatal = 0,
    /// It goes on all the same.
    Warn = 1,
    /// What happens.
    Info = 2,
    /// Every detail.
    Debug = 3,
    /// And more.
    Trace = 4,
}

/// Who speaks, and how much.
#[derive(Clone, Debug)]
pub struct Voice {
    /// Whose words.
    pub speaker: Speaker,
    /// Said are lines that are at most so grave.
    pub level: u32,
    /// Say so when an orphan is reaped.
    pub warn_reaps: bool,
    /// The command.
    pub program: String,
}

type Line = (Gravity, String);

impl Voice {
    /// A line, if it is said: as it is written, and whether on standard output.
    pub fn line(&self, gravity: Gravity, text: &str) -> Option<(String, bool)> {
        if (gravity as u32) > self.level && gravity != Gravity::Fatal {
            return None;
        }
        let me = process::me();
        Some(match self.speaker {
            Speaker::Tini => {
                let word = ["FATAL", "WARN ", "INFO ", "DEBUG", "TRACE"][gravity as usize];
                (format!("[{word} tini ({me})] {text}"), gravity >= Gravity::Info)
            }
            Speaker::DumbInit => (format!("[dumb-init] {text}"), false),
            Speaker::Catatonit => {
                let word = ["ERROR", "WARN", "INFO", "DEBUG", "DEBUG"][gravity as usize];
                (format!("{word} (catatonit:{me}): {text}"), false)
            }
        })
    }

    /// What there is to say to one turn: a fact, and the orders that followed.
    pub(super) fn words(&self, forwarding: &Forwarding, event: &Event, orders: &[Action]) -> Vec<Line> {
        use Gravity::{Debug, Fatal, Info, Trace, Warn};
        let program = &self.program;
        let one = |gravity, text: String| vec![(gravity, text)];
        let mains_end = orders.iter().find_map(|order| match order {
            Action::Note(_, Happening::Ended { job: Subject::Main, exit, .. }) => *exit,
            _ => None,
        });
        match (self.speaker, event) {
            (Speaker::Tini, Event::MainForked(Ok(pid))) => {
                one(Info, format!("Spawned child process '{program}' with pid '{pid}'"))
            }
            (Speaker::DumbInit, Event::MainForked(Ok(pid))) => one(Debug, format!("Child spawned with PID {pid}.")),
            (Speaker::Catatonit, Event::MainForked(Ok(pid))) => one(Debug, format!("pid1 ({pid}) spawned: {program}")),
            (Speaker::Tini, Event::MainForked(Err(failure))) => {
                one(Fatal, format!("fork failed: {}", strerror(failure.errno)))
            }
            (Speaker::DumbInit, Event::MainForked(Err(_))) => one(Fatal, "Unable to fork. Exiting.".into()),
            (Speaker::Catatonit, Event::MainForked(Err(failure))) => {
                one(Fatal, format!("failed to fork child: {}", strerror(failure.errno)))
            }
            (Speaker::Tini, Event::MainNotExecuted(failure)) => {
                one(Fatal, format!("exec {program} failed: {}", strerror(failure.errno)))
            }
            (Speaker::DumbInit, Event::MainNotExecuted(failure)) => {
                one(Fatal, format!("{program}: {}", strerror(failure.errno)))
            }
            (Speaker::Catatonit, Event::MainNotExecuted(failure)) => {
                one(Fatal, format!("failed to exec pid1: {}", strerror(failure.errno)))
            }
            (Speaker::Tini, Event::Signal { signal, .. }) if is_passed_on(orders) => {
                one(Debug, format!("Passing signal: '{}'", strsignal(*signal)))
            }
            (Speaker::DumbInit, Event::Signal { signal, .. }) => {
                let mut lines = one(Debug, format!("Received signal {}.", signal.get()));
                if forwarding.becomes(*signal).is_some() && !is_passed_on(orders) {
                    lines.push((Debug, format!("Ignoring tty hand-off signal {}.", signal.get())));
                } else {
                    lines.extend(forwarded(forwarding, *signal));
                }
                if orders.contains(&Action::StopSelf) {
                    lines.push((Debug, "Suspending self due to TTY signal.".into()));
                }
                lines
            }
            (Speaker::Catatonit, Event::Signal { signal, .. }) if signal.is_from_terminal_to_stop() => {
                one(Debug, "ignoring kernel attempting to stop us: tty has TOSTOP set".into())
            }
            (Speaker::Tini, Event::Reaped { pid, .. }) => {
                let mut lines =
                    vec![(Debug, "Received SIGCHLD".into()), (Debug, format!("Reaped child with pid: '{pid}'"))];
                match mains_end {
                    Some(Exit::Code(code)) => {
                        lines.push((Info, format!("Main child exited normally (with status '{code}')")));
                    }
                    Some(Exit::Signal(signal)) => {
                        let name = strsignal(signal);
                        lines.push((Info, format!("Main child exited with signal (with signal '{name}')")));
                    }
                    None if self.warn_reaps => lines.push((Warn, format!("Reaped zombie process with pid={pid}"))),
                    None => {}
                }
                lines.extend(mains_end.map(|_| (Trace, "Exiting: child has exited".into())));
                lines
            }
            (Speaker::DumbInit, Event::Reaped { pid, exit, .. }) => {
                let exit = mains_end.unwrap_or(*exit);
                let mut lines = vec![(Debug, "Received signal 17.".into()), (Debug, reaped_by_dumb_init(*pid, exit))];
                if mains_end.is_some() {
                    lines.extend(forwarded(forwarding, Signal::TERM));
                    lines.push((Debug, format!("Child exited with status {}. Goodbye.", exit.status())));
                }
                lines
            }
            (Speaker::Catatonit, Event::Reaped { pid, exit, .. }) => match (mains_end, exit) {
                (Some(_), _) if self.level >= Debug as u32 && !wait::has_children() => {
                    one(Debug, "got ECHILD: no children left to monitor".into())
                }
                (Some(_), _) => Vec::new(),
                (None, Exit::Code(code)) => one(Debug, format!("child process {pid} exited with code {code}")),
                (None, Exit::Signal(signal)) => {
                    one(Debug, format!("child process {pid} exited due to signal {}", signal.get()))
                }
            },
            (Speaker::Tini | Speaker::DumbInit | Speaker::Catatonit, _) => Vec::new(),
        }
    }
}

fn is_passed_on(orders: &[Action]) -> bool {
    orders.iter().any(|order| matches!(order, Action::Signal(..) | Action::SignalGroup(..)))
}

fn forwarded(forwarding: &Forwarding, signal: Signal) -> Vec<Line> {
    let (from, to) = (signal.get(), forwarding.becomes(signal).map_or(0, Signal::get));
    let rewritten = forwarding.rewritten.iter().any(|(rewritten, _)| *rewritten == signal);
    let translated = rewritten.then(|| format!("Translating signal {from} to {to}."));
    let what = match to {
        0 => "Not forwarding signal 0 to children (ignored).".into(),
        to => format!("Forwarded signal {to} to children."),
    };
    translated.into_iter().chain([what]).map(|text| (Gravity::Debug, text)).collect()
}

fn reaped_by_dumb_init(pid: Pid, exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("A child with PID {pid} exited with exit status {code}."),
        Exit::Signal(signal) => format!("A child with PID {pid} was terminated by signal {}.", signal.get()),
    }
}

/// As glibc has it.
fn strerror(errno: Errno) -> String {
    let text = errno.to_string();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}", first.to_uppercase(), chars.as_str()))
}

/// As glibc has it, from 1.
const SIGNALS: [&str; 31] = [
    "Hangup",
    "Interrupt",
    "Quit",
    "Illegal instruction",
    "Trace/breakpoint trap",
    "Aborted",
    "Bus error",
    "Floating point exception",
    "Killed",
    "User defined signal 1",
    "Segmentation fault",
    "User defined signal 2",
    "Broken pipe",
    "Alarm clock",
    "Terminated",
    "Stack fault",
    "Child exited",
    "Continued",
    "Stopped (signal)",
    "Stopped",
    "Stopped (tty input)",
    "Stopped (tty output)",
    "Urgent I/O condition",
    "CPU time limit exceeded",
    "File size limit exceeded",
    "Virtual timer expired",
    "Profiling timer expired",
    "Window changed",
    "I/O possible",
    "Power failure",
    "Bad system call",
];

fn strsignal(signal: Signal) -> String {
    match usize::try_from(signal.get()).ok().and_then(|number| SIGNALS.get(number.checked_sub(1)?)) {
        Some(text) => (*text).into(),
        None => format!("Real-time signal {}", signal.get() - 34),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::ExecFailure, proto::Sender};

    fn said(voice: &Voice, forwarding: &Forwarding, event: &Event, orders: &[Action]) -> Vec<String> {
        let words = voice.words(forwarding, event, orders);
        let lines = words.iter().filter_map(|(gravity, text)| voice.line(*gravity, text));
        lines.map(|(line, _)| line.replace(&process::me().to_string(), "ME")).collect()
    }

    #[test]
    fn each_speaks_in_its_own_words() {
        let failure = ExecFailure { what: "execute x".into(), errno: Errno::ENOENT, interpreter: None };
        let event = Event::MainNotExecuted(failure);
        for (speaker, line) in [
            (Speaker::Tini, "[FATAL tini (ME)] exec x failed: No such file or directory"),
            (Speaker::DumbInit, "[dumb-init] x: No such file or directory"),
            (Speaker::Catatonit, "ERROR (catatonit:ME): failed to exec pid1: No such file or directory"),
        ] {
            let voice = Voice { speaker, level: 0, warn_reaps: false, program: "x".into() };
            assert_eq!(said(&voice, &Forwarding::default(), &event, &[]), [line]);
        }
    }

    #[test]
    fn what_is_rewritten_is_told() {
        let voice = Voice { speaker: Speaker::DumbInit, level: 4, warn_reaps: false, program: "x".into() };
        let forwarding = Forwarding {
            rewritten: vec![(Signal::TERM, Some(Signal::USR1)), (Signal::HUP, None)],
            ..Default::default()
        };
        let pid = Pid::new(7).unwrap();
        let tell = |signal, orders: &[Action]| {
            said(&voice, &forwarding, &Event::Signal { signal, sender: Sender::Outside }, orders)
        };
        assert_eq!(
            tell(Signal::TERM, &[Action::Signal(pid, Signal::USR1)])[1..],
            ["[dumb-init] Translating signal 15 to 10.", "[dumb-init] Forwarded signal 10 to children."]
        );
        assert_eq!(tell(Signal::HUP, &[])[2], "[dumb-init] Not forwarding signal 0 to children (ignored).");
        assert_eq!(tell(Signal::CONT, &[])[1], "[dumb-init] Ignoring tty hand-off signal 18.");
    }
}
