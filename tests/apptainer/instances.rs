//! `apptainer instance start` and `stop`, and commands from the host through a bound control directory.

use std::fs;

use super::{WRITERS, host::*, main};
use crate::support::*;

/// Instances always have a PID namespace; what `--no-init` leaves out there is told in the page.
const OPTIONS: [&[&str]; 3] = [&[], &["--no-init"], &["--containall"]];

#[test]
fn an_instance_takes_commands_from_the_host_and_ends_in_order() {
    let Some(host) = Host::start() else { return };
    for image in IMAGES {
        for options in OPTIONS {
            let (mark, name) = (mark("instance"), mark("name"));
            let control = host.place().join(&name);
            let made = host.user(&["mkdir", "-m", "700", control.to_str().unwrap()]).status().unwrap();
            assert!(made.success());
            host.mount();
            let bind = format!("{}:/run/lastout", control.display());
            let mut words = vec!["apptainer", "instance", "start"];
            words.extend(options);
            words.extend(["--bind", &bind, "--bind", "/run/shared:/shared", image, &name]);
            let started = host.run(&words);
            assert!(started.status.success(), "{words:?}: {}", both(&started));
            // A job that stays, with what it leaves, and one that answers.
            let client = |args: &[&str]| {
                let words = [&["/srv/lastout", args[0], "--control", control.to_str().unwrap()], &args[1..]].concat();
                let output = host.run(&words);
                assert!(output.status.success(), "{words:?}: {}", both(&output));
                String::from_utf8(output.stdout).unwrap()
            };
            let job = main(&mark, "echo >/shared/out/ready; exec sleep 1000");
            client(&["exec", "--wait", "60s", "-d", "--", "sh", "-c", &job]);
            until("the job", || host.has("out/ready").then_some(()));
            assert_eq!(client(&["exec", "--", "sh", "-c", "cat /etc/os-release; id -u"]).lines().last(), Some("21000"));
            assert!(running(&mark).len() >= WRITERS, "{options:?}");
            let stopped = host.run(&["apptainer", "instance", "stop", &name]);
            let busy = host.unmount();
            let survivors = running(&mark);
            let saved = host.saved();
            let fuse = host.fuse_users().len();
            println!(
                "| instance {} | {image} | {} | {} | {saved} of {WRITERS} | {fuse} |",
                options.join(" "),
                survivors.len(),
                if busy { "EBUSY" } else { "at once" }
            );
            assert!(stopped.status.success(), "{}", both(&stopped));
            assert!(!both(&stopped).contains("Killing"), "it ended by itself: {}", both(&stopped));
            assert_eq!((survivors, busy, saved, fuse), (vec![], false, WRITERS, 0), "{options:?} {image}");
            // It was there before, and stays.
            assert!(!fs::exists(control.join("control")).unwrap());
        }
    }
}
