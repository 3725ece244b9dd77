use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A signal number, 1 to 64, by its Linux name (`signal(7)`; the numbers are those of x86, Arm and RISC-V).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signal(u8);

/// Names in the order of their numbers, from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
const ALIASES: [(&str, u8); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

const FAULTS: [&str; 10] = ["ILL", "TRAP", "ABRT", "BUS", "FPE", "SEGV", "PIPE", "XCPU", "XFSZ", "SYS"];

/// glibc's SIGRTMIN; the two below it are glibc's own.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl Signal {
    /// Hang-up of the controlling terminal.
    pub const HUP: Signal = Signal(1);
    /// Interrupt from the keyboard.
    pub const INT: Signal = Signal(2);
    /// Quit from the keyboard.
    pub const QUIT: Signal = Signal(3);
    /// Cannot be caught.
    pub const KILL: Signal = Signal(9);
    /// For the user.
    pub const USR1: Signal = Signal(10);
    /// For the user.
    pub const USR2: Signal = Signal(12);
    /// Write to a pipe that nobody reads.
    pub const PIPE: Signal = Signal(13);
    /// "Please end."
    pub const TERM: Signal = Signal(15);
    /// A child changed its state.
    pub const CHLD: Signal = Signal(17);
    /// Go on after a stop.
    pub const CONT: Signal = Signal(18);
    /// Power failure.
    pub const PWR: Signal = Signal(30);
    /// Cannot be caught.
    pub const STOP: Signal = Signal(19);
    /// Stop, from the keyboard.
    pub const TSTP: Signal = Signal(20);
    /// Urgent data on a socket.
    pub const URG: Signal = Signal(23);
    /// The terminal's window has another size.
    pub const WINCH: Signal = Signal(28);
    /// Read from the terminal in the background.
    pub const TTIN: Signal = Signal(21);
    /// Write to the terminal in the background.
    pub const TTOU: Signal = Signal(22);

    /// Every name but those of real-time signals, which are counted.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().chain(ALIASES.map(|(name, _)| name))
    }

    /// `None` unless `raw` is 1 to 64.
    pub const fn new(raw: i32) -> Option<Signal> {
        if raw >= 1 && raw <= RTMAX as i32 { Some(Signal(raw as u8)) } else { None }
    }

    /// The number, for a system call.
    pub const fn get(self) -> i32 {
        self.0 as i32
    }

    /// The signals that the kernel, or `abort(3)`, gives a process for what it did itself: a bad instruction or
    /// access, a used-up limit, a write into a pipe that nobody reads.
    pub fn is_fault(self) -> bool {
        matches!(NAMES.get(usize::from(self.0) - 1), Some(&name) if FAULTS.contains(&name))
    }

    /// The signals by which a terminal stops a process.
    pub fn is_from_terminal_to_stop(self) -> bool {
        matches!(self, Signal::TSTP | Signal::TTIN | Signal::TTOU)
    }

    /// Every signal that an init can pass on: all but those that cannot be caught, and SIGCHLD, which is
    /// about the init's own children.
    pub fn can_be_forwarded(self) -> bool {
        !matches!(self, Signal::KILL | Signal::STOP | Signal::CHLD)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            n @ 1..=31 => write!(f, "SIG{}", NAMES[usize::from(n) - 1]),
            RTMIN => write!(f, "SIGRTMIN"),
            n if n > RTMIN => write!(f, "SIGRTMIN+{}", n - RTMIN),
            n => write!(f, "signal {n}"),
        }
    }
}

impl FromStr for Signal {
    type Err = String;

    /// `TERM`, `SIGTERM`, `15`, `RTMIN+3`, `RTMAX-1`, in any case.
    fn from_str(text: &str) -> Result<Signal, String> {
        let unknown =
            || format!("unknown signal '{text}': use a name such as TERM or RTMIN+3, or a number from 1 to 64");
        let upper = text.to_ascii_uppercase();
        let numeric = upper.strip_prefix("SIGNAL ").unwrap_or(&upper);
        if let Ok(number) = numeric.parse::<i32>() {
            return Signal::new(number).ok_or_else(unknown);
        }
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = if let Some(at) = NAMES.iter().position(|known| *known == name) {
            at as u8 + 1
        } else if let Some((_, number)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
            *number
        } else if let Some(rest) = name.strip_prefix("RTMIN") {
            RTMIN.checked_add(offset(rest, '+').ok_or_else(unknown)?).ok_or_else(unknown)?
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            RTMAX.checked_sub(offset(rest, '-').ok_or_else(unknown)?).ok_or_else(unknown)?
        } else {
            return Err(unknown());
        };
        let real_time = name.starts_with("RT");
        if real_time && !(RTMIN..=RTMAX).contains(&number) {
            return Err(unknown());
        }
        Ok(Signal(number))
    }
}

/// The number behind `sign`, or 0 for nothing at all.
fn offset(rest: &str, sign: char) -> Option<u8> {
    if rest.is_empty() {
        return Some(0);
    }
    rest.strip_prefix(sign)?.parse().ok()
}

impl TryFrom<String> for Signal {
    type Error = String;
    fn try_from(text: String) -> Result<Signal, String> {
        text.parse()
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> String {
        signal.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_reads_back_from_its_name() {
        for raw in 1..=64 {
            let signal = Signal::new(raw).unwrap();
            assert_eq!(signal.to_string().parse(), Ok(signal), "{signal}");
        }
        assert_eq!(Signal::new(0), None);
        assert_eq!(Signal::new(65), None);
    }

    #[test]
    fn names_are_read_as_kill_reads_them() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("rtmin", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("POLL", 29),
        ] {
            assert_eq!(text.parse::<Signal>().map(Signal::get), Ok(number), "{text}");
        }
        for text in ["", "0", "65", "-1", "TERMINATE", "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMIN+999", "SIG"] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }
}
