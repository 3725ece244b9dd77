//! The configuration file: from TOML to [`ServicesConfig`], with all that is wrong in it, at once and at its place.
//!
//! Text becomes a tree that knows where everything stands (`tree`); the tree is read by tables of keys (`table`, `keys`,
//! `value`), which are the names that are known, the types, the defaults and the schema in one; what concerns several keys
//! is checked at the end (`meaning`). A wrong value does not stop the reading: whoever writes the file wants to know
//! everything. Nothing here knows a file or a clock.

mod keys;
mod list;
mod meaning;
mod schema;
mod table;
#[cfg(test)]
mod tests;
mod tree;
mod value;

use std::fmt;

use serde::Serialize;

pub use list::{Described, described};
pub use schema::schema;
pub use value::PLACEHOLDERS;

use crate::{base::sort_unique, core::service::ServicesConfig};
use table::Value;
use tree::Problems;

/// Something wrong in a file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Problem {
    /// Its line, from 1.
    pub line: usize,
    /// Its character in the line, from 1.
    pub column: usize,
    /// What it is; what to do.
    pub text: String,
}

/// `LINE:COLUMN: what; what to do`. Put `FILE:` before it, and editors find the place.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.text)
    }
}

/// Reads a file's text. `exports` gives the values of the placeholders `cpus` and `memory`.
///
/// # Errors
/// All that is wrong, in the order of the file.
pub fn parse(text: &str, exports: &dyn Fn(&str) -> Option<String>) -> Result<ServicesConfig, Vec<Problem>> {
    let node = tree::read(text).map_err(|problems| placed(text, problems))?;
    let mut problems = Problems::default();
    let file = keys::File::read(&node, &mut problems);
    let config = file.and_then(|file| meaning::whole(&file, exports, &mut problems));
    match config {
        Some(config) if problems.found.is_empty() => Ok(config),
        Some(_) | None => Err(placed(text, problems)),
    }
}

/// Reads a file's bytes, which are to be UTF-8.
///
/// # Errors
/// All that is wrong, in the order of the file.
pub fn parse_bytes(bytes: &[u8], exports: &dyn Fn(&str) -> Option<String>) -> Result<ServicesConfig, Vec<Problem>> {
    match str::from_utf8(bytes) {
        Ok(text) => parse(text, exports),
        Err(error) => {
            let good = str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            let mut problems = Problems::default();
            problems.tell(good.len(), "not UTF-8; save the file as UTF-8".into());
            Err(placed(good, problems))
        }
    }
}

fn placed(text: &str, mut problems: Problems) -> Vec<Problem> {
    sort_unique(&mut problems.found);
    let mut all = Vec::with_capacity(problems.found.len());
    // From each to the next: a long text with many problems is gone through once.
    let (mut from, mut line, mut column) = (0, 1, 1);
    for (at, what) in problems.found {
        let at = (from..=at.min(text.len())).rfind(|at| text.is_char_boundary(*at)).unwrap_or(from);
        let new = &text[from..at];
        from = at;
        line += new.matches('\n').count();
        column = match new.rsplit_once('\n') {
            Some((_, last)) => last.chars().count() + 1,
            None => column + new.chars().count(),
        };
        all.push(Problem { line, column, text: what });
    }
    all
}
