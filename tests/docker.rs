//! lastout in Docker: as ENTRYPOINT of real containers, commanded from inside and from the host.

mod causes;
mod engine;
mod examples;
mod frozen;
mod kubernetes;
mod leaving;
mod packages;
mod probes;
mod ray;
mod rights;
mod signals;
mod terminals;

pub(crate) use engine::{release, repository};
pub(crate) use terminals::{SHELL, work_in};
