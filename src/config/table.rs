//! What a key is. [`keys!`](keys) makes of one list of keys the type that they are read into, the names that are
//! known, and the schema: they cannot disagree.

use serde_json::{Map, Value as Json, json};

use super::tree::{Entry, Node, Problems, Raw};

/// What a key's value is.
pub(super) trait Value: Sized {
    /// Reads it; `None` when something is wrong, and told.
    fn read(node: &Node, problems: &mut Problems) -> Option<Self>;

    /// JSON Schema of what `read` takes.
    fn schema() -> Json;

    /// It, where its key is not given and has no default.
    fn absent() -> Option<Self> {
        None
    }

    /// The keys in it.
    #[cfg(test)]
    fn inner() -> Vec<Key> {
        Vec::new()
    }
}

impl<T: Value> Value for Option<T> {
    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        T::read(node, problems).map(Some)
    }

    fn schema() -> Json {
        T::schema()
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    #[cfg(test)]
    fn inner() -> Vec<Key> {
        T::inner()
    }
}

/// What a key has where it is not given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Initial {
    /// It must be given.
    Required,
    /// Nothing, which means this.
    Absent(&'static str),
    List,
    Table,
    Text(&'static str),
    Whole(i64),
    Decimal(f64),
    Switch(bool),
}

impl From<&'static str> for Initial {
    fn from(text: &'static str) -> Initial {
        Initial::Text(text)
    }
}

impl From<i64> for Initial {
    fn from(number: i64) -> Initial {
        Initial::Whole(number)
    }
}

impl From<f64> for Initial {
    fn from(number: f64) -> Initial {
        Initial::Decimal(number)
    }
}

impl From<bool> for Initial {
    fn from(switch: bool) -> Initial {
        Initial::Switch(switch)
    }
}

impl Initial {
    fn raw(self) -> Option<Raw> {
        Some(match self {
            Initial::Required | Initial::Absent(_) => return None,
            Initial::List => Raw::List(Vec::new()),
            Initial::Table => Raw::Table(Vec::new()),
            Initial::Text(text) => Raw::Text(text.into()),
            Initial::Whole(number) => Raw::Whole(number),
            Initial::Decimal(number) => Raw::Decimal(number),
            Initial::Switch(switch) => Raw::Switch(switch),
        })
    }

    pub(super) fn json(self) -> Option<Json> {
        Some(match self {
            Initial::Required | Initial::Absent(_) => return None,
            Initial::List => json!([]),
            Initial::Table => json!({}),
            Initial::Text(text) => json!(text),
            Initial::Whole(number) => json!(number),
            Initial::Decimal(number) => json!(number),
            Initial::Switch(switch) => json!(switch),
        })
    }
}

/// A key, for the schema and for whoever mistyped it.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) initial: Initial,
    pub(super) schema: fn() -> Json,
    #[cfg(test)]
    pub(super) inner: fn() -> Vec<Key>,
}

impl Key {
    pub(super) fn of<T: Value>(name: &'static str, about: &'static str, initial: Initial) -> Key {
        #[cfg(test)]
        return Key { name, about, initial, schema: T::schema, inner: T::inner };
        #[cfg(not(test))]
        Key { name, about, initial, schema: T::schema }
    }

    /// Its line in the help of editors.
    pub(super) fn description(&self) -> String {
        // Lines of a comment, each with the blank before it.
        let about = self.about.trim();
        match self.initial {
            Initial::Absent(meaning) => format!("{about} Default: {meaning}."),
            _ => about.into(),
        }
    }
}

/// What was read for a key.
#[derive(Debug)]
pub(super) struct Field<T> {
    /// Where it is given.
    pub(super) at: Option<usize>,
    /// `None`: something is wrong with it, and told.
    pub(super) value: Option<T>,
}

/// A table whose keys are known.
pub(super) trait Table: Sized {
    /// All of them.
    fn keys() -> Vec<Key>;

    /// What people write instead, and what to tell them.
    fn hints() -> Vec<(&'static str, &'static str)>;

    /// Takes them out of the entries, telling what is wrong with their values.
    fn take(entries: &mut Entries, problems: &mut Problems) -> Self;
}

/// The entries of a table that is being read.
pub(super) struct Entries<'a> {
    entries: &'a [Entry],
    /// Those of them that were taken.
    taken: Vec<bool>,
    at: usize,
    /// Required ones that are not there.
    missing: Vec<&'static str>,
}

impl Entries<'_> {
    pub(super) fn take<T: Value>(&mut self, name: &'static str, initial: Initial, problems: &mut Problems) -> Field<T> {
        if let Some(found) = self.find(name) {
            let entry = &self.entries[found];
            return Field { at: Some(entry.at), value: problems.below(name, |below| T::read(&entry.value, below)) };
        }
        if let Initial::Required = initial {
            self.missing.push(name);
        }
        let value = match initial.raw() {
            Some(raw) => problems.below(name, |below| T::read(&Node { at: self.at, raw }, below)),
            None => T::absent(),
        };
        Field { at: None, value }
    }

    fn find(&mut self, name: &str) -> Option<usize> {
        let found = self.entries.iter().position(|entry| entry.name == name)?;
        self.taken[found] = true;
        Some(found)
    }
}

