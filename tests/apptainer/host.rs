//! A host that has Apptainer: `docker/apptainer/host`.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::LazyLock,
};

use crate::{
    docker::{release, repository},
    support::*,
};

/// Its user, as `docker/apptainer/host` makes it.
const USER: u32 = 21000;

/// The image of `docker/apptainer/lastout.def`, as a directory and as a file, as `/srv/...` of a [`Host`].
pub(super) const IMAGES: [&str; 2] = ["/srv/lastout.dir", "/srv/lastout.sif"];

/// A mount namespace in which the machine is a host with Apptainer, with a shared mount that has a volume.
pub(super) struct Host {
    holder: Child,
    scratch: tempfile::TempDir,
    /// The device of its shared mount, by which a process of its own is told.
    device: String,
}

/// `docker/apptainer/host` with these words.
fn enter(words: &[&str]) -> Command {
    let mut command = Command::new(repository().join("docker/apptainer/host"));
    command.args(words).stdin(Stdio::null());
    command
}

/// Made by the host's user, as the definition's head tells, when the binary has changed.
static MADE: LazyLock<()> = LazyLock::new(|| {
    let share = repository().join("target/apptainer/share");
    let binary = release();
    let definition = repository().join("docker/apptainer/lastout.def");
    let same = |one: &Path, other: &Path| fs::read(one).ok().is_some_and(|bytes| fs::read(other).ok() == Some(bytes));
    if share.join("lastout.sif").exists()
        && same(&binary, &share.join("lastout"))
        && same(&definition, &share.join("lastout.def"))
    {
        return;
    }
    // The .sif comes last: without it nothing counts as made.
    for name in ["lastout.dir", "lastout.sif", "lastout.def", "base.tar"] {
        let path = share.join(name);
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    run(repository().join("docker/base").to_str().unwrap(), &[]);
    run("docker", &["save", "--output", share.join("base.tar").to_str().unwrap(), "debian:bookworm-slim"]);
    for (from, to) in [(&binary, "lastout"), (&definition, "lastout.def")] {
        fs::copy(from, share.join(to)).unwrap();
    }
    fs::set_permissions(share.join("base.tar"), fs::Permissions::from_mode(0o644)).unwrap();
    chown(&share, Some(USER), Some(USER)).unwrap();
    let host = Host::of(scratch());
    let build = |words: &[&str]| {
        let output = host.user(&[&["apptainer", "build"], words].concat()).output().unwrap();
        assert!(output.status.success(), "{}", both(&output));
    };
    let from = ["bootstrap=docker-archive", "from=/srv/base.tar", "lastout=/srv/lastout"];
    let mut words = vec!["--sandbox"];
    from.iter().for_each(|argument| words.extend(["--build-arg", argument]));
    build(&[&words, &[IMAGES[0], "/srv/lastout.def"][..]].concat());
    // The quickest compression.
    build(&["--mksquashfs-args", "-Xcompression-level 1", "/srv/lastout.part", IMAGES[0]]);
    fs::remove_file(share.join("base.tar")).unwrap();
    fs::rename(share.join("lastout.part"), share.join("lastout.sif")).unwrap();
});

impl Host {
    /// `None` where there is no Apptainer to be had.
    pub(super) fn start() -> Option<Host> {
        if !has("apptainer") {
            return None;
        }
        LazyLock::force(&MADE);
        Some(Host::of(scratch()))
    }

    fn of(scratch: tempfile::TempDir) -> Host {
        chown(scratch.path(), Some(USER), Some(USER)).unwrap();
        // It ends with the test: then nobody holds the other end of its input.
        let set_up = "mkdir /run/shared; cd /run/shared; mount -t tmpfs -o mode=755 shared .; cd /run/shared; \
            mount --make-shared .; mkdir volume out; chmod 777 out; mountpoint -d .; cd /; read end || :";
        let mut command = enter(&["sh", "-ec", set_up]);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = lines(holder.stdout.take().unwrap());
        let device = said.recv_timeout(PATIENCE).expect("a host with Apptainer");
        Host { holder, scratch, device }
    }

    /// A command of root's there.
    fn root(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.holder.id().to_string(), "--"]).args(words).stdin(Stdio::null());
        command
    }

    /// A command of the user's there, who has just logged in. Its process is that command.
    pub(super) fn user(&self, words: &[&str]) -> Command {
        let id = USER.to_string();
        let home = ["HOME=/home/user", "PATH=/usr/local/bin:/usr/bin:/bin", "USER=user"];
        let by = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "env", "--ignore-environment"];
        let mut command = self.root(&[&by, &home[..], words].concat());
        // As a shell of theirs: what stays is a survivor, and not a test that waits for the end of its output.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The same to its end, with what it wrote (to files, because who stays has them open).
    pub(super) fn run(&self, words: &[&str]) -> Output {
        let file = |name| fs::File::create(self.scratch.path().join(name)).unwrap();
        let status = self.user(words).stdout(file("stdout")).stderr(file("stderr")).status().unwrap();
        let read = |name| fs::read(self.scratch.path().join(name)).unwrap();
        Output { status, stdout: read("stdout"), stderr: read("stderr") }
    }

    /// A directory of the user's, with the same path there and here.
    pub(super) fn place(&self) -> &Path {
        self.scratch.path()
    }

    /// Mounts a new volume, which is `/run/shared/volume` there and `/shared/volume` in a container: it has it by
    /// propagation, so an unmount is one there, too, and fails if anything there uses it.
    pub(super) fn mount(&self) {
        let script = "rm -f /run/shared/out/*; mount -t tmpfs -o mode=777 volume /run/shared/volume";
        assert!(self.root(&["sh", "-ec", script]).status().unwrap().success());
    }

    /// One try. Whether it was busy.
    pub(super) fn unmount(&self) -> bool {
        let output = self.root(&["umount", "/run/shared/volume"]).output().unwrap();
        let busy = !output.status.success();
        if busy {
            assert!(both(&output).contains("busy"), "{}", both(&output));
        }
        busy
    }

    /// What is still there of a container that somebody survives.
    pub(super) fn clear(&self, survivors: &[i32]) {
        for pid in survivors {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
        }
        let _ = self.root(&["umount", "--lazy", "/run/shared/volume"]).output();
    }

    /// Whether a file is in `/run/shared`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.root(&["test", "-e", &format!("/run/shared/{name}")]).status().unwrap().success()
    }

    /// How many writers have saved their work.
    pub(super) fn saved(&self) -> usize {
        let output = self.root(&["sh", "-c", "cat /run/shared/out/* 2>/dev/null"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().filter(|line| *line == "saved").count()
    }

    /// Who has a .sif mounted through FUSE.
    pub(super) fn fuse_users(&self) -> Vec<i32> {
        let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        let ours = format!(" {} ", self.device);
        let has_one = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/mountinfo"))
                .is_ok_and(|mounts| mounts.contains(&ours) && mounts.contains(" - fuse.squashfuse"))
        };
        pids.filter(has_one).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.user(&["apptainer", "instance", "stop", "--all", "--force"]).status();
        }
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// A file for a user's own options: a script that is bound over the image's.
pub(super) fn script(host: &Host, name: &str, words: &str) -> PathBuf {
    let path = host.place().join(name);
    fs::write(&path, format!("#!/bin/sh\nexec {words} \"$@\"\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}
