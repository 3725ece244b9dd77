use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::{
    base::{JobId, JobRef, Name, ProcId, Set},
    proto::{Cause, Happening as said, JobState, Leftover, Line, Notice, Order, Reply},
};

const SECOND: Duration = Duration::from_secs(1);

fn pid(raw: i32) -> Pid {
    Pid::new(raw).unwrap()
}

fn at(ms: u64) -> Tick {
    Tick(ms * 1000)
}

fn config(role: Role, main: bool) -> Config {
    Config {
        role,
        own_group: None,
        me: if role == Role::Pid1 { Pid::INIT } else { pid(500) },
        main,
        grace: None,
        stop_timeout: None,
        stuck_timeout: 60 * SECOND,
        abort_fuse: false,
        census: false,
        max_jobs: None,
        remap: Vec::new(),
        warn_reaps: false,
        spare_leftovers: false,
        forwarding: Forwarding::default(),
        swallowed: Vec::new(),
        not_executed: None,
        failure: 125,
        services: Vec::new(),
        reloads: false,
        seed: 1,
        last_job: 0,
    }
}

/// An init under test, with what it ordered since the last look.
struct Bench {
    init: Init,
    orders: Vec<Action>,
    now: u64,
}

const MAIN: i32 = 10;

impl Bench {
    fn new(config: Config) -> Bench {
        let main = config.main;
        let mut bench = Bench { init: Init::new(config), orders: Vec::new(), now: 0 };
        bench.step(Event::Begin);
        if main {
            assert!(bench.take().contains(&Action::ForkMain));
            bench.step(Event::MainForked(Ok(pid(MAIN))));
        }
        bench
    }

    fn step(&mut self, event: Event) {
        self.init.step(at(self.now), event, &mut self.orders);
    }

    /// The orders since the last call, what is only said left out.
    fn take(&mut self) -> Vec<Action> {
        self.orders
            .drain(..)
            .filter(|order| !matches!(order, Action::Log(..) | Action::Note(..) | Action::Enter(_)))
            .collect()
    }

    fn term(&mut self) {
        self.step(Event::Signal { signal: Signal::TERM, sender: Sender::Outside });
    }

    fn reap(&mut self, raw: i32, exit: Exit) {
        self.step(Event::Reaped { pid: pid(raw), exit, account: None });
    }

    /// A job that runs under keeper `keeper`.
    fn job(&mut self, request: u128, keeper: i32) -> JobId {
        self.step(Event::Line(Line::Exec(RequestId(request), None)));
        let orders = self.take();
        let [Action::ForkKeeper { job, .. }] = &orders[..] else { panic!("{orders:?}") };
        self.step(Event::KeeperForked { job: *job, keeper: Ok(pid(keeper)) });
        self.step(Event::Notice { job: *job, notice: Notice::Started(pid(keeper + 1)) });
        assert_eq!(self.take(), [Action::LetGo(RequestId(request))]);
        *job
    }

    fn end_job(&mut self, job: JobId, keeper: i32) {
        let notice = Notice::Ended { exit: Some(Exit::Code(0)), cause: Cause::Exited, wall_us: 0, usage: None };
        self.step(Event::Notice { job, notice });
        self.reap(keeper, Exit::Code(0));
    }

    /// Nobody looks for what hangs: for tests of other deadlines.
    fn without_explaining(&mut self) {
        self.init.explaining = Explaining::default();
    }

    fn next_deadline(&mut self) {
        let deadline = self.init.deadline().expect("a deadline");
        self.now = self.now.max(deadline.0.div_ceil(1000));
        self.step(Event::Tick);
    }
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

/// A process that hangs on a volume of this kind.
fn stuck(raw: i32, kind: &str) -> Stuck {
    let mut process = Leftover::new(pid(raw), "dd".into(), 'D');
    (process.volume, process.filesystem) = (Some("/data".into()), Some(kind.into()));
    process.device = Some("0:52".into());
    Stuck { job: None, process }
}

fn shutdown() -> Cause {
    Cause::Shutdown { why: "SIGTERM from outside the namespace".into() }
}

fn leave(code: u8) -> [Action; 2] {
    [Action::Release, Action::Exit(code)]
}

#[test]
fn with_nothing_left_it_leaves_at_once() {
    for (exit, code) in [(Exit::Code(0), 0), (Exit::Code(255), 255), (Exit::Signal(Signal::TERM), 143)] {
        for role in [Role::Pid1, Role::Subreaper] {
            let mut bench = Bench::new(config(role, true));
            assert_eq!(bench.init.deadline(), None, "an init with nothing to do does not wake");
            bench.reap(MAIN, exit);
            assert_eq!(bench.take(), [Action::CheckAlone]);
            bench.step(Event::Alone(true));
            assert_eq!(bench.take(), [Action::Sync]);
            bench.step(Event::Syncing(Vec::new()));
            assert_eq!(bench.take(), leave(code));
            assert_eq!((bench.init.phase(), bench.init.deadline()), (Phase::Gone, None));
        }
    }
}

#[test]
fn exit_codes_are_remapped_and_failures_to_execute_are_shell_codes() {
    let mut bench = Bench::new(Config { remap: vec![143], ..config(Role::Pid1, true) });
    bench.reap(MAIN, Exit::Signal(Signal::TERM));
    assert_eq!(bench.init.exit_code(), 0);
    let mut bench = Bench::new(config(Role::Pid1, true));
    bench.step(Event::MainNotExecuted(ExecFailure {
        what: "execute x".into(),
        errno: crate::base::Errno(13),
        interpreter: None,
    }));
    bench.reap(MAIN, Exit::Code(127));
    assert_eq!(bench.init.exit_code(), 126);
}

#[test]
fn in_hold_a_stop_signal_is_an_orderly_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut bench = Bench::new(config(Role::Pid1, false));
        bench.step(Event::Signal { signal: Signal::HUP, sender: Sender::Outside });
        assert_eq!((bench.take(), bench.init.phase()), (vec![], Phase::Running));
        bench.step(Event::Signal { signal, sender: Sender::Outside });
        bench.step(Event::Alone(true));
        bench.step(Event::Syncing(Vec::new()));
        let mut expected = vec![Action::CheckAlone, Action::Sync];
        expected.extend(leave(0));
        assert_eq!(bench.take(), expected);
    }
}

