//! Moving bytes between two descriptors, inside the kernel where it can.

use std::{io, os::fd::AsFd};

use nix::fcntl::{SpliceFFlags, splice};

/// What [`move_some`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moved {
    /// So many bytes.
    Bytes(usize),
    /// Nothing: the source has none now, or the target no room.
    Nothing,
    /// The source has come to its end.
    End,
    /// This pair cannot be spliced (a terminal, a file opened for appending): read and write instead.
    Unsupported,
}

/// Moves some bytes; one of the two is a pipe. Does not wait for a pipe or socket; a file or terminal as
/// target may block.
pub fn move_some(from: impl AsFd, to: impl AsFd) -> io::Result<Moved> {
    match splice(from, None, to, None, 1 << 20, SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE) {
        Ok(0) => Ok(Moved::End),
        Ok(count) => Ok(Moved::Bytes(count)),
        Err(nix::Error::EAGAIN | nix::Error::EINTR) => Ok(Moved::Nothing),
        Err(nix::Error::EINVAL | nix::Error::ENOSYS) => Ok(Moved::Unsupported),
        Err(error) => Err(error.into()),
    }
}
