//! What has happened lately, for `lastout events`. It is bounded, and nobody who repeats himself pushes out what the others
//! did: of whoever has most of it the oldest goes.

use std::{cmp::Reverse, collections::VecDeque, time::SystemTime};

use crate::{
    base::{Name, Subject},
    proto::Happening,
};

/// So much is remembered.
const MOST: usize = 40;

/// Whom it is about.
#[derive(PartialEq, Eq)]
enum About<'a> {
    Named(&'a Name),
    Jobs,
    Init,
}

fn about(what: &Happening) -> About<'_> {
    match what {
        Happening::Started { name: Some(name), .. }
        | Happening::Ended { name: Some(name), .. }
        | Happening::Service { name, .. } => About::Named(name),
        Happening::Started { job: Subject::Job(_), .. } | Happening::Ended { job: Subject::Job(_), .. } => About::Jobs,
        Happening::Started { job: Subject::Main, .. }
        | Happening::Ended { job: Subject::Main, .. }
        | Happening::Signal { .. }
        | Happening::Reloaded { .. }
        | Happening::Stopping { .. }
        | Happening::Stuck { .. }
        | Happening::SyncFailed { .. } => About::Init,
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct History {
    /// With its number, and when it was.
    kept: VecDeque<(u64, SystemTime, Happening)>,
    happened: u64,
}

impl History {
    /// Numbers the next.
    pub(super) fn number(&mut self) -> u64 {
        self.happened += 1;
        self.happened
    }

    /// Keeps it.
    pub(super) fn keep(&mut self, number: u64, at: SystemTime, what: Happening) {
        self.kept.push_back((number, at, what));
        if self.kept.len() > MOST {
            let who = |at: &usize| about(&self.kept[*at].2);
            let all = 0..self.kept.len();
            let has = |at: &usize| all.clone().filter(|other| who(other) == who(at)).count();
            if let Some(oldest) = all.clone().max_by_key(|at| (has(at), Reverse(*at))) {
                self.kept.remove(oldest);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(u64, SystemTime, Happening)> {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ServiceState;

    #[test]
    fn who_repeats_himself_pushes_out_himself() {
        let mut history = History::default();
        let mut service = |name: &str| {
            let state = ServiceState::Backoff;
            let what =
                Happening::Service { name: name.parse().unwrap(), state, exit: None, cause: None, next_ms: None };
            let number = history.number();
            history.keep(number, SystemTime::UNIX_EPOCH, what);
            history.iter().map(|(number, _, _)| *number).collect::<Vec<_>>()
        };
        // One alone has all of it.
        let kept = (0..100).map(|_| service("alone")).last().unwrap();
        assert_eq!(kept, (101 - MOST as u64..=100).collect::<Vec<_>>());
        for name in ["a", "b", "a"] {
            service(name);
        }
        // However many there are.
        for _ in 0..1000 {
            for name in ["loops", "and", "another", "as", "well", "once", "more"] {
                service(name);
            }
        }
        let kept = service("loops");
        assert_eq!((kept.len(), kept.last()), (MOST, Some(&7104)));
        assert!([101, 102, 103].iter().all(|number| kept.contains(number)), "{kept:?}");
    }
}
