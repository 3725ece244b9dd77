use proptest::prelude::*;

use super::*;
use crate::base::{Errno, ProcId};

const ME: Pid = Pid::INIT;

fn pid(raw: i32) -> Pid {
    Pid::new(raw).unwrap()
}

fn at(ms: u64) -> Tick {
    Tick(ms * 1000)
}

fn process(raw: i32, parent: i32) -> Process {
    let id = ProcId { pid: pid(raw), start: 1 };
    Process {
        id,
        parent: Pid::new(parent),
        group: 0,
        state: 'S',
        threads: 1,
        comm: "x".into(),
        lingers: false,
        forked: false,
    }
}

fn shutdown() -> Cause {
    Cause::Shutdown { why: "x".into() }
}

fn config() -> JobConfig {
    JobConfig {
        timeout: None,
        grace: None,
        default_grace: Duration::from_secs(7),
        bound_to_client: true,
        heartbeat: None,
        own_group: None,
    }
}

/// A running job and everything that it ordered so far.
fn running(config: JobConfig) -> (Job, Vec<JobAction>) {
    let (mut job, mut orders) = (Job::new(config, ME), Vec::new());
    job.step(at(0), JobEvent::Forked(pid(10)), &mut orders);
    job.step(at(0), JobEvent::Executed, &mut orders);
    assert_eq!(std::mem::take(&mut orders), [JobAction::TellStarted(pid(10))]);
    (job, orders)
}

fn finished(orders: &[JobAction]) -> Option<(Option<Exit>, Cause)> {
    orders.iter().find_map(|order| match order {
        JobAction::Finish { exit, cause } => Some((*exit, cause.clone())),
        _ => None,
    })
}

#[test]
fn a_command_that_ends_alone_is_finished_without_a_look() {
    let (mut job, mut orders) = running(config());
    job.step(at(5), JobEvent::Reaped(pid(10), Exit::Code(3)), &mut orders);
    job.step(at(5), JobEvent::Alone, &mut orders);
    assert_eq!(finished(&orders), Some((Some(Exit::Code(3)), Cause::Exited)));
    assert!(!orders.contains(&JobAction::Look) && job.has_ended());
    assert_eq!(job.deadline(), None);
}

#[test]
fn whatever_a_command_leaves_ends_before_the_job_does() {
    let (mut job, mut orders) = running(config());
    job.step(at(5), JobEvent::Reaped(pid(10), Exit::Code(0)), &mut orders);
    assert_eq!(job.deadline(), Some(at(5)));
    job.step(at(5), JobEvent::Tick, &mut orders);
    assert_eq!(orders, [JobAction::Look]);
    orders.clear();
    job.step(at(5), JobEvent::Looked(vec![process(11, 1)]), &mut orders);
    assert_eq!(orders, [JobAction::TellEnding, JobAction::Signal(pid(11), Signal::TERM)]);
    assert!(finished(&orders).is_none());
    job.step(at(9), JobEvent::Reaped(pid(11), Exit::Code(0)), &mut orders);
    job.step(at(9), JobEvent::Alone, &mut orders);
    assert_eq!(finished(&orders), Some((Some(Exit::Code(0)), Cause::Exited)));
}

#[test]
fn what_the_kernel_may_hold_longer_is_waited_for_before_the_job_ends_and_only_then() {
    for lingers in [false, true] {
        let (mut job, mut orders) = running(config());
        job.step(at(5), JobEvent::Reaped(pid(10), Exit::Code(0)), &mut orders);
        job.step(at(5), JobEvent::Looked(vec![Process { lingers, ..process(11, 1) }]), &mut orders);
        job.step(at(60), JobEvent::Looked(vec![process(12, 1)]), &mut orders);
        assert!(!orders.contains(&JobAction::AwaitKernel));
        orders.clear();
        job.step(at(90), JobEvent::Alone, &mut orders);
        let first = orders.iter().position(|order| *order == JobAction::AwaitKernel);
        assert_eq!(first, lingers.then_some(0), "{orders:?}");
        assert!(finished(&orders).is_some());
    }
}

#[test]
fn every_reason_to_end_asks_the_whole_tree_and_is_the_cause() {
    let stop = Order::Stop { cause: Cause::Stopped { by: None }, grace_ms: 7000, asked: false };
    for (event, cause) in [
        (JobEvent::ClientGone, Cause::ClientGone),
        (JobEvent::InitGone, Cause::InitGone),
        (JobEvent::Order(stop), Cause::Stopped { by: None }),
    ] {
        let (mut job, mut orders) = running(config());
        job.step(at(5), event, &mut orders);
        job.step(at(5), JobEvent::Tick, &mut orders);
        job.step(at(5), JobEvent::Looked(vec![process(10, 1), process(11, 10)]), &mut orders);
        for each in [10, 11] {
            assert!(orders.contains(&JobAction::Signal(pid(each), Signal::TERM)), "{cause}");
        }
        job.step(at(7005), JobEvent::Looked(vec![process(10, 1)]), &mut orders);
        assert!(orders.contains(&JobAction::Signal(pid(10), Signal::KILL)), "{cause}");
        job.step(at(7006), JobEvent::Reaped(pid(10), Exit::Signal(Signal::KILL)), &mut orders);
        job.step(at(7006), JobEvent::Alone, &mut orders);
        assert_eq!(finished(&orders), Some((Some(Exit::Signal(Signal::KILL)), cause)));
    }
}

