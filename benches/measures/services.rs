//! Services beside s6, runit and supervisor, each configured to be as quick as it allows.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Read,
    os::{
        fd::AsFd,
        unix::fs::{OpenOptionsExt, symlink},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Child, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::{Pid, mkfifo},
};

use super::idle::{calls, switches};
use crate::{
    lab::{Lab, Role, Turn, find, in_turns, monotonic, ms, number, quiet, scratch, words},
    report::{Met, Row, Value, single, summary},
    support::{PATIENCE, children},
};

pub const START: &str = "100 services: from the start until all run";
pub const RESTART: &str = "... a service killed after it has been up for seconds: until its successor runs";
pub const MEMORY: &str = "... memory of all supervising processes";
pub const STOP: &str = "... stop of all, in the tool's orderly way";

const COUNT: usize = 100;
/// Longer than any of them calls a quick death.
const UP: Duration = Duration::from_millis(2500);

/// Who supervises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tool {
    Lastout,
    S6,
    Runit,
    Supervisor,
}

const ALL: [Tool; 4] = [Tool::Lastout, Tool::S6, Tool::Runit, Tool::Supervisor];

/// What each is told, and the least pause that is built into it.
const CONFIGURED: &str = "backoff of lastout from 0 for a service that was up for 1 s; nothing to configure in \
                          s6, 1 s before each restart, and in runit, 1 s between two starts, so none here; supervisor \
                          startsecs=0, autorestart=true: it looks once a second";

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Tool::Lastout => "lastout",
            Tool::S6 => "s6",
            Tool::Runit => "runit",
            Tool::Supervisor => "supervisor",
        }
    }

    fn role(self) -> Role {
        match self {
            Tool::Lastout => Role::Lastout,
            Tool::S6 | Tool::Runit | Tool::Supervisor => Role::Peer,
        }
    }

    /// Its program, without lastout, which is there.
    fn program(self) -> Option<&'static str> {
        match self {
            Tool::Lastout => None,
            Tool::S6 => Some("s6-svscan"),
            Tool::Runit => Some("runsvdir"),
            Tool::Supervisor => Some("supervisord"),
        }
    }

    /// Whether it is there and keeps two services up: one that cannot, here, is not to cost the others their row.
    fn works(self, lab: &Lab) -> bool {
        let there = self.program().is_none_or(|program| find(program).is_some());
        there && catch_unwind(AssertUnwindSafe(|| Tree::start(lab, self, 2).stop())).is_ok()
    }

    /// What it ends everything on: runsvdir would leave its services on SIGTERM.
    fn end(self) -> Signal {
        if self == Tool::Runit { Signal::SIGHUP } else { Signal::SIGTERM }
    }

    /// Writes what it reads, for so many services. Answers with how it is called.
    fn configure(self, lab: &Lab, at: &Path, count: usize) -> Vec<String> {
        let service = lab.program("service");
        let file = |name: &str| at.join(name).to_str().unwrap().to_string();
        match self {
            Tool::Lastout => {
                let one = |number| {
                    format!(
                        "[service.s{number}]\ncommand = [\"{service}\"]\nrestart = \"always\"\n\
                         backoff = {{ initial = \"0s\", reset_after = \"1s\" }}\n"
                    )
                };
                fs::write(at.join("lastout.toml"), (0..count).map(one).collect::<String>()).unwrap();
                words(&[&lab.program("lastout"), "--config", &file("lastout.toml"), "--control", &file("control")], &[])
            }
            Tool::S6 | Tool::Runit => {
                for number in 0..count {
                    let directory = at.join(format!("services/s{number}"));
                    fs::create_dir_all(&directory).unwrap();
                    symlink(&service, directory.join("run")).unwrap();
                }
                words(&[self.program().unwrap()], &[&file("services")])
            }
            Tool::Supervisor => {
                let head = format!(
                    "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={}\nuser=root\n",
                    file("pid")
                );
                let one = |number| {
                    format!(
                        "[program:s{number}]\ncommand={service}\nstartsecs=0\nautorestart=true\nstdout_logfile=NONE\n\
                         stderr_logfile=NONE\n"
                    )
                };
                fs::write(at.join("conf"), head + &(0..count).map(one).collect::<String>()).unwrap();
                words(&["supervisord", "--nodaemon", "--configuration", &file("conf")], &[])
            }
        }
    }
}

/// A tool with its services, which all run.
struct Tree {
    tool: Tool,
    child: Child,
    /// Every supervising process has it.
    stdout: ChildStdout,
    /// Where services say that they run. Each keeps it open.
    up: File,
    services: Vec<i32>,
    took: f64,
    _scratch: tempfile::TempDir,
}

