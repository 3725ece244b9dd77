//! Images from the repository's own Dockerfiles, and containers that are removed again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{LazyLock, mpsc::Receiver},
};

use crate::support::*;

/// Debian with lastout as ENTRYPOINT: `docker/debian`.
pub(super) static DEBIAN: LazyLock<&str> = LazyLock::new(|| {
    LazyLock::force(&LASTOUT_IMAGE);
    build("lastout-debian", &["docker/debian"])
});

/// WSClean: `docker/wsclean`. Its packages are fetched once, then they are in Docker's cache.
pub(super) static WSCLEAN: LazyLock<&str> = LazyLock::new(|| {
    LazyLock::force(&LASTOUT_IMAGE);
    build("lastout-wsclean", &["--network", "host", "docker/wsclean"])
});

/// `vi`, `htop` and `python3`: `docker/terminals`. Its packages are fetched once, too.
pub(super) static TERMINALS: LazyLock<&str> = LazyLock::new(|| {
    LazyLock::force(&LASTOUT_IMAGE);
    build("lastout-terminals", &["--network", "host", "docker/terminals"])
});

/// The static binary alone, and the base of the others.
pub(super) static LASTOUT_IMAGE: LazyLock<&str> = LazyLock::new(|| {
    run(repository().join("docker/base").to_str().unwrap(), &[]);
    release();
    build("lastout", &["--file", "docker/Dockerfile", "."])
});

fn build(tag: &'static str, args: &[&str]) -> &'static str {
    let output = docker().args(["build", "--quiet", "--tag", tag]).args(args).output().unwrap();
    assert!(output.status.success(), "cannot build {tag}: {}", both(&output));
    tag
}

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The binary that the images take, for the host's side.
pub(crate) fn release() -> PathBuf {
    let targets = fs::read_dir(repository().join("target")).into_iter().flatten().flatten();
    let mut found = targets.map(|target| target.path().join("release/lastout")).filter(|path| path.exists());
    found.next().expect("no target/*/release/lastout: run `cargo build --release` first")
}

/// `docker`, in the repository.
pub(super) fn docker() -> Command {
    let mut command = Command::new("docker");
    command.current_dir(repository()).stdin(Stdio::null());
    command
}

/// A container with `/fixtures`, and with its control directory and `/out` on the host.
pub(super) struct Container {
    pub(super) name: String,
    scratch: tempfile::TempDir,
}

impl Container {
    /// `docker run` with these options, and these words after the image.
    pub(super) fn start(image: &str, options: &[&str], words: &[&str]) -> Container {
        let container = Container { name: mark("container"), scratch: scratch() };
        for directory in ["control", "out"] {
            fs::create_dir(container.scratch.path().join(directory)).unwrap();
        }
        let on_host = |name: &str, inside: &str| format!("{}:{inside}", container.scratch.path().join(name).display());
        let output = docker()
            .args(["run", "--detach", "--name", &container.name])
            .args(["--volume", &format!("{}:/fixtures:ro", FIXTURES.display())])
            .args(["--volume", &on_host("control", "/run/lastout"), "--volume", &on_host("out", "/out")])
            .args(options)
            .arg(image)
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "docker run: {}", both(&output));
        container
    }

    /// `/out`, on the host.
    pub(super) fn out(&self) -> PathBuf {
        self.scratch.path().join("out")
    }

    /// Its control directory, on the host.
    pub(super) fn control(&self) -> PathBuf {
        self.scratch.path().join("control")
    }

    /// A client on the host, through the mounted control directory.
    pub(super) fn client(&self, args: &[&str]) -> Output {
        let mut command = Command::new(release());
        command.args(args).env("LASTOUT_CONTROL", self.control());
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// The same; it must succeed.
    pub(super) fn must(&self, args: &[&str]) -> String {
        let output = self.client(args);
        assert!(output.status.success(), "{args:?}: {}\n{}", output.status, both(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A `docker` command whose last word is the container.
    pub(super) fn docker(&self, args: &[&str]) -> String {
        run("docker", &[args, &[&self.name]].concat())
    }

    /// `docker exec`.
    pub(super) fn exec(&self, options: &[&str], words: &[&str]) -> String {
        run("docker", &[&["exec"], options, &[&self.name], words].concat())
    }

    /// Its standard output, line by line, from the beginning.
    pub(super) fn lines(&self) -> Receiver<String> {
        let mut command = docker();
        command.args(["logs", "--follow", &self.name]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = lines(child.stdout.take().unwrap());
        // It ends with the container.
        std::thread::spawn(move || child.wait());
        lines
    }

    /// The init's process id on the host.
    pub(super) fn init(&self) -> i32 {
        self.docker(&["inspect", "--format", "{{.State.Pid}}"]).trim().parse().unwrap()
    }

    /// Waits for its end; answers with its exit code.
    pub(super) fn code(&self) -> i32 {
        self.docker(&["wait"]).trim().parse().unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker().args(["rm", "--force", "--volumes", &self.name]).output();
    }
}

/// The next line.
pub(super) fn next(lines: &Receiver<String>) -> String {
    lines.recv_timeout(PATIENCE).expect("a line")
}

/// A volume that a container gets by propagation: so an unmount on the host is one in the container too, and
/// fails if anything there uses it. (An ordinary bind mount is the container's own: the host's unmount says nothing.)
pub(super) struct SharedVolume {
    volume: Option<Volume>,
    shared: Volume,
    _scratch: tempfile::TempDir,
}

impl SharedVolume {
    pub(super) fn mount() -> SharedVolume {
        let scratch = scratch();
        let shared = Volume::mount(&scratch.path().join("shared"));
        run("mount", &["--make-shared", shared.path.to_str().unwrap()]);
        let volume = Some(Volume::mount(&shared.path.join("volume")));
        SharedVolume { volume, shared, _scratch: scratch }
    }

    /// For `docker run --volume`: it is `/shared/volume` inside.
    pub(super) fn option(&self) -> String {
        format!("{}:/shared:rslave", self.shared.path.display())
    }

    pub(super) fn path(&self) -> PathBuf {
        self.shared.path.join("volume")
    }

    /// One try.
    pub(super) fn unmount(&mut self) -> Result<(), String> {
        self.volume.take().expect("unmounted twice").unmount()
    }
}
