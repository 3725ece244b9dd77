//! Health checks and exec probes, which the engine starts beside main and which leave orphans.

use super::engine::*;
use crate::support::*;

#[test]
fn probes_leave_no_zombie() {
    if !has("docker") {
        return;
    }
    let probe = "(sh -c 'exit 0' &); lastout exec --wait 30s -- sh -c '(exit 0) & exit 0'";
    let health = ["--health-cmd", probe, "--health-interval", "200ms", "--health-timeout", "60s"];
    let container = Container::start(&DEBIAN, &health, &["--", "sleep", "1000"]);
    let ask = |what: &str| container.docker(&["inspect", "--format", &format!("{{{{{what}}}}}")]).trim().to_string();
    until("four health checks", || (ask("len .State.Health.Log").parse::<u32>().unwrap() >= 4).then_some(()));
    assert_eq!(ask(".State.Health.Status"), "healthy");
    for _ in 0..5 {
        container.exec(&[], &["sh", "-c", probe]);
    }
    until("the last zombie's end", || zombies_of(container.init()).is_empty().then_some(()));
    // The jobs ended, too, and main did not.
    until("the last job's end", || (container.must(&["ps"]).lines().count() == 1).then_some(()));
    assert_eq!(ask(".State.Running"), "true");
}
