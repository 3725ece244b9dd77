//! Where a service's output goes.

use std::{
    fs::File,
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use super::{
    Start,
    logger::{self, Finished, Logger},
};
use crate::{
    base::Pid,
    core::service::{Format, RunConfig, Sink},
};

/// What a service's commands get as standard output and error.
pub(super) enum Ends {
    /// The init's own, without a copy.
    Own([OwnedFd; 2]),
    /// Those of a process that copies.
    Logged(Logger),
    /// The log is written.
    Closed,
}

impl Ends {
    pub(super) fn open(start: &Start, run: &RunConfig) -> io::Result<Ends> {
        match (&run.log.sink, run.log.format, &start.name) {
            (Sink::Inherit, Format::Raw, _) | (_, _, None) => {
                let open = |fd: Option<&OwnedFd>| match fd {
                    Some(fd) => fd.try_clone(),
                    None => Ok(File::options().write(true).open("/dev/null")?.into()),
                };
                Ok(Ends::Own([open(start.stdout)?, open(start.stderr)?]))
            }
            (Sink::Inherit, Format::Prefix | Format::Json, Some(name)) | (Sink::File { .. }, _, Some(name)) => {
                let inherited = [start.stdout, start.stderr].map(|fd| fd.map(std::os::fd::AsFd::as_fd));
                Ok(Ends::Logged(logger::start(&run.log, name, inherited[0], inherited[1])?))
            }
        }
    }

    /// Standard output and error, until the log is written.
    pub(super) fn both(&self) -> io::Result<[&OwnedFd; 2]> {
        match self {
            Ends::Own([stdout, stderr]) | Ends::Logged(Logger { stdout, stderr, .. }) => Ok([stdout, stderr]),
            Ends::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// What to wait on for [`Ends::dropped`].
    pub(super) fn ear(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Ends::Logged(logger) => logger.fd(),
            Ends::Own(_) | Ends::Closed => None,
        }
    }

    /// How many lines were dropped so far, if there is something new.
    pub(super) fn dropped(&mut self) -> Option<u64> {
        match self {
            Ends::Logged(logger) => logger.dropped(),
            Ends::Own(_) | Ends::Closed => None,
        }
    }

    /// The process that copies.
    pub(super) fn logger(&self) -> Option<Pid> {
        match self {
            Ends::Logged(logger) => Some(logger.pid),
            Ends::Own(_) | Ends::Closed => None,
        }
    }

    /// Nobody writes any more: waits, for no more than two seconds, until all is in the log. Answers how many lines were
    /// dropped in all, if somebody knows.
    pub(super) fn finish(&mut self, name: &dyn std::fmt::Display) -> Option<u64> {
        let Ends::Logged(logger) = std::mem::replace(self, Ends::Closed) else { return None };
        match logger.finish() {
            Finished::Ended { dropped: Some(dropped) } => return Some(dropped),
            Finished::Ended { dropped: None } => log::warn!("{name}: the process that writes its log died"),
            Finished::Stuck(pid) => log::warn!("{name}: pid {pid}, which writes its log, hangs in the kernel"),
        }
        None
    }
}
