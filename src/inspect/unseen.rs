use std::{fmt, fs, io};

use serde::{Deserialize, Serialize};

use crate::{
    base::{Errno, Pid},
    sys::process,
};

/// What could not be inspected. It is never to be taken for clean.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Unseen {
    /// The process.
    pub pid: Pid,
    /// Its command's name.
    pub comm: String,
    /// What of it.
    pub what: String,
    /// Why, and what it would take.
    pub why: String,
}

impl Unseen {
    /// For what `/proc` refused; `None` if the process has just gone.
    pub fn new(pid: Pid, comm: &str, what: &str, error: &io::Error) -> Option<Unseen> {
        let gone = error.kind() == io::ErrorKind::NotFound || crate::sys::errno(error) == Errno::ESRCH;
        (!gone).then(|| Unseen { pid, comm: comm.into(), what: what.into(), why: why(pid, error) })
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "cannot inspect {} of pid {} ({}): {}", self.what, self.pid, self.comm, self.why)
    }
}

/// Why `/proc` refused, and what it would take (`ptrace_may_access` in kernel/ptrace.c: the same ids and no more
/// capabilities and dumpable, or CAP_SYS_PTRACE in its user namespace).
pub(super) fn why(pid: Pid, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            refused(uid(&status), process::uid())
        }
        _ => crate::sys::errno(error).to_string(),
    }
}

fn refused(its: Option<u32>, ours: u32) -> String {
    match its {
        Some(its) if its != ours => {
            format!("it runs as uid {its} and we as uid {ours}: needs CAP_SYS_PTRACE, or its uid")
        }
        Some(_) | None => "it has more capabilities than we, or is not dumpable: needs CAP_SYS_PTRACE".into(),
    }
}

/// The real user id in a `status`.
fn uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_it_would_take() {
        assert_eq!(uid("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(1000));
        assert!(refused(Some(1000), 0).contains("uid 1000"));
        assert!(refused(Some(0), 0).contains("more capabilities"));
    }
}
