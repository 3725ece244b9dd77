//! The control FIFO: one line, one command.
//!
//! ```text
//! run WORD...              a detached job; words are split as a POSIX shell splits them, nothing is expanded
//! exec ID [NAME]           the job that requests/ID/request.json describes
//! ps [@ID]                 the jobs
//! services @ID             the services
//! status @ID               the init itself: its process, main's, the keepers'
//! wait @ID JOB             answered when JOB has ended
//! kill [@ID] SIGNAL JOB    a signal for JOB's process group
//! stop [@ID] JOB [GRACE]   end JOB's whole tree; GRACE in milliseconds
//! stop, shutdown [@ID]     end everything
//! start [@ID] NAME         start a service, and what it needs
//! restart [@ID] NAME       end a service and all that need it, and start them again
//! reload [@ID]             read the configuration file again
//! events @ID [follow]      what has happened, or what happens from now on
//! ```
//!
//! `@ID` names the request whose `reply` gets the answer. `# WHO` at the end of kill, stop and shutdown says who
//! asks, for the record: a FIFO does not tell its writer. A line is at most [`MAX_LINE`] bytes with its
//! newline, because only so much is written at once when several write. Empty lines mean nothing: a
//! client begins with a newline, so that somebody's half line cannot swallow its command.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::base::{JobRef, Name, RequestId, Signal};

/// `PIPE_BUF` on Linux: what `write(2)` puts into a FIFO in one piece.
pub const MAX_LINE: usize = 4096;

/// One command from the control FIFO.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// Start a detached job from these words.
    Run(Vec<String>),
    /// Start the job that the request describes.
    Exec(RequestId, Option<Name>),
    /// Answer with the list of jobs.
    Ps(RequestId),
    /// Answer with the list of services.
    Services(RequestId),
    /// Answer with what the init and its own processes are.
    Status(RequestId),
    /// Answer when the job has ended.
    Wait(RequestId, JobRef),
    /// Send a signal to the job's process group.
    Kill(Option<RequestId>, Signal, JobRef, Option<Who>),
    /// End the job's tree: TERM, grace, KILL. Answered when it has ended.
    Stop(Option<RequestId>, JobRef, Option<Duration>, Option<Who>),
    /// End everything, as SIGTERM does. Answered at once; the end itself is end-of-file on `reply`.
    Shutdown(Option<RequestId>, Option<Who>),
    /// Start the service. Answered when it is ready, or cannot be.
    Start(Option<RequestId>, Name, Option<Who>),
    /// End the service and start it again. Answered likewise.
    Restart(Option<RequestId>, Name, Option<Who>),
    /// Read the configuration file again. Answered when that has been done.
    Reload(Option<RequestId>, Option<Who>),
    /// Answer with what has happened; or, to follow, with what happens from now on.
    Events(RequestId, bool),
}

/// Who gives a command, in its own words: one line of at most [`Who::LONGEST`] characters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Who(String);

impl Who {
    /// Characters that are kept.
    pub const LONGEST: usize = 200;

    /// `None` if there is nothing in it.
    pub fn new(text: &str) -> Option<Who> {
        let shown = text.trim().chars().filter(|c| !c.is_control()).take(Who::LONGEST);
        Some(Who(shown.collect())).filter(|who| !who.0.is_empty())
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a line was not a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadLine {
    /// Over [`MAX_LINE`] bytes.
    TooLong,
    /// Not UTF-8.
    NotUtf8,
    /// The newline never came.
    Unfinished,
    /// Anything else, in words.
    NotUnderstood(String),
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            BadLine::TooLong => write!(f, "longer than {MAX_LINE} bytes: use `lastout exec`, which has no such limit"),
            BadLine::NotUtf8 => write!(f, "not UTF-8"),
            BadLine::Unfinished => write!(f, "its newline did not come"),
            BadLine::NotUnderstood(why) => f.write_str(why),
        }
    }
}

