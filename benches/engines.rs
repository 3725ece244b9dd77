//! Containers of the engines that are there: Docker, Podman, runc, crun. Removed at their end.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    lab::{Lab, find, words},
    support::{both, mark},
};

const IMAGE: &str = "debian:bookworm-slim";

/// A container that is up, with the programs under `/bench`.
pub struct Container {
    /// `ENGINE exec NAME`
    pub exec: Vec<String>,
    pub name: String,
    remove: Vec<String>,
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = run(&self.remove);
    }
}

fn run(words: &[String]) -> Result<String, String> {
    let mut command = Command::new(&words[0]);
    let output = command.args(&words[1..]).stdin(Stdio::null()).output().map_err(|e| format!("{}: {e}", words[0]))?;
    if output.status.success() { Ok(String::from_utf8_lossy(&output.stdout).into()) } else { Err(both(&output)) }
}

/// Why it cannot be used, for the table.
fn not_there<T>(engine: &str, result: Result<T, String>) -> Result<T, String> {
    result.map_err(|why| {
        eprintln!("{engine}: {}", why.trim());
        engine.to_string()
    })
}

/// `docker run` of an entry point with words; the control directory is at `/run/lastout`.
pub fn docker(lab: &Lab, control: &Path, entry: &[&str], options: &[&str]) -> Result<Container, String> {
    not_there("docker", start_docker(lab, control, entry, options))
}

fn start_docker(lab: &Lab, control: &Path, entry: &[&str], options: &[&str]) -> Result<Container, String> {
    let name = mark("lastout-bench").replace("mark-", "");
    run(&words(&["docker", "image", "inspect", IMAGE], &[]))
        .map_err(|_| format!("no image {IMAGE}: docker/base makes it"))?;
    let programs = format!("{}:/bench:ro", lab.programs.display());
    let control = format!("{}:/run/lastout", control.display());
    let volumes = ["--volume", &programs, "--volume", &control, "--entrypoint", entry[0]];
    let first = ["docker", "run", "--detach", "--name", &name];
    let first = words(&[&first[..], &volumes, options, &[IMAGE]].concat(), &entry[1..]);
    let container = Container {
        exec: words(&["docker", "exec", &name], &[]),
        remove: words(&["docker", "rm", "--force", "--volumes", &name], &[]),
        name,
    };
    run(&first)?;
    Ok(container)
}

/// A root with the static programs only.
fn root(lab: &Lab, into: &Path) -> Result<(), String> {
    let root = into.join("rootfs");
    for name in ["bench", "dev", "proc", "sys", "run", "tmp", "etc"] {
        fs::create_dir_all(root.join(name)).map_err(|e| e.to_string())?;
    }
    for name in ["true", "load"] {
        fs::copy(lab.programs.join(name), root.join("bench").join(name)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// `runc` or `crun`: a sleeping process in a bundle below `scratch`.
pub fn bundle(lab: &Lab, engine: &str, scratch: &Path) -> Result<Container, String> {
    not_there(engine, start_bundle(lab, engine, &scratch.join(engine)))
}

fn start_bundle(lab: &Lab, engine: &str, bundle: &Path) -> Result<Container, String> {
    find(engine).ok_or("not installed")?;
    root(lab, bundle)?;
    let at = bundle.to_str().unwrap();
    run(&words(&["sh", "-c", "cd $0 && exec $1 spec", at, engine], &[]))?;
    let config = bundle.join("config.json");
    let text = fs::read_to_string(&config).map_err(|e| e.to_string())?;
    let mut spec: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/bench/load", "sleep"]);
    fs::write(&config, spec.to_string()).map_err(|e| e.to_string())?;
    let name = mark("lastout-bench").replace("mark-", "");
    let container = Container {
        exec: words(&[engine, "exec", &name], &[]),
        remove: words(&[engine, "delete", "--force", &name], &[]),
        name,
    };
    // Not its output: the container would have the pipe, too.
    let mut command = Command::new(engine);
    command.args(["run", "--detach", "--bundle", at, &container.name]);
    let log = fs::File::create(bundle.join("log")).map_err(|e| e.to_string())?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let status = command.status().map_err(|e| e.to_string())?;
    if status.success() { Ok(container) } else { Err(fs::read_to_string(bundle.join("log")).unwrap_or_default()) }
}

/// Podman, with a root instead of an image, so that nothing is fetched.
pub fn podman(lab: &Lab, scratch: &Path) -> Result<Container, String> {
    let start = || {
        find("podman").ok_or("not installed")?;
        let at = scratch.join("podman");
        root(lab, &at)?;
        let name = mark("lastout-bench").replace("mark-", "");
        let container = Container {
            exec: words(&["podman", "exec", &name], &[]),
            remove: words(&["podman", "rm", "--force", "--time", "0", &name], &[]),
            name,
        };
        let options = [
            "podman",
            "run",
            "--detach",
            "--network",
            "none",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=4096:4096",
            "--name",
            &container.name,
            "--rootfs",
        ];
        run(&words(&options, &[at.join("rootfs").to_str().unwrap(), "/bench/load", "sleep"]))?;
        Ok(container)
    };
    not_there("podman", start())
}
