use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, bail};

use super::{
    Run, Subcommand,
    flags::{CONTROL, HELP, JSON, flag},
    values,
    words::{Operand, Opt, Stop, Words, understand, unexpected, wrong},
};
use crate::{
    base::{GRACE, JobRef, Name, Signal},
    client::{self, Target},
    proto::{Bytes, Request},
};

/// What commands take, all but `exec`. Which of it one takes, its table of options says.
#[derive(Default)]
struct Given {
    target: Target,
    all: bool,
    follow: bool,
    json: bool,
    kill: bool,
    schema: bool,
    grace: Option<Duration>,
    signal: Option<Signal>,
    operands: VecDeque<OsString>,
}

impl Given {
    fn read(words: &mut Words) -> Result<Given, Stop> {
        let mut given = Given::default();
        while let Some(word) = words.next()? {
            match word {
                Opt("all") => given.all = true,
                Opt("control") => given.target.control = Some(words.path()?),
                Opt("follow") => given.follow = true,
                Opt("grace") => given.grace = Some(words.read(values::duration)?),
                Opt("json") => given.json = true,
                Opt("kill") => given.kill = true,
                Opt("schema") => given.schema = true,
                Opt("signal") => given.signal = Some(words.read(Signal::from_str)?),
                Operand(word) => given.operands.push_back(word),
                other => return unexpected(other),
            }
        }
        Ok(given)
    }

    /// Without operands.
    fn alone(words: &mut Words) -> Result<Given, Stop> {
        let mut given = Given::read(words)?;
        given.operands.pop_front().map_or(Ok(given), |word| unexpected(Operand(word)))
    }

    /// With one.
    fn with<T, E: ToString>(
        words: &mut Words,
        missing: &str,
        read: fn(&str) -> Result<T, E>,
    ) -> Result<(Given, T), Stop> {
        let mut given = Given::read(words)?;
        match (given.operands.pop_front(), given.operands.pop_front()) {
            (None, _) => wrong(missing),
            (Some(_), Some(more)) => unexpected(Operand(more)),
            (Some(word), None) => Ok((given, understand(&word, read)?)),
        }
    }

    /// With the job that a command is about.
    fn with_job(words: &mut Words) -> Result<(Given, JobRef), Stop> {
        Given::with(words, "which job? Its number or name is missing", JobRef::from_str)
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.operands.iter().map(PathBuf::from).collect()
    }
}

fn run(what: impl FnOnce() -> client::Outcome + 'static) -> Result<Run, Stop> {
    Ok(Box::new(move |_| what()))
}

