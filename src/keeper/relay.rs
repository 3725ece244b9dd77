//! What a service's setup and checks write: looked at, and passed on to where the service's own output goes.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use crate::{
    core::Task,
    sys::{
        fd,
        poll::{Interest, wait_any},
    },
};

const BUFFER: usize = 16 * 1024;
/// `PIPE_BUF`: what a pipe that has room takes without waiting.
const PIECE: usize = 4096;
/// Bytes that wait for who reads the service's output. Then the task waits, as it would by itself.
const MOST: usize = 64 * 1024;

/// Reads of [`BUFFER`] that empty any pipe.
const PIECES: usize = 128;

/// One stream of one task.
pub(super) struct Relay {
    pub(super) task: Task,
    pipe: Option<OwnedFd>,
    to: Option<OwnedFd>,
    pending: Vec<u8>,
}

impl Relay {
    pub(super) fn new(task: Task, pipe: OwnedFd, to: Option<OwnedFd>) -> Relay {
        Relay { task, pipe: Some(pipe), to, pending: Vec::new() }
    }

    /// What to wait for; `None`: it has done its work.
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, Interest)> {
        match (&self.to, &self.pipe) {
            (Some(to), _) if !self.pending.is_empty() => Some((to.as_fd(), Interest::Write)),
            (_, Some(pipe)) => Some((pipe.as_fd(), Interest::Read)),
            (_, None) => None,
        }
    }

    /// Moves what can be moved without waiting; gives what was read to `said`.
    pub(super) fn relay(&mut self, said: &mut dyn FnMut(Vec<u8>)) {
        if self.pending.len() < MOST {
            self.read(said);
        }
        self.pass_on();
    }

    /// The task has ended: reads what is there, whether it can be passed on or not.
    pub(super) fn drain(&mut self, said: &mut dyn FnMut(Vec<u8>)) {
        // What it has left running may go on and on.
        let _ = (0..PIECES).find(|_| !self.read(said));
        self.pass_on();
    }

    /// Whether there was something.
    fn read(&mut self, said: &mut dyn FnMut(Vec<u8>)) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let mut buffer = [0; BUFFER];
        match fd::read(pipe, &mut buffer) {
            Ok(None) => false,
            Ok(Some(0)) | Err(_) => {
                self.pipe = None;
                false
            }
            Ok(Some(count)) => {
                if self.to.is_some() {
                    self.pending.extend_from_slice(&buffer[..count]);
                }
                said(buffer[..count].to_vec());
                true
            }
        }
    }

    /// The descriptor is shared with others, so it cannot be made to never wait; a pipe that has room takes a piece.
    fn pass_on(&mut self) {
        while let (Some(to), false) = (&self.to, self.pending.is_empty()) {
            let room = wait_any(&[(to.as_fd(), Interest::Write)], Some(Duration::ZERO));
            if !room.is_ok_and(|room| room == [true]) {
                return;
            }
            match fd::write(to, &self.pending[..self.pending.len().min(PIECE)]) {
                Ok(Some(count)) => drop(self.pending.drain(..count)),
                Ok(None) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody reads, or nothing takes it: the task is not to suffer.
                Err(_) => {
                    self.to = None;
                    self.pending.clear();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_waits_and_is_still_heard() {
        let (read, write) = fd::pipe().unwrap();
        let (out, to) = fd::pipe().unwrap();
        fd::set_nonblocking(&to, true).unwrap();
        let mut filled = 0;
        while let Ok(Some(count)) = fd::write(&to, &[b'.'; 4096]) {
            filled += count;
        }
        let mut relay = Relay::new(Task::Setup(0), read, Some(to));
        let mut heard = Vec::new();
        fd::write(&write, b"hello").unwrap();
        relay.relay(&mut |bytes| heard.extend(bytes));
        drop(write);
        relay.drain(&mut |bytes| heard.extend(bytes));
        assert_eq!(heard, b"hello");
        assert_eq!(relay.interest().map(|(_, interest)| interest), Some(Interest::Write));
        let mut buffer = vec![0; filled];
        while fd::read(&out, &mut buffer).is_ok_and(|count| count.is_some()) {}
        relay.relay(&mut |_| {});
        assert_eq!(fd::read(&out, &mut buffer).unwrap(), Some(5));
        assert!(relay.interest().is_none());
    }

    #[test]
    fn an_output_that_has_gone_stops_nobody() {
        let (read, write) = fd::pipe().unwrap();
        let (out, to) = fd::pipe().unwrap();
        drop(out);
        let mut relay = Relay::new(Task::Setup(0), read, Some(to));
        for _ in 0..3 {
            fd::write(&write, b"hello").unwrap();
            let mut heard = Vec::new();
            relay.relay(&mut |bytes| heard.extend(bytes));
            assert_eq!(heard, b"hello");
        }
    }
}
