//! The terminal's foreground.

use crate::base::Pid;

/// Whether standard input is our terminal and we are in its foreground, so that main should be.
pub fn is_foreground() -> bool {
    nix::unistd::tcgetpgrp(super::fd::standard(0)).is_ok_and(|group| group == nix::unistd::getpgrp())
}

/// Puts `leader`'s process group into the foreground. SIGTTOU is blocked by the caller, or the call would
/// stop it.
pub fn give_foreground(leader: Pid) {
    let _ = nix::unistd::tcsetpgrp(super::fd::standard(0), nix::unistd::Pid::from_raw(leader.get()));
}

/// Takes the foreground back for our own process group.
pub fn take_foreground() {
    let _ = nix::unistd::tcsetpgrp(super::fd::standard(0), nix::unistd::getpgrp());
}
