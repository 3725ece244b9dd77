use std::{
    ffi::OsStr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, bail};

use super::{
    Run, Subcommand, values,
    words::{Long, Short, Stop, Value, Words, understand, wrong},
};
use crate::{
    base::{GRACE, JobRef, Name, Signal},
    client::{self, Target},
    proto::{Bytes, Request},
};

/// Every command line here ends so.
macro_rules! options {
    ($($line:literal)*) => {
        concat!(
            $($line, "\n",)*
            "      --control DIR      Control directory of the init [default: as the init finds it]\n",
            "  -h, --help             Print help\n",
        )
    };
}

/// The job that a command is about.
fn one(job: Option<JobRef>) -> Result<JobRef, Stop> {
    job.map_or_else(|| wrong("which job? Its number or name is missing"), Ok)
}

fn run(what: impl FnOnce() -> client::Outcome + 'static) -> Result<Run, Stop> {
    Ok(Box::new(move |_| what()))
}

pub(super) const EXEC: Subcommand = Subcommand {
    name: "exec",
    about: "Run a command as a job of the init, with its output and exit code",
    usage: "[OPTIONS] [--] COMMAND [ARG]...",
    options: options! {
        "  -i, --interactive      Pass standard input on; without it, the command's is /dev/null"
        "  -t, --tty              A terminal of its own, in the size and kind of this one"
        "  -d, --detach           Print the job's number and return; its output is kept for `lastout logs`"
        "  -e, --env KEY[=VALUE]  Set a variable; without =VALUE, to what it is here"
        "      --env-file FILE    Set variables from a file of KEY=VALUE or KEY lines; # begins a comment line"
        "  -w, --workdir DIR      Working directory [default: main's]"
        "  -u, --user USER[:GROUP]  As whom: names or numbers, with the user's supplementary groups [default: the init's]"
        "      --limit NAME=VALUE What it may use: nofile, core, as, nice, oom_score_adj; by cgroup memory, cpus, pids"
        "      --timeout TIME     End the command and all that it started after TIME, with code 124; 0: never"
        "      --grace TIME       Time between SIGTERM and SIGKILL [default: the init's]"
        "      --heartbeat TIME   Say on standard error, so often, that the command still runs, and what it uses"
        "      --keep             Let the command live on if this client goes; its output is kept as well"
        "      --name NAME        A name for ps, logs, wait, kill and stop"
        "      --wait TIME        Wait so long for an init that is not up yet"
    },
    read: |words| {
        let mut target = Target::default();
        let mut request = Request::new(Vec::new());
        let (mut name, mut tty) = (None, false);
        let (mut files, mut env) = (Vec::new(), Vec::new());
        while let Some(word) = words.next()? {
            match word {
                Short('i') | Long("interactive") => request.stdin = true,
                Short('t') | Long("tty") => tty = true,
                Short('d') | Long("detach") => request.detach = true,
                Short('e') | Long("env") => env.push(words.value()?),
                Long("env-file") => files.push(words.path()?),
                Short('w') | Long("workdir") => request.cwd = Some(words.value()?.into()),
                Short('u') | Long("user") => request.user = Some(words.read(String::from_str)?),
                Long("limit") => words.read(values::limit)?.set(&mut request.limits),
                Long("timeout") => {
                    let time = words.read(values::duration)?;
                    request.timeout_ms = Some(time).filter(|time| !time.is_zero()).map(values::milliseconds);
                }
                Long("grace") => request.grace_ms = Some(values::milliseconds(words.read(values::duration)?)),
                Long("heartbeat") => {
                    request.heartbeat_ms = Some(values::milliseconds(words.read(values::heartbeat)?));
                }
                Long("keep") => request.keep = true,
                Long("name") => name = Some(words.read(Name::from_str)?),
                Long("wait") => target.wait = Some(words.read(values::duration)?),
                Long("control") => target.control = Some(words.path()?),
                Value(program) => {
                    request.command = [program].into_iter().chain(words.rest()?).map(Bytes::from).collect()
                }
                other => return Err(other.unexpected().into()),
            }
        }
        if request.command.is_empty() {
            return wrong("what is to be run? The command is missing");
        }
        if request.detach && (request.stdin || request.heartbeat_ms.is_some()) {
            return wrong("--detach leaves nobody to pass input on or to hear a heartbeat");
        }
        if tty && (request.detach || request.keep) {
            return wrong("--tty needs this client to the end: it goes with neither --detach nor --keep");
        }
        if tty && request.heartbeat_ms.is_some() {
            return wrong("a heartbeat would write into what the command shows: it does not go with --tty");
        }
        Ok(Box::new(move |original| {
            for file in &files {
                request.env.extend(env_file(file)?);
            }
            for entry in &env {
                request.env.extend(env_entry(entry)?);
            }
            client::exec(&client::Exec { target, request, name, tty }, original)
        }))
    },
};

