//! Every argument's definition and check: from a command line to a plan.

mod client;
mod getopt;
mod init;
mod logging;
mod personas;
mod values;
mod words;

use std::ffi::OsString;

use crate::{
    client::{FAILURE, Outcome, conclude},
    sys::start::Original,
};
use words::{Stop, Value, Words, wrong};

/// What a command line asks for, ready to be done.
type Run = Box<dyn FnOnce(&Original) -> Outcome>;

/// One subcommand: its name, its line in the help, what its command line has, and how it is read.
struct Subcommand {
    name: &'static str,
    about: &'static str,
    usage: &'static str,
    options: &'static str,
    read: fn(&mut Words) -> Result<Run, Stop>,
}

/// The one list of subcommands.
const SUBCOMMANDS: [Subcommand; 17] = [
    client::EXEC,
    client::PS,
    client::LOGS,
    client::WAIT,
    client::EVENTS,
    client::KILL,
    client::STOP,
    client::START,
    client::RESTART,
    client::RELOAD,
    client::METRICS,
    client::SHUTDOWN,
    client::DOCTOR,
    client::ORPHANS,
    client::CHECK,
    client::LIMITS,
    HELP,
];

const HELP: Subcommand = Subcommand {
    name: "help",
    about: "Show help, of a subcommand if one is named",
    usage: "[SUBCOMMAND]",
    options: "",
    read: |words| {
        let help = match words.next()? {
            None => init_help(),
            Some(Value(name)) => match SUBCOMMANDS.iter().find(|subcommand| name == subcommand.name) {
                Some(subcommand) => help(subcommand),
                None => return wrong(format!("there is no subcommand {name:?}: see lastout --help")),
            },
            Some(other) => return Err(other.unexpected().into()),
        };
        Ok(Box::new(move |_| {
            print(&help);
            Ok(0)
        }))
    },
};

fn help(subcommand: &Subcommand) -> String {
    let Subcommand { name, about, usage, options, .. } = subcommand;
    format!("{about}\n\nUsage: lastout {name} {usage}\n\nOptions:\n{options}")
}

/// The init's own, with the subcommands.
fn init_help() -> String {
    let lines = SUBCOMMANDS.iter().map(|each| format!("  {:8}  {}\n", each.name, each.about));
    let list: String = lines.collect();
    format!(
        "{}\nUsage: {}\n\nOptions:\n{}\nSubcommands, for an init that runs:\n{list}\n\
         A COMMAND of the same name is run as `lastout -- {}`.\n",
        init::ABOUT,
        init::USAGE,
        init::OPTIONS,
        SUBCOMMANDS[0].name
    )
}

/// The program, from its arguments to its exit code.
pub fn run(mut original: Original, words: Vec<OsString>) -> u8 {
    if let Some(persona) = personas::called(words.first()) {
        return persona.run(original, &words);
    }
    let first = words.get(1).and_then(|word| word.to_str());
    let Some(called) = SUBCOMMANDS.iter().find(|subcommand| Some(subcommand.name) == first) else {
        return match init::Arguments::read(&mut Words::new(words.get(1..).unwrap_or_default())) {
            Ok(arguments) => arguments.run(original),
            Err(stop) => answer(stop, "lastout", init::USAGE, init_help, &original),
        };
    };
    match (called.read)(&mut Words::new(&words[2..])) {
        Ok(run) => {
            original.restore_mask();
            original.reap_children();
            conclude(called.name, run(&original))
        }
        Err(stop) => {
            let name = format!("lastout {}", called.name);
            let usage = format!("{name} {}", called.usage.lines().next().unwrap_or_default());
            answer(stop, &name, &usage, || help(called), &original)
        }
    }
}

/// Help and version are answers; everything else is our failure, and tells how to do it right.
fn answer(stop: Stop, name: &str, usage: &str, help: impl FnOnce() -> String, original: &Original) -> u8 {
    original.restore_mask();
    match stop {
        Stop::Help => print(&help()),
        Stop::Version => print(concat!("lastout ", env!("CARGO_PKG_VERSION"), "\n")),
        Stop::Wrong(why) => {
            eprintln!("{name}: {why}\n\nUsage: {usage}\n\nSee {name} --help.");
            return FAILURE;
        }
    }
    0
}

/// To standard output, or error.
fn put(stdout: bool, text: &str) {
    use std::io::Write;
    if stdout {
        print(text);
    } else {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// To standard output. Whoever reads no further has read enough.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each option that a help text has.
    fn options(help: &str) -> impl Iterator<Item = &str> {
        let heads = help.lines().filter(|line| line.trim_start().starts_with('-'));
        let words = heads.flat_map(|line| line.split_whitespace().take_while(|word| word.starts_with('-')));
        words.map(|word| word.trim_end_matches([',', '.']))
    }

    #[test]
    fn every_option_of_a_help_text_is_known() {
        let said = |stop: Option<Stop>| match stop {
            Some(Stop::Wrong(why)) => why,
            Some(Stop::Help | Stop::Version) | None => String::new(),
        };
        for subcommand in &SUBCOMMANDS {
            for option in options(subcommand.options) {
                let why = said((subcommand.read)(&mut Words::new(&[option.into()])).err());
                assert!(!why.contains("invalid option"), "{} {option}: {why}", subcommand.name);
            }
        }
        assert!(options(init::OPTIONS).count() > 15);
        for option in options(init::OPTIONS) {
            let why = said(init::Arguments::read(&mut Words::new(&[option.into()])).err());
            assert!(!why.contains("invalid option"), "{option}: {why}");
        }
    }
}
