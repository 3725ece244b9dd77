//! Terminals: `lastout exec -it` inside and from the host, and main's own.

mod exec;
mod main;
mod programs;
mod restored;
