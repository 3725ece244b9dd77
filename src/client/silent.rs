//! Why an init that has a command does not answer: nobody is to wait without a word.

use std::time::Duration;

use super::session::Connection;
use crate::{base::Pid, inspect, sys::fd};

/// An init answers in milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Where the kernel keeps who is frozen with its control group, as `docker pause` does it.
const FROZEN: [&str; 3] = ["do_freezer_trap", "__refrigerator", "get_signal"];

/// In words; `None` if nothing is wrong with it as far as can be seen.
pub(super) fn why(connection: &Connection) -> Option<String> {
    let unread = || format!("the init has not answered for {} s; waiting", PATIENCE.as_secs());
    halted(connection).or_else(|| (!fd::is_empty(connection.control())).then(unread))
}

/// Where the init can be seen here: whether it stands still.
fn halted(connection: &Connection) -> Option<String> {
    let path = std::path::absolute(&connection.path).ok()?;
    let (device, inode) = connection.dir.identity().ok()?;
    let init: Pid = inspect::directory_owner(&device, inode, &path)?;
    let frozen = || {
        let place = std::fs::read_to_string(format!("/proc/{init}/wchan"));
        place.is_ok_and(|place| FROZEN.contains(&place.trim()))
    };
    if inspect::one(init)?.is_stopped() {
        Some(format!("the init (PID {init}) is stopped: it goes on with SIGCONT"))
    } else if frozen() {
        Some(format!("the init (PID {init}) is frozen with its control group: docker unpause, or what has done it"))
    } else {
        None
    }
}
