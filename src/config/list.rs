//! Every key in a line, for the README and the manual page.

use super::{
    keys,
    schema::Shape,
    table::{Initial, Key, Table},
};

/// A key, as a table of keys has it.
#[derive(Debug)]
pub struct Described {
    /// With those that it stands in: `backoff.initial`.
    pub name: String,
    /// What it means.
    pub about: String,
    /// What it is where it is not given; empty: nothing.
    pub initial: String,
}

/// The keys of the file itself, and those of each service and mount.
pub fn described() -> [Vec<Described>; 2] {
    let (mut file, mut each) = (Vec::new(), Vec::new());
    rows(keys::File::KNOWN.keys().collect(), "", &|_| "", &mut file);
    let mut keys: Vec<_> = keys::Mount::KNOWN.keys().collect();
    keys.splice(2..2, keys::Service::KNOWN.keys().filter(|key| ["ready", "watchdog"].contains(&key.name)));
    let only = |name: &str| match name {
        "path" => "Mounts only: ",
        "ready" | "watchdog" => "Services only: ",
        _ => "",
    };
    rows(keys, "", &only, &mut each);
    [file, each]
}

fn rows(keys: Vec<&Key>, above: &str, only: &dyn Fn(&str) -> &'static str, into: &mut Vec<Described>) {
    for key in keys {
        let name = format!("{above}{}", key.name);
        let about = key.about.split_whitespace().collect::<Vec<_>>().join(" ");
        let initial = match key.initial {
            Initial::Required => "required".into(),
            Initial::Absent(meaning) => meaning.into(),
            Initial::Given("[]" | "{}") => String::new(),
            Initial::Given(text) => format!("`{text}`"),
        };
        into.push(Described { name: name.clone(), about: format!("{}{about}", only(key.name)), initial });
        // Names of the file's own are no keys.
        if !above.is_empty() || !["service", "mount"].contains(&key.name) {
            rows(inner(&key.shape), &format!("{name}."), &|_| "", into);
        }
    }
}

/// The keys in what is so.
fn inner(shape: &Shape) -> Vec<&'static Key> {
    match shape {
        Shape::Named(_, item) => inner(item),
        Shape::Either(shapes) => shapes.iter().flat_map(inner).collect(),
        Shape::Table(known, _) => known.keys().collect(),
        _ => Vec::new(),
    }
}
