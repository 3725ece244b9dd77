//! `lastout start`, `restart`, `reload`, and services in `ps`.

use std::time::Duration;

use anyhow::bail;

use super::{Outcome, Target, jobs, session::Connection};
use crate::{
    base::{Name, plain},
    proto::{Cause, Line, Reply, ServiceInfo, ServiceState},
};

pub(super) fn list(connection: &Connection) -> anyhow::Result<Vec<ServiceInfo>> {
    match connection.ask(Line::Services)? {
        Reply::Services(services) => Ok(services),
        Reply::Refused { reason } => bail!(reason),
        other => bail!("an answer that does not fit: {other:?}"),
    }
}

/// For `ps`.
pub(super) fn table(services: &[ServiceInfo]) -> String {
    let seconds = |ms: u64| humantime::format_duration(Duration::from_secs(ms / 1000)).to_string();
    let head = ["SERVICE", "STATE", "FOR", "RESTARTS", "LAST EXIT", "NEXT TRY", "JOB", "STATUS"];
    let mut rows = vec![head.map(String::from)];
    for service in services {
        let health = match service.healthy {
            Some(false) if !matches!(service.cause, Some(Cause::Unhealthy { .. })) => Some("unhealthy".into()),
            Some(_) | None => None,
        };
        let waits = service.waits_for.iter().map(|name| format!("waits for {name}"));
        let dropped = (service.dropped > 0).then(|| format!("{} lines of its log dropped", service.dropped));
        // Why it is as it is, unless the exit code has said it.
        let cause = service.cause.as_ref().map(ToString::to_string);
        let over = matches!(service.state, ServiceState::Backoff | ServiceState::Failed);
        let status = waits.chain(health).chain(service.status.clone()).chain(cause.filter(|_| over)).chain(dropped);
        rows.push([
            service.service.to_string(),
            service.state.word().into(),
            seconds(service.for_ms),
            service.restarts.to_string(),
            jobs::ending(service.exit, service.cause.as_ref()),
            service.next_ms.map(|ms| format!("in {}.{} s", ms / 1000, ms / 100 % 10)).unwrap_or_default(),
            service.job.map(|job| job.to_string()).unwrap_or_default(),
            plain(&status.collect::<Vec<_>>().join("; ")).to_string(),
        ]);
    }
    jobs::table(&rows)
}

/// Starts a service, and what it needs. Waits until it is ready, or cannot be.
pub fn start(target: &Target, name: Name) -> Outcome {
    jobs::done(Connection::open(target)?.ask(|id| Line::Start(Some(id), name, super::who("start")))?)
}

/// Ends a service and all that need it, and starts them again. Waits likewise.
pub fn restart(target: &Target, name: Name) -> Outcome {
    jobs::done(Connection::open(target)?.ask(|id| Line::Restart(Some(id), name, super::who("restart")))?)
}

/// Has the configuration file read again.
pub fn reload(target: &Target) -> Outcome {
    jobs::done(Connection::open(target)?.ask(|id| Line::Reload(Some(id), super::who("reload")))?)
}
