use std::{rc::Rc, time::Duration};

use super::{Phase, service::RunConfig};

use crate::{
    base::{JobId, Name, Pgid, Pid, RequestId, Signal},
    proto::{Happening, Order, Reply},
};

/// How loud a log line is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Something was lost or could not be done.
    Error,
    /// Something is wrong and we go on.
    Warn,
    /// What happens, for `-v`.
    Info,
    /// Every detail, for `-vv`.
    Debug,
}

/// Where a job's command comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A client's request directory.
    Request(RequestId),
    /// The words of a `run` line.
    Words(Vec<String>),
    /// A service's next run.
    Service(Rc<RunConfig>),
}

/// What the init's loop is to do. None of it may block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Fork main. Answered by `MainForked`.
    ForkMain,
    /// Fork a keeper. Answered by `KeeperForked`.
    ForkKeeper {
        /// Its job.
        job: JobId,
        /// What it is to run.
        source: Source,
        /// The job's name.
        name: Option<Name>,
        /// Ended jobs whose directories it removes on the way.
        prune: Vec<JobId>,
    },
    /// Give a keeper an order.
    Tell {
        /// Its job.
        job: JobId,
        /// The order.
        order: Order,
    },
    /// Open the request's `reply` and hold it, so that the client learns of our death. If the client has
    /// gone already: `ClientGone`.
    Hold(RequestId),
    /// Let go of the request's `reply`, if it is held: somebody else answers.
    LetGo(RequestId),
    /// Write to the request's `reply`.
    Answer {
        /// Which request.
        to: RequestId,
        /// What to say.
        reply: Reply,
        /// Nothing follows: let go of it.
        last: bool,
    },
    /// Have a helper write the list of jobs to the request's `reply`.
    List(RequestId),
    /// Have a helper write the list of services to the request's `reply`.
    ListServices(RequestId),
    /// Have a helper read the configuration file. Answered by `Reloaded`.
    Reload,
    /// Write what the init and its own processes are to the request's `reply`.
    Status(RequestId),
    /// Send a signal to a process group.
    SignalGroup(Pgid, Signal),
    /// Send a signal to one process.
    Signal(Pid, Signal),
    /// Stop ourselves (SIGSTOP), until somebody sends SIGCONT.
    StopSelf,
    /// Main was stopped: where it has the terminal from us, so that we are what the shell there waits for, stop as well.
    Suspend {
        /// Main.
        main: Pid,
        /// What has stopped it.
        by: Signal,
    },
    /// Tell by `WatchedEnded` when a process that is not our child ends.
    Watch(Pid),
    /// Find out whether any process is left: as PID 1 in the namespace, otherwise below us.
    CheckAlone,
    /// Have a helper look at every process in the namespace (PID 1) or below us. Answered by `Looked`.
    Look {
        /// First send SIGKILL to every process of the namespace but us. Only as PID 1.
        kill: bool,
    },
    /// Have a helper end what a dead keeper's job left behind. `all`: everything of ours that is no
    /// keeper, because there is no main that it could belong to.
    EndStrays {
        /// The job.
        job: JobId,
        /// Its command: the leader of its session.
        command: Option<Pid>,
        /// Whether every orphan is meant.
        all: bool,
    },
    /// Have a helper find what hangs in the kernel, or with `all`, where whatever is left waits. Answered by `Explained`.
    Explain {
        /// What does not hang, too.
        all: bool,
    },
    /// Have a helper abort a FUSE connection.
    AbortFuse {
        /// The mount's device, `major:minor`.
        device: String,
        /// Where it is mounted.
        volume: String,
    },
    /// Have a helper wait until the kernel has let go of what ended processes held. Answered by `KernelLetGo`.
    AwaitKernel,
    /// Have helpers name who else holds volumes. Answered by `Counted`.
    Census,
    /// Have what was written to volumes reach them. Answered by `Syncing`.
    Sync,
    /// Say that these volumes are still being synced, and what is still to be written.
    TellSyncing {
        /// The volumes.
        volumes: Vec<String>,
        /// For how long.
        time: Duration,
    },
    /// Give up the line that has begun in the control FIFO.
    DropHalfLine,
    /// Remove the control FIFO and what belongs to it, and give the terminal back.
    Release,
    /// Say where it is.
    Enter(Phase),
    /// Leave, with this code.
    Exit(u8),
    /// Say something.
    Log(Level, String),
    /// Say what has happened, and keep it for `lastout events`.
    Note(Level, Happening),
    /// Have a helper write what has happened to the request's `reply`.
    History(RequestId),
    /// Hold the request's `reply`, and write to it whatever happens from now on.
    Follow(RequestId),
}
