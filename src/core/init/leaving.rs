//! Leaving: which phase it is, and whose end it waits for.

use std::mem;

use super::{Engine, Init, Main, Role, Syncing, passed_over};
use crate::{
    base::{Map, Pid, Process, Set, Signal, Tick, Whom},
    core::{Action, Ending, Level, Phase, STUCK_EVERY, flood::Flood, shutdown::SWEEP_AT_LEAST},
    proto::{Cause, Happening, Order},
};

impl Init {
    pub(super) fn enter(&mut self, now: Tick, phase: Phase, orders: &mut Vec<Action>) {
        debug_assert!(phase > self.phase, "{:?} after {:?}", phase, self.phase);
        orders.push(Action::Enter(phase));
        self.phase = phase;
        match phase {
            Phase::Census if self.gave_up => {}
            Phase::Census if self.lingers => orders.push(Action::AwaitKernel),
            Phase::Census => self.begin_census(now, orders),
            Phase::Syncing => orders.push(Action::Sync),
            Phase::Releasing => {
                orders.extend(self.bad_lines.iter_mut().filter_map(Flood::finish).map(passed_over));
                self.with_services(now, orders, |services, todo| services.unmount(now, "nobody is left", todo));
            }
            Phase::Gone => orders.push(Action::Exit(self.exit_code())),
            Phase::Stopping => self.explaining.begin(now),
            Phase::Running | Phase::Sweeping => {}
        }
    }

    pub(super) fn begin_census(&mut self, now: Tick, orders: &mut Vec<Action>) {
        // As PID 1 the kernel has just said that nobody else is in the namespace.
        if self.config.census && self.config.role == Role::Subreaper {
            orders.push(Action::Census);
        } else {
            self.begin_syncing(now, orders);
        }
    }

    pub(super) fn begin_syncing(&mut self, now: Tick, orders: &mut Vec<Action>) {
        let grace = self.services.longest_grace(self.budget.for_sweeping(now));
        let until = grace.map(|grace| now + grace);
        self.syncing = Some(Syncing { since: now, say_at: now + STUCK_EVERY, until, volumes: Map::new() });
        self.enter(now, Phase::Syncing, orders);
    }

    /// A mount of ours that does not take what was written is not waited for beyond its grace: its server's end is the
    /// answer to whoever still waits for it.
    pub(super) fn give_up_own_volumes(&mut self, now: Tick, orders: &mut Vec<Action>) {
        let Some(syncing) = self.syncing.as_mut().filter(|_| self.phase == Phase::Syncing) else { return };
        if syncing.until.take_if(|until| now >= *until).is_none() {
            return;
        }
        let services = &self.services;
        let is_own = |device: &Option<String>| device.as_ref().is_some_and(|device| services.serves(device));
        let own: Vec<String> =
            syncing.volumes.iter().filter(|(_, device)| is_own(device)).map(|(name, _)| name.clone()).collect();
        for name in own {
            syncing.volumes.remove(&name);
            self.sync_failed = true;
            let what = format!("{name} does not take what was written: its server is ended");
            orders.push(Action::Note(Level::Error, Happening::SyncFailed { what }));
        }
        self.synced(now, orders);
    }

    /// The phase is over when every volume has answered.
    pub(super) fn synced(&mut self, now: Tick, orders: &mut Vec<Action>) {
        if self.phase == Phase::Syncing && self.syncing.as_ref().is_none_or(|syncing| syncing.volumes.is_empty()) {
            self.syncing = None;
            self.enter(now, Phase::Releasing, orders);
        }
    }

    fn name_left_behind(&self, orders: &mut Vec<Action>) {
        let mut names: Vec<String> = self.explaining.found.iter().map(|stuck| stuck.process.to_string()).collect();
        if names.is_empty() {
            names = self.last_seen.iter().filter(|p| !p.is_dead()).map(describe).collect();
        }
        if names.is_empty() {
            names.push("something that cannot be inspected".into());
        }
        orders.extend(names.iter().map(|name| Action::Log(Level::Error, format!("left behind: {name}"))));
    }

