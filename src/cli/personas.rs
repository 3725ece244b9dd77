//! lastout by the name of another small init: that program's options and environment, as defaults of the one plan.
//!
//! What each option sets is all that there is; the loop is the same. A persona has no subcommands, and no control
//! directory unless `LASTOUT_CONTROL` names one: an image whose entry point was tini expects nothing in `/run`, and no
//! word about it where that cannot be written.

use std::{
    ffi::{OsStr, OsString},
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use log::LevelFilter;

use super::{
    getopt::{self, Rules, What},
    logging,
};
use crate::{
    base::{Pid, Signal},
    init::{self, Forwarding, Gravity, Manner, NotExecuted, Place, Plan, Speaker, Sync, TARGET, Voice},
    proto::place,
    sys::{process, start::Original},
};

/// One program that lastout can stand in for.
pub(super) struct Persona {
    /// What it is called.
    names: &'static [&'static str],
    speaker: Speaker,
    options: Rules,
    /// What it says it is. `docker info` reads tini's and catatonit's.
    version: &'static str,
    /// Behind the usage.
    help: &'static str,
    /// How it differs before any option is read.
    manner: fn() -> Manner,
    /// What one option sets.
    option: fn(&mut Draft, char, &OsStr) -> Result<(), Stop>,
    /// What the environment sets, when the options have been read; and what there is to say about it.
    environment: fn(&mut Draft) -> Result<(), Stop>,
}

/// What has been read so far.
struct Draft {
    plan: Plan,
    level: u32,
    /// No command, for ever.
    pause: bool,
    /// What to say before anything runs.
    said: Vec<(Gravity, &'static str)>,
}

/// Why it does not become an init.
enum Stop {
    Help,
    Version,
    License,
    /// This has been said, with the code 1.
    Wrong(String),
}

const COPYING: &str = include_str!("../../LICENSE-MIT");

/// These say of a process that it is broken: whoever sends them to an init does not mean main.
const FAULTS: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];

fn faults_and(others: &[Signal]) -> Vec<Signal> {
    FAULTS.iter().filter_map(|raw| Signal::new(*raw)).chain(others.iter().copied()).collect()
}

/// What all of them have.
fn common(forwarding: Forwarding, not_executed: NotExecuted) -> Manner {
    Manner {
        no_default_control: true,
        spare_leftovers: true,
        keep_parent_death: true,
        forwarding: Forwarding { term_goes_on: true, ..forwarding },
        not_executed: Some(not_executed),
        failure: Some(1),
        ..Manner::default()
    }
}

const TINI: Persona = Persona {
    names: &["tini", "tini-static", "docker-init"],
    speaker: Speaker::Tini,
    options: Rules { letters: "p:hvwgle:s", long: &[], permutes: true },
    version: "tini version 0.19.0",
    help: "\
Runs a program as its only child: passes on signals, and reaps

Command line options:

  --version: Print the version; only by itself
  -h: Print this help
  -s: Be a subreaper where it is not PID 1
  -p SIGNAL: Have SIGNAL sent to it when its parent ends: \"-p SIGTERM\"
  -v: Say more; up to three times
  -w: Warn each time that an orphan is reaped
  -g: Pass signals on to the child's process group
  -e EXIT_CODE: Turn this exit code of the child (0 to 255) into 0; may be repeated
  -l: Print the license

Environment variables:

  TINI_SUBREAPER: As -s
  TINI_VERBOSITY: How much it says; 1 unless it is set
  TINI_KILL_PROCESS_GROUP: As -g
  LASTOUT_CONTROL: lastout's control directory; without it there is none

",
    manner: || {
        let forwarding =
            Forwarding { to_main_only: true, kept: faults_and(&[Signal::TTIN, Signal::TTOU]), ..Forwarding::default() };
        Manner { no_subreaper: true, ..common(forwarding, NotExecuted { missing: 127, denied: 126, other: 1 }) }
    },
    option: |draft, letter, value| {
        match letter {
            'h' => return Err(Stop::Help),
            'l' => return Err(Stop::License),
            's' => draft.plan.manner.no_subreaper = false,
            'p' => draft.plan.parent_death = Some(tini_signal(value).ok_or_else(|| not_valid('p', value))?),
            'v' => draft.level += 1,
            'w' => draft.plan.warn_reaps = true,
            'g' => draft.plan.manner.forwarding.to_main_only = false,
            _ => draft.plan.remap.push(tini_code(value).ok_or_else(|| not_valid('e', value))?),
        }
        Ok(())
    },
    environment: |draft| {
        let is_set = |name| std::env::var_os(name).is_some();
        if is_set("TINI_SUBREAPER") {
            draft.plan.manner.no_subreaper = false;
        }
        if is_set("TINI_KILL_PROCESS_GROUP") {
            draft.plan.manner.forwarding.to_main_only = false;
        }
        if let Some(level) = std::env::var_os("TINI_VERBOSITY") {
            // Unsigned there: below 0 is everything.
            draft.level = leading_number(level.as_bytes()).map_or(0, |(number, _)| number as u32);
        }
        if process::me() != Pid::INIT && draft.plan.manner.no_subreaper && !process::is_subreaper() {
            draft.said.push((Gravity::Warn, NO_REAPER));
        } else if !draft.plan.manner.no_subreaper {
            draft.said.push((Gravity::Trace, "Registered as child subreaper"));
        }
        Ok(())
    },
};

