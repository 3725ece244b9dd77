//! What stands behind a key: texts, numbers, times, sizes, commands, words of a list, and how each is written.

use std::{path::PathBuf, str::FromStr, time::Duration};

use super::{
    schema::Shape,
    table::{Value, instead},
    tree::{Node, Problems, Raw},
};
use crate::{
    base::{self, Name, Signal},
    core::service::{Check, Condition, Format, Ready, Restart, StopTo},
};

/// The system's calls end a text at a NUL, so there is none.
fn text<'a>(node: &'a Node, problems: &mut Problems, expected: &str) -> Option<&'a str> {
    match &node.raw {
        Raw::Text(text) if text.contains('\0') => problems.bad(node, "has a NUL in it; leave it out"),
        Raw::Text(text) => Some(text),
        _ => problems.wrong(node, expected),
    }
}

fn full<'a>(node: &'a Node, problems: &mut Problems, expected: &str) -> Option<&'a str> {
    match text(node, problems, expected)? {
        "" => problems.bad(node, &format!("is empty; use {expected}")),
        text => Some(text),
    }
}

/// A text; it may be empty.
#[derive(Debug)]
pub(super) struct Text(pub(super) String);

impl Value for Text {
    const SHAPE: Shape = Shape::Schema(r#"{ "type": "string" }"#);

    fn read(node: &Node, problems: &mut Problems) -> Option<Text> {
        text(node, problems, "a text, such as \"8080\"").map(|text| Text(text.into()))
    }
}

/// A directory.
#[derive(Debug)]
pub(super) struct Directory(pub(super) PathBuf);

impl Value for Directory {
    const SHAPE: Shape = Shape::Schema(r#"{ "type": "string", "minLength": 1 }"#);

    fn read(node: &Node, problems: &mut Problems) -> Option<Directory> {
        full(node, problems, "a path, such as \"/data\"").map(|path| Directory(path.into()))
    }
}

/// A path from the root, without what the system would leave out of it.
#[derive(Debug)]
pub(super) struct Absolute(pub(super) PathBuf);

impl Value for Absolute {
    const SHAPE: Shape = Shape::Text(r"^/+(\./+)*([^/.]|\.[^/])");

