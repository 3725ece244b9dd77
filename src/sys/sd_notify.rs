//! The socket on which a service says how it is (`sd_notify(3)`).

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, bind, recvmsg,
    setsockopt, socket, sockopt::PassCred,
};

use super::process;
use crate::base::Pid;

/// The longest message that is read whole.
const LARGEST: usize = 4096;

/// Who has sent a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    /// Its process; it may have ended meanwhile.
    pub pid: Pid,
    /// Its user.
    pub uid: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct NotifySocket {
    fd: OwnedFd,
    address: String,
}

impl NotifySocket {
    /// A new one at an abstract address that nobody can guess.
    pub fn open() -> io::Result<NotifySocket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        // Before it can be found: each message has its sender.
        setsockopt(&fd, PassCred, &true)?;
        let mut random = [0; 16];
        process::random(&mut random)?;
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("lastout/{name}");
        bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
        Ok(NotifySocket { fd, address: format!("@{name}") })
    }

    /// As `NOTIFY_SOCKET` has it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// To wait on.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The next message and its sender, as the kernel tells. Never blocks. Descriptors that come along are closed.
    pub fn receive(&self) -> Option<(Option<Sender>, Vec<u8>)> {
        let mut bytes = [0; LARGEST];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        // What does not fit the kernel closes.
        let mut control = nix::cmsg_space!(UnixCredentials, [RawFd; 16]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let (count, sender) = {
            let message = recvmsg::<UnixAddr>(self.fd.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
            let mut sender = None;
            for control in message.cmsgs().ok().into_iter().flatten() {
                match control {
                    ControlMessageOwned::ScmCredentials(who) => {
                        sender = Pid::new(who.pid()).map(|pid| Sender { pid, uid: who.uid() });
                    }
                    ControlMessageOwned::ScmRights(fds) => {
                        for fd in fds {
                            // SAFETY: the kernel has just made it for us, and nobody else knows it.
                            drop(unsafe { OwnedFd::from_raw_fd(fd) });
                        }
                    }
                    _ => {}
                }
            }
            (message.bytes, sender)
        };
        Some((sender, bytes[..count].to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::{
        fd::AsFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    };

    use nix::sys::socket::{ControlMessage, sendmsg};

    use super::*;

    #[test]
    fn a_message_has_its_sender_and_what_comes_along_is_closed() {
        let ours = NotifySocket::open().unwrap();
        let name = ours.address().strip_prefix('@').unwrap();
        let theirs = UnixDatagram::unbound().unwrap();
        theirs.connect_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        theirs.send(b"READY=1").unwrap();
        assert_eq!(
            ours.receive(),
            Some((Some(Sender { pid: process::me(), uid: process::uid() }), b"READY=1".to_vec()))
        );
        let (mut read, write) = std::io::pipe().unwrap();
        let fds = [write.as_fd().as_raw_fd()];
        let parts = [io::IoSlice::new(b"BARRIER=1")];
        let control = [ControlMessage::ScmRights(&fds)];
        sendmsg::<UnixAddr>(theirs.as_raw_fd(), &parts, &control, MsgFlags::empty(), None).unwrap();
        drop(write);
        assert!(ours.receive().is_some());
        assert_eq!(std::io::Read::read(&mut read, &mut [0]).unwrap(), 0, "nobody holds it any more");
        assert_eq!(ours.receive(), None);
    }
}
