//! The system call filter of any profile says the same in four ways: as it is explained, as the rules are written out
//! by hand, as a plain interpreter runs the program, and as the kernel's own machine for classic BPF runs it.
//!
//! An input is read as names to allow, names to deny, and calls. The kernel is asked by a socket filter, which the same
//! machine runs on a packet: any call can be asked about, and none is made. Never: installs a filter on itself.

use socket2::{Domain, SockFilter, Socket, Type};
use toolcell::plan::seccomp::{self, Verdict};
use toolcell::policy::Syscalls;
use toolcell::policy::syscalls::SyscallName;

#[path = "../../src/plan/seccomp/model.rs"]
mod model;

const X86_64: u32 = 0xc000_003e;
const KILL: u32 = 0x8000_0000;
const RETURN: u16 = 0x06;

/// Takes an input apart. What is not there reads as zeros.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        self.0 = rest;
        std::array::from_fn(|at| taken.get(at).copied().unwrap_or(0))
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.take();
        byte
    }

    fn names(&mut self, all: &[&str]) -> Vec<String> {
        let count = self.byte() % 8;
        let mut pick = || all[usize::from(u16::from_le_bytes(self.take())) % all.len()].to_owned();
        (0..count).map(|_| pick()).collect()
    }

    /// Architecture, number and arguments of a call, most of them such as a program could make.
    fn call(&mut self) -> (u32, u32, [u64; 6]) {
        let shape = self.byte();
        let arch = if shape & 7 == 7 { u32::from_le_bytes(self.take()) } else { X86_64 };
        let number = match shape & 8 {
            0 => u32::from(u16::from_le_bytes(self.take())) % 600,
            _ => u32::from_le_bytes(self.take()),
        };
        let mut argument = || match shape & 16 {
            0 => u64::from(u32::from_le_bytes(self.take())),
            _ => u64::from_le_bytes(self.take()),
        };
        (arch, number, std::array::from_fn(|_| argument()))
    }
}

/// The answer by the explanation and, where that depends on arguments, by hand.
fn expected(arch: u32, number: u32, arguments: [u64; 6], changes: &Syscalls) -> u32 {
    if arch != X86_64 {
        return KILL;
    }
    match seccomp::explain_number(number, changes, false).unwrap().verdict {
        Verdict::Allow => model::ALLOW,
        Verdict::Kill => KILL,
        Verdict::Errno("EPERM") => model::EPERM,
        Verdict::Errno("ENOSYS") => 0x0005_0000 | 38,
        Verdict::Errno(other) => panic!("{other} does not depend on arguments"),
        Verdict::Conditional(_) => model::by_hand(seccomp::name(number).unwrap(), arguments).unwrap(),
    }
}

/// The kernel's machine with a program in it.
struct Kernel {
    asking: Socket,
    answering: Socket,
    /// The answer for each length that a packet can be cut to.
    answers: Vec<u32>,
}

impl Kernel {
    /// A socket filter returns how much of the packet is kept: here one byte more for each different answer.
    fn new(program: &[(u16, u8, u8, u32)]) -> Self {
        let mut answers = vec![0];
        let code = program.iter().map(|&(code, yes, no, k)| {
            if code != RETURN {
                return SockFilter::new(code, yes, no, k);
            }
            let place = answers.iter().position(|known| *known == k).unwrap_or_else(|| {
                answers.push(k);
                answers.len() - 1
            });
            SockFilter::new(code, yes, no, u32::try_from(place).unwrap())
        });
        let code: Vec<SockFilter> = code.collect();
        let (asking, answering) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        answering.set_nonblocking(true).unwrap();
        answering.attach_filter(&code).unwrap();
        Self { asking, answering, answers }
    }

    fn run(&self, data: &[u32]) -> u32 {
        // The machine reads packets in network order.
        let packet: Vec<u8> = data.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.asking.send(&packet).unwrap();
        let mut kept = [0; 64];
        let length = std::io::Read::read(&mut &self.answering, &mut kept).unwrap();
        self.answers[length]
    }
}

/// Compiles a filter and asks it about calls.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let all: Vec<&str> = seccomp::names().collect();
    let allowable: Vec<&str> =
        all.iter().copied().filter(|name| seccomp::named(name) == SyscallName::Known).collect();
    let changes = Syscalls { allow: input.names(&allowable), deny: input.names(&all) };
    let program = seccomp::compile(&changes, false).unwrap();
    model::assert_well_formed(&program);
    let kernel = Kernel::new(&program);
    while !input.0.is_empty() {
        let (arch, number, arguments) = input.call();
        let answer = model::run(&program, arch, number, arguments).0;
        assert_eq!(answer, expected(arch, number, arguments, &changes), "{arch:x} {number} {arguments:x?}");
        assert_eq!(
            answer,
            kernel.run(&model::words(arch, number, arguments)),
            "{arch:x} {number} {arguments:x?}"
        );
    }
}
