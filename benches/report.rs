//! What was measured: rows, as JSON, as a table, in the README.

use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    lab::{Lab, Role},
    measures,
};

/// What one contender came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Value {
    pub name: String,
    pub role: Role,
    pub median: f64,
    pub p99: Option<f64>,
    pub samples: usize,
    /// Round by round.
    #[serde(skip)]
    taken: Vec<f64>,
}

/// Whether a target is met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Met {
    Yes,
    No,
    /// The medians say no, but so would they, by chance, of two that are even: the rounds' own ratios have it in the
    /// interval that their median is in with 95 %.
    WithinNoise,
}

impl From<bool> for Met {
    fn from(met: bool) -> Met {
        if met { Met::Yes } else { Met::No }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    pub title: String,
    pub unit: String,
    pub values: Vec<Value>,
    /// Peers that this machine does not have.
    pub not_there: Vec<String>,
    pub to_best_peer: Option<f64>,
    pub to_floor: Option<f64>,
    pub target: String,
    pub met: Option<Met>,
    pub note: String,
    /// Larger is better.
    pub more: bool,
}

/// The rows of one measure, and of which run.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    quick: bool,
    at: String,
    rows: Vec<Row>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    machine: String,
    measures: BTreeMap<String, Measured>,
}

const BEGIN: &str = "<!-- cargo bench -- --write: begin -->";
const END: &str = "<!-- cargo bench -- --write: end -->";

fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

/// Median, and p99 where there is enough to have one.
pub fn summary(name: &str, role: Role, taken: Vec<f64>) -> Value {
    let mut sorted = taken.clone();
    sorted.sort_by(f64::total_cmp);
    let p99 = (taken.len() >= 50).then(|| quantile(&sorted, 0.99));
    Value { name: name.into(), role, median: quantile(&sorted, 0.5), p99, samples: taken.len(), taken }
}

/// One that was taken once.
pub fn single(name: &str, role: Role, value: f64) -> Value {
    summary(name, role, vec![value])
}

impl Row {
    pub fn new(title: impl Into<String>, unit: &str, values: Vec<Value>) -> Row {
        let mut row = Row { title: title.into(), unit: unit.into(), values, ..Row::default() };
        let own = row.of("lastout").map(|own| own.median);
        let of = |role: Role| row.values.iter().filter(move |value| value.role == role).map(|value| value.median);
        let over = |best: Option<f64>| own.zip(best).filter(|(_, best)| *best > 0.0).map(|(own, best)| own / best);
        (row.to_best_peer, row.to_floor) = (over(of(Role::Peer).reduce(f64::min)), over(of(Role::Floor).next()));
        row
    }

    /// The same where larger is better.
    pub fn more(title: impl Into<String>, unit: &str, values: Vec<Value>) -> Row {
        let mut row = Row::new(title, unit, values);
        let best = row.values.iter().filter(|value| value.role == Role::Peer).map(|value| value.median);
        row.to_best_peer = row.of("lastout").zip(best.reduce(f64::max)).map(|(own, best)| own.median / best);
        row.more = true;
        row
    }

    pub fn failed(name: &str) -> Row {
        Row { title: name.into(), note: "could not be measured on this machine".into(), ..Row::default() }
    }

    pub fn of(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|value| value.name == name)
    }

    /// lastout's median over another's.
    pub fn over(&self, name: &str) -> Option<f64> {
        Some(self.of("lastout")?.median / self.of(name)?.median)
    }

    pub fn target(mut self, text: &str, met: impl FnOnce(&Row) -> Option<Met>) -> Row {
        self.met = met(&self);
        self.target = text.into();
        self
    }

    /// Whether lastout takes at most `limit` times what another does.
    pub fn at_most(&self, limit: f64, name: &str) -> Option<Met> {
        let (own, other) = (self.of("lastout")?, self.of(name)?);
        if own.median <= limit * other.median {
            return Some(Met::Yes);
        }
        let mut ratios: Vec<f64> = own.taken.iter().zip(&other.taken).map(|(own, other)| own / other).collect();
        ratios.sort_by(f64::total_cmp);
        let count = ratios.len() as f64;
        // The order statistic below the median, by the binomial's normal approximation.
        let lowest = (count / 2.0 - 0.98 * count.sqrt()).floor().max(0.0) as usize;
        Some(if count > 5.0 && ratios[lowest] <= limit { Met::WithinNoise } else { Met::No })
    }

    pub fn note(mut self, text: impl Into<String>) -> Row {
        self.note = text.into();
        self
    }

    pub fn not_there(mut self, names: Vec<String>) -> Row {
        self.not_there = names;
        self
    }

    fn cell(&self, value: &Value) -> String {
        let p99 = value.p99.map(|p99| format!(" (p99 {})", figure(p99))).unwrap_or_default();
        format!("{}{p99}", figure(value.median))
    }
}