#[test]
fn a_timeout_counts_from_the_start_and_keeps_being_the_cause() {
    let timeout = Some(Duration::from_secs(1));
    let (mut job, mut orders) = running(JobConfig { timeout, ..config() });
    assert_eq!(job.deadline(), Some(at(1000)));
    job.step(at(1000), JobEvent::Tick, &mut orders);
    job.step(at(1001), JobEvent::ClientGone, &mut orders);
    job.step(at(1002), JobEvent::Reaped(pid(10), Exit::Code(0)), &mut orders);
    job.step(at(1002), JobEvent::Alone, &mut orders);
    assert_eq!(finished(&orders), Some((Some(Exit::Code(0)), Cause::Timeout)));
}

#[test]
fn the_grace_that_was_asked_for_wins() {
    let second = Duration::from_secs(1);
    for (own, asked, expected) in [(None, false, 3), (Some(30), false, 30), (Some(30), true, 3), (Some(1), false, 1)] {
        let grace = own.map(|own| own * second);
        let (mut job, mut orders) = running(JobConfig { grace, ..config() });
        job.step(at(0), JobEvent::Order(Order::Stop { cause: shutdown(), grace_ms: 3000, asked }), &mut orders);
        job.step(at(0), JobEvent::Looked(vec![]), &mut orders);
        assert_eq!(job.deadline(), Some(at(expected * 1000)), "{own:?} {asked}");
    }
}

#[test]
fn a_kept_job_outlives_its_client() {
    let (mut job, mut orders) = running(JobConfig { bound_to_client: false, ..config() });
    job.step(at(5), JobEvent::ClientGone, &mut orders);
    assert_eq!((orders, job.deadline()), (vec![], None));
}

#[test]
fn what_cannot_be_executed_ends_with_its_reason() {
    let failure = ExecFailure { what: "execute x".into(), errno: Errno::ENOENT, interpreter: None };
    let expected = Some((Some(Exit::Code(127)), Cause::ExecFailed(failure.clone())));
    let (mut job, mut orders) = (Job::new(config(), ME), Vec::new());
    job.step(at(0), JobEvent::NotExecuted(failure.clone()), &mut orders);
    assert_eq!(finished(&orders), expected, "not even forked");
    let (mut job, mut orders) = (Job::new(config(), ME), Vec::new());
    job.step(at(0), JobEvent::Forked(pid(10)), &mut orders);
    job.step(at(0), JobEvent::NotExecuted(failure), &mut orders);
    assert_eq!(finished(&orders), None, "its process is still there");
    job.step(at(0), JobEvent::Reaped(pid(10), Exit::Code(127)), &mut orders);
    job.step(at(0), JobEvent::Alone, &mut orders);
    assert_eq!(finished(&orders), expected);
}

#[test]
fn a_client_is_told_of_what_sigkill_does_not_end_and_the_keeper_stays() {
    let (mut job, mut orders) = running(JobConfig { timeout: Some(Duration::from_secs(1)), ..config() });
    job.step(at(1000), JobEvent::Tick, &mut orders);
    job.step(at(1000), JobEvent::Looked(vec![process(10, 1)]), &mut orders);
    job.step(at(8000), JobEvent::Looked(vec![process(10, 1)]), &mut orders);
    orders.clear();
    job.step(at(10_000), JobEvent::Looked(vec![process(10, 1)]), &mut orders);
    let left = vec![Leftover::new(pid(10), "x".into(), 'S')];
    let report = JobAction::Report { exit: None, cause: Cause::Timeout, left: left.clone() };
    assert_eq!(orders, [JobAction::TellStuck(left), report]);
    assert!(!job.has_ended());
    orders.clear();
    job.step(at(60_000), JobEvent::Reaped(pid(10), Exit::Signal(Signal::KILL)), &mut orders);
    job.step(at(60_000), JobEvent::Alone, &mut orders);
    assert_eq!(orders.len(), 1, "reported once: {orders:?}");
}

