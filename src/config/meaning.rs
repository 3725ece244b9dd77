//! From what was read to what is meant: what no single key can tell.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use super::{
    keys::{self, Common, File, HealthCheck},
    table::{Field, instead},
    tree::Problems,
    value::{Item, Named, Piece, Template, Variable},
};
use crate::{
    base::{Name, sort_by},
    core::service::{
        Backoff, Check, Condition, Health, Limits, Log, Ready, Restart, RunConfig, ServiceConfig, ServicesConfig, Sink,
        Stop,
    },
};

/// What a service or mount has to become ready, where somebody waits for it to say so.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// A service or mount.
struct Unit<'a> {
    name: &'a Name,
    /// Where its name stands.
    at: usize,
    what: &'static str,
    common: &'a Common,
    command: Option<&'a Vec<String>>,
    /// Inside, `None` for a service; outside, that it is wrong.
    path: Option<Option<&'a PathBuf>>,
    ready: Option<Ready>,
    ready_at: Option<usize>,
    watchdog: Option<Option<Duration>>,
}

/// Checks what concerns several keys, and puts all together; `None` when something is wrong, and told.
pub(super) fn whole(
    file: &File,
    exports: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<ServicesConfig> {
    let units = units(file, problems);
    for unit in &units.all {
        alone(unit, problems);
        among(unit, &units, problems);
    }
    shared_paths(&units.all, problems);
    cycles(&units, problems);
    let export = file.export.value.as_ref().and_then(|export| filled(export, exports, problems));
    if !problems.found.is_empty() {
        return None;
    }
    Some(ServicesConfig {
        grace: file.grace.value.as_ref()?.map(|time| time.0),
        stop_timeout: file.stop_timeout.value.as_ref()?.map(|time| time.0),
        max_jobs: match file.max_jobs.value.as_ref()? {
            Some(number) => Some(number.to()?),
            None => None,
        },
        export: export?,
        services: units.all.iter().map(service).collect::<Option<_>>()?,
    })
}

/// Services and mounts in the order of the file.
struct Units<'a> {
    all: Vec<Unit<'a>>,
    /// Also those that could not be read: they are there.
    names: BTreeMap<&'a str, Option<usize>>,
}

fn units<'a>(file: &'a File, problems: &mut Problems) -> Units<'a> {
    let mut named = Vec::new();
    for item in items(&file.service) {
        let unit = item.key.as_ref().zip(item.value.as_ref()).map(|(name, service)| Unit {
            name,
            at: item.at,
            what: "service",
            common: &service.common,
            command: service.command.value.as_ref().map(|words| &words.0),
            path: Some(None),
            ready: service.ready.value,
            ready_at: service.ready.at,
            watchdog: service.watchdog.value.map(|time| time.map(|time| time.0)),
        });
        named.push((item.at, "service", item.key.as_ref(), unit));
    }
    for item in items(&file.mount) {
        let unit = item.key.as_ref().zip(item.value.as_ref()).map(|(name, mount)| Unit {
            name,
            at: item.at,
            what: "mount",
            common: &mount.common,
            command: mount.command.value.as_ref().map(|words| &words.0),
            path: mount.path.value.as_ref().map(|path| Some(&path.0)),
            ready: Some(Ready::Mounted),
            ready_at: None,
            watchdog: Some(None),
        });
        named.push((item.at, "mount", item.key.as_ref(), unit));
    }
    sort_by(&mut named, |a, b| a.0.cmp(&b.0));
    let mut units = Units { all: Vec::new(), names: BTreeMap::new() };
    let mut kinds = BTreeMap::new();
    for (at, what, name, unit) in named {
        let Some(name) = name.map(Name::as_str) else { continue };
        if let Some(other) = kinds.insert(name, what) {
            problems.tell(at, format!("the name {name} is a {other}'s already; choose another"));
            continue;
        }
        units.names.insert(name, unit.is_some().then_some(units.all.len()));
        units.all.extend(unit);
    }
    units
}

fn items<K, V>(field: &Field<Named<K, V>>) -> &[Item<K, V>] {
    field.value.as_ref().map_or(&[], |named| &named.0)
}

/// What concerns several keys of one.
fn alone(unit: &Unit, problems: &mut Problems) {
    let Common { backoff, health, .. } = unit.common;
    if let Some(backoff) = &backoff.value
        && let (Some(initial), Some(max)) = (&backoff.initial.value, &backoff.max.value)
        && initial.0 > max.0
    {
        let at = backoff.initial.at.or(backoff.max.at).unwrap_or(unit.at);
        problems.tell(at, "`initial` is longer than `max`; use a shorter one, or a longer `max`".into());
    }
    if let (Some(Ready::Healthy), None) = (unit.ready, health.at) {
        let at = unit.ready_at.unwrap_or(unit.at);
        problems.tell(at, format!("{} is to be ready when healthy, and has no `health`; give it one", unit.name));
    }
}

