//! `lastout logs`.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use anyhow::{Context, anyhow, bail};

use super::{
    Outcome, Target,
    jobs::list,
    session::{Connection, Ready},
};
use crate::{
    base::{JobId, JobRef, Name},
    proto::{Line, files},
    sys::{
        fd,
        notify::Watch,
        poll::{Interest, wait_any},
    },
};

/// Writes a job's kept output: its standard output to ours, its standard error to ours. `follow`: until it ends. Of a
/// service that has a file, that one; `follow`: until the init has gone.
pub fn logs(target: &Target, job: JobRef, follow: bool) -> Outcome {
    let connection = Connection::open(target)?;
    let mut services = super::services::list(&connection)?;
    services.retain(|service| match &job {
        JobRef::Id(id) => service.job == Some(*id),
        JobRef::Name(name) => service.service == *name,
    });
    if let Some(service) = services.first() {
        return match &service.log {
            Some(path) => of_service(&connection, &service.service, path, follow),
            None => bail!(
                "{0} writes to lastout's own standard output and error: `docker logs`, the terminal, the journal, or what \
                 lastout's output goes to has it; with log = {{ file = \"/var/log/{0}.log\" }} in the configuration file it \
                 is shown here",
                service.service
            ),
        };
    }
    let id = match &job {
        JobRef::Id(id) => *id,
        JobRef::Name(name) => {
            let jobs = list(&connection)?;
            let named = jobs.iter().rev().find(|info| info.name.as_ref() == Some(name));
            named.map(|info| info.job).ok_or_else(|| anyhow!("no job {job}: `lastout ps -a` lists them"))?
        }
    };
    let directory = connection.dir.dir(files::JOBS).and_then(|jobs| jobs.dir(&id.to_string()));
    let Ok(directory) = directory else { bail!("{}", nothing_kept(&connection, id)?) };
    let mut streams = files::LOGS.map(Stream::new);
    let open = |name: &str| open(directory.open_file(name));
    if !follow {
        if !copy_all(&open, &mut streams)? {
            bail!("{}", nothing_kept(&connection, id)?);
        }
        return Ok(0);
    }
    // Watch first, then ask, then read: nothing falls between.
    let watch = Watch::directory(&connection.path.join(files::JOBS).join(id.to_string()))?;
    let mut session = connection.request()?;
    connection.send(&Line::Wait(session.id, JobRef::Id(id)))?;
    loop {
        copy_all(&open, &mut streams)?;
        let mut fds = vec![(watch.fd(), Interest::Read)];
        fds.extend(session.wait_on());
        let ready = Ready::of(&wait_any(&fds, None)?[1..]);
        watch.drain();
        if !session.take(ready)?.is_empty() || session.gone() {
            copy_all(&open, &mut streams)?;
            return Ok(0);
        }
    }
}

/// A service's file, and the one before it.
fn of_service(connection: &Connection, name: &Name, path: &Path, follow: bool) -> Outcome {
    let shown = path.display();
    let (Some(directory), Some(file)) = (path.parent(), path.to_str()) else { bail!("{shown} is no file") };
    // It may be a pipe, whose reader would wait; and the path may be another one's here.
    let open = |file: &str| open(File::options().read(true).custom_flags(fd::OPEN_NONBLOCKING).open(file));
    let mut stream = [Stream::new(file)];
    if !follow {
        if !copy_all(&open, &mut stream)? {
            bail!("{name} writes to {shown}, which is not there (yet, or not for you: see it where lastout runs)");
        }
        return Ok(0);
    }
    let watch = Watch::directory(directory).with_context(|| format!("{name} writes to {shown}: cannot watch that"))?;
    let mut session = connection.request()?;
    // Nothing is of interest but that they end.
    connection.send(&Line::Events(session.id, true))?;
    loop {
        copy_all(&open, &mut stream)?;
        let mut fds = vec![(watch.fd(), Interest::Read)];
        fds.extend(session.wait_on());
        let ready = Ready::of(&wait_any(&fds, None)?[1..]);
        watch.drain();
        session.take(ready)?;
        if session.gone() {
            copy_all(&open, &mut stream)?;
            return Ok(0);
        }
    }
}

fn nothing_kept(connection: &Connection, id: JobId) -> anyhow::Result<String> {
    Ok(if list(connection)?.iter().any(|info| info.job == id) {
        format!("{id} keeps no output: it went to its client (use exec --keep or --detach)")
    } else {
        format!("no job {id}: `lastout ps -a` lists them")
    })
}

/// One log file, as far as it was copied.
struct Stream<'a> {
    name: &'a str,
    current: Option<File>,
    inode: u64,
}

/// Opens the file of a name, if it is there.
type Open<'a> = &'a dyn Fn(&str) -> io::Result<Option<Opened>>;

/// Copies what is new. Answers whether there is any log at all.
fn copy_all(open: Open, streams: &mut [Stream]) -> io::Result<bool> {
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let targets: [&mut dyn Write; 2] = [&mut out, &mut err];
    let mut any = false;
    for (stream, target) in streams.iter_mut().zip(targets) {
        any |= stream.copy(open, target)?;
        target.flush()?;
    }
    Ok(any)
}

impl<'a> Stream<'a> {
    fn new(name: &'a str) -> Stream<'a> {
        Stream { name, current: None, inode: 0 }
    }

    fn copy(&mut self, open: Open, target: &mut dyn Write) -> io::Result<bool> {
        if let Some(current) = &mut self.current {
            copy(current, target)?;
        }
        // It may have become the previous one meanwhile, and another the current one.
        let Some((mut previous, (mut file, inode))) = self.both(open)? else { return Ok(self.current.is_some()) };
        if self.current.is_none() || inode != self.inode {
            if let Some((previous, inode)) = &mut previous
                && *inode != self.inode
            {
                if self.current.is_some() {
                    eprintln!("lastout logs: some of {} came faster than it could be read, and is gone", self.name);
                }
                copy(previous, target)?;
            }
            copy(&mut file, target)?;
            self.current = Some(file);
            self.inode = inode;
        }
        Ok(true)
    }

    /// The previous file, if there is one, and the current one, as they were at one moment.
    fn both(&self, open: Open) -> io::Result<Option<(Option<Opened>, Opened)>> {
        loop {
            let Some((file, inode)) = open(self.name)? else { return Ok(None) };
            let previous = open(&format!("{}.1", self.name))?;
            if previous.as_ref().is_none_or(|(_, previous)| *previous != inode) {
                return Ok(Some((previous, (file, inode))));
            }
        }
    }
}

/// A file and its inode, which is its name as long as we hold it open.
type Opened = (File, u64);

fn open(file: io::Result<File>) -> io::Result<Option<Opened>> {
    match file {
        Ok(file) => file.metadata().map(|about| Some((file, about.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn copy(from: &mut File, to: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}
