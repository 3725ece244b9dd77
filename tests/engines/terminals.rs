//! `podman run -it`.

use std::fs;

use super::lab::*;
use crate::{
    docker::{SHELL, work_in},
    support::pty::*,
};

#[test]
fn a_shell_as_podmans_main_has_all_of_its_terminal() {
    Lab::with(&[Podman], |lab| {
        // The machine's own programs.
        let machine = ["/usr", "/lib", "/lib64"].into_iter().filter(|path| fs::exists(path).unwrap());
        let mut options = ["--env", "PS1=ready> ", "--env", "PATH=/bin:/usr/bin"].map(String::from).to_vec();
        for path in machine {
            fs::create_dir_all(lab.file("rootfs").join(&path[1..])).unwrap();
            options.extend(["--volume".into(), format!("{path}:{path}:ro")]);
        }
        let out = tempfile::tempdir_in(lab.path()).unwrap();
        let mut command = lab.command();
        command.args(["run", "--rm", "-it"]).args(lab.options(out.path(), &Plan { options, ..Plan::default() }));
        command.args(["lastout", "--"]).args(SHELL);
        let mut pty = Pty::open();
        let before = pty.modes();
        let mut child = pty.start(&command);
        pty.expect("ready> ");
        work_in(&mut pty);
        assert_eq!(pty.end(&mut child).0, 7);
        assert_eq!(pty.modes(), before);
    });
}
