//! What `ps` tells of services.

use std::time::Duration;

use super::{Condition, Service, Services, State};
use crate::{
    base::{Name, Tick},
    proto::ServiceInfo,
};

impl Services {
    /// For `ps`.
    pub(in crate::core) fn infos(&self, now: Tick) -> Vec<ServiceInfo> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let info = |service: &Service| {
            let (exit, cause) = service.last.clone().map_or((None, None), |(exit, cause)| (exit, Some(cause)));
            ServiceInfo {
                service: service.config.name.clone(),
                mount: service.is_mount(),
                state: service.state,
                for_ms: millis(now.since(service.since)),
                job: service.job,
                restarts: service.restarts,
                failures: service.failures,
                healthy: service.healthy,
                status: service.text.clone(),
                next_ms: service.next_at.map(|at| millis(at.since(now))),
                waits_for: self.missing(service),
                exit,
                cause,
                log: service.log(),
                dropped: service.dropped.0 + service.dropped.1,
            }
        };
        self.list.iter().map(info).collect()
    }

    fn missing(&self, service: &Service) -> Vec<Name> {
        let lacks = |(name, condition): &(&Name, &Condition)| {
            !self.list.iter().any(|other| other.config.name == **name && other.has(**condition))
        };
        let waits = service.state == State::Waiting;
        service.config.after.iter().filter(lacks).filter(|_| waits).map(|(name, _)| name.clone()).collect()
    }
}
