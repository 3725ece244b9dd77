//! The terminal's foreground.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use crate::base::Pid;

/// Our terminal, if standard input is it and we are in its foreground, so that main should be. `anywhere`: also
/// where standard input is something else.
pub fn foreground_terminal(anywhere: bool) -> Option<OwnedFd> {
    let terminal =
        super::fd::standard(0).try_clone_to_owned().ok().filter(|input| nix::unistd::tcgetpgrp(input).is_ok());
    let terminal = terminal.or_else(|| controlling().filter(|_| anywhere))?;
    (nix::unistd::tcgetpgrp(&terminal).ok()? == nix::unistd::getpgrp()).then_some(terminal)
}

/// Our session's terminal.
pub fn controlling() -> Option<OwnedFd> {
    Some(std::fs::File::options().read(true).write(true).open("/dev/tty").ok()?.into())
}

/// Has our process give up the terminal that standard input is. True if we lead its session: then the kernel sends
/// SIGHUP and SIGCONT to its foreground, us included (tty_ioctl(4)).
pub fn leave() -> bool {
    // SAFETY: the request takes no argument.
    let left = unsafe { libc::ioctl(0, libc::TIOCNOTTY) } == 0;
    left && nix::unistd::getsid(None) == Ok(nix::unistd::getpid())
}

/// Makes the terminal that standard input is that of our session, which we lead and which has none.
pub fn take_control() -> io::Result<()> {
    // SAFETY: the request takes a number.
    match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts `leader`'s process group into the foreground. SIGTTOU is blocked by the caller, or the call would
/// stop it.
pub fn give_foreground(terminal: impl AsFd, leader: Pid) -> io::Result<()> {
    Ok(nix::unistd::tcsetpgrp(terminal, nix::unistd::Pid::from_raw(leader.get()))?)
}

/// Takes the foreground back for our own process group.
pub fn take_foreground(terminal: impl AsFd) -> io::Result<()> {
    Ok(nix::unistd::tcsetpgrp(terminal, nix::unistd::getpgrp())?)
}
