//! Who holds a volume: open files, working directories, roots, executables, mappings and locks.

use std::{
    ffi::OsStr,
    fmt, fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Lock, Locked, Mount, Unseen, Volume,
    locks::{self, locks},
    mounts::{self, mount_of_path},
};
use crate::base::{Map, Pid, Set};

/// How a volume is held.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// By this descriptor.
    Fd(u32),
    /// By the working directory.
    Cwd,
    /// By the root directory.
    Root,
    /// By the executable.
    Exe,
    /// By a mapping into memory.
    Map,
    /// By a lock of which only `/proc/locks` tells: its open file could not be seen.
    Lock,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            How::Fd(number) => write!(f, "fd {number}"),
            How::Cwd => f.write_str("cwd"),
            How::Root => f.write_str("root"),
            How::Exe => f.write_str("exe"),
            How::Map => f.write_str("map"),
            How::Lock => f.write_str("lock"),
        }
    }
}

/// A process that holds a volume.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: Pid,
    /// The thread that still has it, where the leader has ended before its threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<Pid>,
    /// Its command's name.
    pub comm: String,
    /// By what.
    pub how: How,
    /// The file, as the kernel names it.
    pub path: String,
    /// The file has no name any more.
    pub deleted: bool,
    /// What is held.
    pub volume: Volume,
    /// The lock on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "pid {}", self.pid)?;
        if let Some(thread) = self.thread {
            write!(f, ", thread {thread}")?;
        }
        write!(f, " ({}) holds {} by {}", self.comm, self.path, self.how)?;
        if self.deleted {
            write!(f, ", deleted")?;
        }
        if let Some(lock) = &self.lock {
            write!(f, ", {lock}")?;
        }
        write!(f, ", on {} ({})", self.volume.path.display(), self.volume.kind)
    }
}

/// What `pid` holds, and what of it could not be seen. May block (see [`Looker::mappings`]).
pub fn holders(pid: Pid) -> (Vec<Holder>, Vec<Unseen>) {
    let mut looker = Looker::new();
    let mut found = looker.files(pid);
    let mapped = looker.mappings(pid);
    found.0.extend(mapped.0);
    found.1.extend(mapped.1);
    found.0.extend(looker.hidden_locks(&[pid], &found.0));
    found
}

/// Looks at processes, one after the other, and remembers what they have in common.
#[derive(Debug, Default)]
pub struct Looker {
    /// Mounts by mount namespace and root, as links tell them.
    views: Map<(PathBuf, PathBuf), Vec<Mount>>,
    locks: Option<Vec<Locked>>,
}

type Found = (Vec<Holder>, Vec<Unseen>);

impl Looker {
    /// A new one, that knows nothing yet.
    pub fn new() -> Looker {
        Looker::default()
    }

    /// Open files, with their locks; working directory, root and executable. Does not block.
    pub fn files(&mut self, pid: Pid) -> Found {
        self.each_task(pid, |task, mounts, found| {
            task.places(mounts, found);
            task.descriptors(mounts, found);
        })
    }

    /// Files mapped into memory, the executable left out. May block: `maps` waits for the process's own lock on its
    /// memory, which it may hold while it hangs.
    pub fn mappings(&mut self, pid: Pid) -> Found {
        self.each_task(pid, |task, mounts, found| task.mappings(mounts, found))
    }

    /// Locks of `pids` on volumes that no open file in `seen` accounts for: those of processes whose descriptors may
    /// not be seen.
    pub fn hidden_locks(&mut self, pids: &[Pid], seen: &[Holder]) -> Vec<Holder> {
        let locks = self.locks.get_or_insert_with(|| locks().unwrap_or_default());
        let locks: Vec<Locked> = locks.iter().filter(|lock| !lock.waits).cloned().collect();
        let mut found = Vec::new();
        for locked in locks {
            let Some(pid) = locked.pid.filter(|pid| pids.contains(pid)) else { continue };
            let known = |holder: &Holder| {
                holder.pid == pid && holder.lock.as_ref() == Some(&locked.lock) && holder.volume.device == locked.device
            };
            if seen.iter().any(known) {
                continue;
            }
            // Where the same filesystem is the root as well, nothing tells which of its mounts is meant.
            let mut on = self.mounts(pid).iter().filter(|mount| mount.device == locked.device).map(Mount::volume);
            let volume = on.next().flatten().filter(|_| on.all(|other| other.is_some()));
            if let Some(volume) = volume {
                let path = format!("{}: inode {}", volume.path.display(), locked.inode);
                let comm = comm(pid);
                let lock = Some(locked.lock);
                found.push(Holder { pid, thread: None, comm, how: How::Lock, path, deleted: false, volume, lock });
            }
        }
        found
    }

    /// The mounts that `pid` sees, by their paths as they are for us.
    pub fn mounts(&mut self, pid: Pid) -> &[Mount] {
        self.mounts_at(&format!("/proc/{pid}"))
    }

