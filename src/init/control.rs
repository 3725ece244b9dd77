//! The control directory: made, checked, locked, and removed again.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
    path::{Path, PathBuf, absolute},
};

use crate::{
    base::{JobId, RequestId},
    keeper,
    proto::{Record, files, place},
    sys::{
        dir::{Access, Dir, Lock},
        mount, process,
    },
};

/// An init's control directory, in use.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) path: PathBuf,
    pub(super) dir: Dir,
    pub(super) fifo: File,
    lock: Lock,
    requests: Dir,
    made: bool,
}

/// Opens the control directory: the one that the command line names, or the environment, or the first default
/// one that can be had. `Ok(None)`, with the reason logged: the init works without. That is never so for one
/// that was named, unless the environment is that of another init's job: then the directory is that init's. An init with
/// services that finds another one there is most likely the same file's second: it is not to run them all once more, so
/// with `alone` that is an error, too.
pub(super) fn open(named: Option<&Path>, inherited: Option<&Path>, alone: bool) -> Result<Option<Control>, String> {
    let second = |path: &Path| {
        let path = path.display();
        format!(
            "another lastout uses {path}, and may run the same services: `lastout ps` and `lastout reload` talk to it; \
             for others, name a directory of their own with --control DIR"
        )
    };
    if let Some(path) = named.or(inherited) {
        return match Control::open(path) {
            Ok(control) => Ok(Some(control)),
            Err(Unusable::Taken) if named.is_none() && alone => Err(second(path)),
            Err(Unusable::Taken) if named.is_none() => {
                log::warn!("no control directory of its own: {} is another lastout's", path.display());
                Ok(None)
            }
            Err(error) => Err(format!("cannot use control directory {}: {error}", path.display())),
        };
    }
    let mut reasons = Vec::new();
    for path in place::candidates(std::env::var_os("XDG_RUNTIME_DIR"), process::uid()) {
        match Control::open(&path) {
            Ok(control) => return Ok(Some(control)),
            Err(Unusable::Taken) if alone => return Err(second(&path)),
            Err(error) => {
                reasons.push(format!("{}: {error}", path.display()));
                if matches!(error, Unusable::Taken) {
                    break;
                }
            }
        }
    }
    log::warn!("no control directory, so no `lastout exec`: {}; name one with --control DIR", reasons.join("; "));
    Ok(None)
}

