//! Wherever a service is in its life, it ends when it should, and nothing is left.

use std::time::Instant;

use super::*;

/// A service in each place of its life, and how one sees that it is there. The grace is long: nothing of this is to
/// need it.
const PLACES: [(&str, &str, &str); 10] = [
    ("backoff", "command = ['false']\nbackoff = { initial = '10m', max = '10m' }", "state backoff"),
    ("setup", "command = ['true']\nsetup = ['touch @/there; sleep 600']", "file"),
    (
        "a check that hangs",
        "command = ['sleep', '600']\nhealth = { command = 'touch @/there; sleep 600', every = '100ms', timeout = '10m' }",
        "file",
    ),
    ("start", "command = 'touch @/there; sleep 600'\nready = 'notify'\nstart_timeout = 0", "file"),
    ("ready", "command = ['sleep', '600']", "state ready"),
    ("a wait for another", "command = ['true']\nafter = { hold = 'ready' }", "state waiting"),
    (
        "an end at once",
        "command = ['true']\nrestart = 'always'\nbackoff = { initial = '10ms', max = '10ms' }",
        "restarts",
    ),
    ("a failure at once", "command = ['/nothing/here']\nbackoff = { initial = '10ms', max = '10ms' }", "restarts"),
    (
        "an escaped child that holds its output",
        "command = '(setsid sh -c \"sleep 600 & touch @/there; sleep 600\" &); exec sleep 600'\nlog = { format = 'prefix' }",
        "file",
    ),
    (
        "an escaped child of a setup",
        "command = ['sleep', '600']\nsetup = ['(setsid sh -c \"sleep 600 & touch @/there; sleep 600\" &)']",
        "file",
    ),
];

fn begin(service: &str, there: &str) -> Supervised {
    let services = Supervised::begin(&format!(
        "grace = '50s'\n[service.it]\n{service}\n[service.hold]\ncommand = ['sleep', '600']\nready = 'notify'\nstart_timeout = 0"
    ));
    match there.split_once(' ') {
        Some((_, state)) => drop(services.until_state("it", state)),
        None if there == "restarts" => {
            services.until_info("it", "restarts", |info| info["restarts"].as_u64() > Some(3));
        }
        None => services.until_there("there"),
    }
    services
}

#[test]
fn a_service_is_stopped_wherever_it_is() {
    for (place, service, there) in PLACES {
        let services = begin(service, there);
        let before = Instant::now();
        services.init.must(&["stop", "it"]);
        assert_eq!(services.state("it"), "stopped", "{place}");
        // The other one is there, and it alone.
        let left = services.left();
        assert_eq!(left.len(), 1, "{place}: {left:?}");
        let (code, log) = services.end();
        assert_eq!(code, 0, "{place}: {log:?}");
        assert!(before.elapsed().as_secs() < 30, "{place} took its grace: {log:?}");
    }
}

#[test]
fn the_init_ends_wherever_a_service_is() {
    for (place, service, there) in PLACES {
        let services = begin(service, there);
        let before = Instant::now();
        let (code, log) = services.end();
        assert_eq!(code, 0, "{place}: {log:?}");
        assert!(before.elapsed().as_secs() < 30, "{place} took its grace: {log:?}");
    }
}

#[test]
fn a_stopped_service_is_started_again_by_somebody_only() {
    let services = Supervised::begin("[service.it]\ncommand = ['sleep', '600']\nrestart = 'always'");
    services.until_state("it", "ready");
    services.init.must(&["stop", "it"]);
    let stopped = services.info("it");
    assert_eq!((&stopped["state"], stopped["job"].is_null()), (&"stopped".into(), true), "{stopped}");
    assert_eq!(services.left(), [0i32; 0]);
    services.init.must(&["start", "it"]);
    let first = services.info("it");
    assert_eq!(first["state"], "ready");
    services.init.must(&["restart", "it"]);
    let second = services.info("it");
    assert_eq!((&second["state"], &second["restarts"]), (&"ready".into(), &1.into()), "{second}");
    assert_ne!(first["job"], second["job"]);
    assert_eq!(services.left().len(), 1);
    let nobody = services.init.ask(&["start", "nobody"]);
    assert!(both(&nobody).contains("no service nobody"), "{}", both(&nobody));
    assert_eq!(services.end().0, 0);
}

