//! A command line as glibc's getopt(3) takes it, for the programs that lastout can stand in for: their users have
//! clustered options, words in any order and abbreviated long options.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

/// A long option: its name, and the letter that it stands for.
pub(super) type Long = (&'static str, char);

/// What options there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Letters; those that take a value are followed by a colon.
    pub(super) letters: &'static str,
    /// Long ones. They take a value as their letters do.
    pub(super) long: &'static [Long],
    /// Options also stand behind the first word that is none.
    pub(super) permutes: bool,
}

/// One option, in the order of the command line.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Item {
    pub(super) what: What,
    /// A word that is no option came before it.
    pub(super) late: bool,
}

#[derive(PartialEq, Eq, Debug)]
pub(super) enum What {
    Option(char, OsString),
    /// Nothing is read after this.
    Wrong(String),
}

/// Options, and all other words.
pub(super) fn read(rules: &Rules, words: &[OsString]) -> (Vec<Item>, Vec<OsString>) {
    let (mut items, mut rest) = (Vec::new(), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            rest.extend(words.cloned());
            break;
        }
        if !bytes.starts_with(b"-") || bytes == b"-" {
            rest.push(word.clone());
            if !rules.permutes {
                rest.extend(words.cloned());
                break;
            }
            continue;
        }
        let late = !rest.is_empty();
        let mut value = || words.next().cloned();
        let found = match bytes.strip_prefix(b"--") {
            Some(long) if !rules.long.is_empty() => vec![read_long(rules, long, &mut value)],
            Some(_) | None => read_cluster(rules, &bytes[1..], &mut value),
        };
        let is_wrong = found.iter().any(|what| matches!(what, What::Wrong(_)));
        items.extend(found.into_iter().map(|what| Item { what, late }));
        if is_wrong {
            break;
        }
    }
    (items, rest)
}

fn takes_value(rules: &Rules, letter: char) -> Option<bool> {
    let mut after = rules.letters.chars().skip_while(|known| *known != letter || letter == ':').skip(1).peekable();
    rules.letters.contains(letter).then(|| after.peek() == Some(&':')).filter(|_| letter != ':')
}

fn read_cluster(rules: &Rules, mut letters: &[u8], value: &mut dyn FnMut() -> Option<OsString>) -> Vec<What> {
    let mut found = Vec::new();
    while let Some((first, rest)) = letters.split_first() {
        letters = rest;
        let letter = char::from(*first);
        match takes_value(rules, letter) {
            Some(false) => found.push(What::Option(letter, OsString::new())),
            Some(true) => {
                let here = (!rest.is_empty()).then(|| OsStr::from_bytes(rest).to_owned());
                found.push(match here.or_else(value) {
                    Some(value) => What::Option(letter, value),
                    None => What::Wrong(format!("option requires an argument -- '{letter}'")),
                });
                break;
            }
            None => {
                found.push(What::Wrong(format!("invalid option -- '{letter}'")));
                break;
            }
        }
    }
    found
}

fn read_long(rules: &Rules, word: &[u8], value: &mut dyn FnMut() -> Option<OsString>) -> What {
    let end = word.iter().position(|byte| *byte == b'=');
    let name = String::from_utf8_lossy(&word[..end.unwrap_or(word.len())]).into_owned();
    let here = end.map(|at| OsString::from_vec(word[at + 1..].to_vec()));
    let known = rules.long.iter().filter(|(known, _)| known.starts_with(&name)).collect::<Vec<_>>();
    let exact = known.iter().find(|(known, _)| *known == name);
    let (name, letter) = match (exact, &known[..]) {
        (Some((name, letter)), _) | (None, [(name, letter)]) => (*name, *letter),
        (None, []) => return What::Wrong(format!("unrecognized option '--{name}'")),
        (None, several) => {
            let several: String = several.iter().map(|(name, _)| format!(" '--{name}'")).collect();
            return What::Wrong(format!("option '--{name}' is ambiguous; possibilities:{several}"));
        }
    };
    match (takes_value(rules, letter), here) {
        (Some(true), here) => match here.or_else(value) {
            Some(value) => What::Option(letter, value),
            None => What::Wrong(format!("option '--{name}' requires an argument")),
        },
        (_, Some(_)) => What::Wrong(format!("option '--{name}' doesn't allow an argument")),
        (_, None) => What::Option(letter, OsString::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules =
        Rules { letters: "hvr:", long: &[("help", 'h'), ("verbose", 'v'), ("version", 'V')], permutes: true };

    /// Options as `letter` or `letter=value`, late ones with a `+`, what is wrong, and the rest after `|`.
    fn said(rules: &Rules, line: &str) -> String {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let (items, rest) = read(rules, &words);
        let item = |item: &Item| match &item.what {
            What::Option(letter, value) if value.is_empty() => format!("{letter}{}", if item.late { "+" } else { "" }),
            What::Option(letter, value) => format!("{letter}={}", value.display()),
            What::Wrong(why) => why.clone(),
        };
        let items: Vec<String> = items.iter().map(item).collect();
        let rest: Vec<String> = rest.iter().map(|word| word.display().to_string()).collect();
        format!("{}|{}", items.join(" "), rest.join(" "))
    }

    #[test]
    fn it_reads_as_getopt_does() {
        for (line, expected) in [
            ("-vv -r1 x -v y -- -v", "v v r=1 v+|x y -v"),
            ("-vr 1 - x", "v r=1|- x"),
            ("--verb --help x", "v h|x"),
            ("x -- -c y", "|x -c y"),
            ("-x", "invalid option -- 'x'|"),
            ("-:", "invalid option -- ':'|"),
            ("-r", "option requires an argument -- 'r'|"),
            ("--nope", "unrecognized option '--nope'|"),
            ("--ver", "option '--ver' is ambiguous; possibilities: '--verbose' '--version'|"),
            ("--help=x", "option '--help' doesn't allow an argument|"),
        ] {
            assert_eq!(said(&RULES, line), expected, "{line}");
        }
        assert_eq!(said(&Rules { permutes: false, ..RULES }, "-v x -v"), "v|x -v");
        assert_eq!(said(&Rules { long: &[], ..RULES }, "--help"), "invalid option -- '-'|");
    }
}