#[derive(Debug)]
enum Unusable {
    Taken,
    Because(String),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Unusable::Taken => f.write_str("another lastout uses it"),
            Unusable::Because(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Unusable {
        Unusable::Because(crate::sys::errno(&error).to_string())
    }
}

fn because<T>(why: impl Into<String>) -> Result<T, Unusable> {
    Err(Unusable::Because(why.into()))
}

impl Control {
    fn open(path: &Path) -> Result<Control, Unusable> {
        let path = absolute(path)?;
        let made = match Dir::make(&path) {
            Ok(made) => made,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return because("the directory above it does not exist: make it, or mount it");
            }
            // A read-only filesystem may still have the directory.
            Err(error) => Dir::open(&path).map(|_| false).map_err(|_| error)?,
        };
        let dir = open_directory(&path)?;
        check(&dir)?;
        let Some(lock) = dir.lock()? else { return Err(Unusable::Taken) };
        // What a dead init left: its FIFO has no reader any more, its requests no keeper.
        if !made {
            make_way_for_fifo(&dir)?;
        }
        let is_new = dir.make_dir(files::REQUESTS)?;
        let unusable =
            |name: &str, error: io::Error| Unusable::Because(format!("{name} in it: {}", crate::sys::errno(&error)));
        let requests = dir.dir(files::REQUESTS).map_err(|error| unusable(files::REQUESTS, error))?;
        if !is_new {
            remove_requests(&requests);
        }
        // The first record makes it. One that is there must be one that can be had.
        if !made
            && let Err(error) = dir.dir(files::JOBS)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(unusable(files::JOBS, error));
        }
        dir.make_fifo(files::CONTROL)?;
        let fifo = dir.open_fifo(files::CONTROL, Access::Both, None)?;
        Ok(Control { path, dir, fifo, lock, requests, made })
    }

    /// The highest job number of which something is kept from an earlier init.
    pub(super) fn last_job(&self) -> u64 {
        if self.made {
            return 0;
        }
        let names = self.dir.dir(files::JOBS).and_then(|jobs| jobs.names()).unwrap_or_default();
        names.iter().filter_map(|name| name.parse::<JobId>().ok()).map(|job| job.0).max().unwrap_or(0)
    }

    /// Where requests are.
    pub(super) fn requests(&self) -> &Dir {
        &self.requests
    }

    /// Every descriptor that it holds.
    pub(super) fn fds(&self) -> [RawFd; 4] {
        [self.dir.fd().as_raw_fd(), self.fifo.as_raw_fd(), self.lock.raw_fd(), self.requests.fd().as_raw_fd()]
    }

    /// A client's `reply`, to write to. Fails if the client has gone.
    pub(super) fn reply(&self, request: RequestId) -> io::Result<File> {
        self.requests.dir(&request.to_string())?.open_fifo(files::REPLY, Access::Write, None)
    }

    /// Whether it was there before us, and stays: with records and kept output.
    pub(super) fn stays(&self) -> bool {
        !self.made
    }

    /// Writes a record.
    pub(super) fn keep_record(&self, record: &Record) {
        let name = record.job.to_string();
        let written = self.dir.dir_or_new(files::JOBS).and_then(|jobs| {
            let _ = jobs.remove_tree(&name);
            jobs.make_dir(&name)?;
            jobs.dir(&name)?.write_file(files::RECORD, &record.to_json())
        });
        if let Err(error) = written {
            log::warn!("{name}: cannot write its record: {}", crate::sys::errno(&error));
        }
    }

    /// Takes the FIFO's name away.
    pub(super) fn hide(&self) {
        let _ = self.dir.remove(files::CONTROL);
    }

    /// Removes what this init made. Records and kept output stay if the directory was somebody's before.
    pub(super) fn release(&self) {
        self.hide();
        // Usually they are empty.
        if self.dir.remove_dir(files::REQUESTS).is_err() {
            remove_requests(&self.requests);
            let _ = self.dir.remove_dir(files::REQUESTS);
        }
        if self.made {
            if let Ok(jobs) = self.dir.dir(files::JOBS) {
                jobs.names().unwrap_or_default().iter().for_each(|job| keeper::remove_kept(&jobs, job));
                let _ = self.dir.remove_tree(files::JOBS);
            }
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

fn open_directory(path: &Path) -> Result<Dir, Unusable> {
    Dir::open(path).or_else(|error| match error.raw_os_error() {
        // O_NOFOLLOW with O_DIRECTORY answers ENOTDIR for a link too.
        Some(_) if path.is_symlink() => because("it is a symbolic link: name the directory itself"),
        Some(_) if path.exists() && !path.is_dir() => because("it is not a directory"),
        _ => Err(error.into()),
    })
}

fn check(dir: &Dir) -> Result<(), Unusable> {
    let (owner, _, mode) = dir.owner_and_mode()?;
    let uid = process::uid();
    if owner != uid {
        return because(format!("it belongs to uid {owner} and lastout runs as uid {uid}: chown it, or name another"));
    }
    if mode & 0o022 != 0 {
        return because(format!(
            "others can write to it (mode {mode:04o}), and whoever can write to it commands lastout: chmod 700"
        ));
    }
    // The root may be FUSE itself (fuse-overlayfs, under rootless engines): nothing runs without it anyway.
    if let Some(kind) = mount::remote_kind(dir.fd())?.filter(|kind| *kind != "fuse" || !is_on_root(dir)) {
        return because(format!("it is on {kind}, and FIFOs need a local filesystem"));
    }
    Ok(())
}

/// Whether a directory is on the same filesystem as `/`.
fn is_on_root(dir: &Dir) -> bool {
    let root = Dir::open(Path::new("/")).and_then(|root| root.device());
    root.is_ok_and(|root| dir.device().is_ok_and(|device| device == root))
}

/// What a dead init or client left: its keeper is dead, too. Whatever else somebody has put there stays.
fn remove_requests(requests: &Dir) {
    let names = requests.names().unwrap_or_default();
    for name in names.iter().filter(|name| name.parse::<RequestId>().is_ok()) {
        let _ = requests.remove_tree(name);
    }
}

/// A dead init's FIFO goes. A plain file, which a shell's `>` makes where the FIFO is not there yet, is
/// somebody's: it is kept under another name.
fn make_way_for_fifo(dir: &Dir) -> Result<(), Unusable> {
    // It is not opened: a client that waits for us would find a reader for a moment, and take that for us.
    match dir.is_fifo(files::CONTROL) {
        Ok(true) => Ok(dir.remove(files::CONTROL)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(false) | Err(_) => {
            let saved = format!("{}.saved", files::CONTROL);
            dir.rename(files::CONTROL, &saved)?;
            log::warn!(
                "control was no FIFO (a shell's > before lastout was there?): it is {saved} now, and was not run"
            );
            Ok(())
        }
    }
}
