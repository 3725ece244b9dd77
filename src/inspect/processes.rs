use std::{io, thread::sleep, time::Duration};

use super::stat::Stat;
use crate::{
    base::{Map, Pid, ProcId, Process, Set},
    sys::{is_shortage, process},
};

/// How often a look is tried for which something is short, and the pause in between.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Every process that this `/proc` shows; `None` if there is no usable `/proc`.
pub fn everything() -> Option<Vec<Process>> {
    patiently(every_process).ok()
}

/// A picture in which somebody is missing because a descriptor was short would be worse than none: whoever
/// is not in it is not asked to end.
fn patiently<T>(look: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..ATTEMPTS {
        match look() {
            Err(error) if is_shortage(&error) => sleep(PAUSE),
            done => return done,
        }
    }
    look()
}

/// Fails where `/proc` is another PID namespace's (`unshare --pid --fork` without `--mount-proc`): its numbers are not
/// ours, and what is signalled by them is somebody else.
fn is_our_namespaces() -> io::Result<()> {
    let us = std::fs::read_link("/proc/self")?;
    let is_us = us.to_str().and_then(|us| us.parse().ok()) == Some(process::me().get());
    if is_us { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn every_process() -> io::Result<Vec<Process>> {
    is_our_namespaces()?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| Pid::new(name.parse().ok()?)) else { continue };
        match Stat::of(pid) {
            Ok(stat) => found.extend(seen(&stat)),
            Err(error) if is_shortage(&error) => return Err(error),
            // It has ended meanwhile, or is not ours to see.
            Err(_) => {}
        }
    }
    // We are always there: an empty picture is none, but a directory where /proc is not mounted.
    if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
}

/// One process, as it is now.
pub fn one(pid: Pid) -> Option<Process> {
    seen(&Stat::of(pid).ok()?)
}

/// Bytes of a command line that are of interest.
const COMMAND_LINE: usize = 4096;

/// Command lines, in words, of those that have one and can tell it in time: reading one may block, see
/// [`super::gather`].
pub fn command_lines(pids: &[Pid], limit: Duration, total: Duration) -> Map<Pid, String> {
    let all = super::gather(pids, limit, total, |pid, tell| {
        if let Ok(mut line) = std::fs::read(format!("/proc/{pid}/cmdline")) {
            line.truncate(COMMAND_LINE);
            let words: Vec<_> = line.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
            tell(words.join(" ").trim_end().to_string());
        }
    });
    let found = pids.iter().zip(all).filter_map(|(pid, gathered)| Some((*pid, gathered.found.into_iter().next()?)));
    found.filter(|(_, line)| !line.is_empty()).collect()
}

/// The last process id that was given to anybody in our PID namespace, threads included, where the kernel tells
/// (`CONFIG_CHECKPOINT_RESTORE`). In the kernel's own memory: nobody else is asked.
pub fn last_pid() -> Option<Pid> {
    Pid::new(super::small("/proc/sys/kernel/ns_last_pid").ok()?.trim().parse().ok()?)
}

/// Every process below `root`, whatever group or session it is in. One look: what moves meanwhile may be
/// missed, so whoever wants all of them looks until there is nothing left to wait for.
pub fn below(root: Pid) -> Option<Vec<Process>> {
    below_but(root, &Set::new())
}

/// The same without these and what is below them. Where only everybody can be seen, they are not left out.
pub fn below_but(root: Pid, without: &Set<Pid>) -> Option<Vec<Process>> {
    match patiently(|| below_by_children(root, without)) {
        Ok(found) => Some(found),
        Err(_) => Some(select_below(root, everything()?)),
    }
}

/// Every process that is an init's: of its PID namespace, if it is that namespace's PID 1; otherwise below it. By
/// process ids as they are for us. `None` if there is no usable `/proc`.
pub fn of_init(init: Pid) -> Option<Vec<Process>> {
    let all = everything()?;
    let namespace = |pid: Pid| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let its = namespace(init).filter(|_| inner_pid(init) == Some(Pid::INIT));
    let below: Set<Pid> = select_below(init, all.clone()).iter().map(|process| process.id.pid).collect();
    let ours = its.is_some() && its == std::fs::read_link("/proc/self/ns/pid").ok();
    let is_its = |process: &Process| {
        let pid = process.id.pid;
        pid == init || ours || below.contains(&pid) || its.is_some() && namespace(pid) == its
    };
    Some(all.into_iter().filter(is_its).collect())
}

/// A process's id in its own PID namespace.
pub fn inner_pid(pid: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    Pid::new(line.split_whitespace().last()?.parse().ok()?)
}

/// Who has locked a directory as an init locks its control directory. By its number in our PID namespace; `None` also
/// where the owner is in a namespace that we cannot see.
pub fn directory_owner(device: &str, inode: u64, path: &std::path::Path) -> Option<Pid> {
    let all = super::locks().unwrap_or_default();
    let flocks = || all.iter().filter(|lock| lock.lock.kind == "FLOCK" && !lock.waits && lock.pid.is_some());
    if let Some(found) = flocks().find(|lock| lock.device == device && lock.inode == inode) {
        return found.pid;
    }
    // Overlay filesystems show other numbers in the list than to `stat`.
    flocks().filter_map(|lock| lock.pid).find(|pid| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.into_iter().any(|fd| {
            let info = || std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.file_name().display()));
            std::fs::read_link(fd.path()).is_ok_and(|link| link == path)
                && info().is_ok_and(|info| info.contains("FLOCK"))
        })
    })
}

