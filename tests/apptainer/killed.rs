//! Apptainer's starter killed with -9.

use std::process::Command;

use super::{WRITERS, host::*, main};
use crate::support::*;

#[test]
fn a_killed_starter_ends_everything_in_order() {
    let Some(host) = Host::start() else { return };
    for image in IMAGES {
        for option in [None, Some("--pid-namespace")] {
            let mark = mark("starter");
            host.mount();
            // Main saves its work, too.
            let main = main(
                &mark,
                "trap 'echo saved >/shared/out/main; exit 0' TERM; echo >/shared/out/ready; \
                 while :; do sleep 0.05; done",
            );
            let mut words = vec!["apptainer", "exec", "--bind", "/run/shared:/shared", image, "/usr/local/bin/lastout"];
            words.extend(option);
            words.extend(["--", "sh", "-c", &main]);
            let mut starter = host.user(&words).spawn().unwrap();
            until("main", || host.has("out/ready").then_some(()));
            starter.kill().unwrap();
            starter.wait().unwrap();
            until("the end of everything", || running(&mark).is_empty().then_some(()));
            assert_eq!(host.saved(), WRITERS + 1, "{image} {option:?}");
            assert!(!host.unmount());
            // What serves the .sif is Apptainer's own, outside of the container, and is left by it.
            for pid in host.fuse_users() {
                let _ = Command::new("kill").arg(pid.to_string()).output();
            }
            until("the end of its mounts", || host.fuse_users().is_empty().then_some(()));
        }
    }
}
