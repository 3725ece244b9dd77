//! lastout in Apptainer, the real one, as an ordinary user: `docker/apptainer`.

mod host;
mod instances;
mod killed;
mod matrix;
mod page;

/// What a main leaves: so many writers, each by two forks and a session of its own, that hold the volume, and need a
/// moment after SIGTERM to save their work.
const WRITERS: usize = 3;

/// Starts them, waits for them, and goes on with `then`. `mark` is in their command lines.
fn main(mark: &str, then: &str) -> String {
    let writer = "exec 3>/shared/volume/held-$1; trap \"sleep 0.2; echo saved >/shared/out/$1; exit 0\" TERM; \
        echo >/shared/volume/up-$1; while :; do echo more >&3; sleep 0.05; done";
    format!(
        "for i in $(seq {WRITERS}); do (setsid sh -c '{writer}' {mark} $i >/dev/null 2>&1 &) & done; \
         for i in $(seq {WRITERS}); do until [ -e /shared/volume/up-$i ]; do sleep 0.02; done; done; {then}"
    )
}
