//! lastout by the names of other small inits, beside the originals: the same cases for both, as PID 1 and not. What
//! differs is a bug, or a line of [`DELIBERATE`], which the README shows. [`table`] writes down what came out.

mod suites;
mod table;
mod terminals;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    thread,
    time::Duration,
};

use regex_lite::Regex;

use crate::support::*;

/// Every difference that is meant: who, the cases in which it shows, and its line in the README.
const DELIBERATE: &[(&[&str], &[&str], &str)] = &[
    (
        &ALL,
        &["version"],
        "`--version` | itself | itself, and `(lastout VERSION)` | To be told apart. `docker info` reads both.",
    ),
    (
        &ALL,
        &["help", "license", "tini usage"],
        "help and licence | its own | lastout's words, the same options | They say what runs.",
    ),
    (
        &ALL,
        &["leftovers"],
        "leftovers, as PID 1 | the kernel kills them unasked | SIGTERM and 7 s first | Nothing is lost.",
    ),
    (
        &["tini", "tini-static", "catatonit"],
        &["the command's option", "the command's value"],
        "`tini sh -c ...` without `--` | a usage error | runs it | What it refuses behind the command is the command's own.",
    ),
    (
        &["tini", "tini-static", "catatonit"],
        &["a fault to it"],
        "somebody sends it SIGSEGV, SIGABRT, ..., not PID 1 | it dies, its child lives on | nothing | Nobody means an init by these.",
    ),
    (
        &["tini", "tini-static", "catatonit"],
        &["terminal comes back"],
        "the terminal after its end | stays with the dead group: the next reader gets EIO | is given back | A script goes on.",
    ),
    (
        &ALL,
        &["terminal's modes"],
        "the terminal's modes, when a signal has ended main | stay as main left them | are as before | A script goes on.",
    ),
    (
        &["tini", "tini-static"],
        &["stopped main"],
        "^Z in main, below a shell with job control | hangs the caller | stops it, too; `fg` goes on | The shell learns of it.",
    ),
    (
        &["tini", "tini-static", "catatonit"],
        &["its directory"],
        "its own directory | where it was started | `/` | It holds no volume.",
    ),
    (&["tini", "tini-static"], &["closed stdin"], "closed standard input | it fails | it runs | It needs none."),
    (
        &["tini", "tini-static"],
        &["trace"],
        "`-vvv` | each look for children | without those lines | It does not look every second.",
    ),
    (
        &["tini", "tini-static"],
        &["said of what cannot be executed"],
        "`-vv`, no terminal, a command that cannot be executed | what its child does with the terminal, too | what tini does | The child says nothing of its own.",
    ),
    (
        &["catatonit"],
        &["signals of main", "a shell's ^Z"],
        "what main blocks | SIGTSTP, SIGTTIN, SIGTTOU besides | what catatonit was given | Or ^Z never works in it.",
    ),
    (
        &["catatonit"],
        &["debug"],
        "`CATATONIT_DEBUG` | what its child does with the terminal, too | what catatonit does | The child says nothing of its own.",
    ),
    (
        &["dumb-init"],
        &["debug"],
        "`-v` | how session and terminal were left and taken, too | without those lines | The child says nothing of its own.",
    ),
];

const ALL: [&str; 4] = ["tini", "tini-static", "dumb-init", "catatonit"];

/// The directory of our programs.
static OURS: LazyLock<PathBuf> = LazyLock::new(|| {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("personas-{}", std::process::id()));
    fs::create_dir_all(&place).unwrap();
    for name in ALL.iter().chain(&["docker-init"]) {
        let _ = symlink(LASTOUT, place.join(name));
    }
    place
});

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Program {
    Original,
    Ours,
}

/// A case: whose, in what role.
#[derive(Clone, Copy, Debug)]
struct Case {
    who: &'static str,
    pid1: bool,
}

