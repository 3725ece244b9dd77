//! From start to end, and the size.

use std::fs;

use crate::{
    lab::{Contender, Lab, Role, Turn, in_turns, quiet, scratch, time, words},
    report::{Row, single},
};

pub const START: &str = "start to exit of `X -- true`";

/// Started by `posix_spawn`; the program that it starts is static and does nothing.
pub fn start(lab: &Lab) -> Vec<Row> {
    let scratch = scratch();
    // By that name it is tini: without a control directory, and nothing is synced.
    let tini = scratch.path().join("tini");
    std::os::unix::fs::symlink(lab.program("lastout"), &tini).unwrap();
    let run = |pid1: bool, prefix: &[&str], rounds: usize| {
        let mut turns = Vec::new();
        let as_tini = words(&[tini.to_str().unwrap()], if pid1 { &["--"] } else { &["-s", "--"] });
        let as_tini = Contender { name: "lastout as tini", role: Role::Beside, words: as_tini };
        let contenders = lab.contenders(pid1, "floor", &scratch.path().join("control"));
        for contender in contenders.into_iter().chain([as_tini]) {
            let mut all = words(prefix, &[]);
            all.extend(contender.words);
            all.push(lab.program("true"));
            let mut command = quiet(&all);
            turns.push(Turn::new(contender.name, contender.role, move || time(&mut command)));
        }
        in_turns(rounds, turns)
    };
    let met = |row: &Row| row.at_most(1.0, "tini-static");
    let bare = Row::new(START, "ms", run(false, &[], lab.rounds(1000, 200)));
    let unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let pid1 = Row::new("the same as PID 1", "ms", run(true, &unshare, lab.rounds(300, 50)));
    vec![
        bare.target("≤ 1.0 × tini-static", met).not_there(lab.missing()),
        pid1.note("`unshare` included").not_there(lab.missing()),
    ]
}

pub fn binary(lab: &Lab) -> Vec<Row> {
    let size = |path: String| fs::metadata(path).map(|file| file.len() as f64 / 1e6);
    let mut values = Vec::new();
    for contender in lab.contenders(false, "floor", "/".as_ref()) {
        // Debian's dumb-init is not static: its size says nothing.
        let role = if contender.name == "dumb-init" { Role::Beside } else { contender.role };
        if let Ok(size) = size(lab.program(contender.name)) {
            values.push(single(contender.name, role, size));
        }
    }
    let row = Row::new("binary, stripped and static", "MB", values)
        .target("≤ 2", |row| Some((row.of("lastout")?.median <= 2.0).into()));
    vec![row.note("Debian's dumb-init is not static").not_there(lab.missing())]
}
