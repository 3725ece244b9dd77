//! `lastout doctor`: why does it hang?
//!
//! It only looks. What may block for ever (a dead volume's `statfs`, some of `/proc`) runs in disposable children
//! with deadlines; that something does not answer is an answer.

mod page;
mod report;

use std::{
    cell::RefCell,
    fs,
    io::{IsTerminal, Write},
    path::{Path, PathBuf, absolute},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::{Outcome, Target, found::Found};
use crate::{
    base::{Map, Pid, Process, Set, sort_unique},
    inspect::{self, Clocks, Holder, Looker, Mount, Unseen, Volume, Wait},
    proto::{JobInfo, JobState, Status},
    sys::{
        disposable::{Came, Disposable},
        errno, mount, process,
    },
};
use report::{InitReport, LockWait, Report, Row, VolumeReport, Zombie};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Doctor {
    /// The init.
    pub target: Target,
    /// Only the volumes that these are on; none: every volume.
    pub paths: Vec<PathBuf>,
    /// As JSON.
    pub json: bool,
}

/// A volume that has not answered by then does not answer.
const VOLUME_ANSWERS: Duration = Duration::from_secs(1);
/// Volumes that are asked at the same time.
const VOLUMES_AT_ONCE: usize = 32;
/// One look at one process, and all of a kind. What hangs may hold the locks that a look needs.
const LOOK: Duration = Duration::from_millis(300);
const LOOKS: Duration = Duration::from_secs(3);
/// Whoever waits so long for a filesystem hangs. A busy disk answers sooner.
const HANGS: Duration = Duration::from_secs(1);
/// The scheduler's clocks are not exact: so much longer, and who hangs has hung for that time by any of them.
const SLACK: Duration = Duration::from_millis(250);

/// Prints the page. Answers 1 if something hangs or does not answer.
pub fn doctor(doctor: &Doctor) -> Outcome {
    let report = examine(doctor)?;
    let mut out = std::io::stdout().lock();
    if doctor.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)
    } else {
        let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        out.write_all(page::page(&report, colour).as_bytes())
    }
    .context("cannot write")?;
    Ok(u8::from(report.hangs))
}

fn examine(doctor: &Doctor) -> anyhow::Result<Report> {
    let found = Found::find(&doctor.target);
    let mut report = Report { version: 1, ..Report::default() };
    report.init = InitReport {
        control: found.control.as_ref().map(|path| path.display().to_string()),
        pid: found.init,
        phase: found.status.as_ref().map(|status| status.phase.clone()),
        answers: found.answers,
        problem: found.problem.clone(),
    };
    report.jobs = found.jobs.clone();
    let seen = match found.init {
        Some(init) => {
            report.scope = "the init's processes".into();
            inspect::of_init(init)
        }
        None => {
            report.scope = "every process here: no init of lastout's can be seen".into();
            inspect::everything()
        }
    };
    let mut seen = seen.context("there is no usable /proc")?;
    seen.retain(|process| process.id.pid != process::me());

    let looked = look(&seen);
    // Kernel threads are nobody's processes.
    seen.retain(|process| looked.waits.contains_key(&process.id.pid));
    let pids: Vec<Pid> = seen.iter().map(|process| process.id.pid).collect();
    report.stuck = stuck(&looked.waits);
    let stuck_pids: Set<Pid> = report.stuck.iter().map(|wait| wait.pid).collect();

    let mut looker = Looker::new();
    let whose = found.init.unwrap_or_else(process::me);
    let mounts = looker.mounts(whose).to_vec();
    let mut holders = looked.holders;
    report.unseen = looked.unseen;
    mapped(&pids, &stuck_pids, &mut holders, &mut report.unseen);
    holders.extend(looker.hidden_locks(&pids, &holders));
    sort_unique(&mut holders);
    report.lock_waits = lock_waits(&seen, &holders, &mounts);
    let wanted = wanted(&mounts, &doctor.paths, &mut report.notes)?;
    report.volumes = volumes(wanted, found.init, holders);
    report.zombies = zombies(&seen);
    report.limits = inspect::limits(whose);
    let commands = inspect::command_lines(&stuck_last(&pids, &stuck_pids), LOOK, LOOKS);
    report.processes = rows(&seen, &looked.waits, &commands, &stuck_pids, &found);
    report.unseen.extend(report.stuck.iter().filter_map(|wait| {
        let (what, why) = wait.cannot.as_ref()?.split_once(": ")?;
        Some(Unseen { pid: wait.pid, comm: wait.comm.clone(), what: what.into(), why: why.into() })
    }));
    sort_unique(&mut report.unseen);
    report.hangs = !report.stuck.is_empty() || found.silent || report.volumes.iter().any(|volume| !volume.answers);
    Ok(report)
}

