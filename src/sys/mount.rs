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
    // `fusectl` is the kernel's own.
    kind.starts_with("fuse.")
        || ["fuse", "fuseblk", "nfs", "nfs4", "cifs", "smb3", "9p", "lustre", "ceph", "afs", "gpfs", "beegfs"]
            .contains(&kind)
}

/// What `listmount(2)` and `statmount(2)` are asked (`struct mnt_id_req` of `linux/mount.h`, its first size).
#[repr(C)]
struct MountRequest {
    _size: u32,
    _spare: u32,
    _mount: u64,
    /// Of `statmount`, which fields; of `listmount`, after which mount.
    _param: u64,
}

/// What `statmount(2)` says, as far as it is of interest (`struct statmount`).
#[repr(C)]
#[derive(Default)]
struct MountStatus {
    _size: u32,
    _options: u32,
    mask: u64,
    _device: [u32; 2],
    magic: u64,
}

/// Their numbers, which all architectures but alpha share (`asm-generic/unistd.h`).
const SYS_STATMOUNT: libc::c_long = 457;
const SYS_LISTMOUNT: libc::c_long = 458;
/// Every mount that our root shows.
const LSMT_ROOT: u64 = u64::MAX;
/// The filesystem's device and magic number.
const STATMOUNT_SB_BASIC: u64 = 1;
/// Mounts that are asked for one by one; more are read faster from `/proc/self/mountinfo`.
const FEW: usize = 256;

impl MountRequest {
    fn new(mount: u64, param: u64) -> MountRequest {
        MountRequest { _size: size_of::<MountRequest>() as u32, _spare: 0, _mount: mount, _param: param }
    }
}

/// The mounts of which it is known that they are local: a mount's id is never given again.
#[derive(Debug, Default)]
pub struct Local {
    known: Vec<u64>,
}

impl Local {
    /// Whether every mount is; `None` where the kernel does not say it so (before Linux 6.8, or forbidden by seccomp). Asks
    /// no filesystem. Of two dozen mounts it takes 40 µs, and 3 µs the second time, where `/proc/self/mountinfo` takes 50 to 130.
    pub fn is_every_mount(&mut self) -> Option<bool> {
        let mut ids = [0u64; FEW];
        let request = MountRequest::new(LSMT_ROOT, 0);
        // SAFETY: `request` is valid for reading and `ids` for writing.
        let count = unsafe { libc::syscall(SYS_LISTMOUNT, &request, ids.as_mut_ptr(), FEW, 0) };
        let ids = ids.get(..usize::try_from(count).ok()?).filter(|ids| (1..FEW).contains(&ids.len()))?;
        for id in ids {
            if !self.known.contains(id) {
                if remote_name(magic(*id)?).is_some() {
                    return Some(false);
                }
                self.known.push(*id);
            }
        }
        Some(true)
    }
}

/// The magic number of the filesystem of this mount.
fn magic(mount: u64) -> Option<u32> {
    let request = MountRequest::new(mount, STATMOUNT_SB_BASIC);
    let mut status = MountStatus::default();
    // SAFETY: `request` is valid for reading and `status` for writing, of this size.
    let result = unsafe { libc::syscall(SYS_STATMOUNT, &request, &mut status, size_of::<MountStatus>(), 0) };
    (result == 0 && status.mask & STATMOUNT_SB_BASIC != 0).then_some(status.magic as u32)
}

fn remote_name(number: u32) -> Option<&'static str> {
    REMOTE.iter().find(|(magic, _)| *magic == number).map(|(_, name)| *name)
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
    Ok(remote_name(kind))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_mounts_is_what_mountinfo_says() {
        let text = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut mounts = Local::default();
        for _ in 0..2 {
            // Others mount and unmount meanwhile.
            let (text, said) = loop {
                let (before, said) = (text(), mounts.is_every_mount());
                if before == text() {
                    break (before, said);
                }
            };
            let kinds = text.lines().filter_map(|line| line.split_once(" - ")?.1.split(' ').next());
            // An older kernel does not say.
            assert!(said.is_none_or(|said| said != kinds.into_iter().any(is_remote)), "{text}");
        }
    }
}
