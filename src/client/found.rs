//! The init of a control directory, found from outside, and what it says of itself in time. Never hangs.

use std::{path::PathBuf, time::Duration};

use super::{Target, session::Connection};
use crate::{
    base::Pid,
    inspect,
    proto::{JobInfo, Line, Reply, ServiceInfo, Status},
    sys::disposable,
};

/// An init that has not answered by then does not answer.
const INIT_ANSWERS: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its control directory; `None` if nobody listens anywhere.
    pub(super) control: Option<PathBuf>,
    connection: Option<Connection>,
    /// Its process id here; `None` if it cannot be seen here.
    pub(super) init: Option<Pid>,
    /// It answered.
    pub(super) answers: bool,
    /// What it said of itself.
    pub(super) status: Option<Status>,
    /// Its jobs.
    pub(super) jobs: Vec<JobInfo>,
    /// Somebody or something is there and does not answer.
    pub(super) silent: bool,
    /// Why there is none, or no answer.
    pub(super) problem: Option<String>,
}

impl Found {
    /// What it says of itself now.
    pub(super) fn status(&self) -> Option<Status> {
        match self.connection.as_ref()?.ask_within(INIT_ANSWERS, Line::Status) {
            Ok(Reply::Status(status)) => Some(status),
            Ok(_) | Err(_) => None,
        }
    }

    /// Its services now.
    pub(super) fn services(&self) -> Option<Vec<ServiceInfo>> {
        match self.connection.as_ref()?.ask_within(INIT_ANSWERS, Line::Services) {
            Ok(Reply::Services(services)) => Some(services),
            Ok(_) | Err(_) => None,
        }
    }

    /// Looks for it and asks it.
    pub(super) fn find(target: &Target) -> Found {
        let mut found = Found::default();
        // A path that somebody names may be on a volume that hangs.
        let reachable = disposable::with_deadline(INIT_ANSWERS, |_| drop(Connection::open(target)));
        if !reachable.1 {
            found.problem = Some("its control directory does not answer".into());
            found.silent = true;
            return found;
        }
        let connection = match Connection::open(target) {
            Ok(connection) => connection,
            Err(error) => {
                found.problem = Some(format!("{error:#}"));
                return found;
            }
        };
        let path = std::path::absolute(&connection.path).unwrap_or_else(|_| connection.path.clone());
        found.init =
            connection.dir.identity().ok().and_then(|(device, inode)| inspect::directory_owner(&device, inode, &path));
        found.control = Some(path);
        match connection.ask_within(INIT_ANSWERS, Line::Ps) {
            Ok(Reply::Jobs(jobs)) => {
                found.jobs = jobs;
                found.answers = true;
            }
            Ok(other) => found.problem = Some(format!("an answer that does not fit: {other:?}")),
            Err(error) => found.problem = Some(format!("{error:#}")),
        }
        found.silent = !found.answers;
        found.connection = Some(connection);
        found.status = found.answers.then(|| found.status()).flatten();
        found
    }
}
