use std::time::Duration;

pub(super) use crate::base::duration;
use crate::proto::Limits;

/// The same, not so short that it would be all that happens.
pub(super) fn heartbeat(text: &str) -> Result<Duration, String> {
    let least = Duration::from_millis(100);
    duration(text).and_then(|time| if time < least { Err("use 100ms or more".into()) } else { Ok(time) })
}

/// An exit code.
pub(super) fn exit_code(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| "an exit code is a number from 0 to 255".into())
}

/// A number of jobs.
pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "use a number from 1".into())
}

/// One limit of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Limit {
    Nofile(u64),
    Core(u64),
    As(u64),
    Nice(i32),
    OomScoreAdj(i32),
    Memory(u64),
    CpuMilli(u64),
    Pids(u64),
}

impl Limit {
    pub(super) fn set(self, limits: &mut Limits) {
        match self {
            Limit::Nofile(count) => limits.nofile = Some(count),
            Limit::Core(bytes) => limits.core = Some(bytes),
            Limit::As(bytes) => limits.address_space = Some(bytes),
            Limit::Nice(nice) => limits.nice = Some(nice),
            Limit::OomScoreAdj(score) => limits.oom_score_adj = Some(score),
            Limit::Memory(bytes) => limits.memory = Some(bytes),
            Limit::CpuMilli(milli) => limits.cpu_milli = Some(milli),
            Limit::Pids(count) => limits.pids = Some(count),
        }
    }
}

/// The limits that a job may have.
pub(super) const LIMITS: &str = "nofile, core, as, nice, oom_score_adj, memory, cpus, pids";

/// `NAME=VALUE`, of one of them.
pub(super) fn limit(text: &str) -> Result<Limit, String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("use NAME=VALUE; NAME is one of {LIMITS}"))?;
    let bad = |how: &str| format!("use {name}={how}");
    let unlimited = |read: fn(&str) -> Option<u64>| if value == "unlimited" { Some(u64::MAX) } else { read(value) };
    let number = |text: &str| text.parse().ok();
    let read = match name {
        "nofile" => unlimited(number).map(Limit::Nofile).ok_or("1024 or unlimited"),
        "core" => unlimited(size).map(Limit::Core).ok_or("0, 100M or unlimited"),
        "as" => unlimited(size).map(Limit::As).ok_or("4G or unlimited"),
        "nice" => value.parse().ok().map(Limit::Nice).ok_or("-20 to 19"),
        "oom_score_adj" => value.parse().ok().map(Limit::OomScoreAdj).ok_or("-1000 to 1000"),
        "memory" => size(value).map(Limit::Memory).ok_or("512M, 2G, ..."),
        "cpus" => thousandths(value).map(Limit::CpuMilli).ok_or("0.01 or more, for instance 1.5"),
        "pids" => number(value).map(Limit::Pids).ok_or("100"),
        _ => return Err(format!("there is no limit {name}: use one of {LIMITS}")),
    };
    let limit = read.map_err(bad)?;
    let mut limits = Limits::default();
    limit.set(&mut limits);
    limits.check().map(|()| limit).map_err(|error| error.to_string())
}

/// Bytes, with `K`, `M`, `G` or `T` (also `MiB` or `MB`, in any case) for powers of 1024, as Docker has it.
pub(super) fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = lower.split_at(lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len()));
    let power = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << (10 * power))
}

/// `1.5` is 1500.
fn thousandths(text: &str) -> Option<u64> {
    let number: f64 = text.parse().ok()?;
    (0.0..1e6).contains(&number).then(|| (number * 1000.0).round() as u64).filter(|milli| *milli >= 10)
}

/// Milliseconds, for the wire.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_what_cannot_be_is_told() {
        for (text, limit) in [
            ("nofile=1024", Limit::Nofile(1024)),
            ("nofile=unlimited", Limit::Nofile(u64::MAX)),
            ("core=0", Limit::Core(0)),
            ("as=4G", Limit::As(4 << 30)),
            ("nice=-5", Limit::Nice(-5)),
            ("oom_score_adj=1000", Limit::OomScoreAdj(1000)),
            ("memory=512m", Limit::Memory(512 << 20)),
            ("memory=512 MiB", Limit::Memory(512 << 20)),
            ("memory=1048576", Limit::Memory(1 << 20)),
            ("cpus=1.5", Limit::CpuMilli(1500)),
            ("cpus=.01", Limit::CpuMilli(10)),
            ("pids=100", Limit::Pids(100)),
        ] {
            assert_eq!(super::limit(text), Ok(limit), "{text}");
        }
        for (text, why) in [
            ("nofile", "use NAME=VALUE; NAME is one of nofile"),
            ("stack=1", "there is no limit stack: use one of nofile"),
            ("nofile=many", "use nofile=1024 or unlimited"),
            ("memory=1X", "use memory=512M, 2G, ..."),
            ("memory=0", "memory 0: use 1 or more"),
            ("memory=99999999999T", "use memory=512M"),
            ("cpus=0.001", "use cpus=0.01 or more"),
            ("cpus=NaN", "use cpus=0.01"),
            ("nice=20", "nice 20: use -20 to 19"),
            ("pids=-1", "use pids=100"),
        ] {
            let error = super::limit(text).unwrap_err();
            assert!(error.starts_with(why), "{text}: {error}");
        }
    }
}