/// Everybody who is installed, in each role that can be had.
fn cases(who: &[&'static str]) -> Vec<Case> {
    let packages = ["tini", "tini", "dumb-init", "catatonit"];
    let is_there = |name: &str| has(packages[ALL.iter().position(|known| *known == name).unwrap()]);
    let who: Vec<_> = who.iter().copied().filter(|name| is_there(name)).collect();
    let roles = if has("root") { &[false, true][..] } else { &[false] };
    who.iter().flat_map(|who| roles.iter().map(|pid1| Case { who, pid1: *pid1 })).collect()
}

impl Case {
    fn path(self, program: Program) -> PathBuf {
        match program {
            Program::Original => Path::new("/usr/bin").join(self.who),
            Program::Ours => OURS.join(self.who),
        }
    }

    fn command(self, program: Program, args: &[&str]) -> Command {
        self.executed(&[self.path(program).to_str().unwrap()], args)
    }

    /// As the leader of a session whose terminal is standard input, as in a container.
    fn leader(self, program: Program, args: &[&str]) -> Command {
        self.executed(&["setsid", "--ctty", self.path(program).to_str().unwrap()], args)
    }

    fn executed(self, init: &[&str], args: &[&str]) -> Command {
        let role: &[&str] = match self.pid1 {
            true => &["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"],
            false => &[],
        };
        let words = [role, init].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        for name in ["LASTOUT_CONTROL", "LASTOUT_LOG", "TINI_SUBREAPER", "DUMB_INIT_DEBUG", "POSIXLY_CORRECT"] {
            command.env_remove(name);
        }
        command.args(args).stdin(Stdio::null());
        command
    }

    /// The init's own process id, here.
    fn init(self, child: &Child) -> i32 {
        match self.pid1 {
            true => until("the namespace's init", || children(child.id() as i32).first().copied()),
            false => child.id() as i32,
        }
    }

    /// Both give the same, unless the table says that they do not.
    fn compare<T: PartialEq + std::fmt::Debug>(self, name: &str, run: impl Fn(Program) -> T) {
        self.compare_words(name, "", run);
    }

    /// The same, of these words.
    fn compare_words<T: PartialEq + std::fmt::Debug>(self, name: &str, words: &str, run: impl Fn(Program) -> T) {
        let (original, ours) = (run(Program::Original), run(Program::Ours));
        let deliberate = differs(self.who, name);
        let behaviour = if words.is_empty() { name.into() } else { format!("{name}: `{words}`") };
        table::note(self, &behaviour, deliberate, [&original, &ours].map(|value| format!("{value:?}")));
        match deliberate {
            true => assert_ne!(original, ours, "{self:?}: {name}: they do not differ any more"),
            false => assert_eq!(original, ours, "{self:?}: {name}: (original, ours)"),
        }
    }

    /// The same for exit code and outputs.
    fn compare_output(self, name: &str, args: &[&str], env: &[(&str, &str)]) {
        let env_words = env.iter().map(|(name, value)| format!("{name}={value}"));
        let words: Vec<_> = env_words.chain(args.iter().map(|word| shown(word))).collect();
        self.compare_words(name, &words.join(" "), |program| {
            self.output(self.command(program, args).envs(env.iter().copied()))
        });
    }

    fn output(self, command: &mut Command) -> (i32, String, String) {
        let output = command.output().unwrap();
        (status(output.status), plain(&output.stdout), plain(&output.stderr))
    }
}

/// A word as a person would type it; of a script its name.
fn shown(word: &str) -> String {
    match word.contains([' ', ';', '\n']) || word.is_empty() {
        true if word.len() > 60 => "SCRIPT".into(),
        true => format!("'{word}'"),
        false => word.into(),
    }
}

fn differs(who: &str, name: &str) -> bool {
    DELIBERATE.iter().any(|(whose, names, _)| whose.contains(&who) && names.contains(&name))
}

/// Without what differs from run to run: process ids, and where the program is.
fn plain(bytes: &[u8]) -> String {
    static PIDS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(tini \(|catatonit:|pid '|pid: '|pid=|PID |pid1 \(|child process )[0-9]+").unwrap()
    });
    let text = String::from_utf8_lossy(bytes).replace(&format!("{}/", OURS.display()), "").replace("/usr/bin/", "");
    PIDS.replace_all(&text, "${1}N").into_owned()
}

const CATATONIT: &[&str] = &["catatonit"];
const DUMB_INIT: &[&str] = &["dumb-init"];
const TINI: &[&str] = &["tini", "tini-static"];
const TWO: &[&str] = &["tini", "catatonit"];

#[test]
fn command_lines_and_exit_codes_are_the_originals() {
    let plainly: &[(&str, &[&str], &[&str])] = &[
        ("runs", &ALL, &["true"]),
        ("runs", &ALL, &["--", "sh", "-c", "echo out; echo err >&2; exit 7"]),
        ("in PATH", &ALL, &["--", "echo", "a b", "", "c"]),
        ("missing", &ALL, &["--", "lastout-no-such-program", "-x"]),
        ("missing", &ALL, &["/nonexistent/x"]),
        ("not a directory", &ALL, &["/etc/passwd/x"]),
        ("not executable", &ALL, &["/etc/passwd"]),
        ("a directory", &ALL, &["/etc"]),
        ("no command", &["dumb-init", "catatonit"], &["--"]),
        ("tini usage", TINI, &["--"]),
        ("help", &ALL, &["-h"]),
        ("tini usage", TINI, &[]),
        ("tini usage", TINI, &["-x", "true"]),
        ("tini usage", TINI, &["--help"]),
        ("tini usage", TINI, &["--version", "x"]),
        ("tini usage", TINI, &["-s", "-e"]),
        ("version", TINI, &["--version"]),
        ("license", TINI, &["-l"]),
        ("remapped", TINI, &["-s", "-e", "143", "-e", "7", "sh", "--", "-c", "exit 7"]),
        ("remapped", TINI, &["-se143", "--", "sh", "-c", "kill -TERM $$"]),
        ("remapped", TINI, &["-s", "-e", "127", "--", "lastout-no-such-program"]),
        ("remapped", TINI, &["-s", "-e", " +7", "--", "sh", "-c", "exit 7"]),
        ("bad value", TINI, &["-e", "256", "true"]),
        ("bad value", TINI, &["-e", "-1", "true"]),
        ("bad value", TINI, &["-e", "7x", "true"]),
        ("bad value", TINI, &["-p", "TERM", "true"]),
        ("bad value", TINI, &["-p", "SIGPWR", "true"]),
        ("bad value", TINI, &["-p", "15", "true"]),
        ("empty value", TINI, &["-s", "-e", "", "true"]),
        ("late options", TINI, &["true", "-s", "-g"]),
        ("late options", CATATONIT, &["true", "-g"]),
        ("the command's option", TWO, &["sh", "-c", "exit 3"]),
        ("the command's value", TINI, &["-s", "perl", "-e", "exit 3"]),
        ("said", TINI, &["-s", "-v", "true"]),
        ("said", TINI, &["-svv", "--", "sh", "-c", "kill -KILL $$"]),
        ("said", TINI, &["-sv", "--", "lastout-no-such-program"]),
        ("trace", TINI, &["-svvv", "true"]),
        ("said of what cannot be executed", TINI, &["-svv", "--", "lastout-no-such-program"]),
        ("no reaper", TINI, &["true"]),
        ("said", TINI, &["-g", "-sw", "--", "sh", "-c", "(sh -c 'sleep 0.1; exit 3' & ); sleep 0.5"]),
        ("dumb usage", DUMB_INIT, &[]),
        ("dumb usage", DUMB_INIT, &["-x", "true"]),
        ("dumb usage", DUMB_INIT, &["--nope", "true"]),
        ("dumb usage", DUMB_INIT, &["--ver", "true"]),
        ("dumb usage", DUMB_INIT, &["--help=x", "true"]),
        ("dumb usage", DUMB_INIT, &["--rewrite"]),
        ("dumb usage", DUMB_INIT, &["-r"]),
        ("bad value", DUMB_INIT, &["-r", "1", "true"]),
        ("bad value", DUMB_INIT, &["-r", "0:1", "true"]),
        ("bad value", DUMB_INIT, &["-r", "1:32", "true"]),
        ("bad value", DUMB_INIT, &["-r", "32:1", "true"]),
        ("bad value", DUMB_INIT, &["-r", "TERM:INT", "true"]),
        ("bad value", DUMB_INIT, &["--rewrite=1:-1", "true"]),
        ("good value", DUMB_INIT, &["-r", "4294967311:1", "perl", "-e", "kill 'TERM', getppid; sleep 9"]),
        ("bad value", DUMB_INIT, &["-r", "99999999999999999999:1", "true"]),
        ("bad value", DUMB_INIT, &["-r", "15:-4294967297", "true"]),
        ("good value", DUMB_INIT, &["--rewr", " 1: 2x", "--single", "sh", "-c", "exit 3"]),
        ("help", DUMB_INIT, &["--help"]),
        ("version", DUMB_INIT, &["-V"]),
        ("version", DUMB_INIT, &["--version", "true"]),
        ("its options end", DUMB_INIT, &["sh", "-c", "exit 3", "-x"]),
        ("debug", DUMB_INIT, &["-v", "sh", "-c", "exit 3"]),
        ("said", DUMB_INIT, &["-v", "-c", "sh", "-c", "exit 3"]),
        ("said", DUMB_INIT, &["-vcr15:10", "sh", "-c", "kill -TERM $PPID; sleep 9"]),
        ("said", DUMB_INIT, &["-v", "-c", "-r", "10:0", "sh", "-c", "kill -USR1 $PPID; sleep 0.2"]),
        ("catatonit usage", CATATONIT, &[]),
        ("catatonit usage", CATATONIT, &["-x", "true"]),
        ("catatonit usage", CATATONIT, &["--nope", "true"]),
        ("catatonit usage", CATATONIT, &["--version=x"]),
        ("catatonit usage", CATATONIT, &["-g"]),
        ("version", CATATONIT, &["-V"]),
        ("version", CATATONIT, &["--vers", "true"]),
        ("license", CATATONIT, &["-L"]),
    ];
    for (name, who, args) in plainly {
        for case in cases(who) {
            // tini says as what it runs, and only not as PID 1.
            case.compare_output(name, args, &[]);
        }
    }
    for case in cases(&ALL) {
        let options: &[&[&str]] = match case.who {
            "dumb-init" | "catatonit" => &[&["-h"], &["-V"]],
            _ => &[&["-h"], &["--version"], &["-l"]],
        };
        for option in options {
            case.compare("nowhere to write", |program| {
                let full = || File::options().write(true).open("/dev/full").unwrap();
                status(case.command(program, option).stdout(full()).stderr(full()).status().unwrap())
            });
        }
    }
    type Environment<'a> = (&'a str, &'static [&'static str], &'a [&'a str], &'a [(&'a str, &'a str)]);
    let environments: &[Environment] = &[
        ("subreaper", TINI, &["true"], &[("TINI_SUBREAPER", "")]),
        ("quiet", TINI, &["true"], &[("TINI_VERBOSITY", "0")]),
        ("quiet", TINI, &["-vvv", "true"], &[("TINI_VERBOSITY", "x")]),
        ("loud", TINI, &["-s", "true"], &[("TINI_VERBOSITY", "3")]),
        ("loud", TINI, &["-s", "true"], &[("TINI_VERBOSITY", "4294967298")]),
        ("quiet", TINI, &["-s", "true"], &[("TINI_VERBOSITY", "4294967296")]),
        ("trace", TINI, &["-s", "true"], &[("TINI_VERBOSITY", "-1")]),
        ("trace", TINI, &["-s", "true"], &[("TINI_VERBOSITY", "99999999999999999999")]),
        ("posix", TINI, &["-s", "sh", "-c", "exit 3"], &[("POSIXLY_CORRECT", "")]),
        ("single", DUMB_INIT, &["true"], &[("DUMB_INIT_DEBUG", "1"), ("DUMB_INIT_SETSID", "0")]),
        ("not debug", DUMB_INIT, &["true"], &[("DUMB_INIT_DEBUG", "yes"), ("DUMB_INIT_SETSID", "no")]),
        ("debug", CATATONIT, &["true"], &[("CATATONIT_DEBUG", "")]),
        ("reserved", CATATONIT, &["true"], &[("CATATONIT_LOG", "x")]),
        ("environment", &ALL, &["md5sum", "/proc/self/environ"], &[("GIVEN", "x"), ("LISTEN_PID", "77")]),
    ];
    for (name, who, args, env) in environments {
        cases(who).iter().for_each(|case| case.compare_output(name, args, env));
    }
    for case in cases(CATATONIT) {
        for script in ["exit 3", "sleep 0.1 & (sleep 0.05 &) ; sleep 0.5", "sleep 0.3 & exit 4"] {
            case.compare("debug of its own", |program| {
                let mut command = case.command(program, &["--", "sh", "-c", script]);
                let (code, _, said) = case.output(command.env("CATATONIT_DEBUG", ""));
                // Its child writes into its first line.
                let own = said.lines().filter_map(|line| line.split_once("DEBUG (catatonit:N): "));
                let own = own.map(|(_, words)| words.into()).filter(|words: &String| words.contains("child"));
                (code, own.collect::<Vec<_>>())
            });
        }
    }
    for case in cases(TINI) {
        for level in ["-1", "4294967295"] {
            case.compare("everything", |program| {
                let mut command = case.command(program, &["-s", "--", "perl", "-e", "kill 'USR1', getppid; sleep 9"]);
                let (code, said, _) = case.output(command.env("TINI_VERBOSITY", level));
                (code, said.contains("TRACE"), said.contains("DEBUG"))
            });
        }
    }
    for case in cases(&ALL) {
        for code in [0, 1, 2, 42, 125, 126, 127, 128, 143, 200, 254, 255] {
            let script = format!("exit {code}");
            case.compare_output("exit codes", &["--", "sh", "-c", &script], &[("TINI_VERBOSITY", "0")]);
        }
        for signal in ["HUP", "INT", "QUIT", "ABRT", "KILL", "USR1", "SEGV", "PIPE", "TERM", "34", "64"] {
            let script = format!("ulimit -c 0; kill -{signal} $$");
            case.compare_output("deaths", &["--", "perl", "-e", &format!("exec 'bash', '-c', '{script}'")], &[]);
        }
    }
}

