//! Our side of a job's terminal: what we sit at is raw while the job runs, and its size is the job's.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::bail;

use crate::{
    base::{Signal, Size},
    sys::{
        fd,
        poll::Interest,
        signals,
        tty::{self, Raw},
    },
};

/// What the terminal and its user tell a client besides what every client passes on.
pub(super) const TOLD: [Signal; 3] = [Signal::TSTP, Signal::CONT, Signal::WINCH];

#[derive(Debug)]
pub(super) struct Terminal {
    resize: File,
    size: Size,
    /// Keys come from us.
    interactive: bool,
    /// From the job's start to its end.
    raw: Option<Raw>,
}

/// The size of the window that we are in; whatever else is not one.
pub(super) fn size() -> Option<Size> {
    [0, 1, 2].into_iter().find_map(|number| tty::size(fd::standard(number)))
}

/// A job's keys must come from a terminal, or there is nobody who could answer what it shows.
pub(super) fn check_input() -> anyhow::Result<()> {
    if !tty::is_terminal(fd::standard(0)) {
        bail!("the input device is not a TTY: leave out -t, or -i");
    }
    Ok(())
}

impl Terminal {
    pub(super) fn new(resize: File, size: Size, interactive: bool) -> Terminal {
        Terminal { resize, size, interactive, raw: None }
    }

    /// The job has started: from here on its keys are its own, ^C as well.
    pub(super) fn begin(&mut self) -> std::io::Result<()> {
        if self.interactive {
            let raw = self.raw.insert(Raw::of(fd::standard(0))?);
            raw.mind_every_end();
            raw.enter()?;
        }
        Ok(())
    }

    /// What tells that there is no terminal any more, where no signal does.
    pub(super) fn hangup(&self) -> Option<(BorrowedFd<'_>, Interest)> {
        self.raw.as_ref().map(|_| (fd::standard(0), Interest::Hangup))
    }

    /// One of [`TOLD`].
    pub(super) fn take(&mut self, signal: Signal) {
        if signal == Signal::TSTP {
            if let Some(raw) = &mut self.raw {
                raw.leave();
            }
            let _ = signals::act_by_default(signal);
        }
        if let Some(raw) = self.raw.as_mut().filter(|_| signal != Signal::WINCH) {
            raw.again();
        }
        // It may have changed while we were stopped.
        self.pass_size_on();
    }

    fn pass_size_on(&mut self) {
        let size = size().unwrap_or(self.size);
        if std::mem::replace(&mut self.size, size) != size {
            // A keeper that stands still long enough to fill it has nothing to show either.
            let _ = fd::write(self.resize.as_fd(), format!("{size}\n").as_bytes());
        }
    }
}
