//! What a key is. [`keys!`](keys) makes of one list of keys the type that they are read into, the names that are
//! known, and the schema: they cannot disagree.

use serde_json::Value as Json;

use super::{
    schema::Shape,
    tree::{Entry, Node, Problems, Raw},
};

/// What a key's value is.
pub(super) trait Value: Sized {
    /// What `read` takes, for the schema.
    const SHAPE: Shape;

    /// Reads it; `None` when something is wrong, and told.
    fn read(node: &Node, problems: &mut Problems) -> Option<Self>;

    /// It, where its key is not given and has no default.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    const SHAPE: Shape = T::SHAPE;

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        T::read(node, problems).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// What a key has where it is not given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Initial {
    /// It must be given.
    Required,
    /// Nothing, which means this.
    Absent(&'static str),
    /// This, which is JSON and TOML.
    Given(&'static str),
}

impl Initial {
    fn raw(self) -> Option<Raw> {
        Some(match self.json()? {
            Json::Array(_) => Raw::List(Vec::new()),
            Json::Object(_) => Raw::Table(Vec::new()),
            Json::String(text) => Raw::Text(text),
            Json::Bool(switch) => Raw::Switch(switch),
            Json::Number(number) => match number.as_i64() {
                Some(number) => Raw::Whole(number),
                None => Raw::Decimal(number.as_f64()?),
            },
            Json::Null => return None,
        })
    }

    pub(super) fn json(self) -> Option<Json> {
        match self {
            Initial::Required | Initial::Absent(_) => None,
            Initial::Given(text) => serde_json::from_slice(text.as_bytes()).ok(),
        }
    }
}

/// A key, for the schema and for whoever mistyped it.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) initial: Initial,
    pub(super) shape: Shape,
}

/// What is known of a table.
pub(super) struct Known {
    pub(super) keys: &'static [Key],
    /// What people write instead, and what to tell them.
    pub(super) hints: &'static [(&'static str, &'static str)],
    /// What it has in common with others.
    pub(super) common: Option<&'static Known>,
}

impl Known {
    /// All keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.keys.iter().chain(self.common.map_or(&[][..], |common| common.keys))
    }

    fn names(&self) -> Vec<&'static str> {
        self.keys().map(|key| key.name).collect()
    }

    fn unknown(&self, name: &str) -> String {
        let mut hints = self.hints.iter().chain(self.common.map_or(&[][..], |common| common.hints));
        match hints.find(|(wrong, _)| *wrong == name) {
            Some((_, hint)) => format!("unknown key `{name}`: {hint}"),
            None => format!("unknown key `{name}`: {}", instead(name, &self.names())),
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
    const KNOWN: &'static Known;

    /// Takes them out of the entries, telling what is wrong with their values.
    fn take(entries: &mut Entries, problems: &mut Problems) -> Self;
}

/// The entries of a table that is being read.
pub(super) struct Entries<'a> {
    entries: &'a [Entry],
    /// Those of them that were taken.
    taken: Vec<bool>,
    /// What is read where a key is not given; it stands where the table does.
    initial: Node,
    /// Required ones that are not there.
    missing: Vec<&'static str>,
}

impl<'a> Entries<'a> {
    fn open(node: &'a Node, known: &Known, problems: &mut Problems) -> Option<Entries<'a>> {
        let Raw::Table(entries) = &node.raw else {
            return problems.wrong(node, &format!("a table with some of {}", known.names().join(", ")));
        };
        let initial = Node { at: node.at, raw: Raw::Moment };
        Some(Entries { entries, taken: vec![false; entries.len()], initial, missing: Vec::new() })
    }

    pub(super) fn take<T: Value>(&mut self, name: &'static str, initial: Initial, problems: &mut Problems) -> Field<T> {
        let (at, node) = self.find(name, initial);
        let value = match node {
            Some(node) => {
                let above = problems.enter(name);
                let value = T::read(node, problems);
                problems.leave(above);
                value
            }
            None => T::absent(),
        };
        Field { at, value }
    }

    /// Where it is given, and what is to be read.
    fn find(&mut self, name: &'static str, initial: Initial) -> (Option<usize>, Option<&Node>) {
        if let Some(found) = self.entries.iter().position(|entry| entry.name == name) {
            self.taken[found] = true;
            let entry = &self.entries[found];
            return (Some(entry.at), Some(&entry.value));
        }
        if let Initial::Required = initial {
            self.missing.push(name);
        }
        let Some(raw) = initial.raw() else { return (None, None) };
        self.initial.raw = raw;
        (None, Some(&self.initial))
    }

    /// Tells what is left, and what is not there.
    fn close(self, known: &Known, problems: &mut Problems) {
        for (entry, _) in self.entries.iter().zip(self.taken).filter(|(_, taken)| !taken) {
            problems.tell(entry.at, known.unknown(&entry.name));
        }
        for name in self.missing {
            problems.missing(self.initial.at, name);
        }
    }
}

/// Reads a table, telling all that is wrong in it.
pub(super) fn read<T: Table>(node: &Node, problems: &mut Problems) -> Option<T> {
    let mut entries = Entries::open(node, T::KNOWN, problems)?;
    let table = T::take(&mut entries, problems);
    entries.close(T::KNOWN, problems);
    Some(table)
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
            const KNOWN: &'static Known = &Known {
                keys: &[$(Key {
                    name: keys!(@name $key),
                    about: concat!($($doc),+),
                    initial: keys!(@initial $initial),
                    shape: <$type>::SHAPE,
                },)*],
                hints: &[$($(($wrong, $hint),)*)?],
                common: keys!(@common $($Common)?),
            };

            fn take(entries: &mut Entries, problems: &mut Problems) -> $table {
                $table {
                    $($key: entries.take(keys!(@name $key), keys!(@initial $initial), problems),)*
                    $($common: <$Common>::take(entries, problems),)?
                }
            }
        }

        impl Value for $table {
            const SHAPE: Shape = Shape::Table(<$table>::KNOWN, "{}");

            fn read(node: &Node, problems: &mut Problems) -> Option<$table> {
                table::read(node, problems)
            }
        }
    };
    (@name r#as) => { "as" };
    (@name $key:ident) => { stringify!($key) };
    (@common) => { None };
    (@common $Common:ty) => { Some(<$Common>::KNOWN) };
    (@initial required) => { Initial::Required };
    (@initial (absent $meaning:literal)) => { Initial::Absent($meaning) };
    (@initial $initial:tt) => { Initial::Given(stringify!($initial)) };
}
pub(super) use keys;
