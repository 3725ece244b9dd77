use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::{
    base::{Errno, ExecFailure, Pgid, ProcId, Process, Signal},
    core::{
        Job, JobConfig, JobEvent,
        service::{Health, Stop, StopTo},
    },
    proto::Order,
};

const ME: Pid = Pid::INIT;
/// The command's process id; tasks have those from 100 on.
const COMMAND: i32 = 10;

fn pid(raw: i32) -> Pid {
    Pid::new(raw).unwrap()
}

fn at(ms: u64) -> Tick {
    Tick(ms * 1000)
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(String::from).collect()
}

fn config() -> RunConfig {
    let stop = Stop { signal: Signal::INT, to: StopTo::Tree, grace: Some(s(5)) };
    RunConfig { setup_timeout: s(60), stop, ..RunConfig::new(words("serve")) }
}

fn health() -> Option<Health> {
    let check = Check::Command(words("check"));
    Some(Health { check, every: s(30), timeout: s(10), retries: 2, start_period: s(0) })
}

fn mount() -> RunConfig {
    RunConfig { mount: Some(PathBuf::from("/mnt")), ready: Ready::Mounted, ..config() }
}

fn process(raw: i32, group: i32) -> Process {
    let id = ProcId { pid: pid(raw), start: 1 };
    Process { id, parent: Some(ME), group, state: 'S', threads: 1, comm: "x".into(), lingers: false, forked: false }
}

/// A run whose forks succeed at once.
struct Bench {
    job: Job,
    now: u64,
    /// Since the last look.
    orders: Vec<JobAction>,
    tasks: Vec<(Task, Pid)>,
}

impl Bench {
    fn new(run: RunConfig) -> Bench {
        let grace = run.stop.grace;
        let job = JobConfig {
            timeout: None,
            grace,
            default_grace: s(7),
            bound_to_client: false,
            heartbeat: None,
            own_group: None,
        };
        let mut bench =
            Bench { job: Job::service(job, ME, Rc::new(run)), now: 0, orders: Vec::new(), tasks: Vec::new() };
        bench.step(JobEvent::Begin);
        bench
    }

    /// The same with its command executed.
    fn running(run: RunConfig) -> Bench {
        let mut bench = Bench::new(run);
        bench.step(JobEvent::Executed);
        bench
    }

    fn step(&mut self, event: JobEvent) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let before = self.orders.len();
            self.job.step(at(self.now), event, &mut self.orders);
            for order in &self.orders[before..] {
                match order {
                    JobAction::Fork(task) => {
                        let forked = pid(100 + self.tasks.len() as i32);
                        self.tasks.push((*task, forked));
                        events.push_back(JobEvent::TaskForked(*task, forked));
                    }
                    JobAction::ForkCommand => events.push_back(JobEvent::Forked(pid(COMMAND))),
                    _ => {}
                }
            }
        }
    }

    /// Lets time pass, with every deadline on the way.
    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(deadline) = self.job.deadline().filter(|deadline| *deadline <= at(end)) {
            self.now = self.now.max(deadline.0.div_ceil(1000));
            let looks = self.orders.iter().filter(|order| **order == JobAction::Look).count();
            self.step(JobEvent::Tick);
            if self.orders.iter().filter(|order| **order == JobAction::Look).count() > looks {
                self.step(JobEvent::Looked(vec![process(COMMAND, COMMAND)]));
            }
        }
        self.now = end;
    }

    fn last(&self) -> (Task, Pid) {
        *self.tasks.last().expect("a task")
    }

    /// The latest task ends.
    fn ends(&mut self, code: u8) {
        let (_, pid) = self.last();
        self.step(JobEvent::Reaped(pid, Exit::Code(code)));
    }

    /// The command ends, and nothing is left.
    fn command_ends(&mut self) {
        self.step(JobEvent::Reaped(pid(COMMAND), Exit::Code(0)));
        self.step(JobEvent::Alone);
    }

    fn stop(&mut self) {
        let cause = Cause::Stopped { by: None };
        self.step(JobEvent::Order(Order::Stop { cause, grace_ms: 7000, asked: false }));
    }

    fn said(&mut self, text: &str) {
        let (task, _) = self.last();
        self.step(JobEvent::Said(task, text.into()));
    }

    /// What was ordered since the last time.
    fn take(&mut self) -> Vec<JobAction> {
        std::mem::take(&mut self.orders)
    }

    fn told(&mut self) -> Vec<Notice> {
        let told = self.take().into_iter().filter_map(|order| match order {
            JobAction::Tell(notice) => Some(notice),
            _ => None,
        });
        told.collect()
    }

    fn finished(&self) -> Option<(Option<Exit>, Cause)> {
        self.orders.iter().find_map(|order| match order {
            JobAction::Finish { exit, cause } => Some((*exit, cause.clone())),
            _ => None,
        })
    }

    fn cause(&self) -> Option<Cause> {
        self.finished().map(|(_, cause)| cause)
    }
}

