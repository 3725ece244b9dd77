//! `lastout start`, `restart`, `reload`, and services in `ps`.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::{Outcome, Target, jobs, session::Connection};
use crate::{
    base::{Name, RequestId, in_words, plain},
    proto::{Cause, Line, Reply, ServiceInfo, ServiceState},
};

/// Until somebody who waits is told for what.
const PATIENCE: Duration = Duration::from_secs(1);

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
            service.next_ms.map(|ms| format!("in {}", in_words(ms))).unwrap_or_default(),
            service.job.map(|job| job.to_string()).unwrap_or_default(),
            plain(&status.collect::<Vec<_>>().join("; ")).to_string(),
        ]);
    }
    jobs::table(&rows)
}

/// Starts a service, and what it needs. Waits until it is ready, or cannot be.
pub fn start(target: &Target, name: Name) -> Outcome {
    until_ready(target, "start", &name.clone(), |id| Line::Start(Some(id), name, super::who("start")))
}

/// Ends a service and all that need it, and starts them again. Waits likewise.
pub fn restart(target: &Target, name: Name) -> Outcome {
    until_ready(target, "restart", &name.clone(), |id| Line::Restart(Some(id), name, super::who("restart")))
}

/// Gives a command that is answered when the service is ready. Says once what that waits for, if it takes long.
fn until_ready(target: &Target, command: &str, name: &Name, line: impl FnOnce(RequestId) -> Line) -> Outcome {
    let connection = Connection::open(target)?;
    let mut session = connection.request()?;
    connection.send(&line(session.id))?;
    let mut pause = PATIENCE;
    let mut look_at = Some(Instant::now() + pause);
    loop {
        let left = look_at.map(|at| at.saturating_duration_since(Instant::now()));
        let ready = session.wait(left.into_iter().chain(session.patience()).min())?;
        session.say_if_silent();
        if let Some(reply) = session.take(ready)?.into_iter().next() {
            return jobs::done(reply);
        }
        if session.gone() {
            bail!("the init died");
        }
        if look_at.is_some_and(|at| at <= Instant::now()) {
            let services = connection.ask_within(PATIENCE, Line::Services);
            let why = match services {
                Ok(Reply::Services(services)) => obstacle(&services, name),
                Ok(_) | Err(_) => None,
            };
            if let Some(why) = &why {
                eprintln!("lastout {command}: {}; waiting", plain(why));
            }
            pause *= 2;
            look_at = why.is_none().then(|| Instant::now() + pause);
        }
    }
}

/// What stands between a service and its being ready, if it is not its own start.
fn obstacle(services: &[ServiceInfo], name: &Name) -> Option<String> {
    let find = |name: &Name| services.iter().find(|service| service.service == *name);
    let (mut at, mut way) = (find(name)?, name.to_string());
    // There is no cycle among them.
    while let Some(next) = at.waits_for.first().filter(|_| at.state == ServiceState::Waiting) {
        at = find(next)?;
        way = format!("{way} waits for {next}");
    }
    if at.service == *name && at.state != ServiceState::Backoff {
        return None;
    }
    let next = at.next_ms.map(|ms| format!(", next try in {}", in_words(ms)));
    let exit = at.exit.map(|exit| format!("{exit}, ")).unwrap_or_default();
    let cause = at.cause.as_ref().filter(|_| at.state == ServiceState::Backoff);
    let cause = cause.map(|cause| format!(": {exit}{cause}"));
    Some(format!("{way}, in {}{}{}", at.state.word(), next.unwrap_or_default(), cause.unwrap_or_default()))
}

/// Has the configuration file read again.
pub fn reload(target: &Target) -> Outcome {
    jobs::done(Connection::open(target)?.ask(|id| Line::Reload(Some(id), super::who("reload")))?)
}
