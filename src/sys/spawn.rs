//! Fork, and fork with exec.
//!
//! lastout has one thread, so a forked child may do all that its parent may. It ends with `_exit`: nothing
//! of its parent's runs in it. The parent never waits for an exec, which blocks for as long as the
//! executable's filesystem does: its failure comes through a pipe, its success is the pipe's end.

use std::{
    borrow::Cow,
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use nix::{
    sched::{CloneFlags, clone},
    unistd::{ForkResult, fork},
};

use super::{fd, interpreter, limits::Limits, memory, process, start::Original, tty};
use crate::base::{Errno, ExecFailure, Pid, Signal};

/// `_PATH_BSHELL`.
const SHELL: &CStr = c"/bin/sh";
/// Where programs are looked for without a `PATH`: glibc's `_CS_PATH`.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";
/// Enough for a child of [`fork_aside`]. What it does not touch costs nothing.
const STACK: usize = 256 * 1024;

/// Forks a child that runs `body` and exits with its answer; 125 if it panics.
pub fn fork_child(body: impl FnOnce() -> u8) -> io::Result<Pid> {
    memory::before_fork();
    // SAFETY: the process has one thread (tests, which have more, only use what the C library and we keep whole).
    let forked = unsafe { fork() };
    memory::after_fork();
    match forked? {
        ForkResult::Parent { child } => Pid::new(child.as_raw()).ok_or_else(io::Error::last_os_error),
        ForkResult::Child => process::exit_now(caught(body)),
    }
}

/// A panic ends the program before it could unwind (see [`super::start`]). Tests do unwind, and what they fork is not to
/// go on as one.
fn caught(body: impl FnOnce() -> u8) -> u8 {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(125)
}

/// The same for a child that `wait(2)` passes over unless it is asked for every kind, and whose end sends no signal:
/// its exit signal is none (`clone(2)`). So it does not count as somebody who is left.
///
/// By the C library's `clone` (Rust 1.93 and later: musl 1.2.5) and not by the system call alone: it keeps its thread's
/// id, and a child of which it does not know has its parent's. musl's `abort` would send SIGABRT there.
pub fn fork_aside(body: impl FnOnce() -> u8) -> io::Result<Pid> {
    clone_child(CloneFlags::empty(), None, STACK, body)
}

/// `clone(2)` on a stack of its own. Parent and child share nothing: the flags are for namespaces.
pub(super) fn clone_child(
    flags: CloneFlags,
    end: Option<Signal>,
    stack: usize,
    body: impl FnOnce() -> u8,
) -> io::Result<Pid> {
    let mut body = Some(body);
    let child = Box::new(move || {
        // Nobody else is here, whatever a test's other threads were about.
        memory::after_fork();
        process::exit_now(body.take().map_or(125, caught))
    });
    let mut stack = vec![0; stack];
    let end = end.map(Signal::get);
    // SAFETY: as for `fork`: one thread, no memory or descriptors in common; the child has its own copy of the stack, of
    // which the kernel makes what is used.
    let child = unsafe { clone(child, &mut stack, flags, end) }?;
    Pid::new(child.as_raw()).ok_or_else(io::Error::last_os_error)
}

/// `KEY=VALUE` entries: our own, and others.
pub type Environment = Vec<Cow<'static, CStr>>;

/// A command as `execve(2)` wants it.
#[derive(Debug)]
pub struct Command<'a> {
    /// Program and arguments; the program is looked for in `PATH` if it has no slash.
    pub words: Vec<CString>,
    /// The whole environment; ours, if it is not given.
    pub env: Option<Environment>,
    /// Where to change to first.
    pub cwd: Option<&'a Path>,
    /// Replacements for standard input, output and error.
    pub stdio: [Option<&'a OwnedFd>; 3],
    /// Its descriptor 3.
    pub third: Option<&'a OwnedFd>,
    /// The variable of `env` that has its own process id.
    pub pid_variable: Option<&'a str>,
    /// What it gets back.
    pub original: &'a Original,
    /// Signals that are not to be ignored, though they are.
    pub reset: &'a [Signal],
    /// Its place among process groups.
    pub group: Group,
    /// What it may use, and as whom it runs; as we, if it is not given.
    pub limits: Option<&'a Limits>,
}

/// A command's place among process groups and sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// A process group of its own.
    Own,
    /// A process group of its own, in the terminal's foreground.
    Foreground,
    /// A session of its own, without a terminal.
    Session,
    /// A session of its own, whose terminal is standard input, if that is one and nobody's.
    SessionOfTerminal,
    /// Its parent's.
    Ours,
}

/// A forked command: its process id, and a descriptor for [`outcome`].
#[derive(Debug)]
pub struct Spawned {
    /// Its process id.
    pub pid: Pid,
    /// Readable when the outcome of its exec is known.
    pub outcome: OwnedFd,
}

