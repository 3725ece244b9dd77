//! What a process was given at its start, before anything changed it.

use std::{
    ffi::{CStr, OsStr, OsString},
    os::{fd::RawFd, unix::ffi::OsStrExt},
};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};

/// What a command gets back: exactly what lastout was started with.
#[derive(Clone, Copy, Debug)]
pub struct Original {
    /// The signal mask.
    pub(super) mask: SigSet,
    /// SIGCHLD was ignored. It is the only disposition that lastout changes: there are no handlers.
    pub(super) chld_ignored: bool,
}

/// Makes `$run` the program: `fn(Original, Vec<OsString>) -> u8`. Instead of Rust's own start, because that ignores SIGPIPE
/// (which every command would inherit) and opens `/dev/null` in place of what is closed.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        /// The C runtime's entry. The standard library finds the arguments by itself only with glibc.
        #[allow(unsafe_code)]
        // SAFETY: the crate is `no_main`, so there is no other `main`.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(argc: i32, argv: *const *const std::ffi::c_char) -> i32 {
            let original = $crate::sys::start::begin();
            // SAFETY: they are what the C runtime gives to `main`.
            let words = unsafe { $crate::sys::start::arguments(argc, argv) };
            let code = std::panic::catch_unwind(|| $run(original, words)).unwrap_or(125);
            std::process::exit(code.into())
        }
    };
}

/// First thing in the program: blocks every signal, so that none is lost and none acts before its time, and
/// fills closed standard descriptors, so that no other file lands there.
pub fn begin() -> Original {
    let mut mask = SigSet::empty();
    block_all(&mut mask);
    fill_standard_descriptors();
    Original { mask, chld_ignored: false }
}

/// The C library would leave out what [`every_signal`] is about, in what it blocks and in what it tells.
fn block_all(before: &mut SigSet) {
    let all = every_signal();
    let set = std::ptr::from_ref(all.as_ref());
    let old = std::ptr::from_mut(before).cast::<libc::sigset_t>();
    // SAFETY: `SigSet` is a transparent `sigset_t`, of which the kernel uses the first eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, set, old, 8) };
}

/// All that the kernel has. `sigfillset` leaves out what the C library keeps for its threads, which we have not;
/// with musl that includes 34, everybody else's SIGRTMIN.
pub(super) fn every_signal() -> SigSet {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: it is valid for writing.
    unsafe { set.as_mut_ptr().write_bytes(0xff, 1) };
    // SAFETY: every byte of it is written.
    let set = unsafe { set.assume_init() };
    // SAFETY: a signal set is an array of bits, of which every one may be set.
    unsafe { SigSet::from_sigset_t_unchecked(set) }
}

/// The command line.
///
/// # Safety
///
/// `argv` has `argc` strings that live as long as the program.
pub unsafe fn arguments(argc: i32, argv: *const *const std::ffi::c_char) -> Vec<OsString> {
    (0..usize::try_from(argc).unwrap_or(0))
        .map(|index| {
            // SAFETY: the caller's promise.
            let word = unsafe { *argv.wrapping_add(index) };
            // SAFETY: likewise.
            OsStr::from_bytes(unsafe { CStr::from_ptr(word) }.to_bytes()).to_owned()
        })
        .collect()
}

/// Opens `/dev/null` in place of what is closed. It closes again on exec: main finds it as it was.
fn fill_standard_descriptors() {
    // Not by `poll`, which asks a file's filesystem: it may hang.
    // SAFETY: no memory is involved.
    let is_closed = |fd: &RawFd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } < 0;
    for _ in [0, 1, 2].iter().filter(|fd| is_closed(fd)) {
        // The lowest free number is one of the closed ones.
        if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
            std::mem::forget(std::os::fd::OwnedFd::from(null));
        }
    }
}

impl Original {
    /// Makes children waitable: with SIGCHLD ignored the kernel reaps them unasked. Remembers what it was.
    pub fn reap_children(&mut self) {
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: SIG_DFL is no handler, so no code of ours can run in signal context.
        let old = unsafe { sigaction(Signal::SIGCHLD, &default) };
        self.chld_ignored |= old.is_ok_and(|old| matches!(old.handler(), SigHandler::SigIgn));
    }

    /// What a job gets instead of main: no signal blocked, SIGCHLD as it should be.
    pub fn for_jobs(&self) -> Original {
        Original { mask: SigSet::empty(), chld_ignored: false }
    }

    /// Gives this process its own signal mask back.
    pub fn restore_mask(&self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None);
    }
}
