//! Where a log goes: a bounded queue, and behind it a file that is rotated, or somebody's output. What the queue has
//! no room for is dropped, by whole lines, and counted.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::BorrowedFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::lines;
use crate::{
    base::Tick,
    core::service::Format,
    sys::{clock, outlet::Outlet},
};

/// What waits for a place that takes nothing, bytes.
const QUEUE: usize = 256 * 1024;
/// When no more than this waits, lines are taken again: one notice for many.
const LOW: usize = QUEUE / 2;
/// What is given to a file at once.
const CHUNK: usize = 64 * 1024;
/// To a pipe, which takes that whole or not at all.
const PIECE: usize = 4096;
/// How often a place that has failed is tried.
const AGAIN: Duration = Duration::from_secs(1);

/// The two streams of a service.
pub(super) const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// A file that is open.
#[derive(Debug)]
struct Open {
    file: File,
    /// Device and inode.
    id: (u64, u64),
    size: u64,
}

/// A file that becomes `FILE.1` when it is full. Whoever moves or removes it (logrotate) gets what comes then in a new one.
#[derive(Debug)]
pub(super) struct Rotated {
    path: PathBuf,
    max: u64,
    keep: u32,
    file: Option<Open>,
    /// It could not be renamed, which is said once.
    stays: bool,
}

impl Rotated {
    pub(super) fn new(path: &Path, max: u64, keep: u32) -> Rotated {
        Rotated { path: path.into(), max, keep, file: None, stays: false }
    }

    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        }
        for number in (0..self.keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        self.file = None;
        Ok(())
    }

    /// What there is room for before it is full.
    fn room(&self) -> usize {
        let size = self.file.as_ref().map_or(0, |open| open.size);
        usize::try_from(self.max.saturating_sub(size)).unwrap_or(CHUNK).min(CHUNK)
    }

    /// Lets go of a file that is not at its path any more; and sees how large it is, if somebody has truncated it. Of what
    /// cannot be asked nothing is known.
    fn look(&mut self) {
        let Some(open) = &mut self.file else { return };
        match fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == open.id => open.size = there.size(),
            Ok(_) => self.file = None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.file = None,
            Err(_) => {}
        }
    }

    /// `fresh`: a line begins here.
    fn write(&mut self, bytes: &[u8], fresh: bool) -> io::Result<usize> {
        self.look();
        let is_full = |size: u64| size > 0 && size + bytes.len() as u64 > self.max;
        if fresh
            && !self.stays
            && self.file.as_ref().is_some_and(|open| is_full(open.size))
            && let Err(error) = self.rotate()
        {
            self.stays = true;
            log::warn!("cannot rotate {}: {}: it grows", self.path.display(), crate::sys::errno(&error));
        }
        if self.file.is_none() {
            // Not to wait for the other end, if it is a FIFO.
            let flags = crate::sys::fd::OPEN_NONBLOCKING;
            let file = File::options().append(true).create(true).mode(0o640).custom_flags(flags).open(&self.path)?;
            let is = file.metadata()?;
            let size = is.size();
            self.file = Some(Open { file, id: (is.dev(), is.ino()), size });
            if fresh && size > 0 && size + bytes.len() as u64 > self.max && !self.stays {
                return self.write(bytes, fresh);
            }
        }
        let Some(open) = &mut self.file else { return Ok(0) };
        let count = open.file.write(bytes)?;
        open.size += count as u64;
        Ok(count)
    }
}

#[derive(Debug)]
enum Place {
    File(Rotated),
    Output(Outlet),
}

#[derive(Debug)]
struct Entry {
    bytes: Vec<u8>,
    /// Lines that are lost if this is not written.
    lines: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Sink {
    service: String,
    format: Format,
    place: Place,
    queue: VecDeque<Entry>,
    queued: usize,
    /// What is being written, how much of it is, and the lines in it.
    head: Vec<u8>,
    written: usize,
    head_lines: u64,
    /// Lines are dropped until there is room again.
    dropping: bool,
    /// Dropped and not yet told; and in all.
    dropped: u64,
    lost: u64,
    /// Of a line of this stream the beginning was dropped, so the rest is.
    cut: [bool; 2],
    /// The last byte that was taken ends no line.
    open: bool,
    /// What it said, and when to try again.
    failed: Option<(String, Tick)>,
    /// It was told that lines are dropped; and that they wait.
    told: bool,
    told_waiting: bool,
}

impl Sink {
    pub(super) fn file(service: &str, format: Format, file: Rotated) -> Sink {
        Sink::new(service, format, Place::File(file))
    }

    pub(super) fn output(service: &str, format: Format, outlet: Outlet) -> Sink {
        Sink::new(service, format, Place::Output(outlet))
    }

