use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A terminal's window, in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Its width.
    pub columns: u16,
    /// Its height.
    pub rows: u16,
}

impl Size {
    /// What a terminal has of which nobody knows better.
    pub const USUAL: Size = Size { columns: 80, rows: 24 };
}

impl fmt::Display for Size {
    /// `COLUMNS ROWS`
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.columns, self.rows)
    }
}

impl FromStr for Size {
    type Err = ();

    fn from_str(text: &str) -> Result<Size, ()> {
        let (columns, rows) = text.split_once(' ').ok_or(())?;
        Ok(Size { columns: columns.parse().map_err(|_| ())?, rows: rows.parse().map_err(|_| ())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_reads_back_as_it_was_written() {
        for size in [Size::USUAL, Size { columns: 0, rows: u16::MAX }] {
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for wrong in ["", "80", "80 ", "80 24 1", "80 -1", "80 65536", "x 24", " 80 24"] {
            assert_eq!(wrong.parse::<Size>(), Err(()), "{wrong:?}");
        }
    }
}