/// By `/proc/PID/task/TID/children`: costs as much as the tree is large, not as the machine is full.
/// An error where the kernel has it not (`CONFIG_PROC_CHILDREN`, gVisor).
fn below_by_children(root: Pid, without: &Set<Pid>) -> io::Result<Vec<Process>> {
    is_our_namespaces()?;
    let mut found: Vec<Process> = Vec::new();
    let mut known = Set::new();
    let mut next = vec![children(root, Stat::of(root)?.num_threads)?];
    while let Some(siblings) = next.pop() {
        for child in siblings.into_iter().filter(|child| !without.contains(child)) {
            let stat = match Stat::of(child) {
                Err(error) if is_shortage(&error) => return Err(error),
                stat => stat,
            };
            if let Some(process) = stat.ok().and_then(|stat| seen(&stat))
                && known.insert(child)
            {
                let (is_dead, threads) = (process.is_dead(), process.threads);
                found.push(process);
                // Whoever forks all the time is not to win time by the dead: they have no children any more.
                if is_dead {
                    continue;
                }
                next.push(match children(child, threads) {
                    Err(error) if is_shortage(&error) => return Err(error),
                    children => children.unwrap_or_default(),
                });
            }
        }
    }
    Ok(found)
}

fn children(parent: Pid, threads: i64) -> io::Result<Vec<Pid>> {
    let pids = |text: &[u8]| -> Vec<Pid> {
        let words = text.split(u8::is_ascii_whitespace);
        words.filter_map(|pid| Pid::new(std::str::from_utf8(pid).ok()?.parse().ok()?)).collect()
    };
    if threads == 1 {
        return super::whole(format!("/proc/{parent}/task/{parent}/children")).map(|text| pids(&text));
    }
    let mut list = Vec::new();
    let mut supported = false;
    for task in std::fs::read_dir(format!("/proc/{parent}/task"))? {
        match task.and_then(|task| super::whole(task.path().join("children"))) {
            Ok(text) => {
                supported = true;
                list.extend(pids(&text));
            }
            Err(error) if is_shortage(&error) => return Err(error),
            Err(_) => {}
        }
    }
    if supported { Ok(list) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn select_below(root: Pid, all: Vec<Process>) -> Vec<Process> {
    let parents: Map<Pid, Option<Pid>> = all.iter().map(|p| (p.id.pid, p.parent)).collect();
    let is_below = |pid: Pid| {
        let mut at = parents.get(&pid).copied().flatten();
        // A tree cannot be deeper than it has members; the bound is against a torn picture.
        for _ in 0..parents.len() {
            match at {
                Some(parent) if parent == root => return true,
                Some(parent) => at = parents.get(&parent).copied().flatten(),
                None => return false,
            }
        }
        false
    };
    all.into_iter().filter(|p| is_below(p.id.pid)).collect()
}

/// What a dead keeper's job left: our own orphans that are in its command's session or carry the job's mark
/// (`KEY=VALUE`) in their environment, and all that is below them. With `all`, every orphan of ours that is not in
/// `spare`, nor a keeper or helper that the init has forked after us.
pub fn strays(init: Pid, mark: &str, session: Option<Pid>, all: bool, spare: &[Pid]) -> Option<Vec<Process>> {
    let everything = everything()?;
    let is_stray = |process: &Process| {
        let its_session = || Stat::of(process.id.pid).ok().and_then(|stat| Pid::new(stat.session));
        let in_session = || session.is_some() && its_session() == session;
        let is_marked = || {
            std::fs::read(format!("/proc/{}/environ", process.id.pid))
                .is_ok_and(|environ| environ.split(|b| *b == 0).any(|variable| variable == mark.as_bytes()))
        };
        all || in_session() || is_marked()
    };
    let program = |pid: Pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let me = process::me();
    let (ours, since) = (program(me), everything.iter().find(|p| p.id.pid == me).map(|p| p.id.start));
    let is_new_own = |p: &Process| since.is_none_or(|since| p.id.start >= since) && ours == program(p.id.pid);
    let orphan = |p: &&Process| p.parent == Some(init) && !spare.contains(&p.id.pid) && !is_new_own(p);
    let roots: Vec<Process> = everything.iter().filter(orphan).filter(|p| is_stray(p)).cloned().collect();
    let inner = roots.iter().flat_map(|root| select_below(root.id.pid, everything.clone()));
    let mut found: Vec<Process> = inner.collect();
    found.extend(roots);
    found.retain(|process| !process.is_dead());
    Some(found)
}

/// `include/linux/sched.h`: forked, and nothing executed since.
const PF_FORKNOEXEC: u32 = 0x40;

fn seen(stat: &Stat) -> Option<Process> {
    Some(Process {
        id: ProcId { pid: Pid::new(stat.pid)?, start: stat.starttime },
        parent: Pid::new(stat.ppid),
        group: stat.pgrp,
        state: stat.state,
        threads: stat.num_threads,
        comm: stat.comm.clone(),
        lingers: false,
        forked: stat.flags & PF_FORKNOEXEC != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_walk_find_a_child() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let me = Pid::new(std::process::id() as i32).unwrap();
        let pid = Pid::new(child.id() as i32).unwrap();
        for found in [below(me).unwrap(), select_below(me, everything().unwrap())] {
            assert!(found.iter().any(|p| p.id.pid == pid && p.parent == Some(me)), "{found:?}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
