//! The doctor's page: for a terminal of 80 columns, most important first.

use super::report::{Report, Row, VolumeReport};
use crate::{
    base::{Map, Pid, plain},
    client::text::{bytes, count, short, time},
    inspect::{Limits, Unseen},
};

const WIDTH: usize = 80;
/// A tree deeper than this is not indented any further.
const DEPTH: usize = 12;
/// So many processes alike, next to each other, are one line and a count.
const ALIKE: usize = 4;
/// Holders of one volume that are told one by one.
const HOLDERS: usize = 40;

/// The whole page.
pub(super) fn page(report: &Report, colour: bool) -> String {
    let mut page = Page { text: String::new(), colour };
    page.verdict(report);
    page.stuck(report);
    page.lock_waits(report);
    page.volumes(report);
    page.processes(report);
    page.zombies(report);
    page.limits(&report.limits);
    page.unseen(&report.unseen);
    for note in &report.notes {
        page.paragraph(0, 2, &format!("note: {note}"), Style::Plain);
    }
    page.text
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    Plain,
    Bold,
    Bad,
    Good,
}

struct Page {
    text: String,
    colour: bool,
}

impl Page {
    fn line(&mut self, line: &str, style: Style) {
        let code = match style {
            _ if !self.colour => "",
            Style::Plain => "",
            Style::Bold => "\x1b[1m",
            Style::Bad => "\x1b[31m",
            Style::Good => "\x1b[32m",
        };
        self.text.push_str(code);
        self.text.push_str(line.trim_end());
        self.text.push_str(if code.is_empty() { "\n" } else { "\x1b[0m\n" });
    }

    fn heading(&mut self, heading: &str) {
        self.line("", Style::Plain);
        self.line(heading, Style::Bold);
    }

    /// Text over as many lines as it takes: the first from column `first`, the others from column `rest`.
    fn paragraph(&mut self, first: usize, rest: usize, text: &str, style: Style) {
        for line in wrapped(first, rest, &plain(text)) {
            self.line(&line, style);
        }
    }

    fn verdict(&mut self, report: &Report) {
        let mut parts = Vec::new();
        if !report.stuck.is_empty() {
            parts.push(count(report.stuck.len() as u64, "process hangs", "processes hang"));
        }
        let silent = report.volumes.iter().filter(|volume| !volume.answers);
        parts.extend(silent.map(|volume| format!("{} does not answer", volume.volume.path.display())));
        if report.init.control.is_some() && !report.init.answers {
            parts.push("the init does not answer".into());
        }
        let (text, style) = match (parts.is_empty(), report.hangs) {
            (true, false) => ("nothing hangs".to_string(), Style::Good),
            (true, true) => ("something does not answer".to_string(), Style::Bad),
            (false, _) => (parts.join("; "), Style::Bad),
        };
        self.paragraph(0, 2, &text, style);
        let init = &report.init;
        let mut about = match (&init.control, init.pid) {
            (Some(control), Some(pid)) => format!("init: pid {pid}, {control}"),
            (Some(control), None) => format!("init: not to be seen in this PID namespace, {control}"),
            (None, _) => "init: none".into(),
        };
        if let Some(phase) = &init.phase {
            about += &format!(", {phase}");
        }
        if let Some(problem) = &init.problem {
            about += &format!(": {problem}");
        }
        self.paragraph(0, 2, &about, Style::Plain);
        let jobs = report.jobs.iter().filter(|job| job.state != crate::proto::JobState::Ended).count();
        let jobs = if init.answers { format!("; {}", count(jobs as u64, "job", "jobs")) } else { String::new() };
        let processes = count(report.processes.len() as u64, "process", "processes");
        self.paragraph(0, 2, &format!("seen: {processes}: {}{jobs}", report.scope), Style::Plain);
    }

    fn stuck(&mut self, report: &Report) {
        if report.stuck.is_empty() {
            return;
        }
        self.heading("HANGS");
        for wait in &report.stuck {
            self.paragraph(0, 2, &wait.to_string(), Style::Bad);
        }
    }

