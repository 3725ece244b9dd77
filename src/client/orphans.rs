//! `lastout orphans`: processes that belong to no live job or main any more.
//!
//! Two kinds. Below an init that lives: its children that are neither main nor a keeper nor a helper, and all below
//! them; while main lives, its own orphans are main's, so only those count that carry a job's mark. And those that carry
//! the marks of an init that lives no more, and are below none that does. Nothing else is ever touched: a process
//! that carries `LASTOUT_CONTROL` alone may be anybody's shell.

use std::{
    ffi::OsStr,
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf, absolute},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::{Outcome, Target, found::Found, text::short};
use crate::{
    base::{Errno, Map, Pid, ProcId, Process, Set, Signal, Whom, plain},
    core::{Ending, STUCK_AFTER},
    inspect::{self, Clocks, Looker, Unseen, Wait},
    proto::{files, place},
    sys::{
        clock,
        dir::{Access, Dir},
        errno, pidfd, process,
    },
};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Orphans {
    /// One control directory; without it every one.
    pub target: Target,
    /// End them.
    pub kill: bool,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// As JSON.
    pub json: bool,
}

/// One look at one process's environment, and all of them.
const LOOK: Duration = Duration::from_millis(300);
const LOOKS: Duration = Duration::from_secs(5);
/// Between two looks at what is ending: they are not our children, so nothing tells us.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What was born while we looked is found the next time; so often we look again.
const ROUNDS: usize = 3;
/// A tree is not deeper.
const DEEPEST: usize = 10_000;
const WIDTH: usize = 80;

/// One orphan.
#[derive(Clone, Debug, Serialize)]
struct Orphan {
    #[serde(flatten)]
    process: Process,
    /// The control directory of its init.
    control: String,
    /// The job that it was of; none for what is only an init's child.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    /// Whether that init lives.
    init_lives: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct Answer {
    orphans: Vec<Orphan>,
    /// Those of them that are there now.
    left: Vec<Pid>,
    /// Those that SIGKILL has not ended, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stuck: Vec<Wait>,
    unseen: Vec<Unseen>,
}

/// Lists them, or ends them. Answers 0 if there are none (any more).
pub fn orphans(orphans: &Orphans) -> Outcome {
    let mut found = find(&orphans.target)?;
    if orphans.kill {
        for _ in 0..ROUNDS {
            if found.left.is_empty() {
                break;
            }
            let ids = found.orphans.iter().map(|orphan| orphan.process.id).collect();
            let stuck = end(ids, orphans.grace);
            let again = find(&orphans.target)?;
            found.left = again.left;
            found.stuck = explained(&stuck);
            let news = again.orphans.into_iter().filter(|new| !stuck.contains(&new.process.id));
            let known: Set<ProcId> = found.orphans.iter().map(|orphan| orphan.process.id).collect();
            let news: Vec<Orphan> = news.filter(|new| !known.contains(&new.process.id)).collect();
            if news.is_empty() {
                break;
            }
            found.orphans.extend(news);
        }
    }
    print(orphans, &found)?;
    Ok(u8::from(!found.left.is_empty()))
}

fn print(orphans: &Orphans, found: &Answer) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if orphans.json {
        return writeln!(out, "{}", serde_json::to_string(found)?).context("cannot write");
    }
    let mut text = String::new();
    if !found.orphans.is_empty() {
        text += &format!("{:>7} {:<8} S COMMAND\n", "PID", "JOB");
    }
    let mut control = None;
    for orphan in &found.orphans {
        if control != Some((&orphan.control, orphan.init_lives)) {
            control = Some((&orphan.control, orphan.init_lives));
            let lives = if orphan.init_lives { "lives" } else { "has gone" };
            text += &format!("{}: its init {lives}\n", plain(&orphan.control));
        }
        let command = plain(orphan.command.as_deref().unwrap_or(&orphan.process.comm));
        let job = orphan.job.as_deref().unwrap_or("-");
        let line =
            format!("{:>7} {:<8} {} {command}", orphan.process.id.pid, short(&plain(job), 8), orphan.process.state);
        text += &format!("{}\n", short(&line, WIDTH));
    }
    out.write_all(text.as_bytes()).context("cannot write")?;
    for wait in &found.stuck {
        eprintln!("lastout orphans: SIGKILL has not ended it: {wait}");
    }
    if let Some(first) = found.unseen.first() {
        let count = found.unseen.len();
        let noun = if count == 1 { "process" } else { "processes" };
        eprintln!(
            "lastout orphans: cannot inspect {count} {noun}, the first is pid {} ({}): {}",
            first.pid, first.comm, first.why
        );
    }
    Ok(())
}

