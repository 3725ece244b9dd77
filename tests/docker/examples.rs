//! What `docker/` shows a newcomer is true.

use std::{fs, process::Command};

use super::{engine::*, leaving::rounds};
use crate::support::*;

#[test]
fn the_compose_file_gives_a_container_that_the_host_commands() {
    if !has("docker") || !has("compose") {
        return;
    }
    std::sync::LazyLock::force(&DEBIAN);
    // A copy, because it makes its directories beside itself.
    let scratch = scratch();
    for file in ["compose.yaml", "debian/Dockerfile"] {
        let to = scratch.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(repository().join("docker").join(file), to).unwrap();
    }
    let project = Project { directory: scratch.path(), name: mark("compose") };
    project.compose(&["up", "--detach"]);
    let control = scratch.path().join("run/work");
    let mut client = Command::new(release());
    client.args(["exec", "--wait", "30s", "--", "sh", "-c", "cat /proc/1/comm | tee /data/first"]);
    let output = client.env("LASTOUT_CONTROL", &control).output().unwrap();
    assert_eq!((status(output.status), both(&output)), (0, "lastout\n".into()));
    assert_eq!(fs::read_to_string(scratch.path().join("data/first")).unwrap(), "lastout\n");
    assert!(control.join("control").exists());
    project.compose(&["down"]);
    assert!(!control.join("control").exists());
}

/// A project of Docker Compose: the file in this directory, under a name of its own.
pub(super) struct Project<'a> {
    pub(super) directory: &'a std::path::Path,
    pub(super) name: String,
}

impl Project<'_> {
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker-compose");
        command.args(["--project-name", &self.name]).args(args).current_dir(self.directory);
        command
    }

    pub(super) fn compose(&self, args: &[&str]) {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "docker-compose {args:?}: {}", both(&output));
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["kill"]).output();
        let _ = self.command(&["down"]).output();
    }
}

#[test]
fn wsclean_fills_model_data_and_its_volume_is_unmounted_at_once() {
    if !has("root") || !has("docker") {
        return;
    }
    for round in 0..rounds(3, 10) {
        let mut volume = SharedVolume::mount();
        let container = Container::start(&WSCLEAN, &["--volume", &volume.option(), "--workdir", "/shared/volume"], &[]);
        container.must(&["exec", "--wait", "30s", "--", "make_ms.py", "small.ms"]);
        let image =
            ["-quiet", "-size", "128", "128", "-scale", "20arcsec", "-niter", "100", "-name", "image", "small.ms"];
        container.must(&[&["exec", "--timeout", "10m", "--", "wsclean"], &image[..]].concat());
        let empty = container.client(&["exec", "--", "model_data.py", "small.ms"]);
        assert!(!empty.status.success(), "MODEL_DATA is there before the prediction: {}", both(&empty));

        let predict =
            ["exec", "--timeout", "10m", "--", "wsclean", "-predict", "-reorder", "-name", "image", "small.ms"];
        let said = container.must(&predict);
        assert!(said.contains("Cleaning up temporary files..."), "{said}");
        let said = container.must(&["exec", "--", "model_data.py", "small.ms"]);
        assert!(said.contains("13440 not zero"), "{said}");

        // A job that is still at it, so that there is something to let go of.
        container.must(&["exec", "--detach", "--", "sh", "-c", "exec 3>held; exec sleep 600"]);
        until("the open file", || volume.path().join("held").exists().then_some(()));
        let busy = Command::new("umount").arg(volume.path()).output().unwrap();
        assert!(both(&busy).contains("busy"), "{}", both(&busy));

        container.docker(&["stop"]);
        volume.unmount().unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(container.code(), 0);
    }
}

#[test]
fn the_demo_is_true_in_docker() {
    if !has("root") || !has("docker") {
        return;
    }
    demo("docker");
}

#[test]
fn the_demo_is_true_in_a_namespace() {
    if !has("root") {
        return;
    }
    demo("namespace");
}

fn demo(way: &str) {
    let output = Command::new(repository().join("docker/demo")).env("LASTOUT_DEMO", way).output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
    assert!(both(&output).contains("All of it is true."), "{}", both(&output));
}

#[test]
fn the_worked_example_with_wsclean_works() {
    if !has("root") || !has("docker") {
        return;
    }
    let said = run(repository().join("docker/wsclean/run").to_str().unwrap(), &[]);
    assert!(said.contains("13440 not zero"), "{said}");
}
