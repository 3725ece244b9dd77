//! The table of jobs: who is queued, who runs, who waits for whose end. It is bounded: ended jobs beyond
//! [`KEEP`] are forgotten, and so are their directories.

use std::{collections::VecDeque, rc::Rc};

use super::{Source, service::RunConfig};
use crate::{
    base::{Exit, JobId, JobRef, Map, Name, Pid, RequestId, Tick},
    proto::{Cause, JobInfo, JobState, Reply},
};

/// Ended jobs that are remembered, with their records and kept output.
const KEEP: usize = 100;
/// Ended runs of one service that are remembered.
const KEEP_RUNS: usize = 3;
/// Characters of a command that are remembered.
const COMMAND: usize = 200;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Job {
    pub(super) name: Option<Name>,
    pub(super) state: JobState,
    pub(super) keeper: Option<Pid>,
    pub(super) command: Option<Pid>,
    pub(super) outcome: Option<(Option<Exit>, Cause)>,
    /// Clients to tell of the end.
    pub(super) waiters: Vec<RequestId>,
    /// What to run, until a keeper has it.
    pub(super) source: Option<Source>,
    /// It came as a `run` line: it has no client.
    pub(super) by_hand: bool,
    /// It is a service's run, or a hook's: it does not wait in the queue.
    pub(super) service: bool,
    /// When its keeper first said that SIGKILL does not end it.
    pub(super) stuck_since: Option<Tick>,
    text: String,
    pub(super) since: Tick,
}

impl Job {
    pub(super) fn enter(&mut self, now: Tick, state: JobState) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn describe(&mut self, text: &str) {
        self.text = text.chars().take(COMMAND).collect();
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    /// Boxed: numbers only grow, which leaves a map's nodes half empty.
    jobs: Map<JobId, Box<Job>>,
    queue: VecDeque<JobId>,
    ended: VecDeque<JobId>,
    /// Forgotten, and not yet removed from the disk.
    pub(super) prune: Vec<JobId>,
    last: u64,
}

impl Table {
    pub(super) fn starting_after(last: u64) -> Table {
        Table { last, ..Table::default() }
    }

    /// A new job, at the end of the queue.
    pub(super) fn add(&mut self, now: Tick, source: Source, name: Option<Name>) -> JobId {
        self.last += 1;
        let id = JobId(self.last);
        let text = match &source {
            Source::Request(_) => String::new(),
            Source::Words(words) => shell_words::join(words),
            Source::Service(run) => shell_words::join(&run.command),
        };
        let mut job = Job {
            by_hand: matches!(source, Source::Words(_)),
            service: matches!(source, Source::Service(_)),
            name,
            state: JobState::Queued,
            keeper: None,
            command: None,
            outcome: None,
            waiters: Vec::new(),
            source: Some(source),
            stuck_since: None,
            text: String::new(),
            since: now,
        };
        job.describe(&text);
        if !job.service {
            self.queue.push_back(id);
        }
        self.jobs.insert(id, Box::new(job));
        id
    }

    /// A service's run, or a hook: it begins at once. Of the same name's runs only the latest are remembered.
    pub(super) fn add_run(&mut self, now: Tick, run: Rc<RunConfig>, name: Option<Name>) -> JobId {
        let id = self.add(now, Source::Service(run), name.clone());
        if let Some(job) = self.jobs.get_mut(&id) {
            job.enter(now, JobState::Starting);
        }
        let same = |job: &Job| job.service && job.state == JobState::Ended && job.name == name;
        let mut old: Vec<JobId> = self.jobs.iter().filter(|(_, job)| same(job)).map(|(id, _)| *id).collect();
        old.truncate(old.len().saturating_sub(KEEP_RUNS));
        for run in old {
            self.ended.retain(|ended| *ended != run);
            self.jobs.remove(&run);
            self.prune.push(run);
        }
        id
    }

    pub(super) fn get(&mut self, id: JobId) -> Option<&mut Job> {
        self.jobs.get_mut(&id).map(Box::as_mut)
    }

    /// By number, or the newest of that name.
    pub(super) fn find(&self, job: &JobRef) -> Option<JobId> {
        match job {
            JobRef::Id(id) => self.jobs.contains_key(id).then_some(*id),
            JobRef::Name(name) => {
                let mut newest_first = self.jobs.iter().rev();
                newest_first.find(|(_, job)| job.name.as_ref() == Some(name)).map(|(id, _)| *id)
            }
        }
    }