#[test]
fn a_stop_asks_main_jobs_and_the_engines_processes_at_once() {
    let mut bench = Bench::new(config(Role::Pid1, true));
    let job = bench.job(1, 20);
    bench.term();
    let group = Pgid::led_by(pid(MAIN)).unwrap();
    let order = Order::Stop { cause: shutdown(), grace_ms: 7000, asked: false };
    let expected =
        [Action::SignalGroup(group, Signal::TERM), Action::Tell { job, order }, Action::Look { kill: false }];
    assert_eq!(bench.take(), expected);
    bench.step(Event::Looked(Some(vec![
        process(1, 0),
        process(MAIN, 1),
        process(20, 1),
        process(30, 0),
        process(31, 30),
    ])));
    assert_eq!(bench.take(), [Action::Watch(pid(30)), Action::Signal(pid(30), Signal::TERM)]);
    // Whatever the order of their ends, it goes on when all three have ended, and not before.
    bench.step(Event::WatchedEnded(pid(30)));
    assert_eq!((bench.take(), bench.init.phase()), (vec![], Phase::Stopping));
    bench.reap(MAIN, Exit::Code(7));
    assert_eq!((bench.take(), bench.init.phase()), (vec![Action::Look { kill: false }], Phase::Stopping));
    bench.step(Event::Looked(Some(vec![process(1, 0), process(20, 1), process(21, 20)])));
    assert_eq!(bench.take(), [], "a job's tree is its keeper's to end");
    bench.end_job(job, 20);
    assert_eq!(bench.take(), [Action::CheckAlone]);
    bench.step(Event::Alone(true));
    bench.step(Event::Syncing(Vec::new()));
    assert_eq!(bench.take()[1..], leave(7));
}

#[test]
fn who_ends_while_somebody_looks_is_not_asked_and_has_another_look() {
    let mut bench = Bench::new(config(Role::Pid1, true));
    let job = bench.job(1, 20);
    bench.term();
    bench.step(Event::Looked(Some(vec![process(1, 0), process(MAIN, 1), process(20, 1), process(30, 0)])));
    bench.reap(MAIN, Exit::Code(7));
    bench.step(Event::Looked(Some(vec![process(1, 0), process(20, 1), process(30, 0)])));
    bench.now = 300;
    bench.take();
    bench.step(Event::WatchedEnded(pid(30)));
    assert_eq!(bench.take(), [Action::Look { kill: false }]);
    bench.end_job(job, 20);
    // As it was before: the engine has not reaped its process yet, and the keeper has been since.
    let mut zombie = process(30, 0);
    zombie.state = 'Z';
    bench.step(Event::Looked(Some(vec![process(1, 0), zombie.clone(), process(20, 1)])));
    assert_eq!(bench.take(), [Action::CheckAlone]);
    bench.step(Event::Alone(false));
    bench.without_explaining();
    assert_eq!((bench.take(), bench.init.phase()), (vec![], Phase::Sweeping));
    bench.next_deadline();
    assert_eq!((bench.now, bench.take()), (350, vec![Action::Look { kill: false }]));
    bench.step(Event::Looked(Some(vec![process(1, 0), zombie])));
    assert_eq!(bench.take(), [Action::Sync]);
}

#[test]
fn mains_orphans_do_not_wait_for_jobs_and_its_group_is_not_asked_twice() {
    for role in [Role::Pid1, Role::Subreaper] {
        let mut bench = Bench::new(config(role, true));
        let me = bench.init.config.me.get();
        let job = bench.job(1, 20);
        bench.now = 20;
        bench.term();
        let group = |mut process: Process| {
            process.group = MAIN;
            process
        };
        // Born between the signal and the look.
        let mut late = group(process(42, MAIN));
        late.id.start = 2;
        let mut orphan = late.clone();
        orphan.parent = Some(pid(me));
        let seen = vec![group(process(MAIN, me)), group(process(40, MAIN)), process(50, MAIN), process(20, me), late];
        bench.step(Event::Looked(Some(seen)));
        bench.take();
        bench.reap(MAIN, Exit::Code(0));
        assert_eq!(bench.take(), [Action::Look { kill: false }]);
        // 40 got the signal with main; 41 is what it saves its work with; 50 and 42 got none; 21 is the job's.
        let mut seen = vec![group(process(40, me)), group(process(41, 40)), process(50, me), process(20, me)];
        seen.extend([process(21, 20), orphan]);
        bench.step(Event::Looked(Some(seen)));
        assert_eq!(bench.take(), [50, 42].map(|raw| Action::Signal(pid(raw), Signal::TERM)));
        bench.end_job(job, 20);
        bench.take();
        // What the job's keeper may have left is found now, and has a second at least.
        bench.now = 6900;
        bench.step(Event::Alone(false));
        assert_eq!((bench.take(), bench.init.phase()), (vec![Action::Look { kill: false }], Phase::Sweeping));
        bench.step(Event::Looked(Some(vec![process(60, me)])));
        assert_eq!(bench.take(), [Action::Signal(pid(60), Signal::TERM)]);
        bench.without_explaining();
        assert_eq!(bench.init.deadline(), Some(at(7900)));
    }
}

/// dumb-init's.
fn persona(role: Role) -> Config {
    let forwarding = Forwarding {
        term_goes_on: true,
        suspends: true,
        after_main: Some(Signal::TERM),
        rewritten: vec![(Signal::TSTP, Some(Signal::STOP)), (Signal::USR1, None)],
        ..Forwarding::default()
    };
    let swallowed = vec![Signal::HUP, Signal::CONT];
    let not_executed = Some(NotExecuted { missing: 2, denied: 3, other: 4 });
    Config { spare_leftovers: true, forwarding, swallowed, not_executed, failure: 1, ..config(role, true) }
}

#[test]
fn a_persona_spares_what_main_leaves_unless_the_kernel_would_kill_it() {
    let group = Pgid::led_by(pid(MAIN)).unwrap();
    for role in [Role::Subreaper, Role::Pid1] {
        let mut bench = Bench::new(persona(role));
        bench.reap(MAIN, Exit::Code(3));
        let orders = bench.take();
        assert_eq!(orders[0], Action::SignalGroup(group, Signal::TERM), "{role:?}");
        match role {
            Role::Subreaper => assert_eq!((&orders[1..], bench.init.phase()), (&[Action::Sync][..], Phase::Syncing)),
            Role::Pid1 => assert_eq!((&orders[1..], bench.init.phase()), (&[Action::CheckAlone][..], Phase::Stopping)),
        }
        assert_eq!(bench.init.exit_code(), 3);
    }
}

#[test]
fn a_personas_signals_go_on_and_end_nothing() {
    let mut bench = Bench::new(persona(Role::Pid1));
    let group = Pgid::led_by(pid(MAIN)).unwrap();
    let to_group = |signal| vec![Action::SignalGroup(group, signal)];
    for (signal, orders) in [
        (Signal::TERM, to_group(Signal::TERM)),
        (Signal::USR1, vec![]),
        (Signal::HUP, vec![]),
        (Signal::HUP, to_group(Signal::HUP)),
        (Signal::TSTP, [to_group(Signal::STOP), vec![Action::StopSelf]].concat()),
        (Signal::CONT, vec![]),
        (Signal::CONT, to_group(Signal::CONT)),
    ] {
        bench.step(Event::Signal { signal, sender: Sender::Outside });
        assert_eq!((bench.take(), bench.init.phase()), (orders, Phase::Running), "{signal}");
    }
    let forwarding = Forwarding { to_main_only: true, ..persona(Role::Pid1).forwarding };
    let mut bench = Bench::new(Config { forwarding, ..persona(Role::Pid1) });
    bench.term();
    assert_eq!(bench.take(), [Action::Signal(pid(MAIN), Signal::TERM)]);
    // Whoever has ended is sent nothing: its number may be another's.
    bench.reap(MAIN, Exit::Code(0));
    assert_eq!(bench.take(), [Action::CheckAlone]);
}

