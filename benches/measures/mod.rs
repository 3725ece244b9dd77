//! What is measured. A measure answers with rows of the table.

mod counts;
mod exec;
mod idle;
mod looking;
mod memory;
mod output;
mod services;
mod start;
mod stopping;

use crate::{lab::Lab, report::Row};

/// Measures one thing.
pub type Measure = fn(&Lab) -> Vec<Row>;

/// In the table's order.
pub const ALL: &[(&str, Measure)] = &[
    ("start", start::start),
    ("binary", start::binary),
    ("memory", memory::holding),
    ("keepers", memory::keepers),
    ("idle", idle::idle),
    ("exec", exec::exec),
    ("engines", exec::engines),
    ("container", exec::container),
    ("clients", exec::clients),
    ("output", output::output),
    ("orphans", stopping::orphans),
    ("stop", stopping::many),
    ("nothing", stopping::nothing),
    ("savers", stopping::savers),
    ("services", services::services),
    ("look", looking::look),
    ("frozen", looking::frozen),
    ("instructions", counts::instructions),
    ("calls", counts::calls),
];

/// Titles of the rows that the chart shows.
pub const CHART: &[&str] = &[
    start::START,
    exec::EXEC,
    exec::ENGINES,
    memory::HOLDING,
    stopping::NOTHING,
    services::START,
    services::RESTART,
    services::MEMORY,
    services::STOP,
];
