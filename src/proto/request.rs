use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Bytes, VERSION};

/// What `exec` asks for: `request.json`. Times are in milliseconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The command and its arguments; at least one.
    pub command: Vec<Bytes>,
    /// `KEY=VALUE` entries, set over the init's own environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<Bytes>,
    /// Working directory; main's, if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<Bytes>,
    /// The request has a `stdin` FIFO. Without, the job's standard input is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// The job does not need its client: no `stdout` and `stderr` FIFOs, output is kept in `jobs/<id>/`.
    #[serde(default)]
    pub detach: bool,
    /// The job lives on when its client goes; output goes to the client and is kept as well.
    #[serde(default)]
    pub keep: bool,
    /// End the job's tree after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Between TERM and KILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// Send `alive` so often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
}

/// Why a request cannot be served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadRequest(pub String);

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Request {
    /// A request to run `command`, with everything else left out.
    pub fn new(command: Vec<Bytes>) -> Request {
        Request {
            version: VERSION,
            command,
            env: Vec::new(),
            cwd: None,
            stdin: false,
            detach: false,
            keep: false,
            timeout_ms: None,
            grace_ms: None,
            heartbeat_ms: None,
        }
    }

    /// Reads and checks `request.json`.
    pub fn parse(json: &[u8]) -> Result<Request, BadRequest> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let bad = |what: String| Err(BadRequest(what));
        match serde_json::from_slice::<Version>(json) {
            Ok(Version { version: VERSION }) => {}
            Ok(Version { version }) => {
                return bad(format!("request version {version}: this init speaks version {VERSION}"));
            }
            Err(error) => return bad(format!("bad request: {error}")),
        }
        let request: Request = match serde_json::from_slice(json) {
            Ok(request) => request,
            Err(error) => return bad(format!("bad request: {error}")),
        };
        if request.command.is_empty() {
            return bad("bad request: no command".into());
        }
        if let Some(entry) = request.env.iter().find(|entry| entry.0.iter().position(|b| *b == b'=').unwrap_or(0) == 0)
        {
            return bad(format!("bad request: environment entry {entry:?} is not KEY=VALUE"));
        }
        Ok(request)
    }

    /// `request.json`.
    pub fn to_json(&self) -> Vec<u8> {
        super::to_line(self)
    }

    /// The job's timeout.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }

    /// Between two heartbeats; not less than a tenth of a second.
    pub fn heartbeat(&self) -> Option<Duration> {
        self.heartbeat_ms.map(|ms| Duration::from_millis(ms.max(100)))
    }

    /// The grace that was asked for.
    pub fn grace(&self) -> Option<Duration> {
        self.grace_ms.map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_served_is_refused_with_the_reason() {
        for (json, reason) in [
            ("", "bad request"),
            ("{}", "missing field `version`"),
            (r#"{"version":2,"command":["x"],"new":1}"#, "request version 2"),
            (r#"{"version":1,"command":[]}"#, "no command"),
            (r#"{"version":1,"command":["a\u0000"]}"#, "NUL"),
            (r#"{"version":1,"command":["x"],"env":["=1"]}"#, "not KEY=VALUE"),
            (r#"{"version":1,"command":["x"],"env":["A"]}"#, "not KEY=VALUE"),
            (r#"{"version":1,"command":["x"],"timeout":3}"#, "unknown field `timeout`"),
        ] {
            let why = Request::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(why.contains(reason), "{json}: {why}");
        }
    }
}
