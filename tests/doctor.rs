//! `lastout doctor` and `lastout orphans`: what they find, and that they never hang themselves.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    hangfs::{HangFs, Op, apart, mount_connections},
    *,
};

/// Far more than it ever takes, far less than a hang.
const SOON: Duration = Duration::from_secs(20);

fn page(output: &Output) -> String {
    let page = String::from_utf8(output.stdout.clone()).unwrap();
    let wide: Vec<&str> = page.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "wider than 80 columns: {wide:#?}");
    assert!(!page.contains('\x1b'), "colour is for terminals");
    page
}

/// The page as one line, so that words can be looked for wherever they were broken.
fn unwrapped(page: &str) -> String {
    page.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", both(output)))
}

fn of<'a>(volume: &Path, report: &'a Value) -> &'a Value {
    let volumes = report["volumes"].as_array().unwrap();
    volumes.iter().find(|one| one["path"] == volume.to_str().unwrap()).unwrap_or_else(|| panic!("{report:#}"))
}

/// Asks until the condition holds.
fn asked<T>(init: &Init, args: &[&str], what: &str, mut condition: impl FnMut(&Value) -> Option<T>) -> T {
    let args = [&["doctor", "--json"], args].concat();
    until(what, || condition(&json(&init.ask(&args))))
}

#[test]
fn every_kind_of_holder_is_found_with_its_path_and_lock() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    let volume = Volume::mount(&scratch.path().join("volume"));
    let at = volume.path.to_str().unwrap();
    run("sh", &["-c", "cd $0; cp /bin/sleep program; echo x > mapped; mkdir dir; cp -a /bin/sleep dir/", at]);
    let init = Init::start(As::Subreaper, &[]);
    let leader_ends = match std::env::consts::ARCH {
        "x86_64" => "syscall(60, 0)",
        _ => "syscall(93, 0)",
    };
    let jobs = [
        "cd $0; exec sleep 300".to_string(),
        "exec 7>$0/opened; exec sleep 300".into(),
        "exec 8>$0/gone; rm $0/gone; exec sleep 300".into(),
        "exec $0/program 300".into(),
        "exec perl -e 'open F, \"<:mmap\", \"$ARGV[0]/mapped\"; read F, $x, 1; use POSIX; POSIX::close(fileno F); sleep 300' $0".into(),
        "exec flock $0/locked sleep 300".into(),
        "exec perl -e 'chroot $ARGV[0]; $SIG{TERM} = \"DEFAULT\"; sleep 300' $0".into(),
        format!("cd $0; exec perl -Mthreads -e 'threads->create(sub {{ sleep 300 }}); {leader_ends}'"),
    ];
    for job in &jobs {
        init.must(&["exec", "-d", "--", "sh", "-c", job, at]);
    }
    let holds = |report: &Value, how: &str, path: &str| {
        let holders = of(&volume.path, report)["holders"].as_array().unwrap().clone();
        let path = volume.path.join(path).display().to_string();
        let is = |holder: &Value| holder["how"] == how || holder["how"].get(how).is_some();
        holders.into_iter().find(|holder| is(holder) && holder["path"] == path.as_str().trim_end_matches('/'))
    };
    let all = |report: &Value| {
        for (how, path) in
            [("cwd", ""), ("fd", "opened"), ("fd", "gone"), ("exe", "program"), ("map", "mapped"), ("root", "")]
        {
            holds(report, how, path)?;
        }
        let holders = of(&volume.path, report)["holders"].as_array().unwrap();
        holders.iter().find(|holder| holder["thread"].is_number())?;
        holds(report, "fd", "locked").filter(|holder| holder["lock"].is_object())?;
        Some(report.clone())
    };
    let report = asked(&init, &[at], "every holder", all);
    assert_eq!(report["volumes"].as_array().unwrap().len(), 1, "only what was asked for");
    assert_eq!(holds(&report, "fd", "gone").unwrap()["deleted"], true);
    assert_eq!(holds(&report, "fd", "locked").unwrap()["lock"]["kind"], "FLOCK");

    // Somebody who waits for the lock, and whose it is.
    init.must(&["exec", "-d", "--", "flock", volume.path.join("locked").to_str().unwrap(), "true"]);
    asked(&init, &[at], "the one who waits", |report| report["lock_waits"].get(0).cloned());
    let output = init.ask(&["doctor", at]);
    assert_eq!(output.status.code(), Some(0), "{}", both(&output));
    let page = page(&output);
    assert!(page.starts_with("nothing hangs\n"), "{page}");
    let words = unwrapped(&page);
    assert!(words.contains(&format!("waits for a FLOCK write lock of {at}/locked: pid")), "{page}");
    assert!(words.contains("(flock) has it") && words.contains(&format!("fd 8 {at}/gone, deleted")), "{page}");
    init.must(&["shutdown"]);
    volume.unmount().unwrap();
}

