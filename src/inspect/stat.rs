//! `/proc/PID/stat` (proc_pid_stat(5)), as far as anybody here asks.

use std::io;

use super::bytes;
use crate::base::Pid;

/// A process, or one thread of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stat {
    pub(super) pid: i32,
    pub(super) comm: String,
    pub(super) state: char,
    pub(super) ppid: i32,
    pub(super) pgrp: i32,
    pub(super) session: i32,
    pub(super) flags: u32,
    /// In user and kernel mode, by it and by the children that it has waited for; in clock ticks.
    pub(super) cpu_ticks: u64,
    pub(super) num_threads: i64,
    pub(super) starttime: u64,
    /// In pages.
    pub(super) rss: u64,
    /// The CPU that it was last on.
    pub(super) processor: i32,
}

impl Stat {
    pub(super) fn of(pid: Pid) -> io::Result<Stat> {
        Stat::at(&format!("/proc/{pid}"))
    }

    /// Of a directory of a process or thread.
    pub(super) fn at(base: &str) -> io::Result<Stat> {
        let mut buffer = [0; 4096];
        Stat::parse(bytes(format!("{base}/stat"), &mut buffer)?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// `pid (comm) state ppid ...`: the name may have spaces and parentheses, and any bytes.
    fn parse(line: &[u8]) -> Option<Stat> {
        let begin = line.iter().position(|b| *b == b'(')?;
        let end = line.iter().rposition(|b| *b == b')')?;
        let mut rest = std::str::from_utf8(line.get(end + 1..)?).ok()?.split_ascii_whitespace();
        // They are taken in their order. The manual page counts from 1, and the state is its third.
        let mut next = 3;
        let mut field = |number: usize| rest.nth(number - std::mem::replace(&mut next, number + 1));
        Some(Stat {
            pid: std::str::from_utf8(&line[..begin]).ok()?.trim().parse().ok()?,
            comm: String::from_utf8_lossy(line.get(begin + 1..end)?).into_owned(),
            state: field(3)?.chars().next()?,
            ppid: field(4)?.parse().ok()?,
            pgrp: field(5)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            flags: field(9)?.parse().ok()?,
            cpu_ticks: (14..=17).filter_map(|at| field(at)?.parse::<u64>().ok()).sum(),
            num_threads: field(20)?.parse().ok()?,
            starttime: field(22)?.parse().ok()?,
            rss: field(24)?.parse().ok()?,
            processor: field(39).and_then(|cpu| cpu.parse().ok()).unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_rest() {
        let line = b"42 (a) R 1 (\xff) S 7 42 40 34817 42 4194560 5 6 7 8 100 20 3 4 20 0 2 0 12345 9000 321 \
            18446744073709551615 1 2 3 4 5 0 0 4096 0 0 0 0 17 5 0 0\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.pid, stat.comm.as_str(), stat.state, stat.ppid), (42, "a) R 1 (\u{fffd}", 'S', 7));
        assert_eq!((stat.pgrp, stat.session, stat.flags, stat.cpu_ticks), (42, 40, 4_194_560, 127));
        assert_eq!((stat.num_threads, stat.starttime, stat.rss, stat.processor), (2, 12345, 321, 5));
        for torn in [&b""[..], b"42 (x", b"42 (x) S 1 2", b") ("] {
            assert_eq!(Stat::parse(torn), None);
        }
    }

    #[test]
    fn we_are_there() {
        let stat = Stat::at("/proc/self").unwrap();
        assert_eq!(stat.pid, std::process::id() as i32);
        assert!(stat.num_threads > 0 && stat.rss > 0 && stat.starttime > 0);
    }
}
