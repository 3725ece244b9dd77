//! Ending a set of processes: ask, wait, force.
//!
//! Whatever a look finds gets SIGTERM (or what the members of one group are to get instead), once, and SIGCONT if it is stopped; but what has a living ancestor
//! that was asked before is left alone: it may be what that one starts in order to save its work (a `cp`, a
//! `sync`), and must not be shot down. When its ancestors have ended it is an orphan like any other, and is
//! asked. Who was forked and had executed nothing yet when he was asked may have had his parent's handlers, which took
//! the signal (a shell's trap, before the shell's child executes its command): he is asked again when he has executed
//! something. One command may be asked alone: then what is below it counts as if that one had been asked before. When the
//! grace is over, everything gets SIGKILL, look after look, until nobody is left; that nobody is left is a fact from
//! outside (no child left to wait for), not a conclusion of this module.
//!
//! SIGKILL goes to whole process groups: a family of which each member forks the next one and ends is gone before
//! a signal for one of them arrives, but none of it escapes a signal for all. So a group is forced for a dead
//! member, too. Our own group is not: others are in it.
//!
//! It promises: nothing is killed before it was asked, or had its grace (whoever a command that is asked alone, and does
//! not go, keeps below it is not asked); nothing else is asked twice; there is
//! a deadline as long as somebody is left.

use std::time::Duration;

use crate::base::{Map, Pgid, Pid, ProcId, Process, Set, Signal, Tick, Whom};

/// Between two looks that are made because a child ended.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks after SIGKILL: doubles from the first to the second.
const KILL_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// After a look that asked somebody who had executed nothing yet: doubles as often as that.
const EARLY_PAUSE: (Duration, u32) = (Duration::from_millis(50), 4);
/// A process that SIGKILL has not ended after this time is called stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(2);
/// Between two times that what is stuck is named.
pub const STUCK_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    /// Asked by somebody else, or born a moment too late for that.
    Perhaps,
    /// Asked before it had executed anything.
    Early,
    Term,
    /// At this moment, by itself or with its group.
    Kill(Tick, Whom),
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Ending {
    me: Pid,
    kill_at: Tick,
    /// The members of this process group are asked by this signal instead of SIGTERM.
    other: Option<(Pgid, Signal)>,
    /// What is below it is its own to end, as long as it lives.
    alone: Option<Pid>,
    /// Whole groups are forced, but for this one.
    own_group: Option<Option<Pgid>>,
    told: Map<ProcId, Said>,
    forced_since: Option<Tick>,
    last_look: Option<Tick>,
    next_look: Option<Tick>,
    pause: Duration,
    /// Looks for those that were asked early.
    again: u32,
    /// The group was asked, since nobody could be looked at.
    asked_in_vain: bool,
}

impl Ending {
    /// Begins to end what is below `me`, the caller. The first look is due at once.
    pub fn begin(now: Tick, me: Pid, grace: Duration) -> Ending {
        Ending {
            me,
            kill_at: now + grace,
            other: None,
            alone: None,
            own_group: None,
            told: Map::new(),
            forced_since: None,
            last_look: None,
            next_look: Some(now),
            pause: KILL_PAUSE.0,
            again: 0,
            asked_in_vain: false,
        }
    }

    /// Counts these as asked: somebody has sent them SIGTERM already. Of whom that is not certain is asked again as soon
    /// as it is nobody's; what is below it is left alone as with any other.
    pub fn having_asked(mut self, asked: impl IntoIterator<Item = (ProcId, bool)>) -> Ending {
        let said = |certain| if certain { Said::Term } else { Said::Perhaps };
        self.told.extend(asked.into_iter().map(|(id, certain)| (id, said(certain))));
        self
    }

    /// Asks the members of this process group by this signal instead of SIGTERM.
    pub fn asking(mut self, group: Option<Pgid>, signal: Signal) -> Ending {
        self.other = group.map(|group| (group, signal));
        self
    }

    /// Leaves what is below this one to it, as long as it lives.
    pub fn asking_alone(mut self, command: Option<Pid>) -> Ending {
        self.alone = command;
        self
    }

    /// Forces whole groups, but never our own. Only for who ends all that is below him: others may be in a group, too.
    pub fn by_groups(mut self, own: Option<Pgid>) -> Ending {
        self.own_group = Some(own);
        self
    }

    fn request(&self, process: &Process) -> Signal {
        // The command may not have made its group yet.
        let member = |group: i32| [process.group, process.id.pid.get()].contains(&group);
        let it = |group: Pgid| member(group.get()) && self.alone.is_none_or(|alone| alone == process.id.pid);
        let other = self.other.filter(|(group, _)| it(*group));
        other.map_or(Signal::TERM, |(_, signal)| signal)
    }