const NO_REAPER: &str = "Tini is not running as PID 1 and isn't registered as a child subreaper.\n\
    Zombie processes will not be re-parented to Tini, so zombie reaping won't work.\n\
    To fix the problem, use the -s option or set the environment variable TINI_SUBREAPER to register Tini as a child \
    subreaper, or run Tini as PID 1.";

fn not_valid(letter: char, value: &OsStr) -> Stop {
    Stop::Wrong(format!("Not a valid option for -{letter}: {}", value.display()))
}

/// Names only, as tini's table has them.
fn tini_signal(value: &OsStr) -> Option<Signal> {
    let text = value.to_str()?;
    let signal = Signal::from_str(text).ok()?;
    let is_known = signal.get() < 32 && !["SIGSTKFLT", "SIGIO", "SIGPWR"].contains(&text);
    (is_known && signal.to_string() == text).then_some(signal)
}

/// As `strtol` reads it, which takes nothing for 0.
fn tini_code(value: &OsStr) -> Option<u8> {
    match leading_number(value.as_bytes()) {
        Some((number, b"")) => u8::try_from(number).ok(),
        Some(_) => None,
        None => value.is_empty().then_some(0),
    }
}

const DUMB_INIT: Persona = Persona {
    names: &["dumb-init"],
    speaker: Speaker::DumbInit,
    options: Rules {
        letters: "hvVcr:",
        long: &[("help", 'h'), ("single-child", 'c'), ("rewrite", 'r'), ("verbose", 'v'), ("version", 'V')],
        permutes: false,
    },
    version: "dumb-init v1.2.5",
    help: "
Runs a command in a session of its own, and passes signals on to all of it

Optional arguments:
   -c, --single-child   No session: pass signals on to the command alone
   -r, --rewrite s:r    Pass signal s on as signal r, or with r 0 not at all
                        (numbers from 1 to 31); may be repeated
   -v, --verbose        Say what happens on standard error
   -h, --help           Print this help
   -V, --version        Print the version

Environment: DUMB_INIT_DEBUG=1 is -v, DUMB_INIT_SETSID=0 is -c, LASTOUT_CONTROL names
lastout's control directory; without it there is none
",
    manner: || {
        let forwarding = Forwarding { suspends: true, after_main: Some(Signal::TERM), ..Forwarding::default() };
        Manner {
            no_subreaper: true,
            place: Place::Session,
            fresh_signals: true,
            ..common(forwarding, NotExecuted { missing: 2, denied: 2, other: 2 })
        }
    },
    option: |draft, letter, value| {
        match letter {
            'h' => return Err(Stop::Help),
            'V' => return Err(Stop::Version),
            'c' => draft.plan.manner.place = Place::Ours,
            'v' => draft.level = Gravity::Trace as u32,
            _ => draft.plan.manner.forwarding.rewritten.push(rewriting(value.as_bytes()).ok_or_else(|| {
                Stop::Wrong(
                    "Usage: -r option takes <signum>:<signum>, where <signum> is between 1 and 31.\n\
                     This option can be specified multiple times.\nUse --help for full usage."
                        .into(),
                )
            })?),
        }
        Ok(())
    },
    environment: |draft| {
        let is = |name, value| std::env::var_os(name).is_some_and(|found| found == value);
        if is("DUMB_INIT_DEBUG", "1") {
            draft.level = Gravity::Trace as u32;
            draft.said.push((Gravity::Debug, "Running in debug mode."));
        }
        if is("DUMB_INIT_SETSID", "0") {
            draft.plan.manner.place = Place::Ours;
            draft.said.push((Gravity::Debug, "Not running in setsid mode."));
        }
        let forwarding = &mut draft.plan.manner.forwarding;
        if draft.plan.manner.place == Place::Ours {
            forwarding.to_main_only = true;
        } else {
            // A session without a shell: nobody would start again what these stop.
            for signal in [Signal::TSTP, Signal::TTIN, Signal::TTOU] {
                forwarding.rewritten.insert(0, (signal, Some(Signal::STOP)));
            }
        }
        Ok(())
    },
};

