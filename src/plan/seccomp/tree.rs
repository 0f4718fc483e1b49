//! Turns ranges of system call numbers into classic BPF: a balanced binary tree over the number, rules at its leaves.
//!
//! Neighbours: `mod` makes the ranges, `rules` the leaves; the kernel's side is `seccomp(2)` and `linux/filter.h`.
//! Never: knows a system call by name, or emits a jump that it has not measured.
//!
//! A tree and not a chain, because the kernel runs the program once for every number when it is installed, and
//! again for each call that depends on arguments. The program is written from its end to its beginning: classic BPF
//! jumps only forward, so that whatever an instruction jumps to is already written and its distance known.

use super::rules::{Action, Entry, Errno, Rule, Word};

/// `struct sock_filter`: code, jump if true, jump if false, operand.
pub(super) type Instruction = (u16, u8, u8, u32);

// linux/bpf_common.h
pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER_OR_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// linux/seccomp.h
pub(super) const RET_ALLOW: u32 = 0x7fff_0000;
pub(super) const RET_ERRNO: u32 = 0x0005_0000;
/// Without a tracer: `ENOSYS`. Of several filters' answers the one with the lowest number as a signed word is given, and this
/// one's is above all but those that let a call run.
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
/// Offsets in `struct seccomp_data`: number, architecture, then the instruction pointer and six arguments of 64 bits.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;

/// linux/audit.h: `EM_X86_64`, 64 bits, little endian.
pub const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// asm/unistd.h: the bit that marks a call of the x32 ABI, which shares the architecture word.
pub(super) const X32_BIT: u32 = 0x4000_0000;
/// What programs pass for a call that their headers do not know; the kernel has no call there, x32 bit or not.
pub(super) const NO_CALL: u32 = u32::MAX;

/// Numbers from `first` up to the next range's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// The first number.
    pub(super) first: u32,
    /// What happens to all of them.
    pub(super) entry: Entry,
}

/// The whole program for ranges in ascending order that begin at 0.
pub(super) fn program(ranges: &[Range]) -> Vec<Instruction> {
    let mut code = Backwards::default();
    let kill = code.answer(Action::Kill);
    let tree = code.tree(ranges);
    let no_call = code.answer(Action::Refuse(Errno::Nosys));
    let x32 = code.branch(JUMP_EQUAL, NO_CALL, no_call, kill);
    code.branch(JUMP_ANY_BIT, X32_BIT, x32, tree);
    let native = code.push((LOAD, 0, 0, NUMBER));
    code.branch(JUMP_EQUAL, AUDIT_ARCH_X86_64, native, kill);
    code.push((LOAD, 0, 0, ARCHITECTURE));
    code.instructions.reverse();
    code.instructions
}

/// The place of an instruction, counted from the program's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Label(u32);

/// A program that grows towards its beginning.
#[derive(Debug, Default)]
struct Backwards {
    /// The last instruction first.
    instructions: Vec<Instruction>,
    /// How many there are, in the kernel's width.
    length: u32,
    /// The latest place that answers so.
    answers: Vec<(Action, Label)>,
    /// The place where a rule begins.
    rules: Vec<(&'static Rule, Label)>,
}

impl Backwards {
    /// Put an instruction in front of all others.
    fn push(&mut self, instruction: Instruction) -> Label {
        let label = Label(self.length);
        self.instructions.push(instruction);
        self.length += 1;
        label
    }

    /// How many instructions the next one to be pushed would have to skip to get there.
    fn distance(&self, label: Label) -> u32 {
        self.length - 1 - label.0
    }

    /// The same, if a conditional jump has room for it.
    fn short_distance(&self, label: Label) -> Option<u8> {
        u8::try_from(self.distance(label)).ok()
    }

    /// A place nearby that does what the far one does.
    fn stepping_stone(&mut self, far: Label) -> Label {
        let answer = self.answers.iter().position(|(_, label)| *label == far);
        match answer.and_then(|index| self.answers.get(index)).copied() {
            Some((action, _)) => self.fresh_answer(action),
            None => self.push((JUMP, 0, 0, self.distance(far))),
        }
    }

    /// Compare, and go to one of two places however far they are.
    fn branch(&mut self, comparison: u16, operand: u32, mut yes: Label, mut no: Label) -> Label {
        loop {
            match (self.short_distance(yes), self.short_distance(no)) {
                (Some(if_true), Some(if_false)) => {
                    return self.push((comparison, if_true, if_false, operand));
                }
                (None, _) => yes = self.stepping_stone(yes),
                (Some(_), None) => no = self.stepping_stone(no),
            }
        }
    }

    /// Where the program ends with this answer.
    fn answer(&mut self, action: Action) -> Label {
        let known = self.answers.iter().find(|(known, _)| *known == action).map(|(_, label)| *label);
        match known {
            Some(label) if self.short_distance(label).is_some() => label,
            Some(_) | None => self.fresh_answer(action),
        }
    }

    /// Write the answer once more, here, and forget the place that was too far.
    fn fresh_answer(&mut self, action: Action) -> Label {
        let value = match action {
            Action::Allow => RET_ALLOW,
            Action::Refuse(errno) => RET_ERRNO | errno.number(),
            Action::Yield => RET_TRACE,
            Action::Kill => RET_KILL_PROCESS,
        };
        let label = self.push((RETURN, 0, 0, value));
        self.answers.retain(|(known, _)| *known != action);
        self.answers.push((action, label));
        label
    }

    /// The tree over these ranges, with the number in the accumulator.
    fn tree(&mut self, ranges: &[Range]) -> Label {
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        match (lower.is_empty(), upper.first()) {
            (false, Some(middle)) => {
                let above = self.tree(upper);
                let below = self.tree(lower);
                self.branch(JUMP_GREATER_OR_EQUAL, middle.first, above, below)
            }
            (true, Some(only)) => match only.entry {
                Entry::Always(action) => self.answer(action),
                Entry::Arguments(rule) => self.rule(rule),
            },
            (_, None) => self.answer(Action::Refuse(Errno::Perm)),
        }
    }

    /// A rule's leaf. It ends in an answer on every way, so that it can load over the number.
    fn rule(&mut self, rule: &'static Rule) -> Label {
        if let Some((_, label)) = self.rules.iter().find(|(known, _)| *known == rule) {
            return *label;
        }
        let mut next = self.answer(rule.otherwise);
        for clause in rule.clauses.iter().rev() {
            let mut holds = self.answer(clause.then);
            for test in clause.when.iter().rev() {
                if test.values.is_empty() {
                    holds = next;
                    continue;
                }
                let mut compare = next;
                for value in test.values.iter().rev() {
                    compare = self.branch(JUMP_EQUAL, *value, holds, compare);
                }
                // The load and the mask run on into the first comparison, which is the last that was pushed.
                if test.mask != u32::MAX {
                    self.push((AND, 0, 0, test.mask));
                }
                let offset = match test.word {
                    Word::Low(argument) => ARGUMENTS + 8 * u32::from(argument),
                    Word::High(argument) => ARGUMENTS + 8 * u32::from(argument) + 4,
                };
                holds = self.push((LOAD, 0, 0, offset));
            }
            next = holds;
        }
        self.rules.push((rule, next));
        next
    }
}
