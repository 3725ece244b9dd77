//! Hooks: commands that tell somebody what has become of a service.
//!
//! Of a service there is one of a kind at a time. What happens while it runs is told by one more when it has ended: the
//! latest, which counts what came before it. So a crash loop costs one process, and the last word is never lost.

use std::time::Duration;

use super::{Do, Service, Services};
use crate::base::{JobId, Name};

/// When a hook runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::core) enum Kind {
    /// It has failed for good.
    Failure,
    /// It is to be started again.
    Restart,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Failure, Kind::Restart];

    /// As the file has it.
    fn word(self) -> &'static str {
        match self {
            Kind::Failure => "on_failure",
            Kind::Restart => "on_restart",
        }
    }
}

/// A hook that is to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::core) struct Hook {
    /// Whose.
    pub(in crate::core) service: Name,
    /// Which.
    pub(in crate::core) kind: Kind,
    /// What is executed.
    pub(in crate::core) words: Vec<String>,
    /// The account, for its environment.
    pub(in crate::core) env: Vec<(String, String)>,
    /// The time that it has, if that is bounded.
    pub(in crate::core) timeout: Option<Duration>,
}

impl Hook {
    /// For `ps`: whose and which, as far as a name may be long.
    pub(in crate::core) fn name(&self) -> Option<Name> {
        format!("{:.52}.{}", self.service.as_str(), self.kind.word()).parse().ok()
    }
}

/// One kind of a service's hooks.
#[derive(Debug, Default)]
pub(super) struct Slot {
    running: Option<JobId>,
    /// What it is to tell when the one that runs has ended.
    next: Option<Vec<(String, String)>>,
}

impl Service {
    fn slot(&mut self, kind: Kind) -> &mut Slot {
        match kind {
            Kind::Failure => &mut self.hooks.0,
            Kind::Restart => &mut self.hooks.1,
        }
    }

    /// Tells how it is, if somebody wants to know.
    pub(super) fn run_hook(&mut self, kind: Kind, orders: &mut Vec<Do>) {
        let env = self.account();
        self.tell_by_hook(kind, env, orders);
    }

    fn tell_by_hook(&mut self, kind: Kind, env: Vec<(String, String)>, orders: &mut Vec<Do>) {
        let words = match kind {
            Kind::Failure => &self.config.on_failure,
            Kind::Restart => &self.config.on_restart,
        };
        let Some(words) = words.clone() else { return };
        let slot = self.slot(kind);
        if slot.running.is_some() {
            slot.next = Some(env);
        } else {
            let (service, timeout) = (self.config.name.clone(), self.config.hook_timeout);
            orders.push(Do::Hook(Hook { service, kind, words, env, timeout }));
        }
    }
}

impl Services {
    /// A hook has begun: it is this job.
    pub(in crate::core) fn hook_begun(&mut self, name: &Name, kind: Kind, job: JobId) {
        if let Some(service) = self.list.iter_mut().find(|service| service.config.name == *name) {
            service.slot(kind).running = Some(job);
        }
    }

    /// If this was a hook, it has ended, and what happened meanwhile is told.
    pub(super) fn hook_ended(&mut self, job: JobId, orders: &mut Vec<Do>) {
        for service in &mut self.list {
            for kind in Kind::ALL {
                let slot = service.slot(kind);
                if slot.running == Some(job) {
                    slot.running = None;
                    if let Some(env) = slot.next.take().filter(|_| !self.closed) {
                        service.tell_by_hook(kind, env, orders);
                    }
                }
            }
        }
    }
}
