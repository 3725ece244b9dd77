//! Being told that a directory has changed.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Watches one directory for new, renamed and written files.
#[derive(Debug)]
pub struct Watch(Inotify);

impl Watch {
    /// Begins to watch.
    pub fn directory(path: &Path) -> io::Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let changes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MODIFY;
        inotify.add_watch(path, changes)?;
        Ok(Watch(inotify))
    }

    /// To wait on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Forgets what has been told.
    pub fn drain(&self) {
        while self.0.read_events().is_ok_and(|events| !events.is_empty()) {}
    }
}
