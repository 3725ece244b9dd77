use std::{
    io::Write,
    sync::{Mutex, PoisonError},
};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::{base::plain, init, sys::stderr::Stderr};

/// The environment variable that sets what is logged: `error`, `warn`, `info`, `debug`, `trace` or `off`.
pub(super) const VARIABLE: &str = "LASTOUT_LOG";

/// What is logged, by how often `-v` was given.
pub(super) fn level(verbosity: usize) -> LevelFilter {
    match verbosity {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}

/// Sets up log lines on standard error that never wait.
pub(super) fn start(level: LevelFilter) {
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    log::set_max_level(asked.parse().unwrap_or(level));
    // Only a second logger could fail, and there is none.
    let _ = log::set_logger(&LINES);
    if !asked.is_empty() && asked.parse::<LevelFilter>().is_err() {
        log::warn!("{VARIABLE}={asked}: use error, warn, info, debug, trace or off");
    }
}

struct Lines(Mutex<Stderr>);

static LINES: Lines = Lines(Mutex::new(Stderr::new()));

impl Log for Lines {
    fn enabled(&self, about: &Metadata) -> bool {
        about.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let word = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        // One line, and nothing in it that a terminal would obey: names and arguments are anybody's.
        let text = plain(&record.args().to_string());
        let line =
            if record.target() == init::TARGET { format!("{text}\n") } else { format!("lastout: {word}{text}\n") };
        // It loses what it cannot write, and counts it.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write(line.as_bytes());
    }

    fn flush(&self) {}
}
