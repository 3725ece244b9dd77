use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Bytes, VERSION};
use crate::base::Size;

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
    /// The job gets a terminal of its own, of this size at first: there is a `resize` FIFO, and no `stderr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<Size>,
    /// End the job's tree after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Between TERM and KILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// Send `alive` so often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
    /// `USER[:GROUP]`, names or numbers; as whom it runs. The init's own, if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

/// What a job may use; what is not given is inherited.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// `RLIMIT_NOFILE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nofile: Option<u64>,
    /// `RLIMIT_CORE`, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<u64>,
    /// `RLIMIT_AS`, bytes.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub address_space: Option<u64>,
    /// -20 to 19.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// -1000 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Bytes, through a cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Thousandths of a CPU, through a cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_milli: Option<u64>,
    /// Processes, through a cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
}

impl Limits {
    /// Whether none is given.
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// What cannot be, in words.
    pub fn check(&self) -> Result<(), BadRequest> {
        let bad =
            |what: &str, value: &dyn fmt::Display, use_: &str| Err(BadRequest(format!("{what} {value}: use {use_}")));
        match self {
            Limits { nice: Some(nice), .. } if !(-20..=19).contains(nice) => bad("nice", nice, "-20 to 19"),
            Limits { oom_score_adj: Some(score), .. } if !(-1000..=1000).contains(score) => {
                bad("oom_score_adj", score, "-1000 to 1000")
            }
            // The kernel's least quota is a millisecond of a tenth of a second.
            Limits { cpu_milli: Some(milli), .. } if *milli < 10 => bad("cpu_milli", milli, "10 or more"),
            Limits { memory: Some(0), .. } => bad("memory", &0, "1 or more"),
            Limits { pids: Some(0), .. } => bad("pids", &0, "1 or more"),
            _ => Ok(()),
        }
    }
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
            tty: None,
            timeout_ms: None,
            grace_ms: None,
            heartbeat_ms: None,
            user: None,
            limits: Limits::default(),
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
        if request.tty.is_some() && (request.detach || request.keep) {
            return bad("bad request: a terminal needs a client: no detach or keep with tty".into());
        }
        request.limits.check().map_err(|BadRequest(what)| BadRequest(format!("bad request: {what}")))?;
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
            (
                r#"{"version":1,"command":["x"],"tty":{"columns":80,"rows":24},"keep":true}"#,
                "no detach or keep with tty",
            ),
            (r#"{"version":1,"command":["x"],"tty":{"columns":80}}"#, "missing field `rows`"),
            (r#"{"version":1,"command":["x"],"tty":{"columns":65536,"rows":1}}"#, "65536"),
            (r#"{"version":1,"command":["x"],"timeout":3}"#, "unknown field `timeout`"),
            (r#"{"version":1,"command":["x"],"limits":{"stack":3}}"#, "unknown field `stack`"),
            (r#"{"version":1,"command":["x"],"limits":{"nice":20}}"#, "nice 20: use -20 to 19"),
            (r#"{"version":1,"command":["x"],"limits":{"oom_score_adj":-1001}}"#, "oom_score_adj -1001"),
            (r#"{"version":1,"command":["x"],"limits":{"cpu_milli":9}}"#, "cpu_milli 9: use 10 or more"),
            (r#"{"version":1,"command":["x"],"limits":{"memory":0}}"#, "memory 0"),
        ] {
            let why = Request::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(why.contains(reason), "{json}: {why}");
        }
    }
}
