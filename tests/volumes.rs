//! Volumes when lastout leaves: what was written has reached them, or it says so.

use std::{path::PathBuf, process::Command};

use crate::support::*;

/// An ext4 of 64 MB on a disk of 6: what is written fits into memory, and not onto the disk.
struct TooSmall {
    volume: PathBuf,
    _disk: Volume,
}

impl TooSmall {
    fn mount(at: &tempfile::TempDir) -> TooSmall {
        let disk = at.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let disk = Volume::mount_with(&disk, &["-o", "size=6m"]);
        let (image, volume) = (disk.path.join("image"), at.path().join("volume"));
        let image = image.to_str().unwrap();
        std::fs::create_dir(&volume).unwrap();
        run("truncate", &["-s", "64M", image]);
        run("mkfs.ext4", &["-q", "-F", "-E", "nodiscard", "-J", "size=4", image]);
        run("mount", &["-o", "loop", image, volume.to_str().unwrap()]);
        TooSmall { volume, _disk: disk }
    }
}

impl Drop for TooSmall {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.volume).output();
    }
}

#[test]
fn what_did_not_reach_its_volume_turns_success_into_74() {
    if !has("root") {
        return;
    }
    for (sync, main, code, told) in
        [("all", "0", 74, true), ("all", "3", 3, true), ("auto", "0", 0, false), ("none", "0", 0, false)]
    {
        let scratch = scratch();
        let small = TooSmall::mount(&scratch);
        let control = scratch.path().join("control");
        let file = small.volume.join("file");
        let script = format!("head -c 20000000 /dev/urandom > {}; exit {main}", file.display());
        let args = ["--control", control.to_str().unwrap(), "--sync", sync, "--", "sh", "-c", &script];
        let output = lastout(&args).output().unwrap();
        let text = both(&output);
        assert_eq!(output.status.code(), Some(code), "--sync {sync}: {text}");
        let volume = small.volume.to_str().unwrap();
        let line = text.lines().find(|line| line.contains("cannot sync") && line.contains(volume));
        assert_eq!(line.is_some_and(|line| line.contains("(ext4)")), told, "{text}");
    }
}
