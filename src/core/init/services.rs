//! Services: between what is decided of them and the jobs that are their runs.

use std::{rc::Rc, time::Duration};

use super::Init;
use crate::{
    base::{Exit, JobId, Name, RequestId, Signal, Tick},
    core::{
        Action, Level, Phase, Source,
        service::{Do, Hook, RunConfig, ServicesConfig, Stop},
    },
    proto::{Cause, Happening, Leftover, Notice, Order, Reply, ServiceInfo, ServiceState, Who},
};

impl Init {
    /// For `ps`.
    pub fn services(&self, now: Tick) -> Vec<ServiceInfo> {
        self.services.infos(now)
    }

    pub(super) fn begin_services(&mut self, now: Tick, orders: &mut Vec<Action>) {
        self.with_services(now, orders, |services, todo| services.begin(now, todo));
    }

    /// Lets services decide, and does what they want until they want nothing more.
    pub(super) fn with_services(
        &mut self,
        now: Tick,
        orders: &mut Vec<Action>,
        decide: impl FnOnce(&mut crate::core::service::Services, &mut Vec<Do>),
    ) {
        let mut todo = Vec::new();
        decide(&mut self.services, &mut todo);
        for each in todo {
            self.do_for_service(now, each, orders);
        }
    }

    fn do_for_service(&mut self, now: Tick, todo: Do, orders: &mut Vec<Action>) {
        match todo {
            Do::Run(name, run) => {
                let job = self.begin_run(now, run, Some(name.clone()), orders);
                self.services.begun(&name, job);
            }
            Do::End { job, cause, grace } => {
                let time = grace.unwrap_or_else(|| self.budget.for_sweeping(now));
                let grace_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                orders.push(Action::Tell { job, order: Order::Stop { cause, grace_ms, asked: grace.is_some() } });
            }
            Do::Hook(hook) => {
                // A shutdown has it finish what it has to tell: its own signal does nothing, and SIGKILL comes after its grace.
                let stop = Stop { signal: Signal::CONT, ..RunConfig::new(Vec::new()).stop };
                let name = hook.name();
                let Hook { service, kind, words, env, timeout } = hook;
                let run = RunConfig { env, stop, timeout, ..RunConfig::new(words) };
                let job = self.begin_run(now, Rc::new(run), name, orders);
                self.services.hook_begun(&service, kind, job);
            }
            Do::Tell { name, state, exit, cause, next } => {
                let bad = matches!(state, ServiceState::Failed | ServiceState::Backoff);
                let level = if bad { Level::Warn } else { Level::Info };
                let next_ms = next.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
                orders.push(Action::Note(level, Happening::Service { name, state, exit, cause, next_ms }));
            }
            Do::Answer(to, None) => orders.push(Action::Answer { to, reply: Reply::Done, last: true }),
            Do::Answer(to, Some(reason)) => {
                orders.push(Action::Answer { to, reply: Reply::Refused { reason }, last: true });
            }
            Do::Critical(name, code) => {
                self.services_code.get_or_insert(code);
                orders.push(Action::Log(Level::Error, format!("{name} is critical and has failed: everything stops")));
                self.critical_failed = Some(name);
            }
        }
    }

    fn begin_run(&mut self, now: Tick, run: Rc<RunConfig>, name: Option<Name>, orders: &mut Vec<Action>) -> JobId {
        let job = self.table.add_run(now, Rc::clone(&run), name.clone());
        let prune = std::mem::take(&mut self.table.prune);
        orders.push(Action::ForkKeeper { job, source: Source::Service(run), name, prune });
        job
    }

    /// What a keeper says of a run, besides what it says of every job.
    pub(super) fn run_notice(&mut self, now: Tick, job: JobId, notice: &Notice, orders: &mut Vec<Action>) {
        self.with_services(now, orders, |services, todo| match notice {
            Notice::Started(_) => services.started(now, job, todo),
            Notice::Mounted(device) => services.mounted(job, device.clone()),
            Notice::Ready => services.ready(now, job, todo),
            Notice::Healthy(healthy) => services.healthy(now, job, *healthy, todo),
            Notice::Status(text) => services.says(job, text.clone()),
            Notice::Dropped(lines) => services.dropped(job, *lines),
            Notice::Ending => services.ending(now, job, todo),
            Notice::Command(_) | Notice::Setup(_) | Notice::Stuck(_) | Notice::Ended { .. } => {}
        });
    }

    /// Nothing of a run is left, but perhaps its keeper, which has no more to do. Only the first time counts.
    pub(super) fn run_ended(
        &mut self,
        now: Tick,
        job: JobId,
        exit: Option<Exit>,
        cause: Cause,
        orders: &mut Vec<Action>,
    ) {
        self.with_services(now, orders, |services, todo| services.ended(now, job, exit, cause, todo));
    }

