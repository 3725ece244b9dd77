//! Jobs: what becomes of a command from the control FIFO, and of its keeper.

use std::{mem, time::Duration};

use super::{Init, Role};
use crate::{
    base::{Exit, JobId, JobRef, Name, Pid, RequestId, Signal, Subject, Tick},
    core::{Action, Level, Phase, STUCK_AFTER, Source},
    proto::{Cause, Happening, JobState, Line, Notice, Order, Reply, Total, Usage, Who},
};

impl Init {
    pub(super) fn keeper_forked(
        &mut self,
        now: Tick,
        id: JobId,
        keeper: Result<Pid, String>,
        orders: &mut Vec<Action>,
    ) {
        match keeper {
            Ok(pid) => {
                if let Some(job) = self.table.get(id) {
                    job.keeper = Some(pid);
                }
            }
            Err(reason) => {
                let reason = format!("cannot start its keeper: {reason}");
                orders.push(Action::Log(Level::Error, format!("{id}: {reason}")));
                let cause = Cause::Refused { reason };
                self.count(id, None, &cause, 0, None);
                self.end_job(now, id, None, cause.clone(), orders);
                self.run_ended(now, id, None, cause, orders);
                self.start_queued(now, orders);
            }
        }
    }

    /// A keeper that has said how its job ended is done; one that has not was killed, and its tree is ours.
    pub(super) fn keeper_ended(&mut self, now: Tick, id: JobId, exit: Exit, orders: &mut Vec<Action>) {
        let Some(job) = self.table.get(id) else { return };
        let command = job.command;
        let outcome = job.outcome.take();
        if outcome.is_none() {
            orders.push(Action::Log(Level::Error, format!("{id}: its keeper died ({exit}): ending what it left")));
            let all = self.main_pid().is_none();
            orders.push(Action::EndStrays { job: id, command, all });
        }
        let ended = (None, Cause::KeeperGone, 0, None);
        let (exit, cause) = match outcome {
            Some(told) => told,
            None => {
                self.note_end(now, id, ended, orders);
                (None, Cause::KeeperGone)
            }
        };
        self.end_job(now, id, exit, cause.clone(), orders);
        self.run_ended(now, id, exit, cause, orders);
        self.start_queued(now, orders);
    }

    pub(super) fn notice(&mut self, now: Tick, id: JobId, notice: Notice, orders: &mut Vec<Action>) {
        if self.services.of(id).is_some() {
            self.run_notice(now, id, &notice, orders);
        }
        let Some(job) = self.table.get(id) else { return };
        // It speaks, so it has opened the client's reply: from here on the keeper answers. One that could not
        // serve the request may have lacked what it takes to answer: a client may be told twice.
        if let Some(Source::Request(to)) = job.source.take() {
            orders.push(if let Notice::Ended { cause: Cause::Refused { reason }, .. } = &notice {
                Action::Answer { to, reply: Reply::Refused { reason: reason.clone() }, last: true }
            } else {
                Action::LetGo(to)
            });
        }
        match notice {
            Notice::Command(text) => job.describe(&text),
            Notice::Started(pid) => {
                let (name, command) = (job.name.clone(), job.text().into());
                let started = Happening::Started { job: Subject::Job(id), name, pid, command };
                orders.push(Action::Note(Level::Info, started));
                job.command = Some(pid);
                if job.state == JobState::Starting {
                    job.enter(now, JobState::Running);
                }
            }
            Notice::Setup(_)
            | Notice::Mounted(_)
            | Notice::Ready
            | Notice::Healthy(_)
            | Notice::Status(_)
            | Notice::Dropped(_) => {}
            Notice::Ending => job.enter(now, JobState::Ending),
            Notice::Stuck(left) => {
                let since = *job.stuck_since.get_or_insert(now);
                let killed_for = STUCK_AFTER + now.since(since);
                // While everything ends, the init itself looks, at everybody.
                let named = if self.leaving_others() { &[][..] } else { &left };
                for process in named {
                    let process = Box::new(process.clone());
                    let killed_for_ms = u64::try_from(killed_for.as_millis()).ok();
                    let stuck = Happening::Stuck { job: Some(Subject::Job(id)), killed_for_ms, process };
                    orders.push(Action::Note(Level::Warn, stuck));
                }
                self.abort_fuse(&left, orders);
                self.end_servers_of(now, &left, orders);
                if matches!(self.phase, Phase::Stopping | Phase::Releasing) && self.config.role == Role::Subreaper {
                    self.give_up_at.get_or_insert(now + self.config.stuck_timeout);
                }
            }
            Notice::Ended { exit, cause, wall_us, usage } => {
                let was_stuck = job.stuck_since.is_some();
                job.enter(now, JobState::Ending);
                job.outcome = Some((exit, cause.clone()));
                self.note_end(now, id, (exit, cause.clone(), wall_us, usage), orders);
                // Its tree is empty and its record written: the next run need not wait for the keeper's own end.
                self.run_ended(now, id, exit, cause, orders);
                if was_stuck {
                    self.is_less_stuck();
                }
            }
        }
    }