    fn lock_waits(&mut self, report: &Report) {
        if report.lock_waits.is_empty() {
            return;
        }
        self.heading("WAITS FOR A FILE LOCK");
        for wait in &report.lock_waits {
            let owner = match (wait.owner, &wait.owner_comm) {
                (Some(pid), Some(comm)) => format!("pid {pid} ({comm})"),
                (Some(pid), None) => format!("pid {pid}"),
                (None, _) => "somebody whom the kernel does not name".into(),
            };
            let text =
                format!("pid {} ({}) waits for a {} of {}: {owner} has it", wait.pid, wait.comm, wait.lock, wait.file);
            self.paragraph(0, 2, &text, Style::Plain);
        }
    }

    fn volumes(&mut self, report: &Report) {
        self.heading("VOLUMES");
        if report.volumes.is_empty() {
            self.line("none", Style::Plain);
        }
        for volume in &report.volumes {
            self.volume(volume);
        }
    }

    fn volume(&mut self, volume: &VolumeReport) {
        let about = &volume.volume;
        let mut text = format!("{} ({}, {})", about.path.display(), about.kind, about.source);
        match (&volume.space, &volume.problem) {
            (Some(space), _) => {
                text += &format!(": {} of {} free", bytes(space.free_bytes), bytes(space.bytes));
                if space.inodes > 0 {
                    text += &format!(", {} of {} inodes", space.free_inodes, space.inodes);
                }
            }
            (None, Some(problem)) => text += &format!(": {problem}"),
            (None, None) => {}
        }
        if let Some(waiting) = volume.requests_waiting.filter(|waiting| *waiting > 0) {
            text += &format!("; {} for its daemon", count(waiting, "request waits", "requests wait"));
        }
        let full = volume
            .space
            .is_some_and(|space| space.bytes > 0 && space.free_bytes == 0 && !READ_ONLY.contains(&about.kind.as_str()));
        self.paragraph(0, 4, &text, if volume.answers && !full { Style::Plain } else { Style::Bad });
        for holder in volume.holders.iter().take(HOLDERS) {
            let thread = holder.thread.map(|thread| format!(", thread {thread}")).unwrap_or_default();
            let mut text = format!("pid {}{thread} ({}) {} {}", holder.pid, holder.comm, holder.how, holder.path);
            if holder.deleted {
                text += ", deleted";
            }
            if let Some(lock) = &holder.lock {
                text += &format!(", {lock}");
            }
            self.paragraph(2, 6, &text, Style::Plain);
        }
        if volume.holders.len() > HOLDERS {
            self.line(&format!("  and {} more: --json has them all", volume.holders.len() - HOLDERS), Style::Plain);
        }
    }

    fn processes(&mut self, report: &Report) {
        self.heading("PROCESSES");
        let inside = report.processes.iter().any(|row| row.inside.is_some());
        let inner = if inside { format!("{:>7} ", "INSIDE") } else { String::new() };
        self.line(&format!("{:>7} {inner}S    FOR WAITS IN             COMMAND", "PID"), Style::Plain);
        let tree = Tree::of(&report.processes);
        let mut lines = Vec::new();
        for root in &tree.roots {
            tree.lines(root, 0, inside, &mut lines);
        }
        for (line, style) in lines {
            self.line(&line, style);
        }
    }

    fn zombies(&mut self, report: &Report) {
        if report.zombies.is_empty() {
            return;
        }
        self.heading("ZOMBIES");
        let mut of_parent: Map<Option<Pid>, Vec<&super::report::Zombie>> = Map::new();
        for zombie in &report.zombies {
            of_parent.or_insert_with(zombie.parent, Default::default).push(zombie);
        }
        for (parent, zombies) in of_parent {
            let name = zombies[0].parent_comm.as_deref().unwrap_or("?");
            let parent = parent.map_or("a parent outside".into(), |parent| format!("pid {parent} ({name})"));
            let who: Vec<String> = zombies.iter().take(8).map(|z| format!("pid {} ({})", z.pid, z.comm)).collect();
            let more = if zombies.len() > 8 { format!(" and {} more", zombies.len() - 8) } else { String::new() };
            self.paragraph(0, 2, &format!("{parent} has not reaped {}{more}", who.join(", ")), Style::Plain);
        }
    }