/// `scanf`'s `%d:%d`, which does not mind what follows, and takes of a number what an `int` has room for.
fn rewriting(text: &[u8]) -> Option<(Signal, Option<Signal>)> {
    let (from, rest) = leading_number(text)?;
    let (to, _) = leading_number(rest.strip_prefix(b":")?)?;
    let known = |number: i64| Some(number as i32).filter(|number| (0..32).contains(number));
    Some((Signal::new(known(from)?)?, Signal::new(known(to)?)))
}

/// As C's `strtol` reads one: after space, with a sign, the nearest that there is. Answers with what follows.
fn leading_number(text: &[u8]) -> Option<(i64, &[u8])> {
    let text = text.trim_ascii_start();
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        rest => (1, rest),
    };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let more = |number: i64, digit: &u8| number.saturating_mul(10).saturating_add(sign * i64::from(digit - b'0'));
    (count > 0).then(|| (digits[..count].iter().fold(0, more), &digits[count..]))
}

const CATATONIT: Persona = Persona {
    names: &["catatonit"],
    speaker: Speaker::Catatonit,
    options: Rules { letters: "ghLPV", long: &[("version", 'V')], permutes: true },
    version: "tini version 0.1.7_catatonit",
    help: "
options:
  -g              Pass signals on to the program's process group.
  -h              Print this help.
  -L              Print the license.
  -P              Pause: run nothing, until SIGTERM or SIGINT.
  -V, --version   Print the version.

environment: CATATONIT_DEBUG says what happens; LASTOUT_CONTROL names lastout's
control directory; without it there is none
",
    manner: || {
        let kept = faults_and(&[Signal::TSTP, Signal::TTIN, Signal::TTOU]);
        let forwarding = Forwarding { to_main_only: true, kept, ..Forwarding::default() };
        Manner {
            place: Place::GroupOfTerminal,
            listen_pid: true,
            ..common(forwarding, NotExecuted { missing: 1, denied: 1, other: 1 })
        }
    },
    option: |draft, letter, _| {
        match letter {
            'g' => draft.plan.manner.forwarding.to_main_only = false,
            'P' => draft.pause = true,
            'h' => return Err(Stop::Help),
            'L' => return Err(Stop::License),
            _ => return Err(Stop::Version),
        }
        Ok(())
    },
    environment: |draft| {
        if std::env::var_os("CATATONIT_DEBUG").is_some() {
            draft.level = Gravity::Trace as u32;
        }
        Ok(())
    },
};

const PERSONAS: [Persona; 3] = [TINI, DUMB_INIT, CATATONIT];

/// The one that this name calls.
pub(super) fn called(name: Option<&OsString>) -> Option<&'static Persona> {
    static ALL: [Persona; 3] = PERSONAS;
    let name = Path::new(name?).file_name()?.to_str()?;
    ALL.iter().find(|persona| persona.names.contains(&name))
}

impl Persona {
    /// Is the init, as this program would be.
    pub(super) fn run(&self, original: Original, words: &[OsString]) -> u8 {
        match self.read(words) {
            Ok(draft) => {
                logging::start(LevelFilter::Error);
                if let Some(voice) = &draft.plan.manner.voice {
                    draft.said.iter().for_each(|(gravity, text)| say(voice, *gravity, text));
                }
                init::run(draft.plan, original)
            }
            Err(answer) => {
                original.restore_mask();
                put(answer.stdout, &answer.text);
                answer.code
            }
        }
    }

    fn read(&self, words: &[OsString]) -> Result<Draft, Answer> {
        let called = words.first().map_or("".into(), |word| word.to_string_lossy());
        if self.speaker == Speaker::Tini && words.len() == 2 && words[1] == "--version" {
            return Err(self.answer(Stop::Version, &called));
        }
        if self.speaker == Speaker::Catatonit && std::env::var_os("CATATONIT_LOG").is_some() {
            return Err(self.answer(Stop::Wrong("CATATONIT_LOG is reserved for future use".into()), &called));
        }
        let permutes = self.options.permutes && std::env::var_os("POSIXLY_CORRECT").is_none();
        let words = words.get(1..).unwrap_or_default();
        self.read_words(&called, words, permutes)
    }

