//! `docker/package`: what it makes is the same each time, and what Debian's own tools take.

use std::{fs, path::PathBuf, process::Command};

use super::engine::*;
use crate::support::*;

/// Both packages, made with this date: their paths and contents.
fn packages(date: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut command = Command::new(repository().join("docker/package"));
    command.env("LASTOUT_BUILT", "yes").env("SOURCE_DATE_EPOCH", date).env_remove("CARGO_BUILD_TARGET");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().map(|path| (PathBuf::from(path), fs::read(path).unwrap())).collect()
}

#[test]
fn packages_are_the_same_each_time_and_install_run_and_go() {
    if !has("docker") || !has("dpkg-deb") {
        return;
    }
    std::sync::LazyLock::force(&DEBIAN);
    release();
    let made = packages("1750000000");
    assert_eq!(made.len(), 2, "a tarball and a Debian package");
    assert!(packages("1750000000") == made, "another run gives other bytes");

    let (tarball, debian) = (made[0].0.to_str().unwrap(), made[1].0.to_str().unwrap());
    let version = concat!("lastout ", env!("CARGO_PKG_VERSION"), "\n");
    let scratch = scratch();
    let into = scratch.path().to_str().unwrap();
    run("tar", &["-C", into, "--strip-components=1", "-xzf", tarball]);
    let inside = |name: &str| scratch.path().join(name).to_str().unwrap().to_string();
    assert_eq!(run(&inside("lastout"), &["--version"]), version);
    // Static: it names no interpreter.
    let elf = run("readelf", &["--program-headers", &inside("lastout")]);
    assert!(elf.contains("LOAD") && !elf.contains("INTERP"), "{elf}");
    for (file, words) in [
        ("lastout.1", &["man"][..]),
        ("completions/lastout.bash", &["completions", "bash"]),
        ("completions/_lastout", &["completions", "zsh"]),
        ("completions/lastout.fish", &["completions", "fish"]),
    ] {
        assert_eq!(fs::read_to_string(inside(file)).unwrap(), run(&inside("lastout"), words), "{file}");
    }

    let lintian =
        Command::new("lintian").args(["--allow-root", "--fail-on", "error,warning", debian]).output().unwrap();
    assert!(lintian.status.success(), "{}", both(&lintian));

    // Installed, used and removed where nothing else of it is.
    let script = "
        set -e
        dpkg --install /packages/$DEB >/dev/null
        lastout --version
        lastout -- sh -c 'exit 3' || echo $?
        for file in man/man1/lastout.1.gz bash-completion/completions/lastout zsh/vendor-completions/_lastout \\
            fish/vendor_completions.d/lastout.fish doc/lastout/copyright doc/lastout/changelog.Debian.gz; do
            dpkg --listfiles lastout | grep --line-regexp --quiet /usr/share/$file || echo no $file
        done
        dpkg --verify lastout | grep -v -e /man/ -e /doc/ || true
        dpkg --remove lastout >/dev/null
        if test -e /usr/bin/lastout; then echo still there; fi";
    let volume = format!("{}:/packages:ro", made[1].0.parent().unwrap().display());
    let name = format!("DEB={}", made[1].0.file_name().unwrap().to_str().unwrap());
    let options = ["run", "--rm", "--volume", &volume, "--env", &name, "--network", "none"];
    let said = run("docker", &[&options[..], &["debian:bookworm-slim", "sh", "-c", script]].concat());
    assert_eq!(said, format!("{version}3\n"));
}

#[test]
fn another_machine_has_debians_name_or_there_is_no_package() {
    let output = Command::new(repository().join("docker/package")).arg("sparc-unknown-linux-gnu").output().unwrap();
    assert_eq!(status(output.status), 1);
    assert!(
        both(&output).contains("does not know what Debian calls sparc-unknown-linux-gnu: add it"),
        "{}",
        both(&output)
    );
}
