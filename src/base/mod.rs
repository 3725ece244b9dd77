//! Small types that every layer shares: no I/O, no clock, no decisions.

mod duration;
mod exit;
mod map;
mod name;
mod pid;
mod process;
mod signal;
mod size;
mod sort;
mod tick;

pub use duration::{DURATION, duration, in_words, seconds_of};
pub use exit::{Errno, ExecFailure, Exit};
pub use map::{Map, Set};
pub use name::{BadName, JobId, JobRef, Name, RequestId, Subject};
pub use pid::{Pgid, Pid, ProcId, Whom};
pub use process::Process;
pub use signal::Signal;
pub use size::Size;
pub use sort::{sort_by, sort_unique};
pub use tick::Tick;

/// A text on one line, with nothing in it that a terminal would obey.
pub fn plain(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.into();
    }
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() }).collect()
}

/// Time between asking (SIGTERM) and forcing (SIGKILL) where nobody asked for another.
/// Fits inside `docker stop`'s 10 s with room for the phases that follow.
pub const GRACE: std::time::Duration = std::time::Duration::from_secs(7);