#[test]
fn a_personas_codes_are_its_own() {
    for (errno, code) in [(Errno::ENOENT, 2), (Errno::EACCES, 3), (Errno::ENOTDIR, 4)] {
        let mut bench = Bench::new(persona(Role::Pid1));
        let failure = ExecFailure { what: "execute x".into(), errno, interpreter: None };
        bench.step(Event::MainNotExecuted(failure));
        bench.reap(MAIN, Exit::Code(127));
        assert_eq!(bench.init.exit_code(), code);
    }
}

#[test]
fn main_has_no_deadline_unless_it_is_given_one() {
    let mut bench = Bench::new(config(Role::Subreaper, true));
    bench.term();
    bench.without_explaining();
    assert_eq!(bench.init.deadline(), None);
    let mut bench = Bench::new(Config { stop_timeout: Some(3 * SECOND), ..config(Role::Subreaper, true) });
    bench.term();
    bench.without_explaining();
    bench.take();
    assert_eq!(bench.init.deadline(), Some(at(3000)));
    bench.next_deadline();
    assert_eq!(bench.take(), [Action::SignalGroup(Pgid::led_by(pid(MAIN)).unwrap(), Signal::KILL)]);
}

#[test]
fn mains_leftovers_are_asked_then_forced_within_the_budget() {
    let mut bench = Bench::new(config(Role::Pid1, true));
    bench.term();
    bench.step(Event::Looked(Some(vec![process(1, 0), process(MAIN, 1)])));
    bench.now = 5000;
    bench.reap(MAIN, Exit::Code(0));
    bench.take();
    bench.step(Event::Alone(false));
    assert_eq!((bench.take(), bench.init.phase()), (vec![Action::Look { kill: false }], Phase::Sweeping));
    let left = vec![process(1, 0), process(40, 1)];
    bench.step(Event::Looked(Some(left.clone())));
    assert_eq!(bench.take(), [Action::Signal(pid(40), Signal::TERM)]);
    // 7 s in all, of which 5 are gone.
    bench.without_explaining();
    assert_eq!(bench.init.deadline(), Some(at(7000)));
    bench.next_deadline();
    assert_eq!(bench.take(), [Action::Look { kill: true }], "as PID 1 one call for all");
    bench.step(Event::Looked(Some(left)));
    assert_eq!(bench.take()[..1], [Action::Signal(pid(40), Signal::KILL)]);
    bench.step(Event::Looked(Some(vec![])));
    bench.step(Event::Alone(true));
    assert!(bench.take().contains(&Action::Sync));
}

#[test]
fn what_the_kernel_may_hold_longer_is_waited_for_before_the_sync() {
    // (its parent, it lingers, the census is wished, what follows)
    for (role, parent, lingers, census, expected) in [
        (Role::Subreaper, 500, false, false, vec![Action::Sync]),
        (Role::Subreaper, 500, true, false, vec![Action::AwaitKernel, Action::Sync]),
        (Role::Subreaper, 500, true, true, vec![Action::AwaitKernel, Action::Census, Action::Sync]),
        (Role::Pid1, 1, true, true, vec![Action::AwaitKernel, Action::Sync]),
        // The engine's.
        (Role::Pid1, 0, true, false, vec![Action::AwaitKernel, Action::Sync]),
        // For a job's tree its keeper waits.
        (Role::Subreaper, 20, true, false, vec![Action::Sync]),
        (Role::Pid1, 21, true, false, vec![Action::Sync]),
    ] {
        let mut bench = Bench::new(Config { census, ..config(role, true) });
        let me = bench.init.config.me.get();
        let job = bench.job(1, 20);
        bench.term();
        // As PID 1 this is who is there, otherwise who is in main's group: asked as soon as main was sent the signal.
        let left = Process { lingers, ..process(40, parent) };
        let mine = Process { lingers: true, ..process(me, 0) };
        bench.step(Event::Looked(Some(vec![mine, process(20, me), process(21, 20), left])));
        bench.reap(MAIN, Exit::Code(0));
        bench.end_job(job, 20);
        bench.step(Event::WatchedEnded(pid(40)));
        bench.take();
        bench.step(Event::Alone(true));
        let mut orders = bench.take();
        if orders.contains(&Action::AwaitKernel) {
            bench.step(Event::KernelLetGo);
            orders.extend(bench.take());
        }
        if orders.contains(&Action::Census) {
            bench.step(Event::Counted(Vec::new()));
            orders.extend(bench.take());
        }
        assert_eq!(orders, expected, "{role:?} {parent} {lingers} {census}");
    }
}

#[test]
fn below_somebody_else_nothing_but_descendants_is_killed() {
    let mut bench = Bench::new(config(Role::Subreaper, true));
    bench.reap(MAIN, Exit::Code(0));
    bench.step(Event::Alone(false));
    bench.step(Event::Looked(Some(vec![process(40, 500)])));
    bench.now = 7000;
    for _ in 0..3 {
        bench.step(Event::Tick);
        bench.step(Event::Looked(Some(vec![process(40, 500)])));
    }
    let orders = bench.take();
    assert!(orders.contains(&Action::Signal(pid(40), Signal::KILL)), "{orders:?}");
    assert!(!orders.contains(&Action::Look { kill: true }), "{orders:?}");
}

#[test]
fn zombies_whose_parent_is_outside_do_not_keep_it() {
    let mut bench = Bench::new(config(Role::Pid1, true));
    bench.reap(MAIN, Exit::Code(0));
    bench.step(Event::Alone(false));
    let mut zombie = process(30, 0);
    zombie.state = 'Z';
    bench.step(Event::Looked(Some(vec![process(1, 0), zombie.clone()])));
    bench.step(Event::Alone(false));
    bench.step(Event::Looked(Some(vec![process(1, 0), zombie])));
    assert!(bench.take().contains(&Action::Sync));
}

