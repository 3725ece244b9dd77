//! Looks into `/proc`. Read-only; may block; never run in the init itself.
#![forbid(unsafe_code)]

mod account;
mod mounts;
mod oom;
mod processes;

pub use account::{Io, Load, children_io, load_below};
pub use mounts::{Volume, volumes};
pub use oom::oom_kills;
pub use processes::{below, everything, strays};
