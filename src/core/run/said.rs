//! The end of what a command said.

use std::collections::VecDeque;

/// Bytes that are kept.
const KEPT: usize = 4096;
/// Characters of a line that are told.
const LINE: usize = 400;

/// The latest bytes of one command's output.
#[derive(Clone, Debug, Default)]
pub(super) struct Said(VecDeque<u8>);

impl Said {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend(&bytes[bytes.len().saturating_sub(KEPT)..]);
        self.0.drain(..self.0.len().saturating_sub(KEPT));
    }

    /// All of it that is kept, without what a terminal would act on.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        text.trim().chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect()
    }

    /// Its last line that is not empty.
    pub(super) fn line(&self) -> Option<String> {
        let text = self.text();
        let line = text.lines().rfind(|line| !line.trim().is_empty())?;
        Some(line.trim().chars().take(LINE).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept() {
        let mut said = Said::default();
        assert_eq!((said.text(), said.line()), (String::new(), None));
        for round in 0..5000 {
            said.push(format!("line {round}\n").as_bytes());
        }
        assert_eq!(said.line().as_deref(), Some("line 4999"));
        assert!(said.text().len() <= KEPT && said.text().ends_with("line 4998\nline 4999"));
        said.push(&[b'x'; 3 * KEPT]);
        assert_eq!((said.text().len(), said.line().map(|line| line.len())), (KEPT, Some(LINE)));
        said.clear();
        said.push(b"no such\x1b[1m bucket\r\n\n  \n");
        assert_eq!(said.line().as_deref(), Some("no such [1m bucket"));
    }
}