    pub(super) fn note_end(
        &mut self,
        now: Tick,
        id: JobId,
        (exit, cause, wall_us, usage): (Option<Exit>, Cause, u64, Option<Usage>),
        orders: &mut Vec<Action>,
    ) {
        let Some(job) = self.table.get(id) else { return };
        let ran = u64::try_from(now.since(job.since).as_micros()).unwrap_or(u64::MAX);
        let wall_us = if cause == Cause::KeeperGone { ran } else { wall_us };
        // What a client is told by its answer, it alone needs to know; a job by hand has no client.
        let its_clients = matches!(cause, Cause::ExecFailed(_)) && !job.by_hand && !job.service;
        let oom = usage.is_some_and(|usage| usage.oom_kills > 0) && exit != Some(Exit::Code(0));
        let quiet = (cause.is_ordinary() || its_clients) && !oom;
        let level = if quiet { Level::Info } else { Level::Warn };
        let name = job.name.clone();
        self.count(id, exit, &cause, wall_us, usage);
        let ended = Happening::Ended { job: Subject::Job(id), name, exit, cause, wall_us, usage };
        orders.push(Action::Note(level, ended));
    }

    /// For `metrics`.
    fn count(&mut self, id: JobId, exit: Option<Exit>, cause: &Cause, wall_us: u64, usage: Option<Usage>) {
        let service = self.table.get(id).is_some_and(|job| job.service);
        let outcome = match (cause, exit) {
            (Cause::Exited, Some(Exit::Code(0))) => "succeeded",
            (Cause::Exited, _) => "failed",
            (cause, _) => cause.word(),
        };
        let same = |total: &Total| total.service == service && total.outcome == outcome;
        let at = self.totals.iter().position(same).unwrap_or_else(|| {
            self.totals.push(Total { service, outcome: outcome.into(), ..Total::default() });
            self.totals.len() - 1
        });
        let total = &mut self.totals[at];
        let usage = usage.unwrap_or_default();
        total.count += 1;
        total.wall_us = total.wall_us.saturating_add(wall_us);
        total.cpu_us = total.cpu_us.saturating_add(usage.cpu_user_us).saturating_add(usage.cpu_system_us);
        total.max_rss_bytes = total.max_rss_bytes.max(usage.max_rss_bytes);
    }

    pub(super) fn end_job(&mut self, now: Tick, id: JobId, exit: Option<Exit>, cause: Cause, orders: &mut Vec<Action>) {
        // A job without a keeper has nobody else to tell its client.
        let owner = match self.table.get(id).and_then(|job| job.source.take()) {
            Some(Source::Request(request)) => Some(request),
            Some(Source::Words(_) | Source::Service(_)) | None => None,
        };
        if let Some(to) = owner {
            let reply = Reply::Ended { job: id, exit, cause: cause.clone(), left: Vec::new(), oom_kills: 0 };
            orders.push(Action::Answer { to, reply, last: true });
        }
        for (to, reply) in self.table.end(now, id, exit, cause) {
            orders.push(Action::Answer { to, reply, last: true });
        }
    }

    pub(super) fn start_queued(&mut self, now: Tick, orders: &mut Vec<Action>) {
        if self.phase != Phase::Running {
            return;
        }
        while let Some((job, source, name)) = self.table.start_next(now, self.config.max_jobs) {
            let prune = mem::take(&mut self.table.prune);
            orders.push(Action::ForkKeeper { job, source, name, prune });
        }
    }

    pub(super) fn line(&mut self, now: Tick, line: Line, orders: &mut Vec<Action>) {
        match line {
            Line::Run(words) => self.new_job(now, Source::Words(words), None, orders),
            Line::Exec(request, name) => self.new_job(now, Source::Request(request), name, orders),
            Line::Ps(to) => orders.push(Action::List(to)),
            Line::Services(to) => orders.push(Action::ListServices(to)),
            Line::Status(to) => orders.push(Action::Status(to)),
            Line::Wait(to, job) => match self.table.find(&job) {
                None => refuse(Some(to), no_such(&job), orders),
                Some(id) => self.when_ended(id, Some(to), orders),
            },
            Line::Events(to, true) => orders.push(Action::Follow(to)),
            Line::Events(to, false) => orders.push(Action::History(to)),
            Line::Kill(to, signal, job, by) => self.kill(to, signal, by, &job, orders),
            Line::Stop(to, job, grace, by) => self.stop_job(now, to, &job, grace, by, orders),
            Line::Start(to, name, by) => self.start_service(now, to, &name, by, orders),
            Line::Restart(to, name, by) => self.restart_service(now, to, &name, by, orders),
            Line::Reload(to, by) => self.reload(to, by, orders),
            Line::Shutdown(to, by) => {
                if let Some(to) = to {
                    orders.push(Action::Hold(to));
                    orders.push(Action::Answer { to, reply: Reply::Done, last: false });
                }
                self.stop_main(now, Cause::Killed { signal: Signal::TERM, by: by.clone() }, orders);
                let by = by.map_or("through the control FIFO".into(), |by| format!("by {by}"));
                self.stop(now, &format!("asked {by}"), orders);
            }
        }
    }

