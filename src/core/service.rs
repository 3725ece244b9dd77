//! Services: which runs when, and what comes after its end.
//!
//! A service is a chain of runs. Each run is a job with a keeper of its own, which sees to its setup, readiness and
//! health and ends its tree; what is decided here is when the next one starts, and when none does.
//!
//! | state | what is true | left by |
//! |---|---|---|
//! | Stopped | nobody wants it | `start`, `restart` |
//! | Waiting | what it needs ([`ServiceConfig::after`]) has not happened | it has; what it needs has failed; `stop` |
//! | Starting | a run has begun and is not ready | Ready; the run's end |
//! | Ready | as [`Ready`] says | the run's end |
//! | Ending | its run is being ended | the run's end |
//! | Backoff | its run has ended, the next one is due at a time that is known | that time; `start`, `stop` |
//! | Succeeded | it has ended with exit code 0, and that was all | `start`, `restart` |
//! | Failed | it has failed for good | `start`, `restart` |
//!
//! Ends are in reverse order: a run is asked to end when no run of a service that needs it is left. What is asked to
//! end with `stop` or `restart` takes those that need it along; a run that ends by itself does not.

mod asked;
mod config;
mod hooks;
mod infos;
mod reload;
#[cfg(test)]
mod tests;

use std::{mem, path::PathBuf, rc::Rc, time::Duration};

pub use config::*;
pub(in crate::core) use hooks::Hook;
use hooks::{Kind, Slot};

use super::backoff::{Random, delay};
use crate::{
    base::{Exit, JobId, Name, RequestId, Set, Tick},
    proto::{Cause, ServiceState as State},
};

/// What is to be done about services.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::core) enum Do {
    /// Begin a run. Answered by [`Services::begun`].
    Run(Name, Rc<RunConfig>),
    /// Ask a run to end.
    End {
        /// Which.
        job: JobId,
        /// Why.
        cause: Cause,
        /// Its grace, if somebody asked for one.
        grace: Option<Duration>,
    },
    /// Run a hook. Answered by [`Services::hook_begun`].
    Hook(Hook),
    /// Something has become of a service.
    Tell {
        /// Which.
        name: Name,
        /// What it is now.
        state: State,
        /// How its last run ended, if one has.
        exit: Option<Exit>,
        /// Why, if a run has ended.
        cause: Option<Cause>,
        /// Until the next try.
        next: Option<Duration>,
    },
    /// Who waited for a service is answered: with a refusal, if there is one.
    Answer(RequestId, Option<String>),
    /// A critical service has failed for good.
    Critical(Name, u8),
}

/// A run that is to end.
#[derive(Clone, PartialEq, Debug)]
struct Asked {
    cause: Cause,
    grace: Option<Duration>,
    /// Its keeper knows.
    told: bool,
    /// Nobody asked: it is over by itself, and is told when nobody is left who uses it.
    by_itself: bool,
}

#[derive(Debug)]
struct Service {
    config: ServiceConfig,
    state: State,
    since: Tick,
    /// It is to run.
    wanted: bool,
    /// The run, from its beginning to its end.
    job: Option<JobId>,
    /// The run's command was executed.
    started: bool,
    /// The run was ready.
    was_ready: bool,
    healthy: Option<bool>,
    /// What it says of itself.
    text: Option<String>,
    /// Lines of its log that were dropped: in the run, and before it.
    dropped: (u64, u64),
    /// A mount's.
    device: Option<String>,
    asked: Option<Asked>,
    /// Ends in a row, for the delay; and those that were failures, for the limit.
    ends: u32,
    failures: u32,
    restarts: u64,
    last: Option<(Option<Exit>, Cause)>,
    /// When it failed for good, counted.
    failed: u64,
    next_at: Option<Tick>,
    /// Clients that wait until it is ready, or cannot be.
    waiting: Vec<RequestId>,
    /// For a failure, and for a restart.
    hooks: (Slot, Slot),
    /// What the file says since a reload, from the next run on.
    replacement: Option<Box<ServiceConfig>>,
    /// The file does not have it any more.
    removed: bool,
}

