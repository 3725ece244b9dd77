//! What a control group allows and has counted, version 1 and 2.

use std::{
    fs::{self, File},
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Mount, mounts};
use crate::base::Pid;

/// A process's control groups: the tightest limits up to the root that is seen, and its own counters.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Memory; `None` where no group counts it.
    pub memory: Option<Memory>,
    /// CPU time.
    pub cpu: Option<Cpu>,
}

/// Memory, in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// In use, page cache included.
    pub current: Option<u64>,
    /// What may be used.
    pub limit: Option<u64>,
    /// The most that ever was in use.
    pub peak: Option<u64>,
    /// How many processes the kernel has killed because of the limit.
    pub oom_kills: Option<u64>,
}

/// CPU time.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Cpu {
    /// How many CPUs' worth may be used.
    pub limit: Option<f64>,
    /// In how many periods it was stopped because the share was used up.
    pub throttled: Option<u64>,
    /// In how many periods it ran at all.
    pub periods: Option<u64>,
    /// For how long it was stopped, in all.
    pub throttled_us: Option<u64>,
}

/// The limits of `pid`.
pub fn limits(pid: Pid) -> Limits {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mounts = super::whole("/proc/self/mountinfo").map(|text| mounts::parse(&text)).unwrap_or_default();
    limits_from(&groups, &mounts)
}

/// From a `/proc/PID/cgroup`, and the mounts that show the groups.
pub fn limits_from(groups: &str, mounts: &[Mount]) -> Limits {
    let v2 = Group::find(groups, mounts, "");
    let has = |group: &Option<Group>, file: &str| group.as_ref().is_some_and(|group| group.has(file));
    // A group of version 2 may be there, in a hybrid, without any controller.
    let memory = if has(&v2, "memory.current") {
        v2.as_ref().map(Group::memory_v2)
    } else {
        Group::find(groups, mounts, "memory").filter(|group| group.has("memory.usage_in_bytes")).map(|g| g.memory_v1())
    };
    let cpu = if has(&v2, "cpu.max") {
        v2.as_ref().map(Group::cpu_v2)
    } else {
        Group::find(groups, mounts, "cpu").filter(|group| group.has("cpu.cfs_period_us")).map(|group| group.cpu_v1())
    };
    Limits { memory, cpu }
}

/// The directory of our own control group of this controller, where it is seen; the controller of version 2 has no name.
pub fn own_group(controller: &str) -> Option<PathBuf> {
    Some(own(controller)?.path)
}

/// The same, with the uppermost one above it.
pub(super) fn own(controller: &str) -> Option<Group> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = mounts::parse(&super::whole("/proc/self/mountinfo").ok()?);
    Group::find(&groups, &mounts, controller)
}

/// Where the kernel counts whom its OOM killer has ended in our memory group.
#[derive(Debug)]
pub struct OomCounter {
    group: Group,
    version: u8,
    /// Kept open: every job asks twice.
    file: File,
}

impl OomCounter {
    /// Ours; `None` where no memory group is seen.
    pub fn find() -> Option<OomCounter> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = mounts::parse(&super::whole("/proc/self/mountinfo").ok()?);
        let v2 = Group::find(&groups, &mounts, "").and_then(|group| OomCounter::of(group, 2));
        v2.or_else(|| OomCounter::of(Group::find(&groups, &mounts, "memory")?, 1))
    }

    /// That of a group of this version.
    pub fn at(path: &Path, version: u8) -> Option<OomCounter> {
        let is_group = |path: &&Path| path.join("cgroup.procs").exists();
        let top = path.ancestors().take_while(is_group).last().unwrap_or(path);
        OomCounter::of(Group { path: path.into(), top: top.into() }, version)
    }

    fn of(group: Group, version: u8) -> Option<OomCounter> {
        let name = if version == 2 { "memory.events" } else { "memory.oom_control" };
        let file = crate::sys::fd::open(&group.path.join(name)).ok()?;
        Some(OomCounter { group, version, file })
    }

    /// Its descriptor.
    pub fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// How many it has killed since the group was made. The counter grows before the signal is sent.
    pub fn kills(&self) -> u64 {
        let mut buffer = [0; 1024];
        let count = self.file.read_at(&mut buffer, 0).unwrap_or(0);
        field(&String::from_utf8_lossy(&buffer[..count]), "oom_kill").unwrap_or(0)
    }

    /// The limit that they ran into, bytes; `None` if there is none.
    pub fn limit(&self) -> Option<u64> {
        if self.version == 2 { self.group.memory_v2().limit } else { self.group.memory_v1().limit }
    }
}

/// A group's directory, and the uppermost one above it that is seen.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) path: PathBuf,
    top: PathBuf,
}

impl Group {
    /// Where the group of this controller is; the controller of version 2 has no name.
    pub(super) fn find(groups: &str, mounts: &[Mount], controller: &str) -> Option<Group> {
        let own = groups.lines().find_map(|line| {
            // hierarchy:controllers:path
            let mut fields = line.splitn(3, ':').skip(1);
            fields.next()?.split(',').any(|name| name == controller).then_some(fields.next()?)
        })?;
        let kind = if controller.is_empty() { "cgroup2" } else { "cgroup" };
        let has = |mount: &&Mount| {
            mount.kind == kind && (controller.is_empty() || mount.options.split(',').any(|option| option == controller))
        };
        let mount = mounts.iter().find(has)?;
        let top = mount.path.clone();
        // An engine may show only the container's own group, as if it were the root of all.
        let below = Path::new(own).strip_prefix(&mount.root).unwrap_or(Path::new(""));
        let path = top.join(below.strip_prefix("/").unwrap_or(below));
        Some(Group { path: if path.is_dir() { path } else { top.clone() }, top })
    }

