//! What a client asks for, and its ends of it.

use std::fs::File;

use super::{Refusal, Start, refuse};
use crate::{
    base::RequestId,
    core::Source,
    proto::{Bytes, Cause, Request, files},
    sys::{
        dir::{Access, Dir},
        process,
    },
};

/// The largest `request.json` that is read, in bytes: more than `execve(2)` takes.
pub const LARGEST_REQUEST: u64 = 64 << 20;
/// The client's ends of a request.
#[derive(Default)]
pub(super) struct Client {
    pub(super) reply: Option<File>,
    pub(super) stdin: Option<File>,
    pub(super) stdout: Option<File>,
    pub(super) stderr: Option<File>,
    pub(super) resize: Option<File>,
}

/// Reads the request and opens its FIFOs. Answers also with where it is, if it is anywhere.
pub(super) fn load(start: &Start, client: &mut Client) -> Result<(Request, Option<Place>), Refusal> {
    let id = match &start.source {
        Source::Request(id) => *id,
        Source::Words(words) => {
            let words = words.iter().map(|word| Bytes::from(word.as_str())).collect();
            return Ok((Request { detach: true, ..Request::new(words) }, None));
        }
        // Its output goes elsewhere, and its environment is not a request's.
        Source::Service(run) => {
            let words = run.command.iter().map(|word| Bytes::from(word.as_str())).collect();
            return Ok((Request { detach: true, ..Request::new(words) }, None));
        }
    };
    let shortage = |error: std::io::Error, what: &str| match crate::sys::is_shortage(&error) {
        true => refuse(what)(error),
        // Gone with its client.
        false => Refusal(Cause::ClientGone),
    };
    let Some(control) = start.control else { return Err(Refusal(Cause::ClientGone)) };
    let mut place = Place::open(control, id).map_err(|error| shortage(error, "open the request"))?;
    let directory = &place.directory;
    // Whoever may command us: the directory's owner, and root, who may drive us from the host.
    let owners = [0, process::uid()];
    client.reply = match directory.open_fifo(files::REPLY, Access::Write, Some(&owners)) {
        Err(error) if crate::sys::is_shortage(&error) => return Err(shortage(error, "open the client's reply")),
        reply => reply.ok(),
    };
    let json = directory.read_file(files::REQUEST, LARGEST_REQUEST, &owners);
    let json = json.map_err(refuse(format!("read {}", files::REQUEST)))?;
    let request = Request::parse(&json).map_err(|bad| Refusal(Cause::Refused { reason: bad.to_string() }))?;
    if client.reply.is_none() && !request.detach {
        return Err(Refusal(Cause::ClientGone));
    }
    place.has_terminal = request.tty.is_some();
    let directory = &place.directory;
    let open = |name, access| {
        let file = directory.open_fifo(name, access, Some(&owners));
        file.map(Some).map_err(refuse(format!("open {name}")))
    };
    if request.stdin {
        client.stdin = open(files::STREAMS[0], Access::Read)?;
    }
    if !request.detach {
        client.stdout = open(files::STREAMS[1], Access::Write)?;
        match request.tty {
            Some(_) => client.resize = open(files::RESIZE, Access::Read)?,
            None => client.stderr = open(files::STREAMS[2], Access::Write)?,
        }
    }
    Ok((request, Some(place)))
}

/// A request's directory, and where that is.
pub(super) struct Place {
    requests: Dir,
    name: String,
    directory: Dir,
    has_terminal: bool,
}

impl Place {
    fn open(control: &Dir, id: RequestId) -> std::io::Result<Place> {
        let requests = control.dir(files::REQUESTS)?;
        let name = id.to_string();
        let directory = requests.dir(&name)?;
        Ok(Place { requests, name, directory, has_terminal: false })
    }

    /// Both ends are open, nobody needs the names.
    pub(super) fn remove(self) {
        for file in [files::REQUEST, files::REPLY].iter().chain(&files::STREAMS) {
            let _ = self.directory.remove(file);
        }
        if self.has_terminal {
            let _ = self.directory.remove(files::RESIZE);
        }
        let _ = self.requests.remove_dir(&self.name);
    }
}
