//! `ps` and `doctor`.

use std::{fs, path::Path, process::Stdio};

use crate::{
    lab::{Lab, Role, Turn, in_turns, quiet, scratch, wait_for, words},
    report::Row,
    support::{
        hangfs::{HangFs, Op},
        has, until,
    },
};

/// lastout with a main of 1,000 processes, and 20 jobs.
struct Crowd {
    init: std::process::Child,
    control: std::path::PathBuf,
    _scratch: tempfile::TempDir,
}

impl Crowd {
    fn start(lab: &Lab) -> Crowd {
        let scratch = scratch();
        let control = scratch.path().join("control");
        let main = [&lab.program("lastout"), "--control", control.to_str().unwrap(), "--", &lab.program("load")];
        let mut init = quiet(&words(&main, &["sleepers", "1000"])).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(init.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
        wait_for(lab, &control);
        let crowd = Crowd { init, control, _scratch: scratch };
        for _ in 0..20 {
            crowd.job(lab, &[&lab.program("load"), "sleep"]);
        }
        crowd
    }

    fn client(&self, lab: &Lab, command: &[&str], options: &[&str]) -> Vec<String> {
        let control = self.control.to_str().unwrap();
        words(&[&[lab.program("lastout").as_str()], command, &["--control", control], options].concat(), &[])
    }

    fn job(&self, lab: &Lab, command: &[&str]) {
        crate::lab::time(&mut quiet(&self.client(lab, &["exec", "-d"], &[&["--"], command].concat())));
    }

    fn turn<'a>(&self, lab: &Lab, command: &str) -> Turn<'a> {
        let mut command = quiet(&self.client(lab, &[command], &[]));
        // doctor's exit code is 1 if something hangs.
        Turn::new("lastout", Role::Lastout, move || {
            let start = std::time::Instant::now();
            let code = command.status().unwrap().code();
            assert!(matches!(code, Some(0 | 1)), "{command:?}: {code:?}");
            crate::lab::ms(start)
        })
    }

    fn rows(&self, lab: &Lab, what: &str, rounds: (usize, usize)) -> Vec<Row> {
        let take = |command: &str, rounds: usize| in_turns(rounds, vec![self.turn(lab, command)]);
        let ps = Row::new(format!("`ps` {what}"), "ms", take("ps", rounds.0));
        let doctor = Row::new(format!("`doctor` {what}"), "ms", take("doctor", rounds.1));
        vec![ps.target("≤ 10", |row| Some((row.values[0].median <= 10.0).into())), doctor]
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        crate::lab::term(self.init.id() as i32);
        let _ = self.init.wait();
    }
}

pub fn look(lab: &Lab) -> Vec<Row> {
    let crowd = Crowd::start(lab);
    crowd.rows(lab, "with 1,000 processes", (lab.rounds(500, 100), lab.rounds(50, 10)))
}

/// The same while ten jobs hang on a volume that does not answer.
pub fn frozen(lab: &Lab) -> Vec<Row> {
    if !has("fuse") {
        return vec![Row::failed("`ps` and `doctor` with a frozen volume")];
    }
    let place = scratch();
    let crowd = Crowd::start(lab);
    // After the crowd, so that it thaws first.
    let volume = HangFs::mount(&place.path().join("volume"));
    volume.put("file", &[0; 10], 0o644);
    // Not `Read`: of those who read the same page only the first asks the volume, and the others wait for the first.
    volume.freeze(&[Op::Open]);
    let file = volume.path.join("file");
    for _ in 0..10 {
        crowd.job(lab, &["/bin/cat", file.to_str().unwrap()]);
    }
    until("those that hang", || (hanging() >= 10).then_some(()));
    let rows = crowd.rows(lab, "with a frozen volume besides", (lab.rounds(500, 100), lab.rounds(20, 3)));
    volume.thaw();
    rows
}

fn hanging() -> usize {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let hangs = |path: &Path| fs::read_to_string(path.join("wchan")).is_ok_and(|wchan| wchan == "request_wait_answer");
    pids.filter(|pid| hangs(&pid.path())).count()
}
