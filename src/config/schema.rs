use serde_json::Value as Json;

use super::{
    keys::File,
    table::{Initial, Key, Known, Value},
};
use crate::base::Signal;

/// What a value is.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// In JSON Schema's own words.
    Schema(&'static str),
    /// A text of this pattern.
    Text(&'static str),
    /// A whole number from the one to the other.
    Whole(i64, i64),
    /// A number from the one to the other, in thousandths.
    Decimal(i64, i64),
    /// A number of bytes, so many at least, or a text that says it.
    Size(u64),
    /// A signal's name or number, as a text.
    Signal,
    /// One of these words.
    Word(&'static [&'static str]),
    Either(&'static [Shape]),
    List(&'static Shape),
    /// Names of the file's own, of this schema, and what stands behind each.
    Named(&'static str, &'static Shape),
    /// Keys, and what else is to be said of them.
    Table(&'static Known, &'static str),
}

/// What several keys are.
const DEFINITIONS: &str = r##"{
    "duration": {
        "description": "A duration: 500ms, 30s, 10m, 2h, 1h30m, or a number of seconds.",
        "anyOf": [
            { "type": "number", "minimum": 0 },
            { "type": "string", "pattern": "^(\\d*\\.?\\d+|(\\s*\\d+(\\.\\d+)?\\s*(n(anos|sec|s)|[uµ]s|usec|m(illis|sec|s|inutes?|ins?)?|s(ec(onds?|s)?)?|h(ours?|rs?)?|d(ays?)?|w(eeks?|ks?)?|M|months?|y(ears?|rs?)?))+\\s*)$" }
        ]
    },
    "command": {
        "description": "A command: a list is executed as it is, a text goes to /bin/sh -c.",
        "anyOf": [
            { "type": "string", "pattern": "\\S" },
            { "type": "array", "minItems": 1, "prefixItems": [{ "minLength": 1 }], "items": { "type": "string" } }
        ]
    }
}"##;

/// JSON Schema (draft 2020-12) of the configuration file, by which editors complete and check it.
pub fn schema() -> Json {
    let mut schema = of(&File::SHAPE);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "lastout's configuration file".into();
    schema["$defs"] = constant(DEFINITIONS);
    schema
}

/// Constants are JSON: the tests read all.
fn constant(text: &str) -> Json {
    serde_json::from_slice(text.as_bytes()).unwrap_or_default()
}

fn of(shape: &Shape) -> Json {
    let mut schema = Json::Object(serde_json::Map::new());
    match shape {
        Shape::Schema(text) => schema = constant(text),
        Shape::Text(pattern) => {
            schema["type"] = "string".into();
            schema["pattern"] = (*pattern).into();
        }
        Shape::Whole(least, most) => {
            schema["type"] = "integer".into();
            schema["minimum"] = (*least).into();
            schema["maximum"] = (*most).into();
        }
        Shape::Decimal(least, most) => {
            schema["type"] = "number".into();
            schema["minimum"] = (*least as f64 / 1000.0).into();
            schema["maximum"] = (*most as f64 / 1000.0).into();
        }
        Shape::Size(least) => {
            let mut number = Json::Object(serde_json::Map::new());
            number["type"] = "integer".into();
            number["minimum"] = (*least).into();
            let text = of(&Shape::Text(r"^\d+(\.\d+)?\s*([kKMGT]?B|[KMGT]iB)?$"));
            schema["anyOf"] = Json::Array(vec![number, text]);
        }
        Shape::Signal => {
            schema["type"] = "string".into();
            schema["pattern"] = signal().into();
        }
        Shape::Word(words) => schema["enum"] = words.iter().map(|word| Json::from(*word)).collect(),
        Shape::Either(shapes) => schema["anyOf"] = shapes.iter().map(of).collect(),
        Shape::List(item) => {
            schema["type"] = "array".into();
            schema["items"] = of(item);
        }
        Shape::Named(names, item) => {
            schema["type"] = "object".into();
            schema["propertyNames"] = constant(names);
            schema["additionalProperties"] = of(item);
        }
        Shape::Table(known, more) => {
            schema = constant(more);
            table(known, &mut schema);
        }
    }
    schema
}

/// In capitals or not, with SIG before it or without: a pattern has no other way to say so.
fn signal() -> String {
    let any_case = |name: &str| {
        let letter = |c: char| match c {
            'A'..='Z' => format!("[{c}{}]", c.to_ascii_lowercase()),
            other => other.to_string(),
        };
        name.chars().map(letter).collect::<String>()
    };
    // These do not ask to end.
    let names = Signal::names().filter(|name| !["STOP", "CONT"].contains(name)).map(any_case);
    let names = names.collect::<Vec<_>>().join("|");
    let [sig, rtmin, rtmax] = ["SIG", "RTMIN", "RTMAX"].map(any_case);
    format!(r"^(\d+|({sig})?({names}|{rtmin}(\+\d+)?|{rtmax}(-\d+)?))$")
}

fn table(known: &Known, schema: &mut Json) {
    schema["type"] = "object".into();
    schema["additionalProperties"] = false.into();
    let mut required = Vec::new();
    for key in known.keys() {
        let mut value = of(&key.shape);
        value["description"] = description(key).into();
        if let Some(initial) = key.initial.json() {
            value["default"] = initial;
        }
        schema["properties"][key.name] = value;
        if let Initial::Required = key.initial {
            required.push(Json::from(key.name));
        }
    }
    if !required.is_empty() {
        schema["required"] = Json::Array(required);
    }
}

/// A key's line in the help of editors.
fn description(key: &Key) -> String {
    // Lines of a comment, each with the blank before it.
    let about = key.about.trim();
    match key.initial {
        Initial::Absent(meaning) => format!("{about} Default: {meaning}."),
        _ => about.into(),
    }
}