#[test]
fn what_hangs_is_named_while_it_has_its_grace_and_again_after_it() {
    let mut bench = Bench::new(config(Role::Subreaper, true));
    bench.term();
    bench.take();
    bench.now = 999;
    bench.step(Event::Tick);
    assert_eq!(bench.take(), []);
    bench.next_deadline();
    assert_eq!((bench.now, bench.take()), (1000, vec![Action::Explain { all: false }]));
    // One that does not come back is not asked again.
    bench.now = 1100;
    bench.step(Event::Tick);
    assert_eq!(bench.take(), []);
    bench.step(Event::Explained(vec![stuck(MAIN, "nfs4")]));
    let named = |order: &Action| matches!(order, Action::Note(Level::Warn, said::Stuck { killed_for_ms: None, .. }));
    assert!(bench.orders.iter().any(named));
    bench.take();
    bench.next_deadline();
    assert_eq!((bench.now, bench.take()), (6100, vec![Action::Explain { all: false }]));
}

/// The last end comes while a helper of our own is about, so that we are not alone: its end has to be heard of.
#[test]
fn a_helper_that_is_about_when_everybody_has_ended_is_not_taken_for_somebody_who_is_left() {
    for begun in [Event::Explained(Vec::new()), Event::Reloaded(Err("x".into()))] {
        let mut bench = Bench::new(Config { reloads: true, ..config(Role::Subreaper, true) });
        bench.step(Event::Line(Line::Reload(None, None)));
        bench.term();
        bench.step(Event::Looked(Some(Vec::new())));
        bench.next_deadline();
        assert_eq!((bench.now, bench.take().last()), (1000, Some(&Action::Explain { all: false })));
        bench.reap(MAIN, Exit::Code(3));
        loop {
            let orders = bench.take();
            match &orders[..] {
                [Action::CheckAlone] => bench.step(Event::Alone(false)),
                [Action::Look { kill: false }] => bench.step(Event::Looked(Some(Vec::new()))),
                others => break assert_eq!(others, []),
            }
        }
        bench.step(begun);
        assert_eq!(bench.take(), [Action::CheckAlone]);
        bench.step(Event::Alone(true));
        bench.step(Event::Syncing(Vec::new()));
        assert_eq!(bench.take().last(), Some(&Action::Exit(3)));
    }
}

#[test]
fn a_fuse_volume_that_holds_somebody_beyond_his_grace_is_aborted_once_if_that_is_wished() {
    let abort = Action::AbortFuse { device: "0:52".into(), volume: "/data".into() };
    for (abort_fuse, kind, aborts) in
        [(true, "fuse.sshfs", true), (true, "fuseblk", true), (true, "nfs4", false), (false, "fuse", false)]
    {
        let mut bench = Bench::new(Config { abort_fuse, ..config(Role::Pid1, true) });
        bench.term();
        let mut aborted = Vec::new();
        while bench.now < 20_000 {
            bench.next_deadline();
            for order in bench.take() {
                match order {
                    Action::Explain { .. } => bench.step(Event::Explained(vec![stuck(MAIN, kind)])),
                    order if order == abort => aborted.push(bench.now),
                    _ => {}
                }
            }
            aborted.extend(bench.take().contains(&abort).then_some(bench.now));
        }
        // The grace of 7 s, and 1 s more: before Docker's 10 are over.
        assert_eq!(aborted, if aborts { vec![8000] } else { vec![] }, "{abort_fuse} {kind}");
    }
}

#[test]
fn the_signal_that_main_died_of_is_the_one_whose_sender_is_told() {
    let mut bench = Bench::new(config(Role::Subreaper, true));
    let timeout = Sender::Process { pid: pid(77), uid: 0, comm: Some("timeout".into()) };
    // As timeout(1) does.
    for signal in [Signal::TERM, Signal::CONT] {
        bench.step(Event::Signal { signal, sender: timeout.clone() });
    }
    bench.orders.clear();
    bench.reap(MAIN, Exit::Signal(Signal::TERM));
    let told = |order: &Action| matches!(order, Action::Note(Level::Info, said::Ended { cause: Cause::Signalled { from }, .. }) if *from == timeout);
    assert!(bench.orders.iter().any(told), "{:?}", bench.orders);
}

#[test]
fn a_main_that_sigkill_does_not_end_is_given_up_only_where_we_are_not_pid_1() {
    for (role, code) in [(Role::Subreaper, Some(125)), (Role::Pid1, None)] {
        let stop_timeout = Some(SECOND);
        let mut bench = Bench::new(Config { stop_timeout, stuck_timeout: 5 * SECOND, ..config(role, true) });
        bench.term();
        while bench.now < 30_000 && bench.init.phase() != Phase::Gone && bench.init.deadline().is_some() {
            bench.next_deadline();
            if bench.orders.contains(&Action::Explain { all: false }) {
                bench.orders.retain(|order| *order != Action::Explain { all: false });
                bench.step(Event::Explained(vec![stuck(MAIN, "nfs4")]));
            }
        }
        let left = bench.orders.iter().find_map(|order| match order {
            Action::Exit(code) => Some(i32::from(*code)),
            _ => None,
        });
        assert_eq!(left, code, "{role:?} at {}", bench.now);
    }
}

#[test]
fn who_was_stuck_and_has_ended_gives_nobody_else_up() {
    // Main, killed after its stop timeout; and a job whose volume thawed.
    for stuck_job in [false, true] {
        let stop_timeout = (!stuck_job).then_some(SECOND);
        let mut bench = Bench::new(Config { stop_timeout, stuck_timeout: 5 * SECOND, ..config(Role::Subreaper, true) });
        let (one, _other) = (bench.job(1, 20), bench.job(2, 30));
        bench.term();
        bench.now = 2000;
        bench.step(Event::Tick);
        if stuck_job {
            bench.step(Event::Notice { job: one, notice: Notice::Stuck(Vec::new()) });
            bench.end_job(one, 20);
        } else {
            bench.reap(MAIN, Exit::Signal(Signal::KILL));
        }
        bench.now = 30_000;
        bench.step(Event::Tick);
        assert_eq!(bench.init.phase(), Phase::Stopping, "the other job has its time: {stuck_job}");
    }
}

#[test]
fn what_did_not_reach_its_volume_is_an_exit_code_unless_main_has_one() {
    for (main, code) in [(0, NOT_SYNCED), (3, 3)] {
        let mut bench = Bench::new(config(Role::Subreaper, true));
        bench.reap(MAIN, Exit::Code(main));
        bench.step(Event::Alone(true));
        assert!(bench.take().contains(&Action::Sync));
        bench.step(Event::Syncing(vec![("/a (nfs4)".into(), None), ("/b (fuse)".into(), Some("0:52".into()))]));
        bench.step(Event::Synced { volume: "/a (nfs4)".into(), error: Some("EIO".into()) });
        assert_eq!(bench.take(), [], "it waits for the other");
        bench.next_deadline();
        let time = 5 * SECOND;
        assert_eq!(bench.take(), [Action::TellSyncing { volumes: vec!["/b (fuse)".into()], time }]);
        bench.step(Event::Synced { volume: "/b (fuse)".into(), error: None });
        assert_eq!(bench.take(), leave(code));
    }
}

