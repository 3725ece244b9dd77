//! The matrix as the test has seen it, for people: `target/engines.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Mutex,
    time::Duration,
};

use super::{
    Cell, Outcome, Scene, Under,
    lab::{Engine, USER},
};

/// A row, in the order of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    scene: Scene,
    /// Where lastout is not PID 1.
    shared: bool,
    user: bool,
    engine: Engine,
    under: Under,
}

type Seen = BTreeMap<Row, Vec<Outcome>>;

static SEEN: Mutex<Seen> = Mutex::new(Seen::new());

pub(super) fn add(engine: Engine, cell: Cell, outcome: Outcome) {
    let Cell { scene, pid1, user, under } = cell;
    let row = Row { scene, shared: !pid1, user, engine, under };
    SEEN.lock().unwrap().entry(row).or_default().push(outcome);
}

/// Writes what there is by now, that of each engine when it is through.
pub(super) fn write() {
    let seen = SEEN.lock().unwrap();
    let rounds = seen.values().map(Vec::len).min().unwrap_or(0);
    let text = format!(
        "# lastout and tini in engines\n\n\
         Each container {rounds} times, three at a time on each engine: exit code, what was saved, what outlived the init, \
         and the time from the engine's stop to its word of the end (where there are several, the median). Patience with \
         a main that ignores SIGTERM: {} s, lastout's or the engine's.\n\n\
         ## Root's and the user's together\n\n{}\n## All\n\n{}",
        super::PATIENCE_WITH_MAIN,
        short(&seen),
        full(&seen)
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/engines.md");
    fs::write(path, text).unwrap();
}

fn at_the_stop(scene: Scene) -> &'static str {
    match scene {
        Scene::Handled => "main handles SIGTERM",
        Scene::Ignored => "main ignores it; a job, and what the engine has `exec`ed",
        Scene::Leftovers => "main ends at once; its daemon",
        Scene::Execd => "main ends at once; a job, and what the engine has `exec`ed",
    }
}

fn place(shared: bool) -> &'static str {
    if shared { "no" } else { "yes" }
}

/// Root's and the user's in one row, and the engines'.
fn short(seen: &Seen) -> String {
    let engines: BTreeSet<Engine> = seen.keys().map(|row| row.engine).collect();
    let engines: Vec<&str> = engines.into_iter().map(Engine::name).collect();
    let times = format!("s in {}", engines.join(", "));
    let mut text = format!("| at the stop | PID 1 | under lastout | {times} | under tini | {times} |\n");
    text += "|---|---|---|---|---|---|\n";
    let mut rows: Vec<_> = seen.keys().map(|row| (row.scene, row.shared)).collect();
    rows.dedup();
    for (scene, shared) in rows {
        text += &format!("| {} | {}", at_the_stop(scene), place(shared));
        for under in [Under::Lastout, Under::Tini] {
            let mut by_engine: BTreeMap<Engine, Vec<&Outcome>> = BTreeMap::new();
            for (row, outcomes) in seen {
                if (row.scene, row.shared, row.under) == (scene, shared, under) {
                    by_engine.entry(row.engine).or_default().extend(outcomes);
                }
            }
            let times = by_engine.values().map(|outcomes| seconds(outcomes)).collect::<Vec<_>>().join(", ");
            text += &format!(" | {} | {times}", ways(&by_engine));
        }
        text += " |\n";
    }
    text
}

/// What became of it, and where in which engine.
fn ways(by_engine: &BTreeMap<Engine, Vec<&Outcome>>) -> String {
    let mut ways: Vec<(String, Vec<&str>)> = Vec::new();
    for (engine, outcomes) in by_engine {
        let way = told(outcomes);
        match ways.iter_mut().find(|(known, _)| *known == way) {
            Some((_, engines)) => engines.push(engine.name()),
            None => ways.push((way, vec![engine.name()])),
        }
    }
    match &ways[..] {
        [(way, _)] => way.clone(),
        _ => ways.iter().map(|(way, engines)| format!("{}: {way}", engines.join(", "))).collect::<Vec<_>>().join("; "),
    }
}

/// Exit code, who saved and who is left.
fn told(outcomes: &[&Outcome]) -> String {
    let codes = outcomes.iter().map(|outcome| outcome.code.to_string());
    let mut told = vec![alike(codes)];
    for (index, (who, _)) in outcomes[0].saved.iter().enumerate() {
        let saved = outcomes.iter().map(|outcome| if outcome.saved[index].1 { "saved" } else { "lost" });
        told.push(format!("{who} {}", alike(saved.map(String::from))));
    }
    // How many of them depends on the moment.
    if outcomes.iter().any(|outcome| outcome.left > 0) {
        told.push("outlived".into());
    }
    told.join(", ")
}

/// The one that all are, or all that there are.
fn alike(words: impl Iterator<Item = String>) -> String {
    let mut words: Vec<String> = words.collect();
    words.sort();
    words.dedup();
    words.join(" or ")
}

fn seconds(outcomes: &[&Outcome]) -> String {
    let mut times: Vec<Duration> = outcomes.iter().map(|outcome| outcome.took).collect();
    times.sort();
    format!("{:.2}", times[times.len() / 2].as_secs_f64())
}

fn full(seen: &Seen) -> String {
    let mut text =
        String::from("| at the stop | PID 1 | user | engine | under | exit code, and what was saved | s |\n");
    text += "|---|---|---|---|---|---|---|\n";
    for (row, outcomes) in seen {
        let outcomes: Vec<&Outcome> = outcomes.iter().collect();
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            at_the_stop(row.scene),
            place(row.shared),
            if row.user { USER } else { "root" },
            row.engine.name(),
            if row.under == Under::Lastout { "lastout" } else { "tini" },
            told(&outcomes),
            seconds(&outcomes)
        );
    }
    text
}
