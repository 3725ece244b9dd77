//! Nothing held: in the instant that lastout has returned, one system call unmounts the volumes, whatever main and
//! jobs left on them. `fixtures/holders.c` has the kinds of holders.

use std::{fmt::Write, path::Path, process::Command};

use crate::support::*;

/// For these the kernel itself holds a volume for a moment longer than the process lives: a ring is taken apart by a kernel
/// thread after an RCU grace period (`io_ring_exit_work` in io_uring/io_uring.c), which may have to wait for a request in
/// its worker too; sockets in a cycle wait for their collector (net/unix/garbage.c). Both then close files a tick later
/// (`delayed_fput` in fs/file_table.c). lastout waits for that where it has seen such a process. It does not see one that ends
/// by itself before lastout has a reason to look: main, above all.
const LATE: [&str; 3] = ["ring-file", "ring-read", "sent-in-a-cycle"];

/// Who leaves something on the volumes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    /// Main, on the one volume, and a job, which the end of main ends, on the other.
    MainAndJob,
    /// Main itself, which ends with it, so that nobody has seen it: on the one volume.
    MainItself,
    /// The peers know no jobs: a background process of main's instead.
    MainAlone,
    /// A job's command that ends by itself, on both; not the init's end counts, but that of `lastout exec`.
    Exec,
}

/// What a round came to.
#[derive(Debug)]
struct Round {
    /// "unmounted", or "EBUSY" and how many microseconds it took.
    volumes: Vec<String>,
    code: i32,
    /// Processes.
    left: u32,
    /// Everything that was said: shown when a test fails.
    #[allow(dead_code)]
    said: String,
}

impl Round {
    fn is_busy(&self) -> bool {
        self.volumes.iter().any(|volume| volume != "unmounted")
    }
}

/// Begins a round in namespaces of its own: whatever it leaves, mounts included, ends with them. The volumes are a bind
/// of a tmpfs, the tmpfs, and an ext4. `$0` is the directory, `$1` the binary, `$2` `$3` who leaves what, `$4` whether the round
/// is odd, and the rest is the init.
const ROUND: &str = r#"
set -e
cd "$0"; lastout=$1 from=$2 kinds=$3 odd=$4; shift 4
export LASTOUT_CONTROL="$0/control" lastout from kinds holders="$HOLDERS"
mkdir -p tmpfs bind ext4; rm -rf up control; mkfifo up
mount -t tmpfs -o size=32m lastout-test tmpfs
mount --bind tmpfs bind
cp --sparse=always image "image.$$"; mount -o loop "image.$$" ext4; rm "image.$$"
export first="$0/bind" second="$0/ext4"
[ "$odd" = 0 ] || export first="$0/ext4" second="$0/bind"
case $from in
MainAndJob) main='"$lastout" exec -d -- "$holders" hold -s "$0/up" "$second" $kinds > /dev/null' ;;
MainItself) main='exec "$holders" once "$first" $kinds; ' ;;
MainAlone) main='"$holders" hold -s "$0/up" "$second" $kinds &' ;;
Exec)
    # Started on a volume, and with a descriptor on it, the init does not stay there.
    (cd "$first"; exec "$@" 7> inherited) &
    set -- "$lastout" exec --wait 30
    main='"$holders" hold -s "$0/up" "$second" $kinds &' ;;
esac
main="$main
"'read up < "$0/up"; exec "$holders" hold "$first" $kinds'
"$HOLDERS" unmount -m "$PATIENCE" "$0/bind" "$0/tmpfs" "$0/ext4" -- "$@" -- sh -c "$main" "$0"
"#;

/// Leaves processes of `kinds` on volumes when `init` ends. A busy volume is looked at for `patience` ms.
fn round(scratch: &Path, from: From, kinds: &str, odd: bool, init: &[&str], patience: u32) -> Round {
    // What hangs is to fail.
    let mut command = Command::new("timeout");
    command
        .args([
            "--signal",
            "KILL",
            "120",
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            ROUND,
        ])
        .arg(scratch);
    command.args([LASTOUT, &format!("{from:?}"), kinds, if odd { "1" } else { "0" }]).args(init);
    command.env("HOLDERS", FIXTURES.join("holders")).env("PATIENCE", patience.to_string());
    let output = command.output().unwrap();
    let said = both(&output);
    let number = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok());
    let (Some(code), Some(left)) = (number("code"), number("left")) else { panic!("{from:?} {kinds}: {said}") };
    let is_volume = |line: &&str| line.starts_with('E') || *line == "unmounted";
    let volumes: Vec<String> = said.lines().filter(is_volume).map(String::from).collect();
    assert_eq!(volumes.len(), 3, "{said}");
    Round { volumes, code: code as i32, left, said }
}

/// Where the rounds are; with the image of an ext4.
fn place() -> Option<tempfile::TempDir> {
    if !(has("root") && has("cc") && has("ext4")) {
        return None;
    }
    let scratch = scratch();
    let image = scratch.path().join("image");
    let image = image.to_str().unwrap();
    run("truncate", &["--size", "24M", image]);
    run("mkfs.ext4", &["-q", "-F", image]);
    Some(scratch)
}

