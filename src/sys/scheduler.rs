//! Which processors this thread may run on (`sched_setaffinity(2)`).
//!
//! Neighbours: `launch::early`. Never: changes another process.

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

    /// The same without the one that this thread runs on; `None` if that leaves none.
    #[must_use]
    pub fn others(mut self) -> Option<Self> {
        // SAFETY: sched_getcpu takes nothing.
        let here = usize::try_from(unsafe { libc::sched_getcpu() }).ok().filter(|here| *here < 1024)?;
        // SAFETY: `here` is within the set's 1024 bits.
        unsafe { libc::CPU_CLR(here, &mut self.0) };
        // SAFETY: CPU_COUNT only reads the set.
        let left = unsafe { libc::CPU_COUNT(&self.0) };
        (left > 0).then_some(self)
    }

    /// Makes this thread run on these only; it has moved when this returns.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn confine(&self) -> Result<()> {
        // SAFETY: the set is live and as large as said; 0 is the calling thread.
        let answer = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0) };
        check(libc::c_long::from(answer)).map(drop)
    }
}