/// The marks of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Marks {
    control: Option<PathBuf>,
    job: Option<String>,
    /// Whether an init lives there, as far as the process's own view of the files tells.
    init: Lives,
    /// Why it could not be seen.
    unseen: Option<Unseen>,
}

/// Whether an init lives in a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Lives {
    /// Certainly not.
    No,
    /// Yes, and it can be seen here, with all that is its own below it.
    Here,
    /// Yes, or who knows.
    Perhaps,
}

fn find(target: &Target) -> anyhow::Result<Answer> {
    let found = Found::find(target);
    if found.silent {
        bail!("{}: nobody can tell what belongs to it", found.problem.unwrap_or_default());
    }
    let mut all = inspect::everything().context("there is no usable /proc")?;
    all.retain(|process| !process.is_dead());
    let tree = Tree::of(&all);
    // What the init says comes after the look: a helper or keeper that the look saw is known, or has gone.
    let status = found.status();
    let marks = marks(&all, tree.kernel());
    let mut answer = Answer::default();
    let mut roots: Map<Pid, (String, Option<String>, bool)> = Map::new();

    if let (Some(init), Some(control)) = (found.init, &found.control) {
        let Some(status) = status else { bail!("the init is too old, or does not say what belongs to it") };
        let control = control.display().to_string();
        let own: Set<Pid> = status
            .keepers
            .iter()
            .map(|keeper| keeper.pid)
            .chain(status.helpers.iter().copied())
            .chain(status.main)
            .collect();
        let elsewhere = inspect::inner_pid(init) != Some(init);
        for child in tree.children(init) {
            let known = if elsewhere { inspect::inner_pid(child) } else { Some(child) };
            if known.is_none_or(|known| own.contains(&known)) {
                continue;
            }
            let marks = marks.get(&child);
            let job = marks.and_then(|marks| marks.job.clone()).filter(|job| job != place::MAIN);
            if status.main.is_none() || job.is_some() {
                roots.insert(child, (control.clone(), job, true));
            } else {
                answer.unseen.extend(marks.and_then(|marks| marks.unseen.clone()));
            }
        }
    }

    // A live init's processes are its own business, whatever marks they carry.
    let mut alive = inspect::owners(files::CONTROL);
    alive.extend(found.init);
    let only = target.control.as_ref().map(|path| absolute(path).unwrap_or_else(|_| path.clone()));
    for process in &all {
        let pid = process.id.pid;
        let Some(marks) = marks.get(&pid) else { continue };
        if tree.is_at_or_below(pid, &alive) {
            continue;
        }
        if let Some(unseen) = &marks.unseen {
            answer.unseen.push(unseen.clone());
        }
        let (Some(control), Some(job)) = (&marks.control, &marks.job) else { continue };
        if marks.init != Lives::Perhaps
            && !is_below_now(pid, &alive)
            && only.as_ref().is_none_or(|only| only == control)
        {
            roots.insert(pid, (control.display().to_string(), Some(job.clone()), false));
        }
    }

    // All below them belongs to them, but for those who run this, and other inits.
    let spared = tree.ancestors(process::me());
    let mut seen: Map<Pid, (String, Option<String>, bool)> = Map::new();
    for (root, whose) in &roots {
        for pid in tree.below(*root) {
            let is_other = !whose.2 && tree.is_at_or_below(pid, &alive);
            if !spared.contains(&pid) && !is_other {
                seen.or_insert_with(pid, || roots.get(&pid).unwrap_or(whose).clone());
            }
        }
    }
    for process in all {
        if let Some((control, job, init_lives)) = seen.remove(&process.id.pid) {
            // It may have ended since: then it was no orphan but on its way out.
            if inspect::one(process.id.pid).is_some_and(|now| now.id == process.id && !now.is_dead()) {
                let command = None;
                answer.orphans.push(Orphan { process, control, job, init_lives, command });
            }
        }
    }
    let pids: Vec<Pid> = answer.orphans.iter().map(|orphan| orphan.process.id.pid).collect();
    let mut commands = inspect::command_lines(&pids, LOOK, LOOKS);
    for orphan in &mut answer.orphans {
        orphan.command = commands.remove(&orphan.process.id.pid);
    }
    crate::base::sort_by(&mut answer.orphans, |a, b| (&a.control, a.process.id).cmp(&(&b.control, b.process.id)));
    answer.left = pids;
    Ok(answer)
}

