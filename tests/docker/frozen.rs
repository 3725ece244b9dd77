//! A volume hangs, and the engine says stop.

use std::{
    fs,
    process::{Child, Stdio},
    time::Instant,
};

use super::engine::*;
use crate::support::{
    hangfs::{HangFs, Op, mount_connections},
    *,
};

/// Writes a file on the volume when it is told to end.
const MAIN: &str = "trap 'echo saved > /data/saved; exit 6' TERM; echo ready; while :; do sleep 60 & wait; done";

/// A container with `/data` on a volume that hangs on demand.
struct Frozen {
    // Goes first, if a test fails: the container cannot be removed while it hangs.
    volume: HangFs,
    container: Container,
    _scratch: tempfile::TempDir,
}

impl Frozen {
    fn start(options: &[&str], words: &[&str]) -> Frozen {
        let scratch = scratch();
        let volume = HangFs::mount(&scratch.path().join("volume"));
        volume.put("file", b"x\n", 0o666);
        let data = format!("{}:/data", volume.path.display());
        let container = Container::start(&DEBIAN, &[options, &["--volume", &data]].concat(), words);
        Frozen { volume, container, _scratch: scratch }
    }

    /// A job that is stuck on `/data/file`; answers with its process id inside.
    fn stick(&self, how: &str, op: Op) -> i32 {
        let volume = &self.volume;
        volume.freeze(&[op]);
        let command = ["/fixtures/stuck", how, "/data/file"];
        self.container.must(&[&["exec", "--wait", "30s", "--detach", "--"][..], &command].concat());
        volume.until_waiting(op, "file");
        let own = self.container.init();
        let is_ours = |pid: &i32| {
            let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
            namespace(*pid) == namespace(own)
        };
        let stuck = until("the job's process", || {
            // An exiting process has no command line any more.
            let pids = fs::read_dir("/proc").unwrap().flatten();
            let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            pids.find(|pid| {
                fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "stuck\n") && is_ours(pid)
            })
        });
        let status = fs::read_to_string(format!("/proc/{stuck}/status")).unwrap();
        let inside =
            status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last()?.parse().ok());
        inside.expect("a process id inside")
    }

    /// `docker stop`, which must not have to kill.
    fn stop(&self) -> Child {
        docker().args(["stop", "--time", "50", &self.container.name]).stdout(Stdio::null()).spawn().unwrap()
    }

    fn until_main_hangs(&self) {
        let is_there = || self.volume.waiting().iter().any(|(_, path)| path == "saved").then_some(());
        until("main to hang", is_there);
    }

    fn log(&self) -> String {
        both(&docker().args(["logs", &self.container.name]).output().unwrap())
    }
}

/// Ways to hang that SIGKILL does not end, and the request that hangs.
const WAYS: [(&str, Op); 4] = [("write", Op::Write), ("fsync", Op::Fsync), ("flush", Op::Flush), ("exit", Op::Flush)];

#[test]
fn when_the_volume_thaws_everything_ends_by_itself_and_nothing_is_lost() {
    if !has("docker") || !has("fuse") {
        return;
    }
    for (how, op) in WAYS {
        let frozen = Frozen::start(&[], &["--", "sh", "-c", MAIN]);
        assert_eq!(next(&frozen.container.lines()), "ready");
        frozen.stick(how, op);
        // What main saves hangs, too.
        frozen.volume.freeze(&[Op::Write, Op::Flush]);
        let mut stop = frozen.stop();
        frozen.until_main_hangs();
        assert!(frozen.container.must(&["ps"]).contains("stuck"), "it answers");
        frozen.volume.thaw();
        assert_eq!(status(wait(&mut stop)), 0);
        assert_eq!(frozen.container.code(), 6, "{how}: {}", frozen.log());
        assert_eq!(frozen.volume.contents("saved").as_deref(), Some(&b"saved\n"[..]), "{how}");
    }
}

