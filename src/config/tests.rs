use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::service::{
    Backoff, Check, Condition, Format, Health, Limits, Log, Ready, Restart, RunConfig, ServiceConfig, Sink, Stop,
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

fn exports(name: &str) -> Option<String> {
    Some(if name == "cpus" { "8".into() } else { "1024".into() })
}

fn read(text: &str) -> Result<ServicesConfig, Vec<String>> {
    parse(text, &exports).map_err(|problems| problems.iter().map(Problem::to_string).collect())
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
        run: RunConfig {
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
            stop: Stop { signal: "TERM".parse().unwrap(), grace: None },
            log: Log::default(),
            limits: Limits::default(),
        },
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
    ray.run.setup = vec![
        shell("mkdir -p /home/ray/.ssh"),
        ["gcloud", "config", "set", "project", "x y"].map(String::from).to_vec(),
    ];
    ray.run.ready = Ready::Notify;
    ray.run.start_timeout = Some(seconds(90));
    ray.run.health =
        Some(Health { start_period: seconds(60), ..health(Check::Command(words("ray status"))) });
    ray.run.stop.grace = Some(seconds(30));
    ray.run.env = vec![("RAY_BACKEND_LOG_LEVEL".into(), "warning".into())];
    ray.run.log.sink = Sink::File { path: "/var/log/ray.log".into(), max: 50_000_000, keep: 5 };

    let mut gcs = plain("gcs", words("gcsfuse --foreground --implicit-dirs bucket /opt/gcs"));
    gcs.run.mount = Some("/opt/gcs".into());
    gcs.run.ready = Ready::Mounted;
    gcs.run.start_timeout = Some(seconds(90));

    let mut container = plain("container", words("docker run --rm --name worker --net=host image"));
    container.run.setup = vec![shell("docker rm -f worker || true")];
    container.run.health = Some(health(Check::Command(words("docker exec worker lastout ps"))));

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
    let text = r#"
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
        stop = { signal = 3, grace = 0 }
        log = { format = "json" }
        user = 1000
        group = "docker"
        on_failure = "alert"
        on_restart = ["alert", "restart"]
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
    let mut a = plain("a", shell("exec a"));
    let after = [("b", Condition::Succeeded), ("c", Condition::Healthy), ("m", Condition::Started)];
    a.after = after.into_iter().map(|(name, condition)| (name.parse().unwrap(), condition)).collect();
    a.restart = Restart::Never;
    let half = Duration::from_millis(500);
    a.backoff = Backoff { initial: half, max: half, factor: 1.0, jitter: 1.0, reset_after: seconds(0) };
    a.retries = 7;
    a.on_failure = Some(shell("alert"));
    a.on_restart = Some(words("alert restart"));
    a.run.setup_timeout = Duration::MAX;
    a.run.cwd = Some("relative".into());
    a.run.env = vec![("EMPTY".into(), String::new())];
    a.run.ready = Ready::Fd;
    a.run.watchdog = Some(seconds(20));
    a.run.stop = Stop { signal: "QUIT".parse().unwrap(), grace: Some(seconds(0)) };
    a.run.log = Log { sink: Sink::Inherit, format: Format::Json };
    a.run.limits = Limits {
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
    c.run.ready = Ready::Healthy;
    c.run.health = Some(health(Check::Http { host: "::1".into(), port: 8080, path: "/ready?x=1".into() }));
    let mut m = plain("m", words("m"));
    m.run.mount = Some("/opt/gcs".into());
    m.run.ready = Ready::Mounted;
    m.run.start_timeout = Some(seconds(90));
    m.run.health =
        Some(Health { start_period: seconds(5), ..health(Check::Tcp { host: "localhost".into(), port: 22 }) });
    let expected = ServicesConfig {
        grace: Some(Duration::from_millis(1500)),
        stop_timeout: Some(seconds(60)),
        services: vec![a, b, c, m],
        ..ServicesConfig::default()
    };
    assert_eq!(read(text), Ok(expected));
}

#[test]
fn nothing_is_a_configuration() {
    for text in ["", "# nothing", "[service]\n", "\u{feff}grace = 1\n[mount]"] {
        assert!(read(text).is_ok(), "{text}");
    }
}

#[test]
fn probe() {
    for (text, _) in BAD {
        println!("{text}\n    {:?}", read(text).err());
    }
}

const BAD: &[(&str, &[&str])] = &[
    // Syntax: TOML's own, and nothing else.
    ("grace = \ncomand = 1", &[]),
    ("[service.a\nx = 1\nb = = 2", &[]),
    ("a = 1\na = 2", &[]),
    ("n = 99999999999999999999", &[]),
    // Unknown keys.
    ("gracee = 1\n[service.a]\ncomand = 'x'\nrestrat = 'x'\nxyzzy = 1", &[]),
    ("[services.a]\ncommand = 'x'", &[]),
    ("service = { a = { command = 'x', path = '/x', limits = { nofiles = 1, user = 'x' }, depends_on = ['b'] } }", &[]),
    ("[mount.m]\ncommand = 'x'\npath = '/m'\nready = 'notify'", &[]),
    // Types.
    ("grace = [1]\nmax_jobs = '4'\nservice = 1\nexport = 'x'\nmount = { a = 1 }", &[]),
    ("[service.a]\ncommand = 1\nsetup = 'x'\nenv = { A = 1 }\nafter = ['b']\ncritical = 'yes'\nretries = '1'\nrestart = true\nhealth = 1\nlog = 2\nstop = 'TERM'\nlimits = []\nuser = 1.5\nready = []\nwatchdog = 1979-05-27", &[]),
    ("[[service.a]]\ncommand = 'x'", &[]),
    ("[service.a]\ncommand = ['x', 1, ['y']]\nsetup = [1, ['a', 2]]", &[]),
    // Values.
    ("grace = '10 parsecs'\nstop_timeout = -1\nmax_jobs = 0", &[]),
    ("grace = nan\nstop_timeout = inf", &[]),
    ("[service.a]\ncommand = ''\nsetup = [[], '', ['']]\ncwd = ''\nenv = { 'A=B' = 'x', '' = 'y', C = \"a\\u0000b\" }", &[]),
    ("[service.a]\ncommand = 'x'\nrestart = 'on-failre'\nready = 'mounted'\nstop = { signal = 'TREM' }\nretries = -1\nwatchdog = 0", &[]),
    ("[service.a]\ncommand = 'x'\nstop = { signal = 'KILL' }\nuser = 'a:b'\ngroup = -1\n[service.b]\ncommand = 'x'\nstop = { signal = 'STOP' }\nuser = 4294967295", &[]),
    ("[service.a]\ncommand = 'x'\nbackoff = { initial = '2m', factor = 0.5, jitter = 1.5, max = '1m' }", &[]),
    ("[service.a]\ncommand = 'x'\nbackoff.initial = '2m'\n[service.b]\ncommand = 'x'\nbackoff.max = 0.1", &[]),
    ("[service.a]\ncommand = 'x'\nlimits = { nofile = 1, core = '5XB', as = -1, nice = 20, oom_score_adj = -1001, memory = 4, cpus = 0, pids = 0 }", &[]),
    ("[service.a]\ncommand = 'x'\nlimits = { nofile = 1.5, memory = '512m', cpus = '2', core = '1.2.3GB' }", &[]),
    ("[service.a]\ncommand = 'x'\nlog = { file = 'ray.log', max = 10, keep = -1, format = 'jsn' }", &[]),
    ("[service.a]\ncommand = 'x'\nlog = { max = '50MB' }\n[service.b]\ncommand = 'x'\nlog = '/var/log/x'", &[]),
    ("[service.a]\ncommand = 'x'\nlog = { file = '/l/a' }\n[service.b]\ncommand = 'x'\nlog = { file = '/l//a' }", &[]),
    ("[mount.a]\ncommand = 'x'\npath = 'opt'\n[mount.b]\ncommand = 'x'\npath = '/a/../b'\n[mount.c]\ncommand = 'x'\npath = '/.'", &[]),
    ("[mount.a]\ncommand = 'x'\npath = '/a'\n[mount.b]\ncommand = 'x'\npath = '/a/'", &[]),
    // Health checks.
    ("[service.a]\ncommand = 'x'\nhealth = {}\n[service.b]\ncommand = 'x'\nhealth = { command = 'x', url = 'tcp://a:1' }", &[]),
    ("[service.a]\ncommand = 'x'\nhealth = 'ray status'\n[service.b]\ncommand = 'x'\nhealth = 'https://a/b'\n[service.c]\ncommand = 'x'\nhealth = { http = 'http://a', retries = 0, every = 0, timeout = 0 }", &[]),
    // Names.
    ("[service.'a b']\ncommand = 'x'\n[service.main]\ncommand = 'x'\n[service.j1]\ncommand = 'x'", &[]),
    ("[service.a]\ncommand = 'x'\n[mount.a]\ncommand = 'x'\npath = '/a'", &[]),
    ("[service.ray]\n[mount.gcs]\n", &[]),
    // What comes after what.
    ("[service.ray]\ncommand = 'x'\nafter = { gsc = 'ready', xyzzy = 'ready' }\n[mount.gcs]\ncommand = 'x'\npath = '/g'", &[]),
    ("[service.a]\ncommand = 'x'\nafter = { a = 'ready' }", &[]),
    ("[service.a]\ncommand = 'x'\nafter = { b = 'ready' }\n[service.b]\ncommand = 'x'\nafter.c = 'ready'\n[service.c]\ncommand = 'x'\nafter = { a = 'started', b = 'started' }\ngrace = 1", &[]),
    ("[service.a]\ncommand = 'x'\nafter = { b = 'healthy', c = 'succeeded', m = 'succeeded', d = 'redy' }\nready = 'healthy'\n[service.b]\ncommand = 'x'\n[service.c]\ncommand = 'x'\nrestart = 'always'\n[mount.m]\ncommand = 'x'\npath = '/m'\n[service.d]\ncommand = 'x'", &[]),
    // A broken one is there, nevertheless.
    ("[service.a]\ncommand = 'x'\nafter = { b = 'healthy', 'x y' = 'ready' }\n[service]\nb = 1", &[]),
    // Placeholders.
    ("export = { A = '{cpu}', B = '{', C = '}', D = '{{cpus}}', E = 'a{memory}b', F = '{{}' }", &[]),
    // Columns are characters.
    ("[service.a]\ncommand = ['ä', 'ö', 1]\n", &[]),
    ("[service.a]\ncommand = ['x']\n'a\\nb' = 1\n", &[]),
];
