use std::io::Write;

use env_logger::{Builder, Target};
use log::{Level, LevelFilter};

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
    let mut builder = Builder::new();
    builder.filter_level(level);
    if let Ok(filters) = std::env::var(VARIABLE) {
        builder.parse_filters(&filters);
    }
    builder.filter_module(init::TARGET, LevelFilter::Trace);
    builder.target(Target::Pipe(Box::new(Stderr::default())));
    builder.format(|line, record| {
        let word = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        if record.target() == init::TARGET {
            return writeln!(line, "{}", plain(&record.args().to_string()));
        }
        // One line, and nothing in it that a terminal would obey: names and arguments are anybody's.
        writeln!(line, "lastout: {word}{}", plain(&record.args().to_string()))
    });
    // The hook that Rust brings would wait for room on standard error.
    std::panic::set_hook(Box::new(|panic| log::error!("{}", panic.to_string().replace('\n', " "))));
    // Only a second logger could fail, and there is none.
    let _ = builder.try_init();
}
