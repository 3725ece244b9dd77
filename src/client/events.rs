//! `lastout events`.

use std::io::Write;

use anyhow::{Context, bail};

use super::{Outcome, Target, session::Connection};
use crate::{
    base::plain,
    proto::{Entry, Line, Reply},
};

/// Writes what has happened, as far as the init remembers; with `follow` also what happens from now on, until
/// the init has gone.
pub fn events(target: &Target, follow: bool, json: bool) -> Outcome {
    let connection = Connection::open(target)?;
    // Follow first, then ask for what was before: nothing falls between, and numbers tell what came twice.
    let mut session = connection.request()?;
    if follow {
        connection.send(&Line::Events(session.id, true))?;
    }
    let past = match connection.ask(|id| Line::Events(id, false))? {
        Reply::Events(entries) => entries,
        Reply::Refused { reason } => bail!(reason),
        other => bail!("an answer that does not fit: {other:?}"),
    };
    let mut last = 0;
    for entry in &past {
        // What is not among these is not remembered any more.
        last = entry.seq - 1;
        say(entry, json, &mut last)?;
    }
    while follow && !session.gone() {
        let ready = session.wait(None)?;
        for reply in session.take(ready)? {
            if let Reply::Event(entry) = reply {
                say(&entry, json, &mut last)?;
            }
        }
    }
    Ok(0)
}

fn say(entry: &Entry, json: bool, last: &mut u64) -> anyhow::Result<()> {
    if entry.seq <= *last {
        return Ok(());
    }
    let missed = entry.seq - *last - 1;
    if missed > 0 {
        eprintln!("lastout events: {missed} came faster than they could be read, and are gone");
    }
    *last = entry.seq;
    let text =
        if json { serde_json::to_string(entry)? } else { format!("{} {}", entry.time, plain(&entry.what.to_string())) };
    writeln!(std::io::stdout(), "{text}").context("cannot write")
}