    pub(super) fn start_service(
        &mut self,
        now: Tick,
        to: Option<RequestId>,
        name: &Name,
        by: Option<Who>,
        orders: &mut Vec<Action>,
    ) {
        asked(&format!("{name} is to start"), by, orders);
        if self.takes_for(to, name, orders) {
            self.with_services(now, orders, |services, todo| services.start(now, name, to, todo));
        }
    }

    pub(super) fn restart_service(
        &mut self,
        now: Tick,
        to: Option<RequestId>,
        name: &Name,
        by: Option<Who>,
        orders: &mut Vec<Action>,
    ) {
        if self.takes_for(to, name, orders) {
            let cause = Cause::Stopped { by };
            self.with_services(now, orders, |services, todo| services.restart(now, name, &cause, to, todo));
        }
    }

    /// Whether something can be done for the service now. If not, says so.
    fn takes_for(&mut self, to: Option<RequestId>, name: &Name, orders: &mut Vec<Action>) -> bool {
        let reason = if self.phase != Phase::Running {
            "the init is shutting down".into()
        } else if let Err(reason) = self.services.may_start(name) {
            reason
        } else {
            orders.extend(to.map(Action::Hold));
            return true;
        };
        super::jobs::refuse(to, reason, orders);
        false
    }

    /// Ends a service for good. Answers with its run, if there is one.
    pub(super) fn stop_service(
        &mut self,
        now: Tick,
        name: &Name,
        by: Option<Who>,
        grace: Option<Duration>,
        orders: &mut Vec<Action>,
    ) -> Option<JobId> {
        let mut job = None;
        let cause = Cause::Stopped { by };
        self.with_services(now, orders, |services, todo| job = services.stop(now, name, &cause, grace, todo));
        job
    }

    pub(super) fn reload(&mut self, to: Option<RequestId>, by: Option<Who>, orders: &mut Vec<Action>) {
        asked("the configuration file is to be read again", by, orders);
        if !self.config.reloads {
            let reason = "there is no configuration file: start lastout with --config FILE";
            return super::jobs::refuse(to, reason.into(), orders);
        }
        if let Some(to) = to {
            orders.push(Action::Hold(to));
            self.reloading.push(to);
        }
        orders.push(Action::Reload);
    }

    pub(super) fn reloaded(&mut self, now: Tick, read: Result<ServicesConfig, String>, orders: &mut Vec<Action>) {
        let problem = read.as_ref().err().cloned();
        let level = if problem.is_some() { Level::Error } else { Level::Info };
        orders.push(Action::Note(level, Happening::Reloaded { problem: problem.clone() }));
        for to in std::mem::take(&mut self.reloading) {
            let reply = problem.clone().map_or(Reply::Done, |reason| Reply::Refused { reason });
            orders.push(Action::Answer { to, reply, last: true });
        }
        if let (Ok(configs), Phase::Running) = (read, self.phase) {
            self.with_services(now, orders, |services, todo| services.replace(now, configs.services, todo));
        }
    }

    /// The runs and jobs that leaving waits for before anything is swept: everything but mounts and what they need.
    pub(super) fn busy(&self) -> Vec<JobId> {
        let mounts = self.services.serving_mounts();
        self.table.active().into_iter().filter(|job| !mounts.contains(job)).collect()
    }

    /// These are stuck: if it is on a mount of ours that is to end, its server ends before them, or they never do. When
    /// everything ends, each is to.
    pub(super) fn end_servers_of<'a>(
        &mut self,
        now: Tick,
        stuck: impl IntoIterator<Item = &'a Leftover>,
        orders: &mut Vec<Action>,
    ) {
        let all = self.leaving_others();
        for process in stuck {
            let Some(device) = process.device.as_ref().filter(|device| self.services.serves(device)) else { continue };
            let why = format!("pid {} is stuck on it", process.pid);
            self.with_services(now, orders, |services, todo| services.end_server(now, device, &why, all, todo));
        }
    }

    /// Whether a mount's server is left.
    pub(super) fn serves_mounts(&self) -> bool {
        let mounts = self.services.serving_mounts();
        self.table.active().into_iter().any(|job| mounts.contains(&job))
    }
}

/// Says who wants something of which no record tells.
fn asked(what: &str, by: Option<Who>, orders: &mut Vec<Action>) {
    if let Some(by) = by {
        orders.push(Action::Log(Level::Info, format!("{what}, says {by}")));
    }
}
