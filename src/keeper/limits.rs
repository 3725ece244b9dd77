//! What a job or service may use, and as whom it runs: from what somebody asked for to what its child is to do.

use super::{
    cgroup::Cgroup,
    users::{self, User},
};
use crate::{
    base::Pid,
    core::service,
    inspect::OomCounter,
    proto::Request,
    sys::limits::{Limits, Rlimit},
};

/// Limits that can be applied.
#[derive(Debug)]
pub struct Resolved {
    /// For [`crate::sys::spawn::Command`], of each command of the run.
    pub limits: Limits,
    /// Environment entries that follow from them, to come before the job's own: `HOME`, `USER`, `LOGNAME`.
    pub env: Vec<Vec<u8>>,
    /// The control group of its own, if it takes one. Dropped, it is removed: not before the tree is empty.
    pub group: Option<Cgroup>,
}

impl Resolved {
    /// Where the kernel counts whom its OOM killer has ended in this run's own group.
    pub fn oom(&self) -> Option<&OomCounter> {
        self.group.as_ref().and_then(Cgroup::oom)
    }
}

/// What a request asks for.
pub fn of_request(request: &Request) -> service::Limits {
    let (user, group) = match request.user.as_deref().map(|user| user.split_once(':').unwrap_or((user, ""))) {
        Some((user, group)) => (user.to_string(), group.to_string()),
        None => Default::default(),
    };
    let given = |name: String| Some(name).filter(|name| !name.is_empty());
    let limits = &request.limits;
    service::Limits {
        nofile: limits.nofile,
        core: limits.core,
        address_space: limits.address_space,
        nice: limits.nice,
        oom_score_adj: limits.oom_score_adj,
        user: given(user),
        group: given(group),
        memory: limits.memory,
        cpu_milli: limits.cpu_milli,
        pids: limits.pids,
    }
}

/// Resolves them for one run, and makes its control group if that takes one. `run`: what tells it from others, for
/// the group's name. Why it cannot be had, is said in words.
pub fn resolve(limits: &service::Limits, init: Pid, run: &str) -> Result<Resolved, String> {
    let user = match (&limits.user, &limits.group) {
        (None, None) => None,
        (user, group) => Some(users::look_up(user.as_deref(), group.as_deref())?),
    };
    let group = limits.needs_cgroup().then(|| Cgroup::make(limits, init, run)).transpose()?;
    let rlimits = [(Rlimit::Nofile, limits.nofile), (Rlimit::Core, limits.core), (Rlimit::As, limits.address_space)];
    let env = user.iter().flat_map(variables).map(String::into_bytes).collect();
    Ok(Resolved {
        limits: Limits {
            join: group.as_ref().map(Cgroup::join).unwrap_or_default(),
            oom_score_adj: limits.oom_score_adj,
            nice: limits.nice,
            rlimits: rlimits.into_iter().filter_map(|(limit, value)| Some((limit, value?))).collect(),
            credentials: user.map(|user| user.credentials),
        },
        env,
        group,
    })
}

fn variables(user: &User) -> Vec<String> {
    match &user.account {
        Some((name, home)) => vec![format!("HOME={home}"), format!("USER={name}"), format!("LOGNAME={name}")],
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_user_and_group_as_docker_does() {
        for (text, user, group) in [
            ("ray", Some("ray"), None),
            ("ray:video", Some("ray"), Some("video")),
            ("1000:44", Some("1000"), Some("44")),
            (":video", None, Some("video")),
            ("ray:", Some("ray"), None),
        ] {
            let request = Request { user: Some(text.into()), ..Request::new(vec!["x".into()]) };
            let limits = of_request(&request);
            assert_eq!((limits.user.as_deref(), limits.group.as_deref()), (user, group), "{text}");
        }
        assert_eq!(of_request(&Request::new(vec!["x".into()])), service::Limits::default());
    }
}