impl Service {
    fn new(now: Tick, config: ServiceConfig) -> Service {
        Service {
            config,
            state: State::Waiting,
            since: now,
            wanted: true,
            job: None,
            started: false,
            was_ready: false,
            healthy: None,
            text: None,
            dropped: (0, 0),
            device: None,
            asked: None,
            ends: 0,
            failures: 0,
            restarts: 0,
            last: None,
            failed: 0,
            next_at: None,
            waiting: Vec::new(),
            hooks: Default::default(),
            replacement: None,
            removed: false,
        }
    }

    fn enter(&mut self, now: Tick, state: State) -> bool {
        let changed = self.state != state;
        if changed {
            self.state = state;
            self.since = now;
        }
        changed
    }

    /// Begins anew.
    fn try_again(&mut self, now: Tick) {
        (self.next_at, self.ends, self.failures) = (None, 0, 0);
        self.enter(now, State::Waiting);
    }

    fn is_mount(&self) -> bool {
        self.config.run.mount.is_some()
    }

    /// The file that its output goes to.
    fn log(&self) -> Option<PathBuf> {
        match &self.config.run.log.sink {
            Sink::File { path, .. } => Some(path.clone()),
            Sink::Inherit => None,
        }
    }

    fn needs(&self, name: &Name) -> bool {
        self.config.after.contains_key(name)
    }

    /// Whether it gives to others what they need.
    fn has(&self, condition: Condition) -> bool {
        match condition {
            _ if self.state == State::Succeeded => true,
            // What is to end is not to be relied on.
            _ if self.asked.is_some() => false,
            Condition::Started => self.job.is_some() && self.started,
            Condition::Ready => self.state == State::Ready,
            Condition::Healthy => self.state == State::Ready && self.healthy == Some(true),
            Condition::Succeeded => false,
        }
    }

    fn ask(&mut self, cause: &Cause, grace: Option<Duration>) {
        if self.job.is_some() && self.asked.as_ref().is_none_or(|asked| asked.by_itself) {
            let told = self.asked.as_ref().is_some_and(|asked| asked.told);
            self.asked = Some(Asked { cause: cause.clone(), grace, told, by_itself: false });
        }
    }

    fn tell(&self, next: Option<Duration>) -> Do {
        let ended = matches!(self.state, State::Backoff | State::Failed | State::Succeeded | State::Stopped);
        let (exit, cause) = match self.last.clone().filter(|_| ended) {
            Some((exit, cause)) => (exit, Some(cause)),
            None => (None, None),
        };
        Do::Tell { name: self.config.name.clone(), state: self.state, exit, cause, next }
    }

    /// For hooks.
    fn account(&self) -> Vec<(String, String)> {
        let (exit, cause) = self.last.clone().map_or((None, None), |(exit, cause)| (exit, Some(cause)));
        let mut entries = vec![
            ("LASTOUT_SERVICE".into(), self.config.name.to_string()),
            ("LASTOUT_STATE".into(), self.state.word().into()),
            ("LASTOUT_RESTARTS".into(), self.restarts.to_string()),
            ("LASTOUT_FAILURES".into(), self.failures.to_string()),
        ];
        entries.extend(exit.map(|exit| ("LASTOUT_EXIT".into(), exit.status().to_string())));
        entries.extend(cause.map(|cause| ("LASTOUT_CAUSE".into(), cause.to_string())));
        entries
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::core) struct Services {
    list: Vec<Service>,
    random: Random,
    /// Those that have failed for good so far.
    failed: u64,
    /// Nothing starts any more.
    closed: bool,
}

impl Services {
    pub(in crate::core) fn new(configs: Vec<ServiceConfig>, seed: u64) -> Services {
        let list = configs.into_iter().map(|config| Service::new(Tick::default(), config)).collect();
        Services { list, random: Random::new(seed), failed: 0, closed: false }
    }

    pub(in crate::core) fn has(&self, name: &Name) -> bool {
        self.list.iter().any(|service| service.config.name == *name)
    }

    /// The service whose run this is.
    pub(in crate::core) fn of(&self, job: JobId) -> Option<&Name> {
        self.list.iter().find(|service| service.job == Some(job)).map(|service| &service.config.name)
    }

    /// The runs of mounts, and those that a mount needs: they end when nobody is left who could use the mount.
    pub(in crate::core) fn serving_mounts(&self) -> Set<JobId> {
        let served = self.serving();
        let runs = self.list.iter().filter(|service| served.contains(&service.config.name));
        runs.filter_map(|service| service.job).collect()
    }