    fn read(node: &Node, problems: &mut Problems) -> Option<Absolute> {
        let path = full(node, problems, "a path, such as \"/opt/data\"")?;
        if !path.starts_with('/') {
            return problems.bad(node, "is not absolute; begin it with /");
        }
        if path.split('/').any(|part| part == "..") {
            return problems.bad(node, "has a .. in it; write where it leads");
        }
        let path: PathBuf = PathBuf::from(path).components().collect();
        if path.parent().is_none() {
            return problems.bad(node, "is the root; name something in it");
        }
        Some(Absolute(path))
    }
}

impl Value for bool {
    const SHAPE: Shape = Shape::Schema(r#"{ "type": "boolean" }"#);

    fn read(node: &Node, problems: &mut Problems) -> Option<bool> {
        match node.raw {
            Raw::Switch(switch) => Some(switch),
            _ => problems.wrong(node, "true or false"),
        }
    }
}

/// A duration of so many milliseconds at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time<const LEAST: u64 = 0>(pub(super) Duration);

impl<const LEAST: u64> Value for Time<LEAST> {
    const SHAPE: Shape = Shape::Schema(r##"{ "$ref": "#/$defs/duration" }"##);

    fn read(node: &Node, problems: &mut Problems) -> Option<Time<LEAST>> {
        time(node, LEAST, problems).map(Time)
    }
}

fn time(node: &Node, least: u64, problems: &mut Problems) -> Option<Duration> {
    let time = match &node.raw {
        Raw::Text(text) => base::duration(text).ok(),
        Raw::Whole(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
        Raw::Decimal(seconds) => base::seconds_of(*seconds),
        _ => return problems.wrong(node, "a duration, such as \"30s\", or a number of seconds"),
    };
    match time {
        None => problems.bad(node, &format!("is no duration; {}", base::DURATION)),
        Some(time) if time < Duration::from_millis(least) => {
            problems.bad(node, &format!("is too short; use {least}ms or more"))
        }
        Some(time) => Some(time),
    }
}

const SIZES: [(&str, u32, u32); 11] = [
    ("B", 1000, 0),
    ("kB", 1000, 1),
    ("KB", 1000, 1),
    ("MB", 1000, 2),
    ("GB", 1000, 3),
    ("TB", 1000, 4),
    ("KiB", 1024, 1),
    ("MiB", 1024, 2),
    ("GiB", 1024, 3),
    ("TiB", 1024, 4),
    ("", 1000, 0),
];
const SIZE: &str = "use 50MB (millions), 512MiB (powers of 1024) or a number of bytes";

/// `50MB`, `1.5GB`, `512 MiB`, `4096`.
pub(super) fn size(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..unit_at], text[unit_at..].trim_start());
    let (_, base, power) = SIZES.iter().find(|(name, _, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // Twelve digits behind the point are a byte of a terabyte.
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 12 {
        return None;
    }
    let unit = u128::from(*base).pow(*power);
    let parts = fraction.parse::<u128>().ok()?.checked_mul(unit)? / 10_u128.pow(fraction.len() as u32);
    u64::try_from(whole.parse::<u128>().ok()?.checked_mul(unit)?.checked_add(parts)?).ok()
}

/// Bytes, so many at least.
#[derive(Debug)]
pub(super) struct Size<const LEAST: u64 = 0>(pub(super) u64);

impl<const LEAST: u64> Value for Size<LEAST> {
    const SHAPE: Shape = Shape::Size(LEAST);

    fn read(node: &Node, problems: &mut Problems) -> Option<Size<LEAST>> {
        bytes(node, LEAST, problems).map(Size)
    }
}

fn bytes(node: &Node, least: u64, problems: &mut Problems) -> Option<u64> {
    let bytes = match &node.raw {
        Raw::Text(text) => size(text),
        Raw::Whole(bytes) => u64::try_from(*bytes).ok(),
        _ => return problems.wrong(node, "a size, such as \"50MB\", or a number of bytes"),
    };
    match bytes {
        None => problems.bad(node, &format!("is no size; {SIZE}")),
        Some(bytes) if bytes < least => problems.bad(node, &format!("is too small; use {least} bytes or more")),
        Some(bytes) => Some(bytes),
    }
}

/// A whole number in these bounds.
#[derive(Debug)]
pub(super) struct Whole<const LEAST: i64, const MOST: i64>(pub(super) i64);

impl<const LEAST: i64, const MOST: i64> Value for Whole<LEAST, MOST> {
    const SHAPE: Shape = Shape::Whole(LEAST, MOST);

    fn read(node: &Node, problems: &mut Problems) -> Option<Whole<LEAST, MOST>> {
        whole(node, LEAST, MOST, problems).map(Whole)
    }
}

fn whole(node: &Node, least: i64, most: i64, problems: &mut Problems) -> Option<i64> {
    let expected = format!("a whole number from {least} to {most}");
    match node.raw {
        Raw::Whole(number) if (least..=most).contains(&number) => Some(number),
        Raw::Whole(number) => problems.bad(node, &format!("is {number}; use {expected}")),
        Raw::Decimal(number) => problems.bad(node, &format!("is {number:?}; use {expected}")),
        _ => problems.wrong(node, &expected),
    }
}

impl<const LEAST: i64, const MOST: i64> Whole<LEAST, MOST> {
    /// For bounds that it is made for.
    pub(super) fn to<T: TryFrom<i64>>(&self) -> Option<T> {
        self.0.try_into().ok()
    }
}

/// What a resource limit of bytes or files may be; `"unlimited"` is the system's largest number.
#[derive(Debug)]
pub(super) struct Unlimited<T>(pub(super) T);

impl Value for Unlimited<u64> {
    const SHAPE: Shape = Shape::Either(&[Shape::Schema(r#"{ "const": "unlimited" }"#), Shape::Size(0)]);

    fn read(node: &Node, problems: &mut Problems) -> Option<Unlimited<u64>> {
        match &node.raw {
            Raw::Text(text) if text == "unlimited" => Some(Unlimited(u64::MAX)),
            _ => Size::<0>::read(node, problems).map(|size| Unlimited(size.0)),
        }
    }
}

/// A number in these bounds, which are thousandths.
#[derive(Debug)]
pub(super) struct Decimal<const LEAST: i64, const MOST: i64>(pub(super) f64);

impl<const LEAST: i64, const MOST: i64> Value for Decimal<LEAST, MOST> {
    const SHAPE: Shape = Shape::Decimal(LEAST, MOST);

    fn read(node: &Node, problems: &mut Problems) -> Option<Decimal<LEAST, MOST>> {
        decimal(node, LEAST, MOST, problems).map(Decimal)
    }
}

fn decimal(node: &Node, least: i64, most: i64, problems: &mut Problems) -> Option<f64> {
    let (least, most) = (least as f64 / 1000.0, most as f64 / 1000.0);
    let expected = format!("a number from {least} to {most}");
    let number = match node.raw {
        Raw::Whole(number) => number as f64,
        Raw::Decimal(number) => number,
        _ => return problems.wrong(node, &expected),
    };
    if (least..=most).contains(&number) {
        Some(number)
    } else {
        problems.bad(node, &format!("is {number}; use {expected}"))
    }
}

/// A command: a list as it is, a text for `/bin/sh -c`.
#[derive(Debug)]
pub(super) struct Words(pub(super) Vec<String>);

const COMMAND: &str = "a list of words, such as [\"ray\", \"start\"], or a text for /bin/sh";

impl Value for Words {
    const SHAPE: Shape = Shape::Schema(r##"{ "$ref": "#/$defs/command" }"##);

    fn read(node: &Node, problems: &mut Problems) -> Option<Words> {
        match &node.raw {
            Raw::Text(line) if line.trim().is_empty() => problems.bad(node, &format!("is empty; use {COMMAND}")),
            Raw::Text(_) => {
                let line = text(node, problems, COMMAND)?;
                Some(Words(vec!["/bin/sh".into(), "-c".into(), line.into()]))
            }
            Raw::List(words) => {
                let read = |word| text(word, problems, "a text for each word of a command, such as \"8080\"");
                // Each is read, for what is wrong with it.
                let words: Vec<Option<&str>> = words.iter().map(read).collect();
                let words: Vec<String> = words.into_iter().map(|word| word.map(String::from)).collect::<Option<_>>()?;
                match words.first().map(String::as_str) {
                    None | Some("") => problems.bad(node, &format!("has no program; use {COMMAND}")),
                    Some(_) => Some(Words(words)),
                }
            }
            _ => problems.wrong(node, COMMAND),
        }
    }
}

/// Commands, one after the other.
#[derive(Debug)]
pub(super) struct Commands(pub(super) Vec<Words>);

impl Value for Commands {
    const SHAPE: Shape = Shape::List(&Words::SHAPE);

    fn read(node: &Node, problems: &mut Problems) -> Option<Commands> {
        let Raw::List(commands) = &node.raw else {
            return problems.wrong(node, "a list of commands, such as [\"mkdir -p /data\"]");
        };
        let commands: Vec<_> = commands.iter().map(|command| Words::read(command, problems)).collect();
        commands.into_iter().collect::<Option<_>>().map(Commands)
    }
}

/// A user or a group: a name or a number.
#[derive(Debug)]
pub(super) struct Account(pub(super) String);

impl Value for Account {
    const SHAPE: Shape = Shape::Either(&[Shape::Whole(0, u32::MAX as i64 - 1), Shape::Text("^[^:]+$")]);

    fn read(node: &Node, problems: &mut Problems) -> Option<Account> {
        let expected = "a name, such as \"nobody\", or a number";
        if let Raw::Whole(number) = node.raw {
            // The last one is setuid's word for "leave it".
            return match u32::try_from(number) {
                Ok(number) if number < u32::MAX => Some(Account(number.to_string())),
                _ => problems.bad(node, &format!("is {number}; use a number from 0 to {}", u32::MAX - 1)),
            };
        }
        match full(node, problems, expected)? {
            name if name.contains(':') => problems.bad(node, "has a : in it; use `user` and `group`"),
            name if name.bytes().all(|b| b.is_ascii_digit()) && name.parse::<u32>().is_ok_and(|n| n == u32::MAX)
                || name.bytes().all(|b| b.is_ascii_digit()) && name.parse::<u32>().is_err() =>
            {
                problems.bad(node, &format!("is {name}; use a number from 0 to {}", u32::MAX - 1))
            }
            name => Some(Account(name.into())),
        }
    }
}

impl Value for Signal {
    const SHAPE: Shape = Shape::Either(&[Shape::Whole(1, 64), Shape::Signal]);

    fn read(node: &Node, problems: &mut Problems) -> Option<Signal> {
        let signal = match &node.raw {
            Raw::Text(text) => text.parse(),
            Raw::Whole(number) => number.to_string().parse(),
            _ => return problems.wrong(node, "a signal, such as \"TERM\""),
        };
        match signal {
            Ok(Signal::STOP | Signal::CONT) => problems.bad(node, "does not ask to end; use another, such as \"TERM\""),
            Ok(signal) => Some(signal),
            Err(what) => problems.bad(node, &format!("is an {what}")),
        }
    }
}

/// One of some words.
macro_rules! choices {
    ($($type:ty { $($word:literal => $value:expr,)* })*) => {$(
        impl Value for $type {
    const SHAPE: Shape = Shape::Word(&[$($word),*]);

            fn read(node: &Node, problems: &mut Problems) -> Option<$type> {
                Some(match choice(node, problems, &[$($word),*])? {
                    $($word => $value,)*
                    _ => return None,
                })
            }
        }
    )*};
}

fn choice<'a>(node: &'a Node, problems: &mut Problems, known: &[&str]) -> Option<&'a str> {
    let one_of = known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    match &node.raw {
        Raw::Text(word) if known.contains(&word.as_str()) => Some(word),
        Raw::Text(word) => problems.bad(node, &format!("cannot be \"{word}\": {}", instead(word, known))),
        _ => problems.wrong(node, &format!("one of {one_of}")),
    }
}

choices! {
    Condition {
        "started" => Condition::Started,
        "ready" => Condition::Ready,
        "healthy" => Condition::Healthy,
        "succeeded" => Condition::Succeeded,
    }
    Restart {
        "never" => Restart::Never,
        "on-failure" => Restart::OnFailure,
        "always" => Restart::Always,
    }
    StopTo {
        "tree" => StopTo::Tree,
        "command" => StopTo::Command,
    }
    Ready {
        "started" => Ready::Started,
        "notify" => Ready::Notify,
        "fd" => Ready::Fd,
        "healthy" => Ready::Healthy,
    }
    Format {
        "raw" => Format::Raw,
        "prefix" => Format::Prefix,
        "json" => Format::Json,
    }
}

/// Names that the file gives, and something behind each, in its order.
#[derive(Debug)]
pub(super) struct Named<K, V>(pub(super) Vec<Item<K, V>>);

/// A name and what stands behind it.
#[derive(Debug)]
pub(super) struct Item<K, V> {
    pub(super) at: usize,
    pub(super) key: Option<K>,
    pub(super) value: Option<V>,
}

/// What may be a name there.
pub(super) trait ItemName: FromStr<Err: ToString> {
    /// For the schema, in its words.
    const NAMES: &'static str;
    /// An entry, for whoever wrote something else than a table.
    const EXAMPLE: &'static str;
}

impl<K: ItemName, V: Value> Value for Named<K, V> {
    const SHAPE: Shape = Shape::Named(K::NAMES, &V::SHAPE);

    fn read(node: &Node, problems: &mut Problems) -> Option<Named<K, V>> {
        let Raw::Table(entries) = &node.raw else {
            return problems.wrong(node, &format!("a table, such as {}", K::EXAMPLE));
        };
        let mut items = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = entry.name.parse().map_err(|error: K::Err| problems.tell(entry.at, error.to_string())).ok();
            let above = problems.enter(&entry.name);
            let value = V::read(&entry.value, problems);
            problems.leave(above);
            items.push(Item { at: entry.at, key, value });
        }
        Some(Named(items))
    }
}

impl ItemName for Name {
    const NAMES: &str =
        r#"{ "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$", "not": { "pattern": "^(j[0-9]+|main)$" } }"#;
    const EXAMPLE: &str = "{ NAME = ... }";
}

/// The name of an environment's variable.
#[derive(Debug)]
pub(super) struct Variable(pub(super) String);

impl FromStr for Variable {
    type Err = String;
    fn from_str(name: &str) -> Result<Variable, String> {
        let good = !name.is_empty() && !name.contains(['=', '\0']);
        good.then(|| Variable(name.into()))
            .ok_or_else(|| format!("'{}' is not a variable's name; use one without = and NUL", name.escape_default()))
    }
}

impl ItemName for Variable {
    const NAMES: &str = r#"{ "pattern": "^[^=\\u0000]+$" }"#;
    const EXAMPLE: &str = "{ PORT = \"8080\" }";
}

/// What a variable of `export` may have in it, and what that becomes.
pub const PLACEHOLDERS: [&str; 2] = ["cpus", "memory"];

/// A text with placeholders.
#[derive(Debug)]
pub(super) struct Template(pub(super) Vec<Piece>);

/// A piece of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Placeholder(&'static str),
}

impl Value for Template {
    const SHAPE: Shape = Shape::Text(r"^([^{}]|\{\{|\}\}|\{(cpus|memory)\})*$");

    fn read(node: &Node, problems: &mut Problems) -> Option<Template> {
        let mut rest = text(node, problems, "a text, such as \"{cpus}\"")?;
        let known = PLACEHOLDERS.map(|name| format!("{{{name}}}")).join(" and ");
        let mut pieces = Vec::new();
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            pieces.push(Piece::Text(before.into()));
            let doubled = from.starts_with("{{") || from.starts_with("}}");
            let end = if doubled { 2 } else { from.find('}').map_or(from.len(), |end| end + 1) };
            let (word, after) = from.split_at(end);
            let name = word.strip_prefix('{').and_then(|word| word.strip_suffix('}'));
            pieces.push(match PLACEHOLDERS.iter().find(|known| Some(**known) == name) {
                _ if doubled => Piece::Text(word[..1].into()),
                Some(known) => Piece::Placeholder(known),
                None => {
                    let what = match name {
                        Some(_) => format!("has the unknown placeholder {word}; known: {known}; {{{{ is a brace"),
                        None if word.starts_with('{') => {
                            format!("has a {{ without a }}; write {{{{ for a brace, or {known}")
                        }
                        None => "has a } without a {; write }} for a brace".into(),
                    };
                    return problems.bad(node, &what);
                }
            });
            rest = after;
        }
        pieces.push(Piece::Text(rest.into()));
        Some(Template(pieces))
    }
}

/// What a health check asks by the network.
#[derive(Clone, Debug)]
pub(super) struct Url(pub(super) Check);

const URL: &str = "http://HOST[:PORT]/PATH or tcp://HOST:PORT";

impl FromStr for Url {
    type Err = String;
    fn from_str(text: &str) -> Result<Url, String> {
        let bad = |what: &str| Err(format!("{what}; use {URL}"));
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return bad("has a blank or a letter in it that a URL has not");
        }
        let (http, rest) = match (text.strip_prefix("http://"), text.strip_prefix("tcp://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ if text.starts_with("https://") => return bad("is encrypted, which is not built in"),
            _ => return bad("is no such URL"),
        };
        let (place, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains('#') || place.contains('@') {
            return bad("has a fragment or a user in it");
        }
        let (host, port) = match place.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((host, _)) if host.parse::<std::net::Ipv6Addr>().is_err() => {
                return bad("has something in [] that is no address");
            }
            Some((host, "")) => (host, None),
            Some((host, after)) => match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return bad("has something behind its ]"),
            },
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        if host.is_empty() || host.contains(['[', ']']) || !place.starts_with('[') && host.contains(':') {
            return bad("has no host");
        }
        let port = match port {
            None if http => 80,
            None => return bad("has no port"),
            Some(port) => match port.parse::<u16>() {
                Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => number,
                _ => return bad("has a port that is not one of 1 to 65535"),
            },
        };
        let host = host.to_string();
        Ok(Url(match (http, path) {
            (true, path) if path.starts_with('/') => Check::Http { host, port, path: path.into() },
            (true, path) => Check::Http { host, port, path: format!("/{path}") },
            (false, "" | "/") => Check::Tcp { host, port },
            (false, _) => return bad("has a path"),
        }))
    }
}

impl Value for Url {
    const SHAPE: Shape = Shape::Text(r"^(http://[^\s/?#@]+([/?][^\s#]*)?|tcp://[^\s/?#@]+:\d+/?)$");

    fn read(node: &Node, problems: &mut Problems) -> Option<Url> {
        match text(node, problems, &format!("a text, {URL}"))?.parse() {
            Ok(url) => Some(url),
            Err(what) => problems.bad(node, &what),
        }
    }
}
