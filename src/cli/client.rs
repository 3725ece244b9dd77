use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{ArgMatches, Args, FromArgMatches};

use super::{Subcommand, values};
use crate::{
    base::{JobRef, Name, Signal},
    client::{self, Target},
    proto::{Bytes, Request},
};

/// Reads a subcommand's arguments back from clap.
fn read<T: FromArgMatches>(matches: &ArgMatches) -> anyhow::Result<T> {
    Ok(T::from_arg_matches(matches)?)
}

#[derive(Args, Debug)]
struct TargetArguments {
    /// Control directory of the init [default: as the init finds it]
    #[arg(long, value_name = "DIR")]
    control: Option<PathBuf>,
}

impl TargetArguments {
    fn target(self) -> Target {
        Target { control: self.control, wait: None }
    }
}

#[derive(Args, Debug)]
struct ExecArguments {
    /// Pass standard input on; without it, the command's is /dev/null
    #[arg(short, long)]
    interactive: bool,

    /// Print the job's number and return; its output is kept for `lastout logs`
    #[arg(short, long, conflicts_with = "interactive")]
    detach: bool,

    /// Set a variable; without =VALUE, to what it is here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<OsString>,

    /// Set variables from a file of KEY=VALUE or KEY lines; # begins a comment line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// Working directory [default: main's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<OsString>,

    /// End the command and all that it started after TIME, with code 124; 0: never
    #[arg(long, value_name = "TIME", value_parser = values::timeout)]
    timeout: Option<Duration>,

    /// Time between SIGTERM and SIGKILL [default: the init's]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    grace: Option<Duration>,

    /// Say on standard error, so often, that the command still runs, and what it uses
    #[arg(long, value_name = "TIME", value_parser = values::heartbeat, conflicts_with = "detach")]
    heartbeat: Option<Duration>,

    /// Let the command live on if this client goes; its output is kept as well
    #[arg(long)]
    keep: bool,

    /// A name for ps, logs, wait, kill and stop
    #[arg(long)]
    name: Option<Name>,

    /// Wait so long for an init that is not up yet
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    wait: Option<Duration>,

    #[command(flatten)]
    target: TargetArguments,

