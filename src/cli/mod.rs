//! Every argument's definition and check: from a command line to a plan.

mod client;
mod init;
mod logging;
mod values;

use std::ffi::OsString;

use clap::{ArgMatches, Command, FromArgMatches};

use crate::{
    client::{FAILURE, Outcome, conclude},
    sys::start::Original,
};

/// One subcommand: its name, its line in the help, its arguments, and what it does with them.
struct Subcommand {
    name: &'static str,
    about: &'static str,
    arguments: fn(Command) -> Command,
    run: fn(&ArgMatches, &Original) -> Outcome,
}

/// The one list of subcommands. Arguments are built only for the one that is called: `exec` is to cost a fork.
const SUBCOMMANDS: [Subcommand; 12] = [
    client::EXEC,
    client::PS,
    client::LOGS,
    client::WAIT,
    client::EVENTS,
    client::KILL,
    client::STOP,
    client::SHUTDOWN,
    client::DOCTOR,
    client::ORPHANS,
    client::CHECK,
    HELP,
];

const HELP: Subcommand = Subcommand {
    name: "help",
    about: "Show help, of a subcommand if one is named",
    arguments: |command| command.arg(clap::Arg::new("SUBCOMMAND")),
    run: |matches, _| {
        let name = matches.get_one::<String>("SUBCOMMAND");
        let mut command = match name {
            Some(name) => {
                let known = SUBCOMMANDS.iter().find(|subcommand| subcommand.name == name.as_str());
                subcommand(known.ok_or_else(|| anyhow::anyhow!("there is no subcommand {name}: see lastout --help"))?)
            }
            None => top(),
        };
        command.print_long_help()?;
        Ok(0)
    },
};

fn subcommand(subcommand: &Subcommand) -> Command {
    let command =
        Command::new(subcommand.name).about(subcommand.about).bin_name(format!("lastout {}", subcommand.name));
    (subcommand.arguments)(command).disable_help_subcommand(true)
}

/// The init's own command line, with the subcommands in its help.
fn top() -> Command {
    let width = SUBCOMMANDS.iter().map(|subcommand| subcommand.name.len()).max().unwrap_or(0);
    let lines = SUBCOMMANDS.iter().map(|each| format!("  {:width$}  {}\n", each.name, each.about));
    let list: String = lines.collect();
    init::command().after_help(format!(
        "Subcommands, for an init that runs:\n{list}\nA COMMAND of the same name is run as `lastout -- {}`.",
        SUBCOMMANDS[0].name
    ))
}

/// The program, from its arguments to its exit code.
pub fn run(mut original: Original, words: Vec<OsString>) -> u8 {
    let first = words.get(1).and_then(|word| word.to_str());
    let Some(called) = SUBCOMMANDS.iter().find(|subcommand| Some(subcommand.name) == first) else {
        let parsed = init::command().try_get_matches_from(&words);
        return match parsed.and_then(|matches| init::Arguments::from_arg_matches(&matches)) {
            Ok(arguments) => arguments.run(original),
            // The list of subcommands is only made for help.
            Err(error) => usage(&top().try_get_matches_from(&words).err().unwrap_or(error), &original),
        };
    };
    let subcommand_words = std::iter::once(&words[0]).chain(&words[2..]);
    match subcommand(called).try_get_matches_from(subcommand_words) {
        Ok(matches) => {
            original.restore_mask();
            original.reap_children();
            conclude(called.name, (called.run)(&matches, &original))
        }
        Err(error) => usage(&error, &original),
    }
}

/// Help and version are answers; everything else is our failure, and tells how to do it right.
fn usage(error: &clap::Error, original: &Original) -> u8 {
    original.restore_mask();
    let _ = error.print();
    if error.use_stderr() { FAILURE } else { 0 }
}
