//! `lastout check`: what is wrong in configuration files, or what is in them.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;

use super::{FAILURE, Outcome};
use crate::{
    base::plain,
    config::{self, Problem},
    core::service::ServicesConfig,
};

/// What is wrong in one file.
#[derive(Serialize)]
struct Found {
    file: String,
    /// Where and what; what alone, where the file cannot be read.
    #[serde(flatten)]
    problem: Wrong,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Wrong {
    Unreadable { text: String },
    Problem(Problem),
}

/// Checks files, `-` being standard input: a line for each that is good; every problem of all others, which is a failure.
pub fn check(files: &[PathBuf], json: bool) -> Outcome {
    let mut found = Vec::new();
    for path in files {
        let file = plain(&path.to_string_lossy());
        let problems = match read(path) {
            Ok(bytes) => match config::parse_bytes(&bytes, &any) {
                Ok(config) => {
                    if !json {
                        say(&format!("{file}: {}", summary(&config)))?;
                    }
                    continue;
                }
                Err(problems) => problems.into_iter().map(Wrong::Problem).collect(),
            },
            Err(error) => vec![Wrong::Unreadable { text: format!("cannot read it: {}", super::reason(&error)) }],
        };
        found.extend(problems.into_iter().map(|problem| Found { file: file.clone(), problem }));
    }
    if json {
        say(&serde_json::to_string(&found)?)?;
    } else {
        for Found { file, problem } in &found {
            match problem {
                Wrong::Unreadable { text } => eprintln!("{file}: {text}"),
                Wrong::Problem(problem) => eprintln!("{file}:{problem}"),
            }
        }
    }
    Ok(if found.is_empty() { 0 } else { FAILURE })
}

/// Prints the JSON Schema of the configuration file.
pub fn schema() -> Outcome {
    say(&serde_json::to_string_pretty(&config::schema())?)?;
    Ok(0)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if path.as_os_str() != "-" {
        return std::fs::read(path);
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
}

/// What a placeholder becomes is told where the services run, which need not be here.
fn any(_: &str) -> Option<String> {
    Some(String::new())
}

fn summary(config: &ServicesConfig) -> String {
    let (mounts, services): (Vec<_>, Vec<_>) = config.services.iter().partition(|each| each.run.mount.is_some());
    let parts = [("service", services), ("mount", mounts)].map(|(what, all)| {
        let names: Vec<&str> = all.iter().map(|each| each.name.as_str()).collect();
        match names.len() {
            0 => format!("no {what}"),
            1 => format!("1 {what} ({})", names[0]),
            many => format!("{many} {what}s ({})", names.join(", ")),
        }
    });
    parts.join(", ")
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write")
}
