//! What does not end, looked at: where it hangs, as far as that can be seen.

use std::time::Duration;

use crate::{
    base::Pid,
    inspect::{Clocks, Gathered, Looker, Volume, Wait, explain_stepwise, gather, glance},
    proto::Leftover,
};

/// For one process; what blocks longer is left out.
const LIMIT: Duration = Duration::from_millis(500);
/// For all of them.
const TOTAL: Duration = Duration::from_secs(3);
/// A wait of less is a busy disk's.
const HANGS_AFTER: Duration = Duration::from_millis(500);
/// Of a job no more are named: the link's messages are bounded.
pub(super) const MOST: usize = 8;
/// Characters of a path, likewise.
const LONGEST: usize = 200;

/// Looks at these processes, and tells where they wait; with `hanging`, only of those that hang in the kernel.
/// Never blocks: it looks through disposable children.
pub fn explain(pids: &[Pid], hanging: bool, most: usize) -> Vec<Leftover> {
    let hangs = |wait: &Wait| wait.hangs() && wait.duration().is_none_or(|time| time >= HANGS_AFTER);
    let all = gather(pids, LIMIT, TOTAL, |pid: &Pid, tell: &mut dyn FnMut(Wait)| {
        let mut clocks = Clocks::default();
        if !hanging || glance(*pid, &mut clocks).is_some_and(|wait| hangs(&wait)) {
            explain_stepwise(*pid, &mut Looker::new(), &mut clocks, &mut |wait| tell(wait.clone()));
        }
    });
    // Each step tells all that the steps before did.
    let latest = all.into_iter().filter_map(|Gathered { mut found, complete }| Some((found.pop()?, complete)));
    latest.filter(|(wait, _)| !hanging || hangs(wait)).take(most).map(|(wait, complete)| told(wait, complete)).collect()
}

fn told(wait: Wait, complete: bool) -> Leftover {
    let name = |volume: &Volume| format!("{} ({})", volume.path.display(), volume.kind);
    let mut left = Leftover::new(wait.pid, wait.comm, wait.state);
    let mut volume = wait.volume;
    left.cannot = wait.cannot.map(|what| format!("cannot inspect {what}"));
    if let (None, [only]) = (&volume, &wait.suspects[..]) {
        volume = Some(only.clone());
    } else if volume.is_none() && !wait.suspects.is_empty() {
        let names: Vec<String> = wait.suspects.iter().map(name).collect();
        left.cannot = Some(format!("on one of {}", names.join(", ")));
    }
    if !complete {
        left.cannot.get_or_insert("cannot inspect the rest: to look blocks".into());
    }
    left.call = wait.call.or(wait.exiting.then(|| "its exit".into()));
    // The end of a path tells more than its beginning.
    let shorten = |path: &std::path::Path| {
        let text = path.display().to_string();
        let cut = text.chars().count().saturating_sub(LONGEST);
        if cut > 0 { format!("...{}", text.chars().skip(cut).collect::<String>()) } else { text }
    };
    left.file = wait.file.as_deref().map(shorten);
    left.kernel = wait.kernel;
    left.for_ms = wait.for_ms;
    if let Some(volume) = volume {
        left.volume = Some(shorten(&volume.path));
        left.filesystem = Some(volume.kind);
        left.device = Some(volume.device);
    }
    left
}
