//! System calls by their numbers, for telling what a process waits in.

/// What a call's arguments say about the file that it is about. Numbers count arguments from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// A descriptor.
    Fd(usize),
    /// A path.
    Path(usize),
    /// A directory's descriptor, and a path below it.
    PathAt(usize, usize),
    /// No file, or none that its arguments tell.
    Nothing,
}

/// One system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// Its file.
    pub about: About,
}

use About::{Fd, Nothing, Path, PathAt};

macro_rules! table {
    ($($about:expr => $($name:literal $number:ident)*;)*) => {
        &[$($((libc::$number, Call { name: $name, about: $about }),)*)*]
    };
}

/// What may wait for a file, and what usually waits for something else.
const CALLS: &[(i64, Call)] = table! {
    Fd(0) => "read" SYS_read "write" SYS_write "pread64" SYS_pread64 "pwrite64" SYS_pwrite64 "readv" SYS_readv
        "writev" SYS_writev "preadv" SYS_preadv "pwritev" SYS_pwritev "preadv2" SYS_preadv2 "pwritev2" SYS_pwritev2
        "close" SYS_close "fstat" SYS_fstat "lseek" SYS_lseek "fsync" SYS_fsync "fdatasync" SYS_fdatasync
        "syncfs" SYS_syncfs "sync_file_range" SYS_sync_file_range "ftruncate" SYS_ftruncate
        "fallocate" SYS_fallocate "flock" SYS_flock "fcntl" SYS_fcntl "ioctl" SYS_ioctl "getdents64" SYS_getdents64
        "fchdir" SYS_fchdir "fchmod" SYS_fchmod "fchown" SYS_fchown "fstatfs" SYS_fstatfs
        "fgetxattr" SYS_fgetxattr "fsetxattr" SYS_fsetxattr "flistxattr" SYS_flistxattr "readahead" SYS_readahead
        "fadvise64" SYS_fadvise64 "copy_file_range" SYS_copy_file_range "splice" SYS_splice
        "vmsplice" SYS_vmsplice "accept" SYS_accept "accept4" SYS_accept4 "connect" SYS_connect
        "recvfrom" SYS_recvfrom "recvmsg" SYS_recvmsg "sendto" SYS_sendto "sendmsg" SYS_sendmsg
        "epoll_pwait" SYS_epoll_pwait "io_uring_enter" SYS_io_uring_enter;
    Fd(1) => "sendfile" SYS_sendfile;
    Fd(4) => "mmap" SYS_mmap;
    Path(0) => "execve" SYS_execve "chdir" SYS_chdir "chroot" SYS_chroot "truncate" SYS_truncate "statfs" SYS_statfs
        "umount2" SYS_umount2 "getxattr" SYS_getxattr "lgetxattr" SYS_lgetxattr "setxattr" SYS_setxattr
        "lsetxattr" SYS_lsetxattr "listxattr" SYS_listxattr "llistxattr" SYS_llistxattr
        "removexattr" SYS_removexattr;
    Path(1) => "mount" SYS_mount;
    PathAt(0, 1) => "openat" SYS_openat "openat2" SYS_openat2 "newfstatat" SYS_newfstatat "statx" SYS_statx
        "faccessat" SYS_faccessat "faccessat2" SYS_faccessat2 "readlinkat" SYS_readlinkat "unlinkat" SYS_unlinkat
        "mkdirat" SYS_mkdirat "mknodat" SYS_mknodat "linkat" SYS_linkat "renameat" SYS_renameat
        "renameat2" SYS_renameat2 "fchmodat" SYS_fchmodat "fchownat" SYS_fchownat "utimensat" SYS_utimensat
        "execveat" SYS_execveat;
    PathAt(1, 2) => "symlinkat" SYS_symlinkat;
    Nothing => "sync" SYS_sync "munmap" SYS_munmap "mremap" SYS_mremap "msync" SYS_msync "madvise" SYS_madvise
        "mprotect" SYS_mprotect "brk" SYS_brk "exit" SYS_exit "exit_group" SYS_exit_group "futex" SYS_futex
        "nanosleep" SYS_nanosleep "clock_nanosleep" SYS_clock_nanosleep "ppoll" SYS_ppoll
        "pselect6" SYS_pselect6 "wait4" SYS_wait4 "waitid" SYS_waitid "rt_sigsuspend" SYS_rt_sigsuspend
        "rt_sigtimedwait" SYS_rt_sigtimedwait "clone" SYS_clone "clone3" SYS_clone3
        "io_getevents" SYS_io_getevents "semop" SYS_semop "semtimedop" SYS_semtimedop "msgrcv" SYS_msgrcv
        "restart_syscall" SYS_restart_syscall "sched_yield" SYS_sched_yield "kill" SYS_kill "ptrace" SYS_ptrace;
};

/// Calls of older days, which newer architectures do without.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[(i64, Call)] = table! {
    Fd(0) => "getdents" SYS_getdents "epoll_wait" SYS_epoll_wait;
    Path(0) => "open" SYS_open "creat" SYS_creat "stat" SYS_stat "lstat" SYS_lstat "access" SYS_access
        "readlink" SYS_readlink "unlink" SYS_unlink "rename" SYS_rename "mkdir" SYS_mkdir "rmdir" SYS_rmdir
        "link" SYS_link "chmod" SYS_chmod "chown" SYS_chown "lchown" SYS_lchown "utime" SYS_utime
        "utimes" SYS_utimes "mknod" SYS_mknod;
    Path(1) => "symlink" SYS_symlink;
    Nothing => "poll" SYS_poll "select" SYS_select "pause" SYS_pause "fork" SYS_fork "vfork" SYS_vfork;
};
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[(i64, Call)] = &[];

/// The call of this number, on the architecture that this was built for.
pub fn call(number: i64) -> Option<Call> {
    let all = CALLS.iter().chain(OLD_CALLS);
    all.copied().find(|(known, _)| *known == number).map(|(_, call)| call)
}

/// A path that is relative to the working directory, where a directory's descriptor could be (`AT_FDCWD`).
pub fn is_cwd(descriptor: u64) -> bool {
    descriptor as i32 == libc::AT_FDCWD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_one_call() {
        for (number, this) in CALLS.iter().chain(OLD_CALLS) {
            assert_eq!(call(*number), Some(*this));
        }
        assert_eq!(call(libc::SYS_read).unwrap().name, "read");
        assert_eq!(call(-1), None);
    }
}
