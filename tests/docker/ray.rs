//! Services, on the host and in a container: the real Ray.

use std::{
    fs,
    process::{Command, Stdio},
    sync::LazyLock,
};

use super::engine::*;
use crate::support::*;

/// Every file of services under `docker/`.
fn files() -> Vec<std::path::PathBuf> {
    let directories = fs::read_dir(repository().join("docker")).unwrap().flatten().map(|entry| entry.path());
    let inside = directories.filter(|path| path.is_dir()).flat_map(|path| fs::read_dir(path).unwrap().flatten());
    inside.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "toml")).collect()
}

#[test]
fn every_file_of_services_is_right() {
    let files = files();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        run(LASTOUT, &["check", file.to_str().unwrap()]);
    }
}

#[test]
fn kubernetes_has_the_workers_file_as_it_is() {
    let of = |path: &str| fs::read_to_string(repository().join("docker").join(path)).unwrap();
    let manifest = of("kubernetes/worker.yaml");
    let (_, block) = manifest.split_once("worker.toml: |\n").unwrap();
    let (block, _) = block.split_once("\n---\n").unwrap();
    let lines: Vec<&str> = block.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    assert_eq!(lines.join("\n") + "\n", of("ray/worker.toml"));
}

#[test]
fn composes_file_with_ray_is_right() {
    if has("compose") {
        let file = repository().join("docker/ray/compose.yaml");
        run("docker-compose", &["--file", file.to_str().unwrap(), "config", "--quiet"]);
    }
}

#[test]
fn the_batch_script_of_slurm_ends_with_its_worker() {
    let scratch = scratch();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("bin")).unwrap();
    // Ray, as far as the script sees it: it says how it was called, and drains.
    let ray = "#!/bin/sh\n[ $1 = start ] || exit 0\ntrap 'echo drained >>$RAY_JOB_DIR/said; exit 1' TERM\n\
               echo \"$@\" >>$RAY_JOB_DIR/said\nwhile :; do sleep 0.05; done\n";
    fs::write(path("bin/ray"), ray).unwrap();
    run("chmod", &["+x", path("bin/ray").to_str().unwrap()]);
    std::os::unix::fs::symlink(LASTOUT, path("bin/lastout")).unwrap();
    let mut job = Command::new("bash")
        .arg(repository().join("docker/slurm/worker.sbatch"))
        .env("PATH", format!("{}:{}", path("bin").display(), std::env::var("PATH").unwrap()))
        .envs([("RAY_ADDRESS", "head:6379"), ("SLURM_JOB_ID", "7")])
        .env("SLURM_TMPDIR", scratch.path())
        .env("SLURM_SUBMIT_DIR", repository())
        .env_remove("LASTOUT_CONTROL")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(path("ray-7/said")).unwrap_or_default();
    until("the worker", || said().contains('\n').then_some(()));
    // SLURM's: to the script alone.
    run("kill", &["-TERM", &job.id().to_string()]);
    let code = status(wait(&mut job));
    let said = said();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("start --address=head:6379 --block --num-cpus="), "{said}");
    assert_eq!((code, &lines[1..]), (0, &["drained"][..]));
    assert!(!is_running(path("").to_str().unwrap()));
}

#[test]
fn a_ray_worker_stays_up_and_drains() {
    if !has("docker") {
        return;
    }
    LazyLock::force(&LASTOUT_IMAGE);
    if !has("ray") {
        return;
    }
    let mut example = Command::new(repository().join("docker/ray/run"));
    let output = example.env("LASTOUT_RAY_BUILT", "yes").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success() && both(&output).contains("All of it is true"), "{}", both(&output));
}