    pub(super) fn new_job(&mut self, now: Tick, source: Source, name: Option<Name>, orders: &mut Vec<Action>) {
        let client = match source {
            Source::Request(request) => Some(request),
            Source::Words(_) | Source::Service(_) => None,
        };
        if self.phase != Phase::Running {
            return refuse(client, "the init is shutting down".into(), orders);
        }
        if let Some(name) = name.as_ref().filter(|name| self.table.is_name_taken(name)) {
            return refuse(client, format!("a job named {name} has not ended yet"), orders);
        }
        if let Some(name) = name.as_ref().filter(|name| self.services.has(name)) {
            return refuse(client, format!("{name} is a service's name"), orders);
        }
        let id = self.table.add(now, source, name);
        self.start_queued(now, orders);
        let queued = self.table.get(id).is_some_and(|job| job.state == JobState::Queued);
        if let Some(to) = client.filter(|_| queued) {
            orders.push(Action::Hold(to));
            orders.push(Action::Answer { to, reply: Reply::Queued { job: id }, last: false });
        }
    }

    /// Answers `to` when the job has ended, which may be now.
    pub(super) fn when_ended(&mut self, id: JobId, to: Option<RequestId>, orders: &mut Vec<Action>) {
        let (Some(to), Some(job)) = (to, self.table.get(id)) else { return };
        match job.end_reply(id).filter(|_| job.state == JobState::Ended) {
            Some(reply) => orders.push(Action::Answer { to, reply, last: true }),
            None => {
                job.waiters.push(to);
                orders.push(Action::Hold(to));
            }
        }
    }

    pub(super) fn kill(
        &mut self,
        to: Option<RequestId>,
        signal: Signal,
        by: Option<Who>,
        job: &JobRef,
        orders: &mut Vec<Action>,
    ) {
        let Some(id) = self.table.find(job) else { return refuse(to, no_such(job), orders) };
        let state = self.table.get(id).map_or(JobState::Ended, |job| job.state);
        match state {
            JobState::Queued => {
                refuse(to, format!("{id} has not started; `lastout stop {id}` takes it out of the queue"), orders)
            }
            JobState::Ended => refuse(to, format!("{id} has ended"), orders),
            JobState::Starting | JobState::Running | JobState::Ending => {
                orders.push(Action::Tell { job: id, order: Order::Kill { signal, by } });
                if let Some(to) = to {
                    orders.push(Action::Answer { to, reply: Reply::Done, last: true });
                }
            }
        }
    }

    pub(super) fn stop_job(
        &mut self,
        now: Tick,
        to: Option<RequestId>,
        job: &JobRef,
        grace: Option<Duration>,
        by: Option<Who>,
        orders: &mut Vec<Action>,
    ) {
        let service = match job {
            JobRef::Name(name) => Some(name.clone()).filter(|name| self.services.has(name)),
            JobRef::Id(id) => self.services.of(*id).cloned(),
        };
        if let Some(name) = service {
            return match (self.stop_service(now, &name, by, grace, orders), to) {
                (Some(run), to) => self.when_ended(run, to, orders),
                (None, Some(to)) => orders.push(Action::Answer { to, reply: Reply::Done, last: true }),
                (None, None) => {}
            };
        }
        let Some(id) = self.table.find(job) else { return refuse(to, no_such(job), orders) };
        let state = self.table.get(id).map_or(JobState::Ended, |job| job.state);
        match state {
            JobState::Queued => {
                self.table.unqueue(id);
                self.note_end(now, id, (None, Cause::Stopped { by: by.clone() }, 0, None), orders);
                self.end_job(now, id, None, Cause::Stopped { by }, orders);
            }
            JobState::Starting | JobState::Running | JobState::Ending => {
                let time = grace.unwrap_or_else(|| self.budget.left(now));
                let grace_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                let order = Order::Stop { cause: Cause::Stopped { by }, grace_ms, asked: grace.is_some() };
                orders.push(Action::Tell { job: id, order });
            }
            JobState::Ended => {}
        }
        self.when_ended(id, to, orders);
    }
}

pub(super) fn refuse(to: Option<RequestId>, reason: String, orders: &mut Vec<Action>) {
    match to {
        Some(to) => orders.push(Action::Answer { to, reply: Reply::Refused { reason }, last: true }),
        None => orders.push(Action::Log(Level::Warn, format!("control: {reason}"))),
    }
}

fn no_such(job: &JobRef) -> String {
    format!("no job {job}: `lastout ps -a` lists them")
}