#[test]
fn a_zombie_is_told_with_its_parent_and_a_job_with_its_name() {
    let init = Init::start(As::Subreaper, &["--", "sleep", "300"]);
    init.must(&["exec", "-d", "--name", "careless", "--", "perl", "-e", "fork || exit; sleep 300"]);
    let report = asked(&init, &[], "the zombie", |report| report["zombies"].get(0).map(|_| report.clone()));
    assert_eq!(report["zombies"][0]["parent_comm"], "perl");
    let roles: Vec<&str> = report["processes"].as_array().unwrap().iter().filter_map(|p| p["role"].as_str()).collect();
    for role in ["init", "main", "keeper of j2", "j2 careless"] {
        assert!(roles.contains(&role), "{role}: {roles:?}");
    }
    let output = init.ask(&["doctor"]);
    let page = page(&output);
    assert!(unwrapped(&page).contains("(perl) has not reaped pid"), "{page}");
    assert_eq!(output.status.code(), Some(0), "{page}");
    init.must(&["shutdown"]);
}

/// What a job does, what is frozen, and what the doctor is to say of it.
const HANGS: [(&str, Op, &str, &str); 7] = [
    ("exec cat $0/file", Op::Read, "file", "hangs in read of $0/file on $0 (fuse"),
    ("exec cat $0/other", Op::Open, "other", "hangs in openat of $0/other on $0 (fuse"),
    ("cd $0; exec stat ./seen", Op::Lookup, "seen", " of $0/seen on $0 (fuse"),
    ("exec $0/program", Op::Read, "program", "hangs in execve of $0/program on $0 (fuse"),
    ("exec dd if=/dev/zero of=$0/written count=1", Op::Write, "written", "hangs in write of $0/written on $0 (fuse"),
    // Which one, nobody knows any more; other tests' volumes may be named as well.
    ("exec perl -e 'open F, \">\", \"$ARGV[0]/flushed\"; kill 9, $$' $0", Op::Flush, "flushed", "$0 (fuse)"),
    ("exec 5>$0/closed; sleep 300", Op::Flush, "closed", "hangs in close, probably on $0 (fuse"),
];

#[test]
fn a_hang_is_named_with_its_file_its_volume_and_its_time() {
    if !has("fuse") || !has("root") {
        return;
    }
    mount_connections();
    apart(hangs_are_named);
}

fn hangs_are_named() {
    for role in [As::Subreaper, As::Pid1] {
        for (script, op, file, words) in HANGS {
            let scratch = scratch();
            let volume = HangFs::mount(&scratch.path().join("volume"));
            for name in ["file", "other", "seen"] {
                volume.put(name, b"contents", 0o666);
            }
            volume.put("program", &fs::read("/bin/true").unwrap(), 0o755);
            let at = volume.path.to_str().unwrap().to_string();
            let init = Init::start(role, &["--sync", "none"]);
            volume.freeze(&[op]);
            init.must(&["exec", "-d", "--", "sh", "-c", script, &at]);
            volume.until_waiting(op, file);
            let begun = Instant::now();
            let output = init.ask(&["doctor"]);
            assert!(begun.elapsed() < SOON, "the doctor does not hang");
            assert_eq!(output.status.code(), Some(1), "{}", both(&output));
            let page = page(&output);
            let whole = unwrapped(&page);
            // Long paths are broken wherever they must be.
            let joined = whole.replace(' ', "");
            assert!(joined.contains(&words.replace("$0", &at).replace(' ', "")), "{script}: {words}\n{page}");
            assert_eq!(whole.contains(", exiting) hangs, probably on "), file == "flushed", "{script}\n{page}");
            assert!(whole.contains(", in ") && whole.contains(", for "), "{script}\n{page}");
            volume.thaw();
            init.must(&["shutdown"]);
        }
    }
}

#[test]
fn a_page_fault_names_the_volume_that_is_mapped() {
    if !has("fuse") || !has("root") {
        return;
    }
    apart(a_page_fault_is_named);
}

