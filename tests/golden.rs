//! The wire, held to its golden files: what is read is written back, byte by byte.

use std::{fs, path::Path};

use lastout::{
    base::Size,
    proto::{Line, Record, Reply, Request},
};

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_request_is_read_and_written_as_ever() {
    for name in ["request.json", "request-limits.json", "request-tty.json"] {
        let bytes = golden(name);
        assert_eq!(text(&Request::parse(&bytes).unwrap().to_json()), text(&bytes));
    }
    let smallest = Request::parse(&golden("request-smallest.json")).unwrap();
    assert_eq!(smallest, Request::new(vec!["true".into()]));
}

#[test]
fn replies_are_read_and_written_as_ever() {
    let lines = text(&golden("replies.jsonl"));
    for line in lines.lines() {
        assert_eq!(text(&Reply::parse(line.as_bytes()).unwrap().to_line()).trim_end(), line);
    }
}

#[test]
fn a_record_is_read_and_written_as_ever() {
    let bytes = golden("record.json");
    assert_eq!(text(&Record::parse(&bytes).unwrap().to_json()), text(&bytes));
    let other = text(&bytes).replace(r#""version":1"#, r#""version":2"#);
    assert!(Record::parse(other.as_bytes()).unwrap_err().contains("version 2"));
}

#[test]
fn commands_are_read_and_written_as_ever() {
    for line in text(&golden("lines.txt")).lines() {
        assert_eq!(Line::parse(line.as_bytes()).unwrap().to_string(), line);
    }
}

#[test]
fn sizes_are_read_and_written_as_ever() {
    for line in text(&golden("resize.txt")).lines() {
        assert_eq!(line.parse::<Size>().unwrap().to_string(), line);
    }
}
