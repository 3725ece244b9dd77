//! A real FUSE filesystem as a mount: its server in the foreground, a service and jobs on it.

use std::{
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use super::*;
use crate::support::hangfs::{HangFs, Op, apart};

/// Serves until it is unmounted; then writes what it has been given to `backing`, beside the mount: a slow flush.
#[test]
#[ignore = "not a test but a program"]
fn a_fuse_server_for_the_other_tests() {
    let Some(path) = std::env::var_os("LASTOUT_TEST_MOUNT") else { return };
    let path = PathBuf::from(path);
    let server = HangFs::mount_with_writeback(&path);
    if std::env::var_os("LASTOUT_TEST_HANG").is_some() {
        server.freeze(&[Op::Read, Op::Write]);
    }
    let is_mounted = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
    };
    while is_mounted() {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(20));
    let backing = path.parent().unwrap().join("backing");
    let _ = fs::create_dir(&backing);
    for number in 0..200 {
        for kind in ["service", "job"] {
            let name = format!("{kind}{number}");
            if let Some(contents) = server.contents(&name) {
                fs::write(backing.join(name), contents).unwrap();
            }
        }
    }
    fs::write(path.parent().unwrap().join("flushed"), "").unwrap();
    std::mem::forget(server);
    std::process::exit(0);
}

fn daemon() -> String {
    let exe = std::env::current_exe().unwrap();
    format!(
        "[mount.vol]\npath = '@/mnt'\nenv = {{ LASTOUT_TEST_MOUNT = '@/mnt' }}\nsetup = ['mkdir -p @/mnt']\nstop = {{ grace = '30s' }}
        command = [{:?}, '--exact', 'services::mounted::a_fuse_server_for_the_other_tests', '--ignored']\n",
        exe.to_str().unwrap()
    )
}

fn is_mounted(path: &Path) -> bool {
    fs::read_to_string("/proc/thread-self/mountinfo").unwrap().contains(path.to_str().unwrap())
}

fn can() -> bool {
    has("root") && has("fuse")
}

/// What writes, and when it is asked to end writes once more.
const WRITER: &str =
    "n=0; w() { echo $n > @/mnt/service$n && echo $n >> @/said; n=$((n+1)); }; w || echo bad >> @/errors
    trap 'w || echo bad >> @/errors; exit 0' TERM; while :; do sleep 600 & wait $!; done";

#[test]
fn a_mount_ends_after_its_users_and_nothing_is_lost() {
    a_hundred_stops(rounds(5, 100));
}

fn a_hundred_stops(rounds: u32) {
    if !can() {
        return;
    }
    apart(|| {
        for round in 0..rounds {
            let services = Supervised::begin(&format!(
                "{}[service.it]\nafter = {{ vol = 'ready' }}\ncommand = '''{WRITER}'''\nlog = {{ file = '@/log' }}",
                daemon()
            ));
            services.until_state("it", "ready");
            assert!(is_mounted(&services.path("mnt")));
            let job = "n=0; w() { echo $n > mnt/job$n && echo $n >> saidjob; n=$((n+1)); }; w || echo bad >> errors
                trap 'w || echo bad >> errors; exit 0' TERM; touch up; while :; do sleep 600 & wait $!; done";
            let here = services.init.scratch.path().to_str().unwrap().to_string();
            services.init.must(&["exec", "-d", "-w", &here, "--", "sh", "-c", job]);
            services.until_there("up");
            services.until_text("said", "0\n");
            // Rounds of every kind: with a job, after a restart of the service, of the mount, of both at once.
            match round % 4 {
                1 => drop(services.init.must(&["restart", "it"])),
                2 => drop(services.init.must(&["stop", "it"])),
                _ => {}
            }
            let kept = tempfile::tempdir().unwrap();
            let Supervised { init, mark } = services;
            // What it was to leave is looked at when it has gone.
            let path = init.scratch.path().to_owned();
            let names = ["said", "saidjob", "errors", "log", "flushed", "backing", "mnt"];
            init.signal("TERM");
            let (code, log) = end_and_keep(init, &path, kept.path());
            assert_eq!(code, 0, "{round}: {log:?}");
            assert_eq!(marked(&mark), [0i32; 0], "{round}: {log:?}");
            let read = |name: &str| fs::read_to_string(kept.path().join(name)).unwrap_or_default();
            assert!(!is_mounted(&path), "{round}: {log:?}");
            // A shell may say that its `sleep` was terminated.
            let said = read("log").replace("Terminated\n", "");
            assert_eq!((read("errors"), said), (String::new(), String::new()), "{round}: {log:?}");
            assert!(!log.iter().any(|line| line.contains("lazily") || line.contains("not connected")), "{log:?}");
            assert!(kept.path().join("flushed").exists(), "{round}: {names:?}: {log:?}");
            for (said, kind) in [("said", "service"), ("saidjob", "job")] {
                let all = read(said);
                assert!(all.lines().count() >= 2, "{round}: {said}: {all:?} {log:?}");
                for number in all.lines() {
                    assert_eq!(read(&format!("backing/{kind}{number}")), format!("{number}\n"), "{round}: {log:?}");
                }
            }
        }
    });
}

