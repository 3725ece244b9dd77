//! A mount's path: looked at before the daemon starts, watched while it serves, unmounted before it ends.
//!
//! Whatever may block runs in a child; what it finds it writes to standard output.

use std::{
    fs::{self, File},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    base::Pid,
    core::BUSY,
    inspect::{self, Gathered, Holder, Looker, gather, mount_at},
    sys::mount::{self, Refusal},
};

/// To look at one process, and at all of them.
const LIMIT: Duration = Duration::from_millis(300);
const TOTAL: Duration = Duration::from_secs(2);
/// Holders that are named.
const MOST: usize = 8;
/// So many mounts may be on top of each other.
const STACKED: usize = 16;

/// In a child. The path as the kernel will name the mount, if it can be mounted on: what an earlier run has left dead
/// is detached; what somebody else has mounted is not touched. Blocks if the path does.
pub(super) fn prepare(path: &Path) -> Result<PathBuf, String> {
    let cannot = |why: String| format!("cannot mount on {}: {why}", path.display());
    let errno = |error: io::Error| cannot(crate::sys::errno(&error).to_string());
    let real = resolve(path).map_err(errno)?;
    for _ in 0..STACKED {
        match (mount_at(&real).map_err(errno)?, fs::metadata(&real)) {
            (None, Ok(_)) => return Ok(real),
            (None, Err(error)) => return Err(errno(error)),
            (Some(there), Err(error)) if there.kind.starts_with("fuse") && mount::is_dead(&error) => {
                log::warn!("{}: its server has gone, so it is unmounted: {}", real.display(), there.source);
                try_unmount(&real, true).map_err(|why| cannot(format!("a dead mount is there: {why}")))?;
            }
            (Some(there), _) => {
                return Err(cannot(format!("{} ({}) is mounted there already", there.source, there.kind)));
            }
        }
    }
    Err(cannot("too much is mounted there".into()))
}

/// In a child: whether nothing is there.
pub(super) fn is_absent(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Without a look at what may be mounted there.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(real) => Ok(real),
        Err(error) if mount::is_dead(&error) => {
            let (parent, name) = path.parent().zip(path.file_name()).ok_or(error)?;
            Ok(fs::canonicalize(parent)?.join(name))
        }
        Err(error) => Err(error),
    }
}

/// In a child: unmounts, and answers with the exit code that [`crate::core::Task::Unmount`] has.
pub(super) fn unmount(path: &Path, lazily: bool) -> u8 {
    match try_unmount(path, lazily) {
        Ok(true) => 0,
        Ok(false) => BUSY,
        Err(why) => {
            log::warn!("cannot unmount {}: {why}", path.display());
            1
        }
    }
}

/// Whether it is unmounted; if not, it is busy.
fn try_unmount(path: &Path, lazily: bool) -> Result<bool, String> {
    let Err(error) = mount::unmount(path, lazily) else { return Ok(true) };
    match mount::refusal(&error) {
        Refusal::NotMounted => Ok(true),
        Refusal::Busy => Ok(false),
        Refusal::Forbidden => by_helper(path, lazily),
        Refusal::Other => Err(crate::sys::errno(&error).to_string()),
    }
}

/// As an ordinary user may: what he has mounted with its help.
fn by_helper(path: &Path, lazily: bool) -> Result<bool, String> {
    let mut why = "only root and fusermount3 may, which is not there".to_string();
    for program in ["fusermount3", "fusermount"] {
        let how = if lazily { "-uz" } else { "-u" };
        let mut command = Command::new(program);
        command.arg(how).arg("--").arg(path).env("LC_ALL", "C").stdin(Stdio::null());
        match command.output() {
            Ok(output) if output.status.success() => return Ok(true),
            Ok(output) => {
                why = String::from_utf8_lossy(&output.stderr).trim().to_string();
                if why.contains("busy") {
                    return Ok(false);
                }
                if mount_at(path).is_ok_and(|there| there.is_none()) {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => why = format!("{program}: {}", crate::sys::errno(&error)),
        }
    }
    Err(why)
}

/// Who holds what is mounted at `path`, in words. Does not block for long.
pub(super) fn holders(path: &Path) -> Vec<String> {
    let Ok(Some(there)) = mount_at(path) else { return Vec::new() };
    let everybody: Vec<Pid> = inspect::everything().unwrap_or_default().iter().map(|process| process.id.pid).collect();
    let all = gather(&everybody, LIMIT, TOTAL, |pid: &Pid, tell: &mut dyn FnMut(Holder)| {
        let mut looker = Looker::new();
        let (files, _) = looker.files(*pid);
        files.into_iter().for_each(&mut *tell);
        looker.mappings(*pid).0.into_iter().for_each(tell);
    });
    let all = all.into_iter().flat_map(|Gathered { found, .. }| found);
    let here = all.filter(|holder| holder.volume.path == path && holder.volume.device == there.device);
    here.take(MOST).map(|holder| holder.to_string()).collect()
}

/// What is mounted on a path, told when it changes.
#[derive(Debug)]
pub(super) struct Watch {
    mounts: File,
    path: PathBuf,
    device: Option<String>,
}

impl Watch {
    /// It is none yet.
    pub(super) fn new(path: PathBuf) -> io::Result<Watch> {
        Ok(Watch { mounts: File::open("/proc/self/mountinfo")?, path, device: None })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Changes of any mount, [`crate::sys::poll::Interest::Priority`].
    pub(super) fn fd(&self) -> &File {
        &self.mounts
    }

    /// What is the case now, if it is new.
    pub(super) fn look(&mut self) -> Option<Option<String>> {
        let device = mount_at(&self.path).ok()?.map(|there| there.device);
        (self.device != device).then(|| {
            self.device.clone_from(&device);
            device
        })
    }
}

/// What [`prepare`] said, in the child's output.
pub(super) fn prepared(output: &[u8]) -> PathBuf {
    std::ffi::OsStr::from_bytes(output).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_and_no_mount_point_can_be_mounted_on() {
        let scratch = tempfile::tempdir().unwrap();
        let real = scratch.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        assert_eq!(prepare(&real.join("link")), Ok(real.clone()));
        let missing = real.join("missing");
        assert_eq!(prepare(&missing), Err(format!("cannot mount on {}: no such file or directory", missing.display())));
        let proc = prepare(Path::new("/proc")).unwrap_err();
        assert!(proc.starts_with("cannot mount on /proc: ") && proc.ends_with("(proc) is mounted there already"));
        assert_eq!(Watch::new(real).unwrap().look(), None);
        let mut watch = Watch::new("/proc".into()).unwrap();
        assert!(watch.look().is_some_and(|device| device.is_some_and(|device| device.starts_with("0:"))));
        assert_eq!(watch.look(), None);
    }

    #[test]
    fn what_is_not_mounted_is_unmounted() {
        let scratch = tempfile::tempdir().unwrap();
        // Without the right to unmount, the helper says no more than that it cannot.
        let answer = try_unmount(scratch.path(), false);
        assert!(answer == Ok(true) || answer.is_err(), "{answer:?}");
    }
}
