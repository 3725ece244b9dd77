//! What a process's children used and use.

use std::time::Duration;

use super::{below, small, stat::Stat};
use crate::{base::Pid, sys::process};

/// Bytes that processes read and wrote, as `/proc/PID/io` counts them: by system calls, and to and from storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Io {
    /// By system calls: read, written.
    pub chars: [u64; 2],
    /// From and to storage.
    pub bytes: [u64; 2],
}

/// What the children of this process that it has waited for read and wrote, and whatever those had waited for:
/// the kernel adds it to ours, so what our one thread did itself is taken off.
pub fn children_io() -> Option<Io> {
    let (all, own) = (small("/proc/self/io").ok()?, small("/proc/thread-self/io").ok()?);
    let less = |name| Some(counted(&all, name)?.saturating_sub(counted(&own, name)?));
    Some(Io { chars: [less("rchar:")?, less("wchar:")?], bytes: [less("read_bytes:")?, less("write_bytes:")?] })
}

fn counted(io: &str, name: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// What the processes below one use at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// CPU time that they and those they waited for have used so far.
    pub cpu: Duration,
    /// Resident memory, bytes; shared pages count for each.
    pub rss_bytes: u64,
    /// How many they are.
    pub processes: u64,
}

/// The load of everything below `root`.
pub fn load_below(root: Pid) -> Option<Load> {
    let (ticks, page) = (process::ticks_per_second(), process::page_size());
    let mut load = Load::default();
    for process in below(root)?.iter().filter(|process| !process.is_dead()) {
        let Ok(stat) = Stat::of(process.id.pid) else { continue };
        load.cpu += Duration::from_millis(stat.cpu_ticks * 1000 / ticks);
        load.rss_bytes += stat.rss * page;
        load.processes += 1;
    }
    Some(load)
}

/// What the whole machine has still to write to its filesystems, from `/proc/meminfo`.
pub fn dirty() -> Option<String> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_string());
    Some(format!("on this machine {} are dirty, {} are being written", of("Dirty:")?, of("Writeback:")?))
}
