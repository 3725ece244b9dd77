//! `docker stop` loses nothing.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::engine::*;
use crate::support::*;

/// More rounds on demand.
pub(super) fn rounds(short: usize, long: usize) -> usize {
    if std::env::var_os("LASTOUT_TEST_LONG").is_some() { long } else { short }
}

#[test]
fn whoever_needs_a_second_after_sigterm_has_it() {
    if !has("docker") {
        return;
    }
    // Main itself ends at once.
    let main = "trap 'exit 5' TERM
        sh /fixtures/saver.sh child &
        while :; do sleep 60 & wait; done";
    // The second is the same for all: one after the other they would need three.
    stops(rounds(5, 50), main, &["child", "exec", "job"], Duration::from_secs(3));
}

#[test]
fn a_daemon_that_has_got_away_from_main_has_its_second_too() {
    if !has("docker") {
        return;
    }
    let main = "trap 'exit 5' TERM
        (setsid sh /fixtures/saver.sh daemon &)
        while :; do sleep 60 & wait; done";
    // It is asked when the others have ended. Docker would kill after 10 s.
    stops(rounds(2, 10), main, &["daemon", "exec", "job"], Duration::from_secs(10));
}

/// Stops containers in which everybody saves what it has; no stop may take `limit`.
fn stops(rounds: usize, main: &str, savers: &[&str], limit: Duration) {
    let mut times = Vec::new();
    for round in 0..rounds {
        let container = Container::start(&DEBIAN, &[], &["--", "sh", "-c", main]);
        container.exec(&["--detach"], &["sh", "/fixtures/saver.sh", "exec"]);
        container.must(&["exec", "--wait", "30s", "--detach", "--", "sh", "/fixtures/saver.sh", "job"]);
        for saver in savers {
            let ready = container.out().join(format!("{saver}.ready"));
            until(saver, || ready.exists().then_some(()));
        }
        let start = Instant::now();
        container.docker(&["stop"]);
        times.push(start.elapsed());
        // Not 137: Docker did not have to kill.
        assert_eq!(container.code(), 5);
        for saver in savers {
            let saved = fs::read_to_string(container.out().join(saver)).unwrap_or_default();
            assert_eq!(saved, "saved\n", "{saver} lost its work in round {round}");
        }
    }
    times.sort();
    let (shortest, median, longest) = (times[0], times[rounds / 2], times[rounds - 1]);
    println!("{rounds} stops took {shortest:.2?} to {longest:.2?}, the middle one {median:.2?}");
    assert!(longest < limit, "a stop took {longest:?}");
}