#[test]
fn a_stop_names_within_two_seconds_who_hangs_on_which_file_of_which_volume() {
    if !has("docker") || !has("fuse") {
        return;
    }
    for (how, op) in WAYS {
        let frozen = Frozen::start(
            &[],
            &["--", "sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 60 & wait; done"],
        );
        assert_eq!(next(&frozen.container.lines()), "ready");
        let pid = frozen.stick(how, op);
        let start = Instant::now();
        let mut stop = frozen.stop();
        let named = until("the name of what hangs", || {
            let log = frozen.log();
            let line = log.lines().find(|line| line.contains(&format!("pid {pid} ")) && line.contains("/data"));
            line.map(String::from)
        });
        let time = start.elapsed();
        assert!(named.contains("stuck") && named.contains("fuse"), "{named}");
        // A descriptor that is being closed has no name any more; what is known is the volume's.
        assert!(named.contains("/data/file") || op == Op::Flush, "{named}");
        println!("{how}: named after {time:?}");
        // The host says the same, for as long as it lasts, with both of its process ids.
        let doctor = frozen.container.client(&["doctor"]);
        let page = both(&doctor);
        assert_eq!(doctor.status.code(), Some(1), "{page}");
        assert!(page.contains("stuck") && page.contains("/data") && page.contains(&pid.to_string()), "{page}");
        frozen.volume.thaw();
        assert_eq!(status(wait(&mut stop)), 0);
        assert_eq!(frozen.container.code(), 6, "{how}: {}", frozen.log());
    }
}

#[test]
fn main_itself_is_named_when_it_hangs_and_its_exit_code_is_its_own() {
    if !has("docker") || !has("fuse") {
        return;
    }
    let frozen = Frozen::start(&[], &["--", "sh", "-c", MAIN]);
    assert_eq!(next(&frozen.container.lines()), "ready");
    frozen.volume.freeze(&[Op::Write]);
    let start = Instant::now();
    let mut stop = frozen.stop();
    frozen.until_main_hangs();
    until("main's name", || {
        frozen.log().lines().any(|l| l.contains("/data/saved") && l.contains("fuse")).then_some(())
    });
    println!("named after {:?}", start.elapsed());
    frozen.volume.thaw();
    assert_eq!(status(wait(&mut stop)), 0);
    assert_eq!(frozen.container.code(), 6);
}

#[test]
fn under_abort_fuse_it_ends_without_a_thaw_and_other_volumes_live_on() {
    if !has("docker") || !has("fuse") {
        return;
    }
    mount_connections();
    for (how, op) in WAYS {
        let other_scratch = scratch();
        let other = HangFs::mount(&other_scratch.path().join("volume"));
        let options = [
            "--volume",
            "/sys/fs/fuse/connections:/sys/fs/fuse/connections",
            "--volume",
            &format!("{}:/other", other.path.display()),
        ];
        let main = "trap 'echo saved > /other/saved; exit 6' TERM; echo ready; while :; do sleep 60 & wait; done";
        let frozen = Frozen::start(&options, &["--abort-fuse", "--", "sh", "-c", main]);
        assert_eq!(next(&frozen.container.lines()), "ready");
        frozen.stick(how, op);
        let mut stop = frozen.stop();
        assert_eq!(status(wait(&mut stop)), 0);
        assert_eq!(frozen.container.code(), 6, "{how}: {}", frozen.log());
        let log = frozen.log();
        assert!(log.lines().any(|line| line.contains("abort") && line.contains("/data")), "{log}");
        assert_eq!(other.contents("saved").as_deref(), Some(&b"saved\n"[..]), "{how}");
        fs::write(other.path.join("alive"), "alive").expect("the other volume lives on");
    }
}

#[test]
fn a_container_that_is_given_the_connections_can_abort_its_own() {
    if !has("docker") || !has("fuse") {
        return;
    }
    mount_connections();
    let options = ["--volume", "/sys/fs/fuse/connections:/sys/fs/fuse/connections"];
    let frozen = Frozen::start(
        &options,
        &["--", "sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 60 & wait; done"],
    );
    assert_eq!(next(&frozen.container.lines()), "ready");
    frozen.stick("write", Op::Write);
    // The number is the minor one of the mount's device, inside as outside.
    let script = "n=$(grep ' /data ' /proc/self/mountinfo | cut -d' ' -f3); n=${n#0:}
        echo $n; echo 1 > /sys/fs/fuse/connections/$n/abort";
    let number = frozen.container.exec(&[], &["sh", "-c", script]);
    assert_eq!(number.trim(), frozen.volume.connection.to_string());
    frozen.container.docker(&["stop", "--time", "50"]);
    assert_eq!(frozen.container.code(), 6);
}
