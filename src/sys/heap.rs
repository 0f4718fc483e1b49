//! The heap of libc (`mallopt(3)`, `madvise(2)`).
//!
//! Neighbours: `launch::early` and `launch::init`, whose time is that of what they start. Never: touches memory that is in use.

/// The page size of x86-64.
const PAGE: usize = 4096;
/// More than a launch ever holds.
const TRIM_THRESHOLD: libc::c_int = 1 << 30;

/// Has this much of the heap, at its end, backed by memory at once: each page by itself costs a fault when it is first written
/// to. From here on the heap gives nothing back, so this is for a process that soon ends. Only time depends on it, so a
/// refusal changes nothing.
pub fn back(bytes: usize) {
    // SAFETY: mallopt takes two integers, and locks what it changes.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD) };
    // Larger than what has been freed, so that it lies at the end.
    populate(&mut Vec::with_capacity(bytes));
}

/// `MADV_POPULATE_WRITE` of the whole pages in a vector's room.
fn populate(room: &mut Vec<u8>) {
    let place = room.as_mut_ptr();
    let start = place.addr().next_multiple_of(PAGE);
    let end = (place.addr() + room.capacity()) / PAGE * PAGE;
    // SAFETY: the whole pages within `room`, which nobody else uses: they are written to as by a store of what they hold.
    unsafe {
        libc::madvise(place.with_addr(start).cast(), end.saturating_sub(start), libc::MADV_POPULATE_WRITE)
    };
}

#[cfg(test)]
mod tests {
    /// Page faults of this thread so far.
    fn faults() -> i64 {
        // SAFETY: rusage is a plain C struct for which all zeroes is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is live and of the type that getrusage fills.
        let filled = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        assert_eq!(filled, 0);
        usage.ru_minflt
    }

    #[test]
    fn what_is_backed_costs_no_fault_any_more() {
        // More than libc ever keeps of what was freed, so that both are new.
        const BYTES: usize = 64 << 20;
        let filled = |mut room: Vec<u8>| {
            let before = faults();
            room.resize(BYTES, 1);
            std::hint::black_box(&room);
            faults() - before
        };
        let mut room = Vec::with_capacity(BYTES);
        super::populate(&mut room);
        let (backed, bare) = (filled(room), filled(Vec::with_capacity(BYTES)));
        // Huge pages make few faults of many.
        assert!(backed * 4 < bare, "{backed} and {bare} faults");
    }
}
