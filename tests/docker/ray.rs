//! Services, on the host and in a container: the real Ray.

use std::{
    fs,
    process::{Command, Stdio},
    sync::LazyLock,
};

use super::{engine::*, examples::Project};
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
fn composes_file_with_ray_gives_a_head_and_a_worker_and_both_end_in_order() {
    if !has("docker") || !has("compose") {
        return;
    }
    LazyLock::force(&LASTOUT_IMAGE);
    if !has("ray") {
        return;
    }
    let directory = repository().join("docker/ray");
    let project = Project { directory: &directory, name: mark("compose-ray") };
    project.compose(&["up", "--detach"]);
    let says = |service: &str, args: &[&str]| {
        let output = project.command(&[&["exec", "-T", service], args].concat()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Each takes its time, on a machine that does something else.
    for (service, of) in [("head", "head"), ("worker", "ray")] {
        until(service, || says(service, &["lastout", "ps"]).contains(&format!("{of} ")).then_some(()));
        until(service, || says(service, &["lastout", "events"]).contains(&format!("{of}: ready")).then_some(()));
    }
    until("the worker in the cluster", || {
        let status = says("head", &["ray", "status"]);
        let (active, _) = status.split_once("Pending:")?;
        (active.matches("node_").count() == 2).then_some(())
    });
    project.compose(&["stop"]);
    // Each has ended as it was asked to, and nobody was killed.
    let filter = format!("label=com.docker.compose.project={}", project.name);
    let ended = run("docker", &["ps", "--all", "--filter", &filter, "--format", "{{.Status}}"]);
    assert_eq!(ended.lines().filter(|status| status.starts_with("Exited (0)")).count(), 2, "{ended}");
    project.compose(&["down"]);
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
