//! Whether a service is well.

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::*;

/// A server that answers 200 or 500.
fn server() -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let well = Arc::new(AtomicBool::new(true));
    let is_well = well.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap_or(0);
            let line = String::from_utf8_lossy(&request[..count]).lines().next().unwrap_or_default().to_string();
            let good = is_well.load(Ordering::SeqCst) && line.starts_with("GET /health?x=1 HTTP/1.");
            let answer = if good { "HTTP/1.1 204 No Content\r\n\r\n" } else { "HTTP/1.1 500 Broken\r\n\r\n" };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (port, well)
}

#[test]
fn an_unhealthy_service_is_stopped_in_its_own_way_and_started_again() {
    let (port, well) = server();
    let services = Supervised::begin(&format!(
        "[service.it]
        command = '''trap 'echo stopped >> @/order; exit 0' INT; trap '' TERM; echo started >> @/order
        while :; do sleep 600 & wait $!; done'''
        ready = 'healthy'\nstop = {{ signal = 'INT' }}\nbackoff = {{ initial = '10ms' }}
        health = {{ url = 'http://127.0.0.1:{port}/health?x=1', every = '100ms', retries = 3 }}
        on_restart = 'echo \"$LASTOUT_CAUSE\" >> @/causes'"
    ));
    services.until_info("it", "healthy", |info| info["state"] == "ready" && info["healthy"] == true);
    well.store(false, Ordering::SeqCst);
    services.until_text("order", "started\nstopped\nstarted\n");
    let causes = services.until_text("causes", "\n");
    assert!(causes.contains("500"), "{causes}");
    // It is ready when it is healthy, and not before.
    services.until_state("it", "starting");
    well.store(true, Ordering::SeqCst);
    let back = services.until_state("it", "ready");
    assert_eq!((&back["restarts"], &back["healthy"]), (&1.into(), &true.into()), "{back}");
    assert_eq!(services.end().0, 0);
}

#[test]
fn a_port_that_is_closed_is_no_health() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let services = Supervised::begin(&format!(
        "[service.it]\ncommand = ['sleep', '600']\nhealth = {{ url = 'tcp://127.0.0.1:{port}', every = '100ms', retries = 2 }}
        restart = 'never'\n[service.hold]\ncommand = ['sleep', '600']"
    ));
    services.until_info("it", "healthy", |info| info["healthy"] == true);
    drop(listener);
    // Who connected before is let go.
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {}
    let failed = services.until_state("it", "failed");
    assert!(failed["cause"].to_string().contains("unhealthy"), "{failed}");
    assert_eq!(services.left().len(), 1);
    assert_eq!(services.end().0, 143);
}

#[test]
fn it_takes_so_many_failures_in_a_row() {
    // Two of three fail; then all do.
    let services = Supervised::begin(
        "[service.it]\ncommand = ['sleep', '600']\nrestart = 'never'
        health = { command = 'echo x >> @/checks; [ ! -e @/bad ] && [ $(($(wc -l < @/checks) % 3)) = 0 ]', every = '100ms', retries = 3 }
        [service.hold]\ncommand = ['sleep', '600']",
    );
    until("many checks", || (services.lines("checks").len() > 20).then_some(()));
    assert_eq!(services.state("it"), "ready");
    services.put("bad");
    let failed = services.until_state("it", "failed");
    assert!(failed["cause"].to_string().contains("unhealthy"), "{failed}");
    assert_eq!(services.end().0, 143);
}

#[test]
fn a_check_that_hangs_is_ended_and_has_failed() {
    let services = Supervised::begin(
        "[service.it]\ncommand = ['sleep', '600']\nrestart = 'never'
        health = { command = 'echo x >> @/checks; (setsid sleep 600 &) ; sleep 600', every = '100ms', timeout = '50ms', retries = 3 }
        [service.hold]\ncommand = ['sleep', '600']",
    );
    let failed = services.until_state("it", "failed");
    assert!(failed["cause"].to_string().contains("unhealthy"), "{failed}");
    assert_eq!(services.lines("checks").len(), 3);
    assert_eq!(services.left().len(), 1);
    assert_eq!(services.end().0, 143);
}

#[test]
fn what_a_check_leaves_ends_with_it() {
    let services = Supervised::begin(
        "[service.it]\ncommand = ['sleep', '600']
        health = { command = '(setsid sleep 600 &); echo x >> @/checks', every = '100ms' }",
    );
    until("some checks", || (services.lines("checks").len() > 5).then_some(()));
    // The service, and perhaps a check with its daemon.
    let left = services.left();
    assert!(left.len() <= 4, "{left:?}");
    assert_eq!(services.end().0, 0);
}

#[test]
fn while_it_starts_a_failure_does_not_count() {
    let services = Supervised::begin(
        "[service.it]\ncommand = ['sleep', '600']\nready = 'healthy'
        health = { command = 'echo x >> @/checks; [ -e @/go ]', every = '100ms', retries = 1, start_period = '10m' }",
    );
    until("many checks", || (services.lines("checks").len() > 10).then_some(()));
    assert_eq!(services.state("it"), "starting");
    services.put("go");
    let ready = services.until_state("it", "ready");
    assert_eq!(ready["restarts"], 0, "{ready}");
    assert_eq!(services.end().0, 0);
}
