/// How often the OOM killer has struck in our memory cgroup, and the cgroup's limit in bytes.
pub fn oom_kills() -> Option<(u64, Option<u64>)> {
    None
}