    /// Passes every phase whose end has come.
    pub(super) fn advance(&mut self, now: Tick, orders: &mut Vec<Action>) {
        loop {
            match self.phase {
                Phase::Running => {
                    let why = if let Some(name) = self.critical_failed.take() {
                        self.stop_main(now, Cause::Killed { signal: Signal::TERM, by: None }, orders);
                        self.stop(now, &format!("{name} has failed"), orders);
                        continue;
                    } else if matches!(self.main, Main::Ended(_)) {
                        "main has ended"
                    } else if self.main == Main::None && self.services.are_over() && self.table.is_idle() {
                        "every service has ended"
                    } else {
                        return;
                    };
                    self.begin_stopping(now, why, orders);
                }
                Phase::Stopping if self.gave_up => self.enter(now, Phase::Census, orders),
                Phase::Stopping => {
                    let main_ended = matches!(self.main, Main::None | Main::Ended(_));
                    if main_ended && self.busy().is_empty() {
                        if self.spares_leftovers() {
                            self.enter(now, Phase::Census, orders);
                            continue;
                        }
                        match self.alone {
                            None => return self.check_alone(orders),
                            Some(true) => {
                                self.enter(now, Phase::Census, orders);
                                continue;
                            }
                            Some(false) => {}
                        }
                    }
                    self.look_beside_us(orders);
                    match &self.engine {
                        Engine::Unknown | Engine::Looking => return,
                        Engine::Known { alive, .. } => {
                            if main_ended && alive.is_empty() && self.busy().is_empty() {
                                self.begin_sweeping(now, orders);
                            } else {
                                // Main's orphans were left to main; now they need not wait for the others.
                                if main_ended && !self.spares_leftovers() {
                                    self.sweep(now, orders);
                                }
                                return;
                            }
                        }
                    }
                }
                Phase::Sweeping => match self.alone {
                    None => return self.check_alone(orders),
                    Some(true) => self.enter(now, Phase::Census, orders),
                    Some(false) if self.gave_up => self.enter(now, Phase::Census, orders),
                    Some(false) => return self.sweep(now, orders),
                },
                Phase::Census if self.gave_up => {
                    self.name_left_behind(orders);
                    self.enter(now, Phase::Releasing, orders);
                }
                Phase::Census => return,
                Phase::Syncing if self.gave_up => self.enter(now, Phase::Releasing, orders),
                Phase::Syncing | Phase::Gone => return,
                // A mount's server writes back what it holds before it ends.
                Phase::Releasing if !self.gave_up && !self.table.active().is_empty() => return,
                Phase::Releasing => {
                    orders.push(Action::Release);
                    // Clients that wait for our end see it as end-of-file.
                    self.enter(now, Phase::Gone, orders);
                }
            }
        }
    }

    /// As PID 1 nothing can be spared: the kernel would end it, and unasked.
    fn spares_leftovers(&self) -> bool {
        self.config.spare_leftovers && self.config.role == Role::Subreaper
    }

    pub(super) fn begin_stopping(&mut self, now: Tick, why: &str, orders: &mut Vec<Action>) {
        orders.push(Action::Note(Level::Info, Happening::Stopping { why: why.into() }));
        self.enter(now, Phase::Stopping, orders);
        for job in self.table.drain_queue() {
            let cause = Cause::Shutdown { why: why.into() };
            self.note_end(now, job, (None, cause.clone(), 0, None), orders);
            self.end_job(now, job, None, cause, orders);
        }
        let grace_ms = u64::try_from(self.budget.left(now).as_millis()).unwrap_or(u64::MAX);
        self.with_services(now, orders, |services, todo| services.shut_down(now, why, todo));
        for job in self.table.active() {
            // Of what has ended, only the keeper is left.
            let over = self.table.get(job).is_none_or(|job| job.outcome.is_some());
            if over || self.services.of(job).is_some() {
                continue;
            }
            let order = Order::Stop { cause: Cause::Shutdown { why: why.into() }, grace_ms, asked: false };
            orders.push(Action::Tell { job, order });
        }
    }

