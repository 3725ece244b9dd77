//! Where a control directory is, when nobody says where.

use std::{ffi::OsString, path::PathBuf};

/// The environment variable that names the control directory.
pub const VARIABLE: &str = "LASTOUT_CONTROL";

/// The environment variable that names a job inside its own tree.
pub const JOB_VARIABLE: &str = "LASTOUT_JOB";

/// The environment variable that names a service inside its own tree.
pub const SERVICE_VARIABLE: &str = "LASTOUT_SERVICE";

/// Its value in main's tree.
pub const MAIN: &str = "main";

/// The default places in their order, for a user.
pub fn candidates(runtime_dir: Option<OsString>, uid: u32) -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from("/run/lastout")];
    places.extend(runtime_dir.map(PathBuf::from).filter(|dir| dir.is_absolute()).map(|dir| dir.join("lastout")));
    places.push(format!("/tmp/lastout-{uid}").into());
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_runtime_directory_is_passed_over() {
        let list = candidates(Some("run".into()), 1000);
        assert_eq!(list, [PathBuf::from("/run/lastout"), "/tmp/lastout-1000".into()]);
        let list = candidates(Some("/run/user/1000".into()), 1000);
        assert_eq!(list[1], PathBuf::from("/run/user/1000/lastout"));
    }
}