impl fmt::Display for Line {
    /// As it is written, without the newline.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let to = |id: &Option<RequestId>| id.map(|id| format!(" @{id}")).unwrap_or_default();
        let by = |who: &Option<Who>| who.as_ref().map(|who| format!(" # {who}")).unwrap_or_default();
        match self {
            Line::Run(words) => write!(f, "run {}", shell_words::join(words)),
            Line::Exec(id, None) => write!(f, "exec {id}"),
            Line::Exec(id, Some(name)) => write!(f, "exec {id} {name}"),
            Line::Ps(id) => write!(f, "ps @{id}"),
            Line::Services(id) => write!(f, "services @{id}"),
            Line::Status(id) => write!(f, "status @{id}"),
            Line::Wait(id, job) => write!(f, "wait @{id} {job}"),
            Line::Kill(id, signal, job, who) => write!(f, "kill{} {signal} {job}{}", to(id), by(who)),
            Line::Stop(id, job, None, who) => write!(f, "stop{} {job}{}", to(id), by(who)),
            Line::Stop(id, job, Some(grace), who) => {
                write!(f, "stop{} {job} {}{}", to(id), grace.as_millis(), by(who))
            }
            Line::Shutdown(id, who) => write!(f, "shutdown{}{}", to(id), by(who)),
            Line::Start(id, name, who) => write!(f, "start{} {name}{}", to(id), by(who)),
            Line::Restart(id, name, who) => write!(f, "restart{} {name}{}", to(id), by(who)),
            Line::Reload(id, who) => write!(f, "reload{}{}", to(id), by(who)),
            Line::Events(id, false) => write!(f, "events @{id}"),
            Line::Events(id, true) => write!(f, "events @{id} follow"),
        }
    }
}

