//! A program that tells a listener of what it refuses, and on demand of files that are opened, and of what is attempted: addresses
//! that are to be reached or listened at, programs that are to be run.
//!
//! Neighbours: `tree` writes the program, `launch` installs this one, `evaluate` works out what the listener answers.
//! Never: allows or kills other calls than the program does.

use super::tree::{
    ARCHITECTURE, ARGUMENTS, AUDIT_ARCH_X86_64, Instruction, JUMP, JUMP_EQUAL, LOAD, NUMBER, RET_ERRNO,
    RETURN,
};
use super::{Errno, table};
use crate::plan::step::Attempts;
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

/// What an attempt is made by. `execveat` is not among them: init runs the payload by it, and programs do without.
const EXECVE: &str = "execve";
const CONNECT: &str = "connect";
const BIND: &str = "bind";
const SENDTO: &str = "sendto";

/// Does the call with this number run a program?
#[must_use]
pub fn runs(number: u32) -> bool {
    table::name(number) == Some(EXECVE)
}

/// The register of an address, if the call with this number is made to reach one, or to be reached there.
#[must_use]
pub fn reaches(number: u32) -> Option<usize> {
    match table::name(number) {
        Some(CONNECT | BIND) => Some(1),
        Some(SENDTO) => Some(4),
        _ => None,
    }
}

/// The program whose refusals are told instead of answered. `ENOSYS` stays the kernel's: it sends programs to an older
/// call, as often as they start a thread.
#[must_use]
pub fn observing(program: &[Instruction], observe: Observe, attempts: Attempts) -> Vec<Instruction> {
    let opens = OPENS.iter().filter(|_| observe == Observe::Files);
    let attempted: &[&str] = match attempts {
        Attempts::Untold => &[],
        Attempts::Programs => &[EXECVE],
        Attempts::All => &[EXECVE, CONNECT, BIND],
    };
    let told = opens.chain(attempted);
    let numbers: Vec<u32> = told.filter_map(|name| table::number(name)).collect();
    let mut observing =
        if numbers.is_empty() { Vec::new() } else { tell_of(&numbers, attempts == Attempts::All) };
    observing.extend(program.iter().map(|instruction| match instruction {
        (RETURN, _, _, answer) if answer & 0xffff_0000 == RET_ERRNO && *answer != ENOSYS => {
            (RETURN, 0, 0, RET_USER_NOTIF)
        }
        other => *other,
    }));
    observing
}

/// What comes before a program: it goes on to the program with every call but those, and with `sendto(2)` that has an address
/// (of a call that has none the register is zero).
fn tell_of(numbers: &[u32], sendto: bool) -> Vec<Instruction> {
    let mut code = vec![(RETURN, 0, 0, RET_USER_NOTIF), (JUMP, 0, 0, 1)];
    if let Some(number) = table::number(SENDTO).filter(|_| sendto) {
        code.push((JUMP_EQUAL, 0, 1, 0));
        code.push((LOAD, 0, 0, ARGUMENTS + 8 * 4 + 4));
        code.push((JUMP_EQUAL, 0, 3, 0));
        code.push((LOAD, 0, 0, ARGUMENTS + 8 * 4));
        code.push((JUMP_EQUAL, 0, 4, number));
    }
    for number in numbers.iter().rev() {
        // To the first of these.
        let place = u8::try_from(code.len() - 1).unwrap_or(u8::MAX);
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
