//! Which processors a thread may run on (`sched_setaffinity(2)`).
//!
//! Neighbours: `launch::early`. Never: changes a process that is not the caller's child.

use super::{Result, check};

/// A set of processors.
#[derive(Clone, Copy)]
pub struct Processors(libc::cpu_set_t);

impl std::fmt::Debug for Processors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // SAFETY: CPU_COUNT only reads the set.
        f.debug_tuple("Processors").field(&unsafe { libc::CPU_COUNT(&self.0) }).finish()
    }
}

impl Processors {
    /// Those that this thread may run on.
    ///
    /// # Errors
    /// The kernel's errno; `EINVAL` where there are more than 1024.
    pub fn allowed() -> Result<Self> {
        // SAFETY: cpu_set_t is a plain array of bits for which all zeroes is a value.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is live and as large as said; 0 is the calling thread.
        let answer = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        check(libc::c_long::from(answer))?;
        Ok(Self(set))
    }

    /// Moves a thread that has not run yet to another of these than the caller's, if there is one; from then on it may run
    /// on all of these.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn send_away(&self, thread: libc::pid_t) -> Result<()> {
        let mut others = *self;
        // SAFETY: sched_getcpu takes nothing.
        let here = usize::try_from(unsafe { libc::sched_getcpu() }).ok().filter(|here| *here < 1024);
        let Some(here) = here else { return Ok(()) };
        // SAFETY: `here` is within the set's 1024 bits.
        unsafe { libc::CPU_CLR(here, &mut others.0) };
        // SAFETY: CPU_COUNT only reads the set.
        if unsafe { libc::CPU_COUNT(&others.0) } == 0 {
            return Ok(());
        }
        for set in [&others.0, &self.0] {
            // SAFETY: the set is live and as large as said.
            let answer = unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), set) };
            check(libc::c_long::from(answer))?;
        }
        Ok(())
    }
}
