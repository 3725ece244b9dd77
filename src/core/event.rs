use super::{Stuck, service::ServicesConfig};
use crate::{
    base::{ExecFailure, Exit, JobId, Pid, Process, RequestId, Signal},
    proto::{BadLine, Line, Notice, OomKill, Sender, Usage},
};

/// What is known of a process that has ended besides how.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// What it used, with all that it had waited for.
    pub usage: Usage,
    /// The OOM killer has killed somebody here.
    pub oom: Option<OomKill>,
}

/// What the init's loop saw.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The loop has begun.
    Begin,
    /// The deadline that [`super::Init::deadline`] gave has come, or any other moment: it does no harm.
    Tick,
    /// A signal arrived.
    Signal {
        /// Which.
        signal: Signal,
        /// From whom.
        sender: Sender,
    },
    /// Main was forked, or could not be.
    MainForked(Result<Pid, ExecFailure>),
    /// Main's command was not executed. Its process ends by itself.
    MainNotExecuted(ExecFailure),
    /// A child ended and was reaped: main, a keeper, a helper, or an orphan that became ours.
    Reaped {
        /// Who.
        pid: Pid,
        /// How.
        exit: Exit,
        /// Main's account.
        account: Option<Account>,
    },
    /// This signal has stopped a child.
    Stopped(Pid, Signal),
    /// A helper ended that gave no answer of its own (it answered a client, or ended strays).
    HelperEnded,
    /// A keeper was forked, or could not be.
    KeeperForked {
        /// Its job.
        job: JobId,
        /// The keeper, or the reason.
        keeper: Result<Pid, String>,
    },
    /// A keeper said something.
    Notice {
        /// Its job.
        job: JobId,
        /// What.
        notice: Notice,
    },
    /// A command came through the control FIFO.
    Line(Line),
    /// Something else came through the control FIFO.
    BadLine(BadLine),
    /// The control FIFO holds the beginning of a line (true), or no longer does (false).
    HalfLine(bool),
    /// A client whose `reply` we hold open has gone.
    ClientGone(RequestId),
    /// The answer to [`super::Action::CheckAlone`].
    Alone(bool),
    /// The answer to [`super::Action::Look`]; `None` if the look failed.
    Looked(Option<Vec<Process>>),
    /// A watched process that is not our child has ended.
    WatchedEnded(Pid),
    /// The answer to [`super::Action::Explain`].
    Explained(Vec<Stuck>),
    /// The answer to [`super::Action::AwaitKernel`]: it has, or not in time.
    KernelLetGo,
    /// The answer to [`super::Action::Census`]: who else holds volumes, and what could not be inspected.
    Counted(Vec<String>),
    /// The answer to [`super::Action::Sync`]: these volumes are being synced; with the device of those that are FUSE.
    Syncing(Vec<(String, Option<String>)>),
    /// The answer to [`super::Action::Reload`]: the services as the file has them now, or what is wrong with it.
    Reloaded(Result<ServicesConfig, String>),
    /// A volume has taken what was written, or the reason why not.
    Synced {
        /// As [`Event::Syncing`] named it.
        volume: String,
        /// What was not written back.
        error: Option<String>,
    },
}
