//! `apptainer run` and `exec`: what is left when it has returned.

use std::fs;

use super::{WRITERS, host::*, main};
use crate::support::*;

/// How a container is run. `--no-init` is for `--pid`: then the runscript is PID 1 instead of Apptainer's own. By itself it
/// changes nothing.
const OPTIONS: [&[&str]; 5] = [&[], &["--no-init"], &["--pid"], &["--pid", "--no-init"], &["--containall"]];

/// What runs main: the name for the table, and the words, after `exec` in a runscript.
pub(super) const BY: [(&str, &[&str]); 4] = [
    ("lastout", &["/usr/local/bin/lastout", "--"]),
    ("lastout --pid-namespace", &["/usr/local/bin/lastout", "--pid-namespace", "--"]),
    ("sh", &[]),
    ("tini -s", &["/usr/local/bin/tini", "-s", "--"]),
];

/// What was seen the moment that it had returned.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    code: i32,
    busy: bool,
    survivors: usize,
    saved: usize,
    fuse: usize,
}

const CLEAN: Seen = Seen { code: 7, busy: false, survivors: 0, saved: WRITERS, fuse: 0 };

fn see(host: &Host, words: &[&str], mark: &str) -> (Seen, String) {
    host.mount();
    let output = host.run(words);
    let busy = host.unmount();
    let survivors = running(mark);
    let seen = Seen {
        code: status(output.status),
        busy,
        survivors: survivors.len(),
        saved: host.saved(),
        fuse: host.fuse_users().len(),
    };
    if busy {
        host.clear(&survivors);
        // They have kept what they ran from, too.
        until("the end of it", || host.fuse_users().is_empty().then_some(()));
    }
    (seen, both(&output))
}

/// One way to run a container.
struct Case {
    image: &'static str,
    options: &'static [&'static str],
    verb: &'static str,
    name: &'static str,
    by: &'static [&'static str],
}

impl Case {
    fn all() -> impl Iterator<Item = Case> {
        let ways = IMAGES.into_iter().flat_map(|image| OPTIONS.map(|options| (image, options)));
        let run = |(image, options)| BY.map(|(name, by)| (image, options, name, by));
        ways.flat_map(run)
            .flat_map(|(image, options, name, by)| ["run", "exec"].map(|verb| Case { image, options, verb, name, by }))
    }

    /// The command line.
    fn words(&self, host: &Host, main: &str) -> Vec<String> {
        let Case { image, options, verb, name, by } = self;
        let mut words = vec!["apptainer", verb];
        words.extend(*options);
        let tini = format!("{}:/usr/local/bin/tini", host.place().join("tini").display());
        let runscript = script(host, "runscript", &by.join(" "));
        let runscript = format!("{}:/.singularity.d/runscript", runscript.display());
        words.extend(["--bind", "/run/shared:/shared"]);
        if *name == "tini -s" {
            words.extend(["--bind", &tini]);
        }
        // The image's own is lastout.
        if *verb == "run" && *name != "lastout" {
            words.extend(["--bind", &runscript]);
        }
        words.push(image);
        if *verb == "exec" {
            words.extend(*by);
        }
        words.extend(["sh", "-c", main]);
        words.into_iter().map(String::from).collect()
    }
}

#[test]
fn nothing_is_alive_held_or_lost_when_it_has_returned() {
    let Some(host) = Host::start() else { return };
    // The one that needs no library of the image's.
    let tini = has("tini");
    if tini {
        fs::copy("/usr/bin/tini-static", host.place().join("tini")).expect("Debian's package of tini has it");
    }
    let (mut held, mut lost) = (0, 0);
    for case in Case::all().filter(|case| tini || case.name != "tini -s") {
        let mark = mark("apptainer");
        let words = case.words(&host, &main(&mark, "exit 7"));
        let (seen, said) = see(&host, &words.iter().map(String::as_str).collect::<Vec<_>>(), &mark);
        let Seen { code, busy, survivors, saved, fuse } = &seen;
        println!(
            "| {} {} | {} | {} | {code} | {survivors} | {} | {saved} of {WRITERS} | {fuse} |",
            case.verb,
            case.options.join(" "),
            if case.image.ends_with("sif") { ".sif" } else { "directory" },
            case.name,
            if *busy { "EBUSY" } else { "at once" }
        );
        if case.name.starts_with("lastout") {
            assert_eq!(seen, CLEAN, "{words:?}: {said}");
        }
        held += usize::from(*survivors > 0 && *busy);
        lost += usize::from(*saved < WRITERS);
    }
    assert!(held > 0 && lost > held, "a main whose writers hold nothing and lose nothing tells nothing of an init");
}
