//! What a keeper has for one run of a service: what it hears, and what it forks.

use std::{
    collections::VecDeque,
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use super::{
    Cgroup, Refusal, Start, check,
    limits::{self, Resolved},
    mount::{self, Watch},
    refuse,
    relay::Relay,
    sink::Ends,
};
use crate::{
    base::{Exit, Pid, Signal},
    core::{
        ABSENT, JobEvent, Task, notes,
        service::{Check, Ready, RunConfig},
    },
    inspect,
    proto::{Cause, place},
    sys::{
        fd,
        poll::{Interest, wait_any},
        process,
        sd_notify::{NotifySocket, Sender},
        spawn::{self, Command, Spawned},
    },
};

/// Messages that are read in one go: a service that talks without end is not to keep us from its end.
const MESSAGES: usize = 64;
/// A tree is not deeper.
const DEEPEST: usize = 4096;
/// What a service's tasks are not to have, because it would not be believed.
const OF_COMMAND: [&str; 3] = ["NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID="];

/// What can be heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ear {
    Notify,
    Ready,
    Mount,
    Log,
    Relay(usize),
}

/// An exec's outcome, and the words that were to be executed.
type Exec = (OwnedFd, Vec<CString>);

/// A task that was forked.
struct Forked {
    task: Task,
    pid: Pid,
    exec: Option<Exec>,
}

/// See the module's documentation.
pub(super) struct Service<'a> {
    start: &'a Start<'a>,
    run: Rc<RunConfig>,
    cwd: PathBuf,
    ends: Ends,
    limits: Resolved,
    notify: NotifySocket,
    /// Where a newline comes from its descriptor 3.
    ready: Option<OwnedFd>,
    mount: Option<Watch>,
    /// What the mount's preparation says: its path, in bytes, or why not.
    prepared: Vec<u8>,
    tasks: Vec<Forked>,
    relays: Vec<Relay>,
}