#[test]
fn a_fuse_volume_that_does_not_take_what_was_written_is_aborted_if_that_is_wished_and_costs_the_code() {
    for (abort_fuse, code) in [(true, NOT_SYNCED), (false, 0)] {
        let mut bench = Bench::new(Config { abort_fuse, ..config(Role::Pid1, true) });
        bench.reap(MAIN, Exit::Code(0));
        bench.step(Event::Alone(true));
        let volumes = [("/a (nfs4)", None), ("/b (fuse)", Some("0:52".into()))];
        bench.step(Event::Syncing(volumes.map(|(name, device)| (name.into(), device)).to_vec()));
        bench.take();
        let abort = Action::AbortFuse { device: "0:52".into(), volume: "/b (fuse)".into() };
        let mut aborted = 0;
        for _ in 0..3 {
            bench.next_deadline();
            aborted += bench.take().iter().filter(|order| **order == abort).count();
        }
        assert_eq!(aborted, usize::from(abort_fuse), "once, and no other");
        for (volume, _) in [("/a (nfs4)", ()), ("/b (fuse)", ())] {
            bench.step(Event::Synced { volume: volume.into(), error: None });
        }
        assert_eq!(bench.take(), leave(code));
    }
}

#[test]
fn pid_1_waits_for_what_is_stuck_and_a_subreaper_gives_up_and_says_so() {
    for (role, gives_up) in [(Role::Pid1, false), (Role::Subreaper, true)] {
        let mut bench = Bench::new(Config { grace: Some(SECOND), ..config(role, true) });
        bench.reap(MAIN, Exit::Code(3));
        bench.step(Event::Alone(false));
        if role == Role::Pid1 {
            bench.step(Event::Looked(Some(vec![process(1, 0), process(40, 1)])));
            bench.step(Event::Alone(false));
        }
        bench.step(Event::Looked(Some(vec![process(40, 500)])));
        let mut said = 0;
        while bench.now < 120_000 && bench.init.phase() == Phase::Sweeping {
            if bench.init.deadline().is_some() {
                bench.next_deadline();
            }
            bench.step(Event::Looked(Some(vec![process(40, 500)])));
            if bench.orders.iter().any(|order| matches!(order, Action::Explain { .. })) {
                bench.step(Event::Explained(vec![stuck(40, "nfs4")]));
                bench.step(Event::Alone(false));
            }
            let is_named = |order: &&Action| matches!(order, Action::Note(Level::Warn, said::Stuck { process, .. }) if process.pid == pid(40));
            said += bench.orders.iter().filter(is_named).count();
            bench.orders.retain(|order| matches!(order, Action::Log(Level::Error, _) | Action::Exit(_)));
        }
        assert!(said >= 10, "named every few seconds: {said}");
        let left = bench
            .orders
            .iter()
            .any(|order| matches!(order, Action::Log(Level::Error, text) if text.contains("pid 40")));
        assert_eq!((bench.init.phase() == Phase::Gone, left), (gives_up, gives_up));
        assert_eq!(bench.orders.contains(&Action::Exit(125)), gives_up);
    }
}

#[test]
fn jobs_beyond_the_limit_wait_in_order() {
    let mut bench = Bench::new(Config { max_jobs: Some(1), ..config(Role::Pid1, false) });
    let first = bench.job(1, 20);
    for request in [2, 3] {
        bench.step(Event::Line(Line::Exec(RequestId(request), None)));
    }
    let queued = |request, job| {
        let to = RequestId(request);
        [Action::Hold(to), Action::Answer { to, reply: Reply::Queued { job: JobId(job) }, last: false }]
    };
    assert_eq!(bench.take(), [queued(2, 2), queued(3, 3)].concat());
    bench.end_job(first, 20);
    let orders = bench.take();
    assert!(
        matches!(&orders[..], [Action::ForkKeeper { job: JobId(2), .. }]),
        "held until its keeper speaks: {orders:?}"
    );
    let states: Vec<_> = bench.init.list(at(0)).into_iter().map(|(info, _)| info.state).collect();
    assert_eq!(states, [JobState::Ended, JobState::Starting, JobState::Queued]);
}

#[test]
fn a_queued_job_can_be_stopped_and_a_shutdown_answers_the_queue() {
    let mut bench = Bench::new(Config { max_jobs: Some(1), ..config(Role::Pid1, false) });
    bench.job(1, 20);
    for request in [2, 3] {
        bench.step(Event::Line(Line::Exec(RequestId(request), None)));
    }
    bench.take();
    bench.step(Event::Line(Line::Stop(Some(RequestId(9)), JobRef::Id(JobId(2)), None, None)));
    let ended = |to: u128, job, cause| Action::Answer {
        to: RequestId(to),
        reply: Reply::Ended { job: JobId(job), exit: None, cause, left: Vec::new(), oom_kills: 0 },
        last: true,
    };
    assert_eq!(bench.take(), [ended(2, 2, Cause::Stopped { by: None }), ended(9, 2, Cause::Stopped { by: None })]);
    bench.term();
    assert!(bench.take().contains(&ended(3, 3, shutdown())));
    bench.step(Event::Line(Line::Exec(RequestId(4), None)));
    let orders = bench.take();
    assert!(matches!(&orders[..], [Action::Answer { reply: Reply::Refused { .. }, .. }]), "{orders:?}");
}

#[test]
fn who_waits_is_told_once_whenever_the_job_ends() {
    let mut bench = Bench::new(config(Role::Pid1, false));
    let job = bench.job(1, 20);
    for client in [5, 6] {
        bench.step(Event::Line(Line::Wait(RequestId(client), JobRef::Id(job))));
    }
    assert_eq!(bench.take(), [Action::Hold(RequestId(5)), Action::Hold(RequestId(6))]);
    bench.step(Event::ClientGone(RequestId(5)));
    bench.end_job(job, 20);
    let reply = Reply::Ended { job, exit: Some(Exit::Code(0)), cause: Cause::Exited, left: Vec::new(), oom_kills: 0 };
    assert_eq!(bench.take(), [Action::Answer { to: RequestId(6), reply: reply.clone(), last: true }]);
    bench.step(Event::Line(Line::Wait(RequestId(7), JobRef::Id(job))));
    assert_eq!(bench.take(), [Action::Answer { to: RequestId(7), reply, last: true }]);
    bench.step(Event::Line(Line::Wait(RequestId(8), JobRef::Id(JobId(77)))));
    assert!(matches!(&bench.take()[..], [Action::Answer { reply: Reply::Refused { .. }, .. }]));
}