/// What a look at one process tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Told {
    Files(Vec<Holder>, Vec<Unseen>),
    Wait(Box<Wait>),
    Clocks(Vec<(i32, Option<f64>)>),
}

#[derive(Debug, Default)]
struct Looked {
    waits: Map<Pid, Wait>,
    holders: Vec<Holder>,
    unseen: Vec<Unseen>,
}

/// States and open files of all, which does not block as a rule; then what the hanging ones hang on, which may.
fn look(seen: &[Process]) -> Looked {
    let mut looked = Looked::default();
    let looker = RefCell::new(Looker::new());
    let clocks = RefCell::new(Clocks::default());
    let first = inspect::gather(seen, LOOK, LOOKS, |process, tell| {
        let pid = process.id.pid;
        let wait = inspect::glance(pid, &mut clocks.borrow_mut());
        if let Some(wait) = wait {
            if wait.hangs() {
                tell(Told::Clocks(clocks.borrow().readings()));
            }
            tell(Told::Wait(Box::new(wait)));
        }
        if !process.is_dead() {
            let (holders, unseen) = looker.borrow_mut().files(pid);
            if !holders.is_empty() || !unseen.is_empty() {
                tell(Told::Files(holders, unseen));
            }
        }
    });
    for (process, gathered) in seen.iter().zip(first) {
        if !gathered.complete {
            looked.unseen.push(silent(process.id.pid, &process.comm, "state and open files"));
        }
        for told in gathered.found {
            match told {
                Told::Wait(wait) => drop(looked.waits.insert(wait.pid, *wait)),
                Told::Clocks(readings) => clocks.borrow_mut().take(readings),
                Told::Files(holders, unseen) => {
                    looked.holders.extend(holders);
                    looked.unseen.extend(merged(unseen));
                }
            }
        }
    }
    // Only those who go on hanging do; a busy disk's users are elsewhere by then.
    let young = |wait: &Wait| HANGS.saturating_sub(wait.duration().unwrap_or_default());
    let hanging: Vec<Wait> = looked.waits.values().filter(|wait| wait.hangs()).cloned().collect();
    if let Some(pause) = hanging.iter().map(young).max() {
        sleep(pause + SLACK);
    }
    let explained = inspect::gather(&hanging, LOOK, LOOKS, |wait, tell| {
        let (looker, clocks) = (&mut looker.borrow_mut(), &mut clocks.borrow_mut());
        inspect::explain_stepwise(wait.pid, looker, clocks, &mut |wait| tell(wait.clone()));
    });
    for (before, gathered) in hanging.iter().zip(explained) {
        match gathered.found.into_iter().next_back() {
            Some(now) => drop(looked.waits.insert(now.pid, now)),
            // It has gone meanwhile.
            None if gathered.complete => drop(looked.waits.remove(&before.pid)),
            None => looked.unseen.push(silent(before.pid, &before.comm, "system call and file")),
        }
    }
    looked
}

/// One entry a process for the same reason.
fn merged(unseen: Vec<Unseen>) -> Vec<Unseen> {
    let mut merged: Vec<Unseen> = Vec::new();
    for next in unseen {
        match merged.iter_mut().find(|known| known.pid == next.pid && known.why == next.why) {
            Some(known) if !known.what.contains(&next.what) => known.what = format!("{}, {}", known.what, next.what),
            Some(_) => {}
            None => merged.push(next),
        }
    }
    merged
}

fn silent(pid: Pid, comm: &str, what: &str) -> Unseen {
    let why = "no answer in time: it holds its own locks while it hangs, or this machine is too busy".into();
    Unseen { pid, comm: comm.into(), what: what.into(), why }
}

fn stuck(waits: &Map<Pid, Wait>) -> Vec<Wait> {
    let long = |wait: &&Wait| wait.duration().is_none_or(|time| time >= HANGS);
    waits.values().filter(|wait| wait.hangs()).filter(long).cloned().collect()
}