    /// Mounts whose run is there, and all that they need.
    fn serving(&self) -> Set<Name> {
        let mounts = self.list.iter().filter(|service| service.is_mount() && service.job.is_some());
        mounts.flat_map(|mount| self.with_needed(&mount.config.name)).collect()
    }

    /// Whether none will ever run again by itself. What somebody has stopped may be started again.
    pub(in crate::core) fn are_over(&self) -> bool {
        !self.list.is_empty()
            && self.list.iter().all(|service| matches!(service.state, State::Succeeded | State::Failed))
    }

    /// The exit code that they mean: of the first that failed for good, and is not tried again since.
    pub(in crate::core) fn exit_code(&self) -> u8 {
        let failed = self.list.iter().filter(|service| service.state == State::Failed);
        failed.min_by_key(|service| service.failed).map_or(0, |service| code_of(&service.last))
    }

    pub(in crate::core) fn deadline(&self) -> Option<Tick> {
        if self.closed {
            return None;
        }
        self.list.iter().filter_map(|service| service.next_at).min()
    }

    /// The init has begun.
    pub(in crate::core) fn begin(&mut self, now: Tick, orders: &mut Vec<Do>) {
        self.list.iter_mut().for_each(|service| service.since = now);
        self.advance(now, orders);
    }

    pub(in crate::core) fn tick(&mut self, now: Tick, orders: &mut Vec<Do>) {
        for service in &mut self.list {
            if service.next_at.is_some_and(|at| now >= at) {
                service.next_at = None;
                service.enter(now, State::Waiting);
            }
        }
        self.advance(now, orders);
    }

    /// Starts what may start, and ends what may end.
    pub(in crate::core) fn advance(&mut self, now: Tick, orders: &mut Vec<Do>) {
        while !self.closed && self.fail_the_hopeless(now, orders) {}
        let mut begun = Vec::new();
        for (index, service) in self.list.iter().enumerate() {
            let may = |(name, condition): (&Name, &Condition)| {
                self.list.iter().any(|other| other.config.name == *name && other.has(*condition))
            };
            if !self.closed && service.state == State::Waiting && service.config.after.iter().all(may) {
                begun.push(index);
            }
        }
        for index in begun {
            let service = &mut self.list[index];
            service.enter(now, State::Starting);
            (service.started, service.was_ready, service.healthy) = (false, false, None);
            (service.text, service.device) = (None, None);
            orders.push(Do::Run(service.config.name.clone(), Rc::clone(&service.config.run)));
        }
        let needed: Set<Name> = (self.list.iter().filter(|service| service.job.is_some()))
            .flat_map(|service| service.config.after.keys().cloned())
            .collect();
        for service in &mut self.list {
            if let (Some(job), Some(asked)) = (service.job, &mut service.asked)
                && !asked.told
                // Main and jobs may use it, too, and do not end with it: at a shutdown it waits for them.
                && !(self.closed && asked.by_itself)
                && !needed.contains(&service.config.name)
            {
                asked.told = true;
                let (cause, grace) = (asked.cause.clone(), asked.grace);
                service.enter(now, State::Ending);
                orders.push(Do::End { job, cause, grace });
            }
        }
    }

    /// What waits for somebody who has failed for good, or who has gone, has failed, too. Whether there was one.
    fn fail_the_hopeless(&mut self, now: Tick, orders: &mut Vec<Do>) -> bool {
        let hopeless = |name: &Name| match self.list.iter().find(|other| other.config.name == *name) {
            Some(other) => other.state == State::Failed,
            None => true,
        };
        let found = self.list.iter().enumerate().find_map(|(index, service)| {
            let name = service.config.after.keys().find(|name| hopeless(name))?;
            (service.state == State::Waiting).then(|| (index, name.clone()))
        });
        let Some((index, name)) = found else { return false };
        self.list[index].last = Some((None, Cause::DependencyFailed { name }));
        self.has_failed(now, index, orders);
        true
    }

    fn has_failed(&mut self, now: Tick, index: usize, orders: &mut Vec<Do>) {
        self.failed += 1;
        let service = &mut self.list[index];
        service.failed = self.failed;
        service.enter(now, State::Failed);
        orders.push(service.tell(None));
        if !self.closed {
            service.run_hook(Kind::Failure, orders);
        }
        let why = service.last.as_ref().map_or_else(String::new, |(_, cause)| format!(": {cause}"));
        let reason = format!("{} has failed{why}", service.config.name);
        orders.extend(mem::take(&mut service.waiting).into_iter().map(|to| Do::Answer(to, Some(reason.clone()))));
        if service.config.critical {
            orders.push(Do::Critical(service.config.name.clone(), code_of(&service.last)));
        }
    }

