use std::{ffi::OsString, path::PathBuf, str::FromStr, time::Duration};

use super::{
    flags::{Flag, HELP, flag},
    logging, values,
    words::{Operand, Opt, Stop, Words, unexpected},
};
use crate::{
    base::Signal,
    client::FAILURE,
    init::{self, Plan, Sync},
    proto::place,
    sys::start::Original,
};

pub(super) const ABOUT: &str = "PID 1 for containers: the last process out\n";

pub(super) const USAGE: &str = "lastout [OPTIONS] [--] [COMMAND [ARG]...]\n       lastout SUBCOMMAND ...";

pub(super) const FLAGS: &[Flag] = &[
    flag("s", "", "", "Be a subreaper. As lastout always is where it is not PID 1; for tini's command lines"),
    flag("p", "", "SIGNAL", "Have SIGNAL sent to lastout when its parent ends"),
    flag("v", "", "", "Say more on standard error; -vv, -vvv: still more. LASTOUT_LOG=info|debug|trace does the same"),
    flag("w", "", "", "Warn each time that an orphan is reaped"),
    flag("g", "", "", "Forward signals to main's process group. As lastout always does; for tini's command lines"),
    flag("e", "", "CODE", "Turn main's exit code CODE into 0; may be repeated"),
    flag(
        "",
        "config",
        "FILE",
        "Supervise the services of FILE (TOML); `lastout check FILE` says what is wrong with it",
    ),
    flag(
        "",
        "control",
        "DIR",
        "Control directory [default: $LASTOUT_CONTROL, /run/lastout, $XDG_RUNTIME_DIR/lastout or /tmp/lastout-UID]",
    ),
    flag("", "max-jobs", "N", "Run at most N jobs at once; the rest is queued in order"),
    flag("", "grace", "TIME", "Time between SIGTERM and SIGKILL, for everything but main [default: 7s]"),
    flag("", "stop-timeout", "TIME", "SIGKILL main when it has not ended so long after a stop signal [default: never]"),
    flag(
        "",
        "stuck-timeout",
        "TIME",
        "Not PID 1: leave with code 125 when SIGKILL has not ended something for so long [default: 60s]",
    ),
    flag(
        "",
        "abort-fuse",
        "",
        "Abort the FUSE connection of a volume on which something still hangs when its time is over",
    ),
    flag(
        "",
        "pid-namespace",
        "",
        "Not PID 1: be it, in a PID namespace of its own where that is allowed, so that nothing of it outlives a \
         SIGKILL of lastout",
    ),
    flag(
        "",
        "sync",
        "auto|all|none",
        "Volumes to sync before leaving: auto (network and FUSE ones), all or none [default: auto]",
    ),
    HELP,
    flag("V", "version", "", "Print version"),
];

pub(super) const NOTE: &str =
    "COMMAND is main, the container's life; without it lastout holds, until SIGTERM, SIGINT or `lastout shutdown`.";

/// The init's command line.
#[derive(Debug)]
pub(super) struct Arguments {
    verbose: usize,
    command: Vec<OsString>,
    config: Option<PathBuf>,
    /// Without its command.
    plan: Plan,
}

impl Arguments {
    /// Reads a command line.
    pub(super) fn read(words: &mut Words) -> Result<Arguments, Stop> {
        let (mut verbose, mut command, mut config) = (0, Vec::new(), None);
        let mut plan = Plan { stuck_timeout: Duration::from_secs(60), ..Plan::default() };
        while let Some(word) = words.next()? {
            match word {
                Opt("version") => return Err(Stop::Version),
                Opt("s" | "g") => {}
                Opt("p") => plan.parent_death = Some(words.read(Signal::from_str)?),
                Opt("v") => verbose += 1,
                Opt("w") => plan.warn_reaps = true,
                Opt("e") => plan.remap.push(words.read(values::exit_code)?),
                Opt("config") => config = Some(words.path()?),
                Opt("control") => plan.control = Some(words.path()?),
                Opt("max-jobs") => plan.max_jobs = Some(words.read(values::count)?),
                Opt("grace") => plan.grace = Some(words.read(values::duration)?),
                Opt("stop-timeout") => plan.stop_timeout = Some(words.read(values::duration)?),
                Opt("stuck-timeout") => plan.stuck_timeout = words.read(values::duration)?,
                Opt("abort-fuse") => plan.abort_fuse = true,
                Opt("pid-namespace") => plan.pid_namespace = true,
                Opt("sync") => plan.sync = words.read(which_volumes)?,
                Operand(program) => {
                    command.push(program);
                    command.extend(words.rest()?);
                }
                other => return unexpected(other),
            }
        }
        Ok(Arguments { verbose, command, config, plan })
    }

    /// Is the init.
    pub(super) fn run(self, original: Original) -> u8 {
        logging::start(logging::level(self.verbose));
        match self.plan() {
            Ok(plan) => init::run(plan, original),
            Err(reason) => {
                reason.lines().for_each(|line| log::error!("{line}"));
                FAILURE
            }
        }
    }

    fn plan(self) -> Result<Plan, String> {
        let variable = || std::env::var_os(place::VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = self.config.map(|path| {
            let text = init::read_config(&path)?;
            let services = init::parse_config(&path, &text)?;
            Ok::<_, String>((path, services))
        });
        let config = config.transpose()?;
        if let Some((path, _)) = config.as_ref().filter(|(_, file)| *file == Default::default())
            && self.command.is_empty()
        {
            log::warn!("{} says nothing: no service is there to run, so this waits for jobs", path.display());
        }
        let file = config.as_ref().map(|(_, services)| services.clone()).unwrap_or_default();
        Ok(Plan {
            max_jobs: self.plan.max_jobs.or(file.max_jobs),
            grace: self.plan.grace.or(file.grace),
            stop_timeout: self.plan.stop_timeout.or(file.stop_timeout),
            config,
            command: self.command.into_iter().map(init::c_string).collect::<Result<_, _>>()?,
            inherited_control: variable(),
            ..self.plan
        })
    }
}

fn which_volumes(text: &str) -> Result<Sync, &'static str> {
    match text {
        "auto" => Ok(Sync::Auto),
        "all" => Ok(Sync::All),
        "none" => Ok(Sync::None),
        _ => Err("use auto, all or none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, Stop> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Arguments::read(&mut Words::new(&words, FLAGS))
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        for words in [&["--", "ls", "-la", "--", "x"][..], &["ls", "-la", "--", "x"], &["-v", "ls", "-la", "--", "x"]] {
            assert_eq!(parse(words).unwrap().command, ["ls", "-la", "--", "x"], "{words:?}");
        }
        assert_eq!(parse(&["--", "exec", "x"]).unwrap().command, ["exec", "x"]);
        assert_eq!(parse(&["--", "-x"]).unwrap().command, ["-x"]);
        assert!(parse(&[]).unwrap().command.is_empty());
    }

    #[test]
    fn tinis_options_are_understood() {
        let arguments =
            parse(&["-s", "-p", "SIGKILL", "-vv", "-w", "-g", "-e", "143", "-e", "1", "--", "true"]).unwrap();
        assert_eq!((arguments.verbose, arguments.plan.remap, arguments.plan.warn_reaps), (2, vec![143, 1], true));
        assert_eq!(arguments.plan.parent_death, Some(Signal::KILL));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for words in [
            &["--nope", "true"][..],
            &["-e", "256", "true"],
            &["-p", "NOPE", "true"],
            &["--grace", "soon", "true"],
            &["--max-jobs", "0", "true"],
            &["--sync", "some", "true"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