/// What concerns one and what it comes after.
fn among(unit: &Unit, units: &Units, problems: &mut Problems) {
    for item in items(&unit.common.after) {
        let Some(name) = &item.key else { continue };
        let Some(found) = units.names.get(name.as_str()) else {
            let others: Vec<&str> = units.names.keys().copied().filter(|other| *other != unit.name.as_str()).collect();
            problems.tell(item.at, format!("no service or mount is named {name}: {}", instead(name.as_str(), &others)));
            continue;
        };
        let (Some(other), Some(condition)) = (found.map(|at| &units.all[at]), item.value) else { continue };
        match condition {
            Condition::Started | Condition::Ready => {}
            Condition::Healthy if other.common.health.at.is_none() => {
                problems.tell(item.at, format!("{name} has no `health`; give it one, or wait for \"ready\""));
            }
            Condition::Healthy => {}
            Condition::Succeeded if other.what == "mount" => {
                problems.tell(item.at, format!("the mount {name} does not succeed: it serves; wait for \"ready\""));
            }
            Condition::Succeeded if other.common.restart.value == Some(Restart::Always) => {
                let how = "give it restart = \"on-failure\" or \"never\", or wait for \"ready\"";
                problems.tell(item.at, format!("{name} never succeeds: it is always restarted; {how}"));
            }
            Condition::Succeeded => {}
        }
    }
}

/// A service's log: the file, how many old ones it keeps beside it, and where it stands.
fn log_file<'a>(unit: &Unit<'a>) -> Option<(&'a Path, i64, usize)> {
    let log = &unit.common.log.value.as_ref()?.0;
    let file = log.file.value.as_ref()?.as_ref()?;
    Some((&file.0, log.keep.value.as_ref().map_or(0, |keep| keep.0), log.file.at.unwrap_or(unit.at)))
}

/// Two that would write one file, or mount at one place.
fn shared_paths(units: &[Unit], problems: &mut Problems) {
    let mut files: BTreeMap<&Path, (&Name, i64)> = BTreeMap::new();
    let mut places: BTreeMap<&Path, &Name> = BTreeMap::new();
    for unit in units {
        if let Some((file, keep, at)) = log_file(unit)
            && let Some((other, _)) = files.insert(file, (unit.name, keep))
        {
            problems.tell(at, format!("`file` is {other}'s, too; give each its own"));
        }
        if let Some(Some(path)) = unit.path
            && let Some(other) = places.insert(path, unit.name)
        {
            problems.tell(unit.at, format!("`path` of {} is {other}'s, too; give each its own", unit.name));
        }
    }
    for (file, _, at) in units.iter().filter_map(log_file) {
        // FILE.1 is where another's FILE goes when it is full.
        if let Some((full, number)) = file.to_str().and_then(|file| file.rsplit_once('.'))
            && let Some((other, keep)) = files.get(Path::new(full))
            && (1..=*keep).any(|kept| kept.to_string() == number)
        {
            problems.tell(at, format!("`file` is where {other} keeps its old log; use another name"));
        }
    }
}

/// Every way that comes back to where it was, once. Without recursion: a file may be as long as it likes.
fn cycles(units: &Units, problems: &mut Problems) {
    let edges: Vec<Vec<(usize, usize)>> = units
        .all
        .iter()
        .map(|unit| {
            let to = |item: &Item<Name, Condition>| {
                let found = units.names.get(item.key.as_ref()?.as_str())?;
                found.map(|other| (other, item.at))
            };
            items(&unit.common.after).iter().filter_map(to).collect()
        })
        .collect();
    let mut seen = vec![false; edges.len()];
    let mut on_way = vec![false; edges.len()];
    for start in 0..edges.len() {
        // Each on the way, and which of its edges is next.
        let mut way = Vec::new();
        if !seen[start] {
            (seen[start], on_way[start]) = (true, true);
            way.push((start, 0));
        }
        while let Some((here, next)) = way.last_mut() {
            let Some((to, at)) = edges[*here].get(*next).copied() else {
                on_way[*here] = false;
                way.pop();
                continue;
            };
            *next += 1;
            if on_way[to] {
                let from = way.iter().position(|(on, _)| *on == to).unwrap_or(0);
                let names = way[from..].iter().map(|(on, _)| *on).chain([to]);
                let names: Vec<&str> = names.map(|on| units.all[on].name.as_str()).collect();
                problems.tell(at, format!("a cycle: {}; leave one of these `after` out", names.join(" -> ")));
            } else if !seen[to] {
                (seen[to], on_way[to]) = (true, true);
                way.push((to, 0));
            }
        }
    }
}