#[test]
fn a_kill_reaches_the_group_and_is_the_cause_only_if_it_was_deadly() {
    for (exit, cause) in [
        (Exit::Signal(Signal::INT), Cause::Killed { signal: Signal::INT, by: Who::new("me") }),
        (Exit::Code(0), Cause::Exited),
    ] {
        let (mut job, mut orders) = running(config());
        job.step(at(1), JobEvent::Order(Order::Kill { signal: Signal::INT, by: Who::new("me") }), &mut orders);
        assert_eq!(orders, [JobAction::SignalGroup(Pgid::led_by(pid(10)).unwrap(), Signal::INT)]);
        job.step(at(2), JobEvent::Reaped(pid(10), exit), &mut orders);
        job.step(at(2), JobEvent::Alone, &mut orders);
        assert_eq!(finished(&orders), Some((Some(exit), cause)));
    }
}

#[test]
fn without_proc_the_group_is_asked_once_and_forced_and_who_has_left_it_is_left_to_the_init() {
    let (mut job, mut orders) = running(config());
    job.step(at(5), JobEvent::ClientGone, &mut orders);
    let group = Pgid::led_by(pid(10)).unwrap();
    let sent = |orders: &[JobAction]| {
        let signals = orders.iter().filter_map(|order| match order {
            JobAction::SignalGroup(to, signal) if *to == group => Some(*signal),
            _ => None,
        });
        signals.collect::<Vec<_>>()
    };
    job.step(at(5), JobEvent::LookedInVain(true), &mut orders);
    job.step(at(60), JobEvent::LookedInVain(true), &mut orders);
    assert_eq!(sent(&orders), [Signal::TERM]);
    job.step(at(7005), JobEvent::LookedInVain(true), &mut orders);
    assert_eq!(sent(&orders), [Signal::TERM, Signal::KILL]);
    job.step(at(7006), JobEvent::Reaped(pid(10), Exit::Signal(Signal::KILL)), &mut orders);
    // Nobody of the group is left, so its number may be anybody's.
    job.step(at(7100), JobEvent::LookedInVain(false), &mut orders);
    assert_eq!(sent(&orders).len(), 2);
    assert_eq!(finished(&orders), None);
    job.step(at(9100), JobEvent::LookedInVain(false), &mut orders);
    assert_eq!(finished(&orders), Some((Some(Exit::Signal(Signal::KILL)), Cause::ClientGone)));
}

fn any_event() -> impl Strategy<Value = JobEvent> {
    let failure = ExecFailure { what: "execute x".into(), errno: Errno(13), interpreter: None };
    prop_oneof![
        Just(JobEvent::Executed),
        Just(JobEvent::NotExecuted(failure)),
        (10..14i32).prop_map(|raw| JobEvent::Reaped(pid(raw), Exit::Code(0))),
        proptest::collection::vec((10..14i32, 1..12i32), 0..4)
            .prop_map(|list| JobEvent::Looked(list.into_iter().map(|(p, parent)| process(p, parent)).collect())),
        (0u64..9000, any::<bool>()).prop_map(|(grace_ms, asked)| JobEvent::Order(Order::Stop {
            cause: Cause::Stopped { by: None },
            grace_ms,
            asked
        })),
        Just(JobEvent::Order(Order::Kill { signal: Signal::TERM, by: None })),
        // False can end it, by a test of its own.
        Just(JobEvent::LookedInVain(true)),
        Just(JobEvent::ClientGone),
        Just(JobEvent::InitGone),
        Just(JobEvent::Tick),
    ]
}

proptest! {
    #[test]
    fn every_sequence_ends_once_the_tree_is_empty_and_leaves_no_deadline(
        events in proptest::collection::vec((any_event(), 0u64..3000), 0..40),
        timeout in proptest::option::of(0u64..5000),
    ) {
        let timeout = timeout.map(Duration::from_millis);
        let (mut job, mut orders) = (Job::new(JobConfig { timeout, ..config() }, ME), Vec::new());
        let mut now = 0;
        job.step(at(now), JobEvent::Forked(pid(10)), &mut orders);
        for (event, later) in events {
            now += later;
            job.step(at(now), event, &mut orders);
            prop_assert!(!job.has_ended(), "nobody said that the tree is empty");
            if matches!(job.state, State::Ending(_)) {
                prop_assert!(job.deadline().is_some());
            }
        }
        job.step(at(now), JobEvent::Reaped(pid(10), Exit::Code(0)), &mut orders);
        job.step(at(now), JobEvent::Alone, &mut orders);
        prop_assert!(job.has_ended());
        prop_assert_eq!(job.deadline(), None);
        let finishes = orders.iter().filter(|o| matches!(o, JobAction::Finish { .. })).count();
        let reports = orders.iter().filter(|o| matches!(o, JobAction::Report { .. })).count();
        prop_assert_eq!((finishes, reports), (1, 1));
        let own = orders.iter().any(|o| matches!(o, JobAction::Signal(p, _) if *p == ME));
        prop_assert!(!own, "it never signals itself");
    }
}
