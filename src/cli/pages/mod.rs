//! What is written from the table of options for others to read: shells' completions and the manual page.

mod complete;
mod man;

use std::ffi::OsString;

use super::{
    Subcommand,
    flags::{HELP, flag},
    words::{Operand, Opt, unexpected, wrong},
};

pub(super) const COMPLETIONS: Subcommand = Subcommand {
    name: "completions",
    about: "Print the completions of a shell",
    operands: "bash|zsh|fish",
    note: "For instance in ~/.bashrc: source <(lastout completions bash)",
    flags: &[flag("", "for", "", "Print what could stand in place of the last of the words that follow"), HELP],
    read: |words| {
        let (mut asked, mut script) = (false, None);
        while let Some(word) = words.next()? {
            match word {
                Opt("for") => {
                    asked = true;
                    break;
                }
                Operand(name) if script.is_none() => {
                    script = Some(match name.to_str() {
                        Some("bash") => include_str!("complete.bash"),
                        Some("zsh") => include_str!("complete.zsh"),
                        Some("fish") => include_str!("complete.fish"),
                        _ => return wrong(format!("{name:?}: use bash, zsh or fish")),
                    });
                }
                other => return unexpected(other),
            }
        }
        let rest: Vec<OsString> = if asked { words.rest()?.collect() } else { Vec::new() };
        if asked == script.is_some() {
            return wrong("of which shell? Use bash, zsh or fish");
        }
        Ok(Box::new(move |_| match script {
            Some(script) => super::print(script),
            None => {
                let words = rest.strip_prefix(&["--".into()]).unwrap_or(&rest);
                super::print(&complete::candidates(words).iter().map(|line| format!("{line}\n")).collect::<String>())
            }
        }))
    },
};

pub(super) const MAN: Subcommand = Subcommand {
    name: "man",
    about: "Print the manual page; lastout man | man -l - shows it",
    operands: "",
    note: "",
    flags: &[HELP],
    read: |words| match words.next()? {
        Some(other) => unexpected(other),
        None => Ok(Box::new(|_| super::print(&man::page()))),
    },
};
