//! Mounts, as `/proc/PID/mountinfo` has them. It is a list in the kernel's memory: reading it asks no filesystem.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::sys::mount::{self, is_remote};

/// One mount of a mount namespace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// Its number (`mnt_id`), unique on the machine while it lasts.
    pub id: u64,
    /// Its filesystem's device, `major:minor` in decimal.
    pub device: String,
    /// The directory of that filesystem that is mounted.
    #[serde(with = "super::lossy")]
    pub root: PathBuf,
    /// Where it is mounted.
    #[serde(with = "super::lossy")]
    pub path: PathBuf,
    /// Its filesystem's type.
    pub kind: String,
    /// What is mounted: a device, `server:/path`, or any word.
    pub source: String,
    /// The options of the filesystem itself.
    pub options: String,
}

/// A mount that is neither a pseudo filesystem nor the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Volume {
    /// Where it is mounted.
    #[serde(with = "super::lossy")]
    pub path: PathBuf,
    /// Its filesystem's type.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Its filesystem's device, `major:minor`.
    pub device: String,
}

impl Volume {
    /// Whether a server or a FUSE daemon stands behind it: its `syncfs` concerns only its own users.
    pub fn is_remote(&self) -> bool {
        is_remote(&self.kind)
    }

    /// Whether a FUSE daemon stands behind it. `fuseblk` has a block device besides.
    pub fn is_fuse(&self) -> bool {
        self.kind.starts_with("fuse")
    }

    /// The number of its FUSE connection (`/sys/fs/fuse/connections/N`), for one that has no block device.
    pub fn fuse_connection(&self) -> Option<u32> {
        self.is_fuse().then(|| self.device.strip_prefix("0:")?.parse().ok()).flatten()
    }

    /// How many requests its FUSE daemon has not answered; `None` where that cannot be seen. Asks the kernel only.
    pub fn requests_waiting(&self) -> Option<u64> {
        let file = format!("/sys/fs/fuse/connections/{}/waiting", self.fuse_connection()?);
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }
}

/// Filesystems that hold no files of anybody's.
const PSEUDO: [&str; 20] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "securityfs",
    "sysfs",
    "tracefs",
    "rpc_pipefs",
];
/// Filesystems in memory: somebody's files, but not where the system keeps its own.
const MEMORY: [&str; 2] = ["tmpfs", "ramfs"];
const SYSTEM: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];

impl Mount {
    /// It as a volume, if it is one.
    pub fn volume(&self) -> Option<Volume> {
        let kind = self.kind.as_str();
        let is_system = || SYSTEM.iter().any(|system| self.path.starts_with(system));
        let is_pseudo = PSEUDO.contains(&kind) || (MEMORY.contains(&kind) && is_system());
        if is_pseudo || self.path.as_os_str() == "/" {
            return None;
        }
        Some(Volume {
            path: self.path.clone(),
            kind: self.kind.clone(),
            source: self.source.clone(),
            device: self.device.clone(),
        })
    }
}

/// Every volume of this mount namespace, oldest first.
pub fn volumes() -> std::io::Result<Vec<Volume>> {
    Ok(parse(&super::whole("/proc/self/mountinfo")?).iter().filter_map(Mount::volume).collect())
}

/// Those of them that are remote. For an init that leaves: what is not, costs no more than a look at its kind.
pub fn remote_volumes(local: &mut mount::Local) -> std::io::Result<Vec<Volume>> {
    if local.is_every_mount() == Some(true) {
        return Ok(Vec::new());
    }
    let text = super::whole("/proc/self/mountinfo")?;
    let lines = text.split(|b| *b == b'\n').filter(|line| kind(line).is_some_and(is_remote));
    Ok(lines.filter_map(line).filter_map(|mount| mount.volume()).collect())
}

/// What is mounted at `path`, by the kernel's name of it, last.
pub fn mount_at(path: &Path) -> std::io::Result<Option<Mount>> {
    Ok(at(parse(&super::whole("/proc/self/mountinfo")?), path))
}

fn at(mounts: Vec<Mount>, path: &Path) -> Option<Mount> {
    mounts.into_iter().rfind(|mount| mount.path == path)
}

/// The filesystem's type in a line.
fn kind(line: &[u8]) -> Option<&str> {
    let after = line.windows(3).position(|three| three == b" - ")? + 3;
    std::str::from_utf8(line[after..].split(|b| *b == b' ').next()?).ok()
}

/// Every mount that a task sees, oldest first, by their paths below its root. By its directory: a leader that has ended sees no mounts, its threads do.
pub(super) fn mounts_at(base: &str) -> std::io::Result<Vec<Mount>> {
    Ok(parse(&super::whole(format!("{base}/mountinfo"))?))
}

/// The mount that `path`, which must be absolute, is on. By its name only: nothing is asked, no link followed.
pub fn mount_of_path<'a>(mounts: impl IntoIterator<Item = &'a Mount>, path: &Path) -> Option<&'a Mount> {
    let on = mounts.into_iter().filter(|mount| path.starts_with(&mount.path));
    // Of those at one place the last one hides the others, and `max_by_key` takes the last.
    on.max_by_key(|mount| mount.path.components().count())
}