fn filled(
    export: &Named<Variable, Template>,
    exports: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<Vec<(String, String)>> {
    let mut all = Vec::with_capacity(export.0.len());
    for item in &export.0 {
        let (Some(variable), Some(template)) = (&item.key, &item.value) else { continue };
        let mut value = String::new();
        for piece in &template.0 {
            match piece {
                Piece::Text(text) => value.push_str(text),
                Piece::Placeholder(name) => match exports(name) {
                    Some(text) => value.push_str(&text),
                    None => problems.tell(item.at, format!("{{{name}}} is not known here; write a value")),
                },
            }
        }
        all.push((variable.0.clone(), value));
    }
    Some(all)
}

/// 0 is for ever, as with `timeout(1)`.
fn bounded(time: Duration) -> Option<Duration> {
    Some(time).filter(|time| !time.is_zero())
}

fn service(unit: &Unit) -> Option<ServiceConfig> {
    let common = unit.common;
    let after = common.after.value.as_ref()?.0.iter();
    let backoff = common.backoff.value.as_ref()?;
    let words = |field: &Field<Option<super::value::Words>>| {
        field.value.as_ref().map(|words| words.as_ref().map(|words| words.0.clone()))
    };
    Some(ServiceConfig {
        name: unit.name.clone(),
        after: after.map(|item| Some((item.key.clone()?, item.value?))).collect::<Option<_>>()?,
        restart: common.restart.value?,
        backoff: Backoff {
            initial: backoff.initial.value?.0,
            max: backoff.max.value?.0,
            factor: backoff.factor.value.as_ref()?.0,
            jitter: backoff.jitter.value.as_ref()?.0,
            reset_after: backoff.reset_after.value?.0,
        },
        retries: common.retries.value.as_ref()?.to()?,
        critical: common.critical.value?,
        on_failure: words(&common.on_failure)?,
        on_restart: words(&common.on_restart)?,
        hook_timeout: bounded(common.hook_timeout.value?.0),
        run: Rc::new(run(unit)?),
    })
}

fn run(unit: &Unit) -> Option<RunConfig> {
    let common = unit.common;
    let ready = unit.ready?;
    let start_timeout = match (common.start_timeout.value?, ready) {
        (Some(time), _) => bounded(time.0),
        (None, Ready::Notify | Ready::Fd | Ready::Mounted) => Some(START_TIMEOUT),
        (None, Ready::Started | Ready::Healthy) => None,
    };
    let health = match common.health.value.as_ref()? {
        Some(check) => Some(health(check)?),
        None => None,
    };
    let stop = common.stop.value.as_ref()?;
    let env = common.env.value.as_ref()?.0.iter();
    Some(RunConfig {
        setup: common.setup.value.as_ref()?.0.iter().map(|words| words.0.clone()).collect(),
        setup_timeout: bounded(common.setup_timeout.value?.0).unwrap_or(Duration::MAX),
        command: unit.command?.clone(),
        mount: unit.path?.cloned(),
        cwd: common.cwd.value.as_ref()?.as_ref().map(|path| path.0.clone()),
        env: env
            .map(|item| Some((item.key.as_ref()?.0.clone(), item.value.as_ref()?.0.clone())))
            .collect::<Option<_>>()?,
        ready,
        start_timeout,
        health,
        watchdog: unit.watchdog?,
        timeout: None,
        stop: Stop { signal: stop.signal.value?, to: stop.to.value?, grace: stop.grace.value?.map(|time| time.0) },
        log: log(&common.log.value.as_ref()?.0)?,
        limits: limits(common)?,
    })
}

fn health(HealthCheck(health): &HealthCheck) -> Option<Health> {
    Some(Health {
        check: match (health.command.value.as_ref()?, health.url.value.as_ref()?) {
            (Some(words), _) => Check::Command(words.0.clone()),
            (None, Some(url)) => url.0.clone(),
            (None, None) => return None,
        },
        every: health.every.value?.0,
        timeout: health.timeout.value?.0,
        retries: health.retries.value.as_ref()?.to()?,
        start_period: health.start_period.value?.0,
    })
}

fn log(log: &keys::LogTable) -> Option<Log> {
    let sink = match log.file.value.as_ref()? {
        Some(file) => {
            Sink::File { path: file.0.clone(), max: log.max.value.as_ref()?.0, keep: log.keep.value.as_ref()?.to()? }
        }
        None => Sink::Inherit,
    };
    Some(Log { sink, format: log.format.value? })
}

fn limits(common: &Common) -> Option<Limits> {
    let limits = common.limits.value.as_ref()?;
    let mut read = Limits {
        core: limits.core.value.as_ref()?.as_ref().map(|bytes| bytes.0),
        address_space: limits.r#as.value.as_ref()?.as_ref().map(|bytes| bytes.0),
        user: common.user.value.as_ref()?.as_ref().map(|user| user.0.clone()),
        group: common.group.value.as_ref()?.as_ref().map(|group| group.0.clone()),
        memory: limits.memory.value.as_ref()?.as_ref().map(|bytes| bytes.0),
        // In bounds, so that it is a number of thousandths.
        cpu_milli: limits.cpus.value.as_ref()?.as_ref().map(|cpus| (cpus.0 * 1000.0).round() as u64),
        ..Limits::default()
    };
    if let Some(number) = limits.nofile.value.as_ref()? {
        read.nofile = Some(number.to()?);
    }
    if let Some(number) = limits.nice.value.as_ref()? {
        read.nice = Some(number.to()?);
    }
    if let Some(number) = limits.oom_score_adj.value.as_ref()? {
        read.oom_score_adj = Some(number.to()?);
    }
    if let Some(number) = limits.pids.value.as_ref()? {
        read.pids = Some(number.to()?);
    }
    Some(read)
}