#[test]
fn help_names_every_option_of_the_original() {
    static OPTION: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\s--?[a-zA-Z][a-z-]*|\s[A-Z]+_[A-Z_]+").unwrap());
    for case in cases(&ALL).into_iter().filter(|case| !case.pid1) {
        let said = |program| case.output(&mut case.command(program, &["-h"]));
        let (original, ours) = (said(Program::Original), said(Program::Ours));
        assert_eq!((original.0, original.1.is_empty()), (ours.0, ours.1.is_empty()), "{case:?}");
        let (theirs, mine) = (original.1 + &original.2, ours.1 + &ours.2);
        let usage = |text: &str| text.lines().find(|line| line.to_lowercase().starts_with("usage:")).map(String::from);
        assert_eq!(usage(&theirs), usage(&mine), "{case:?}");
        let known: BTreeSet<_> = OPTION.find_iter(&mine).map(|found| found.as_str().trim()).collect();
        for option in OPTION.find_iter(&theirs).map(|found| found.as_str().trim()) {
            assert!(known.contains(option) || option == "EXIT_CODE", "{case:?}: {option}");
        }
    }
}

#[test]
fn a_name_is_what_it_was_called_by() {
    let scratch = scratch();
    let copied = scratch.path().join("docker-init");
    fs::copy(LASTOUT, &copied).unwrap();
    let version = |command: &mut Command| String::from_utf8(command.arg("--version").output().unwrap().stdout).unwrap();
    let said = version(&mut Command::new(&copied));
    assert!(said.starts_with("tini version 0.19.0 (lastout "), "{said}");
    assert_eq!(version(&mut Command::new(OURS.join("tini"))), said);
    assert!(version(&mut Command::new(LASTOUT)).starts_with("lastout "));
    // A persona has no subcommands.
    let output = Command::new(&copied).args(["-s", "ps", "--", "--version"]).output().unwrap();
    assert!(both(&output).contains("procps"), "{}", both(&output));
}

