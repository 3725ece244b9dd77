//! Who only waits does nothing.

use std::{
    fs,
    process::{Child, Stdio},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    lab::{Lab, Role, find, kill, number, quiet, scratch, words},
    measures::memory::{leave, sleeping_jobs},
    report::{Row, single},
    support::{As, Init, children},
};

pub(super) fn switches(pids: &[i32]) -> f64 {
    let of = |pid: &i32, name: &str| number(*pid, "status", name).unwrap_or(0.0);
    pids.iter().map(|pid| of(pid, "voluntary_ctxt_switches") + of(pid, "nonvoluntary_ctxt_switches")).sum()
}

/// System calls within `span`, begun after the tracer's own disturbance: attaching interrupts whatever waits.
pub(super) fn calls(pids: &[i32], span: Duration) -> f64 {
    let scratch = scratch();
    let log = scratch.path().join("log");
    let mut all = words(&["strace", "-f", "-ttt", "-o", log.to_str().unwrap()], &[]);
    all.extend(pids.iter().flat_map(|pid| ["-p".to_string(), pid.to_string()]));
    let mut strace = quiet(&all).stderr(Stdio::null()).spawn().unwrap();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    thread::sleep(Duration::from_millis(1000 + 10 * pids.len() as u64));
    let from = now();
    thread::sleep(span);
    let to = now();
    crate::lab::term(strace.id() as i32);
    strace.wait().unwrap();
    let text = fs::read_to_string(log).unwrap();
    let at = |line: &str| line.split_whitespace().nth(1)?.parse::<f64>().ok();
    text.lines().filter_map(at).filter(|at| (from..to).contains(at)).count() as f64
}

pub fn idle(lab: &Lab) -> Vec<Row> {
    let span = Duration::from_secs(if lab.quick { 10 } else { 60 });
    let (hold, busy) = (Init::start_in(scratch(), As::Subreaper, &[]), Init::start_in(scratch(), As::Subreaper, &[]));
    let mut keepers = sleeping_jobs(lab, &busy, 100);
    keepers.push(busy.pid);
    let peers: Vec<(&str, Child)> = lab
        .contenders(false, "", "/".as_ref())
        .into_iter()
        .filter(|one| one.role == Role::Peer)
        .map(|one| {
            let mut words = one.words;
            words.extend([lab.program("load"), "sleep".into()]);
            (one.name, quiet(&words).spawn().unwrap())
        })
        .collect();
    let mut groups = vec![("lastout", vec![hold.pid]), ("100 jobs", keepers)];
    groups.extend(peers.iter().map(|(name, child)| (*name, vec![child.id() as i32])));
    // All of them through the same seconds.
    thread::sleep(Duration::from_secs(1));
    let before: Vec<f64> = groups.iter().map(|(_, pids)| switches(pids)).collect();
    thread::sleep(span);
    let switched: Vec<f64> = groups.iter().zip(before).map(|((_, pids), before)| switches(pids) - before).collect();
    let called: Vec<f64> = match find("strace") {
        None => Vec::new(),
        Some(_) => thread::scope(|scope| {
            let all: Vec<_> = groups.iter().map(|(_, pids)| scope.spawn(|| calls(pids, span))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        }),
    };
    for (_, mut child) in peers {
        children(child.id() as i32).into_iter().for_each(kill);
        let _ = child.wait();
    }
    leave(busy);
    let rows = |what: &str, counted: &[f64]| -> Vec<Row> {
        let row = |title: String, which: &str| {
            let role = |name: &str| if name == "100 jobs" || name == "lastout" { Role::Lastout } else { Role::Peer };
            let is = |name: &str| name == which || (which == "lastout" && role(name) == Role::Peer);
            let values = groups.iter().zip(counted).filter(|((name, _), _)| is(name));
            let values = values.map(|((name, _), count)| single(name, role(name), *count)).collect();
            Row::new(title, "", values).target("0", |row| Some((row.values.first()?.median == 0.0).into()))
        };
        let seconds = span.as_secs();
        vec![
            row(format!("idle: {what} in {seconds} s, holding"), "lastout").not_there(lab.missing()),
            row(format!("idle: {what} in {seconds} s, PID 1 and keepers of 100 sleeping jobs"), "100 jobs"),
        ]
    };
    let mut all = rows("context switches", &switched);
    match called.is_empty() {
        true => all.push(Row::failed("idle: system calls (no strace)")),
        false => all.extend(rows("system calls", &called)),
    }
    all
}
