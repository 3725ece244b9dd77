//! A control group of a run's own, below the init's: for what the kernel limits for a whole tree only. Where none can
//! be had, the run is refused: a limit that does not hold is worse than none.
//!
//! Version 1 has a hierarchy for each controller, and a group may have processes and groups. In version 2 a group
//! with processes gives its children no controllers ("no internal processes", cgroups(7)), so ours is split first: all
//! that is in it moves to a leaf beneath, if all of it is the init's.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, SystemTime},
};

use crate::{
    base::{Pid, Set},
    core::service::Limits,
    inspect::{self, OomCounter},
};

/// Where the init and all that has no group of its own is, in version 2.
const LEAF: &str = "lastout-init";
/// The kernel's usual period, microseconds.
const PERIOD: u64 = 100_000;
/// What forks meanwhile is moved in the next turn.
const TURNS: u32 = 10;
/// An empty group of that age is of a keeper that was killed.
const STALE: Duration = Duration::from_secs(60);
/// How often it is tried to remove a group whose last process has just ended, and the pause in between.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);
/// More groups of one name are more lost inits than there are.
const NAMES: u32 = 100;

/// Directories that were made for one run. Dropped, they are removed.
#[derive(Debug)]
pub struct Cgroup {
    directories: Vec<PathBuf>,
    oom: Option<OomCounter>,
}

/// One controller's limit: the files to write, in order.
struct Wanted {
    controller: &'static str,
    /// For messages.
    what: String,
    v1: Vec<(&'static str, String)>,
    v2: Vec<(&'static str, String)>,
}

fn wanted(limits: &Limits) -> Vec<Wanted> {
    let memory = limits.memory.map(|bytes| Wanted {
        controller: "memory",
        what: format!("memory to {bytes} bytes"),
        v1: vec![("memory.limit_in_bytes", bytes.to_string())],
        v2: vec![("memory.max", bytes.to_string())],
    });
    let cpu = limits.cpu_milli.map(|milli| {
        let quota = milli * (PERIOD / 1000);
        Wanted {
            controller: "cpu",
            what: format!("it to {} CPUs", milli as f64 / 1000.0),
            v1: vec![("cpu.cfs_period_us", PERIOD.to_string()), ("cpu.cfs_quota_us", quota.to_string())],
            v2: vec![("cpu.max", format!("{quota} {PERIOD}"))],
        }
    });
    let pids = limits.pids.map(|count| Wanted {
        controller: "pids",
        what: format!("it to {count} processes"),
        v1: vec![("pids.max", count.to_string())],
        v2: vec![("pids.max", count.to_string())],
    });
    [memory, cpu, pids].into_iter().flatten().collect()
}

impl Cgroup {
    /// Makes what these limits take.
    pub(super) fn make(limits: &Limits, init: Pid, run: &str) -> Result<Cgroup, String> {
        make_below(&wanted(limits), init, run, &inspect::own_group)
    }

    /// Whom the OOM killer has ended in it, if it limits memory.
    pub fn oom(&self) -> Option<&OomCounter> {
        self.oom.as_ref()
    }

    /// The files by which a process joins.
    pub(super) fn join(&self) -> Vec<PathBuf> {
        self.directories.iter().map(|directory| directory.join("cgroup.procs")).collect()
    }

    /// Removes it. The last process has been reaped, and may all the same be in it for a moment.
    pub fn remove(&mut self) {
        for directory in self.directories.drain(..) {
            for attempt in 1.. {
                match fs::remove_dir(&directory) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) if attempt == ATTEMPTS => {
                        log::warn!("cannot remove {}: {}", directory.display(), crate::sys::errno(&error));
                        break;
                    }
                    Err(_) => sleep(PAUSE),
                }
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
    }
}

fn make_below(
    wanted: &[Wanted],
    init: Pid,
    run: &str,
    own: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<Cgroup, String> {
    let mut made = Cgroup { directories: Vec::new(), oom: None };
    // The same name in every hierarchy.
    let names: Vec<String> = (1..=NAMES)
        .map(|number| format!("lastout-{init}-{run}{}", if number == 1 { String::new() } else { format!(".{number}") }))
        .collect();
    let v2 = own("").map(|path| if path.ends_with(LEAF) { path.parent().unwrap_or(&path).into() } else { path });
    let has = |group: &&PathBuf, controller| words(&group.join("cgroup.controllers")).contains(controller);
    let mut bases: Vec<(PathBuf, PathBuf)> = Vec::new();
    for limit in wanted {
        let cannot = |why: String| {
            format!(
                "cannot limit {}: {why}; it takes a cgroup that lastout may write (in Docker --privileged), or limit the whole \
                 container",
                limit.what
            )
        };
        let v2 = v2.as_ref().filter(|group| has(group, limit.controller));
        let base = v2.cloned().or_else(|| own(limit.controller));
        let base =
            base.ok_or_else(|| cannot(format!("no cgroup with the controller {} is to be seen", limit.controller)))?;
        if v2.is_some() {
            enable(&base, limit.controller, init).map_err(cannot)?;
        }
        let known = bases.iter().find(|(other, _)| *other == base).map(|(_, directory)| directory.clone());
        let directory = match known {
            Some(directory) => directory,
            None => {
                let directory = make_one(&base, &names).map_err(cannot)?;
                made.directories.push(directory.clone());
                bases.push((base, directory.clone()));
                directory
            }
        };
        for (file, value) in if v2.is_some() { &limit.v2 } else { &limit.v1 } {
            write(&directory.join(file), value).map_err(cannot)?;
        }
        if limit.controller == "memory" {
            made.oom = OomCounter::at(&directory, if v2.is_some() { 2 } else { 1 });
        }
    }
    Ok(made)
}

/// Another init may have the same process id, in another namespace: then it has another name.
fn make_one(base: &Path, names: &[String]) -> Result<PathBuf, String> {
    for name in names {
        let path = base.join(name);
        let made = fs::create_dir(&path).or_else(|error| {
            let age =
                fs::metadata(&path).and_then(|data| data.modified()).map(|time| SystemTime::now().duration_since(time));
            match age {
                // It goes only if it is empty.
                Ok(Ok(age)) if age > STALE => {
                    fs::remove_dir(&path).and_then(|()| fs::create_dir(&path)).map_err(|_| error)
                }
                _ => Err(error),
            }
        });
        match made {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("cannot make {}: {}", path.display(), crate::sys::errno(&error))),
        }
    }
    Err(format!("{} has too many groups of lost inits", base.display()))
}

/// Has a group of version 2 give `controller` to its children.
fn enable(base: &Path, controller: &str, init: Pid) -> Result<(), String> {
    let file = base.join("cgroup.subtree_control");
    if words(&file).contains(controller) {
        return Ok(());
    }
    let word = format!("+{controller}");
    match write_raw(&file, &word) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => split(base, init)?,
        result => return result.map_err(|error| failed(&file, &error)),
    }
    write(&file, &word)
}

/// Moves all that is in a group to a leaf beneath.
fn split(base: &Path, init: Pid) -> Result<(), String> {
    let (from, leaf) = (base.join("cgroup.procs"), base.join(LEAF));
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(format!("cannot make {}: {}", leaf.display(), crate::sys::errno(&error)));
        }
        _ => {}
    }
    let to = leaf.join("cgroup.procs");
    for _ in 0..TURNS {
        let inside = words(&from);
        if inside.is_empty() {
            return Ok(());
        }
        let ours = inspect::of_init(init).unwrap_or_default().iter().map(|process| process.id.pid.get()).collect();
        if let Some(other) = foreign(&inside, init, &ours) {
            let _ = fs::remove_dir(&leaf);
            return Err(format!(
                "{} has pid {other}, which is not lastout's, and a group with processes cannot limit others beneath (cgroups(7), \
                 \"no internal processes\"): start lastout in a group of its own",
                from.display()
            ));
        }
        for pid in inside {
            match write_raw(&to, &pid) {
                // Ended meanwhile.
                Err(error) if crate::sys::errno(&error) == crate::base::Errno::ESRCH => {}
                result => result.map_err(|error| failed(&to, &error))?,
            }
        }
    }
    Err(format!("{} does not become empty", from.display()))
}

