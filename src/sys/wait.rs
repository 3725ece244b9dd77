//! Reaping.

use crate::base::{Exit, Pid, Signal};

/// What the children of this process used, reaped ones and what those had reaped.
pub fn children_usage() -> nix::Result<nix::sys::resource::Usage> {
    nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)
}

/// One answer of [`reap`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaped {
    /// This child has ended.
    Child(Pid, Exit),
    /// Children are there, and none has ended.
    NoneYet,
    /// There is no child: nothing is left below us.
    NoChild,
}

/// Reaps one child that has ended. Never blocks. Called until it answers otherwise than `Child`, because
/// any number of ends may stand behind one SIGCHLD.
pub fn reap() -> Reaped {
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for writing.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::__WALL) };
        return match Pid::new(pid) {
            Some(pid) => match exit(status) {
                Some(exit) => Reaped::Child(pid, exit),
                None => continue,
            },
            None if pid == 0 => Reaped::NoneYet,
            None => match nix::Error::last() {
                nix::Error::EINTR => continue,
                _ => Reaped::NoChild,
            },
        };
    }
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