    /// The same of a task by its directory.
    pub(super) fn mounts_at(&mut self, base: &str) -> &[Mount] {
        let namespace = fs::read_link(format!("{base}/ns/mnt")).unwrap_or_default();
        let root = fs::read_link(format!("{base}/root")).unwrap_or_default();
        let ours = fs::read_link("/proc/self/ns/mnt").is_ok_and(|ours| ours == namespace);
        self.views.or_insert_with((namespace, root.clone()), || {
            let mut mounts = mounts::mounts_at(base).unwrap_or_default();
            // The kernel shows a process's mounts below its root, but the paths of its files below our root.
            if root.is_absolute() && root.as_os_str() != "/" {
                for mount in &mut mounts {
                    let below = mount.path.strip_prefix("/").map(PathBuf::from).unwrap_or_default();
                    mount.path = if below.as_os_str().is_empty() { root.clone() } else { root.join(below) };
                }
            }
            if ours && let Ok(own) = fs::read("/proc/self/mountinfo") {
                let own = mounts::parse(&own);
                let known: Set<u64> = own.iter().map(|mount| mount.id).collect();
                mounts.retain(|mount| !known.contains(&mount.id));
                mounts.extend(own);
            }
            mounts
        })
    }

    fn each_task(&mut self, pid: Pid, look: impl Fn(&Task, &[Mount], &mut Found)) -> Found {
        let mut found = Found::default();
        let leader = Task { pid, thread: None, comm: comm(pid), base: format!("/proc/{pid}") };
        match state(&leader.base) {
            // A dead leader shows nothing; its threads have everything.
            Some('Z' | 'X') => {
                let mut known = Set::new();
                for thread in threads(pid).into_iter().filter(|thread| *thread != pid) {
                    let base = format!("/proc/{pid}/task/{thread}");
                    let mut of_thread = Found::default();
                    let mounts = self.mounts_at(&base);
                    look(&Task { thread: Some(thread), base, ..leader.clone() }, mounts, &mut of_thread);
                    // They usually share it all.
                    found.0.extend(of_thread.0.into_iter().filter(|h| known.insert((h.how, h.path.clone()))));
                    found.1.extend(
                        of_thread.1.into_iter().filter(|unseen| known.insert((How::Lock, unseen.what.clone()))),
                    );
                }
            }
            Some(_) => look(&leader, self.mounts(pid), &mut found),
            None => {}
        }
        found
    }
}

#[derive(Clone, Debug)]
struct Task {
    pid: Pid,
    thread: Option<Pid>,
    comm: String,
    base: String,
}

impl Task {
    fn holder(&self, how: How, link: &Path, volume: Volume, lock: Option<Lock>) -> Holder {
        let (path, deleted) = name(link);
        let path = path.to_string_lossy().into_owned();
        Holder { pid: self.pid, thread: self.thread, comm: self.comm.clone(), how, path, deleted, volume, lock }
    }

    fn unseen(&self, what: &str, error: &io::Error, found: &mut Found) {
        found.1.extend(Unseen::new(self.pid, &self.comm, what, error));
    }

    fn places(&self, mounts: &[Mount], found: &mut Found) {
        for (how, file, what) in
            [(How::Cwd, "cwd", "working directory"), (How::Root, "root", "root"), (How::Exe, "exe", "executable")]
        {
            match fs::read_link(format!("{}/{file}", self.base)) {
                Ok(link) => {
                    let on = mount_of_path(mounts, name(&link).0).and_then(Mount::volume);
                    found.0.extend(on.map(|volume| self.holder(how, &link, volume, None)));
                }
                Err(error) => self.unseen(what, &error, found),
            }
        }
    }

    fn descriptors(&self, mounts: &[Mount], found: &mut Found) {
        let entries = match fs::read_dir(format!("{}/fd", self.base)) {
            Ok(entries) => entries,
            Err(error) => return self.unseen("open files", &error, found),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.unseen("open files", &error, found),
            };
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let link = match fs::read_link(entry.path()) {
                Ok(link) => link,
                Err(error) => {
                    self.unseen("open files", &error, found);
                    continue;
                }
            };
            // Sockets, pipes and the like have no path.
            if !link.is_absolute() {
                continue;
            }
            let Ok(info) = fs::read_to_string(format!("{}/fdinfo/{number}", self.base)) else { continue };
            let on = mount_id(&info).and_then(|id| mounts.iter().find(|mount| mount.id == id)).and_then(Mount::volume);
            let lock = info.lines().filter(|line| line.starts_with("lock:")).find_map(locks::line);
            let lock = lock.map(|locked| locked.lock);
            found.0.extend(on.map(|volume| self.holder(How::Fd(number), &link, volume, lock)));
        }
    }

    fn mappings(&self, mounts: &[Mount], found: &mut Found) {
        match fs::read(format!("{}/maps", self.base)) {
            Ok(maps) => {
                let exe = fs::read_link(format!("{}/exe", self.base)).unwrap_or_default();
                for (device, path) in mapped(&maps) {
                    if path != exe
                        && let Some(volume) = volume_of_mapping(mounts, &device, &path)
                    {
                        found.0.push(self.holder(How::Map, &path, volume, None));
                    }
                }
            }
            Err(error) => self.unseen("mappings", &error, found),
        }
    }
}

