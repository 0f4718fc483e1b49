//! A program that tells a listener of what it refuses, and on demand of files that are opened.
//!
//! Neighbours: `tree` writes the program, `launch` installs this one, `evaluate` works out what the listener answers.
//! Never: allows or kills other calls than the program does.

use super::tree::{
    ARCHITECTURE, AUDIT_ARCH_X86_64, Instruction, JUMP, JUMP_EQUAL, LOAD, NUMBER, RET_ERRNO, RETURN,
};
use super::{Errno, table};
use crate::policy::Observe;

/// linux/seccomp.h: the listener answers.
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const ENOSYS: u32 = RET_ERRNO | Errno::Nosys.number();

/// Calls that open a file by a path. `openat2` is not among them: programs do without.
const OPENS: [&str; 3] = ["open", "openat", "creat"];

/// Does the call with this number open a file by a path?
#[must_use]
pub fn opens(number: u32) -> bool {
    table::name(number).is_some_and(|name| OPENS.contains(&name))
}

/// The program whose refusals are told instead of answered. `ENOSYS` stays the kernel's: it sends programs to an older
/// call, as often as they start a thread.
#[must_use]
pub fn observing(program: &[Instruction], observe: Observe) -> Vec<Instruction> {
    let mut observing = match observe {
        Observe::Calls => Vec::new(),
        Observe::Files => tell_of_opens(),
    };
    observing.extend(program.iter().map(|instruction| match instruction {
        (RETURN, _, _, answer) if answer & 0xffff_0000 == RET_ERRNO && *answer != ENOSYS => {
            (RETURN, 0, 0, RET_USER_NOTIF)
        }
        other => *other,
    }));
    observing
}

/// What comes before a program: it goes on to the program with every call but those.
fn tell_of_opens() -> Vec<Instruction> {
    let numbers: Vec<u32> = OPENS.iter().filter_map(|name| table::number(name)).collect();
    let mut code = vec![(RETURN, 0, 0, RET_USER_NOTIF), (JUMP, 0, 0, 1)];
    for (place, number) in (1..).zip(numbers.iter().rev()) {
        code.push((JUMP_EQUAL, place, 0, *number));
    }
    code.push((LOAD, 0, 0, NUMBER));
    // Past all that is above, to the program.
    let rest = u8::try_from(code.len()).unwrap_or(u8::MAX);
    code.push((JUMP_EQUAL, 0, rest, AUDIT_ARCH_X86_64));
    code.push((LOAD, 0, 0, ARCHITECTURE));
    code.reverse();
    code
}
