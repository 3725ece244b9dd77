//! The process outside, where the init has made itself a PID namespace (`--pid-namespace`).
//!
//! ```text
//! lastout (outside)      what the shell, the starter or the engine has started; passes on signals, and the exit code
//! └── lastout (init)     PID 1 of its own namespace: all that the init is, unchanged
//!     ├── main ...
//! ```
//!
//! Its end by whatever means is the init's by SIGKILL (the parent-death signal), and with PID 1 the kernel ends
//! everything in the namespace.

use std::os::fd::AsRawFd;

use crate::{
    base::{Exit, Pid, Signal},
    sys::{
        fd, mount, namespace,
        poll::wait_readable,
        process,
        signals::{self, Signals},
        tty::Lent,
        wait::{Reaped, reap},
    },
};

/// Has `init` run as PID 1 of a namespace, and answers with its exit code; or why there is none.
pub(super) fn run(init: impl FnOnce() -> u8) -> Result<u8, String> {
    // There, everybody out here has the number 0: whether we are in the foreground is to be asked here.
    let terminal = Lent::find(false);
    let arrived = Signals::all().map_err(|error| format!("cannot make a signalfd: {}", crate::sys::errno(&error)))?;
    let init = namespace::fork_first(|| {
        // A process group that has a number there, too. What a terminal sends to its foreground comes once: to main's
        // group, or while there is none to this one, and not by way of us.
        if let Err(error) = process::lead_group() {
            log::warn!("cannot lead a process group: {}", crate::sys::errno(&error));
        }
        if let Some(terminal) = &terminal {
            let _ = terminal.give(process::me());
        }
        init()
    })?;
    let mut own = vec![arrived.fd().as_raw_fd()];
    own.extend(terminal.iter().map(AsRawFd::as_raw_fd));
    // The init has what it needs, and we are not to hold it: neither a volume nor a pipe's end.
    let _ = std::env::set_current_dir("/");
    fd::close_all_but(&own);
    fd::detach_stdio();
    if mount::may_hang(fd::standard(2)) {
        fd::let_go_of_stdio();
    }
    let exit = pass_on(&arrived, init);
    if let Some(terminal) = &terminal {
        terminal.take_back(matches!(exit, Exit::Signal(_)));
    }
    if let Exit::Signal(signal) = exit {
        log::error!("the init in its PID namespace died of {signal}, and everything there with it");
    }
    Ok(exit.status())
}

/// Passes on every signal, until `init` has ended.
fn pass_on(arrived: &Signals, init: Pid) -> Exit {
    let me = process::me().get();
    loop {
        loop {
            match reap() {
                Reaped::Child(pid, exit, _) if pid == init => return exit,
                // Somebody's who was this process before an exec.
                Reaped::Child(..) | Reaped::Stopped(..) => {}
                Reaped::NoneYet => break,
                Reaped::NoChild => return Exit::Code(125),
            }
        }
        wait_readable(arrived.fd());
        while let Some(arrived) = arrived.next() {
            // The log's own, when nobody reads it, is not the init's.
            let own = arrived.signal == Signal::PIPE && arrived.pid == me;
            if arrived.signal.can_be_forwarded() && !own {
                let _ = signals::send(init, arrived.signal);
            }
        }
    }
}
