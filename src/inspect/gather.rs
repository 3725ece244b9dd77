use std::time::{Duration, Instant};

use serde::{Serialize, de::DeserializeOwned};

use crate::sys::disposable::{Came, Disposable};

/// What one look found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gathered<R> {
    /// All that it told before it came to its end, or did not.
    pub found: Vec<R>,
    /// It came to its end. If not, it blocks, or the time for all was over.
    pub complete: bool,
}

/// Looks at every item, and never blocks. The looks run one after the other in a disposable child; one that says
/// nothing for `limit` is given up, with what it found so far, and a new child goes on with the next item. After
/// `total` the rest is given up, too. The caller has one thread.
pub fn gather<T, R: Serialize + DeserializeOwned>(
    items: &[T],
    limit: Duration,
    total: Duration,
    look: impl Fn(&T, &mut dyn FnMut(R)),
) -> Vec<Gathered<R>> {
    let end = Instant::now() + total;
    let mut all: Vec<Gathered<R>> = items.iter().map(|_| Gathered { found: Vec::new(), complete: false }).collect();
    let mut at = 0;
    while at < items.len() && Instant::now() < end {
        let child = Disposable::start(|send| {
            for item in &items[at..] {
                look(item, &mut |found| {
                    if let Ok(line) = serde_json::to_vec(&found) {
                        send(&line);
                    }
                });
                send(b"");
            }
        });
        let Ok(mut child) = child else { return all };
        while at < items.len() {
            match child.next((Instant::now() + limit).min(end)) {
                Came::Line(line) if line.is_empty() => {
                    all[at].complete = true;
                    at += 1;
                }
                Came::Line(line) => all[at].found.extend(serde_json::from_slice(&line)),
                // It died or hangs with this item: on with the next one, in another child.
                Came::End | Came::Nothing => {
                    at += 1;
                    break;
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_that_blocks_costs_its_limit_and_no_other_look() {
        let look = |item: &u64, tell: &mut dyn FnMut(u64)| {
            tell(*item);
            match item {
                2 => std::thread::sleep(Duration::from_secs(3600)),
                4 => std::process::abort(),
                _ => tell(item * 10),
            }
        };
        let all = gather(&[1, 2, 3, 4, 5], Duration::from_millis(200), Duration::from_secs(60), look);
        let found: Vec<_> = all.iter().map(|one| (one.found.clone(), one.complete)).collect();
        let whole = |item: u64| (vec![item, item * 10], true);
        assert_eq!(found, [whole(1), (vec![2], false), whole(3), (vec![4], false), whole(5)]);
    }
}
