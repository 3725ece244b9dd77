//! Keeps a repeated complaint from becoming a flood: the first in full, then a count.

use std::time::Duration;

use crate::base::Tick;

/// Complaints of a kind told in full before the counting begins.
const IN_FULL: u32 = 2;
/// How long complaints are counted before the count is told.
const WINDOW: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Flood {
    told: u32,
    counted: u64,
    window_ends: Option<Tick>,
}

impl Flood {
    /// Whether to tell this one in full.
    pub(super) fn tell(&mut self, now: Tick) -> bool {
        self.window_ends.get_or_insert(now + WINDOW);
        if self.told < IN_FULL {
            self.told += 1;
            return true;
        }
        self.counted += 1;
        false
    }

    /// How many were not told, once their window is over.
    pub(super) fn tick(&mut self, now: Tick) -> Option<u64> {
        if self.window_ends.is_none_or(|end| now < end) { None } else { self.finish() }
    }

    /// How many were not told.
    pub(super) fn finish(&mut self) -> Option<u64> {
        let counted = std::mem::take(self).counted;
        (counted > 0).then_some(counted)
    }

    /// When a count is due. None while there is nothing to count: no wake-up for its own sake.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.window_ends.filter(|_| self.counted > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_two_lines_and_one_count() {
        let mut flood = Flood::default();
        let told = (0..100_000).filter(|_| flood.tell(Tick(1))).count();
        assert_eq!(told, 2);
        assert_eq!(flood.tick(Tick(1)), None);
        let end = flood.deadline().unwrap();
        assert_eq!(flood.tick(end), Some(99_998));
        assert_eq!(flood.deadline(), None);
        assert!(flood.tell(end));
    }

    #[test]
    fn a_single_complaint_asks_for_no_wake_up() {
        let mut flood = Flood::default();
        assert!(flood.tell(Tick(1)));
        assert_eq!(flood.deadline(), None);
    }
}
