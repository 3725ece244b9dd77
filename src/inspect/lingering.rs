//! Who holds files in a way that the kernel lets go of late (see [`crate::sys::late`]).

use std::{fs, io};

use super::{Unseen, holders::threads};
use crate::base::Process;

/// Descriptors that one look reads. To read more would cost as much as to take it for granted.
const MOST: u32 = 16_384;

/// Notes of each process whether it has a ring or descriptors in flight, or whether that cannot be seen. Not seen is a
/// ring without a descriptor (`IORING_SETUP_REGISTERED_FD_ONLY`).
pub fn note_lingering<'a>(seen: impl IntoIterator<Item = &'a mut Process>) {
    let mut left = MOST;
    for process in seen.into_iter().filter(|process| !process.is_dead()) {
        let pid = process.id.pid;
        // A dead leader shows nothing; its threads have everything.
        let tasks = match process.state {
            'Z' => threads(pid).iter().map(|thread| format!("/proc/{pid}/task/{thread}")).collect(),
            _ => vec![format!("/proc/{pid}")],
        };
        process.lingers = tasks.iter().any(|task| {
            let lingers = lingers(task, &mut left);
            // What has just gone is no reason.
            lingers.unwrap_or_else(|error| Unseen::new(pid, "", "", &error).is_some())
        });
    }
}

fn lingers(base: &str, left: &mut u32) -> io::Result<bool> {
    for entry in fs::read_dir(format!("{base}/fd"))? {
        let Some(less) = left.checked_sub(1) else { return Ok(true) };
        *left = less;
        let entry = entry?;
        let link = match fs::read_link(entry.path()) {
            // Closed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            link => link?,
        };
        let info = || fs::read_to_string(format!("{base}/fdinfo/{}", entry.file_name().display()));
        let link = link.as_os_str().as_encoded_bytes();
        let is_ring = link == b"anon_inode:[io_uring]";
        if is_ring || link.starts_with(b"socket:") && info().is_ok_and(|info| in_flight(&info) > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Descriptors that have been sent to a Unix socket and not been taken, from its fdinfo (since Linux 5.6).
fn in_flight(info: &str) -> u64 {
    let count = info.lines().find_map(|line| line.strip_prefix("scm_fds:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{super::one, *};
    use crate::base::Pid;

    #[test]
    fn descriptors_in_flight_are_counted() {
        for (info, count) in [("pos:\t0\nino:\t7\nscm_fds: 2\n", 2), ("scm_fds: 0\n", 0), ("pos:\t0\n", 0)] {
            assert_eq!(in_flight(info), count, "{info}");
        }
    }

    #[test]
    fn an_ordinary_process_does_not_linger_and_one_that_has_too_much_to_be_seen_does() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut seen = [one(Pid::new(child.id() as i32).unwrap()).unwrap()];
        note_lingering(&mut seen);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!seen[0].lingers, "{seen:?}");
        assert!(lingers("/proc/self", &mut 0).unwrap());
    }
}