    pub(super) fn has(&self, file: &str) -> bool {
        self.path.join(file).exists()
    }

    fn text(&self, file: &str) -> Option<String> {
        super::small(self.path.join(file)).ok()
    }

    pub(super) fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }

    /// The value behind a word in a file of `word value` lines.
    fn field(&self, file: &str, word: &str) -> Option<u64> {
        field(&self.text(file)?, word)
    }

    /// The least of what this group and those above it say.
    fn least<T: PartialOrd>(&self, read: impl Fn(&Group) -> Option<T>) -> Option<T> {
        Some(self.tightest(read)?.0)
    }

    /// The same, with the group that says it.
    pub(super) fn tightest<T: PartialOrd>(&self, read: impl Fn(&Group) -> Option<T>) -> Option<(T, Group)> {
        let above = self.path.ancestors().take_while(|path| path.starts_with(&self.top));
        let groups = above.map(|path| Group { path: path.into(), top: self.top.clone() });
        let values = groups.filter_map(|group| Some((read(&group)?, group)));
        values.reduce(|least, other| if other.0 < least.0 { other } else { least })
    }

    /// How many CPUs' worth of time it may have.
    pub(super) fn share_v2(&self) -> Option<f64> {
        let text = self.text("cpu.max")?;
        let (quota, period) = text.trim().split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    }

    /// Likewise.
    pub(super) fn share_v1(&self) -> Option<f64> {
        // -1 is no quota.
        let quota = self.number("cpu.cfs_quota_us")?;
        Some(quota as f64 / self.number("cpu.cfs_period_us")? as f64)
    }

    /// Bytes of a file of version 1, in which the largest number of pages is no limit.
    pub(super) fn bytes_v1(&self, file: &str) -> Option<u64> {
        self.number(file).filter(|bytes| *bytes < 1 << 60)
    }

    fn memory_v2(&self) -> Memory {
        Memory {
            current: self.number("memory.current"),
            limit: self.least(|group| group.number("memory.max")),
            peak: self.number("memory.peak"),
            oom_kills: self.field("memory.events", "oom_kill"),
        }
    }

    fn memory_v1(&self) -> Memory {
        Memory {
            current: self.number("memory.usage_in_bytes"),
            limit: self.least(|group| group.bytes_v1("memory.limit_in_bytes")),
            peak: self.number("memory.max_usage_in_bytes"),
            oom_kills: self.field("memory.oom_control", "oom_kill"),
        }
    }

    fn cpu_v2(&self) -> Cpu {
        Cpu {
            limit: self.least(Group::share_v2),
            throttled: self.field("cpu.stat", "nr_throttled"),
            periods: self.field("cpu.stat", "nr_periods"),
            throttled_us: self.field("cpu.stat", "throttled_usec"),
        }
    }

    fn cpu_v1(&self) -> Cpu {
        Cpu {
            limit: self.least(Group::share_v1),
            throttled: self.field("cpu.stat", "nr_throttled"),
            periods: self.field("cpu.stat", "nr_periods"),
            throttled_us: self.field("cpu.stat", "throttled_time").map(|nanoseconds| nanoseconds / 1000),
        }
    }
}

fn field(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok())
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

    fn mount(path: &Path, root: &str, kind: &str, options: &str) -> Mount {
        let line = format!("1 0 0:1 {root} {} rw - {kind} x {options}\n", path.display());
        mounts::parse(line.as_bytes()).remove(0)
    }

    #[test]
    fn version_2_has_the_tightest_limit_and_its_own_counters() {
        let dir = tree(&[
            ("a/memory.max", "1000\n"),
            ("a/cpu.max", "150000 100000\n"),
            ("a/b/memory.current", "512\n"),
            ("a/b/memory.max", "max\n"),
            ("a/b/memory.peak", "900\n"),
            ("a/b/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 9\n"),
            ("a/b/cpu.max", "max 100000\n"),
            ("a/b/cpu.stat", "usage_usec 5\nnr_periods 10\nnr_throttled 4\nthrottled_usec 1234\n"),
        ]);
        let found = limits_from("0::/a/b\n", &[mount(dir.path(), "/", "cgroup2", "rw")]);
        let memory = Memory { current: Some(512), limit: Some(1000), peak: Some(900), oom_kills: Some(2) };
        let cpu = Cpu { limit: Some(1.5), throttled: Some(4), periods: Some(10), throttled_us: Some(1234) };
        assert_eq!(found, Limits { memory: Some(memory), cpu: Some(cpu) });
    }

    #[test]
    fn version_1_is_read_where_an_engine_shows_only_the_containers_own_group() {
        let dir = tree(&[
            ("memory/memory.usage_in_bytes", "512\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.max_usage_in_bytes", "900\n"),
            ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"),
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
            ("cpu/cpu.stat", "nr_periods 1\nnr_throttled 0\nthrottled_time 5000\n"),
        ]);
        let mounts = [
            mount(&dir.path().join("memory"), "/docker/x", "cgroup", "rw,memory"),
            mount(&dir.path().join("cpu"), "/docker/x", "cgroup", "rw,cpu,cpuacct"),
        ];
        let groups = "4:memory:/docker/x\n1:cpu,cpuacct:/docker/x\n0::/\n";
        let memory = Memory { current: Some(512), limit: None, peak: Some(900), oom_kills: Some(7) };
        let cpu = Cpu { limit: None, throttled: Some(0), periods: Some(1), throttled_us: Some(5) };
        assert_eq!(limits_from(groups, &mounts), Limits { memory: Some(memory), cpu: Some(cpu) });
        assert_eq!(limits_from("", &[]), Limits::default());
    }
}
