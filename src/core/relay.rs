//! What becomes of a signal that reaches the init.

use crate::{
    base::{Pid, Signal},
    proto::Sender,
};

/// What becomes of a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relay {
    /// It goes to main's process group.
    Forward,
    /// It goes to main's process group and begins the shutdown.
    ForwardAndStop,
    /// It begins the shutdown.
    Stop,
    /// Nothing.
    Drop,
}

/// The decision, as a table. `me` is the init's own process id: the kernel sends SIGPIPE in its name when
/// it writes into a pipe that nobody reads, and main has no part in that.
pub fn relay(signal: Signal, sender: &Sender, me: Pid, main: bool) -> Relay {
    let own = matches!(sender, Sender::Process { pid, .. } if *pid == me);
    let term = signal == Signal::TERM;
    if !signal.can_be_forwarded() || signal == Signal::PIPE && own {
        Relay::Drop
    } else if main {
        if term { Relay::ForwardAndStop } else { Relay::Forward }
    } else if term || signal == Signal::INT {
        Relay::Stop
    } else {
        Relay::Drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_main_everything_goes_on_and_only_term_stops() {
        for raw in 1..=64 {
            let signal = Signal::new(raw).unwrap();
            let expected = match raw {
                9 | 17 | 19 => Relay::Drop,
                15 => Relay::ForwardAndStop,
                _ => Relay::Forward,
            };
            assert_eq!(relay(signal, &Sender::Outside, Pid::INIT, true), expected, "{signal}");
        }
    }

    #[test]
    fn in_hold_term_and_int_stop_and_the_rest_is_dropped() {
        for raw in 1..=64 {
            let signal = Signal::new(raw).unwrap();
            let expected = if [2, 15].contains(&raw) { Relay::Stop } else { Relay::Drop };
            assert_eq!(relay(signal, &Sender::Outside, Pid::INIT, false), expected, "{signal}");
        }
    }

    #[test]
    fn our_own_broken_pipe_is_not_mains() {
        let own = Sender::Process { pid: Pid::INIT, uid: 0, comm: None };
        assert_eq!(relay(Signal::PIPE, &own, Pid::INIT, true), Relay::Drop);
        let other = Sender::Process { pid: Pid::new(7).unwrap(), uid: 0, comm: None };
        assert_eq!(relay(Signal::PIPE, &other, Pid::INIT, true), Relay::Forward);
    }
}