#[test]
fn setup_runs_in_order_and_then_the_command() {
    let mut bench = Bench::new(RunConfig { setup: vec![words("a"), words("b")], ..config() });
    let first = [JobAction::Fork(Task::Setup(0)), JobAction::Tell(Notice::Setup(1))];
    assert_eq!((bench.take(), bench.job.deadline()), (first.to_vec(), Some(at(60_000))));
    bench.now = 59_000;
    bench.ends(0);
    let second = [JobAction::Fork(Task::Setup(1)), JobAction::Tell(Notice::Setup(2))];
    assert_eq!((bench.take(), bench.job.deadline()), (second.to_vec(), Some(at(119_000))));
    // Of a moment before the fork.
    bench.step(JobEvent::Alone);
    bench.ends(0);
    assert_eq!(bench.take(), [JobAction::ForkCommand]);
    bench.step(JobEvent::Alone);
    bench.step(JobEvent::Executed);
    assert_eq!(bench.take(), [JobAction::TellStarted(pid(COMMAND)), JobAction::Tell(Notice::Ready)]);
    assert_eq!(bench.job.deadline(), None);
    bench.command_ends();
    assert_eq!(bench.finished(), Some((Some(Exit::Code(0)), Cause::Exited)));
}

#[test]
fn the_first_step_that_fails_ends_the_run_with_what_it_said() {
    let setup = vec![words("mkdir x"), words("/bin/sh -c exit"), words("c")];
    let failed = |command: &str, exit, output: &str| {
        Some((None, Cause::SetupFailed { command: command.into(), exit, output: output.into() }))
    };
    let mut bench = Bench::new(RunConfig { setup: setup.clone(), ..config() });
    bench.said("cannot\x07 make\n");
    bench.ends(3);
    assert_eq!(bench.finished(), None, "what it left is ended first");
    bench.step(JobEvent::Alone);
    assert_eq!(bench.finished(), failed("mkdir x", Some(Exit::Code(3)), "cannot  make"));
    // By its time; the output of the step before is not its own.
    let mut bench = Bench::new(RunConfig { setup, ..config() });
    bench.said("made");
    bench.ends(0);
    bench.said("waiting");
    bench.pass(59_999);
    assert!(!bench.orders.contains(&JobAction::Look));
    bench.pass(1);
    assert!(bench.orders.contains(&JobAction::Look));
    bench.step(JobEvent::Alone);
    assert_eq!(bench.finished(), None, "it has not been reaped");
    bench.ends(0);
    bench.step(JobEvent::Alone);
    assert_eq!(bench.finished(), failed("exit", None, "waiting"));
    assert!(!bench.take().contains(&JobAction::ForkCommand));
}

#[test]
fn a_step_that_cannot_be_forked_is_a_refusal() {
    let run = RunConfig { setup: vec![words("a")], ..config() };
    let job = JobConfig {
        timeout: None,
        grace: None,
        default_grace: s(7),
        bound_to_client: false,
        heartbeat: None,
        own_group: None,
    };
    let (mut job, mut orders) = (Job::service(job, ME, Rc::new(run)), Vec::new());
    job.step(at(0), JobEvent::Begin, &mut orders);
    job.step(at(0), JobEvent::TaskNotForked(Task::Setup(0), "cannot fork".into()), &mut orders);
    job.step(at(0), JobEvent::Tick, &mut orders);
    assert!(orders.contains(&JobAction::Look), "it finds nobody, and that nobody is left");
    job.step(at(0), JobEvent::Alone, &mut orders);
    let refused = Cause::Refused { reason: "cannot fork".into() };
    assert!(orders.contains(&JobAction::Finish { exit: None, cause: refused }));
}

