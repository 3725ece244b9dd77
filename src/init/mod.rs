//! PID 1's loop: descriptors become facts, orders become system calls, one turn at a time.

mod bare;
mod control;
mod helper;
mod manner;
mod outer;
mod token;
mod turn;
mod voice;

use std::{
    ffi::{CString, OsString},
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::{
    manner::{Manner, Place},
    voice::{Gravity, Speaker, TARGET, Voice},
};
pub use crate::core::{Forwarding, NotExecuted};
use crate::{
    base::{Pid, Signal},
    config,
    core::service::ServicesConfig,
    inspect,
    sys::{
        memory, process,
        start::{self, Original},
        tty::{self, Lent},
    },
};

/// Which volumes are synced before the init leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sync {
    /// Network and FUSE volumes: a local disk's other users should not wait for us.
    #[default]
    Auto,
    /// Every volume.
    All,
    /// None.
    None,
}

/// What the command line asks of an init.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Main; empty: hold.
    pub command: Vec<CString>,
    /// The control directory, if one was named on the command line.
    pub control: Option<PathBuf>,
    /// The control directory that the environment names. It may be that of an init above us.
    pub inherited_control: Option<PathBuf>,
    /// The configuration file, to be read again, and what it says.
    pub config: Option<(PathBuf, ServicesConfig)>,
    /// Jobs at once.
    pub max_jobs: Option<usize>,
    /// Between TERM and KILL.
    pub grace: Option<Duration>,
    /// How long main may take after a stop signal.
    pub stop_timeout: Option<Duration>,
    /// How long to wait for what SIGKILL does not end (not as PID 1).
    pub stuck_timeout: Duration,
    /// Abort the FUSE connection of a volume that holds what SIGKILL does not end.
    pub abort_fuse: bool,
    /// Which volumes to sync.
    pub sync: Sync,
    /// Exit codes that become 0.
    pub remap: Vec<u8>,
    /// Not PID 1: be it, in a PID namespace of its own.
    pub pid_namespace: bool,
    /// Say so when an orphan is reaped.
    pub warn_reaps: bool,
    /// The signal to get when the parent ends.
    pub parent_death: Option<Signal>,
    /// How it behaves where the small inits differ.
    pub manner: Manner,
}

impl Plan {
    /// The exit code of our own failures.
    fn failure(&self) -> u8 {
        self.manner.failure.unwrap_or(125)
    }
}

/// Is the init, until everything has ended. Answers with the exit code.
pub fn run(plan: Plan, mut original: Original) -> u8 {
    memory::make_ready();
    // It is needed for as long as this process lives, and after a panic, too.
    let plan: &'static Plan = Box::leak(Box::new(plan));
    original.reap_children();
    if let Err(reason) = settle_with_parent(plan) {
        log::error!("{reason}");
        return plan.failure();
    }
    if plan.pid_namespace && process::me() != Pid::INIT {
        match outer::run(|| run_init(plan, &original)) {
            Ok(code) => return code,
            Err(reason) => log::warn!("no PID namespace of its own ({reason}): going on as a subreaper"),
        }
    }
    if let Err(reason) = become_reaper(plan) {
        log::error!("{reason}");
        return plan.failure();
    }
    run_init(plan, &original)
}

/// The init itself.
fn run_init(plan: &'static Plan, original: &Original) -> u8 {
    let place = plan.manner.place;
    // Before we leave it.
    let terminal = match place {
        Place::Group => Lent::find(false),
        Place::GroupOfTerminal => Lent::find(true),
        Place::Session | Place::Ours => Lent::find_without_foreground(),
    };
    // The kernel tells a session's leader that it has lost its terminal, once: that is not main's.
    let leaves = place == Place::Session && tty::leave();
    let swallowed = if leaves { vec![Signal::HUP, Signal::CONT] } else { Vec::new() };
    let mut turn = match turn::Turn::new(plan, original, terminal, swallowed) {
        Ok(turn) => turn,
        Err(reason) => {
            log::error!("{reason}");
            return plan.failure();
        }
    };
    // A panic goes no further than its hook, so the loop's state lives on: keepers must not see their links close.
    let bare = turn.bare();
    start::at_panic(|panic| {
        log::error!("{panic}");
        bare.go_on("a bug")
    });
    match turn.run() {
        turn::End::Over(code) => {
            turn.end_log();
            code
        }
        turn::End::NoMemory => bare.go_on("out of memory"),
    }
}

/// Reads the configuration file. May block.
pub fn read_config(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {}", path.display(), crate::sys::errno(&error)))
}

/// What the configuration file says, or everything that is wrong with it, a line each.
/// Looks at the container's limits, so not for the loop.
pub fn parse_config(path: &Path, text: &[u8]) -> Result<ServicesConfig, String> {
    parse_with(path, text, &inspect::export)
}

/// The same, with what the placeholders stand for: looks at nothing.
fn parse_with(path: &Path, text: &[u8], exports: &dyn Fn(&str) -> Option<String>) -> Result<ServicesConfig, String> {
    config::parse_bytes(text, exports).map_err(|problems| {
        let lines = problems.iter().map(|problem| format!("{}:{problem}", path.display()));
        lines.collect::<Vec<_>>().join("\n")
    })
}

/// Not PID 1: end in order when our own parent dies.
fn settle_with_parent(plan: &Plan) -> Result<(), String> {
    let pid1 = process::me() == Pid::INIT;
    let parent = process::parent();
    // Apptainer's starter sets SIGKILL on us: then we would die at once with it, and our children live on.
    let inherited = || process::parent_death_signal().filter(|_| !pid1 && !plan.manner.keep_parent_death);
    let Some(signal) = plan.parent_death.or_else(|| inherited().map(|_| Signal::TERM)) else { return Ok(()) };
    let told = process::set_parent_death_signal(signal);
    told.map_err(|error| format!("cannot set the parent-death signal {signal}: {error}"))?;
    if process::parent() != parent {
        let _ = crate::sys::signals::send(process::me(), signal);
    }
    Ok(())
}

/// Not PID 1: become the parent of every orphan below us.
fn become_reaper(plan: &Plan) -> Result<(), String> {
    if process::me() == Pid::INIT || plan.manner.no_subreaper {
        return Ok(());
    }
    process::become_subreaper().map_err(|error| format!("cannot become a subreaper: {error}"))
}

/// A word of a command line, for `execve(2)`.
pub fn c_string(word: OsString) -> Result<CString, String> {
    use std::os::unix::ffi::OsStringExt;
    CString::new(word.into_vec()).map_err(|_| "an argument has a NUL byte".into())
}
