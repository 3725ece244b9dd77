use std::time::Duration;

use crate::{
    inspect,
    sys::{disposable::with_deadline, late},
};

/// For what takes a twentieth of it.
const LIMIT: Duration = Duration::from_secs(2);

/// Waits until the kernel has let go of what ended processes held on volumes, if there are any, or says that it has not.
pub fn let_go() {
    if inspect::volumes().is_ok_and(|volumes| volumes.is_empty()) {
        return;
    }
    // In a child: a seccomp filter may kill who asks for a ring.
    let (said, _) = with_deadline(LIMIT, |send| {
        send(late::wait().err().map(|error| crate::sys::errno(&error).to_string()).unwrap_or_default().as_bytes());
    });
    match said.first() {
        Some(failure) if failure.is_empty() => {}
        Some(failure) => log::info!(
            "cannot wait until the kernel has let go of what ended processes held: {}",
            String::from_utf8_lossy(failure)
        ),
        None => log::info!("the kernel may still hold what ended processes held: it has not answered in time"),
    }
}
