//! Services: what the configuration file says.

mod config;

pub use config::*;