#[test]
fn who_is_deaf_is_asked_in_its_own_way_and_ends_after_its_own_grace() {
    let services = Supervised::begin(
        "grace = '10m'
        [service.asked]\ncommand = 'trap \"\" TERM; trap \"echo int > @/asked; exit 0\" INT; echo > @/a; while :; do sleep 600; done'
        stop = { signal = 'INT' }
        [service.deaf]\ncommand = 'trap \"\" TERM; (trap \"\" TERM; setsid sleep 600 &); echo > @/b; while :; do sleep 600; done'
        stop = { grace = '100ms' }",
    );
    services.until_there("a");
    services.until_there("b");
    services.init.must(&["stop", "asked"]);
    assert_eq!(services.text("asked"), "int\n");
    let last = services.info("asked");
    services.init.must(&["stop", "deaf"]);
    assert_eq!(services.left(), [0i32; 0], "{last}");
    assert_eq!(services.info("deaf")["exit"], serde_json::json!({"signal": "SIGKILL"}), "{}", services.info("deaf"));
    assert_eq!(services.end().0, 0);
}

/// A shell's child has the shell's handlers until it executes its command: what it is asked then, they have heard.
#[test]
fn who_is_asked_before_it_executes_its_command_is_asked_again() {
    if !has("perl") {
        return;
    }
    let services = Supervised::begin(
        "grace = '10m'
        [service.it]\ncommand = ['perl', '-e', '''$SIG{TERM} = sub { $asked = 1 };
            unless (fork) { open my $there, '>', '@/there'; select undef, undef, undef, 0.01 until $asked; exec 'sleep', '600' }
            select undef, undef, undef, 0.01 until $asked''']
        [service.hold]\ncommand = ['sleep', '600']",
    );
    services.until_there("there");
    services.init.must(&["stop", "it"]);
    assert_eq!(services.left().len(), 1);
    assert_eq!(services.end().0, 0);
}

/// Who holds the output of a service is of its tree, and the service is not started beside it.
#[test]
fn a_service_is_started_again_when_all_of_its_last_run_has_ended() {
    let services = Supervised::begin(
        "[service.it]
        setup = ['echo setup $(pgrep -c -f \"[s]leep 61[0]\") >> @/counted']
        command = '(setsid sleep 610 &); sleep 0.05; exit 3'
        log = { format = 'json' }
        backoff = { initial = '10ms', max = '10ms' }",
    );
    let seen = services.until_info("it", "restarts", |info| info["restarts"].as_u64() > Some(3));
    assert_eq!(seen["exit"], serde_json::json!({"code": 3}), "{seen}");
    assert!(services.left().len() <= 4, "{:?}", services.left());
    assert_eq!(services.end().0, 0);
}

/// Needs no more than the time that another one, which was asked later, has had and used up.
#[test]
fn who_asks_for_more_time_to_end_has_it() {
    if !has("perl") {
        return;
    }
    let notify = super::starting::NOTIFY;
    let services = Supervised::begin(&format!(
        "[service.it]
        command = ['perl', '-e', '''$SIG{{TERM}} = sub {{ @ARGV = (\"EXTEND_TIMEOUT_USEC=60000000\"); {notify}
            open(F, \">\", \"@/asked\"); @ARGV = (\":\"); {notify} exit 3 }}; open(F, \">\", \"@/up\"); sleep 600 while 1''']
        stop = {{ grace = '1s' }}
        [service.witness]\ncommand = '''trap '' TERM; touch @/deaf; while :; do sleep 600; done'''\nstop = {{ grace = '1s' }}"
    ));
    ["up", "deaf"].iter().for_each(|name| services.until_there(name));
    let mut stop = services.init.client(&["stop", "it"]).spawn().unwrap();
    services.until_there("asked");
    services.init.must(&["stop", "witness"]);
    assert!(services.info("witness")["exit"].to_string().contains("KILL"), "{}", services.info("witness"));
    assert_eq!(services.state("it"), "ending");
    services.put("go");
    assert_eq!(status(wait(&mut stop)), 0);
    let info = services.info("it");
    assert!(info["exit"].to_string().contains('3'), "{info}");
    assert_eq!(services.end().0, 0);
}
