//! Health checks: built-in ones, for an image without curl, and commands. Each runs in a child of its own, which its time
//! limit ends. A command's has the command as its own child and is the subreaper of what that starts: a daemon that a
//! check leaves ends with it, or there would be one more of them every time.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use crate::{
    base::{Exit, Pid, Signal},
    core::service::Check,
    inspect,
    sys::{
        process, signals,
        wait::{Reaped, await_end, reap},
    },
};

/// Bytes of an answer in which its status must be.
const STATUS_LINE: usize = 1024;

/// Why it is not healthy, if it is not. Blocks, for as long as the other side does.
pub(super) fn check(what: &Check) -> Result<(), String> {
    match what {
        // Somebody else executes it.
        Check::Command(_) => Ok(()),
        Check::Tcp { host, port } => connect(host, *port).map(drop),
        Check::Http { host, port, path } => {
            let answer = get(&mut connect(host, *port)?, host, *port, path);
            let line = answer.map_err(|error| format!("no answer: {}", said(&error)))?;
            match status(&line) {
                Some(200..=399) => Ok(()),
                Some(code) => Err(format!("status {code}")),
                None => Err(format!("no HTTP: {}", line.chars().take(80).collect::<String>())),
            }
        }
    }
}

/// In a child that is a subreaper: waits for its command, and ends what that has left.
pub(super) fn supervise(command: Pid) -> u8 {
    let mut exit = None;
    while await_end() {
        if let Reaped::Child(pid, how, _) = reap()
            && pid == command
        {
            exit = Some(how);
        }
        if exit.is_some() {
            let left = inspect::below(process::me()).unwrap_or_default();
            for process in left.iter().filter(|process| !process.is_dead()) {
                let _ = signals::send(process.id.pid, Signal::KILL);
            }
        }
    }
    exit.map_or(1, Exit::status)
}

fn said(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |_| crate::sys::errno(error).to_string())
}

fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    // An IPv6 address may have the brackets that a URL needs.
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    TcpStream::connect((plain, port)).map_err(|error| format!("cannot connect to {host}:{port}: {}", said(&error)))
}

/// The first line of the answer. What follows is nobody's business.
fn get(stream: &mut TcpStream, host: &str, port: u16, path: &str) -> io::Result<String> {
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.into() };
    let host = if port == 80 { host } else { format!("{host}:{port}") };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lastout\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    // Who does not read it all may have answered all the same.
    let written = stream.write_all(request.as_bytes());
    let mut line = Vec::new();
    let mut buffer = [0; STATUS_LINE];
    while !line.contains(&b'\n') && line.len() < STATUS_LINE {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Err(error) => return Err(written.err().unwrap_or(error)),
            Ok(count) => line.extend_from_slice(&buffer[..count]),
        }
    }
    let line = String::from_utf8_lossy(&line);
    Ok(line.lines().next().unwrap_or_default().trim().to_string())
}

/// `HTTP/1.1 204 No Content`
fn status(line: &str) -> Option<u16> {
    let mut words = line.split(' ');
    words.next()?.strip_prefix("HTTP/")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// Answers one request; gives back what was asked.
    fn server(answer: &'static [u8]) -> (u16, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut asked, mut buffer) = (Vec::new(), [0; 4096]);
            while !asked.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer).unwrap() {
                    0 => break,
                    count => asked.extend_from_slice(&buffer[..count]),
                }
            }
            let _ = stream.write_all(answer);
            String::from_utf8(asked).unwrap()
        });
        (port, served)
    }

    #[test]
    fn an_answer_of_200_to_399_is_healthy() {
        for (answer, expected) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"[..], Ok(())),
            (b"HTTP/1.0 302 Found\r\n\r\n", Ok(())),
            (b"HTTP/1.1 204\n", Ok(())),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", Err("status 404".to_string())),
            (b"HTTP/1.1 503 x\r\n\r\nHTTP/1.1 200 OK", Err("status 503".into())),
            (b"SSH-2.0-x\r\n", Err("no HTTP: SSH-2.0-x".into())),
            (b"", Err("no HTTP: ".into())),
        ] {
            let (port, served) = server(answer);
            let what = Check::Http { host: "127.0.0.1".into(), port, path: "/health?x=1".into() };
            assert_eq!(check(&what), expected, "{}", String::from_utf8_lossy(answer));
            let asked = served.join().unwrap();
            assert!(asked.starts_with("GET /health?x=1 HTTP/1.1\r\n"), "{asked}");
            assert!(asked.contains(&format!("\r\nHost: 127.0.0.1:{port}\r\n")), "{asked}");
        }
    }

    #[test]
    fn a_connection_is_healthy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let what = Check::Tcp { host: "localhost".into(), port };
        assert_eq!(check(&what), Ok(()));
        drop(listener);
        let why = check(&what).unwrap_err();
        assert!(why.starts_with(&format!("cannot connect to localhost:{port}: connection refused")), "{why}");
    }
}
