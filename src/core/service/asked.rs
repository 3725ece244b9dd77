//! What somebody wants of services: that they start, end, or both, one or all.

use std::{mem, time::Duration};

use super::{Do, Service, Services, State};
use crate::{
    base::{JobId, Name, RequestId, Tick},
    proto::Cause,
};

impl Services {
    /// Whether it can be started, or why not.
    pub(in crate::core) fn may_start(&self, name: &Name) -> Result<(), String> {
        match self.list.iter().find(|service| service.config.name == *name) {
            Some(service) if service.removed => {
                Err(format!("the configuration file has no {name} any more: it is ending; put it back and reload"))
            }
            Some(_) => Ok(()),
            None => Err(format!("no service {name}: `lastout ps` lists them")),
        }
    }

    /// Starts it, and what it needs, if they do not run. `to` is answered when it is ready, or cannot be.
    pub(in crate::core) fn start(&mut self, now: Tick, name: &Name, to: Option<RequestId>, orders: &mut Vec<Do>) {
        let needed = self.with_needed(name);
        for service in self.list.iter_mut().filter(|service| needed.contains(&service.config.name)) {
            let itself = service.config.name == *name;
            service.wanted = true;
            let idle = match service.state {
                State::Stopped | State::Failed => true,
                // What it needs has done what it had to.
                State::Succeeded | State::Backoff => itself,
                State::Waiting | State::Starting | State::Ready | State::Ending => false,
            };
            if idle {
                service.try_again(now);
            }
            match to.filter(|_| itself) {
                Some(to) if service.state == State::Ready => orders.push(Do::Answer(to, None)),
                Some(to) => service.waiting.push(to),
                None => {}
            }
        }
        self.advance(now, orders);
    }

    /// Ends it, after all that need it; those start again when it does. Answers with its run, if there is one.
    pub(in crate::core) fn stop(
        &mut self,
        now: Tick,
        name: &Name,
        cause: &Cause,
        grace: Option<Duration>,
        orders: &mut Vec<Do>,
    ) -> Option<JobId> {
        let job = self.ask_to_end(now, name, cause, grace, false, orders);
        self.advance(now, orders);
        job
    }

    /// Ends it and all that need it, and starts them again. `to` is answered when it is ready, or cannot be.
    pub(in crate::core) fn restart(
        &mut self,
        now: Tick,
        name: &Name,
        cause: &Cause,
        to: Option<RequestId>,
        orders: &mut Vec<Do>,
    ) {
        // Not before what it needs has had its chance, too.
        let needed = self.with_needed(name);
        for service in self.list.iter_mut().filter(|service| needed.contains(&service.config.name)) {
            if service.config.name != *name && matches!(service.state, State::Stopped | State::Failed) {
                service.wanted = true;
                service.try_again(now);
            }
        }
        if self.ask_to_end(now, name, cause, None, true, orders).is_none() {
            return self.start(now, name, to, orders);
        }
        self.advance(now, orders);
        if let Some(service) = self.list.iter_mut().find(|service| service.config.name == *name) {
            service.waiting.extend(to);
        }
    }

    pub(super) fn ask_to_end(
        &mut self,
        now: Tick,
        name: &Name,
        cause: &Cause,
        grace: Option<Duration>,
        again: bool,
        orders: &mut Vec<Do>,
    ) -> Option<JobId> {
        let all = self.with_dependents(name);
        let mut job = None;
        for service in self.list.iter_mut().filter(|service| all.contains(&service.config.name)) {
            let itself = service.config.name == *name;
            // What was done once, and was not asked for, stays done.
            service.ask(cause, grace.filter(|_| itself));
            if !itself {
                continue;
            }
            job = service.job;
            service.wanted = again;
            if again {
                (service.ends, service.failures) = (0, 0);
            } else {
                service.next_at = None;
                let reason = format!("{name} was stopped");
                orders
                    .extend(mem::take(&mut service.waiting).into_iter().map(|to| Do::Answer(to, Some(reason.clone()))));
                if job.is_none() && service.enter(now, State::Stopped) {
                    orders.push(service.tell(None));
                }
            }
        }
        job
    }

    /// Everything but mounts and what they need is to end; nothing starts any more.
    pub(in crate::core) fn shut_down(&mut self, now: Tick, why: &str, orders: &mut Vec<Do>) {
        self.closed = true;
        let serving = self.serving();
        for service in &mut self.list {
            service.wanted = false;
            service.next_at = None;
            if service.job.is_none() && !matches!(service.state, State::Failed | State::Succeeded) {
                service.enter(now, State::Stopped);
            }
            let reason = "the init is shutting down";
            orders.extend(mem::take(&mut service.waiting).into_iter().map(|to| Do::Answer(to, Some(reason.into()))));
            if !serving.contains(&service.config.name) {
                service.ask(&Cause::Shutdown { why: why.into() }, None);
            }
        }
        self.advance(now, orders);
    }

    /// Nobody is left who could use them.
    pub(in crate::core) fn unmount(&mut self, now: Tick, why: &str, orders: &mut Vec<Do>) {
        for service in &mut self.list {
            service.ask(&Cause::Shutdown { why: why.into() }, None);
        }
        self.advance(now, orders);
    }

    /// Nothing but the end of whoever serves this device can end those that are stuck on it. `all`: everything is to end.
    pub(in crate::core) fn end_server(&mut self, now: Tick, device: &str, why: &str, all: bool, orders: &mut Vec<Do>) {
        let serves = |service: &&mut Service| service.device.as_deref() == Some(device);
        for service in self.list.iter_mut().filter(serves) {
            if all {
                service.ask(&Cause::Shutdown { why: why.into() }, None);
            }
            if let (Some(job), Some(asked)) = (service.job, &mut service.asked)
                && !mem::replace(&mut asked.told, true)
            {
                let (cause, grace) = (asked.cause.clone(), asked.grace);
                service.enter(now, State::Ending);
                orders.push(Do::End { job, cause, grace });
            }
        }
    }
}
