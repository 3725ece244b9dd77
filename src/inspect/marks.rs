use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::locks;
use crate::base::{Pid, Set};

/// The values of these variables in the environment that a process was started with; `None` for what it has not. May
/// block, on locks of the process's.
pub fn variables<const N: usize>(pid: Pid, names: [&str; N]) -> io::Result<[Option<Vec<u8>>; N]> {
    Ok(values(&fs::read(format!("/proc/{pid}/environ"))?, names))
}

fn values<const N: usize>(environment: &[u8], names: [&str; N]) -> [Option<Vec<u8>>; N] {
    names.map(|name| {
        let value = |entry: &[u8]| Some(entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.to_vec());
        // Of several, the first: that is what getenv(3) finds.
        environment.split(|b| *b == 0).find_map(value)
    })
}

/// The processes that own a control directory: they have locked a directory, and have open the FIFO `name` in it.
pub fn owners(name: &str) -> Set<Pid> {
    let all = locks().unwrap_or_default();
    let locked = all.iter().filter(|lock| lock.lock.kind == "FLOCK" && !lock.waits).filter_map(|lock| lock.pid);
    locked.collect::<Set<Pid>>().into_iter().filter(|pid| is_owner(&links(*pid), name)).collect()
}

fn links(pid: Pid) -> Set<PathBuf> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| fs::read_link(fd.path()).ok()).collect()
}

/// The FIFO may have lost its name already.
fn is_owner(links: &Set<PathBuf>, name: &str) -> bool {
    let gone = format!("{name} (deleted)");
    let is_fifo = |link: &&PathBuf| link.file_name().is_some_and(|file| file == name || file == gone.as_str());
    links.iter().filter(is_fifo).filter_map(|link| link.parent()).any(|directory: &Path| links.contains(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_by_their_whole_names() {
        let environment = b"XA=0\0A=1\0AB=2\0A=3\0B\0C=\0";
        let found = values(environment, ["A", "B", "C"]);
        assert_eq!(found, [Some(b"1".to_vec()), None, Some(Vec::new())]);
    }

    #[test]
    fn an_owner_has_the_directory_and_its_fifo() {
        let links = |list: &[&str]| list.iter().map(PathBuf::from).collect();
        assert!(is_owner(&links(&["/run/x", "/run/x/control"]), "control"));
        assert!(is_owner(&links(&["/run/x", "/run/x/control (deleted)"]), "control"));
        assert!(!is_owner(&links(&["/run", "/run/x/control"]), "control"));
        assert!(!is_owner(&links(&["/run/x", "/run/x/other"]), "control"));
    }
}
