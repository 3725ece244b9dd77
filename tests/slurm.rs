//! lastout in a batch job: a SLURM of the test's own, in namespaces on this machine, and what it does to `docker/slurm`'s.

use std::{path::Path, process::Command};

use crate::support::*;

fn slurm(case: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/slurm/run");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "300"]).arg(script).arg(case).env("LASTOUT", LASTOUT);
    let output = command.env_remove("LASTOUT_CONTROL").stdin(std::process::Stdio::null()).output().unwrap();
    assert!(output.status.success() && both(&output).contains("All of it is true."), "{}", both(&output));
}

#[test]
fn a_batch_job_that_scancel_ends_saves_everything_and_leaves_nothing() {
    if !has("root") || !has("slurm") {
        return;
    }
    slurm("scancel");
}

#[test]
fn a_batch_job_that_its_time_limit_ends_saves_everything_and_leaves_nothing() {
    if !has("root") || !has("slurm") {
        return;
    }
    slurm("limit");
}

#[test]
fn the_batch_script_of_a_ray_worker_ends_with_its_worker() {
    if !has("root") || !has("slurm") {
        return;
    }
    slurm("worker");
}
