//! The manual page, of man(7).

use super::super::{SUBCOMMANDS, flags::Flag, init};
use crate::config;

/// The day of its last change: a manual page has one.
const DATE: &str = "2026-11-25";

/// The whole.
pub(super) fn page() -> String {
    let mut page = format!(
        ".TH LASTOUT 1 {DATE} \"lastout {}\"\n.SH NAME\nlastout \\- {}.SH SYNOPSIS\n",
        env!("CARGO_PKG_VERSION"),
        init::ABOUT
    );
    for (nth, line) in init::USAGE.lines().enumerate() {
        page += if nth == 0 { "" } else { ".br\n" };
        synopsis(&mut page, line.trim());
    }
    page += ".SH DESCRIPTION\n";
    page += include_str!("head.roff");
    page += ".SH OPTIONS\n";
    options(&mut page, init::FLAGS);
    page += ".SH SUBCOMMANDS\nA COMMAND of the same name is run as\n.BR \"lastout \\-\\- COMMAND\" .\n";
    for each in &SUBCOMMANDS {
        page += &format!(".SS {}\n", each.name);
        synopsis(&mut page, &each.usage());
        page += &format!(".PP\n{}.\n", escaped(each.about));
        if !each.note.is_empty() {
            page += &escaped(each.note);
            page.push('\n');
        }
        options(&mut page, each.flags);
    }
    let [file, each] = config::described();
    page += ".SH CONFIGURATION FILE\nTOML, for\n.BR \"lastout \\-\\-config\" .\n";
    keys(&mut page, &file);
    page += ".PP\nIn each\n.BI [service. NAME ]\nand\n.BI [mount. NAME ]:\n";
    keys(&mut page, &each);
    page + include_str!("tail.roff")
}

fn synopsis(page: &mut String, line: &str) {
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    *page += &format!(".B {name}\n{}\n", escaped(rest));
}

fn options(page: &mut String, flags: &[Flag]) {
    for flag in flags {
        let words: Vec<String> = flag.words().map(|word| format!("\\fB{}\\fR", escaped(&word))).collect();
        let value = if flag.value.is_empty() { String::new() } else { format!(" \\fI{}\\fR", escaped(flag.value)) };
        *page += &format!(".TP\n{}{value}\n{}\n", words.join(", "), escaped(flag.help));
    }
}

fn keys(page: &mut String, keys: &[config::Described]) {
    for key in keys {
        *page += &format!(".TP\n.B {}\n{}\n", escaped(&key.name), escaped(&key.about));
        if !key.initial.is_empty() {
            *page += &format!("[default: {}]\n", escaped(&key.initial));
        }
    }
}

/// Text as roff has it: nothing in it is a request, and `-` is what can be typed.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '\\' => escaped += "\\e",
            '-' => escaped += "\\-",
            '\'' => escaped += "\\(aq",
            '`' => {}
            '~' => escaped += "\\(ti",
            '^' => escaped += "\\(ha",
            '×' => escaped += "\\(mu",
            '−' => escaped += "\\(mi",
            _ if escaped.is_empty() && character == '.' => escaped += "\\&.",
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_subcommand_and_every_option() {
        let page = page();
        for each in &SUBCOMMANDS {
            let start = page.find(&format!(".SS {}\n", each.name)).expect(each.name);
            let section = page[start..].split("\n.S").next().unwrap();
            for word in each.flags.iter().flat_map(Flag::words) {
                assert!(section.contains(&format!("\\fB{}\\fR", escaped(&word))), "{} {word}", each.name);
            }
        }
        for word in init::FLAGS.iter().flat_map(Flag::words) {
            assert!(page.contains(&format!("\\fB{}\\fR", escaped(&word))), "{word}");
        }
        for line in page.lines() {
            assert!(line.is_ascii(), "{line}");
            assert!(!line.starts_with('\''), "{line}");
        }
    }
}
