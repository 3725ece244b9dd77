//! A command line, taken word by word.

use std::{ffi::OsString, path::PathBuf};

pub(super) use lexopt::Arg::{self, Long, Short, Value};

/// The words that are left of a command line.
#[derive(Debug)]
pub(super) struct Words(lexopt::Parser);

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

impl Words {
    /// What follows the program's name, or its subcommand's.
    pub(super) fn new(words: &[OsString]) -> Words {
        Words(lexopt::Parser::from_args(words))
    }

    /// The next option or other word.
    pub(super) fn next(&mut self) -> Result<Option<Arg<'_>>, Stop> {
        match self.0.next()? {
            Some(Short('h') | Long("help")) => Err(Stop::Help),
            word => Ok(word),
        }
    }

    /// The value of the option that was taken last.
    pub(super) fn value(&mut self) -> Result<OsString, Stop> {
        Ok(self.0.value()?)
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
        Ok(self.0.raw_args()?)
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
