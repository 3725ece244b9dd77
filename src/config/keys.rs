//! Every key of the file: its name, its type, its default, what it means. The one list of them.

use super::{
    schema::Shape,
    table::{self, Entries, Field, Initial, Key, Known, Table, Value, keys},
    tree::{Entry, Node, Problems, Raw},
    value::{
        Absolute, Account, Commands, Decimal, Directory, Named, Size, Template, Text, Time, Unlimited, Url, Variable,
        Whole, Words,
    },
};
use crate::{
    base::{Name, Signal},
    core::service::{Condition, Format, Ready, Restart, StopTo},
};

keys! {
    /// The whole file.
    File {
        /// Time between SIGTERM and SIGKILL, for what has no `stop.grace` of its own. A reload leaves it, `stop_timeout` and `max_jobs` as they are.
        grace: Option<Time> = (absent "`--grace`, or 7s"),
        /// SIGKILL main when it has not ended so long after a stop signal.
        stop_timeout: Option<Time> = (absent "`--stop-timeout`, or never"),
        /// Jobs at once; the rest is queued in order.
        max_jobs: Option<Whole<1, 1_000_000>> = (absent "`--max-jobs`, or all"),
        /// Environment of services and jobs. `{cpus}` is the CPUs that the container may use, rounded down, at least 1;
        /// `{memory}` is its memory limit in bytes; `{{` is a brace. A reload
        /// gives them to what starts from then on.
        export: Named<Variable, Template> = {},
        /// Services, by their names.
        service: Named<Name, Service> = {},
        /// Mounts, by their names; services and mounts share one set of names.
        mount: Named<Name, Mount> = {},
    }
    hints {
        "services" => "did you mean `service`? write [service.NAME]",
        "mounts" => "did you mean `mount`? write [mount.NAME]",
        "env" => "did you mean `export`? a service has an `env` of its own",
    }
}

keys! {
    /// `[service.NAME]`
    Service {
        /// What is run, in the foreground: a list is executed as it is, a text goes to `/bin/sh -c`.
        command: Words = required,
        /// When it is ready: `started` (executed), `notify` (it says `READY=1`, sd_notify), `fd` (it writes a newline to
        /// descriptor 3) or `healthy` (its first health check succeeded).
        ready: Ready = "started",
        /// It must say `WATCHDOG=1` (sd_notify) that often, or is stopped and has failed.
        watchdog: Option<Time<1>> = (absent "none"),
        .. common: Common,
    }
    hints {
        "path" => "only a mount has one: write [mount.NAME]",
    }
}

keys! {
    /// `[mount.NAME]`: a service that serves a mount, such as a FUSE server in the foreground.
    Mount {
        /// What is run, in the foreground: a list is executed as it is, a text goes to `/bin/sh -c`.
        command: Words = required,
        /// Where it is mounted; absolute. It is ready when this is a mount point.
        path: Absolute = required,
        .. common: Common,
    }
    hints {
        "ready" => "a mount is ready when its path is a mount point; leave it out",
        "watchdog" => "a mount has none; leave it out, or give it a `health`",
    }
}

