//! Descriptors: reading and writing what does not block, closing what is not needed.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::Path,
};

use nix::{
    fcntl::{AT_FDCWD, FcntlArg, OFlag, fcntl, openat},
    sys::stat::Mode,
};

/// To open a path that may be a FIFO or a terminal: not to wait for the other end, and not to be given the terminal.
pub const OPEN_NONBLOCKING: i32 = OFlag::O_NONBLOCK.union(OFlag::O_NOCTTY).bits();

/// Reads what is there: `None` if nothing is yet, 0 at the end.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match nix::unistd::read(fd.as_fd(), buffer) {
            Ok(count) => return Ok(Some(count)),
            Err(nix::Error::EAGAIN) => return Ok(None),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes what fits: `None` if nothing does now.
pub fn write(fd: impl AsFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    loop {
        match nix::unistd::write(fd.as_fd(), bytes) {
            Ok(count) => return Ok(Some(count)),
            Err(nix::Error::EAGAIN) => return Ok(None),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether reads and writes wait. It belongs to the open file description: everyone who shares it is changed. It must
/// be one of ours, whose other status flags are not set.
pub fn set_nonblocking(fd: impl AsFd, nonblocking: bool) -> io::Result<()> {
    let flags = if nonblocking { OFlag::O_NONBLOCK } else { OFlag::empty() };
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Opens a file to read, closed on exec. (With musl, `open` sets that by a call of its own, and `openat` does not.)
pub fn open(path: &Path) -> io::Result<File> {
    Ok(File::from(openat(AT_FDCWD, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?))
}

/// Something with nothing to read: `/dev/null`, or where that is not there a pipe whose other end is closed.
pub fn nothing() -> io::Result<OwnedFd> {
    match open(Path::new("/dev/null")) {
        Ok(null) => Ok(null.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?.0),
        Err(error) => Err(error),
    }
}

/// A pipe: (reading end, writing end), closed on exec, the reading end non-blocking.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    set_nonblocking(&read, true)?;
    Ok((read, write))
}

/// The same open file by another number, at least `lowest`, closed on exec.
pub fn above(fd: impl AsFd, lowest: RawFd) -> io::Result<OwnedFd> {
    let number = fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(number) })
}

/// Whether there is nothing to read now (`FIONREAD`), for a pipe.
pub fn is_empty(fd: impl AsFd) -> bool {
    let mut count: libc::c_int = 0;
    // SAFETY: `count` is valid for writing.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &mut count) };
    result == 0 && count == 0
}

/// Enlarges a pipe's buffer as far as an ordinary user may; smaller is no error.
pub fn enlarge_pipe(fd: impl AsFd) {
    let _ = fcntl(fd.as_fd(), FcntlArg::F_SETPIPE_SZ(1 << 20));
}

/// Closes every descriptor from 3 on but these and the log's.
///
/// The caller's own `OwnedFd`s must all be listed or never be dropped (as in a forked child that ends with
/// `_exit`).
pub fn close_all_but(keep: &[RawFd]) {
    let keep: Vec<RawFd> = keep.iter().copied().chain(super::stderr::own()).collect();
    close_all_and_log_but(&keep);
}

/// The same, and the log's descriptor as well: nothing can be logged afterwards.
pub fn close_all_and_log_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: see `close_all_but`: nobody uses these numbers afterwards.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 {
        return;
    }
    // Linux before 5.9, or a seccomp filter that does not know it. The list is far shorter than the limit, which
    // is a million in many a container; the descriptor that reads it is closed already, which does no harm.
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        let open: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        for fd in open.into_iter().filter(|fd| (first..=last).contains(fd)) {
            // SAFETY: as above.
            unsafe { libc::close(fd as RawFd) };
        }
        return;
    }
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let limit = limit.map_or(1024, |(soft, _)| soft.min(1 << 20)) as u32;
    for fd in first..=last.min(limit) {
        // SAFETY: as above.
        unsafe { libc::close(fd as RawFd) };
    }
}

/// Lets go of standard input and output, which only main needs: whoever reads main's output sees its end.
pub fn detach_stdio() {
    point_to_null(&[0, 1]);
}

/// Lets go of standard error, too.
pub fn let_go_of_stdio() {
    point_to_null(&[0, 1, 2]);
}

fn point_to_null(fds: &[RawFd]) {
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        for fd in fds {
            // SAFETY: the numbers are open (see `start::begin`) or free, and the standard library holds no
            // `OwnedFd` of them.
            unsafe { libc::dup2(null.as_raw_fd(), *fd) };
        }
    }
}

/// Standard input, output and error of this process, to borrow.
pub fn standard(number: u8) -> BorrowedFd<'static> {
    // SAFETY: 0, 1 and 2 are never closed in this program (see `start::begin`).
    unsafe { BorrowedFd::borrow_raw(RawFd::from(number.min(2))) }
}
