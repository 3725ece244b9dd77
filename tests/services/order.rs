//! Who needs whom: starts in order, ends in reverse order.

use super::*;

/// A service that writes down when it starts and ends.
fn noted(name: &str, more: &str) -> String {
    format!(
        "[service.{name}]
        command = '''trap 'echo end {name} >> @/order; exit 0' TERM; echo start {name} >> @/order; {more}
        while :; do sleep 600 & wait $!; done'''\n"
    )
}

#[test]
fn services_start_when_what_they_need_has_happened_and_end_in_reverse_order() {
    let services = Supervised::begin(
        &[
            "[service.once]\ncommand = 'until [ -e @/go-once ]; do sleep 0.01; done; echo once >> @/order'\nrestart = 'never'\n",
            &noted("fd", "until [ -e @/go-fd ]; do sleep 0.01; done; echo >&3;"),
            "ready = 'fd'\nafter = { once = 'succeeded' }\n",
            &noted("well", ""),
            "after = { fd = 'ready' }\nhealth = { command = ['test', '-e', '@/go-well'], every = '100ms', retries = 1000000 }\n",
            &noted("last", ""),
            "after = { well = 'healthy', fd = 'started' }\n",
            &noted("beside", ""),
            "after = { fd = 'started' }\n",
        ]
        .concat(),
    );
    let waits = |name: &str| services.until_state(name, "waiting")["waits_for"].clone();
    assert_eq!(waits("fd"), serde_json::json!(["once"]));
    services.put("go-once");
    // It has started, and is not ready.
    services.until_text("order", "start beside");
    assert_eq!((services.state("fd").as_str(), waits("well")), ("starting", serde_json::json!(["fd"])));
    services.put("go-fd");
    services.until_text("order", "start well");
    assert_eq!(services.state("well"), "ready");
    assert_eq!(waits("last"), serde_json::json!(["well"]));
    services.put("go-well");
    services.until_text("order", "start last");
    services.until_info("well", "healthy", |info| info["healthy"] == true);
    let table = services.init.must(&["ps"]);
    assert!(table.contains("once") && table.contains("succeeded"), "{table}");
    let order = services.path("order");
    let kept = services.init.scratch.path().join("kept");
    fs::hard_link(order, &kept).unwrap();
    let watched = fs::File::open(&kept).unwrap();
    assert_eq!(services.end().0, 0);
    let order = std::io::read_to_string(watched).unwrap();
    let order: Vec<&str> = order.lines().collect();
    let at = |what: &str| order.iter().position(|line| *line == what).unwrap_or_else(|| panic!("{what}: {order:?}"));
    assert_eq!(order.len(), 9, "{order:?}");
    assert!(at("once") < at("start fd") && at("start fd") < at("start well") && at("start well") < at("start last"));
    assert!(at("end last") < at("end well") && at("end well") < at("end fd"), "{order:?}");
    assert!(at("end beside") < at("end fd"), "{order:?}");
}

#[test]
fn who_is_stopped_takes_along_who_needs_it_and_comes_back_with_it() {
    let services =
        Supervised::begin(&[&noted("base", ""), &noted("user", ""), "after = { base = 'started' }"].concat());
    services.until_text("order", "start user");
    services.init.must(&["stop", "base"]);
    assert_eq!(services.lines("order")[2..], ["end user", "end base"]);
    assert_eq!((services.state("base").as_str(), services.state("user").as_str()), ("stopped", "waiting"));
    // Who needs it starts it.
    services.init.must(&["start", "user"]);
    assert_eq!(services.state("base"), "ready");
    services.init.must(&["restart", "base"]);
    services.until_text("order", "start base\nstart user\nend user\nend base\nstart base\n");
    services.until_state("user", "ready");
    assert_eq!(services.end().0, 0);
}

#[test]
fn what_ends_by_itself_takes_nobody_along() {
    let services = Supervised::begin(
        &[&noted("base", ""), "backoff = { initial = '10ms' }\n", &noted("user", ""), "after = { base = 'started' }"]
            .concat(),
    );
    services.until_text("order", "start user");
    let user = services.pid("user");
    run("kill", &["-9", &services.pid("base").to_string()]);
    services.until_info("base", "back", |info| info["restarts"] == 1 && info["state"] == "ready");
    assert_eq!(services.pid("user"), user);
    assert_eq!(services.end().0, 0);
}
