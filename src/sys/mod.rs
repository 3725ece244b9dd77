//! The only home of `unsafe`, `libc` and `nix`: one small module for each thing of the system.
//!
//! Functions here do one thing and decide nothing. What may block says so.
#![allow(unsafe_code)]

pub mod clock;
pub mod dir;
pub mod disposable;
pub mod fd;
mod interpreter;
pub mod late;
pub mod limits;
pub mod link;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod notify;
pub mod outlet;
pub mod pidfd;
pub mod poll;
pub mod process;
pub mod sd_notify;
pub mod signals;
pub mod spawn;
pub mod splice;
pub mod start;
pub mod stderr;
pub mod syscalls;
pub mod tty;
pub mod wait;

use crate::base::Errno;

/// Whether this failed because the system is short of something, or was interrupted: it may work a moment later.
pub fn is_shortage(error: &std::io::Error) -> bool {
    const SHORT: [i32; 7] =
        [libc::EAGAIN, libc::EINTR, libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ENOSPC];
    error.raw_os_error().is_some_and(|errno| SHORT.contains(&errno))
}

/// The number behind an error of the standard library.
pub fn errno(error: &std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}
