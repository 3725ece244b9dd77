//! Moving a stream from one descriptor to another without ever waiting for the one while the other is ready.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use crate::sys::{
    fd,
    poll::{Interest, wait_any},
    splice::{Moved, move_some},
};

/// A move of so many bytes says that larger pipes would help.
const MUCH: usize = 32 * 1024;

/// One stream: between a FIFO of a request's and one of our own standard descriptors.
#[derive(Debug)]
pub(super) struct Pump {
    fifo: OwnedFd,
    own: BorrowedFd<'static>,
    /// Which of the two is the source.
    fifo_is_source: bool,
    /// Read and not yet written, where the kernel cannot splice.
    pending: Vec<u8>,
    spliceable: bool,
    /// There is something, and the target has no room.
    blocked: bool,
    enlarged: bool,
    ended: bool,
    /// When something came last.
    last: Option<Instant>,
}

impl Pump {
    /// From standard input into a FIFO.
    pub(super) fn into(fifo: OwnedFd) -> Pump {
        Pump::new(fifo, fd::standard(0), false)
    }

    /// From a FIFO to standard output or error.
    pub(super) fn out_of(fifo: OwnedFd, number: u8) -> Pump {
        Pump::new(fifo, fd::standard(number), true)
    }

    fn new(fifo: OwnedFd, own: BorrowedFd<'static>, fifo_is_source: bool) -> Pump {
        Pump {
            fifo,
            own,
            fifo_is_source,
            pending: Vec::new(),
            spliceable: true,
            blocked: false,
            enlarged: false,
            ended: false,
            last: None,
        }
    }

    fn from(&self) -> BorrowedFd<'_> {
        if self.fifo_is_source { self.fifo.as_fd() } else { self.own }
    }

    fn to(&self) -> BorrowedFd<'_> {
        if self.fifo_is_source { self.own } else { self.fifo.as_fd() }
    }

    /// What to wait for; `None` when it has ended.
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, Interest)> {
        if self.ended {
            None
        } else if self.blocked || !self.pending.is_empty() {
            Some((self.to(), Interest::Write))
        } else {
            Some((self.from(), Interest::Read))
        }
    }

    /// Whether it waits for its source, not for its target.
    pub(super) fn is_idle(&self) -> bool {
        !self.blocked && self.pending.is_empty()
    }

    /// Whether the source has come to its end and everything was passed on.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// When something was moved last.
    pub(super) fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Moves what can be moved now. To be called when what it waits for is ready. An error is the target's.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        if self.spliceable {
            match move_some(self.from(), self.to())? {
                Moved::Bytes(count) => {
                    self.blocked = false;
                    self.last = Some(Instant::now());
                    self.enlarge(count);
                    return Ok(());
                }
                Moved::Nothing => {
                    // A target without room says so even if there is nothing to move, or never will be.
                    self.blocked = !fd::is_empty(self.from());
                    self.ended = !self.blocked && self.has_no_writer()?;
                    return Ok(());
                }
                Moved::End => {
                    self.ended = true;
                    return Ok(());
                }
                Moved::Unsupported => self.spliceable = false,
            }
        }
        self.blocked = false;
        if self.pending.is_empty() {
            let mut buffer = vec![0; 64 * 1024];
            match fd::read(self.from(), &mut buffer) {
                Ok(Some(0)) | Err(_) => self.ended = true,
                Ok(Some(count)) => {
                    buffer.truncate(count);
                    self.pending = buffer;
                    self.last = Some(Instant::now());
                    self.enlarge(count);
                }
                Ok(None) => {}
            }
        }
        if !self.pending.is_empty()
            && let Some(count) = fd::write(self.to(), &self.pending)?
        {
            self.pending.drain(..count);
        }
        Ok(())
    }

    /// For a FIFO as source: whether its end has come. Others say it by reading.
    fn has_no_writer(&self) -> io::Result<bool> {
        let hangup = wait_any(&[(self.from(), Interest::Hangup)], Some(Duration::ZERO))?;
        Ok(self.fifo_is_source && hangup == [true])
    }

    fn enlarge(&mut self, moved: usize) {
        if moved >= MUCH && !std::mem::replace(&mut self.enlarged, true) {
            // Whoever reads our output by a pipe is woken as often as its room is filled. What is no pipe stays as it is.
            fd::enlarge_pipe(&self.fifo);
            fd::enlarge_pipe(self.own);
        }
    }
}