    fn limits(&mut self, limits: &Limits) {
        self.heading("MEMORY AND CPU");
        match &limits.memory {
            Some(memory) => {
                let number = |value: Option<u64>| value.map_or("unknown".into(), bytes);
                let limit = memory.limit.map_or("no limit".into(), |limit| format!("limit {}", bytes(limit)));
                let mut text = format!("memory: {}, {limit}, peak {}", number(memory.current), number(memory.peak));
                let kills = memory.oom_kills.unwrap_or(0);
                if memory.oom_kills.is_some() {
                    text += &format!(", {kills} killed for want of it");
                }
                self.paragraph(0, 2, &text, if kills > 0 { Style::Bad } else { Style::Plain });
            }
            None => self.line("memory: no control group counts it", Style::Plain),
        }
        match &limits.cpu {
            Some(cpu) => {
                let mut text = cpu.limit.map_or("cpu: no limit".into(), |limit| format!("cpu: limit {limit:.2} CPUs"));
                if let (Some(throttled), Some(periods)) = (cpu.throttled, cpu.periods) {
                    let lost = time(cpu.throttled_us.unwrap_or(0) / 1000);
                    text += &format!(", throttled in {throttled} of {periods} periods, {lost} in all");
                }
                self.paragraph(0, 2, &text, Style::Plain);
            }
            None => self.line("cpu: no control group limits it", Style::Plain),
        }
    }

    fn unseen(&mut self, unseen: &[Unseen]) {
        if unseen.is_empty() {
            return;
        }
        self.heading("CANNOT INSPECT");
        // Many processes for the same reason are one entry.
        let mut groups: Map<(&str, &str), Vec<&Unseen>> = Map::new();
        for entry in unseen {
            groups.or_insert_with((&entry.why, &entry.what), Default::default).push(entry);
        }
        for ((why, what), entries) in groups {
            let who: Vec<String> =
                entries.iter().take(8).map(|entry| format!("{} ({})", entry.pid, entry.comm)).collect();
            let more = if entries.len() > 8 { format!(" and {} more", entries.len() - 8) } else { String::new() };
            self.paragraph(0, 2, &format!("{what} of pid {}{more}: {why}", who.join(", ")), Style::Plain);
        }
    }
}

/// Filesystems that are full by nature.
const READ_ONLY: [&str; 4] = ["squashfs", "iso9660", "erofs", "fuse.squashfuse"];

/// Breaks text into lines of at most [`WIDTH`], at spaces where there are some.
fn wrapped(first: usize, rest: usize, text: &str) -> Vec<String> {
    let mut lines = vec![" ".repeat(first)];
    let mut used = first;
    let mut start = true;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let gap = usize::from(!start);
        if used + gap + word.len() > WIDTH && !start {
            lines.push(" ".repeat(rest));
            used = rest;
            start = true;
        }
        // A path may be longer than a line.
        while used + word.len() > WIDTH && start {
            let fits = WIDTH - used;
            let last = lines.len() - 1;
            lines[last].extend(word.drain(..fits));
            lines.push(" ".repeat(rest));
            used = rest;
        }
        let last = lines.len() - 1;
        if !start {
            lines[last].push(' ');
            used += 1;
        }
        used += word.len();
        lines[last].extend(word);
        start = false;
    }
    lines
}

struct Tree<'a> {
    roots: Vec<&'a Row>,
    children: Map<Pid, Vec<&'a Row>>,
}

