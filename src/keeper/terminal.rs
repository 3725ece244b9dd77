//! A job's terminal: between its client's FIFOs and the end of a pseudoterminal that shows and types (pty(7)). Keys, and so
//! ^C and ^Z, are the job's own: the kernel makes signals of them for whoever is in the foreground there.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use super::{Client, Refusal};
use crate::{
    base::{Errno, Exit, Signal, Size},
    proto::{Cause, Who},
    sys::{
        fd,
        poll::{Interest, wait_any},
        tty,
    },
};

const BUFFER: usize = 16 * 1024;
/// Reads of a page, at least, that empty what the kernel holds between the two ends.
const PIECES: u32 = 64;
/// ^C and ^\, and what they send, unless somebody has changed that (termios(3)).
const KILLING: [(u8, Signal); 2] = [(0x03, Signal::INT), (0x1c, Signal::QUIT)];
/// Lines of sizes are far shorter.
const LONGEST_SIZE: usize = 64;

pub(super) struct Terminal {
    master: OwnedFd,
    /// Kept until the tree has ended: without anybody who has it open, the master is at its end, and a program may well
    /// open its terminal again.
    slave: Option<OwnedFd>,
    stdin: Option<File>,
    stdout: Option<File>,
    resize: Option<File>,
    /// Keys that the job has no room for.
    typed: Vec<u8>,
    /// The last key that the job got.
    last: Option<u8>,
    /// Output that the client has no room for. Until it has, the job waits.
    shown: Vec<u8>,
    /// The beginning of a line with a size.
    sizes: Vec<u8>,
}

impl Terminal {
    /// Makes one for the client, of whoever is to use it.
    pub(super) fn open(client: &mut Client, size: Size, owner: Option<u32>) -> Result<Terminal, Refusal> {
        let (master, slave) = tty::pair().map_err(|error| {
            let errno = crate::sys::errno(&error);
            Refusal(Cause::Refused { reason: format!("cannot make a terminal: {}", advice(errno)) })
        })?;
        tty::set_size(&master, size).map_err(super::refuse("give the terminal its size"))?;
        if let Some(uid) = owner {
            // Who cannot have this cannot become that user either, which is told.
            let _ = tty::give_to(&slave, uid);
        }
        Ok(Terminal {
            master,
            slave: Some(slave),
            stdin: client.stdin.take(),
            stdout: client.stdout.take(),
            resize: client.resize.take(),
            typed: Vec::new(),
            last: None,
            shown: Vec::new(),
            sizes: Vec::new(),
        })
    }

    /// What the job gets.
    pub(super) fn slave(&self) -> Option<&OwnedFd> {
        self.slave.as_ref()
    }

    /// What to wait for, one at a time each way: who reads slowly slows down, as on any terminal.
    pub(super) fn interests(&self) -> Vec<(BorrowedFd<'_>, Interest)> {
        let master = self.master.as_fd();
        let output = match &self.stdout {
            Some(stdout) if !self.shown.is_empty() => (stdout.as_fd(), Interest::Write),
            Some(_) | None => (master, Interest::Read),
        };
        let input = match &self.stdin {
            _ if !self.typed.is_empty() => Some((master, Interest::Write)),
            stdin => stdin.as_ref().map(|stdin| (stdin.as_fd(), Interest::Read)),
        };
        let resize = self.resize.as_ref().map(|resize| (resize.as_fd(), Interest::Read));
        [Some(output), input, resize].into_iter().flatten().collect()
    }

    /// Moves what can be moved now.
    pub(super) fn turn(&mut self) {
        self.take_size();
        self.pass_keys_on();
        if self.shown.is_empty() {
            self.read();
        }
        self.show();
    }