/// The steps that a child takes; one byte on the pipe names the one that failed.
const STEPS: [&str; 3] = ["set up", "change to directory", "execute"];
/// The step that says itself what it was.
const LIMIT: u8 = 3;
/// Step, errno, and perhaps the path of an interpreter, or what [`LIMIT`] was about.
const LONGEST_MESSAGE: usize = 4096;

/// How often a child tries to say why it could not become the command.
const ATTEMPTS: u32 = 10;

impl Command<'_> {
    /// Forks and executes. Never blocks.
    pub fn spawn(&self) -> io::Result<Spawned> {
        let (outcome, report) = fd::pipe()?;
        let pid = fork_child(|| {
            // Out of the way of what the command is to have there.
            let moved = self.third.and_then(|_| fd::above(&report, 4).ok());
            let report = moved.unwrap_or(report);
            let Failure { step, error, detail } = self.become_command();
            let mut message = vec![step];
            message.extend(super::errno(&error).0.to_ne_bytes());
            message.extend(detail.iter().take(LONGEST_MESSAGE - message.len()));
            // Or nobody knows why. An empty pipe lacks memory at most.
            let _ = (0..ATTEMPTS).find(|_| fd::write(&report, &message).is_ok());
            127
        })?;
        Ok(Spawned { pid, outcome })
    }

    /// In the child. Returns only if a step failed.
    fn become_command(&self) -> Failure {
        if let Err(error) = self.set_up() {
            return Failure { step: 0, error, detail: Vec::new() };
        }
        let change = || self.cwd.map_or(Ok(()), nix::unistd::chdir);
        let mut changed = change();
        if let Some(limits) = self.limits {
            if let Err((what, error)) = limits.apply(&self.stdio) {
                return Failure { step: LIMIT, error, detail: what.into_bytes() };
            }
            // A server may let its user in, and root not.
            changed = changed.or_else(|_| change());
        }
        if let Err(error) = changed {
            return Failure { step: 1, error: error.into(), detail: Vec::new() };
        }
        let (error, interpreter) = self.execute();
        let detail = interpreter.map(|path| path.into_os_string().into_vec()).unwrap_or_default();
        Failure { step: 2, error, detail }
    }

    fn set_up(&self) -> io::Result<()> {
        match self.group {
            Group::Session | Group::SessionOfTerminal => drop(nix::unistd::setsid()?),
            Group::Ours => {}
            Group::Own | Group::Foreground => {
                let zero = nix::unistd::Pid::from_raw(0);
                nix::unistd::setpgid(zero, zero)?;
            }
        }
        if self.group == Group::Foreground {
            // A terminal that will not have us is no reason not to run.
            if tty::give_foreground(fd::standard(0), process::me()).is_err()
                && let Some(terminal) = tty::controlling()
            {
                let _ = tty::give_foreground(terminal, process::me());
            }
        }
        for (number, replacement) in (0..).zip(self.stdio) {
            if let Some(replacement) = replacement {
                // SAFETY: the child owns its descriptor table; 0, 1 and 2 belong to no `OwnedFd`.
                while unsafe { libc::dup2(replacement.as_fd().as_raw_fd(), number) } < 0 {
                    // EBUSY: a race with an open (dup(2)).
                    if !matches!(nix::Error::last(), nix::Error::EINTR | nix::Error::EBUSY) {
                        return Err(io::Error::last_os_error());
                    }
                }
            }
        }
        if self.group == Group::SessionOfTerminal {
            let _ = tty::take_control();
        }
        if let Some(third) = self.third {
            // From another number, or it would be closed on exec.
            let third = fd::above(third, 4)?;
            // SAFETY: as above; nobody uses our 3 any more.
            if unsafe { libc::dup2(third.as_raw_fd(), 3) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if self.original.chld_ignored {
            // SAFETY: SIG_IGN is no handler.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        }
        for signal in self.reset {
            super::signals::reset(*signal);
        }
        // Last: from here on a signal acts on the command, not on us.
        self.original.restore_mask();
        Ok(())
    }

    /// `execvpe(3)` as glibc has it: musl's does not run with the shell what names no interpreter, which POSIX asks for,
    /// and gives up at an entry of `PATH` that is on a stale volume. Returns only if all fails.
    fn execute(&self) -> (io::Error, Option<PathBuf>) {
        let words = pointers(&self.words);
        let mut env = self.env.as_deref().map(pointers);
        let pid = self.pid_variable.and_then(|name| CString::new(format!("{name}={}", process::me())).ok());
        if let (Some(env), Some(pid)) = (&mut env, &pid) {
            env.insert(0, pid.as_ptr());
        }
        let execute = |program: &CStr, words: &[*const libc::c_char]| {
            let (program, words) = (program.as_ptr(), words.as_ptr());
            match &env {
                // SAFETY: the arrays end with null pointers and their strings with NUL.
                Some(env) => unsafe { libc::execve(program, words, env.as_ptr()) },
                // SAFETY: as above.
                None => unsafe { libc::execv(program, words) },
            };
            io::Error::last_os_error()
        };
        let (mut result, mut missing) = (io::Error::from_raw_os_error(libc::ENOENT), None);
        for place in self.places() {
            let error = execute(&place, &words);
            match error.raw_os_error() {
                Some(libc::ENOEXEC) => {
                    let script = [&[SHELL.as_ptr(), place.as_ptr()], &words[1..]].concat();
                    execute(SHELL, &script);
                    return (error, None);
                }
                // The file may be there, and not what it names: the kernel's answer is the same.
                Some(libc::ENOENT) => {
                    missing = missing.or_else(|| interpreter::missing(OsStr::from_bytes(place.as_bytes())));
                }
                // Perhaps it is somewhere else. The last three are what network volumes say.
                Some(libc::EACCES | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT) => {}
                Some(_) | None => return (error, None),
            }
            if result.raw_os_error() != Some(libc::EACCES) {
                result = error;
            }
        }
        let missing = missing.filter(|_| result.raw_os_error() == Some(libc::ENOENT));
        (result, missing)
    }

    /// Where the program may be, in order.
    fn places(&self) -> Vec<CString> {
        let program = self.words[0].as_bytes();
        if program.is_empty() || program.contains(&b'/') {
            return vec![self.words[0].clone()];
        }
        let inherited = std::env::var_os("PATH");
        let path = match &self.env {
            Some(env) => env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH=")),
            None => inherited.as_deref().map(OsStr::as_bytes),
        };
        let directories = path.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':');
        let in_directory = |directory: &[u8]| {
            // An empty one is where we are.
            let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
            CString::new([directory, slash, program].concat()).ok()
        };
        directories.filter_map(in_directory).collect()
    }
}

/// What a child has to say: see [`LONGEST_MESSAGE`].
struct Failure {
    step: u8,
    error: io::Error,
    detail: Vec<u8>,
}

unsafe extern "C" {
    /// `environ(7)`. The crate libc does not have it for every C library.
    static environ: *const *const libc::c_char;
}

/// Our own environment, as we were given it.
pub fn environment() -> impl Iterator<Item = &'static CStr> {
    // SAFETY: nobody here changes it.
    let all = unsafe { environ };
    // SAFETY: the array ends with a null pointer, and nothing after that is looked at.
    let entries = (0..).map(move |at| unsafe { *all.wrapping_add(at) }).take_while(|entry| !entry.is_null());
    // SAFETY: its strings end with NUL, and nobody changes them.
    entries.map(|entry| unsafe { CStr::from_ptr(entry) })
}