/// Mappings, those who hang last: reading theirs may take all the time that there is.
fn mapped(pids: &[Pid], stuck: &Set<Pid>, holders: &mut Vec<Holder>, unseen: &mut Vec<Unseen>) {
    let looker = RefCell::new(Looker::new());
    let order = stuck_last(pids, stuck);
    let all = inspect::gather(&order, LOOK, LOOKS, |pid, tell| {
        let (holders, unseen) = looker.borrow_mut().mappings(*pid);
        if !holders.is_empty() || !unseen.is_empty() {
            tell(Told::Files(holders, unseen));
        }
    });
    for (pid, gathered) in order.iter().zip(all) {
        if !gathered.complete {
            unseen.push(silent(*pid, &comm(*pid), "mappings"));
        }
        for told in gathered.found {
            if let Told::Files(more, not) = told {
                holders.extend(more);
                // Whose files may not be seen, of whom that has been said.
                unseen.extend(
                    not.into_iter().filter(|not| !unseen.iter().any(|known| known.pid == not.pid)).collect::<Vec<_>>(),
                );
            }
        }
    }
}

fn stuck_last(pids: &[Pid], stuck: &Set<Pid>) -> Vec<Pid> {
    let (last, first): (Vec<Pid>, Vec<Pid>) = pids.iter().partition(|pid| stuck.contains(pid));
    [first, last].concat()
}

fn comm(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().into()
}

/// Who waits for whose lock.
fn lock_waits(seen: &[Process], holders: &[Holder], mounts: &[Mount]) -> Vec<LockWait> {
    let comms: Map<Pid, &str> = seen.iter().map(|process| (process.id.pid, process.comm.as_str())).collect();
    let locks = inspect::locks().unwrap_or_default();
    let waits = locks.iter().filter(|lock| lock.waits).filter_map(|waiting| {
        let pid = waiting.pid?;
        let comm = (*comms.get(&pid)?).to_string();
        let owner = locks.iter().find(|lock| !lock.waits && lock.number == waiting.number)?;
        let of_owner = |holder: &&Holder| {
            Some(holder.pid) == owner.pid
                && holder.lock.as_ref() == Some(&owner.lock)
                && holder.volume.device == owner.device
        };
        let named = holders.iter().find(of_owner).map(|holder| holder.path.clone());
        let file = named.unwrap_or_else(|| {
            let on = mounts.iter().find(|mount| mount.device == owner.device);
            let on = on.map_or_else(|| format!("device {}", owner.device), |mount| mount.path.display().to_string());
            format!("inode {} of {on}", owner.inode)
        });
        let owner_comm = owner.pid.and_then(|owner| comms.get(&owner)).map(|comm| (*comm).to_string());
        Some(LockWait { pid, comm, lock: waiting.lock.clone(), file, owner: owner.pid, owner_comm })
    });
    waits.collect()
}

/// The volumes that were asked for, by their paths' names only.
fn wanted(mounts: &[Mount], paths: &[PathBuf], notes: &mut Vec<String>) -> anyhow::Result<Vec<Volume>> {
    let all: Vec<Volume> = mounts.iter().filter_map(Mount::volume).collect();
    if paths.is_empty() {
        return Ok(all);
    }
    let mut found = Set::new();
    for path in paths {
        let path = absolute(path).with_context(|| format!("cannot tell where {} is", path.display()))?;
        match inspect::volume_of_path(mounts, &path) {
            Some(volume) => drop(found.insert(volume)),
            None => notes.push(format!(
                "{} is on no volume, but on the root or on a filesystem of the system's",
                path.display()
            )),
        }
    }
    Ok(found.into_iter().collect())
}