/// `KEY=VALUE` as it is; `KEY` with our own value, or nothing if we have none.
fn env_entry(entry: &OsStr) -> anyhow::Result<Option<Bytes>> {
    let bytes = entry.as_bytes();
    match bytes.iter().position(|b| *b == b'=') {
        Some(0) => bail!("{entry:?} is not a variable: write KEY=VALUE"),
        Some(_) => Ok(Some(Bytes(bytes.to_vec()))),
        None if bytes.is_empty() => bail!("an empty word is not a variable: write KEY=VALUE"),
        None => {
            let value = std::env::var_os(entry);
            Ok(value.map(|value| Bytes([bytes, b"=", &value.into_vec()].concat())))
        }
    }
}

fn env_file(path: &Path) -> anyhow::Result<Vec<Bytes>> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.split(|b| *b == b'\n').map(|line| line.trim_ascii_start());
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let entries = lines.filter(|line| !line.is_empty() && line[0] != b'#');
    let entries = entries.map(|line| env_entry(OsStr::from_bytes(line)).with_context(|| path.display().to_string()));
    Ok(entries.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

pub(super) const PS: Subcommand = Subcommand {
    name: "ps",
    about: "List services and jobs",
    usage: "[OPTIONS]",
    options: options! {
        "  -a, --all              Show ended jobs, too"
        "      --json             As JSON"
    },
    read: |words| {
        let (mut target, mut all, mut json) = (Target::default(), false, false);
        while let Some(word) = words.next()? {
            match word {
                Short('a') | Long("all") => all = true,
                Long("json") => json = true,
                Long("control") => target.control = Some(words.path()?),
                other => return Err(other.unexpected().into()),
            }
        }
        run(move || client::ps(&target, all, json))
    },
};

pub(super) const LOGS: Subcommand = Subcommand {
    name: "logs",
    about: "Show a job's kept output, or a service's file",
    usage: "[OPTIONS] JOB|SERVICE",
    options: options! {
        "  -f, --follow           Go on until the job ends; of a service until the init does"
    },
    read: |words| {
        let (mut target, mut job, mut follow) = (Target::default(), None, false);
        while let Some(word) = words.next()? {
            match word {
                Short('f') | Long("follow") => follow = true,
                Long("control") => target.control = Some(words.path()?),
                Value(word) if job.is_none() => job = Some(understand(&word, JobRef::from_str)?),
                other => return Err(other.unexpected().into()),
            }
        }
        let job = one(job)?;
        run(move || client::logs(&target, job, follow))
    },
};

pub(super) const WAIT: Subcommand = Subcommand {
    name: "wait",
    about: "Wait until a job has ended, and exit with its code",
    usage: "[OPTIONS] JOB",
    options: options! {
        "      --json             Print the job's record as JSON"
    },
    read: |words| {
        let (mut target, mut job, mut json) = (Target::default(), None, false);
        while let Some(word) = words.next()? {
            match word {
                Long("json") => json = true,
                Long("control") => target.control = Some(words.path()?),
                Value(word) if job.is_none() => job = Some(understand(&word, JobRef::from_str)?),
                other => return Err(other.unexpected().into()),
            }
        }
        let job = one(job)?;
        run(move || client::wait(&target, job, json))
    },
};

pub(super) const KILL: Subcommand = Subcommand {
    name: "kill",
    about: "Send a signal to a job's process group",
    usage: "[OPTIONS] JOB",
    options: options! {
        "  -s, --signal SIGNAL    Which signal [default: TERM]"
    },
    read: |words| {
        let (mut target, mut job, mut signal) = (Target::default(), None, Signal::TERM);
        while let Some(word) = words.next()? {
            match word {
                Short('s') | Long("signal") => signal = words.read(Signal::from_str)?,
                Long("control") => target.control = Some(words.path()?),
                Value(word) if job.is_none() => job = Some(understand(&word, JobRef::from_str)?),
                other => return Err(other.unexpected().into()),
            }
        }
        let job = one(job)?;
        run(move || client::kill(&target, signal, job))
    },
};

pub(super) const STOP: Subcommand = Subcommand {
    name: "stop",
    about: "End a job or service and all that it started: SIGTERM, grace, SIGKILL",
    usage: "[OPTIONS] JOB",
    options: options! {
        "      --grace TIME       Time between SIGTERM and SIGKILL [default: the job's]"
    },
    read: |words| {
        let (mut target, mut job, mut grace) = (Target::default(), None, None);
        while let Some(word) = words.next()? {
            match word {
                Long("grace") => grace = Some(words.read(values::duration)?),
                Long("control") => target.control = Some(words.path()?),
                Value(word) if job.is_none() => job = Some(understand(&word, JobRef::from_str)?),
                other => return Err(other.unexpected().into()),
            }
        }
        let job = one(job)?;
        run(move || client::stop(&target, job, grace))
    },
};

/// A service's command line has its name and nothing else.
fn service(words: &mut Words, what: fn(&Target, Name) -> client::Outcome) -> Result<Run, Stop> {
    let (mut target, mut name) = (Target::default(), None);
    while let Some(word) = words.next()? {
        match word {
            Long("control") => target.control = Some(words.path()?),
            Value(word) if name.is_none() => name = Some(understand(&word, Name::from_str)?),
            other => return Err(other.unexpected().into()),
        }
    }
    match name {
        Some(name) => run(move || what(&target, name)),
        None => wrong("which service? Its name is missing"),
    }
}

/// Nothing but which init.
fn whole(words: &mut Words, what: fn(&Target) -> client::Outcome) -> Result<Run, Stop> {
    let mut target = Target::default();
    while let Some(word) = words.next()? {
        match word {
            Long("control") => target.control = Some(words.path()?),
            other => return Err(other.unexpected().into()),
        }
    }
    run(move || what(&target))
}

pub(super) const START: Subcommand = Subcommand {
    name: "start",
    about: "Start a service and what it needs, and wait until it is ready",
    usage: "[OPTIONS] SERVICE",
    options: options! {},
    read: |words| service(words, client::start),
};

pub(super) const RESTART: Subcommand = Subcommand {
    name: "restart",
    about: "End a service and all that need it, start them again, and wait until it is ready",
    usage: "[OPTIONS] SERVICE",
    options: options! {},
    read: |words| service(words, client::restart),
};

pub(super) const RELOAD: Subcommand = Subcommand {
    name: "reload",
    about: "Have the configuration file read again: only what has changed is started anew",
    usage: "[OPTIONS]",
    options: options! {},
    read: |words| whole(words, client::reload),
};

pub(super) const METRICS: Subcommand = Subcommand {
    name: "metrics",
    about: "Write services and jobs as OpenMetrics text, for Prometheus",
    usage: "[OPTIONS]",
    options: options! {},
    read: |words| whole(words, client::metrics),
};

pub(super) const LIMITS: Subcommand = Subcommand {
    name: "limits",
    about: "Tell what this container may really use: CPUs, memory, swap, processes",
    usage: "[OPTIONS]\n\nIt takes no init.",
    options: "      --json             As JSON\n  -h, --help             Print help\n",
    read: |words| {
        let mut json = false;
        while let Some(word) = words.next()? {
            match word {
                Long("json") => json = true,
                other => return Err(other.unexpected().into()),
            }
        }
        run(move || client::limits(json))
    },
};

pub(super) const DOCTOR: Subcommand = Subcommand {
    name: "doctor",
    about: "Tell why it hangs: processes, volumes and who holds them, limits",
    usage: "[OPTIONS] [PATH]...\n\nOf a PATH only its volume is told of. It is not touched.",
    options: options! {
        "      --json             As JSON"
    },
    read: |words| {
        let (mut target, mut paths, mut json) = (Target::default(), Vec::new(), false);
        while let Some(word) = words.next()? {
            match word {
                Long("json") => json = true,
                Long("control") => target.control = Some(words.path()?),
                Value(path) => paths.push(path.into()),
                other => return Err(other.unexpected().into()),
            }
        }
        run(move || client::doctor(&client::Doctor { target, paths, json }))
    },
};

pub(super) const ORPHANS: Subcommand = Subcommand {
    name: "orphans",
    about: "List or end what belongs to no live job or main",
    usage: "[OPTIONS]\n\nOf every control directory; with --control only of that one.",
    options: options! {
        "      --kill             End them: SIGTERM, grace, SIGKILL"
        "      --grace TIME       Time between SIGTERM and SIGKILL [default: 7s]"
        "      --json             As JSON"
    },
    read: |words| {
        let (mut target, mut kill, mut grace, mut json) = (Target::default(), false, GRACE, false);
        while let Some(word) = words.next()? {
            match word {
                Long("kill") => kill = true,
                Long("grace") => grace = words.read(values::duration)?,
                Long("json") => json = true,
                Long("control") => target.control = Some(words.path()?),
                other => return Err(other.unexpected().into()),
            }
        }
        run(move || client::orphans(&client::Orphans { target, kill, grace, json }))
    },
};

pub(super) const CHECK: Subcommand = Subcommand {
    name: "check",
    about: "Tell everything that is wrong in a configuration file",
    usage: "[OPTIONS] FILE...\n\nA FILE of - is standard input.",
    options: "      --json             Problems as a JSON list of file, line, column and text\n      --schema           Print the JSON Schema of the configuration file, by which editors complete it\n  -h, --help             Print help\n",
    read: |words| {
        let (mut files, mut schema, mut json) = (Vec::new(), false, false);
        while let Some(word) = words.next()? {
            match word {
                Long("json") => json = true,
                Long("schema") => schema = true,
                Value(file) => files.push(PathBuf::from(file)),
                other => return Err(other.unexpected().into()),
            }
        }
        match (schema, files.is_empty()) {
            (true, true) if !json => run(client::schema),
            (true, _) => wrong("--schema stands alone"),
            (false, true) => wrong("which file? Its name is missing"),
            (false, false) => run(move || client::check(&files, json)),
        }
    },
};

pub(super) const SHUTDOWN: Subcommand = Subcommand {
    name: "shutdown",
    about: "End everything, and wait until the init has gone",
    usage: "[OPTIONS]",
    options: options! {},
    read: |words| whole(words, client::shutdown),
};

pub(super) const EVENTS: Subcommand = Subcommand {
    name: "events",
    about: "Tell what has happened: signals and their senders, starts, ends and their causes, what hangs",
    usage: "[OPTIONS]",
    options: options! {
        "  -f, --follow           Go on, with whatever happens from now on"
        "      --json             One JSON object a line"
    },
    read: |words| {
        let (mut target, mut follow, mut json) = (Target::default(), false, false);
        while let Some(word) = words.next()? {
            match word {
                Short('f') | Long("follow") => follow = true,
                Long("json") => json = true,
                Long("control") => target.control = Some(words.path()?),
                other => return Err(other.unexpected().into()),
            }
        }
        run(move || client::events(&target, follow, json))
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_is_read_as_docker_reads_it() {
        let file = std::env::temp_dir().join(format!("lastout-env-{}", std::process::id()));
        std::fs::write(&file, "# comment\nA=1\n\n  B=x y = z\r\nPATH\nNOT_SET_ANYWHERE\n").unwrap();
        let entries = env_file(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let path = format!("PATH={}", std::env::var("PATH").unwrap());
        assert_eq!(entries, [Bytes::from("A=1"), "B=x y = z".into(), path.as_str().into()]);
    }
}