/// What every process carries. It is asked in a disposable child: the environment is behind locks of the process's, and
/// the directory that it names may be on a volume that hangs.
fn marks(all: &[Process], kernel: Set<Pid>) -> Map<Pid, Marks> {
    let processes: Vec<&Process> = all.iter().filter(|process| !kernel.contains(&process.id.pid)).collect();
    let gathered = inspect::gather(&processes, LOOK, LOOKS, |process, tell| {
        let pid = process.id.pid;
        match inspect::variables(pid, [place::VARIABLE, place::JOB_VARIABLE]) {
            Ok([None, _] | [_, None]) => {}
            Ok([Some(control), Some(job)]) => {
                let control = PathBuf::from(OsStr::from_bytes(&control));
                let job = Some(String::from_utf8_lossy(&job).into_owned());
                // Until that is known it counts as listening: what hangs is not to cost anybody's life.
                tell(Marks { control: None, job: job.clone(), init: Lives::Perhaps, unseen: None });
                let init = lives(pid, &control);
                tell(Marks { control: Some(control), job, init, unseen: None });
            }
            Err(error) => {
                let unseen = inspect::Unseen::new(pid, &process.comm, "environment", &error);
                tell(Marks { control: None, job: None, init: Lives::Perhaps, unseen });
            }
        }
    });
    let of = |(process, gathered): (&&Process, inspect::Gathered<Marks>)| {
        Some((process.id.pid, gathered.found.into_iter().next_back()?))
    };
    processes.iter().zip(gathered).filter_map(of).collect()
}

/// Whether an init lives in a directory, as that process sees it.
fn lives(pid: Pid, control: &Path) -> Lives {
    let Ok(below) = control.strip_prefix("/") else { return Lives::Perhaps };
    let dir = match Dir::open(&Path::new(&format!("/proc/{pid}/root")).join(below)) {
        Ok(dir) => dir,
        Err(error) if errno(&error) == Errno::ENOENT => return Lives::No,
        Err(_) => return Lives::Perhaps,
    };
    let owner = dir.identity().ok().and_then(|(device, inode)| inspect::directory_owner(&device, inode, control));
    if owner.is_some() {
        return Lives::Here;
    }
    match dir.open_fifo(files::CONTROL, Access::Write, None) {
        Err(error) if [Errno::ENXIO, Errno::ENOENT].contains(&errno(&error)) => Lives::No,
        Ok(_) | Err(_) => Lives::Perhaps,
    }
}

/// Whether a process is below one of these, by what is so now: a look at all of them is torn where a parent ended
/// meanwhile. Who has gone, or moves while we look, counts as below.
fn is_below_now(pid: Pid, roots: &Set<Pid>) -> bool {
    let mut at = pid;
    for _ in 0..DEEPEST {
        if roots.contains(&at) {
            return true;
        }
        match inspect::one(at) {
            Some(process) => match process.parent {
                Some(parent) => at = parent,
                None => return false,
            },
            None => return true,
        }
    }
    true
}

/// Who is below whom.
struct Tree {
    parents: Map<Pid, Option<Pid>>,
    children: Map<Pid, Vec<Pid>>,
    names: Map<Pid, String>,
}

