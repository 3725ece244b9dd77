use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Command, ValueEnum};

use super::{logging, values};
use crate::{
    base::Signal,
    client::FAILURE,
    init::{self, Plan, Sync},
    proto::place,
    sys::start::Original,
};

/// The init's command line.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Be a subreaper. As lastout always is where it is not PID 1; for tini's command lines
    #[arg(short = 's')]
    subreaper: bool,

    /// Have SIGNAL sent to lastout when its parent ends
    #[arg(short = 'p', value_name = "SIGNAL")]
    parent_death: Option<Signal>,

    /// Say more on standard error; twice, thrice: still more. LASTOUT_LOG=info|debug|trace does the same
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    verbose: u8,

    /// Warn each time that an orphan is reaped
    #[arg(short = 'w')]
    warn_reaps: bool,

    /// Forward signals to main's process group. As lastout always does; for tini's command lines
    #[arg(short = 'g')]
    group: bool,

    /// Turn main's exit code CODE into 0; may be repeated
    #[arg(short = 'e', value_name = "CODE", value_parser = values::exit_code)]
    remap: Vec<u8>,

    /// Supervise the services of FILE (TOML); `lastout check FILE` says what is wrong with it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Control directory [default: $LASTOUT_CONTROL, /run/lastout, $XDG_RUNTIME_DIR/lastout or /tmp/lastout-UID]
    #[arg(long, value_name = "DIR")]
    control: Option<PathBuf>,

    /// Run at most N jobs at once; the rest is queued in order
    #[arg(long, value_name = "N", value_parser = values::count)]
    max_jobs: Option<usize>,

    /// Time between SIGTERM and SIGKILL, for everything but main [default: 7s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    grace: Option<Duration>,

    /// SIGKILL main when it has not ended so long after a stop signal [default: never]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    stop_timeout: Option<Duration>,

    /// Not PID 1: leave with code 125 when SIGKILL has not ended something for so long
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "60s")]
    stuck_timeout: Duration,

    /// Abort the FUSE connection of a volume on which something still hangs when its time is over
    #[arg(long)]
    abort_fuse: bool,

    /// Volumes to sync before leaving: network and FUSE ones, all, or none
    #[arg(long, value_name = "WHICH", value_enum, default_value = "auto")]
    sync: SyncArgument,

    /// Main, the container's life; without it lastout holds, until SIGTERM, SIGINT or `lastout shutdown`
    #[arg(trailing_var_arg = true, allow_hyphen_values = false, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SyncArgument {
    Auto,
    All,
    None,
}

/// Its definition for clap.
pub(super) fn command() -> Command {
    let command = Command::new("lastout")
        .version(env!("CARGO_PKG_VERSION"))
        .about("PID 1 for containers: the last process out")
        .override_usage("lastout [OPTIONS] [--] [COMMAND [ARG]...]\n       lastout SUBCOMMAND ...");
    Arguments::augment_args(command)
}

impl Arguments {
    /// Is the init.
    pub(super) fn run(self, original: Original) -> u8 {
        logging::start(self.verbose);
        match self.plan() {
            Ok(plan) => init::run(plan, original),
            Err(reason) => {
                log::error!("{reason}");
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
            command: self.command.into_iter().map(init::c_string).collect::<Result<_, _>>()?,
            control: self.control,
            inherited_control: variable(),
            max_jobs: self.max_jobs.or(file.max_jobs),
            grace: self.grace.or(file.grace),
            stop_timeout: self.stop_timeout.or(file.stop_timeout),
            stuck_timeout: self.stuck_timeout,
            abort_fuse: self.abort_fuse,
            sync: match self.sync {
                SyncArgument::Auto => Sync::Auto,
                SyncArgument::All => Sync::All,
                SyncArgument::None => Sync::None,
            },
            remap: self.remap,
            warn_reaps: self.warn_reaps,
            parent_death: self.parent_death,
            config,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        let words = std::iter::once(&"lastout").chain(words);
        command().try_get_matches_from(words).and_then(|matches| Arguments::from_arg_matches(&matches))
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
        assert_eq!((arguments.verbose, arguments.remap, arguments.warn_reaps), (2, vec![143, 1], true));
        assert_eq!(arguments.parent_death, Some(Signal::KILL));
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
