//! Helpers: disposable children of the init, each for one thing that may block. A helper answers through a
//! pipe, in JSON, and its end says that the answer is whole.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use super::{control::Control, parse_config, parse_with, read_config};
use crate::{
    base::{GRACE, Map, Pid, Process, Set, Subject},
    config::PLACEHOLDERS,
    core::{Ending, Event, Stuck},
    inspect, keeper,
    proto::{Leftover, Record, Reply},
    sys::{
        clock,
        dir::Dir,
        fd, is_shortage, mount,
        poll::{Interest, wait_any},
        process, signals, spawn,
        start::Original,
    },
};

/// A client that does not read its list for so long does not get it.
const PATIENCE: Duration = Duration::from_secs(2);
/// For a look at what one process holds, and for all of them.
const CENSUS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// Processes that hang and are named.
const MOST_STUCK: usize = 50;
/// Holders that are named.
const NAMED: usize = 20;

/// What a helper is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Question {
    /// Who is there.
    Look,
    /// What hangs.
    Explain,
    /// Whether the kernel has let go of what ended processes held.
    Late,
    /// Who else holds volumes.
    Census,
    /// What the configuration file says now.
    Config(PathBuf),
    /// Whether this volume has taken what was written.
    Sync(String),
}

/// A helper that runs.
#[derive(Debug)]
pub(super) enum Helper {
    /// It answers us.
    Asked { question: Question, answer: OwnedFd, bytes: Vec<u8> },
    /// It does something, or answers somebody else.
    Other,
}

impl Helper {
    /// To wait on.
    pub(super) fn answer_fd(&self) -> Option<&OwnedFd> {
        match self {
            Helper::Asked { answer, .. } => Some(answer),
            Helper::Other => None,
        }
    }

    /// Takes what has come. Answers whether the end has come too.
    pub(super) fn read(&mut self) -> bool {
        let Helper::Asked { answer, bytes, .. } = self else { return true };
        let mut buffer = [0; 4096];
        loop {
            match fd::read(&*answer, &mut buffer) {
                Ok(Some(0)) | Err(_) => return true,
                Ok(Some(count)) => bytes.extend_from_slice(&buffer[..count]),
                Ok(None) => return false,
            }
        }
    }