/// The volume that `path` is on, likewise.
pub fn volume_of_path(mounts: &[Mount], path: &Path) -> Option<Volume> {
    mount_of_path(mounts, path)?.volume()
}

/// Reads a mountinfo (proc_pid_mountinfo(5)). Lines that are not understood are left out.
pub(super) fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|b| *b == b'\n').filter_map(line).collect()
}

/// `id parent device root path options [optional]... - kind source super-options`
fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let plain = |field: &[u8]| Some(std::str::from_utf8(field).ok()?.to_string());
    let text = |field: &[u8]| String::from_utf8_lossy(unescape(field).as_bytes()).into_owned();
    let id = plain(fields.next()?)?.parse().ok()?;
    fields.next()?;
    let device = plain(fields.next()?)?;
    let root = unescape(fields.next()?).into();
    let path = unescape(fields.next()?).into();
    fields.find(|field| *field == b"-")?;
    let kind = text(fields.next()?);
    let source = fields.next().map(text).unwrap_or_default();
    let options = fields.next().map(text).unwrap_or_default();
    Some(Mount { id, device, root, path, kind, source, options })
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (plain, escape) = rest.split_at(at);
        bytes.extend_from_slice(plain);
        let code = || {
            let value = |value: u32, digit: &u8| Some(value * 8 + char::from(*digit).to_digit(8)?);
            u8::try_from(escape.get(1..4)?.iter().try_fold(0, value)?).ok()
        };
        let code = code();
        bytes.push(code.unwrap_or(b'\\'));
        rest = &escape[if code.is_some() { 4 } else { 1 }..];
    }
    bytes.extend_from_slice(rest);
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw\n\
25 27 0:23 / /dev/shm rw - tmpfs tmpfs rw\n\
60 27 0:50 / /data rw,nosuid shared:1 master:2 - fuse.sshfs user@host:/x rw,user_id=0\n\
61 60 0:51 /export /data/in\\040ner\\134x rw - nfs4 server:/export\\040y rw,vers=4.2\n\
62 27 0:52 / /scratch rw - tmpfs  rw\n\
63 27 254:0 /var/lib /etc/hosts rw - ext4 /dev/vda rw\n\
64 27 0:50 / /data2\xff rw - fuse x rw\n\
torn line\n";

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let mounts = parse(MOUNTINFO);
        assert_eq!(mounts.len(), 8);
        assert_eq!((mounts[3].id, mounts[3].device.as_str(), mounts[3].kind.as_str()), (60, "0:50", "fuse.sshfs"));
        assert_eq!(mounts[4].path, Path::new("/data/in ner\\x"));
        assert_eq!((mounts[4].source.as_str(), mounts[4].options.as_str()), ("server:/export y", "rw,vers=4.2"));
        assert_eq!(mounts[7].path.as_os_str().as_bytes(), b"/data2\xff");
    }

    #[test]
    fn a_volume_is_neither_pseudo_nor_the_root() {
        let volumes: Vec<Volume> = parse(MOUNTINFO).iter().filter_map(Mount::volume).collect();
        let paths: Vec<_> = volumes.iter().map(|volume| volume.path.to_string_lossy()).collect();
        assert_eq!(paths, ["/data", "/data/in ner\\x", "/scratch", "/etc/hosts", "/data2\u{fffd}"]);
        assert_eq!(volumes.iter().map(Volume::is_remote).collect::<Vec<_>>(), [true, true, false, false, true]);
        let kinds: Vec<_> = MOUNTINFO.split(|b| *b == b'\n').filter_map(kind).collect();
        assert_eq!(kinds, ["ext4", "proc", "tmpfs", "fuse.sshfs", "nfs4", "tmpfs", "ext4", "fuse"]);
        assert_eq!(volumes[0].fuse_connection(), Some(50));
        assert_eq!(volumes[1].fuse_connection(), None);
    }

    #[test]
    fn a_path_is_on_the_deepest_and_last_mount() {
        let mut mounts = parse(MOUNTINFO);
        let on = |mounts: &[Mount], path: &str| mount_of_path(mounts, Path::new(path)).map(|mount| mount.id);
        for (path, id) in [("/data/x", 60), ("/data", 60), ("/data2", 27), ("/data/in ner\\x/y", 61), ("/x", 27)] {
            assert_eq!(on(&mounts, path), Some(id), "{path}");
        }
        mounts.push(Mount { id: 99, ..mounts[3].clone() });
        assert_eq!(on(&mounts, "/data/x"), Some(99));
        assert_eq!(volume_of_path(&mounts, Path::new("/proc/1")), None);
        assert_eq!(at(mounts.clone(), Path::new("/data")).map(|mount| mount.id), Some(99));
        assert_eq!(at(mounts, Path::new("/data/x")), None);
    }
}