/// Says what main is: its place, its parent's directory, and its signals.
const PLACE: &str = r#"
    open S, '/proc/self/stat'; my @s = split ' ', (split /\) /, <S>)[1];
    print join ' ', ($s[2] == $$ ? 'own' : 'its'), 'group,', ($s[3] == $$ ? 'own' : 'its'), 'session,', umask, readlink('/proc/self/cwd');
"#;

#[test]
fn main_has_the_place_that_the_original_gives_it() {
    for case in cases(&ALL) {
        let ways: &[&[&str]] = match case.who {
            "dumb-init" => &[&["--"], &["-c", "--"]],
            "catatonit" => &[&["--"], &["-g", "--"]],
            _ => &[&["-s", "--"], &["-g", "-s", "--"]],
        };
        for way in ways {
            let run = |program, script: &str| {
                let args = [way, &["perl", "-e", script][..]].concat();
                case.output(case.command(program, &args).current_dir("/usr/share"))
            };
            case.compare("place", |program| run(program, PLACE));
            // When it has had the time to change it.
            let directory = "select undef, undef, undef, 0.2; print readlink '/proc/' . getppid . '/cwd'";
            case.compare("its directory", |program| run(program, directory));
        }
        // Ignored and blocked signals. cp does not change its own.
        let scratch = scratch();
        let out = scratch.path().join("out");
        case.compare("signals of main", |program| {
            let set_up = "use POSIX; $SIG{$_} = 'IGNORE' for qw(HUP PIPE USR2 TTIN); \
                sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGUSR1, SIGTERM, 28)); exec @ARGV";
            let init = case.command(program, &["--", "cp", "/proc/self/status", out.to_str().unwrap()]);
            let mut command = Command::new("perl");
            command.args(["-e", set_up]).arg(init.get_program()).args(init.get_args());
            let output = command.output().unwrap();
            assert!(output.status.success(), "{case:?} {program:?}: {}", both(&output));
            let status = fs::read_to_string(&out).unwrap();
            let masks = status.lines().filter(|line| line.starts_with("SigIgn") || line.starts_with("SigBlk"));
            masks.map(String::from).collect::<Vec<_>>()
        });
    }
}

