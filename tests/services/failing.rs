//! What fails: again and again, for good, and what everything else makes of it.

use super::*;

#[test]
fn the_exit_code_is_a_critical_services_and_the_others_end_in_order() {
    let (code, out, err) = to_its_end(
        "[service.base]\ncommand = '''trap 'echo base ends; exit 0' TERM; while :; do sleep 600 & wait $!; done'''
        [service.user]\nafter = { base = 'ready' }
        command = '''trap 'echo user ends; exit 0' TERM; touch @/up; while :; do sleep 600 & wait $!; done'''
        [service.it]\nafter = { user = 'ready' }\ncommand = 'until [ -e @/up ]; do sleep 0.01; done; echo it; exit 23'
        retries = 2\ncritical = true\nbackoff = { initial = '10ms', max = '10ms' }",
        &[],
    );
    assert_eq!(code, 23, "{err}");
    assert_eq!(out, "it\nit\nit\nuser ends\nbase ends\n", "{err}");
    assert!(err.contains("it is critical and has failed: everything stops"), "{err}");
}

#[test]
fn a_critical_setup_or_a_command_that_is_not_there_count_likewise() {
    let table =
        [("setup = ['exit 9']\ncommand = ['true']", 9), ("command = ['/nothing/here']", 127), ("command = ['/']", 126)];
    for (it, expected) in table {
        let file = format!(
            "[service.it]\n{it}\nrestart = 'never'\ncritical = true\n[service.hold]\ncommand = ['sleep', '600']"
        );
        let (code, _, err) = to_its_end(&file, &[]);
        assert_eq!(code, expected, "{it}: {err}");
    }
}

#[test]
fn who_needs_what_has_failed_for_good_has_failed_too() {
    let (code, out, err) = to_its_end(
        "[service.it]\ncommand = 'exit 4'\nrestart = 'never'
        [service.user]\ncommand = 'echo never'\nafter = { it = 'succeeded' }\nrestart = 'never'",
        &[],
    );
    assert_eq!((code, out.as_str()), (4, ""), "{err}");
    assert!(err.contains("user"), "{err}");
}

#[test]
fn the_first_failure_for_good_is_the_exit_code_whatever_ends_everything() {
    // `base` is still needed when it fails; `late` is asked to end, and its code is nobody's.
    let services = Supervised::begin(
        "[service.base]\ncommand = 'until [ -e @/stopping ]; do sleep 0.01; done; exit 21'\nrestart = 'never'
        [service.user]\nafter = { base = 'ready' }
        command = '''trap 'touch @/stopping; until [ -e @/failed ]; do sleep 0.01; done; exit 0' TERM; touch @/up; while :; do sleep 600 & wait $!; done'''
        [service.late]\ncommand = '''trap 'exit 9' TERM; touch @/late; while :; do sleep 600 & wait $!; done'''",
    );
    services.until_there("up");
    services.until_there("late");
    services.init.signal("TERM");
    services.until_state("base", "failed");
    services.put("failed");
    assert_eq!(services.ended().0, 21);
}

#[test]
fn it_leaves_when_everything_is_done() {
    let (code, out, err) = to_its_end(
        "[service.one]\ncommand = 'echo one'\nrestart = 'never'
        [service.two]\ncommand = 'echo two'\nrestart = 'on-failure'\nafter = { one = 'succeeded' }",
        &[],
    );
    assert_eq!((code, out.as_str(), err.as_str()), (0, "one\ntwo\n", ""));
}

#[test]
fn hooks_run_with_the_record_in_their_environment() {
    let hook = "echo $0 $LASTOUT_SERVICE $LASTOUT_STATE $LASTOUT_RESTARTS $LASTOUT_FAILURES $LASTOUT_EXIT \"$LASTOUT_CAUSE\" >> @/hooks";
    let services = Supervised::begin(&format!(
        "[service.it]\ncommand = 'exit 3'\nretries = 1\nbackoff = {{ initial = '10ms' }}
        on_restart = ['sh', '-c', '{hook}', 'restart']\non_failure = ['sh', '-c', '{hook}', 'failure']
        [service.hold]\ncommand = ['sleep', '600']"
    ));
    until("both hooks", || (services.lines("hooks").len() == 2).then_some(()));
    let mut lines = services.lines("hooks");
    // They are two jobs.
    lines.sort();
    assert!(lines[0].starts_with("failure it failed 1 2 3"), "{lines:?}");
    assert!(lines[1].starts_with("restart it backoff 1 1 3"), "{lines:?}");
    assert_eq!(services.end().0, 3);
}

#[test]
fn what_a_hook_has_to_tell_is_told_though_everything_stops() {
    // It goes on only when the stop has begun.
    let (code, out, err) = to_its_end(
        "[service.it]\ncommand = 'until [ -e @/up ]; do sleep 0.01; done; exit 4'\nrestart = 'never'\ncritical = true
        on_failure = 'until [ -e @/stopping ]; do sleep 0.01; done; echo told'
        [service.hold]
        command = '''trap 'touch @/stopping; exit 0' TERM; touch @/up; while :; do sleep 600 & wait $!; done'''",
        &[],
    );
    assert_eq!((code, out.as_str()), (4, "told\n"), "{err}");
    assert!(err.contains("it: failed: exit code 4"), "{err}");
}

