//! One run of a service, beside what it has in common with a job ([`super::Job`]): what comes before its command, whether
//! it is ready and healthy, what it says of itself, and its mount.
//!
//! Everything that is forked besides the command is a [`Task`]. A task is ordered, forked and reaped; from the order to
//! the end it is counted, so that "no child is left" is never believed of a moment before the fork.

mod health;
mod notes;
mod readiness;
mod said;
mod unmount;

use std::{collections::VecDeque, rc::Rc, time::Duration};

use super::{
    JobAction,
    service::{Check, Ready, RunConfig},
};
use crate::{
    base::{Exit, Pid, Tick},
    proto::{Cause, Notice},
};
use health::{Checks, Due, Verdict};
pub use notes::{Note, notes};
use readiness::Readiness;
use said::Said;
pub use unmount::BUSY;
pub(super) use unmount::{DETACH, Todo, Unmount};

/// Characters of a command that a cause names.
const COMMAND: usize = 200;
/// Between two times that a status is told.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// The exit code of a child that found no path to mount on.
pub const ABSENT: u8 = 2;

/// What a keeper forks for a service besides its command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// Looks whether the mount's path can be mounted on. Exit code 0: it can; [`ABSENT`]: it is not there, which a setup
    /// may mend; otherwise it says why not.
    Prepare,
    /// A command of the setup, counted from 0.
    Setup(usize),
    /// A health check. Exit code 0 is healthy; otherwise the last line that it says is the reason.
    Check,
    /// Unmounts the mount. Exit code 0: done; [`BUSY`]: somebody holds it; otherwise it cannot.
    Unmount,
    /// Unmounts the mount lazily.
    Detach,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Run {
    config: Rc<RunConfig>,
    /// What comes before the command, and has not begun.
    steps: VecDeque<Task>,
    /// The time of the step that runs.
    step_until: Option<Tick>,
    tasks: Vec<(Task, Option<Pid>)>,
    /// The command was ordered.
    commanded: bool,
    readiness: Readiness,
    checks: Option<Checks>,
    /// By the step, and by the check.
    said: [Said; 2],
    status: Option<String>,
    status_told: Option<Tick>,
    mounted: bool,
    detached: bool,
}

impl Run {
    pub(super) fn new(config: Rc<RunConfig>) -> Run {
        // Before the setup, which could not make a directory where a dead mount is; and after, when it must be there.
        let prepare = || config.mount.is_some().then_some(Task::Prepare).into_iter();
        let setup = (0..config.setup.len()).map(Task::Setup);
        let again = prepare().filter(|_| !config.setup.is_empty());
        Run {
            steps: prepare().chain(setup).chain(again).collect(),
            readiness: Readiness::new(config.watchdog),
            config,
            step_until: None,
            tasks: Vec::new(),
            commanded: false,
            checks: None,
            said: Default::default(),
            status: None,
            status_told: None,
            mounted: false,
            detached: false,
        }
    }

    pub(super) fn config(&self) -> &RunConfig {
        &self.config
    }

