//! A job's kept output: from a pipe into a file of bounded size, and to the client as well if it has one.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use crate::sys::{
    dir::Dir,
    fd,
    poll::{Interest, wait_any},
};

/// When a file has grown to this size, in bytes, it becomes the previous one, and the one before that goes:
/// between this much and twice this much of a stream is kept, the latest.
const CAP: u64 = 512 * 1024;
const BUFFER: usize = 64 * 1024;
/// So many errors in a row are one that stays.
const MOST_FAILURES: u32 = 10;

/// A file that keeps the latest output.
pub(super) struct Log {
    directory: Dir,
    name: &'static str,
    file: File,
    size: u64,
}

impl Log {
    pub(super) fn create(directory: &Dir, name: &'static str) -> io::Result<Log> {
        Ok(Log { directory: directory.dir(".")?, name, file: directory.create(name)?, size: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size >= CAP {
            self.directory.rename(self.name, &format!("{}.1", self.name))?;
            self.file = self.directory.create(self.name)?;
            self.size = 0;
        }
        self.size += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

/// One stream: a pipe's end, its log, and perhaps a client's FIFO.
pub(super) struct Output {
    pipe: Option<OwnedFd>,
    log: Log,
    log_failed: bool,
    client: Option<File>,
    /// Read, logged, and not yet taken by the client.
    pending: Vec<u8>,
    /// Errors in a row.
    failures: u32,
}

impl Output {
    pub(super) fn new(pipe: OwnedFd, log: Log, client: Option<File>) -> Output {
        Output { pipe: Some(pipe), log, log_failed: false, client, pending: Vec::new(), failures: 0 }
    }

    /// What to wait for: a client that reads slowly slows the job down, as a pipe would.
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, Interest)> {
        match (&self.client, &self.pipe) {
            (Some(client), _) if !self.pending.is_empty() => Some((client.as_fd(), Interest::Write)),
            (_, Some(pipe)) => Some((pipe.as_fd(), Interest::Read)),
            (_, None) => None,
        }
    }

    /// Moves what can be moved now.
    pub(super) fn relay(&mut self) {
        if !self.pending.is_empty() {
            return self.pass_on();
        }
        let Some(pipe) = &self.pipe else { return };
        let mut buffer = [0; BUFFER];
        match fd::read(pipe, &mut buffer) {
            Ok(None) => {}
            // The job would die of its pipe's end: an error must repeat itself to be believed.
            Err(_) if self.fails_again() => {}
            Ok(Some(0)) | Err(_) => self.pipe = None,
            Ok(Some(count)) => {
                self.failures = 0;
                let bytes = &buffer[..count];
                // A full disk must not end the job; what is not kept is said once.
                if let Err(error) = self.log.write(bytes)
                    && !std::mem::replace(&mut self.log_failed, true)
                {
                    log::warn!("cannot keep all of {}: {}", self.log.name, crate::sys::errno(&error));
                }
                if self.client.is_some() {
                    self.pending.extend_from_slice(bytes);
                    self.pass_on();
                }
            }
        }
    }

    fn pass_on(&mut self) {
        let Some(client) = &self.client else { return };
        match fd::write(client, &self.pending) {
            Ok(Some(count)) => {
                self.failures = 0;
                drop(self.pending.drain(..count));
            }
            Ok(None) => {}
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe && self.fails_again() => {}
            Err(_) => {
                self.client = None;
                self.pending.clear();
            }
        }
    }

    /// Whether to try once more after an error.
    fn fails_again(&mut self) -> bool {
        self.failures += 1;
        self.failures < MOST_FAILURES
    }

    /// The tree has ended: moves the rest. A client that takes nothing for `patience` does not get it.
    pub(super) fn finish(&mut self, patience: Duration) {
        loop {
            let Some(interest) = self.interest() else { return };
            // The pipe has no writer any more, so it never makes us wait; whoever took it elsewhere, might.
            let patience = if interest.1 == Interest::Write { patience } else { Duration::ZERO };
            match wait_any(&[interest], Some(patience)) {
                Ok(ready) if ready == [true] => self.relay(),
                Ok(_) | Err(_) => return,
            }
        }
    }
}