/// Its directory is removed with it.
fn end_and_keep(mut init: Init, from: &Path, to: &Path) -> (i32, Vec<String>) {
    let code = status(wait(&mut init.child));
    run("cp", &["-a", &format!("{}/.", from.display()), to.to_str().unwrap()]);
    let (_, log) = init.end();
    (code, log)
}

#[test]
fn what_a_mount_needs_ends_after_it() {
    if !can() {
        return;
    }
    apart(|| {
        let services = Supervised::begin(&format!(
            "{}after = {{ proxy = 'ready' }}\n[service.proxy]
            command = '''trap 'ls @/flushed > @/../proxy-saw-$MARK 2>&1; exit 0' TERM; while :; do sleep 600 & wait $!; done'''
            [service.it]\nafter = {{ vol = 'ready' }}\ncommand = ['sleep', '600']",
            daemon()
        ));
        services.until_state("it", "ready");
        let path = services.path("mnt");
        let saw = services.init.scratch.path().parent().unwrap().join(format!("proxy-saw-{}", services.mark));
        let (code, log) = services.end();
        let said = fs::read_to_string(&saw).unwrap_or_default();
        let _ = fs::remove_file(saw);
        assert_eq!(code, 0, "{log:?}");
        assert!(!is_mounted(&path) && said.ends_with("flushed\n") && !said.contains("annot"), "{said} {log:?}");
    });
}

#[test]
fn a_mount_is_stopped_and_started_with_its_users() {
    if !can() {
        return;
    }
    apart(|| {
        let services = Supervised::begin(&format!(
            "{}[service.it]\nafter = {{ vol = 'ready' }}\ncommand = '''{WRITER}'''",
            daemon()
        ));
        services.until_state("it", "ready");
        services.init.must(&["stop", "vol"]);
        assert!(!is_mounted(&services.path("mnt")) && services.path("flushed").exists());
        assert_eq!((services.state("vol").as_str(), services.state("it").as_str()), ("stopped", "waiting"));
        services.init.must(&["start", "it"]);
        assert!(is_mounted(&services.path("mnt")));
        // Its server dies: the dead mount goes, and another one comes.
        run("kill", &["-9", &services.pid("vol").to_string()]);
        services.until_info("vol", "back", |info| info["restarts"] == 1 && info["state"] == "ready");
        services.init.must(&["exec", "--", "ls", services.path("mnt").to_str().unwrap()]);
        assert_eq!(services.text("errors"), "");
        assert_eq!(services.end().0, 0);
    });
}

/// Somebody outside lastout's tree holds it: it waits, says who, and goes when he does.
#[test]
fn who_holds_a_mount_is_named_and_waited_for() {
    if !can() {
        return;
    }
    apart(|| {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let services = Supervised::begin(&daemon());
        services.until_state("vol", "ready");
        let path = services.path("mnt");
        let mut holder = Command::new("sleep")
            .arg(format!("600.{}", NUMBER.fetch_add(1, Ordering::Relaxed)))
            .current_dir(&path)
            .spawn()
            .unwrap();
        services.init.signal("TERM");
        let line = services.init.log("is busy");
        assert!(line.contains(&holder.id().to_string()), "{line}");
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert_eq!(services.ended().0, 0);
        assert!(!is_mounted(&path));
    });
}