pub(super) const EXEC: Subcommand = Subcommand {
    name: "exec",
    about: "Run a command as a job of the init, with its output and exit code",
    operands: "[--] COMMAND [ARG]...",
    note: "",
    flags: &[
        flag("i", "interactive", "", "Pass standard input on; without it, the command's is /dev/null"),
        flag("t", "tty", "", "A terminal of its own, in the size and kind of this one"),
        flag("d", "detach", "", "Print the job's number and return; its output is kept for `lastout logs`"),
        flag("e", "env", "KEY[=VALUE]", "Set a variable; without =VALUE, to what it is here"),
        flag("", "env-file", "FILE", "Set variables from a file of KEY=VALUE or KEY lines; # begins a comment line"),
        flag("w", "workdir", "DIR", "Working directory [default: main's]"),
        flag(
            "u",
            "user",
            "USER[:GROUP]",
            "As whom: names or numbers, with the user's supplementary groups [default: the init's]",
        ),
        flag(
            "",
            "limit",
            "NAME=VALUE",
            "What it may use: nofile, core, as, nice, oom_score_adj; by cgroup memory, cpus, pids",
        ),
        flag("", "timeout", "TIME", "End the command and all that it started after TIME, with code 124; 0: never"),
        flag("", "grace", "TIME", "Time between SIGTERM and SIGKILL [default: the init's]"),
        flag("", "heartbeat", "TIME", "Say on standard error, so often, that the command still runs, and what it uses"),
        flag("", "keep", "", "Let the command live on if this client goes; its output is kept as well"),
        flag("", "name", "NAME", "A name for ps, logs, wait, kill and stop"),
        flag("", "wait", "TIME", "Wait so long for an init that is not up yet"),
        CONTROL,
        HELP,
    ],
    read: |words| {
        let mut target = Target::default();
        let mut request = Request::new(Vec::new());
        let (mut name, mut tty) = (None, false);
        let (mut files, mut env) = (Vec::new(), Vec::new());
        while let Some(word) = words.next()? {
            match word {
                Opt("interactive") => request.stdin = true,
                Opt("tty") => tty = true,
                Opt("detach") => request.detach = true,
                Opt("env") => env.push(words.value()?),
                Opt("env-file") => files.push(words.path()?),
                Opt("workdir") => request.cwd = Some(words.value()?.into()),
                Opt("user") => request.user = Some(words.read(String::from_str)?),
                Opt("limit") => words.read(values::limit)?.set(&mut request.limits),
                Opt("timeout") => {
                    let time = words.read(values::duration)?;
                    request.timeout_ms = Some(time).filter(|time| !time.is_zero()).map(values::milliseconds);
                }
                Opt("grace") => request.grace_ms = Some(values::milliseconds(words.read(values::duration)?)),
                Opt("heartbeat") => {
                    request.heartbeat_ms = Some(values::milliseconds(words.read(values::heartbeat)?));
                }
                Opt("keep") => request.keep = true,
                Opt("name") => name = Some(words.read(Name::from_str)?),
                Opt("wait") => target.wait = Some(words.read(values::duration)?),
                Opt("control") => target.control = Some(words.path()?),
                Operand(program) => {
                    request.command = [program].into_iter().chain(words.rest()?).map(Bytes::from).collect()
                }
                other => return unexpected(other),
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
    operands: "",
    note: "",
    flags: &[flag("a", "all", "", "Show ended jobs, too"), JSON, CONTROL, HELP],
    read: |words| {
        let given = Given::alone(words)?;
        run(move || client::ps(&given.target, given.all, given.json))
    },
};

pub(super) const LOGS: Subcommand = Subcommand {
    name: "logs",
    about: "Show a job's kept output, or a service's file",
    operands: "JOB|SERVICE",
    note: "",
    flags: &[flag("f", "follow", "", "Go on until the job ends; of a service until the init does"), CONTROL, HELP],
    read: |words| {
        let (given, job) = Given::with_job(words)?;
        run(move || client::logs(&given.target, job, given.follow))
    },
};

pub(super) const WAIT: Subcommand = Subcommand {
    name: "wait",
    about: "Wait until a job has ended, and exit with its code",
    operands: "JOB",
    note: "",
    flags: &[flag("", "json", "", "Print the job's record as JSON"), CONTROL, HELP],
    read: |words| {
        let (given, job) = Given::with_job(words)?;
        run(move || client::wait(&given.target, job, given.json))
    },
};

pub(super) const KILL: Subcommand = Subcommand {
    name: "kill",
    about: "Send a signal to a job's process group",
    operands: "JOB",
    note: "",
    flags: &[flag("s", "signal", "SIGNAL", "Which signal [default: TERM]"), CONTROL, HELP],
    read: |words| {
        let (given, job) = Given::with_job(words)?;
        run(move || client::kill(&given.target, given.signal.unwrap_or(Signal::TERM), job))
    },
};

pub(super) const STOP: Subcommand = Subcommand {
    name: "stop",
    about: "End a job or service and all that it started: SIGTERM, grace, SIGKILL",
    operands: "JOB",
    note: "",
    flags: &[flag("", "grace", "TIME", "Time between SIGTERM and SIGKILL [default: the job's]"), CONTROL, HELP],
    read: |words| {
        let (given, job) = Given::with_job(words)?;
        run(move || client::stop(&given.target, job, given.grace))
    },
};

/// A service's command line has its name and nothing else.
fn service(words: &mut Words, what: fn(&Target, Name) -> client::Outcome) -> Result<Run, Stop> {
    let (given, name) = Given::with(words, "which service? Its name is missing", Name::from_str)?;
    run(move || what(&given.target, name))
}

/// Nothing but which init.
fn whole(words: &mut Words, what: fn(&Target) -> client::Outcome) -> Result<Run, Stop> {
    let given = Given::alone(words)?;
    run(move || what(&given.target))
}

pub(super) const START: Subcommand = Subcommand {
    name: "start",
    about: "Start a service and what it needs, and wait until it is ready",
    operands: "SERVICE",
    note: "",
    flags: &[CONTROL, HELP],
    read: |words| service(words, client::start),
};

pub(super) const RESTART: Subcommand = Subcommand {
    name: "restart",
    about: "End a service and all that need it, start them again, and wait until it is ready",
    operands: "SERVICE",
    note: "",
    flags: &[CONTROL, HELP],
    read: |words| service(words, client::restart),
};

pub(super) const RELOAD: Subcommand = Subcommand {
    name: "reload",
    about: "Have the configuration file read again: only what has changed is started anew",
    operands: "",
    note: "",
    flags: &[CONTROL, HELP],
    read: |words| whole(words, client::reload),
};

pub(super) const METRICS: Subcommand = Subcommand {
    name: "metrics",
    about: "Write services and jobs as OpenMetrics text, for Prometheus",
    operands: "",
    note: "",
    flags: &[CONTROL, HELP],
    read: |words| whole(words, client::metrics),
};

pub(super) const LIMITS: Subcommand = Subcommand {
    name: "limits",
    about: "Tell what this container may really use: CPUs, memory, swap, processes",
    operands: "",
    note: "It takes no init.",
    flags: &[JSON, HELP],
    read: |words| {
        let given = Given::alone(words)?;
        run(move || client::limits(given.json))
    },
};

pub(super) const DOCTOR: Subcommand = Subcommand {
    name: "doctor",
    about: "Tell why it hangs: processes, volumes and who holds them, limits",
    operands: "[PATH]...",
    note: "Of a PATH only its volume is told of. It is not touched.",
    flags: &[JSON, CONTROL, HELP],
    read: |words| {
        let given = Given::read(words)?;
        let paths = given.paths();
        run(move || client::doctor(&client::Doctor { target: given.target, paths, json: given.json }))
    },
};

pub(super) const ORPHANS: Subcommand = Subcommand {
    name: "orphans",
    about: "List or end what belongs to no live job or main",
    operands: "",
    note: "Of every control directory; with --control only of that one.",
    flags: &[
        flag("", "kill", "", "End them: SIGTERM, grace, SIGKILL"),
        flag("", "grace", "TIME", "Time between SIGTERM and SIGKILL [default: 7s]"),
        JSON,
        CONTROL,
        HELP,
    ],
    read: |words| {
        let Given { target, kill, grace, json, .. } = Given::alone(words)?;
        run(move || client::orphans(&client::Orphans { target, kill, grace: grace.unwrap_or(GRACE), json }))
    },
};

pub(super) const CHECK: Subcommand = Subcommand {
    name: "check",
    about: "Tell everything that is wrong in a configuration file",
    operands: "FILE...",
    note: "A FILE of - is standard input.",
    flags: &[
        flag("", "json", "", "Problems as a JSON list of file, line, column and text"),
        flag("", "schema", "", "Print the JSON Schema of the configuration file, by which editors complete it"),
        HELP,
    ],
    read: |words| {
        let given = Given::read(words)?;
        match (given.schema, given.operands.is_empty()) {
            (true, true) if !given.json => run(client::schema),
            (true, _) => wrong("--schema stands alone"),
            (false, true) => wrong("which file? Its name is missing"),
            (false, false) => run(move || client::check(&given.paths(), given.json)),
        }
    },
};

pub(super) const SHUTDOWN: Subcommand = Subcommand {
    name: "shutdown",
    about: "End everything, and wait until the init has gone",
    operands: "",
    note: "",
    flags: &[CONTROL, HELP],
    read: |words| whole(words, client::shutdown),
};

pub(super) const EVENTS: Subcommand = Subcommand {
    name: "events",
    about: "Tell what has happened: signals and their senders, starts, ends and their causes, what hangs",
    operands: "",
    note: "",
    flags: &[
        flag("f", "follow", "", "Go on, with whatever happens from now on"),
        flag("", "json", "", "One JSON object a line"),
        CONTROL,
        HELP,
    ],
    read: |words| {
        let given = Given::alone(words)?;
        run(move || client::events(&given.target, given.follow, given.json))
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
