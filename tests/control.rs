//! The control directory and its FIFO: what is not as it should be is said, and costs nothing else.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::Path,
};

use crate::support::*;

const O_NONBLOCK: i32 = 0o4000;

fn refused(control: &Path, words: &str) {
    let output = lastout(&["--control", control.to_str().unwrap(), "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", both(&output));
    assert!(both(&output).contains(words), "{words}: {}", both(&output));
}

#[test]
fn a_named_directory_that_cannot_be_used_is_an_error_that_says_why() {
    let scratch = scratch();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("real")).unwrap();
    symlink(path("real"), path("link")).unwrap();
    refused(&path("link"), "symbolic link");
    fs::write(path("file"), "").unwrap();
    refused(&path("file"), "not a directory");
    refused(&path("missing/inner"), "directory above it does not exist");
    fs::create_dir(path("open")).unwrap();
    fs::set_permissions(path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    refused(&path("open"), "chmod 700");
    refused(Path::new("/proc/1"), "cannot use control directory");
    if has("root") {
        fs::create_dir(path("other")).unwrap();
        std::os::unix::fs::chown(path("other"), Some(12345), None).unwrap();
        refused(&path("other"), "belongs to uid 12345");
    }
    let init = Init::start(As::Subreaper, &[]);
    refused(&init.control(), "another lastout uses it");
}

#[test]
fn an_init_in_a_job_works_without_a_directory_of_its_own() {
    let init = Init::start(As::Subreaper, &[]);
    let output = init.ask(&["exec", "--", LASTOUT, "--", "sh", "-c", "exit 6"]);
    assert_eq!(output.status.code(), Some(6), "{}", both(&output));
    assert!(both(&output).contains("is another lastout's"), "{}", both(&output));
    // But what somebody set and cannot be used is an error.
    let output = lastout(&["--", "true"]).env("LASTOUT_CONTROL", "/nonexistent/x").output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", both(&output));
}

#[test]
fn without_a_usable_default_it_goes_on_and_says_so() {
    if !has("root") {
        return;
    }
    let script = format!(
        "for d in /run /tmp; do mount --bind $d $d && mount -o remount,bind,ro $d; done; exec {LASTOUT} -- sh -c 'exit 4'"
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).env_remove("LASTOUT_CONTROL").env_remove("XDG_RUNTIME_DIR");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", both(&output));
    assert!(both(&output).contains("no control directory"), "{}", both(&output));
}

#[test]
fn a_dead_inits_fifo_never_finds_a_reader_again() {
    // Or a client that waits for the next init would take the next one's first look at it for an init, which dies.
    let scratch = scratch();
    let control = scratch.path().join("c");
    fs::create_dir(&control).unwrap();
    fs::set_permissions(&control, fs::Permissions::from_mode(0o700)).unwrap();
    for _ in 0..100 {
        let fifo = control.join("control");
        let old = scratch.path().join("old");
        run("mkfifo", &[fifo.to_str().unwrap()]);
        fs::hard_link(&fifo, &old).unwrap();
        let mut init = lastout(&["--control", control.to_str().unwrap(), "--", "true"]).spawn().unwrap();
        while init.try_wait().unwrap().is_none() {
            for _ in 0..1000 {
                assert!(OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&old).is_err());
            }
        }
        fs::remove_file(&old).unwrap();
    }
}

#[test]
fn garbage_costs_a_few_lines_and_the_next_command_works() {
    let mut init = Init::start(As::Subreaper, &[]);
    let fifo = init.control().join("control");
    let open = || OpenOptions::new().write(true).open(&fifo).unwrap();
    let mut random = vec![0; 1 << 20];
    File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
    open().write_all(&random).unwrap();
    open().write_all(b"\n").unwrap();
    open().write_all(&[&vec![b'x'; 1 << 20][..], b"\n"].concat()).unwrap();
    open().write_all("no such command\n".repeat(100_000).as_bytes()).unwrap();
    // Half a line, and nothing after it: the next client's command is not swallowed.
    open().write_all(b"run touch ").unwrap();
    assert_eq!(init.must(&["exec", "--", "echo", "fine"]), "fine\n");
    open().write_all(b"run touc").unwrap();
    init.log("more lines like these were passed over");
    assert_eq!(init.must(&["exec", "--", "echo", "still"]), "still\n");
    let scratch = std::mem::replace(&mut init.scratch, scratch());
    init.signal("TERM");
    let (code, log) = init.end();
    assert_eq!(code, 0);
    assert!(log.len() < 40, "{} lines", log.len());
    drop(scratch);
}