/// Asks each volume for its space, many at a time, and sorts their holders to them.
fn volumes(volumes: Vec<Volume>, init: Option<Pid>, holders: Vec<Holder>) -> Vec<VolumeReport> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    // Paths are the init's; from another mount namespace they begin at its root.
    let root =
        init.filter(|init| namespace(&init.to_string()) != namespace("self")).map(|init| format!("/proc/{init}/root"));
    let mut by_device: Map<String, PathBuf> = Map::new();
    for volume in &volumes {
        let path = match &root {
            Some(root) => Path::new(root).join(volume.path.strip_prefix("/").unwrap_or(&volume.path)),
            None => volume.path.clone(),
        };
        by_device.insert(volume.device.clone(), path);
    }
    let devices: Vec<(String, PathBuf)> = by_device.into_iter().collect();
    let spaces: Map<String, Option<Result<mount::Space, String>>> =
        devices.chunks(VOLUMES_AT_ONCE).flat_map(spaces).collect();
    let mut held: Map<PathBuf, Vec<Holder>> = Map::new();
    for holder in holders {
        held.or_insert_with(holder.volume.path.clone(), Default::default).push(holder);
    }
    let report = |volume: Volume| {
        let space = spaces.get(&volume.device).cloned().flatten();
        let answers = space.is_some();
        let (space, problem) = match space {
            Some(Ok(space)) => (Some(space), None),
            Some(Err(why)) => (None, Some(why)),
            None => (
                None,
                Some(format!("does not answer: asked for its free space, silent for {} s", VOLUME_ANSWERS.as_secs())),
            ),
        };
        let requests_waiting = volume.requests_waiting();
        let holders = held.remove(&volume.path).unwrap_or_default();
        VolumeReport { volume, space, answers, problem, requests_waiting, holders }
    };
    volumes.into_iter().map(report).collect()
}

fn spaces(devices: &[(String, PathBuf)]) -> Vec<(String, Option<Result<mount::Space, String>>)> {
    let ask = |path: &PathBuf| {
        Disposable::start(|send| {
            let space = mount::space(path).map_err(|error| errno(&error).to_string());
            send(&serde_json::to_vec(&space).unwrap_or_default());
        })
    };
    let deadline = Instant::now() + VOLUME_ANSWERS;
    let children: Vec<_> = devices.iter().map(|(device, path)| (device.clone(), ask(path))).collect();
    let answer = |child: std::io::Result<Disposable>| match child {
        Ok(mut child) => match child.next(deadline) {
            Came::Line(line) => serde_json::from_slice(&line).ok(),
            Came::End => Some(Err("the process that asked it died".into())),
            Came::Nothing => None,
        },
        Err(error) => Some(Err(format!("cannot fork to ask it: {}", errno(&error)))),
    };
    children.into_iter().map(|(device, child)| (device, answer(child))).collect()
}

fn zombies(seen: &[Process]) -> Vec<Zombie> {
    let comm = |pid: Pid| seen.iter().find(|process| process.id.pid == pid).map(|process| process.comm.clone());
    let dead = seen.iter().filter(|process| process.is_dead());
    let zombie = |process: &Process| Zombie {
        pid: process.id.pid,
        comm: process.comm.clone(),
        parent: process.parent,
        parent_comm: process.parent.and_then(comm),
    };
    dead.map(zombie).collect()
}

fn rows(
    seen: &[Process],
    waits: &Map<Pid, Wait>,
    commands: &Map<Pid, String>,
    stuck: &Set<Pid>,
    found: &Found,
) -> Vec<Row> {
    let elsewhere = found.init.is_some_and(|init| inspect::inner_pid(init) != Some(init));
    let row = |process: &Process| {
        let pid = process.id.pid;
        let wait = waits.get(&pid);
        let inside = elsewhere.then(|| inspect::inner_pid(pid)).flatten().filter(|inside| *inside != pid);
        Row {
            pid,
            inside,
            parent: process.parent,
            comm: process.comm.clone(),
            command: commands.get(&pid).cloned(),
            // A dead leader's threads live on: what they do is what the process does.
            state: wait.map_or(process.state, |wait| wait.state),
            kernel: wait.and_then(|wait| wait.kernel.clone()),
            for_ms: wait.and_then(|wait| wait.for_ms),
            threads: process.threads,
            role: role(
                inside.unwrap_or(pid),
                (found.init == Some(pid)).then_some(()),
                found.status.as_ref(),
                &found.jobs,
            ),
            stuck: stuck.contains(&pid),
        }
    };
    seen.iter().map(row).collect()
}

/// What a process is to the init, which knows it by its own numbers.
fn role(pid: Pid, init: Option<()>, status: Option<&Status>, jobs: &[JobInfo]) -> Option<String> {
    if init.is_some() {
        return Some("init".into());
    }
    let status = status?;
    if status.main == Some(pid) {
        return Some("main".into());
    }
    if let Some(keeper) = status.keepers.iter().find(|keeper| keeper.pid == pid) {
        return Some(format!("keeper of {}", keeper.job));
    }
    let job = jobs.iter().find(|job| job.pid == Some(pid) && job.state != JobState::Ended)?;
    Some(match &job.name {
        Some(name) => format!("{} {name}", job.job),
        None => job.job.to_string(),
    })
}
