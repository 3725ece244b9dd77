//! What a keeper waits for, and takes in.

use std::os::fd::AsFd;

use super::{
    Cgroup, Keeper,
    service::{Ear, Service},
    terminal::Terminal,
};
use crate::{
    core::JobEvent,
    inspect,
    proto::{OomKill, Order},
    sys::{
        clock,
        link::Received,
        poll::{Interest, wait_any},
        signals, spawn,
        wait::{AT_ONCE, Reaped, has_children, reap},
    },
};

impl Keeper<'_> {
    /// Waits for the next thing and takes it in: ends last, so that what was said before them comes first.
    pub(super) fn wait(&mut self) {
        let mut fds = vec![(self.signals.fd().as_fd(), Interest::Read)];
        let link = add(&mut fds, (!self.init_gone).then(|| (self.start.link.fd().as_fd(), Interest::Read)));
        let outcome = add(&mut fds, self.outcome.as_ref().map(|fd| (fd.as_fd(), Interest::Read)));
        let reply = add(&mut fds, self.reply.as_ref().map(|fd| (fd.as_fd(), Interest::Hangup)));
        let outputs: Vec<_> = self.outputs.iter().map(|output| add(&mut fds, output.interest())).collect();
        let first_of_terminal = fds.len();
        fds.extend(self.terminal.as_ref().map(Terminal::interests).unwrap_or_default());
        let of_service = self.service.as_ref().map(Service::interests).unwrap_or_default();
        let first_of_service = fds.len();
        fds.extend(of_service.iter().map(|(_, fd, interest)| (*fd, *interest)));
        let timeout = self.job.deadline().map(|deadline| deadline.since(clock::now()));
        let ready = match wait_any(&fds, timeout) {
            Ok(ready) => ready,
            Err(error) => {
                log::error!("{}: cannot wait for events: {error}", self.start.job);
                return;
            }
        };
        let for_terminal = ready[first_of_terminal..first_of_service].contains(&true);
        let is_ready = |index: Option<usize>| index.is_some_and(|index| ready[index]);
        let heard = of_service.iter().zip(&ready[first_of_service..]).filter(|(_, ready)| **ready);
        let heard: Vec<Ear> = heard.map(|((ear, ..), _)| *ear).collect();
        if let Some(service) = &mut self.service {
            service.hear(&heard, &mut self.facts);
        }
        for (output, index) in self.outputs.iter_mut().zip(&outputs) {
            if is_ready(*index) {
                output.relay();
            }
        }
        if let Some(terminal) = self.terminal.as_mut().filter(|_| for_terminal) {
            terminal.turn();
        }
        if is_ready(link) {
            self.take_orders();
        }
        if is_ready(outcome) {
            self.take_outcome();
        }
        if is_ready(reply) {
            self.reply = None;
            // Nobody is at the terminal any more: its foreground gets SIGHUP.
            self.terminal = None;
            self.facts.push_back(JobEvent::ClientGone);
        }
        if ready[0] {
            // SIGCHLD does not queue: one read takes it.
            let _ = self.signals.next();
            if let Some(service) = &mut self.service {
                service.hear_all(&mut self.facts);
            }
            self.reap();
        }
    }

    fn take_orders(&mut self) {
        loop {
            match self.start.link.receive() {
                Received::Message(message) => match Order::parse(&message) {
                    Some(order) => self.facts.push_back(JobEvent::Order(order)),
                    None => log::warn!("{}: an order that is not understood", self.start.job),
                },
                Received::Nothing => return,
                Received::Gone => {
                    self.init_gone = true;
                    // The client is not to wait for a grace that its init did not survive.
                    self.reply = None;
                    self.terminal = None;
                    self.facts.push_back(JobEvent::InitGone);
                    return;
                }
            }
        }
    }

    fn take_outcome(&mut self) {
        let Some(fd) = &self.outcome else { return };
        let cwd = self.cwd.as_deref().unwrap_or(self.start.cwd);
        if let Some(outcome) = spawn::outcome(fd, &self.words, Some(cwd)) {
            self.outcome = None;
            self.facts.push_back(outcome.map_or_else(JobEvent::NotExecuted, |()| JobEvent::Executed));
        }
    }

    pub(super) fn reap(&mut self) {
        // Its exec's outcome was there before its end.
        self.take_outcome();
        for _ in 0..AT_ONCE {
            match reap() {
                Reaped::Child(pid, exit, used) => {
                    if exit.may_be_kill() && self.look_for_oom() {
                        self.blame_oom(used.max_rss_bytes);
                    }
                    if let Some(service) = &mut self.service {
                        service.task_ended(pid, exit, &mut self.facts);
                    }
                    self.facts.push_back(JobEvent::Reaped(pid, exit));
                }
                Reaped::Stopped(..) => {}
                // Who writes its log is none of those that we wait for.
                Reaped::NoneYet if self.service.as_ref().and_then(Service::logger).is_none() || has_children() => {
                    return;
                }
                Reaped::NoneYet | Reaped::NoChild => {
                    // The mount may have gone with its daemon.
                    if let Some(service) = &mut self.service {
                        service.hear_all(&mut self.facts);
                    }
                    self.facts.push_back(JobEvent::Alone);
                    return;
                }
            }
        }
        signals::come_back_for_children();
    }

    /// Where kills are counted: in the job's own group, if it has one for memory.
    fn oom(&self) -> Option<&inspect::OomCounter> {
        self.group.as_ref().and_then(Cgroup::oom).or(self.start.oom)
    }

    /// The kernel counts a kill before it sends the signal.
    pub(super) fn look_for_oom(&mut self) -> bool {
        let kills = self.oom().map_or(0, inspect::OomCounter::kills);
        let more = kills > self.oom_kills.1;
        self.oom_kills.1 = self.oom_kills.1.max(kills);
        more
    }

    fn blame_oom(&mut self, max_rss_bytes: u64) {
        let limit_bytes = self.oom().and_then(inspect::OomCounter::limit);
        self.facts.extend(OomKill::blame(limit_bytes, max_rss_bytes).map(JobEvent::OomKill));
    }
}

fn add<T>(list: &mut Vec<T>, entry: Option<T>) -> Option<usize> {
    list.push(entry?);
    Some(list.len() - 1)
}
