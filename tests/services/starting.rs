//! What comes before a service is ready, and how one knows that it is.

use super::*;

/// A program that says something by sd_notify; each word is a message, `:` waits for the file `@/go`.
pub(super) const NOTIFY: &str = r#"use Socket; socket(S, AF_UNIX, SOCK_DGRAM, 0) or die; my $at = $ENV{NOTIFY_SOCKET}; $at =~ s/^\x40/\0/;
for (@ARGV) { if ($_ eq ":") { select undef, undef, undef, 0.01 until -e "@/go" } else { send(S, $_, 0, pack_sockaddr_un($at)) or die } }"#;

#[test]
fn a_setup_runs_before_every_start_with_its_words_as_they_are() {
    let services = Supervised::begin(
        r#"[service.it]
        setup = [["printf", "%s|", "a b", "$HOME", "it's"], "echo setup >> @/order", ["sh", "-c", "echo \"$0\" >> @/order", "$x  y"]]
        command = "echo run >> @/order; [ $(wc -l < @/order) -lt 7 ] && exit 1; exec sleep 600"
        log = { file = "@/log" }
        backoff = { initial = '10ms' }"#,
    );
    let info = services.until_info("it", "its third start", |info| info["restarts"] == 2 && info["state"] == "ready");
    services.until_text("order", "run\nsetup\n$x  y\nrun\nsetup\n$x  y\nrun\n");
    assert_eq!(services.lines("order"), ["setup", "$x  y", "run"].repeat(3), "{info}");
    let log = services.until_text("log", "it's|");
    assert!(log.starts_with("a b|$HOME|it's|"), "{log}");
    assert_eq!(services.end().0, 0);
}

#[test]
fn a_setup_that_fails_is_a_failed_start_and_its_record_has_what_it_said() {
    let services = Supervised::begin(
        "[service.it]
        setup = ['echo fine', 'echo it broke; echo because >&2; exit 7']
        command = 'touch @/never'
        backoff = { initial = '10ms', max = '10ms' }
        retries = 2
        on_failure = 'env > @/env.new; mv @/env.new @/env'
        [service.hold]\ncommand = ['sleep', '600']",
    );
    let failed = services.until_state("it", "failed");
    assert_eq!((&failed["failures"], &failed["restarts"]), (&3.into(), &2.into()), "{failed}");
    let cause = &failed["cause"];
    assert_eq!(cause["kind"], "setup_failed");
    assert_eq!(cause["exit"], serde_json::json!({"code": 7}), "{failed}");
    let output = cause["output"].as_str().unwrap_or_default();
    assert!(output.contains("it broke") && output.contains("because"), "{failed}");
    assert!(!services.path("never").exists());
    // The run's own record has it, too.
    let ended: Vec<Value> = serde_json::from_str(&services.init.must(&["ps", "-a", "--json"])).unwrap();
    let run = ended.iter().rev().find(|job| job["name"] == "it").expect("its run");
    assert_eq!(services.record(&run["job"])["cause"], failed["cause"]);
    let waited: Value =
        serde_json::from_slice(&services.init.ask(&["wait", "--json", run["job"].as_str().unwrap()]).stdout).unwrap();
    assert_eq!(waited["cause"], failed["cause"]);
    let env = services.until_text("env", "LASTOUT_SERVICE=it\n");
    for entry in ["LASTOUT_STATE=failed\n", "LASTOUT_FAILURES=3\n", "LASTOUT_RESTARTS=2\n", "it broke"] {
        assert!(env.contains(entry), "{entry}: {env}");
    }
    assert_eq!(services.end().0, 7);
}

#[test]
fn a_setup_that_takes_too_long_is_ended_with_all_that_it_started() {
    let services = Supervised::begin(
        "[service.it]
        setup = ['(setsid sleep 600 &) ; sleep 600']\nsetup_timeout = '100ms'
        command = 'true'\nrestart = 'never'
        [service.hold]\ncommand = ['sleep', '600']",
    );
    let failed = services.until_state("it", "failed");
    assert!(failed["cause"]["exit"].is_null() && failed["cause"].to_string().contains("sleep 600"));
    assert_eq!(services.left().len(), 1);
    assert_eq!(services.end().0, 1);
}

