use crate::base::{JobId, Pid};

/// What a descriptor in the init's epoll set belongs to, packed into its 64 bits: kind above, number below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Token {
    /// The signalfd.
    Signals,
    /// A keeper's link.
    Keeper(JobId),
    /// The outcome of main's exec.
    Main,
    /// A helper's answer.
    Helper(Pid),
    /// A watched process that is not our child.
    Watched(Pid),
    /// A client whose `reply` we hold.
    Client(u64),
    /// The control FIFO.
    Control,
}

const NUMBER: u64 = (1 << 56) - 1;

impl Token {
    pub(super) fn pack(self) -> u64 {
        let (kind, number) = match self {
            Token::Signals => (0, 0),
            Token::Keeper(job) => (1, job.0),
            Token::Main => (2, 0),
            Token::Helper(pid) => (3, pid.get() as u64),
            Token::Watched(pid) => (4, pid.get() as u64),
            Token::Client(number) => (5, number),
            Token::Control => (6, 0),
        };
        kind << 56 | number & NUMBER
    }

    pub(super) fn unpack(packed: u64) -> Option<Token> {
        let number = packed & NUMBER;
        let pid = || Pid::new(i32::try_from(number).ok()?);
        Some(match packed >> 56 {
            0 => Token::Signals,
            1 => Token::Keeper(JobId(number)),
            2 => Token::Main,
            3 => Token::Helper(pid()?),
            4 => Token::Watched(pid()?),
            5 => Token::Client(number),
            6 => Token::Control,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_unpacks_to_itself() {
        let pid = Pid::new(4_194_304).unwrap();
        for token in [
            Token::Signals,
            Token::Keeper(JobId(1 << 50)),
            Token::Main,
            Token::Helper(pid),
            Token::Watched(pid),
            Token::Client(7),
            Token::Control,
        ] {
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