    /// Forces no earlier than this: whoever is found now is to have some time, too.
    pub fn not_before(&mut self, kill_at: Tick) {
        self.kill_at = self.kill_at.max(kill_at);
    }

    /// Forces earlier than it was going to. Never later.
    pub fn hurry(&mut self, kill_at: Tick) {
        self.kill_at = self.kill_at.min(kill_at);
    }

    /// A child of ours ended: its own children may be ours now.
    pub fn child_ended(&mut self, now: Tick) {
        let due = self.last_look.map_or(now, |last| (last + LOOK_PAUSE).max(now));
        self.next_look = Some(self.next_look.map_or(due, |next| next.min(due)));
    }

    /// When something is due.
    pub fn deadline(&self) -> Tick {
        let kill = if self.is_forcing() { None } else { Some(self.kill_at) };
        let due = [kill, self.next_look].into_iter().flatten().min();
        due.unwrap_or(self.kill_at)
    }

    /// Whether a look is due.
    pub fn wants_look(&self, now: Tick) -> bool {
        now >= self.deadline()
    }

    /// Whether the grace is over.
    pub fn is_due(&self, now: Tick) -> bool {
        now >= self.kill_at
    }

    /// Since when SIGKILL is being sent.
    pub fn forced_for(&self, now: Tick) -> Option<Duration> {
        self.forced_since.map(|since| now.since(since))
    }

    /// Those that live although they were forced a while ago.
    pub fn stuck<'a>(&self, now: Tick, seen: &'a [Process]) -> Vec<&'a Process> {
        let old = |said: &Said| matches!(said, Said::Kill(since, _) if now.since(*since) >= STUCK_AFTER);
        let is_stuck = |process: &&Process| !process.is_dead() && self.told.get(&process.id).is_some_and(old);
        seen.iter().filter(is_stuck).collect()
    }

    /// Whom to force for this one.
    fn target(&self, process: &Process) -> Whom {
        let group = self.own_group.and_then(|own| Pgid::seen(process.group).filter(|group| Some(*group) != own));
        group.map_or(Whom::One(process.id.pid), Whom::Group)
    }

    fn is_forcing(&self) -> bool {
        self.last_look.is_some_and(|last| last >= self.kill_at)
    }

    /// Takes what a look saw; answers with the signals to send, in order.
    pub fn looked(&mut self, now: Tick, seen: &[Process]) -> Vec<(Whom, Signal)> {
        self.last_look = Some(now);
        if self.is_due(now) {
            self.forced_since.get_or_insert(now);
            return self.force(now, seen);
        }
        let mut signals = Vec::new();
        let mut early = false;
        let spared = self.below_the_asked(seen);
        for process in seen.iter().filter(|p| p.id.pid != self.me && !p.is_dead()) {
            let said = self.told.get(&process.id).copied();
            let pid = process.id.pid;
            let asks = match said {
                None | Some(Said::Perhaps) => !spared.contains(&pid),
                // What it has executed has handlers of its own.
                Some(Said::Early) => !process.forked,
                Some(Said::Term | Said::Kill(..)) => false,
            };
            early |= process.forked && (asks || said == Some(Said::Early));
            if asks {
                signals.push((Whom::One(pid), self.request(process)));
                if process.is_stopped() {
                    signals.push((Whom::One(pid), Signal::CONT));
                }
                self.told.insert(process.id, if process.forked { Said::Early } else { Said::Term });
            }
        }
        let (pause, most) = EARLY_PAUSE;
        let again = (early && self.again < most).then(|| now + pause * (1 << self.again));
        self.again += u32::from(again.is_some());
        self.next_look = again;
        signals
    }

    /// Nobody can be looked at. Answers with what to send to the group, if there still is one: asked once, and forced.
    pub fn looked_in_vain(&mut self, now: Tick, group: Option<Pgid>) -> Option<(Pgid, Signal)> {
        self.looked(now, &[]);
        let group = group?;
        if self.is_due(now) {
            return Some((group, Signal::KILL));
        }
        let asks = !std::mem::replace(&mut self.asked_in_vain, true);
        asks.then(|| (group, self.other.map_or(Signal::TERM, |(_, signal)| signal)))
    }

    fn force(&mut self, now: Tick, seen: &[Process]) -> Vec<(Whom, Signal)> {
        let mut signals = Vec::new();
        let mut groups = Set::new();
        let (mut news, mut somebody) = (false, false);
        for process in seen.iter().filter(|p| p.id.pid != self.me) {
            let target = self.target(process);
            // Whoever changed his group since the look was not in it when that was forced.
            let has_it = matches!(self.told.get(&process.id), Some(Said::Kill(_, by)) if *by == target);
            let is_new = !has_it && !process.is_dead();
            if is_new {
                self.told.insert(process.id, Said::Kill(now, target));
            }
            news |= is_new;
            somebody |= !process.is_dead();
            match target {
                Whom::Group(group) if (is_new || process.is_dead()) && groups.insert(group.get()) => {
                    signals.push((Whom::Group(group), Signal::KILL));
                }
                Whom::One(pid) if is_new => signals.push((Whom::One(pid), Signal::KILL)),
                Whom::Group(_) | Whom::One(_) => {}
            }
        }
        self.next_look = Some(if news { now } else { now + self.pause });
        // Nobody is seen and somebody is left: he is too quick for us, so we are not to become slower.
        let too_quick = !somebody && self.forced_for(now).is_some_and(|time| time < STUCK_AFTER);
        if !news && !too_quick {
            self.pause = (self.pause * 2).min(KILL_PAUSE.1);
        }
        signals
    }
}

