//! Many services in one init.

use std::{fmt::Write as _, time::Instant};

use super::*;

/// Times that a process was woken, and those of all below the init that are lastout's own.
fn wakes(pids: &[i32]) -> Vec<u64> {
    let one = |pid: &i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let count = |line: &str| line.split_whitespace().nth(1).and_then(|count| count.parse::<u64>().ok());
        text.lines().filter(|line| line.contains("voluntary_ctxt_switches")).filter_map(count).sum()
    };
    pids.iter().map(one).collect()
}

/// What a process has of its own, kB.
fn own_memory(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    field("Private_Dirty:") + field("Private_Clean:")
}

#[test]
fn five_hundred_services_start_sleep_and_end() {
    let count = 500;
    let mut file = String::from("grace = '30s'\n");
    for number in 0..count {
        // Most end at once, others save for a while, and one is deaf, with a grace of its own.
        let service = match number {
            7 => "command = '''trap '' TERM; while :; do sleep 600; done'''\nstop = { grace = '4s' }",
            _ if number % 25 == 0 => {
                "command = '''trap 'sleep 2; echo >> @/saved; exit 0' TERM; while :; do sleep 600 & wait $!; done'''"
            }
            _ => "command = ['sleep', '600']",
        };
        writeln!(file, "[service.s{number}]\n{service}").unwrap();
    }
    let before = Instant::now();
    let services = Supervised::begin(&file);
    until("all to be ready", || {
        let all: Vec<Value> = serde_json::from_str(&services.init.must(&["ps", "--json"])).unwrap();
        (all.iter().filter(|one| one["state"] == "ready").count() == count).then_some(())
    });
    let started = before.elapsed();
    let keepers: Vec<i32> = until("the keepers", || Some(children(services.init.pid)).filter(|all| all.len() == count));
    let all = [&[services.init.pid][..], &keepers].concat();
    // Until what has begun is over; then nothing begins by itself.
    let mut last = wakes(&all);
    let quiet = until("quiet", || {
        std::thread::sleep(std::time::Duration::from_secs(2));
        let now = wakes(&all);
        let same = now == last;
        last = now.clone();
        same.then_some(now)
    });
    std::thread::sleep(std::time::Duration::from_secs(rounds(3, 60).into()));
    assert_eq!(wakes(&all), quiet);
    let each: u64 = keepers.iter().map(|pid| own_memory(*pid)).sum::<u64>() / count as u64;
    let own = own_memory(services.init.pid);
    // Its directory goes with it; what is written can still be read.
    services.put("saved");
    let saved = fs::File::open(services.path("saved")).unwrap();
    let before = Instant::now();
    let (code, log) = services.end();
    assert_eq!(code, 0, "{log:?}");
    let ended = before.elapsed();
    // The longest grace.
    assert!(ended.as_secs() < 30, "{ended:?}");
    assert_eq!(std::io::read_to_string(saved).unwrap().lines().count(), count / 25);
    let line = format!(
        "{count} services: ready after {started:?}, ended after {ended:?}, {each} kB of each keeper's own, {own} kB of the init's\n"
    );
    let _ = fs::OpenOptions::new().append(true).open("/dev/stderr").map(|mut to| to.write_all(line.as_bytes()));
}
