//! Looks into `/proc`. Read-only; may block; never run in the init itself.
#![forbid(unsafe_code)]

mod mounts;
mod processes;

pub use mounts::{Volume, volumes};
pub use processes::{below, everything, strays};

/// What the system said, if it was the system.
fn io_error(error: procfs::ProcError) -> std::io::Error {
    match error {
        procfs::ProcError::Io(error, _) => error,
        procfs::ProcError::NotFound(_) => std::io::Error::from_raw_os_error(crate::base::Errno::ENOENT.0),
        procfs::ProcError::PermissionDenied(_) => std::io::ErrorKind::PermissionDenied.into(),
        other => std::io::Error::other(other.to_string()),
    }
}
