//! Finding an init, giving it a command, reading its answers.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};

use super::{Target, new_request_id, silent};
use crate::{
    base::RequestId,
    proto::{Line, MAX_LINE, Reply, files, place},
    sys::{
        dir::{Access, Dir},
        errno, fd,
        poll::{Interest, wait_any},
        process,
    },
};

/// Between two looks for an init that is not up yet. Only `--wait` looks twice.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// An init that listens.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) path: PathBuf,
    pub(super) dir: Dir,
    control: File,
}

impl Connection {
    /// Finds the init.
    pub(super) fn open(target: &Target) -> anyhow::Result<Connection> {
        let deadline = target.wait.map(|wait| Instant::now() + wait);
        loop {
            let error = match Connection::try_open(target) {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            match deadline {
                Some(deadline) if Instant::now() < deadline => sleep(LOOK_EVERY),
                Some(_) => return Err(error.context("waited in vain")),
                None => return Err(error),
            }
        }
    }

    fn try_open(target: &Target) -> anyhow::Result<Connection> {
        let named = target
            .control
            .clone()
            .or_else(|| std::env::var_os(place::VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from));
        if let Some(path) = named {
            return Connection::at(&path).map_err(|why| anyhow!("no lastout listens at {}: {why}", path.display()));
        }
        let mut reasons = Vec::new();
        for path in places() {
            match Connection::at(&path) {
                Ok(connection) => return Ok(connection),
                Err(why) => reasons.push(format!("{}: {why}", path.display())),
            }
        }
        bail!(
            "no lastout listens ({}); name its control directory with --control or {}",
            reasons.join("; "),
            place::VARIABLE
        )
    }

    fn at(path: &Path) -> Result<Connection, String> {
        let dir = Dir::open(path).map_err(|error| errno(&error).to_string())?;
        let control = dir.open_fifo(files::CONTROL, Access::Write, None).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "there is no control FIFO in it".into(),
            io::ErrorKind::InvalidInput => "its control is not a FIFO".into(),
            _ if errno(&error) == crate::base::Errno::ENXIO => "its init is not running".into(),
            _ => errno(&error).to_string(),
        })?;
        Ok(Connection { path: path.into(), dir, control })
    }

    /// The control FIFO: it reports an error when the init has died.
    pub(super) fn control(&self) -> &File {
        &self.control
    }

    /// Writes one command. It begins with a newline, so that somebody's half line cannot swallow it.
    pub(super) fn send(&self, line: &Line) -> anyhow::Result<()> {
        let line = format!("\n{line}\n");
        if line.len() > MAX_LINE {
            bail!("the command is too long");
        }
        loop {
            match fd::write(&self.control, line.as_bytes()) {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => drop(wait_any(&[(self.control.as_fd(), Interest::Write)], None)?),
                Err(error) => return Err(error).context("the init died"),
            }
        }
    }

    /// Writes a command and returns its only answer, which must come within `limit`.
    pub(super) fn ask_within(&self, limit: Duration, line: impl FnOnce(RequestId) -> Line) -> anyhow::Result<Reply> {
        let deadline = Instant::now() + limit;
        let mut session = self.request()?;
        let line = format!("\n{}\n", line(session.id));
        let control = &self.control;
        let room = wait_any(&[(control.as_fd(), Interest::Write)], Some(limit))?;
        if room == [false] || fd::write(control, line.as_bytes()).context("the init died")?.is_none() {
            bail!("the init does not take commands");
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let ready = session.wait(Some(left))?;
            match session.take(ready)?.into_iter().next() {
                Some(Reply::Refused { reason }) => bail!(reason),
                Some(reply) => return Ok(reply),
                None if session.gone => bail!("the init died"),
                None if left.is_zero() => bail!("the init does not answer"),
                None => {}
            }
        }
    }

    /// Makes a request's directory and its `reply`.
    pub(super) fn request(&self) -> anyhow::Result<Session<'_>> {
        let id = new_request_id()?;
        let what = || format!("cannot make a request in {}", self.path.display());
        let (owner, group, _) = self.dir.owner_and_mode().with_context(what)?;
        let requests = self.dir.dir(files::REQUESTS).with_context(what)?;
        requests.make_dir(&id.to_string()).with_context(what)?;
        let dir = requests.dir(&id.to_string()).with_context(what)?;
        // Root may drive an init of another user's, which must be able to open what root makes.
        let owner = (owner != process::uid()).then_some((owner, group));
        let mut session = Session {
            connection: self,
            id,
            requests,
            dir,
            owner,
            reply: None,
            bytes: Vec::new(),
            gone: false,
            left: false,
            silent_at: Some(Instant::now() + silent::PATIENCE),
            is_silent: false,
        };
        session.reply = Some(session.make_fifo(files::REPLY, Access::Read)?);
        if let Some((uid, gid)) = owner {
            session.dir.give_self(uid, gid).with_context(what)?;
        }
        Ok(session)
    }

    /// Gives a command and returns its only answer.
    pub(super) fn ask(&self, line: impl FnOnce(RequestId) -> Line) -> anyhow::Result<Reply> {
        let mut session = self.request()?;
        self.send(&line(session.id))?;
        session.next()?.ok_or_else(|| anyhow!("the init died"))
    }
}

