//! The socket pair between the init and a keeper: whole messages, and end-of-file when one side has died.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};

/// One end.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// The longest message; commands in notices are shortened to fit.
const LARGEST: usize = 8192;
/// How often to ask the kernel for a message.
const ATTEMPTS: u32 = 10;

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
        // Not filled with zeros: messages are short, and pages that nobody touches cost nothing.
        let mut buffer = [MaybeUninit::<u8>::uninit(); LARGEST];
        // A shortage is not the other side's end, and the last message may stand behind it.
        for _ in 0..ATTEMPTS {
            // SAFETY: the buffer is valid for writing as many bytes.
            let size =
                unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), LARGEST, libc::MSG_DONTWAIT) };
            return match nix::Error::result(size) {
                Ok(0) => Received::Gone,
                // SAFETY: the kernel has filled that much of it.
                Ok(size) => Received::Message(
                    unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), size as usize) }.to_vec(),
                ),
                Err(nix::Error::EAGAIN) => Received::Nothing,
                Err(error) if super::is_shortage(&error.into()) => continue,
                // The other side has gone without reading all that we sent: said once, before its last messages.
                Err(nix::Error::ECONNRESET) => continue,
                Err(_) => Received::Gone,
            };
        }
        Received::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_of_one_who_did_not_read_ours_is_heard() {
        let (ours, theirs) = Link::pair().unwrap();
        ours.send(b"an order").unwrap();
        theirs.send(b"last words").unwrap();
        drop(theirs);
        assert!(matches!(ours.receive(), Received::Message(words) if words == b"last words"));
        assert!(matches!(ours.receive(), Received::Gone));
    }
}
