//! What is left of the init when its supervision has panicked, or there is no memory for it: it reaps, forwards signals, and ends with
//! main's code. It allocates nothing and decides nothing that could panic.

use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicI32, Ordering::Relaxed},
    time::Duration,
};

use super::control::Control;
use crate::{
    base::{Exit, Pid, Signal},
    core::{Forwarding, Relay, relay},
    init::Plan,
    proto::Sender,
    sys::{
        pidfd,
        poll::{Interest, wait_any, wait_readable},
        process,
        signals::{self, Signals},
        stderr,
        wait::{Reaped, reap},
    },
};

/// What it goes by. It lies apart from the loop's state, which a panic may find in the middle of a change.
#[derive(Debug)]
pub(super) struct Bare {
    forwarding: &'static Forwarding,
    remap: &'static [u8],
    pub(super) signals: Signals,
    pub(super) control: Option<Control>,
    /// Main, as long as it has not ended; or 0.
    main: AtomicI32,
    /// The exit code, if it has begun to leave or was about to; or -1.
    leaving: AtomicI32,
    /// Who writes the log, if it is a process of its own; or 0.
    writer: AtomicI32,
}

impl Bare {
    /// For as long as this process lives.
    pub(super) fn new(plan: &'static Plan, signals: Signals, control: Option<Control>) -> &'static Bare {
        let (main, leaving, writer) = (AtomicI32::new(0), AtomicI32::new(-1), AtomicI32::new(0));
        let (forwarding, remap) = (&plan.manner.forwarding, &plan.remap[..]);
        Box::leak(Box::new(Bare { forwarding, remap, signals, control, main, leaving, writer }))
    }

    /// What the loop would have it know.
    pub(super) fn note(&self, main: Option<Pid>, leaving: Option<u8>, writer: Option<Pid>) {
        self.main.store(main.map_or(0, Pid::get), Relaxed);
        self.leaving.store(leaving.map_or(-1, i32::from), Relaxed);
        self.writer.store(writer.map_or(0, Pid::get), Relaxed);
    }

    /// Is the init from here on. Answers with the exit code.
    pub(super) fn go_on(&self, why: &str) -> u8 {
        // Nobody reads the FIFO any more: new clients are not to find it. It stays open, because its end would tell the
        // clients of running jobs that the init has died.
        if let Some(control) = &self.control {
            control.hide();
        }
        log::error!("{why}: supervision has ended; going on as a bare init (jobs run on, control is gone)");
        let code = match Pid::new(self.main.load(Relaxed)) {
            Some(main) => self.wait_for(main),
            // It was about to leave, with this code.
            None => u8::try_from(self.leaving.load(Relaxed)).unwrap_or_else(|_| self.wait_for_stop()),
        };
        end_log(Pid::new(self.writer.load(Relaxed)), None);
        code
    }

    fn wait_for(&self, main: Pid) -> u8 {
        loop {
            loop {
                match reap() {
                    Reaped::Child(pid, exit, _) if pid == main => {
                        return remapped(exit, self.remap);
                    }
                    Reaped::Child(..) | Reaped::Stopped(..) => {}
                    Reaped::NoneYet => break,
                    // Reaped before, by whatever failed.
                    Reaped::NoChild => return 125,
                }
            }
            wait_readable(self.signals.fd());
            while let Some(arrived) = self.signals.next() {
                let sender = Pid::new(arrived.pid).map_or(Sender::Outside, |pid| Sender::Process {
                    pid,
                    uid: arrived.uid,
                    comm: None,
                });
                let relay = relay(self.forwarding, arrived.signal, &sender, process::me(), true);
                let sent = self
                    .forwarding
                    .becomes(arrived.signal)
                    .filter(|_| matches!(relay, Relay::Forward | Relay::ForwardAndStop));
                let _ = match sent {
                    Some(signal) if self.forwarding.to_main_only => signals::send(main, signal),
                    Some(signal) => signals::send_to_led(main, signal),
                    None => Ok(()),
                };
            }
        }
    }

    fn wait_for_stop(&self) -> u8 {
        loop {
            while let Reaped::Child(..) | Reaped::Stopped(..) = reap() {}
            wait_readable(self.signals.fd());
            while let Some(arrived) = self.signals.next() {
                if matches!(arrived.signal, Signal::TERM | Signal::INT) {
                    return 0;
                }
            }
        }
    }
}

/// Waits until the log is written, the last thing of all.
pub(super) fn end_log(writer: Option<Pid>, patience: Option<Duration>) {
    let Some(writer) = writer else { return };
    stderr::hang_up();
    if let Ok(end) = pidfd::open(writer) {
        let _ = wait_any(&[(end.as_fd(), Interest::Read)], patience);
    }
}

/// What main's end means.
pub(super) fn remapped(exit: Exit, remap: &[u8]) -> u8 {
    Some(exit.status()).filter(|code| !remap.contains(code)).unwrap_or(0)
}
