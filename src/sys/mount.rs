//! Filesystems.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// Kinds of filesystem over which a FIFO does not connect two processes, or whose server can hang
/// (`statfs(2)`, `linux/magic.h`).
const REMOTE: [(u32, &str); 14] = [
    (0x6969, "nfs"),
    (0x6573_5546, "fuse"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x517b, "smb"),
    (0x0102_1997, "9p"),
    (0x0bd0_0bd0, "lustre"),
    (0x00c3_6400, "ceph"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "kafs"),
    (0x4750_4653, "gpfs"),
    (0x1983_0326, "fhgfs"),
    (0x7375_7245, "coda"),
    (0x0116_1970, "gfs2"),
];

/// Whether a server or a FUSE daemon stands behind this type of filesystem.
pub fn is_remote(kind: &str) -> bool {
    kind.starts_with("fuse")
        || ["nfs", "nfs4", "cifs", "smb3", "9p", "lustre", "ceph", "afs", "gpfs", "beegfs"].contains(&kind)
}

/// Whether `fd` is a file on a filesystem that may hang, or on one that this mount namespace does not show. Asks
/// no filesystem: the attributes are those that the kernel has (`AT_STATX_DONT_SYNC`).
pub fn may_hang(fd: impl AsFd) -> bool {
    // SAFETY: all its fields are numbers, for which zero is a value.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the name ends with NUL and `stat` is valid for writing.
    let result = unsafe { libc::statx(fd.as_fd().as_raw_fd(), c"".as_ptr(), flags, libc::STATX_TYPE, &mut stat) };
    if result != 0 || u32::from(stat.stx_mode) & libc::S_IFMT != libc::S_IFREG {
        return false;
    }
    let device = format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor);
    // A mount point's name need not be UTF-8.
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mounts = String::from_utf8_lossy(&mounts);
    let kind = mounts.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        (mount.split(' ').nth(2) == Some(&device)).then(|| source.split(' ').next())?
    });
    !mounts.is_empty() && kind.is_none_or(is_remote)
}

/// The name of the network or FUSE filesystem that `fd` is on; `None` if it is local. May block if that hangs.
pub fn remote_kind(fd: impl AsFd) -> io::Result<Option<&'static str>> {
    let kind = nix::sys::statfs::fstatfs(fd)?.filesystem_type().0 as u32;
    Ok(REMOTE.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name))
}

/// Where fusectl is mounted, with a directory for each connection of the whole machine.
pub const FUSE_CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Aborts the connection of one FUSE mount, by its device (`0:N` in mountinfo), and of no other: every request
/// that waits for its server fails.
pub fn abort_fuse(device: &str) -> io::Result<()> {
    let minor = device.strip_prefix("0:").and_then(|minor| minor.parse::<u32>().ok());
    let minor = minor.ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = std::fs::File::options().write(true).open(format!("{FUSE_CONNECTIONS}/{minor}/abort"))?;
    io::Write::write_all(&mut file, b"1")
}

/// How much room a filesystem has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Space {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes that an ordinary user may still use.
    pub free_bytes: u64,
    /// Files in all; 0 where they are not counted.
    pub inodes: u64,
    /// Files that can still be made.
    pub free_inodes: u64,
}

/// Asks a filesystem how much room it has. Blocks, for ever if its server hangs.
pub fn space(path: &std::path::Path) -> io::Result<Space> {
    let stat = nix::sys::statfs::statfs(path)?;
    #[allow(clippy::useless_conversion, reason = "signed with glibc")]
    let size = u64::try_from(stat.block_size()).unwrap_or(0);
    Ok(Space {
        bytes: stat.blocks() * size,
        free_bytes: stat.blocks_available() * size,
        inodes: stat.files(),
        free_inodes: stat.files_free(),
    })
}

/// Waits until what was written to the filesystem of `fd` has reached it. Blocks, for ever if its server hangs.
pub fn sync(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: no memory is involved.
    match unsafe { libc::syncfs(fd.as_fd().as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Unmounts what is mounted last at `path`; `lazily` even if somebody holds it. May block.
pub fn unmount(path: &std::path::Path, lazily: bool) -> io::Result<()> {
    use nix::mount::{MntFlags, umount2};
    let how = if lazily { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    Ok(umount2(path, how | MntFlags::UMOUNT_NOFOLLOW)?)
}

/// Why an unmount may fail, for whoever decides what to do then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Somebody holds it.
    Busy,
    /// Nothing is mounted there.
    NotMounted,
    /// We may not.
    Forbidden,
    /// Something else.
    Other,
}

/// What an error of [`unmount`] means.
pub fn refusal(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::EBUSY) => Refusal::Busy,
        Some(libc::EINVAL | libc::ENOENT) => Refusal::NotMounted,
        Some(libc::EPERM | libc::EACCES) => Refusal::Forbidden,
        _ => Refusal::Other,
    }
}

/// Whether this is what a FUSE mount answers whose server has gone.
pub fn is_dead(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}
