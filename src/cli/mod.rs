//! Every argument's definition and check: from a command line to a plan.

mod client;
mod flags;
mod getopt;
mod init;
mod logging;
mod pages;
mod personas;
mod values;
mod words;

use std::{
    ffi::OsString,
    io::{ErrorKind, Write},
};

use anyhow::Context;

use crate::{
    client::{FAILURE, Outcome, conclude},
    sys::start::Original,
};
use flags::{Flag, HELP as HELP_FLAG};
use words::{Operand, Stop, Words, unexpected, wrong};

/// What a command line asks for, ready to be done.
type Run = Box<dyn FnOnce(&Original) -> Outcome>;

/// One subcommand: its name, its line in the help, what its command line has, and how it is read.
struct Subcommand {
    name: &'static str,
    about: &'static str,
    /// What there is besides options, as completions read it too.
    operands: &'static str,
    /// What else is to be said.
    note: &'static str,
    flags: &'static [Flag],
    read: fn(&mut Words) -> Result<Run, Stop>,
}

/// The one list of subcommands.
const SUBCOMMANDS: [Subcommand; 19] = [
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
    pages::COMPLETIONS,
    pages::MAN,
    HELP,
];

const HELP: Subcommand = Subcommand {
    name: "help",
    about: "Show help, of a subcommand if one is named",
    operands: "[SUBCOMMAND]",
    note: "",
    flags: &[HELP_FLAG],
    read: |words| {
        let help = match words.next()? {
            None => init_help(),
            Some(Operand(name)) => match SUBCOMMANDS.iter().find(|subcommand| name == subcommand.name) {
                Some(subcommand) => help(subcommand),
                None => return wrong(format!("there is no subcommand {name:?}: see lastout --help")),
            },
            Some(other) => return unexpected(other),
        };
        Ok(Box::new(move |_| print(&help)))
    },
};

impl Subcommand {
    /// How it is called.
    fn usage(&self) -> String {
        let Subcommand { name, operands, .. } = self;
        format!("lastout {name} [OPTIONS] {operands}").trim_end().into()
    }
}

fn help(subcommand: &Subcommand) -> String {
    let Subcommand { about, note, flags, .. } = subcommand;
    let note = if note.is_empty() { String::new() } else { format!("\n{note}\n") };
    format!("{about}\n\nUsage: {}\n{note}\nOptions:\n{}", subcommand.usage(), flags::list(flags))
}

/// The init's own, with the subcommands.
fn init_help() -> String {
    let mut list = String::new();
    for each in &SUBCOMMANDS {
        flags::entry(&mut list, &format!("  {}", each.name), 14, each.about);
    }
    format!(
        "{}\nUsage: {}\n\nOptions:\n{}\n{}\n\nSubcommands, for an init that runs:\n{list}\n\
         A COMMAND of the same name is run as `lastout -- {}`.\n",
        init::ABOUT,
        init::USAGE,
        flags::list(init::FLAGS),
        init::NOTE,
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
        return match init::Arguments::read(&mut Words::new(words.get(1..).unwrap_or_default(), init::FLAGS)) {
            Ok(arguments) => arguments.run(original),
            Err(stop) => answer(stop, "lastout", init::USAGE, init_help, &original),
        };
    };
    let name = format!("lastout {}", called.name);
    match (called.read)(&mut Words::new(&words[2..], called.flags)) {
        Ok(run) => {
            original.restore_mask();
            original.reap_children();
            conclude(&name, run(&original))
        }
        Err(stop) => answer(stop, &name, &called.usage(), || help(called), &original),
    }
}

/// Help and version are answers; everything else is our failure, and tells how to do it right.
fn answer(stop: Stop, name: &str, usage: &str, help: impl FnOnce() -> String, original: &Original) -> u8 {
    original.restore_mask();
    let printed = match stop {
        Stop::Help => print(&help()),
        Stop::Version => print(concat!("lastout ", env!("CARGO_PKG_VERSION"), "\n")),
        Stop::Wrong(why) => {
            eprintln!("{name}: {why}\n\nUsage: {usage}\n\nSee {name} --help.");
            return FAILURE;
        }
    };
    conclude(name, printed)
}

/// To standard output, all that there is to do. Whoever reads no further has read enough.
fn print(text: &str) -> Outcome {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write"),
        Ok(()) | Err(_) => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a command's line is read.
    type Read = fn(&[OsString]) -> Option<Stop>;

    fn init(words: &[OsString]) -> Option<Stop> {
        init::Arguments::read(&mut Words::new(words, init::FLAGS)).err()
    }

    fn why(stop: Option<Stop>) -> String {
        match stop {
            Some(Stop::Wrong(why)) => why,
            Some(Stop::Help | Stop::Version) | None => String::new(),
        }
    }

    #[test]
    fn every_option_of_the_table_is_taken_and_with_its_value() {
        let subcommands = SUBCOMMANDS.iter().map(|each| {
            let read = |words: &[OsString]| (each.read)(&mut Words::new(words, each.flags)).err();
            (each.name, each.flags, Box::new(read) as Box<dyn Fn(&[OsString]) -> Option<Stop>>)
        });
        let all = subcommands.chain([("the init", init::FLAGS, Box::new(init as Read) as Box<_>)]);
        let mut taken = 0;
        for (name, flags, read) in all {
            assert!(flags.iter().any(|flag| flag.long == "help"), "{name}");
            for flag in flags {
                for word in flag.words() {
                    // As the table has it: with a value, without one.
                    let alone = why(read(&[word.clone().into()]));
                    assert!(!alone.contains("invalid option"), "{name} {word}: {alone}");
                    assert_eq!(alone.contains("missing argument"), !flag.value.is_empty(), "{name} {word}: {alone}");
                    let given = why(read(&[format!("{word}=").into(), "--nope".into()]));
                    let asked = ["help", "version"].contains(&flag.long);
                    let refused = given.contains("unexpected argument") || asked;
                    assert_eq!(refused, flag.value.is_empty(), "{name} {word}=: {given}");
                    taken += 1;
                }
            }
        }
        assert!(taken > 60, "{taken}");
    }

    /// What the readers match, and nobody could give: the parser takes what is in the table.
    #[test]
    fn every_option_that_is_read_is_in_the_table() {
        let tables = SUBCOMMANDS.iter().flat_map(|each| each.flags).chain(init::FLAGS);
        let known: Vec<&str> = tables.map(Flag::name).collect();
        let mut read = 0;
        for source in [include_str!("client.rs"), include_str!("init.rs"), include_str!("pages/mod.rs")] {
            let arms = source.split("Opt(").skip(1).map(|rest| rest.split(')').next().unwrap_or_default());
            for name in arms.flat_map(|names| names.split(" | ")) {
                assert!(known.contains(&name.trim_matches('"')), "{name} is read, and in no table");
                read += 1;
            }
        }
        assert!(read > 30, "{read}");
    }
}