    /// What to run
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl ExecArguments {
    fn exec(self) -> anyhow::Result<client::Exec> {
        let mut env = Vec::new();
        for file in &self.env_file {
            env.extend(env_file(file)?);
        }
        for entry in self.env {
            env.extend(env_entry(&entry)?);
        }
        let command = self.command.into_iter().map(Bytes::from).collect();
        let request = Request {
            env,
            cwd: self.workdir.map(Bytes::from),
            stdin: self.interactive,
            detach: self.detach,
            keep: self.keep,
            timeout_ms: self.timeout.filter(|time| *time != Duration::MAX).map(values::milliseconds),
            grace_ms: self.grace.map(values::milliseconds),
            heartbeat_ms: self.heartbeat.map(values::milliseconds),
            ..Request::new(command)
        };
        let target = Target { wait: self.wait, ..self.target.target() };
        Ok(client::Exec { target, request, name: self.name })
    }
}

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

pub(super) const EXEC: Subcommand = Subcommand {
    name: "exec",
    about: "Run a command as a job of the init, with its output and exit code",
    arguments: ExecArguments::augment_args,
    run: |matches, original| client::exec(&read::<ExecArguments>(matches)?.exec()?, original),
};

#[derive(Args, Debug)]
struct PsArguments {
    /// Show ended jobs, too
    #[arg(short, long)]
    all: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
}

pub(super) const PS: Subcommand = Subcommand {
    name: "ps",
    about: "List jobs",
    arguments: PsArguments::augment_args,
    run: |matches, _| {
        let arguments: PsArguments = read(matches)?;
        client::ps(&arguments.target.target(), arguments.all, arguments.json)
    },
};

#[derive(Args, Debug)]
struct LogsArguments {
    /// Go on until the job ends
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    target: TargetArguments,
    /// Its number or name
    job: JobRef,
}

pub(super) const LOGS: Subcommand = Subcommand {
    name: "logs",
    about: "Show a job's kept output",
    arguments: LogsArguments::augment_args,
    run: |matches, _| {
        let arguments: LogsArguments = read(matches)?;
        client::logs(&arguments.target.target(), arguments.job, arguments.follow)
    },
};

#[derive(Args, Debug)]
struct WaitArguments {
    /// Print the job's record as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
    /// Its number or name
    job: JobRef,
}

pub(super) const WAIT: Subcommand = Subcommand {
    name: "wait",
    about: "Wait until a job has ended, and exit with its code",
    arguments: WaitArguments::augment_args,
    run: |matches, _| {
        let arguments: WaitArguments = read(matches)?;
        client::wait(&arguments.target.target(), arguments.job, arguments.json)
    },
};

#[derive(Args, Debug)]
struct KillArguments {
    /// Which signal
    #[arg(short, long, default_value = "TERM")]
    signal: Signal,
    #[command(flatten)]
    target: TargetArguments,
    /// Its number or name
    job: JobRef,
}

pub(super) const KILL: Subcommand = Subcommand {
    name: "kill",
    about: "Send a signal to a job's process group",
    arguments: KillArguments::augment_args,
    run: |matches, _| {
        let arguments: KillArguments = read(matches)?;
        client::kill(&arguments.target.target(), arguments.signal, arguments.job)
    },
};

#[derive(Args, Debug)]
struct StopArguments {
    /// Time between SIGTERM and SIGKILL [default: the job's]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    grace: Option<Duration>,
    #[command(flatten)]
    target: TargetArguments,
    /// Its number or name
    job: JobRef,
}

pub(super) const STOP: Subcommand = Subcommand {
    name: "stop",
    about: "End a job and all that it started: SIGTERM, grace, SIGKILL",
    arguments: StopArguments::augment_args,
    run: |matches, _| {
        let arguments: StopArguments = read(matches)?;
        client::stop(&arguments.target.target(), arguments.job, arguments.grace)
    },
};

#[derive(Args, Debug)]
struct DoctorArguments {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
    /// Only the volumes that these are on; they are not touched
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(super) const DOCTOR: Subcommand = Subcommand {
    name: "doctor",
    about: "Tell why it hangs: processes, volumes and who holds them, limits",
    arguments: DoctorArguments::augment_args,
    run: |matches, _| {
        let arguments: DoctorArguments = read(matches)?;
        let (target, paths, json) = (arguments.target.target(), arguments.paths, arguments.json);
        client::doctor(&client::Doctor { target, paths, json })
    },
};

#[derive(Args, Debug)]
struct OrphansArguments {
    /// End them: SIGTERM, grace, SIGKILL
    #[arg(long)]
    kill: bool,
    /// Time between SIGTERM and SIGKILL
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "7s")]
    grace: Duration,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Only those of this control directory
    #[arg(long, value_name = "DIR")]
    control: Option<PathBuf>,
}

pub(super) const ORPHANS: Subcommand = Subcommand {
    name: "orphans",
    about: "List or end what belongs to no live job or main",
    arguments: OrphansArguments::augment_args,
    run: |matches, _| {
        let OrphansArguments { kill, grace, json, control } = read(matches)?;
        client::orphans(&client::Orphans { target: Target { control, wait: None }, kill, grace, json })
    },
};

#[derive(Args, Debug)]
struct CheckArguments {
    /// Print the JSON Schema of the configuration file, by which editors complete it
    #[arg(long, conflicts_with_all = ["json", "files"])]
    schema: bool,
    /// Problems as a JSON list of file, line, column and text
    #[arg(long)]
    json: bool,
    /// Configuration files; - is standard input
    #[arg(required_unless_present = "schema", value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) const CHECK: Subcommand = Subcommand {
    name: "check",
    about: "Tell everything that is wrong in a configuration file",
    arguments: CheckArguments::augment_args,
    run: |matches, _| {
        let CheckArguments { schema, json, files } = read(matches)?;
        if schema { client::schema() } else { client::check(&files, json) }
    },
};

#[derive(Args, Debug)]
struct ShutdownArguments {
    #[command(flatten)]
    target: TargetArguments,
}

pub(super) const SHUTDOWN: Subcommand = Subcommand {
    name: "shutdown",
    about: "End everything, and wait until the init has gone",
    arguments: ShutdownArguments::augment_args,
    run: |matches, _| {
        let arguments: ShutdownArguments = read(matches)?;
        client::shutdown(&arguments.target.target())
    },
};

#[derive(Args, Debug)]
struct EventsArguments {
    /// Go on, with whatever happens from now on
    #[arg(short, long)]
    follow: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
}

pub(super) const EVENTS: Subcommand = Subcommand {
    name: "events",
    about: "Tell what has happened: signals and their senders, starts, ends and their causes, what hangs",
    arguments: EventsArguments::augment_args,
    run: |matches, _| {
        let arguments: EventsArguments = read(matches)?;
        client::events(&arguments.target.target(), arguments.follow, arguments.json)
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
