//! What an executable needs to be run: the program that `#!` names, or the dynamic loader of an ELF file.

use std::{
    ffi::{CStr, OsStr},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// `BINPRM_BUF_SIZE`: the kernel reads no more of a first line.
const FIRST_LINE: usize = 256;
/// `PT_INTERP` of `elf(5)`.
const PT_INTERP: u32 = 3;

/// An exec of the file `program` has said ENOENT: its interpreter, if the file is there and the interpreter is not.
pub(super) fn missing(program: &OsStr) -> Option<PathBuf> {
    let interpreter = of(Path::new(program)).ok()??;
    (!interpreter.exists()).then_some(interpreter)
}

fn of(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    file.by_ref().take(FIRST_LINE as u64).read_to_end(&mut head)?;
    if let Some(script) = head.strip_prefix(b"#!") {
        let line = script.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii();
        let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        return Ok((!word.is_empty()).then(|| OsStr::from_bytes(word).into()));
    }
    let Some(headers) = program_headers(&head) else { return Ok(None) };
    let mut table = vec![0; headers.size * headers.count];
    file.seek(SeekFrom::Start(headers.offset))?;
    file.read_exact(&mut table)?;
    for header in table.chunks(headers.size) {
        if number(header, 0, 4) == Some(u64::from(PT_INTERP)) {
            let (offset, size) = if headers.wide { ((8, 8), (32, 8)) } else { ((4, 4), (16, 4)) };
            let offset = number(header, offset.0, offset.1).unwrap_or(0);
            let size = number(header, size.0, size.1).unwrap_or(0).min(4096);
            let mut text = vec![0; size as usize];
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut text)?;
            return Ok(CStr::from_bytes_until_nul(&text).ok().map(|text| OsStr::from_bytes(text.to_bytes()).into()));
        }
    }
    Ok(None)
}

/// Where an ELF file has its program headers.
struct Headers {
    wide: bool,
    offset: u64,
    size: usize,
    count: usize,
}

/// Reads an ELF header (`elf(5)`) of little-endian machines, which are those that containers run on.
fn program_headers(head: &[u8]) -> Option<Headers> {
    if head.get(..4)? != b"\x7fELF" || *head.get(5)? != 1 {
        return None;
    }
    let wide = *head.get(4)? == 2;
    let (offset, size, count) = if wide { ((32, 8), 54, 56) } else { ((28, 4), 42, 44) };
    let headers = Headers {
        wide,
        offset: number(head, offset.0, offset.1)?,
        size: number(head, size, 2)? as usize,
        count: number(head, count, 2)? as usize,
    };
    (headers.size >= if wide { 56 } else { 32 }).then_some(headers)
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + size)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_and_a_program_name_their_interpreters() {
        let file = std::env::temp_dir().join(format!("lastout-interpreter-{}", std::process::id()));
        for (text, interpreter) in [
            ("#!/bin/sh\n", Some("/bin/sh")),
            ("#! /nope/python3 -u\nx", Some("/nope/python3")),
            ("#!\n", None),
            ("echo x\n", None),
            ("\x7fELF", None),
            ("", None),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(of(&file).ok().flatten(), interpreter.map(PathBuf::from), "{text:?}");
        }
        std::fs::remove_file(&file).unwrap();
        // Any dynamic program of the machine will do; its loader is there.
        let loader = of(Path::new("/bin/sh")).unwrap().expect("a dynamic /bin/sh");
        assert!(loader.exists(), "{}", loader.display());
        assert_eq!(missing(OsStr::new("/bin/sh")), None);
    }
}
