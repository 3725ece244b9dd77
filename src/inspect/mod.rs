//! Looks into `/proc`. Read-only; may block; never run in the init itself.
#![forbid(unsafe_code)]

mod mounts;
mod processes;

pub use mounts::{Volume, volumes};
pub use processes::{below, everything, strays};