/// Three digits that count.
pub fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 1e6 => {
            format!("{:.0},{:03},{:03}", (value / 1e6).trunc(), (value / 1e3) as i64 % 1000, value as i64 % 1000)
        }
        size if size >= 1e4 => format!("{:.0},{:03}", (value / 1e3).trunc(), value as i64 % 1000),
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Report {
    pub fn path() -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench/results.json")
    }

    /// The last run's, if there was one.
    pub fn load() -> Report {
        let text = fs::read_to_string(Report::path()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub fn save(&self) {
        fs::create_dir_all(Report::path().parent().unwrap()).unwrap();
        fs::write(Report::path(), serde_json::to_string_pretty(self).unwrap()).unwrap();
    }

    pub fn put(&mut self, name: &str, lab: &Lab, rows: Vec<Row>) {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        self.machine = format!("{cpus} CPUs, Linux {}", kernel.split(['-', '+']).next().unwrap_or_default().trim());
        let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        self.measures.insert(name.into(), Measured { quick: lab.quick, at, rows });
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        measures::ALL.iter().filter_map(|(name, _)| self.measures.get(*name)).flat_map(|measured| &measured.rows)
    }

    /// The row with this title.
    pub fn row(&self, title: &str) -> Option<&Row> {
        self.rows().find(|row| row.title == title)
    }

    pub fn markdown(&self) -> String {
        let mut out = String::from(
            "| measure | lastout | floor | others | × best peer | × floor | target | met |\n|---|---|---|---|---|---|---|---|\n",
        );
        for row in self.rows() {
            let of = |role: Role| row.values.iter().filter(move |value| value.role == role);
            let named = |value: &Value| format!("{} {}", value.name, row.cell(value));
            let mut others: Vec<String> = of(Role::Peer).chain(of(Role::Beside)).map(named).collect();
            others.extend(row.not_there.iter().map(|name| format!("{name} not there")));
            let one = |role: Role| of(role).next().map(|value| row.cell(value)).unwrap_or_default();
            let ratio = |ratio: Option<f64>| ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let met = match row.met {
                Some(Met::Yes) => "yes",
                Some(Met::No) => "**no**",
                Some(Met::WithinNoise) => "within noise",
                None => "",
            };
            let unit = if row.unit.is_empty() { String::new() } else { format!(", {}", row.unit) };
            let note = if row.note.is_empty() { String::new() } else { format!(" ({})", row.note) };
            writeln!(
                out,
                "| {}{unit}{note} | {} | {} | {} | {} | {} | {} | {met} |",
                row.title,
                one(Role::Lastout),
                one(Role::Floor),
                others.join(", "),
                ratio(row.to_best_peer),
                ratio(row.to_floor),
                row.target
            )
            .unwrap();
        }
        out
    }

    /// Into README.md, between the markers, and benches/chart.svg.
    pub fn write(&mut self) {
        assert!(!self.measures.is_empty(), "nothing was measured yet: cargo bench");
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let readme = fs::read_to_string(root.join("README.md")).unwrap();
        let (before, rest) = readme.split_once(BEGIN).expect("README.md has a marker");
        let (_, after) = rest.split_once(END).expect("README.md has a second marker");
        let dates: Vec<&str> = self.measures.values().map(|measured| &measured.at[..10]).collect();
        let (first, last) = (dates.iter().min().unwrap(), dates.iter().max().unwrap());
        let when = if first == last { first.to_string() } else { format!("{first} to {last}") };
        let quick: Vec<&str> =
            self.measures.iter().filter(|(_, measured)| measured.quick).map(|(name, _)| &**name).collect();
        let quick = if quick.is_empty() { String::new() } else { format!(" With `--quick`: {}.", quick.join(", ")) };
        let calls = fs::read_to_string(Report::path().with_file_name("calls.md")).unwrap_or_default();
        let calls = match calls.is_empty() {
            true => calls,
            false => format!("\n<details><summary>The system calls of one exec</summary>\n\n{calls}\n</details>\n"),
        };
        let made = format!("{BEGIN}\n{}, {when}.{quick}\n\n{}{calls}{END}", self.machine, self.markdown());
        fs::write(root.join("README.md"), format!("{before}{made}{after}")).unwrap();
        fs::write(root.join("benches/chart.svg"), crate::chart::draw(self)).unwrap();
        println!("wrote README.md and benches/chart.svg");
    }
}
