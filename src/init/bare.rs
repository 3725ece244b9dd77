//! What is left of the init when its supervision has panicked, or there is no memory for it: it reaps, forwards signals, and ends with
//! main's code. It allocates nothing and decides nothing that could panic.

use crate::{
    base::{Exit, Pgid, Pid, Signal},
    core::{Relay, relay},
    proto::Sender,
    sys::{
        poll::wait_readable,
        process,
        signals::{self, Signals},
        wait::{Reaped, reap},
    },
};

/// Goes on until main has ended, or without a main until it is told to stop. `leaving`: it was about to leave,
/// with this code. `remap`: main's exit codes that become 0.
pub(super) fn run(signals: &Signals, main: Option<Pid>, leaving: Option<u8>, remap: &[u8]) -> u8 {
    let Some(main_pid) = main else { return leaving.unwrap_or_else(|| wait_for_stop(signals)) };
    loop {
        loop {
            match reap() {
                Reaped::Child(pid, exit, _) if pid == main_pid => {
                    return remapped(exit, remap);
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
            let relay = relay(arrived.signal, &sender, process::me(), true);
            if let (Relay::Forward | Relay::ForwardAndStop, Some(group)) = (relay, Pgid::led_by(main_pid)) {
                let _ = signals::send_group(group, arrived.signal);
            }
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
