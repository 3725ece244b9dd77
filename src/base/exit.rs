use std::fmt;

use serde::{Deserialize, Serialize};

use super::Signal;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It called `exit` with this code.
    Code(u8),
    /// A signal ended it.
    Signal(Signal),
}

impl Exit {
    /// What a shell would call `$?`: the code, or 128 + the signal's number.
    pub fn status(self) -> u8 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal.get() as u8,
        }
    }

    /// Whether SIGKILL has ended it, or what it ran, as a shell tells that.
    pub fn may_be_kill(self) -> bool {
        self.status() == Exit::Signal(Signal::KILL).status()
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => write!(f, "killed by {signal}"),
        }
    }
}

/// An `errno` value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Errno(pub i32);

impl Errno {
    /// No such file or directory: the same number on every architecture.
    pub const ENOENT: Errno = Errno(2);
    /// No room.
    pub const ENOSPC: Errno = Errno(28);
    /// Permission denied.
    pub const EACCES: Errno = Errno(13);
    /// No such device or address: a FIFO that nobody reads.
    pub const ENXIO: Errno = Errno(6);
    /// No such process.
    pub const ESRCH: Errno = Errno(3);
    /// Not a directory.
    pub const ENOTDIR: Errno = Errno(20);
}

/// What everybody else says (errno(3)), where musl says something else, or nothing.
#[rustfmt::skip]
const TEXTS: [(i32, &str); 18] = [
    (5, "input/output error"),
    (12, "cannot allocate memory"),
    (16, "device or resource busy"),
    (18, "invalid cross-device link"),
    (24, "too many open files"),
    (25, "inappropriate ioctl for device"),
    (36, "file name too long"),
    (40, "too many levels of symbolic links"),
    (62, "timer expired"),
    (95, "operation not supported"),
    (101, "network is unreachable"),
    (107, "transport endpoint is not connected"),
    (108, "cannot send after transport endpoint shutdown"),
    (110, "connection timed out"),
    (113, "no route to host"),
    (117, "structure needs cleaning"),
    (122, "disk quota exceeded"),
    (133, "memory page has hardware error"),
];
const NO_TEXT: &str = "No error information";

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some((_, text)) = TEXTS.iter().find(|(errno, _)| *errno == self.0) {
            return f.write_str(text);
        }
        // std knows the C library's text and needs no system call for it.
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        let text = text.split(" (os error").next().filter(|text| *text != NO_TEXT).unwrap_or_default();
        let mut chars = text.chars();
        match chars.next() {
            Some(first) => write!(f, "{}{}", first.to_ascii_lowercase(), chars.as_str()),
            None => write!(f, "error {}", self.0),
        }
    }
}

/// Why a command did not start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExecFailure {
    /// What failed, as a phrase: "execute ls", "change to directory /data".
    pub what: String,
    /// The system's reason.
    pub errno: Errno,
    /// What is missing is not the command but the interpreter that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
}

impl ExecFailure {
    /// 127 where there is no such command, 126 for everything else, as shells and tini have it.
    pub fn exit(&self) -> Exit {
        match self.errno {
            Errno::ENOENT | Errno::ENOTDIR if self.what.starts_with("execute") => Exit::Code(127),
            _ => Exit::Code(126),
        }
    }
}

impl fmt::Display for ExecFailure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.interpreter {
            Some(path) => write!(f, "cannot {}: its interpreter {path}: {}", self.what, self.errno),
            None => write!(f, "cannot {}: {}", self.what, self.errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_what_a_shell_shows() {
        assert_eq!(Exit::Code(0).status(), 0);
        assert_eq!(Exit::Code(255).status(), 255);
        assert_eq!(Exit::Signal(Signal::KILL).status(), 137);
        assert_eq!(Exit::Signal(Signal::new(64).unwrap()).status(), 192);
    }

    #[test]
    fn errors_are_lowercase_and_bare() {
        assert_eq!(Errno(2).to_string(), "no such file or directory");
        assert_eq!(Errno(5).to_string(), "input/output error");
        assert_eq!(Errno(24).to_string(), "too many open files");
        assert!(Errno(4000).to_string().contains("4000"));
        let failure = ExecFailure { what: "execute nope".into(), errno: Errno::ENOENT, interpreter: None };
        assert_eq!(failure.to_string(), "cannot execute nope: no such file or directory");
        assert_eq!(failure.exit(), Exit::Code(127));
        let failure = ExecFailure { what: "change to directory /nope".into(), errno: Errno::ENOENT, interpreter: None };
        assert_eq!(failure.exit(), Exit::Code(126));
        let failure = ExecFailure { interpreter: Some("/nope".into()), ..failure };
        assert!(failure.to_string().ends_with(": its interpreter /nope: no such file or directory"));
    }
}
