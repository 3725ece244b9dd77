//! Anonymous memory, from `smaps_rollup`.

use std::{thread, time::Duration};

use crate::{
    lab::{Lab, Role, anonymous, number, quiet, scratch, time, wait_for, words},
    report::{Row, single, summary},
    support::{As, Init, children, until},
};

pub const HOLDING: &str = "memory of the init, holding";

/// Runs `count` jobs, by a few clients at once.
fn jobs(lab: &Lab, init: &Init, count: usize) {
    let words = words(&[&lab.program("lastout"), "exec", "--control", init.control().to_str().unwrap(), "--"], &[]);
    let clients = 4;
    thread::scope(|scope| {
        for client in 0..clients {
            let mut words = words.clone();
            scope.spawn(move || {
                words.push(lab.program("true"));
                let mut command = quiet(&words);
                for _ in (client..count).step_by(clients) {
                    time(&mut command);
                }
            });
        }
    });
    until("the keepers' end", || children(init.pid).is_empty().then_some(()));
}

pub fn holding(lab: &Lab) -> Vec<Row> {
    let init = Init::start_in(scratch(), As::Subreaper, &[]);
    let mut peers = Vec::new();
    let mut children = Vec::new();
    for contender in lab.contenders(false, "floor", "/".as_ref()).into_iter().filter(|one| one.role != Role::Lastout) {
        let mut words = contender.words;
        words.extend([lab.program("load"), "sleep".into()]);
        children.push((contender.name, contender.role, quiet(&words).spawn().unwrap()));
    }
    // They have nothing to say when they are ready.
    thread::sleep(Duration::from_millis(500));
    for (name, role, mut child) in children {
        peers.push(single(name, role, anonymous(child.id() as i32)));
        crate::support::children(child.id() as i32).into_iter().for_each(crate::lab::kill);
        let _ = child.wait();
    }
    let mut rows = Vec::new();
    let mut done = 1;
    let mut at = Vec::new();
    let counts = [1, 1000, 10_000, 100_000];
    for count in &counts[..if lab.quick { 3 } else { 4 }] {
        jobs(lab, &init, count - done);
        done = *count;
        let anonymous = anonymous(init.pid);
        at.push(anonymous);
        let title = if done == 1 { HOLDING.into() } else { format!("... after {done} jobs") };
        let mut values = vec![single("lastout", Role::Lastout, anonymous)];
        values.extend(peers.iter().cloned());
        let row = Row::new(title, "kB anonymous", values);
        rows.push(match done {
            1 => row.not_there(lab.missing()),
            1000 => row,
            10_000 => row.target("≤ 128", |_| Some((anonymous <= 128.0).into())),
            _ => row.target("no growth", |_| Some((anonymous <= at[1]).into())),
        });
    }
    rows
}

/// Ends an init that has jobs: killed, it would leave keepers that still write into a directory that is removed.
pub fn leave(init: Init) {
    init.signal("TERM");
    init.end();
}

/// Detached, so that they have no client.
pub fn sleeping_jobs(lab: &Lab, init: &Init, count: usize) -> Vec<i32> {
    wait_for(lab, &init.control());
    let words = words(
        &[&lab.program("lastout"), "exec", "-d", "--control", init.control().to_str().unwrap(), "--"],
        &[&lab.program("load"), "sleep"],
    );
    let mut command = quiet(&words);
    for _ in 0..count {
        time(&mut command);
    }
    let all = || {
        let keepers = children(init.pid);
        (keepers.len() == count && keepers.iter().all(|keeper| !children(*keeper).is_empty())).then_some(keepers)
    };
    until("the keepers", all)
}

pub fn keepers(lab: &Lab) -> Vec<Row> {
    let init = Init::start_in(scratch(), As::Subreaper, &[]);
    let keepers = sleeping_jobs(lab, &init, 100);
    let of =
        |what: &str| -> Vec<f64> { keepers.iter().map(|pid| number(*pid, "smaps_rollup", what).unwrap()).collect() };
    let value = summary("lastout", Role::Lastout, of("Anonymous"));
    let share = summary("", Role::Lastout, of("Pss_Anon")).median;
    leave(init);
    let row = Row::new("memory for each idle job (its keeper)", "kB anonymous", vec![value]);
    let row = row.target("≤ 100", |row| Some((row.values[0].median <= 100.0).into()));
    vec![row.note(format!("100 jobs; {share:.0} kB each, where what they share counts by its share"))]
}
