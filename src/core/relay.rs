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

/// To whom signals go on, and as what. The default is lastout's own way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Forwarding {
    /// To main alone, not to its process group.
    pub to_main_only: bool,
    /// What is passed over.
    pub kept: Vec<Signal>,
    /// What goes on as another one, or not at all. The latest entry for a signal counts.
    pub rewritten: Vec<(Signal, Option<Signal>)>,
    /// SIGTERM goes on like every other signal, and does not begin the shutdown.
    pub term_goes_on: bool,
    /// The signals by which a terminal stops a process stop the init, too.
    pub suspends: bool,
    /// When main has ended, what is left in its group gets this one, rewritten.
    pub after_main: Option<Signal>,
}

impl Forwarding {
    /// What is sent when this one arrives.
    pub fn becomes(&self, signal: Signal) -> Option<Signal> {
        let found = self.rewritten.iter().rev().find(|(from, _)| *from == signal);
        found.map_or(Some(signal), |(_, to)| *to)
    }
}

/// The decision, as a table. `me` is the init's own process id: the kernel sends SIGPIPE in its name when
/// it writes into a pipe that nobody reads, and main has no part in that.
pub fn relay(forwarding: &Forwarding, signal: Signal, sender: &Sender, me: Pid, main: bool) -> Relay {
    let own = matches!(sender, Sender::Process { pid, .. } if *pid == me);
    let term = signal == Signal::TERM;
    let kept = !signal.can_be_forwarded() || forwarding.kept.contains(&signal);
    if kept || signal == Signal::PIPE && own {
        Relay::Drop
    } else if main {
        if term && !forwarding.term_goes_on { Relay::ForwardAndStop } else { Relay::Forward }
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
            assert_eq!(relay(&Forwarding::default(), signal, &Sender::Outside, Pid::INIT, true), expected, "{signal}");
        }
    }

    #[test]
    fn in_hold_term_and_int_stop_and_the_rest_is_dropped() {
        for raw in 1..=64 {
            let signal = Signal::new(raw).unwrap();
            let expected = if [2, 15].contains(&raw) { Relay::Stop } else { Relay::Drop };
            assert_eq!(relay(&Forwarding::default(), signal, &Sender::Outside, Pid::INIT, false), expected, "{signal}");
        }
    }

    #[test]
    fn our_own_broken_pipe_is_not_mains() {
        let own = Sender::Process { pid: Pid::INIT, uid: 0, comm: None };
        assert_eq!(relay(&Forwarding::default(), Signal::PIPE, &own, Pid::INIT, true), Relay::Drop);
        let other = Sender::Process { pid: Pid::new(7).unwrap(), uid: 0, comm: None };
        assert_eq!(relay(&Forwarding::default(), Signal::PIPE, &other, Pid::INIT, true), Relay::Forward);
    }

    #[test]
    fn a_persona_keeps_rewrites_and_lets_term_go_on() {
        let [hup, term, usr1] = [Signal::HUP, Signal::TERM, Signal::USR1];
        let forwarding = Forwarding {
            kept: vec![Signal::TTIN],
            rewritten: vec![(term, Some(hup)), (usr1, Some(term)), (usr1, None)],
            term_goes_on: true,
            ..Forwarding::default()
        };
        let relay = |signal, main| relay(&forwarding, signal, &Sender::Outside, Pid::INIT, main);
        assert_eq!([relay(term, true), relay(Signal::TTIN, true)], [Relay::Forward, Relay::Drop]);
        assert_eq!([relay(term, false), relay(usr1, false)], [Relay::Stop, Relay::Drop]);
        // Not chained, and the latest entry counts.
        assert_eq!([term, usr1, hup].map(|signal| forwarding.becomes(signal)), [Some(hup), None, Some(hup)]);
    }
}
