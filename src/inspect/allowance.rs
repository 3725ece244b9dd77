//! What this process really may use, and which file says so: most programs ask for the machine's, and take it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    Mount,
    limits::Group,
    mounts::{self},
};
use crate::sys::process;

/// A value, and where it is from.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// The file.
    #[serde(with = "super::lossy")]
    pub file: PathBuf,
}

/// What may be used, and what is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Bound {
    /// `None`: no limit.
    pub limit: Option<Found<u64>>,
    /// In use, in the group that has the limit; without a limit, in our own.
    pub used: Option<Found<u64>>,
}

impl Eq for Found<u64> {}

/// CPUs.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Cpus {
    /// How many there are to use: the less of both, rounded down, and at least 1.
    pub usable: u64,
    /// Those that we may run on.
    pub affinity: Found<u64>,
    /// How many CPUs' worth of time we may have; `None`: no quota.
    pub quota: Option<Found<f64>>,
}

/// All of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Allowance {
    /// CPUs.
    pub cpus: Cpus,
    /// Bytes; the machine's where no group has a limit below it.
    pub memory: Bound,
    /// Bytes of swap.
    pub swap: Bound,
    /// Processes and threads.
    pub pids: Bound,
}

/// Ours.
pub fn allowance() -> Allowance {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = super::whole("/proc/self/mountinfo").map(|text| mounts::parse(&text)).unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    allowance_from(&groups, &mounts, &meminfo, process::cpus() as u64)
}

/// What `{name}` of a configuration stands for: `cpus` for a number of CPUs, `memory` for bytes.
pub fn export(name: &str) -> Option<String> {
    let allowance = allowance();
    match name {
        "cpus" => Some(allowance.cpus.usable.to_string()),
        "memory" => allowance.memory.limit.map(|limit| limit.value.to_string()),
        _ => None,
    }
}

fn allowance_from(groups: &str, mounts: &[Mount], meminfo: &str, affinity: u64) -> Allowance {
    let v2 = Group::find(groups, mounts, "");
    let v1 = |controller, file: &str| Group::find(groups, mounts, controller).filter(|group| group.has(file));
    // In a hybrid, a controller is in one of them. The root of version 2 has no limits, so no such files.
    let v2 = |file: &str| v2.as_ref().filter(|group| group.has(file));
    let affinity = Found { value: affinity, file: "/proc/self/status".into() };
    let quota = if let Some(group) = v2("cpu.max") {
        group.tightest(Group::share_v2).map(|(value, group)| Found { value, file: group.path.join("cpu.max") })
    } else {
        let quota = v1("cpu", "cpu.cfs_quota_us").and_then(|group| group.tightest(Group::share_v1));
        quota.map(|(value, group)| Found { value, file: group.path.join("cpu.cfs_quota_us") })
    };
    let (memory, swap) = if let Some(group) = v2("memory.current") {
        (plain(group, "memory.max", "memory.current"), plain(group, "memory.swap.max", "memory.swap.current"))
    } else {
        let group = v1("memory", "memory.usage_in_bytes");
        (group.as_ref().map(memory_v1).unwrap_or_default(), group.as_ref().map(swap_v1).unwrap_or_default())
    };
    let pids = v2("pids.current").cloned().or_else(|| v1("pids", "pids.current"));
    Allowance {
        cpus: Cpus {
            usable: affinity.value.min(quota.as_ref().map_or(u64::MAX, |quota| quota.value as u64)).max(1),
            affinity,
            quota,
        },
        memory: within(memory, meminfo, "MemTotal", "MemAvailable"),
        swap: within(swap, meminfo, "SwapTotal", "SwapFree"),
        pids: pids.map(|group| plain(&group, "pids.max", "pids.current")).unwrap_or_default(),
    }
}

/// A limit that is a number, or the word `max`.
fn plain(group: &Group, limit: &str, used: &str) -> Bound {
    bound(group, group.tightest(|group| group.number(limit)), limit, used)
}

fn memory_v1(group: &Group) -> Bound {
    let (limit, used) = ("memory.limit_in_bytes", "memory.usage_in_bytes");
    bound(group, group.tightest(|group| group.bytes_v1(limit)), limit, used)
}

/// Version 1 counts memory and swap together.
fn swap_v1(group: &Group) -> Bound {
    let both = "memory.memsw.limit_in_bytes";
    let difference = |group: &Group| {
        let memory = group.bytes_v1("memory.limit_in_bytes").unwrap_or(0);
        Some(group.bytes_v1(both)?.saturating_sub(memory))
    };
    let limit = group.tightest(difference);
    let counted = limit.as_ref().map_or(group, |(_, group)| group);
    let used = counted.number("memory.memsw.usage_in_bytes").and_then(|both| {
        let value = both.saturating_sub(counted.number("memory.usage_in_bytes")?);
        Some(Found { value, file: counted.path.join("memory.memsw.usage_in_bytes") })
    });
    Bound { limit: limit.map(|(value, group)| Found { value, file: group.path.join(both) }), used }
}

