use std::time::Duration;

/// `500ms`, `30s`, `10m`, `2h`, `1h30m`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let how = "use a number of seconds, or 500ms, 30s, 10m, 2h";
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| how.into());
    }
    humantime::parse_duration(text).map_err(|_| how.into())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("30", 30_000),
            ("1.5", 1500),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "x", "-1", "10 parsecs", "s", "1e400", "NaN", "inf"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
