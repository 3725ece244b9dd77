//! Nothing lost: what a job has acknowledged is on the volume, and the acknowledgement has reached its client.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::support::*;

/// A process that a failing test does not leave.
struct Ours(Child);

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A mount namespace for one test's mounts, so that no other test's namespaces have copies of them.
struct Mounts(Ours);

impl Mounts {
    fn new() -> Mounts {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", "echo up; exec sleep infinity"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(lines(child.stdout.take().unwrap()).recv_timeout(PATIENCE).unwrap(), "up");
        Mounts(Ours(child))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.0.0.id().to_string()]).args(words).stdin(Stdio::null());
        command.env_remove("LASTOUT_CONTROL").env_remove("LASTOUT_LOG");
        command
    }

    fn must(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", both(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// What ends the job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    Term,
    Shutdown,
    Job,
    KillClient,
    Timeout,
}

const STOPS: [Stop; 5] = [Stop::Term, Stop::Shutdown, Stop::Job, Stop::KillClient, Stop::Timeout];

fn random(below: u64) -> u64 {
    RandomState::new().hash_one(0) % below
}

/// What was acknowledged, and whether the job said that it was all.
fn acknowledged(said: &[String]) -> (u32, bool) {
    match said.last().map(|line| line.split_whitespace().collect::<Vec<_>>()).as_deref() {
        None => (0, false),
        Some([number]) => (number.parse().unwrap(), false),
        Some(["last", number]) => (number.parse().unwrap(), true),
        other => panic!("{other:?}"),
    }
}

/// One stop at a random moment. Answers with how many records there were.
fn stop_once(mounts: &Mounts, scratch: &Path, role: As, stop: Stop, deaf: bool) -> u32 {
    let path = |name: &str| scratch.join(name).to_str().unwrap().to_string();
    let (image, volume, control, counter) = (path("image"), path("volume"), path("c"), path("counter"));
    let file = format!("{volume}/journal");
    mounts.must(&["mount", "-o", "loop", &image, &volume]);

    let pid1 = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let as_role = if role == As::Pid1 { &pid1[..] } else { &[] };
    let grace = if deaf { "20ms" } else { "30s" };
    let init = [as_role, &[LASTOUT, "--grace", grace, "--control", &control]].concat();
    let mut init = Ours(mounts.command(&init).stderr(Stdio::piped()).spawn().unwrap());

    let log = lines(init.0.stderr.take().unwrap());

    let client = |args: &[&str]| {
        let mut command = lastout(args);
        command.env("LASTOUT_CONTROL", &control);
        command
    };
    let timeout = format!("{}ms", 1 + random(100));
    let mut exec = vec!["exec", "--wait", "30", "--name", "journal"];
    if stop == Stop::Timeout {
        exec.extend(["--timeout", &timeout]);
    }
    let journal = FIXTURES.join("journal");
    exec.extend(["--", journal.to_str().unwrap(), &file, &counter]);
    exec.extend(deaf.then_some("deaf"));
    let mut exec = client(&exec).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let stdout = exec.stdout.take().unwrap();
    let written = || Some(u32::from_ne_bytes(fs::read(&counter).ok()?.try_into().ok()?));
    // Our reader is slow sometimes: then acknowledgements wait in the client's pipe and in the job's FIFO.
    let (slow, mut stdout) = (random(2) == 0, Some(stdout));
    let mut come = if slow { None } else { stdout.take().map(lines) };
    if stop != Stop::Timeout {
        // No more than pipes take, if nobody reads.
        let records = random(if slow { 20 } else { 60 }) as u32;
        until("records", || written().filter(|written| *written >= records));
        sleep(Duration::from_micros(random(5000)));
    }
    let mut stopping = match stop {
        Stop::Term => {
            let pid = init.0.id() as i32;
            let pid = if role == As::Pid1 { children(pid)[0] } else { pid };
            Command::new("kill").arg(pid.to_string()).spawn().unwrap()
        }
        Stop::Shutdown => client(&["shutdown"]).spawn().unwrap(),
        Stop::Job => client(&["stop", "journal"]).spawn().unwrap(),
        Stop::KillClient => Command::new("kill").args(["-KILL", &exec.id().to_string()]).spawn().unwrap(),
        Stop::Timeout => Command::new("true").spawn().unwrap(),
    };
    if slow {
        sleep(Duration::from_millis(random(50)));
    }
    let come = come.take().unwrap_or_else(|| lines(stdout.take().unwrap()));
    let mut said: Vec<String> = come.iter().collect();
    said.iter_mut().for_each(|line| line.truncate(line.trim_end().len()));
    assert!(wait(&mut stopping).success());
    let code = status(wait(&mut exec));
    if matches!(stop, Stop::Job | Stop::KillClient | Stop::Timeout) {
        assert!(client(&["shutdown"]).status().unwrap().success());
    }
    assert_eq!(status(wait(&mut init.0)), 0);
    let log: Vec<String> = log.iter().collect();
    // Not even when its end crosses the order to end.
    assert!(!log.iter().any(|line| line.contains("keeper died")), "{role:?} {stop:?} deaf {deaf}: {log:#?}");

    // One try: nothing holds it. What was read before is not what is on the disk.
    mounts.must(&["umount", &volume]);
    mounts.must(&["mount", "-o", "loop", &image, &volume]);
    let script = "[ ! -e \"$0\" ] || { cat \"$0\"; rm \"$0\"; }";
    let records = mounts.must(&["sh", "-c", script, &file]);
    mounts.must(&["umount", &volume]);

    let there = u32::try_from(records.lines().count()).unwrap();
    let whole: String = (1..=there).map(|number| format!("{number}\n")).collect();
    let (last, all) = acknowledged(&said);
    let written = written().unwrap_or(0);
    let _ = fs::remove_file(&counter);
    said.drain(..said.len().saturating_sub(3));
    let what = format!(
        "{role:?} {stop:?} deaf {deaf} slow {slow}: code {code}, {there} records, {written} acknowledged, {last} came: {said:?}"
    );
    assert_eq!(records, whole, "{what}");
    assert!(last <= there && written <= there, "{what}");
    // A dead client gets nothing; every other one gets every word.
    assert!(stop == Stop::KillClient || last >= written, "{what}");
    if !deaf && stop != Stop::KillClient && there > 0 {
        assert!(all && last == there, "{what}");
    }
    there
}

#[test]
fn every_acknowledged_record_is_there_after_a_stop_at_any_moment() {
    if !(has("root") && has("cc") && has("ext4")) {
        return;
    }
    let scratch = scratch();
    let image = scratch.path().join("image");
    run("truncate", &["--size", "16M", image.to_str().unwrap()]);
    run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
    fs::create_dir(scratch.path().join("volume")).unwrap();
    let mounts = Mounts::new();
    let ways = [false, true].into_iter().flat_map(|deaf| {
        STOPS.into_iter().flat_map(move |stop| [As::Subreaper, As::Pid1].map(|role| (role, stop, deaf)))
    });
    let (mut stops, mut records) = (0, 0);
    for (role, stop, deaf) in ways.cycle().take(rounds(20, 1000) as usize) {
        records += stop_once(&mounts, scratch.path(), role, stop, deaf);
        stops += 1;
    }
    println!("{stops} stops, {records} records, none lost");
}
