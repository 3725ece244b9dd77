//! Containers that may little, see others' processes, or are another user's: main's code, a job, and an orderly stop.

use std::fs;

use serde_json::{Value, json};

use super::{init_path::Daemon, lab::*};
use crate::support::*;

/// Starts a container whose main saves and has left a daemon behind; asks for a job; stops it. `status` has lines that the
/// init's `/proc/PID/status` must have.
fn serves_and_stops(lab: &Lab, plan: Plan, status_lines: &[&str]) {
    let mark = mark("rights");
    let told = format!("{:?} {:?} {status_lines:?}", lab.engine, plan.options);
    let words = vec!["lastout", "--", "worker", "/out", "main", "saves", "leaves", &mark];
    let mut container = lab.start(&Plan { mark: mark.clone(), words, ..plan });
    container.ready("main");
    container.ready("leftover");
    let init = container.init();
    let its = fs::read_to_string(format!("/proc/{init}/status")).unwrap().replace('\t', " ");
    for line in status_lines {
        assert!(its.lines().any(|one| one == *line), "{told}: {its}");
    }
    let output = container.exec(&["lastout", "exec", "--wait", "30s", "--", "worker", "code", "3"]);
    assert_eq!(status(output.status), 3, "{told}: {}", both(&output));
    assert_eq!(container.stop(init, "60"), (5, 0), "{told}: {}", container.log());
    assert!(container.saved("main") && container.saved("leftover"), "{told}: {}", container.log());
}

/// What a container may, in the words of Docker and Podman and of `config.json`, and how the init's status shows it.
struct Right {
    options: &'static [&'static str],
    spec: fn(&mut Value),
    status: &'static [&'static str],
}

const FEW: [Right; 5] = [
    Right {
        options: &["--cap-drop", "ALL"],
        spec: |spec| spec["process"]["capabilities"] = json!({}),
        status: &["CapPrm: 0000000000000000", "CapBnd: 0000000000000000"],
    },
    Right {
        options: &["--security-opt", "no-new-privileges"],
        spec: |spec| spec["process"]["noNewPrivileges"] = json!(true),
        status: &["NoNewPrivs: 1"],
    },
    Right {
        options: &["--pids-limit", "16"],
        spec: |spec| spec["linux"]["resources"]["pids"] = json!({ "limit": 16 }),
        status: &[],
    },
    Right {
        options: &["--memory", "64m"],
        spec: |spec| spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 }),
        status: &[],
    },
    Right {
        options: &["--pid", "host"],
        spec: |spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
        },
        status: &[],
    },
];

/// All of these at once.
fn with<'a>(rights: &'a [Right]) -> (Plan<'a>, Vec<&'static str>) {
    let options = rights.iter().flat_map(|right| right.options).map(|option| option.to_string()).collect();
    let spec = rights.iter().map(|right| &right.spec as &(dyn Fn(&mut Value) + Sync)).collect();
    (Plan { options, spec, ..Plan::default() }, rights.iter().flat_map(|right| right.status).copied().collect())
}

#[test]
fn few_rights_and_little_room_are_enough() {
    Lab::with(&ALL, |lab| {
        for right in FEW.chunks(1) {
            let (plan, status) = with(right);
            serves_and_stops(lab, plan, &status);
        }
        let (plan, status) = with(&FEW);
        serves_and_stops(lab, Plan { user: true, ..plan }, &status);
    });
}