    fn read_words(&self, called: &str, words: &[OsString], permutes: bool) -> Result<Draft, Answer> {
        let plan = Plan { manner: (self.manner)(), sync: Sync::None, ..Plan::default() };
        let level = u32::from(self.speaker == Speaker::Tini);
        let mut draft = Draft { plan, level, pause: false, said: Vec::new() };
        let (items, rest) = getopt::read(&Rules { permutes, ..self.options }, words);
        for item in items {
            let stop = match item.what {
                What::Option(letter, value) => match (self.option)(&mut draft, letter, &value) {
                    Ok(()) => continue,
                    Err(stop) => self.answer(stop, called),
                },
                What::Wrong(why) => {
                    Answer { text: format!("{called}: {why}\n{}", self.usage(called)), ..Answer::WRONG }
                }
            };
            // It is no option of ours, so it is one of the command's.
            return if item.late && stop.code != 0 { self.read_words(called, words, false) } else { Err(stop) };
        }
        if rest.is_empty() && !draft.pause {
            let usage = match self.speaker {
                Speaker::Tini => self.usage(called),
                Speaker::DumbInit => {
                    format!("Usage: {called} [option] program [args]\nTry {called} --help for full usage.\n")
                }
                Speaker::Catatonit => self.fatal("missing program name") + &self.usage(called),
            };
            return Err(Answer { text: usage, ..Answer::WRONG });
        }
        (self.environment)(&mut draft).map_err(|stop| self.answer(stop, called))?;
        let program = rest.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        let command = if draft.pause { Vec::new() } else { rest };
        let command = command.into_iter().map(init::c_string).collect::<Result<_, _>>();
        draft.plan.command = command.map_err(|why| Answer { text: self.fatal(&why), ..Answer::WRONG })?;
        draft.plan.inherited_control =
            std::env::var_os(place::VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        draft.plan.manner.voice =
            Some(Voice { speaker: self.speaker, level: draft.level, warn_reaps: draft.plan.warn_reaps, program });
        // As tini has it: its words, and not the log's.
        draft.plan.warn_reaps = false;
        Ok(draft)
    }

    /// Where it is wrong: tini says everything, the others a line, dumb-init nothing more.
    fn usage(&self, called: &str) -> String {
        match self.speaker {
            Speaker::Tini => self.help(called),
            Speaker::DumbInit => String::new(),
            Speaker::Catatonit => CATATONIT_USAGE.into(),
        }
    }

    fn help(&self, called: &str) -> String {
        let (version, help) = (self.version(), self.help);
        let name = Path::new(called).file_name().unwrap_or_default().display();
        match self.speaker {
            Speaker::Tini => {
                format!("{name} ({version})\nUsage: {name} [OPTIONS] PROGRAM -- [ARGS] | --version\n\n{help}")
            }
            Speaker::DumbInit => format!("{version}\nUsage: {called} [option] command [[arg] ...]\n{help}"),
            Speaker::Catatonit => format!("{CATATONIT_USAGE}{help}"),
        }
    }

    fn version(&self) -> String {
        format!("{} (lastout {})", self.version, env!("CARGO_PKG_VERSION"))
    }

    fn fatal(&self, why: &str) -> String {
        let voice = Voice { speaker: self.speaker, level: 0, warn_reaps: false, program: String::new() };
        voice.line(Gravity::Fatal, why).map(|(line, _)| line + "\n").unwrap_or_default()
    }

    fn answer(&self, stop: Stop, called: &str) -> Answer {
        let (text, stdout) = match stop {
            // Where each says it.
            Stop::Help => (self.help(called), self.speaker == Speaker::Tini),
            Stop::Version => (self.version() + "\n", self.speaker != Speaker::DumbInit),
            Stop::License => (COPYING.into(), true),
            Stop::Wrong(why) if self.speaker == Speaker::DumbInit => {
                return Answer { text: why + "\n", ..Answer::WRONG };
            }
            Stop::Wrong(why) => return Answer { text: self.fatal(&why), ..Answer::WRONG },
        };
        Answer { text, stdout, code: 0 }
    }
}

const CATATONIT_USAGE: &str = "usage: catatonit [-ghLPV] [--] <progname> [<arguments>...]\n";

/// What it says instead of being an init.
struct Answer {
    text: String,
    stdout: bool,
    code: u8,
}

impl Answer {
    const WRONG: Answer = Answer { text: String::new(), stdout: false, code: 1 };
}

/// To standard output, or error. Whether it arrives is nothing to the originals.
fn put(stdout: bool, text: &str) {
    let _ = match stdout {
        true => std::io::stdout().write_all(text.as_bytes()),
        false => std::io::stderr().write_all(text.as_bytes()),
    };
}

/// Before the loop, which has its own way.
fn say(voice: &Voice, gravity: Gravity, text: &str) {
    match voice.line(gravity, text) {
        Some((line, true)) => put(true, &(line + "\n")),
        Some((lines, false)) => lines.lines().for_each(|line| log::error!(target: TARGET, "{line}")),
        None => {}
    }
}