#[test]
fn a_command_that_cannot_be_executed_or_forked_ends_the_run() {
    let failure = ExecFailure { what: "execute x".into(), errno: Errno::ENOENT, interpreter: None };
    let mut bench = Bench::new(config());
    bench.step(JobEvent::NotExecuted(failure.clone()));
    bench.command_ends();
    assert_eq!(bench.finished(), Some((Some(Exit::Code(127)), Cause::ExecFailed(failure))));
}

#[test]
fn what_makes_it_ready_counts_once_and_nothing_else_does() {
    let newline = || JobEvent::Newline;
    let note = || JobEvent::Noted(Note::Ready);
    let mounted = || JobEvent::Mounted(Some("0:52".into()));
    for (ready, events, count) in [
        (Ready::Started, vec![note(), newline()], 1),
        (Ready::Notify, vec![newline(), mounted()], 0),
        (Ready::Notify, vec![note(), note()], 1),
        (Ready::Fd, vec![note(), mounted()], 0),
        (Ready::Fd, vec![newline(), newline()], 1),
        (Ready::Mounted, vec![note(), mounted()], 1),
        (Ready::Healthy, vec![note(), newline(), mounted()], 0),
    ] {
        let mut bench = Bench::running(RunConfig { ready, start_timeout: Some(s(9)), ..config() });
        events.into_iter().for_each(|event| bench.step(event));
        assert_eq!(bench.job.deadline(), (count == 0).then_some(at(9000)), "{ready:?}");
        assert_eq!(bench.told().iter().filter(|told| **told == Notice::Ready).count(), count, "{ready:?}");
    }
}

#[test]
fn what_is_not_ready_in_time_is_ended_as_configured() {
    let mut bench = Bench::running(RunConfig { ready: Ready::Notify, start_timeout: Some(s(9)), ..config() });
    bench.pass(5000);
    bench.step(JobEvent::Noted(Note::Extend(s(6))));
    bench.pass(5999);
    assert!(!bench.take().contains(&JobAction::TellEnding));
    bench.pass(1);
    let int = JobAction::Signal(pid(COMMAND), Signal::INT);
    assert_eq!(bench.take(), [JobAction::Look, JobAction::TellEnding, int]);
    bench.pass(5000);
    assert!(bench.take().contains(&JobAction::SignalGroup(Pgid::led_by(pid(COMMAND)).unwrap(), Signal::KILL)));
    bench.command_ends();
    assert_eq!(bench.cause(), Some(Cause::NotReady));
}

#[test]
fn health_is_told_when_it_changes_and_its_loss_ends_the_run() {
    let mut bench = Bench::running(RunConfig { ready: Ready::Healthy, health: health(), ..config() });
    bench.pass(0);
    assert_eq!((bench.last().0, bench.told()), (Task::Check, vec![]));
    bench.ends(0);
    assert_eq!(bench.told(), [Notice::Healthy(true), Notice::Ready]);
    bench.pass(30_000);
    bench.ends(1);
    assert_eq!((bench.tasks.len(), bench.told()), (2, vec![]));
    bench.pass(30_000);
    bench.said("warming up\nno answer\n");
    bench.ends(2);
    assert_eq!(bench.told(), [Notice::Healthy(false)]);
    bench.pass(0);
    bench.command_ends();
    assert_eq!(bench.cause(), Some(Cause::Unhealthy { why: "no answer (exit code 2)".into() }));
}

#[test]
fn what_a_built_in_check_says_is_the_reason() {
    let check = Check::Tcp { host: "x".into(), port: 1 };
    let mut bench =
        Bench::running(RunConfig { health: health().map(|h| Health { check, retries: 1, ..h }), ..config() });
    bench.pass(0);
    bench.said("cannot connect");
    bench.ends(1);
    bench.pass(0);
    bench.command_ends();
    assert_eq!(bench.cause(), Some(Cause::Unhealthy { why: "cannot connect".into() }));
}

