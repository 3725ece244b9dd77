//! Services, from outside: a configuration file, the real init, and what can be seen of it.

mod alone;
mod failing;
mod health;
mod logging;
mod many;
mod metrics;
mod mounted;
mod order;
mod reloading;
mod starting;
mod stopping;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;

use crate::support::*;

/// An init with services in a directory of its own, which is `@/` in the file. Everything of theirs has its mark.
pub(crate) struct Supervised {
    pub(crate) init: Init,
    mark: String,
}

impl Supervised {
    pub(crate) fn begin(file: &str) -> Supervised {
        Supervised::begin_with(file, &[], Stdio::piped(), Stdio::piped())
    }

    pub(crate) fn begin_as(role: As, file: &str) -> Supervised {
        Supervised::begin_in(role, file, &[], Stdio::piped(), Stdio::piped())
    }

    pub(crate) fn begin_with(file: &str, more: &[&str], stdout: Stdio, stderr: Stdio) -> Supervised {
        Supervised::begin_in(As::Subreaper, file, more, stdout, stderr)
    }

    fn begin_in(role: As, file: &str, more: &[&str], stdout: Stdio, stderr: Stdio) -> Supervised {
        let scratch = scratch();
        let mark = mark("services");
        write(scratch.path(), file, &mark);
        let path = scratch.path().join("services.toml");
        let args = [&["--config", path.to_str().unwrap()], more].concat();
        Supervised { init: Init::start_with(scratch, role, &args, stdout, stderr), mark }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.init.scratch.path().join(name)
    }

    /// Writes the file anew.
    pub(crate) fn write(&self, file: &str) {
        write(self.init.scratch.path(), file, &self.mark);
    }

    /// What a file has, nothing if it is not there.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        self.text(name).lines().map(String::from).collect()
    }

    pub(crate) fn put(&self, name: &str) {
        fs::write(self.path(name), "").unwrap();
    }

    pub(crate) fn until_text(&self, name: &str, part: &str) -> String {
        until(&format!("'{part}' in {name}"), || Some(self.text(name)).filter(|text| text.contains(part)))
    }

    pub(crate) fn until_there(&self, name: &str) {
        until(&format!("the file {name}"), || self.path(name).exists().then_some(()));
    }

    /// A service, as `ps --json` has it.
    pub(crate) fn info(&self, name: &str) -> Value {
        let all: Vec<Value> = serde_json::from_str(&self.init.must(&["ps", "--json"])).unwrap();
        all.into_iter().find(|one| one["service"] == name).unwrap_or(Value::Null)
    }

    pub(crate) fn until_info(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        until(&format!("{name}: {what}"), || {
            let info = self.info(name);
            let found = is(&info).then(|| info.clone());
            last = info;
            found
        })
    }

    pub(crate) fn until_state(&self, name: &str, state: &str) -> Value {
        self.until_info(name, state, |info| info["state"] == state)
    }

    pub(crate) fn state(&self, name: &str) -> String {
        self.info(name)["state"].as_str().unwrap_or("none").to_string()
    }

    /// The process of a service's run.
    pub(crate) fn pid(&self, name: &str) -> i32 {
        let run = self.info(name)["job"].clone();
        let all: Vec<Value> = serde_json::from_str(&self.init.must(&["ps", "--json"])).unwrap();
        let job = all.into_iter().find(|one| !run.is_null() && one["job"] == run && one["command"].is_string());
        job.and_then(|job| job["pid"].as_i64()).expect("its process") as i32
    }

    /// The keeper of a service's run.
    pub(crate) fn keeper(&self, name: &str) -> i32 {
        let is = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == format!("keeper {name}"))
        };
        until("its keeper", || children(self.init.pid).into_iter().find(is))
    }

    /// The record of a job.
    pub(crate) fn record(&self, job: &Value) -> Value {
        let job = job.as_str().expect("a job");
        let path = self.init.control().join("jobs").join(job).join("record.json");
        until("its record", || serde_json::from_str(&fs::read_to_string(&path).ok()?).ok())
    }

    /// Processes of services and jobs that are still there.
    pub(crate) fn left(&self) -> Vec<i32> {
        marked(&self.mark)
    }

    /// Ends it as an engine does; nothing may be left.
    pub(crate) fn end(self) -> (i32, Vec<String>) {
        self.init.signal("TERM");
        self.ended()
    }

    /// It ends; nothing may be left.
    pub(crate) fn ended(self) -> (i32, Vec<String>) {
        let (code, log) = self.init.end();
        assert_eq!(marked(&self.mark), [0i32; 0], "left behind, with code {code}: {log:?}");
        (code, log)
    }
}

fn write(scratch: &Path, file: &str, mark: &str) {
    // Whole or not at all: somebody may be reading it.
    let mut new = tempfile::NamedTempFile::new_in(scratch).unwrap();
    let file = file.replace("@/", &format!("{}/", scratch.display()));
    write!(new, "export = {{ MARK = \"{mark}\" }}\n{file}").unwrap();
    new.persist(scratch.join("services.toml")).unwrap();
}

/// Runs it to its end: exit code, standard output, standard error.
pub(crate) fn to_its_end(file: &str, more: &[&str]) -> (i32, String, String) {
    let scratch = scratch();
    let mark = mark("services");
    write(scratch.path(), file, &mark);
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_string();
    let (config, control) = (path("services.toml"), path("control"));
    let args = [&["--control", &control, "--config", &config], more].concat();
    let (out, err) = (path("stdout"), path("stderr"));
    let mut child =
        lastout(&args).stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap()).spawn().unwrap();
    let code = status(wait(&mut child));
    let read = |path| fs::read_to_string(path).unwrap();
    let result = (code, read(out), read(err));
    assert_eq!(marked(&mark), [0i32; 0], "left behind: {result:?}");
    result
}

/// Processes with this in their environment. Zombies have none.
fn marked(mark: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let has = |pid: &i32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|all| String::from_utf8_lossy(&all).contains(mark))
    };
    pids.filter(has).collect()
}
