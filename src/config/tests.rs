use std::{rc::Rc, time::Duration};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::base::Signal;
use crate::core::service::{
    Backoff, Check, Condition, Format, Health, Limits, Log, Ready, Restart, RunConfig, ServiceConfig, Sink, Stop,
    StopTo,
};

/// The issue's file.
const EXAMPLE: &str = r#"
grace = "8s"
max_jobs = 4
export = { OMP_NUM_THREADS = "{cpus}", SPARK_MEMORY = "{memory}", JSON = '{{"n": {cpus}}}' }

[service.ray]
setup   = ["mkdir -p /home/ray/.ssh", ["gcloud", "config", "set", "project", "x y"]]
command = ["ray", "start", "--address=10.0.0.1:6379", "--block"]
after   = { gcs = "ready" }              # started | ready | healthy | succeeded
restart = "always"                       # never | on-failure | always
backoff = { initial = "1s", max = "60s", factor = 2.0, jitter = 0.1, reset_after = "60s" }
retries = 0                              # 0: for ever; then the service has failed
critical = true                          # when it has failed, everything stops with its exit code
ready   = "notify"                       # started | notify (sd_notify) | fd | healthy
health  = { command = ["ray", "status"], every = "30s", timeout = "10s", retries = 3, start_period = "60s" }
stop    = { signal = "TERM", grace = "30s" }
env     = { RAY_BACKEND_LOG_LEVEL = "warning" }
log     = { file = "/var/log/ray.log", max = "50MB", keep = 5 }   # default: lastout's own stdout and stderr

[mount.gcs]
command = ["gcsfuse", "--foreground", "--implicit-dirs", "bucket", "/opt/gcs"]
path    = "/opt/gcs"

[service.container]                      # on a host: lastout keeps the container alive
setup   = ["docker rm -f worker || true"]
command = ["docker", "run", "--rm", "--name", "worker", "--net=host", "image"]
health  = { command = ["docker", "exec", "worker", "lastout", "ps"], every = "30s" }
"#;

/// Every key.
const EVERYTHING: &str = r#"
grace = 1.5
stop_timeout = "1m"
[service.a]
command = "exec a"
setup = []
setup_timeout = 0
cwd = "relative"
env = { EMPTY = "" }
after = { b = "succeeded", c = "healthy", m = "started" }
restart = "never"
backoff = { initial = "500ms", max = 0.5, factor = 1, jitter = 1, reset_after = 0 }
retries = 7
ready = "fd"
start_timeout = "0"
watchdog = "20s"
stop = { signal = 3, to = "command", grace = 0 }
log = { format = "json" }
user = 1000
group = "docker"
on_failure = "alert"
on_restart = ["alert", "restart"]
hook_timeout = 0
[service.a.limits]
nofile = 65536
core = "0"
as = "8GB"
nice = -5
oom_score_adj = 500
memory = "4GiB"
cpus = 1.5
pids = 100
[service.b]
command = ["b", ""]
log = "inherit"
[service.c]
command = ["c"]
ready = "healthy"
health = "http://[::1]:8080/ready?x=1"
[mount.m]
command = ["m"]
path = "//opt/./gcs/"
health = { url = "tcp://localhost:22", start_period = 5 }
"#;

fn exports(name: &str) -> Option<String> {
    Some(if name == "cpus" { "8".into() } else { "1024".into() })
}

fn read(text: &str) -> Result<ServicesConfig, Vec<String>> {
    parse(text, &exports).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(String::from).collect()
}

fn shell(line: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), line.into()]
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What a service of a command alone is.
fn plain(name: &str, command: Vec<String>) -> ServiceConfig {
    ServiceConfig {
        name: name.parse().unwrap(),
        after: [].into(),
        restart: Restart::OnFailure,
        backoff: Backoff { initial: seconds(1), max: seconds(60), factor: 2.0, jitter: 0.1, reset_after: seconds(60) },
        retries: 0,
        critical: false,
        on_failure: None,
        on_restart: None,
        hook_timeout: Some(seconds(60)),
        run: Rc::new(RunConfig {
            setup: vec![],
            setup_timeout: seconds(300),
            command,
            mount: None,
            cwd: None,
            env: vec![],
            ready: Ready::Started,
            start_timeout: None,
            health: None,
            watchdog: None,
            timeout: None,
            stop: Stop { signal: "TERM".parse().unwrap(), to: StopTo::Tree, grace: None },
            log: Log::default(),
            limits: Limits::default(),
        }),
    }
}