#[test]
fn a_check_is_ended_with_its_tree_when_it_hangs_and_when_it_has_ended() {
    let mut bench = Bench::running(RunConfig { health: health(), ..config() });
    bench.pass(9999);
    bench.take();
    bench.pass(1);
    let (_, check) = bench.last();
    assert_eq!(bench.take(), [JobAction::EndTask(check)]);
    bench.step(JobEvent::Reaped(check, Exit::Signal(Signal::KILL)));
    assert_eq!(bench.take(), [JobAction::EndTask(check)]);
    assert_eq!(bench.job.deadline(), Some(at(40_000)));
}

#[test]
fn a_stop_ends_a_check_at_once_and_waits_for_it() {
    let mut bench = Bench::running(RunConfig { health: health(), ..config() });
    bench.pass(1);
    let (_, check) = bench.last();
    bench.take();
    bench.stop();
    assert_eq!(bench.take(), [JobAction::EndTask(check)]);
    bench.command_ends();
    assert_eq!(bench.finished(), None, "of a moment before the check was reaped");
    bench.ends(0);
    bench.step(JobEvent::Alone);
    assert_eq!(bench.cause(), Some(Cause::Stopped { by: None }));
    assert!(bench.told().is_empty(), "its answer does not count any more");
}

#[test]
fn a_check_whose_fork_is_told_after_the_stop_is_ended_then() {
    let run = RunConfig { health: health(), ..config() };
    let job = JobConfig {
        timeout: None,
        grace: None,
        default_grace: s(7),
        bound_to_client: false,
        heartbeat: None,
        own_group: None,
    };
    let (mut job, mut orders) = (Job::service(job, ME, Rc::new(run)), Vec::new());
    for event in [JobEvent::Begin, JobEvent::Forked(pid(COMMAND)), JobEvent::Executed, JobEvent::Tick] {
        job.step(at(0), event, &mut orders);
    }
    assert!(orders.contains(&JobAction::Fork(Task::Check)));
    job.step(at(0), JobEvent::Reaped(pid(COMMAND), Exit::Code(0)), &mut orders);
    job.step(at(0), JobEvent::Alone, &mut orders);
    assert!(!job.has_ended());
    job.step(at(0), JobEvent::TaskForked(Task::Check, pid(100)), &mut orders);
    assert_eq!(orders.pop(), Some(JobAction::EndTask(pid(100))));
    job.step(at(1), JobEvent::Reaped(pid(100), Exit::Signal(Signal::KILL)), &mut orders);
    job.step(at(1), JobEvent::Alone, &mut orders);
    assert!(job.has_ended());
}

#[test]
fn a_stop_during_setup_and_during_start_ends_the_run_like_any_other() {
    let run = RunConfig { setup: vec![words("a"), words("b")], ready: Ready::Notify, ..config() };
    let mut bench = Bench::new(run.clone());
    bench.stop();
    bench.ends(0);
    bench.step(JobEvent::Alone);
    assert_eq!(bench.finished(), Some((None, Cause::Stopped { by: None })), "no step after it");
    let mut bench = Bench::new(RunConfig { setup: Vec::new(), ..run });
    bench.stop();
    bench.step(JobEvent::Executed);
    bench.step(JobEvent::Noted(Note::Ready));
    bench.command_ends();
    assert_eq!(bench.cause(), Some(Cause::Stopped { by: None }));
    assert!(bench.told().is_empty());
}

#[test]
fn a_stop_asks_the_command_in_its_way_and_the_rest_with_sigterm() {
    let mut bench = Bench::running(config());
    bench.take();
    bench.stop();
    bench.step(JobEvent::Looked(vec![process(COMMAND, COMMAND), process(11, COMMAND), process(12, 12)]));
    let signal = |raw: i32, signal| JobAction::Signal(pid(raw), signal);
    let (int, term) = (Signal::INT, Signal::TERM);
    assert_eq!(bench.take(), [JobAction::TellEnding, signal(10, int), signal(11, int), signal(12, term)]);
    assert_eq!(bench.job.deadline(), Some(at(5000)), "its own grace, not the order's");
    // While it stops it may ask for more, not once it is being killed.
    bench.now = 4000;
    bench.step(JobEvent::Noted(Note::Extend(s(3))));
    assert_eq!(bench.job.deadline(), Some(at(7000)));
    bench.step(JobEvent::Noted(Note::Extend(s(1))));
    assert_eq!(bench.job.deadline(), Some(at(7000)));
    bench.pass(3000);
    bench.take();
    bench.step(JobEvent::Noted(Note::Extend(s(60))));
    assert!(bench.job.deadline().is_some_and(|deadline| deadline < at(9000)));
}

