//! Somebody else's output, written to without waiting and without changing it for those who share it.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    time::Duration,
};

use nix::sys::socket::{MsgFlags, send};

use super::{
    fd,
    poll::{Interest, wait_any},
};

/// `PIPE_BUF`: what a pipe that has room takes in one piece, and the longest message of a log's socket.
const PIECE: usize = 4096;

/// See the module's documentation.
#[derive(Debug)]
pub struct Outlet {
    fd: OwnedFd,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A pipe or terminal, opened again for a description of our own: `O_NONBLOCK` belongs to that.
    Own,
    /// It always takes something, or fails.
    File,
    /// It is told with each message not to wait.
    Socket,
    /// Another user's pipe: it is asked for room first, and waits only if somebody else takes that room.
    Shared,
}

impl Outlet {
    /// One for this descriptor.
    pub fn new(shared: BorrowedFd) -> io::Result<Outlet> {
        let file = File::from(shared.try_clone_to_owned()?);
        let kind = file.metadata()?.file_type();
        if kind.is_file() {
            return Ok(Outlet { fd: file.into(), kind: Kind::File });
        }
        if kind.is_socket() {
            return Ok(Outlet { fd: file.into(), kind: Kind::Socket });
        }
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_APPEND;
        let again = File::options().write(true).custom_flags(flags).open(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Ok(match again {
            Ok(own) if kind.is_fifo() || kind.is_char_device() => Outlet { fd: own.into(), kind: Kind::Own },
            _ => Outlet { fd: file.into(), kind: Kind::Shared },
        })
    }

    /// The descriptor to wait on for room; `None` where there is nothing to wait for.
    pub fn room(&self) -> Option<BorrowedFd<'_>> {
        (self.kind != Kind::File).then(|| self.fd.as_fd())
    }

    /// Its descriptor's number, for a child to keep.
    pub fn raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Writes what fits, one piece at most: `None` if nothing does now.
    pub fn write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        match self.kind {
            Kind::Own | Kind::File => fd::write(&self.fd, piece),
            Kind::Socket => match send(self.fd.as_raw_fd(), piece, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => Ok(Some(count)),
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Kind::Shared => match wait_any(&[(self.fd.as_fd(), Interest::Write)], Some(Duration::ZERO))?[..] {
                [true] => fd::write(&self.fd, piece),
                _ => Ok(None),
            },
        }
    }
}
