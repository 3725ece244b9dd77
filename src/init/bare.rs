//! What is left of the init when its supervision has panicked: it reaps, forwards signals, and ends with
//! main's code. It allocates nothing and decides nothing that could panic.

use std::os::fd::AsFd;

use crate::{
    base::{Pgid, Pid, Signal},
    core::{Relay, relay},
    proto::Sender,
    sys::{
        poll::{Interest, wait_any},
        process,
        signals::{self, Signals},
        wait::{Reaped, reap},
    },
};

/// Goes on until main has ended, or without a main until it is told to stop. `code` is what main's end means
/// if it has ended already.
pub(super) fn run(signals: &Signals, main: Option<Pid>, code: u8) -> u8 {
    let Some(main_pid) = main else { return wait_for_stop(signals, code) };
    loop {
        loop {
            match reap() {
                Reaped::Child(pid, exit, _) if pid == main_pid => return exit.status(),
                Reaped::Child(..) | Reaped::Stopped(_) => {}
                Reaped::NoneYet => break,
                Reaped::NoChild => return code,
            }
        }
        wait(signals);
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

fn wait_for_stop(signals: &Signals, code: u8) -> u8 {
    loop {
        while let Reaped::Child(..) | Reaped::Stopped(_) = reap() {}
        wait(signals);
        while let Some(arrived) = signals.next() {
            if matches!(arrived.signal, Signal::TERM | Signal::INT) {
                return code;
            }
        }
    }
}

fn wait(signals: &Signals) {
    let _ = wait_any(&[(signals.fd().as_fd(), Interest::Read)], None);
}