    /// Finds whom a stop concerns besides jobs: as PID 1 what the engine started beside us, whose parent is
    /// outside; and who is in main's group and so was sent the stop signal with main.
    fn look_beside_us(&mut self, orders: &mut Vec<Action>) {
        if self.engine != Engine::Unknown {
            return;
        }
        if self.config.role == Role::Pid1 || self.asked_group.is_some() {
            self.engine = Engine::Looking;
            self.looking = true;
            orders.push(Action::Look { kill: false });
        } else {
            self.engine = Engine::Known { alive: Set::new(), kill_at: Tick(0), killed: true };
        }
    }

    fn begin_sweeping(&mut self, now: Tick, orders: &mut Vec<Action>) {
        let time = self.budget.for_sweeping(now);
        // What jobs and the engine's processes left is found only now, and is to have its time, too.
        self.ending(now).not_before(now + time.min(SWEEP_AT_LEAST));
        self.enter(now, Phase::Sweeping, orders);
    }

    /// What ends everything that is nobody's.
    fn ending(&mut self, now: Tick) -> &mut Ending {
        let time = self.budget.for_sweeping(now);
        let begin = || {
            let ending = Ending::begin(now, self.config.me, time).by_groups(self.config.own_group);
            ending.having_asked(mem::take(&mut self.asked))
        };
        self.sweep.get_or_insert_with(begin)
    }

    /// Has somebody look around, if it is time to.
    fn sweep(&mut self, now: Tick, orders: &mut Vec<Action>) {
        let due = self.ending(now).wants_look(now);
        if due && !self.looking {
            self.looking = true;
            orders.push(Action::Look { kill: self.kills_all(now) });
        }
    }

    /// What is nobody's: while jobs and the engine's processes are ending, they and all below them are not.
    fn nobodys(&self, seen: Vec<Process>) -> Vec<Process> {
        let engines = match &self.engine {
            Engine::Known { alive, .. } => alive.clone(),
            Engine::Unknown | Engine::Looking => Set::new(),
        };
        let theirs = self.with_keepers(&seen, engines);
        seen.into_iter().filter(|p| !theirs.contains(&p.id.pid)).collect()
    }

    /// These and the keepers, and all below them.
    fn with_keepers(&self, seen: &[Process], mut owned: Set<Pid>) -> Set<Pid> {
        owned.extend(self.table.keepers());
        // Parents may come after their children.
        owned.closed_under(|owned| {
            let inner = |p: &&Process| p.parent.is_some_and(|parent| owned.contains(&parent));
            seen.iter().filter(inner).map(|p| p.id.pid).collect()
        })
    }

    pub(super) fn check_alone(&mut self, orders: &mut Vec<Action>) {
        // With mounts' servers about, the kernel's word is not enough: only a look tells them from others.
        if self.serves_mounts() {
            if !self.looking {
                self.looking = true;
                orders.push(Action::Look { kill: false });
            }
            return;
        }
        // A helper that looks around is one of us: ask when it has come back.
        if !self.asked_alone && !self.looking {
            self.asked_alone = true;
            orders.push(Action::CheckAlone);
        }
    }

    pub(super) fn ended(&mut self, now: Tick, pid: Pid) {
        if self.looking {
            self.ended_meanwhile.push(pid);
        }
        self.somebody_ended(now);
    }

    pub(super) fn somebody_ended(&mut self, now: Tick) {
        if self.phase >= Phase::Stopping {
            self.alone = None;
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.child_ended(now);
        }
    }

    /// The grace of Sweeping is over: as PID 1 one system call ends even what forks all the time.
    pub(super) fn kills_all(&mut self, now: Tick) -> bool {
        let forced = self.sweep.as_ref().is_some_and(|sweep| sweep.is_due(now));
        forced
            && self.phase == Phase::Sweeping
            && self.config.role == Role::Pid1
            && !self.serves_mounts()
            && !mem::replace(&mut self.killed_all, true)
    }

