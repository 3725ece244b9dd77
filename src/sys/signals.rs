//! Signals: arriving, by a descriptor; and sent.
//!
//! A signalfd and no handler (but for `last_deed`): it tells the sender, queues what the kernel queues, needs two system calls to
//! set up where handlers for every signal need 119 (measured: 2 µs against 190 µs), and no signal can act
//! between fork and exec.

use std::{io, os::fd::OwnedFd, ptr, sync::OnceLock};

use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, sigprocmask};

use super::{process, start::Original};
use crate::base::{Pgid, Pid, Signal, Whom};

/// Blocked signals, to be read.
#[derive(Debug)]
pub struct Signals(OwnedFd);

/// One signal that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// Which.
    pub signal: Signal,
    /// `si_code`: `SI_KERNEL`, or from a process.
    pub from_kernel: bool,
    /// The sender's process id; 0 if it is outside the namespace.
    pub pid: i32,
    /// The sender's real user id.
    pub uid: u32,
}

impl Signals {
    /// Every signal. The caller has blocked them all at its start.
    pub fn all() -> io::Result<Signals> {
        Signals::of(super::start::every_signal().as_ref())
    }

    /// These only. The caller has blocked them.
    pub fn some(signals: &[Signal]) -> io::Result<Signals> {
        let mut set = SigSet::empty();
        for signal in signals {
            set.add(NixSignal::try_from(signal.get())?);
        }
        Signals::of(set.as_ref())
    }

    fn of(set: &libc::sigset_t) -> io::Result<Signals> {
        // SAFETY: `set` is initialised and outlives the call.
        let fd = unsafe { libc::signalfd(-1, set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Signals(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }))
    }

    /// Its descriptor.
    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// The next signal that has arrived.
    pub fn next(&self) -> Option<Arrived> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut buffer = [0u8; SIZE];
        match super::fd::read(&self.0, &mut buffer) {
            Ok(Some(SIZE)) => {}
            Ok(_) | Err(_) => return None,
        }
        // SAFETY: the kernel filled the whole structure, which is plain data and may be read unaligned.
        let info: libc::signalfd_siginfo = unsafe { std::ptr::read_unaligned(buffer.as_ptr().cast()) };
        Some(Arrived {
            signal: Signal::new(info.ssi_signo as i32)?,
            from_kernel: info.ssi_code == libc::SI_KERNEL,
            pid: info.ssi_pid as i32,
            uid: info.ssi_uid,
        })
    }
}

/// For a client: blocks these signals, those that were ignored left out, to be read; everything else acts
/// as it did before lastout was started.
pub fn take_over(signals: &[Signal], original: &Original) -> io::Result<Signals> {
    let mut mask = original.mask;
    let mut taken = Vec::new();
    for signal in signals {
        let number = NixSignal::try_from(signal.get())?;
        if !is_ignored(number) {
            mask.add(number);
            taken.push(*signal);
        }
    }
    let signals = Signals::some(&taken)?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
    Ok(signals)
}

/// The signals that this process ignores and a child would inherit so, from `/proc/self/status`: one read
/// instead of asking for each.
pub fn ignored() -> Vec<Signal> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=64).filter(|number| mask & (1 << (number - 1)) != 0).filter_map(Signal::new).collect()
}

/// Has a signal that is blocked do to us what it does by default: SIGTSTP stops us until SIGCONT, unless there is nobody
/// who could let us go on (an orphaned process group).
pub fn act_by_default(signal: Signal) -> io::Result<()> {
    let mut set = SigSet::empty();
    set.add(NixSignal::try_from(signal.get())?);
    send(process::me(), signal)?;
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None)?;
    Ok(sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?)
}

/// Stops our process group as ^Z does, ourselves included, until SIGCONT; not where nobody could send that (an orphaned
/// process group). Not for PID 1, which nothing stops.
pub fn stop_group() -> io::Result<()> {
    // Not by its number, which as PID 1's would be everybody's.
    kill(0, Signal::TSTP.get())?;
    let mut set = SigSet::empty();
    set.add(NixSignal::SIGTSTP);
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None)?;
    Ok(sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?)
}

fn is_ignored(signal: NixSignal) -> bool {
    action(signal as i32, None).is_ok_and(|[handler, ..]| handler == libc::SIG_IGN as u64)
}

/// Handler, flags, restorer and mask, as `rt_sigaction(2)` has them.
type Action = [u64; 4];

/// What a signal does by default.
const DEFAULT: Action = [libc::SIG_DFL as u64, 0, 0, 0];

