//! What does not depend on the machine's mood: instructions, system calls.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::{
    lab::{Lab, Role, find, quiet, scratch, term, time, wait_for, words},
    report::{Report, Row, single},
    support::{children, until},
};

/// Instructions in user space, in thousands, of all processes of a command.
fn counted(lab: &Lab, words: &[String]) -> f64 {
    let scratch = scratch();
    let out = format!("--callgrind-out-file={}/out.%p", scratch.path().display());
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--trace-children=yes", &out]).args(words).env_remove("LASTOUT_CONTROL");
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stderr);
    // `lastout exec` leaves the command to the keeper.
    let total = collected(&said);
    if said.matches("Command: ").count() > 1 { total - own(lab) } else { total }
}

fn collected(said: &str) -> f64 {
    said.lines().filter_map(|line| line.split_once("Collected : ")?.1.trim().parse::<f64>().ok()).sum::<f64>() / 1e3
}

/// What `true` itself takes is nobody's.
fn own(lab: &Lab) -> f64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", &lab.program("true")]);
    let output = command.output().unwrap();
    collected(&String::from_utf8_lossy(&output.stderr))
}

pub fn instructions(lab: &Lab) -> Vec<Row> {
    if find("valgrind").is_none() {
        return vec![Row::failed("instructions (no valgrind)")];
    }
    let scratch = scratch();
    let control = scratch.path().join("control");
    let mut start = Vec::new();
    for one in lab.contenders(false, "floor", &control) {
        let words = [one.words, vec![lab.program("true")]].concat();
        start.push(single(one.name, one.role, counted(lab, &words)));
    }
    let mut rows = vec![
        Row::new("instructions of `X -- true`", "thousand, without those of `true`", start.clone())
            .not_there(lab.missing()),
    ];
    // The init under callgrind, its clients not, and one client that is.
    const EXECS: usize = 20;
    let exec = [&lab.program("lastout"), "exec", "--wait", "30", "--control", control.to_str().unwrap(), "--"];
    let exec = words(&exec, &[&lab.program("true")]);
    let out = format!("--callgrind-out-file={}/out.%p", scratch.path().display());
    let init = ["valgrind", "--tool=callgrind", &out, &lab.program("lastout"), "--control", control.to_str().unwrap()];
    let log = scratch.path().join("log");
    let mut init = quiet(&words(&init, &[])).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let pid = init.id() as i32;
    time(&mut quiet(&exec));
    until("the keeper's end", || children(pid).is_empty().then_some(()));
    thread::sleep(Duration::from_millis(200));
    let dump = |number: u32| {
        time(&mut quiet(&words(&["callgrind_control", "--dump", &pid.to_string()], &[])));
        let file = scratch.path().join(format!("out.{pid}.{number}"));
        let text = until("a dump", || fs::read_to_string(&file).ok().filter(|text| text.contains("totals: ")));
        text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse::<f64>().ok()).unwrap() / 1e3
    };
    let before = dump(1);
    for _ in 0..EXECS {
        time(&mut quiet(&exec));
    }
    until("the keepers' end", || children(pid).is_empty().then_some(()));
    thread::sleep(Duration::from_millis(200));
    let in_init = dump(2) / EXECS as f64;
    // A keeper's count begins with what its init had counted until the fork.
    let said = fs::read_to_string(&log).unwrap();
    let keepers: Vec<f64> = said
        .lines()
        .filter_map(|line| line.split_once("Collected : ")?.1.trim().parse::<f64>().ok())
        .map(|count| count / 1e3)
        .collect();
    let own = keepers.iter().skip(1).zip(0..).map(|(count, n)| count - before - in_init * f64::from(n)).sum::<f64>();
    let in_keeper = own / (keepers.len() - 1) as f64;
    let in_client = counted(lab, &exec);
    term(pid);
    init.wait().unwrap();
    let mut values = vec![single("lastout", Role::Lastout, in_client + in_init + in_keeper)];
    values.extend(start.into_iter().filter(|value| value.role != Role::Lastout));
    let note = format!(
        "client {in_client:.0}, init {in_init:.0}, keeper with what the init does until its fork {in_keeper:.0}"
    );
    rows.push(Row::new("instructions of exec of `true`", "thousand, without those of `true`", values).note(note));
    rows
}