impl Line {
    /// Reads one line, without its newline.
    pub fn parse(line: &[u8]) -> Result<Line, BadLine> {
        let not = |why: String| Err(BadLine::NotUnderstood(why));
        let text = std::str::from_utf8(line).map_err(|_| BadLine::NotUtf8)?;
        if text.contains('\0') {
            return not("it has a NUL byte".into());
        }
        let text = text.trim();
        let (verb, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        if verb == "run" {
            return match shell_words::split(rest) {
                Ok(words) if words.is_empty() => not("run what? write: run COMMAND [ARG]...".into()),
                Ok(words) => Ok(Line::Run(words)),
                Err(_) => not("a quote is not closed".into()),
            };
        }
        let (rest, who) = rest.split_once('#').map_or((rest, None), |(rest, who)| (rest, Who::new(who)));
        let mut words = rest.split_whitespace().peekable();
        let to = words.next_if(|word| word.starts_with('@')).map(|word| id(&word[1..])).transpose()?;
        let line = match verb {
            "exec" => {
                let id = id(words.next().unwrap_or_default())?;
                let name = words.next().map(str::parse::<Name>).transpose();
                Line::Exec(id, name.map_err(|bad| BadLine::NotUnderstood(bad.to_string()))?)
            }
            "ps" => Line::Ps(answered(to, "ps")?),
            "services" => Line::Services(answered(to, "services")?),
            "status" => Line::Status(answered(to, "status")?),
            "wait" => Line::Wait(answered(to, "wait")?, job(words.next())?),
            "kill" => {
                let signal = words.next().unwrap_or_default().parse().map_err(BadLine::NotUnderstood)?;
                Line::Kill(to, signal, job(words.next())?, who)
            }
            "stop" if words.peek().is_none() => Line::Shutdown(to, who),
            "stop" => {
                let job = job(words.next())?;
                let grace = words.next().map(str::parse::<u64>).transpose();
                let bad = |_| BadLine::NotUnderstood("the grace is not a number of milliseconds".into());
                Line::Stop(to, job, grace.map_err(bad)?.map(Duration::from_millis), who)
            }
            "shutdown" => Line::Shutdown(to, who),
            "start" => Line::Start(to, service(words.next())?, who),
            "restart" => Line::Restart(to, service(words.next())?, who),
            "reload" => Line::Reload(to, who),
            "events" => Line::Events(answered(to, "events")?, words.next_if_eq(&"follow").is_some()),
            _ => {
                let shown: String = verb.chars().take(40).collect();
                return not(format!(
                    "unknown command '{}': use run, exec, ps, services, status, wait, kill, stop, start, restart, reload, shutdown or events",
                    shown.escape_default()
                ));
            }
        };
        match words.next() {
            None => Ok(line),
            Some(_) => not(format!("too many words after {verb}")),
        }
    }
}

fn id(text: &str) -> Result<RequestId, BadLine> {
    text.parse().map_err(|_| BadLine::NotUnderstood("a request's id is 32 hexadecimal digits".into()))
}

fn answered(to: Option<RequestId>, verb: &str) -> Result<RequestId, BadLine> {
    to.ok_or_else(|| BadLine::NotUnderstood(format!("{verb} needs @ID, the request to answer: use `lastout {verb}`")))
}

fn job(word: Option<&str>) -> Result<JobRef, BadLine> {
    let word = word.ok_or_else(|| BadLine::NotUnderstood("which job? give its number (j1) or name".into()))?;
    word.parse().map_err(|bad: crate::base::BadName| BadLine::NotUnderstood(bad.to_string()))
}

fn service(word: Option<&str>) -> Result<Name, BadLine> {
    let word = word.ok_or_else(|| BadLine::NotUnderstood("which service? give its name".into()))?;
    word.parse().map_err(|bad: crate::base::BadName| BadLine::NotUnderstood(bad.to_string()))
}

/// Cuts what comes out of the FIFO into lines, holding at most one line's worth of bytes.
#[derive(Default, Debug)]
pub struct Lines {
    partial: Vec<u8>,
    /// The line being read is already too long: drop bytes up to its newline.
    skipping: bool,
}

impl Lines {
    /// Takes the next bytes and passes on what they complete. Empty lines are passed over.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Result<Line, BadLine>)) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.skipping || self.partial.len() + line.len() >= MAX_LINE {
                each(Err(BadLine::TooLong));
            } else if self.partial.is_empty() {
                parse(line, &mut each);
            } else {
                self.partial.extend_from_slice(line);
                parse(&self.partial, &mut each);
            }
            self.partial.clear();
            self.skipping = false;
        }
        if self.partial.len() + bytes.len() >= MAX_LINE {
            self.skipping = true;
            self.partial.clear();
        } else if !self.skipping {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// Whether a line has begun and not ended.
    pub fn unfinished(&self) -> bool {
        self.skipping || !self.partial.trim_ascii().is_empty()
    }

    /// Gives up the line that has begun. It is never run: half of `rm -r /data/tmp` is `rm -r /data`.
    pub fn give_up(&mut self) -> Option<BadLine> {
        let had = self.unfinished();
        self.partial.clear();
        std::mem::take(&mut self.skipping);
        had.then_some(BadLine::Unfinished)
    }
}

