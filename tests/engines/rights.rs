//! Containers that may little, see others' processes, or are another user's: main's code, a job, and an orderly stop.

use serde_json::{Value, json};

use super::lab::*;
use crate::support::*;

/// Starts a container whose main saves and has left a daemon behind; asks for a job; stops it.
fn serves_and_stops(lab: &Lab, plan: Plan) {
    let mark = mark("rights");
    let told = format!("{:?} {:?}", lab.engine, plan.options);
    let words = vec!["lastout", "--", "worker", "/out", "main", "saves", "leaves", &mark];
    let mut container = lab.start(&Plan { mark: mark.clone(), words, ..plan });
    container.ready("main");
    container.ready("leftover");
    let init = container.init();
    let output = container.exec(&["lastout", "exec", "--wait", "30s", "--", "worker", "code", "3"]);
    assert_eq!(status(output.status), 3, "{told}: {}", both(&output));
    assert_eq!(container.stop(init, "60"), (5, 0), "{told}: {}", container.log());
    assert!(container.saved("main") && container.saved("leftover"), "{told}: {}", container.log());
}

/// Docker's and Podman's names for the same.
const OPTIONS: [&[&str]; 6] = [
    &["--cap-drop", "ALL"],
    &["--security-opt", "no-new-privileges"],
    &["--pids-limit", "16"],
    &["--memory", "64m"],
    &["--pid", "host"],
    &[
        "--user",
        USER,
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--pids-limit",
        "16",
        "--memory",
        "64m",
    ],
];

fn with_options(options: &[&str]) -> Plan<'static> {
    Plan { options: options.iter().map(|option| option.to_string()).collect(), ..Plan::default() }
}

#[test]
fn few_rights_and_little_room_are_enough() {
    Lab::with(&[Docker, Podman], |lab| {
        for options in OPTIONS {
            serves_and_stops(lab, with_options(options));
        }
    });
}

#[test]
fn in_another_containers_processes_it_ends_its_own_alone() {
    Lab::with(&[Docker, Podman], |lab| {
        let mark = mark("other");
        let words = vec!["lastout", "--", "worker", "/out", "main", "saves", &mark];
        let mut other = lab.start(&Plan { mark: mark.clone(), words, ..Plan::default() });
        other.ready("main");
        let init = other.init();
        serves_and_stops(lab, with_options(&["--pid", &format!("container:{}", other.name)]));
        // Nobody has asked the other's.
        assert_eq!(status(other.exec(&["lastout", "exec", "--wait", "30s", "--", "worker", "code", "4"]).status), 4);
        assert!(!other.saved("main"));
        assert_eq!(other.stop(init, "60"), (5, 0));
        assert!(other.saved("main"));
    });
}

const FIRST_ID: u32 = 100_000;

fn map_users(spec: &mut Value) {
    let mapping = json!([{ "containerID": 0, "hostID": FIRST_ID, "size": 65536 }]);
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    spec["linux"]["uidMappings"] = mapping.clone();
    spec["linux"]["gidMappings"] = mapping;
}

#[test]
fn in_a_user_namespace_it_is_as_anywhere() {
    // Docker's is an option of its daemon.
    Lab::with(&[Podman, Runc, Crun], |lab| {
        let map = format!("0:{FIRST_ID}:65536");
        let options = if lab.engine == Podman { &["--uidmap", &*map, "--gidmap", &*map][..] } else { &[] };
        serves_and_stops(lab, Plan { spec: Some(map_users), ..with_options(options) });
    });
}
