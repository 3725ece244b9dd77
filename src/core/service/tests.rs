use proptest::prelude::*;

use super::*;
use crate::base::Signal;

const SECOND: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Tick {
    Tick(ms * 1000)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn service(text: &str) -> ServiceConfig {
    ServiceConfig {
        name: name(text),
        after: Default::default(),
        restart: Restart::Always,
        backoff: Backoff { initial: SECOND, max: 60 * SECOND, factor: 2.0, jitter: 0.0, reset_after: 60 * SECOND },
        retries: 0,
        critical: false,
        on_failure: None,
        on_restart: None,
        hook_timeout: Some(60 * SECOND),
        run: Rc::new(RunConfig::new(vec![text.into()])),
    }
}

fn after(mut config: ServiceConfig, needed: &[(&str, Condition)]) -> ServiceConfig {
    config.after = needed.iter().map(|(other, condition)| (name(other), *condition)).collect();
    config
}

fn mount(text: &str) -> ServiceConfig {
    let mut config = service(text);
    Rc::make_mut(&mut config.run).mount = Some("/mnt".into());
    Rc::make_mut(&mut config.run).ready = Ready::Mounted;
    config
}

/// Services under test; runs are numbered in the order of their beginning.
struct Bench {
    services: Services,
    now: u64,
    jobs: u64,
    runs: Vec<(Name, JobId)>,
    /// What was ordered since the last look, besides the runs; in words.
    said: Vec<String>,
    /// Hooks that run, and what all were given.
    hooks: Vec<JobId>,
    told: Vec<Vec<(String, String)>>,
}

impl Bench {
    fn new(configs: Vec<ServiceConfig>) -> Bench {
        let services = Services::new(configs, 1);
        let mut bench = Bench {
            services,
            now: 0,
            jobs: 0,
            runs: Vec::new(),
            said: Vec::new(),
            hooks: Vec::new(),
            told: Vec::new(),
        };
        bench.with(|services, now, orders| services.advance(now, orders));
        bench
    }

    fn with(&mut self, decide: impl FnOnce(&mut Services, Tick, &mut Vec<Do>)) {
        let mut orders = Vec::new();
        decide(&mut self.services, at(self.now), &mut orders);
        for order in orders {
            match order {
                Do::Run(name, _) => {
                    self.jobs += 1;
                    let job = JobId(self.jobs);
                    self.services.begun(&name, job);
                    self.said.push(format!("run {name}"));
                    self.runs.push((name, job));
                }
                Do::End { job, .. } => {
                    let (name, _) = self.runs.iter().find(|(_, run)| *run == job).unwrap();
                    self.said.push(format!("end {name}"));
                }
                Do::Hook(hook) => {
                    self.jobs += 1;
                    self.services.hook_begun(&hook.service, hook.kind, JobId(self.jobs));
                    self.hooks.push(JobId(self.jobs));
                    self.said.push(format!("hook {}", hook.words.join(" ")));
                    self.told.push(hook.env);
                }
                Do::Tell { name, state, next: None, .. } => self.said.push(format!("{name} {}", state.word())),
                Do::Tell { name, state, next: Some(next), .. } => {
                    self.said.push(format!("{name} {} {}", state.word(), next.as_millis()));
                }
                Do::Answer(_, None) => self.said.push("done".into()),
                Do::Answer(_, Some(why)) => self.said.push(format!("refused: {why}")),
                Do::Critical(name, code) => self.said.push(format!("critical {name} {code}")),
            }
        }
    }

    fn said(&mut self) -> Vec<String> {
        mem::take(&mut self.said)
    }

    fn job(&self, text: &str) -> JobId {
        self.runs.iter().rev().find(|(run, _)| run.as_str() == text).expect("a run").1
    }

    fn ready(&mut self, text: &str) {
        let job = self.job(text);
        self.with(|services, now, orders| {
            services.started(now, job, orders);
            services.ready(now, job, orders);
        });
    }

    fn ended(&mut self, text: &str, exit: Exit) {
        let job = self.job(text);
        self.with(|services, now, orders| {
            let cause = Cause::of(exit, None);
            services.ended(now, job, Some(exit), cause, orders);
        });
    }

    fn tick(&mut self, ms: u64) {
        self.now = ms;
        self.with(Services::tick_for_test);
    }

    fn state(&self, text: &str) -> State {
        self.services.infos(at(self.now)).into_iter().find(|info| info.service.as_str() == text).unwrap().state
    }

    fn stop(&mut self, text: &str) {
        let name = name(text);
        self.with(|services, now, orders| {
            services.stop(now, &name, &stopped(), None, orders);
        });
    }

    fn start(&mut self, text: &str) {
        let name = name(text);
        self.with(|services, now, orders| services.start(now, &name, Some(RequestId(1)), orders));
    }

    fn restart(&mut self, text: &str) {
        let name = name(text);
        self.with(|services, now, orders| services.restart(now, &name, &stopped(), Some(RequestId(1)), orders));
    }

    /// The oldest hook that runs.
    fn hook_ends(&mut self) {
        let job = self.hooks.remove(0);
        self.with(|services, now, orders| services.ended(now, job, Some(GOOD), Cause::Exited, orders));
    }

    fn replace(&mut self, configs: Vec<ServiceConfig>) {
        self.with(|services, now, orders| services.replace(now, configs, orders));
    }
}

impl Services {
    fn tick_for_test(&mut self, now: Tick, orders: &mut Vec<Do>) {
        self.tick(now, orders);
    }
}

fn stopped() -> Cause {
    Cause::Stopped { by: None }
}

const BAD: Exit = Exit::Code(3);
const GOOD: Exit = Exit::Code(0);

#[test]
fn a_service_that_exits_at_once_is_started_again_under_backoff() {
    let mut bench = Bench::new(vec![service("ray")]);
    assert_eq!(bench.said(), ["run ray"]);
    let mut delays = Vec::new();
    for _ in 0..8 {
        bench.ended("ray", BAD);
        let due = bench.services.deadline().expect("a next try");
        delays.push((due.0 - at(bench.now).0) / 1_000_000);
        bench.said();
        bench.tick(due.0 / 1000 - 1);
        assert_eq!(bench.said(), [""; 0], "not before its time");
        bench.tick(due.0 / 1000);
        assert_eq!(bench.said(), ["run ray"]);
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn what_was_ready_for_long_enough_begins_anew() {
    let mut bench = Bench::new(vec![service("ray")]);
    for (ready_for, delay) in [(0, 1000), (59_999, 2000), (60_000, 1000)] {
        bench.ready("ray");
        bench.now += ready_for;
        bench.said();
        bench.ended("ray", BAD);
        assert_eq!(bench.said(), [format!("ray backoff {delay}")], "after {ready_for} ms");
        bench.tick(bench.now + delay);
        bench.said();
    }
}

#[test]
fn the_policy_decides_whether_there_is_a_next_run() {
    let table = [
        (Restart::Always, GOOD, State::Backoff),
        (Restart::Always, BAD, State::Backoff),
        (Restart::OnFailure, GOOD, State::Succeeded),
        (Restart::OnFailure, BAD, State::Backoff),
        (Restart::OnFailure, Exit::Signal(Signal::KILL), State::Backoff),
        (Restart::Never, GOOD, State::Succeeded),
        (Restart::Never, BAD, State::Failed),
    ];
    for (restart, exit, state) in table {
        let mut bench = Bench::new(vec![ServiceConfig { restart, ..service("x") }]);
        bench.ready("x");
        bench.ended("x", exit);
        assert_eq!(bench.state("x"), state, "{restart:?} {exit}");
        assert_eq!(bench.services.are_over(), matches!(state, State::Succeeded | State::Failed));
    }
}

#[test]
fn the_limit_of_failures_is_kept_and_told_once() {
    let config = ServiceConfig {
        retries: 2,
        critical: true,
        on_failure: Some(vec!["page".into()]),
        on_restart: Some(vec!["note".into()]),
        ..service("x")
    };
    let mut bench = Bench::new(vec![config]);
    bench.said();
    for delay in [1000, 2000] {
        bench.ended("x", BAD);
        assert_eq!(bench.said(), [format!("x backoff {delay}"), "hook note".into()]);
        bench.hook_ends();
        bench.tick(bench.now + delay);
        assert_eq!(bench.said(), ["run x"]);
    }
    bench.ended("x", BAD);
    assert_eq!(bench.said(), ["x failed", "hook page", "critical x 3"]);
    assert_eq!(bench.services.deadline(), None);
    assert_eq!(bench.services.exit_code(), 3);
    // By hand it begins anew.
    bench.start("x");
    assert_eq!(bench.said(), ["run x"]);
    bench.ended("x", BAD);
    assert_eq!(bench.said(), ["x backoff 1000", "hook note"]);
}

#[test]
fn hooks_do_not_pile_up_and_the_last_word_is_told() {
    let word = |text: &str| Some(vec![text.to_string()]);
    let config = ServiceConfig { retries: 4, on_restart: word("note"), on_failure: word("page"), ..service("x") };
    let mut bench = Bench::new(vec![config]);
    let fail = |bench: &mut Bench| {
        bench.ended("x", BAD);
        bench.tick(bench.services.deadline().map_or(bench.now, |due| due.0 / 1000));
        bench.said().into_iter().filter(|said| said.starts_with("hook")).collect::<Vec<_>>()
    };
    assert_eq!(fail(&mut bench), ["hook note"]);
    assert_eq!((fail(&mut bench), fail(&mut bench)), (vec![], vec![]));
    bench.hook_ends();
    assert_eq!(bench.said(), ["hook note"], "one for both");
    assert!(bench.told[1].contains(&("LASTOUT_FAILURES".into(), "3".into())), "the latest: {:?}", bench.told[1]);
    assert_eq!(fail(&mut bench), [""; 0]);
    // It is another kind.
    assert_eq!(fail(&mut bench), ["hook page"]);
    bench.hook_ends();
    assert_eq!(bench.said(), ["hook note"]);
    bench.hook_ends();
    bench.hook_ends();
    assert_eq!(bench.said(), [""; 0], "everything is told");
}

#[test]
fn each_condition_is_waited_for() {
    let table: [(Condition, &[&str]); 4] = [
        (Condition::Started, &["started"]),
        (Condition::Ready, &["started", "ready"]),
        (Condition::Healthy, &["started", "ready", "healthy"]),
        (Condition::Succeeded, &["started", "ready", "healthy", "ended"]),
    ];
    for (condition, steps) in table {
        let first = ServiceConfig { restart: Restart::Never, ..service("a") };
        let mut bench = Bench::new(vec![after(service("b"), &[("a", condition)]), first]);
        assert_eq!(bench.said(), ["run a"]);
        let job = bench.job("a");
        for step in steps {
            assert!(!bench.said().contains(&"run b".into()), "{condition:?} before {step}");
            bench.with(|services, now, orders| match *step {
                "started" => services.started(now, job, orders),
                "ready" => services.ready(now, job, orders),
                "healthy" => services.healthy(now, job, true, orders),
                _ => services.ended(now, job, Some(GOOD), Cause::Exited, orders),
            });
        }
        assert!(bench.said().contains(&"run b".into()), "{condition:?}");
    }
}

#[test]
fn a_chain_starts_in_order_and_ends_in_reverse() {
    let configs = || {
        vec![
            after(service("c"), &[("b", Condition::Ready)]),
            after(service("b"), &[("a", Condition::Ready)]),
            after(service("x"), &[("a", Condition::Ready)]),
            service("a"),
        ]
    };
    let mut bench = Bench::new(configs());
    bench.ready("a");
    bench.ready("b");
    bench.ready("c");
    bench.ready("x");
    assert_eq!(bench.said(), ["run a", "a ready", "run b", "run x", "b ready", "run c", "c ready", "x ready"]);
    bench.with(|services, now, orders| services.shut_down(now, "test", orders));
    // Independent ones at the same time.
    assert_eq!(bench.said(), ["end c", "end x"]);
    bench.ended("x", GOOD);
    assert_eq!(bench.said(), ["x stopped"]);
    bench.ended("c", GOOD);
    assert_eq!(bench.said(), ["c stopped", "end b"]);
    bench.ended("b", GOOD);
    assert_eq!(bench.said(), ["b stopped", "end a"]);
    bench.ended("a", GOOD);
    assert_eq!(bench.said(), ["a stopped"]);
    assert_eq!(bench.services.deadline(), None);
}

#[test]
fn a_stop_in_every_state_ends_it_and_nothing_follows() {
    for (what, state) in [
        ("waiting", State::Waiting),
        ("starting", State::Starting),
        ("ready", State::Ready),
        ("backoff", State::Backoff),
    ] {
        let mut bench = Bench::new(vec![service("a"), after(service("x"), &[("a", Condition::Ready)])]);
        if what != "waiting" {
            bench.ready("a");
        }
        if matches!(what, "ready" | "backoff") {
            bench.ready("x");
        }
        if what == "backoff" {
            bench.ended("x", BAD);
        }
        assert_eq!(bench.state("x"), state);
        bench.said();
        bench.stop("x");
        let runs = matches!(what, "starting" | "ready");
        assert_eq!(bench.said(), [if runs { "end x" } else { "x stopped" }], "{what}");
        if runs {
            assert_eq!(bench.state("x"), State::Ending);
            bench.ended("x", BAD);
            assert_eq!(bench.said(), ["x stopped"]);
        }
        bench.ready("a");
        bench.tick(10_000_000);
        assert!(!bench.said().contains(&"run x".into()), "{what}");
        bench.start("x");
        assert!(bench.said().contains(&"run x".into()), "{what}");
        bench.ready("x");
        assert_eq!(bench.said(), ["x ready", "done"], "{what}");
    }
}

#[test]
fn who_needs_it_ends_before_it_and_comes_back_with_it() {
    let mut bench = Bench::new(vec![mount("gcs"), after(service("ray"), &[("gcs", Condition::Ready)])]);
    bench.ready("gcs");
    bench.ready("ray");
    bench.said();
    bench.restart("gcs");
    assert_eq!(bench.said(), ["end ray"]);
    bench.ended("ray", GOOD);
    assert_eq!(bench.said(), ["end gcs"]);
    bench.ended("gcs", GOOD);
    assert_eq!(bench.said(), ["run gcs"]);
    bench.ready("gcs");
    assert_eq!(bench.said(), ["gcs ready", "done", "run ray"]);
    // Stopped, it takes them along; they wait.
    bench.ready("ray");
    bench.stop("gcs");
    bench.ended("ray", GOOD);
    bench.ended("gcs", GOOD);
    assert_eq!((bench.state("ray"), bench.state("gcs")), (State::Waiting, State::Stopped));
    bench.said();
    // A start takes what it needs along.
    bench.start("ray");
    bench.ready("gcs");
    assert_eq!(bench.said(), ["run gcs", "gcs ready", "run ray"]);
}

#[test]
fn who_uses_a_mount_whose_server_dies_starts_again_with_it() {
    let mut bench =
        Bench::new(vec![mount("gcs"), after(service("ray"), &[("gcs", Condition::Ready)]), service("other")]);
    bench.ready("gcs");
    bench.ready("ray");
    bench.said();
    // At once: the path is there without the mount.
    let job = bench.job("gcs");
    bench.with(|services, now, orders| services.ending(now, job, orders));
    assert_eq!(bench.said(), ["end ray"]);
    // The mount itself goes when nobody could write beneath it.
    bench.ended("ray", GOOD);
    assert_eq!(bench.said(), ["end gcs"]);
    bench.ended("gcs", BAD);
    assert_eq!(bench.said(), ["gcs backoff 1000"]);
    bench.tick(1000);
    bench.ready("gcs");
    assert_eq!(bench.said(), ["run gcs", "gcs ready", "run ray"]);
    // Nobody uses it; and with a restart, no backoff.
    let mut bench = Bench::new(vec![mount("gcs")]);
    bench.ready("gcs");
    let job = bench.job("gcs");
    bench.said();
    bench.with(|services, now, orders| services.ending(now, job, orders));
    assert_eq!(bench.said(), ["end gcs"]);
    bench.restart("gcs");
    bench.ended("gcs", BAD);
    assert_eq!(bench.said(), ["run gcs"]);
}

#[test]
fn who_was_to_say_when_it_is_ready_and_ended_before_has_failed() {
    for (ready, state) in
        [(Ready::Started, State::Succeeded), (Ready::Notify, State::Failed), (Ready::Healthy, State::Failed)]
    {
        let mut config = ServiceConfig { restart: Restart::Never, ..service("x") };
        Rc::make_mut(&mut config.run).ready = ready;
        let mut bench = Bench::new(vec![config]);
        bench.ended("x", GOOD);
        assert_eq!(bench.state("x"), state, "{ready:?}");
    }
}

#[test]
fn a_restart_has_what_it_needs_tried_again() {
    let never = ServiceConfig { restart: Restart::Never, ..service("db") };
    let mut bench = Bench::new(vec![never, after(service("app"), &[("db", Condition::Ready)])]);
    bench.ready("db");
    bench.ready("app");
    bench.ended("db", BAD);
    bench.said();
    bench.restart("app");
    bench.ended("app", GOOD);
    bench.ready("db");
    bench.ready("app");
    assert_eq!(bench.said(), ["run db", "end app", "db ready", "run app", "app ready", "done"]);
}

#[test]
fn a_server_on_which_its_users_are_stuck_ends_before_them_if_it_is_to_end() {
    let mut bench = Bench::new(vec![mount("gcs"), after(service("ray"), &[("gcs", Condition::Ready)])]);
    bench.ready("gcs");
    bench.ready("ray");
    let job = bench.job("gcs");
    bench.services.mounted(job, "0:52".into());
    bench.said();
    bench.with(|services, now, orders| services.end_server(now, "0:52", "stuck", false, orders));
    assert_eq!(bench.said(), [""; 0], "it may answer again");
    bench.with(|services, now, orders| services.ending(now, job, orders));
    assert_eq!(bench.said(), ["end ray"]);
    bench.with(|services, now, orders| services.end_server(now, "0:51", "stuck", false, orders));
    bench.with(|services, now, orders| services.end_server(now, "0:52", "stuck", false, orders));
    assert_eq!(bench.said(), ["end gcs"]);
}

#[test]
fn a_mount_whose_server_dies_in_a_shutdown_waits_for_main_and_jobs() {
    let mut bench = Bench::new(vec![mount("gcs")]);
    bench.ready("gcs");
    let job = bench.job("gcs");
    bench.said();
    bench.with(|services, now, orders| services.shut_down(now, "test", orders));
    bench.with(|services, now, orders| services.ending(now, job, orders));
    assert_eq!(bench.said(), [""; 0]);
    bench.with(|services, now, orders| services.unmount(now, "test", orders));
    assert_eq!(bench.said(), ["end gcs"]);
}

#[test]
fn mounts_outlive_a_shutdown_until_they_are_told() {
    let mut bench = Bench::new(vec![mount("gcs"), after(service("ray"), &[("gcs", Condition::Ready)])]);
    bench.ready("gcs");
    bench.ready("ray");
    bench.said();
    bench.with(|services, now, orders| services.shut_down(now, "test", orders));
    assert_eq!(bench.said(), ["end ray"]);
    bench.ended("ray", GOOD);
    assert_eq!(bench.said(), ["ray stopped"]);
    bench.with(|services, now, orders| services.unmount(now, "test", orders));
    assert_eq!(bench.said(), ["end gcs"]);
}

#[test]
fn who_needs_what_has_failed_has_failed_too() {
    let never = |config| ServiceConfig { restart: Restart::Never, ..config };
    let mut bench = Bench::new(vec![
        never(service("a")),
        after(service("b"), &[("a", Condition::Ready)]),
        after(service("c"), &[("b", Condition::Started)]),
    ]);
    bench.said();
    bench.ended("a", BAD);
    assert_eq!(bench.said(), ["a failed", "b failed", "c failed"]);
    assert!(bench.services.are_over());
    bench.start("c");
    bench.ready("a");
    bench.ready("b");
    assert_eq!(bench.said(), ["run a", "a ready", "run b", "run c", "b ready"]);
}

#[test]
fn a_reload_touches_only_what_has_changed() {
    let other = |text: &str, word: &str| {
        let mut config = service(text);
        Rc::make_mut(&mut config.run).command.push(word.into());
        config
    };
    let mut bench = Bench::new(vec![service("same"), service("changed"), service("gone"), service("policy")]);
    for each in ["same", "changed", "gone", "policy"] {
        bench.ready(each);
    }
    bench.said();
    let policy = ServiceConfig { restart: Restart::Never, ..service("policy") };
    bench.replace(vec![service("same"), other("changed", "x"), policy, service("new")]);
    assert_eq!(bench.said(), ["run new", "end changed", "end gone"]);
    bench.ended("gone", GOOD);
    assert_eq!(bench.said(), ["gone stopped"]);
    assert!(!bench.services.has(&name("gone")));
    bench.ended("changed", GOOD);
    assert_eq!(bench.said(), ["run changed"]);
    bench.ended("policy", GOOD);
    assert_eq!(bench.state("policy"), State::Succeeded);
    // What somebody has stopped stays stopped.
    bench.stop("same");
    bench.ended("same", GOOD);
    bench.said();
    bench.replace(vec![other("same", "y"), other("changed", "x")]);
    assert_eq!(bench.said(), ["policy stopped", "end new"]);
    assert_eq!(bench.state("same"), State::Stopped);
}

#[test]
fn a_change_that_is_taken_back_before_it_has_come_never_runs() {
    let config = |word: &str| {
        let mut config = service("ray");
        Rc::make_mut(&mut config.run).command.push(word.into());
        config
    };
    let mut bench = Bench::new(vec![config("one")]);
    bench.ready("ray");
    bench.replace(vec![config("two")]);
    bench.replace(vec![config("one")]);
    bench.said();
    bench.ended("ray", GOOD);
    assert_eq!(bench.said(), ["run ray"]);
    assert_eq!(*bench.services.list[0].config.run, *config("one").run);
}

#[test]
fn the_exit_code_is_the_first_failures_though_another_stands_first_in_the_file() {
    let never = |text| ServiceConfig { restart: Restart::Never, ..service(text) };
    let mut bench = Bench::new(vec![
        after(never("dependent"), &[("first", Condition::Ready)]),
        never("second"),
        never("first"),
        never("mended"),
    ]);
    bench.ended("mended", Exit::Code(7));
    bench.start("mended");
    bench.ended("first", Exit::Code(5));
    bench.ended("second", Exit::Code(6));
    bench.ended("mended", GOOD);
    assert_eq!((bench.state("dependent"), bench.services.exit_code()), (State::Failed, 5));
}

#[test]
fn who_fails_while_the_others_stop_has_failed_and_who_was_asked_has_not() {
    let never = |text| ServiceConfig { restart: Restart::Never, on_failure: Some(vec!["x".into()]), ..service(text) };
    let user = |text| after(never(text), &[("fails", Condition::Ready), ("ends", Condition::Ready)]);
    let again = ServiceConfig { retries: 3, ..service("again") };
    let needs = after(never("user2"), &[("again", Condition::Ready)]);
    let mut bench = Bench::new(vec![never("fails"), never("ends"), user("user"), again, needs]);
    for each in ["fails", "ends", "user", "again", "user2"] {
        bench.ready(each);
    }
    bench.said();
    bench.with(|services, now, orders| services.shut_down(now, "test", orders));
    assert_eq!(bench.said(), ["end user", "end user2"]);
    bench.ended("fails", Exit::Code(9));
    bench.ended("ends", GOOD);
    bench.ended("again", BAD);
    // Nothing is started any more, not a hook either.
    assert_eq!(bench.said(), ["fails failed", "ends succeeded", "again stopped"]);
    bench.ended("user", BAD);
    bench.ended("user2", BAD);
    assert_eq!((bench.said(), bench.services.exit_code()), (vec!["user stopped".into(), "user2 stopped".into()], 9));
}

#[derive(Clone, Debug)]
enum Step {
    Ready(usize),
    End(usize, bool),
    Tick,
    Start(usize),
    Stop(usize),
    Restart(usize),
    Replace(usize),
    Shut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        4 => (0..4_usize).prop_map(Step::Ready),
        4 => (0..4_usize, any::<bool>()).prop_map(|(which, good)| Step::End(which, good)),
        3 => Just(Step::Tick),
        1 => (0..4_usize).prop_map(Step::Start),
        1 => (0..4_usize).prop_map(Step::Stop),
        1 => (0..4_usize).prop_map(Step::Restart),
        1 => (0..4_usize).prop_map(Step::Replace),
        1 => Just(Step::Shut),
    ];
    proptest::collection::vec(one, 0..60)
}

proptest! {
    /// Whatever happens: no service has two runs, who runs has what it needs or is being ended, who is in backoff has a
    /// deadline, and after a shutdown the ends of the runs are all that it takes until none is left.
    #[test]
    fn no_sequence_loses_a_run(steps in steps()) {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let configs = |changed: usize| -> Vec<ServiceConfig> {
            let mut all = vec![
                ServiceConfig { retries: 1, ..service("a") },
                after(service("b"), &[("a", Condition::Ready)]),
                after(ServiceConfig { restart: Restart::OnFailure, ..service("c") }, &[("a", Condition::Started), ("b", Condition::Ready)]),
                after(ServiceConfig { restart: Restart::Never, ..service("d") }, &[("c", Condition::Succeeded)]),
            ];
            Rc::make_mut(&mut all[changed].run).command.push(changed.to_string());
            all
        };
        let mut bench = Bench::new(configs(0));
        let live = |bench: &Bench, text: &str| {
            bench.services.infos(at(bench.now)).into_iter().find(|info| info.service.as_str() == text).and_then(|info| info.job)
        };
        let end = |bench: &mut Bench, job: JobId, exit: Exit| {
            bench.with(|services, now, orders| services.ended(now, job, Some(exit), Cause::of(exit, None), orders));
        };
        for step in steps {
            match step {
                Step::Ready(which) => if live(&bench, NAMES[which]).is_some() { bench.ready(NAMES[which]) },
                Step::End(which, good) => if let Some(job) = live(&bench, NAMES[which]) {
                    end(&mut bench, job, if good { GOOD } else { BAD });
                },
                Step::Tick => if let Some(due) = bench.services.deadline() { bench.tick(bench.now.max(due.0.div_ceil(1000))) },
                Step::Start(which) => if !bench.services.closed { bench.start(NAMES[which]) },
                Step::Stop(which) => bench.stop(NAMES[which]),
                Step::Restart(which) => if !bench.services.closed { bench.restart(NAMES[which]) },
                Step::Replace(which) => bench.replace(configs(which)),
                Step::Shut => bench.with(|services, now, orders| services.shut_down(now, "test", orders)),
            }
            for info in bench.services.infos(at(bench.now)) {
                let runs = matches!(info.state, State::Starting | State::Ready | State::Ending);
                prop_assert_eq!(runs, info.job.is_some(), "{:?}", info);
                prop_assert_eq!(info.state == State::Backoff, info.next_ms.is_some(), "{:?}", info);
            }
        }
        bench.with(|services, now, orders| services.shut_down(now, "test", orders));
        bench.said();
        while let Some(job) = NAMES.iter().find_map(|text| {
            live(&bench, text).filter(|_| bench.state(text) == State::Ending)
        }) {
            end(&mut bench, job, GOOD);
        }
        prop_assert!(NAMES.iter().all(|text| live(&bench, text).is_none()));
        prop_assert_eq!(bench.services.deadline(), None);
        prop_assert!(!bench.said().iter().any(|said| said.starts_with("run")));
    }
}

#[test]
fn what_a_mount_needs_ends_after_it() {
    let mut bench = Bench::new(vec![
        service("proxy"),
        after(mount("gcs"), &[("proxy", Condition::Ready)]),
        after(service("ray"), &[("gcs", Condition::Ready)]),
    ]);
    for each in ["proxy", "gcs", "ray"] {
        bench.ready(each);
    }
    let serves =
        |bench: &Bench| ["proxy", "gcs", "ray"].map(|each| bench.services.serving_mounts().contains(&bench.job(each)));
    assert_eq!(serves(&bench), [true, true, false]);
    bench.said();
    bench.with(|services, now, orders| services.shut_down(now, "enough", orders));
    assert_eq!(bench.said(), ["end ray"]);
    bench.ended("ray", GOOD);
    assert_eq!(bench.said(), ["ray stopped"]);
    bench.with(|services, now, orders| services.unmount(now, "enough", orders));
    assert_eq!(bench.said(), ["end gcs"]);
    bench.ended("gcs", GOOD);
    assert_eq!(bench.said(), ["gcs stopped", "end proxy"]);
}

#[test]
fn a_file_is_taken_in_whole_before_anybody_is_judged_by_it() {
    let held = after(service("held"), &[("a", Condition::Ready), ("b", Condition::Ready)]);
    let mut bench = Bench::new(vec![service("a"), service("b"), held]);
    bench.ended("a", BAD);
    bench.said();
    // What it waited for goes, one after the other; it needs nobody any more.
    let mut critical = service("held");
    critical.critical = true;
    bench.replace(vec![critical]);
    assert!(!bench.said().iter().any(|said| said.contains("failed") || said.contains("critical")));
    assert_eq!(bench.state("held"), State::Starting);
}

#[test]
fn what_a_new_file_mends_begins_anew_with_all_that_failed_for_it() {
    let broken = |text: &str| {
        let mut config = service(text);
        (config.restart, config.retries) = (Restart::Never, 1);
        config
    };
    let dependents = || {
        let of = |text, other| after(service(text), &[(other, Condition::Ready)]);
        [of("ray", "gcs"), of("dashboard", "ray")]
    };
    let mut bench = Bench::new([vec![broken("gcs"), service("slow")], dependents().into()].concat());
    bench.ended("gcs", BAD);
    bench.ended("slow", BAD);
    assert_eq!((bench.state("dashboard"), bench.state("slow")), (State::Failed, State::Backoff));
    bench.said();
    let other = |text: &str| {
        let mut config = broken(text);
        Rc::make_mut(&mut config.run).command = vec!["other".into()];
        config
    };
    bench.replace([vec![other("gcs"), other("slow")], dependents().into()].concat());
    assert_eq!(bench.said(), ["run gcs", "run slow"]);
    assert_eq!((bench.state("ray"), bench.state("dashboard")), (State::Waiting, State::Waiting));
}

#[test]
fn what_was_gone_for_a_moment_comes_back() {
    let mut bench = Bench::new(vec![service("ray"), service("other")]);
    bench.ready("ray");
    bench.replace(vec![service("other")]);
    bench.replace(vec![service("ray"), service("other")]);
    bench.said();
    bench.ended("ray", GOOD);
    assert_eq!(bench.said(), ["run ray"]);
}

#[test]
fn lines_that_a_log_lost_count_on_over_runs() {
    let mut bench = Bench::new(vec![service("x")]);
    let dropped = |bench: &Bench| bench.services.infos(at(bench.now))[0].dropped;
    for (run, expected) in [(5, 5), (2, 7), (0, 7)] {
        let job = bench.job("x");
        // Each is the count of its run so far.
        bench.services.dropped(job, run / 2);
        bench.services.dropped(job, run);
        assert_eq!(dropped(&bench), expected);
        bench.ended("x", BAD);
        assert_eq!(dropped(&bench), expected);
        bench.tick(bench.now + 60_000);
    }
}
