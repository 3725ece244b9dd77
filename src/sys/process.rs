//! This process: who it is, and what the kernel is to do for it.

use std::io;

use nix::sys::prctl;

use crate::base::{Pgid, Pid, Signal};

/// Our process id.
pub fn me() -> Pid {
    Pid::new(nix::unistd::getpid().as_raw()).unwrap_or(Pid::INIT)
}

/// Our process group, if it is one that could be signalled.
pub fn group() -> Option<Pgid> {
    Pgid::seen(nix::unistd::getpgrp().as_raw())
}

/// Our parent's process id; `None` if it is outside the namespace.
pub fn parent() -> Option<Pid> {
    Pid::new(nix::unistd::getppid().as_raw())
}

/// A process's name, as `/proc/PID/comm` has it: the kernel's own, so reading it asks nobody else.
pub fn name_of(pid: Pid) -> Option<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_string())
}

/// Random bytes from the kernel, 256 at most. (The crate getrandom looks for the C library's function at run time, which a
/// static program does not find, and opens files instead.)
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of one slice.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // Up to 256 bytes come whole (getrandom(2)).
    if count == bytes.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The CPUs that we may run on.
pub fn cpus() -> usize {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0));
    set.map_or(1, |set| (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).count()).max(1)
}

/// Clock ticks in a second, as `/proc` counts them.
pub fn ticks_per_second() -> u64 {
    // SAFETY: no memory is involved.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(0).max(1)
}

/// Bytes in a page.
pub fn page_size() -> u64 {
    // SAFETY: no memory is involved.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Our effective user id.
pub fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Orphans below us become our children, wherever they are in the tree.
pub fn become_subreaper() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// Whether they do, as [`become_subreaper`] has it. It survives exec.
pub fn is_subreaper() -> bool {
    prctl::get_child_subreaper().unwrap_or(false)
}

/// Stops ourselves until SIGCONT. PID 1 of a namespace cannot (pid_namespaces(7)): nothing happens.
pub fn stop_self() -> io::Result<()> {
    super::signals::send(me(), Signal::STOP)
}

/// The name that `ps` and `/proc/PID/comm` show; at most 15 bytes.
pub fn set_name(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = prctl::set_name(&name);
    }
}

/// The signal that we get when our parent ends, if one was set before us (it survives exec).
pub fn parent_death_signal() -> Option<Signal> {
    prctl::get_pdeathsig().ok().flatten().and_then(|signal| Signal::new(signal as i32))
}

/// A session of our own, and so a process group that we lead.
pub fn lead_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    Ok(())
}

/// A process group that we lead, in the session that we are in.
pub fn lead_group() -> io::Result<()> {
    let zero = nix::unistd::Pid::from_raw(0);
    Ok(nix::unistd::setpgid(zero, zero)?)
}

/// Has the kernel send us `signal` when our parent ends.
pub fn set_parent_death_signal(signal: Signal) -> io::Result<()> {
    // SAFETY: no memory is involved.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal.get()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs `body` on this CPU, where that is allowed; `None` if not. May take as long as that CPU is somebody else's.
pub fn on_cpu<T>(cpu: usize, body: impl FnOnce() -> T) -> Option<T> {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    let me = nix::unistd::Pid::from_raw(0);
    let before = sched_getaffinity(me).ok()?;
    let mut one = CpuSet::new();
    one.set(cpu).ok()?;
    sched_setaffinity(me, &one).ok()?;
    let answer = body();
    let _ = sched_setaffinity(me, &before);
    Some(answer)
}

/// Ends this process without running anything more: for forked children.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: it does not return, and what is not flushed is the parent's to flush.
    unsafe { libc::_exit(code.into()) }
}
