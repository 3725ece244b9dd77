//! lastout as the engine's own init: `dockerd --init-path` with `docker run --init`, `podman run --init --init-path`.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use super::lab::*;
use crate::support::*;

/// A main that ends at once, a daemon of its own and a process of the engine's that save; and a job.
fn loses_nothing(lab: &Lab, plan: Plan, client: &[&str], comm: &str) {
    let mark = mark("init-path");
    let words = vec!["worker", "/out", "main", "quits", "leaves", &mark];
    let mut container = lab.start(&Plan { mark: mark.clone(), words, ..plan });
    container.ready("main");
    let init = container.init();
    assert_eq!(fs::read_to_string(format!("/proc/{init}/comm")).unwrap().trim(), comm);
    container.ready("leftover");
    container.exec_detached(&["worker", "/out", "exec", "saves", &mark]);
    container.ready("exec");
    let job = [client, &["exec", "--wait", "30s", "--", "worker", "code", "3"]].concat();
    let output = container.exec(&job);
    assert_eq!(status(output.status), 3, "{}", both(&output));
    assert_eq!(container.stop(init, "60"), (5, 0), "{}", container.log());
    assert!(container.saved("leftover") && container.saved("exec"), "{}", container.log());
    assert_eq!(container.log(), "");
}

#[test]
fn podman_takes_it_for_its_init() {
    Lab::with(&[Podman], |lab| {
        let path = lab.file("bin/lastout").to_str().unwrap().to_string();
        let options = vec!["--init".into(), "--init-path".into(), path];
        // By a name that is nobody else's it is itself.
        loses_nothing(lab, Plan { options, ..Plan::default() }, &["/run/podman-init"], "podman-init");
    });
}

/// A daemon of the test's own, in a network namespace of its own.
pub(super) struct Daemon(Child);

impl Daemon {
    /// With these options, and with the lab's `subuid` and `subgid` for the machine's.
    pub(super) fn start(lab: &Lab, options: &[&str]) -> Daemon {
        let file = |name: &str| lab.file(name).to_str().unwrap().to_string();
        let host = format!("unix://{}", file("socket"));
        let log = fs::File::create(lab.file("daemon.log")).unwrap();
        let mut command = Command::new("unshare");
        let bind = "for f in subuid subgid; do [ ! -e \"$0/$f\" ] || mount --bind \"$0/$f\" /etc/$f || exit; done; exec \"$@\"";
        command.args(["--net", "--mount", "sh", "-c", bind]).arg(lab.path());
        command.args(["dockerd", "--host", &host, "--data-root", &file("data"), "--exec-root", &file("exec")]);
        command.args(["--pidfile", &file("pid"), "--config-file", &file("none.json"), "--storage-driver", "vfs"]);
        command.args(["--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]);
        let name = mark("daemon");
        command.args(["--containerd-namespace", &name, "--containerd-plugins-namespace", &format!("{name}-plugins")]);
        command.args(options);
        fs::write(lab.file("none.json"), "{}").unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut daemon = Daemon(command.spawn().unwrap());
        until("a Docker daemon", || {
            let said = || fs::read_to_string(lab.file("daemon.log")).unwrap_or_default();
            assert!(daemon.0.try_wait().unwrap().is_none(), "{}", said());
            lab.command().arg("version").output().unwrap().status.success().then_some(())
        });
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        run("kill", &["-s", "TERM", &self.0.id().to_string()]);
        let _ = wait(&mut self.0);
    }
}

#[test]
fn docker_takes_it_for_its_init() {
    if !has("root") || !has("docker") || !has("cc") {
        return;
    }
    let lab = Lab::with_own_daemon();
    let _daemon = Daemon::start(&lab, &["--init-path", lab.file("bin/lastout").to_str().unwrap()]);
    lab.import();
    let version = lab.must(&["info", "--format", "{{.InitBinary}}"]);
    assert!(version.trim().ends_with("lastout"), "{version}");
    // As what Docker calls it, it is tini, with a control directory where the environment names one.
    let options = ["--init", "--env", "LASTOUT_CONTROL=/run/lastout"].map(String::from).to_vec();
    loses_nothing(&lab, Plan { options, ..Plan::default() }, &["lastout"], "docker-init");
}
