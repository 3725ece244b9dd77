//! The one table of options: each command's list of [`Flag`]s. The parser takes no option that is not in it
//! ([`super::words::Words`]); help, completions and the manual page are written from it.

use std::fmt::Write;

/// One option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    /// Its letter; empty, if it has none.
    pub(super) short: &'static str,
    /// Its name; empty, if it has none.
    pub(super) long: &'static str,
    /// What it takes, as completions read it too; empty, if nothing.
    pub(super) value: &'static str,
    pub(super) help: &'static str,
}

/// An option with a letter, a name, or both.
pub(super) const fn flag(short: &'static str, long: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { short, long, value, help }
}

/// Of whatever prints a table.
pub(super) const JSON: Flag = flag("", "json", "", "As JSON");
/// Of whatever talks to an init.
pub(super) const CONTROL: Flag =
    flag("", "control", "DIR", "Control directory of the init [default: as the init finds it]");
/// Of everything.
pub(super) const HELP: Flag = flag("h", "help", "", "Print help");

impl Flag {
    /// By what the parser calls it: its name, or its letter.
    pub(super) fn name(&self) -> &'static str {
        if self.long.is_empty() { self.short } else { self.long }
    }

    /// `-e`, `--env`, those of them that there are.
    pub(super) fn words(&self) -> impl Iterator<Item = String> {
        let short = (!self.short.is_empty()).then(|| format!("-{}", self.short));
        let long = (!self.long.is_empty()).then(|| format!("--{}", self.long));
        short.into_iter().chain(long)
    }
}

/// Columns of a line of help, and of an option's head in it.
const WIDTH: usize = 100;
const HEAD: usize = 24;

/// Options as a help text lists them.
pub(super) fn list(flags: &[Flag]) -> String {
    let mut text = String::new();
    for flag in flags {
        let indent = if flag.short.is_empty() { "      " } else { "  " };
        let words: Vec<String> = flag.words().collect();
        let head = format!("{indent}{} {}", words.join(", "), flag.value);
        entry(&mut text, head.trim_end(), HEAD, flag.help);
    }
    text
}

/// A head, and beside it (or below, where it is too long) what there is to say about it.
pub(super) fn entry(text: &mut String, head: &str, width: usize, about: &str) {
    let mut line = format!("{head:width$}");
    if line.len() > width || head.len() == width {
        let _ = writeln!(text, "{head}");
        line = " ".repeat(width);
    }
    for word in about.split(' ') {
        if line.len() + word.len() > WIDTH {
            let _ = writeln!(text, "{}", line.trim_end());
            line = " ".repeat(width);
        }
        line += word;
        line.push(' ');
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_wrapped_below_its_heads() {
        const LONG: &str =
            "word word word word word word word word word word word word word word word word word word word end";
        let flags = [
            flag("s", "", "", "Short"),
            flag("u", "user", "USER[:GROUP]", "As whom"),
            flag("", "sync", "auto|all", LONG),
            HELP,
        ];
        let expected = format!(
            "  -s                    Short\n  -u, --user USER[:GROUP]\n{:24}As whom\n      --sync auto|all   {}\n{:24}{}\n  \
             -h, --help            Print help\n",
            "",
            "word ".repeat(15).trim_end(),
            "",
            "word word word word end"
        );
        assert_eq!(list(&flags), expected);
    }
}
