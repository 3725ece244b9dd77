//! From what a service writes to the lines of its log.

use std::time::SystemTime;

use serde::Serialize;

use crate::core::service::Format;

/// A line that is longer is cut, in bytes.
pub(super) const LONGEST: usize = 64 * 1024;

/// One stream's bytes, made into lines as they come.
#[derive(Debug)]
pub(super) struct Lines {
    format: Format,
    /// What has come of a line that has not ended.
    begun: Vec<u8>,
}

impl Lines {
    pub(super) fn new(format: Format) -> Lines {
        Lines { format, begun: Vec::new() }
    }

    /// Passes on each line, without its newline; raw ones with it, and without waiting for it.
    pub(super) fn take(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(&[u8])) {
        if self.format == Format::Raw {
            return bytes.split_inclusive(|b| *b == b'\n').for_each(each);
        }
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            if self.begun.is_empty() && end <= LONGEST {
                each(&bytes[..end]);
            } else {
                self.begun.extend_from_slice(&bytes[..end]);
                self.cut(each);
                each(&std::mem::take(&mut self.begun));
            }
            bytes = &bytes[end + 1..];
        }
        self.begun.extend_from_slice(bytes);
        self.cut(each);
    }

    /// No more will come.
    pub(super) fn end(&mut self, each: &mut dyn FnMut(&[u8])) {
        if !self.begun.is_empty() {
            each(&std::mem::take(&mut self.begun));
        }
    }

    fn cut(&mut self, each: &mut dyn FnMut(&[u8])) {
        while self.begun.len() > LONGEST {
            // A character is not cut, if they are characters.
            let is_inside = |at: &usize| self.begun[*at] & 0xc0 == 0x80;
            let at = (LONGEST - 3..=LONGEST).rev().find(|at| !is_inside(at)).unwrap_or(LONGEST);
            each(&self.begun[..at]);
            self.begun.drain(..at);
        }
    }
}

/// A line as the log has it.
pub(super) fn format(format: Format, time: SystemTime, service: &str, stream: &str, text: &[u8]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a> {
        time: &'a str,
        service: &'a str,
        stream: &'a str,
        text: &'a str,
    }
    let time = || humantime::format_rfc3339_millis(time).to_string();
    match format {
        Format::Raw => text.to_vec(),
        Format::Prefix => [format!("{} {service}: ", time()).as_bytes(), text, b"\n"].concat(),
        Format::Json => {
            let line = Line { time: &time(), service, stream, text: &String::from_utf8_lossy(text) };
            let mut line = serde_json::to_vec(&line).unwrap_or_default();
            line.push(b'\n');
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lines(format: Format, chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut found) = (Lines::new(format), Vec::new());
        chunks.iter().for_each(|chunk| lines.take(chunk, &mut |line| found.push(line.to_vec())));
        lines.end(&mut |line| found.push(line.to_vec()));
        found
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        for (chunks, expected) in [
            (&[&b"a\nb\n"[..]][..], &[&b"a"[..], b"b"][..]),
            (&[b"a", b"b", b"\n\nc"], &[b"ab", b"", b"c"]),
            (&[b"\xff\n"], &[b"\xff"]),
            (&[b""], &[]),
        ] {
            assert_eq!(lines(Format::Prefix, chunks), expected, "{chunks:?}");
        }
        assert_eq!(lines(Format::Raw, &[b"a\nb", b"c\n"]), [&b"a\n"[..], b"b", b"c\n"]);
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters_and_nothing_is_lost() {
        let long = "ä".repeat(LONGEST).into_bytes();
        let odd = [&b"x"[..], &long].concat();
        for (text, whole) in
            [(&long, true), (&odd, true), (&vec![b'x'; 2 * LONGEST], true), (&vec![0x80; 3 * LONGEST], false)]
        {
            for chunk in [text.len(), 1000] {
                let chunks: Vec<&[u8]> = text.chunks(chunk).chain([&b"\nnext"[..]]).collect();
                let mut found = lines(Format::Json, &chunks);
                assert_eq!(found.pop().unwrap(), b"next");
                assert!(
                    found
                        .iter()
                        .all(|line| line.len() <= LONGEST && line.len() > LONGEST - 4 || line == found.last().unwrap())
                );
                assert!(found.iter().all(|line| std::str::from_utf8(line).is_ok() == whole));
                assert_eq!(found.concat(), **text);
            }
        }
    }

    #[test]
    fn formats_are_as_documented() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_278_053_123);
        let line =
            |kind| String::from_utf8_lossy(&format(kind, time, "ray", "stderr", b"a \"b\" \xff\x1b")).into_owned();
        assert_eq!(line(Format::Prefix), "2026-11-21T16:20:53.123Z ray: a \"b\" \u{fffd}\u{1b}\n");
        let expected =
            r#"{"time":"2026-11-21T16:20:53.123Z","service":"ray","stream":"stderr","text":"a \"b\" �\u001b"}"#;
        assert_eq!(line(Format::Json), format!("{expected}\n"));
        assert_eq!(format(Format::Prefix, time, "ray", "stdout", b"\xff")[26..], *b"ay: \xff\n");
    }
}