/// Reads a table, telling all that is wrong in it.
pub(super) fn read<T: Table>(node: &Node, problems: &mut Problems) -> Option<T> {
    let Raw::Table(entries) = &node.raw else {
        let keys = T::keys();
        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        return problems.wrong(node, &format!("a table with some of {}", names.join(", ")));
    };
    let mut reading = Entries { entries, taken: vec![false; entries.len()], at: node.at, missing: Vec::new() };
    let table = T::take(&mut reading, problems);
    let Entries { taken, missing, .. } = reading;
    for (entry, _) in entries.iter().zip(taken).filter(|(_, taken)| !taken) {
        problems.tell(entry.at, unknown(&entry.name, &T::keys(), &T::hints()));
    }
    for name in missing {
        problems.missing(node.at, name);
    }
    Some(table)
}

fn unknown(name: &str, keys: &[Key], hints: &[(&str, &str)]) -> String {
    if let Some((_, hint)) = hints.iter().find(|(wrong, _)| *wrong == name) {
        return format!("unknown key `{name}`: {hint}");
    }
    let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
    format!("unknown key `{name}`: {}", instead(name, &names))
}

/// What was most likely meant, or all that is known.
pub(super) fn instead(name: &str, known: &[&str]) -> String {
    // Jaro alone finds two letters that changed places in a short word unlike.
    let slip = |known: &str| known.len() > 2 && strsim::osa_distance(name, known) == 1;
    let likeness = |known: &&str| if slip(known) { 1.0 } else { strsim::jaro(name, known) };
    // What is so long is no slip of the finger, and long to compare.
    let nearest = known.iter().filter(|_| name.len() <= 64).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|known| likeness(known) > 0.7) {
        Some(known) => format!("did you mean `{known}`?"),
        None if known.is_empty() => "there is none".into(),
        None => format!("known: {}", known.join(", ")),
    }
}

/// The schema of a table.
pub(super) fn schema<T: Table>() -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in T::keys() {
        let mut schema = (key.schema)();
        schema["description"] = json!(key.description());
        if let Some(initial) = key.initial.json() {
            schema["default"] = initial;
        }
        properties.insert(key.name.into(), schema);
        if let Initial::Required = key.initial {
            required.push(key.name);
        }
    }
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Defines tables: `key: Type = default`. The default is as it would be written in the file; `required`; or
/// `(absent "what that means")` for an `Option`. A key's comment is its description for editors and the README.
macro_rules! keys {
    (
        $(#[doc = $about:literal])+
        $table:ident {
            $($(#[doc = $doc:literal])+ $key:ident : $type:ty = $initial:tt,)*
            $(.. $common:ident : $Common:ty,)?
        }
        $(hints { $($wrong:literal => $hint:literal,)* })?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug)]
        pub(super) struct $table {
            $($(#[doc = $doc])+ pub(super) $key: Field<$type>,)*
            $(pub(super) $common: $Common,)?
        }

        impl Table for $table {
            fn keys() -> Vec<Key> {
                #[allow(unused_mut)]
                let mut keys = vec![$(
                    Key::of::<$type>(keys!(@name $key), concat!($($doc),+), keys!(@initial $initial)),
                )*];
                $(keys.extend(<$Common>::keys());)?
                keys
            }

            fn hints() -> Vec<(&'static str, &'static str)> {
                #[allow(unused_mut)]
                let mut hints = vec![$($(($wrong, $hint),)*)?];
                $(hints.extend(<$Common>::hints());)?
                hints
            }

            fn take(entries: &mut Entries, problems: &mut Problems) -> $table {
                $table {
                    $($key: entries.take(keys!(@name $key), keys!(@initial $initial), problems),)*
                    $($common: <$Common>::take(entries, problems),)?
                }
            }
        }

        impl Value for $table {
            fn read(node: &Node, problems: &mut Problems) -> Option<$table> {
                table::read(node, problems)
            }

            fn schema() -> Json {
                table::schema::<$table>()
            }

            #[cfg(test)]
            fn inner() -> Vec<Key> {
                <$table>::keys()
            }
        }
    };
    (@name r#as) => { "as" };
    (@name $key:ident) => { stringify!($key) };
    (@initial required) => { Initial::Required };
    (@initial (absent $meaning:literal)) => { Initial::Absent($meaning) };
    (@initial []) => { Initial::List };
    (@initial {}) => { Initial::Table };
    (@initial $initial:literal) => { Initial::from($initial) };
}
pub(super) use keys;