impl<'a> Tree<'a> {
    fn of(rows: &'a [Row]) -> Tree<'a> {
        let known: crate::base::Set<Pid> = rows.iter().map(|row| row.pid).collect();
        let mut tree = Tree { roots: Vec::new(), children: Map::new() };
        for row in rows {
            match row.parent.filter(|parent| known.contains(parent) && *parent != row.pid) {
                Some(parent) => tree.children.or_insert_with(parent, Default::default).push(row),
                None => tree.roots.push(row),
            }
        }
        tree
    }

    fn lines(&self, row: &Row, depth: usize, inside: bool, lines: &mut Vec<(String, Style)>) {
        lines.push((line(row, depth, inside), if row.stuck { Style::Bad } else { Style::Plain }));
        let children = self.children.get(&row.pid).map(Vec::as_slice).unwrap_or_default();
        let mut at = 0;
        while at < children.len() {
            let alike = children[at..].iter().take_while(|other| self.alike(children[at], other)).count();
            self.lines(children[at], depth + 1, inside, lines);
            if alike >= ALIKE {
                let indent = " ".repeat(2 * (depth + 1).min(DEPTH));
                let column = if inside { 49 } else { 41 };
                let text = format!("{:column$}{indent}... and {} more like it", "", alike - 1);
                lines.push((short(&text, WIDTH), Style::Plain));
                at += alike;
            } else {
                at += 1;
            }
        }
    }

    /// Leaves that do the same, and nothing that must be told.
    fn alike(&self, one: &Row, other: &Row) -> bool {
        let plain = |row: &Row| !row.stuck && row.role.is_none() && !self.children.contains_key(&row.pid);
        let what = |row: &Row| (row.comm.clone(), row.state, row.kernel.clone());
        plain(one) && plain(other) && what(one) == what(other)
    }
}

fn line(row: &Row, depth: usize, inside: bool) -> String {
    let inner = row.inside.map(|inside| inside.to_string()).unwrap_or_default();
    let inner = if inside { format!("{inner:>7} ") } else { String::new() };
    let age = row.for_ms.filter(|_| row.state != 'R').map(time).unwrap_or_default();
    let kernel = short(row.kernel.as_deref().unwrap_or("-"), 20);
    let role = row.role.as_ref().map(|role| format!("[{role}] ")).unwrap_or_default();
    let threads = if row.threads > 1 { format!(" ({} threads)", row.threads) } else { String::new() };
    // What a keeper's command line says is its init's.
    let is_keeper = row.role.as_ref().is_some_and(|role| role.starts_with("keeper"));
    let name = row.command.as_deref().filter(|_| !is_keeper).unwrap_or(&row.comm);
    let indent = " ".repeat(2 * depth.min(DEPTH));
    let command = format!("{indent}{role}{}", plain(name));
    let head = format!("{:>7} {inner}{} {age:>6} {kernel:<20} ", row.pid, row.state);
    let room = WIDTH.saturating_sub(head.chars().count() + threads.len());
    format!("{head}{}{threads}", short(&command, room))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: i32, parent: i32, comm: &str) -> Row {
        Row {
            pid: Pid::new(pid).unwrap(),
            inside: None,
            parent: Pid::new(parent),
            comm: comm.into(),
            command: None,
            state: 'S',
            kernel: Some("hrtimer_nanosleep".into()),
            for_ms: Some(61_000),
            threads: 1,
            role: None,
            stuck: false,
        }
    }

    #[test]
    fn text_is_wrapped_at_spaces_and_a_long_word_wherever_it_must() {
        let text = format!("one {} two", "x".repeat(200));
        let lines = wrapped(0, 2, &text);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:?}");
        let joined: String = lines.iter().map(|line| line.trim()).collect::<Vec<_>>().concat();
        assert_eq!(joined.replace(' ', ""), text.replace(' ', ""));
        assert_eq!(wrapped(2, 4, "a b"), ["  a b"]);
    }

    #[test]
    fn processes_alike_are_one_line_and_a_count() {
        let mut rows = vec![row(1, 0, "lastout")];
        rows.extend((2..500).map(|pid| row(pid, 1, "sleep")));
        let mut stuck = row(600, 1, "sleep");
        stuck.stuck = true;
        stuck.command = Some(format!("sleep {}\x1b[2J", "long ".repeat(50)));
        rows.push(stuck);
        let report = Report { processes: rows, ..Report::default() };
        let page = page(&report, false);
        assert!(page.contains("... and 497 more like it"), "{page}");
        assert!(page.lines().any(|line| line.contains("    600 S")), "{page}");
        assert!(page.lines().count() < 20, "{page}");
        assert!(page.lines().all(|line| line.chars().count() <= WIDTH), "{page}");
        assert!(!page.contains('\x1b'), "{page}");
        assert!(super::page(&report, true).contains("\x1b[31m"));
    }
}
