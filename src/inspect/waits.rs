//! Why a process does not go on.

use std::{
    fmt, fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    Looker, Mount, Volume,
    holders::{mapped, mount_id, threads, volume_of_mapping},
    mounts::mount_of_path,
    stat::Stat,
    unseen::why,
};
use crate::{
    base::{Map, Pid, sort_unique},
    sys::{
        clock, process,
        syscalls::{self, About},
    },
};

/// What one process, or the thread of it that tells most, waits for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wait {
    /// The process.
    pub pid: Pid,
    /// The thread, if it is not the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<Pid>,
    /// Its command's name.
    pub comm: String,
    /// The state's letter.
    pub state: char,
    /// It is on its way out (`PF_EXITING`): its descriptors may be gone, and what it waits for is their last flush.
    pub exiting: bool,
    /// The kernel function that it waits in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The system call, by name; `page fault` where it is in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// The file that the call is about.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "super::lossy::option")]
    pub file: Option<PathBuf>,
    /// The volume that the file is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
    /// Where no file is known: the volumes that it may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspects: Vec<Volume>,
    /// Milliseconds since it last ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// What could not be inspected, and what it would take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cannot: Option<String>,
}

/// `include/linux/sched.h`.
const PF_EXITING: u32 = 0x4;
/// Likewise: a kernel thread, which is nobody's process.
const PF_KTHREAD: u32 = 0x0020_0000;

/// How the names begin of the kernel functions that wait for a filesystem or a disk. Most waits are of state D; these
/// may also be seen as S, where a signal can still end them.
const STORAGE: [&str; 42] = [
    "request_wait_answer",
    "fuse_",
    "__fuse_",
    "rpc_wait",
    "nfs_",
    "nfs4_",
    "nfs3_",
    "__nfs",
    "nlmclnt_",
    "folio_wait",
    "__folio_lock",
    "folio_lock",
    "wait_on_page",
    "__lock_page",
    "filemap_",
    "wait_on_commit",
    "p9_",
    "v9fs_",
    "cifs_",
    "smb2_",
    "SMB",
    "wait_for_response",
    "ceph_",
    "afs_",
    "ptlrpc_",
    "ll_",
    "autofs_",
    "io_schedule",
    "blk_",
    "submit_bio_wait",
    "__wait_on_buffer",
    "wait_on_buffer",
    "jbd2_",
    "start_this_handle",
    "do_get_write_access",
    "ext4_",
    "xfs_",
    "xlog_",
    "btrfs_",
    "balance_dirty_pages",
    "wb_wait",
    "d_alloc_parallel",
];
/// What looks likewise and is something else: a FUSE daemon that waits for something to do; a parent that waits for
/// its vfork's exec; a frozen control group.
const OTHER: [&str; 5] = ["fuse_dev", "fuse_uring", "kernel_clone", "wait_for_vfork", "__refrigerator"];

/// Whether a kernel function waits for a filesystem or a disk.
fn is_storage(kernel: &str) -> bool {
    STORAGE.iter().any(|start| kernel.starts_with(start)) && !is_other(kernel)
}

fn is_other(kernel: &str) -> bool {
    OTHER.iter().any(|start| kernel.starts_with(start))
}

impl Wait {
    /// Whether it waits in the kernel for a filesystem or a disk, as opposed to a sleep, a lock between threads, a
    /// pipe or a socket. A look at one moment: a disk that is merely busy looks the same until `for_ms` is known.
    pub fn hangs(&self) -> bool {
        match self.state {
            'D' => !self.kernel.as_deref().is_some_and(is_other),
            'S' => self.kernel.as_deref().is_some_and(is_storage),
            _ => false,
        }
    }