#[test]
fn a_name_belongs_to_one_living_job() {
    let mut bench = Bench::new(config(Role::Pid1, false));
    let name: Name = "a".parse().unwrap();
    let exec = |request| Event::Line(Line::Exec(RequestId(request), Some(name.clone())));
    bench.step(exec(1));
    bench.take();
    bench.step(exec(2));
    assert!(matches!(&bench.take()[..], [Action::Answer { reply: Reply::Refused { .. }, .. }]));
    bench.step(Event::KeeperForked { job: JobId(1), keeper: Ok(pid(20)) });
    bench.end_job(JobId(1), 20);
    bench.take();
    bench.step(exec(3));
    assert!(matches!(&bench.take()[..], [Action::ForkKeeper { job: JobId(2), .. }]));
    // It is free once the job has ended, though its keeper is still to be reaped: the client knows of the end.
    bench.step(Event::KeeperForked { job: JobId(2), keeper: Ok(pid(30)) });
    bench.step(Event::Notice {
        job: JobId(2),
        notice: Notice::Ended { exit: Some(Exit::Code(0)), cause: Cause::Exited, wall_us: 0, usage: None },
    });
    bench.take();
    bench.step(exec(4));
    assert!(matches!(&bench.take()[..], [Action::ForkKeeper { job: JobId(3), .. }]));
}

#[test]
fn a_keeper_that_was_killed_takes_its_tree_along_and_nothing_else() {
    for (main, all) in [(true, false), (false, true)] {
        let mut bench = Bench::new(config(Role::Pid1, main));
        let job = bench.job(1, 20);
        bench.step(Event::Line(Line::Wait(RequestId(5), JobRef::Id(job))));
        bench.take();
        bench.reap(20, Exit::Signal(Signal::KILL));
        let reply = Reply::Ended { job, exit: None, cause: Cause::KeeperGone, left: Vec::new(), oom_kills: 0 };
        let strays = Action::EndStrays { job, command: Some(pid(21)), all };
        assert_eq!(bench.take(), [strays, Action::Answer { to: RequestId(5), reply, last: true }]);
        assert_eq!(bench.init.phase(), Phase::Running);
    }
}

#[test]
fn a_keeper_that_was_stopped_goes_on_and_nobody_else_does() {
    let mut bench = Bench::new(config(Role::Pid1, true));
    bench.job(1, 20);
    bench.step(Event::Stopped(pid(20), Signal::STOP));
    assert_eq!(bench.take(), [Action::Signal(pid(20), Signal::CONT)]);
    bench.step(Event::Stopped(pid(21), Signal::STOP));
    assert_eq!(bench.take(), []);
    // Main is somebody's at a terminal, perhaps, or stays as it is.
    bench.step(Event::Stopped(pid(MAIN), Signal::TSTP));
    assert_eq!(bench.take(), [Action::Suspend { main: pid(MAIN), by: Signal::TSTP }]);
}

#[test]
fn a_keeper_that_dies_before_it_speaks_is_answered_for() {
    let mut bench = Bench::new(config(Role::Pid1, false));
    bench.step(Event::Line(Line::Exec(RequestId(1), None)));
    bench.step(Event::KeeperForked { job: JobId(1), keeper: Ok(pid(20)) });
    bench.take();
    bench.reap(20, Exit::Signal(Signal::KILL));
    let orders = bench.take();
    assert!(
        orders.iter().any(|order| matches!(order, Action::Answer { to: RequestId(1), last: true, .. })),
        "{orders:?}"
    );
}

#[test]
fn a_keeper_that_cannot_be_forked_is_an_answer_not_a_hang() {
    let mut bench = Bench::new(config(Role::Pid1, false));
    bench.step(Event::Line(Line::Exec(RequestId(1), None)));
    bench.take();
    bench.step(Event::KeeperForked { job: JobId(1), keeper: Err("no more processes".into()) });
    let orders = bench.take();
    assert!(matches!(&orders[..], [Action::Answer { to: RequestId(1), last: true, .. }]), "{orders:?}");
}

#[test]
fn the_table_does_not_grow_with_what_has_ended() {
    let mut bench = Bench::new(config(Role::Pid1, false));
    let mut pruned = Vec::new();
    for request in 0..1000 {
        bench.step(Event::Line(Line::Exec(RequestId(request), None)));
        for order in bench.take() {
            let Action::ForkKeeper { job, prune, .. } = order else { continue };
            pruned.extend(prune);
            bench.step(Event::KeeperForked { job, keeper: Ok(pid(20)) });
            bench.end_job(job, 20);
        }
    }
    assert_eq!(bench.init.list(at(0)).len(), 100);
    assert_eq!(pruned, (1..900).map(JobId).collect::<Vec<_>>());
}

#[test]
fn garbage_costs_a_few_lines_and_a_half_line_is_dropped() {
    let mut bench = Bench::new(config(Role::Pid1, false));
    for _ in 0..100_000 {
        bench.step(Event::BadLine(BadLine::NotUtf8));
    }
    assert_eq!(bench.orders.len(), 2);
    bench.step(Event::BadLine(BadLine::TooLong));
    assert_eq!(bench.orders.len(), 3, "another kind is told");
    bench.next_deadline();
    assert_eq!(bench.orders.len(), 4);
    // What is counted and not told yet is told at the end.
    for _ in 0..5 {
        bench.step(Event::BadLine(BadLine::NotUtf8));
    }
    bench.orders.clear();
    bench.term();
    bench.step(Event::Alone(true));
    bench.step(Event::Syncing(Vec::new()));
    let told = bench.orders.iter().any(|order| matches!(order, Action::Log(_, text) if text.contains("3 more lines")));
    assert!(told, "{:?}", bench.orders);
    let mut bench = Bench::new(config(Role::Pid1, false));
    assert_eq!(bench.init.deadline(), None);
    bench.step(Event::HalfLine(true));
    bench.next_deadline();
    assert!(bench.take().contains(&Action::DropHalfLine));
    bench.step(Event::HalfLine(true));
    bench.step(Event::HalfLine(false));
    assert_eq!(bench.init.deadline(), None);
}

fn service(text: &str, mount: bool) -> ServiceConfig {
    use crate::core::service::*;
    let mut run = RunConfig::new(vec![text.into()]);
    run.mount = mount.then(|| "/mnt".into());
    ServiceConfig {
        name: text.parse().unwrap(),
        after: Default::default(),
        restart: Restart::OnFailure,
        backoff: Backoff { initial: SECOND, max: SECOND, factor: 1.0, jitter: 0.0, reset_after: SECOND },
        retries: 0,
        critical: false,
        on_failure: None,
        on_restart: None,
        hook_timeout: None,
        run: Rc::new(run),
    }
}

/// The one job whose keeper is to be forked.
fn forked(orders: &[Action]) -> JobId {
    let [Action::ForkKeeper { job, .. }] = orders else { panic!("{orders:?}") };
    *job
}

fn told_to_end(orders: &[Action]) -> Vec<JobId> {
    let told = |order: &Action| match order {
        Action::Tell { job, order: Order::Stop { .. } } => Some(*job),
        _ => None,
    };
    orders.iter().filter_map(told).collect()
}

