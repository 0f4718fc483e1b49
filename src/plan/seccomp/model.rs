//! What the filter is held against: a plain interpreter of classic BPF, and the rules on arguments written out by hand.
//!
//! Neighbours: `tests` here and the fuzz target of the filter use it; it knows nothing of `tree`, `rules` or `groups`.
//! Never: part of a build.

/// `struct sock_filter`: code, jump if true, jump if false, operand.
type Program = [(u16, u8, u8, u32)];

pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const EPERM: u32 = 0x0005_0000 | 1;
pub(super) const EPROTONOSUPPORT: u32 = 0x0005_0000 | 93;
pub(super) const ESOCKTNOSUPPORT: u32 = 0x0005_0000 | 94;
pub(super) const EOPNOTSUPP: u32 = 0x0005_0000 | 95;
pub(super) const EAFNOSUPPORT: u32 = 0x0005_0000 | 97;

/// What a program answers and how many comparisons it took, as the kernel runs it.
pub(super) fn run(program: &Program, arch: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let data = words(arch, number, arguments);
    let (mut accumulator, mut at, mut comparisons) = (0_u32, 0_usize, 0_usize);
    loop {
        let (code, if_true, if_false, k) = program[at];
        at += 1;
        let holds = match code {
            0x20 => {
                assert_eq!(k % 4, 0, "the kernel refuses unaligned loads");
                accumulator = data[usize::try_from(k / 4).unwrap()];
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                at += usize::try_from(k).unwrap();
                continue;
            }
            0x06 => return (k, comparisons),
            0x15 => accumulator == k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            other => panic!("instruction {other:#x} is not in use"),
        };
        comparisons += 1;
        at += usize::from(if holds { if_true } else { if_false });
    }
}

/// `struct seccomp_data` in words of 32 bits; no program looks at the instruction pointer.
pub(super) fn words(arch: u32, number: u32, arguments: [u64; 6]) -> Vec<u32> {
    let mut data = vec![number, arch, 0, 0];
    data.extend(arguments.iter().flat_map(|argument| [low(*argument), low(*argument >> 32)]));
    data
}

fn low(argument: u64) -> u32 {
    u32::try_from(argument & 0xffff_ffff).unwrap()
}

/// The rules once more, as one would say them. None for a call that they do not look at.
pub(super) fn by_hand(call: &str, arguments: [u64; 6]) -> Option<u32> {
    let [a, b, c, d, e, _] = arguments.map(low);
    let when = |allowed: bool, refused: u32| Some(if allowed { ALLOW } else { refused });
    let set_id = |mode: u32| mode & 0o6000 != 0;
    let plain_node = |mode: u32| matches!(mode & 0o170_000, 0 | 0o100_000 | 0o010_000) && !set_id(mode);
    let creates = |flags: u32| flags & (0o100 | 0o20_000_000) != 0;
    match call {
        "clone" => when(
            [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
                .iter()
                .all(|flag| a & flag == 0),
            EPERM,
        ),
        "fcntl" => when(b != 1024 && b != 1040, EPERM),
        "ioctl" => when(b != 0x5412 && b != 0x541c, EPERM),
        "socket" => Some(match (a, b & 0xf, c) {
            (2 | 10, 1, 0 | 6) | (2 | 10, 2, 0 | 17) => ALLOW,
            (2 | 10, 1 | 2, _) => EPROTONOSUPPORT,
            (2 | 10, _, _) => ESOCKTNOSUPPORT,
            _ => EAFNOSUPPORT,
        }),
        "socketpair" => Some(match (a, b & 0xf) {
            (1, 1 | 5) => ALLOW,
            (1, _) => ESOCKTNOSUPPORT,
            _ => EAFNOSUPPORT,
        }),
        "sendto" | "sendmmsg" => when(d & 0x2000_0000 == 0, EOPNOTSUPP),
        "sendmsg" => when(c & 0x2000_0000 == 0, EOPNOTSUPP),
        "prctl" => when(
            matches!(
                a,
                1..=4
                    | 7
                    | 15
                    | 16
                    | 21
                    | 23
                    | 27
                    | 29
                    | 30
                    | 36..=39
                    | 41
                    | 42
                    | 52
                    | 65
                    | 66
                    | 0x4155_5856
                    | 0x5356_4d41
            ),
            EPERM,
        ),
        "personality" => when(a == 0 || a == 0xffff_ffff, EPERM),
        "prlimit64" => when(a == 0 || arguments[2] == 0, EPERM),
        "setpriority" => when(a == 0 && b == 0, EPERM),
        "chmod" | "fchmod" | "creat" => when(!set_id(b), EPERM),
        "fchmodat" | "fchmodat2" => when(!set_id(c), EPERM),
        "open" => when(!creates(b) || !set_id(c), EPERM),
        "openat" => when(!creates(c) || !set_id(d), EPERM),
        "mknod" => when(plain_node(b), EPERM),
        "mknodat" => when(plain_node(c), EPERM),
        "execveat" => when(e & 0x1000 == 0, EPERM),
        _ => None,
    }
}

/// Every jump lands on an instruction, and the program ends whatever happens.
pub(super) fn assert_well_formed(program: &Program) {
    assert!(program.len() < 4096, "BPF_MAXINSNS");
    for (at, (code, if_true, if_false, k)) in program.iter().enumerate() {
        let furthest = match code {
            0x15 | 0x35 | 0x45 => usize::from(*if_true.max(if_false)),
            0x05 => usize::try_from(*k).unwrap(),
            0x06 => continue,
            0x20 | 0x54 => 0,
            other => panic!("instruction {other:#x} is not in use"),
        };
        assert!(at + 1 + furthest < program.len(), "instruction {at} jumps out of the program");
    }
}