    pub(super) fn is_name_taken(&self, name: &Name) -> bool {
        self.jobs.values().any(|job| job.outcome.is_none() && job.name.as_ref() == Some(name))
    }

    pub(super) fn of_keeper(&self, keeper: Pid) -> Option<JobId> {
        // Only the living have a keeper, so this does not grow with what has ended.
        self.jobs.iter().find(|(_, job)| job.keeper == Some(keeper)).map(|(id, _)| *id)
    }

    /// The jobs that have a keeper or are about to have one.
    pub(super) fn active(&self) -> Vec<JobId> {
        let active = |job: &Job| matches!(job.state, JobState::Starting | JobState::Running | JobState::Ending);
        self.jobs.iter().filter(|(_, job)| active(job)).map(|(id, _)| *id).collect()
    }

    /// Whether no job is active, and none is queued.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.active().is_empty()
    }

    /// Every keeper that lives.
    pub(super) fn keepers(&self) -> impl Iterator<Item = Pid> {
        self.jobs.values().filter_map(|job| job.keeper)
    }

    /// Takes the next job out of the queue, if fewer than `max` are active.
    pub(super) fn start_next(&mut self, now: Tick, max: Option<usize>) -> Option<(JobId, Source, Option<Name>)> {
        let running = self.active().into_iter().filter(|id| self.jobs.get(id).is_some_and(|job| !job.service));
        if max.is_some_and(|max| running.count() >= max) {
            return None;
        }
        let id = self.queue.pop_front()?;
        let job = self.jobs.get_mut(&id)?;
        job.enter(now, JobState::Starting);
        Some((id, job.source.clone()?, job.name.clone()))
    }

    /// Takes every queued job out of the queue.
    pub(super) fn drain_queue(&mut self) -> Vec<JobId> {
        self.queue.drain(..).collect()
    }

    pub(super) fn unqueue(&mut self, id: JobId) {
        self.queue.retain(|queued| *queued != id);
    }

    /// The job has ended: who is to be told, and what.
    pub(super) fn end(&mut self, now: Tick, id: JobId, exit: Option<Exit>, cause: Cause) -> Vec<(RequestId, Reply)> {
        let Some(job) = self.jobs.get_mut(&id) else { return Vec::new() };
        job.enter(now, JobState::Ended);
        job.keeper = None;
        job.command = None;
        job.source = None;
        job.outcome = Some((exit, cause));
        let waiters = std::mem::take(&mut job.waiters);
        let replies = job.end_reply(id).map(|reply| waiters.into_iter().map(|to| (to, reply.clone())).collect());
        self.ended.push_back(id);
        if self.ended.len() > KEEP
            && let Some(oldest) = self.ended.pop_front()
        {
            self.jobs.remove(&oldest);
            self.prune.push(oldest);
        }
        replies.unwrap_or_default()
    }

    pub(super) fn forget_client(&mut self, client: RequestId) {
        for job in self.jobs.values_mut() {
            job.waiters.retain(|waiter| *waiter != client);
        }
    }

    pub(super) fn list(&self, now: Tick) -> Vec<(JobInfo, Option<RequestId>)> {
        let info = |id: &JobId, job: &Job| {
            let (exit, cause) = job.outcome.clone().map_or((None, None), |(exit, cause)| (exit, Some(cause)));
            let info = JobInfo {
                job: *id,
                name: job.name.clone(),
                state: job.state,
                pid: job.command,
                for_ms: u64::try_from(now.since(job.since).as_millis()).unwrap_or(u64::MAX),
                command: job.text.clone(),
                exit,
                cause,
            };
            let request = match job.source {
                Some(Source::Request(request)) => Some(request),
                Some(Source::Words(_) | Source::Service(_)) | None => None,
            };
            (info, request)
        };
        self.jobs.iter().map(|(id, job)| info(id, job)).collect()
    }
}

impl Job {
    /// What a client that waits for the end is told; `None` before it.
    pub(super) fn end_reply(&self, job: JobId) -> Option<Reply> {
        let (exit, cause) = self.outcome.clone()?;
        Some(Reply::Ended { job, exit, cause, left: Vec::new(), oom_kills: 0 })
    }
}
