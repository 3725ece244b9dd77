//! What a place may lack: `/proc`, `/dev`, somewhere to write, descriptors, processes, standard streams. Each program that
//! lastout can be serves plainly or says what is missing; it never hangs, and never panics.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, Command, Stdio},
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
        let control = format!("LASTOUT_CONTROL={}", self.path("control").display());
        self.exit_with(7, name, &[&["env", &control][..], words].concat())
    }

    fn exit_with(&self, main: u8, name: &str, words: &[&str]) -> (i32, String) {
        let path = self.path(name);
        let mut all: Vec<&str> =
            words.iter().map(|word| if *word == "INIT" { path.to_str().unwrap() } else { word }).collect();
        if name == "tini" {
            all.push("-s");
        }
        let main = format!("exit {main}");
        all.extend(["--", "sh", "-c", &main]);
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

/// Who is it, and where: Bash's words after `bash -c`. Its `exec -a` keeps the name.
fn script(what: &str, prepare: &str) -> String {
    match what {
        // The program is where nothing can be read any more.
        "nowhere to write" => format!("exec 3<\"$1\"; {prepare}; shift; exec -a \"$0\" /proc/self/fd/3 \"$@\""),
        _ => format!("{prepare}; exec \"$@\""),
    }
}

fn namespaces(pid1: bool) -> &'static [&'static str] {
    if pid1 { &["unshare", "--mount", "--pid", "--fork", "--kill-child"] } else { &["unshare", "--mount"] }
}

#[test]
fn a_poor_place_is_good_enough_for_main() {
    if !has("root") {
        return;
    }
    let programs = Programs::new();
    let control = format!("LASTOUT_CONTROL={}", programs.path("control").display());
    for (what, prepare) in PLACES {
        let script = script(what, prepare);
        for (name, pid1, main) in
            NAMES.iter().flat_map(|name| [(name, true, 7), (name, false, 7), (name, true, 0), (name, false, 0)])
        {
            let control: &[&str] = if what == "nowhere to write" { &[] } else { &["env", &control] };
            let words = [control, namespaces(pid1), &["bash", "-c", &script, name, "INIT"]].concat();
            let (code, said) = programs.exit_with(main, name, &words);
            assert_eq!(code, i32::from(main), "{name}, {what}, PID 1: {pid1}: {said}");
            let warns = *name == "lastout" && what == "nowhere to write";
            assert_eq!(said.contains("no control directory"), warns, "{name}, {what}, PID 1: {pid1}: {said}");
        }
    }
}

/// One that holds.
struct Holding {
    child: Child,
    said: PathBuf,
}

