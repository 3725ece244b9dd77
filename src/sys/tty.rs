//! Terminals: the foreground, new ones, modes and sizes.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    sync::OnceLock,
};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::{process, signals, start};
use crate::base::{Pgid, Pid, Signal, Size};

/// Our terminal, which main has for as long as it runs.
#[derive(Debug)]
pub struct Lent {
    terminal: OwnedFd,
    before: Option<Modes>,
    /// Its foreground is ours to give. Or main sees to that itself: in our group, or in a session of its own.
    gives: bool,
    /// Main has the foreground from us. Not in a shell's background.
    given: bool,
}

impl Lent {
    /// If standard input is it and we are in its foreground, so that main should be. `anywhere`: also where standard
    /// input is something else.
    pub fn find(anywhere: bool) -> Option<Lent> {
        let input = Some(super::fd::standard(0)).filter(|input| nix::unistd::tcgetpgrp(input).is_ok());
        let terminal =
            input.and_then(|input| input.try_clone_to_owned().ok()).or_else(|| controlling().filter(|_| anywhere))?;
        let before = Modes::of(&terminal).ok();
        is_ours(terminal.as_fd()).then_some(Lent { terminal, before, gives: true, given: true })
    }

    /// The same, for a main that is not put into the foreground.
    pub fn find_without_foreground() -> Option<Lent> {
        Some(Lent { gives: false, given: false, ..Lent::find(false)? })
    }

    /// To `leader`'s process group.
    pub fn give(&self, leader: Pid) -> io::Result<()> {
        give_foreground(&self.terminal, leader)
    }

    /// Main has ended. `as_before`: in the modes that it had, for whom a signal ends can set nothing right any more;
    /// what somebody has set who ended by himself is to stay (`lastout -- stty -echo`), which is how shells do it.
    pub fn take_back(&self, as_before: bool) {
        if self.given {
            let _ = nix::unistd::tcsetpgrp(&self.terminal, nix::unistd::getpgrp());
        }
        // The session of a main that led one has let go of it with main's end (tty_ioctl(4)).
        if let Some(before) = self.before.as_ref().filter(|_| as_before && is_ours(self.terminal.as_fd())) {
            let _ = before.set(&self.terminal);
        }
    }

    /// Main was stopped. The shell that waits for us is to know: our process group stops as by the terminal's key, until
    /// somebody lets it go on. Where nobody could, the kernel drops that, and main is not to stand still for ever.
    pub fn suspend(&mut self, main: Pid, by: Signal) -> io::Result<()> {
        if !self.gives {
            return Ok(());
        }
        let main_has_it =
            |lent: &Lent| nix::unistd::tcgetpgrp(&lent.terminal).is_ok_and(|group| group.as_raw() == main.get());
        if process::me() != Pid::INIT {
            // A shell puts who runs in the background into the foreground without a word: then it has only to be given on.
            let asks = matches!(by, Signal::TTIN | Signal::TTOU) && is_ours(self.terminal.as_fd());
            if main_has_it(self) {
                nix::unistd::tcsetpgrp(&self.terminal, nix::unistd::getpgrp())?;
            }
            if !asks {
                super::signals::stop_group()?;
            }
            self.given = is_ours(self.terminal.as_fd());
            if self.given {
                self.give(main)?;
            }
        }
        // In the background the shell's SIGCONT is passed on. SIGSTOP may have been somebody's wish for main alone.
        match Pgid::led_by(main).filter(|_| by != Signal::STOP && main_has_it(self)) {
            Some(group) => super::signals::send_group(group, Signal::CONT),
            None => Ok(()),
        }
    }
}

impl AsRawFd for Lent {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.terminal.as_raw_fd()
    }
}

/// Our session's terminal.
pub fn controlling() -> Option<OwnedFd> {
    Some(std::fs::File::options().read(true).write(true).open("/dev/tty").ok()?.into())
}

/// Has our process give up the terminal that standard input is. True if we lead its session: then the kernel sends
/// SIGHUP and SIGCONT to its foreground, us included (tty_ioctl(4)).
pub fn leave() -> bool {
    // SAFETY: the request takes no argument.
    let left = unsafe { libc::ioctl(0, libc::TIOCNOTTY) } == 0;
    left && nix::unistd::getsid(None) == Ok(nix::unistd::getpid())
}

/// Makes the terminal that standard input is that of our session, which we lead and which has none.
pub fn take_control() -> io::Result<()> {
    // SAFETY: the request takes a number.
    match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts `leader`'s process group into the foreground. SIGTTOU is blocked by the caller, or the call would
/// stop it.
pub fn give_foreground(terminal: impl AsFd, leader: Pid) -> io::Result<()> {
    Ok(nix::unistd::tcsetpgrp(terminal, nix::unistd::Pid::from_raw(leader.get()))?)
}

/// Where new terminals come from.
pub const MULTIPLEXER: &str = "/dev/ptmx";

/// A new terminal (pty(7)): the end that shows and types, which never waits, and the one that a program is given. It is
/// nobody's controlling terminal. An error is that of [`MULTIPLEXER`].
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut options = std::fs::File::options();
    let master = options.read(true).write(true).custom_flags(super::fd::OPEN_NONBLOCKING).open(MULTIPLEXER)?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads one number.
    if unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlocked) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Not by its name: whatever is mounted at /dev/pts, this is the other end.
    // SAFETY: the request takes a number.
    let slave =
        unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    if slave < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok((master.into(), unsafe { OwnedFd::from_raw_fd(slave) }))
}

/// Makes somebody a terminal's owner; its group stays (where there is one for terminals, the kernel has given it that).
pub fn give_to(terminal: impl AsFd, uid: u32) -> io::Result<()> {
    Ok(nix::unistd::fchown(terminal, Some(nix::unistd::Uid::from_raw(uid)), None)?)
}

