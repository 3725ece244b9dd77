//! A command line, taken word by word.

use std::{ffi::OsString, path::PathBuf};

use lexopt::Arg;

use super::flags::{self, Flag};

/// The words that are left of a command line.
#[derive(Debug)]
pub(super) struct Words {
    parser: lexopt::Parser,
    flags: &'static [Flag],
}

/// One of them.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// An option, by its name; by its letter, if that is all that it has.
    Option(&'static str),
    /// A word that is none.
    Operand(OsString),
}

pub(super) use Word::{Operand, Option as Opt};

/// Why a command line does not become a plan.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// Help was asked for.
    Help,
    /// The version was asked for.
    Version,
    /// It is wrong, and how.
    Wrong(String),
}

impl From<lexopt::Error> for Stop {
    fn from(error: lexopt::Error) -> Stop {
        Stop::Wrong(error.to_string())
    }
}

/// A command line that is wrong for this reason.
pub(super) fn wrong<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Wrong(why.into()))
}

/// A word that has no place here.
pub(super) fn unexpected<T>(word: Word) -> Result<T, Stop> {
    Err(match word {
        // Of the table, and nobody takes it: the tests find that.
        Word::Option(name) => Arg::Long(name).unexpected(),
        Word::Operand(word) => Arg::Value(word).unexpected(),
    }
    .into())
}

impl Words {
    /// What follows the program's name, or its subcommand's, and the options that there are.
    pub(super) fn new(words: &[OsString], flags: &'static [Flag]) -> Words {
        Words { parser: lexopt::Parser::from_args(words), flags }
    }

    /// The next option or other word.
    pub(super) fn next(&mut self) -> Result<Option<Word>, Stop> {
        let (given, known) = match self.parser.next()? {
            None => return Ok(None),
            Some(Arg::Value(word)) => return Ok(Some(Word::Operand(word))),
            Some(given @ Arg::Short(letter)) => (given, self.flags.iter().find(|flag| flag.short.chars().eq([letter]))),
            Some(given @ Arg::Long(name)) => {
                (given, self.flags.iter().find(|flag| !name.is_empty() && flag.long == name))
            }
        };
        match known {
            Some(flag) if flag.long == flags::HELP.long => Err(Stop::Help),
            Some(flag) => Ok(Some(Word::Option(flag.name()))),
            None => Err(given.unexpected().into()),
        }
    }

    /// The value of the option that was taken last.
    pub(super) fn value(&mut self) -> Result<OsString, Stop> {
        Ok(self.parser.value()?)
    }

    /// The same, a path.
    pub(super) fn path(&mut self) -> Result<PathBuf, Stop> {
        self.value().map(PathBuf::from)
    }

    /// The same, as `read` understands it.
    pub(super) fn read<T, E: ToString>(&mut self, read: fn(&str) -> Result<T, E>) -> Result<T, Stop> {
        let value = self.value()?;
        understand(&value, read)
    }

    /// Everything that is left, as it is: a command has options of its own.
    pub(super) fn rest(&mut self) -> Result<impl Iterator<Item = OsString>, Stop> {
        Ok(self.parser.raw_args()?)
    }
}

/// A word as `read` understands it.
pub(super) fn understand<T, E: ToString>(word: &OsString, read: fn(&str) -> Result<T, E>) -> Result<T, Stop> {
    match word.to_str().map(read) {
        Some(Ok(value)) => Ok(value),
        Some(Err(why)) => wrong(format!("{word:?}: {}", why.to_string())),
        None => wrong(format!("{word:?} is not UTF-8")),
    }
}
