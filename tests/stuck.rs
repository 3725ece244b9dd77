//! What hangs is named: who, in which call, on which file of which volume; and it ends when the volume thaws.

use std::{
    path::Path,
    process::{Child, Stdio},
};

use crate::support::{
    hangfs::{HangFs, Op, apart, mount_connections},
    *,
};

/// A frozen volume with `file` on it.
fn frozen(at: &tempfile::TempDir, ops: &[Op]) -> HangFs {
    let volume = HangFs::mount(&at.path().join("volume"));
    volume.put("file", b"contents\n", 0o644);
    volume.freeze(ops);
    volume
}

/// A program that writes to `file` of a volume.
fn writer(volume: &HangFs) -> String {
    format!("dd if=/dev/zero of={}/file count=1 conv=notrunc status=none", volume.path.display())
}

/// What a line about this volume has to say.
fn says_where(line: &str, volume: &Path, call: &str) {
    let file = format!("{call} of {}/file", volume.display());
    let mount = format!("volume {} (fuse)", volume.display());
    for part in [&file, &mount, "in the kernel's request_wait_answer", "(dd, state "] {
        assert!(line.contains(part), "'{part}' is not in: {line}");
    }
}

/// As both, with mounts of its own: other tests' lastouts sync what they see when they leave.
fn both_roles(test: impl Fn(As) + Sync) {
    for role in [As::Subreaper, As::Pid1] {
        if has("root") && has("fuse") {
            apart(|| test(role));
        }
    }
}

#[test]
fn a_main_that_hangs_is_named_while_it_has_its_grace_and_ends_when_the_volume_thaws() {
    both_roles(|role| {
        let scratch = scratch();
        let volume = frozen(&scratch, &[Op::Write]);
        // The shell handles the signal, and has a code of its own; its child waits in the kernel.
        let main = format!("trap 'wait; exit 7' TERM; {} & wait", writer(&volume));
        let init = Init::start(role, &["--grace", "100s", "--", "sh", "-c", &main]);
        volume.until_waiting(Op::Write, "file");
        init.signal("TERM");
        let line = init.log("it hangs");
        says_where(&line, &volume.path, "write");
        assert!(line.contains("main: it hangs: pid "), "{line}");
        // And again.
        init.log("it hangs");
        assert!(init.must(&["ps"]).contains("JOB"));
        volume.thaw();
        assert_eq!(init.end().0, 7);
    });
}

#[test]
fn a_job_that_sigkill_does_not_end_is_named_to_its_client_too() {
    both_roles(|role| {
        let scratch = scratch();
        let volume = frozen(&scratch, &[Op::Write]);
        let init = Init::start(role, &[]);
        let writer = format!("exec {}", writer(&volume));
        let args = ["exec", "--grace", "100ms", "--", "sh", "-c", &writer];
        let client = init.client(&args).stderr(Stdio::piped()).spawn().unwrap();
        // Whoever is stopped before he writes just ends.
        volume.until_waiting(Op::Write, "file");
        std::fs::write(init.control().join("control"), "stop j2\n").unwrap();
        let said = ended(client);
        assert_eq!(said.0, 125);
        says_where(&said.1, &volume.path, "write");
        let line = init.log("SIGKILL has not ended");
        says_where(&line, &volume.path, "write");
        assert!(line.contains("j2: SIGKILL"), "{line}");
        // Everything else goes on.
        init.must(&["exec", "--", "true"]);
        assert!(init.must(&["ps"]).contains("ending"));
        volume.thaw();
        until("the job's end", || (!init.must(&["ps"]).contains("j2")).then_some(()));
        init.must(&["shutdown"]);
        assert_eq!(init.end().0, 0);
    });
}

fn ended(client: Child) -> (i32, String) {
    let output = client.wait_with_output().unwrap();
    (status(output.status), both(&output))
}

#[test]
fn the_last_flush_of_a_process_that_has_no_files_any_more_is_told_by_its_volume() {
    both_roles(|role| {
        let scratch = scratch();
        let volume = HangFs::mount(&scratch.path().join("volume"));
        volume.freeze(&[Op::Flush]);
        // It ends with the file open: what the kernel then closes for it hangs.
        let file = volume.path.join("file");
        let main = format!("open F, '>', '{}'; syswrite F, \"data\\n\"; kill 9, $$", file.display());
        let init = Init::start(role, &["--", "perl", "-e", &main]);
        volume.until_waiting(Op::Flush, "file");
        init.signal("TERM");
        let line = init.log("it hangs");
        // Alone, or as one of those that other tests have frozen at this moment.
        let place = format!("{} (fuse)", volume.path.display());
        assert!(line.contains(&place) && line.contains("its exit"), "{line}");
        volume.thaw();
        assert_eq!(init.end().0, 137);
        assert_eq!(volume.contents("file").as_deref(), Some(&b"data\n"[..]));
    });
}

#[test]
fn abort_fuse_ends_what_hangs_and_touches_no_other_volume() {
    both_roles(|role| {
        mount_connections();
        let (one, two) = (scratch(), scratch());
        let (volume, other) = (frozen(&one, &[Op::Write]), frozen(&two, &[Op::Write]));
        let mut writer_there = std::process::Command::new("sh").args(["-c", &writer(&other)]).spawn().unwrap();
        let main = format!("trap 'wait; exit 7' TERM; {} & wait", writer(&volume));
        let init = Init::start(role, &["--abort-fuse", "--grace", "2s", "--", "sh", "-c", &main]);
        volume.until_waiting(Op::Write, "file");
        other.until_waiting(Op::Write, "file");
        init.signal("TERM");
        init.log("aborted the FUSE connection");
        assert_eq!(init.end().0, 7);
        assert!(writer_there.try_wait().unwrap().is_none() && !other.waiting().is_empty());
        other.thaw();
        assert!(wait(&mut writer_there).success());
    });
}

#[test]
fn a_subreaper_leaves_behind_what_does_not_end_and_says_what_and_where() {
    if !has("root") || !has("fuse") {
        return;
    }
    apart(|| {
        let scratch = scratch();
        let volume = frozen(&scratch, &[Op::Write]);
        let go = scratch.path().join("go");
        let main = format!("setsid {} & until [ -e {} ]; do sleep 0.01; done; exit 3", writer(&volume), go.display());
        let args = ["--grace", "100ms", "--stuck-timeout", "4s", "--", "sh", "-c", &main];
        // (Not `Command::output`: who is stuck holds its pipes, too.)
        let mut init = Init::start(As::Subreaper, &args);
        volume.until_waiting(Op::Write, "file");
        std::fs::write(&go, "").unwrap();
        for part in ["SIGKILL has not ended pid ", "left behind: pid "] {
            says_where(&init.log(part), &volume.path, "write");
        }
        assert_eq!(status(wait(&mut init.child)), 125);
        volume.thaw();
    });
}
