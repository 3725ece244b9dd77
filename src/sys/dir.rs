//! A directory, and what is done in it: beneath it and without following links, so that whoever else can
//! write there cannot lead us elsewhere.

use std::{
    ffi::CString,
    fs::{File, TryLockError},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat},
};

/// An open directory.
#[derive(Debug)]
pub struct Dir(OwnedFd);

/// A lock that ends with the last process that holds its descriptor.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Its descriptor, for a child to close.
    pub fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

const FILE: Mode = Mode::from_bits_truncate(0o600);
const DIRECTORY: Mode = Mode::from_bits_truncate(0o700);

impl Dir {
    /// Opens `path`, whose last part must be a directory and not a link.
    pub fn open(path: &Path) -> io::Result<Dir> {
        Dir::open_at(AT_FDCWD, path.as_os_str().as_bytes())
    }

    /// Makes `path`; it may be there already.
    pub fn make(path: &Path) -> io::Result<bool> {
        made(mkdirat(AT_FDCWD, path, DIRECTORY))
    }

    fn open_at(base: impl AsFd, name: &[u8]) -> io::Result<Dir> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        Ok(Dir(openat(base, name, flags, Mode::empty())?))
    }

    /// A directory in this one.
    pub fn dir(&self, name: &str) -> io::Result<Dir> {
        Dir::open_at(&self.0, name.as_bytes())
    }

    /// Makes a directory in this one, mode 0700; answers false if it is there already.
    pub fn make_dir(&self, name: &str) -> io::Result<bool> {
        made(mkdirat(&self.0, name, DIRECTORY))
    }

    /// A directory in this one, made if it is not there.
    pub fn dir_or_new(&self, name: &str) -> io::Result<Dir> {
        self.dir(name).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => self.make_dir(name).and_then(|_| self.dir(name)),
            _ => Err(error),
        })
    }

    /// Its descriptor.
    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Who owns it, and its permission bits.
    pub fn owner_and_mode(&self) -> io::Result<(u32, u32, u32)> {
        let stat = fstat(&self.0)?;
        Ok((stat.st_uid, stat.st_gid, stat.st_mode & 0o7777))
    }

    /// The device of its filesystem: the same for everything on one mount's filesystem.
    pub fn device(&self) -> io::Result<u64> {
        Ok(fstat(&self.0)?.st_dev)
    }

    /// Its filesystem's device as mountinfo and our `locks` write it, and its inode.
    pub fn identity(&self) -> io::Result<(String, u64)> {
        let stat = fstat(&self.0)?;
        let (major, minor) = (nix::sys::stat::major(stat.st_dev), nix::sys::stat::minor(stat.st_dev));
        Ok((format!("{major}:{minor}"), stat.st_ino))
    }

    /// Makes a FIFO in it, mode 0600, whatever the umask.
    pub fn make_fifo(&self, name: &str) -> io::Result<()> {
        // nix has no mkfifoat for a name of ours without a copy; it makes that copy itself.
        nix::unistd::mkfifoat(&self.0, name, FILE)?;
        Ok(())
    }

    /// Opens a FIFO that must be one, and owned by one of `owners` if that is given. Never blocks: without
    /// a reader, writing is ENXIO. The descriptor is non-blocking.
    pub fn open_fifo(&self, name: &str, access: Access, owners: Option<&[u32]>) -> io::Result<File> {
        let access = match access {
            Access::Read => OFlag::O_RDONLY,
            Access::Write => OFlag::O_WRONLY,
            Access::Both => OFlag::O_RDWR,
        };
        let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let fd = openat(&self.0, name, flags, Mode::empty())?;
        check(&fstat(&fd)?, SFlag::S_IFIFO, owners)?;
        Ok(File::from(fd))
    }

    /// Whether a name in it is a FIFO, found out without opening it.
    pub fn is_fifo(&self, name: &str) -> io::Result<bool> {
        let stat = fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(check(&stat, SFlag::S_IFIFO, None).is_ok())
    }

    /// Reads a plain file whole, which must be owned by one of `owners` and no larger than `limit` bytes.
    pub fn read_file(&self, name: &str, limit: u64, owners: &[u32]) -> io::Result<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.0, name, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        check(&stat, SFlag::S_IFREG, Some(owners))?;
        let mut bytes = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(1 << 20));
        File::from(fd).take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        Ok(bytes)
    }

    /// Opens a plain file for reading.
    pub fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(File::from(openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Makes a new file for writing, mode 0600. It must not be there.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(File::from(openat(&self.0, name, flags, FILE)?))
    }

    /// Writes a new file: whole, or not at all.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.create(name)?.write_all(bytes).inspect_err(|_| drop(self.remove(name)))
    }

    /// Renames a file within it, over one that may be there.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(nix::fcntl::renameat(&self.0, from, &self.0, to)?)
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, UnlinkatFlags::RemoveDir)?)
    }

    /// Removes a directory and all that is in it, no deeper than we make them: two levels.
    pub fn remove_tree(&self, name: &str) -> io::Result<()> {
        if let Ok(inner) = self.dir(name) {
            for entry in inner.names()? {
                if inner.remove(&entry).is_err() {
                    inner.remove_flat(&entry)?;
                }
            }
        }
        Ok(unlinkat(&self.0, name, UnlinkatFlags::RemoveDir)?)
    }

    fn remove_flat(&self, name: &str) -> io::Result<()> {
        if let Ok(inner) = self.dir(name) {
            for entry in inner.names()? {
                inner.remove(&entry)?;
            }
        }
        Ok(unlinkat(&self.0, name, UnlinkatFlags::RemoveDir)?)
    }

    /// The names in it. Names that are not UTF-8 are not ours and are left out.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut dir = nix::dir::Dir::openat(&self.0, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let names = dir.iter().flatten().filter_map(|entry| entry.file_name().to_str().ok().map(String::from));
        Ok(names.filter(|name| name != "." && name != "..").collect())
    }

    /// Gives a file in it, and only a file that is no link, to somebody else.
    pub fn give(&self, name: &str, uid: u32, gid: u32) -> io::Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.0, name, flags, Mode::empty())?;
        let empty = CString::default();
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        Ok(nix::unistd::fchownat(&fd, empty.as_c_str(), uid, gid, AtFlags::AT_EMPTY_PATH)?)
    }

    /// Gives the directory itself to somebody else.
    pub fn give_self(&self, uid: u32, gid: u32) -> io::Result<()> {
        Ok(fchown(&self.0, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
    }

    /// Locks the directory itself (`flock(2)`); `None` if a living process has it.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        let lock = File::from(self.dir(".")?.0);
        match lock.try_lock() {
            Ok(()) => Ok(Some(Lock(lock))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// How to open a FIFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// To read.
    Read,
    /// To write.
    Write,
    /// Both: no end-of-file, and no ENXIO for others.
    Both,
}

fn made(result: nix::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(nix::Error::EEXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn check(stat: &FileStat, kind: SFlag, owners: Option<&[u32]>) -> io::Result<()> {
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != kind {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if owners.is_some_and(|owners| !owners.contains(&stat.st_uid)) {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
}
