//! What a command may use, and as whom it runs: set in the child, between fork and exec. Everything is resolved:
//! nothing is looked up here.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use nix::{
    sys::{
        resource::{Resource, setrlimit},
        stat::{SFlag, fstat},
    },
    unistd::{Gid, Uid, fchown, getegid, geteuid, getgroups, setgid, setgroups, setuid},
};

/// What is not given is inherited.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// The `cgroup.procs` of groups to join.
    pub join: Vec<PathBuf>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// -20 to 19.
    pub nice: Option<i32>,
    /// Soft and hard; `u64::MAX` is none.
    pub rlimits: Vec<(Rlimit, u64)>,
    /// As whom.
    pub credentials: Option<Credentials>,
}

/// A limit of `setrlimit(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rlimit {
    /// Descriptors: one more than the largest.
    Nofile,
    /// Bytes of a core dump.
    Core,
    /// Bytes of address space.
    As,
}

impl Rlimit {
    fn resource(self) -> (Resource, &'static str) {
        match self {
            Rlimit::Nofile => (Resource::RLIMIT_NOFILE, "RLIMIT_NOFILE"),
            Rlimit::Core => (Resource::RLIMIT_CORE, "RLIMIT_CORE"),
            Rlimit::As => (Resource::RLIMIT_AS, "RLIMIT_AS"),
        }
    }
}

/// A user and its groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// As somebody wrote it, for messages.
    pub name: String,
    /// `None`: stays who we are.
    pub uid: Option<u32>,
    /// The group.
    pub gid: u32,
    /// Supplementary groups; `None`: as they are.
    pub groups: Option<Vec<u32>>,
}

/// What could not be done, as a phrase, and why.
type Failure = (String, io::Error);

impl Limits {
    /// What takes the rights that this process was started with, the user last: it may have none of them.
    pub(super) fn apply(&self, stdio: &[Option<&OwnedFd>]) -> Result<(), Failure> {
        for procs in &self.join {
            // 0 is whoever writes it.
            write(procs, "0").map_err(|error| (format!("join {}", procs.display()), error))?;
        }
        if let Some(score) = self.oom_score_adj {
            let set = write(&"/proc/self/oom_score_adj".into(), &score.to_string());
            set.map_err(|error| (format!("set oom_score_adj to {score}"), error))?;
        }
        if let Some(nice) = self.nice {
            // SAFETY: no memory is involved.
            if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } != 0 {
                return Err((format!("set nice to {nice}"), io::Error::last_os_error()));
            }
        }
        // After what opens files, and what allocates.
        for (limit, value) in &self.rlimits {
            let (resource, name) = limit.resource();
            let number = || if *value == u64::MAX { "unlimited".into() } else { value.to_string() };
            setrlimit(resource, *value, *value)
                .map_err(|error| (format!("set {name} to {}", number()), error.into()))?;
        }
        match &self.credentials {
            Some(credentials) => credentials.take(stdio),
            None => Ok(()),
        }
    }
}

impl Credentials {
    fn take(&self, stdio: &[Option<&OwnedFd>]) -> Result<(), Failure> {
        let failed = |error: nix::Error| (format!("become {}", self.name), error.into());
        if let Some(uid) = self.uid {
            // Our own pipes: who opens /dev/stdout is asked for permission again.
            for fd in stdio.iter().flatten() {
                let is_fifo = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFIFO;
                if fstat(fd.as_fd()).is_ok_and(|stat| is_fifo(stat.st_mode)) {
                    let _ = fchown(fd.as_fd(), Some(Uid::from_raw(uid)), None);
                }
            }
        }
        if self.is_ours() {
            return Ok(());
        }
        // The groups first: without root, nobody may change them.
        if let Some(groups) = &self.groups {
            let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
            setgroups(&groups).map_err(failed)?;
        }
        setgid(Gid::from_raw(self.gid)).map_err(failed)?;
        match self.uid {
            Some(uid) => setuid(Uid::from_raw(uid)).map_err(failed),
            None => Ok(()),
        }
    }

    /// Whether there is nothing to change: whoever is not root may not even ask for it.
    fn is_ours(&self) -> bool {
        let sorted = |mut groups: Vec<u32>| {
            // Whether the group itself is among them makes no difference.
            groups.retain(|group| *group != self.gid);
            groups.sort_unstable();
            groups
        };
        let ours = || getgroups().map(|groups| groups.iter().map(|group| group.as_raw()).collect()).unwrap_or_default();
        self.uid.is_none_or(|uid| uid == geteuid().as_raw())
            && self.gid == getegid().as_raw()
            && self.groups.as_ref().is_none_or(|groups| sorted(groups.clone()) == sorted(ours()))
    }
}

fn write(path: &PathBuf, text: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}
