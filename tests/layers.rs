//! The picture in `src/lib.rs`, held: who may import whom, and who may be unsafe.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each room, and what it may import besides itself.
const MAY_IMPORT: [(&str, &[&str]); 10] = [
    ("base", &[]),
    ("proto", &["base"]),
    ("sys", &["base"]),
    ("core", &["base", "proto"]),
    ("config", &["base", "core"]),
    ("inspect", &["base", "sys"]),
    ("keeper", &["base", "proto", "sys", "core", "inspect"]),
    ("client", &["base", "proto", "sys", "core", "config", "inspect"]),
    ("init", &["base", "proto", "sys", "core", "config", "inspect", "keeper"]),
    ("cli", &["base", "proto", "sys", "config", "client", "init"]),
];
/// What only the fenced rooms may touch.
const FENCED: [(&str, &[&str]); 3] = [("unsafe ", &["sys"]), ("libc::", &["sys"]), ("nix::", &["sys"])];
/// What decisions may not know.
const NOT_IN_CORE: [&str; 7] = ["std::fs", "std::io", "std::os", "std::process", "std::thread", "Instant", "log::"];

fn sources(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The file's code: comments left out, and `use crate::{...}` trees flattened to `crate::room`.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn imported(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(tree) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for character in tree.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => rooms.push(std::mem::take(&mut word)),
                    _ if depth == 0 => word.push(character),
                    _ => {}
                }
            }
            rooms.push(word);
        } else {
            rooms.push(rest.to_string());
        }
    }
    let first =
        |room: &String| room.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_string();
    rooms.iter().map(first).filter(|room| !room.is_empty()).collect()
}

#[test]
fn imports_point_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut rooms = 0;
    for (room, allowed) in MAY_IMPORT {
        for path in sources(&src.join(room)) {
            rooms += 1;
            for other in imported(&code(&path)) {
                let known = MAY_IMPORT.iter().any(|(name, _)| *name == other);
                assert!(
                    !known || other == room || allowed.contains(&other.as_str()),
                    "{}: imports {other}",
                    path.display()
                );
            }
        }
    }
    assert!(rooms > 30, "the walk finds the sources");
}

#[test]
fn the_fences_stand() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources(&src) {
        let room = path.strip_prefix(&src).unwrap().components().next().unwrap().as_os_str().to_str().unwrap();
        let code = code(&path);
        for (what, rooms) in FENCED {
            let in_word = |at: usize| code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let found = code.match_indices(what).any(|(at, _)| !in_word(at));
            assert!(rooms.contains(&room) || !found, "{}: {what}", path.display());
        }
        if room == "core" {
            for what in NOT_IN_CORE {
                assert!(!code.contains(what), "{}: {what}", path.display());
            }
            let decisions = code.split("#[cfg(test)]").next().unwrap_or_default();
            let is_test = path.ends_with("tests.rs");
            assert!(is_test || !decisions.contains("_ =>"), "{}: a catch-all", path.display());
        }
    }
}

#[test]
fn the_walk_reads_imports_as_the_compiler_does() {
    let code = "use crate::{\n base::{Pid, Tick},\n proto::Line, sys::fd,\n};\n crate::core::x()";
    assert_eq!(imported(code), ["base", "proto", "sys", "core"]);
}
