//! lastout in Docker, Podman, runc and crun, with tini beside it: how it ends, what comes to save its work, and how long it
//! takes. What was seen is in `target/engines.md`.

mod init_path;
mod lab;
mod policies;
mod rights;
mod table;
mod terminals;

use std::time::{Duration, Instant};

use crate::support::*;
use lab::*;

/// Who is there when the stop comes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Scene {
    /// Main, which needs a moment to save.
    Handled,
    /// Main, which ignores it, and those beside it, who save. Whoever has the patience, lastout or tini's engine, has
    /// [`PATIENCE_WITH_MAIN`] of it.
    Ignored,
    /// Main ends at once; a daemon of its saves.
    Leftovers,
    /// Main ends at once; what the engine has started beside it saves, and so does a job.
    Execd,
}

use Scene::{Execd, Handled, Ignored, Leftovers};

/// Seconds, the least that an engine can be told.
const PATIENCE_WITH_MAIN: &str = "1";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Under {
    Lastout,
    Tini,
}

/// One container.
#[derive(Clone, Copy, Debug)]
struct Cell {
    scene: Scene,
    pid1: bool,
    user: bool,
    under: Under,
}

/// What became of it.
#[derive(Debug)]
struct Outcome {
    code: i32,
    /// Who had something to save, and whether it was.
    saved: Vec<(&'static str, bool)>,
    /// Processes that outlived the init.
    left: usize,
    /// From the stop to the end.
    took: Duration,
}

impl Cell {
    fn all() -> impl Iterator<Item = Cell> {
        let scenes = [Handled, Ignored, Leftovers, Execd];
        let places = [(true, false), (true, true), (false, false), (false, true)];
        let inits: &[Under] = if has("tini") { &[Under::Lastout, Under::Tini] } else { &[Under::Lastout] };
        scenes.into_iter().flat_map(move |scene| {
            places
                .into_iter()
                .flat_map(move |(pid1, user)| inits.iter().map(move |under| Cell { under: *under, pid1, user, scene }))
        })
    }

    /// Those with something to save, main's first.
    fn savers(self) -> &'static [&'static str] {
        match (self.scene, self.under) {
            (Handled, _) => &["main"],
            (Leftovers, _) => &["leftover"],
            (Ignored | Execd, Under::Lastout) => &["exec", "job"],
            // It takes no jobs.
            (Ignored | Execd, Under::Tini) => &["exec"],
        }
    }

    /// Whether it must come to save; `None`: that is up to the engine (Podman asks everybody, where the
    /// PID namespace is shared; the others kill).
    fn saves(self, who: &str) -> Option<bool> {
        match (who, self.under) {
            ("main", _) => Some(true),
            ("exec", Under::Lastout) if !self.pid1 => None,
            (_, Under::Lastout) => Some(true),
            (_, Under::Tini) if !self.pid1 => None,
            (_, Under::Tini) => Some(false),
        }
    }

    fn run(self, lab: &Lab) -> Outcome {
        let main: &[&str] = match self.scene {
            Handled => &["saves"],
            Ignored => &["ignores"],
            Leftovers => &["quits", "leaves"],
            Execd => &["quits"],
        };
        let init: &[&str] = match (self.under, self.pid1) {
            (Under::Lastout, _) if self.scene == Ignored => &["lastout", "--stop-timeout", PATIENCE_WITH_MAIN, "--"],
            (Under::Lastout, _) => &["lastout", "--"],
            (Under::Tini, true) => &["tini", "--"],
            (Under::Tini, false) => &["tini", "-s", "--"],
        };
        let mark = mark("worker");
        let words = [init, &["worker", "/out", "main"], main, &[&mark]].concat();
        let plan = Plan { mark: mark.clone(), words, user: self.user, host_pids: !self.pid1, ..Plan::default() };
        let mut container = lab.start(&plan);
        container.ready("main");
        let init = container.init();
        for who in self.savers() {
            let worker = ["worker", "/out", who, "saves", &mark];
            match *who {
                "exec" => container.exec_detached(&worker),
                "job" => {
                    let exec = ["lastout", "exec", "--wait", "30s", "--detach", "--"];
                    let output = container.exec(&[&exec[..], &worker].concat());
                    assert!(output.status.success(), "{self:?}: {}", both(&output));
                }
                _ => {}
            }
            container.ready(who);
        }
        let patience = if self.scene == Ignored && self.under == Under::Tini { PATIENCE_WITH_MAIN } else { "60" };
        let start = Instant::now();
        let (code, left) = container.stop(init, patience);
        let took = start.elapsed();
        let saved = self.savers().iter().map(|who| (*who, container.saved(who))).collect();
        Outcome { code, saved, left, took }
    }

    fn code(self) -> i32 {
        if self.scene == Ignored { 137 } else { 5 }
    }
}

/// Every cell of an engine, some at a time.
fn matrix(engine: Engine) {
    Lab::with(&[engine], |lab| {
        let cells: Vec<Cell> = (0..rounds(1, 3)).flat_map(|_| Cell::all()).collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || {
            while let Some(cell) = cells.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                let outcome = cell.run(lab);
                println!("{engine:?} {cell:?}: {outcome:?}");
                assert_eq!(outcome.code, cell.code(), "{engine:?} {cell:?}");
                for (who, saved) in &outcome.saved {
                    assert!(cell.saves(who).is_none_or(|must| must == *saved), "{engine:?} {cell:?}: {who}");
                }
                assert!(outcome.left == 0 || cell.under == Under::Tini, "{engine:?} {cell:?}: {} left", outcome.left);
                table::add(engine, *cell, outcome);
            }
        };
        std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(work))));
        table::write();
    });
}

#[test]
fn docker_loses_nothing_that_could_be_saved() {
    matrix(Docker);
}

#[test]
fn podman_loses_nothing_that_could_be_saved() {
    matrix(Podman);
}

#[test]
fn runc_loses_nothing_that_could_be_saved() {
    matrix(Runc);
}

#[test]
fn crun_loses_nothing_that_could_be_saved() {
    matrix(Crun);
}
