//! A PID namespace of our own (pid_namespaces(7)): when its first process ends, however that is, nothing of it is left.

use std::{fs, io};

use nix::{
    mount::{MsFlags, mount},
    sched::CloneFlags,
};

use super::{fd, pidfd, poll, process, signals, spawn};
use crate::base::{Errno, Pid, Signal};

/// As Rust's threads have it; what nobody touches costs nothing.
const STACK: usize = 2 * 1024 * 1024;

/// What the first process does before it is ready; a byte on the pipe names the step that failed.
const STEPS: [&str; 4] = [
    "map the user and group in a user namespace",
    "have a mount namespace of its own",
    "mount its own /proc",
    "end with its parent",
];
/// The byte that says that none did.
const READY: u8 = u8::MAX;

/// Clones a child that is the first process of a PID namespace, with mounts and a `/proc` of its own, as the same
/// user, and runs `body` in it. It is killed when this process ends, and the kernel then kills everything else there.
///
/// Root makes the namespace as it is; everybody else in a user namespace, in which there is nobody but that user.
/// Answers when the child is ready, or why there is none.
pub fn fork_first(body: impl FnOnce() -> u8) -> Result<Pid, String> {
    let mut body = Some(body);
    let flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    let mut first = |flags| attempt(flags, || body.take().map_or(125, |body| body()));
    match first(flags) {
        Err(Refusal::Clone(nix::Error::EPERM)) => first(flags | CloneFlags::CLONE_NEWUSER),
        answer => answer,
    }
    .map_err(|refusal| match refusal {
        // clone(2): the limits are told so.
        Refusal::Clone(nix::Error::ENOSPC) => {
            "cannot make one: there may be no more of them, see the sysctls user.max_*_namespaces".into()
        }
        Refusal::Clone(errno) => format!("cannot make one: {}", Errno(errno as i32)),
        Refusal::Step(step, errno) => format!("cannot {step}: {errno}"),
        Refusal::Died => "its first process was killed".into(),
    })
}

enum Refusal {
    /// There is no such namespace.
    Clone(nix::Error),
    /// There is, and this does not work in it.
    Step(&'static str, Errno),
    Died,
}

fn attempt(flags: CloneFlags, body: impl FnOnce() -> u8) -> Result<Pid, Refusal> {
    let as_errno = |error: io::Error| nix::Error::from_raw(super::errno(&error).0);
    let user = flags.contains(CloneFlags::CLONE_NEWUSER);
    let (uid, gid) = (process::uid(), nix::unistd::getegid().as_raw());
    let (read, write) = fd::pipe().map_err(|error| Refusal::Clone(as_errno(error)))?;
    // So that the child can close them: each side has its own.
    let (mut read, mut write) = (Some(read), Some(write));
    let child = spawn::clone_child(flags, Some(Signal::CHLD), STACK, || {
        drop(read.take());
        let Some(write) = write.take() else { return 125 };
        let mut message = vec![READY];
        if let Err((step, error)) = settle(user.then_some((uid, gid))) {
            message = vec![step];
            message.extend(super::errno(&error).0.to_ne_bytes());
        }
        let failed = message[0] != READY;
        // Nobody reads it: the parent has ended before that could have killed us.
        if !matches!(fd::write(&write, &message), Ok(Some(_))) || failed {
            return 125;
        }
        drop(write);
        body()
    });
    let child = child.map_err(|error| Refusal::Clone(as_errno(error)))?;
    drop(write.take());
    let mut message = [0; 5];
    let size = read.as_ref().map_or(0, |read| {
        loop {
            poll::wait_readable(read);
            match fd::read(read, &mut message) {
                Ok(None) => {}
                Ok(Some(size)) => break size,
                Err(_) => break 0,
            }
        }
    });
    if size > 0 && message[0] == READY {
        return Ok(child);
    }
    let _ = signals::send(child, Signal::KILL);
    if let Ok(end) = pidfd::open(child) {
        poll::wait_readable(end);
    }
    super::wait::has_ended(child);
    let errno = i32::from_ne_bytes([message[1], message[2], message[3], message[4]]);
    let step = STEPS.get(usize::from(message[0])).filter(|_| size == message.len());
    Err(step.map_or(Refusal::Died, |step| Refusal::Step(step, Errno(errno))))
}

/// In the child. `ids`: the user and group that there are to be in its user namespace.
fn settle(ids: Option<(u32, u32)>) -> Result<(), (u8, io::Error)> {
    if let Some((uid, gid)) = ids {
        // Without it an ordinary user may not map a group (user_namespaces(7)).
        fs::write("/proc/self/setgroups", "deny").map_err(|error| (0, error))?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).map_err(|error| (0, error))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).map_err(|error| (0, error))?;
    }
    let at = |step| move |error: nix::Error| (step, io::Error::from(error));
    // What is mounted and unmounted outside is so here, too; not the other way round.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>).map_err(at(1))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).map_err(at(2))?;
    // Behind what changes credentials, which takes it away (PR_SET_PDEATHSIG(2const)).
    process::set_parent_death_signal(Signal::KILL).map_err(|error| (3, error))
}