    /// For how long.
    pub fn duration(&self) -> Option<Duration> {
        self.for_ms.map(Duration::from_millis)
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "pid {}", self.pid)?;
        if let Some(thread) = self.thread {
            write!(f, ", thread {thread}")?;
        }
        write!(f, " ({}, state {}{})", self.comm, self.state, if self.exiting { ", exiting" } else { "" })?;
        f.write_str(if self.hangs() { " hangs" } else { " waits" })?;
        if let Some(call) = &self.call {
            write!(f, " in {call}")?;
        }
        if let Some(file) = &self.file {
            write!(f, " of {}", file.display())?;
        }
        let mount = |volume: &Volume| format!("{} ({})", volume.path.display(), volume.kind);
        if let Some(volume) = &self.volume {
            write!(f, " on {}", mount(volume))?;
        } else if !self.suspects.is_empty() {
            let suspects: Vec<String> = self.suspects.iter().map(mount).collect();
            write!(f, ", probably on {}", suspects.join(" or "))?;
        }
        if let Some(kernel) = &self.kernel {
            write!(f, ", in {kernel}")?;
        }
        if let Some(time) = self.duration().filter(|time| time.as_secs() > 0) {
            write!(f, ", for {} s", time.as_secs())?;
        }
        if let Some(cannot) = &self.cannot {
            write!(f, "; cannot inspect {cannot}")?;
        }
        Ok(())
    }
}

/// Why `pid` does not go on; `None` if it has gone, or is a kernel thread. May block: see [`explain_stepwise`].
pub fn explain(pid: Pid) -> Option<Wait> {
    let mut last = None;
    explain_stepwise(pid, &mut Looker::new(), &mut Clocks::default(), &mut |wait| last = Some(wait.clone()));
    last
}

