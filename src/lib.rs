//! **lastout**: PID 1 for containers, the last process out.
//!
//! # Processes
//!
//! ```text
//! lastout (init, PID 1 or subreaper)          one thread; epoll; never blocks
//! ├── main                                    direct child, own process group, gets the terminal
//! ├── keeper j1 ── wsclean ── ...             one small process per job, or run of a service: subreaper of
//! ├── keeper web ── nginx ── ...              its tree; owns stdio, kept output, setup, health checks, end
//! │   └── log                                 its service's lines, where they go to a file or have a prefix
//! ├── log                                     only where standard error is a file that may hang: writes to it
//! └── helper                                  disposable: walks through /proc, lists, syncfs
//! ```
//!
//! A keeper is a fork of the init without exec, and the subreaper of its tree: whatever that does,
//! it stays below its keeper, so a tree's end is `wait` saying that no child is left. Keepers and helpers
//! may block; the init may not. A keeper that is killed takes nothing down: the init ends what it left.
//!
//! # Layers
//!
//! Imports point down only; `tests/layers.rs` holds them.
//!
//! ```text
//!                  main             picks the role
//!                  cli              arguments -> plan
//!            init   |
//!           keeper  |  client       the init forks keepers
//!           config  |  inspect
//!            core   |
//!           proto   |  sys
//!                  base
//! ```
//!
//! - [`base`]: small types; no I/O.
//! - [`proto`]: requests, replies, records as data <-> bytes. The wire, for both of its sides.
//! - [`sys`]: the only home of `unsafe`, `libc` and `nix`.
//! - [`core`]: decisions. Facts in, orders out; no descriptor, file, clock or log.
//! - [`config`]: the configuration file's keys, checks and schema: a text to data.
//! - [`inspect`]: reads `/proc`; may block, so it runs in keepers, helpers and clients; of the init only what
//!   the last section names.
//! - [`init`], [`keeper`]: loops that turn descriptors into facts and orders into system calls.
//! - [`client`]: one file for each client command. What it ends, it ends as [`core`] decides: there is one way.
//! - [`cli`]: every argument's definition and check.
//!
//! # What the init never does itself
//!
//! Open, stat or change to anything outside the control directory and `/proc/self`; wait for an exec; write
//! to a descriptor that may be full; walk through `/proc`; start a thread. A path on a dead volume blocks for ever.
//! At its start, before there is anything to answer for, it checks its control directory and reads its configuration file;
//! for a reload a helper does. What it reads later is in
//! the kernel's own memory: `/proc/PID/comm` of who sent it a signal, its memory group's count of OOM kills
//! when main was killed, `/proc/meminfo` while volumes take long to sync, and at its end `/proc/sys/kernel/ns_last_pid`
//! and the list of mounts (`listmount(2)`, or `/proc/self/mountinfo`).

pub mod base;
pub mod cli;
pub mod client;
pub mod config;
pub mod core;
pub mod init;
pub mod inspect;
pub mod keeper;
pub mod proto;
pub mod sys;