fn parse(line: &[u8], each: &mut impl FnMut(Result<Line, BadLine>)) {
    if !line.trim_ascii().is_empty() {
        each(Line::parse(line));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> (Vec<Result<Line, BadLine>>, Lines) {
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.feed(chunk, |line| got.push(line));
        }
        (got, lines)
    }

    #[test]
    fn every_command_reads_back_as_it_was_written() {
        let id = RequestId(7);
        let job = || "wsclean".parse().unwrap();
        for line in [
            Line::Run(vec!["sh".into(), "-c".into(), "echo 'a b'".into()]),
            Line::Exec(id, None),
            Line::Exec(id, Some("x".parse().unwrap())),
            Line::Ps(id),
            Line::Services(id),
            Line::Status(id),
            Line::Wait(id, JobRef::Id(crate::base::JobId(3))),
            Line::Kill(None, Signal::TERM, job(), None),
            Line::Kill(Some(id), Signal::new(36).unwrap(), job(), Who::new("pid 7")),
            Line::Stop(None, job(), None, Who::new("me # and you")),
            Line::Stop(Some(id), job(), Some(Duration::from_millis(1500)), None),
            Line::Shutdown(None, None),
            Line::Shutdown(Some(id), Who::new("the night watch")),
            Line::Start(None, "ray".parse().unwrap(), Who::new("me")),
            Line::Restart(Some(id), "ray".parse().unwrap(), None),
            Line::Reload(Some(id), None),
            Line::Reload(None, Who::new("me")),
            Line::Events(id, false),
            Line::Events(id, true),
        ] {
            assert_eq!(Line::parse(line.to_string().as_bytes()), Ok(line.clone()), "{line}");
        }
    }

    #[test]
    fn by_hand_it_reads_what_a_person_would_write() {
        let words = |list: &[&str]| Ok(Line::Run(list.iter().map(|w| w.to_string()).collect()));
        assert_eq!(Line::parse(b"run wsclean -predict a.ms"), words(&["wsclean", "-predict", "a.ms"]));
        assert_eq!(Line::parse(b"  run  sh -c 'echo $HOME *'\r"), words(&["sh", "-c", "echo $HOME *"]));
        assert_eq!(Line::parse(b"stop # enough"), Ok(Line::Shutdown(None, Who::new("enough"))));
        assert_eq!(Line::parse(b"stop j3"), Ok(Line::Stop(None, "j3".parse().unwrap(), None, None)));
        assert_eq!(Line::parse(b"kill 9 j3"), Ok(Line::Kill(None, Signal::KILL, "j3".parse().unwrap(), None)));
    }

    #[test]
    fn what_is_not_a_command_is_refused_in_words() {
        for bad in [
            "run",
            "run 'x",
            "exec",
            "exec 12",
            "exec ../../x",
            "ps",
            "status",
            "wait j1",
            "kill j1",
            "kill TERM",
            "kill @x TERM j1",
            "stop j1 2 3",
            "stop j1 x",
            "Stop",
            "rm -rf /",
            "\u{1b}[2J",
            "a\0b",
            "shutdown now",
            "events",
        ] {
            assert!(matches!(Line::parse(bad.as_bytes()), Err(BadLine::NotUnderstood(_))), "{bad:?}");
        }
        assert_eq!(Line::parse(b"run \xff"), Err(BadLine::NotUtf8));
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let (got, lines) = read(&[b"ru", b"n tr", b"ue\n\n  \nst", b"op\n"]);
        assert_eq!(got, [Ok(Line::Run(vec!["true".into()])), Ok(Line::Shutdown(None, None))]);
        assert!(!lines.unfinished());
    }

    #[test]
    fn a_line_too_long_is_one_error_and_the_next_is_read() {
        let long = vec![b'x'; 1 << 20];
        let (got, _) = read(&[&long, b"\nstop\n"]);
        assert_eq!(got, [Err(BadLine::TooLong), Ok(Line::Shutdown(None, None))]);
        let exactly = [b"run ".as_slice(), &vec![b'x'; MAX_LINE - 5], b"\n"].concat();
        assert!(matches!(read(&[&exactly]).0[..], [Ok(Line::Run(_))]));
        let over = [b"run ".as_slice(), &vec![b'x'; MAX_LINE - 4], b"\n"].concat();
        assert_eq!(read(&[&over]).0, [Err(BadLine::TooLong)]);
    }

    #[test]
    fn half_a_line_is_given_up_and_never_run() {
        let (got, mut lines) = read(&[b"run rm -r /data"]);
        assert!(got.is_empty() && lines.unfinished());
        assert_eq!(lines.give_up(), Some(BadLine::Unfinished));
        assert_eq!(lines.give_up(), None);
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter_and_memory_is_bounded(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'r'), Just(b' '), any::<u8>()], 0..600),
            cut in 0usize..600,
        ) {
            let cut = cut.min(bytes.len());
            let (whole, _) = read(&[&bytes]);
            let (pieces, lines) = read(&[&bytes[..cut], &bytes[cut..]]);
            prop_assert_eq!(whole, pieces);
            prop_assert!(lines.partial.len() < MAX_LINE);
        }
    }
}
