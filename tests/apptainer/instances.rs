//! `apptainer instance start` and `stop`, and commands from the host through a bound control directory.

use std::{fs, time::Instant};

use super::{WRITERS, host::*, main, matrix::BY};
use crate::support::*;

/// Instances always have a PID namespace, and `instance start` knows no `--pid`; what `--no-init` leaves out there is told
/// in the page.
const OPTIONS: [&[&str]; 3] = [&[], &["--no-init"], &["--containall"]];

/// What was seen the moment that `instance stop` had returned.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    /// It did not end by itself.
    killed: bool,
    survivors: usize,
    busy: bool,
    saved: usize,
    fuse: usize,
}

const CLEAN: Seen = Seen { killed: false, survivors: 0, busy: false, saved: WRITERS, fuse: 0 };

/// An instance that is up, with a new volume.
struct Instance<'a> {
    host: &'a Host,
    name: String,
    image: &'static str,
    told: String,
}

impl<'a> Instance<'a> {
    /// `by`: its startscript, where that is not the image's.
    fn start(
        host: &'a Host,
        image: &'static str,
        options: &[&str],
        by: Option<usize>,
        command: &[&str],
    ) -> Instance<'a> {
        let name = mark("name");
        let control = host.place().join(&name);
        let made = host.user(&["mkdir", "-m", "700", control.to_str().unwrap()]).status().unwrap();
        assert!(made.success());
        host.mount();
        let control = format!("{}:/run/lastout", control.display());
        let mut words = vec!["apptainer", "instance", "start"];
        words.extend(options);
        words.extend(["--bind", &control, "--bind", "/run/shared:/shared"]);
        let tini = format!("{}:/usr/local/bin/tini", host.place().join("tini").display());
        let (runs, by) = by.map_or(("the image's", None), |by| (BY[by].0, Some(BY[by].1.join(" "))));
        let by = by
            .map(|by| format!("{}:/.singularity.d/startscript", script(host, &format!("start-{name}"), &by).display()));
        if let Some(script) = &by {
            words.extend(["--bind", script]);
        }
        if runs.starts_with("tini") {
            words.extend(["--bind", &tini]);
        }
        words.extend([image, &name]);
        words.extend(command);
        let started = host.run(&words);
        assert!(started.status.success(), "{words:?}: {}", both(&started));
        let told = format!("{} | {runs}", options.join(" "));
        Instance { host, name, image, told }
    }

    /// A client's words from the host, which must succeed.
    fn client(&self, args: &[&str]) -> String {
        let control = self.host.place().join(&self.name);
        let words = [&["/srv/lastout", args[0], "--control", control.to_str().unwrap()], &args[1..]].concat();
        let output = self.host.run(&words);
        assert!(output.status.success(), "{words:?}: {}", both(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn stop(self, mark: &str) -> Seen {
        let start = Instant::now();
        let stopped = self.host.run(&["apptainer", "instance", "stop", &self.name]);
        let took = start.elapsed();
        let busy = self.host.unmount();
        let survivors = running(mark);
        let seen = Seen {
            killed: both(&stopped).contains("Killing"),
            survivors: survivors.len(),
            busy,
            saved: self.host.saved(),
            fuse: self.host.fuse_users().len(),
        };
        println!(
            "| instance {} | {} | {} | {} | {} | {} of {WRITERS} | {} | {:.1} s |",
            self.told,
            self.image,
            if seen.killed { "killed" } else { "by itself" },
            seen.survivors,
            if seen.busy { "EBUSY" } else { "at once" },
            seen.saved,
            seen.fuse,
            took.as_secs_f64()
        );
        assert!(stopped.status.success(), "{}", both(&stopped));
        if busy {
            self.host.clear(&survivors);
        }
        seen
    }
}

#[test]
fn an_instance_takes_commands_from_the_host_and_ends_in_order() {
    let Some(host) = Host::start() else { return };
    for image in IMAGES {
        let own = OPTIONS.into_iter().map(|options| (options, None));
        // And in a PID namespace of lastout's making.
        for (options, by) in own.chain([(OPTIONS[0], Some(1))]) {
            let mark = mark("instance");
            let instance = Instance::start(&host, image, options, by, &[]);
            // A job that stays, with what it leaves, and one that answers.
            let job = main(&mark, "echo >/shared/out/ready; exec sleep 1000");
            instance.client(&["exec", "--wait", "60s", "-d", "--", "sh", "-c", &job]);
            until("the job", || host.has("out/ready").then_some(()));
            let said = instance.client(&["exec", "--", "sh", "-c", "cat /etc/os-release; id -u; cat /proc/1/comm"]);
            let said: Vec<_> = said.lines().rev().take(2).collect();
            assert_eq!(said, [if by.is_some() { "lastout" } else { "appinit" }, "21000"], "{options:?}");
            assert!(running(&mark).len() >= WRITERS, "{options:?}");
            let control = host.place().join(&instance.name);
            assert_eq!(instance.stop(&mark), CLEAN, "{options:?} {image}");
            // It was there before, and stays.
            assert!(!fs::exists(control.join("control")).unwrap());
        }
    }
}

#[test]
fn an_instances_own_command_saves_its_work_with_lastout_alone() {
    let Some(host) = Host::start() else { return };
    let tini = has("tini");
    if tini {
        fs::copy("/usr/bin/tini-static", host.place().join("tini")).expect("Debian's package of tini has it");
    }
    for (by, (name, _)) in BY.iter().enumerate().filter(|(_, (name, _))| tini || *name != "tini -s") {
        let mark = mark("command");
        let command = main(&mark, "echo >/shared/out/ready; exec sleep 1000");
        let instance = Instance::start(&host, IMAGES[0], &[], Some(by), &["sh", "-c", &command]);
        until("the command", || host.has("out/ready").then_some(()));
        let seen = instance.stop(&mark);
        if name.starts_with("lastout") {
            assert_eq!(seen, CLEAN, "{name}");
        } else {
            assert_eq!(seen.saved, 0, "{name}");
        }
    }
}
