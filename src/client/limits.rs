//! `lastout limits`.

use std::io::Write;

use anyhow::Context;

use super::{Outcome, jobs::table, text};
use crate::inspect::{self, Bound, Found};

/// Tells what this container really may use. It takes no init.
pub fn limits(json: bool) -> Outcome {
    let allowance = inspect::allowance();
    if json {
        say(&serde_json::to_string(&allowance)?)?;
        return Ok(0);
    }
    let mut rows = vec![["", "MAY USE", "IN USE", "FROM"].map(String::from)];
    let cpus = &allowance.cpus;
    let mut from = vec![format!("affinity {}: {}", cpus.affinity.value, cpus.affinity.file.display())];
    from.extend(cpus.quota.iter().map(|quota| format!("quota {:.2}: {}", quota.value, quota.file.display())));
    add(&mut rows, ["cpus".into(), cpus.usable.to_string(), String::new()], from);
    add_bound(&mut rows, "memory", &allowance.memory, text::bytes);
    add_bound(&mut rows, "swap", &allowance.swap, text::bytes);
    add_bound(&mut rows, "pids", &allowance.pids, |count| count.to_string());
    say(&table(&rows))?;
    Ok(0)
}

/// One line for each file.
fn add(rows: &mut Vec<[String; 4]>, [name, limit, used]: [String; 3], mut from: Vec<String>) {
    from.dedup();
    let mut from = from.into_iter();
    rows.push([name, limit, used, from.next().unwrap_or_default()]);
    rows.extend(from.map(|file| [String::new(), String::new(), String::new(), file]));
}

fn add_bound(rows: &mut Vec<[String; 4]>, name: &str, bound: &Bound, show: impl Fn(u64) -> String) {
    let value = |found: &Option<Found<u64>>| found.as_ref().map(|found| show(found.value));
    let files = [&bound.limit, &bound.used].into_iter().flatten().map(|found| found.file.display().to_string());
    let limit = value(&bound.limit).unwrap_or_else(|| "no limit".into());
    add(rows, [name.into(), limit, value(&bound.used).unwrap_or_default()], files.collect());
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write")
}
