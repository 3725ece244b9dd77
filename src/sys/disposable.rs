//! A child for what may block for ever, and may then be left behind: what it found so far is kept.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use super::{
    fd,
    poll::{Interest, wait_any},
    process, signals, spawn,
};
use crate::base::{Pid, Signal};

/// A child that looks at something.
#[derive(Debug)]
pub struct Disposable {
    pid: Pid,
    pipe: OwnedFd,
    bytes: Vec<u8>,
}

/// What came from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Came {
    /// A line, without its newline.
    Line(Vec<u8>),
    /// Nothing more will come: it has done its work, or died.
    End,
    /// Nothing in the time given.
    Nothing,
}

impl Disposable {
    /// Forks it. `body` gets a way to send lines (without newlines in them). The caller has one thread.
    pub fn start(body: impl FnOnce(&mut dyn FnMut(&[u8]))) -> io::Result<Disposable> {
        let (pipe, write) = fd::pipe()?;
        let pid = spawn::fork_child(|| {
            // If it never ends, nothing may stay open with it: not the terminal, not a pipe that somebody reads.
            process::set_name("lastout-inspect");
            let _ = process::set_parent_death_signal(Signal::KILL);
            fd::let_go_of_stdio();
            fd::close_all_and_log_but(&[write.as_raw_fd()]);
            let mut failed = false;
            body(&mut |line| {
                let line = [line, b"\n"].concat();
                let mut rest = line.as_slice();
                while let (false, Ok(Some(count))) = (failed || rest.is_empty(), fd::write(&write, rest)) {
                    rest = &rest[count..];
                }
                failed |= !rest.is_empty();
            });
            u8::from(failed)
        })?;
        Ok(Disposable { pid, pipe, bytes: Vec::new() })
    }

    /// The next line, or that there is none until `deadline`.
    pub fn next(&mut self, deadline: Instant) -> Came {
        let mut buffer = [0; 1 << 16];
        loop {
            if let Some(end) = self.bytes.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
                line.pop();
                return Came::Line(line);
            }
            match fd::read(&self.pipe, &mut buffer) {
                Ok(Some(0)) | Err(_) => return Came::End,
                Ok(Some(count)) => self.bytes.extend_from_slice(&buffer[..count]),
                Ok(None) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Came::Nothing;
                    }
                    let _ = wait_any(&[(self.pipe.as_fd(), Interest::Read)], Some(left));
                }
            }
        }
    }
}

/// How long to wait for the end of a child that has nothing more to do.
const REAP: (u32, Duration) = (20, Duration::from_micros(250));

impl Drop for Disposable {
    /// Kills it, and does not wait for one that does not die.
    fn drop(&mut self) {
        let _ = signals::send(self.pid, Signal::KILL);
        for _ in 0..REAP.0 {
            if super::wait::has_ended(self.pid) {
                return;
            }
            std::thread::sleep(REAP.1);
        }
    }
}

/// Runs `body` in a disposable child, for no longer than `limit`. Answers with the lines that it sent, and whether
/// it came to its end.
pub fn with_deadline(limit: Duration, body: impl FnOnce(&mut dyn FnMut(&[u8]))) -> (Vec<Vec<u8>>, bool) {
    let deadline = Instant::now() + limit;
    let Ok(mut child) = Disposable::start(body) else { return (Vec::new(), false) };
    let mut lines = Vec::new();
    loop {
        match child.next(deadline) {
            Came::Line(line) => lines.push(line),
            Came::End => return (lines, true),
            Came::Nothing => return (lines, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_before_a_block_is_kept() {
        let begun = Instant::now();
        let (lines, finished) = with_deadline(Duration::from_millis(200), |send| {
            send(b"one");
            send(b"two");
            std::thread::sleep(Duration::from_secs(3600));
        });
        assert_eq!((lines, finished), (vec![b"one".to_vec(), b"two".to_vec()], false));
        assert!(begun.elapsed() < Duration::from_secs(30));
        let many = with_deadline(Duration::from_secs(30), |send| (0..10_000).for_each(|_| send(&[b'x'; 100])));
        assert_eq!((many.0.len(), many.1), (10_000, true));
    }
}