/// Who is in a group and not the init's. 0: somebody outside the PID namespace.
fn foreign(inside: &Set<String>, init: Pid, ours: &Set<i32>) -> Option<String> {
    let is_ours = |pid: &String| pid.parse().is_ok_and(|pid: i32| pid == init.get() || ours.contains(&pid));
    inside.iter().find(|pid| !is_ours(pid)).cloned()
}

fn words(file: &Path) -> Set<String> {
    fs::read_to_string(file).unwrap_or_default().split_whitespace().map(String::from).collect()
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    write_raw(file, text).map_err(|error| failed(file, &error))
}

fn write_raw(file: &Path, text: &str) -> io::Result<()> {
    File::options().write(true).open(file)?.write_all(text.as_bytes())
}

fn failed(file: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {}", file.display(), crate::sys::errno(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INIT: Pid = Pid::INIT;

    fn limits() -> Limits {
        Limits { memory: Some(1 << 26), cpu_milli: Some(1500), pids: Some(20), ..Limits::default() }
    }

    /// The kernel fills a new group with files; here the test does, as soon as the directory is there.
    fn made(base: &Path, name: &str) -> PathBuf {
        base.join(name)
    }

    #[test]
    fn what_each_controller_is_told() {
        let wanted = wanted(&limits());
        let all =
            |files: &[(&str, String)]| files.iter().map(|(file, value)| format!("{file}={value}")).collect::<Vec<_>>();
        let v1: Vec<_> = wanted.iter().flat_map(|limit| all(&limit.v1)).collect();
        let expected =
            ["memory.limit_in_bytes=67108864", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000", "pids.max=20"];
        assert_eq!(v1, expected);
        let v2: Vec<_> = wanted.iter().flat_map(|limit| all(&limit.v2)).collect();
        assert_eq!(v2, ["memory.max=67108864", "cpu.max=150000 100000", "pids.max=20"]);
    }

    #[test]
    fn without_a_group_the_run_is_refused_with_the_reason_and_nothing_stays() {
        let refused = make_below(&wanted(&limits()), INIT, "j1", &|_| None).unwrap_err();
        assert!(refused.starts_with("cannot limit memory to 67108864 bytes: no cgroup"), "{refused}");
        assert!(refused.contains("it takes a cgroup that lastout may write"), "{refused}");
        // A directory whose files are not a controller's.
        let dir = tempfile::tempdir().unwrap();
        let own = |name: &str| (!name.is_empty()).then(|| dir.path().to_path_buf());
        let refused = make_below(&wanted(&limits()), INIT, "j1", &own).unwrap_err();
        assert!(refused.contains("lastout-1-j1/memory.limit_in_bytes: no such file"), "{refused}");
        assert!(!made(dir.path(), "lastout-1-j1").exists());
    }

    #[test]
    fn a_name_that_is_taken_is_somebody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a".to_string(), "a.2".into()];
        for name in &names {
            assert_eq!(make_one(dir.path(), &names), Ok(dir.path().join(name)));
        }
        assert!(make_one(dir.path(), &names).unwrap_err().contains("too many"));
    }

    #[test]
    fn a_group_is_split_only_if_all_that_is_in_it_is_the_inits() {
        let inside = |text: &str| text.split(' ').map(String::from).collect();
        let init = Pid::new(10).unwrap();
        let ours = Set::from([11, 12]);
        for (pids, other) in [("10 11 12", None), ("10 13", Some("13")), ("0 10", Some("0")), ("12", None)] {
            assert_eq!(foreign(&inside(pids), init, &ours).as_deref(), other, "{pids}");
        }
    }

    #[test]
    fn a_controller_of_version_2_is_given_on_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cgroup.subtree_control");
        fs::write(&file, "").unwrap();
        enable(dir.path(), "memory", INIT).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "+memory");
        fs::write(&file, "cpu memory\n").unwrap();
        enable(dir.path(), "memory", INIT).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "cpu memory\n");
    }

    /// The hierarchy of version 2 of this machine, if it gives a controller to its children, or does so when it is asked.
    fn version_2() -> Option<PathBuf> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let top = mounts.find(|fields| fields[2] == "cgroup2").map(|fields| PathBuf::from(fields[1]))?;
        let file = top.join("cgroup.subtree_control");
        if words(&file).is_empty() {
            let controller = words(&top.join("cgroup.controllers")).into_iter().next()?;
            write_raw(&file, &format!("+{controller}")).ok()?;
        }
        let probe = top.join(format!("lastout-probe-{}", std::process::id()));
        fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).ok()?;
        Some(top)
    }

    #[test]
    fn a_real_group_of_version_2_is_split_for_its_own_and_left_alone_otherwise() {
        let Some(top) = version_2() else {
            return eprintln!("skipped: there is no cgroup of version 2 that may be written");
        };
        let controller = words(&top.join("cgroup.subtree_control")).into_iter().next().unwrap();
        let base = top.join(format!("lastout-test-{}", std::process::id()));
        fs::create_dir(&base).unwrap();
        let mut sleeps = [0; 2].map(|_| std::process::Command::new("sleep").arg("600").spawn().unwrap());
        let pids = sleeps.each_ref().map(|sleep| sleep.id().to_string());
        let init = Pid::new(pids[0].parse().unwrap()).unwrap();
        let mut outcomes = Vec::new();
        for joining in [&pids[..], &pids[..1]] {
            joining.iter().for_each(|pid| write(&base.join("cgroup.procs"), pid).unwrap());
            let outcome = enable(&base, &controller, init);
            outcomes.push((outcome, words(&base.join("cgroup.procs")), words(&base.join(LEAF).join("cgroup.procs"))));
            // The other one goes.
            let _ = write(&top.join("cgroup.procs"), &pids[1]);
        }
        let given = words(&base.join("cgroup.subtree_control"));
        let beside = make_one(&base, &["beside".into()]).and_then(|path| write(&path.join("cgroup.procs"), &pids[1]));
        for sleep in &mut sleeps {
            sleep.kill().unwrap();
            sleep.wait().unwrap();
        }
        drop(Cgroup { directories: vec![base.join("beside"), base.join(LEAF), base.clone()], oom: None });
        assert!(!base.exists());
        let (refused, inside, leaf) = &outcomes[0];
        assert!(
            refused.as_ref().unwrap_err().contains(&format!("has pid {}, which is not lastout's", pids[1])),
            "{refused:?}"
        );
        assert_eq!((inside.len(), leaf.len()), (2, 0), "nobody was moved");
        assert_eq!(outcomes[1], (Ok(()), Set::new(), Set::from([pids[0].clone()])));
        assert_eq!((given, beside), (Set::from([controller]), Ok(())));
    }
}