/// The default places; and those of the user whose process is PID 1 here, for `docker exec` as another user.
fn places() -> Vec<PathBuf> {
    let mut list = place::candidates(std::env::var_os("XDG_RUNTIME_DIR"), process::uid());
    if let Ok(init) = std::fs::metadata("/proc/1") {
        list.extend(place::candidates(None, init.uid()));
    }
    let mut seen = crate::base::Set::new();
    list.retain(|path| seen.insert(path.clone()));
    list
}

/// What is there to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ready {
    reply: bool,
    init_gone: bool,
}

impl Ready {
    /// From what is ready of [`Session::wait_on`].
    pub(super) fn of(ready: &[bool]) -> Ready {
        Ready { reply: ready[0], init_gone: ready[ready.len() - 1] }
    }
}

/// One request: its directory, which goes with it, and its answers.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) connection: &'a Connection,
    pub(super) id: RequestId,
    requests: Dir,
    dir: Dir,
    owner: Option<(u32, u32)>,
    reply: Option<File>,
    bytes: Vec<u8>,
    gone: bool,
    left: bool,
    /// When the init should have answered.
    silent_at: Option<Instant>,
    /// It has not, and there is a reason.
    is_silent: bool,
}

impl Session<'_> {
    /// How long to wait, at most, until [`Session::say_if_silent`] has something to do.
    pub(super) fn patience(&self) -> Option<Duration> {
        Some(self.silent_at?.saturating_duration_since(Instant::now()))
    }

    /// Says why the init does not answer, if it is time to: once, and only of one that has not even read what it was
    /// asked, or is seen to stand still. Others may have reasons to take their time.
    pub(super) fn say_if_silent(&mut self) {
        if self.patience() == Some(Duration::ZERO) {
            self.silent_at = None;
            if let Some(why) = silent::why(self.connection) {
                self.is_silent = true;
                eprintln!("lastout: {why}");
            }
        }
    }

    /// Whether that has been said.
    pub(super) fn is_silent(&self) -> bool {
        self.is_silent
    }

    pub(super) fn make_fifo(&self, name: &str, access: Access) -> anyhow::Result<File> {
        let made = self.dir.make_fifo(name).and_then(|()| {
            let fifo = self.dir.open_fifo(name, access, None)?;
            self.give(name)?;
            Ok(fifo)
        });
        made.with_context(|| format!("cannot make the FIFO {name} in {}", self.connection.path.display()))
    }

    pub(super) fn write_file(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self.dir.write_file(name, bytes).and_then(|()| self.give(name));
        written.with_context(|| format!("cannot write {name} in {}", self.connection.path.display()))
    }

    fn give(&self, name: &str) -> io::Result<()> {
        self.owner.map_or(Ok(()), |(uid, gid)| self.dir.give(name, uid, gid))
    }

    /// The request is somebody else's from here on: its directory stays.
    pub(super) fn leave(&mut self) {
        self.left = true;
    }

    /// What to wait on for [`Session::take`].
    pub(super) fn wait_on(&self) -> Vec<(std::os::fd::BorrowedFd<'_>, Interest)> {
        let reply = self.reply.as_ref().map(|reply| (reply.as_fd(), Interest::Read));
        reply.into_iter().chain([(self.connection.control.as_fd(), Interest::Hangup)]).collect()
    }

    /// Waits for something to take; without a limit, or until there is something to say.
    pub(super) fn wait(&mut self, limit: Option<Duration>) -> io::Result<Ready> {
        let ready = Ready::of(&wait_any(&self.wait_on(), limit.or_else(|| self.patience()))?);
        if limit.is_none() {
            self.say_if_silent();
        }
        Ok(ready)
    }

    /// Takes what has come. Afterwards `gone` says whether nobody answers any more: then all has been taken.
    pub(super) fn take(&mut self, ready: Ready) -> anyhow::Result<Vec<Reply>> {
        let mut buffer = [0; 1024];
        // An init that has gone may have left its last words since we looked.
        while let Some(reply) = self.reply.as_ref().filter(|_| ready.reply || ready.init_gone) {
            match fd::read(reply, &mut buffer)? {
                Some(0) => {
                    self.gone = true;
                    break;
                }
                Some(count) => {
                    self.bytes.extend_from_slice(&buffer[..count]);
                    // That was all. If its end is there, the next wait says so.
                    if count < buffer.len() && !ready.init_gone {
                        break;
                    }
                }
                None => break,
            }
        }
        self.gone |= ready.init_gone;
        if self.gone || !self.bytes.is_empty() {
            self.silent_at = None;
            self.is_silent = false;
        }
        let mut replies = Vec::new();
        while let Some(end) = self.bytes.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            replies.push(Reply::parse(&line).map_err(|why| anyhow!(why))?);
        }
        Ok(replies)
    }

    pub(super) fn gone(&self) -> bool {
        self.gone
    }

    /// Waits for the next answer; `None` if nobody answers any more.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Reply>> {
        loop {
            let ready = self.wait(None)?;
            if let Some(reply) = self.take(ready)?.into_iter().next() {
                return Ok(Some(reply));
            }
            if self.gone {
                return Ok(None);
            }
        }
    }

    /// Waits until nobody answers any more.
    pub(super) fn wait_gone(&mut self) -> anyhow::Result<()> {
        while self.next()?.is_some() {}
        Ok(())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // Usually its keeper has removed it long ago.
        if self.requests.remove_dir(&self.id.to_string()).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return;
        }
        let _ = self.requests.remove_tree(&self.id.to_string());
    }
}
