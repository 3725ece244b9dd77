//! The terminal's foreground.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use crate::base::Pid;

/// Our terminal, if standard input is it and we are in its foreground, so that main should be.
pub fn foreground_terminal() -> Option<OwnedFd> {
    let group = nix::unistd::tcgetpgrp(super::fd::standard(0)).ok()?;
    if group != nix::unistd::getpgrp() {
        return None;
    }
    super::fd::standard(0).try_clone_to_owned().ok()
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