/// The same, told again with each step that adds something. What comes first does not block; the later steps may, on
/// locks that a hanging process holds (`syscall`, `mem`, `maps`): for a disposable child.
pub fn explain_stepwise(pid: Pid, looker: &mut Looker, clocks: &mut Clocks, tell: &mut dyn FnMut(&Wait)) {
    let Some(mut wait) = glance(pid, clocks) else { return };
    tell(&wait);
    let base = format!("/proc/{pid}/task/{}", wait.thread.unwrap_or(pid));
    match fs::read_to_string(format!("{base}/syscall")) {
        Ok(text) => {
            let mounts = looker.mounts_at(&base);
            if !wait.exiting {
                match parse_call(&text) {
                    Some(Called::No) if wait.hangs() => wait.call = Some("page fault".into()),
                    Some(Called::Call(call, arguments)) => {
                        wait.call = Some(call.name.into());
                        tell(&wait);
                        (wait.file, wait.volume) = file(&base, mounts, call.about, &arguments);
                    }
                    Some(Called::No) | None => {}
                }
            }
            if wait.hangs() {
                tell(&wait);
                suspect(&mut wait, &base, mounts);
                // Of several, those that it holds otherwise as well.
                if wait.suspects.len() > 1 {
                    let (held, _) = looker.files(pid);
                    let is_held = |volume: &Volume| held.iter().any(|holder| holder.volume == *volume);
                    if wait.suspects.iter().any(is_held) {
                        wait.suspects.retain(is_held);
                    }
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            wait.cannot = Some(format!("its kernel function, system call and file: {}", why(pid, &error)));
        }
        Err(_) => {}
    }
    tell(&wait);
}

/// What can be told without ever blocking: state, kernel function and time of the thread that tells most.
pub fn glance(pid: Pid, clocks: &mut Clocks) -> Option<Wait> {
    let leader = Stat::of(pid).ok()?;
    if leader.flags & PF_KTHREAD != 0 {
        return None;
    }
    let only = leader.num_threads <= 1;
    let threads = if only { vec![pid] } else { threads(pid) };
    let looks = threads.into_iter().filter_map(|thread| {
        let base = format!("/proc/{pid}/task/{thread}");
        let stat = if only { leader.clone() } else { Stat::at(&base).ok()? };
        let kernel = kernel_function(&base);
        let wait = Wait {
            pid,
            thread: Some(thread).filter(|thread| *thread != pid),
            comm: stat.comm.clone(),
            state: stat.state,
            exiting: stat.flags & PF_EXITING != 0,
            kernel,
            call: None,
            file: None,
            volume: None,
            suspects: Vec::new(),
            for_ms: None,
            cannot: None,
        };
        Some((rank(&wait), wait, stat.processor))
    });
    // Of equals the first: the leader.
    let (_, mut wait, cpu) = looks.reduce(|best, next| if next.0 > best.0 { next } else { best })?;
    let base = format!("/proc/{pid}/task/{}", wait.thread.unwrap_or(pid));
    wait.for_ms = match wait.state {
        'R' => Some(0),
        'Z' | 'X' => None,
        _ => last_ran(&base).and_then(|last| clocks.since(cpu, last)),
    };
    Some(wait)
}

/// How much a thread tells about why its process does not go on.
fn rank(wait: &Wait) -> u8 {
    let storage = wait.kernel.as_deref().is_some_and(is_storage);
    match wait.state {
        'D' if storage => 5,
        'D' if wait.hangs() => 4,
        _ if storage => 3,
        'R' => 2,
        'Z' | 'X' => 0,
        _ => 1,
    }
}

/// `None` also where it may not be seen: the kernel then answers 0, as for a thread that runs.
fn kernel_function(base: &str) -> Option<String> {
    let name = fs::read_to_string(format!("{base}/wchan")).ok()?;
    Some(name.trim().to_string()).filter(|name| !name.is_empty() && name != "0")
}

/// The scheduler's clock when a thread last ran, in milliseconds (`CONFIG_SCHED_DEBUG`).
fn last_ran(base: &str) -> Option<f64> {
    exec_start(&fs::read_to_string(format!("{base}/sched")).ok()?)
}

fn exec_start(sched: &str) -> Option<f64> {
    let line = sched.lines().find(|line| line.starts_with("se.exec_start"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

/// Readings of a clock.
const READINGS: u32 = 8;

/// The scheduler's clocks, one a CPU: they do not count interrupts, nor what a hypervisor steals. So they differ, by hours
/// after months, and on a busy machine lose a third of a second while we look on: two looks at one process go by one
/// reading. It is read once, by running there for a moment. May block where a CPU is never free: a disposable child.
#[derive(Clone, Debug, Default)]
pub struct Clocks(Map<i32, Option<f64>>);

impl Clocks {
    /// What has been read, a CPU each: for who goes by the same clocks in another process.
    pub fn readings(&self) -> Vec<(i32, Option<f64>)> {
        self.0.iter().map(|(cpu, offset)| (*cpu, *offset)).collect()
    }

    /// Goes by these.
    pub fn take(&mut self, readings: Vec<(i32, Option<f64>)>) {
        self.0.extend(readings);
    }

    /// Milliseconds since `last` on the clock of `cpu`.
    fn since(&mut self, cpu: i32, last: f64) -> Option<u64> {
        let now = || clock::now().0 as f64 / 1000.0;
        let offset = *self.0.or_insert_with(cpu, || {
            let once = || {
                let begin = now();
                let last = last_ran("/proc/self")?;
                let end = now();
                Some((end - begin, end - last))
            };
            // Whoever is interrupted between the two clocks is wrong by that, and takes a hang for a younger one: the
            // quickest of some is right.
            let quickest = || (0..READINGS).filter_map(|_| once()).min_by(|(a, _), (b, _)| a.total_cmp(b));
            let there = || quickest().map(|(_, offset)| offset);
            // Where we may not run on it, our own CPU's clock is better than none.
            usize::try_from(cpu).ok().and_then(|cpu| process::on_cpu(cpu, there)).unwrap_or_else(there)
        });
        Some((now() - offset? - last).max(0.0) as u64)
    }
}

/// What `/proc/PID/syscall` says (proc_pid_syscall(5)).
#[derive(Clone, PartialEq, Eq, Debug)]
enum Called {
    /// A call that we know, and its arguments.
    Call(syscalls::Call, [u64; 6]),
    /// It waits, but in no call.
    No,
}

/// `running`, `-1 sp pc`, or `number argument... sp pc`.
fn parse_call(text: &str) -> Option<Called> {
    let mut words = text.split_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    if number < 0 {
        return Some(Called::No);
    }
    let value = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let values: Vec<u64> = words.filter_map(value).collect();
    let (arguments, places) = values.split_first_chunk::<6>()?;
    // A 32-bit program's numbers are others. Its stack and code are where no 64-bit program has its stack.
    if cfg!(target_pointer_width = "64") && places.iter().all(|place| *place <= u64::from(u32::MAX)) {
        return None;
    }
    Some(Called::Call(syscalls::call(number)?, *arguments))
}

/// The file that a call is about.
fn file(base: &str, mounts: &[Mount], about: About, arguments: &[u64; 6]) -> (Option<PathBuf>, Option<Volume>) {
    let descriptor = |argument: usize| {
        let number = arguments[argument] as u32;
        let path = fs::read_link(format!("{base}/fd/{number}")).ok();
        let info = fs::read_to_string(format!("{base}/fdinfo/{number}")).unwrap_or_default();
        let mount = mount_id(&info).and_then(|id| mounts.iter().find(|mount| mount.id == id));
        (path, mount.and_then(Mount::volume))
    };
    let named = |directory: Option<usize>, argument: usize| {
        let path = string(base, arguments[argument])?;
        let from = match directory.filter(|directory| !syscalls::is_cwd(arguments[*directory])) {
            Some(directory) => format!("fd/{}", arguments[directory] as u32),
            None if path.is_absolute() => "root".into(),
            None => "cwd".into(),
        };
        let from = fs::read_link(format!("{base}/{}", if path.is_absolute() { "root" } else { &from })).ok()?;
        let path = below(&from, &path);
        let volume = mount_of_path(mounts, &path).and_then(Mount::volume);
        Some((Some(path), volume))
    };
    match about {
        About::Fd(argument) => descriptor(argument),
        About::Path(argument) => named(None, argument).unwrap_or_default(),
        About::PathAt(directory, argument) => match named(Some(directory), argument) {
            // An empty path is the descriptor itself (AT_EMPTY_PATH).
            Some((Some(path), _)) if path.as_os_str().is_empty() => descriptor(directory),
            found => found.unwrap_or_default(),
        },
        About::Nothing => (None, None),
    }
}

/// `path` as seen from `from`, with `.` and `..` taken out by name only: no link is followed, nothing is asked.
fn below(from: &Path, path: &Path) -> PathBuf {
    let mut joined = from.to_path_buf();
    if path.as_os_str().is_empty() {
        return PathBuf::new();
    }
    for component in path.components() {
        match component {
            std::path::Component::Normal(name) => joined.push(name),
            std::path::Component::ParentDir => drop(joined.pop()),
            std::path::Component::CurDir | std::path::Component::RootDir | std::path::Component::Prefix(_) => {}
        }
    }
    joined
}

/// `PATH_MAX`.
const LONGEST: usize = 4096;

/// The string at an address of a process.
fn string(base: &str, address: u64) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let memory = fs::File::open(format!("{base}/mem")).ok()?;
    let mut bytes = vec![0; LONGEST];
    let count = memory.read_at(&mut bytes, address).ok()?;
    bytes.truncate(count);
    let end = bytes.iter().position(|b| *b == 0)?;
    bytes.truncate(end);
    Some(std::ffi::OsString::from_vec(bytes).into())
}

/// Where no file tells the volume: what remote volumes it maps, else whose FUSE requests are waiting; in a container, where
/// that cannot be seen, every FUSE volume.
fn suspect(wait: &mut Wait, base: &str, mounts: &[Mount]) {
    let is_remote = |volume: &Volume| volume.is_remote();
    // A path may lead over a link elsewhere; the kernel function does not lie.
    let in_fuse =
        wait.kernel.as_deref().is_some_and(|kernel| kernel == "request_wait_answer" || kernel.starts_with("fuse_"));
    if wait.volume.as_ref().is_some_and(|volume| volume.is_fuse() || !in_fuse) {
        return;
    }
    if in_fuse {
        wait.volume = None;
    }
    if !in_fuse && wait.file.is_some() {
        return;
    }
    let mut found: Vec<Volume> = Vec::new();
    if !wait.exiting
        && let Ok(maps) = fs::read(format!("{base}/maps"))
    {
        let volumes = mapped(&maps).into_iter().filter_map(|(device, path)| volume_of_mapping(mounts, &device, &path));
        found.extend(volumes.filter(is_remote).filter(|volume| !in_fuse || volume.is_fuse()));
    }
    if found.is_empty() && (in_fuse || wait.exiting) {
        let fuse = mounts.iter().filter_map(Mount::volume).filter(Volume::is_fuse);
        found.extend(fuse.filter(|volume| volume.requests_waiting().is_none_or(|count| count > 0)));
    }
    if found.is_empty() && in_fuse {
        // Without fusectl, as in a container: it can only be one of these.
        found.extend(mounts.iter().filter_map(Mount::volume).filter(Volume::is_fuse));
    }
    sort_unique(&mut found);
    if wait.call.as_deref() == Some("page fault") && found.len() == 1 {
        wait.volume = found.pop();
    } else {
        wait.suspects = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(state: char, kernel: &str) -> Wait {
        Wait {
            pid: Pid::new(12).unwrap(),
            thread: None,
            comm: "dd".into(),
            state,
            exiting: false,
            kernel: Some(kernel.into()),
            call: Some("read".into()),
            file: Some("/data/x".into()),
            volume: Some(Volume {
                path: "/data".into(),
                kind: "fuse.sshfs".into(),
                source: "host:".into(),
                device: "0:50".into(),
            }),
            suspects: Vec::new(),
            for_ms: Some(12_345),
            cannot: None,
        }
    }

    #[test]
    fn a_hang_is_told_in_one_line() {
        let mut hang = wait('S', "request_wait_answer");
        let line =
            "pid 12 (dd, state S) hangs in read of /data/x on /data (fuse.sshfs), in request_wait_answer, for 12 s";
        assert_eq!(hang.to_string(), line);
        hang =
            Wait { exiting: true, call: None, file: None, suspects: hang.volume.take().into_iter().collect(), ..hang };
        let line =
            "pid 12 (dd, state S, exiting) hangs, probably on /data (fuse.sshfs), in request_wait_answer, for 12 s";
        assert_eq!(hang.to_string(), line);
        let json = serde_json::to_string(&hang).unwrap();
        assert_eq!(serde_json::from_str::<Wait>(&json).unwrap(), hang);
    }

    #[test]
    fn a_filesystems_wait_is_a_hang_and_a_sleep_is_none() {
        for (state, kernel, hangs) in [
            ('D', "rpc_wait_bit_killable", true),
            ('D', "some_other_function", true),
            ('S', "request_wait_answer", true),
            ('S', "fuse_dev_do_read", false),
            ('D', "kernel_clone", false),
            ('S', "hrtimer_nanosleep", false),
            ('S', "futex_do_wait", false),
            ('S', "pipe_read", false),
            ('S', "unix_stream_read_generic", false),
            ('R', "fuse_x", false),
            ('T', "do_signal_stop", false),
        ] {
            assert_eq!(wait(state, kernel).hangs(), hangs, "{state} {kernel}");
        }
    }

    #[test]
    fn a_call_is_read_with_its_arguments() {
        let text = format!("{} 0x3 0x7f00 0x20000 0x1 0x2 0x0 0x7ffdbbbb7908 0x7f3180eea2ad\n", 0);
        match parse_call(&text) {
            Some(Called::Call(call, arguments)) => {
                assert_eq!(Some(call), syscalls::call(0));
                assert_eq!(arguments, [3, 0x7f00, 0x20000, 1, 2, 0]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(parse_call("running\n"), None);
        assert_eq!(parse_call("-1 0x7ffdbbbb7908 0x7f3180eea2ad\n"), Some(Called::No));
        assert_eq!(parse_call("3 0x3 0x7f00 0x20000 0x1 0x2 0x0 0xffbb7908 0xf7eea2ad\n"), None, "a 32-bit program");
    }

    #[test]
    fn a_path_is_put_together_by_name() {
        for (from, path, whole) in [
            ("/data", "x/./y", "/data/x/y"),
            ("/data/a", "../b", "/data/b"),
            ("/", "/data/x", "/data/x"),
            ("/jail", "/data/x", "/jail/data/x"),
        ] {
            assert_eq!(below(Path::new(from), Path::new(path)), Path::new(whole));
        }
    }

    #[test]
    fn a_child_that_sleeps_is_explained() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::new(child.id() as i32).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let wait = explain(pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((wait.comm.as_str(), wait.state, wait.hangs()), ("sleep", 'S', false), "{wait:?}");
        assert!(wait.call.as_deref().is_some_and(|call| call.ends_with("nanosleep")), "{wait:?}");
        assert!(wait.for_ms.is_none_or(|time| time < 20_000), "{wait:?}");
    }

    #[test]
    fn the_time_of_the_last_run_is_found() {
        let sched =
            "cat (10547, #threads: 1)\n---\nse.exec_start                                :       1008034.023776\n";
        assert_eq!(exec_start(sched), Some(1_008_034.023_776));
        assert_eq!(exec_start(""), None);
    }
}
