//! What a process was given at its start, before anything changed it.

use std::{
    ffi::{CStr, OsStr, OsString},
    io::Write,
    os::{fd::RawFd, unix::ffi::OsStrExt},
    panic::{PanicHookInfo, set_hook},
};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};

use super::{process, stderr::Stderr};
use crate::base::plain;

/// What a command gets back: exactly what lastout was started with.
#[derive(Clone, Copy, Debug)]
pub struct Original {
    /// The signal mask.
    pub(super) mask: SigSet,
    /// SIGCHLD was ignored. It is the only disposition that lastout changes: whoever starts commands has no handlers.
    pub(super) chld_ignored: bool,
}

/// Makes `$run` the program: `fn(Original, Vec<OsString>) -> u8`. Instead of Rust's own start, because that ignores
/// SIGPIPE (which every command would inherit) and opens `/dev/null` in place of what is closed.
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
            std::process::exit($run(original, words).into())
        }
    };
}

/// First thing in the program: blocks every signal, so that none is lost and none acts before its time, and
/// fills closed standard descriptors, so that no other file lands there.
pub fn begin() -> Original {
    end_at_panic();
    let mut mask = SigSet::empty();
    block_all(&mut mask);
    fill_standard_descriptors();
    Original { mask, chld_ignored: false }
}

/// From here on a panic ends this process, with 125 and a line that never waits. The program does not unwind: what
/// that takes would be a tenth of it.
fn end_at_panic() {
    set_hook(Box::new(|panic| process::exit_now(last_words(&words(panic)))));
}

/// What is said at a panic, and the exit code.
pub(super) fn last_words(panic: &str) -> u8 {
    let _ = Stderr::new().write(
        format!(
            "lastout: error: {panic}
"
        )
        .as_bytes(),
    );
    125
}

/// What this process does instead from here on, until there is an exit code: the init, above all. What it forks ends as
/// before.
pub fn at_panic(go_on: impl Fn(&str) -> u8 + Send + Sync + 'static) {
    let me = process::me();
    set_hook(Box::new(move |panic| {
        let words = words(panic);
        process::exit_now(if process::me() == me { go_on(&words) } else { last_words(&words) })
    }));
}

/// In one line.
fn words(panic: &PanicHookInfo) -> String {
    plain(&panic.to_string().replace('\n', " "))
}

/// The C library would leave out what [`every_signal`] is about, in what it blocks and in what it tells.
fn block_all(before: &mut SigSet) {
    let all = every_signal();
    let set = std::ptr::from_ref(all.as_ref());
    let old = std::ptr::from_mut(before).cast::<libc::sigset_t>();
    // SAFETY: `SigSet` is a transparent `sigset_t`, of which the kernel uses the first eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, set, old, size_of::<u64>()) };
}

/// All that the kernel has. `sigfillset` leaves out what the C library keeps for its threads, which we have not;
/// with musl that includes 34, everybody else's SIGRTMIN.
pub(super) fn every_signal() -> SigSet {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for writing one.
    unsafe { set.as_mut_ptr().write_bytes(0xff, 1) };
    // SAFETY: all of it has been written, and a signal set is an array of bits, of which every one may be set.
    let set = unsafe { set.assume_init() };
    // SAFETY: likewise.
    unsafe { SigSet::from_sigset_t_unchecked(set) }
}

/// The command line.
///
/// # Safety
///
/// `argv` has `argc` strings that live as long as the program.
pub unsafe fn arguments(argc: i32, argv: *const *const std::ffi::c_char) -> Vec<OsString> {
    // SAFETY: the caller's promise.
    let words = unsafe { std::slice::from_raw_parts(argv, usize::try_from(argc).unwrap_or(0)) };
    let text = |word: &*const std::ffi::c_char| {
        // SAFETY: likewise.
        OsStr::from_bytes(unsafe { CStr::from_ptr(*word) }.to_bytes()).to_owned()
    };
    words.iter().map(text).collect()
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