#[test]
fn what_says_that_it_stops_is_asked_no_more_and_has_its_grace() {
    let watchdog = Some(s(3));
    let mut bench = Bench::running(RunConfig { watchdog, health: health(), ..config() });
    bench.pass(0);
    let (_, check) = bench.last();
    bench.take();
    bench.step(JobEvent::Noted(Note::Stopping));
    assert_eq!(bench.take(), [JobAction::EndTask(check)]);
    bench.ends(1);
    assert_eq!(bench.job.deadline(), Some(at(5000)));
    bench.step(JobEvent::Noted(Note::Extend(s(60))));
    bench.pass(59_999);
    bench.take();
    bench.pass(1);
    assert!(bench.take().contains(&JobAction::TellEnding));
    bench.command_ends();
    assert_eq!(bench.cause(), Some(Cause::NotStopped));
}

#[test]
fn a_watchdog_bites_when_it_is_late_or_triggered() {
    for late in [true, false] {
        let mut bench = Bench::running(RunConfig { watchdog: Some(s(3)), ..config() });
        bench.pass(2000);
        bench.step(JobEvent::Noted(Note::Alive));
        bench.pass(2999);
        bench.take();
        if late {
            bench.pass(1)
        } else {
            bench.step(JobEvent::Noted(Note::Trigger))
        }
        bench.pass(0);
        assert!(bench.take().contains(&JobAction::TellEnding), "{late}");
        bench.command_ends();
        assert_eq!(bench.cause(), Some(if late { Cause::Watchdog } else { Cause::WatchdogTriggered }));
    }
}

#[test]
fn a_status_is_told_while_it_ends() {
    let mut bench = Bench::running(config());
    let status = |text: &str| JobEvent::Noted(Note::Status(text.into()));
    bench.step(status("serving"));
    bench.stop();
    bench.pass(0);
    bench.take();
    bench.step(status("draining 9"));
    bench.step(status("draining 8"));
    assert_eq!(bench.take(), []);
    bench.pass(1000);
    assert_eq!(bench.take(), [JobAction::Tell(Notice::Status("draining 8".into()))]);
    bench.command_ends();
    assert!(bench.job.has_ended());
}

#[test]
fn a_status_is_told_once_a_second_and_the_last_one_always() {
    let mut bench = Bench::running(config());
    bench.told();
    for round in 0..10 {
        bench.step(JobEvent::Noted(Note::Status(round.to_string())));
        bench.pass(10);
    }
    bench.pass(5000);
    assert_eq!(bench.told(), [Notice::Status("0".into()), Notice::Status("9".into())]);
    assert_eq!(bench.job.deadline(), None);
}

#[test]
fn what_cannot_be_mounted_on_refuses_the_run() {
    for (ends, reason) in [
        (Some(("already mounted", 1)), "already mounted"),
        (Some(("", 1)), "cannot tell whether /mnt can be mounted on: exit code 1"),
        (None, "cannot mount on /mnt: it does not answer"),
    ] {
        let mut bench = Bench::new(RunConfig { setup: vec![words("a")], ..mount() });
        assert_eq!(bench.last().0, Task::Prepare);
        match ends {
            Some((said, code)) => {
                bench.said(said);
                bench.ends(code);
            }
            None => {
                bench.pass(60_000);
                bench.ends(0);
            }
        }
        bench.step(JobEvent::Alone);
        assert_eq!(bench.finished(), Some((None, Cause::Refused { reason: reason.into() })));
    }
}