fn a_page_fault_is_named() {
    let scratch = scratch();
    let volume = HangFs::mount(&scratch.path().join("volume"));
    volume.put("mapped", &vec![b'x'; 1 << 20], 0o666);
    let at = volume.path.join("mapped").display().to_string();
    let init = Init::start(As::Subreaper, &["--sync", "none"]);
    volume.freeze(&[Op::Read]);
    let script = "open F, '<:mmap', $ARGV[0]; read F, $x, 1; sleep 300";
    init.must(&["exec", "-d", "--", "perl", "-e", script, &at]);
    volume.until_waiting(Op::Read, "mapped");
    let output = init.ask(&["doctor"]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    let page = page(&output);
    let joined = unwrapped(&page).replace(' ', "");
    assert!(joined.contains(&format!("hangsinpagefaulton{}(fuse", volume.path.display())), "{page}");
    volume.thaw();
    init.must(&["shutdown"]);
}

#[test]
fn a_volume_that_does_not_answer_is_an_answer() {
    if !has("fuse") || !has("root") {
        return;
    }
    apart(a_volume_does_not_answer);
}

fn a_volume_does_not_answer() {
    let scratch = scratch();
    let volume = HangFs::mount(&scratch.path().join("volume"));
    let init = Init::start(As::Subreaper, &["--sync", "none"]);
    volume.freeze(&[Op::Statfs]);
    let begun = Instant::now();
    let output = init.ask(&["doctor"]);
    assert!(begun.elapsed() < SOON);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    let page = page(&output);
    let joined = unwrapped(&page).replace(' ', "");
    assert!(joined.contains(&format!("{}doesnotanswer", volume.path.display())), "{page}");
    assert!(joined.contains("askedforitsfreespace"), "{page}");
    // As a path that is asked for, and even as the control directory: nothing touches it.
    volume.freeze(&[Op::Lookup, Op::Statfs, Op::Getattr, Op::Opendir]);
    let inner = volume.path.join("a/b").display().to_string();
    let output = init.ask(&["doctor", "--json", &inner]);
    assert_eq!(json(&output)["volumes"].as_array().unwrap().len(), 1);
    let output = lastout(&["doctor", "--control", &inner, &inner]).output().unwrap();
    assert!(both(&output).contains("control directory does not answer"), "{}", both(&output));
    assert!(begun.elapsed() < SOON * 2);
    volume.thaw();
}

#[test]
fn an_init_that_does_not_answer_is_an_answer() {
    let init = Init::start(As::Subreaper, &["--", "sleep", "300"]);
    init.signal("STOP");
    let output = init.ask(&["doctor"]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    let page = page(&output);
    assert!(page.contains("the init does not answer") && page.contains("sleep 300"), "{page}");
    // And nobody's orphans are guessed.
    let output = orphans(&init, &["--kill"]);
    assert_eq!(output.status.code(), Some(125), "{}", both(&output));
    init.signal("CONT");
    assert!(init.must(&["doctor"]).starts_with("nothing hangs"));
    init.must(&["shutdown"]);
}

#[test]
fn from_the_host_it_sees_the_containers_processes_under_both_numbers() {
    if !has("root") {
        return;
    }
    let init = Init::start(As::Pid1, &["--", "sleep", "300"]);
    let report = json(&init.ask(&["doctor", "--json"]));
    let processes = report["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 2, "{report:#}");
    assert_eq!((&processes[0]["pid"], &processes[0]["inside"]), (&init.pid.into(), &1.into()));
    assert_eq!(processes[1]["role"], "main");
    // In the container the numbers are the container's.
    let control = init.control();
    let args = ["exec", "--", LASTOUT, "doctor", "--json", "--control", control.to_str().unwrap()];
    let inside = json(&init.ask(&args));
    assert_eq!(inside["init"]["pid"], 1);
    assert!(inside["processes"].as_array().unwrap().iter().all(|process| process["inside"].is_null()), "{inside:#}");
}

#[test]
fn an_ordinary_user_is_told_what_cannot_be_inspected_and_what_it_would_take() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = scratch.path().join("lastout");
    fs::copy(LASTOUT, &binary).unwrap();
    let mut mine = Command::new("sleep").arg("300").spawn().unwrap();
    let user = ["--reuid=1234", "--regid=1234", "--clear-groups", "--"];
    let ask = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(user).arg(&binary).args(args).env_remove("LASTOUT_CONTROL").env_remove("XDG_RUNTIME_DIR");
        command.output().unwrap()
    };
    let none = scratch.path().join("none").display().to_string();
    let output = ask(&["doctor", "--control", &none]);
    let page = page(&output);
    assert!(page.contains("CANNOT INSPECT") && page.contains("init: none"), "{page}");
    let report = json(&ask(&["doctor", "--json", "--control", &none]));
    let of_mine = report["unseen"].as_array().unwrap().iter().find(|one| one["pid"] == mine.id());
    let why = of_mine.and_then(|one| one["why"].as_str()).unwrap_or_else(|| panic!("{report:#}"));
    assert!(why.contains("runs as uid 0 and we as uid 1234: needs CAP_SYS_PTRACE"), "{why}");
    let output = ask(&["orphans", "--control", &none]);
    assert!(both(&output).contains("cannot inspect"), "{}", both(&output));
    assert_eq!(output.status.code(), Some(0), "{}", both(&output));
    mine.kill().unwrap();
    mine.wait().unwrap();
}

/// Only those of this init's directory: the machine has others.
fn orphans(init: &Init, args: &[&str]) -> Output {
    init.ask(&[&["orphans", "--control", init.control().to_str().unwrap()], args].concat())
}

#[test]
fn what_the_engine_left_below_an_init_is_an_orphan_and_ended_only_when_asked() {
    if !has("root") {
        return;
    }
    let init = Init::start(As::Pid1, &[]);
    init.must(&["exec", "-d", "--", "sleep", "300"]);
    assert_eq!(orphans(&init, &[]).status.code(), Some(0));
    let mark = mark("left");
    let script = format!("(trap '' TERM; while :; do sleep 1; done) >/dev/null 2>&1 & : {mark}");
    run("nsenter", &["-t", &init.pid.to_string(), "--pid", "--mount", "sh", "-c", &script]);
    let output = until("the orphan", || Some(orphans(&init, &["--json"])).filter(|o| o.status.code() == Some(1)));
    let answer = json(&output);
    assert_eq!(answer["orphans"][0]["init_lives"], true, "{answer:#}");
    assert!(is_running(&mark), "dry by default");
    let output = orphans(&init, &["--kill", "--grace", "100ms"]);
    assert_eq!(output.status.code(), Some(0), "{}", both(&output));
    assert!(!is_running(&mark));
    assert_eq!(init.must(&["ps"]).lines().count(), 2, "the job was left alone");
}

#[test]
fn while_main_lives_its_own_orphans_are_its_own() {
    let init = Init::start(As::Subreaper, &["--", "sh", "-c", "(setsid sleep 300 &); exec sleep 299"]);
    until("main's orphan", || (children(init.pid).len() == 2).then_some(()));
    let output = orphans(&init, &["--kill"]);
    assert_eq!((output.status.code(), both(&output).contains("sleep")), (Some(0), false), "{}", both(&output));
    assert_eq!(children(init.pid).len(), 2);
    init.must(&["shutdown"]);
}

/// An init that was killed with its keeper, so that nobody ended its job.
fn killed_with_a_job(mark: &str) -> tempfile::TempDir {
    let mut init = Init::start(As::Subreaper, &[]);
    let script = format!("setsid sh -c 'sleep 300; : {mark}' & setsid env -i sh -c 'sleep 300; : {mark}' & wait");
    init.must(&["exec", "-d", "--", "sh", "-c", &script]);
    until("the whole job", || (running(mark).len() == 3).then_some(()));
    // Neither is to see the other's end.
    init.signal("STOP");
    run("kill", &["-KILL", &children(init.pid)[0].to_string()]);
    init.child.kill().unwrap();
    init.child.wait().unwrap();
    std::mem::replace(&mut init.scratch, scratch())
}

fn with_only_the_directory(control: &Path) -> Child {
    Command::new("sleep").arg("300").env("LASTOUT_CONTROL", control).spawn().unwrap()
}

#[test]
fn a_dead_lastouts_jobs_are_found_by_their_marks() {
    let mark = mark("dead");
    let scratch = killed_with_a_job(&mark);
    let control = scratch.path().join("control");
    // What README tells people to export in their shells is no mark.
    let mut shell = with_only_the_directory(&control);
    let ask = |args: &[&str]| lastout(&[args, &["--control", control.to_str().unwrap()]].concat()).output().unwrap();
    let output = ask(&["orphans"]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    let page = page(&output);
    assert!(page.contains("its init has gone") && page.contains(" j2 "), "{page}");
    assert_eq!(running(&mark).len(), 3, "dry by default");
    let output = ask(&["orphans", "--kill", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", both(&output));
    assert!(json(&output)["left"].as_array().unwrap().is_empty());
    assert!(!is_running(&mark));
    assert!(shell.try_wait().unwrap().is_none(), "a shell is nobody's orphan");
    assert_eq!(ask(&["orphans"]).status.code(), Some(0));
    shell.kill().unwrap();
    shell.wait().unwrap();
}

#[test]
fn a_new_init_in_the_same_directory_hides_no_orphan_and_loses_no_job() {
    let mark = mark("again");
    let init = Init::start_in(killed_with_a_job(&mark), As::Subreaper, &[]);
    init.must(&["exec", "-d", "--", "sleep", "300"]);
    let output = orphans(&init, &["--kill"]);
    assert_eq!(output.status.code(), Some(0), "{}", both(&output));
    assert!(!is_running(&mark), "{}", both(&output));
    assert_eq!(init.must(&["ps"]).lines().count(), 2, "its own job runs");
}