fn health(check: Check) -> Health {
    Health { check, every: seconds(30), timeout: seconds(10), retries: 3, start_period: seconds(0) }
}

#[test]
fn the_issues_example_is_what_it_says() {
    let mut ray = plain("ray", words("ray start --address=10.0.0.1:6379 --block"));
    ray.after = [("gcs".parse().unwrap(), Condition::Ready)].into();
    ray.restart = Restart::Always;
    ray.critical = true;
    let run = Rc::make_mut(&mut ray.run);
    run.setup = vec![
        shell("mkdir -p /home/ray/.ssh"),
        ["gcloud", "config", "set", "project", "x y"].map(String::from).to_vec(),
    ];
    run.ready = Ready::Notify;
    run.start_timeout = Some(seconds(90));
    run.health = Some(Health { start_period: seconds(60), ..health(Check::Command(words("ray status"))) });
    run.stop.grace = Some(seconds(30));
    run.env = vec![("RAY_BACKEND_LOG_LEVEL".into(), "warning".into())];
    run.log.sink = Sink::File { path: "/var/log/ray.log".into(), max: 50_000_000, keep: 5 };

    let mut gcs = plain("gcs", words("gcsfuse --foreground --implicit-dirs bucket /opt/gcs"));
    let run = Rc::make_mut(&mut gcs.run);
    run.mount = Some("/opt/gcs".into());
    run.ready = Ready::Mounted;
    run.start_timeout = Some(seconds(90));

    let mut container = plain("container", words("docker run --rm --name worker --net=host image"));
    let run = Rc::make_mut(&mut container.run);
    run.setup = vec![shell("docker rm -f worker || true")];
    run.health = Some(health(Check::Command(words("docker exec worker lastout ps"))));

    let expected = ServicesConfig {
        grace: Some(seconds(8)),
        stop_timeout: None,
        max_jobs: Some(4),
        // A table's entries are in the order of the file.
        export: vec![
            ("OMP_NUM_THREADS".into(), "8".into()),
            ("SPARK_MEMORY".into(), "1024".into()),
            ("JSON".into(), "{\"n\": 8}".into()),
        ],
        services: vec![ray, gcs, container],
    };
    assert_eq!(read(EXAMPLE), Ok(expected));
}

#[test]
fn every_key_can_be_given() {
    let mut a = plain("a", shell("exec a"));
    let after = [("b", Condition::Succeeded), ("c", Condition::Healthy), ("m", Condition::Started)];
    a.after = after.into_iter().map(|(name, condition)| (name.parse().unwrap(), condition)).collect();
    a.restart = Restart::Never;
    let half = Duration::from_millis(500);
    a.backoff = Backoff { initial: half, max: half, factor: 1.0, jitter: 1.0, reset_after: seconds(0) };
    a.retries = 7;
    a.on_failure = Some(shell("alert"));
    a.on_restart = Some(words("alert restart"));
    a.hook_timeout = None;
    let run = Rc::make_mut(&mut a.run);
    run.setup_timeout = Duration::MAX;
    run.cwd = Some("relative".into());
    run.env = vec![("EMPTY".into(), String::new())];
    run.ready = Ready::Fd;
    run.watchdog = Some(seconds(20));
    run.stop = Stop { signal: "QUIT".parse().unwrap(), to: StopTo::Command, grace: Some(seconds(0)) };
    run.log = Log { sink: Sink::Inherit, format: Format::Json };
    run.limits = Limits {
        nofile: Some(65536),
        core: Some(0),
        address_space: Some(8_000_000_000),
        nice: Some(-5),
        oom_score_adj: Some(500),
        user: Some("1000".into()),
        group: Some("docker".into()),
        memory: Some(4 << 30),
        cpu_milli: Some(1500),
        pids: Some(100),
    };
    let b = plain("b", vec!["b".into(), String::new()]);
    let mut c = plain("c", words("c"));
    let run = Rc::make_mut(&mut c.run);
    run.ready = Ready::Healthy;
    run.health = Some(health(Check::Http { host: "::1".into(), port: 8080, path: "/ready?x=1".into() }));
    let mut m = plain("m", words("m"));
    let run = Rc::make_mut(&mut m.run);
    run.mount = Some("/opt/gcs".into());
    run.ready = Ready::Mounted;
    run.start_timeout = Some(seconds(90));
    run.health = Some(Health { start_period: seconds(5), ..health(Check::Tcp { host: "localhost".into(), port: 22 }) });
    let expected = ServicesConfig {
        grace: Some(Duration::from_millis(1500)),
        stop_timeout: Some(seconds(60)),
        services: vec![a, b, c, m],
        ..ServicesConfig::default()
    };
    assert_eq!(read(EVERYTHING), Ok(expected));
}

