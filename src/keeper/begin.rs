//! How a keeper begins.

use std::{
    collections::VecDeque,
    ffi::CString,
    fs::File,
    os::fd::OwnedFd,
    time::{Duration, SystemTime},
};

use super::{
    Cgroup, Keeper, Refusal, Start, command_text, limits,
    output::{self, Output},
    record::make_job_directory,
    refuse,
    request::Client,
    service::Service,
    terminal::Terminal,
};
use crate::{
    base::Pid,
    core::{Job, JobConfig, JobEvent},
    inspect,
    proto::{Cause, Notice, Request, files, place},
    sys::{clock, fd, process, signals::Signals, spawn},
};

impl<'a> Keeper<'a> {
    pub(super) fn begin(
        start: &'a Start<'a>,
        signals: Signals,
        request: Request,
        client: &mut Client,
    ) -> Result<Box<Keeper<'a>>, Refusal> {
        let words: Vec<CString> = request.command.iter().filter_map(|word| CString::new(word.0.clone()).ok()).collect();
        let cwd = request.cwd.as_ref().map(|cwd| start.cwd.join(cwd.os()));
        let mut own: Vec<Vec<u8>> = request.env.iter().map(|entry| entry.0.clone()).collect();
        own.push(format!("{}={}", place::JOB_VARIABLE, start.job).into_bytes());

        let refused = |reason| Refusal(Cause::Refused { reason });
        let wanted = limits::of_request(&request);
        let init = process::parent().unwrap_or(Pid::INIT);
        let resolved = limits::resolve(&wanted, init, &start.job.to_string()).map_err(refused)?;
        // What somebody gave it by name counts more.
        own.splice(..0, resolved.env.iter().cloned());

        let mut outputs = Vec::new();
        let mut stdio: [Option<OwnedFd>; 3] = [None, None, None];
        let user = resolved.limits.credentials.as_ref().and_then(|credentials| credentials.uid);
        let terminal = request.tty.map(|size| Terminal::open(client, size, user)).transpose()?;
        if terminal.is_none() {
            stdio[0] = Some(match client.stdin.take() {
                Some(fifo) => blocking(fifo).map_err(refuse("open stdin"))?,
                None => fd::nothing().map_err(refuse("open /dev/null"))?,
            });
        }
        if terminal.is_some() {
            // All three are its terminal.
        } else if request.detach || request.keep {
            let directory = make_job_directory(start).map_err(refuse("make the job's directory"))?;
            for (number, fifo) in [(1, client.stdout.take()), (2, client.stderr.take())] {
                let (read, write) = fd::pipe().map_err(refuse("make a pipe"))?;
                let log = output::Log::create(&directory, files::LOGS[number - 1]).map_err(refuse("keep output"))?;
                outputs.push(Output::new(read, log, fifo));
                stdio[number] = Some(write);
            }
        } else {
            // Straight into the client's FIFO: no copy of ours.
            for (number, fifo) in [(1, client.stdout.take()), (2, client.stderr.take())] {
                stdio[number] = fifo.map(blocking).transpose().map_err(refuse("open output"))?;
            }
        }

        let slave = terminal.as_ref().and_then(Terminal::slave);
        let command = spawn::Command {
            words,
            env: Some((start.environment)(&own)),
            cwd: Some(cwd.as_deref().unwrap_or(start.cwd)),
            stdio: std::array::from_fn(|number| slave.or(stdio[number].as_ref())),
            third: None,
            pid_variable: None,
            original: &start.original.for_jobs(),
            reset: start.ignored,
            group: match slave {
                Some(_) => spawn::Group::SessionOfTerminal,
                None => spawn::Group::Session,
            },
            limits: Some(&resolved.limits),
        };
        let started = (SystemTime::now(), clock::now());
        let oom_kills = resolved.oom().or(start.oom).map_or(0, inspect::OomCounter::kills);
        let spawned = command.spawn().map_err(refuse("fork"))?;
        let words = command.words;
        drop(stdio);
        let group = resolved.group;

        let config = JobConfig {
            timeout: request.timeout(),
            grace: request.grace(),
            default_grace: start.grace,
            bound_to_client: !request.detach && !request.keep,
            heartbeat: request.heartbeat().filter(|_| !request.detach),
            own_group: process::group(),
        };
        let mut keeper = Box::new(Keeper {
            job: Job::new(config, process::me()),
            reply: client.reply.take(),
            outcome: Some(spawned.outcome),
            facts: VecDeque::from([JobEvent::Forked(spawned.pid)]),
            init_gone: false,
            blind_said: false,
            start,
            request,
            words,
            cwd,
            group,
            cpu_milli: wanted.cpu_milli,
            signals,
            outputs,
            terminal,
            service: None,
            started,
            oom_kills: (oom_kills, oom_kills),
            beat: (started.1, Duration::ZERO),
        });
        keeper.tell(&Notice::Command(command_text(&keeper.request.command)));
        Ok(keeper)
    }

    /// The same for one run of a service: what is forked when, its [`Job`] says.
    pub(super) fn begin_service(
        start: &'a Start<'a>,
        signals: Signals,
        request: Request,
        mut service: Service<'a>,
    ) -> Box<Keeper<'a>> {
        let config = JobConfig {
            timeout: service.run().timeout,
            grace: service.run().stop.grace,
            default_grace: start.grace,
            bound_to_client: false,
            heartbeat: None,
            own_group: process::group(),
        };
        let started = (SystemTime::now(), clock::now());
        let group = service.take_group();
        let oom = group.as_ref().and_then(Cgroup::oom).or(start.oom);
        let oom_kills = oom.map_or(0, inspect::OomCounter::kills);
        let mut keeper = Box::new(Keeper {
            job: Job::service(config, process::me(), service.run().clone()),
            reply: None,
            outcome: None,
            facts: VecDeque::from([JobEvent::Begin]),
            init_gone: false,
            blind_said: false,
            start,
            request,
            words: service.words(),
            cwd: Some(service.cwd().to_owned()),
            group,
            cpu_milli: service.run().limits.cpu_milli,
            signals,
            outputs: Vec::new(),
            terminal: None,
            service: Some(service),
            started,
            oom_kills: (oom_kills, oom_kills),
            beat: (started.1, Duration::ZERO),
        });
        keeper.tell(&Notice::Command(command_text(&keeper.request.command)));
        keeper
    }
}

fn blocking(file: File) -> std::io::Result<OwnedFd> {
    fd::set_nonblocking(&file, false)?;
    Ok(file.into())
}
