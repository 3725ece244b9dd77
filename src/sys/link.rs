//! The socket pair between the init and a keeper: whole messages, and end-of-file when one side has died.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

/// One end.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// The longest message; commands in notices are shortened to fit.
const LARGEST: usize = 8192;

/// What [`Link::receive`] found.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message(Vec<u8>),
    /// None now.
    Nothing,
    /// The other side has gone.
    Gone,
}

impl Link {
    /// Two connected ends, closed on exec.
    pub fn pair() -> io::Result<(Link, Link)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Link(a), Link(b)))
    }

    /// Its descriptor.
    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Sends one message. Never blocks: a queue that is full is an error.
    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }

    /// The next message. Never blocks.
    pub fn receive(&self) -> Received {
        let mut buffer = [0; LARGEST];
        let mut receive = || recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
        // The other side has gone and had not read all from us: that is told once, and before what it had said
        // (unix_release_sock in net/unix/af_unix.c).
        let received = match receive() {
            Err(nix::Error::ECONNRESET) => receive(),
            other => other,
        };
        match received {
            Ok(0) => Received::Gone,
            Ok(size) => Received::Message(buffer[..size].to_vec()),
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => Received::Nothing,
            Err(_) => Received::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_before_the_end_arrives_though_an_order_crossed_it() {
        let (ours, theirs) = Link::pair().unwrap();
        theirs.send(b"ended").unwrap();
        ours.send(b"stop").unwrap();
        drop(theirs);
        assert!(matches!(ours.receive(), Received::Message(message) if message == b"ended"));
        assert!(matches!(ours.receive(), Received::Gone));
    }
}