/// Splits what the kernel appends to the name of a file that has none any more.
fn name(link: &Path) -> (&Path, bool) {
    match link.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(name) => (Path::new(OsStr::from_bytes(name)), true),
        None => (link, false),
    }
}

/// The mount of an open file, from its fdinfo.
pub(super) fn mount_id(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// Every file of a `maps`, once: its device as mountinfo writes it, and its path.
pub(super) fn mapped(maps: &[u8]) -> Set<(String, PathBuf)> {
    let file = |line: &[u8]| {
        // address perms offset device inode      path: the path may have spaces.
        let mut fields = line.splitn(6, |b| *b == b' ');
        let device = std::str::from_utf8(fields.nth(3)?).ok()?;
        let (major, minor) = device.split_once(':')?;
        let number = |hexadecimal| u32::from_str_radix(hexadecimal, 16).ok();
        let device = format!("{}:{}", number(major)?, number(minor)?);
        let path = fields.nth(1)?.trim_ascii_start();
        path.starts_with(b"/").then(|| (device, std::ffi::OsString::from_vec(path.to_vec()).into()))
    };
    maps.split(|b| *b == b'\n').filter_map(file).collect()
}

/// A mapping's device says which filesystem; its path says which of that one's mounts.
pub(super) fn volume_of_mapping(mounts: &[Mount], device: &str, path: &Path) -> Option<Volume> {
    let same = || mounts.iter().filter(|mount| mount.device == device);
    let at = mount_of_path(same(), name(path).0);
    at.or_else(|| same().find(|mount| mount.volume().is_some()))?.volume()
}

fn comm(pid: Pid) -> String {
    fs::read(format!("/proc/{pid}/comm"))
        .map(|name| String::from_utf8_lossy(&name).trim_end().into())
        .unwrap_or_default()
}

fn state(base: &str) -> Option<char> {
    let stat = fs::read(format!("{base}/stat")).ok()?;
    let end = stat.iter().rposition(|b| *b == b')')?;
    stat.get(end + 2).map(|state| char::from(*state))
}

/// The threads of a process, the leader first.
pub(super) fn threads(pid: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let ids = tasks.into_iter().flatten().flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
    ids.filter_map(Pid::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"\
1 0 254:0 / / rw - ext4 /dev/vda rw\n\
2 1 0:50 / /data rw - fuse.sshfs host:/ rw\n\
3 1 0:50 /sub /bind rw - fuse.sshfs host:/ rw\n\
4 1 0:60 / /scratch rw - tmpfs tmpfs rw\n";

    #[test]
    fn a_files_mount_is_in_its_fdinfo() {
        assert_eq!(mount_id("pos:\t0\nflags:\t02\nmnt_id:\t25\nino:\t4\n"), Some(25));
        assert_eq!(mount_id("pos:\t0\n"), None);
    }

    #[test]
    fn mappings_are_found_by_device_and_path() {
        let maps = b"\
55f0-55f1 r-xp 00000000 fe:00 1234                       /usr/bin/sleep\n\
7f00-7f01 r--p 00000000 00:32 77                         /data/with space\n\
7f01-7f02 r-xp 00001000 00:32 77                         /data/with space\n\
7f02-7f03 rw-s 00000000 00:32 78                         /bind/gone (deleted)\n\
7f03-7f04 rw-s 00000000 00:32 79                         /elsewhere/x\n\
7f04-7f05 rw-p 00000000 00:00 0 \n\
7ffc-7ffd rw-p 00000000 00:00 0                          [stack]\n";
        let mounts = mounts::parse(MOUNTS);
        let found = mapped(maps);
        assert_eq!(found.len(), 4);
        let on = |device: &str, path: &str| {
            volume_of_mapping(&mounts, device, Path::new(path)).map(|volume| volume.path.display().to_string())
        };
        assert!(found.contains(&("0:50".into(), "/data/with space".into())));
        assert_eq!(on("0:50", "/data/with space").as_deref(), Some("/data"));
        assert_eq!(on("0:50", "/bind/gone (deleted)").as_deref(), Some("/bind"));
        assert_eq!(on("0:50", "/elsewhere/x").as_deref(), Some("/data"));
        assert_eq!(on("254:0", "/usr/bin/sleep"), None);
    }

    #[test]
    fn a_deleted_file_is_told_as_such() {
        assert_eq!(name(Path::new("/data/x (deleted)")), (Path::new("/data/x"), true));
        assert_eq!(name(Path::new("/data/x")), (Path::new("/data/x"), false));
    }
}
