//! Ending a task of a service's: a check, or a step of its setup.

use crate::{
    base::{Pid, Process, Set, Signal},
    inspect,
    sys::{process, signals},
};

/// Looks at what is below a task that is to end: what it forks meanwhile is in the next one.
const LOOKS: usize = 16;

/// Kills a task with all that is below it, and all that is in its process group, where what it has left is. First they
/// are stopped, so that no look misses a child.
pub(super) fn end(pid: Pid) {
    let mut stopped = Set::new();
    for _ in 0..LOOKS {
        let seen = inspect::below(process::me()).unwrap_or_default();
        let new: Vec<Pid> = members(pid, &seen).difference(&stopped).copied().collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            let _ = signals::send(pid, Signal::STOP);
            stopped.insert(pid);
        }
    }
    for pid in stopped {
        let _ = signals::send(pid, Signal::KILL);
    }
}

fn members(task: Pid, seen: &[Process]) -> Set<Pid> {
    let alive = || seen.iter().filter(|process| !process.is_dead());
    let is_root = |process: &Process| process.id.pid == task || process.group == task.get();
    let roots: Set<Pid> = alive().filter(|p| is_root(p)).map(|p| p.id.pid).collect();
    roots.closed_under(|members| {
        let is_below = |process: &&Process| process.parent.is_some_and(|parent| members.contains(&parent));
        alive().filter(is_below).map(|p| p.id.pid).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ProcId;

    #[test]
    fn a_task_is_its_group_and_what_is_below_them() {
        let process = |pid: i32, parent: i32, group: i32, state: char| Process {
            id: ProcId { pid: Pid::new(pid).unwrap(), start: 1 },
            parent: Pid::new(parent),
            group,
            state,
            threads: 1,
            comm: "x".into(),
            lingers: false,
            forked: false,
        };
        let seen = [
            process(13, 12, 13, 'S'),
            process(10, 1, 10, 'S'),
            process(11, 10, 10, 'S'),
            process(12, 11, 12, 'S'),
            // An orphan of its group, one of its dead, and others.
            process(14, 1, 10, 'S'),
            process(15, 10, 10, 'Z'),
            process(20, 1, 20, 'S'),
            process(21, 20, 21, 'S'),
        ];
        let pids = |pid: i32| members(Pid::new(pid).unwrap(), &seen).iter().map(|pid| pid.get()).collect::<Vec<_>>();
        assert_eq!(pids(10), [10, 11, 12, 13, 14]);
        assert_eq!(pids(20), [20, 21]);
        assert!(pids(99).is_empty());
    }
}
