//! What the kernel lets go of late. When a process ends, the kernel closes its files before anybody learns of the end;
//! but not what an io_uring ring holds, which a worker takes apart after an RCU grace period (`io_ring_exit_work` in
//! io_uring/io_uring.c), nor descriptors in flight in a cycle of Unix sockets, which wait for their collector
//! (net/unix/garbage.c). Until then a volume is busy.
//!
//! No call waits for that. So we do the same and see when it is over: what we give to the same workers after the others
//! is let go of after theirs. They are not strictly first in, first out: once leaves 1 of 40 early under load, twice in a row
//! left none of 220.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use super::{
    fd,
    poll::{Interest, wait_any},
};

const TIMES: u32 = 2;
/// Longer than it takes.
const AGAIN: Duration = Duration::from_millis(250);
/// `IORING_REGISTER_FILES` of linux/io_uring.h.
const REGISTER_FILES: libc::c_uint = 2;
/// The size of its `struct io_uring_params`, in 8 bytes.
const PARAMS: usize = 15;

/// Waits until the kernel has let go of what ended processes held. Takes 40 to 80 ms, but is up to the kernel: whoever calls
/// this has a deadline for it.
pub fn wait() -> io::Result<()> {
    for _ in 0..TIMES {
        let (read, write) = fd::pipe()?;
        match give_to_a_ring(&write) {
            // There are none here, so nobody else had one.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EACCES)) => {}
            given => given?,
        }
        give_to_a_cycle(&write)?;
        drop(write);
        await_end(&read)?;
    }
    Ok(())
}

/// Waits until nobody holds the other end.
fn await_end(read: &OwnedFd) -> io::Result<()> {
    while fd::read(read, &mut [0])?.is_none() {
        if wait_any(&[(read.as_fd(), Interest::Read)], Some(AGAIN))? == [false] {
            // The collector of cycles begins when a socket is closed, and may have looked too early.
            drop(socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?);
        }
    }
    Ok(())
}

/// Registers a file with a ring that has then gone.
fn give_to_a_ring(file: &OwnedFd) -> io::Result<()> {
    let mut params = [0u64; PARAMS];
    // SAFETY: `params` is valid for reading and writing the whole structure, and zeroes ask for nothing special.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    let ring = i32::try_from(ring).ok().filter(|ring| *ring >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let ring = unsafe { OwnedFd::from_raw_fd(ring) };
    let file = file.as_raw_fd();
    // SAFETY: `file` is valid for reading the one number that is announced.
    match unsafe { libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), REGISTER_FILES, &raw const file, 1) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends a file and a socket to that socket, which has then no other holder.
fn give_to_a_cycle(file: &OwnedFd) -> io::Result<()> {
    let (from, to) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?;
    let sent = [file.as_raw_fd(), to.as_raw_fd()];
    let sent = [ControlMessage::ScmRights(&sent)];
    sendmsg::<()>(from.as_raw_fd(), &[IoSlice::new(b"x")], &sent, MsgFlags::MSG_DONTWAIT, None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::disposable::with_deadline, *};

    #[test]
    fn the_kernel_lets_go_in_time() {
        let (said, finished) = with_deadline(Duration::from_secs(20), |send| send(format!("{:?}", wait()).as_bytes()));
        assert_eq!((said, finished), (vec![b"Ok(())".to_vec()], true));
    }

    #[test]
    fn a_file_in_a_ring_or_a_cycle_outlives_its_descriptors_and_is_let_go_of() {
        for give in [give_to_a_ring, give_to_a_cycle] {
            let (said, _) = with_deadline(Duration::from_secs(20), |send| {
                let (read, write) = fd::pipe().unwrap();
                // Where rings are forbidden, or too many wait to be taken down, there is nothing to see.
                match give(&write).map_err(|error| error.raw_os_error().unwrap_or(0)) {
                    Ok(()) | Err(libc::EPERM | libc::ENOMEM) => {}
                    Err(errno) => return send(format!("errno {errno}").as_bytes()),
                }
                drop(write);
                await_end(&read).unwrap();
                send(b"gone");
            });
            assert_eq!(said, [b"gone"]);
        }
    }
}