    /// A run has begun: it is this job.
    pub(in crate::core) fn begun(&mut self, name: &Name, job: JobId) {
        if let Some(service) = self.list.iter_mut().find(|service| service.config.name == *name) {
            service.job = Some(job);
        }
    }

    fn by_job(&mut self, job: JobId) -> Option<&mut Service> {
        self.list.iter_mut().find(|service| service.job == Some(job))
    }

    /// The run's command was executed.
    pub(in crate::core) fn started(&mut self, now: Tick, job: JobId, orders: &mut Vec<Do>) {
        if let Some(service) = self.by_job(job) {
            service.started = true;
            self.advance(now, orders);
        }
    }

    pub(in crate::core) fn ready(&mut self, now: Tick, job: JobId, orders: &mut Vec<Do>) {
        if let Some(service) = self.by_job(job)
            && service.state == State::Starting
        {
            service.was_ready = true;
            service.enter(now, State::Ready);
            orders.push(service.tell(None));
            orders.extend(mem::take(&mut service.waiting).into_iter().map(|to| Do::Answer(to, None)));
            self.advance(now, orders);
        }
    }

    pub(in crate::core) fn healthy(&mut self, now: Tick, job: JobId, healthy: bool, orders: &mut Vec<Do>) {
        if let Some(service) = self.by_job(job) {
            service.healthy = Some(healthy);
            self.advance(now, orders);
        }
    }

    pub(in crate::core) fn says(&mut self, job: JobId, text: String) {
        if let Some(service) = self.by_job(job) {
            service.text = Some(text).filter(|text| !text.is_empty());
        }
    }

    /// So many lines of a run's log were dropped so far.
    pub(in crate::core) fn dropped(&mut self, job: JobId, lines: u64) {
        if let Some(service) = self.by_job(job) {
            service.dropped.0 = lines;
        }
    }

    /// What a run serves is mounted.
    pub(in crate::core) fn mounted(&mut self, job: JobId, device: String) {
        if let Some(service) = self.by_job(job) {
            service.device = Some(device);
        }
    }

    /// Whether one of the runs serves this device.
    pub(in crate::core) fn serves(&self, device: &str) -> bool {
        self.list.iter().any(|service| service.job.is_some() && service.device.as_deref() == Some(device))
    }

    /// The time that mounts have to write back what they hold: `grace` for those that have none of their own.
    pub(in crate::core) fn longest_grace(&self, grace: Duration) -> Option<Duration> {
        let mounts = self.list.iter().filter(|service| service.is_mount() && service.job.is_some());
        mounts.map(|mount| mount.config.run.stop.grace.unwrap_or(grace)).max()
    }

    /// Its keeper has begun to end the run, asked or not.
    pub(in crate::core) fn ending(&mut self, now: Tick, job: JobId, orders: &mut Vec<Do>) {
        self.begins_to_end(now, job);
        if let Some(mount) = self.by_job(job).filter(|service| service.is_mount() && service.asked.is_none()) {
            let cause = Cause::Unmounted;
            mount.asked = Some(Asked { cause, grace: None, told: false, by_itself: true });
        }
        self.advance(now, orders);
    }

    fn begins_to_end(&mut self, now: Tick, job: JobId) {
        let Some(service) = self.by_job(job) else { return };
        if service.state == State::Ready && now.since(service.since) >= service.config.backoff.reset_after {
            (service.ends, service.failures) = (0, 0);
        }
        service.enter(now, State::Ending);
        if service.is_mount() && service.asked.is_none() {
            // What its users hold of it is dead, whoever serves it next, and what they write is not beneath it: they end
            // now, and start again when it is ready.
            let name = service.config.name.clone();
            let mut users = self.with_dependents(&name);
            users.remove(&name);
            let cause = Cause::DependencyFailed { name };
            let users = self.list.iter_mut().filter(|service| users.contains(&service.config.name));
            users.for_each(|service| service.ask(&cause, None));
        }
    }

