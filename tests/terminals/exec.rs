//! A job with a terminal: keys, job control, sizes, the user, what is refused.

use std::{fs, path::PathBuf, process::Stdio};

use crate::support::{pty::*, *};

/// Says its size at first and whenever it is another, when it goes on after a stop, and which signals it gets.
const WATCHER: &str = r#"
    $| = 1;
    sub size { my $size = `stty size`; chomp $size; print "<size $size>\n" }
    $SIG{WINCH} = \&size;
    $SIG{CONT} = sub { print "<again>\n" };
    $SIG{USR1} = sub { print "<usr1>\n" };
    size();
    print "<up>\n";
    sleep 1 while 1;
"#;

pub(super) fn watcher(init: &Init) -> PathBuf {
    watcher_in(&init.scratch)
}

pub(super) fn watcher_in(scratch: &tempfile::TempDir) -> PathBuf {
    let path = scratch.path().join("watcher");
    fs::write(&path, WATCHER).unwrap();
    path
}

/// The roles that this machine can play.
pub(super) fn roles() -> impl Iterator<Item = As> {
    [As::Subreaper, As::Pid1].into_iter().filter(|role| *role == As::Subreaper || has("root"))
}

#[test]
fn a_shell_in_it_has_job_control_and_the_windows_size() {
    for role in roles() {
        let init = Init::start(role, &[]);
        let watcher = watcher(&init);
        let mut pty = Pty::open();
        let before = pty.modes();
        let mut client =
            init.client(&["exec", "-it", "-e", "PS1=ready> ", "--", "bash", "--norc", "--noprofile", "-i"]);
        let mut child = pty.start(client.env("TERM", "vt100"));
        pty.expect("ready> ");
        pty.enter("tty; echo $TERM $((6 * 7)); stty size");
        let said = pty.expect("37 101");
        assert!(said.contains("/dev/pts/") && said.contains("vt100 42"), "{said}");
        pty.expect("ready> ");
        pty.enter(&format!("perl {}", watcher.display()));
        pty.expect("<size 37 101>\r\n<up>\r\n");
        pty.resize(120, 50);
        pty.expect("<size 50 120>");
        pty.type_in(SUSPEND);
        pty.expect("Stopped");
        pty.expect("ready> ");
        pty.enter("jobs; fg");
        pty.expect("<again>");
        pty.type_in(INTERRUPT);
        pty.expect("ready> ");
        pty.enter("echo code=$?");
        pty.expect("code=130\r\n");
        pty.expect("ready> ");
        pty.enter("exit 7");
        assert_eq!(pty.end(&mut child).0, 7);
        assert_eq!(pty.modes(), before);
    }
}

#[test]
fn all_that_it_writes_is_shown_and_its_code_is_told() {
    let init = Init::start(As::Subreaper, &[]);
    for round in 0..20 {
        let mut pty = Pty::open();
        // A daemon that still has the terminal is no reason to wait, and takes nothing of it along.
        let script = format!("(setsid sleep 1000 &); perl -e 'print \"$_\\n\" for 1..5000'; echo last; exit {round}");
        let mut child = pty.start(&init.client(&["exec", "-it", "--", "sh", "-c", &script]));
        let (code, shown) = pty.end(&mut child);
        let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
        let expected: Vec<String> = (1..=5000).map(|line| line.to_string()).chain(["last".into()]).collect();
        assert!(lines == expected, "{} lines, {:?}", lines.len(), lines.last());
        assert_eq!(code, round);
    }
}

#[test]
fn the_three_streams_are_one_terminal_that_its_user_owns() {
    if !has("root") {
        return;
    }
    let init = Init::start(As::Pid1, &[]);
    let mut pty = Pty::open();
    let script = "test -t 0 && test -t 1 && test -t 2 && echo err >&2; echo typed >/dev/tty; stat -c %U $(tty); id -un; \
        ps -o tty= -p $$ | tr -d ' '";
    let mut child = pty.start(&init.client(&["exec", "-it", "-u", "nobody", "--", "sh", "-c", script]));
    let (code, shown) = pty.end(&mut child);
    let lines: Vec<&str> = shown.split("\r\n").collect();
    assert_eq!((code, &lines[..4]), (0, &["err", "typed", "nobody", "nobody"][..]), "{shown}");
    assert!(lines[4].starts_with("pts/"), "{shown}");
}