#[test]
fn in_another_containers_processes_it_ends_its_own_alone() {
    Lab::with(&ALL, |lab| {
        let mark = mark("other");
        let words = vec!["lastout", "--", "worker", "/out", "main", "saves", &mark];
        let mut other = lab.start(&Plan { mark: mark.clone(), words, ..Plan::default() });
        other.ready("main");
        let init = other.init();
        let options = ["--pid".into(), format!("container:{}", other.name)].to_vec();
        let share = |spec: &mut Value| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "pid");
            namespaces.push(json!({ "type": "pid", "path": format!("/proc/{init}/ns/pid") }));
        };
        serves_and_stops(lab, Plan { options, spec: vec![&share], ..Plan::default() }, &[]);
        // Nobody has asked the other's.
        assert_eq!(status(other.exec(&["lastout", "exec", "--wait", "30s", "--", "worker", "code", "4"]).status), 4);
        assert!(!other.saved("main"));
        assert_eq!(other.stop(init, "60"), (5, 0));
        assert!(other.saved("main"));
    });
}

const FIRST_ID: u32 = 100_000;
/// Root there.
const MAPPED: &str = "Uid: 100000 100000 100000 100000";

fn map_users(spec: &mut Value) {
    let mapping = json!([{ "containerID": 0, "hostID": FIRST_ID, "size": 65536 }]);
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    spec["linux"]["uidMappings"] = mapping.clone();
    spec["linux"]["gidMappings"] = mapping;
}

#[test]
fn in_a_user_namespace_it_is_as_anywhere() {
    Lab::with(&[Podman, Runc, Crun], |lab| {
        let map = format!("0:{FIRST_ID}:65536");
        let options = ["--uidmap", &map, "--gidmap", &map].map(String::from).to_vec();
        serves_and_stops(lab, Plan { options, spec: vec![&map_users], ..Plan::default() }, &[MAPPED]);
    });
}

#[test]
fn in_dockers_user_namespace_it_is_as_anywhere() {
    // It is an option of its daemon.
    if !has("root") || !has("docker") || !has("cc") {
        return;
    }
    let lab = Lab::with_own_daemon();
    for name in ["subuid", "subgid"] {
        fs::write(lab.file(name), format!("nobody:{FIRST_ID}:65536\n")).unwrap();
    }
    let _daemon = Daemon::start(&lab, &["--userns-remap", "nobody:nogroup"]);
    lab.import();
    // What the daemon would mount there, its shim does not see.
    let options = ["--ipc", "none"].map(String::from).to_vec();
    serves_and_stops(&lab, Plan { options, ..Plan::default() }, &[MAPPED]);
}

/// A seccomp profile is there, as a filter.
const FILTERED: &str = "Seccomp: 2";

#[test]
fn the_engines_own_seccomp_profile_is_no_hindrance() {
    Lab::with(&[Docker, Podman], |lab| {
        serves_and_stops(lab, Plan::default(), &[FILTERED]);
    });
}

#[test]
fn where_dockers_seccomp_refuses_a_pid_namespace_it_says_so_and_goes_on() {
    let warning = "no PID namespace of its own (cannot make one: operation not permitted): going on as a subreaper";
    Lab::with(&[Docker], |lab| {
        // As root, and as a user, who would need a namespace of users. With the profile out of the way, too, and `/proc`
        // unmasked, both may.
        let free = ["--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"];
        for (options, refused) in [(&[][..], true), (&free, false)] {
            for user in [false, true] {
                let mark = mark("seccomp");
                let words = vec!["lastout", "--pid-namespace", "--", "worker", "/out", "main", "saves", &mark];
                let mut options: Vec<String> = options.iter().map(|option| option.to_string()).collect();
                if !user && !refused {
                    options.extend(["--cap-add", "SYS_ADMIN"].map(String::from));
                }
                let plan = Plan { mark: mark.clone(), words, user, host_pids: true, options, ..Plan::default() };
                let mut container = lab.start(&plan);
                container.ready("main");
                let init = container.init();
                assert_eq!(container.stop(init, "60"), (5, 0), "{:?} {user}: {}", plan.options, container.log());
                assert!(container.saved("main"));
                let said = container.log();
                assert_eq!(said.contains(warning), refused, "{:?} {user}: {said}", plan.options);
                assert!(refused || said.is_empty(), "{:?} {user}: {said}", plan.options);
            }
        }
    });
}