#[test]
fn nothing_is_a_configuration() {
    for text in ["", "# nothing", "[service]\n", "\u{feff}grace = 1\n[mount]"] {
        assert!(read(text).is_ok(), "{text}");
    }
}

/// TOML, then what is wrong with it; an empty line between them. `##` begins a comment of the table.
const BAD: &str = include_str!("../../tests/golden/config-problems.txt");
/// The table's second half: what is wrong only in its meaning.
const MEANING: &str = "## Meaning: only `lastout check` can tell.\n";

/// Each with its problems, and whether the schema can tell.
fn bad() -> Vec<(String, Vec<String>, bool)> {
    let (structure, meaning) = BAD.split_once(MEANING).unwrap();
    let mut all = Vec::new();
    for (half, in_structure) in [(structure, true), (meaning, false)] {
        for block in half.split("\n\n") {
            let lines = || block.lines().filter(|line| !line.starts_with("##"));
            let text: Vec<&str> = lines().filter(|line| !line.starts_with("! ")).collect();
            // The names of all keys stand in one place.
            let known = |line: &str| line.replace("<service>", SERVICE).replace("<mount>", MOUNT);
            let problems: Vec<String> = lines().filter_map(|line| line.strip_prefix("! ")).map(known).collect();
            if !problems.is_empty() {
                all.push((text.join("\n"), problems, in_structure));
            }
        }
    }
    all
}

const SERVICE: &str = "command, ready, watchdog, setup, setup_timeout, cwd, env, after, restart, backoff, retries, critical, start_timeout, health, stop, log, user, group, limits, on_failure, on_restart, hook_timeout";
const MOUNT: &str = "command, path, setup, setup_timeout, cwd, env, after, restart, backoff, retries, critical, start_timeout, health, stop, log, user, group, limits, on_failure, on_restart, hook_timeout";

#[test]
fn every_problem_is_told_at_its_place() {
    let bad = bad();
    assert!(bad.len() > 35, "the table is read");
    for (text, problems, _) in bad {
        assert_eq!(read(&text), Err(problems), "{text}");
    }
}

#[test]
fn bytes_that_are_no_text_are_told_at_their_place() {
    let problems = parse_bytes(b"a = 1\nb = '\xc3\xa4\xff'", &exports).unwrap_err();
    assert_eq!(problems[0].to_string(), "2:7: not UTF-8; save the file as UTF-8");
    assert_eq!(parse_bytes(b"grace = 8", &exports).unwrap().grace, Some(seconds(8)));
}

#[test]
fn what_is_not_known_on_this_machine_is_told() {
    let none = |_: &str| None;
    let problems = parse("export = { A = '{memory}' }", &none).unwrap_err();
    assert_eq!(problems[0].to_string(), "1:12: {memory} is not known here; write a value");
}

#[test]
fn sizes_are_read_as_people_write_them() {
    for (text, bytes) in [
        ("4096", 4096),
        ("0", 0),
        ("50MB", 50_000_000),
        ("512 MiB", 512 << 20),
        ("1.5GB", 1_500_000_000),
        ("0.5KiB", 512),
        ("1kB", 1000),
        ("18446744073709551615B", u64::MAX),
    ] {
        assert_eq!(value::size(text), Some(bytes), "{text}");
    }
    let long = "9".repeat(60);
    for bad in ["", "B", ".5GB", "5.GB", "1.2.3", "-1", "5M", "5mb", "18446744073709551616", "99999999TB", "1e3", &long]
    {
        assert_eq!(value::size(bad), None, "{bad}");
    }
}