impl Tree {
    fn of(all: &[Process]) -> Tree {
        let mut tree = Tree { parents: Map::new(), children: Map::new(), names: Map::new() };
        for process in all {
            let pid = process.id.pid;
            tree.parents.insert(pid, process.parent);
            tree.names.insert(pid, process.comm.clone());
            if let Some(parent) = process.parent {
                tree.children.or_insert_with(parent, Default::default).push(pid);
            }
        }
        tree
    }

    fn children(&self, of: Pid) -> Vec<Pid> {
        self.children.get(&of).cloned().unwrap_or_default()
    }

    /// It and all below it.
    fn below(&self, root: Pid) -> Set<Pid> {
        let mut found = Set::from([root]);
        let mut open = vec![root];
        while let Some(next) = open.pop() {
            open.extend(self.children(next).into_iter().filter(|child| found.insert(*child)));
        }
        found
    }

    /// It and all above it.
    fn ancestors(&self, of: Pid) -> Set<Pid> {
        let mut found = Set::new();
        let mut at = Some(of);
        while let Some(pid) = at.filter(|pid| found.insert(*pid)) {
            at = self.parents.get(&pid).copied().flatten();
        }
        found
    }

    fn is_at_or_below(&self, pid: Pid, roots: &Set<Pid>) -> bool {
        !roots.is_empty() && !self.ancestors(pid).is_disjoint(roots)
    }

    /// The kernel's own threads, which are no processes.
    fn kernel(&self) -> Set<Pid> {
        let is_root = |(pid, name): (&Pid, &String)| (name == "kthreadd").then_some(*pid);
        let root = self.names.iter().find_map(is_root).filter(|pid| pid.get() == 2);
        root.map(|root| self.below(root)).unwrap_or_default()
    }
}

/// Ends them and all below them: SIGTERM, grace, SIGKILL. Answers with those that SIGKILL has not ended.
fn end(mut ours: Set<ProcId>, grace: Duration) -> Set<ProcId> {
    let spared = |pid: Pid| pid == process::me();
    let mut ending = Ending::begin(clock::now(), process::me(), grace);
    loop {
        let Some(all) = inspect::everything() else { return ours };
        let tree = Tree::of(&all);
        let alive: Set<Pid> =
            all.iter().filter(|process| ours.contains(&process.id) && !process.is_dead()).map(|p| p.id.pid).collect();
        if alive.is_empty() {
            return Set::new();
        }
        let members: Set<Pid> = alive.iter().flat_map(|pid| tree.below(*pid)).collect();
        let members = all.into_iter().filter(|process| members.contains(&process.id.pid) && !spared(process.id.pid));
        let members: Vec<Process> = members.filter(|process| !process.is_dead()).collect();
        ours.extend(members.iter().map(|process| process.id));
        let now = clock::now();
        if ending.forced_for(now).is_some_and(|time| time > STUCK_AFTER) {
            return members.iter().map(|process| process.id).collect();
        }
        ending.child_ended(now);
        if ending.wants_look(now) {
            for (whom, signal) in ending.looked(now, &members) {
                if let Some(process) = members.iter().find(|process| whom == Whom::One(process.id.pid)) {
                    send(process.id, signal);
                }
            }
        }
        sleep(LOOK_AGAIN);
    }
}

/// A signal for this process and no other: a pid may be used again between a look and a signal.
fn send(id: ProcId, signal: Signal) {
    let sent = pidfd::open(id.pid).and_then(|fd| {
        let same = inspect::one(id.pid).is_some_and(|now| now.id == id);
        if same { pidfd::send(&fd, signal) } else { Ok(()) }
    });
    if let Err(error) = sent
        && errno(&error) != Errno::ESRCH
    {
        eprintln!("lastout orphans: cannot send {signal} to pid {}: {}", id.pid, errno(&error));
    }
}

fn explained(stuck: &Set<ProcId>) -> Vec<Wait> {
    let pids: Vec<Pid> = stuck.iter().map(|id| id.pid).collect();
    let gathered = inspect::gather(&pids, LOOK, LOOKS, |pid, tell| {
        let (looker, clocks) = (&mut Looker::new(), &mut Clocks::default());
        inspect::explain_stepwise(*pid, looker, clocks, &mut |wait| tell(wait.clone()));
    });
    gathered.into_iter().filter_map(|one| one.found.into_iter().next_back()).collect()
}
