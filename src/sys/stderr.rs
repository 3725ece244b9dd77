//! Log lines to standard error that never wait: what does not fit is lost and counted.
//!
//! A file always takes them, and a file on a volume that hangs never: see [`hand_over`].

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, RawFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    sync::atomic::{AtomicI32, AtomicU64, Ordering},
    time::Duration,
};

use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};

use super::{
    fd, mount,
    poll::{Interest, wait_any},
    process, spawn,
};
use crate::base::Pid;

/// `PIPE_BUF`: what a pipe that has room takes in one piece.
const PIECE: usize = 4096;

static LOST: AtomicU64 = AtomicU64::new(0);
/// The log's own descriptor, which `fd::close_all_but` must leave alone; -1: none.
static OWN: AtomicI32 = AtomicI32::new(-1);

/// The descriptor that log lines are written to, if it is not standard error itself.
pub(super) fn own() -> Option<RawFd> {
    Some(OWN.load(Ordering::Relaxed)).filter(|fd| *fd >= 0)
}

/// Writes whole lines to standard error, or loses them.
///
/// `O_NONBLOCK` belongs to the open file description, which main shares: pipes and terminals are opened
/// again for a description of our own. What cannot be opened again (a socket, another user's pipe) is
/// asked for room first.
#[derive(Debug, Default)]
pub struct Stderr {
    own: Option<File>,
    tried: bool,
}

impl Stderr {
    /// One that has written nothing yet.
    pub const fn new() -> Stderr {
        Stderr { own: None, tried: false }
    }

    fn reopen() -> Option<File> {
        let duplicate = File::from(fd::standard(2).try_clone_to_owned().ok()?);
        let kind = duplicate.metadata().ok()?.file_type();
        if !kind.is_fifo() && !kind.is_char_device() {
            return None;
        }
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_APPEND;
        File::options().write(true).custom_flags(flags).open("/proc/self/fd/2").ok()
    }

    fn write_line(&mut self, line: &[u8]) -> bool {
        if !std::mem::replace(&mut self.tried, true) {
            self.own = Stderr::reopen();
            OWN.store(self.own.as_ref().map_or(-1, AsRawFd::as_raw_fd), Ordering::Relaxed);
        }
        if let Some(own) = &self.own {
            return matches!(fd::write(own, line), Ok(Some(count)) if count == line.len());
        }
        let error = fd::standard(2);
        let room = wait_any(&[(error, Interest::Write)], Some(Duration::ZERO)).is_ok_and(|ready| ready == [true]);
        room && matches!(fd::write(error.as_fd(), &line[..line.len().min(PIECE)]), Ok(Some(_)))
    }
}

/// If standard error is a file on a volume that may hang, gives it to a process of its own, which writes there what
/// comes through a socket; that becomes our standard error, and that of whatever we fork. Answers with the process.
///
/// Nothing else of ours is to have the file open: FUSE and NFS may block every `close`, also that of a process that
/// ends. The process is no ordinary child (see [`spawn::fork_aside`]).
pub fn hand_over() -> io::Result<Option<Pid>> {
    let error = fd::standard(2);
    if !mount::may_hang(error) {
        return Ok(None);
    }
    let (theirs, ours) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let pid = spawn::fork_aside(|| {
        process::set_name("lastout-log");
        fd::close_all_but(&[theirs.as_raw_fd()]);
        let mut line = [0; PIECE];
        while let Ok(Some(count @ 1..)) = fd::read(&theirs, &mut line) {
            // What a volume does not take is lost.
            let _ = fd::write(error, &line[..count]);
        }
        0
    })?;
    fd::set_nonblocking(&ours, true)?;
    // SAFETY: 2 belongs to no `OwnedFd`.
    match unsafe { libc::dup2(ours.as_raw_fd(), 2) } {
        2 => Ok(Some(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Nothing more is said: the process of [`hand_over`] ends when it has written what is on its way.
pub fn hang_up() {
    let _ = shutdown(2, Shutdown::Write);
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost = LOST.swap(0, Ordering::Relaxed);
        if lost > 0
            && !self.write_line(format!("lastout: {lost} log lines were lost: standard error was full\n").as_bytes())
        {
            LOST.fetch_add(lost + 1, Ordering::Relaxed);
        } else if !self.write_line(line) {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