#[test]
fn it_goes_without_input_and_without_a_terminal_here() {
    let init = Init::start(As::Subreaper, &[]);
    // Nobody has a window: the usual one.
    let output = init.ask(&["exec", "-t", "--", "sh", "-c", "stty size; tty >&2; exit 3"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("24 80\r\n/dev/pts/"), "{said:?}");
    assert_eq!((output.status.code(), &*output.stderr), (Some(3), &b""[..]));
    // Without -i the keys are not the job's: ^C is for the client, which passes it on.
    let mut pty = Pty::open();
    let path = watcher(&init);
    let mut child = pty.start(&init.client(&["exec", "-t", "--", "perl", path.to_str().unwrap()]));
    pty.expect("<up>");
    pty.type_in(INTERRUPT);
    assert_eq!(pty.end(&mut child).0, 130);
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let init = Init::start(As::Subreaper, &[]);
    for (args, reason) in [
        (&["-it"][..], "lastout exec: the input device is not a TTY: leave out -t, or -i\n"),
        (&["-td"], "it goes with neither --detach nor --keep"),
        (&["-t", "--keep"], "it goes with neither --detach nor --keep"),
        (&["-t", "--heartbeat", "1s"], "a heartbeat would write into what the command shows"),
    ] {
        let output = init.ask(&[&["exec"], args, &["--", "true"]].concat());
        assert_eq!(output.status.code(), Some(125));
        assert!(both(&output).contains(reason), "{args:?}: {}", both(&output));
    }
    let mut pty = Pty::open();
    let before = pty.modes();
    let mut child = pty.start(&init.client(&["exec", "-it", "--", "no-such-thing"]));
    let (code, shown) = pty.end(&mut child);
    assert_eq!((code, &*shown), (127, "lastout exec: cannot execute no-such-thing: no such file or directory\r\n"));
    assert_eq!(pty.modes(), before);
}

#[test]
fn a_container_without_terminals_says_what_it_lacks() {
    if !has("root") {
        return;
    }
    let scratch = scratch();
    let control = scratch.path().join("control");
    fs::create_dir(&control).unwrap();
    let inner = format!(
        "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec {LASTOUT} --control {}",
        control.display()
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &inner]);
    let mut child = command.env_remove("LASTOUT_CONTROL").stdin(Stdio::null()).spawn().unwrap();
    let client = |args: &[&str]| {
        let mut client = lastout(&["exec", "--wait", "30", "--control", control.to_str().unwrap()]);
        client.args(args).output().unwrap()
    };
    assert!(client(&["true"]).status.success());
    let output = client(&["-t", "true"]);
    let said = both(&output);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        said.contains("cannot make a terminal: /dev/ptmx: no such file or directory: give the container"),
        "{said}"
    );
    run(LASTOUT, &["shutdown", "--control", control.to_str().unwrap()]);
    wait(&mut child);
}

#[test]
fn a_signal_for_the_job_reaches_its_command() {
    let init = Init::start(As::Subreaper, &[]);
    let path = watcher(&init);
    let mut pty = Pty::open();
    let mut child = pty.start(&init.client(&["exec", "-it", "--name", "w", "--", "perl", path.to_str().unwrap()]));
    pty.expect("<up>");
    init.must(&["kill", "-s", "USR1", "w"]);
    pty.expect("<usr1>");
    run("kill", &["-s", "USR1", &child.id().to_string()]);
    pty.expect("<usr1>");
    init.must(&["stop", "w"]);
    assert_eq!(pty.end(&mut child).0, 143);
}

#[test]
fn a_job_that_waits_for_its_turn_can_be_called_off_by_a_key() {
    let init = Init::start(As::Subreaper, &["--max-jobs", "1"]);
    init.must(&["exec", "-d", "--name", "first", "--", "sleep", "1000"]);
    let pty = Pty::open();
    let mut child = pty.start(&init.client(&["exec", "-it", "--name", "second", "--", "cat"]));
    until("the queue", || init.must(&["ps"]).contains("queued").then_some(()));
    pty.type_in(INTERRUPT);
    assert_eq!(status(wait(&mut child)), 130);
    until("its end", || (!init.must(&["ps"]).contains("queued")).then_some(()));
}

#[test]
fn a_key_that_ended_it_is_told_as_that() {
    let init = Init::start(As::Subreaper, &[]);
    for (key, code, signal) in [(INTERRUPT, 130, "SIGINT"), ("\x1c", 131, "SIGQUIT")] {
        let mut pty = Pty::open();
        let main = "ulimit -c 0; echo \"re\"ady; exec cat";
        let mut child = pty.start(&init.client(&["exec", "-it", "--name", signal, "--", "sh", "-c", main]));
        pty.expect("ready\r\n");
        pty.type_in(key);
        assert_eq!(pty.end(&mut child).0, code);
        let record = String::from_utf8(init.ask(&["wait", "--json", signal]).stdout).unwrap();
        assert!(record.contains(r#""by":"a key at its terminal""#) && record.contains(signal), "{record}");
    }
    // Somebody else's signal is not the user's, whatever was typed before.
    let mut pty = Pty::open();
    let main = "trap 'echo \"in\"terrupted' INT; echo \"re\"ady; read line; trap - INT; kill -INT $$";
    let mut child = pty.start(&init.client(&["exec", "-it", "--name", "other", "--", "bash", "-c", main]));
    pty.expect("ready\r\n");
    pty.type_in(INTERRUPT);
    pty.expect("interrupted\r\n");
    pty.enter("");
    assert_eq!(pty.end(&mut child).0, 130);
    let record = String::from_utf8(init.ask(&["wait", "--json", "other"]).stdout).unwrap();
    assert!(record.contains(r#""kind":"unknown""#), "{record}");
}