#[test]
fn a_setup_may_make_the_path_that_is_mounted_on() {
    for (last, goes_on) in [(0, true), (2, false)] {
        let mut bench = Bench::new(RunConfig { setup: vec![words("mkdir")], ..mount() });
        bench.said("no such file");
        bench.ends(2);
        assert_eq!(bench.last().0, Task::Setup(0));
        bench.ends(0);
        assert_eq!(bench.last().0, Task::Prepare);
        bench.said("no such file");
        bench.ends(last);
        if !goes_on {
            bench.step(JobEvent::Alone);
        }
        let reason = "no such file".into();
        assert_eq!(bench.finished(), (!goes_on).then_some((None, Cause::Refused { reason })));
    }
}

/// A mount that is ready.
fn mounted() -> Bench {
    let mut bench = Bench::new(mount());
    bench.ends(0);
    bench.step(JobEvent::Executed);
    bench.step(JobEvent::Mounted(Some("0:52".into())));
    assert_eq!(bench.told(), [Notice::Mounted("0:52".into()), Notice::Ready]);
    bench
}

#[test]
fn what_somebody_else_unmounts_has_ended_and_its_daemon_has_its_grace() {
    let mut bench = mounted();
    bench.take();
    bench.step(JobEvent::Mounted(None));
    assert_eq!(bench.take(), [JobAction::TellEnding], "its users end now");
    bench.pass(4999);
    assert_eq!(bench.take(), [], "it flushes");
    bench.pass(1);
    assert!(bench.take().contains(&JobAction::Signal(pid(COMMAND), Signal::INT)));
    bench.command_ends();
    assert_eq!(bench.cause(), Some(Cause::Unmounted));
}

#[test]
fn a_daemon_that_does_not_answer_ends_after_its_grace_and_with_it_who_unmounts() {
    let mut bench = mounted();
    bench.stop();
    let (_, unmounts) = bench.last();
    bench.take();
    bench.pass(4999);
    assert_eq!(bench.take(), []);
    bench.pass(1);
    assert!(bench.take().contains(&JobAction::Signal(pid(COMMAND), Signal::INT)));
    // Who unmounts is not among those that are left.
    for ms in [5000, 2000] {
        bench.now += ms;
        bench.take();
        bench.step(JobEvent::Tick);
        bench.step(JobEvent::Looked(vec![process(COMMAND, COMMAND), process(unmounts.get(), unmounts.get())]));
    }
    let stuck = |order: &JobAction| match order {
        JobAction::TellStuck(left) => Some(left.iter().map(|left| left.pid.get()).collect::<Vec<_>>()),
        _ => None,
    };
    assert_eq!(bench.take().iter().find_map(stuck), Some(vec![COMMAND]));
    bench.step(JobEvent::Mounted(None));
    bench.ends(0);
    bench.command_ends();
    assert_eq!(bench.cause(), Some(Cause::Stopped { by: None }));
}

#[test]
fn a_mount_is_unmounted_and_its_daemon_ends_by_itself() {
    let mut bench = mounted();
    bench.stop();
    assert_eq!(bench.take(), [JobAction::TellEnding, JobAction::Fork(Task::Unmount)]);
    bench.pass(1000);
    bench.step(JobEvent::Mounted(None));
    bench.ends(0);
    bench.pass(4000);
    assert_eq!(bench.take(), [], "it flushes");
    bench.command_ends();
    assert_eq!(bench.cause(), Some(Cause::Stopped { by: None }));
    assert!(!bench.take().contains(&JobAction::Fork(Task::Detach)));
}

#[test]
fn a_mount_that_is_held_is_detached_and_a_daemon_that_does_not_end_is_asked_then_forced() {
    let mut bench = mounted();
    bench.stop();
    bench.ends(BUSY);
    assert!(bench.take().contains(&JobAction::NameHolders { lazily: false }));
    for _ in 0..49 {
        bench.pass(100);
        assert_eq!(bench.take(), [JobAction::Fork(Task::Unmount)]);
        bench.ends(BUSY);
    }
    bench.pass(100);
    assert_eq!(bench.take(), [JobAction::NameHolders { lazily: true }, JobAction::Fork(Task::Detach)]);
    bench.step(JobEvent::Mounted(None));
    bench.ends(0);
    bench.pass(4999);
    assert_eq!(bench.take(), []);
    bench.pass(1);
    assert!(bench.take().contains(&JobAction::Signal(pid(COMMAND), Signal::INT)));
    bench.pass(5000);
    assert!(bench.take().contains(&JobAction::SignalGroup(Pgid::led_by(pid(COMMAND)).unwrap(), Signal::KILL)));
    bench.command_ends();
    assert_eq!(bench.cause(), Some(Cause::Stopped { by: None }));
}

