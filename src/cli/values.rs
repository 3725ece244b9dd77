use std::time::Duration;

pub(super) use crate::base::duration;

/// The same, not so short that it would be all that happens.
pub(super) fn heartbeat(text: &str) -> Result<Duration, String> {
    let least = Duration::from_millis(100);
    duration(text).and_then(|time| if time < least { Err("use 100ms or more".into()) } else { Ok(time) })
}

/// An exit code.
pub(super) fn exit_code(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| "an exit code is a number from 0 to 255".into())
}

/// A number of jobs.
pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "use a number from 1".into())
}

/// Milliseconds, for the wire.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
