//! The pages of this program's own file that the process has mapped (`madvise(2)`).
//!
//! Neighbours: `launch::init`, which waits for the payload, and the supervisor, which waits for its client. Never: touches memory that can be written to.

use libc::{Elf64_Phdr, PF_W, PT_LOAD, PT_PHDR};

/// The page size of x86-64 and the smallest of the others, so a multiple of it in each program.
const PAGE: u64 = 4096;

/// Unmaps them, which the end of the process would have to do otherwise, and somebody waits for that. Those that are
/// needed once more come back when they are touched: they are the file's, and mapped read-only.
pub fn let_go() {
    // SAFETY: getauxval takes an integer.
    let headers = unsafe { libc::getauxval(libc::AT_PHDR) };
    // SAFETY: as above.
    let count = unsafe { libc::getauxval(libc::AT_PHNUM) };
    let Ok(count) = usize::try_from(count) else { return };
    if headers == 0 {
        return;
    }
    // SAFETY: the kernel has put the address and the number of this program's headers there; they are mapped for as
    // long as it runs, and never written.
    let segments = unsafe { std::slice::from_raw_parts(headers as *const Elf64_Phdr, count) };
    let base = segments.iter().find(|s| s.p_type == PT_PHDR).map_or(0, |s| headers.wrapping_sub(s.p_vaddr));
    for segment in segments.iter().filter(|s| s.p_type == PT_LOAD && s.p_flags & PF_W == 0) {
        let start = base.wrapping_add(segment.p_vaddr) / PAGE * PAGE;
        // Not the last page: what is only partly of this segment may be of the next one too.
        let end = base.wrapping_add(segment.p_vaddr).wrapping_add(segment.p_memsz) / PAGE * PAGE;
        if let Ok(length) = usize::try_from(end.saturating_sub(start)) {
            // SAFETY: the range is of a segment of a file that is mapped privately and cannot be written to: what is
            // dropped is read from the file again. A refusal changes nothing.
            unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        }
    }
}

#[cfg(test)]
mod tests {
    /// Resident bytes of this program's read-only mappings of its own file, in KiB.
    fn resident() -> u64 {
        let program = std::env::current_exe().unwrap_or_default().to_string_lossy().into_owned();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let mut mine = false;
        let mut sum = 0;
        for line in maps.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("Rss:") if mine => sum += words.next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0),
                Some(first) if !first.ends_with(':') => {
                    mine =
                        line.ends_with(&program) && !words.next().is_some_and(|rights| rights.contains('w'));
                }
                _ => {}
            }
        }
        sum
    }

    #[test]
    fn pages_of_the_program_are_given_back_and_it_goes_on() {
        let before = resident();
        super::let_go();
        let after = resident();
        assert!(after < before / 4 * 3, "{before} KiB, then {after} KiB");
    }
}