/// Main and a child of it that write down each signal that they get.
const RECORDER: &str = r#"
    use POSIX; $| = 1;
    my @all = grep { !($_ == 9 || $_ == 19 || $_ == 17 || $_ == 32 || $_ == 33) } 1..64;
    my $name = 'main';
    my $set = POSIX::SigSet->new(@all);
    for my $n (@all) { sigaction($n, POSIX::SigAction->new(sub { syswrite(STDOUT, "$name $n\n") }, $set)) }
    if (!fork) { $name = 'child' }
    syswrite(STDOUT, "$name up\n");
    while (1) { select(undef, undef, undef, 1000) }
"#;

struct Recorder {
    case: Case,
    child: Child,
    init: i32,
    mark: String,
    got: std::sync::mpsc::Receiver<String>,
}

impl Recorder {
    fn start(case: Case, program: Program, options: &[&str]) -> Recorder {
        let mark = mark("recorder");
        let args = [options, &["--", "perl", "-e", RECORDER, &mark]].concat();
        let mut child = case.command(program, &args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let got = lines(child.stdout.take().unwrap());
        let up: BTreeSet<_> = (0..2).map(|_| got.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(up.len(), 2, "{up:?}");
        let init = case.init(&child);
        Recorder { case, child, init, mark, got }
    }

    /// Main's process.
    fn main(&self) -> i32 {
        children(self.init)[0]
    }

    fn send(&self, signal: i32) {
        run("kill", &["-s", &signal.to_string(), &self.init.to_string()]);
    }

    /// All that it is told until main, and who else is to, has heard the last signal of all, which all pass on last.
    fn told(&self, who: &[&str]) -> BTreeSet<String> {
        self.send(64);
        let mut told = BTreeSet::new();
        while !who.iter().all(|name| told.contains(&format!("{name} 64"))) {
            let line = self.got.recv_timeout(PATIENCE);
            told.insert(line.unwrap_or_else(|_| panic!("{:?}: only {told:?}", self.case)));
        }
        told
    }

    fn end(mut self) -> i32 {
        // The recorders, and not the init, whose command line has the mark, too.
        let recorders = |mark: &str| -> Vec<i32> {
            let is_perl =
                |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "perl\n");
            running(mark).into_iter().filter(is_perl).collect()
        };
        for pid in recorders(&self.mark) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
        }
        status(wait(&mut self.child))
    }
}

#[test]
fn signals_reach_whom_the_original_tells() {
    let ways: &[(&[&str], &[&[&str]])] = &[
        (TINI, &[&["-s"], &["-s", "-g"]]),
        (DUMB_INIT, &[&[], &["-c"], &["-r", "15:3", "-r", "2:0", "-r", "3:15", "-r", "10:12", "-r", "10:1"]]),
        (CATATONIT, &[&[], &["-g"]]),
    ];
    for (who, ways) in ways {
        for (case, options) in cases(who).into_iter().flat_map(|case| ways.iter().map(move |way| (case, *way))) {
            case.compare("signals", |program| {
                let recorder = Recorder::start(case, program, options);
                let group = options.contains(&"-g") || case.who == "dumb-init" && !options.contains(&"-c");
                // What stops or kills the init has tests of its own; `sigwait`'s user sees each number once.
                let passed: &[i32] = if case.who == "dumb-init" { &[] } else { &[4, 5, 6, 7, 8, 11, 31] };
                for signal in (1..64).filter(|n| ![9, 17, 19, 20, 21, 22, 32, 33].contains(n) && !passed.contains(n)) {
                    recorder.send(signal);
                }
                let told = recorder.told(if group { &["main", "child"] } else { &["main"] });
                (told, recorder.end())
            });
        }
    }
    for case in cases(&ALL) {
        // The environment's -g; and the terminal's signals, which go nowhere (dumb-init: see below).
        if case.who != "dumb-init" {
            case.compare("stop signals", |program| {
                let recorder = Recorder::start(case, program, if case.who == "catatonit" { &[] } else { &["-s"] });
                for signal in if case.who == "catatonit" { &[20, 21, 22][..] } else { &[20, 21, 22] } {
                    recorder.send(*signal);
                }
                let told = recorder.told(&["main"]);
                (told, recorder.end())
            });
        }
        let script = "kill -SEGV $PPID; sleep 0.3; exit 5";
        let options: &[&str] = if TINI.contains(&case.who) { &["-s", "--"] } else { &["--"] };
        let args = [options, &["sh", "-c", script]].concat();
        let name = if case.pid1 { "a fault to PID 1" } else { "a fault to it" };
        case.compare(name, |program| status(case.command(program, &args).output().unwrap().status));
    }
}