#[test]
fn what_a_killed_keeper_leaves_is_ended_and_the_service_started_again() {
    let services = Supervised::begin(
        "[service.it]\ncommand = '(setsid sleep 600 &); exec sleep 600'\nbackoff = { initial = '10ms' }\nlog = { format = 'prefix' }
        [service.user]\ncommand = ['sleep', '600']\nafter = { it = 'ready' }",
    );
    services.until_state("user", "ready");
    until("its two processes", || (services.left().len() == 3).then_some(()));
    let before = services.left();
    let user = services.pid("user");
    run("kill", &["-9", &services.keeper("it").to_string()]);
    let back = services.until_info("it", "back", |info| info["restarts"] == 1 && info["state"] == "ready");
    assert!(back["cause"].to_string().contains("keeper_gone"), "{back}");
    until("its processes", || {
        let left = services.left();
        (left.len() == 3 && left.iter().filter(|pid| before.contains(pid)).eq([&user])).then_some(())
    });
    assert_eq!(services.end().0, 0);
}

#[test]
fn backoff_grows_and_ps_tells_the_next_try() {
    let services = Supervised::begin(
        "[service.it]\ncommand = 'exit 5'\nbackoff = { initial = '10ms', factor = 100.0, max = '1h', jitter = 0 }",
    );
    let waiting = services.until_info("it", "a long delay", |info| info["next_ms"].as_u64() > Some(9_000));
    assert_eq!((&waiting["failures"], &waiting["restarts"]), (&3.into(), &3.into()), "{waiting}");
    let table = services.init.must(&["ps"]);
    assert!(table.contains("backoff") && table.contains(" in "), "{table}");
    // It need not be waited for.
    services.init.must(&["stop", "it"]);
    assert_eq!(services.end().0, 0);
}

#[test]
fn mains_end_ends_services_in_order_and_its_code_counts() {
    let file = "[service.base]\ncommand = '''trap 'echo base ends; exit 0' TERM; while :; do sleep 600 & wait $!; done'''\n\
        [service.user]\nafter = { base = 'ready' }\nready = 'fd'
        command = '''trap 'echo user ends; exit 0' TERM; echo >&3; touch @/up; while :; do sleep 600 & wait $!; done'''\n\
        [service.fails]\ncommand = 'exit 9'\nrestart = 'never'";
    let main = "until \"$0\" ps | grep -q 'user  *ready'; do sleep 0.01; done; echo main; exit 17";
    let (code, out, err) = to_its_end(file, &["--", "sh", "-c", main, LASTOUT]);
    assert_eq!((code, out.as_str()), (17, "main\nuser ends\nbase ends\n"), "{err}");
}

#[test]
fn a_critical_service_ends_main() {
    let file = "[service.it]\ncommand = 'until [ -e @/main ]; do sleep 0.01; done; exit 19'\nrestart = 'never'\ncritical = true";
    let main = "trap 'echo main ends; exit 0' TERM; touch $(dirname $LASTOUT_CONTROL)/main; while :; do sleep 600 & wait $!; done";
    let (code, out, err) = to_its_end(file, &["--", "sh", "-c", main]);
    assert_eq!((code, out.as_str()), (19, "main ends\n"), "{err}");
}

#[test]
fn a_hook_that_hangs_is_one_named_job_and_is_ended() {
    let services = Supervised::begin(
        "grace = '100ms'\n[service.it]\ncommand = 'exit 1'\nbackoff = { initial = '1ms', max = '10ms' }
        on_restart = 'echo $LASTOUT_RESTARTS >> @/told; exec sleep 444'\nhook_timeout = '300ms'",
    );
    let hooks = || {
        let all: Vec<Value> = serde_json::from_str(&services.init.must(&["ps", "--json"])).unwrap();
        // One whose tree has ended has only its record to write.
        all.into_iter().filter(|one| one["name"] == "it.on_restart" && one["state"] != "ending").count()
    };
    let most = std::cell::Cell::new(0);
    until("two more hooks", || {
        most.set(hooks().max(most.get()));
        (services.lines("told").len() == 3).then_some(())
    });
    assert_eq!(most.get(), 1);
    let told: Vec<u32> = services.lines("told").iter().map(|count| count.parse().unwrap()).collect();
    assert!(told[0] == 1 && told[1] > 2 && told[2] > told[1], "the latest account: {told:?}");
    services.init.log("(it.on_restart): killed by SIGTERM, ");
    services.init.must(&["stop", "it"]);
    assert_eq!(services.end().0, 0);
}

#[test]
fn a_crash_loop_leaves_what_others_did_among_the_events() {
    let services = Supervised::begin(
        "[service.once]\ncommand = 'exit 7'\nrestart = 'never'
        [service.loops]\ncommand = 'exit 1'\nafter = { other = 'ready' }\nbackoff = { initial = '1ms', max = '10ms' }
        [service.other]\ncommand = 'until [ -e @/go ]; do sleep 0.01; done; echo >&3; exec sleep 600'\nready = 'fd'",
    );
    services.until_state("once", "failed");
    services.put("go");
    services.until_info("loops", "restarts", |info| info["restarts"].as_u64() > Some(30));
    let events = services.init.ask(&["events"]);
    let text = both(&events);
    for part in ["once: failed: exit code 7", "other: ready", "loops: backoff"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("are gone"), "{text}");
    services.init.must(&["stop", "loops"]);
    assert_eq!(services.end().0, 7);
}
