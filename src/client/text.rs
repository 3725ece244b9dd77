//! Numbers and names for a person to read.

/// `14.2 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = None;
    for next in UNITS {
        // What would be rounded to 1024 is one of the next.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = Some(next);
    }
    match unit {
        Some(unit) => format!("{value:.1} {unit}"),
        None => format!("{bytes} B"),
    }
}

/// `1 job`, `2 jobs`.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `12s`, `3m05s`, `5h10m`, `2d03h`: at most six characters for less than 100 days.
pub(super) fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Cut to so many characters, which is marked.
pub(super) fn short(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    let cut: String = text.chars().take(width.saturating_sub(3)).collect();
    format!("{cut}...").chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::plain;

    #[test]
    fn numbers_are_as_a_person_says_them() {
        for (number, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (15_246_937_293, "14.2 GiB"), (1_048_570, "1.0 MiB")]
        {
            assert_eq!(bytes(number), text);
        }
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (12_345, "12s"),
            (185_000, "3m05s"),
            (18_600_000, "5h10m"),
            (183_600_000, "2d03h"),
        ] {
            assert_eq!(time(ms), text);
        }
        assert_eq!(short("abcdefgh", 6), "abc...");
        assert_eq!(plain("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