    /// Whether something that was ordered has not ended. The command's own end is not known here.
    pub(super) fn has_tasks(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Whether the command was ordered.
    pub(super) fn is_commanded(&self) -> bool {
        self.commanded
    }

    pub(super) fn is_mounted(&self) -> bool {
        self.mounted
    }

    /// A mount that is still there when all have ended is detached, once.
    pub(super) fn wants_detach(&mut self) -> bool {
        self.mounted && !std::mem::replace(&mut self.detached, true)
    }

    pub(super) fn fork(&mut self, task: Task, orders: &mut Vec<JobAction>) {
        self.tasks.push((task, None));
        orders.push(JobAction::Fork(task));
    }

    /// On with the next step, or the command.
    pub(super) fn next_step(&mut self, now: Tick, orders: &mut Vec<JobAction>) {
        match self.steps.pop_front() {
            Some(step) => {
                self.said[0].clear();
                self.step_until = Some(now + self.config.setup_timeout);
                self.fork(step, orders);
            }
            None => {
                self.step_until = None;
                self.commanded = true;
                orders.push(JobAction::ForkCommand);
            }
        }
    }

    pub(super) fn task_forked(&mut self, task: Task, pid: Pid, orders: &mut Vec<JobAction>) {
        if let Some(entry) = self.tasks.iter_mut().find(|entry| **entry == (task, None)) {
            entry.1 = Some(pid);
        }
        match task {
            Task::Setup(number) => orders.push(JobAction::Tell(Notice::Setup(number + 1))),
            Task::Check if self.checks.as_ref().is_none_or(|checks| checks.deadline().is_none()) => {
                orders.push(JobAction::EndTask(pid));
            }
            Task::Prepare | Task::Check | Task::Unmount | Task::Detach => {}
        }
    }

    /// A task that could not be forked.
    pub(super) fn forget(&mut self, task: Task) {
        self.tasks.retain(|entry| *entry != (task, None));
    }

    /// The task that this was, if it was one.
    pub(super) fn take(&mut self, pid: Pid) -> Option<Task> {
        let at = self.tasks.iter().position(|(_, forked)| *forked == Some(pid))?;
        Some(self.tasks.swap_remove(at).0)
    }

    pub(super) fn said(&mut self, task: Task, bytes: &[u8]) {
        match task {
            // What an earlier step left running is not this step.
            Task::Prepare | Task::Setup(_) if self.tasks.iter().any(|(running, _)| *running == task) => {
                self.said[0].push(bytes);
            }
            Task::Check => self.said[1].push(bytes),
            Task::Prepare | Task::Setup(_) | Task::Unmount | Task::Detach => {}
        }
    }

    /// A step has ended, or (`Err`) could not be forked. Why the run is over, if it is.
    pub(super) fn step_ended(
        &mut self,
        now: Tick,
        step: Task,
        exit: Result<Exit, String>,
        orders: &mut Vec<JobAction>,
    ) -> Option<Cause> {
        match exit {
            Ok(Exit::Code(0)) => {
                self.next_step(now, orders);
                None
            }
            Ok(Exit::Code(ABSENT)) if step == Task::Prepare && !self.steps.is_empty() => {
                self.next_step(now, orders);
                None
            }
            Ok(exit) => Some(self.step_failed(step, Some(exit))),
            Err(reason) => Some(Cause::Refused { reason }),
        }
    }

    fn step_failed(&self, step: Task, exit: Option<Exit>) -> Cause {
        let output = self.said[0].text();
        match (step, &self.config.mount) {
            (Task::Setup(number), _) => {
                let command = self.config.setup.get(number).map(|words| text(words)).unwrap_or_default();
                Cause::SetupFailed { command, exit, output }
            }
            (Task::Prepare | Task::Check | Task::Unmount | Task::Detach, path) => {
                let path = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
                let reason = match exit {
                    Some(_) if !output.is_empty() => output,
                    Some(exit) => format!("cannot tell whether {path} can be mounted on: {exit}"),
                    None => format!("cannot mount on {path}: it does not answer"),
                };
                Cause::Refused { reason }
            }
        }
    }

    /// The command was forked.
    pub(super) fn command_forked(&mut self, now: Tick) {
        self.readiness.started(now, self.config.start_timeout);
    }

    /// The command was executed.
    pub(super) fn executed(&mut self, now: Tick, orders: &mut Vec<JobAction>) {
        self.checks = self.config.health.as_ref().map(|health| Checks::begin(now, health));
        self.is_ready(now, Ready::Started, orders);
    }

    /// Something has happened that makes a service ready for which this counts.
    pub(super) fn is_ready(&mut self, now: Tick, by: Ready, orders: &mut Vec<JobAction>) {
        if self.config.ready == by && self.readiness.ready(now) {
            orders.push(JobAction::Tell(Notice::Ready));
        }
    }

    /// Its path is a mount point now, or none any more. Why it is over, if it is: what is written there now is beneath it.
    pub(super) fn mounted(&mut self, now: Tick, device: Option<String>, orders: &mut Vec<JobAction>) -> Option<Cause> {
        let was_mounted = self.mounted;
        self.set_mounted(device.is_some());
        match device {
            Some(device) => {
                orders.push(JobAction::Tell(Notice::Mounted(device)));
                self.is_ready(now, Ready::Mounted, orders);
                None
            }
            None => was_mounted.then_some(Cause::Unmounted),
        }
    }

    pub(super) fn set_mounted(&mut self, mounted: bool) {
        self.mounted = mounted;
    }

    /// Whether this is a child of the keeper's own that does what may block, and nobody's command.
    pub(super) fn is_own(&self, pid: Pid) -> bool {
        let by_command = matches!(self.config.health.as_ref().map(|health| &health.check), Some(Check::Command(_)));
        let own = |task: &Task| match task {
            Task::Prepare | Task::Unmount | Task::Detach => true,
            Task::Check => !by_command,
            Task::Setup(_) => false,
        };
        self.tasks.iter().any(|(task, forked)| *forked == Some(pid) && own(task))
    }

    /// What it says of itself, as long as it is not being ended. Why it is over, if it is.
    pub(super) fn noted(
        &mut self,
        now: Tick,
        note: Note,
        grace: Duration,
        orders: &mut Vec<JobAction>,
    ) -> Option<Cause> {
        match note {
            Note::Ready => self.is_ready(now, Ready::Notify, orders),
            Note::Stopping => {
                self.readiness.stopping(now, grace);
                self.end_checks(orders);
            }
            Note::Status(status) => self.says(now, status, orders),
            Note::Alive => self.readiness.alive(now),
            Note::Trigger => return self.readiness.trigger().then_some(Cause::WatchdogTriggered),
            Note::Watchdog(every) => self.readiness.set_watchdog(now, every),
            Note::Extend(time) => self.readiness.extend(now, time),
        }
        None
    }

    /// What it says of itself, also while it is being ended.
    pub(super) fn says(&mut self, now: Tick, status: String, orders: &mut Vec<JobAction>) {
        self.status = Some(status);
        self.tell_status(now, orders);
    }

    /// When its status is to be told.
    pub(super) fn status_at(&self) -> Option<Tick> {
        let told = self.status.as_ref().map(|_| self.status_told);
        told.map(|told| told.map_or(Tick(0), |told| told + STATUS_PAUSE))
    }

    pub(super) fn tell_status(&mut self, now: Tick, orders: &mut Vec<JobAction>) {
        if self.status_at().is_some_and(|at| now >= at) {
            self.status_told = Some(now);
            orders.extend(self.status.take().map(|status| JobAction::Tell(Notice::Status(status))));
        }
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        let checks = self.checks.as_ref().and_then(Checks::deadline);
        [self.step_until, self.readiness.deadline(), checks, self.status_at()].into_iter().flatten().min()
    }

    /// A moment. Why the run is over, if it is.
    pub(super) fn tick(&mut self, now: Tick, orders: &mut Vec<JobAction>) -> Option<Cause> {
        self.tell_status(now, orders);
        if self.step_until.is_some_and(|until| now >= until) {
            let is_step = |task: &Task| matches!(task, Task::Prepare | Task::Setup(_));
            let step = self.tasks.iter().map(|(task, _)| *task).find(is_step);
            return step.map(|step| self.step_failed(step, None));
        }
        if let Some(cause) = self.readiness.overdue(now) {
            return Some(cause);
        }
        let (due, verdict) = self.checks.as_mut()?.tick(now);
        match due {
            Due::Start => {
                self.said[1].clear();
                self.fork(Task::Check, orders);
            }
            Due::Kill => self.end_check(orders),
            Due::Nothing => {}
        }
        self.verdict(now, verdict, orders)
    }

    /// A check has ended, or could not be forked.
    pub(super) fn check_ended(
        &mut self,
        now: Tick,
        exit: Result<Exit, String>,
        orders: &mut Vec<JobAction>,
    ) -> Option<Cause> {
        let said = self.said[1].line();
        let checks = self.checks.as_mut()?;
        let is_ours = self.config.health.as_ref().is_some_and(|health| !matches!(health.check, Check::Command(_)));
        let verdict = match exit {
            // The exit code of a child of our own tells nobody anything.
            Ok(exit) if is_ours && exit != Exit::Code(0) && said.is_some() => checks.ended(now, None, said),
            Ok(exit) => checks.ended(now, Some(exit), said),
            Err(reason) => checks.ended(now, None, Some(reason)),
        };
        self.verdict(now, verdict, orders)
    }

    fn verdict(&mut self, now: Tick, verdict: Verdict, orders: &mut Vec<JobAction>) -> Option<Cause> {
        match verdict {
            Verdict::Same => None,
            Verdict::Healthy => {
                orders.push(JobAction::Tell(Notice::Healthy(true)));
                self.is_ready(now, Ready::Healthy, orders);
                None
            }
            Verdict::Unhealthy(why) => {
                orders.push(JobAction::Tell(Notice::Healthy(false)));
                Some(Cause::Unhealthy { why })
            }
        }
    }

    /// The tree is being ended: nobody asks any more whether it is ready or healthy.
    pub(super) fn quit(&mut self, orders: &mut Vec<JobAction>) {
        self.steps.clear();
        self.step_until = None;
        self.readiness.over();
        self.end_checks(orders);
    }

    fn end_checks(&mut self, orders: &mut Vec<JobAction>) {
        if let Some(checks) = &mut self.checks {
            checks.stop();
        }
        self.end_check(orders);
    }

    fn end_check(&mut self, orders: &mut Vec<JobAction>) {
        let check = self.tasks.iter().find(|(task, _)| *task == Task::Check);
        orders.extend(check.and_then(|(_, pid)| *pid).map(JobAction::EndTask));
    }
}

/// A command as a person would type it, shortened; of `/bin/sh -c TEXT` the text.
fn text(words: &[String]) -> String {
    let text = match words {
        [shell, c, text] if shell == "/bin/sh" && c == "-c" => text.clone(),
        [..] => shell_words::join(words),
    };
    match text.char_indices().nth(COMMAND) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
