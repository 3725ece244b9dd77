//! What a job prints, on its way to a file and to a pipe.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
    process::Stdio,
    time::Instant,
};

use crate::{
    engines,
    lab::{Lab, Role, Turn, in_turns, quiet, scratch, words},
    report::Row,
};

fn finish(mut child: std::process::Child) {
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
}

/// MB/s of one run of a shell's or a client's words into `out`.
fn to_file(words: &[String], out: &Path, size: f64) -> f64 {
    let start = Instant::now();
    finish(quiet(words).stdout(File::create(out).unwrap()).spawn().unwrap());
    let took = start.elapsed().as_secs_f64();
    assert_eq!(fs::metadata(out).unwrap().len() as f64, size * 1e6);
    fs::remove_file(out).unwrap();
    size / took
}

fn to_pipe(words: &[String], buffer: &mut [u8], size: f64) -> f64 {
    let start = Instant::now();
    let mut child = quiet(words).stdout(Stdio::piped()).spawn().unwrap();
    let mut from = child.stdout.take().unwrap();
    let mut all = 0;
    loop {
        match from.read(buffer).unwrap() {
            0 => break,
            read => all += read,
        }
    }
    finish(child);
    assert_eq!(all as f64, size * 1e6);
    size / start.elapsed().as_secs_f64()
}

pub fn output(lab: &Lab) -> Vec<Row> {
    let (control, volume) = (scratch(), scratch());
    let size = if lab.quick { 200.0 } else { 1000.0 };
    let (big, out) = (volume.path().join("big"), volume.path().join("out"));
    let mut file = File::create(&big).unwrap();
    let block = vec![0x5a; 1_000_000];
    (0..size as usize).for_each(|_| file.write_all(&block).unwrap());
    let at = format!("{}:/volume", volume.path().display());
    // Without Docker the init is this side's.
    let container = engines::docker(lab, control.path(), &["/bench/lastout"], &["--volume", &at]);
    let inside = if container.is_ok() { "/volume/big" } else { big.to_str().unwrap() };
    let local = container.is_err().then(|| {
        let init = [&lab.program("lastout"), "--control", control.path().to_str().unwrap()];
        quiet(&words(&init, &[])).spawn().unwrap()
    });
    let client = [&lab.program("lastout"), "exec", "--wait", "30", "--control", control.path().to_str().unwrap(), "--"];
    let lastout = words(&client, &["cat", inside]);
    let (cat, relayed) = (["cat", big.to_str().unwrap()], ["sh", "-c", "cat \"$0\" | cat", big.to_str().unwrap()]);
    let docker = container.as_ref().ok().map(|one| [&one.exec[..], &words(&["cat", inside], &[])].concat());
    let rounds = lab.rounds(10, 5);
    let row = |what: &str, direct: Vec<String>, take: &dyn Fn(&[String]) -> f64| {
        let mut turns = vec![
            Turn::new("lastout", Role::Lastout, || take(&lastout)),
            Turn::new("a direct pipe", Role::Floor, || take(&direct)),
        ];
        if let Some(docker) = &docker {
            turns.push(Turn::new("docker exec", Role::Peer, || take(docker)));
        }
        let title = format!("output of `exec -- cat` of {size:.0} MB to a {what}");
        let row = Row::more(title, "MB/s", in_turns(rounds, turns)).not_there(match docker {
            Some(_) => Vec::new(),
            None => vec!["docker exec".into()],
        });
        row.target("≥ 0.8 × a direct pipe (floor)", |row| Some((row.to_floor? >= 0.8).into()))
    };
    let buffer = std::cell::RefCell::new(vec![0; 1 << 16]);
    let rows = vec![
        row("file", words(&relayed, &[]), &|words| to_file(words, &out, size)),
        row("pipe", words(&cat, &[]), &|words| to_pipe(words, &mut buffer.borrow_mut(), size)),
    ];
    if let Some(mut init) = local {
        crate::lab::term(init.id() as i32);
        let _ = init.wait();
    }
    rows
}
