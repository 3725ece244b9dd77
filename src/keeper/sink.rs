//! Where a service's output goes.

use std::{fs::File, io, os::fd::OwnedFd};

use super::Start;
use crate::core::service::{Format, RunConfig, Sink};

/// What a service's commands get as standard output and error.
pub(super) struct Ends {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Ends {
    pub(super) fn open(start: &Start, run: &RunConfig) -> io::Result<Ends> {
        match (&run.log.sink, run.log.format) {
            // The init's own, without a copy.
            (Sink::Inherit, Format::Raw) => {
                let open = |fd: Option<&OwnedFd>| match fd {
                    Some(fd) => fd.try_clone(),
                    None => Ok(File::options().write(true).open("/dev/null")?.into()),
                };
                Ok(Ends { stdout: open(start.stdout)?, stderr: open(start.stderr)? })
            }
            // A process that copies: it hands out its ends here.
            (Sink::Inherit, Format::Prefix | Format::Json) | (Sink::File { .. }, _) => {
                Err(io::Error::from(io::ErrorKind::Unsupported))
            }
        }
    }
}
