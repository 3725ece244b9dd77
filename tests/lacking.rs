//! What a place may lack: `/proc`, `/dev`, somewhere to write, descriptors, processes, standard streams. Each program that
//! lastout can be serves plainly or says what is missing; it never hangs, and never panics.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::support::*;

/// By what it is called.
const NAMES: [&str; 4] = ["lastout", "tini", "dumb-init", "catatonit"];

struct Programs(tempfile::TempDir);

impl Programs {
    fn new() -> Programs {
        let programs = Programs(scratch());
        // For another user, too, wherever the build is.
        run("chmod", &["755", programs.0.path().to_str().unwrap()]);
        fs::copy(LASTOUT, programs.path("lastout")).unwrap();
        NAMES.iter().skip(1).for_each(|name| symlink("lastout", programs.path(name)).unwrap());
        programs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the program's main `sh -c 'exit 7'` by `words`, in which `INIT` is the program. Answers with its code and words.
    /// lastout itself is to make its control directory here, and not where another may be.
    fn exit_7(&self, name: &str, words: &[&str]) -> (i32, String) {
        let control = self.path("control");
        self.exit_7_with(name, &[&["env", &format!("LASTOUT_CONTROL={}", control.display())][..], words].concat())
    }

    fn exit_7_with(&self, name: &str, words: &[&str]) -> (i32, String) {
        let path = self.path(name);
        let mut all: Vec<&str> =
            words.iter().map(|word| if *word == "INIT" { path.to_str().unwrap() } else { word }).collect();
        if name == "tini" {
            all.push("-s");
        }
        all.extend(["--", "sh", "-c", "exit 7"]);
        let mut command = Command::new(all[0]);
        command.args(&all[1..]).env_remove("LASTOUT_CONTROL").env_remove("LASTOUT_LOG");
        let (out, err) = (self.path("out"), self.path("err"));
        command.stdin(Stdio::null()).stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let mut child = command.spawn().unwrap();
        // Not a pipe's end, but its own.
        let code = status(wait(&mut child));
        let said = [out, err].map(|file| String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned()).concat();
        assert!(!said.contains("panicked") && !said.contains("bare init"), "{name} {words:?}: {said}");
        (code, said)
    }
}

/// What is done to the place, in a mount namespace of its own.
const PLACES: [(&str, &str); 4] = [
    ("no /proc", "mount -t tmpfs -o ro lastout-test /proc"),
    ("no /dev", "mount -t tmpfs -o ro lastout-test /dev"),
    ("neither", "mount -t tmpfs -o ro lastout-test /dev; mount -t tmpfs -o ro lastout-test /proc"),
    (
        "nowhere to write",
        "mount --bind / / && cd / && mount -o remount,bind,ro / && for d in /run /tmp /dev/shm; do mount -t tmpfs -o ro lastout-test $d; done",
    ),
];

#[test]
fn a_poor_place_is_good_enough_for_main() {
    if !has("root") {
        return;
    }
    let programs = Programs::new();
    for (what, prepare) in PLACES {
        let script = match what {
            // The program is where nothing can be read any more.
            "nowhere to write" => format!("exec 3<\"$1\"; {prepare}; shift; exec -a \"$0\" /proc/self/fd/3 \"$@\""),
            _ => format!("{prepare}; exec \"$@\""),
        };
        for name in NAMES {
            for pid1 in [true, false] {
                let mut words = vec!["unshare", "--mount"];
                if pid1 {
                    words.extend(["--pid", "--fork", "--kill-child"]);
                }
                // Bash, whose `exec -a` keeps the name.
                words.extend(["bash", "-c", &script, name, "INIT"]);
                let (code, said) = match what {
                    "nowhere to write" => programs.exit_7_with(name, &words),
                    _ => programs.exit_7(name, &words),
                };
                assert_eq!(code, 7, "{name}, {what}, PID 1: {pid1}: {said}");
                let warns = name == "lastout" && what == "nowhere to write";
                assert_eq!(said.contains("no control directory"), warns, "{name}, {what}, PID 1: {pid1}: {said}");
            }
        }
    }
}

#[test]
fn without_standard_streams_main_has_none_either() {
    let programs = Programs::new();
    for name in NAMES {
        for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
            let script = format!("exec \"$@\" {closed}");
            assert_eq!(programs.exit_7(name, &["sh", "-c", &script, "sh", "INIT"]).0, 7, "{name} {closed}");
        }
    }
}

#[test]
fn who_may_have_no_process_says_so() {
    if !has("root") {
        return;
    }
    let programs = Programs::new();
    for (name, failure) in NAMES.into_iter().zip([125, 1, 1, 1]) {
        // Nobody else has this number.
        let words =
            ["setpriv", "--reuid", "64321", "--regid", "64321", "--clear-groups", "prlimit", "--nproc=1", "INIT"];
        let (code, said) = programs.exit_7_with(name, &words);
        assert_eq!(code, failure, "{name}: {said}");
        // dumb-init's own words.
        let told = ["resource temporarily unavailable", "unable to fork"];
        assert!(told.iter().any(|told| said.to_lowercase().contains(told)), "{name}: {said}");
    }
}

#[test]
fn few_descriptors_are_enough_or_it_is_said() {
    let programs = Programs::new();
    for name in NAMES {
        for limit in 3..16 {
            let limit = format!("--nofile={limit}");
            let (code, said) = programs.exit_7(name, &["prlimit", &limit, "INIT"]);
            let told = ["too many open files", "unable to fork"].iter().any(|told| said.to_lowercase().contains(told));
            let failure = if name == "lastout" { 125 } else { 1 };
            assert!(code == 7 || code == failure && told, "{name} {limit}: {code}: {said}");
        }
    }
}
