//! Waiting for descriptors: `Poller` (epoll) where there may be thousands, [`wait_any`] (poll) for a handful.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

/// An epoll instance whose entries carry a number.
#[derive(Debug)]
pub struct Poller(Epoll);

impl Poller {
    /// A new one, closed on exec.
    pub fn new() -> io::Result<Poller> {
        Ok(Poller(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Its descriptor.
    pub fn fd(&self) -> &OwnedFd {
        &self.0.0
    }

    /// Reports `token` when `fd` can be read or has come to its end. Closing the descriptor ends it.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Reports `token` when the other side of `fd` has gone, and never otherwise.
    pub fn add_hangup(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(EpollFlags::empty(), token))?)
    }

    /// Forgets `fd`.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.0.delete(fd)?)
    }

    /// Waits until something is there or the time is over (`None`: for ever), and passes on the tokens.
    pub fn wait(&self, timeout: Option<Duration>, mut each: impl FnMut(u64)) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let timeout = milliseconds(timeout);
        let timeout = EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::MAX);
        match self.0.wait(&mut events, timeout) {
            Ok(count) => events[..count].iter().for_each(|event| each(event.data())),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Rounded up, so that a deadline has come when the wait ends; -1 for ever.
fn milliseconds(timeout: Option<Duration>) -> i32 {
    let round = |time: Duration| i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    timeout.map_or(-1, round)
}

/// What to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Something to read, or the end.
    Read,
    /// Room to write, or nobody who reads.
    Write,
    /// Only that the other side has gone.
    Hangup,
    /// A change of what `/proc/self/mountinfo` has, for which one waits so (proc_pid_mounts(5)).
    Priority,
}

/// Waits until there is something to read, or for anything else: whoever calls this looks. It allocates nothing.
pub fn wait_readable(fd: impl AsFd) {
    let _ = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
}

/// Waits for any of a few descriptors; answers which are ready.
pub fn wait_any(fds: &[(BorrowedFd, Interest)], timeout: Option<Duration>) -> io::Result<Vec<bool>> {
    let flags = |interest| match interest {
        Interest::Read => PollFlags::POLLIN,
        Interest::Write => PollFlags::POLLOUT,
        Interest::Hangup => PollFlags::empty(),
        Interest::Priority => PollFlags::POLLPRI,
    };
    // Before what is only needed here: freed in the opposite order, see `memory`.
    let mut ready = vec![false; fds.len()];
    let mut polled: Vec<PollFd> = fds.iter().map(|(fd, interest)| PollFd::new(*fd, flags(*interest))).collect();
    let timeout = PollTimeout::try_from(milliseconds(timeout)).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, timeout) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    for (ready, fd) in ready.iter_mut().zip(&polled) {
        *ready = fd.revents().is_some_and(|events| !events.is_empty());
    }
    Ok(ready)
}
