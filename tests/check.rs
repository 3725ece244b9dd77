//! `lastout check`.

use std::{fs, process::Stdio};

use serde_json::{Value, json};

use crate::support::*;

const GOOD: &str = "[service.a]\ncommand = 'x'\n[service.b]\ncommand = 'x'\n[mount.m]\ncommand = 'x'\npath = '/m'\n";
const BAD: &str = "gracee = 1\n[service.a]\ncommand = ['x']\nafter = { a = 'ready' }\n";

#[test]
fn a_good_file_is_a_line_and_a_bad_one_all_its_problems() {
    let scratch = scratch();
    let path = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let (good, bad, empty) = (path("good", GOOD), path("bad", BAD), path("empty", ""));
    let missing = scratch.path().join("missing").to_str().unwrap().to_string();

    let output = lastout(&["check", &good, &empty]).output().unwrap();
    assert_eq!(status(output.status), 0, "{}", both(&output));
    let expected = format!("{good}: 2 services (a, b), 1 mount (m)\n{empty}: no service, no mount\n");
    assert_eq!(both(&output), expected);

    let output = lastout(&["check", &good, &bad, &missing]).output().unwrap();
    assert_eq!(status(output.status), 125, "{}", both(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
    let expected = format!(
        "{bad}:1:1: unknown key `gracee`: did you mean `grace`?\n\
         {bad}:4:11: a cycle: a -> a; leave one of these `after` out\n\
         {missing}: cannot read it: no such file or directory\n"
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);

    let output = lastout(&["check", "--json", &good, &bad, &missing]).output().unwrap();
    assert_eq!(status(output.status), 125, "{}", both(&output));
    let problems: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = "unknown key `gracee`: did you mean `grace`?";
    assert_eq!(problems[0], json!({ "file": bad, "line": 1, "column": 1, "text": text }));
    assert_eq!(problems[2], json!({ "file": missing, "text": "cannot read it: no such file or directory" }));
    assert_eq!(lastout(&["check", "--json", &good]).output().unwrap().stdout, b"[]\n");
}

#[test]
fn standard_input_is_a_file_too() {
    let scratch = scratch();
    let path = scratch.path().join("bad");
    fs::write(&path, BAD).unwrap();
    let input = fs::File::open(&path).unwrap();
    let output = lastout(&["check", "-"]).stdin(Stdio::from(input)).output().unwrap();
    assert_eq!(status(output.status), 125, "{}", both(&output));
    assert!(both(&output).starts_with("-:1:1: unknown key"), "{}", both(&output));
}

#[test]
fn the_schema_is_for_editors() {
    let output = lastout(&["check", "--schema"]).output().unwrap();
    assert_eq!(status(output.status), 0, "{}", both(&output));
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let ready = &schema["properties"]["service"]["additionalProperties"]["properties"]["ready"];
    assert_eq!(ready["default"], "started");
    for wrong in [&["check"][..], &["check", "--schema", "x"]] {
        assert_eq!(status(lastout(wrong).output().unwrap().status), 125, "{wrong:?}");
    }
}
