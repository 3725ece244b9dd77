use std::path::PathBuf;

use procfs::process::Process as Entry;

use crate::sys::mount::is_remote;

/// A mount that is neither a pseudo filesystem nor the root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// Where it is mounted.
    pub path: PathBuf,
    /// Its filesystem's type.
    pub kind: String,
}

impl Volume {
    /// Whether a server or a FUSE daemon stands behind it: its `syncfs` concerns only its own users.
    pub fn is_remote(&self) -> bool {
        is_remote(&self.kind)
    }
}

/// Filesystems that hold no files of anybody's.
const PSEUDO: [&str; 22] = [
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
    "ramfs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "rpc_pipefs",
];

/// Every volume of this mount namespace, oldest first. Read from `/proc/self/mountinfo`, which asks no filesystem.
pub fn volumes() -> Vec<Volume> {
    let mounts = Entry::myself().and_then(|me| me.mountinfo());
    let Ok(mounts) = mounts else { return Vec::new() };
    let is_volume = |kind: &str, path: &PathBuf| !PSEUDO.contains(&kind) && path.as_os_str() != "/";
    let volumes = mounts.into_iter().filter(|mount| is_volume(&mount.fs_type, &mount.mount_point));
    volumes.map(|mount| Volume { path: mount.mount_point, kind: mount.fs_type }).collect()
}