keys! {
    /// What services and mounts have in common.
    Common {
        /// Commands to run before every start, in order. One that fails is a failed start.
        setup: Commands = [],
        /// The time that each `setup` command has; 0: for ever.
        setup_timeout: Time = "5m",
        /// Working directory.
        cwd: Option<Directory> = (absent "lastout's own"),
        /// Environment, over lastout's own and `export`.
        env: Named<Variable, Text> = {},
        /// What must have happened to others before it starts: `started`, `ready`, `healthy` or `succeeded` (ended with
        /// code 0) for each.
        after: Named<Name, Condition> = {},
        /// When it is started again by itself: `never`, `on-failure` (unless it ended with code 0 or was stopped) or
        /// `always`.
        restart: Restart = "on-failure",
        /// How long it waits before a restart: `initial × factor^(failures − 1)`, `max` at most.
        backoff: Backoff = {},
        /// Failures in a row after which it has failed for good; 0: never. An end with code 0 is none.
        retries: Whole<0, 1_000_000_000> = 0,
        /// When it has failed for good, everything stops, and its exit code is lastout's.
        critical: bool = false,
        /// The time that it has to become ready, from its command's start; 0: for ever.
        start_timeout: Option<Time> = (absent "90s for `notify`, `fd` and mounts; for ever otherwise"),
        /// Its health check: a table with `command` or `url`, or the URL alone.
        health: Option<HealthCheck> = (absent "none"),
        /// How it is asked to end.
        stop: Stop = {},
        /// Where its output goes: `"inherit"`, or a table.
        log: Log = "inherit",
        /// The user that it runs as, with all its groups: a name or a number.
        user: Option<Account> = (absent "lastout's own"),
        /// The group: a name or a number.
        group: Option<Account> = (absent "the user's own"),
        /// What it may use.
        limits: Limits = {},
        /// Run as a job `NAME.on_failure` when it has failed for good, with the record in its environment. One at a time: what
        /// happens meanwhile is told by one more, the latest.
        on_failure: Option<Words> = (absent "nothing"),
        /// Run as a job `NAME.on_restart` when it is to be started again, likewise.
        on_restart: Option<Words> = (absent "nothing"),
        /// The time that each of these two has; 0: for ever.
        hook_timeout: Time = "1m",
    }
    hints {
        "depends_on" => "did you mean `after`?",
        "requires" => "did you mean `after`?",
        "environment" => "did you mean `env`?",
        "healthcheck" => "did you mean `health`?",
        "workdir" => "did you mean `cwd`?",
        "working_dir" => "did you mean `cwd`?",
        "directory" => "did you mean `cwd`?",
        "exec" => "did you mean `command`?",
        "cmd" => "did you mean `command`?",
        "grace" => "write stop = { grace = ... }",
        "signal" => "write stop = { signal = ... }",
        "nofile" => "write limits = { nofile = ... }",
        "memory" => "write limits = { memory = ... }",
        "cpus" => "write limits = { cpus = ... }",
        "pids" => "write limits = { pids = ... }",
        "nice" => "write limits = { nice = ... }",
    }
}

keys! {
    /// The delay before the next start.
    Backoff {
        /// The first delay; 0: at once, and what follows is as if it were 10ms.
        initial: Time<0> = "1s",
        /// The longest delay.
        max: Time<10> = "60s",
        /// What each further failure multiplies it with; at least 1.
        factor: Decimal<1_000, 1_000_000> = 2.0,
        /// The part of the delay, 0 to 1, that is random.
        jitter: Decimal<0, 1_000> = 0.1,
        /// A run that was ready for so long makes the failures before it count no more.
        reset_after: Time = "60s",
    }
}

keys! {
    /// A health check.
    Health {
        /// Run this: code 0 is healthy. Either it or `url`.
        command: Option<Words> = (absent "none"),
        /// Ask this: `http://HOST[:PORT]/PATH` is healthy when it answers 200 to 399, `tcp://HOST:PORT` when it connects.
        url: Option<Url> = (absent "none"),
        /// The time from the end of one check to the next.
        every: Time<100> = "30s",
        /// A check that takes longer has failed, and is ended.
        timeout: Time<10> = "10s",
        /// Failures in a row that make it unhealthy.
        retries: Whole<1, 1_000_000_000> = 3,
        /// Failures in this time after the start do not count.
        start_period: Time = "0s",
    }
    hints {
        "http" => "did you mean `url`?",
        "tcp" => "did you mean `url`? write tcp://HOST:PORT",
        "interval" => "did you mean `every`?",
        "test" => "did you mean `command`?",
    }
}

keys! {
    /// How a service is asked to end.
    Stop {
        /// What its command's process group gets; the rest of its tree gets SIGTERM.
        signal: Signal = "TERM",
        /// Who gets one at once: its `tree`, or its `command` alone, which then ends what it has started (Ray, PostgreSQL);
        /// what it leaves gets SIGTERM when it has ended.
        to: StopTo = "tree",
        /// The time from there to SIGKILL.
        grace: Option<Time> = (absent "`grace` of the file"),
    }
    hints {
        "timeout" => "did you mean `grace`?",
    }
}

keys! {
    /// Where a service's output goes.
    LogTable {
        /// A file of its own; absolute. It is appended to, and begun anew where somebody (logrotate) has moved or removed it.
        file: Option<Absolute> = (absent "lastout's own standard output and error"),
        /// When the file has so many bytes it becomes FILE.1, that one FILE.2.
        max: Size<1000> = "50MB",
        /// That many old files.
        keep: Whole<0, 1000> = 5,
        /// `raw` (as it comes), `prefix` (each line after its time and the service's name) or `json` (each line as an object).
        format: Format = "raw",
    }
    hints {
        "path" => "did you mean `file`?",
        "size" => "did you mean `max`?",
        "max_size" => "did you mean `max`?",
    }
}

