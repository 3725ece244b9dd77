use std::time::Duration;

/// How a duration is written, to say it to whoever wrote another.
pub const DURATION: &str = "use a number of seconds, or 500ms, 30s, 10m, 2h";

/// `500ms`, `30s`, `10m`, `2h`, `1h30m`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds_of(seconds).ok_or_else(|| DURATION.into());
    }
    // humantime 2.4 panics where a sum is just above what a Duration holds: no numbers as long as that.
    let digits = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    if digits > 10 || text.len() > 48 {
        return Err(DURATION.into());
    }
    humantime::parse_duration(text).map_err(|_| DURATION.into())
}

/// That many seconds, unless there is no such time.
pub fn seconds_of(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

/// So many milliseconds for a person: `50 ms`, `2.5 s`, `1m 30s`.
pub fn in_words(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms / 100 % 10),
        _ => humantime::format_duration(Duration::from_secs(ms / 1000)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_are_not_rounded_away() {
        for (ms, words) in [(0, "0 ms"), (50, "50 ms"), (999, "999 ms"), (2590, "2.5 s"), (90_000, "1m 30s")] {
            assert_eq!(in_words(ms), words);
        }
    }

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
        for bad in ["", "x", "-1", "10 parsecs", "s", "1e400", "NaN", "inf", "18446744073709551615s 1000ms"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
