//! What was compared, side by side, as it came out: `target/personas.md` has what the tests of this run have seen so far.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::{Case, DELIBERATE};

/// Of each cell, so many values are shown, each so long at most.
const SHOWN: usize = 4;
const LONGEST: usize = 120;

const COLUMNS: [&str; 3] = ["tini", "dumb-init", "catatonit"];

/// Behaviours, and what each of [`COLUMNS`] did.
type Table = BTreeMap<String, BTreeMap<&'static str, Cell>>;

static TABLE: Mutex<Table> = Mutex::new(BTreeMap::new());

/// What one did, the original and lastout as it.
#[derive(Default)]
struct Cell {
    original: Seen,
    ours: Seen,
    runs: usize,
    same: usize,
    deliberate: bool,
}

/// Each value once, with the roles in which it was seen: not PID 1, PID 1.
#[derive(Default)]
struct Seen(Vec<(String, [bool; 2])>);

impl Seen {
    fn add(&mut self, value: String, pid1: bool) {
        let at = self.0.iter().position(|(known, _)| *known == value).unwrap_or_else(|| {
            self.0.push((value, [false; 2]));
            self.0.len() - 1
        });
        self.0[at].1[usize::from(pid1)] = true;
    }

    fn show(&self) -> String {
        let both = [0, 1].iter().all(|role| self.0.iter().any(|(_, roles)| roles[*role]));
        let value = |(value, roles): &(String, [bool; 2])| {
            let short: String = value.chars().take(LONGEST).collect();
            let dots = if short.len() < value.len() { "..." } else { "" };
            let role = match roles {
                [true, false] if both => " (not PID 1)",
                [false, true] if both => " (PID 1)",
                _ => "",
            };
            format!("`{}{dots}`{role}", short.replace('`', "'").replace('|', "\\|"))
        };
        let mut all: Vec<_> = self.0.iter().take(SHOWN).map(value).collect();
        let more = self.0.len().saturating_sub(SHOWN);
        all.extend((more > 0).then(|| format!("and {more} more")));
        all.join(", ")
    }
}

impl Cell {
    fn show(&self) -> String {
        let ours = match (self.same == self.runs, self.deliberate) {
            (true, _) => "same".into(),
            (false, true) => format!("deliberately {}", self.ours.show()),
            (false, false) => format!("**not the same**: {}", self.ours.show()),
        };
        format!("{} | {ours}", self.original.show())
    }
}

/// Takes what one comparison has seen, and writes the table.
pub(super) fn note(case: Case, behaviour: &str, deliberate: bool, [original, ours]: [String; 2]) {
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let column = COLUMNS.into_iter().find(|name| case.who.starts_with(name)).unwrap();
    let cell = table.entry(behaviour.into()).or_default().entry(column).or_default();
    cell.runs += 1;
    cell.same += usize::from(original == ours);
    cell.deliberate |= deliberate;
    cell.original.add(original, case.pid1);
    cell.ours.add(ours, case.pid1);
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/personas.md"), page(&table)).unwrap();
}

fn page(table: &Table) -> String {
    let cells = || table.values().flat_map(BTreeMap::values);
    let count = |is: &dyn Fn(&Cell) -> bool| cells().filter(|cell| is(cell)).count();
    let mut page = format!(
        "# The small inits, and lastout by their names\n\nWhat each did in {} comparisons: `(exit code, standard output, standard error)`, or what \
         a behaviour's test looks at. {} are the same, {} differ deliberately, {} otherwise. \"tini\" is tini-static, too.\n\n| behaviour |",
        cells().map(|cell| cell.runs).sum::<usize>(),
        count(&|cell| cell.same == cell.runs),
        count(&|cell| cell.same < cell.runs && cell.deliberate),
        count(&|cell| cell.same < cell.runs && !cell.deliberate),
    );
    COLUMNS.iter().for_each(|name| write!(page, " {name} | lastout as {name} |").unwrap());
    page += "\n|---|---|---|---|---|---|---|\n";
    for (behaviour, row) in table {
        let cells: String = COLUMNS.map(|name| row.get(name).map_or(" | ".into(), Cell::show) + " | ").concat();
        writeln!(page, "| {} | {}", behaviour.replace('|', "\\|"), cells.trim_end()).unwrap();
    }
    page += "\nThe deliberate ones:\n\n| what | the original | lastout | why |\n|---|---|---|---|\n";
    DELIBERATE.iter().for_each(|(_, _, line)| writeln!(page, "| {line} |").unwrap());
    page
}

#[test]
fn the_table_shows_each_side_and_what_is_not_the_same() {
    let mut cell = Cell { runs: 3, same: 2, ..Cell::default() };
    for (pid1, original, ours) in [(false, "(0)", "(0)"), (true, "a|b", "a|b"), (true, "a|b", "c")] {
        cell.original.add(original.into(), pid1);
        cell.ours.add(ours.into(), pid1);
    }
    let original = r"`(0)` (not PID 1), `a\|b` (PID 1)";
    assert_eq!(cell.show(), format!("{original} | **not the same**: {original}, `c` (PID 1)"));
    cell.deliberate = true;
    assert!(cell.show().contains("| deliberately `"));
    cell.same = 3;
    assert_eq!(cell.show(), format!("{original} | same"));
    let page = page(&BTreeMap::from([("runs: `a | b`".into(), BTreeMap::from([("dumb-init", cell)]))]));
    assert!(page.contains("in 3 comparisons") && page.contains(" 1 are the same, 0 differ deliberately, 0 otherwise"));
    assert!(page.contains(&format!("| runs: `a \\| b` |  |  | {original} | same |  |  |\n")), "{page}");
}
