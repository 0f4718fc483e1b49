//! What Rust's start-up code does for a program and `main` has to do by itself (`poll(2)`, `open(2)`, `signal(2)`).
//!
//! That code also reads the table of this process's memory, to be able to say that the stack was too small, and makes a stack
//! for the handler that says it: a fiftieth of the time of `exec -- /bin/true`. A stack that is too small still ends the process.
//!
//! Neighbours: `main` calls it. Never: is called with a second thread running.

/// Opens what the caller left closed of stdin, stdout and stderr, so that no file of ours takes its number, and ignores SIGPIPE.
pub fn begin() {
    let closed = |fd| libc::pollfd { fd, events: 0, revents: 0 };
    let mut standard = [0, 1, 2].map(closed);
    // SAFETY: `standard` is three live pollfds.
    let asked = unsafe { libc::poll(standard.as_mut_ptr(), 3, 0) };
    for place in standard {
        let missing = match asked {
            // Where poll itself is refused, each number is asked for.
            -1 => {
                // SAFETY: fcntl with F_GETFD takes integers.
                let flags = unsafe { libc::fcntl(place.fd, libc::F_GETFD) };
                flags == -1
            }
            _ => place.revents & libc::POLLNVAL != 0,
        };
        if missing {
            // SAFETY: the path is a NUL-terminated text.
            let opened = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
            // The lowest number that is free, which is this one, as those below are open by now.
            if opened != place.fd {
                super::process::exit_now(1);
            }
        }
    }
    // SAFETY: SIG_IGN is a disposition for every signal but two, of which this is none.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}
