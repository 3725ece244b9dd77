//! Decisions: facts in, orders out. Nothing here knows a file, a clock, a process or a log.
//!
//! - [`Init`] is PID 1's: [`Event`]s are what its loop saw, [`Action`]s what the loop is to do.
//! - [`Job`] is a keeper's, for a job or one run of a service: [`JobEvent`] and [`JobAction`].
//! - [`Ending`] ends a set of processes and serves both; [`Phase`] is the order of leaving.
#![forbid(unsafe_code)]

mod action;
mod backoff;
mod ending;
mod event;
mod flood;
mod init;
mod job;
mod relay;
mod run;
pub mod service;
mod shutdown;
mod table;

pub use action::{Action, Level, Source};
pub use ending::{Ending, STUCK_AFTER, STUCK_EVERY};
pub use event::{Account, Event};
pub use init::{Config, Init, NotExecuted, Role, Stuck};
pub use job::{Job, JobAction, JobConfig, JobEvent};
pub use relay::{Forwarding, Relay, relay};
pub use run::{ABSENT, BUSY, Note, Task, notes};
pub use shutdown::Phase;