impl Tree {
    fn start(lab: &Lab, tool: Tool, count: usize) -> Tree {
        let scratch = scratch();
        let fifo = scratch.path().join("up");
        mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let up = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).unwrap();
        let mut command = quiet(&tool.configure(lab, scratch.path(), count));
        command.env("BENCH_UP", &fifo).stdout(Stdio::piped());
        let start = monotonic();
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut tree = Tree { tool, child, stdout, up, services: Vec::new(), took: 0.0, _scratch: scratch };
        let said = tree.heard(count);
        tree.services = said.iter().map(|(pid, _)| *pid).collect();
        tree.took = (said.iter().map(|(_, at)| *at).max().unwrap() - start) as f64 / 1e6;
        tree
    }

    /// The next so many that say that they run: who, and when.
    fn heard(&mut self, count: usize) -> Vec<(i32, i64)> {
        let deadline = Instant::now() + PATIENCE;
        let mut text = String::new();
        while text.matches('\n').count() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{}: waited in vain for services", self.tool.name());
            let mut wait = [PollFd::new(self.up.as_fd(), PollFlags::POLLIN)];
            poll(&mut wait, PollTimeout::try_from(left).unwrap()).unwrap();
            // One line at a time may come: they are written whole.
            let mut buffer = [0; 4096];
            match self.up.read(&mut buffer) {
                Ok(count) => text += std::str::from_utf8(&buffer[..count]).unwrap(),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
        let pair = |line: &str| line.split_once(' ').map(|(pid, at)| (pid.parse().unwrap(), at.parse().unwrap()));
        text.lines().filter_map(pair).collect()
    }

    /// From a service's SIGKILL until its successor runs.
    fn restart(&mut self) -> f64 {
        let victim = self.services.remove(0);
        let killed = monotonic();
        kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
        let (pid, at) = self.heard(1)[0];
        self.services.push(pid);
        (at - killed) as f64 / 1e6
    }

    /// All processes but the services.
    fn supervising(&self) -> Vec<i32> {
        let services: BTreeSet<i32> = self.services.iter().copied().collect();
        let mut found = vec![self.child.id() as i32];
        let mut next = 0;
        while let Some(pid) = found.get(next) {
            found.extend(children(*pid).into_iter().filter(|child| !services.contains(child)));
            next += 1;
        }
        found
    }

    /// In kB.
    fn memory(&self, what: &str) -> f64 {
        self.supervising().iter().map(|pid| number(*pid, "smaps_rollup", what).expect("smaps_rollup")).sum()
    }

    /// From the signal until neither a supervising process nor a service is left.
    fn stop(&mut self) -> f64 {
        let start = Instant::now();
        kill(Pid::from_raw(self.child.id() as i32), self.tool.end()).unwrap();
        self.child.wait().unwrap();
        let mut left = Vec::new();
        self.stdout.read_to_end(&mut left).unwrap();
        let deadline = start + PATIENCE;
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            assert!(!wait.is_zero(), "{}: services are left", self.tool.name());
            let mut all = [PollFd::new(self.up.as_fd(), PollFlags::POLLIN)];
            poll(&mut all, PollTimeout::try_from(wait).unwrap()).unwrap();
            if matches!(self.up.read(&mut [0; 4096]), Ok(0)) {
                return ms(start);
            }
        }
    }
}

impl Drop for Tree {
    /// What is no longer needed, and what a failed measurement leaves.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Supervisors first, from the top.
            self.supervising().into_iter().chain(self.services.iter().copied()).for_each(crate::lab::kill);
            let _ = self.child.wait();
        }
    }
}

/// Ahead of every peer that is there.
fn ahead(row: Row) -> Row {
    row.target("ahead of each", |row| {
        let peers = row.values.iter().filter(|value| value.role == Role::Peer);
        let met: Vec<Met> = peers.filter_map(|peer| row.at_most(1.0, &peer.name)).collect();
        [Met::No, Met::WithinNoise, Met::Yes].into_iter().find(|one| met.contains(one))
    })
}

pub fn services(lab: &Lab) -> Vec<Row> {
    let (there, missing): (Vec<Tool>, Vec<Tool>) = ALL.into_iter().partition(|tool| tool.works(lab));
    let missing: Vec<String> = missing.into_iter().map(|tool| tool.name().to_string()).collect();
    let mut rows = start_and_stop(lab, &there);
    let stop = rows.pop().unwrap();
    rows.extend(standing(lab, &there));
    rows.push(stop);
    rows = rows.into_iter().map(|row| row.not_there(missing.clone())).collect();
    rows.extend(many(lab));
    rows
}

fn start_and_stop(lab: &Lab, there: &[Tool]) -> Vec<Row> {
    let mut stopped = vec![Vec::new(); there.len()];
    let turns = there.iter().zip(&mut stopped).map(|(tool, stopped)| {
        Turn::new(tool.name(), tool.role(), || {
            let mut tree = Tree::start(lab, *tool, COUNT);
            let took = tree.took;
            // What it does after the start is no part of the stop.
            thread::sleep(Duration::from_millis(500));
            stopped.push(tree.stop());
            took
        })
    });
    let started = in_turns(lab.rounds(15, 4), turns.collect());
    // The round that does not count.
    let stopped = there.iter().zip(stopped).map(|(tool, taken)| summary(tool.name(), tool.role(), taken[1..].into()));
    let stop = Row::new(STOP, "ms", stopped.collect());
    vec![
        ahead(Row::new(START, "ms", started)),
        ahead(stop).note("SIGTERM, for runsvdir SIGHUP; until no process of it and no service is left"),
    ]
}