#[test]
fn a_mount_that_is_over_by_itself_is_left_until_its_users_have_ended() {
    for dies in [true, false] {
        let mut bench = mounted();
        bench.step(JobEvent::Noted(Note::Watchdog(s(1))));
        bench.take();
        match dies {
            true => bench.step(JobEvent::Reaped(pid(COMMAND), Exit::Signal(Signal::KILL))),
            false => bench.step(JobEvent::Noted(Note::Trigger)),
        }
        bench.step(JobEvent::Alone);
        bench.pass(100_000);
        assert_eq!((bench.take(), bench.job.deadline()), (vec![JobAction::TellEnding], None), "{dies}");
        bench.stop();
        assert_eq!(bench.take(), [JobAction::Fork(Task::Unmount)]);
        bench.ends(BUSY);
        assert_eq!(bench.take(), [JobAction::NameHolders { lazily: false }]);
        bench.pass(100);
        bench.step(JobEvent::Mounted(None));
        bench.ends(0);
        let cause = match dies {
            true => {
                bench.step(JobEvent::Alone);
                Cause::Unknown
            }
            // It has its time to write back what it holds.
            false => {
                bench.pass(4000);
                assert_eq!(bench.take(), [JobAction::Fork(Task::Unmount)]);
                bench.command_ends();
                Cause::WatchdogTriggered
            }
        };
        assert_eq!(bench.cause(), Some(cause));
        assert_eq!(bench.job.deadline(), None);
    }
}

#[test]
fn a_mount_that_is_over_and_that_somebody_else_unmounts_is_over_at_once() {
    let mut bench = mounted();
    bench.step(JobEvent::Reaped(pid(COMMAND), Exit::Code(3)));
    bench.step(JobEvent::Alone);
    bench.take();
    bench.step(JobEvent::Mounted(None));
    bench.step(JobEvent::Tick);
    assert_eq!(bench.take(), [JobAction::Look], "what its daemon has left ends now");
    bench.step(JobEvent::Alone);
    assert_eq!(bench.cause(), Some(Cause::Exited));
}

#[test]
fn a_daemon_that_dies_leaves_no_mount() {
    // While it is unmounted, and before.
    for early in [false, true] {
        let mut bench = mounted();
        if early {
            bench.step(JobEvent::Reaped(pid(COMMAND), Exit::Signal(Signal::KILL)));
        }
        bench.stop();
        bench.ends(BUSY);
        if early {
            bench.pass(4999);
            bench.ends(BUSY);
            bench.pass(1);
        } else {
            bench.step(JobEvent::Reaped(pid(COMMAND), Exit::Signal(Signal::KILL)));
        }
        bench.take();
        bench.step(JobEvent::Alone);
        assert_eq!(bench.take(), [JobAction::NameHolders { lazily: true }, JobAction::Fork(Task::Detach)]);
        bench.step(JobEvent::Alone);
        bench.ends(0);
        let cause = if early { Cause::Unknown } else { Cause::Stopped { by: None } };
        assert_eq!(bench.cause(), Some(cause));
        assert_eq!(bench.job.deadline(), None);
    }
    // One that cannot even be detached is not waited for.
    let mut bench = mounted();
    bench.stop();
    bench.ends(BUSY);
    bench.command_ends();
    bench.pass(1999);
    assert_eq!(bench.finished(), None);
    bench.pass(1);
    assert_eq!(bench.cause(), Some(Cause::Stopped { by: None }));
}

#[test]
fn every_task_and_state_is_left_when_the_init_dies() {
    let mut bench = mounted();
    bench.step(JobEvent::InitGone);
    bench.ends(0);
    bench.command_ends();
    bench.ends(0);
    assert_eq!(bench.cause(), Some(Cause::InitGone));
}