#[test]
fn tinis_environment_reaches_the_group() {
    for case in cases(TINI) {
        case.compare("group by environment", |program| {
            let mark = mark("recorder");
            let mut command = case.command(program, &["-s", "--", "perl", "-e", RECORDER, &mark]);
            let mut child = command.env("TINI_KILL_PROCESS_GROUP", "").stdout(Stdio::piped()).spawn().unwrap();
            let got = lines(child.stdout.take().unwrap());
            (0..2).for_each(|_| drop(got.recv_timeout(PATIENCE).unwrap()));
            let recorder = Recorder { case, init: case.init(&child), child, mark, got };
            (recorder.told(&["main", "child"]), recorder.end())
        });
    }
}

fn state(pid: i32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('-')
}

#[test]
fn dumb_init_is_stopped_and_goes_on_with_its_session() {
    for case in cases(DUMB_INIT) {
        let ways: [&[&str]; 4] = [&[], &["-c"], &["-r", "20:0"], &["-r", "20:10", "-r", "10:20"]];
        for (options, signal) in ways.into_iter().flat_map(|way| [20, 21, 22].map(|signal| (way, signal))) {
            case.compare("suspended", |program| {
                let recorder = Recorder::start(case, program, options);
                let main = recorder.main();
                let stops_main = options.is_empty() || signal != 20 && options[0] == "-r";
                recorder.send(signal);
                let mut seen = Vec::new();
                // PID 1 of a namespace cannot stop itself.
                if !case.pid1 {
                    until("dumb-init to stop", || (state(recorder.init) == 'T').then_some(()));
                }
                if stops_main {
                    until("main to stop", || (state(main) == 'T').then_some(()));
                }
                let dropped = signal == 20 && options.contains(&"20:0");
                // The child's line may come first.
                let heard = || recorder.got.recv_timeout(PATIENCE).unwrap();
                let first = (!stops_main && !dropped)
                    .then(|| std::iter::repeat_with(heard).find(|line| line.starts_with("main")));
                seen.push((state(recorder.init) == 'T', state(main) == 'T'));
                recorder.send(18);
                until("main to go on", || (state(main) != 'T' && state(recorder.init) != 'T').then_some(()));
                let told = recorder.told(&["main"]);
                let told: Vec<String> = told.into_iter().filter(|line| line.starts_with("main")).collect();
                (seen, first, told, recorder.end())
            });
        }
    }
}

/// Leaves a process behind that writes down a SIGTERM, and goes on if it is told to.
const LEFTOVER: &str = r#"
    my ($saw, $goes_on, $mark) = @ARGV;
    if (!fork) {
        open STDOUT, '>', '/dev/null'; open STDERR, '>', '/dev/null';
        $SIG{TERM} = sub { open F, '>>', "$saw"; print F "TERM\n"; close F; exit 0 if !$goes_on };
        open F, '>', "$saw"; print F "up\n"; close F;
        while (1) { select(undef, undef, undef, 1000) }
    }
    select(undef, undef, undef, 0.01) until -s $saw;
    exit 3;
"#;

#[test]
fn what_main_leaves_behind_is_spared_unless_the_kernel_would_kill_it() {
    for case in cases(&ALL) {
        let scratch = scratch();
        let saw = scratch.path().join("saw");
        let options: &[&str] = match case.who {
            "tini" => &["-s", "--"],
            "tini-static" => &["-s", "-g", "--"],
            _ => &["--"],
        };
        case.compare(if case.pid1 { "leftovers" } else { "leftovers, not PID 1" }, |program| {
            let _ = fs::remove_file(&saw);
            let mark = mark("leftover");
            let goes_on = if case.pid1 { "0" } else { "1" };
            let args = [options, &["perl", "-e", LEFTOVER, saw.to_str().unwrap(), goes_on, &mark]].concat();
            let code = status(case.command(program, &args).status().unwrap());
            if case.who == "dumb-init" && !case.pid1 {
                until("SIGTERM", || fs::read_to_string(&saw).ok().filter(|text| text == "up\nTERM\n"));
            } else {
                // Nothing comes, and nothing says so.
                thread::sleep(Duration::from_millis(100));
            }
            let alive = running(&mark);
            let seen = fs::read_to_string(&saw).unwrap();
            for pid in &alive {
                run("kill", &["-KILL", &pid.to_string()]);
            }
            assert_eq!(alive.len(), usize::from(!case.pid1), "{case:?} {program:?}");
            if case.pid1 && program == Program::Ours {
                assert_eq!((code, &*seen), (3, "up\nTERM\n"), "{case:?}");
            }
            // dumb-init's is asked, and killed while it begins to answer, or before.
            let seen = if case.pid1 && program == Program::Original { "killed".into() } else { seen };
            (code, seen)
        });
    }
}

