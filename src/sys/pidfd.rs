//! Knowing when a process ends that is not our child.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use crate::base::Pid;

/// A descriptor that becomes readable when the whole process (every thread) has ended. Linux 5.3.
pub fn open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.get(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
