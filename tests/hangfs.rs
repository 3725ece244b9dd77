//! The filesystem that hangs on demand, which other tests stand on.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use crate::support::{
    hangfs::{HangFs, Op, apart, mount_connections},
    *,
};

#[test]
fn what_is_not_frozen_is_an_ordinary_filesystem() {
    if !has("fuse") {
        return;
    }
    let scratch = scratch();
    for writeback in [false, true] {
        let path = scratch.path().join("volume");
        let volume = if writeback { HangFs::mount_with_writeback(&path) } else { HangFs::mount(&path) };
        let script = "set -e; cd $0; umask 022; mkdir -p a/b; echo one > a/b/file; echo two >> a/b/file
            ln -s a/b/file link; [ \"$(cat link)\" = \"$(printf 'one\\ntwo')\" ]; ln a/b/file hard
            mv a/b/file a/moved; rm link; truncate -s 4 a/moved; cat hard; chmod 600 hard; stat -c '%a %h %s' a/moved
            cp /bin/sh sh; ./sh -c 'echo run'; rmdir a/b; ls -a a; flock hard echo locked; sync hard
            stat -f -c %S .; mv sh hard; ls; head -c 1000000 /dev/urandom > big
            cp big copy; cmp big copy; exec 3>>gone; rm gone; echo x >&3";
        let output = Command::new("sh").args(["-c", script, path.to_str().unwrap()]).output().unwrap();
        assert!(output.status.success(), "{}", both(&output));
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, "one\n600 2 4\nrun\n.\n..\nmoved\nlocked\n4096\na\nhard\n", "writeback: {writeback}");
        assert_eq!(volume.contents("a/moved").as_deref(), Some(&b"one\n"[..]));
        volume.put("new/program", b"#!/bin/sh\necho new\n", 0o755);
        assert_eq!(run(path.join("new/program").to_str().unwrap(), &[]), "new\n");
        if is_root() {
            // Another user.
            let new = path.join("new/by-another");
            run("setpriv", &["--reuid=1234", "--clear-groups", "--", "touch", new.to_str().unwrap()]);
        }
        assert_eq!(fs::metadata(path.join("new/program")).unwrap().permissions().mode(), 0o100_755);
        volume.unmount().expect("nothing uses it");
    }
}

#[test]
fn what_is_frozen_waits_and_the_rest_goes_on() {
    if !has("fuse") {
        return;
    }
    let scratch = scratch();
    let volume = HangFs::mount(&scratch.path().join("volume"));
    volume.put("directory/file", b"contents", 0o666);
    volume.freeze(&[Op::Read]);
    let file = volume.path.join("directory/file");
    let mut reader = Command::new("cat").arg(&file).stdout(Stdio::piped()).spawn().unwrap();
    volume.until_waiting(Op::Read, "directory/file");
    // In the same directory. (Who opens the same file waits too: the kernel drops the pages that it has of it.)
    run(
        "sh",
        &["-c", "cd $0; ls; echo more > other; mkdir sub; stat file", &format!("{}/directory", volume.path.display())],
    );
    assert_eq!(volume.waiting(), [(Op::Read, "directory/file".to_string())]);
    assert!(reader.try_wait().unwrap().is_none());
    // Nothing that the process gets ends it now.
    reader.kill().unwrap();
    volume.freeze(&[Op::Lookup]);
    let mut looker = Command::new("stat").arg(&file).stdout(Stdio::null()).spawn().unwrap();
    volume.until_waiting(Op::Lookup, "directory");
    volume.thaw();
    assert_eq!(status(wait(&mut looker)), 0);
    assert_eq!(status(wait(&mut reader)), 137);
    assert_eq!(volume.waiting(), []);
}

#[test]
fn every_kind_of_request_can_be_held() {
    if !has("fuse") {
        return;
    }
    let scratch = scratch();
    apart(|| {
        let volume = HangFs::mount(&scratch.path().join("volume"));
        let kinds = [
            (Op::Lookup, "file", "stat file"),
            (Op::Getattr, "", "stat ."),
            (Op::Setattr, "file", "chmod 600 file"),
            (Op::Open, "file", "true < file"),
            (Op::Open, "new", "true > new"),
            (Op::Read, "file", "cat file"),
            (Op::Write, "file", "echo x >> file"),
            (Op::Flush, "file", "true < file"),
            (Op::Fsync, "file", "sync file"),
            (Op::Release, "file", "true < file"),
            (Op::Statfs, "", "stat -f ."),
            (Op::Opendir, "", "ls"),
            (Op::Readdir, "", "ls"),
            (Op::Edit, "directory", "mkdir directory"),
        ];
        for (op, path, script) in kinds {
            volume.put("file", b"x\n", 0o666);
            let mut command = Command::new("sh");
            command.args(["-c", &format!("cd $0 || exit; read go; {script}"), volume.path.to_str().unwrap()]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            // It is there before the freeze.
            until("its directory", || {
                (fs::read_link(format!("/proc/{}/cwd", child.id())).ok()? == volume.path).then_some(())
            });
            volume.freeze(&[op]);
            child.stdin.take().unwrap().write_all(b"go\n").unwrap();
            volume.until_waiting(op, path);
            volume.thaw();
            assert_eq!(status(wait(&mut child)), 0, "{op:?}");
        }
    });
}

#[test]
fn what_is_told_to_fail_fails_and_dirty_pages_fail_when_they_are_written_back() {
    if !has("fuse") {
        return;
    }
    let scratch = scratch();
    let volume = HangFs::mount_with_writeback(&scratch.path().join("volume"));
    volume.fail(Op::Write, libc::EIO);
    let script = "cd $0; exec 3> file; echo x >&3 || exit 1; sync file && exit 2; exit 7";
    let output = Command::new("sh").args(["-c", script, volume.path.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", both(&output));
    assert!(both(&output).contains("Input/output error"), "{}", both(&output));
    volume.heal();
    run("sh", &["-c", "cd $0; echo y > file; sync file", volume.path.to_str().unwrap()]);
    assert_eq!(volume.contents("file").as_deref(), Some(&b"y\n"[..]));
}

#[test]
fn when_it_is_dropped_or_its_connection_aborted_nobody_hangs() {
    if !has("fuse") {
        return;
    }
    mount_connections();
    let scratch = scratch();
    for by_the_file in [true, false] {
        let volume = HangFs::mount(&scratch.path().join("volume"));
        volume.put("file", b"x", 0o666);
        volume.freeze(&[Op::Read]);
        let mut reader = Command::new("cat").arg(volume.path.join("file")).stderr(Stdio::null()).spawn().unwrap();
        volume.until_waiting(Op::Read, "file");
        if by_the_file {
            fs::write(format!("/sys/fs/fuse/connections/{}/abort", volume.connection), "1").unwrap();
        } else {
            drop(volume);
        }
        assert_eq!(status(wait(&mut reader)), 1);
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(scratch.path().to_str().unwrap()), "{mounts}");
}