/// lastout in a role, in the volumes' own mount namespace.
fn init(role: As, grace: &'static str) -> Vec<&'static str> {
    let options = [LASTOUT, "--grace", grace];
    match role {
        As::Subreaper => options.to_vec(),
        As::Pid1 => {
            let inner = r#"mount -t proc proc /proc && exec "$@""#;
            [&["unshare", "--pid", "--fork", "sh", "-c", inner, "sh"], &options[..]].concat()
        }
    }
}

/// Of one kind alone.
const SHORT: &str = "100ms";
/// Of all kinds at once.
const LONG: &str = "300ms";

/// All, or those of `LASTOUT_TEST_KINDS`.
fn kinds() -> Vec<String> {
    let named = std::env::var("LASTOUT_TEST_KINDS");
    let all = named.unwrap_or_else(|_| run(FIXTURES.join("holders").to_str().unwrap(), &["kinds"]));
    all.split_whitespace().map(String::from).collect()
}

/// The rounds of one kind that found a volume busy; says how many, and for how long.
fn rounds_of(what: &str, count: u32, mut one: impl FnMut(bool) -> Round) -> Vec<Round> {
    let rounds: Vec<Round> = (0..count).map(|number| one(number % 2 == 1)).collect();
    let busy: Vec<Round> = rounds.into_iter().filter(Round::is_busy).collect();
    let times =
        busy.iter().flat_map(|round| &round.volumes).filter_map(|volume| volume.split(' ').nth(1)?.parse().ok());
    let longest: u32 = times.max().unwrap_or(0);
    println!("{what}: {} of {count} busy, for at most {} ms", busy.len(), longest.div_ceil(1000));
    busy
}

#[test]
fn one_unmount_succeeds_right_after_the_init_whatever_kind_was_left() {
    let Some(scratch) = place() else { return };
    let mut busy = Vec::new();
    for kind in kinds() {
        for role in [As::Subreaper, As::Pid1] {
            let what = format!("{role:?} {kind}");
            busy.extend(rounds_of(&what, rounds(1, 25), |odd| {
                let round = round(scratch.path(), From::MainAndJob, &kind, odd, &init(role, SHORT), 2000);
                assert!(round.code == 3 && round.left == 0, "{what}: {round:?}");
                round
            }));
        }
    }
    assert!(busy.is_empty(), "{busy:?}");
}

#[test]
fn one_unmount_succeeds_right_after_exec_whatever_kind_was_left() {
    let Some(scratch) = place() else { return };
    let mut busy = Vec::new();
    for kind in kinds() {
        busy.extend(rounds_of(&format!("exec {kind}"), rounds(1, 25), |odd| {
            let round = round(scratch.path(), From::Exec, &kind, odd, &init(As::Subreaper, SHORT), 2000);
            // The one that is left is the init, which goes on; its keeper has told of the end, and may be on its way out.
            let keepers = round.said.lines().filter(|line| line.starts_with("stays keeper")).count() as u32;
            assert!(round.code == 3 && round.left == 1 + keepers, "{kind}: {round:?}");
            round
        }));
    }
    assert!(busy.is_empty(), "{busy:?}");
}

#[test]
fn what_nobody_has_seen_is_late_at_most_where_it_is_the_kernels() {
    let Some(scratch) = place() else { return };
    let came = |volume: &String| volume == "unmounted" || volume.split(' ').count() == 2;
    for kind in LATE {
        for role in [As::Subreaper, As::Pid1] {
            rounds_of(&format!("{role:?} {kind}, main itself"), rounds(1, 25), |odd| {
                let round = round(scratch.path(), From::MainItself, kind, odd, &init(role, SHORT), 2000);
                let what = format!("{role:?} {kind}: {round:?}");
                assert!(round.code == 3 && round.left == 0 && round.volumes.iter().all(came), "{what}");
                round
            });
        }
    }
}

/// All kinds at once, round after round.
fn many(role: As, count: u32) {
    let Some(scratch) = place() else { return };
    for number in 0..count {
        let round = round(scratch.path(), From::MainAndJob, "all", number % 2 == 1, &init(role, LONG), 300);
        assert!(round.code == 3 && round.left == 0 && !round.is_busy(), "round {number}, {role:?}: {round:?}");
        if number % 100 == 99 {
            println!("{role:?}: {} rounds", number + 1);
        }
    }
    println!("{role:?}: {count} rounds, no EBUSY");
}

#[test]
fn one_unmount_succeeds_right_after_a_subreaper_that_left_all_kinds() {
    many(As::Subreaper, rounds(10, 1000));
}

#[test]
fn one_unmount_succeeds_right_after_a_pid_1_that_left_all_kinds() {
    many(As::Pid1, rounds(5, 1000));
}

#[test]
fn the_same_loop_fails_with_every_peer() {
    let Some(scratch) = place() else { return };
    let peers: [&[&str]; 4] = [&["tini", "-s"], &["tini", "-s", "-g"], &["dumb-init"], &["catatonit"]];
    let mut table = String::from("| init | rounds | EBUSY | processes left |\n|---|---|---|---|\n");
    let count = rounds(2, 100);
    let lastout = init(As::Subreaper, LONG);
    let inits = peers.into_iter().filter(|peer| has(peer[0])).chain([&lastout[..]]);
    for init in inits {
        let all: Vec<Round> =
            (0..count).map(|number| round(scratch.path(), From::MainAlone, "all", number % 2 == 1, init, 0)).collect();
        assert!(all.iter().all(|round| round.code == 3), "{init:?}: {all:?}");
        let busy = all.iter().filter(|round| round.is_busy()).count();
        let left = all.iter().map(|round| round.left).max().unwrap_or(0);
        let name = if init == lastout { "lastout".into() } else { init.join(" ") };
        writeln!(table, "| {name} | {count} | {busy} | {left} |").unwrap();
        assert_eq!(busy == 0, init == lastout, "{table}");
    }
    println!("{table}");
}
