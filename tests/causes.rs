//! Why something ended: each way provoked for real, each cause told right.

use std::{
    fs,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::*;

/// The record of a job that was started as `name`.
fn record(init: &Init, name: &str) -> Value {
    let output = init.ask(&["wait", "--json", name]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no record: {}", both(&output)))
}

fn start(init: &Init, name: &str, options: &[&str], command: &[&str]) -> i32 {
    let mut args = vec!["exec", "-d", "--name", name];
    args.extend(options);
    args.push("--");
    args.extend(command);
    init.must(&args);
    let jobs: Value = serde_json::from_str(&init.must(&["ps", "-a", "--json"])).unwrap();
    let of_name = jobs.as_array().unwrap().iter().find(|job| job["name"] == name).cloned();
    of_name.and_then(|job| job["pid"].as_i64()).unwrap_or(0) as i32
}

/// What a cause says of who did it.
fn by(cause: &Value) -> &str {
    cause["by"].as_str().unwrap_or_default()
}

#[test]
fn a_job_that_ends_by_itself_says_how() {
    let init = Init::start(As::Subreaper, &[]);
    let scratch = scratch();
    let script = scratch.path().join("script");
    fs::write(&script, "#!/no/such/interpreter -x\n").unwrap();
    run("chmod", &["+x", script.to_str().unwrap()]);
    let script = script.to_str().unwrap();
    let signal = |name: &str| json!({ "signal": name });
    let code = |code: u8| json!({ "code": code });
    let shell = |text: &'static str| vec!["sh", "-c", text];
    let failed = |what: &str, errno: i32| json!({ "kind": "exec_failed", "what": what, "errno": errno });
    let mut no_interpreter = failed(&format!("execute {script}"), 2);
    no_interpreter["interpreter"] = "/no/such/interpreter".into();
    for (name, options, command, exit, cause) in [
        ("zero", &[][..], vec!["true"], code(0), json!({ "kind": "exited" })),
        ("three", &[], shell("exit 3"), code(3), json!({ "kind": "exited" })),
        ("segv", &[], shell("kill -SEGV $$"), signal("SIGSEGV"), json!({ "kind": "fault" })),
        ("abrt", &[], shell("kill -ABRT $$"), signal("SIGABRT"), json!({ "kind": "fault" })),
        ("pipe", &[], shell("kill -PIPE $$"), signal("SIGPIPE"), json!({ "kind": "fault" })),
        ("kill", &[], shell("kill -KILL $$"), signal("SIGKILL"), json!({ "kind": "unknown" })),
        ("term", &[], shell("kill -TERM $$"), signal("SIGTERM"), json!({ "kind": "unknown" })),
        ("late", &["--timeout", "50ms"], vec!["sleep", "1000"], signal("SIGTERM"), json!({ "kind": "timeout" })),
        ("none", &[], vec!["no-such-command"], code(127), failed("execute no-such-command", 2)),
        ("file", &[], vec!["/etc/passwd"], code(126), failed("execute /etc/passwd", 13)),
        ("place", &["-w", "/no/such"], vec!["true"], code(126), failed("change to directory /no/such", 2)),
        ("script", &[], vec![script], code(127), no_interpreter),
    ] {
        let mut args = vec!["exec", "--keep", "--name", name];
        args.extend(options);
        args.push("--");
        args.extend(command);
        init.ask(&args);
        let record = record(&init, name);
        assert_eq!((&record["exit"], &record["cause"]), (&exit, &cause), "{name}");
        assert_eq!(record["name"], name);
    }
    let said = init.ask(&["exec", "--", script]);
    assert!(both(&said).contains("its interpreter /no/such/interpreter: no such file"), "{}", both(&said));
}

#[test]
fn a_job_that_is_ended_says_by_whom() {
    let init = Init::start(As::Subreaper, &["--max-jobs", "1"]);
    let me = fs::read_to_string("/proc/self/comm").unwrap();

    start(&init, "stopped", &[], &["sleep", "1000"]);
    start(&init, "queued", &[], &["true"]);
    init.must(&["stop", "queued"]);
    init.must(&["stop", "stopped"]);
    for name in ["queued", "stopped"] {
        let cause = record(&init, name)["cause"].clone();
        assert_eq!(cause["kind"], "stopped");
        let called = format!("called by {}", me.trim());
        assert!(by(&cause).starts_with("lastout stop (pid ") && by(&cause).contains(&called), "{cause}");
    }

    start(&init, "killed", &[], &["sleep", "1000"]);
    init.must(&["kill", "-s", "USR1", "killed"]);
    let cause = record(&init, "killed")["cause"].clone();
    assert_eq!((&cause["kind"], &cause["signal"]), (&"killed".into(), &"SIGUSR1".into()));
    assert!(by(&cause).starts_with("lastout kill (pid "), "{cause}");

    start(&init, "by-hand", &[], &["sleep", "1000"]);
    fs::write(init.control().join("control"), "stop by-hand # the night watch\n").unwrap();
    let record_of = record(&init, "by-hand");
    assert_eq!(record_of["cause"], json!({ "kind": "stopped", "by": "the night watch" }));
    assert_eq!(record_of["exit"], json!({ "signal": "SIGTERM" }));

    let mark = mark("client");
    let client = |name: &str| {
        let args = ["exec", "--name", name, "--", "sh", "-c", "echo up; exec sleep 1000", &mark];
        let mut client = init.client(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        assert_eq!(lines(client.stdout.take().unwrap()).recv_timeout(PATIENCE).unwrap(), "up");
        client
    };
    let mut passing_on = client("passed-on");
    run("kill", &["-INT", &passing_on.id().to_string()]);
    assert_eq!(status(wait(&mut passing_on)), 130);
    let cause = record(&init, "passed-on")["cause"].clone();
    assert!(cause["signal"] == "SIGINT" && by(&cause).starts_with("lastout exec (pid "), "{cause}");

    let mut gone = client("client-gone");
    gone.kill().unwrap();
    gone.wait().unwrap();
    assert_eq!(record(&init, "client-gone")["cause"], json!({ "kind": "client_gone" }));

    // Its keeper is the parent of its command.
    let pid = start(&init, "keeper-gone", &[], &["sleep", "1000"]);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    run("kill", &["-9", stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap()]);
    assert_eq!(record(&init, "keeper-gone")["cause"], json!({ "kind": "keeper_gone" }));

    let keeps = init.control().join("jobs");
    start(&init, "init-gone", &["--grace", "100ms"], &["sleep", "1000"]);
    run("kill", &["-9", &init.pid.to_string()]);
    let record = until("the record", || {
        let jobs = fs::read_dir(&keeps).unwrap().flatten();
        let records = jobs.filter_map(|job| fs::read_to_string(job.path().join("record.json")).ok());
        records.into_iter().find(|record| record.contains(r#""name":"init-gone""#))
    });
    assert!(record.contains(r#""cause":{"kind":"init_gone"}"#), "{record}");
}

/// Runs an init whose control directory stays; answers with the record of what is named when it has ended.
fn ends(role: As, args: &[&str], of: &str, end: impl FnOnce(&Init)) -> Value {
    let scratch = scratch();
    fs::create_dir(scratch.path().join("control")).unwrap();
    run("chmod", &["700", scratch.path().join("control").to_str().unwrap()]);
    let init = Init::start_in(scratch, role, args);
    if of != "main" {
        start(&init, "job", &[], &["sleep", "1000"]);
    }
    end(&init);
    let records = init.control().join("jobs");
    let find = || {
        let jobs = fs::read_dir(&records).unwrap().flatten();
        let parsed = jobs.filter_map(|job| fs::read(job.path().join("record.json")).ok());
        let mut parsed = parsed.filter_map(|json| serde_json::from_slice::<Value>(&json).ok());
        parsed.find(|record| record["job"] == of || record["name"] == of)
    };
    until("the record", find)
}

#[test]
fn a_shutdown_says_what_began_it() {
    let why = |record: Value| {
        assert_eq!(record["cause"]["kind"], "shutdown", "{record}");
        record["cause"]["why"].as_str().unwrap_or_default().to_string()
    };
    let asked = why(ends(As::Subreaper, &[], "job", |init| drop(init.must(&["shutdown"]))));
    assert!(asked.starts_with("asked by lastout shutdown (pid "), "{asked}");
    let by_hand = |init: &Init| fs::write(init.control().join("control"), "stop # enough\n").unwrap();
    assert_eq!(why(ends(As::Subreaper, &[], "job", by_hand)), "asked by enough");
    // A shell of the same namespace, which waits there to be looked at.
    let me = std::process::id();
    let mut sender = None;
    let inside = why(ends(As::Subreaper, &[], "job", |init| {
        let script = format!("kill -TERM {}; read line", init.pid);
        sender = Some(Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap());
    }));
    // The end of its input is its own.
    sender.take().unwrap().wait().unwrap();
    assert!(inside.starts_with("SIGTERM from pid ") && inside.ends_with("(sh, uid 0)") || !is_root(), "{inside} {me}");
    let fifo = scratch();
    let go = fifo.path().join("go");
    run("mkfifo", &[go.to_str().unwrap()]);
    let main = format!("read line < {}; exit 0", go.display());
    let args = ["--", "sh", "-c", &main];
    let ended = why(ends(As::Subreaper, &args, "job", |_| fs::write(&go, "go\n").unwrap()));
    assert_eq!(ended, "main has ended");
    if has("root") {
        let outside = why(ends(As::Pid1, &[], "job", |init| init.signal("TERM")));
        assert_eq!(outside, "SIGTERM from outside the namespace");
    }
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t0\t"))
}

#[test]
fn mains_end_says_whose_signal_it_was() {
    if !has("root") {
        return;
    }
    let main = ["--", "sleep", "1000"];
    let outside = ends(As::Pid1, &main, "main", |init| init.signal("TERM"));
    assert_eq!(outside["cause"], json!({ "kind": "signalled", "from": "outside" }));
    assert_eq!((&outside["exit"], &outside["command"]), (&json!({ "signal": "SIGTERM" }), &json!(["sleep", "1000"])));
    // A job of the namespace sends it, and stays to be seen.
    let inside = ends(As::Pid1, &main, "main", |init| {
        init.ask(&["exec", "--", "sh", "-c", "kill -USR1 1; sleep 1000"]);
    });
    let from = &inside["cause"]["from"]["process"];
    assert_eq!((&inside["cause"]["kind"], &from["comm"], &from["uid"]), (&"signalled".into(), &"sh".into(), &0.into()));
    let killed = ends(As::Pid1, &main, "main", |init| {
        let main = until("main", || children(init.pid).into_iter().find(|pid| name_of(*pid) == "sleep"));
        run("kill", &["-9", &main.to_string()]);
    });
    assert_eq!(killed["cause"], json!({ "kind": "unknown" }));
    let deaf = ["--stop-timeout", "100ms", "--", "sh", "-c", "trap '' TERM; sleep 1000"];
    let timeout = ends(As::Pid1, &deaf, "main", |init| init.signal("TERM"));
    assert_eq!((&timeout["cause"]["kind"], &timeout["exit"]["signal"]), (&"timeout".into(), &"SIGKILL".into()));
    let code =
        ends(As::Pid1, &["--", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.01; done"], "main", |init| {
            init.signal("TERM");
        });
    assert_eq!((&code["cause"]["kind"], &code["exit"]["code"]), (&"exited".into(), &3.into()));
}

fn name_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().into()
}

#[test]
fn a_record_counts_what_the_whole_tree_used() {
    let init = Init::start(As::Subreaper, &[]);
    // A daemon that escaped uses most of it: CPU, memory, reads and writes.
    let script = "(setsid perl -e 'my $x = \"x\" x 50_000_000; 1 while times < 0.2; \
                  open F, \"<\", \"/dev/zero\"; sysread F, $x, 3_000_000; open G, \">\", \"/dev/null\"; syswrite G, $x; \
                  open H, \">\", $ENV{DONE}' &); until [ -e $DONE ]; do sleep 0.01; done";
    let done = init.scratch.path().join("done");
    init.must(&["exec", "--name", "n", "-e", &format!("DONE={}", done.display()), "--", "sh", "-c", script]);
    let usage = record(&init, "n")["usage"].clone();
    let least = |key: &str, least: u64| assert!(usage[key].as_u64().unwrap() >= least, "{key}: {usage}");
    least("cpu_user_us", 100_000);
    least("max_rss_bytes", 50_000_000);
    least("read_chars", 3_000_000);
    least("written_chars", 3_000_000);
}

#[test]
fn events_tell_what_has_happened_and_go_on() {
    let init = Init::start(As::Subreaper, &[]);
    init.must(&["exec", "--name", "before", "--", "true"]);
    let mut follower = init.client(&["events", "-f", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let got = lines(follower.stdout.take().unwrap());
    let mut seen: Vec<Value> = Vec::new();
    let mut next = |event: &str, key: &str, value: &Value| loop {
        let entry: Value = serde_json::from_str(&got.recv_timeout(PATIENCE).expect("an event")).unwrap();
        seen.push(entry.clone());
        if entry["event"] == event && entry[key] == *value {
            return entry;
        }
    };
    next("ended", "name", &"before".into());
    init.ask(&["exec", "--name", "after", "--", "sh", "-c", "exit 4"]);
    next("started", "name", &"after".into());
    let ended = next("ended", "name", &"after".into());
    assert_eq!((&ended["exit"], &ended["cause"]), (&json!({ "code": 4 }), &json!({ "kind": "exited" })));
    init.signal("HUP");
    next("signal", "signal", &"SIGHUP".into());
    init.signal("TERM");
    next("stopping", "event", &"stopping".into());
    assert!(wait(&mut follower).success());
    let numbers: Vec<u64> = seen.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    assert_eq!(init.end().0, 0);
}

#[test]
fn a_heartbeat_tells_a_long_step_from_a_dead_one() {
    let init = Init::start(As::Subreaper, &[]);
    let go = init.scratch.path().join("go");
    let script = format!("echo up; while [ ! -e {} ]; do :; done", go.display());
    let args = ["exec", "--heartbeat", "100ms", "--", "sh", "-c", &script];
    let mut client = init.client(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let beats = lines(client.stderr.take().unwrap());
    let first = beats.recv_timeout(PATIENCE).unwrap();
    for part in ["j2: still running: 0s, cpu ", " MiB, 1 process, last output 0s ago"] {
        assert!(first.contains(part), "{first}");
    }
    beats.recv_timeout(PATIENCE).unwrap();
    fs::write(&go, "").unwrap();
    assert!(wait(&mut client).success());
    let bad = Command::new(LASTOUT).args(["exec", "--heartbeat", "1ms", "--", "true"]).output().unwrap();
    assert_eq!(bad.status.code(), Some(125));
}
