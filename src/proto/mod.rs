//! What is said between the programs, as data and as bytes: one definition for both sides. No I/O.
//!
//! - [`Line`]: what is written into the control FIFO.
//! - [`Request`]: `requests/<id>/request.json`, what `exec` asks for.
//! - [`Reply`]: what comes back through `requests/<id>/reply`, one JSON object a line.
//! - [`Record`]: `jobs/<id>/record.json`, the account of how a job ended, with its [`Cause`].
//! - [`Entry`]: one thing that happened, for `lastout events`.
//! - [`Order`] and [`Notice`]: between the init and a keeper, over their socket pair.
//! - [`place`]: where a control directory is looked for.
//!
//! `README.md` beside this file describes them for other languages; `tests/golden/` holds an example of each.
#![forbid(unsafe_code)]

mod bytes;
mod cause;
mod events;
mod line;
mod link;
pub mod place;
mod record;
mod reply;
mod request;

pub use bytes::Bytes;
pub use cause::{Cause, OomKill, Sender};
pub use events::{Entry, Happening};
pub use line::{BadLine, Line, Lines, MAX_LINE, Who};
pub use link::{Notice, Order};
pub use record::{Io, Leftover, Record, Usage, record_time};
pub use reply::{Alive, JobInfo, JobState, KeeperInfo, Reply, ServiceInfo, ServiceState, Status, Total};
pub use request::{BadRequest, Limits, Request};

/// The version of requests, replies and records. A program that reads another says so instead of guessing.
pub const VERSION: u32 = 1;

/// Names of what is in a control directory.
pub mod files {
    /// The FIFO.
    pub const CONTROL: &str = "control";
    /// One directory a request.
    pub const REQUESTS: &str = "requests";
    /// One directory a job.
    pub const JOBS: &str = "jobs";
    /// In a request's directory.
    pub const REQUEST: &str = "request.json";
    /// In a request's directory.
    pub const REPLY: &str = "reply";
    /// The three streams: FIFOs in a request's directory.
    pub const STREAMS: [&str; 3] = ["stdin", "stdout", "stderr"];
    /// In the directory of a request with a terminal: a FIFO with its size, a line whenever that is another.
    pub const RESIZE: &str = "resize";
    /// In a job's directory.
    pub const RECORD: &str = "record.json";
    /// Kept output, in a job's directory.
    pub const LOGS: [&str; 2] = ["stdout.log", "stderr.log"];
}

/// JSON on one line, with its newline.
fn to_line<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
