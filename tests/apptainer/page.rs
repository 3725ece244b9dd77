//! What `docker/apptainer/README.md` says of the environment, `$HOME` and directories.

use super::host::*;
use crate::support::*;

/// `sh -c` below lastout, as a user who has these in the environment, in their own directory: code, output and errors, in
/// which Apptainer may have words of its own.
fn sh(host: &Host, environment: &[&str], options: &[&str], script: &str) -> (i32, String, String) {
    let place = host.place().to_str().unwrap();
    let mut words = vec!["env", "--chdir", place];
    words.extend(environment);
    words.extend(["apptainer", "run"]);
    words.extend(options);
    words.extend([IMAGES[0], "sh", "-c", script]);
    let output = host.run(&words);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status(output.status), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_control_directory_that_comes_along_from_the_host_is_refused_where_it_is_not() {
    let Some(host) = Host::start() else { return };
    let elsewhere = "LASTOUT_CONTROL=/somewhere/on/the/host";
    let (code, _, said) = sh(&host, &[elsewhere], &[], "exit 7");
    assert_eq!(code, 125, "{said}");
    assert!(said.contains("/somewhere/on/the/host"), "{said}");
    let control = host.place().join("control");
    assert!(host.user(&["mkdir", "-m", "700", control.to_str().unwrap()]).status().unwrap().success());
    let bind = format!("{}:/run/lastout", control.display());
    let (bound, named) = (["--bind", &bind], ["--env", "LASTOUT_CONTROL=/run/lastout"]);
    let listens = "/usr/local/bin/lastout exec -- sh -c 'echo job of $LASTOUT_CONTROL; test -p /run/lastout/control'";
    // Named for the container, taken away with everything else, and never there.
    for (environment, options) in [(&[elsewhere][..], &named[..]), (&[elsewhere], &["--cleanenv"]), (&[], &[])] {
        let (code, out, said) = sh(&host, environment, &[&bound[..], options].concat(), listens);
        assert_eq!((code, &*out), (0, "job of /run/lastout\n"), "{environment:?} {options:?}: {said}");
    }
}

#[test]
fn home_and_the_environment_are_the_hosts_and_lastouts_directory_is_not() {
    let Some(host) = Host::start() else { return };
    let place = host.place().to_str().unwrap();
    // It goes there when main has started.
    let script = "pwd; echo $HOME $MINE.; echo left >$HOME/file && cat $HOME/file; \
        timeout 60 sh -c \"until [ \\$(readlink /proc/$PPID/cwd) = / ]; do sleep 0.02; done\" && echo /";
    let (code, out, said) = sh(&host, &["MINE=here"], &[], script);
    assert_eq!((code, &*out), (0, &*format!("{place}\n/home/user here.\nleft\n/\n")), "{said}");
    assert_eq!(both(&host.run(&["cat", "/home/user/file"])), "left\n");
    let (code, out, said) = sh(&host, &["MINE=here"], &["--cleanenv"], script);
    assert_eq!((code, &*out), (0, &*format!("{place}\n/home/user .\nleft\n/\n")), "{said}");
    // A home of its own, which is gone with it.
    let (code, out, said) = sh(&host, &["MINE=here"], &["--containall"], "echo $HOME $MINE.; ls $HOME");
    assert_eq!((code, &*out), (0, "/home/user .\n"), "{said}");
}