#[test]
fn a_request_that_is_not_right_is_refused_with_its_reason() {
    let init = Init::start(As::Subreaper, &[]);
    let id = "0123456789abcdef0123456789abcdef";
    let request = init.control().join("requests").join(id);
    let ask = |make: &dyn Fn(&Path)| -> String {
        fs::create_dir(&request).unwrap();
        for name in ["reply", "stdout", "stderr"] {
            run("mkfifo", &[request.join(name).to_str().unwrap()]);
        }
        make(&request);
        let mut options = OpenOptions::new();
        let options = OpenOptionsExt::custom_flags(options.read(true), O_NONBLOCK);
        let mut reply = options.open(request.join("reply")).unwrap();
        fs::write(init.control().join("control"), format!("exec {id}\n")).unwrap();
        let mut said = String::new();
        until("a reply", || {
            let _ = reply.read_to_string(&mut said);
            said.ends_with('\n').then_some(())
        });
        let _ = fs::remove_dir_all(&request);
        said
    };
    let write = |text: &'static str| move |request: &Path| fs::write(request.join("request.json"), text).unwrap();
    for (text, words) in [
        ("{", "bad request"),
        (r#"{"version":9,"command":["true"]}"#, "version 9"),
        (r#"{"version":1,"command":[]}"#, "no command"),
        (r#"{"version":1,"command":["true"],"colour":1}"#, "colour"),
        (r#"{"version":1,"command":["true"],"stdin":true}"#, "cannot open stdin"),
    ] {
        let reply = ask(&write(text));
        assert!(reply.contains("refused") && reply.contains(words), "{text}: {reply}");
    }
    let reply = ask(&|_| {});
    assert!(reply.contains("cannot read request.json"), "{reply}");
    // Links are not followed.
    let reply = ask(&|request| symlink("/etc/hostname", request.join("request.json")).unwrap());
    assert!(reply.contains("cannot read request.json"), "{reply}");
    if has("root") {
        let reply = ask(&|request| {
            fs::write(request.join("request.json"), r#"{"version":1,"command":["true"]}"#).unwrap();
            std::os::unix::fs::chown(request.join("request.json"), Some(12345), None).unwrap();
        });
        assert!(reply.contains("not permitted"), "{reply}");
    }
}

#[test]
fn what_a_dead_init_left_does_not_stop_the_next() {
    let scratch = scratch();
    let control = scratch.path().join("control");
    let mut init = Init::start_in(scratch, As::Subreaper, &[]);
    init.child.kill().unwrap();
    init.child.wait().unwrap();
    assert!(control.join("control").exists());
    let output = init.ask(&["exec", "--", "true"]);
    assert!(both(&output).contains("its init is not running"), "{}", both(&output));
    // A plain file that a shell's `>` made where the FIFO was not yet.
    fs::remove_file(control.join("control")).unwrap();
    fs::write(control.join("control"), "run true\n").unwrap();
    let scratch = std::mem::replace(&mut init.scratch, crate::support::scratch());
    let again = Init::start_in(scratch, As::Subreaper, &[]);
    again.must(&["exec", "--", "true"]);
}

#[test]
fn what_is_not_its_own_stays_in_the_control_directory() {
    let scratch = scratch();
    let control = scratch.path().join("control");
    fs::create_dir_all(control.join("requests/mine")).unwrap();
    fs::create_dir_all(control.join("requests/00000000000000000000000000000001")).unwrap();
    fs::set_permissions(&control, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(control.join("requests/mine/thesis"), "mine").unwrap();
    fs::write(control.join("control"), "precious").unwrap();
    let output = lastout(&["--control", control.to_str().unwrap(), "--", "true"]).output().unwrap();
    assert!(output.status.success() && both(&output).contains("control.saved"), "{}", both(&output));
    assert_eq!(fs::read_to_string(control.join("requests/mine/thesis")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(control.join("control.saved")).unwrap(), "precious");
    assert!(!control.join("requests/00000000000000000000000000000001").exists());
    fs::remove_dir_all(control.join("jobs")).unwrap();
    fs::write(control.join("jobs"), "").unwrap();
    refused(&control, "jobs in it: not a directory");
}

#[test]
fn root_drives_another_users_init() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let control = scratch.path().join("control");
    fs::create_dir(&control).unwrap();
    fs::set_permissions(&control, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&control, Some(1000), Some(1000)).unwrap();
    // The binary where that user may execute it.
    let binary = scratch.path().join("lastout");
    fs::copy(LASTOUT, &binary).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args([
        "--reuid",
        "1000",
        "--regid",
        "1000",
        "--clear-groups",
        binary.to_str().unwrap(),
        "--control",
        control.to_str().unwrap(),
    ]);
    let mut init = command.env_remove("LASTOUT_CONTROL").spawn().unwrap();
    let output =
        lastout(&["exec", "--wait", "30", "--control", control.to_str().unwrap(), "--", "id", "-u"]).output().unwrap();
    assert_eq!(both(&output), "1000\n");
    assert!(lastout(&["shutdown", "--control", control.to_str().unwrap()]).status().unwrap().success());
    assert_eq!(wait(&mut init).code(), Some(0));
}

#[test]
fn nothing_that_a_terminal_obeys_gets_into_the_log() {
    let init = Init::start(As::Subreaper, &["-v"]);
    let forged = "/no\n2026-01-01T00:00:00Z SIGTERM from nobody\u{1b}[31m";
    let output = init.ask(&["exec", "--", forged]);
    assert_eq!(both(&output).lines().count(), 1, "{}", both(&output));
    let line = init.log("started as pid");
    let line = if line.contains("true") { init.log("cannot execute") } else { line };
    assert!(line.contains("\\n2026") && line.contains("\\u{1b}[31m"), "{line}");
    assert!(!init.must(&["events"]).contains('\u{1b}'));
}
