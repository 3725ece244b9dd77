//! `lastout metrics`: services and jobs as OpenMetrics text, for Prometheus.

use std::fmt::Write;

use super::{Outcome, Target, found::Found, jobs::say};
use crate::{
    base::{JobId, Map, Pid},
    inspect::{self, Load},
    proto::{JobState, ServiceInfo, ServiceState, Total},
};

const SERVICE_STATES: [ServiceState; 8] = [
    ServiceState::Stopped,
    ServiceState::Waiting,
    ServiceState::Starting,
    ServiceState::Ready,
    ServiceState::Ending,
    ServiceState::Backoff,
    ServiceState::Succeeded,
    ServiceState::Failed,
];
const JOB_STATES: [JobState; 5] =
    [JobState::Queued, JobState::Starting, JobState::Running, JobState::Ending, JobState::Ended];

/// Writes the metrics. An init that does not answer is a metric, too: `lastout_up 0`.
pub fn metrics(target: &Target) -> Outcome {
    let found = Found::find(target);
    if let Some(problem) = found.problem.as_ref().filter(|_| !found.answers) {
        eprintln!("lastout metrics: {problem}");
    }
    let services = found.services().unwrap_or_default();
    let keepers = keepers(&found);
    let load = |job: JobId| keepers.get(&job).and_then(|keeper| inspect::load_below(*keeper));
    say(write(&found, &services, load).trim_end())?;
    Ok(if found.answers { 0 } else { super::FAILURE })
}

/// The keepers by process ids as they are for us, as far as they can be seen from here.
fn keepers(found: &Found) -> Map<JobId, Pid> {
    let (Some(status), Some(init)) = (&found.status, found.init) else { return Map::new() };
    if inspect::inner_pid(init) == Some(init) {
        return status.keepers.iter().map(|keeper| (keeper.job, keeper.pid)).collect();
    }
    let processes = inspect::below(init).unwrap_or_default();
    let by_inner: Map<Pid, Pid> =
        processes.iter().filter_map(|p| Some((inspect::inner_pid(p.id.pid)?, p.id.pid))).collect();
    status.keepers.iter().filter_map(|keeper| Some((keeper.job, *by_inner.get(&keeper.pid)?))).collect()
}

/// The text, by families: what OpenMetrics 1.0 and Prometheus' older text format (node_exporter's textfile collector) both
/// take. So there are gauges for states (a `stateset` makes the older one refuse all), and counters are named as
/// OpenMetrics wants them: the older one takes these as untyped.
fn write(found: &Found, services: &[ServiceInfo], load: impl Fn(JobId) -> Option<Load>) -> String {
    let mut text = Text::default();
    text.family("lastout_up", "gauge", "Whether the init answers");
    text.sample("lastout_up", "", u64::from(found.answers));
    text.family("lastout_jobs", "gauge", "Jobs by state; of those that have ended, those that are remembered");
    for state in JOB_STATES {
        let count = found.jobs.iter().filter(|job| job.state == state).count();
        text.sample("lastout_jobs", &label("state", state.word()), count);
    }
    let totals = found.status.as_ref().map(|status| status.totals.as_slice()).unwrap_or_default();
    let ended = |total: &Total| {
        let kind = label("kind", if total.service { "service" } else { "job" });
        [kind, label("outcome", &total.outcome)].join(",")
    };
    let seconds = |us: u64| us as f64 / 1e6;
    text.family("lastout_ended", "counter", "Jobs and runs of services that have ended, by outcome");
    for total in totals {
        text.sample("lastout_ended_total", &ended(total), total.count);
    }
    text.family("lastout_ended_seconds", "counter", "Time that they took");
    for total in totals {
        text.sample("lastout_ended_seconds_total", &ended(total), seconds(total.wall_us));
    }
    text.family("lastout_ended_cpu_seconds", "counter", "CPU time of their trees");
    for total in totals {
        text.sample("lastout_ended_cpu_seconds_total", &ended(total), seconds(total.cpu_us));
    }
    text.family("lastout_ended_max_resident_memory_bytes", "gauge", "The largest of their processes");
    for total in totals {
        text.sample("lastout_ended_max_resident_memory_bytes", &ended(total), total.max_rss_bytes);
    }
    text.family("lastout_service_state", "gauge", "Where a service is in its life: 1 for the state that it is in");
    for service in services {
        for state in SERVICE_STATES {
            let labels = [named(service), label("state", state.word())].join(",");
            text.sample("lastout_service_state", &labels, u8::from(service.state == state));
        }
    }
    text.family("lastout_service_state_seconds", "gauge", "Time in this state");
    for service in services {
        text.sample("lastout_service_state_seconds", &named(service), service.for_ms as f64 / 1000.0);
    }
    text.family("lastout_service_healthy", "gauge", "What the health checks of a service say");
    for service in services {
        if let Some(healthy) = service.healthy {
            text.sample("lastout_service_healthy", &named(service), u8::from(healthy));
        }
    }
    text.family("lastout_service_restarts", "counter", "How often a service was started again");
    for service in services {
        text.sample("lastout_service_restarts_total", &named(service), service.restarts);
    }
    text.family("lastout_service_failures", "gauge", "Failures of a service in a row");
    for service in services {
        text.sample("lastout_service_failures", &named(service), service.failures);
    }
    text.family("lastout_service_log_dropped_lines", "counter", "Lines of a service's log that nobody took");
    for service in services {
        text.sample("lastout_service_log_dropped_lines_total", &named(service), service.dropped);
    }
    let running = |job: &&crate::proto::JobInfo| !matches!(job.state, JobState::Queued | JobState::Ended);
    let jobs: Vec<_> = found.jobs.iter().filter(running).collect();
    text.family("lastout_job_seconds", "gauge", "Time of an active job, or run of a service, in its state");
    for job in &jobs {
        text.sample("lastout_job_seconds", &labels(job), job.for_ms as f64 / 1000.0);
    }
    let loads: Vec<_> = jobs.iter().filter_map(|job| Some((labels(job), load(job.job)?))).collect();
    text.family(
        "lastout_job_cpu_seconds",
        "gauge",
        "CPU time of an active job's live processes and those they waited for",
    );
    for (labels, load) in &loads {
        text.sample("lastout_job_cpu_seconds", labels, load.cpu.as_secs_f64());
    }
    text.family("lastout_job_resident_memory_bytes", "gauge", "Resident memory of an active job's processes");
    for (labels, load) in &loads {
        text.sample("lastout_job_resident_memory_bytes", labels, load.rss_bytes);
    }
    text.family("lastout_job_processes", "gauge", "Processes of an active job");
    for (labels, load) in &loads {
        text.sample("lastout_job_processes", labels, load.processes);
    }
    text.0.push_str("# EOF\n");
    text.0
}

