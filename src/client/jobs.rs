//! `lastout ps`, `wait`, `kill`, `stop` and `shutdown`.

use std::{
    io::Write,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};

use super::{Outcome, Target, session::Connection};
use crate::{
    base::{Exit, JobId, JobRef, Signal, plain},
    proto::{Cause, JobInfo, JobState, Line, Record, Reply, ServiceInfo, files},
    sys::{dir::Dir, process},
};

/// A record is far smaller, but it has its command in full.
const LARGEST_RECORD: u64 = 64 << 20;

pub(super) fn list(connection: &Connection) -> anyhow::Result<Vec<JobInfo>> {
    match connection.ask(Line::Ps)? {
        Reply::Jobs(jobs) => Ok(jobs),
        Reply::Refused { reason } => bail!(reason),
        other => bail!("an answer that does not fit: {other:?}"),
    }
}

/// Lists services and jobs. `all`: those that have ended, too.
pub fn ps(target: &Target, all: bool, json: bool) -> Outcome {
    let connection = Connection::open(target)?;
    let services = super::services::list(&connection)?;
    let mut jobs = list(&connection)?;
    jobs.retain(|job| all || job.state != JobState::Ended);
    if json {
        let services = services.iter().map(serde_json::to_value);
        let all: Vec<_> = services.chain(jobs.iter().map(serde_json::to_value)).collect::<Result<_, _>>()?;
        say(&serde_json::to_string(&all)?)?;
        return Ok(0);
    }
    if !services.is_empty() {
        say(&super::services::table(&services))?;
        // The runs of services stand there already.
        jobs.retain(|job| all || !services.iter().any(|service| service.job == Some(job.job)));
        if jobs.is_empty() {
            return Ok(0);
        }
        say("")?;
    }
    let mut rows = vec![["JOB", "NAME", "STATE", "PID", "FOR", "EXIT", "COMMAND"].map(String::from)];
    for job in jobs {
        let time = Duration::from_secs(job.for_ms / 1000);
        let exit = ending(job.exit, job.cause.as_ref());
        rows.push([
            job.job.to_string(),
            job.name.map(|name| name.to_string()).unwrap_or_default(),
            job.state.word().into(),
            job.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            humantime::format_duration(time).to_string(),
            exit,
            // One line a job, and nothing that a terminal would obey.
            plain(&job.command),
        ]);
    }
    say(&table(&rows))?;
    Ok(0)
}

/// Services and jobs, for whoever is typing: within a second or not at all.
pub fn names(target: &Target) -> anyhow::Result<(Vec<ServiceInfo>, Vec<JobInfo>)> {
    let connection = Connection::open(target)?;
    let limit = Duration::from_secs(1);
    let (services, jobs) = (connection.ask_within(limit, Line::Services)?, connection.ask_within(limit, Line::Ps)?);
    match (services, jobs) {
        (Reply::Services(services), Reply::Jobs(jobs)) => Ok((services, jobs)),
        other => bail!("answers that do not fit: {other:?}"),
    }
}

/// How somebody ended, for a table.
pub(super) fn ending(exit: Option<Exit>, cause: Option<&Cause>) -> String {
    match (exit, cause) {
        (Some(exit), Some(Cause::Exited) | None) => exit.status().to_string(),
        (Some(exit), Some(cause)) => format!("{} ({})", exit.status(), cause.word()),
        (None, Some(cause)) => cause.word().into(),
        (None, None) => String::new(),
    }
}

/// Columns, two spaces apart. But for the last, what is in them is ASCII.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
        cells.collect::<String>().trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Waits until a job has ended. Answers with its exit code.
pub fn wait(target: &Target, job: JobRef, json: bool) -> Outcome {
    let connection = Connection::open(target)?;
    match connection.ask(|id| Line::Wait(id, job))? {
        Reply::Ended { job, exit, cause, .. } => {
            if json {
                say(&serde_json::to_string(&soon(&connection.dir, job)?)?)?;
            } else if exit.is_none() {
                eprintln!("lastout wait: {job}: {cause}");
            }
            Ok(exit.map_or(super::FAILURE, |exit| exit.status()))
        }
        Reply::Refused { reason } => bail!(reason),
        other => bail!("an answer that does not fit: {other:?}"),
    }
}

pub(super) fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write")
}

/// A job that had no keeper to write its record gets it from a helper, in a moment.
fn soon(control: &Dir, job: JobId) -> anyhow::Result<Record> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match record(control, job) {
            Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
}

fn record(control: &Dir, job: JobId) -> anyhow::Result<Record> {
    let owners = [0, process::uid(), control.owner_and_mode()?.0];
    let directory = control.dir(files::JOBS).and_then(|jobs| jobs.dir(&job.to_string()));
    let json = directory.and_then(|directory| directory.read_file(files::RECORD, LARGEST_RECORD, &owners));
    let json = json.map_err(|error| anyhow!("no record of {job}: {}", crate::sys::errno(&error)))?;
    Record::parse(&json).map_err(|why| anyhow!(why))
}

/// Sends a signal to a job's process group.
pub fn kill(target: &Target, signal: Signal, job: JobRef) -> Outcome {
    done(Connection::open(target)?.ask(|id| Line::Kill(Some(id), signal, job, super::who("kill")))?)
}

/// Ends a job's whole tree and waits for its end.
pub fn stop(target: &Target, job: JobRef, grace: Option<Duration>) -> Outcome {
    done(Connection::open(target)?.ask(|id| Line::Stop(Some(id), job, grace, super::who("stop")))?)
}

/// Ends everything, and waits until the init has gone.
pub fn shutdown(target: &Target) -> Outcome {
    let connection = Connection::open(target)?;
    let mut session = connection.request()?;
    connection.send(&Line::Shutdown(Some(session.id), super::who("shutdown")))?;
    // An init that goes at once may not find the time to answer.
    match session.next()? {
        Some(Reply::Refused { reason }) => bail!(reason),
        Some(_) => session.wait_gone()?,
        None => {}
    }
    Ok(0)
}

pub(super) fn done(reply: Reply) -> Outcome {
    match reply {
        Reply::Done | Reply::Ended { .. } => Ok(0),
        Reply::Refused { reason } => bail!(reason),
        other => bail!("an answer that does not fit: {other:?}"),
    }
}
