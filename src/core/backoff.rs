//! The delay before a service's next start.

use std::time::Duration;

use super::service::Backoff;

/// Random numbers without a source of their own: a test's are always the same (xorshift64*, Vigna 2016).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Before a second restart in a row.
const LEAST: Duration = Duration::from_millis(10);

/// After the end number `ends` in a row, counted from 1: `initial × factor^(ends − 1)`, at most `max`, more or
/// less by the part `jitter` of it, so that what broke together does not come back together.
pub(super) fn delay(config: &Backoff, ends: u32, random: &mut Random) -> Duration {
    let before = i32::try_from(ends.saturating_sub(1)).unwrap_or(i32::MAX);
    // The first may be at once; what then ends again would end for ever.
    let initial = if before == 0 { config.initial } else { config.initial.max(LEAST) };
    let grown = initial.as_secs_f64() * config.factor.powi(before);
    let bounded = grown.min(config.max.as_secs_f64());
    let jitter = bounded * config.jitter * (2.0 * random.next() - 1.0);
    Duration::try_from_secs_f64((bounded + jitter).max(0.0)).map_or(config.max, |delay| delay.min(config.max))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn backoff(jitter: f64) -> Backoff {
        Backoff { initial: SECOND, max: 60 * SECOND, factor: 2.0, jitter, reset_after: 60 * SECOND }
    }

    #[test]
    fn it_doubles_up_to_its_bound() {
        let mut random = Random::new(1);
        let delays: Vec<u64> = (1..=9).map(|ends| delay(&backoff(0.0), ends, &mut random).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(delay(&backoff(0.0), u32::MAX, &mut random), 60 * SECOND);
    }

    #[test]
    fn only_the_first_may_be_at_once() {
        let config = Backoff { initial: Duration::ZERO, ..backoff(0.0) };
        let mut random = Random::new(1);
        let delays: Vec<u128> = (1..=4).map(|ends| delay(&config, ends, &mut random).as_millis()).collect();
        assert_eq!(delays, [0, 20, 40, 80]);
    }

    #[test]
    fn jitter_spreads_it_evenly_within_its_part() {
        let mut random = Random::new(7);
        let delays: Vec<f64> = (0..10_000).map(|_| delay(&backoff(0.1), 4, &mut random).as_secs_f64()).collect();
        assert!(delays.iter().all(|delay| (7.2..=8.8).contains(delay)));
        let mean = delays.iter().sum::<f64>() / delays.len() as f64;
        assert!((7.95..8.05).contains(&mean), "{mean}");
        assert!(delays.iter().any(|delay| *delay < 7.3) && delays.iter().any(|delay| *delay > 8.7));
    }
}
