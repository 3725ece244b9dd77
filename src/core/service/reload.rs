//! A new configuration file.

use std::mem;

use super::{Do, Service, ServiceConfig, Services, State};
use crate::{
    base::{Name, Set, Tick},
    proto::Cause,
};

impl Services {
    /// The file has changed. Only what has changed in it ends, and starts again as the file says now.
    pub(in crate::core) fn replace(&mut self, now: Tick, configs: Vec<ServiceConfig>, orders: &mut Vec<Do>) {
        if self.closed {
            return;
        }
        let kept: Set<Name> = configs.iter().map(|config| config.name.clone()).collect();
        let gone: Vec<Name> = (self.list.iter().map(|service| &service.config.name))
            .filter(|name| !kept.contains(*name))
            .cloned()
            .collect();
        // Nobody decides anything before all of the file is taken in.
        for name in gone {
            self.ask_to_end(now, &name, &Cause::Reconfigured, None, false, orders);
            self.list.retain(|service| service.config.name != name || service.job.is_some());
            if let Some(service) = self.list.iter_mut().find(|service| service.config.name == name) {
                service.removed = true;
            }
        }
        let mut changed = Vec::new();
        for config in configs {
            let Some(service) = self.list.iter_mut().find(|service| service.config.name == config.name) else {
                self.list.push(Service::new(now, config));
                continue;
            };
            // It was gone for a moment only.
            service.wanted |= mem::take(&mut service.removed);
            let same_run = service.config.run == config.run && service.config.after == config.after;
            if same_run || service.job.is_none() {
                service.config = config;
                // It may have been another in between.
                service.replacement = None;
                if !same_run && matches!(service.state, State::Succeeded | State::Failed | State::Backoff) {
                    service.try_again(now);
                }
            } else {
                changed.push(config.name.clone());
                service.replacement = Some(Box::new(config));
            }
        }
        for name in changed {
            // What somebody has stopped stays stopped.
            let wanted = self.list.iter().any(|service| service.config.name == name && service.wanted);
            self.ask_to_end(now, &name, &Cause::Reconfigured, None, wanted, orders);
        }
        while self.forgive_a_dependent(now) {}
        self.advance(now, orders);
    }

    /// What has failed because of somebody who has not failed any more is tried again. Whether there was one.
    fn forgive_a_dependent(&mut self, now: Tick) -> bool {
        let found = self.list.iter().position(|service| match &service.last {
            Some((_, Cause::DependencyFailed { name })) if service.state == State::Failed => {
                !self.list.iter().any(|other| other.config.name == *name && other.state == State::Failed)
            }
            Some(_) | None => false,
        });
        found.inspect(|index| self.list[*index].try_again(now)).is_some()
    }
}
