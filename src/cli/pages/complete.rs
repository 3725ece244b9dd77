//! What could stand in place of a command line's last word: the shells' scripts ask this.

use std::{collections::BTreeSet, ffi::OsString, os::unix::ffi::OsStrExt, path::PathBuf};

use super::super::{
    SUBCOMMANDS, Subcommand,
    flags::Flag,
    init,
    words::{Operand, Opt, Words},
};
use crate::{
    base::Signal,
    client::{self, Target},
    proto::JobState,
};

/// A line for each, with what it is behind a tab. What only the shell knows is asked of it: `:files`, `:directories`,
/// `:users`, `:command N` (from word N on it is a command of its own).
pub(super) fn candidates(words: &[OsString]) -> Vec<String> {
    let Some((last, before)) = words.split_last() else { return Vec::new() };
    let mut found = Vec::new();
    let last = last.to_string_lossy();
    let called = before.first().and_then(|name| SUBCOMMANDS.iter().find(|subcommand| *name == subcommand.name));
    match called {
        Some(called) => at(called.flags, called.operands, Some(called), words, 1, &last, &mut found),
        None => {
            if before.is_empty() {
                found.extend(SUBCOMMANDS.iter().map(|each| line(each.name, each.about)));
            }
            // Before a command, one of ours is more likely; `lastout -- ` asks for the others.
            let operands = if before.is_empty() { "" } else { "COMMAND" };
            at(init::FLAGS, operands, None, words, 0, &last, &mut found);
        }
    }
    found.retain(|line| line.starts_with(&*last) || line.starts_with(':'));
    found
}

fn line(word: &str, about: &str) -> String {
    format!("{word}\t{about}")
}

/// The line until the last word, as the parser takes it.
fn at(
    flags: &'static [Flag],
    operands: &str,
    called: Option<&Subcommand>,
    all: &[OsString],
    skip: usize,
    last: &str,
    found: &mut Vec<String>,
) {
    let before = &all[skip..all.len() - 1];
    let mut words = Words::new(before, flags);
    let ends_in_command = operands.split([' ', '[', ']']).any(|word| word == "COMMAND");
    let mut given = 0;
    let mut target = Target::default();
    loop {
        match words.next() {
            Ok(None) => break,
            Ok(Some(Opt(name))) => {
                let Some(flag) = flags.iter().find(|flag| flag.name() == name) else { return };
                if flag.value.is_empty() {
                    continue;
                }
                match words.value() {
                    Ok(value) if name == "control" => target.control = Some(PathBuf::from(value)),
                    Ok(_) => {}
                    Err(_) => return values(flag.value, "", called, &target, found),
                }
            }
            Ok(Some(Operand(_))) if ends_in_command => {
                let rest = words.rest().map_or(0, Iterator::count);
                return found.push(format!(":command {}", all.len() - 2 - rest));
            }
            Ok(Some(Operand(_))) => given += 1,
            // No line of ours.
            Err(_) => return,
        }
    }
    let no_more_options = before.iter().any(|word| word.as_bytes() == b"--");
    if last.starts_with('-') && !no_more_options {
        if let Some((head, _)) = last.split_once('=') {
            let flag = flags.iter().find(|flag| head.strip_prefix("--") == Some(flag.long));
            return flag.into_iter().for_each(|flag| values(flag.value, &format!("{head}="), called, &target, found));
        }
        for flag in flags {
            found.extend(flag.words().map(|word| line(&word, flag.help)));
        }
    } else if ends_in_command {
        found.push(format!(":command {}", all.len() - 1));
    } else if given == 0 || operands.ends_with("...") {
        values(operands.trim_matches(['[', ']', '.']), "", called, &target, found);
    }
}

/// What an option's or operand's value may be: the table says it in a word.
fn values(what: &str, head: &str, called: Option<&Subcommand>, target: &Target, found: &mut Vec<String>) {
    let from = found.len();
    match what {
        "FILE" | "PATH" => found.push(":files".into()),
        "DIR" => found.push(":directories".into()),
        "USER[:GROUP]" => found.push(":users".into()),
        "SIGNAL" => found.extend((1..=31).filter_map(Signal::new).map(|signal| signal.to_string()[3..].to_string())),
        "SUBCOMMAND" => found.extend(SUBCOMMANDS.iter().map(|each| line(each.name, each.about))),
        "NAME=VALUE" => {
            found.extend(super::super::values::LIMITS.split(", ").map(|name| line(&format!("{name}="), "")))
        }
        "SERVICE" | "JOB" | "JOB|SERVICE" => {
            let ended = called.is_some_and(|called| !["kill", "stop"].contains(&called.name));
            found.extend(names(target, what != "SERVICE", ended));
        }
        _ if what.contains('|') => found.extend(what.split('|').map(String::from)),
        _ => {}
    }
    for candidate in found.iter_mut().skip(from).filter(|candidate| !candidate.starts_with(':')) {
        candidate.insert_str(0, head);
    }
}

/// Services, and jobs where they are wanted. Nothing, where no init answers.
fn names(target: &Target, jobs: bool, ended: bool) -> BTreeSet<String> {
    let Ok((services, all)) = client::names(target) else { return BTreeSet::new() };
    let name = |service: &crate::proto::ServiceInfo| service.service.clone();
    let known: Vec<_> = services.iter().map(name).collect();
    let services = services.iter().map(|each| line(&each.service.to_string(), each.state.word()));
    let all = all.into_iter().filter(|job| jobs && (ended || job.state != JobState::Ended));
    // A service's runs have its name.
    let all = all.filter(|job| job.name.as_ref().is_none_or(|name| !known.contains(name)));
    let all = all.map(|job| {
        let name = job.name.as_ref().map_or_else(|| job.job.to_string(), ToString::to_string);
        line(&name, &format!("{} {}", job.state.word(), crate::base::plain(&job.command)))
    });
    services.chain(all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
        let found = candidates(&words);
        found.iter().map(|line| line.split('\t').next().unwrap_or_default()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_place_of_a_line_has_its_candidates() {
        for (line, expected) in [
            ("ex", "exec"),
            ("--st", "--stop-timeout --stuck-timeout"),
            ("--sync ", "auto all none"),
            ("--sync=a", "--sync=auto --sync=all"),
            ("--config ", ":files"),
            ("--config=x", ":files"),
            ("-v ", ":command 1"),
            ("-- ", ":command 1"),
            ("-e 3 sh ", ":command 2"),
            ("exec --tim", "--timeout"),
            ("exec --timeout ", ""),
            ("exec -u ", ":users"),
            ("exec -iw ", ":directories"),
            ("exec --limit n", "nofile= nice="),
            ("exec ", ":command 1"),
            ("exec -i -e A=1 -- ", ":command 5"),
            ("exec -i -e A=1 -- ls -l --", ":command 5"),
            ("exec --nope ", ""),
            ("kill -s US", "USR1 USR2"),
            ("kill --signal=US", "--signal=USR1 --signal=USR2"),
            ("doctor a ", ":files"),
            ("check -- -", ":files"),
            ("completions ", "bash zsh fish"),
            ("completions zsh ", ""),
            ("help ev", "events"),
            ("ps -", "-a --all --json --control -h --help"),
            ("wait --control /nowhere ", ""),
        ] {
            assert_eq!(of(line), expected, "{line}");
        }
    }
}
