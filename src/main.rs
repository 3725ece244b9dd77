//! Picks the role: the init, or a client of one. See the library's documentation for the picture.
#![no_main]

lastout::entry!(lastout::cli::run);
