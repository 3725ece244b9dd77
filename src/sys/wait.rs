//! Reaping.

use std::time::Duration;

use crate::base::{Exit, Pgid, Pid, Signal};

/// What the reaped children of this process used, and whatever those had reaped.
pub fn children_usage() -> Usage {
    use nix::sys::resource::{UsageWho, getrusage};
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(Usage::default(), |usage| Usage::from(usage.as_ref()))
}

/// Resources that processes used (`getrusage(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// The largest resident set of any one process.
    pub max_rss_bytes: u64,
}

impl From<&libc::rusage> for Usage {
    fn from(usage: &libc::rusage) -> Usage {
        let time = |time: libc::timeval| Duration::from_micros((time.tv_sec * 1_000_000 + time.tv_usec) as u64);
        Usage { user: time(usage.ru_utime), system: time(usage.ru_stime), max_rss_bytes: usage.ru_maxrss as u64 * 1024 }
    }
}

/// One answer of [`reap`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaped {
    /// This child has ended; what it used, with all that it had waited for.
    Child(Pid, Exit, Usage),
    /// This signal has stopped this child.
    Stopped(Pid, Signal),
    /// Children are there, and none has ended.
    NoneYet,
    /// There is no child: nothing is left below us.
    NoChild,
}

/// How many are reaped before something else has its turn: below who forks all the time there is always another one.
pub const AT_ONCE: usize = 1000;

/// Reaps one child that has ended. Never blocks. Called until it answers `NoneYet` or `NoChild`, because
/// any number of ends may stand behind one SIGCHLD.
pub fn reap() -> Reaped {
    loop {
        let mut status = 0;
        // SAFETY: plain numbers, for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both are valid for writing.
        let pid = unsafe { libc::wait4(-1, &mut status, libc::WNOHANG | libc::WUNTRACED | libc::__WALL, &mut usage) };
        return match Pid::new(pid) {
            Some(pid) => match exit(status) {
                Some(exit) => Reaped::Child(pid, exit, Usage::from(&usage)),
                None => match Signal::new(libc::WSTOPSIG(status)).filter(|_| libc::WIFSTOPPED(status)) {
                    Some(signal) => Reaped::Stopped(pid, signal),
                    None => continue,
                },
            },
            None if pid == 0 => Reaped::NoneYet,
            None => match nix::Error::last() {
                nix::Error::EINTR => continue,
                _ => Reaped::NoChild,
            },
        };
    }
}

/// Blocks until a child has ended, or has already. False: there is no child.
pub fn await_end() -> bool {
    loop {
        // SAFETY: a zeroed structure is valid to be overwritten.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOWAIT | libc::__WALL;
        // SAFETY: `info` is valid for writing.
        if unsafe { libc::waitid(libc::P_ALL, 0, &mut info, flags) } == 0 {
            return true;
        }
        if nix::Error::last() != nix::Error::EINTR {
            return false;
        }
    }
}

/// Reaps this child, if it has ended. Never blocks. True also if it is no child of ours, or is none any more.
pub fn has_ended(child: Pid) -> bool {
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    let pid = unsafe { libc::waitpid(child.get(), &mut status, libc::WNOHANG | libc::__WALL) };
    pid != 0
}

/// Whether there is a child, those of [`super::spawn::fork_aside`] left out. Reaps nobody.
pub fn has_children() -> bool {
    // SAFETY: a zeroed structure is valid to be overwritten.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid for writing.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
    result == 0 || nix::Error::last() != nix::Error::ECHILD
}

/// Whether a child of ours is in this process group, so that nobody else's has its number. Reaps nobody.
pub fn has_child_in(group: Pgid) -> bool {
    let Ok(id) = libc::id_t::try_from(group.get()) else { return false };
    // SAFETY: a zeroed structure is valid to be overwritten.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid for writing.
    let result = unsafe { libc::waitid(libc::P_PGID, id, &mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
    result == 0
}

fn exit(status: i32) -> Option<Exit> {
    if libc::WIFEXITED(status) {
        Some(Exit::Code(libc::WEXITSTATUS(status) as u8))
    } else if libc::WIFSIGNALED(status) {
        Signal::new(libc::WTERMSIG(status)).map(Exit::Signal)
    } else {
        None
    }
}