    fn new(service: &str, format: Format, place: Place) -> Sink {
        Sink {
            service: service.into(),
            format,
            place,
            queue: VecDeque::new(),
            queued: 0,
            head: Vec::new(),
            written: 0,
            head_lines: 0,
            dropping: false,
            dropped: 0,
            lost: 0,
            cut: [false; 2],
            open: false,
            failed: None,
            told: false,
            told_waiting: false,
        }
    }

    /// Takes a line, or raw bytes up to one's end.
    pub(super) fn push(&mut self, stream: usize, time: SystemTime, text: &[u8]) {
        let bytes = lines::format(self.format, time, &self.service, STREAMS[stream], text);
        let ends = bytes.ends_with(b"\n");
        let fits = |sink: &Sink| sink.queued == 0 || sink.queued + bytes.len() <= QUEUE;
        // One read may be many lines, and they are longer here.
        if !self.dropping && !fits(self) {
            self.flush(false);
        }
        let fits = fits(self);
        if self.cut[stream] || self.dropping || !fits {
            self.dropping |= !fits;
            self.cut[stream] = !ends;
            self.dropped += u64::from(ends);
            self.say_dropping();
            return;
        }
        self.enqueue(bytes, u64::from(ends));
    }

    fn enqueue(&mut self, bytes: Vec<u8>, lines: u64) {
        self.open = !bytes.ends_with(b"\n");
        self.queued += bytes.len();
        self.queue.push_back(Entry { bytes, lines });
    }

    /// Into lastout's own log, once.
    fn say_dropping(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            let why = self.failed.as_ref().map_or("it takes nothing", |(why, _)| why);
            let place = match &self.place {
                Place::File(file) => file.path.display().to_string(),
                Place::Output(_) => "the output that it shares".into(),
            };
            log::warn!("{}: lines of its log are dropped: {place}: {why}", self.service);
        }
    }

    /// Into the log itself, as soon as it takes something again.
    fn tell_dropped(&mut self) {
        if self.queued > LOW {
            return;
        }
        self.dropping = false;
        if self.dropped == 0 {
            return;
        }
        let count = std::mem::take(&mut self.dropped);
        self.lost += count;
        let text = format!("lastout: {count} line{} dropped", if count == 1 { "" } else { "s" });
        let mut line = lines::format(self.format, SystemTime::now(), &self.service, "lastout", text.as_bytes());
        if self.format == Format::Raw {
            line.push(b'\n');
        }
        if self.open {
            line.insert(0, b'\n');
        }
        self.enqueue(line, 0);
    }