#[test]
fn services_without_main_are_its_life() {
    for (exit, code) in [(Exit::Code(0), 0), (Exit::Code(5), 5)] {
        let mut service = service("once", false);
        service.restart = crate::core::service::Restart::Never;
        let mut bench = Bench::new(Config { services: vec![service], ..config(Role::Pid1, false) });
        let job = forked(&bench.take());
        bench.step(Event::KeeperForked { job, keeper: Ok(pid(100)) });
        bench.step(Event::Notice { job, notice: Notice::Started(pid(101)) });
        bench.step(Event::Notice { job, notice: Notice::Ready });
        assert_eq!(bench.take(), []);
        assert_eq!(bench.init.deadline(), None, "a service that runs wakes nobody");
        let notice = Notice::Ended { exit: Some(exit), cause: Cause::Exited, wall_us: 0, usage: None };
        bench.step(Event::Notice { job, notice });
        bench.reap(100, Exit::Code(0));
        assert_eq!(bench.take(), [Action::CheckAlone]);
        bench.step(Event::Alone(true));
        bench.step(Event::Syncing(Vec::new()));
        assert_eq!(bench.take().last(), Some(&Action::Exit(code)));
    }
}

#[test]
fn the_next_run_begins_when_the_tree_has_ended_and_does_not_wait_for_the_keeper() {
    let mut again = service("again", false);
    again.restart = crate::core::service::Restart::Always;
    again.backoff.initial = Duration::ZERO;
    let mut bench = Bench::new(Config { services: vec![again], ..config(Role::Pid1, false) });
    let first = forked(&bench.take());
    bench.step(Event::KeeperForked { job: first, keeper: Ok(pid(100)) });
    let notice = Notice::Ended { exit: Some(Exit::Code(0)), cause: Cause::Exited, wall_us: 0, usage: None };
    bench.step(Event::Notice { job: first, notice });
    bench.take();
    bench.step(Event::Tick);
    let second = forked(&bench.take());
    bench.step(Event::KeeperForked { job: second, keeper: Ok(pid(200)) });
    // Its own end is nobody's any more.
    bench.reap(100, Exit::Code(0));
    assert_eq!(bench.take(), []);
    assert_eq!(bench.init.table.active(), [second]);
}

#[test]
fn a_critical_failure_stops_main_and_everything_with_its_code() {
    let mut worker = service("worker", false);
    (worker.critical, worker.restart) = (true, crate::core::service::Restart::Never);
    let services = vec![worker, service("other", false)];
    let mut bench =
        Bench { init: Init::new(Config { services, ..config(Role::Pid1, true) }), orders: Vec::new(), now: 0 };
    bench.step(Event::Begin);
    let orders = bench.take();
    let jobs: Vec<JobId> = orders.iter().skip(1).map(|order| forked(std::slice::from_ref(order))).collect();
    bench.step(Event::MainForked(Ok(pid(MAIN))));
    for (job, keeper) in jobs.iter().zip([100, 200]) {
        bench.step(Event::KeeperForked { job: *job, keeper: Ok(pid(keeper)) });
    }
    let notice = Notice::Ended { exit: Some(Exit::Code(9)), cause: Cause::Exited, wall_us: 0, usage: None };
    bench.step(Event::Notice { job: jobs[0], notice });
    let orders = bench.take();
    assert!(orders.contains(&Action::SignalGroup(Pgid::led_by(pid(MAIN)).unwrap(), Signal::TERM)), "{orders:?}");
    assert_eq!(told_to_end(&orders), [jobs[1]]);
    assert_eq!(bench.init.exit_code(), 9);
}

#[test]
fn a_mount_outlives_everybody_who_could_use_it() {
    for role in [Role::Pid1, Role::Subreaper] {
        let mut bench = Bench::new(Config { services: vec![service("gcs", true)], ..config(role, false) });
        let mount = forked(&bench.take());
        bench.step(Event::KeeperForked { job: mount, keeper: Ok(pid(100)) });
        bench.step(Event::Notice { job: mount, notice: Notice::Started(pid(101)) });
        bench.step(Event::Notice { job: mount, notice: Notice::Ready });
        let job = bench.job(1, 200);
        let me = bench.init.config.me;
        let everybody = |others: &[Process]| {
            let servers = [process(me.get(), 0), process(100, me.get()), process(101, 100)];
            Event::Looked(Some([&servers[..], others].concat()))
        };
        // Looks are answered as long as there are any; what was ordered meanwhile.
        let answer = |bench: &mut Bench, others: &[Process]| {
            let mut all = Vec::new();
            loop {
                let orders = bench.take();
                let look = orders.contains(&Action::Look { kill: false });
                all.extend(orders);
                if !look {
                    return all;
                }
                bench.step(everybody(others));
            }
        };
        bench.term();
        bench.without_explaining();
        let orders = answer(&mut bench, &[process(200, me.get()), process(201, 200)]);
        assert_eq!(told_to_end(&orders), [job], "the mount is not asked with the job");
        bench.end_job(job, 200);
        // An orphan that the job has left is asked; the mount's server is not.
        let mut orders = answer(&mut bench, &[process(300, me.get())]);
        while !orders.contains(&Action::Signal(pid(300), Signal::TERM)) {
            bench.next_deadline();
            orders.extend(answer(&mut bench, &[process(300, me.get())]));
        }
        assert!(!orders.iter().any(|order| matches!(order, Action::Signal(who, _) if who.get() < 200)), "{orders:?}");
        bench.reap(300, Exit::Signal(Signal::TERM));
        let orders = answer(&mut bench, &[]);
        assert_eq!(told_to_end(&orders), []);
        assert_eq!(bench.init.phase(), Phase::Syncing, "{role:?}");
        bench.step(Event::Syncing(Vec::new()));
        // Now nobody is left who could use it.
        assert_eq!(told_to_end(&bench.take()), [mount]);
        assert_eq!(bench.init.phase(), Phase::Releasing);
        bench.end_job(mount, 100);
        assert_eq!(bench.take(), leave(0));
    }
}

/// A world that answers orders as the system does, and in which everybody dies of SIGKILL.
#[derive(Default)]
struct World {
    alive: crate::base::Map<i32, (i32, bool)>,
    next: i32,
    exited: Option<u8>,
    keepers: crate::base::Map<JobId, i32>,
    watched: Set<i32>,
}