keys! {
    /// What a service may use.
    Limits {
        /// Open files of each process.
        nofile: Option<Whole<3, 2_147_483_584>> = (absent "lastout's own"),
        /// Bytes of a core file, or `"unlimited"`.
        core: Option<Unlimited<u64>> = (absent "lastout's own"),
        /// Bytes of address space of each process, or `"unlimited"`.
        r#as: Option<Unlimited<u64>> = (absent "lastout's own"),
        /// -20 (first) to 19 (last).
        nice: Option<Whole<-20, 19>> = (absent "lastout's own"),
        /// -1000 (never) to 1000 (first): whom the OOM killer takes.
        oom_score_adj: Option<Whole<-1000, 1000>> = (absent "lastout's own"),
        /// Bytes of memory of its whole tree, through a cgroup.
        memory: Option<Size<1_048_576>> = (absent "none"),
        /// CPUs of its whole tree, through a cgroup: 1.5 is one and a half.
        cpus: Option<Decimal<10, 1_000_000>> = (absent "none"),
        /// Processes and threads of its whole tree, through a cgroup.
        pids: Option<Whole<1, 4_194_304>> = (absent "none"),
    }
    hints {
        "user" => "it stands beside `limits`, not in it",
        "group" => "it stands beside `limits`, not in it",
        "cpu" => "did you mean `cpus`?",
    }
}

/// `health`: the table, or its `url` alone.
#[derive(Debug)]
pub(super) struct HealthCheck(pub(super) Health);

impl Value for HealthCheck {
    const SHAPE: Shape = Shape::Either(&[
        Url::SHAPE,
        Shape::Table(Health::KNOWN, r#"{ "oneOf": [{ "required": ["command"] }, { "required": ["url"] }] }"#),
    ]);

    fn read(node: &Node, problems: &mut Problems) -> Option<HealthCheck> {
        match &node.raw {
            Raw::Text(text) if !text.contains("://") => {
                let what = "is a text that is no URL; use http://HOST/PATH, tcp://HOST:PORT or { command = ... }";
                problems.bad(node, what)
            }
            Raw::Text(text) => {
                // What is wrong with it is told of this key.
                Url::read(node, problems)?;
                let value = Node { at: node.at, raw: Raw::Text(text.clone()) };
                let entry = Entry { name: "url".into(), at: node.at, value };
                Health::read(&Node { at: node.at, raw: Raw::Table(vec![entry]) }, problems).map(HealthCheck)
            }
            Raw::Table(_) => {
                let health = Health::read(node, problems)?;
                match (health.command.at, health.url.at) {
                    (Some(_), Some(_)) => problems.bad(node, "has `command` and `url`; leave one of them out"),
                    (None, None) => problems.bad(node, "has neither `command` nor `url`; give it one of them"),
                    (Some(_), None) | (None, Some(_)) => Some(HealthCheck(health)),
                }
            }
            _ => problems.wrong(node, "a table, such as { command = [\"ray\", \"status\"] }, or a URL"),
        }
    }
}

/// `log`: the table, or `"inherit"`.
#[derive(Debug)]
pub(super) struct Log(pub(super) LogTable);

impl Value for Log {
    const SHAPE: Shape = Shape::Either(&[
        Shape::Schema(r#"{ "const": "inherit" }"#),
        Shape::Table(LogTable::KNOWN, r#"{ "dependentRequired": { "max": ["file"], "keep": ["file"] } }"#),
    ]);

    fn read(node: &Node, problems: &mut Problems) -> Option<Log> {
        let table = match &node.raw {
            Raw::Text(word) if word == "inherit" => {
                LogTable::read(&Node { at: node.at, raw: Raw::Table(Vec::new()) }, problems)
            }
            Raw::Table(_) => LogTable::read(node, problems),
            _ => {
                let expected = "\"inherit\" or a table, such as { file = \"/var/log/ray.log\" }";
                return match &node.raw {
                    Raw::Text(word) => problems.bad(node, &format!("cannot be \"{word}\"; use {expected}")),
                    _ => problems.wrong(node, expected),
                };
            }
        }?;
        // A key without an effect is a mistake.
        for (key, at) in [("max", table.max.at), ("keep", table.keep.at)] {
            if let (Some(at), None) = (at, table.file.at) {
                problems.tell(at, format!("`{key}` is for a `file`, and there is none; give one, or leave it out"));
            }
        }
        Some(Log(table))
    }
}
