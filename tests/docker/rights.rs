//! Containers that may little.

use super::engine::*;
use crate::support::*;

/// The options, and whether there is a place for a control directory.
const CONTAINERS: [(&[&str], bool); 7] = [
    (&["--read-only"], false),
    (&["--read-only", "--tmpfs", "/run"], true),
    (&["--user", "1000"], true),
    (&["--user", "1000", "--read-only"], false),
    (&["--cap-drop", "ALL"], true),
    (&["--network", "none"], true),
    (&["--read-only", "--tmpfs", "/tmp", "--user", "1000", "--cap-drop", "ALL", "--network", "none"], true),
];

#[test]
fn main_runs_with_few_rights_and_a_lack_of_control_is_said() {
    if !has("docker") {
        return;
    }
    for (options, control) in CONTAINERS {
        let mut command = docker();
        command.args(["run", "--rm"]).args(options).args([*DEBIAN, "--", "sh", "-c", "exit 9"]);
        let output = command.output().unwrap();
        assert_eq!(status(output.status), 9, "{options:?}: {}", both(&output));
        let said = both(&output);
        assert_eq!(said.contains("no control directory"), !control, "{options:?}: {said}");
        assert!(!control || said.is_empty(), "{options:?}: {said}");
    }
}

#[test]
fn what_is_said_after_the_first_warning_is_said_too() {
    if !has("docker") {
        return;
    }
    let output = docker().args(["run", "--rm", "--read-only", *DEBIAN, "--", "no-such-program"]).output().unwrap();
    let said = both(&output);
    assert_eq!(status(output.status), 127, "{said}");
    assert!(said.contains("no control directory") && said.contains("cannot execute no-such-program"), "{said}");
}

#[test]
fn jobs_run_with_few_rights() {
    if !has("docker") {
        return;
    }
    for (options, control) in CONTAINERS {
        let held = Held::start(options);
        let exec = ["exec", &held.0, "lastout", "exec"];
        if control {
            assert_eq!(
                run("docker", &[&exec[..], &["--wait", "30s", "--", "echo", "hi"]].concat()),
                "hi\n",
                "{options:?}"
            );
        } else {
            let output = docker().args(exec).args(["--", "echo", "hi"]).output().unwrap();
            assert_eq!(status(output.status), 125, "{options:?}: {}", both(&output));
        }
        run("docker", &["stop", &held.0]);
        assert_eq!(run("docker", &["wait", &held.0]), "0\n", "{options:?}");
    }
}

/// A container without any mount of ours, which lastout holds.
struct Held(String);

impl Held {
    fn start(options: &[&str]) -> Held {
        let held = Held(mark("held"));
        let output = docker().args(["run", "--detach", "--name", &held.0]).args(options).arg(*DEBIAN).output().unwrap();
        assert!(output.status.success(), "{options:?}: {}", both(&output));
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = docker().args(["rm", "--force", &self.0]).output();
    }
}