    /// What to wait on for room.
    pub(super) fn room(&self) -> Option<BorrowedFd<'_>> {
        match &self.place {
            Place::Output(outlet) if !self.is_idle() && self.failed.is_none() => outlet.room(),
            Place::Output(_) | Place::File(_) => None,
        }
    }

    /// When to try again.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.failed.as_ref().filter(|_| !self.is_idle()).map(|(_, again)| *again)
    }

    /// Whether all is written.
    pub(super) fn is_idle(&self) -> bool {
        self.queued == 0 && self.dropped == 0
    }

    /// For a process that keeps nothing else open.
    pub(super) fn raw_fd(&self) -> Option<i32> {
        match &self.place {
            Place::Output(outlet) => Some(outlet.raw_fd()),
            Place::File(_) => None,
        }
    }

    fn refill(&mut self) {
        let most = match &self.place {
            Place::File(file) => file.room(),
            Place::Output(_) => PIECE,
        };
        while let Some(next) = self.queue.front()
            && (self.head.is_empty() || self.head.len() + next.bytes.len() <= most)
            && let Some(next) = self.queue.pop_front()
        {
            self.head.extend_from_slice(&next.bytes);
            self.head_lines += next.lines;
        }
    }

    /// Writes what it takes. `force`: also if it has just failed.
    pub(super) fn flush(&mut self, force: bool) {
        if !force && self.failed.as_ref().is_some_and(|(_, again)| *again > clock::now()) {
            return;
        }
        loop {
            self.tell_dropped();
            if self.head.is_empty() {
                self.refill();
            }
            if self.head.is_empty() {
                return;
            }
            let rest = &self.head[self.written..];
            let done = match &mut self.place {
                Place::File(file) => file.write(rest, self.written == 0).map(Some),
                Place::Output(outlet) => outlet.write(rest),
            };
            match done {
                Ok(None) => return,
                Ok(Some(count)) if count > 0 => {
                    self.failed = None;
                    self.written += count;
                    self.queued -= count;
                    if self.written == self.head.len() {
                        self.head.clear();
                        (self.written, self.head_lines) = (0, 0);
                    }
                }
                Ok(Some(_)) => return self.fail("it takes nothing".into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.fail(crate::sys::errno(&error).to_string()),
            }
        }
    }

    fn fail(&mut self, why: String) {
        if let Place::File(file) = &self.place
            && !std::mem::replace(&mut self.told_waiting, true)
        {
            log::warn!("{}: its log waits for {}: {why}", self.service, file.path.display());
        }
        self.failed = Some((why, clock::now() + AGAIN));
        // Whoever has removed or mounted something may want it opened again.
        if let Place::File(file) = &mut self.place {
            file.file.take_if(|_| self.written == 0);
        }
    }

    /// Lines that were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.lost + self.dropped
    }

    /// Nothing more is written. Answers how many lines were lost in all.
    pub(super) fn give_up(mut self) -> u64 {
        let cut = self.cut.iter().filter(|cut| **cut).count() as u64;
        let waiting: u64 = self.queue.iter().map(|entry| entry.lines).sum();
        let lost = self.lost + self.dropped + cut + waiting + self.head_lines;
        if waiting + self.head_lines > 0 {
            self.say_dropping();
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(path: &Path, max: u64, keep: u32) -> Sink {
        Sink::file("x", Format::Raw, Rotated::new(path, max, keep))
    }

    fn push(sink: &mut Sink, text: &str) {
        sink.push(0, SystemTime::UNIX_EPOCH, text.as_bytes());
    }

    #[test]
    fn a_full_file_becomes_the_first_of_those_that_are_kept() {
        for (keep, left) in [(0, &["", "8\n9\n"][..]), (2, &["8\n9\n", "4\n5\n6\n7\n", "0\n1\n2\n3\n"])] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let mut sink = sink(&path, 8, keep);
            for number in 0..10 {
                push(&mut sink, &format!("{number}\n"));
                sink.flush(false);
            }
            assert!(sink.is_idle());
            let text = |number: usize| match number {
                0 => fs::read_to_string(&path),
                number => fs::read_to_string(dir.path().join(format!("log.{number}"))),
            };
            if keep == 0 {
                assert_eq!((text(0).unwrap().as_str(), text(1).is_err()), (left[1], true));
            } else {
                assert_eq!((0..3).map(|number| text(number).unwrap()).collect::<Vec<_>>(), left);
                assert!(text(3).is_err());
            }
        }
    }

    #[test]
    fn a_file_that_is_there_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "before\n").unwrap();
        let mut sink = sink(&path, 10, 1);
        push(&mut sink, "a\n");
        sink.flush(false);
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\na\n");
        push(&mut sink, "longer than it may be\n");
        sink.flush(false);
        assert_eq!(fs::read_to_string(&path).unwrap(), "longer than it may be\n");
        assert_eq!(fs::read_to_string(dir.path().join("log.1")).unwrap(), "before\na\n");
    }

    #[test]
    fn a_file_that_was_moved_removed_or_truncated_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let mut sink = sink(&path, 8, 1);
        push(&mut sink, "one\n");
        sink.flush(false);
        fs::rename(&path, dir.path().join("log.old")).unwrap();
        push(&mut sink, "two\n");
        sink.flush(false);
        assert_eq!((text("log.old"), text("log")), ("one\n".into(), "two\n".into()));
        fs::remove_file(&path).unwrap();
        push(&mut sink, "three\n");
        sink.flush(false);
        assert_eq!(text("log"), "three\n");
        // logrotate's copytruncate: it is not as full as it was.
        fs::write(&path, "").unwrap();
        push(&mut sink, "four\n");
        sink.flush(false);
        assert_eq!(text("log"), "four\n");
        assert!(!dir.path().join("log.1").exists());
    }

    #[test]
    fn what_has_no_room_is_dropped_by_lines_counted_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not").join("log");
        let mut sink = sink(&path, u64::MAX, 1);
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..300 {
            push(&mut sink, &line);
            sink.flush(false);
        }
        // The rest of a line goes with its beginning.
        for piece in ["begun, ", "and ended\n"] {
            push(&mut sink, piece);
        }
        assert_eq!((sink.dropped, sink.queued), (45, QUEUE));
        fs::create_dir(path.parent().unwrap()).unwrap();
        push(&mut sink, "one more\n");
        sink.flush(true);
        push(&mut sink, "after\n");
        sink.flush(false);
        let text = fs::read_to_string(&path).unwrap();
        let told: Vec<&str> = text.lines().filter(|line| !line.starts_with('x')).collect();
        assert_eq!(told, ["lastout: 46 lines dropped", "after"]);
        assert_eq!(text.lines().count(), 256 + 2);
        assert_eq!(sink.give_up(), 46);
    }

    #[test]
    fn what_was_never_written_counts_as_lost() {
        let mut sink = sink(Path::new("/nowhere/at/all"), 100, 1);
        push(&mut sink, "a\nb\n");
        push(&mut sink, "c\n");
        sink.flush(false);
        assert_eq!(sink.give_up(), 2, "pieces are one line each");
    }
}
