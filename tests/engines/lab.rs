//! Containers of any engine: the same few static programs in the same root, which nobody writes to.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::*;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Engine {
    Docker,
    Podman,
    Runc,
    Crun,
}

pub(super) use Engine::{Crun, Docker, Podman, Runc};

pub(super) const ALL: [Engine; 4] = [Docker, Podman, Runc, Crun];

impl Engine {
    pub(super) fn name(self) -> &'static str {
        match self {
            Docker => "docker",
            Podman => "podman",
            Runc => "runc",
            Crun => "crun",
        }
    }

    /// Whether it is there.
    pub(super) fn is_there(self) -> bool {
        has("root") && has("cc") && has(self.name())
    }
}

/// The image of Docker's containers: empty directories. Their programs are mounted.
const IMAGE: &str = "lastout-test-root";
const DIRECTORIES: [&str; 10] = ["bin", "dev", "etc", "out", "proc", "run", "sys", "tmp", "var", "var/tmp"];
/// The one that is not root.
pub(super) const USER: &str = "1000";

/// What a test has for its containers.
pub(super) struct Lab {
    pub(super) engine: Engine,
    /// Docker's, where it is not the machine's.
    daemon: Option<String>,
    scratch: tempfile::TempDir,
}

/// How a container is started.
#[derive(Clone, Default)]
pub(super) struct Plan<'a> {
    /// Every process that it is to end has this word.
    pub(super) mark: String,
    /// The words from the first on.
    pub(super) words: Vec<&'a str>,
    pub(super) user: bool,
    /// In the PID namespace of the host.
    pub(super) host_pids: bool,
    /// Docker's and Podman's.
    pub(super) options: Vec<String>,
    /// Change runc's and crun's `config.json`.
    pub(super) spec: Vec<&'a (dyn Fn(&mut Value) + Sync)>,
}

impl Lab {
    /// Runs `body` where each of the engines that are there runs.
    pub(super) fn with(engines: &[Engine], body: impl Fn(&Lab) + Sync) {
        for engine in engines.iter().filter(|engine| engine.is_there()) {
            let lab = Lab::set_up(*engine);
            without_unified_cgroups(|| body(&lab));
        }
    }

    fn set_up(engine: Engine) -> Lab {
        let lab = Lab { engine, daemon: None, scratch: scratch() };
        // Another user's namespace must find the way to what is mounted.
        open(lab.path(), 0o755);
        fs::create_dir(lab.file("bin")).unwrap();
        for (program, name) in [(Path::new(LASTOUT), "lastout"), (&FIXTURES.join("worker"), "worker")] {
            fs::copy(program, lab.file("bin").join(name)).unwrap();
        }
        if has("tini") {
            fs::copy("/usr/bin/tini-static", lab.file("bin/tini")).unwrap();
        }
        for name in DIRECTORIES {
            fs::create_dir_all(lab.file("rootfs").join(name)).unwrap();
        }
        // Who is root in a namespace of users cannot make what things are mounted on.
        for name in ["bin/lastout", "bin/tini", "bin/worker", "etc/hostname", "etc/hosts", "etc/resolv.conf"] {
            fs::write(lab.file("rootfs").join(name), "").unwrap();
        }
        // Docker's tmpfs has the mode of what it covers.
        for name in ["run", "tmp"] {
            open(&lab.file("rootfs").join(name), 0o1777);
        }
        if engine == Docker && !lab.command().args(["image", "inspect", IMAGE]).output().unwrap().status.success() {
            lab.import();
        }
        lab
    }

    /// For a daemon that is to listen at `socket`.
    pub(super) fn with_own_daemon() -> Lab {
        let mut lab = Lab::set_up(Docker);
        lab.daemon = Some(format!("unix://{}", lab.file("socket").display()));
        lab
    }

