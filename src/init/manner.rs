//! How an init behaves where lastout and the small inits that it can stand in for differ.

use super::voice::Voice;
use crate::core::{Forwarding, NotExecuted};

/// Main's place among sessions and process groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Place {
    /// A process group of its own, in the terminal's foreground if standard input is that and it is ours.
    #[default]
    Group,
    /// The same, also where another descriptor than standard input is the terminal.
    GroupOfTerminal,
    /// A session of its own, whose terminal is standard input, if that is one.
    Session,
    /// Ours.
    Ours,
}

/// The default is lastout's own way.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// No control directory unless one is named, and without it where that cannot be used.
    pub no_default_control: bool,
    /// Not PID 1: what main leaves behind is nobody's business.
    pub spare_leftovers: bool,
    /// Not PID 1: orphans below us are somebody else's.
    pub no_subreaper: bool,
    /// The signal that somebody before us set for the death of our parent stays as it is.
    pub keep_parent_death: bool,
    /// To whom signals go on, and as what.
    pub forwarding: Forwarding,
    /// Main's place.
    pub place: Place,
    /// Main ignores and blocks no signal, whatever we were started with.
    pub fresh_signals: bool,
    /// A `LISTEN_PID` that names us is to name main.
    pub listen_pid: bool,
    /// The exit codes of a main that could not be executed, if they are not those of shells.
    pub not_executed: Option<NotExecuted>,
    /// The exit code of our own failures, if it is not 125.
    pub failure: Option<u8>,
    /// In whose words it speaks, besides the log.
    pub voice: Option<Voice>,
}
