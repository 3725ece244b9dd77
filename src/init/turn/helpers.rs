//! Orders for which a helper is forked: answers that somebody may be slow to read, looks around, volumes to sync.

use std::{fs::File, time::SystemTime};

use super::Turn;
use crate::{
    base::{Pid, RequestId, Set, Signal, Subject},
    core::{Action, Event},
    init::{
        Sync,
        control::Control,
        helper::{self, Helper},
        token::Token,
    },
    inspect, keeper,
    proto::{Entry, Happening, JobInfo, KeeperInfo, MAX_LINE, Reply, Request, Status, files, record_time as time},
    sys::{clock, is_shortage, process, signals},
};

/// A client's `reply`, and the forked helper that answers it; or why it could not be forked.
type Answering = (File, std::io::Result<Pid>);

/// How often a helper is tried before the init goes on without one.
const ATTEMPTS: u32 = 10;

impl Turn<'_> {
    pub(super) fn list(&mut self, to: RequestId) {
        let Some(control) = self.control else { return };
        let jobs = || self.core.list(clock::now()).into_iter().map(|(info, request)| describe(control, info, request));
        let asked = self.answer_by_helper(to, || Reply::Jobs(jobs().collect()));
        self.see_to(Action::List(to), to, asked);
    }

    pub(super) fn reload(&mut self) {
        let Some((path, _)) = &self.plan.config else { return };
        let asked = helper::config(self.original, &self.cwd, path);
        let in_vain = Event::Reloaded(Err("no helper could be had to read it".into()));
        self.ask(Action::Reload, asked, "read the configuration file", in_vain);
    }

    pub(super) fn list_services(&mut self, to: RequestId) {
        let asked = self.answer_by_helper(to, || Reply::Services(self.core.services(clock::now())));
        self.see_to(Action::ListServices(to), to, asked);
    }

    pub(super) fn history(&mut self, to: RequestId) {
        let asked = self.answer_by_helper(to, || Reply::Events(self.history.iter().cloned().map(entry).collect()));
        self.see_to(Action::History(to), to, asked);
    }

    /// A long answer, to whoever may be slow to read it. `Ok(None)`: the client has gone.
    pub(super) fn answer_by_helper(
        &self,
        to: RequestId,
        reply: impl FnOnce() -> Reply,
    ) -> std::io::Result<Option<Answering>> {
        let Some(control) = self.control else { return Ok(None) };
        let client = match control.reply(to) {
            Ok(client) => client,
            Err(error) if is_shortage(&error) => return Err(error),
            Err(_) => return Ok(None),
        };
        let asked = helper::answer(self.original, &client, control.requests(), reply);
        Ok(Some((client, asked)))
    }

    pub(super) fn see_to(&mut self, order: Action, to: RequestId, asked: std::io::Result<Option<Answering>>) {
        match asked {
            Ok(Some((_, Ok(pid)))) => drop(self.helpers.insert(pid, Helper::Other)),
            Ok(Some((client, Err(error)))) => {
                // Closed, it would tell the client that we have died.
                self.clients.insert(to, (0, client));
                let reason = format!("cannot fork a helper to answer: {}", crate::sys::errno(&error));
                self.answer(to, Reply::Refused { reason }, true);
            }
            Ok(None) => {}
            Err(_) => self.later(order),
        }
    }

    pub(super) fn status(&mut self, to: RequestId) {
        let keepers = self.keepers.iter().map(|(job, keeper)| KeeperInfo { pid: keeper.pid, job: *job });
        let status = Reply::Status(Status {
            pid: process::me(),
            main: self.core.main_pid(),
            phase: format!("{:?}", self.core.phase()).to_ascii_lowercase(),
            keepers: keepers.collect(),
            helpers: self.helpers.keys().copied().collect(),
            totals: self.core.totals().to_vec(),
        });
        // What does not fit into an empty FIFO's first page has to be written as its reader reads.
        if status.to_line().len() <= MAX_LINE {
            return self.answer(to, status, true);
        }
        let asked = self.answer_by_helper(to, || status);
        self.see_to(Action::Status(to), to, asked);
    }

    pub(super) fn add_helper(&mut self, pid: Pid, helper: Helper) -> std::io::Result<()> {
        if let Some(answer) = helper.answer_fd()
            && let Err(error) = self.poller.add(answer, Token::Helper(pid).pack())
        {
            // Nobody would hear it.
            let _ = signals::send(pid, Signal::KILL);
            self.helpers.insert(pid, Helper::Other);
            return Err(error);
        }
        self.helpers.insert(pid, helper);
        self.attempts = 0;
        Ok(())
    }

    /// Whether a helper that could not be had is to be tried again, in a moment.
    pub(super) fn tries_again(&mut self) -> bool {
        self.attempts += 1;
        self.attempts < ATTEMPTS
    }

    /// As PID 1: whether nobody but main was ever started here, not even a thread of main's. Ids are given in order, the
    /// first was ours, and none below 300 (`RESERVED_PIDS`) is given again when the largest has been reached.
    pub(super) fn has_main_only(&self) -> bool {
        let second =
            self.core.main_pid().filter(|main| process::me() == Pid::INIT && main.get() == Pid::INIT.get() + 1);
        second.is_some() && inspect::last_pid() == second
    }

    pub(super) fn look(&mut self, kill: bool) {
        if !kill && self.has_main_only() {
            // A helper would be told the same by a walk through all of `/proc`.
            return self.facts.push_back(Event::Looked(Some(Vec::new())));
        }
        // SIGKILL to all would end the log's process, too, and what it has not yet written: then one by one.
        let kill = kill && self.writer.is_none();
        let keepers = self.keepers.values().map(|keeper| keeper.pid).collect();
        let asked = helper::look(self.original, process::me(), kill, &keepers);
        if kill && asked.is_err() && self.attempts + 1 >= ATTEMPTS {
            // What forks until nobody can must end all the same.
            let _ = signals::kill_namespace(process::me());
        }
        self.ask(Action::Look { kill }, asked, "look around", Event::Looked(None));
    }

    /// One helper for each volume, so that one that hangs holds up no other.
    pub(super) fn sync(&mut self) {
        if self.to_sync.is_none() {
            let volumes = match self.plan.sync {
                Sync::None => Ok(Vec::new()),
                Sync::Auto => inspect::remote_volumes(&mut self.local),
                Sync::All => inspect::volumes(),
            };
            let mut volumes = match volumes {
                Ok(volumes) => volumes,
                Err(error) if is_shortage(&error) && self.tries_again() => return self.later(Action::Sync),
                // No volume has said that it lacks something: main's code stands.
                Err(error) => {
                    let reason = crate::sys::errno(&error);
                    log::warn!("cannot see which volumes are to be synced, so none is: no usable /proc ({reason})");
                    Vec::new()
                }
            };
            // One filesystem may be mounted at several places.
            let mut devices = Set::new();
            volumes.retain(|volume| devices.insert(volume.device.clone()));
            let named = |volume: &inspect::Volume| {
                (helper::volume_name(volume), volume.is_fuse().then(|| volume.device.clone()))
            };
            self.facts.push_back(Event::Syncing(volumes.iter().map(named).collect()));
            self.to_sync = Some(volumes);
        }
        while let Some(volume) = self.to_sync.as_mut().and_then(Vec::pop) {
            let asked = helper::sync(self.original, &volume);
            match asked.and_then(|(pid, helper)| self.add_helper(pid, helper)) {
                Ok(()) => {}
                Err(error) if is_shortage(&error) && self.tries_again() => {
                    self.to_sync.get_or_insert_default().push(volume);
                    return self.later(Action::Sync);
                }
                Err(error) => {
                    let volume = helper::volume_name(&volume);
                    let error =
                        format!("{volume} was not synced: no helper could be had: {}", crate::sys::errno(&error));
                    self.facts.push_back(Event::Synced { volume, error: Some(error) });
                }
            }
        }
    }

    /// Has a helper answer, now or, if something is short, in a moment; or takes it as answered so.
    pub(super) fn ask(&mut self, order: Action, asked: std::io::Result<(Pid, Helper)>, what: &str, in_vain: Event) {
        match asked.and_then(|(pid, helper)| self.add_helper(pid, helper)) {
            Ok(()) => {}
            Err(_) if self.tries_again() => self.later(order),
            Err(error) => {
                log::warn!("cannot have a helper {what}: {}", crate::sys::errno(&error));
                self.facts.push_back(in_vain);
            }
        }
    }

    pub(super) fn explain(&mut self, all: bool) {
        let keepers = self.keepers.iter().map(|(job, keeper)| (keeper.pid, Some(Subject::Job(*job))));
        let helpers = self.helpers.keys().chain(&self.writer).map(|pid| (*pid, None));
        let main = self.core.main_pid().map(|pid| (pid, Some(Subject::Main)));
        let ours = keepers.chain(helpers).chain(main).collect();
        let asked = helper::explain(self.original, process::me(), all, &ours);
        self.ask(Action::Explain { all }, asked, "find what hangs", Event::Explained(Vec::new()));
    }
}

/// What only the request's file knows of a queued job. In a helper.
fn describe(control: &Control, mut info: JobInfo, request: Option<RequestId>) -> JobInfo {
    let owners = [0, process::uid()];
    let read = |request: RequestId| -> std::io::Result<Request> {
        let json = control.requests().dir(&request.to_string())?.read_file(
            files::REQUEST,
            keeper::LARGEST_REQUEST,
            &owners,
        )?;
        Request::parse(&json).map_err(|_| std::io::ErrorKind::InvalidData.into())
    };
    if let Some(Ok(request)) = request.map(read) {
        info.command = keeper::command_text(&request.command);
    }
    info
}

fn entry((seq, at, what): (u64, SystemTime, Happening)) -> Entry {
    Entry { seq, time: time(at), what }
}
