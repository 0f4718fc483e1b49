//! listen(2) in a cell whose Landlock holds no ports: the filter refuses it, and where it may listen all the same that is done for it.
//!
//! Neighbours: `refusals` hands on the calls; `launch::listening` does it. Never: lets the kernel go on with the call.

use std::os::fd::BorrowedFd;

use crate::launch::listening::Attempt;
use crate::launch::memory::Memory;
use crate::plan::step::Step;
use crate::plan::{Plan, seccomp};
use crate::sys::Errno;
use crate::sys::notify::Notification;

/// What becomes of such a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has succeeded.
    Listens,
    /// It fails, and nothing was refused.
    Fails(Errno),
    /// It is refused: this is where the socket is, as far as it is known.
    Elsewhere(String),
}

/// Calls of one cell that are looked into: each takes a process.
const MOST: u32 = 4096;

/// The ports of one cell.
#[derive(Debug)]
pub(super) struct Listens {
    ports: Vec<u16>,
    made: u32,
}

impl Listens {
    /// Of a plan whose filter refuses what may be allowed here.
    pub(super) fn of(plan: &Plan) -> Option<Self> {
        plan.steps.iter().find_map(|step| match step {
            Step::Seccomp { listens, .. } => listens.clone().map(|ports| Self { ports, made: 0 }),
            _ => None,
        })
    }

    /// Is it this call?
    pub(super) fn is(call: &Notification) -> bool {
        seccomp::name(call.number) == Some("listen")
    }

    pub(super) fn answer(
        &mut self,
        listener: BorrowedFd<'_>,
        call: &Notification,
        memory: Option<&Memory>,
    ) -> Answer {
        if self.made == MOST {
            return Answer::Elsewhere(format!("after {MOST} calls"));
        }
        self.made += 1;
        let [descriptor, queue] = [0, 1].map(|nth| {
            let register: u64 = call.arguments.get(nth).copied().unwrap_or_default();
            u32::try_from(register & u64::from(u32::MAX)).unwrap_or_default().cast_signed()
        });
        let attempt = Attempt { id: call.id, thread: call.pid, descriptor, queue, ports: self.ports.clone() };
        match attempt.make(memory, listener) {
            Ok(None) => Answer::Listens,
            Ok(Some(place)) => Answer::Elsewhere(place),
            // Of listen(2), without anybody's doing.
            Err(
                errno @ Errno(
                    libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::EADDRINUSE | libc::EINVAL,
                ),
            ) => Answer::Fails(errno),
            Err(_unknown) => Answer::Elsewhere(String::new()),
        }
    }
}
