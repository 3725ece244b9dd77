//! `--pid-namespace`: the init as PID 1 of a namespace that it makes itself, as root and as an ordinary user.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, chown},
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::support::*;

/// Nobody of this machine's.
const USER: u32 = 12345;

/// Who runs it, in a directory that is theirs.
struct Who {
    user: bool,
    scratch: tempfile::TempDir,
}

impl Who {
    /// Root, where we are that, and an ordinary user, where those may have user namespaces.
    fn all() -> Vec<Who> {
        let mut all = Vec::new();
        for user in [false, true] {
            if has(if user { "user-namespaces" } else { "root" }) {
                all.push(Who { user, scratch: scratch() });
            }
        }
        for who in &all {
            // The tests' own may be where others do not get.
            fs::copy(LASTOUT, who.file("lastout")).unwrap();
            if who.is_other() {
                chown(who.scratch.path(), Some(USER), Some(USER)).unwrap();
            }
        }
        all
    }

    fn is_other(&self) -> bool {
        self.user && is_root()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// What these words are, run by this user.
    fn run(&self, words: &[&str]) -> Command {
        let user = USER.to_string();
        let as_user = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
        let words = if self.is_other() { [&as_user, words].concat() } else { words.to_vec() };
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).current_dir(self.scratch.path());
        command.env_remove("LASTOUT_CONTROL").env_remove("LASTOUT_LOG");
        command
    }

    /// `lastout --pid-namespace` with these arguments.
    fn lastout(&self, args: &[&str]) -> Command {
        let (lastout, control) = (self.file("lastout"), self.file("control"));
        let own = [lastout.to_str().unwrap(), "--control", control.to_str().unwrap(), "--pid-namespace"];
        self.run(&[&own, args].concat())
    }

    fn client(&self, args: &[&str]) -> Command {
        let mut command = self.run(&[&[self.file("lastout").to_str().unwrap()], args].concat());
        command.env("LASTOUT_CONTROL", self.file("control"));
        command
    }

    fn wait_for(&self, name: &str) {
        until(name, || self.file(name).exists().then_some(()));
    }
}

/// Escapes by two forks and a session of its own, writes on the volume `vol`, and is deaf.
const DEAF: &str = "(setsid sh -c 'trap \"\" TERM HUP INT; cd vol; exec 3>held; echo > up; \
    while :; do echo more >&3; sleep 0.05; done' MARK &) & \
    until [ -e vol/up ]; do sleep 0.02; done; echo > up; ";

#[test]
fn a_killed_supervisor_leaves_nothing_behind() {
    for who in Who::all() {
        let mark = mark("deaf");
        // Root has a real volume; a user's directory shows the same but for the unmount.
        let volume = is_root().then(|| Volume::mount_with(&who.file("vol"), &["-o", "mode=777"]));
        if volume.is_none() {
            fs::create_dir(who.file("vol")).unwrap();
        }
        let script = format!("{} exec sleep 1000", DEAF.replace("MARK", &mark));
        let mut outside = who.lastout(&["--", "sh", "-c", &script]).spawn().unwrap();
        who.wait_for("up");
        // Jobs have keepers, which are to end, too.
        let job = format!("exec sh -c 'echo > job; while :; do sleep 1; done' {mark}");
        let mut job = who.client(&["exec", "-w", ".", "--", "sh", "-c", &job]).stderr(Stdio::null()).spawn().unwrap();
        who.wait_for("job");
        assert!(running(&mark).len() >= 2);
        outside.kill().unwrap();
        outside.wait().unwrap();
        until("the end of all", || running(&mark).is_empty().then_some(()));
        wait(&mut job);
        if let Some(volume) = volume {
            until("the namespace's own mounts", || volume_is_free(&volume));
            volume.unmount().unwrap();
        }
    }
}

/// Nobody is left in another mount namespace, where it is mounted, too.
fn volume_is_free(volume: &Volume) -> Option<()> {
    let path = volume.path.to_str().unwrap();
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let mut others = processes.filter(|process| fs::read_link(process.join("ns/mnt")).is_ok_and(|its| its != own));
    others.all(|process| fs::read_to_string(process.join("mountinfo")).is_ok_and(|m| !m.contains(path))).then_some(())
}

