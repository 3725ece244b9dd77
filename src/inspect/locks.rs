//! File locks, as `/proc/locks` and the `lock:` lines of fdinfo have them (proc_locks(5)).

use std::{fmt, fs};

use serde::{Deserialize, Serialize};

use crate::base::Pid;

/// A lock on a file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Lock {
    /// `POSIX`, `FLOCK`, `OFDLCK`, `LEASE`, ...
    pub kind: String,
    /// `READ` or `WRITE`.
    pub access: String,
    /// First byte.
    pub start: String,
    /// Last byte, or `EOF`.
    pub end: String,
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {} lock", self.kind, self.access.to_ascii_lowercase())?;
        match (self.start.as_str(), self.end.as_str()) {
            ("0", "EOF") => Ok(()),
            (start, end) => write!(f, " {start}-{end}"),
        }
    }
}

/// A lock with whose and on what it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Locked {
    /// Its number in the list: who waits for it has the same.
    pub number: u64,
    /// It is not had, but waited for.
    pub waits: bool,
    /// The lock.
    pub lock: Lock,
    /// Who took it; `None` where that is no process of this PID namespace, or the open file's own lock.
    pub pid: Option<Pid>,
    /// The file's device, `major:minor` in decimal as mountinfo writes it.
    pub device: String,
    /// The file's inode.
    pub inode: u64,
}

/// Every lock that this PID namespace may see.
pub fn locks() -> std::io::Result<Vec<Locked>> {
    Ok(parse(&fs::read_to_string("/proc/locks")?))
}

/// Reads `/proc/locks`.
pub(super) fn parse(text: &str) -> Vec<Locked> {
    text.lines().filter_map(line).collect()
}

/// `1: [->] FLOCK ADVISORY WRITE 359 00:13:11691 0 EOF`, with or without `lock:` before it. Device in hexadecimal.
pub(super) fn line(line: &str) -> Option<Locked> {
    let line = line.strip_prefix("lock:").unwrap_or(line);
    let mut words = line.split_whitespace().peekable();
    let number = words.next()?.strip_suffix(':')?.parse().ok()?;
    let waits = words.next_if_eq(&"->").is_some();
    let kind = words.next()?.to_string();
    // ADVISORY, MANDATORY, or what a lease is doing.
    words.next()?;
    let access = words.next()?.to_string();
    let pid = words.next()?.parse().ok().and_then(Pid::new);
    let mut file = words.next()?.split(':');
    let mut hexadecimal = || u32::from_str_radix(file.next()?, 16).ok();
    let device = format!("{}:{}", hexadecimal()?, hexadecimal()?);
    let inode = file.next()?.parse().ok()?;
    let (start, end) = (words.next()?.to_string(), words.next()?.to_string());
    Some(Locked { number, waits, lock: Lock { kind, access, start, end }, pid, device, inode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_read_with_who_waits_for_them() {
        let text = "1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 0 EOF\n\
                    1: -> POSIX  ADVISORY  READ 3570 fd:00:2531452 5 9\n\
                    2: OFDLCK ADVISORY  READ -1 00:06:1028 0 EOF\n\
                    3: LEASE  ACTIVE    READ  12 00:32:7 0 EOF\n\
                    nonsense\n";
        let locks = parse(text);
        assert_eq!(locks.len(), 4);
        let first = &locks[0];
        assert_eq!((first.number, first.waits, first.device.as_str(), first.inode), (1, false, "253:0", 2531452));
        assert_eq!(first.pid, Pid::new(3568));
        assert_eq!(first.lock.to_string(), "POSIX write lock");
        assert_eq!((locks[1].waits, locks[1].number), (true, 1));
        assert_eq!(locks[1].lock.to_string(), "POSIX read lock 5-9");
        assert_eq!((locks[2].pid, locks[2].device.as_str()), (None, "0:6"));
        let line = line("lock:\t1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF").unwrap();
        assert_eq!((line.device.as_str(), line.inode), ("0:19", 11691));
    }
}
