//! What an engine decides by the exit code, of main or of a probe.

use super::lab::*;
use crate::support::*;

/// A container of this policy.
fn with_policy<'a>(lab: &'a Lab, policy: &str, main: &[&str]) -> Container<'a> {
    let (mark, options) = (mark("policy"), vec!["--restart".into(), policy.into()]);
    let words = [&["lastout", "--", "worker"], main, &[&mark]].concat();
    lab.start(&Plan { mark: mark.clone(), words, options, ..Plan::default() })
}

fn ask(container: &Container, what: &str) -> String {
    container.lab.must(&["inspect", "--format", &format!("{{{{{what}}}}}"), &container.name]).trim().into()
}

#[test]
fn restart_policies_see_mains_code() {
    Lab::with(&[Docker, Podman], |lab| {
        for (policy, code, restarts) in [("on-failure:2", "3", "2"), ("on-failure:2", "0", "0"), ("no", "3", "0")] {
            let container = with_policy(lab, policy, &["code", code]);
            let ended = || {
                let status = ask(&container, ".State.Status");
                (status == "exited" && ask(&container, ".RestartCount") == restarts).then_some(())
            };
            until(&format!("{:?}: the end of {policy} with {code}", lab.engine), ended);
            assert_eq!(ask(&container, ".State.ExitCode"), code, "{:?} {policy}", lab.engine);
        }
    });
}

#[test]
fn a_restart_finds_everything_as_the_first_start_did() {
    Lab::with(&[Docker, Podman], |lab| {
        for policy in ["always", "unless-stopped"] {
            restarts(lab, policy);
        }
    });
}

fn restarts(lab: &Lab, policy: &str) {
    let mut container = with_policy(lab, policy, &["/out", "main", "quits"]);
    container.ready("main");
    for restarts in ["1", "2"] {
        let init = container.init();
        std::fs::remove_file(container.out.path().join("main.ready")).unwrap();
        // By hand, or it would be the engine's own wish.
        run("kill", &["-s", "TERM", &init.to_string()]);
        container.ready("main");
        assert_eq!(ask(&container, ".RestartCount"), restarts, "{:?} {policy}", lab.engine);
    }
    let init = container.init();
    assert_eq!(container.stop(init, "60"), (5, 0), "{:?}", lab.engine);
    assert_eq!(ask(&container, ".State.Status"), "exited", "{:?}", lab.engine);
    assert_eq!(container.log(), "", "{:?}", lab.engine);
}

#[test]
fn podmans_health_checks_leave_no_zombie() {
    Lab::with(&[Podman], |lab| {
        let mark = mark("health");
        // Checked by hand: Podman's own timers are systemd's.
        for (probe, healthy) in [
            (r#"["worker", "orphan", "0"]"#, true),
            (r#"["lastout", "exec", "--wait", "30s", "--", "worker", "orphan", "0"]"#, true),
            (r#"["worker", "orphan", "1"]"#, false),
            (r#"["lastout", "exec", "--", "worker", "orphan", "1"]"#, false),
        ] {
            let options = ["--health-cmd", probe, "--health-interval", "disable"].map(String::from).to_vec();
            let words = vec!["lastout", "--", "worker", "/out", "main", "saves", &mark];
            let mut container = lab.start(&Plan { mark: mark.clone(), words, options, ..Plan::default() });
            container.ready("main");
            let init = container.init();
            for _ in 0..5 {
                let output = lab.command().args(["healthcheck", "run", &container.name]).output().unwrap();
                assert_eq!(output.status.success(), healthy, "{probe}: {}", both(&output));
            }
            // Zombies are children, too. Main has not heard of them.
            until("the last orphan's end", || (children(init).len() == 1).then_some(()));
            assert_eq!(container.stop(init, "60"), (5, 0), "{}", container.log());
            assert!(container.saved("main"));
        }
    });
}
