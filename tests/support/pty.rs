//! A person at a terminal: what is shown, what is typed, how large the window is, and in what modes it was left.

use std::{
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use lastout::{
    base::Size,
    sys::{fd, tty},
};
use nix::sys::termios::tcgetattr;

use super::PATIENCE;

pub const ESCAPE: &str = "\x1b";
pub const INTERRUPT: &str = "\x03";
pub const SUSPEND: &str = "\x1a";
/// The end of input, at the beginning of a line.
pub const END: &str = "\x04";
/// The size of every window here at first; nobody else's.
pub const WINDOW: Size = Size { columns: 101, rows: 37 };

pub struct Pty {
    master: OwnedFd,
    /// Held, so that its modes can be looked at when nobody else has it.
    slave: OwnedFd,
    /// Shown, and not yet expected.
    shown: Vec<u8>,
}

impl Pty {
    pub fn open() -> Pty {
        let (master, slave) = tty::pair().unwrap();
        tty::set_size(&master, WINDOW).unwrap();
        Pty { master, slave, shown: Vec::new() }
    }

    /// Starts a command that leads a session on this terminal.
    pub fn start(&self, command: &Command) -> Child {
        let mut all = Command::new("setsid");
        all.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => all.env(name, value),
                None => all.env_remove(name),
            };
        }
        self.attach(&mut all).spawn().unwrap()
    }

    /// Has a command use this terminal, without being of its session.
    pub fn attach<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let end = || Stdio::from(self.slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end())
    }

    pub fn type_in(&self, keys: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut left = keys.as_bytes();
        while !left.is_empty() {
            match fd::write(&self.master, left).unwrap() {
                Some(count) => left = &left[count..],
                None => sleep(Duration::from_millis(2)),
            }
            assert!(Instant::now() < deadline, "no room for {keys:?}");
        }
    }

    /// Types a line.
    pub fn enter(&self, line: &str) {
        self.type_in(&format!("{line}\r"));
    }

    fn look(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(Some(count @ 1..)) = fd::read(&self.master, &mut buffer) {
            self.shown.extend_from_slice(&buffer[..count]);
        }
    }

    /// Waits until this is shown, after what was expected before. Answers with all up to it.
    pub fn expect(&mut self, what: &str) -> String {
        self.expect_all(&[what])
    }

    /// The same for several, in whatever order.
    pub fn expect_all(&mut self, all: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.look();
            let end = |what: &&str| {
                let at = self.shown.windows(what.len()).position(|part| part == what.as_bytes());
                at.map(|at| at + what.len())
            };
            if let Some(ends) = all.iter().map(end).collect::<Option<Vec<_>>>() {
                let all: Vec<u8> = self.shown.drain(..ends.into_iter().max().unwrap_or(0)).collect();
                return String::from_utf8_lossy(&all).into_owned();
            }
            let shown = String::from_utf8_lossy(&self.shown);
            assert!(Instant::now() < deadline, "{all:?} is not shown, but {shown:?}");
            sleep(Duration::from_millis(2));
        }
    }

    /// Waits until one of these is shown, after what was expected before. Answers with it.
    pub fn expect_one<'a>(&mut self, all: &[&'a str]) -> &'a str {
        super::until(&format!("one of {all:?}"), || {
            self.look();
            let shown = String::from_utf8_lossy(&self.shown);
            all.iter().find(|what| shown.contains(**what)).copied()
        })
    }

    /// The process group in the foreground.
    pub fn foreground(&self) -> i32 {
        nix::unistd::tcgetpgrp(&self.master).unwrap().as_raw()
    }

    /// Waits for the end of a child, whose output is looked at meanwhile: exit code, and what is shown and was not expected.
    pub fn end(&mut self, child: &mut Child) -> (i32, String) {
        let code = super::until("a process's end", || {
            self.look();
            child.try_wait().unwrap().map(super::status)
        });
        self.look();
        (code, String::from_utf8_lossy(&std::mem::take(&mut self.shown)).into_owned())
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        tty::set_size(&self.master, Size { columns, rows }).unwrap();
    }

    /// In words, without what the C library's structure has beyond the kernel's.
    pub fn modes(&self) -> String {
        let modes = tcgetattr(self.slave.as_fd()).unwrap();
        let flags = (modes.input_flags, modes.output_flags, modes.control_flags, modes.local_flags);
        format!("{flags:?} {:?}", &modes.control_chars[..17])
    }

    /// The window is closed.
    pub fn close(self) {}
}
