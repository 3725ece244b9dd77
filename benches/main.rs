//! lastout beside what people would use instead, and beside the floor, measured in one run, in turns.
//!
//! ```sh
//! cargo bench                     # everything
//! cargo bench -- --quick          # fewer rounds, shorter waits
//! cargo bench -- start exec       # these measures only; the others stay as the last run left them
//! cargo bench -- --write          # no measuring: what was measured last goes into README.md and benches/chart.svg
//! ```
//!
//! These machines are noisy: whoever is compared takes turns, round by round, and what counts are ratios of medians.
//! A time of one run is never held against a time of another.
#![allow(unreachable_pub, missing_docs)]

mod chart;
mod engines;
mod lab;
mod measures;
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{lab::Lab, report::Report};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let flag = |name: &str| words.iter().any(|word| word == name);
    let wanted: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.starts_with("--")).collect();
    let strange = words.iter().find(|word| {
        let known = ["--quick", "--write"].contains(&word.as_str());
        !known && !measures::ALL.iter().any(|(name, _)| name == word)
    });
    if let Some(word) = strange {
        let names: Vec<&str> = measures::ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("no measure and no option '{word}'; options: --quick, --write; measures: {}", names.join(" "));
        std::process::exit(2);
    }
    let mut report = Report::load();
    if flag("--write") {
        report.write();
        return;
    }
    let lab = Lab::set_up(flag("--quick"));
    lab.say_what_is_missing();
    for (name, measure) in measures::ALL {
        if !wanted.is_empty() && !wanted.contains(name) {
            continue;
        }
        eprintln!("{name} ...");
        // What fails is told, and the rest is measured.
        let rows = catch_unwind(AssertUnwindSafe(|| measure(&lab)));
        report.put(name, &lab, rows.unwrap_or_else(|_| vec![report::Row::failed(name)]));
        report.save();
    }
    println!("{}", report.markdown());
    println!("\nas JSON: {}", Report::path().display());
}
