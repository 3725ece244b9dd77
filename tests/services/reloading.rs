//! The file is read again.

use std::io::Read;

use super::*;

const SLEEP: &str = "command = ['sleep', '600']\n";

/// The runs of these.
fn runs(services: &Supervised, names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| services.info(name)["job"].clone()).collect()
}

fn file(services: &[(&str, &str)]) -> String {
    services.iter().map(|(name, text)| format!("[service.{name}]\n{text}\n")).collect()
}

#[test]
fn only_what_has_changed_is_started_again() {
    let changed = "command = ['sleep', '601']\n";
    let needs = &format!("{SLEEP}after = {{ changed = 'ready' }}");
    let of_policy = &format!("{SLEEP}restart = 'always'\nretries = 7");
    let names = ["same", "changed", "user", "policy", "gone"];
    let before = [("same", SLEEP), ("changed", SLEEP), ("user", needs), ("policy", SLEEP), ("gone", SLEEP)];
    let after = [("same", SLEEP), ("changed", changed), ("user", needs), ("policy", of_policy), ("new", SLEEP)];
    for by_signal in [false, true] {
        let services = Supervised::begin(&file(&before));
        names.iter().for_each(|name| drop(services.until_state(name, "ready")));
        let first = runs(&services, &names);
        services.write(&file(&after));
        if by_signal {
            services.init.signal("HUP");
        } else {
            services.init.must(&["reload"]);
        }
        services.until_state("new", "ready");
        until("the restarts", || {
            let changed = services.info("changed")["restarts"] == 1 && services.info("changed")["state"] == "ready";
            let user = services.info("user")["restarts"] == 1 && services.info("user")["state"] == "ready";
            (changed && user && services.info("gone").is_null()).then_some(())
        });
        let second = runs(&services, &names);
        let same: Vec<bool> = first.iter().zip(&second).map(|(first, second)| first == second).collect();
        assert_eq!(same, [true, false, false, true, false]);
        assert!(is_running("sleep\x00601"));
        assert_eq!(services.left().len(), 5);
        assert_eq!(services.end().0, 0);
    }
}

#[test]
fn a_broken_file_is_refused_with_every_problem_and_nothing_changes() {
    let services = Supervised::begin(&file(&[("it", SLEEP)]));
    services.until_state("it", "ready");
    let before = services.info("it")["job"].clone();
    services.write("[service.it]\ncomand = ['sleep', '601']\n[service.two]\ncommand = ['true']\nafter = { nobody = 'ready' }\nnice = 3");
    let refused = services.init.ask(&["reload"]);
    assert_eq!(refused.status.code(), Some(125));
    let text = both(&refused);
    for part in ["comand", "command", "nobody", "nice"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    services.init.signal("HUP");
    services.init.log("nobody");
    fs::remove_file(services.path("services.toml")).unwrap();
    let refused = services.init.ask(&["reload"]);
    assert!(both(&refused).contains("services.toml"), "{}", both(&refused));
    assert_eq!((services.info("it")["job"].clone(), services.state("two")), (before, "none".into()));
    assert_eq!(services.end().0, 0);
}

#[test]
fn without_a_file_there_is_nothing_to_read() {
    let init = Init::start(As::Subreaper, &[]);
    let refused = init.ask(&["reload"]);
    assert!(both(&refused).contains("--config FILE"), "{}", both(&refused));
    init.must(&["shutdown"]);
    assert_eq!(init.end().0, 0);
}

#[test]
fn what_is_stopped_stays_stopped_and_what_had_failed_is_tried_with_the_new_file() {
    let fails = "setup = ['exit 3']\ncommand = ['true']\nrestart = 'never'";
    let waits = "command = 'exit 3'\nbackoff = { initial = '10m', max = '10m' }";
    let user = &format!("{SLEEP}after = {{ failed = 'ready' }}");
    let services = Supervised::begin(&file(&[("stopped", SLEEP), ("failed", fails), ("user", user), ("waits", waits)]));
    services.until_state("stopped", "ready");
    services.init.must(&["stop", "stopped"]);
    services.until_state("user", "failed");
    services.until_state("waits", "backoff");
    services.write(&file(&[
        ("stopped", "command = ['sleep', '601']"),
        ("failed", SLEEP),
        ("user", user),
        ("waits", SLEEP),
    ]));
    services.init.must(&["reload"]);
    for name in ["failed", "user", "waits"] {
        services.until_state(name, "ready");
    }
    assert_eq!(services.state("stopped"), "stopped");
    assert_eq!(services.end().0, 0);
}

#[test]
fn what_the_file_has_no_more_cannot_be_started_while_it_ends() {
    let slow = "command = '''trap 'touch @/ending; until [ -e @/go ]; do sleep 0.01; done; exit 0' TERM; touch @/up; while :; do sleep 600 & wait $!; done'''\n";
    let services = Supervised::begin(&file(&[("gone", slow), ("it", SLEEP)]));
    services.until_there("up");
    services.write(&file(&[("it", SLEEP)]));
    services.init.must(&["reload"]);
    services.until_there("ending");
    for command in ["start", "restart"] {
        let mut asked = services.init.client(&[command, "gone"]).stderr(Stdio::piped()).spawn().unwrap();
        assert_eq!(status(wait(&mut asked)), 125);
        let mut told = String::new();
        asked.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert!(told.contains("the configuration file has no gone any more"), "{told}");
    }
    services.put("go");
    services.until_info("gone", "its end", Value::is_null);
    assert_eq!(services.end().0, 0);
}
