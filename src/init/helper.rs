//! Helpers: disposable children of the init, each for one thing that may block. A helper answers through a
//! pipe, in JSON, and its end says that the answer is whole.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    thread::sleep,
    time::Duration,
};

use crate::{
    base::{GRACE, Pid, Process},
    core::{Ending, Event},
    inspect,
    proto::Reply,
    sys::{
        clock,
        dir::Dir,
        fd, mount,
        poll::{Interest, wait_any},
        process, signals, spawn,
        start::Original,
    },
};

/// A client that does not read its list for so long does not get it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a helper is for, and its answer as far as it has come.
#[derive(Debug)]
pub(super) enum Helper {
    Look { answer: OwnedFd, bytes: Vec<u8> },
    Sync { answer: OwnedFd, bytes: Vec<u8> },
    Other,
}

impl Helper {
    /// To wait on.
    pub(super) fn answer_fd(&self) -> Option<&OwnedFd> {
        match self {
            Helper::Look { answer, .. } | Helper::Sync { answer, .. } => Some(answer),
            Helper::Other => None,
        }
    }

    /// Takes what has come. Answers whether the end has come too.
    pub(super) fn read(&mut self) -> bool {
        let (Helper::Look { answer, bytes } | Helper::Sync { answer, bytes }) = self else { return true };
        let mut buffer = [0; 4096];
        loop {
            match fd::read(&*answer, &mut buffer) {
                Ok(Some(0)) | Err(_) => return true,
                Ok(Some(count)) => bytes.extend_from_slice(&buffer[..count]),
                Ok(None) => return false,
            }
        }
    }

    /// The helper has ended: what it found out.
    pub(super) fn finish(mut self) -> Event {
        self.read();
        match self {
            Helper::Look { bytes, .. } => Event::Looked(serde_json::from_slice(&bytes).ok().flatten()),
            Helper::Sync { bytes, .. } => Event::Synced(
                serde_json::from_slice(&bytes)
                    .unwrap_or_else(|_| vec!["volumes were not synced: the helper died".into()]),
            ),
            Helper::Other => Event::HelperEnded,
        }
    }
}

/// What every helper does first: keep only what it needs, and be an ordinary process that SIGTERM ends.
fn begin(original: &Original, name: &str, keep: &[i32]) {
    fd::close_all_but(keep);
    process::set_name(name);
    original.restore_mask();
}

/// Forks a helper that answers with what `find` returns.
fn ask<T: serde::Serialize>(original: &Original, name: &str, find: impl FnOnce() -> T) -> io::Result<(Pid, OwnedFd)> {
    let (read, write) = fd::pipe()?;
    let pid = spawn::fork_child(|| {
        begin(original, name, &[write.as_raw_fd()]);
        let answer = serde_json::to_vec(&find()).unwrap_or_default();
        u8::from(File::from(write.try_clone().unwrap_or(write)).write_all(&answer).is_err())
    })?;
    Ok((pid, read))
}

/// Looks at every process of the namespace (as PID 1) or below the init, the helper itself left out.
pub(super) fn look(original: &Original, init: Pid, kill: bool) -> io::Result<(Pid, Helper)> {
    let (pid, answer) = ask(original, "lastout-look", || -> Option<Vec<Process>> {
        if kill {
            let _ = signals::kill_namespace(init);
        }
        let mut seen = if init == Pid::INIT { inspect::everything() } else { inspect::below(init) }?;
        seen.retain(|process| process.id.pid != process::me());
        Some(seen)
    })?;
    Ok((pid, Helper::Look { answer, bytes: Vec::new() }))
}

/// Waits until these volumes have taken what was written.
pub(super) fn sync(original: &Original, volumes: Vec<inspect::Volume>) -> io::Result<(Pid, Helper)> {
    let (pid, answer) = ask(original, "lastout-sync", || -> Vec<String> {
        let sync = |volume: &inspect::Volume| {
            // What we may not even open, nobody of ours has written to: another user's FUSE mount.
            let file = match File::open(&volume.path) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
                opened => opened,
            };
            let result = file.and_then(|file| mount::sync(&file));
            let name = || format!("{} ({})", volume.path.display(), volume.kind);
            result.err().map(|error| format!("cannot sync {}: {}", name(), crate::sys::errno(&error)))
        };
        volumes.iter().filter_map(sync).collect()
    })?;
    Ok((pid, Helper::Sync { answer, bytes: Vec::new() }))
}

/// Writes an answer, made in the helper, to a client.
pub(super) fn reply(
    original: &Original,
    reply: &File,
    requests: &Dir,
    answer: impl FnOnce() -> Reply,
) -> io::Result<Pid> {
    spawn::fork_child(|| {
        begin(original, "lastout-list", &[reply.as_raw_fd(), requests.fd().as_raw_fd()]);
        u8::from(write_patiently(reply, &answer().to_line()).is_err())
    })
}

fn write_patiently(to: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match fd::write(to, bytes)? {
            Some(count) => bytes = &bytes[count..],
            None => {
                if wait_any(&[(to.as_fd(), Interest::Write)], Some(PATIENCE))? == [false] {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }
    Ok(())
}

/// Ends what a dead keeper's job left behind.
pub(super) fn end_strays(
    original: &Original,
    init: Pid,
    mark: &str,
    session: Option<Pid>,
    all: bool,
    spare: &[Pid],
) -> io::Result<Pid> {
    spawn::fork_child(|| {
        begin(original, "lastout-end", &[]);
        let spare = [spare, &[process::me()]].concat();
        let mut ending = Ending::begin(clock::now(), init, GRACE);
        loop {
            let Some(found) = inspect::strays(init, mark, session, all, &spare) else { return 1 };
            if found.is_empty() {
                return 0;
            }
            let now = clock::now();
            // They are the init's children, not ours: nothing tells us of their ends, so look again.
            ending.child_ended(now);
            for (pid, signal) in ending.looked(now, &found) {
                let _ = signals::send(pid, signal);
            }
            sleep(Duration::from_millis(20));
        }
    })
}