#[test]
fn a_service_says_that_it_is_ready_and_how_it_is() {
    if !has("perl") {
        return;
    }
    let services = Supervised::begin(&format!(
        "[service.it]
        command = ['perl', '-e', '''{NOTIFY} sleep 600''', 'STATUS=warming up', ':', \"READY=1\\nSTATUS=serving 3\"]
        ready = 'notify'
        [service.user]\ncommand = ['sleep', '600']\nafter = {{ it = 'ready' }}"
    ));
    services.until_info("it", "a status", |info| info["status"] == "warming up");
    assert_eq!((services.state("it").as_str(), services.state("user").as_str()), ("starting", "waiting"));
    services.put("go");
    services.until_state("user", "ready");
    services.until_info("it", "another status", |info| info["status"] == "serving 3" && info["state"] == "ready");
    assert!(services.init.must(&["ps"]).contains("serving 3"));
    assert_eq!(services.end().0, 0);
}

#[test]
fn who_says_it_for_a_service_may_be_gone_before_it_is_heard() {
    if !has("perl") {
        return;
    }
    for _ in 0..rounds(5, 100) {
        let services = Supervised::begin(&format!(
            "[service.it]\ncommand = '''perl -e '{}' READY=1; exec sleep 600'''\nready = 'notify'",
            NOTIFY
        ));
        services.until_state("it", "ready");
        assert_eq!(services.end().0, 0);
    }
}

#[test]
fn systemd_notify_is_understood() {
    if !has("systemd-notify") {
        return;
    }
    let services = Supervised::begin(
        "[service.it]\ncommand = 'systemd-notify --ready --status=up; echo $? > @/done; exec sleep 600'\nready = 'notify'",
    );
    services.until_state("it", "ready");
    services.until_text("done", "0\n");
    services.until_info("it", "a status", |info| info["status"] == "up");
    assert_eq!(services.end().0, 0);
}

#[test]
fn who_is_not_ready_in_time_has_failed() {
    let services = Supervised::begin(
        "[service.it]
        command = ['sleep', '600']\nready = 'fd'\nstart_timeout = '20ms'\nretries = 1\nbackoff = { initial = '10ms' }
        [service.hold]\ncommand = ['sleep', '600']",
    );
    let failed = services.until_state("it", "failed");
    assert_eq!(failed["restarts"], 1, "{failed}");
    assert!(failed["cause"].to_string().contains("not_ready"), "{failed}");
    let refused = services.init.ask(&["start", "it"]);
    assert_eq!(refused.status.code(), Some(125), "{}", both(&refused));
    assert!(both(&refused).contains("it has failed"), "{}", both(&refused));
    assert_eq!(services.left().len(), 1);
    assert_eq!(services.end().0, 143);
}

#[test]
fn who_says_no_more_that_it_lives_is_started_again() {
    if !has("perl") {
        return;
    }
    // It says so for as long as nobody wants it to stop.
    let services = Supervised::begin(&format!(
        "[service.it]
        command = ['perl', '-e', '''$0 = \"it\"; @ARGV = (\"READY=1\"); {NOTIFY} @ARGV = (\"WATCHDOG=1\");
            while (1) {{ {NOTIFY} select undef, undef, undef, 0.01; sleep 600 if -e \"@/hang\" }}''']
        ready = 'notify'\nwatchdog = '2s'\nbackoff = {{ initial = '10ms' }}\non_restart = 'echo $LASTOUT_CAUSE >> @/causes'"
    ));
    services.until_state("it", "ready");
    services.put("hang");
    let again = services.until_info("it", "a restart", |info| info["restarts"].as_u64() >= Some(1));
    assert!(again["cause"].to_string().contains("watchdog"), "{again}");
    let causes = services.until_text("causes", "\n");
    assert!(causes.to_lowercase().contains("watchdog"), "{causes}");
    assert_eq!(services.end().0, 0);
}

#[test]
fn who_waits_for_a_start_is_told_what_that_waits_for() {
    let services = Supervised::begin(
        "[service.base]\ncommand = 'exit 3'\nbackoff = { initial = '10m', max = '10m', jitter = 0 }
        [service.user]\ncommand = ['sleep', '600']\nafter = { base = 'succeeded' }",
    );
    services.until_state("base", "backoff");
    let mut asked = services.init.client(&["start", "user"]).stderr(Stdio::piped()).spawn().unwrap();
    let told = lines(asked.stderr.take().unwrap()).recv_timeout(PATIENCE).unwrap();
    assert!(told.starts_with("lastout start: user waits for base, in backoff, next try in 9m 5"), "{told}");
    assert!(told.ends_with(": exit code 3, ended by itself; waiting"), "{told}");
    services.init.must(&["stop", "user"]);
    assert_eq!(status(wait(&mut asked)), 125);
    services.init.must(&["stop", "base"]);
    assert_eq!(services.end().0, 0);
}

#[test]
fn a_file_that_says_nothing_is_named() {
    for (file, warned) in [("", true), ("# nothing\n", true), ("export = { A = '1' }\n", false)] {
        let scratch = scratch();
        let path = scratch.path().join("lastout.toml");
        fs::write(&path, file).unwrap();
        let init = Init::start_in(scratch, As::Subreaper, &["--config", path.to_str().unwrap()]);
        init.must(&["shutdown"]);
        let (code, log) = init.end();
        assert_eq!((code, log.iter().any(|line| line.contains("lastout.toml says nothing"))), (0, warned), "{log:?}");
    }
}

/// Needs no more than the time that another one, which began later, has had and used up.
#[test]
fn who_asks_for_more_time_to_start_has_it() {
    if !has("perl") {
        return;
    }
    let services = Supervised::begin(&format!(
        "[service.it]
        command = ['perl', '-e', '''{NOTIFY} open(F, \">\", \"@/asked\"); @ARGV = (\":\", \"READY=1\"); {NOTIFY} sleep 600''', 'EXTEND_TIMEOUT_USEC=60000000']
        ready = 'notify'\nstart_timeout = '2s'
        [service.witness]\nsetup = ['until [ -e @/asked ]; do sleep 0.01; done']\ncommand = ['sleep', '600']
        ready = 'notify'\nstart_timeout = '2s'\nrestart = 'never'"
    ));
    services.until_state("witness", "failed");
    assert_eq!(services.state("it"), "starting");
    services.put("go");
    let info = services.until_state("it", "ready");
    assert_eq!(info["restarts"], 0, "{info}");
    services.end();
}