fn any_run() -> impl Strategy<Value = RunConfig> {
    let ready = prop_oneof![Just(Ready::Started), Just(Ready::Notify), Just(Ready::Fd), Just(Ready::Healthy)];
    (0usize..3, ready, any::<[bool; 4]>()).prop_map(|(setup, ready, [checked, watched, mounted, limited])| RunConfig {
        setup: vec![words("a"); setup],
        ready,
        health: checked.then(health).flatten(),
        watchdog: watched.then(|| s(3)),
        mount: mounted.then(|| PathBuf::from("/mnt")),
        start_timeout: limited.then(|| s(9)),
        ..config()
    })
}

fn any_event() -> impl Strategy<Value = JobEvent> {
    let note = prop_oneof![
        Just(Note::Ready),
        Just(Note::Stopping),
        Just(Note::Alive),
        Just(Note::Trigger),
        (0u64..9).prop_map(|time| Note::Extend(s(time))),
        (0u64..9).prop_map(|time| Note::Watchdog(s(time))),
        Just(Note::Status("x".into())),
    ];
    prop_oneof![
        3 => note.prop_map(JobEvent::Noted),
        1 => Just(JobEvent::Executed),
        1 => Just(JobEvent::Newline),
        2 => any::<bool>().prop_map(|there| JobEvent::Mounted(there.then(|| "0:52".into()))),
        1 => Just(JobEvent::Alone),
        1 => Just(JobEvent::InitGone),
        6 => (100..108i32, 0u8..3).prop_map(|(raw, code)| JobEvent::Reaped(pid(raw), Exit::Code(code * 8))),
        1 => Just(JobEvent::Order(Order::Stop { cause: Cause::Stopped { by: None }, grace_ms: 3000, asked: false })),
    ]
}

proptest! {
    #[test]
    fn every_sequence_ends_once_all_are_reaped(
        run in any_run(),
        events in proptest::collection::vec((any_event(), 0u64..9000), 0..60),
    ) {
        let mut bench = Bench::new(run);
        let mut reaped = Vec::new();
        for (event, later) in events {
            match &event {
                // Nobody is reaped who is not there, nor twice.
                JobEvent::Reaped(pid, _) => {
                    if !bench.tasks.iter().any(|(_, task)| task == pid) || reaped.contains(pid) {
                        continue;
                    }
                    reaped.push(*pid);
                }
                JobEvent::Executed if !bench.orders.contains(&JobAction::ForkCommand) => continue,
                _ => {}
            }
            bench.step(event);
            // The kernel's word is only ever of a moment before.
            if !bench.job.has_ended() {
                bench.pass(later);
            }
            let checks = bench.tasks.iter().filter(|(task, pid)| *task == Task::Check && !reaped.contains(pid));
            prop_assert!(checks.count() <= 1, "two checks at once");
        }
        // Whatever happened: it is stopped, all end, and it is over.
        bench.stop();
        for _ in 0..100 {
            if bench.job.has_ended() {
                break;
            }
            let left: Vec<Pid> =
                bench.tasks.iter().map(|(_, pid)| *pid).filter(|pid| !reaped.contains(pid)).collect();
            for pid in left {
                reaped.push(pid);
                bench.step(JobEvent::Reaped(pid, Exit::Code(1)));
            }
            if bench.orders.contains(&JobAction::ForkCommand) && !reaped.contains(&pid(COMMAND)) {
                reaped.push(pid(COMMAND));
                bench.step(JobEvent::Reaped(pid(COMMAND), Exit::Code(0)));
            }
            bench.step(JobEvent::Alone);
            bench.pass(100);
        }
        prop_assert!(bench.job.has_ended());
        prop_assert_eq!(bench.job.deadline(), None);
        let finishes = bench.orders.iter().filter(|order| matches!(order, JobAction::Finish { .. })).count();
        prop_assert_eq!(finishes, 1);
        let ready = bench.orders.iter().filter(|order| **order == JobAction::Tell(Notice::Ready)).count();
        prop_assert!(ready <= 1);
    }
}