    /// Makes the image known to the daemon.
    pub(super) fn import(&self) {
        let docker = self.command();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("tar --directory \"$0\" --create . | \"$@\" import - {IMAGE}")]);
        let output =
            command.arg(self.file("rootfs")).arg(docker.get_program()).args(docker.get_args()).output().unwrap();
        assert!(output.status.success(), "{}", both(&output));
    }

    pub(super) fn path(&self) -> &Path {
        self.scratch.path()
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The engine, in its own place where it can have one.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(self.engine.name());
        if self.engine == Podman {
            command.arg("--root").arg(self.file("podman/root")).arg("--runroot").arg(self.file("podman/run"));
            command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        }
        if let Some(daemon) = &self.daemon {
            command.args(["--host", daemon]);
        }
        command.stdin(Stdio::null());
        command
    }

    /// The same to its end, which must be a good one.
    pub(super) fn must(&self, args: &[&str]) -> String {
        let output = self.command().args(args).output().unwrap();
        assert!(output.status.success(), "{:?} {args:?}: {}\n{}", self.engine, output.status, both(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a container in the background.
    pub(super) fn start(&self, plan: &Plan) -> Container<'_> {
        let container = Container {
            lab: self,
            name: mark("engine"),
            out: tempfile::tempdir_in(self.path()).unwrap(),
            mark: plan.mark.clone(),
            user: plan.user,
            child: None,
            execs: Vec::new(),
        };
        open(container.out.path(), 0o777);
        match self.engine {
            Docker | Podman => {
                let mut command = self.command();
                command.args(["run", "--detach", "--name", &container.name]);
                let output = command.args(self.options(container.out.path(), plan)).args(&plan.words).output().unwrap();
                assert!(output.status.success(), "{:?} {:?}: {}", self.engine, plan.options, both(&output));
                container
            }
            Runc | Crun => self.start_bundle(container, plan),
        }
    }

    /// What stands between `run` and the words.
    pub(super) fn options(&self, out: &Path, plan: &Plan) -> Vec<String> {
        let mut options: Vec<String> = plan.options.clone();
        let mut add = |words: &[&str]| options.extend(words.iter().map(|word| word.to_string()));
        add(&["--network", "none", "--read-only", "--tmpfs", "/run", "--tmpfs", "/tmp"]);
        for name in ["lastout", "tini", "worker"] {
            add(&["--volume", &format!("{}:/bin/{name}:ro", self.file("bin").join(name).display())]);
        }
        add(&["--volume", &format!("{}:/out", out.display())]);
        if plan.user {
            add(&["--user", USER]);
        }
        if plan.host_pids {
            add(&["--pid", "host"]);
        }
        if self.engine == Podman {
            // Its own defaults are more than a root with few rights can give.
            add(&["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]);
            add(&["--rootfs", self.file("rootfs").to_str().unwrap()]);
        } else {
            add(&[IMAGE]);
        }
        options
    }

    fn start_bundle<'a>(&'a self, mut container: Container<'a>, plan: &Plan) -> Container<'a> {
        let bundle = container.out.path().with_extension("bundle");
        fs::create_dir(&bundle).unwrap();
        let output = self.command().arg("spec").current_dir(&bundle).output().unwrap();
        assert!(output.status.success(), "{}", both(&output));
        let file = bundle.join("config.json");
        let mut spec: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(plan.words);
        spec["root"] = json!({ "path": self.file("rootfs"), "readonly": true });
        let id: u32 = if plan.user { USER.parse().unwrap() } else { 0 };
        spec["process"]["user"] = json!({ "uid": id, "gid": id });
        let mounts = spec["mounts"].as_array_mut().unwrap();
        let tmpfs =
            |at: &str| json!({ "destination": at, "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"] });
        mounts.extend([tmpfs("/run"), tmpfs("/tmp")]);
        let bind =
            |from: &Path, to: &str| json!({ "destination": to, "type": "bind", "source": from, "options": ["rbind"] });
        mounts.extend([bind(&self.file("bin"), "/bin"), bind(container.out.path(), "/out")]);
        if plan.host_pids {
            spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
        }
        plan.spec.iter().for_each(|change| change(&mut spec));
        fs::write(&file, spec.to_string()).unwrap();
        let log = fs::File::create(bundle.join("log")).unwrap();
        let mut command = self.command();
        command.args(["run", "--bundle", bundle.to_str().unwrap(), &container.name]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        container.child = Some(command.spawn().unwrap());
        container
    }
}

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What a container's programs are called.
const PROGRAMS: [&str; 5] = ["docker-init", "lastout", "podman-init", "tini", "worker"];

fn comm(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().into()
}

/// One that is up, or has been.
pub(super) struct Container<'a> {
    pub(super) lab: &'a Lab,
    pub(super) name: String,
    pub(super) out: tempfile::TempDir,
    mark: String,
    user: bool,
    /// `runc run`, whose end is the container's, and `runc exec`.
    child: Option<Child>,
    execs: Vec<Child>,
}

impl Container<'_> {
    /// `ENGINE exec`.
    pub(super) fn exec(&self, words: &[&str]) -> Output {
        self.exec_with(&[]).args(words).output().unwrap()
    }

    fn exec_with(&self, options: &[&str]) -> Command {
        let mut command = self.lab.command();
        command.arg("exec").args(options);
        if self.lab.engine == Crun && self.user {
            // The others take the container's.
            command.args(["--user", USER]);
        }
        command.arg(&self.name);
        command
    }

    /// The same in the background.
    pub(super) fn exec_detached(&mut self, words: &[&str]) {
        // No pipes: it would have them, too, and nobody would see their end.
        let quiet =
            |mut command: Command| command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        match self.lab.engine {
            Docker | Podman => assert!(wait(&mut quiet(self.exec_with(&["--detach"]))).success(), "{words:?}"),
            // Detached it would be a child of the machine's PID 1, for whose reaping the container's would have to wait.
            Runc | Crun => self.execs.push(quiet(self.exec_with(&[]))),
        }
    }

    /// Waits until somebody in it is ready for its end.
    pub(super) fn ready(&mut self, name: &str) {
        let file = self.out.path().join(format!("{name}.ready"));
        let what = format!("{name} in {:?}", self.lab.engine);
        until(&what, || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "{what}: {}", self.log());
            file.exists().then_some(())
        });
    }

    /// Whether it came to save its work.
    pub(super) fn saved(&self, name: &str) -> bool {
        fs::read_to_string(self.out.path().join(name)).is_ok_and(|text| text == "saved\n")
    }

    /// Its processes, but not what `ENGINE exec` has started as worker `exec`.
    fn processes(&self) -> Vec<i32> {
        // First: who is ending has no command line any more.
        let execd = running("/out\0exec\0saves");
        let all = running(&self.mark).into_iter().filter(|pid| PROGRAMS.contains(&&*comm(*pid)));
        all.filter(|pid| !execd.contains(pid)).collect()
    }

    /// The init's process id on the host, before it has anything but main.
    pub(super) fn init(&self) -> i32 {
        let found = self.processes().into_iter().find(|pid| comm(*pid) != "worker");
        found.expect("an init")
    }

    /// The engine's stop (SIGTERM, its patience, SIGKILL) for this init. Answers with the exit code, and with how many
    /// processes were there when the init was not any more; what the engine leaves alive of them would stay for ever.
    pub(super) fn stop(&mut self, init: i32, patience: &str) -> (i32, usize) {
        let engine = |words: &[&str]| {
            let mut command = self.lab.command();
            command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let (mut stop, mut last) = match self.lab.engine {
            Docker | Podman => (engine(&["stop", "-t", patience, &self.name]), None),
            // Those have no patience of their own.
            Runc | Crun => {
                let last = Instant::now() + Duration::from_secs(patience.parse().unwrap());
                (engine(&["kill", &self.name, "TERM"]), Some(last))
            }
        };
        until("the init's end", || {
            if last.take_if(|last| Instant::now() >= *last).is_some() {
                wait(&mut engine(&["kill", &self.name, "KILL"]));
            }
            let stat = fs::read_to_string(format!("/proc/{init}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ")).then_some(())
        });
        let left = self.processes().into_iter().filter(|pid| *pid != init).count();
        if self.lab.engine == Crun {
            // As long as one of them lives, `crun run` waits.
            end_all(&self.mark);
        }
        // Not its code: Podman fails where what it has `exec`ed still lives.
        wait(&mut stop);
        (self.code(), left)
    }

    /// Waits for its end; answers with its exit code.
    pub(super) fn code(&mut self) -> i32 {
        match &mut self.child {
            None => self.lab.must(&["wait", &self.name]).trim().parse().unwrap(),
            Some(child) => status(wait(child)),
        }
    }

    /// What it said.
    pub(super) fn log(&self) -> String {
        match self.lab.engine {
            Docker | Podman => both(&self.lab.command().args(["logs", &self.name]).output().unwrap()),
            Runc | Crun => fs::read_to_string(self.out.path().with_extension("bundle/log")).unwrap_or_default(),
        }
    }
}

fn end_all(mark: &str) {
    for pid in running(mark).into_iter().filter(|pid| PROGRAMS.contains(&&*comm(*pid))) {
        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        end_all(&self.mark);
        let words: &[&str] = match self.lab.engine {
            Docker => &["rm", "--force", "--volumes"],
            Podman => &["rm", "--force", "--time", "0"],
            Runc | Crun => &["delete", "--force"],
        };
        let _ = self.lab.command().args(words).arg(&self.name).output();
        for child in self.child.iter_mut().chain(&mut self.execs) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