#[test]
fn what_is_in_it_sees_itself_alone_and_is_the_same_user() {
    for who in Who::all() {
        let script = "echo $$ $(cd /proc; ls -d [0-9]* | wc -l) $(id -u) $(id -g) $PWD; echo $LASTOUT_CONTROL; exit 7";
        let output = who.lastout(&["--", "sh", "-c", script]).output().unwrap();
        assert_eq!(status(output.status), 7, "{}", both(&output));
        let id = if who.is_other() { USER } else { our_uid() };
        let (place, control) = (who.scratch.path().display(), who.file("control"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines();
        let first: Vec<&str> = lines.next().unwrap().split(' ').collect();
        // The init, main, its subshell and what that runs; perhaps a helper of the init's.
        assert!(first[1].parse::<u32>().unwrap() <= 6, "{text}");
        assert_eq!([first[0], first[2], first[4]], ["2", &id.to_string(), &place.to_string()], "{text}");
        assert_eq!(lines.next(), control.to_str());
        assert_eq!(both(&output).lines().count(), 2, "nothing to say: {}", both(&output));
        assert!(!control.exists(), "what it made it removes");
    }
}

fn our_uid() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

#[test]
fn its_exit_codes_are_an_inits() {
    for who in Who::all() {
        for (options, script, code) in [
            (&[][..], "exit 0", 0),
            (&["-e", "3"], "exit 3", 0),
            (&["-e", "3"], "exit 4", 4),
            (&[], "kill -9 $$", 137),
            (&[], "kill -TERM $$", 143),
        ] {
            let output = who.lastout(&[options, &["--", "sh", "-c", script]].concat()).output().unwrap();
            assert_eq!(status(output.status), code, "{options:?} {script}: {}", both(&output));
        }
        let output = who.lastout(&["--", "/no-such-program"]).output().unwrap();
        assert_eq!(status(output.status), 127, "{}", both(&output));
        assert_eq!(both(&output).lines().count(), 1, "{}", both(&output));
    }
}

#[test]
fn signals_get_in_and_everything_ends_in_order() {
    for who in Who::all() {
        // Whoever waits for a signal says so first.
        let leftover = "(setsid sh -c 'trap \"sleep 0.3; echo saved > left; exit\" TERM; echo > left-up; \
            while :; do sleep 0.02; done' &) & ";
        let main = format!(
            "{leftover} trap 'echo usr1' USR1; trap 'exit 5' TERM; until [ -e left-up ]; do sleep 0.02; done; \
             echo ready; while :; do sleep 0.02; done"
        );
        let mut outside = who.lastout(&["--", "sh", "-c", &main]).stdout(Stdio::piped()).spawn().unwrap();
        let said = lines(outside.stdout.take().unwrap());
        assert_eq!(said.recv_timeout(PATIENCE).unwrap(), "ready");
        run("kill", &["-USR1", &outside.id().to_string()]);
        assert_eq!(said.recv_timeout(PATIENCE).unwrap(), "usr1");
        let job = "trap 'sleep 0.3; echo saved > job; exit 0' TERM; echo up; while :; do sleep 0.02; done";
        let mut client =
            who.client(&["exec", "-w", ".", "--", "sh", "-c", job]).stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(lines(client.stdout.take().unwrap()).recv_timeout(PATIENCE).unwrap(), "up");
        run("kill", &[&outside.id().to_string()]);
        assert_eq!(status(wait(&mut outside)), 5);
        assert_eq!(status(wait(&mut client)), 0);
        for name in ["left", "job"] {
            assert_eq!(fs::read_to_string(who.file(name)).unwrap(), "saved\n", "{name}");
        }
        assert_eq!(said.iter().count(), 0, "nothing twice");
    }
}

#[test]
fn a_dead_parent_ends_it_in_order() {
    for who in Who::all() {
        let lastout =
            format!("{} --control {} --pid-namespace", who.file("lastout").display(), who.file("control").display());
        let mark = mark("parent");
        let main = format!("trap \"echo yes > saved; exit\" TERM; echo {mark} > up; while :; do sleep 0.05; done");
        // As Apptainer's starter: SIGKILL for whom it starts, if it dies.
        let script =
            format!("if (!fork) {{ syscall(157, 1, 9, 0, 0, 0); exec(qw({lastout} -- sh -c), '{main}') }} sleep 1000");
        let mut parent = Command::new("perl").args(["-e", &script]).current_dir(who.scratch.path()).spawn().unwrap();
        who.wait_for("up");
        parent.kill().unwrap();
        parent.wait().unwrap();
        until("main's saving", || fs::read_to_string(who.file("saved")).ok().filter(|text| text == "yes\n"));
        until("the end", || running(&mark).is_empty().then_some(()));
    }
}

#[test]
fn main_has_the_terminal_and_it_comes_back() {
    for who in Who::all() {
        // `script` gives a terminal. Main reads a line, the shell the next one when lastout has gone, and ^C ends one that holds.
        let lastout =
            format!("{} --control {} --pid-namespace", who.file("lastout").display(), who.file("control").display());
        let inner = format!("sh -c '{lastout} -- head -1; head -1; echo > third; {lastout}; echo code $?'");
        let mut command = who.run(&["script", "-qec", &inner, "/dev/null"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = lines(child.stdout.take().unwrap());
        let next = || said.recv_timeout(PATIENCE).unwrap().trim_end().to_string();
        let mut input = child.stdin.take().unwrap();
        for line in ["first", "second"] {
            input.write_all(format!("{line}\n").as_bytes()).unwrap();
            assert_eq!([next(), next()], [line, line], "echoed and read");
        }
        until("one that holds", || who.client(&["ps"]).output().is_ok_and(|o| o.status.success()).then_some(()));
        input.write_all(b"\x03").unwrap();
        assert_eq!(next(), "^Ccode 0");
        assert_eq!(status(wait(&mut child)), 0);
    }
}

/// A user namespace of the test's own, in which this is set up first, and then lastout run by these words.
fn refused(set_up: &str, by: &[&str], why: &str) {
    if !has("user-namespaces") {
        return;
    }
    let scratch = scratch();
    let mark = mark("refused");
    let main = format!(
        "(setsid sh -c 'trap \"echo saved > saved; exit\" TERM; echo > up; while :; do sleep 0.02; done' {mark} 2>&- &) & \
         until [ -e up ]; do sleep 0.02; done; exit 6"
    );
    let script = format!("{set_up}; exec \"$@\"");
    let control = scratch.path().join("control");
    let own = [LASTOUT, "--control", control.to_str().unwrap(), "--pid-namespace", "--", "sh", "-c", &main];
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-ec", &script, "sh"])
        .args(by)
        .args(own)
        .stdin(Stdio::null())
        .current_dir(scratch.path())
        .env_remove("LASTOUT_LOG")
        .output()
        .unwrap();
    assert_eq!(status(output.status), 6, "{}", both(&output));
    let expected = format!("lastout: warning: no PID namespace of its own ({why}): going on as a subreaper\n");
    assert_eq!(both(&output), expected);
    assert_eq!(fs::read_to_string(scratch.path().join("saved")).unwrap(), "saved\n", "leftovers end in order");
    assert!(running(&mark).is_empty());
}

#[test]
fn where_no_namespace_is_to_be_had_it_says_so_and_goes_on() {
    let full = "cannot make one: there may be no more of them, see the sysctls user.max_*_namespaces";
    refused("echo 0 > /proc/sys/user/max_pid_namespaces", &[], full);
    // Without capabilities it would take a user namespace.
    let by = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    refused("echo 0 > /proc/sys/user/max_user_namespaces", &by, full);
}

#[test]
fn where_proc_is_masked_it_says_so_and_goes_on() {
    // As containers have it: the kernel then refuses another one that would show what this one hides.
    let by = ["unshare", "--user", "--map-root-user", "--mount"];
    refused("mount -t tmpfs mask /proc/fs", &by, "cannot mount its own /proc: operation not permitted");
}