#[test]
fn urls_are_what_a_health_check_can_ask() {
    let url = |text: &str| text.parse::<value::Url>().map(|url| url.0);
    let http = |host: &str, port, path: &str| Ok(Check::Http { host: host.into(), port, path: path.into() });
    assert_eq!(url("http://a"), http("a", 80, "/"));
    assert_eq!(url("http://a:8080?x=1"), http("a", 8080, "/?x=1"));
    assert_eq!(url("http://[::1]/x"), http("::1", 80, "/x"));
    assert_eq!(url("tcp://[::1]:22"), Ok(Check::Tcp { host: "::1".into(), port: 22 }));
    for bad in [
        "http://",
        "http:///x",
        "http://:80",
        "http://a:0",
        "http://a:65536",
        "http://a:+8",
        "http://a:",
        "http://u@a",
        "http://a/#x",
        "http://a/ b",
        "http://a/\r\nX: y",
        "http://::1/",
        "http://[a]",
        "http://[::1]80",
        "http://[::1",
        "tcp://a",
        "tcp://a:1/x",
        "ftp://a",
        "http://ä",
    ] {
        assert!(url(bad).is_err(), "{bad}");
    }
}

/// As JSON, for the schema.
fn json(node: &tree::Node) -> Json {
    match &node.raw {
        tree::Raw::Text(text) => json!(text),
        tree::Raw::Whole(number) => json!(number),
        tree::Raw::Decimal(number) => json!(number),
        tree::Raw::Switch(switch) => json!(switch),
        tree::Raw::Moment => json!("1979-05-27"),
        tree::Raw::List(list) => list.iter().map(json).collect(),
        tree::Raw::Table(table) => table.iter().map(|entry| (entry.name.clone(), json(&entry.value))).collect(),
    }
}