impl World {
    fn perform(&mut self, order: Action, facts: &mut Vec<Event>) {
        match order {
            Action::ForkMain => {
                self.alive.insert(MAIN, (1, true));
                facts.push(Event::MainForked(Ok(pid(MAIN))));
            }
            Action::ForkKeeper { job, .. } => {
                self.next += 1;
                let keeper = 1000 + self.next;
                self.alive.insert(keeper, (1, false));
                self.keepers.insert(job, keeper);
                facts.push(Event::KeeperForked { job, keeper: Ok(pid(keeper)) });
            }
            Action::Tell { job, order: Order::Stop { .. } } => {
                if let Some(keeper) = self.keepers.remove(&job) {
                    let notice = Notice::Ended { exit: None, cause: shutdown(), wall_us: 0, usage: None };
                    facts.push(Event::Notice { job, notice });
                    self.die(keeper, facts);
                }
            }
            Action::SignalGroup(group, signal) => self.signal(group.get(), signal, facts),
            Action::Signal(target, signal) => self.signal(target.get(), signal, facts),
            Action::Watch(target) => {
                if self.alive.contains_key(&target.get()) {
                    self.watched.insert(target.get());
                } else {
                    facts.push(Event::WatchedEnded(target));
                }
            }
            Action::CheckAlone => facts.push(Event::Alone(self.alive.is_empty())),
            Action::Look { kill } => {
                if kill {
                    for target in self.alive.keys().copied().collect::<Vec<_>>() {
                        self.die(target, facts);
                    }
                }
                let seen = self.alive.iter().map(|(target, (parent, _))| process(*target, *parent)).collect();
                facts.push(Event::Looked(Some(seen)));
            }
            Action::Sync => {
                facts.push(Event::Syncing(vec![("/x (nfs4)".into(), None)]));
                facts.push(Event::Synced { volume: "/x (nfs4)".into(), error: None });
            }
            Action::Explain { .. } => facts.push(Event::Explained(Vec::new())),
            Action::AwaitKernel => facts.push(Event::KernelLetGo),
            Action::Census => facts.push(Event::Counted(Vec::new())),
            Action::Exit(code) => self.exited = Some(code),
            Action::Tell { .. }
            | Action::Hold(_)
            | Action::LetGo(_)
            | Action::Answer { .. }
            | Action::List(_)
            | Action::Status(_)
            | Action::ListServices(_)
            | Action::Reload
            | Action::EndStrays { .. }
            | Action::DropHalfLine
            | Action::AbortFuse { .. }
            | Action::TellSyncing { .. }
            | Action::Release
            | Action::StopSelf
            | Action::Suspend { .. }
            | Action::Log(..)
            | Action::Enter(_)
            | Action::Note(..)
            | Action::History(_)
            | Action::Follow(_) => {}
        }
    }

    fn signal(&mut self, target: i32, signal: Signal, facts: &mut Vec<Event>) {
        let deaf = self.alive.get(&target).is_none_or(|(_, deaf)| *deaf);
        if signal == Signal::KILL || signal == Signal::TERM && !deaf {
            self.die(target, facts);
        }
    }

    fn die(&mut self, target: i32, facts: &mut Vec<Event>) {
        let Some((parent, _)) = self.alive.remove(&target) else { return };
        for (other, _) in self.alive.values_mut() {
            if *other == target {
                *other = 1;
            }
        }
        if parent == 1 {
            facts.push(Event::Reaped { pid: pid(target), exit: Exit::Signal(Signal::KILL), account: None });
        } else if self.watched.remove(&target) {
            facts.push(Event::WatchedEnded(pid(target)));
        }
    }
}

#[derive(Clone, Debug)]
enum Happening {
    Job,
    Orphan { deaf: bool },
    Engine { deaf: bool },
    Signal(i32),
    Dies(usize),
    Garbage,
    Later(u64),
}

fn any_happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        Just(Happening::Job),
        any::<bool>().prop_map(|deaf| Happening::Orphan { deaf }),
        any::<bool>().prop_map(|deaf| Happening::Engine { deaf }),
        (1..65i32).prop_map(Happening::Signal),
        any::<usize>().prop_map(Happening::Dies),
        Just(Happening::Garbage),
        (0u64..5000).prop_map(Happening::Later),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_it_leaves_last_and_it_leaves(
        happenings in proptest::collection::vec(any_happening(), 0..60),
        pid1 in any::<bool>(),
        main in any::<bool>(),
        max_jobs in proptest::option::of(1usize..3),
    ) {
        let role = if pid1 { Role::Pid1 } else { Role::Subreaper };
        // In this world both roles have children of 1.
        let config = Config { max_jobs, me: Pid::INIT, stop_timeout: Some(20 * SECOND), ..config(role, main) };
        let mut init = Init::new(config);
        let mut world = World::default();
        let mut now = 0u64;
        let mut phase = Phase::Running;
        let turn = |init: &mut Init, world: &mut World, now: u64, first: Event| {
            let mut facts = vec![first];
            let mut orders = Vec::new();
            let mut steps = 0;
            while !facts.is_empty() {
                init.step(at(now), facts.remove(0), &mut orders);
                for order in orders.drain(..) {
                    world.perform(order, &mut facts);
                }
                steps += 1;
                assert!(steps < 1000, "it does not come to rest");
            }
        };
        turn(&mut init, &mut world, now, Event::Begin);
        let the_end = [Happening::Signal(15)];
        for happening in happenings.iter().chain(&the_end) {
            if world.exited.is_some() {
                break;
            }
            world.next += 1;
            let newcomer = 2000 + world.next;
            let event = match happening {
                Happening::Job => Event::Line(Line::Exec(RequestId(world.next as u128), None)),
                Happening::Orphan { deaf } => {
                    world.alive.insert(newcomer, (1, *deaf));
                    Event::Tick
                }
                Happening::Engine { deaf } => {
                    if pid1 {
                        world.alive.insert(newcomer, (0, *deaf));
                    }
                    Event::Tick
                }
                Happening::Signal(raw) => Event::Signal { signal: Signal::new(*raw).unwrap(), sender: Sender::Outside },
                Happening::Dies(which) => {
                    let mut facts = Vec::new();
                    let victim = world.alive.keys().copied().nth(which % world.alive.len().max(1));
                    if let Some(victim) = victim {
                        world.keepers.retain(|_, keeper| *keeper != victim);
                        world.die(victim, &mut facts);
                    }
                    for fact in facts {
                        turn(&mut init, &mut world, now, fact);
                    }
                    Event::Tick
                }
                Happening::Garbage => Event::BadLine(BadLine::TooLong),
                Happening::Later(ms) => {
                    now += ms;
                    Event::Tick
                }
            };
            turn(&mut init, &mut world, now, event);
            prop_assert!(init.phase() >= phase, "phases only go forward");
            phase = init.phase();
        }
        // From here on only its own deadlines wake it.
        let mut wakes = 0;
        while world.exited.is_none() {
            let deadline = init.deadline();
            prop_assert!(deadline.is_some(), "it waits for nothing: {:?} {:?}", init, world.alive);
            now = now.max(deadline.unwrap().0.div_ceil(1000));
            turn(&mut init, &mut world, now, Event::Tick);
            wakes += 1;
            prop_assert!(wakes < 1000);
        }
        prop_assert!(world.alive.is_empty(), "it left before {:?}", world.alive);
        prop_assert_eq!(init.deadline(), None);
    }
}
