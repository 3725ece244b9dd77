//! Why something ended, where only a container can tell.

use std::fs;

use serde_json::{Value, json};

use super::engine::*;
use crate::support::*;

/// Takes more memory than the container has.
const GLUTTON: &str = "my @a; push @a, \"x\" x 1_000_000 while 1";
const LIMIT: [&str; 4] = ["--memory", "48m", "--memory-swap", "48m"];

#[test]
fn the_kernels_oom_killer_is_named_with_the_limit() {
    if !has("docker") {
        return;
    }
    let container = Container::start(&DEBIAN, &LIMIT, &[]);
    // Docker does not wait for its init.
    let output = container.client(&["exec", "--wait", "60", "--name", "glutton", "--", "perl", "-e", GLUTTON]);
    assert_eq!(output.status.code(), Some(137), "{}", both(&output));
    assert!(both(&output).contains("OOM killer, at the memory limit of 48 MiB"), "{}", both(&output));
    let record: Value = serde_json::from_slice(&container.client(&["wait", "--json", "glutton"]).stdout).unwrap();
    assert_eq!(record["cause"], json!({ "kind": "oom_killed", "limit_bytes": 48 << 20 }));
    assert_eq!(record["usage"]["oom_kills"], 1);
    // A command whose child was hit may go on; the record tells it all the same.
    let shell = format!("perl -e '{GLUTTON}'; exit 5");
    container.client(&["exec", "--name", "shell", "--", "sh", "-c", &shell]);
    let record: Value = serde_json::from_slice(&container.client(&["wait", "--json", "shell"]).stdout).unwrap();
    assert_eq!((&record["cause"]["kind"], &record["usage"]["oom_kills"]), (&"exited".into(), &1.into()));
    // What is killed afterwards by somebody else is not put down to it.
    container.client(&["exec", "--name", "killed", "--", "sh", "-c", "kill -9 $$"]);
    let record: Value = serde_json::from_slice(&container.client(&["wait", "--json", "killed"]).stdout).unwrap();
    assert_eq!(record["cause"], json!({ "kind": "unknown" }));
}

#[test]
fn mains_oom_kill_is_told_in_its_log_and_its_record() {
    if !has("docker") {
        return;
    }
    let container = Container::start(&DEBIAN, &LIMIT, &["--", "perl", "-e", GLUTTON]);
    assert_eq!(container.code(), 137);
    let log = docker().args(["logs", &container.name]).output().unwrap();
    assert!(both(&log).contains("main: killed by SIGKILL, the kernel's OOM killer, at the memory limit of 48 MiB"));
    let record = fs::read(container.control().join("jobs/main/record.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["cause"], json!({ "kind": "oom_killed", "limit_bytes": 48 << 20 }));
}