/// What they need and do while all services run: all trees at the same time.
fn standing(lab: &Lab, there: &[Tool]) -> Vec<Row> {
    let few = 10;
    let growth = |what: &str, trees: &[Tree], less: &[Vec<f64>], at: usize| -> Vec<Value> {
        let each = |(tree, less): (&Tree, &Vec<f64>)| (tree.memory(what) - less[at]) / (COUNT - few) as f64;
        let values = trees.iter().zip(less).map(|both| (both.0, each(both)));
        values.map(|(tree, each)| single(tree.tool.name(), tree.tool.role(), each)).collect()
    };
    // What the machine has less of is the first; the other counts what forks share once for each of them.
    const KINDS: [(&str, &str); 2] = [("Pss", "kB PSS"), ("Anonymous", "kB anonymous")];
    let less: Vec<Vec<f64>> = there
        .iter()
        .map(|tool| {
            let tree = Tree::start(lab, *tool, few);
            let memory = KINDS.map(|(what, _)| tree.memory(what)).into();
            drop(tree);
            memory
        })
        .collect();
    let mut trees: Vec<Tree> = there.iter().map(|tool| Tree::start(lab, *tool, COUNT)).collect();
    thread::sleep(UP);
    let mut memory = Vec::new();
    for (at, (what, unit)) in KINDS.into_iter().enumerate() {
        let all = trees.iter().map(|tree| single(tree.tool.name(), tree.tool.role(), tree.memory(what)));
        let all = Row::new(MEMORY, unit, all.collect());
        memory.push(if what == "Pss" { ahead(all) } else { all });
        let each = Row::new("... for each further service", unit, growth(what, &trees, &less, at));
        memory.push(each.note("from 10 to 100 services"));
    }
    let idle = idle(lab, &trees);
    let turns = trees.iter_mut().map(|tree| Turn::new(tree.tool.name(), tree.tool.role(), || tree.restart()));
    let values = in_turns(lab.rounds(40, 10), turns.collect());
    let restart = ahead(Row::new(RESTART, "ms", values).note(CONFIGURED));
    [vec![restart], memory, idle.into_iter().map(ahead).collect()].concat()
}

fn idle(lab: &Lab, trees: &[Tree]) -> Vec<Row> {
    let span = Duration::from_secs(if lab.quick { 10 } else { 30 });
    let groups: Vec<Vec<i32>> = trees.iter().map(Tree::supervising).collect();
    let before: Vec<f64> = groups.iter().map(|pids| switches(pids)).collect();
    thread::sleep(span);
    let switched: Vec<f64> = groups.iter().zip(before).map(|(pids, before)| switches(pids) - before).collect();
    let row = |what: &str, counted: Vec<f64>| {
        let values = trees.iter().zip(counted);
        let values = values.map(|(tree, count)| single(tree.tool.name(), tree.tool.role(), count)).collect();
        Row::new(format!("... idle: {what} of all supervising processes in {} s", span.as_secs()), "", values)
    };
    let mut rows = vec![row("context switches", switched)];
    if find("strace").is_some() {
        let called = thread::scope(|scope| {
            let all: Vec<_> = groups.iter().map(|pids| scope.spawn(|| calls(pids, span))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        rows.push(row("system calls", called));
    }
    rows
}

/// Five times as many in one lastout.
fn many(lab: &Lab) -> Vec<Row> {
    const COUNT: usize = 500;
    let own = |taken: Vec<f64>| vec![summary("lastout", Role::Lastout, taken)];
    let (mut started, mut stopped, mut memory, mut idle) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let span = Duration::from_secs(if lab.quick { 10 } else { 30 });
    for round in 0..lab.rounds(5, 3) {
        let mut tree = Tree::start(lab, Tool::Lastout, COUNT);
        started.push(tree.took);
        thread::sleep(Duration::from_secs(1));
        if round == 0 {
            let all = tree.supervising();
            memory.push(tree.memory("Anonymous") / COUNT as f64);
            memory.push(tree.memory("Pss") / COUNT as f64);
            let before = switches(&all);
            thread::sleep(span);
            idle.push(switches(&all) - before);
        }
        stopped.push(tree.stop());
    }
    let none = |row: &Row| Some((row.values[0].median == 0.0).into());
    let title = format!("... idle: context switches of all supervising processes in {} s", span.as_secs());
    vec![
        Row::new("500 services in one lastout: from the start until all run", "ms", own(started)),
        Row::new("... memory for each, the init's with it", "kB anonymous", own(vec![memory[0]]))
            .note(format!("{:.0} kB PSS", memory[1])),
        Row::new(title, "", own(idle)).target("0", none),
        Row::new("... stop of all 500", "ms", own(stopped)),
    ]
}
