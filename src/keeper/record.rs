//! The account of how it ended.

use std::time::{Duration, SystemTime};

use super::{Keeper, Start};
use crate::{
    base::{Exit, JobId, Subject},
    inspect,
    proto::{Cause, Io, Notice, Record, Usage, VERSION, files, record_time},
    sys::{
        clock,
        dir::Dir,
        wait::{self, children_usage},
    },
};

/// Characters of what somebody said that fit into a message to the init.
const SAID: usize = 1000;

impl Keeper<'_> {
    pub(super) fn finish(&mut self, exit: Option<Exit>, cause: Cause) {
        self.finish_outputs();
        self.look_for_oom();
        let dropped = self.service.as_mut().and_then(|service| service.finish_log());
        if let Some(dropped) = dropped.filter(|dropped| *dropped > 0) {
            self.tell(&Notice::Dropped(dropped));
        }
        if let Some(group) = &mut self.group {
            group.remove();
        }
        let (started, tick) = self.started;
        let wall_us = u64::try_from(clock::now().since(tick).as_micros()).unwrap_or(u64::MAX);
        let oom_kills = self.oom_kills.1 - self.oom_kills.0;
        let usage = Usage { oom_kills, ..usage(&children_usage(), inspect::children_io()) };
        let record = Record {
            version: VERSION,
            job: Subject::Job(self.start.job),
            name: self.start.name.clone(),
            command: self.request.command.clone(),
            started: record_time(started),
            ended: record_time(SystemTime::now()),
            wall_us,
            exit,
            cause: cause.clone(),
            usage,
        };
        let ended = Notice::Ended { exit, cause: shortened(cause), wall_us, usage: Some(usage) };
        // A service's next run does not wait for what is written down; who asks for that waits for it.
        let is_service = self.service.is_some();
        if is_service {
            self.tell(&ended);
        }
        let written = make_job_directory(self.start).and_then(|dir| dir.write_file(files::RECORD, &record.to_json()));
        if let Err(error) = written
            && self.start.control.is_some()
        {
            log::warn!("{}: cannot write its record: {}", self.start.job, crate::sys::errno(&error));
        }
        if !is_service {
            self.tell(&ended);
        }
    }
}

/// The same cause, as it fits into a message: the record has it whole.
pub(super) fn shortened(cause: Cause) -> Cause {
    let cut = |text: &str| text.chars().count().saturating_sub(SAID);
    match cause {
        // The end of an output tells more than its beginning.
        Cause::SetupFailed { command, exit, output } => {
            let output = output.chars().skip(cut(&output)).collect();
            Cause::SetupFailed { command, exit, output }
        }
        Cause::Refused { reason } => Cause::Refused { reason: reason.chars().take(SAID).collect() },
        other => other,
    }
}

/// Removes the directories that are no longer kept.
pub(super) fn prune(start: &Start) {
    let Some(control) = start.control.filter(|_| !start.prune.is_empty()) else { return };
    if let Ok(jobs) = control.dir(files::JOBS) {
        for old in start.prune.iter().map(JobId::to_string) {
            remove_kept(&jobs, &old);
        }
    }
}

/// Removes what is kept of a job.
pub fn remove_kept(jobs: &Dir, job: &str) {
    // Usually there is a record and nothing else.
    let record = jobs.dir(job).and_then(|directory| directory.remove(files::RECORD));
    if record.and_then(|()| jobs.remove_dir(job)).is_err() {
        let _ = jobs.remove_tree(job);
    }
}

/// The job's directory.
pub(super) fn make_job_directory(start: &Start) -> std::io::Result<Dir> {
    let control = start.control.ok_or(std::io::ErrorKind::NotFound)?;
    let jobs = control.dir_or_new(files::JOBS)?;
    let name = start.job.to_string();
    jobs.make_dir(&name)?;
    jobs.dir(&name)
}

/// What processes used, as a record has it.
pub fn usage(used: &wait::Usage, io: Option<inspect::Io>) -> Usage {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let io = io.map(|inspect::Io { chars, bytes }| Io {
        read_chars: chars[0],
        written_chars: chars[1],
        read_bytes: bytes[0],
        written_bytes: bytes[1],
    });
    Usage {
        cpu_user_us: micros(used.user),
        cpu_system_us: micros(used.system),
        max_rss_bytes: used.max_rss_bytes,
        io,
        oom_kills: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_that_a_setup_can_say_fits_into_a_message() {
        for text in ["\n", "\"", "\u{1f980}", "\\"] {
            let cause = Cause::SetupFailed { command: "x".repeat(203), exit: None, output: text.repeat(4096) + "." };
            let cause = shortened(cause);
            assert!(matches!(&cause, Cause::SetupFailed { output, .. } if output.ends_with('.')));
            let notice = Notice::Ended { exit: None, cause, wall_us: u64::MAX, usage: Some(Usage::default()) };
            assert!(notice.to_bytes().len() < 8192, "{text:?}");
        }
    }
}
