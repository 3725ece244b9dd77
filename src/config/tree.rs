//! TOML as values that know where they stand, and what is wrong with them.

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use crate::base::{plain, sort_by};

/// A value, and the byte of the text that it begins at.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) raw: Raw,
}

/// What TOML knows.
#[derive(Debug)]
pub(super) enum Raw {
    Text(String),
    Whole(i64),
    Decimal(f64),
    Switch(bool),
    Moment,
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// `name = value`, or a table and its header.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Where its name stands.
    pub(super) at: usize,
    pub(super) value: Node,
}

impl Raw {
    /// In words, for whoever expected something else.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Raw::Text(_) => "a text",
            Raw::Whole(_) | Raw::Decimal(_) => "a number",
            Raw::Switch(_) => "a boolean",
            Raw::Moment => "a date or time",
            Raw::List(_) => "a list",
            Raw::Table(_) => "a table",
        }
    }
}

/// What is wrong, by the byte of the text that it is about.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) found: Vec<(usize, String)>,
    /// The key whose value is being read.
    key: String,
}

impl Problems {
    /// A problem that names its subject itself.
    pub(super) fn tell(&mut self, at: usize, text: String) {
        self.found.push((at, plain(&text)));
    }

    /// The value is of another type than its key's.
    pub(super) fn wrong<T>(&mut self, node: &Node, expected: &str) -> Option<T> {
        let text = format!("`{}` is {}; use {expected}", self.key, node.raw.kind());
        self.tell(node.at, text);
        None
    }

    /// The value is of the right type, and bad.
    pub(super) fn bad<T>(&mut self, node: &Node, what: &str) -> Option<T> {
        let text = format!("`{}` {what}", self.key);
        self.tell(node.at, text);
        None
    }

    /// A table has not what it must have.
    pub(super) fn missing(&mut self, at: usize, name: &str) {
        let text = format!("`{}` has no `{name}`; give it one", self.key);
        self.tell(at, text);
    }

    /// What is told from here on is below this key. Gives what [`leave`](Self::leave) takes.
    pub(super) fn enter(&mut self, key: &str) -> String {
        std::mem::replace(&mut self.key, key.into())
    }

    pub(super) fn leave(&mut self, above: String) {
        self.key = above;
    }
}

/// Reads TOML. What is no TOML is told, and nothing else can be.
pub(super) fn read(text: &str) -> Result<Node, Problems> {
    let mut problems = Problems::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(text.len(), |span| span.start);
        problems.tell(at, format!("not TOML: {}", error.message()));
    }
    let table = entries(table.into_inner(), &mut problems);
    if problems.found.is_empty() { Ok(Node { at: 0, raw: Raw::Table(table) }) } else { Err(problems) }
}

fn entries(table: DeTable, problems: &mut Problems) -> Vec<Entry> {
    let entry = |(name, value): (Spanned<DeString>, Spanned<DeValue>)| {
        let at = name.span().start;
        let mut value = node(value, problems);
        // Its header may stand anywhere, and in several places.
        if let Raw::Table(_) = value.raw {
            value.at = at;
        }
        Entry { name: name.into_inner().into_owned(), at, value }
    };
    let mut found: Vec<Entry> = table.into_iter().map(entry).collect();
    sort_by(&mut found, |a, b| a.at.cmp(&b.at));
    found
}

/// No deeper than the parser goes: 80 levels.
fn node(value: Spanned<DeValue>, problems: &mut Problems) -> Node {
    let at = value.span().start;
    let raw = match value.into_inner() {
        DeValue::String(text) => Raw::Text(text.into_owned()),
        DeValue::Integer(number) => {
            Raw::Whole(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or_else(|_| {
                problems.tell(at, "not TOML: a whole number is too large; use one of 64 bits".into());
                0
            }))
        }
        // Rust reads whatever TOML writes.
        DeValue::Float(number) => Raw::Decimal(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(switch) => Raw::Switch(switch),
        DeValue::Datetime(_) => Raw::Moment,
        DeValue::Array(list) => Raw::List(list.into_iter().map(|item| node(item, problems)).collect()),
        DeValue::Table(table) => Raw::Table(entries(table, problems)),
    };
    Node { at, raw }
}
