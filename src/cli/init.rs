use std::{ffi::OsString, path::PathBuf, str::FromStr, time::Duration};

use super::{
    logging, values,
    words::{Long, Short, Stop, Value, Words},
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

pub(super) const OPTIONS: &str = "\
  -s                    Be a subreaper. As lastout always is where it is not PID 1; for tini's command lines
  -p SIGNAL             Have SIGNAL sent to lastout when its parent ends
  -v                    Say more on standard error; -vv, -vvv: still more. LASTOUT_LOG=info|debug|trace does the same
  -w                    Warn each time that an orphan is reaped
  -g                    Forward signals to main's process group. As lastout always does; for tini's command lines
  -e CODE               Turn main's exit code CODE into 0; may be repeated
      --config FILE     Supervise the services of FILE (TOML); `lastout check FILE` says what is wrong with it
      --control DIR     Control directory [default: $LASTOUT_CONTROL, /run/lastout, $XDG_RUNTIME_DIR/lastout or
                        /tmp/lastout-UID]
      --max-jobs N      Run at most N jobs at once; the rest is queued in order
      --grace TIME      Time between SIGTERM and SIGKILL, for everything but main [default: 7s]
      --stop-timeout TIME
                        SIGKILL main when it has not ended so long after a stop signal [default: never]
      --stuck-timeout TIME
                        Not PID 1: leave with code 125 when SIGKILL has not ended something for so long [default: 60s]
      --abort-fuse      Abort the FUSE connection of a volume on which something still hangs when its time is over
      --pid-namespace   Not PID 1: be it, in a PID namespace of its own where that is allowed, so that nothing of it
                        outlives a SIGKILL of lastout
      --sync WHICH      Volumes to sync before leaving: auto (network and FUSE ones), all or none [default: auto]
  -h, --help            Print help
  -V, --version         Print version

COMMAND is main, the container's life; without it lastout holds, until SIGTERM, SIGINT or `lastout shutdown`.
";

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
                Short('V') | Long("version") => return Err(Stop::Version),
                Short('s' | 'g') => {}
                Short('p') => plan.parent_death = Some(words.read(Signal::from_str)?),
                Short('v') => verbose += 1,
                Short('w') => plan.warn_reaps = true,
                Short('e') => plan.remap.push(words.read(values::exit_code)?),
                Long("config") => config = Some(words.path()?),
                Long("control") => plan.control = Some(words.path()?),
                Long("max-jobs") => plan.max_jobs = Some(words.read(values::count)?),
                Long("grace") => plan.grace = Some(words.read(values::duration)?),
                Long("stop-timeout") => plan.stop_timeout = Some(words.read(values::duration)?),
                Long("stuck-timeout") => plan.stuck_timeout = words.read(values::duration)?,
                Long("abort-fuse") => plan.abort_fuse = true,
                Long("pid-namespace") => plan.pid_namespace = true,
                Long("sync") => plan.sync = words.read(which_volumes)?,
                Value(program) => {
                    command.push(program);
                    command.extend(words.rest()?);
                }
                other => return Err(other.unexpected().into()),
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
        Arguments::read(&mut Words::new(&words))
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
