//! What a program answers to one call, worked out as the kernel does.
//!
//! Neighbours: `tree` writes the programs; `watch` asks for the error of a call that the kernel told of. Never: knows
//! more of a call than its registers.

use super::tree::{RET_ALLOW, RET_ERRNO};

/// linux/seccomp.h: `SECCOMP_RET_ACTION_FULL`. The low half of `RET_ERRNO` is the error.
const RET_ACTION: u32 = 0xffff_0000;

/// The error that the program refuses this call with; `None` when it does something else, or is no program of ours.
#[must_use]
pub fn refusal(
    program: &[(u16, u8, u8, u32)],
    architecture: u32,
    number: u32,
    arguments: &[u64; 6],
) -> Option<i32> {
    let answer = evaluate(program, architecture, number, arguments)?;
    if answer & RET_ACTION != RET_ERRNO {
        return None;
    }
    i32::try_from(answer & !RET_ACTION).ok()
}

/// Does the program let this call run?
#[must_use]
pub fn allows(program: &[(u16, u8, u8, u32)], architecture: u32, number: u32, arguments: &[u64; 6]) -> bool {
    evaluate(program, architecture, number, arguments) == Some(RET_ALLOW)
}

/// The operand of the instruction that the program ends with. Jumps lead forward only, so that it does end.
pub(super) fn evaluate(
    program: &[(u16, u8, u8, u32)],
    architecture: u32,
    number: u32,
    arguments: &[u64; 6],
) -> Option<u32> {
    let (mut accumulator, mut at) = (0, 0_usize);
    loop {
        let (code, if_true, if_false, operand) = *program.get(at)?;
        at += 1;
        let holds = match code {
            0x20 => {
                accumulator = word(operand, architecture, number, arguments)?;
                continue;
            }
            0x54 => {
                accumulator &= operand;
                continue;
            }
            0x05 => {
                at = at.checked_add(usize::try_from(operand).ok()?)?;
                continue;
            }
            0x06 => return Some(operand),
            0x15 => accumulator == operand,
            0x35 => accumulator >= operand,
            0x45 => accumulator & operand != 0,
            _ => return None,
        };
        at += usize::from(if holds { if_true } else { if_false });
    }
}

/// 32 bits of `struct seccomp_data`. The instruction pointer is nothing that a program of ours looks at.
fn word(offset: u32, architecture: u32, number: u32, arguments: &[u64; 6]) -> Option<u32> {
    match offset {
        0 => Some(number),
        4 => Some(architecture),
        _ => {
            let at = offset.checked_sub(16)?;
            let argument = arguments.get(usize::try_from(at / 8).ok()?)?;
            let half = if at % 8 == 0 { argument & u64::from(u32::MAX) } else { argument >> 32 };
            u32::try_from(half).ok()
        }
    }
}