#[test]
fn orphans_are_reaped_by_whom_the_original_says() {
    let script = r#"
        use POSIX;
        my $init = getppid;
        pipe R, W;
        if (!fork) { if (!fork) { select(undef, undef, undef, 0.01) until getppid != $ARGV[0] && getppid != $$ && -e "/proc/self";
            select(undef, undef, undef, 0.1); syswrite W, getppid == $init ? 'init' : 'other'; _exit(0) } $ARGV[0] = $$; _exit(0) }
        close W; wait; my $parent = <R>;
        for (1..100) { if (!fork) { if (!fork) { _exit(0) } _exit(0) } wait }
        my $zombies;
        for (1..200) {
            $zombies = 0; opendir D, '/proc';
            for (grep /^\d+$/, readdir D) { open F, "/proc/$_/stat" or next; my $s = <F>; $zombies++ if $s =~ /\) Z $init / }
            last if !$zombies; select(undef, undef, undef, 0.01);
        }
        print "$parent $zombies";
    "#;
    for case in cases(&ALL) {
        let ways: &[&[&str]] = if TINI.contains(&case.who) { &[&["--"], &["-s", "--"]] } else { &[&["--"]] };
        for way in ways {
            let args = [way, &["perl", "-e", script, "0"][..]].concat();
            case.compare_output("orphans", &args, &[]);
        }
    }
}

#[test]
fn closed_descriptors_are_main_s_too() {
    for case in cases(&ALL) {
        for closed in ["<&-", ">&-", "2>&-"] {
            let name = if closed == "<&-" { "closed stdin" } else { "closed output" };
            case.compare(name, |program| {
                let options: &[&str] = if TINI.contains(&case.who) { &["-s", "--"] } else { &["--"] };
                let args = [options, &["perl", "-e", "exit((-e '/proc/self/fd/0') + 2 * (-e '/proc/self/fd/1') + 4)"]]
                    .concat();
                let init = case.command(program, &args);
                let mut command = Command::new("sh");
                command
                    .args(["-c", &format!("exec \"$@\" {closed}"), "sh"])
                    .arg(init.get_program())
                    .args(init.get_args());
                status(command.stdin(Stdio::null()).output().unwrap().status)
            });
        }
    }
}