    /// The tree of a run, or of a hook, has ended.
    pub(in crate::core) fn ended(
        &mut self,
        now: Tick,
        job: JobId,
        exit: Option<Exit>,
        cause: Cause,
        orders: &mut Vec<Do>,
    ) {
        let Some(index) = self.list.iter().position(|service| service.job == Some(job)) else {
            return self.hook_ended(job, orders);
        };
        self.begins_to_end(now, job);
        let service = &mut self.list[index];
        service.job = None;
        service.dropped = (0, service.dropped.0 + service.dropped.1);
        let asked = service.asked.take().filter(|asked| !asked.by_itself);
        let clean = exit == Some(Exit::Code(0)) && cause == Cause::Exited;
        // It was to say when it is ready, and others rely on that.
        let unready = clean && !service.was_ready && service.config.run.ready != Ready::Started;
        let (clean, cause) = if unready { (false, Cause::NotReady) } else { (clean, cause) };
        service.last = Some((exit, cause));
        if let Some(config) = service.replacement.take() {
            service.config = *config;
        }
        if service.removed {
            let gone = self.list.remove(index);
            orders.push(Do::Tell {
                name: gone.config.name,
                state: State::Stopped,
                exit: None,
                cause: None,
                next: None,
            });
        } else if self.closed && asked.as_ref().is_none_or(|asked| !asked.told) {
            self.ended_by_itself(now, index, clean, orders);
        } else if !service.wanted || self.closed {
            service.enter(now, State::Stopped);
            orders.push(service.tell(None));
        } else if asked.is_some() {
            // Somebody wants it again, or what it needs again.
            service.restarts += 1;
            service.enter(now, State::Waiting);
        } else {
            self.ended_by_itself(now, index, clean, orders);
        }
        self.advance(now, orders);
    }

    fn ended_by_itself(&mut self, now: Tick, index: usize, clean: bool, orders: &mut Vec<Do>) {
        let service = &mut self.list[index];
        let config = &service.config;
        let again = match config.restart {
            Restart::Always => true,
            Restart::OnFailure => !clean,
            Restart::Never => false,
        };
        service.ends = service.ends.saturating_add(1);
        service.failures = if clean { 0 } else { service.failures.saturating_add(1) };
        let over = config.retries > 0 && service.failures > config.retries;
        if !again && clean {
            service.enter(now, State::Succeeded);
            orders.push(service.tell(None));
            orders.extend(mem::take(&mut service.waiting).into_iter().map(|to| Do::Answer(to, None)));
        } else if !again || over {
            self.has_failed(now, index, orders);
        } else if self.closed {
            service.enter(now, State::Stopped);
            orders.push(service.tell(None));
        } else {
            let wait = delay(&config.backoff, service.ends, &mut self.random);
            service.restarts += 1;
            service.next_at = Some(now + wait);
            service.enter(now, State::Backoff);
            orders.push(service.tell(Some(wait)));
            service.run_hook(Kind::Restart, orders);
        }
    }

    /// All that need `name`, directly or not, and itself.
    fn with_dependents(&self, name: &Name) -> Set<Name> {
        self.closure(name, |found, other| other.needs(&found.config.name))
    }

    /// All that `name` needs, directly or not, and itself.
    fn with_needed(&self, name: &Name) -> Set<Name> {
        self.closure(name, |found, other| found.needs(&other.config.name))
    }

    /// Who is reached from `name` by steps from one service to the next.
    fn closure(&self, name: &Name, leads: impl Fn(&Service, &Service) -> bool) -> Set<Name> {
        Set::from([name.clone()]).closed_under(|found| {
            let found = || self.list.iter().filter(|service| found.contains(&service.config.name));
            let is_next = |other: &&Service| found().any(|service| leads(service, other));
            self.list.iter().filter(is_next).map(|service| service.config.name.clone()).collect()
        })
    }

    /// A client has gone.
    pub(in crate::core) fn forget(&mut self, client: RequestId) {
        for service in &mut self.list {
            service.waiting.retain(|waiter| *waiter != client);
        }
    }
}

/// The exit code of a failure: never 0.
fn code_of(last: &Option<(Option<Exit>, Cause)>) -> u8 {
    let exit = match last {
        Some((_, Cause::SetupFailed { exit, .. })) => *exit,
        Some((exit, _)) => *exit,
        None => None,
    };
    exit.map(Exit::status).filter(|code| *code != 0).unwrap_or(1)
}
