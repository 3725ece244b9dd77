//! Knowing when a process ends that is not our child.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use crate::base::{Pid, Signal};

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

/// Sends a signal to the process that a descriptor stands for, and to no other that has its number now. Linux 5.1.
pub fn send(pidfd: &OwnedFd, signal: Signal) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, and a null pointer asks for what kill(2) would send.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal.get(), none, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
