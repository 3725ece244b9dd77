//! Completions in real shells, and the manual page as its readers check it.

use std::{fs, process::Command};

use crate::support::*;

/// A shell with lastout in its `PATH`, under its own name.
fn shell(program: &str, scratch: &tempfile::TempDir) -> Command {
    let bin = scratch.path().join("bin");
    if !bin.exists() {
        fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(LASTOUT, bin.join("lastout")).unwrap();
    }
    let mut command = Command::new(program);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    command.env("PATH", path).env("HOME", scratch.path()).env_remove("LASTOUT_CONTROL").env("TERM", "dumb");
    command.stdin(std::process::Stdio::null());
    command
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What bash would offer for these words, the last of which is being typed; as bash takes them apart.
fn bash(scratch: &tempfile::TempDir, control: &str, words: &[&str]) -> Vec<String> {
    let script = r#"
        . /usr/share/bash-completion/bash_completion
        . <(lastout completions bash)
        complete -p lastout | grep -q _lastout || exit 9
        COMP_WORDS=(lastout "$@") COMP_CWORD=$# COMP_LINE="lastout $*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
        _lastout lastout "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
        ((${#COMPREPLY[@]} == 0)) || printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut command = shell("bash", scratch);
    command.args(["--norc", "-c", script, "bash"]).args(words).env("LASTOUT_CONTROL", control).current_dir(scratch);
    let mut found: Vec<String> = said(&mut command).lines().map(|line| line.trim_end().to_string()).collect();
    // A command may be in two directories. Readline shows it once.
    found.dedup();
    found
}

fn fish(scratch: &tempfile::TempDir, control: &str, line: &str) -> Vec<String> {
    let script = "lastout completions fish | source; complete -C\"$argv[1]\"";
    let mut command = shell("fish", scratch);
    command.args(["-c", script, line]).env("LASTOUT_CONTROL", control).current_dir(scratch);
    said(&mut command).lines().map(String::from).collect()
}

/// What these keys make of zsh's line, typed into a terminal.
fn zsh(scratch: &tempfile::TempDir, control: &str, keys: &str) -> String {
    let out = scratch.path().join(mark("zsh"));
    let rc = "
        autoload -U compinit; compinit -u -D
        . <(lastout completions zsh)
        show() { print -r -- \"$BUFFER\" >$OUT.new; command mv $OUT.new $OUT; BUFFER= }
        zle -N show; bindkey '^M' show; bindkey '^J' show; bindkey '^I' complete-word
        PS1=READY
    ";
    fs::write(scratch.path().join(".zshrc"), rc).unwrap();
    let driver = "
        zmodload zsh/zpty
        zpty shell zsh -d -i
        zpty -r shell said '*READY*'
        zpty -w -n shell $KEYS
        while [[ ! -e $OUT ]]; do zpty -r -t shell said || sleep 0.05; done
        zpty -d shell
    ";
    let mut command = shell("timeout", scratch);
    command.args(["60", "zsh", "-f", "-c", driver]).env("OUT", &out).env("KEYS", format!("{keys}\r"));
    command.env("ZDOTDIR", scratch.path()).env("LASTOUT_CONTROL", control).current_dir(scratch);
    said(&mut command);
    fs::read_to_string(&out).unwrap().trim_end_matches('\n').to_string()
}

/// An init with a service and a job, by whose names they can be completed.
fn init(scratch: &tempfile::TempDir) -> Init {
    let config = scratch.path().join("config");
    fs::write(&config, "[service.web]\ncommand = ['sleep', '600']\n").unwrap();
    let init = Init::start(As::Subreaper, &["--config", config.to_str().unwrap()]);
    init.must(&["exec", "--detach", "--name", "predict", "--", "sleep", "600"]);
    init
}

#[test]
fn bash_completes_options_and_the_names_of_what_runs() {
    if !has("bash-completion") {
        return;
    }
    let scratch = scratch();
    let init = init(&scratch);
    let control = init.control().to_str().unwrap().to_string();
    for (words, expected) in [
        (&["ex"][..], &["exec"][..]),
        (&["--sync", "=", "a"], &["auto", "all"]),
        (&["exec", "--limit", "ni"], &["nice="]),
        (&["exec", "-u", "roo"], &["root"]),
        (&["stop", ""], &["predict", "web"]),
        (&["restart", ""], &["web"]),
        (&["check", "conf"], &["config"]),
        // What follows is another command's line: of a command that bash-completion knows, its own.
        (&["exec", "-e", "A", "=", "1", "--", "ls", "conf"], &["config"]),
        (&["exec", "setpri"], &["setpriv"]),
    ] {
        assert_eq!(bash(&scratch, &control, words), expected, "{words:?}");
    }
    assert!(bash(&scratch, &control, &["exec", "--time"]).contains(&"--timeout".into()));
    // No init: no names, and no word about it.
    assert!(bash(&scratch, "/nowhere", &["stop", ""]).is_empty());
}

#[test]
fn fish_completes_with_what_each_is_for() {
    if !has("fish") {
        return;
    }
    let scratch = scratch();
    let init = init(&scratch);
    let control = init.control().to_str().unwrap().to_string();
    for (line, expected) in [
        ("lastout ex", "exec\tRun a command as a job of the init, with its output and exit code"),
        (
            "lastout exec --timeo",
            "--timeout\tEnd the command and all that it started after TIME, with code 124; 0: never",
        ),
        ("lastout stop pre", "predict\trunning sleep 600"),
        ("lastout restart ", "web\tready"),
        ("lastout --config conf", "config"),
    ] {
        let found = fish(&scratch, &control, line);
        assert!(found.iter().any(|found| found.starts_with(expected)), "{line}: {found:?}");
    }
    let found = fish(&scratch, &control, "lastout exec -i -- ls --al");
    assert!(found.iter().any(|found| found.starts_with("--all")), "{found:?}");
    assert!(fish(&scratch, "/nowhere", "lastout stop ").is_empty());
}

#[test]
fn zsh_completes_in_a_terminal() {
    if !has("zsh") {
        return;
    }
    let scratch = scratch();
    let init = init(&scratch);
    let control = init.control().to_str().unwrap().to_string();
    for (keys, line) in [
        ("lastout exe\t--timeo\t5s", "lastout exec --timeout 5s"),
        ("lastout --sync=n\t", "lastout --sync=none "),
        ("lastout exec --limit nic\t5", "lastout exec --limit nice=5"),
        ("lastout stop pr\t", "lastout stop predict "),
        ("lastout --config conf\t", "lastout --config config "),
        ("lastout exec -i -- cat conf\t", "lastout exec -i -- cat config "),
    ] {
        assert_eq!(zsh(&scratch, &control, keys), line, "{keys:?}");
    }
}

#[test]
fn the_manual_page_is_right_for_both_of_its_readers() {
    if !has("man") {
        return;
    }
    let scratch = scratch();
    let page = scratch.path().join("lastout.1");
    let output = lastout(&["man"]).output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
    fs::write(&page, &output.stdout).unwrap();
    let page = page.to_str().unwrap();
    let lint = Command::new("mandoc").args(["-T", "lint", "-W", "warning", page]).output().unwrap();
    assert_eq!((status(lint.status), both(&lint)), (0, String::new()));
    let mut man = Command::new("man");
    let read = man.args(["--local-file", "--warnings", page]).env("LC_ALL", "C.UTF-8").env("MANWIDTH", "80");
    let read = read.env("MANROFFSEQ", "").output().unwrap();
    assert_eq!((status(read.status), String::from_utf8_lossy(&read.stderr).as_ref()), (0, ""));
    let text = String::from_utf8_lossy(&read.stdout).into_owned();
    for part in ["--stuck-timeout TIME", "lastout completions [OPTIONS] bash|zsh|fish", "backoff.reset_after", "124"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_cannot_be_written_is_a_failure() {
    let all: &[&[&str]] = &[
        &["completions", "bash"],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["completions", "--for", "--", "ex"],
        &["man"],
        &["help"],
        &["help", "exec"],
        &["--help"],
        &["--version"],
        &["exec", "--help"],
        &["check", "--schema"],
        &["limits"],
    ];
    for words in all {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = lastout(words).stdout(full).output().unwrap();
        let said = both(&output);
        assert!(said.ends_with(": cannot write: no space left on device\n"), "{words:?}: {said}");
        assert_eq!(status(output.status), 125, "{words:?}");
    }
    // Who has read enough asks for nothing more.
    let enough = run("bash", &["-c", "trap '' PIPE; \"$@\" | :; echo ${PIPESTATUS[0]}", "bash", LASTOUT, "man"]);
    assert_eq!(enough, "0\n");
}