impl Holding {
    /// By these words, which tell of what it says in `said`.
    fn start(words: &[&str], said: PathBuf) -> Holding {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_remove("LASTOUT_CONTROL").env_remove("LASTOUT_LOG").stdin(Stdio::null());
        let file = fs::File::create(&said).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Holding { child, said }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    /// SIGTERM, to the init. Answers with its exit code.
    fn stop(mut self, init: i32) -> (i32, String) {
        run("kill", &["-s", "TERM", &init.to_string()]);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wait(&mut self.child)));
        let said = self.said();
        let code = status(ended.unwrap_or_else(|_| panic!("it goes on: {said}")));
        assert!(!said.contains("panicked") && !said.contains("bare init"), "{said}");
        (code, said)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_poor_place_is_good_enough_for_jobs_and_services() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    // All that can be written there.
    let volume = Volume::mount(&scratch.path().join("volume"));
    fs::copy(LASTOUT, volume.path.join("lastout")).unwrap();
    let saver = |name| {
        format!("trap 'echo saved >/mnt/{name}; exit 0' TERM; echo >/mnt/{name}.up; while :; do sleep 0.05; done")
    };
    let service = format!("[service.it]\ncommand = ['sh', '-c', \"{}\"]", saver("service"));
    fs::write(volume.path.join("services"), service).unwrap();
    let place = "/mnt";
    for (what, prepare) in PLACES {
        for pid1 in [true, false] {
            let told = format!("{what}, PID 1: {pid1}");
            let script = format!("mount --bind {} {place}; {prepare}; exec \"$@\"", volume.path.display());
            let own = ["/mnt/lastout", "--control", "/mnt/control", "--config", "/mnt/services"];
            let words = [namespaces(pid1), &["bash", "-c", &script, "bash"], &own].concat();
            let holding = Holding::start(&words, scratch.path().join("said"));
            let control = volume.path.join("control");
            let on_host = [LASTOUT, "exec", "--wait", "30s", "--control", control.to_str().unwrap(), "--"];
            let hi = |client: &[&str], code: &str| {
                let script = format!("echo hi; exit {code}");
                let output = Command::new(client[0]).args(&client[1..]).args(["sh", "-c", &script]).output().unwrap();
                (status(output.status).to_string(), both(&output))
            };
            assert_eq!(hi(&on_host, "3"), ("3".into(), "hi\n".into()), "{told}: {}", holding.said());
            let outer = holding.child.id() as i32;
            let init = if pid1 { children(outer)[0] } else { outer };
            let target = init.to_string();
            let there =
                ["nsenter", "--mount", "--root", "--pid", "--target", &target, "/mnt/lastout", "exec", "--control"];
            let there = [&there[..], &["/mnt/control", "--"]].concat();
            for code in ["0", "4"] {
                assert_eq!(hi(&there, code), (code.into(), "hi\n".into()), "{told}: {}", holding.said());
            }
            run(LASTOUT, &["exec", "--control", control.to_str().unwrap(), "-d", "--", "sh", "-c", &saver("job")]);
            for name in ["service", "job"] {
                until(name, || volume.path.join(format!("{name}.up")).exists().then_some(()));
            }
            let (code, said) = holding.stop(init);
            assert_eq!(code, 0, "{told}: {said}");
            for name in ["service", "job"] {
                assert_eq!(fs::read_to_string(volume.path.join(name)).unwrap(), "saved\n", "{name}, {told}: {said}");
                [name, &format!("{name}.up")].iter().for_each(|name| fs::remove_file(volume.path.join(name)).unwrap());
            }
            assert!(!fs::exists(volume.path.join("control/control")).unwrap(), "{told}: {said}");
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

/// Nobody else has this number.
const AS_NOBODY: [&str; 6] = ["setpriv", "--reuid", "64321", "--regid", "64321", "--clear-groups"];

#[test]
fn who_may_have_no_process_holds_and_says_so_to_its_clients() {
    if !has("root") {
        return;
    }
    let programs = Programs::new();
    let lastout = programs.path("lastout");
    let lastout = lastout.to_str().unwrap();
    // Theirs.
    run("chown", &["64321", programs.0.path().to_str().unwrap()]);
    let control = programs.path("control");
    let control = control.to_str().unwrap();
    for own in [&[][..], &["--pid-namespace"]] {
        // A machine's own FUSE volumes would be synced by processes, too, and 74 says that they were not.
        let init = ["prlimit", "--nproc=1", lastout, "--control", control, "--sync", "none"];
        let words = [&AS_NOBODY[..], &init, own].concat();
        let holding = Holding::start(&words, programs.path("said"));
        let job = [lastout, "exec", "--wait", "30s", "--control", control, "--", "true"];
        let output = Command::new(AS_NOBODY[0]).args(&AS_NOBODY[1..]).args(job).output().unwrap();
        assert_eq!(status(output.status), 125, "{own:?}: {}{}", both(&output), holding.said());
        assert!(both(&output).contains("resource temporarily unavailable"), "{own:?}: {}", both(&output));
        let init = holding.child.id() as i32;
        let (code, said) = holding.stop(init);
        assert_eq!(code, 0, "{own:?}: {said}");
        let warning = "no PID namespace of its own (cannot make one: resource temporarily unavailable)";
        assert_eq!(said.contains(warning), !own.is_empty(), "{own:?}: {said}");
    }
    // With a main it does not hold.
    let words = [&AS_NOBODY[..], &["prlimit", "--nproc=1", "INIT", "--pid-namespace"]].concat();
    let (code, said) = programs.exit_7("lastout", &words);
    assert_eq!(code, 125, "{said}");
    assert!(said.contains("going on as a subreaper") && said.contains("resource temporarily unavailable"), "{said}");
}

#[test]
fn who_may_have_no_process_says_so() {
    if !has("root") {
        return;
    }
    let programs = Programs::new();
    for (name, failure) in NAMES.into_iter().zip([125, 1, 1, 1]) {
        let words = [&AS_NOBODY[..], &["prlimit", "--nproc=1", "INIT"]].concat();
        let (code, said) = programs.exit_with(7, name, &words);
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
