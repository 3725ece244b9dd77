//! Signals from the engine, and orphans.

use super::engine::*;
use crate::support::*;

#[test]
fn ten_thousand_orphans_leave_no_zombie() {
    if !has("docker") {
        return;
    }
    let container = Container::start(&DEBIAN, &[], &["--", "/fixtures/orphans", "10000"]);
    let init = container.init();
    assert_eq!(next(&container.lines()), "made");
    until("the last zombie's end", || zombies_of(init).is_empty().then_some(()));
    assert_eq!(container.must(&["exec", "--", "cat", "/proc/1/comm"]), "lastout\n");
    assert_eq!(container.docker(&["inspect", "--format", "{{.State.Running}}"]), "true\n");
}

#[test]
fn every_signal_that_can_be_forwarded_arrives_once() {
    if !has("docker") {
        return;
    }
    let container = Container::start(&DEBIAN, &[], &["--", "/fixtures/signals"]);
    let lines = container.lines();
    assert_eq!(next(&lines), "ready");
    // Not KILL, CHLD and STOP, nor the two that glibc has for itself. TERM comes last, for it ends the container.
    let all = (1..=64).filter(|number| ![9, 15, 17, 19, 32, 33].contains(number)).chain([15]);
    for number in all {
        container.docker(&["kill", "--signal", &number.to_string()]);
        // A second arrival would be the next signal's line.
        assert_eq!(next(&lines), number.to_string());
    }
    assert_eq!(container.code(), 7);
    assert_eq!(lines.recv().ok(), None);
}

#[test]
fn docker_stop_gives_mains_code() {
    if !has("docker") {
        return;
    }
    for (main, code) in [
        ("trap 'exit 7' TERM; echo ready; while :; do sleep 60 & wait; done", 7),
        ("echo ready; exec sleep 600", 143),
        // Docker's SIGKILL.
        ("trap '' TERM; echo ready; exec sleep 600", 137),
    ] {
        let container = Container::start(&DEBIAN, &[], &["--", "sh", "-c", main]);
        assert_eq!(next(&container.lines()), "ready");
        container.docker(&["stop", "--time", if code == 137 { "1" } else { "60" }]);
        assert_eq!(container.code(), code, "{main}");
    }
}