/// A terminal's size; `None`: it is no terminal, or has none.
pub fn size(terminal: impl AsFd) -> Option<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is valid for writing.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    (result == 0 && size.ws_col > 0 && size.ws_row > 0).then_some(Size { columns: size.ws_col, rows: size.ws_row })
}

/// Gives a terminal this size. The kernel tells its foreground, if it is another one.
pub fn set_size(terminal: impl AsFd, size: Size) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is valid for reading.
    match unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether it is a terminal.
pub fn is_terminal(fd: impl AsFd) -> bool {
    tcgetattr(fd).is_ok()
}

/// How a terminal treats keys and output.
#[derive(Clone, Debug)]
pub struct Modes(Termios);

impl Modes {
    /// As they are.
    pub fn of(terminal: impl AsFd) -> io::Result<Modes> {
        Ok(Modes(tcgetattr(terminal)?))
    }

    /// Every key comes through as it is typed, and every byte goes out as it is (cfmakeraw(3)).
    pub fn raw(&self) -> Modes {
        let mut raw = self.0.clone();
        cfmakeraw(&mut raw);
        Modes(raw)
    }

    /// Sets them. In the terminal's background this stops the process, unless it blocks or ignores SIGTTOU.
    pub fn set(&self, terminal: impl AsFd) -> io::Result<()> {
        // Without waiting for what is still being written, which may be never.
        Ok(tcsetattr(terminal, SetArg::TCSANOW, &self.0)?)
    }
}

/// A terminal in raw mode. When this is dropped the terminal is as it was before.
#[derive(Debug)]
pub struct Raw {
    terminal: BorrowedFd<'static>,
    before: Modes,
    is_raw: bool,
}

impl Raw {
    /// As it is; not raw yet.
    pub fn of(terminal: BorrowedFd<'static>) -> io::Result<Raw> {
        Ok(Raw { terminal, before: Modes::of(terminal)?, is_raw: false })
    }

    /// A panic and a signal that ends us drop nothing: has them give the terminal back, too. One for each process.
    pub fn mind_every_end(&self) {
        MINDED.get_or_init(|| (self.terminal, self.before.0.clone().into()));
        start::at_panic(|panic| {
            give_back();
            start::last_words(panic)
        });
        signals::last_deed(give_back);
    }

    /// Makes it raw. In its background this stops the process, as everything that asks for the terminal.
    pub fn enter(&mut self) -> io::Result<()> {
        self.before.raw().set(self.terminal)?;
        self.is_raw = true;
        Ok(())
    }

    /// For as long as we are stopped, or for good: as it was before.
    pub fn leave(&mut self) {
        // Who has taken the foreground has set it up as it needs it.
        if std::mem::take(&mut self.is_raw) && is_ours(self.terminal) {
            let _ = self.before.set(self.terminal);
        }
    }

    /// Raw once more, after a stop, if somebody has put us into the foreground.
    pub fn again(&mut self) {
        if is_ours(self.terminal) {
            self.is_raw = self.before.raw().set(self.terminal).is_ok();
        }
    }
}

/// The terminal to give back when we end without a word, and its modes.
static MINDED: OnceLock<(BorrowedFd<'static>, libc::termios)> = OnceLock::new();

/// Only what a signal handler may do.
fn give_back() {
    if let Some((terminal, before)) = MINDED.get().filter(|(terminal, _)| is_ours(*terminal)) {
        // SAFETY: `before` is valid for reading.
        unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, before) };
    }
}

/// Whether we may set it up: not in its background. A terminal that is not our session's has no foreground for us.
fn is_ours(terminal: BorrowedFd) -> bool {
    nix::unistd::tcgetpgrp(terminal).map_or(true, |group| group == nix::unistd::getpgrp())
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::spawn, *};

    #[test]
    fn a_terminal_is_as_it_was_after_an_end_and_after_a_panic() {
        let (_master, slave) = pair().unwrap();
        // It lives as long as the test.
        let slave: &'static OwnedFd = Box::leak(Box::new(slave));
        let modes = || {
            let modes = tcgetattr(slave).unwrap();
            (modes.input_flags, modes.output_flags, modes.local_flags, modes.control_chars[..17].to_vec())
        };
        let before = modes();
        let mut raw = Raw::of(slave.as_fd()).unwrap();
        assert_eq!(modes(), before);
        raw.enter().unwrap();
        assert_ne!(modes(), before);
        raw.leave();
        assert_eq!(modes(), before);
        raw.again();
        assert_ne!(modes(), before);
        drop(raw);
        assert_eq!(modes(), before);
        let child = spawn::fork_child(|| {
            let mut raw = Raw::of(slave.as_fd()).unwrap();
            raw.mind_every_end();
            raw.enter().unwrap();
            if modes() == before {
                return 0;
            }
            panic!("a bug, for a test")
        });
        let ended = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.unwrap().get()), None).unwrap();
        assert!(matches!(ended, nix::sys::wait::WaitStatus::Exited(_, 125)), "{ended:?}");
        assert_eq!(modes(), before);
    }

    #[test]
    fn a_new_terminal_has_the_size_that_it_is_given() {
        let (master, slave) = pair().unwrap();
        assert_eq!(size(&slave), None);
        let wanted = Size { columns: 132, rows: 43 };
        set_size(&master, wanted).unwrap();
        assert_eq!((size(&slave), size(&master)), (Some(wanted), Some(wanted)));
        assert!(is_terminal(&slave));
        assert!(!is_terminal(std::fs::File::open("/dev/null").unwrap()));
    }
}