/// As much of JSON Schema as ours has. Another keyword is an error, so that none is passed over.
fn valid(value: &Json, schema: &Json, root: &Json) -> bool {
    let count = |what: &Json| what.as_u64().unwrap() as usize;
    let all = |what: &Json| what.as_array().unwrap().clone();
    let matches =
        |pattern: &Json, text: &str| regex_lite::Regex::new(pattern.as_str().unwrap()).unwrap().is_match(text);
    schema.as_object().unwrap().iter().all(|(keyword, with)| match keyword.as_str() {
        "$schema" | "title" | "description" | "default" | "$defs" => true,
        "$ref" => valid(value, root.pointer(with.as_str().unwrap().trim_start_matches('#')).unwrap(), root),
        "type" => match with.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "number" => value.is_number(),
            "integer" => value.is_i64(),
            other => panic!("{other}"),
        },
        "enum" => all(with).contains(value),
        "const" => value == with,
        "minimum" => value.as_f64().is_none_or(|number| number >= with.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|number| number <= with.as_f64().unwrap()),
        "minLength" => value.as_str().is_none_or(|text| text.len() >= count(with)),
        "pattern" => value.as_str().is_none_or(|text| matches(with, text)),
        "minItems" => value.as_array().is_none_or(|list| list.len() >= count(with)),
        // Ours have one alone, and `items` is for that one, too.
        "prefixItems" => value.get(0).is_none_or(|first| valid(first, &with[0], root)),
        "items" => value.as_array().is_none_or(|list| list.iter().all(|item| valid(item, with, root))),
        "properties" => value.as_object().is_none_or(|table| {
            table.iter().all(|(name, value)| with.get(name).is_none_or(|schema| valid(value, schema, root)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|table| {
            let known = |name: &str| schema["properties"].get(name).is_some();
            table.iter().all(|(name, value)| known(name) || with != &json!(false) && valid(value, with, root))
        }),
        "propertyNames" => {
            value.as_object().is_none_or(|table| table.keys().all(|name| valid(&json!(name), with, root)))
        }
        "required" => value
            .as_object()
            .is_none_or(|table| all(with).iter().all(|name| table.contains_key(name.as_str().unwrap()))),
        "dependentRequired" => value.as_object().is_none_or(|table| {
            let given = with.as_object().unwrap().iter().filter(|(name, _)| table.contains_key(*name));
            given.flat_map(|(_, needs)| all(needs)).all(|need| table.contains_key(need.as_str().unwrap()))
        }),
        "anyOf" => all(with).iter().any(|one| valid(value, one, root)),
        "oneOf" => all(with).iter().filter(|one| valid(value, one, root)).count() == 1,
        "not" => !valid(value, with, root),
        other => panic!("the test does not know {other}"),
    })
}

#[test]
fn the_schema_takes_what_is_good_and_refuses_what_is_bad_in_structure() {
    let schema = schema();
    for text in [EXAMPLE, EVERYTHING] {
        assert!(valid(&json(&tree::read(text).unwrap()), &schema, &schema), "{text}");
    }
    for (text, _, in_structure) in bad() {
        // What is no TOML is no JSON.
        let Ok(node) = tree::read(&text) else { continue };
        assert_eq!(valid(&json(&node), &schema, &schema), !in_structure, "{text}");
    }
}

#[test]
fn the_schema_takes_every_signal_and_duration_that_is_one() {
    let schema = schema();
    let mut signals: Vec<String> = Signal::names().map(String::from).collect();
    signals.extend(Signal::names().map(|name| format!("sig{}", name.to_lowercase())));
    signals.extend(["15", "RTMIN", "SIGRTMIN+3", "rtmax-1", "", "TREM", "SIG", "RTMIN-", "TERM "].map(String::from));
    let durations =
        ["0", "1.5", ".5", "30", "1h30m", "1h 30m", "500ms", "2 h", "7us", "7µs", "3ns", "2nanos", "2usec", "4min"];
    let more = ["1millis", "2secs", "1second", "2mins", "1hr", "2days", "1wk", "2M", "1month", "1y", "2yrs", " 5s "];
    let bad = ["", "x", "1x", "s", "1 2", "1h30", "-1s", "30 ss", "1.5.5s"];
    let cases = signals.iter().map(|signal| format!("signal = '{signal}'"));
    let times = durations.iter().chain(&more).chain(&bad).map(|time| format!("grace = '{time}'"));
    for stop in cases.chain(times) {
        let text = format!("[service.a]\ncommand = 'x'\nstop = {{ {stop} }}");
        assert_eq!(valid(&json(&tree::read(&text).unwrap()), &schema, &schema), read(&text).is_ok(), "{stop}");
    }
}

/// The README's table of keys.
fn table_of_keys() -> String {
    let rows = |keys: &[list::Described]| {
        let rows = keys.iter().map(|key| format!("| `{}` | {} | {} |\n", key.name, key.about, key.initial));
        "| key | meaning | default |\n|---|---|---|\n".to_string() + &rows.collect::<String>()
    };
    let [file, each] = list::described();
    format!("{}\nIn `[service.NAME]` and `[mount.NAME]`:\n\n{}", rows(&file), rows(&each))
}

#[test]
fn the_readme_has_every_key() {
    let readme = include_str!("../../README.md");
    let table = table_of_keys();
    assert!(readme.contains(&table), "put this into it:\n{table}");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"([a-z]{1,3}|service|mount|command|after|[\[\].="'{}, \n#0-9äµ]|.)*"#) {
        places_are_in(&text);
    }

    #[test]
    fn no_change_of_a_good_text_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, r#"[a-z]{0,3}|[\[\].="'{}, \n0-9-]{1,2}|."#), 1..6),
    ) {
        let mut text: Vec<char> = [EXAMPLE, EVERYTHING].concat().chars().collect();
        for (at, away, new) in changes {
            let at = at.index(text.len());
            let until = (at + away).min(text.len());
            text.splice(at..until, new.chars());
        }
        places_are_in(&text.into_iter().collect::<String>());
    }
}

fn places_are_in(text: &str) {
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in parse(text, &exports).err().unwrap_or_default() {
        let line = lines.get(problem.line - 1).unwrap_or_else(|| panic!("{problem}: {text:?}"));
        assert!((1..=line.chars().count() + 1).contains(&problem.column), "{problem}: {text:?}");
        assert!(!problem.text.contains(char::is_control), "{problem:?}");
    }
}

#[test]
fn a_long_chain_and_a_deep_value_are_no_danger() {
    use std::fmt::Write;
    let mut chain = String::new();
    for n in 0..20_000 {
        writeln!(chain, "[service.s{n}]\ncommand = 'x'\nafter.s{} = 'ready'", (n + 1) % 20_000).unwrap();
    }
    let problems = parse(&chain, &exports).unwrap_err();
    assert_eq!(problems.len(), 1, "one cycle");
    assert!(read(&format!("a = {}", "[".repeat(100_000))).is_err());
}
