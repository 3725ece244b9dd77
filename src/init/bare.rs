//! What is left of the init when its supervision has panicked, or there is no memory for it: it reaps, forwards signals, and ends with
//! main's code. It allocates nothing and decides nothing that could panic.

use crate::{
    base::{Exit, Pgid, Pid, Signal},
    core::{Relay, relay},
    init::Plan,
    proto::Sender,
    sys::{
        poll::wait_readable,
        process,
        signals::{self, Signals},
        wait::{Reaped, reap},
    },
};

/// Goes on until main has ended, or without a main until it is told to stop. `leaving`: it was about to leave,
/// with this code.
pub(super) fn run(signals: &Signals, main: Option<Pid>, leaving: Option<u8>, plan: &Plan) -> u8 {
    let forwarding = &plan.manner.forwarding;
    let Some(main_pid) = main else { return leaving.unwrap_or_else(|| wait_for_stop(signals)) };
    loop {
        loop {
            match reap() {
                Reaped::Child(pid, exit, _) if pid == main_pid => {
                    return remapped(exit, &plan.remap);
                }
                Reaped::Child(..) | Reaped::Stopped(_) => {}
                Reaped::NoneYet => break,
                // Reaped before, by whatever failed.
                Reaped::NoChild => return 125,
            }
        }
        wait_readable(signals.fd());
        while let Some(arrived) = signals.next() {
            let sender = Pid::new(arrived.pid).map_or(Sender::Outside, |pid| Sender::Process {
                pid,
                uid: arrived.uid,
                comm: None,
            });
            let relay = relay(forwarding, arrived.signal, &sender, process::me(), true);
            let sent =
                forwarding.becomes(arrived.signal).filter(|_| matches!(relay, Relay::Forward | Relay::ForwardAndStop));
            let group = Pgid::led_by(main_pid).filter(|_| !forwarding.to_main_only);
            let _ = match (sent, group) {
                (Some(signal), Some(group)) => signals::send_group(group, signal),
                (Some(signal), None) => signals::send(main_pid, signal),
                (None, _) => Ok(()),
            };
        }
    }
}

/// What main's end means.
pub(super) fn remapped(exit: Exit, remap: &[u8]) -> u8 {
    Some(exit.status()).filter(|code| !remap.contains(code)).unwrap_or(0)
}

fn wait_for_stop(signals: &Signals) -> u8 {
    loop {
        while let Reaped::Child(..) | Reaped::Stopped(_) = reap() {}
        wait_readable(signals.fd());
        while let Some(arrived) = signals.next() {
            if matches!(arrived.signal, Signal::TERM | Signal::INT) {
                return 0;
            }
        }
    }
}