fn named(service: &ServiceInfo) -> String {
    label("service", service.service.as_str())
}

fn labels(job: &crate::proto::JobInfo) -> String {
    let name = job.name.as_ref().map(|name| label("name", name.as_str()));
    [label("job", &job.job.to_string())].into_iter().chain(name).collect::<Vec<_>>().join(",")
}

/// Names and words have nothing that would have to be escaped.
fn label(key: &str, value: &str) -> String {
    format!("{key}=\"{value}\"")
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // A `String` takes everything.
        let _ = writeln!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Status;

    #[test]
    fn the_text_has_every_family_once_and_ends() {
        let service = ServiceInfo {
            service: "ray".parse().unwrap(),
            mount: false,
            state: ServiceState::Ready,
            for_ms: 1500,
            job: Some(JobId(1)),
            restarts: 3,
            failures: 1,
            healthy: Some(true),
            status: None,
            next_ms: None,
            waits_for: Vec::new(),
            log: None,
            dropped: 7,
            exit: None,
            cause: None,
        };
        let mut found = Found::default();
        found.answers = true;
        let total = Total {
            service: false,
            outcome: "timeout".into(),
            count: 2,
            wall_us: 2_500_000,
            cpu_us: 1_250_000,
            max_rss_bytes: 4096,
        };
        found.status = Some(Status {
            pid: Pid::INIT,
            main: None,
            phase: "running".into(),
            keepers: Vec::new(),
            helpers: Vec::new(),
            totals: vec![total],
        });
        let text = write(&found, &[service], |_| None);
        assert!(text.ends_with("# EOF\n"));
        for line in [
            "lastout_up 1",
            "lastout_jobs{state=\"running\"} 0",
            "lastout_service_state{service=\"ray\",state=\"ready\"} 1",
            "lastout_service_state{service=\"ray\",state=\"failed\"} 0",
            "lastout_service_state_seconds{service=\"ray\"} 1.5",
            "lastout_service_restarts_total{service=\"ray\"} 3",
            "lastout_service_log_dropped_lines_total{service=\"ray\"} 7",
            "lastout_service_healthy{service=\"ray\"} 1",
            "lastout_ended_total{kind=\"job\",outcome=\"timeout\"} 2",
            "lastout_ended_seconds_total{kind=\"job\",outcome=\"timeout\"} 2.5",
            "lastout_ended_cpu_seconds_total{kind=\"job\",outcome=\"timeout\"} 1.25",
            "lastout_ended_max_resident_memory_bytes{kind=\"job\",outcome=\"timeout\"} 4096",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let mut once = types.clone();
        once.dedup();
        assert_eq!(types, once);
    }
}