fn pointers<S: AsRef<CStr>>(strings: &[S]) -> Vec<*const libc::c_char> {
    let mut pointers = Vec::with_capacity(strings.len() + 1);
    pointers.extend(strings.iter().map(|string| string.as_ref().as_ptr()));
    pointers.push(std::ptr::null());
    pointers
}

/// What became of an exec: `None` if it is not known yet, otherwise success or the reason.
pub fn outcome(spawned: &OwnedFd, words: &[CString], cwd: Option<&Path>) -> Option<Result<(), ExecFailure>> {
    let mut message = [0; LONGEST_MESSAGE];
    match fd::read(spawned, &mut message) {
        Ok(None) => None,
        Ok(Some(size)) if size >= 5 => {
            let step = message[0];
            let errno = i32::from_ne_bytes([message[1], message[2], message[3], message[4]]);
            let detail = String::from_utf8_lossy(&message[5..size]).into_owned();
            if step == LIMIT {
                return Some(Err(ExecFailure { what: detail, errno: Errno(errno), interpreter: None }));
            }
            let object = match step {
                1 => cwd.unwrap_or(Path::new("/")).as_os_str().to_owned(),
                _ => OsStr::from_bytes(words[0].as_bytes()).to_owned(),
            };
            let verb = STEPS.get(usize::from(step)).unwrap_or(&STEPS[0]);
            let interpreter = Some(detail).filter(|path| !path.is_empty());
            Some(Err(ExecFailure { what: format!("{verb} {}", object.display()), errno: Errno(errno), interpreter }))
        }
        Ok(Some(_)) | Err(_) => Some(Ok(())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::{
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    };

    use super::{super::disposable::with_deadline, *};

    #[test]
    fn a_child_aside_that_aborts_ends_itself_and_not_its_parent() {
        let (said, _) = with_deadline(Duration::from_secs(20), |send| {
            let child = fork_aside(|| std::process::abort()).unwrap();
            let ended = waitpid(nix::unistd::Pid::from_raw(child.get()), Some(WaitPidFlag::__WALL));
            let by_itself = matches!(ended, Ok(WaitStatus::Signaled(_, Signal::SIGABRT, _)));
            send(if by_itself { "by itself".into() } else { format!("{ended:?}") }.as_bytes());
        });
        assert_eq!(said, [b"by itself"]);
    }
}