/// The calls of one exec, warm, of each process that takes part.
pub fn calls(lab: &Lab) -> Vec<Row> {
    if find("strace").is_none() {
        return vec![Row::failed("system calls of one exec (no strace)")];
    }
    let scratch = scratch();
    let control = scratch.path().join("control");
    let log = |name: &str| scratch.path().join(name);
    let strace = |name: &str, rest: &[&str]| {
        let log = log(name);
        let lastout = lab.program("lastout");
        words(&["strace", "-f", "-ttt", "-o", log.to_str().unwrap(), &lastout], rest)
    };
    let mut init = quiet(&strace("init", &["--control", control.to_str().unwrap()])).spawn().unwrap();
    for _ in 0..3 {
        wait_for(lab, &control);
    }
    let tracee = until("the init", || children(init.id() as i32).first().copied());
    until("the keepers' end", || children(tracee).is_empty().then_some(()));
    thread::sleep(Duration::from_millis(300));
    let begun = fs::metadata(log("init")).unwrap().len() as usize;
    let true_ = lab.program("true");
    time(&mut quiet(&strace("client", &["exec", "--control", control.to_str().unwrap(), "--", &true_])));
    until("the keeper's end", || children(tracee).is_empty().then_some(()));
    thread::sleep(Duration::from_millis(300));
    let text = fs::read_to_string(log("init")).unwrap();
    term(tracee);
    init.wait().unwrap();
    let mut table: BTreeMap<String, [u32; 4]> = BTreeMap::new();
    count(&fs::read_to_string(log("client")).unwrap(), &mut table, |_| Some(0));
    // Who is who: the init, its child (the keeper), and the keeper's child until it executes the command.
    let mut executed = false;
    let mut keeper = 0;
    count(&text[begun..], &mut table, |line| {
        let pid: i32 = line.split_whitespace().next()?.parse().ok()?;
        if pid == tracee {
            return Some(1);
        }
        if keeper == 0 || pid == keeper {
            keeper = pid;
            return Some(2);
        }
        let counts = !executed;
        executed |= line.contains("execve(");
        counts.then_some(3)
    });
    let totals = table.values().fold([0; 4], |sum: [u32; 4], one| std::array::from_fn(|n| sum[n] + one[n]));
    let mut lines = String::from("| call | client | init | keeper | command until its exec |\n|---|---|---|---|---|\n");
    let mut ordered: Vec<_> = table.into_iter().collect();
    ordered.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.iter().sum::<u32>()));
    let cell = |count: u32| if count == 0 { String::new() } else { count.to_string() };
    for (call, counts) in ordered.into_iter().chain([("all".to_string(), totals)]) {
        let cells: Vec<String> = counts.into_iter().map(cell).collect();
        writeln!(lines, "| {call} | {} |", cells.join(" | ")).unwrap();
    }
    let kept = Report::path().with_file_name("calls.md");
    fs::write(&kept, lines).unwrap();
    for name in ["init", "client"] {
        let _ = fs::copy(log(name), Report::path().with_file_name(format!("calls-{name}.strace")));
    }
    eprintln!("the system calls of one exec: {}", kept.display());
    let [client, in_init, keeper, command] = totals;
    let all = single("lastout", Role::Lastout, f64::from(client + in_init + keeper + command));
    let mut values = vec![all];
    for one in lab.contenders(false, "floor", Path::new("/")).into_iter().filter(|one| one.role != Role::Lastout) {
        let at = log(one.name);
        let first = words(&["strace", "-f", "-ttt", "-o", at.to_str().unwrap()], &[]);
        time(&mut quiet(&[first, one.words, vec![true_.clone()]].concat()));
        let mut calls = BTreeMap::new();
        count(&fs::read_to_string(at).unwrap(), &mut calls, |_| Some(0));
        values.push(single(one.name, one.role, f64::from(calls.values().map(|counts| counts[0]).sum::<u32>())));
    }
    let note =
        format!("client {client}, init {in_init}, keeper {keeper}, command {command}; the others with those of `true`");
    vec![Row::new("system calls of exec of `true`", "", values).note(note).not_there(lab.missing())]
}

/// Begun calls of a log, for whom `who` says. A call that is resumed has been counted.
fn count(log: &str, table: &mut BTreeMap<String, [u32; 4]>, mut who: impl FnMut(&str) -> Option<usize>) {
    for line in log.lines() {
        let Some((call, _)) = line.split_whitespace().nth(2).and_then(|rest| rest.split_once('(')) else { continue };
        if call.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && let Some(column) = who(line)
        {
            table.entry(call.into()).or_default()[column] += 1;
        }
    }
}
