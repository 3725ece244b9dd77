//! `docker/kubernetes`: its manifests are what the API takes, and what they set does in Docker what they promise.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;

use super::engine::*;
use crate::support::*;

fn directory() -> PathBuf {
    repository().join("docker/kubernetes")
}

fn check(words: &[&str]) -> std::process::Output {
    Command::new(directory().join("check")).args(words).output().unwrap()
}

#[test]
fn the_api_would_take_the_manifests() {
    if !has("kubernetes-validate") {
        return;
    }
    let output = check(&[]);
    assert!(output.status.success(), "{}", both(&output));
    for passed in ["shared.yaml passed for resource pod/", "worker.yaml passed for resource deployment/"] {
        assert!(both(&output).contains(passed), "{}", both(&output));
    }
    // The check is one: a mistake of one letter is refused.
    let scratch = scratch();
    for (right, wrong) in [
        ("terminationGracePeriodSeconds", "terminationGracePeriodSecond"),
        ("preStop", "prestop"),
        ("periodSeconds: 30", "periodSeconds: often"),
    ] {
        let text = fs::read_to_string(directory().join("shared.yaml")).unwrap();
        assert!(text.contains(right));
        let path = scratch.path().join("wrong.yaml");
        fs::write(&path, text.replace(right, wrong)).unwrap();
        let output = check(&[path.to_str().unwrap()]);
        assert!(!output.status.success(), "{wrong}: {}", both(&output));
    }
}

/// The words of a list in a manifest.
fn words(list: &Value) -> Vec<String> {
    let words = list.as_array().into_iter().flatten();
    words.map(|word| word.as_str().map_or_else(|| word.to_string(), String::from)).collect()
}

/// A Pod in Docker: what holds its namespace and reaps there, and its containers, with each `emptyDir` a directory.
struct Pod {
    spec: Value,
    name: String,
    volumes: tempfile::TempDir,
}

impl Pod {
    fn start(file: &str) -> Pod {
        let json = check(&["--json", directory().join(file).to_str().unwrap()]);
        assert!(json.status.success(), "{}", both(&json));
        let documents: Value = serde_json::from_slice(&json.stdout).unwrap();
        let pod = Pod { spec: documents[0]["spec"].clone(), name: mark("pod"), volumes: scratch() };
        assert_eq!(pod.spec["shareProcessNamespace"], true);
        for volume in pod.spec["volumes"].as_array().unwrap() {
            assert!(volume["emptyDir"].is_object());
            let path = pod.volume(volume["name"].as_str().unwrap());
            fs::create_dir(&path).unwrap();
            // As Kubernetes makes them.
            run("chmod", &["777", path.to_str().unwrap()]);
        }
        let image = *DEBIAN;
        let pause = ["run", "--detach", "--init", "--entrypoint", "sleep", "--name"];
        run("docker", &[&pause[..], &[&pod.container("pause"), image, "infinity"]].concat());
        for container in pod.spec["containers"].as_array().unwrap() {
            assert_eq!(container["image"], image);
            let name = pod.container(container["name"].as_str().unwrap());
            let mut args = ["run", "--detach", "--name", &name].map(String::from).to_vec();
            args.push(format!("--pid=container:{}", pod.container("pause")));
            for variable in container["env"].as_array().unwrap() {
                let value = format!("{}={}", variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
                args.extend(["--env".into(), value]);
            }
            for mount in container["volumeMounts"].as_array().unwrap() {
                let path = pod.volume(mount["name"].as_str().unwrap());
                let value = format!("{}:{}", path.display(), mount["mountPath"].as_str().unwrap());
                args.extend(["--volume".into(), value]);
            }
            let mut command = words(&container["command"]).into_iter();
            if let Some(program) = command.next() {
                args.extend(["--entrypoint".into(), program]);
            }
            args.push(image.into());
            args.extend(command);
            args.extend(words(&container["args"]));
            run("docker", &args.iter().map(String::as_str).collect::<Vec<_>>());
        }
        pod
    }

    fn container(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.volumes.path().join(name)
    }

    /// What the kubelet does for a probe or a hook.
    fn exec(&self, container: &str, what: &Value) -> std::process::Output {
        let command = words(&what["exec"]["command"]);
        assert!(!command.is_empty(), "{what}");
        docker().args(["exec", &self.container(container)]).args(command).output().unwrap()
    }

    /// The zombies in the Pod's namespace.
    fn zombies(&self) -> Vec<String> {
        let pid = run("docker", &["inspect", "--format", "{{.State.Pid}}", &self.container("pause")]);
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let pod = namespace(pid.trim()).expect("the namespace of the Pod");
        let stats = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let pid = entry.file_name().into_string().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            (stat.contains(") Z ") && namespace(&pid).as_ref() == Some(&pod)).then_some(stat)
        });
        stats.collect()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for name in ["work", "driver", "pause"] {
            let _ = docker().args(["rm", "--force", &self.container(name)]).output();
        }
    }
}

#[test]
fn a_pod_that_shares_its_processes_saves_everything() {
    if !has("root") || !has("docker") || !has("kubernetes-validate") {
        return;
    }
    let pod = Pod::start("shared.yaml");
    let work = pod.spec["containers"][0].clone();
    assert_eq!(work["name"], "work");
    until("a successful startup probe", || pod.exec("work", &work["startupProbe"]).status.success().then_some(()));
    for file in ["job", "daemon"] {
        until("what the driver has started", || pod.volume("work").join(file).exists().then_some(()));
    }
    for _ in 0..5 {
        for probe in ["livenessProbe", "readinessProbe"] {
            let output = pod.exec("work", &work[probe]);
            assert!(output.status.success(), "{probe}: {}", both(&output));
        }
    }
    until("an end without zombies", || pod.zombies().is_empty().then_some(()));

    // The Pod's end, as the kubelet does it: the hook, then SIGTERM, and SIGKILL when the period is over.
    // The hook is in the container that it ends: Docker's client may never hear of its end, and then the container's tells it.
    let command = words(&work["lifecycle"]["preStop"]["exec"]["command"]);
    assert_eq!(command, ["lastout", "shutdown"]);
    let mut hook = docker().args(["exec", &pod.container("work")]).args(command).spawn().unwrap();
    let inspect = |what: &str, name: &str| run("docker", &["inspect", "--format", what, &pod.container(name)]);
    until("the end of the hook", || {
        let ended = hook.try_wait().unwrap().is_some() || inspect("{{.State.Running}}", "work").trim() == "false";
        ended.then_some(())
    });
    let seconds = pod.spec["terminationGracePeriodSeconds"].to_string();
    run("docker", &["stop", "--time", &seconds, &pod.container("work"), &pod.container("driver")]);
    let _ = hook.kill();
    hook.wait().unwrap();
    let code = |name| inspect("{{.State.ExitCode}}", name);
    let logs = run("docker", &["logs", &pod.container("work")]);
    assert_eq!((code("work").trim(), code("driver").trim()), ("0", "0"), "{logs}");
    for file in ["main", "job", "daemon"] {
        let text = fs::read_to_string(pod.volume("work").join(file)).unwrap();
        assert_eq!(text, "saved\n", "{file}: {logs}");
    }
    assert!(pod.zombies().is_empty(), "{:?}", pod.zombies());
}
