//! What a service says of itself (`sd_notify(3)`), read.

use std::time::Duration;

/// Characters of a status that are kept.
const STATUS: usize = 512;

/// One thing that it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// `READY=1`.
    Ready,
    /// `STOPPING=1`.
    Stopping,
    /// `STATUS=`, shortened.
    Status(String),
    /// `WATCHDOG=1`.
    Alive,
    /// `WATCHDOG=trigger`: as if it had not said `WATCHDOG=1` in time.
    Trigger,
    /// `WATCHDOG_USEC=`: how often it will say `WATCHDOG=1` from now on; zero: no more.
    Watchdog(Duration),
    /// `EXTEND_TIMEOUT_USEC=`: it needs no less than this from now on.
    Extend(Duration),
}

/// Reads one message: a variable and its value a line. What is not about us (`MAINPID=`, `FDSTORE=1`) or not understood
/// is passed over.
pub fn notes(message: &[u8]) -> Vec<Note> {
    let lines = message.split(|b| *b == b'\n');
    lines.filter_map(|line| note(&String::from_utf8_lossy(line))).collect()
}

fn note(line: &str) -> Option<Note> {
    let micros = |value: &str| value.parse().ok().map(Duration::from_micros);
    match line.split_once('=')? {
        ("READY", "1") => Some(Note::Ready),
        ("STOPPING", "1") => Some(Note::Stopping),
        ("STATUS", status) => {
            let printable = status.chars().map(|c| if c.is_control() { ' ' } else { c });
            Some(Note::Status(printable.take(STATUS).collect()))
        }
        ("WATCHDOG", "1") => Some(Note::Alive),
        ("WATCHDOG", "trigger") => Some(Note::Trigger),
        ("WATCHDOG_USEC", value) => micros(value).map(Note::Watchdog),
        ("EXTEND_TIMEOUT_USEC", value) => micros(value).map(Note::Extend),
        (_, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_line_by_line() {
        let micros = Duration::from_micros;
        let cases: [(&[u8], Vec<Note>); 8] = [
            (b"READY=1", vec![Note::Ready]),
            (b"READY=1\nSTATUS=up \xff\x1b[1m\n", vec![Note::Ready, Note::Status("up \u{fffd} [1m".into())]),
            (b"STATUS=", vec![Note::Status(String::new())]),
            (b"WATCHDOG=1\nMAINPID=7\nWATCHDOG=trigger", vec![Note::Alive, Note::Trigger]),
            (
                b"WATCHDOG_USEC=5\nEXTEND_TIMEOUT_USEC=7000000",
                vec![Note::Watchdog(micros(5)), Note::Extend(micros(7_000_000))],
            ),
            (b"STOPPING=1\nFDSTORE=1\nFDNAME=x", vec![Note::Stopping]),
            (b"READY=0\nREADY\nready=1\nWATCHDOG_USEC=-1\nEXTEND_TIMEOUT_USEC=", vec![]),
            (b"", vec![]),
        ];
        for (message, expected) in cases {
            assert_eq!(notes(message), expected, "{}", String::from_utf8_lossy(message));
        }
    }

    #[test]
    fn a_long_status_is_shortened() {
        let Some(Note::Status(status)) = notes(format!("STATUS={}", "ä".repeat(9000)).as_bytes()).pop() else {
            panic!("a status");
        };
        assert_eq!(status.chars().count(), STATUS);
    }
}