/// Runs a shell's command on a terminal of its own, with a line typed into it.
fn on_a_terminal(script: &str, typed: &[u8]) -> String {
    let mut command = Command::new("script");
    command.args(["-qec", script, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.env("SHELL", "/bin/sh").env_remove("LASTOUT_CONTROL").spawn().unwrap();
    child.stdin.take().unwrap().write_all(typed).unwrap();
    let output = child.wait_with_output().unwrap();
    format!("{} {}", status(output.status), plain(&output.stdout).replace('\r', ""))
}

#[test]
fn the_terminal_is_given_to_main_and_comes_back() {
    for case in cases(&ALL).into_iter().filter(|case| !case.pid1) {
        let options = if TINI.contains(&case.who) { "-s --" } else { "--" };
        let init = |program| format!("{} {options}", case.path(program).display());
        let runs: &[(&str, &str)] = &[
            ("terminal", "INIT head -1"),
            ("terminal", "exec INIT head -1"),
            ("terminal", "exec INIT sh -c \"head -1 </dev/tty; tty\""),
            ("terminal comes back", "INIT true; head -1"),
        ];
        for (name, script) in runs {
            case.compare(name, |program| {
                let said = on_a_terminal(&script.replace("INIT", &init(program)), b"hello\n");
                // Echoed, and perhaps read.
                (said.matches("hello").count(), said.split(' ').next().map(String::from))
            });
        }
    }
    for case in cases(&ALL).into_iter().filter(|case| !case.pid1) {
        let ways: &[&str] = if case.who == "dumb-init" { &["--", "-c --"] } else { &["--"] };
        for way in ways {
            case.compare("terminal's modes", |program| {
                let init = format!("{} {way}", case.path(program).display());
                let script = format!("stty -g; {init} sh -c 'stty raw -echo; kill -KILL $$'; stty -g");
                let said = on_a_terminal(&script, b"");
                let modes: Vec<_> = said.split_whitespace().filter(|word| word.matches(':').count() > 9).collect();
                assert_eq!(modes.len(), 2, "{said}");
                modes[0] == modes[1]
            });
        }
    }
    // catatonit finds the terminal where standard input is something else.
    for case in cases(CATATONIT).into_iter().filter(|case| !case.pid1) {
        case.compare("terminal elsewhere", |program| {
            let script = format!("{} -- sh -c 'head -1 </dev/tty' </dev/null", case.path(program).display());
            on_a_terminal(&script, b"hello\n").matches("hello").count()
        });
    }
}

#[test]
fn who_waits_for_tini_does_not_learn_that_main_is_stopped() {
    // As a shell with job control starts it. What never comes is waited for no longer than two seconds after main's stop.
    let shell = r#"
        use POSIX;
        $SIG{TTOU} = 'IGNORE';
        my $pid = fork;
        open T, '+<', '/dev/tty';
        setpgid($pid, $pid);
        tcsetpgrp(fileno T, $pid || $$);
        if (!$pid) { $SIG{TTOU} = 'DEFAULT'; exec @ARGV }
        my $main;
        for (1..3000) {
            select(undef, undef, undef, 0.01);
            open C, "/proc/$pid/task/$pid/children"; my $child = (split ' ', <C> // '')[0] or next;
            open S, "/proc/$child/stat"; if ((<S> // '') =~ /\) T /) { $main = $child; last }
        }
        my $learnt = 0;
        for (1..200) { last if $learnt = waitpid($pid, WUNTRACED | WNOHANG) == $pid; select(undef, undef, undef, 0.01) }
        print $main ? 'learnt: ' : 'no main: ', $learnt ? 1 : 0, "\n";
        kill 'KILL', $main, $pid;
    "#;
    for case in cases(TINI).into_iter().filter(|case| !case.pid1) {
        let scratch = scratch();
        let file = scratch.path().join("shell");
        fs::write(&file, shell).unwrap();
        case.compare("stopped main", |program| {
            let init = case.path(program);
            let script = format!("perl {} {} -s -- sh -c 'kill -TSTP $$'", file.display(), init.display());
            let said = on_a_terminal(&script, b"");
            let learnt = ["learnt: 0", "learnt: 1"].into_iter().find(|words| said.contains(words));
            learnt.unwrap_or_else(|| panic!("{said}")).to_string()
        });
    }
}

#[test]
fn the_parents_death_is_told_to_tini() {
    for case in cases(TINI).into_iter().filter(|case| !case.pid1) {
        case.compare("parent's death", |program| {
            let scratch = scratch();
            let place = scratch.path().display();
            let main = format!(
                "trap 'echo asked >{place}/said; exit' USR1; echo up >{place}/up; while :; do sleep 0.02; done"
            );
            let init = case.command(program, &["-s", "-p", "SIGUSR1", "--", "sh", "-c", &main]);
            let mut command = Command::new("perl");
            command.args(["-e", "if (!fork) { exec @ARGV } sleep 1000"]);
            let mut parent = command.arg(init.get_program()).args(init.get_args()).spawn().unwrap();
            until("main", || scratch.path().join("up").exists().then_some(()));
            parent.kill().unwrap();
            parent.wait().unwrap();
            until("main's word", || {
                fs::read_to_string(scratch.path().join("said")).ok().filter(|text| text == "asked\n")
            });
            until("its end", || (!is_running(&scratch.path().display().to_string())).then_some(()));
        });
    }
}

#[test]
fn catatonit_pauses_and_passes_listen_pid_on() {
    for case in cases(CATATONIT) {
        for (signal, options) in [(15, &["-P"][..]), (2, &["-P", "x"]), (15, &["-P", "-g"])] {
            case.compare("pause", |program| {
                let mut child = case.command(program, options).spawn().unwrap();
                let init = case.init(&child);
                // Signals wait for it from its first moment on.
                let blocks = |status: String| status.lines().any(|line| line.starts_with("SigBlk:\tffff"));
                until("it", || {
                    fs::read_to_string(format!("/proc/{init}/status")).ok().filter(|text| blocks(text.clone()))
                });
                for signal in [1, 20, 10, signal] {
                    run("kill", &["-s", &signal.to_string(), &init.to_string()]);
                }
                status(wait(&mut child))
            });
        }
        case.compare("listen pid", |program| {
            let init = case.command(program, &["--", "sh", "-c", "test $LISTEN_PID = $$ && echo main"]);
            let mut command = Command::new("sh");
            // PID 1's parent is no process of its namespace, but its own pid is 1.
            let own = if case.pid1 { "1" } else { "$$" };
            command.args(["-c", &format!("export LISTEN_PID={own}; exec \"$@\""), "sh"]);
            case.output(command.arg(init.get_program()).args(init.get_args()))
        });
    }
}

#[test]
fn a_persona_listens_only_where_the_environment_names_a_directory() {
    for case in cases(&ALL) {
        let scratch = scratch();
        let control = scratch.path().join("control");
        let script = format!("{LASTOUT} exec --wait 30 -- sh -c 'echo job'; exit 4");
        let mut command = case.command(Program::Ours, &["--", "sh", "-c", &script]);
        let (code, out, _) = case.output(command.env("LASTOUT_CONTROL", &control));
        assert_eq!((code, &*out), (4, "job\n"), "{case:?}");
        assert!(!control.exists());
        // One that cannot be had, as that of an init outside, keeps main from nothing.
        let elsewhere = scratch.path().join("nowhere/control");
        let mut command = case.command(Program::Ours, &["--", "sh", "-c", "echo main; exit 4"]);
        let (code, out, err) = case.output(command.env("LASTOUT_CONTROL", elsewhere));
        assert_eq!((code, &*out), (4, "main\n"), "{case:?}: {err}");
        assert!(err.contains("does not exist") && err.contains("going on without one"), "{case:?}: {err}");
        // Without it nobody is told of one.
        let (_, out, _) = case.output(&mut case.command(Program::Ours, &["--", "env"]));
        let ours = ["LASTOUT_CONTROL=", "LASTOUT_JOB="];
        assert!(!out.lines().any(|line| ours.iter().any(|name| line.starts_with(name))), "{case:?}: {out}");
    }
}

#[test]
fn the_readme_shows_every_deliberate_difference_and_no_other() {
    let readme = include_str!("../README.md");
    let cases = concat!(include_str!("personas.rs"), include_str!("personas/terminals.rs"));
    let section =
        readme.split("## Instead of tini, dumb-init, catatonit").nth(1).unwrap().split("\n## ").next().unwrap();
    for (_, names, line) in DELIBERATE {
        assert!(section.contains(&format!("| {line} |")), "README: | WHO | {line} |");
        for name in *names {
            // Once here, and once as a case.
            let quoted = format!("\"{name}\"");
            assert!(cases.matches(&quoted).count() >= 2, "no case {quoted}");
        }
    }
    assert_eq!(section.lines().filter(|line| line.starts_with("| ")).count(), DELIBERATE.len() + 1);
}
