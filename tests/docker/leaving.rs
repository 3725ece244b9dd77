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
    // A child of main's, and one that has got away from it. Main itself ends at once.
    let main = "trap 'exit 5' TERM
        sh /fixtures/saver.sh child &
        (setsid sh /fixtures/saver.sh orphan &)
        while :; do sleep 60 & wait; done";
    let savers = ["child", "orphan", "exec", "job"];
    let mut times = Vec::new();
    for round in 0..rounds(5, 50) {
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
    println!(
        "{} stops: {:?} to {:?}, median {:?}",
        times.len(),
        times[0],
        times[times.len() - 1],
        times[times.len() / 2]
    );
    // What docker stop waits for; the second that is needed and a busy machine are well within.
    assert!(times[times.len() - 1] < Duration::from_secs(10));
}