impl<'a> Service<'a> {
    /// Everything that there is before anything is forked.
    pub(super) fn open(start: &'a Start<'a>, run: &Rc<RunConfig>) -> Result<Service<'a>, Refusal> {
        let refused = |reason| Refusal(Cause::Refused { reason });
        let init = process::parent().unwrap_or(Pid::INIT);
        let limits = limits::resolve(&run.limits, init, &start.job.to_string()).map_err(refused)?;
        Ok(Service {
            start,
            limits,
            cwd: run.cwd.as_ref().map_or_else(|| start.cwd.to_owned(), |cwd| start.cwd.join(cwd)),
            ends: Ends::open(start, run).map_err(refuse("open its output"))?,
            notify: NotifySocket::open().map_err(refuse("make its notify socket"))?,
            run: run.clone(),
            ready: None,
            mount: None,
            prepared: Vec::new(),
            tasks: Vec::new(),
            relays: Vec::new(),
        })
    }

    /// Its control group, which its keeper sees to.
    pub(super) fn take_group(&mut self) -> Option<Cgroup> {
        self.limits.group.take()
    }

    /// Who writes its log.
    pub(super) fn logger(&self) -> Option<Pid> {
        self.ends.logger()
    }

    /// The tree has ended. Answers how many lines of the log were dropped, if somebody knows.
    pub(super) fn finish_log(&mut self) -> Option<u64> {
        self.relays.clear();
        self.ends.finish(&self.start.job)
    }

    pub(super) fn run(&self) -> &Rc<RunConfig> {
        &self.run
    }

    pub(super) fn cwd(&self) -> &Path {
        &self.cwd
    }

    /// The words of its command.
    pub(super) fn words(&self) -> Vec<CString> {
        words(&self.run.command)
    }

    /// What to wait for.
    pub(super) fn interests(&self) -> Vec<(Ear, BorrowedFd<'_>, Interest)> {
        let mut list = vec![(Ear::Notify, self.notify.fd().as_fd(), Interest::Read)];
        list.extend(self.ready.iter().map(|pipe| (Ear::Ready, pipe.as_fd(), Interest::Read)));
        list.extend(self.mount.iter().map(|watch| (Ear::Mount, watch.fd().as_fd(), Interest::Priority)));
        list.extend(self.ends.ear().map(|fd| (Ear::Log, fd, Interest::Read)));
        for (index, relay) in self.relays.iter().enumerate() {
            list.extend(relay.interest().map(|(fd, interest)| (Ear::Relay(index), fd, interest)));
        }
        list
    }

    pub(super) fn hear(&mut self, ears: &[Ear], facts: &mut VecDeque<JobEvent>) {
        for ear in ears {
            match ear {
                Ear::Notify => self.hear_notes(facts),
                Ear::Ready => self.hear_newline(facts),
                Ear::Mount => facts.extend(self.mount.as_mut().and_then(Watch::look).map(JobEvent::Mounted)),
                Ear::Log => facts.extend(self.ends.dropped().map(JobEvent::Dropped)),
                Ear::Relay(index) => {
                    if let Some(relay) = self.relays.get_mut(*index) {
                        let task = relay.task;
                        let prepared = &mut self.prepared;
                        relay.relay(&mut |bytes| match task {
                            Task::Prepare => prepared.extend(bytes),
                            Task::Setup(_) | Task::Check | Task::Unmount | Task::Detach => {
                                facts.push_back(JobEvent::Said(task, bytes));
                            }
                        });
                    }
                }
            }
        }
        self.relays.retain(|relay| relay.interest().is_some());
    }

    /// Before somebody's end is taken in: what it said comes before.
    pub(super) fn hear_all(&mut self, facts: &mut VecDeque<JobEvent>) {
        self.hear(&[Ear::Notify, Ear::Ready, Ear::Mount], facts);
    }

    fn hear_notes(&mut self, facts: &mut VecDeque<JobEvent>) {
        for _ in 0..MESSAGES {
            let Some((sender, message)) = self.notify.receive() else { return };
            if sender.is_some_and(|sender| self.may_speak(sender)) {
                facts.extend(notes(&message).into_iter().map(JobEvent::Noted));
            } else {
                let who = sender.map_or("somebody outside".into(), |sender| format!("pid {}", sender.pid));
                log::debug!("{}: a message from {who}, which is not of the service", self.start.job);
            }
        }
    }

    /// Whether somebody is of the service. Who has said his word and gone cannot be asked for his parents; then his user
    /// counts, who can do with the service what he likes anyway.
    fn may_speak(&self, sender: Sender) -> bool {
        let user = self.limits.limits.credentials.as_ref().and_then(|user| user.uid).unwrap_or_else(process::uid);
        is_ours(sender.pid) || sender.uid == user && inspect::one(sender.pid).is_none()
    }

    fn hear_newline(&mut self, facts: &mut VecDeque<JobEvent>) {
        let Some(pipe) = &self.ready else { return };
        let mut buffer = [0; 512];
        match fd::read(pipe, &mut buffer) {
            Ok(None) => {}
            Ok(Some(0)) | Err(_) => self.ready = None,
            Ok(Some(count)) if buffer[..count].contains(&b'\n') => {
                self.ready = None;
                facts.push_back(JobEvent::Newline);
            }
            Ok(Some(_)) => {}
        }
    }

    fn environment(&self) -> Vec<Vec<u8>> {
        // What the file gives it by name counts more; a hook's is that of its service.
        let name = self.start.name.as_ref();
        let mut own: Vec<_> =
            name.map(|name| format!("{}={name}", place::SERVICE_VARIABLE).into_bytes()).into_iter().collect();
        own.extend(self.limits.env.iter().cloned());
        own.extend(self.run.env.iter().map(|(key, value)| format!("{key}={value}").into_bytes()));
        own.push(format!("{}={}", place::JOB_VARIABLE, self.start.job).into_bytes());
        own
    }

    fn environment_of_task(&self) -> spawn::Environment {
        let mut all = (self.start.environment)(&self.environment());
        all.retain(|entry| !OF_COMMAND.iter().any(|name| entry.to_bytes().starts_with(name.as_bytes())));
        all
    }

    fn spawn(
        &self,
        words: Vec<CString>,
        env: spawn::Environment,
        outputs: [&OwnedFd; 2],
        third: Option<&OwnedFd>,
        pid_variable: Option<&str>,
    ) -> io::Result<Spawned> {
        let nothing = fd::nothing()?;
        let command = Command {
            words,
            env: Some(env),
            cwd: Some(&self.cwd),
            stdio: [Some(&nothing), Some(outputs[0]), Some(outputs[1])],
            third,
            pid_variable,
            original: &self.start.original.for_jobs(),
            reset: self.start.ignored,
            group: spawn::Group::Session,
            limits: Some(&self.limits.limits),
        };
        command.spawn()
    }

    pub(super) fn fork_command(&mut self) -> io::Result<Spawned> {
        let mut own = self.environment();
        own.push(format!("NOTIFY_SOCKET={}", self.notify.address()).into_bytes());
        if let Some(watchdog) = self.run.watchdog {
            own.push(format!("WATCHDOG_USEC={}", watchdog.as_micros()).into_bytes());
        }
        let mut env = (self.start.environment)(&own);
        // Of another's, that lastout was started with.
        let other = if self.run.watchdog.is_some() { &OF_COMMAND[2..] } else { &OF_COMMAND[1..] };
        env.retain(|entry| !other.iter().any(|name| entry.to_bytes().starts_with(name.as_bytes())));
        let third = match self.run.ready {
            Ready::Fd => {
                let (read, write) = fd::pipe()?;
                self.ready = Some(read);
                Some(write)
            }
            Ready::Started | Ready::Notify | Ready::Healthy | Ready::Mounted => None,
        };
        let pid_variable = self.run.watchdog.map(|_| "WATCHDOG_PID");
        self.spawn(self.words(), env, self.ends.both()?, third.as_ref(), pid_variable)
    }

    pub(super) fn fork(&mut self, task: Task) -> io::Result<Pid> {
        let (pid, exec) = match task {
            Task::Prepare => {
                let path = self.run.mount.clone().unwrap_or_default();
                self.prepared.clear();
                let prepare = move || match mount::prepare(&absolute(&path)) {
                    Ok(real) => (0, real.into_os_string().into_encoded_bytes()),
                    Err(why) => (if mount::is_absent(&path) { ABSENT } else { 1 }, why.into_bytes()),
                };
                (self.fork_own(task, "lastout-mount", prepare)?, None)
            }
            Task::Setup(number) => self.fork_setup(task, number)?,
            Task::Check => match self.run.health.as_ref().map(|health| health.check.clone()) {
                Some(Check::Command(command)) => (self.fork_check(task, &command)?, None),
                Some(what @ (Check::Http { .. } | Check::Tcp { .. })) => {
                    let check = move || match check::check(&what) {
                        Ok(()) => (0, Vec::new()),
                        Err(why) => (1, why.into_bytes()),
                    };
                    (self.fork_own(task, "lastout-check", check)?, None)
                }
                None => return Err(io::ErrorKind::NotFound.into()),
            },
            Task::Unmount | Task::Detach => {
                let Some(watch) = &self.mount else { return Err(io::ErrorKind::NotFound.into()) };
                let path = watch.path().to_owned();
                let unmount = move || (mount::unmount(&path, task == Task::Detach), Vec::new());
                (self.fork_own(task, "lastout-umount", unmount)?, None)
            }
        };
        self.tasks.push(Forked { task, pid, exec });
        Ok(pid)
    }

    fn fork_setup(&mut self, task: Task, number: usize) -> io::Result<(Pid, Option<Exec>)> {
        let command = self.run.setup.get(number).cloned().unwrap_or_default();
        let words = words(&command);
        let (out, stdout) = fd::pipe()?;
        let (err, stderr) = fd::pipe()?;
        let to = self.ends.both()?;
        let relays = [Relay::new(task, out, Some(to[0].try_clone()?)), Relay::new(task, err, Some(to[1].try_clone()?))];
        let spawned = self.spawn(words.clone(), self.environment_of_task(), [&stdout, &stderr], None, None)?;
        self.relays.extend(relays);
        Ok((spawned.pid, Some((spawned.outcome, words))))
    }

    fn fork_check(&mut self, task: Task, command: &[String]) -> io::Result<Pid> {
        let words = words(command);
        let (read, write) = fd::pipe()?;
        let pid = self.fork_child("lastout-check", &write, || {
            let spawned = process::become_subreaper()
                .and_then(|()| self.spawn(words.clone(), self.environment_of_task(), [&write, &write], None, None));
            match spawned {
                Ok(spawned) => {
                    let code = check::supervise(spawned.pid);
                    let outcome = spawn::outcome(&spawned.outcome, &words, Some(&self.cwd));
                    let failure = outcome.and_then(Result::err).map(|failure| failure.to_string().into_bytes());
                    (code, failure.unwrap_or_default())
                }
                Err(error) => (1, format!("cannot fork: {}", crate::sys::errno(&error)).into_bytes()),
            }
        })?;
        self.relays.push(Relay::new(task, read, None));
        Ok(pid)
    }

    /// A child that does what may block; what it answers is its exit code and what it says.
    fn fork_own(&mut self, task: Task, name: &str, body: impl FnOnce() -> (u8, Vec<u8>)) -> io::Result<Pid> {
        let (read, write) = fd::pipe()?;
        let pid = self.fork_child(name, &write, body)?;
        self.relays.push(Relay::new(task, read, None));
        Ok(pid)
    }

    fn fork_child(&self, name: &str, write: &OwnedFd, body: impl FnOnce() -> (u8, Vec<u8>)) -> io::Result<Pid> {
        let original = self.start.original.for_jobs();
        spawn::fork_child(|| {
            let _ = process::lead_session();
            // Nobody would know whose it is.
            let _ = process::set_parent_death_signal(Signal::KILL);
            fd::close_all_but(&[write.as_raw_fd()]);
            process::set_name(name);
            original.restore_mask();
            let (code, said) = body();
            // A pipe takes that much at once.
            let _ = fd::write(write, &said);
            code
        })
    }

    /// A child has ended, perhaps a task: what it said, and why it could not be executed if it could not, come before.
    pub(super) fn task_ended(&mut self, pid: Pid, exit: Exit, facts: &mut VecDeque<JobEvent>) {
        let Some(at) = self.tasks.iter().position(|forked| forked.pid == pid) else { return };
        let Forked { task, exec, .. } = self.tasks.swap_remove(at);
        let mut said = if task == Task::Prepare { std::mem::take(&mut self.prepared) } else { Vec::new() };
        for relay in self.relays.iter_mut().filter(|relay| relay.task == task) {
            relay.drain(&mut |bytes| said.extend(bytes));
        }
        if let Some((outcome, words)) = exec
            && let Some(Err(failure)) = spawn::outcome(&outcome, &words, Some(&self.cwd))
        {
            said.extend(failure.to_string().into_bytes());
        }
        match task {
            Task::Prepare if exit == Exit::Code(0) => match Watch::new(mount::prepared(&said)) {
                Ok(watch) => self.mount = Some(watch),
                Err(error) => log::warn!("cannot watch mounts: {}", crate::sys::errno(&error)),
            },
            Task::Prepare | Task::Setup(_) | Task::Check | Task::Unmount | Task::Detach => {
                facts.push_back(JobEvent::Said(task, said));
            }
        }
        // What a setup has left running may go on to write; nobody listens to the others.
        let is_done = |relay: &Relay| relay.task == task && !matches!(task, Task::Setup(_));
        self.relays.retain(|relay| relay.interest().is_some() && !is_done(relay));
    }

    /// Who holds the mount.
    pub(super) fn name_holders(&self, lazily: bool) {
        let Some(watch) = &self.mount else { return };
        let path = watch.path().display();
        let names = mount::holders(watch.path());
        let names = if names.is_empty() { "by nobody that can be seen".into() } else { names.join("; ") };
        let name = self.start.name.as_ref().map_or_else(|| self.start.job.to_string(), ToString::to_string);
        if lazily {
            log::warn!("{name}: {path} is detached lazily: it is still held: {names}");
        } else {
            log::warn!("{name}: {path} is busy, and unmounted when it is not: {names}");
        }
    }

    /// Passes on what can be passed on now.
    pub(super) fn finish_outputs(&mut self) {
        for relay in &mut self.relays {
            relay.drain(&mut |_| {});
        }
        for relay in &mut self.relays {
            let ready = |relay: &Relay| {
                relay.interest().is_some_and(|interest| {
                    wait_any(&[interest], Some(Duration::ZERO)).is_ok_and(|ready| ready == [true])
                })
            };
            while ready(relay) {
                relay.relay(&mut |_| {});
            }
        }
    }
}

fn words(command: &[String]) -> Vec<CString> {
    command.iter().filter_map(|word| CString::new(word.as_str()).ok()).collect()
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether a process is below us. Its parents are asked, one after the other: that costs its depth, not the tree's size.
fn is_ours(pid: Pid) -> bool {
    let me = process::me();
    let parents = std::iter::successors(Some(pid), |pid| inspect::one(*pid)?.parent);
    parents.skip(1).take(DEEPEST).any(|parent| parent == me)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_ours() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(is_ours(Pid::new(child.id() as i32).unwrap()));
        assert!(!is_ours(process::me()) && !is_ours(Pid::INIT));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
