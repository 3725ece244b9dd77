//! A real FUSE filesystem as a mount: its server in the foreground, a service and jobs on it.

use std::{
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use super::*;
use crate::support::hangfs::{HangFs, Op, apart, in_mountinfo};

/// Serves until it is unmounted; then writes what it has been given to `backing`, beside the mount: a slow flush.
#[test]
#[ignore = "not a test but a program"]
fn a_fuse_server_for_the_other_tests() {
    let Some(path) = std::env::var_os("LASTOUT_TEST_MOUNT") else { return };
    let path = PathBuf::from(path);
    let server = HangFs::mount_with_writeback(&path);
    let beside = |name: &str| path.parent().unwrap().join(name);
    let mut hangs = false;
    let is_mounted = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(4) == Some(&in_mountinfo(&path)))
    };
    while is_mounted() {
        if !hangs && beside("hang").exists() {
            hangs = true;
            server.freeze(&[Op::Lookup, Op::Getattr, Op::Open, Op::Read, Op::Write, Op::Flush, Op::Fsync]);
            fs::write(beside("hangs"), "").unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    }
    while beside("stay").exists() {
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
    fs::read_to_string("/proc/thread-self/mountinfo").unwrap().contains(&in_mountinfo(path))
}

fn can() -> bool {
    has("root") && has("fuse")
}

/// What writes, and when it is asked to end writes once more.
const WRITER: &str = "n=0; w() { echo $n > @/mnt/service$n && echo $n >> @/said && n=$((n+1)); }
    trap 'w || echo bad >> @/errors; exit 0' TERM; w || echo bad >> @/errors; while :; do sleep 600 & wait $!; done";

/// The mount, with more of its keys, and a service that writes on it.
fn with_writer(keys: &str) -> String {
    format!("{}{keys}\n[service.it]\nafter = {{ vol = 'ready' }}\ncommand = '''{WRITER}'''", daemon())
}

#[test]
fn a_mount_ends_after_its_users_and_nothing_is_lost() {
    a_hundred_stops(rounds(100, 1000));
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
            let job = "n=0; w() { echo $n > mnt/job$n && echo $n >> saidjob && n=$((n+1)); }; w || echo bad >> errors
                trap 'w || echo bad >> errors; exit 0' TERM; touch up; while :; do sleep 600 & wait $!; done";
            let here = services.init.scratch.path().to_str().unwrap().to_string();
            services.init.must(&["exec", "-d", "-w", &here, "--", "sh", "-c", job]);
            services.until_there("up");
            services.until_text("said", "0\n");
            // Rounds of every kind: as it is, after a restart of the service, its stop, a restart of the mount, of both at once.
            match round % 5 {
                1 => drop(services.init.must(&["restart", "it"])),
                2 => drop(services.init.must(&["stop", "it"])),
                3 => drop(services.init.must(&["restart", "vol"])),
                4 => {
                    let restart = |name| services.init.client(&["restart", name]).spawn().unwrap();
                    ["vol", "it"].map(restart).iter_mut().for_each(|client| assert_eq!(status(wait(client)), 0));
                }
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
        let services = Supervised::begin(&with_writer(""));
        services.until_state("it", "ready");
        services.init.must(&["stop", "vol"]);
        assert!(!is_mounted(&services.path("mnt")) && services.path("flushed").exists());
        assert_eq!((services.state("vol").as_str(), services.state("it").as_str()), ("stopped", "waiting"));
        services.init.must(&["start", "it"]);
        assert!(is_mounted(&services.path("mnt")));
        assert_eq!(services.text("errors"), "");
        // Its server dies: the dead mount goes, and another one comes.
        run("kill", &["-9", &services.pid("vol").to_string()]);
        services.until_info("vol", "back", |info| info["restarts"] == 1 && info["state"] == "ready");
        services.init.must(&["exec", "--", "ls", services.path("mnt").to_str().unwrap()]);
        assert_eq!(services.end().0, 0);
    });
}

