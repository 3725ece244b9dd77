//! What talks to an init, and what needs none: one file for each command. A client may block; only its caller would notice.

mod check;
mod doctor;
mod events;
mod exec;
mod found;
mod jobs;
mod limits;
mod logs;
mod metrics;
mod orphans;
mod pump;
mod services;
mod session;
mod silent;
mod terminal;
mod text;

use std::{path::PathBuf, time::Duration};

pub use check::{check, schema};
pub use doctor::{Doctor, doctor};
pub use events::events;
pub use exec::{Exec, exec};
pub use jobs::{kill, names, ps, shutdown, stop, wait};
pub use limits::limits;
pub use logs::logs;
pub use metrics::metrics;
pub use orphans::{Orphans, orphans};
pub use services::{reload, restart, start};

use crate::{base::RequestId, proto::Who, sys::process};

/// The exit code of lastout's own failures.
pub const FAILURE: u8 = 125;

/// How to find an init.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Its control directory; the default places, if it is not given.
    pub control: Option<PathBuf>,
    /// How long to wait for one that is not up yet.
    pub wait: Option<Duration>,
}

/// A client command's end: an exit code, or a reason to say.
pub type Outcome = anyhow::Result<u8>;

/// For `main`: says the reason, if there is one, in this command's name.
pub fn conclude(name: &str, outcome: Outcome) -> u8 {
    outcome.unwrap_or_else(|error| {
        let reasons: Vec<String> = error.chain().map(reason).collect();
        eprintln!("{name}: {}", reasons.join(": "));
        FAILURE
    })
}

/// An error as it is written everywhere else: the system's in lowercase and without its number.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<std::io::Error>() {
        Some(io) if io.raw_os_error().is_some() => crate::sys::errno(io).to_string(),
        Some(_) | None => error.to_string(),
    }
}

/// Who we are, for the record of what we ask for: a FIFO does not tell its writer.
fn who(command: &str) -> Option<Who> {
    let caller = process::parent().and_then(process::name_of);
    let caller = caller.map(|caller| format!(", called by {caller}")).unwrap_or_default();
    Who::new(&format!("lastout {command} (pid {}, uid {}{caller})", process::me(), process::uid()))
}

/// 128 bits from the kernel.
fn new_request_id() -> anyhow::Result<RequestId> {
    let mut bytes = [0; 16];
    process::random(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {}", crate::sys::errno(&error)))?;
    Ok(RequestId(u128::from_ne_bytes(bytes)))
}