    /// The helper has ended: what it found out.
    pub(super) fn finish(mut self) -> Event {
        self.read();
        let Helper::Asked { question, bytes, .. } = self else { return Event::HelperEnded };
        match question {
            Question::Look => Event::Looked(serde_json::from_slice(&bytes).ok().flatten()),
            Question::Explain => Event::Explained(
                parse::<Vec<(Option<Subject>, Leftover)>>(&bytes)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(job, process)| Stuck { job, process })
                    .collect(),
            ),
            Question::Late => Event::KernelLetGo,
            Question::Census => Event::Counted(
                parse(&bytes).unwrap_or_else(|| vec!["cannot tell who holds volumes: the helper died".into()]),
            ),
            Question::Config(path) => Event::Reloaded(
                parse::<Result<(String, [Option<String>; 2]), String>>(&bytes)
                    .unwrap_or_else(|| Err("the helper that reads it died".into()))
                    .and_then(|(text, exports)| {
                        let known = || PLACEHOLDERS.iter().zip(&exports);
                        let export = |name: &str| known().find(|(known, _)| **known == name)?.1.clone();
                        parse_with(&path, text.as_bytes(), &export)
                    }),
            ),
            Question::Sync(volume) => {
                let died = || Some(format!("{volume} was not synced: the helper died"));
                let error = parse(&bytes).unwrap_or_else(died);
                Event::Synced { volume, error }
            }
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// What every helper does first: keep only what it needs, and be an ordinary process that SIGTERM ends.
fn begin(original: &Original, name: &str, keep: &[i32]) {
    fd::close_all_but(keep);
    process::set_name(name);
    original.restore_mask();
}

/// Forks a helper that answers with what `find` returns.
fn ask<T: serde::Serialize>(
    original: &Original,
    name: &str,
    question: Question,
    find: impl FnOnce() -> T,
) -> io::Result<(Pid, Helper)> {
    let (read, write) = fd::pipe()?;
    let pid = spawn::fork_child(|| {
        begin(original, name, &[write.as_raw_fd()]);
        let answer = serde_json::to_vec(&find()).unwrap_or_default();
        u8::from(write_patiently(&write, &answer).is_err())
    })?;
    Ok((pid, Helper::Asked { question, answer: read, bytes: Vec::new() }))
}

/// Every process of the namespace (as PID 1) or below the init, the helper itself left out; of what is below the init,
/// perhaps without these and what is below them.
fn everybody(init: Pid, without: &Set<Pid>) -> Option<Vec<Process>> {
    let mut seen = if init == Pid::INIT { inspect::everything() } else { inspect::below_but(init, without) }?;
    seen.retain(|process| process.id.pid != process::me());
    Some(seen)
}

/// Looks at every process of the namespace (as PID 1) or below the init, the helper itself left out. Keepers see to
/// what is below them, so nobody asks for that.
pub(super) fn look(original: &Original, init: Pid, kill: bool, keepers: &Set<Pid>) -> io::Result<(Pid, Helper)> {
    ask(original, "lastout-look", Question::Look, || {
        if kill {
            let _ = signals::kill_namespace(init);
        }
        let mut seen = everybody(init, keepers)?;
        let parents: Map<Pid, Option<Pid>> = seen.iter().map(|p| (p.id.pid, p.parent)).collect();
        let is_theirs = |pid: Pid| {
            let up = std::iter::successors(Some(pid), |pid| parents.get(pid).copied().flatten());
            up.take(parents.len() + 1).any(|pid| keepers.contains(&pid))
        };
        // Nobody waits for what the init itself holds.
        let others = seen.iter_mut().filter(|process| process.id.pid != init && !is_theirs(process.id.pid));
        inspect::note_lingering(others);
        Some(seen)
    })
}

/// Reads the configuration file, and checks it first where a bug in that would do no harm.
pub(super) fn config(original: &Original, cwd: &Path, path: &Path) -> io::Result<(Pid, Helper)> {
    ask(original, "lastout-config", Question::Config(path.into()), || {
        let text = read_config(&cwd.join(path))?;
        let exports = PLACEHOLDERS.map(inspect::export);
        parse_config(path, &text).map(|_| (String::from_utf8_lossy(&text).into_owned(), exports))
    })
}

/// Waits until the kernel has let go of what ended processes held.
pub(super) fn await_kernel(original: &Original) -> io::Result<(Pid, Helper)> {
    ask(original, "lastout-late", Question::Late, keeper::let_go)
}

/// Finds what hangs in the kernel, or with `all` where everything waits that is left, and whose it is: `ours` are
/// the keepers, with their jobs, the helpers, and main.
pub(super) fn explain(
    original: &Original,
    init: Pid,
    all: bool,
    ours: &Map<Pid, Option<Subject>>,
) -> io::Result<(Pid, Helper)> {
    ask(original, "lastout-explain", Question::Explain, || {
        let seen = everybody(init, &Set::new()).unwrap_or_default();
        let parents: Map<Pid, Option<Pid>> = seen.iter().map(|p| (p.id.pid, p.parent)).collect();
        let owner = |pid: Pid| {
            let up = std::iter::successors(Some(pid), |pid| parents.get(pid).copied().flatten());
            up.take(seen.len() + 1).find_map(|pid| ours.get(&pid))
        };
        // Keepers and helpers do not hang, but for what they wait for.
        let is_ours = |pid: Pid| match ours.get(&pid) {
            Some(Some(Subject::Main)) | None => false,
            Some(Some(Subject::Job(_)) | None) => true,
        };
        let is_helpers = |pid: Pid| owner(pid).is_some_and(Option::is_none);
        let live = seen.iter().filter(|process| !process.is_dead()).map(|process| process.id.pid);
        let pids: Vec<Pid> = live.filter(|pid| *pid != init && !is_ours(*pid) && !is_helpers(*pid)).collect();
        let stuck = keeper::explain(&pids, !all, MOST_STUCK);
        stuck.into_iter().map(|process| (owner(process.pid).copied().flatten(), process)).collect::<Vec<_>>()
    })
}

/// Tells who holds volumes that is not ours, by volume, and whom it could not inspect. Not as PID 1: there nobody
/// else is seen.
pub(super) fn census(original: &Original) -> io::Result<(Pid, Helper)> {
    ask(original, "lastout-census", Question::Census, || {
        let pids: Vec<Pid> = inspect::everything().unwrap_or_default().iter().map(|process| process.id.pid).collect();
        let others: Vec<Pid> =
            pids.into_iter().filter(|pid| Some(*pid) != process::parent() && *pid != process::me()).collect();
        let looks =
            inspect::gather(&others, CENSUS.0, CENSUS.1, |pid, tell: &mut dyn FnMut(_)| tell(inspect::holders(*pid)));
        let complete = looks.iter().filter(|look| look.complete).count();
        let mut told = Vec::new();
        let mut unseen = Set::new();
        for (holders, hidden) in looks.into_iter().flat_map(|look| look.found) {
            // One line for each volume that a process holds, with the first that it holds it by.
            let mut volumes: Map<&Path, Vec<&inspect::Holder>> = Map::new();
            holders
                .iter()
                .for_each(|holder| volumes.or_insert_with(&holder.volume.path, Default::default).push(holder));
            told.extend(volumes.values().map(|held| match held.len() {
                1 => format!("not ours: {}", held[0]),
                count => format!("not ours: {}, and {} more there", held[0], count - 1),
            }));
            unseen.extend(hidden.iter().map(|hidden| hidden.pid));
        }
        let more = told.len().saturating_sub(NAMED);
        told.truncate(NAMED);
        if more > 0 {
            told.push(format!("not ours: {more} more that hold volumes"));
        }
        let missed = unseen.len() + others.len() - complete;
        if missed > 0 {
            told.push(format!("cannot inspect what {missed} other processes hold: that takes CAP_SYS_PTRACE"));
        }
        told
    })
}

/// Aborts a FUSE connection, and says what came of it.
pub(super) fn abort_fuse(original: &Original, device: &str, volume: &str) -> io::Result<Pid> {
    spawn::fork_child(|| {
        begin(original, "lastout-abort", &[]);
        match mount::abort_fuse(device) {
            Ok(()) => log::warn!("aborted the FUSE connection of {volume} ({device})"),
            Err(error) => log::error!(
                "cannot abort the FUSE connection of {volume} ({device}): {}: it takes root and fusectl, mounted (in a \
                 container: bind-mounted, writable) on {}",
                crate::sys::errno(&error),
                mount::FUSE_CONNECTIONS
            ),
        }
        0
    })
}

/// A volume as it is named to people.
pub(super) fn volume_name(volume: &inspect::Volume) -> String {
    format!("{} ({})", volume.path.display(), volume.kind)
}

/// Waits until a volume has taken what was written. A written-back error is reported once to whoever asks first
/// (syncfs(2), since Linux 5.8).
pub(super) fn sync(original: &Original, volume: &inspect::Volume) -> io::Result<(Pid, Helper)> {
    let name = volume_name(volume);
    ask(original, "lastout-sync", Question::Sync(name.clone()), || {
        let result = match File::open(&volume.path) {
            Ok(file) => mount::sync(&file),
            // What we may not even open, nobody of ours has written to: another user's FUSE mount.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            // Its server has gone, perhaps long ago: nobody can say what became of what was written.
            Err(error) => {
                log::warn!("cannot ask {name} whether all was written: {}", crate::sys::errno(&error));
                return None;
            }
        };
        result
            .err()
            .map(|error| format!("cannot sync {name}, so what was written may be lost: {}", crate::sys::errno(&error)))
    })
}

/// Writes a long answer, made in the helper, to a client.
pub(super) fn answer(
    original: &Original,
    client: &File,
    requests: &Dir,
    reply: impl FnOnce() -> Reply,
) -> io::Result<Pid> {
    spawn::fork_child(|| {
        begin(original, "lastout-answer", &[client.as_raw_fd(), requests.fd().as_raw_fd()]);
        u8::from(write_patiently(client, &reply().to_line()).is_err())
    })
}

/// Writes the record of a job that had no keeper to do it.
pub(super) fn keep_record(original: &Original, control: &Control, record: &Record) -> io::Result<Pid> {
    spawn::fork_child(|| {
        begin(original, "lastout-record", &control.fds());
        control.keep_record(record);
        0
    })
}

fn write_patiently(to: impl AsFd + Copy, mut bytes: &[u8]) -> io::Result<()> {
    let deadline = clock::now() + PATIENCE;
    while !bytes.is_empty() {
        match fd::write(to, bytes) {
            Ok(Some(count)) => bytes = &bytes[count..],
            Err(error) if is_shortage(&error) && clock::now() < deadline => sleep(Duration::from_millis(20)),
            Err(error) => return Err(error),
            Ok(None) => {
                if wait_any(&[(to.as_fd(), Interest::Write)], Some(PATIENCE))? == [false] {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }
    Ok(())
}

/// Ends what a dead keeper's job left behind.
pub(super) fn end_strays(
    original: &Original,
    init: Pid,
    mark: &str,
    session: Option<Pid>,
    all: bool,
    spare: &[Pid],
) -> io::Result<Pid> {
    spawn::fork_child(|| {
        begin(original, "lastout-end", &[]);
        let spare = [spare, &[process::me()]].concat();
        let mut ending = Ending::begin(clock::now(), init, GRACE);
        let mut lingers = false;
        loop {
            let Some(mut found) = inspect::strays(init, mark, session, all, &spare) else { return 1 };
            if found.is_empty() {
                if lingers {
                    keeper::let_go();
                }
                return 0;
            }
            inspect::note_lingering(&mut found);
            lingers |= found.iter().any(|process| process.lingers);
            let now = clock::now();
            // They are the init's children, not ours: nothing tells us of their ends, so look again.
            ending.child_ended(now);
            for (whom, signal) in ending.looked(now, &found) {
                let _ = signals::send_to(whom, signal);
            }
            sleep(Duration::from_millis(20));
        }
    })
}
