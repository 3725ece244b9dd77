//! Looks into `/proc`. Read-only; never run in the init itself.
//!
//! No function here opens or stats a file of a volume. What may block for ever all the same says so: some of
//! `/proc` waits for locks of the process that it is about, and that one may hang with them. [`gather`] runs
//! such looks in a disposable child, with a time limit for each.
#![forbid(unsafe_code)]

mod account;
mod allowance;
mod gather;
mod holders;
mod limits;
mod lingering;
mod locks;
mod lossy;
mod marks;
mod mounts;
mod processes;
mod stat;
mod unseen;
mod waits;

pub use account::{Io, Load, children_io, dirty, load_below};
pub use allowance::{Allowance, Bound, Cpus, Found, allowance, export};
pub use gather::{Gathered, gather};
pub use holders::{Holder, How, Looker, holders};
pub use limits::{Cpu, Limits, Memory, OomCounter, limits, limits_from, own_group};
pub use lingering::note_lingering;
pub use locks::{Lock, Locked, locks};
pub use marks::{owners, variables};
pub use mounts::{Mount, Volume, mount_at, mount_of_path, remote_volumes, volume_of_path, volumes};
pub use processes::{
    below, below_but, command_lines, directory_owner, everything, inner_pid, last_pid, of_init, one, strays,
};
pub use unseen::Unseen;
pub use waits::{Clocks, Wait, explain, explain_stepwise, glance};

/// A file of `/proc` whole, in as few reads as it takes: it does not tell its size, so `std::fs::read` would ask for a
/// few bytes at first.
fn whole(path: impl AsRef<std::path::Path>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16 * 1024);
    // Of a plain file it would be asked first how large it is.
    let file = crate::sys::fd::open(path.as_ref())?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, u64::MAX), &mut bytes)?;
    Ok(bytes)
}

/// A small file of the kernel's in one read, which is all that one gives: every job costs some of them.
fn small(path: impl AsRef<std::path::Path>) -> std::io::Result<String> {
    Ok(String::from_utf8_lossy(bytes(path, &mut [0; 4096])?).into_owned())
}

/// The same, as it is.
fn bytes(path: impl AsRef<std::path::Path>, buffer: &mut [u8; 4096]) -> std::io::Result<&[u8]> {
    let mut file = crate::sys::fd::open(path.as_ref())?;
    loop {
        match std::io::Read::read(&mut file, buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read.map(|count| &buffer[..count]),
        }
    }
}