fn bound(own: &Group, limit: Option<(u64, Group)>, file: &str, used: &str) -> Bound {
    let counted = limit.as_ref().map_or(own, |(_, group)| group);
    let used = counted.number(used).map(|value| Found { value, file: counted.path.join(used) });
    Bound { limit: limit.map(|(value, group)| Found { value, file: group.path.join(file) }), used }
}

/// No group may have more than the machine has.
fn within(bound: Bound, meminfo: &str, total: &str, free: &str) -> Bound {
    let field = |word: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    };
    let found = |value| Found { value, file: Path::new("/proc/meminfo").into() };
    let Some(total) = field(total) else { return bound };
    if bound.limit.as_ref().is_some_and(|limit| limit.value < total) {
        return bound;
    }
    let used = field(free).map(|free| found(total.saturating_sub(free)));
    Bound { limit: Some(found(total)), used }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn mount(path: &Path, kind: &str, options: &str) -> Mount {
        let line = format!("1 0 0:1 / {} rw - {kind} x {options}\n", path.display());
        mounts::parse(line.as_bytes()).remove(0)
    }

    const MACHINE: &str = "MemTotal:   4 kB\nMemAvailable:   3 kB\nSwapTotal:  0 kB\nSwapFree:   0 kB\n";

    fn said<T: ToString>(found: &Option<Found<T>>, dir: &Path) -> String {
        let Some(found) = found else { return "none".into() };
        let file = found.file.strip_prefix(dir).unwrap_or(&found.file);
        format!("{} {}", found.value.to_string(), file.display())
    }

    #[test]
    fn version_2_names_the_group_that_is_tightest() {
        let dir = tree(&[
            ("a/memory.max", "2048\n"),
            ("a/memory.current", "1500\n"),
            ("a/cpu.max", "350000 100000\n"),
            ("a/b/memory.current", "512\n"),
            ("a/b/memory.max", "max\n"),
            ("a/b/memory.swap.max", "max\n"),
            ("a/b/memory.swap.current", "7\n"),
            ("a/b/cpu.max", "max 100000\n"),
            ("a/b/pids.max", "100\n"),
            ("a/b/pids.current", "3\n"),
        ]);
        let found = allowance_from("0::/a/b\n", &[mount(dir.path(), "cgroup2", "rw")], MACHINE, 8);
        assert_eq!((found.cpus.usable, found.cpus.affinity.value), (3, 8));
        assert_eq!(said(&found.cpus.quota, dir.path()), "3.5 a/cpu.max");
        assert_eq!(said(&found.memory.limit, dir.path()), "2048 a/memory.max");
        assert_eq!(said(&found.memory.used, dir.path()), "1500 a/memory.current");
        assert_eq!(said(&found.swap.limit, dir.path()), "0 /proc/meminfo");
        assert_eq!(said(&found.pids.limit, dir.path()), "100 a/b/pids.max");
        assert_eq!(said(&found.pids.used, dir.path()), "3 a/b/pids.current");
    }

    #[test]
    fn version_1_counts_swap_with_memory() {
        let dir = tree(&[
            ("memory/memory.usage_in_bytes", "512\n"),
            ("memory/memory.limit_in_bytes", "1024\n"),
            ("memory/memory.memsw.limit_in_bytes", "1536\n"),
            ("memory/memory.memsw.usage_in_bytes", "600\n"),
            ("cpu/cpu.cfs_quota_us", "50000\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
            ("pids/pids.current", "4\n"),
            ("pids/pids.max", "max\n"),
        ]);
        let mounts =
            ["memory", "cpu", "pids"].map(|name| mount(&dir.path().join(name), "cgroup", &format!("rw,{name}")));
        let machine = MACHINE.replace("0 kB", "9 kB");
        let found = allowance_from("4:memory:/\n3:pids:/\n1:cpu:/\n0::/\n", &mounts, &machine, 2);
        assert_eq!(found.cpus.usable, 1);
        assert_eq!(said(&found.cpus.quota, dir.path()), "0.5 cpu/cpu.cfs_quota_us");
        assert_eq!(said(&found.memory.limit, dir.path()), "1024 memory/memory.limit_in_bytes");
        assert_eq!(said(&found.swap.limit, dir.path()), "512 memory/memory.memsw.limit_in_bytes");
        assert_eq!(said(&found.swap.used, dir.path()), "88 memory/memory.memsw.usage_in_bytes");
        assert_eq!(said(&found.pids.limit, dir.path()), "none");
        assert_eq!(said(&found.pids.used, dir.path()), "4 pids/pids.current");
    }

    #[test]
    fn without_groups_it_is_the_machine() {
        let found = allowance_from("", &[], MACHINE, 4);
        assert_eq!((found.cpus.usable, found.cpus.quota), (4, None));
        assert_eq!(said(&found.memory.limit, Path::new("")), "4096 /proc/meminfo");
        assert_eq!(said(&found.memory.used, Path::new("")), "1024 /proc/meminfo");
        assert_eq!(found.pids, Bound::default());
    }

    #[test]
    fn placeholders_have_values() {
        assert!(export("cpus").unwrap().parse::<u64>().unwrap() >= 1);
        assert!(export("memory").unwrap().parse::<u64>().unwrap() > 1 << 20);
        assert_eq!(export("disk"), None);
    }
}