impl Ending {
    /// The processes that have a living ancestor which was asked in an earlier look.
    fn below_the_asked(&self, seen: &[Process]) -> Set<Pid> {
        let known: Map<Pid, &Process> = seen.iter().map(|process| (process.id.pid, process)).collect();
        let was_asked = |process: &Process| {
            !process.is_dead() && (self.told.contains_key(&process.id) || self.alone == Some(process.id.pid))
        };
        let is_below = |process: &&Process| {
            let parent =
                |of: &Process| of.parent.filter(|parent| *parent != self.me).and_then(|parent| known.get(&parent));
            let ancestors = std::iter::successors(parent(process), |ancestor| parent(ancestor));
            // A tree is not deeper than it has members; the bound is against a torn picture.
            ancestors.take(seen.len()).any(|ancestor| was_asked(ancestor))
        };
        seen.iter().filter(is_below).map(|process| process.id.pid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Pid = Pid::INIT;

    fn process(pid: i32, parent: i32, state: char) -> Process {
        let id = ProcId { pid: Pid::new(pid).unwrap(), start: 1 };
        Process {
            id,
            parent: Pid::new(parent),
            group: 0,
            state,
            threads: 1,
            comm: "x".into(),
            lingers: false,
            forked: false,
        }
    }

    fn at(ms: u64) -> Tick {
        Tick(ms * 1000)
    }

    /// Groups as negative numbers, as kill(2) has them.
    fn number(whom: Whom) -> i32 {
        match whom {
            Whom::One(pid) => pid.get(),
            Whom::Group(group) => -group.get(),
        }
    }

    fn said(signals: Vec<(Whom, Signal)>) -> Vec<(i32, &'static str)> {
        let name = |s| match s {
            Signal::TERM => "TERM",
            Signal::CONT => "CONT",
            Signal::KILL => "KILL",
            _ => "?",
        };
        signals.into_iter().map(|(whom, signal)| (number(whom), name(signal))).collect()
    }

    #[test]
    fn everything_is_asked_then_forced() {
        let mut ending = Ending::begin(at(0), ME, Duration::from_secs(7));
        assert!(ending.wants_look(at(0)));
        let seen = [process(1, 0, 'S'), process(2, 1, 'S'), process(3, 2, 'T'), process(4, 1, 'Z')];
        assert_eq!(said(ending.looked(at(0), &seen)), [(2, "TERM"), (3, "TERM"), (3, "CONT")]);
        assert!(!ending.wants_look(at(6999)));
        assert_eq!(ending.deadline(), at(7000));
        assert_eq!(said(ending.looked(at(6999), &seen)), []);
        assert_eq!(said(ending.looked(at(7000), &seen)), [(2, "KILL"), (3, "KILL")]);
        // New ones may have been born meanwhile: look again at once, then with growing pauses.
        assert!(ending.wants_look(at(7000)));
        assert_eq!(said(ending.looked(at(7000), &seen)), []);
        assert_eq!(ending.deadline(), at(7010));
        assert_eq!(said(ending.looked(at(7010), &[process(9, 2, 'R')])), [(9, "KILL")]);
    }

    #[test]
    fn what_a_handler_starts_is_left_alone_until_it_is_an_orphan() {
        let mut ending = Ending::begin(at(0), ME, Duration::from_secs(7));
        ending.looked(at(0), &[process(2, 1, 'S')]);
        ending.child_ended(at(10));
        assert_eq!(ending.deadline(), at(50));
        assert_eq!(said(ending.looked(at(50), &[process(2, 1, 'S'), process(3, 2, 'S')])), []);
        ending.child_ended(at(200));
        assert_eq!(said(ending.looked(at(200), &[process(3, 1, 'S')])), [(3, "TERM")]);
    }

    #[test]
    fn who_was_asked_by_others_is_not_asked_again_nor_what_it_starts() {
        let id = process(2, 1, 'S').id;
        let mut ending = Ending::begin(at(0), ME, Duration::from_secs(7)).having_asked([(id, true)]);
        let seen = [process(2, 1, 'S'), process(3, 2, 'S'), process(4, 3, 'S'), process(5, 1, 'S'), process(6, 0, 'S')];
        assert_eq!(said(ending.looked(at(0), &seen)), [(5, "TERM"), (6, "TERM")]);
        // Its leader ended: they are orphans now.
        let seen = [process(3, 1, 'S'), process(4, 3, 'S')];
        assert_eq!(said(ending.looked(at(60), &seen)), [(3, "TERM"), (4, "TERM")]);
    }

    #[test]
    fn a_pid_that_is_used_again_is_another_process() {
        let mut ending = Ending::begin(at(0), ME, Duration::from_secs(7));
        ending.looked(at(0), &[process(2, 1, 'S')]);
        let mut reused = process(2, 1, 'S');
        reused.id.start = 99;
        assert_eq!(said(ending.looked(at(60), &[reused])), [(2, "TERM")]);
    }

    #[test]
    fn a_zombie_leader_with_live_threads_is_not_dead() {
        let mut ending = Ending::begin(at(0), ME, Duration::from_secs(7));
        let mut leader = process(2, 1, 'Z');
        leader.threads = 2;
        assert_eq!(said(ending.looked(at(0), &[leader])), [(2, "TERM")]);
    }

    #[test]
    fn what_is_below_a_command_that_is_asked_alone_is_asked_when_it_has_ended() {
        let mut ending = Ending::begin(at(0), ME, Duration::from_secs(7)).asking_alone(Some(Pid::new(2).unwrap()));
        // A daemon of the command's that is not below it any more is nobody's.
        let seen = [process(2, 1, 'S'), process(3, 2, 'S'), process(4, 3, 'S'), process(5, 1, 'S')];
        assert_eq!(said(ending.looked(at(0), &seen)), [(2, "TERM"), (5, "TERM")]);
        ending.child_ended(at(100));
        assert_eq!(said(ending.looked(at(100), &[process(3, 1, 'S'), process(4, 3, 'S')])), [(3, "TERM"), (4, "TERM")]);
        assert_eq!(said(ending.looked(at(7000), &[process(4, 1, 'S')])), [(4, "KILL")]);

        let mut deaf = Ending::begin(at(0), ME, Duration::from_secs(7)).asking_alone(Some(Pid::new(2).unwrap()));
        assert_eq!(said(deaf.looked(at(0), &seen[..2])), [(2, "TERM")]);
        assert_eq!(said(deaf.looked(at(7000), &seen[..2])), [(2, "KILL"), (3, "KILL")]);
    }

    #[test]
    fn who_was_asked_before_it_had_executed_anything_is_asked_again_when_it_has() {
        let mut ending = Ending::begin(at(0), ME, Duration::from_secs(7));
        // A shell, and its child before and after it has become its command; a worker that never executes anything.
        let early = |pid| Process { forked: true, ..process(pid, 2, 'S') };
        let seen = [process(2, 1, 'S'), early(3), early(4)];
        assert_eq!(said(ending.looked(at(0), &seen)), [(2, "TERM"), (3, "TERM"), (4, "TERM")]);
        assert_eq!(ending.deadline(), at(50));
        assert_eq!(said(ending.looked(at(50), &seen)), []);
        assert_eq!(ending.deadline(), at(150));
        let seen = [process(2, 1, 'S'), process(3, 2, 'S'), early(4)];
        assert_eq!(said(ending.looked(at(150), &seen)), [(3, "TERM")]);
        assert_eq!(said(ending.looked(at(350), &seen)), []);
        // What never does is not looked at for ever.
        assert_eq!(said(ending.looked(at(750), &seen)), []);
        assert_eq!(ending.deadline(), at(7000));
        assert_eq!(said(ending.looked(at(7000), &seen)), [(2, "KILL"), (3, "KILL"), (4, "KILL")]);
    }

    #[test]
    fn one_group_may_be_asked_in_its_own_way() {
        let group = Pgid::led_by(Pid::new(2).unwrap());
        let mut ending = Ending::begin(at(0), ME, Duration::from_secs(7)).asking(group, Signal::INT);
        let of = |group: i32, process: Process| Process { group, ..process };
        let seen = [
            of(2, process(2, 1, 'S')),
            of(2, process(3, 2, 'T')),
            of(4, process(4, 2, 'S')),
            of(0, process(5, 1, 'S')),
        ];
        let signals = ending.looked(at(0), &seen).into_iter().map(|(whom, signal)| (number(whom), signal));
        let (int, term) = (Signal::INT, Signal::TERM);
        assert_eq!(signals.collect::<Vec<_>>(), [(2, int), (3, int), (3, Signal::CONT), (4, term), (5, term)]);
        assert_eq!(said(ending.looked(at(7000), &seen[..1])), [(2, "KILL")]);
    }

    #[test]
    fn whole_groups_are_forced_but_never_our_own() {
        let of = |group: i32, process: Process| Process { group, ..process };
        let seen = [
            of(2, process(2, 1, 'S')),
            of(2, process(3, 2, 'S')),
            // Ours, and those that kill(2) would take for more than a group.
            of(9, process(4, 1, 'S')),
            of(0, process(5, 1, 'S')),
            of(1, process(6, 1, 'S')),
            // Whoever is left of this one's group has not been seen.
            of(7, process(7, 1, 'Z')),
            of(9, process(8, 1, 'Z')),
        ];
        let begin = || Ending::begin(at(0), ME, Duration::ZERO);
        let kill = |list: &[i32]| list.iter().map(|number| (*number, "KILL")).collect::<Vec<_>>();
        let mut ending = begin().by_groups(Pgid::seen(9));
        assert_eq!(said(ending.looked(at(0), &seen)), kill(&[-2, 4, 5, 6, -7]));
        // The living have it; of the dead one's family somebody may be new.
        assert_eq!(said(ending.looked(at(0), &seen)), kill(&[-7]));
        let moved = [of(3, process(3, 2, 'S'))];
        assert_eq!(said(ending.looked(at(0), &moved)), kill(&[-3]), "it was not in its group any more");
        assert_eq!(said(begin().looked(at(0), &seen)), kill(&[2, 3, 4, 5, 6]), "who does not say so");
        let mut asked = Ending::begin(at(0), ME, Duration::from_secs(7)).by_groups(None);
        let term: Vec<_> = said(asked.looked(at(0), &seen)).into_iter().map(|(number, _)| number).collect();
        assert_eq!(term, [2, 3, 4, 5, 6], "each is asked for itself");
    }

    #[test]
    fn who_is_too_quick_to_be_seen_is_looked_for_all_the_time_and_is_not_stuck() {
        let mut ending = Ending::begin(at(0), ME, Duration::from_secs(7)).by_groups(None);
        // Late by an hour: the force begins with the first look.
        assert_eq!(ending.forced_for(at(3_600_000)), None);
        let mut now = 3_600_000;
        for pid in 0..100 {
            let seen = if pid % 2 == 0 { vec![] } else { vec![process(100 + pid, 1, 'R')] };
            ending.looked(at(now), &seen);
            assert_eq!(ending.stuck(at(now), &seen), Vec::<&Process>::new());
            let next = ending.deadline();
            assert!(next <= at(now + 10), "{next:?} at {now}");
            now = next.0 / 1000;
        }
        assert_eq!(ending.forced_for(at(now)), Some(Duration::from_millis(now - 3_600_000)));
        // Who does not go has had it for long; and who is not there at all does not cost us everything.
        let seen = [process(2, 1, 'D'), process(3, 1, 'Z')];
        ending.looked(at(now), &seen);
        assert!(ending.stuck(at(now + 1999), &seen).is_empty());
        assert_eq!(ending.stuck(at(now + 2000), &seen), [&seen[0]]);
        for _ in 0..10 {
            now = ending.deadline().0 / 1000 + 2000;
            ending.looked(at(now), &[]);
        }
        assert_eq!(ending.deadline(), at(now + 500));
    }

    #[test]
    fn hurry_only_shortens() {
        let mut ending = Ending::begin(at(0), ME, Duration::from_secs(7));
        ending.looked(at(0), &[]);
        ending.hurry(at(9000));
        assert_eq!(ending.deadline(), at(7000));
        ending.hurry(at(3000));
        assert_eq!(ending.deadline(), at(3000));
    }
}