/// What a signal does, and perhaps another thing from here on. Not by the C library, which does not let anybody touch the
/// signals that it keeps for its threads.
fn action(signal: i32, new: Option<&Action>) -> io::Result<Action> {
    let mut old = DEFAULT;
    let new = new.map_or(ptr::null(), |new| new.as_ptr());
    // SAFETY: what the kernel calls `sigaction` is no larger; who gives a handler answers for that.
    match unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old.as_mut_ptr(), size_of::<u64>()) } {
        0 => Ok(old),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has a signal do what it does by default. In a child, before it executes another program.
pub(super) fn reset(signal: Signal) {
    let _ = action(signal.get(), Some(&DEFAULT));
}

/// The signals that end nobody by default, or that nobody can handle.
const SPARING: [Signal; 9] = [
    Signal::KILL,
    Signal::STOP,
    Signal::CHLD,
    Signal::CONT,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
    Signal::URG,
    Signal::WINCH,
];

/// The kernel wants one, and nobody returns to it.
const SA_RESTORER: u64 = 0x0400_0000;

static LAST_DEED: OnceLock<fn()> = OnceLock::new();

/// Has this be done before a signal ends us, which it does all the same: each one that is neither ignored nor taken
/// otherwise. The first one that is given stays. It may do only what a signal handler may (signal-safety(7)).
pub(super) fn last_deed(deed: fn()) {
    LAST_DEED.get_or_init(|| deed);
    // Nothing comes between, and the second time it acts by default.
    let flags = u64::from(libc::SA_RESETHAND as u32) | SA_RESTORER;
    let new = [die as *const () as u64, flags, die as *const () as u64, u64::MAX];
    for signal in (1..=64).filter_map(Signal::new).filter(|signal| !SPARING.contains(signal)) {
        if action(signal.get(), None).is_ok_and(|[handler, ..]| handler == libc::SIG_DFL as u64) {
            let _ = action(signal.get(), Some(&new));
        }
    }
}

/// The handler. It does not return, so the kernel's restorer is not needed.
extern "C" fn die(signal: libc::c_int) {
    if let Some(deed) = LAST_DEED.get() {
        deed();
    }
    let _ = kill(process::me().get(), signal);
    let (set, old) = (1u64 << (signal - 1), ptr::null_mut::<u64>());
    // SAFETY: `set` is valid for reading.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_UNBLOCK, &set, old, size_of::<u64>()) };
    process::exit_now(128 + signal as u8)
}

fn kill(target: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved; the targets are made by the functions below.
    match unsafe { libc::kill(target, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends a signal to one process.
pub fn send(pid: Pid, signal: Signal) -> io::Result<()> {
    kill(pid.get(), signal.get())
}

/// Has the next poll say that there are children to reap, for who has reaped [`AT_ONCE`](super::wait::AT_ONCE) of them.
pub fn come_back_for_children() {
    let _ = send(process::me(), Signal::CHLD);
}

/// Sends a signal to a process group.
pub fn send_group(group: Pgid, signal: Signal) -> io::Result<()> {
    kill(-group.get(), signal.get())
}

/// Sends a signal to the group that a child of ours leads, or to the child alone where it has not come to make its group
/// since it was forked. Not for one that was reaped: its number may be somebody else's.
pub fn send_to_led(leader: Pid, signal: Signal) -> io::Result<()> {
    match Pgid::led_by(leader).map(|group| send_group(group, signal)) {
        Some(Err(error)) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        Some(Ok(())) => Ok(()),
        Some(Err(_)) | None => send(leader, signal),
    }
}

/// Sends a signal to one or to all of a group.
pub fn send_to(whom: Whom, signal: Signal) -> io::Result<()> {
    match whom {
        Whom::One(pid) => send(pid, signal),
        Whom::Group(group) => send_group(group, signal),
    }
}

/// As PID 1: whether any other process is left in the namespace. One system call: `kill(-1, 0)` signals
/// nobody, and says ESRCH when there is nobody. Zombies count.
pub fn is_last_of_namespace() -> bool {
    process::me() == Pid::INIT && kill(-1, 0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
}

/// Sends SIGKILL to every process of the namespace but the caller and PID 1, if `init` says that PID 1 is
/// lastout. Atomic against fork. The caller is a helper; in a namespace that is not ours it does nothing.
pub fn kill_namespace(init: Pid) -> io::Result<()> {
    if init != Pid::INIT {
        return Ok(());
    }
    kill(-1, libc::SIGKILL)
}
