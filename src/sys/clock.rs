//! The clock.

use nix::time::{ClockId, clock_gettime};

use crate::base::Tick;

/// Now, on the clock that is never set and that processes' start times are counted on (`proc_pid_stat(5)`). From the
/// vDSO: no system call.
pub fn now() -> Tick {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(|time| Tick(time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1000))
        .unwrap_or_default()
}
