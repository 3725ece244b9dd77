//! A command in a container that is up.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    engines::{self, Container},
    lab::{Lab, Role, Turn, in_turns, in_turns_apart, quiet, scratch, time, wait_for, words},
    report::{Met, Row, summary},
    support::{As, Init},
};

pub const EXEC: &str = "exec of `true`, warm";
pub const ENGINES: &str = "exec of `true` beside engines";

fn client<'a>(lab: &Lab, control: &Path, program: &str) -> Turn<'a> {
    let client = [&lab.program("lastout"), "exec", "--control", control.to_str().unwrap(), "--", program];
    let mut command = quiet(&words(&client, &[]));
    Turn::new("lastout", Role::Lastout, move || time(&mut command))
}

/// The inits' way: one in front of the command, each time.
fn fronts<'a>(lab: &Lab) -> Vec<Turn<'a>> {
    let contenders = lab.contenders(false, "floor", "/".as_ref()).into_iter().filter(|one| one.role != Role::Lastout);
    let turn = |one: crate::lab::Contender| {
        let mut all = one.words;
        all.push(lab.program("true"));
        let mut command = quiet(&all);
        Turn::new(one.name, one.role, move || time(&mut command))
    };
    contenders.map(turn).collect()
}

fn engine<'a>(name: &str, container: &Container) -> Turn<'a> {
    let mut command = quiet(&[&container.exec[..], &["/bench/true".into()]].concat());
    Turn::new(name, Role::Peer, move || time(&mut command))
}

fn to_tini(row: &Row) -> Option<Met> {
    row.at_most(1.5, "tini-static")
}

/// By how much each engine takes longer, and whether that is enough.
fn to_engines(row: Row) -> Row {
    let times = |name: &str| row.over(name).map(|ratio| 1.0 / ratio);
    let said: Vec<String> = row
        .values
        .iter()
        .filter(|value| value.name.ends_with(" exec"))
        .filter_map(|value| Some(format!("{} {:.1} ×", value.name, times(&value.name)?)))
        .collect();
    let met = |row: &Row| {
        let all = [row.at_most(1.0 / 20.0, "docker exec"), row.at_most(1.0 / 5.0, "runc exec")];
        [Met::No, Met::WithinNoise, Met::Yes].into_iter().find(|met| all.contains(&Some(*met)))
    };
    row.note(format!("slower: {}", said.join(", "))).target("docker exec ≥ 20 ×, runc exec ≥ 5 × slower", met)
}

/// `lastout exec -- true`, beside an init in front of `true`.
pub fn exec(lab: &Lab) -> Vec<Row> {
    let init = Init::start_in(scratch(), As::Subreaper, &[]);
    let mut turns = vec![client(lab, &init.control(), &lab.program("true"))];
    turns.extend(fronts(lab));
    let row = Row::new(EXEC, "ms", in_turns(lab.rounds(1000, 200), turns));
    vec![row.target("≤ 1.5 × tini-static", to_tini).not_there(lab.missing())]
}

/// The engines' exec, one after the other with lastout's.
pub fn engines(lab: &Lab) -> Vec<Row> {
    crate::support::without_unified_cgroups(|| beside_engines(lab))
}

fn beside_engines(lab: &Lab) -> Vec<Row> {
    let scratch = scratch();
    let init = Init::start_in(crate::lab::scratch(), As::Subreaper, &[]);
    let control = scratch.path().join("control");
    std::fs::create_dir(&control).unwrap();
    let there = [
        ("docker exec", engines::docker(lab, &control, &["/bench/lastout"], &[])),
        ("podman exec", engines::podman(lab, scratch.path())),
        ("runc exec", engines::bundle(lab, "runc", scratch.path())),
        ("crun exec", engines::bundle(lab, "crun", scratch.path())),
    ];
    let mut turns = vec![client(lab, &init.control(), &lab.program("true"))];
    let mut not_there = Vec::new();
    for (name, container) in &there {
        match container {
            Ok(container) => turns.push(engine(name, container)),
            Err(_) => not_there.push(name.to_string()),
        }
    }
    let values = in_turns_apart(lab.rounds(200, 30), turns);
    vec![to_engines(Row::new(ENGINES, "ms", values)).not_there(not_there)]
}

/// From the host, through a control directory that the container has as a volume.
pub fn container(lab: &Lab) -> Vec<Row> {
    let control = scratch();
    let container = engines::docker(lab, control.path(), &["/bench/lastout"], &[]);
    let Ok(container) = container else {
        return vec![Row::failed("exec from the host into a container").not_there(vec!["docker".into()])];
    };
    wait_for_container(lab, control.path());
    let turn = || client(lab, control.path(), "/bench/true");
    let mut turns = vec![turn()];
    turns.extend(fronts(lab));
    let quick = Row::new("exec from the host into a container", "ms", in_turns(lab.rounds(1000, 200), turns));
    let quick = quick.target("≤ 1.5 × tini-static", to_tini).not_there(lab.missing());
    let turns = vec![turn(), engine("docker exec", &container)];
    let row = Row::new("... beside `docker exec`", "ms", in_turns_apart(lab.rounds(200, 30), turns));
    vec![quick, to_engines(row)]
}

fn wait_for_container(lab: &Lab, control: &Path) {
    // The programs have other paths inside.
    let client = [&lab.program("lastout"), "exec", "--wait", "30", "--control", control.to_str().unwrap()];
    time(&mut quiet(&words(&client, &["--", "/bench/true"])));
}

/// Several clients at once, in slices that take turns with as many that use the floor.
pub fn clients(lab: &Lab) -> Vec<Row> {
    let init = Init::start_in(scratch(), As::Subreaper, &[]);
    wait_for(lab, &init.control());
    let slice = Duration::from_secs_f64(if lab.quick { 1.0 } else { 3.0 });
    let control = init.control();
    let client = [&lab.program("lastout"), "exec", "--control", control.to_str().unwrap(), "--", &lab.program("true")];
    let mut ways = vec![("lastout", Role::Lastout, words(&client, &[]))];
    for one in lab.contenders(false, "floor", "/".as_ref()) {
        if one.name == "tini-static" || one.role == Role::Floor {
            ways.push((one.name, one.role, [one.words, vec![lab.program("true")]].concat()));
        }
    }
    let mut rows = Vec::new();
    for count in [1, 8, 64] {
        let mut rates = vec![Vec::new(); ways.len()];
        let mut took = vec![Vec::new(); ways.len()];
        for _ in 0..lab.rounds(5, 3) {
            for (index, (.., words)) in ways.iter().enumerate() {
                let start = Instant::now();
                let all: Vec<f64> = thread::scope(|scope| {
                    let one = || {
                        let mut command = quiet(words);
                        let mut took = Vec::new();
                        while start.elapsed() < slice {
                            took.push(time(&mut command));
                        }
                        took
                    };
                    let threads: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
                    threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
                });
                rates[index].push(all.len() as f64 / start.elapsed().as_secs_f64());
                took[index].extend(all);
            }
        }
        let values = ways.iter().zip(rates).map(|((name, role, _), rates)| summary(name, *role, rates)).collect();
        let fair: Vec<String> = ways
            .iter()
            .zip(took)
            .map(|((name, role, _), took)| {
                let value = summary(name, *role, took);
                format!("{name} {:.1}", value.p99.unwrap_or(f64::NAN) / value.median)
            })
            .collect();
        let clients = if count == 1 { "1 client".into() } else { format!("{count} clients") };
        let row = Row::more(format!("execs per second, {clients}"), "1/s", values);
        rows.push(row.note(format!("p99/median of one: {}", fair.join(", "))));
    }
    rows
}