    /// The latest size is what counts.
    #[inline(never)]
    fn take_size(&mut self) {
        let mut buffer = [0; 4096];
        match self.resize.as_ref().map(|resize| fd::read(resize, &mut buffer)) {
            None | Some(Ok(None)) => return,
            Some(Ok(Some(0)) | Err(_)) => self.resize = None,
            Some(Ok(Some(count))) => self.sizes.extend_from_slice(&buffer[..count]),
        }
        let Some(end) = self.sizes.iter().rposition(|b| *b == b'\n') else {
            self.sizes.truncate(LONGEST_SIZE);
            return;
        };
        let lines = String::from_utf8_lossy(&self.sizes[..end]).into_owned();
        self.sizes.drain(..=end);
        match lines.lines().last().map(str::parse::<Size>) {
            Some(Ok(size)) => {
                if let Err(error) = tty::set_size(&self.master, size) {
                    log::debug!("cannot give a terminal the size {size}: {}", crate::sys::errno(&error));
                }
            }
            Some(Err(())) => log::debug!("not a terminal's size: write COLUMNS ROWS"),
            None => {}
        }
    }

    // In a frame of its own: it is large, and most keepers have no terminal.
    #[inline(never)]
    fn pass_keys_on(&mut self) {
        if self.typed.is_empty() {
            let mut buffer = [0; BUFFER];
            match self.stdin.as_ref().map(|stdin| fd::read(stdin, &mut buffer)) {
                None | Some(Ok(None)) => {}
                Some(Ok(Some(0)) | Err(_)) => self.stdin = None,
                Some(Ok(Some(count))) => self.typed.extend_from_slice(&buffer[..count]),
            }
        }
        if !self.typed.is_empty() {
            match fd::write(&self.master, &self.typed) {
                Ok(Some(count)) => self.last = self.typed.drain(..count).next_back().or(self.last),
                Ok(None) => {}
                Err(_) => self.typed.clear(),
            }
        }
    }

    /// Whether there was something.
    fn read(&mut self) -> bool {
        let mut buffer = [0; BUFFER];
        let mut filled = 0;
        // The kernel gives a page at most at a time.
        while filled < BUFFER {
            match fd::read(&self.master, &mut buffer[filled..]) {
                Ok(Some(count)) if count > 0 => filled += count,
                // EIO is the end: nobody has the other side open any more.
                Ok(_) | Err(_) => break,
            }
        }
        if self.stdout.is_some() {
            self.shown.extend_from_slice(&buffer[..filled]);
        }
        filled > 0
    }

    fn show(&mut self) {
        let Some(stdout) = self.stdout.as_ref().filter(|_| !self.shown.is_empty()) else { return };
        match fd::write(stdout, &self.shown) {
            Ok(Some(count)) => drop(self.shown.drain(..count)),
            Ok(None) => {}
            Err(error) if crate::sys::is_shortage(&error) => {}
            Err(_) => {
                self.stdout = None;
                self.shown.clear();
            }
        }
    }

    /// Why the job ended, which may be one of its user's keys.
    pub(super) fn blame(&self, exit: Option<Exit>, cause: Cause) -> Cause {
        match (cause, exit, self.last) {
            (Cause::Unknown, Some(Exit::Signal(signal)), Some(key)) if KILLING.contains(&(key, signal)) => {
                Cause::Killed { signal, by: Who::new("a key at its terminal") }
            }
            (cause, ..) => cause,
        }
    }

    /// The tree has ended: moves the rest. A client that takes nothing for `patience` does not get it.
    pub(super) fn finish(&mut self, patience: Duration) {
        // Then the end is behind the last byte, unless somebody outside the tree has it, who may go on and on.
        self.slave = None;
        for _ in 0..PIECES {
            if !self.read() && self.shown.is_empty() {
                return;
            }
            if let (Some(stdout), false) = (&self.stdout, self.shown.is_empty())
                && !room(stdout, patience).unwrap_or(false)
            {
                return;
            }
            self.show();
        }
    }
}

fn room(stdout: &File, patience: Duration) -> io::Result<bool> {
    Ok(wait_any(&[(stdout.as_fd(), Interest::Write)], Some(patience))? == [true])
}

/// Why there is no terminal, and what to do.
fn advice(errno: Errno) -> String {
    let todo = match errno {
        Errno::ENOENT | Errno::ENXIO => {
            "give the container a devpts (mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts; \
             ln -s pts/ptmx /dev/ptmx), or leave out -t"
        }
        Errno::ENOSPC => "too many are open: see /proc/sys/kernel/pty and the mount option max of /dev/pts",
        _ => "let it be opened (mount option ptmxmode of /dev/pts, device rules of the cgroup), or leave out -t",
    };
    format!("{}: {errno}: {todo}", tty::MULTIPLEXER)
}