    pub(super) fn looked(&mut self, now: Tick, seen: Option<Vec<Process>>, orders: &mut Vec<Action>) {
        self.looking = false;
        let ended = mem::take(&mut self.ended_meanwhile);
        let Some(mut seen) = seen else { return self.looked_in_vain(now, orders) };
        // No signal to a number that may be somebody else's by now.
        seen.retain(|p| !ended.contains(&p.id.pid));
        if !self.lingers && seen.iter().any(|p| p.lingers) {
            // For what is theirs, keepers wait themselves.
            let theirs = self.with_keepers(&seen, Set::new());
            self.lingers = seen.iter().any(|p| p.lingers && p.id.pid != self.config.me && !theirs.contains(&p.id.pid));
        }
        let from_engine = |p: &&Process| p.parent.is_none() && p.id.pid != self.config.me && !p.is_dead();
        if self.engine == Engine::Looking {
            // Who was born since has not heard it.
            let group = self.asked_group;
            let heard = |p: &Process| {
                let (_, at) = group.filter(|(group, _)| p.group == group.get() && !p.is_dead())?;
                Some((p.id, p.id.started(at).is_lt())).filter(|_| p.id.started(at).is_le())
            };
            self.asked = seen.iter().filter_map(heard).collect();
            // Not PID 1, nobody's parent is outside.
            let pid1 = self.config.role == Role::Pid1;
            let alive: Set<Pid> = seen.iter().filter(from_engine).filter(|_| pid1).map(|p| p.id.pid).collect();
            for pid in &alive {
                orders.extend([Action::Watch(*pid), Action::Signal(*pid, Signal::TERM)]);
            }
            let stopped = seen.iter().filter(|p| alive.contains(&p.id.pid) && p.is_stopped());
            orders.extend(stopped.map(|p| Action::Signal(p.id.pid, Signal::CONT)));
            self.engine = Engine::Known { alive, kill_at: now + self.budget.left(now), killed: false };
            self.alone = None;
            return;
        }
        if self.config.role == Role::Pid1 && self.phase == Phase::Sweeping {
            orders.extend(seen.iter().filter(from_engine).map(|p| Action::Watch(p.id.pid)));
            // What is dead and not our child is its parent's to reap, outside.
            if seen.iter().all(|p| p.is_dead() || p.id.pid == self.config.me) {
                self.alone = Some(true);
            }
        }
        let seen = self.nobodys(seen);
        if self.serves_mounts() && self.busy().is_empty() && self.main_pid().is_none() {
            self.alone = Some(seen.iter().all(|p| p.is_dead() || p.id.pid == self.config.me));
        }
        if let Some(sweep) = &mut self.sweep {
            orders.extend(sweep.looked(now, &seen).into_iter().map(|(whom, signal)| match whom {
                Whom::One(pid) => Action::Signal(pid, signal),
                Whom::Group(group) => Action::SignalGroup(group, signal),
            }));
            // What they left may be found only by another look; nothing else would say so.
            if !ended.is_empty() {
                sweep.child_ended(now);
            }
            if let Some(forced) = sweep.forced_for(now) {
                let somebody = !sweep.stuck(now, &seen).is_empty();
                self.is_stuck(now, forced, somebody);
            }
        }
        self.last_seen = seen;
    }

    /// Without `/proc` nobody can be asked one by one; the deadline and SIGKILL to all remain.
    fn looked_in_vain(&mut self, now: Tick, orders: &mut Vec<Action>) {
        if self.blind_said.is_none_or(|said| now.since(said) >= STUCK_EVERY) {
            self.blind_said = Some(now);
            let text = "cannot inspect processes, nor ask them one by one: no usable /proc";
            orders.push(Action::Log(Level::Warn, text.into()));
        }
        if self.engine == Engine::Looking {
            self.engine = Engine::Known { alive: Set::new(), kill_at: now, killed: true };
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.looked(now, &[]);
            let patient = sweep.forced_for(now).is_none_or(|forced| forced < self.config.stuck_timeout);
            self.gave_up |= self.config.role == Role::Subreaper && self.phase == Phase::Sweeping && !patient;
        }
    }
}

fn describe(process: &Process) -> String {
    format!("pid {} ({}, state {})", process.id.pid, process.comm, process.state)
}