/// What its users write when they are asked to end is refused by the dead mount, and does not go beneath it.
#[test]
fn nobody_writes_beneath_a_mount_whose_server_dies() {
    if !can() {
        return;
    }
    apart(|| {
        let services = Supervised::begin(&with_writer("backoff = { initial = '10ms' }"));
        services.until_state("it", "ready");
        services.until_text("said", "0\n");
        run("kill", &["-9", &services.pid("vol").to_string()]);
        services.until_info("it", "back", |info| info["restarts"] == 1 && info["state"] == "ready");
        assert_eq!(
            (services.text("errors").as_str(), services.text("said").as_str()),
            ("bad\n", "0\n0\n"),
            "its last write"
        );
        services.init.must(&["stop", "vol"]);
        let beneath: Vec<_> = fs::read_dir(services.path("mnt")).unwrap().collect();
        assert!(beneath.is_empty() && !is_mounted(&services.path("mnt")), "{beneath:?}");
        let (code, log) = services.end();
        assert_eq!(code, 0);
        assert!(!log.iter().any(|line| line.contains("lazily")), "{log:?}");
    });
}

#[test]
fn a_path_may_have_any_name() {
    if !can() {
        return;
    }
    apart(|| {
        let file = daemon()
            .replace("'@/mnt'", r#""@/m n\nt""#)
            .replace("['mkdir -p @/mnt']", r#"[["mkdir", "-p", "@/m n\nt"]]"#);
        let services = Supervised::begin(&format!(
            r#"{file}[service.it]
            after = {{ vol = "ready" }}
            command = ["sh", "-c", "echo x > \"$0\"; touch @/up; exec sleep 600", "@/m n\nt/service0"]"#
        ));
        services.until_there("up");
        let mounted = || is_mounted(&services.path("m n\nt"));
        assert!(mounted());
        services.init.must(&["stop", "vol"]);
        assert_eq!((mounted(), services.text("backing/service0").as_str()), (false, "x\n"));
        assert_eq!(services.end().0, 0);
    });
}

/// It takes no mount to show that.
#[test]
fn a_mount_that_never_comes_has_failed_and_so_has_who_needs_it() {
    let services = Supervised::begin(
        "[mount.vol]\npath = '@/mnt'\nsetup = ['mkdir -p @/mnt']\ncommand = ['sleep', '600']\nstart_timeout = '20ms'
        retries = 1\nbackoff = { initial = '10ms' }
        [service.it]\nafter = { vol = 'ready' }\ncommand = 'touch @/never'\n[service.hold]\ncommand = ['sleep', '600']",
    );
    services.until_state("it", "failed");
    let vol = services.info("vol");
    let (failed, not_ready) = ("failed".into(), "not_ready".into());
    assert_eq!((&vol["state"], &vol["restarts"], &vol["cause"]["kind"]), (&failed, &1.into(), &not_ready));
    assert!(!services.path("never").exists());
    assert_eq!(services.left().len(), 1);
    assert_eq!(services.end().0, 143);
}

/// Its server may live: what is written now is beneath the mount, so its users end first, and all starts anew.
#[test]
fn who_uses_a_mount_that_somebody_unmounts_starts_again_with_it() {
    if !can() {
        return;
    }
    apart(|| {
        let services = Supervised::begin(&with_writer("backoff = { initial = '10ms' }"));
        services.until_state("it", "ready");
        services.put("stay");
        run("umount", &[services.path("mnt").to_str().unwrap()]);
        services.until_state("it", "waiting");
        let (it, vol) = (services.info("it"), services.info("vol"));
        assert_eq!(
            (&it["cause"]["kind"], &vol["state"]),
            (&"dependency_failed".into(), &"ending".into()),
            "{it} {vol}"
        );
        fs::remove_file(services.path("stay")).unwrap();
        let back = services.until_info("it", "back", |info| info["restarts"] == 1 && info["state"] == "ready");
        let vol = services.info("vol");
        assert_eq!((&vol["restarts"], &vol["cause"]["kind"]), (&1.into(), &"unmounted".into()), "{back} {vol}");
        assert!(is_mounted(&services.path("mnt")));
        assert_eq!(services.end().0, 0);
    });
}

/// What was written cannot be, and who waits for it does not go by SIGKILL: the end of its server is the end of both.
#[test]
fn a_mount_whose_server_hangs_keeps_nobody() {
    if !can() {
        return;
    }
    let writes = "echo x > @/mnt/x; touch @/up; while :; do sleep 600 & wait $!; done";
    let reads =
        "echo x > @/mnt/x; touch @/up; until [ -e @/hangs ]; do sleep 0.01; done; touch @/reads; exec cat @/mnt/x";
    for (user, there) in [(writes, "hangs"), (reads, "reads")] {
        for role in [As::Pid1, As::Subreaper] {
            apart(|| {
                let file = format!(
                    "grace = '1s'\n{}[service.it]\nafter = {{ vol = 'ready' }}\ncommand = '''{user}'''",
                    daemon().replace("30s", "1s")
                );
                let services = Supervised::begin_as(role, &file);
                services.until_there("up");
                services.put("hang");
                services.until_there(there);
                let path = services.path("mnt");
                let (code, log) = services.end();
                assert!([0, 74].contains(&code), "{there} {role:?}: {code} {log:?}");
                assert!(!is_mounted(&path), "{there} {role:?}: {log:?}");
            });
        }
    }
}

/// Who is stuck on it goes only when its server does, which otherwise waits for him.
#[test]
fn a_mount_that_hangs_and_is_found_unhealthy_is_replaced_with_its_users() {
    if !can() {
        return;
    }
    apart(|| {
        let reads =
            "echo x > @/mnt/x; touch @/up; until [ -e @/hangs ]; do sleep 0.01; done; touch @/reads; exec cat @/mnt/x";
        let file = format!(
            "{}health = {{ command = 'test ! -e @/ill', every = '100ms', retries = 1 }}\nbackoff = {{ initial = '10ms' }}
            [service.it]\nafter = {{ vol = 'ready' }}\nstop = {{ grace = '100ms' }}\ncommand = '''{reads}'''",
            daemon().replace("30s", "1s")
        );
        let services = Supervised::begin(&file);
        services.until_there("up");
        services.put("hang");
        services.until_there("reads");
        for name in ["hang", "hangs", "up"] {
            fs::remove_file(services.path(name)).unwrap();
        }
        services.put("ill");
        services.until_info("vol", "ending", |info| info["state"] == "ending");
        fs::remove_file(services.path("ill")).unwrap();
        services.until_there("up");
        assert_eq!(services.info("vol")["restarts"], 1);
        let (code, log) = services.end();
        assert!([0, 74].contains(&code), "{code} {log:?}");
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

/// Somebody else's server, as it is packaged.
#[test]
fn a_mount_of_bindfs_ends_after_its_users_and_nothing_is_lost() {
    if !can() || !has("bindfs") {
        return;
    }
    apart(|| {
        let backing = tempfile::tempdir().unwrap();
        for (round, role) in [As::Subreaper, As::Pid1].into_iter().cycle().take(rounds(4, 100) as usize).enumerate() {
            let services = Supervised::begin_as(
                role,
                &format!(
                    "[mount.vol]\npath = '@/mnt'\nsetup = ['mkdir -p @/mnt']\ncommand = ['bindfs', '-f', '{}', '@/mnt']
                [service.it]\nafter = {{ vol = 'ready' }}\ncommand = '''{WRITER}'''\nlog = {{ file = '{}/log' }}",
                    backing.path().display(),
                    backing.path().display()
                ),
            );
            services.until_state("it", "ready");
            services.until_text("said", "0\n");
            // Slower than the service: the mount is to wait for both.
            let job =
                "trap 'sleep 0.2; echo job > mnt/job; exit 0' TERM; touch up; while :; do sleep 600 & wait $!; done";
            let here = services.init.scratch.path().to_str().unwrap().to_string();
            services.init.must(&["exec", "-d", "-w", &here, "--", "sh", "-c", job]);
            services.until_there("up");
            if round % 4 > 1 {
                services.init.must(&["restart", "vol"]);
            }
            let path = services.path("mnt");
            let (code, log) = services.end();
            assert_eq!(code, 0, "{round}: {log:?}");
            assert!(!is_mounted(&path) && !log.iter().any(|line| line.contains("lazily")), "{round}: {log:?}");
            for (name, text) in [("service0", "0\n"), ("service1", "1\n"), ("job", "job\n")] {
                let path = backing.path().join(name);
                assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "{round}: {name}: {log:?}");
                fs::remove_file(path).unwrap();
            }
            let said = fs::read_to_string(backing.path().join("log")).unwrap_or_default();
            assert_eq!(said.replace("Terminated\n", ""), "", "{round}: {log:?}");
        }
    });
}
