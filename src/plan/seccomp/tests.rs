//! Holds the compiled program, as a plain interpreter runs it, against the rules written out by hand.
//!
//! Neighbours: `tree` and `groups`, which it checks; `model`, which it checks them against. Never: installs a program; that is for the tests of `launch`.

use proptest::prelude::*;

use super::groups::GROUPS;
use super::model::*;
use super::table::TABLE;
use super::*;
use crate::plan::step::Attempts;
use crate::policy::Observe;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const KILL: u32 = 0x8000_0000;
const ENOSYS: u32 = 0x0005_0000 | 38;

fn verdict(program: &[(u16, u8, u8, u32)], call: &str, arguments: [u64; 6]) -> u32 {
    run(program, X86_64, number(call).unwrap(), arguments).0
}

fn changes(allow: &[&str], deny: &[&str]) -> Syscalls {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Syscalls { allow: owned(allow), deny: owned(deny) }
}

fn allowable(call: &&'static str) -> bool {
    named(call) == SyscallName::Known
}

fn default_program() -> Vec<(u16, u8, u8, u32)> {
    compile(&Syscalls::default(), false).unwrap()
}

/// The answer of the whole filter, without a tree.
fn naive(arch: u32, number: u32, arguments: [u64; 6], changes: &Syscalls) -> u32 {
    if arch != X86_64 {
        return KILL;
    }
    if number == u32::MAX {
        return ENOSYS;
    }
    if number & 0x4000_0000 != 0 {
        return KILL;
    }
    let Some(call) = name(number) else { return ENOSYS };
    let has = |list: &[String]| list.iter().any(|entry| entry == call);
    let group = GROUPS.iter().find(|group| group.names.contains(&call)).unwrap();
    let unchanged = match group.entry {
        Entry::Always(Action::Allow) => ALLOW,
        Entry::Always(Action::Refuse(errno)) => 0x0005_0000 | errno.number(),
        Entry::Always(action @ (Action::Yield | Action::Kill)) => panic!("{call}: {action:?}"),
        Entry::Arguments(_) => by_hand(call, arguments).unwrap(),
    };
    let always_refused = matches!(group.entry, Entry::Always(Action::Refuse(_)));
    match (has(&changes.deny), has(&changes.allow)) {
        (true, _) if always_refused => unchanged,
        (true, _) => EPERM,
        (false, true) => ALLOW,
        (false, false) => unchanged,
    }
}

#[test]
fn every_call_of_the_table_is_in_one_group() {
    let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|group| group.names).copied().collect();
    grouped.sort_unstable();
    let mut known: Vec<&str> = names().collect();
    known.sort_unstable();
    assert_eq!(grouped, known);
}

#[test]
fn the_table_ascends_and_agrees_with_libc() {
    assert!(TABLE.is_sorted_by(|left, right| left.0 < right.0));
    for (name, expected) in [
        ("read", libc::SYS_read),
        ("clone", libc::SYS_clone),
        ("openat", libc::SYS_openat),
        ("seccomp", libc::SYS_seccomp),
        ("rseq", libc::SYS_rseq),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
        ("clone3", libc::SYS_clone3),
        ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
        ("memfd_secret", libc::SYS_memfd_secret),
        ("fchmodat2", libc::SYS_fchmodat2),
        ("mseal", libc::SYS_mseal),
    ] {
        assert_eq!(number(name).map(i64::from), Some(expected), "{name}");
    }
}

#[test]
fn the_rules_by_hand_cover_every_call_that_has_one() {
    for group in GROUPS {
        for call in group.names {
            let ruled = matches!(group.entry, Entry::Arguments(_));
            assert_eq!(by_hand(call, [0; 6]).is_some(), ruled, "{call}");
        }
    }
}

#[test]
fn a_porters_filter_lets_it_connect_and_start_or_change_nothing() {
    let porter = own::porter(false);
    assert_well_formed(&porter);
    assert_eq!(run(&porter, I386, 0, [0; 6]).0, KILL);
    for call in [
        "execve", "execveat", "fork", "vfork", "kill", "ptrace", "bind", "listen", "unlink", "mkdir",
        "rename", "chmod", "setsid",
    ] {
        assert_eq!(verdict(&porter, call, [0; 6]), EPERM, "{call}");
    }
    assert_eq!(verdict(&porter, "mmap", [0, 0, 5, 0, 0, 0]), EPERM);
    assert_eq!(verdict(&porter, "mmap", [0, 0, 3, 0, 0, 0]), ALLOW);
    for (family, kind, expected) in [
        (2, 1, ALLOW),
        (10, 1, ALLOW),
        (2, 2, ALLOW),
        (1, 1, EAFNOSUPPORT),
        (16, 3, EAFNOSUPPORT),
        (2, 3, ESOCKTNOSUPPORT),
    ] {
        assert_eq!(verdict(&porter, "socket", [family, kind, 0, 0, 0, 0]), expected, "{family} {kind}");
    }
    let with_paths = own::porter(true);
    assert_well_formed(&with_paths);
    for (family, kind, expected) in
        [(2, 1, ALLOW), (10, 2, ALLOW), (1, 1, ALLOW), (1, 2, EAFNOSUPPORT), (16, 3, EAFNOSUPPORT)]
    {
        assert_eq!(verdict(&with_paths, "socket", [family, kind, 0, 0, 0, 0]), expected, "{family} {kind}");
    }
    assert_eq!(verdict(&with_paths, "bind", [0; 6]), EPERM);
}

#[test]
fn a_supervisors_filter_allows_what_is_listed() {
    let supervisor = own::supervisor();
    assert_well_formed(&supervisor);
    assert_eq!(run(&supervisor, I386, 0, [0; 6]).0, KILL);
    assert_eq!(run(&supervisor, X86_64, 0x4000_0000, [0; 6]).0, KILL);
    assert_eq!(run(&supervisor, X86_64, 599, [0; 6]).0, ENOSYS);
    let listed: Vec<&str> = own::SUPERVISOR.iter().flat_map(|group| group.names).copied().collect();
    assert!(listed.iter().all(|call| is_known(call)), "{listed:?}");
    for call in names() {
        let found = verdict(&supervisor, call, [0; 6]);
        match call {
            "clone3" => assert_eq!(found, ENOSYS),
            "clone" | "prctl" | "setsockopt" => assert_eq!(found, EPERM, "{call}"),
            "socketpair" => assert_eq!(found, EAFNOSUPPORT),
            _ => assert_eq!(found, if listed.contains(&call) { ALLOW } else { EPERM }, "{call}"),
        }
    }
    let thread = 0x10f00;
    for (flags, expected) in [(thread, ALLOW), (thread | 0x1000_0000, EPERM), (0x4111, EPERM)] {
        assert_eq!(verdict(&supervisor, "clone", [flags, 0, 0, 0, 0, 0]), expected, "{flags:#x}");
    }
    for (call, place, value, expected) in [
        ("mmap", 2, 3, ALLOW),
        ("mmap", 2, 7, EPERM),
        ("mprotect", 2, 5, EPERM),
        ("prctl", 0, 15, ALLOW),
        ("prctl", 0, 4, EPERM),
        ("chmod", 1, 0o700, ALLOW),
        ("chmod", 1, 0o4700, EPERM),
        ("ioctl", 1, 0x5412, EPERM),
        ("setsockopt", 2, 83, EPERM),
    ] {
        let mut arguments = [0; 6];
        arguments[place] = value;
        assert_eq!(verdict(&supervisor, call, arguments), expected, "{call} {value:#x}");
    }
    assert_eq!(verdict(&supervisor, "setsockopt", [9, 1, 83, 0, 0, 0]), ALLOW);
    assert_eq!(verdict(&supervisor, "setsockopt", [9, 1, 13, 0, 0, 0]), EPERM);
}

#[test]
fn with_doors_to_sockets_none_lingers_and_no_process_outside_is_got_hold_of() {
    const ENOPROTOOPT: u32 = 0x0005_0000 | 92;
    let allowed = changes(&["setsockopt", "getsockopt"], &[]);
    for changes in [Syscalls::default(), allowed] {
        let with = compile(&changes, true).unwrap();
        assert_well_formed(&with);
        for (call, level, option, expected) in [
            ("setsockopt", 1, 13, ENOPROTOOPT),
            ("setsockopt", 0xffff_ffff_0000_0001, 0x1_0000_000d, ENOPROTOOPT),
            ("setsockopt", 1, 76, ENOPROTOOPT),
            ("setsockopt", 1, 9, ALLOW),
            ("setsockopt", 6, 13, ALLOW),
            ("getsockopt", 1, 77, ENOPROTOOPT),
            ("getsockopt", 1, 4, ALLOW),
        ] {
            let arguments = [3, level, option, 0, 0, 0];
            assert_eq!(verdict(&with, call, arguments), expected, "{call} {level:#x} {option:#x}");
            assert_eq!(verdict(&default_program(), call, arguments), ALLOW, "{call}");
        }
        assert!(matches!(explain("setsockopt", &changes, true).unwrap().verdict, Verdict::Conditional(_)));
    }
    let denied = changes(&[], &["setsockopt"]);
    assert_eq!(verdict(&compile(&denied, true).unwrap(), "setsockopt", [3, 1, 9, 0, 0, 0]), EPERM);
}

#[test]
fn a_launchers_filter_yields_what_no_profile_can_allow_and_lets_the_rest_run() {
    const YIELD: u32 = 0x7ff0_0000;
    let launcher = own::launcher();
    assert_well_formed(&launcher);
    assert!(launcher.len() <= 64, "{} instructions", launcher.len());
    assert_eq!(run(&launcher, I386, 20, [0; 6]).0, KILL);
    assert_eq!(run(&launcher, X86_64, 0x4000_0027, [0; 6]).0, KILL);
    let none = Syscalls::default();
    for number in 0..600 {
        let (answer, comparisons) = run(&launcher, X86_64, number, [0; 6]);
        let never = name(number).is_some_and(|call| matches!(named(call), SyscallName::Never(_)));
        assert_eq!(answer, if never { YIELD } else { ALLOW }, "{number}");
        assert!(comparisons <= 2 + 6, "{number}");
        // What the kernel compares of two filters' answers (`SECCOMP_RET_ACTION_FULL`): the cell's own wins.
        let own = run(&default_program(), X86_64, number, [0; 6]).0;
        assert!(!never || own.cast_signed() < YIELD.cast_signed(), "{number}");
    }
    for call in own::NEVER {
        // Each is refused by its group, so that no cell has it without a profile that asks.
        assert_eq!(explain(call, &none, false).unwrap().verdict, Verdict::Errno("EPERM"), "{call}");
        let error = compile(&changes(&[call], &[]), false).unwrap_err();
        assert_eq!(error.to_string(), never_allowed(call, explain(call, &none, false).unwrap().why));
        assert_eq!(error.hint().as_deref(), Some(NEVER_HINT));
        assert_eq!(explain("read", &changes(&[call], &[]), false), Err(error), "{call}");
        assert!(compile(&changes(&[], &[call]), false).is_ok());
    }
}

#[test]
fn the_program_is_small_and_flat() {
    let program = default_program();
    assert_well_formed(&program);
    assert!(program.len() <= 400, "{} instructions", program.len());
    let deepest = (0..600).map(|number| {
        let plain = name(number).is_none_or(|call| by_hand(call, [0; 6]).is_none());
        if plain { run(&program, X86_64, number, [0; 6]).1 } else { 0 }
    });
    // Two for the architecture and the x32 bit, the rest for the tree.
    assert!(deepest.max().unwrap() <= 2 + 9);
}

#[test]
fn the_longest_program_that_a_profile_can_ask_for_is_well_formed() {
    let alternate: Vec<&str> = names().step_by(2).filter(allowable).collect();
    let others: Vec<&str> = names().skip(1).step_by(2).collect();
    let changes = changes(&alternate, &others);
    let program = compile(&changes, false).unwrap();
    assert_well_formed(&program);
    for number in 0..600 {
        assert_eq!(
            run(&program, X86_64, number, [0; 6]).0,
            naive(X86_64, number, [0; 6], &changes),
            "{number}"
        );
    }
}

#[test]
fn far_jumps_arrive() {
    use super::rules::{Clause, Rule, Test, Word};
    static VALUES: [u32; 300] = [7; 300];
    static WHEN: [Test; 1] = [Test { word: Word::High(5), mask: 0xff, values: &VALUES }];
    static CLAUSES: [Clause; 1] = [Clause { when: &WHEN, then: Action::Allow }];
    static LONG: Rule = Rule { text: "", clauses: &CLAUSES, otherwise: Action::Refuse(Errno::Afnosupport) };
    let allow = Entry::Always(Action::Allow);
    let program = tree::program(&[
        Range { first: 0, entry: allow },
        Range { first: 1, entry: Entry::Arguments(&LONG) },
        Range { first: 2, entry: Entry::Always(Action::Refuse(Errno::Perm)) },
    ]);
    assert_well_formed(&program);
    let answer = |number, high: u64| run(&program, X86_64, number, [0, 0, 0, 0, 0, high << 32]).0;
    assert_eq!(answer(0, 0), ALLOW);
    assert_eq!(answer(1, 7), ALLOW);
    assert_eq!(answer(1, 0x107), ALLOW);
    assert_eq!(answer(1, 8), EAFNOSUPPORT);
    assert_eq!(answer(2, 7), EPERM);
}

#[test]
fn other_architectures_and_x32_are_killed() {
    let program = default_program();
    assert_eq!(run(&program, I386, 102, [0; 6]).0, KILL);
    assert_eq!(run(&program, X86_64, 0x4000_0000, [0; 6]).0, KILL);
    assert_eq!(run(&program, X86_64, u32::MAX, [0; 6]).0, ENOSYS);
    assert_eq!(run(&program, X86_64, 335 + 20, [0; 6]).0, ENOSYS);
    assert_eq!(run(&program, X86_64, TABLE.last().unwrap().0 + 1, [0; 6]).0, ENOSYS);
}

#[test]
fn a_request_with_high_bits_is_the_same_request() {
    let program = default_program();
    assert_eq!(verdict(&program, "ioctl", [0, 0x5412, 0, 0, 0, 0]), EPERM);
    assert_eq!(verdict(&program, "ioctl", [0, 0xdead_0000_5412, 0, 0, 0, 0]), EPERM);
    assert_eq!(verdict(&program, "ioctl", [0, 0x5401, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn what_attacks_use_is_refused() {
    let program = default_program();
    for (call, arguments, expected) in [
        ("clone", [0x1000_0011, 0, 0, 0, 0, 0], EPERM),
        ("clone3", [0; 6], ENOSYS),
        ("unshare", [0x1000_0000, 0, 0, 0, 0, 0], EPERM),
        ("socket", [1, 1, 0, 0, 0, 0], EAFNOSUPPORT),
        ("socket", [16, 3, 0, 0, 0, 0], EAFNOSUPPORT),
        ("socket", [38, 5, 0, 0, 0, 0], EAFNOSUPPORT),
        ("socket", [40, 1, 0, 0, 0, 0], EAFNOSUPPORT),
        ("socket", [2, 3, 1, 0, 0, 0], ESOCKTNOSUPPORT),
        ("socket", [2, 1, 262, 0, 0, 0], EPROTONOSUPPORT),
        ("socketpair", [1, 2, 0, 0, 0, 0], ESOCKTNOSUPPORT),
        ("sendto", [0, 0, 0, 0x2000_0000, 0, 0], EOPNOTSUPP),
        ("prctl", [35, 0, 0, 0, 0, 0], EPERM),
        ("prctl", [22, 2, 0, 0, 0, 0], EPERM),
        ("fchmodat", [0, 0, 0o4755, 0, 0, 0], EPERM),
        ("openat", [0, 0, 0o101, 0o4755, 0, 0], EPERM),
        ("mknodat", [0, 0, 0o020_600, 0, 0, 0], EPERM),
        ("prlimit64", [1, 7, 0x7fff_0000_0000, 0, 0, 0], EPERM),
        ("ptrace", [16, 1, 0, 0, 0, 0], EPERM),
        ("io_uring_setup", [8, 0, 0, 0, 0, 0], EPERM),
        ("keyctl", [0; 6], EPERM),
    ] {
        assert_eq!(verdict(&program, call, arguments), expected, "{call} {arguments:x?}");
    }
}

#[test]
fn what_programs_use_is_allowed() {
    let program = default_program();
    for (call, arguments) in [
        // fork and a thread of glibc, vfork of Go
        ("clone", [0x0120_0011, 0, 0, 0, 0, 0]),
        ("clone", [0x003d_0f00, 0, 0, 0, 0, 0]),
        ("clone", [0x4111, 0, 0, 0, 0, 0]),
        ("socket", [10, 0x8_0801, 6, 0, 0, 0]),
        ("socket", [2, 0x8_0802, 17, 0, 0, 0]),
        ("socketpair", [1, 0x8_0801, 0, 0, 0, 0]),
        ("openat", [0xffff_ff9c, 0, 0o101, 0o644, 0, 0]),
        // The mode is not read where nothing is made, and holds whatever was in the register.
        ("openat", [0xffff_ff9c, 0, 0, 0o7777, 0, 0]),
        ("mknodat", [0xffff_ff9c, 0, 0o010_666, 0, 0, 0]),
        ("prlimit64", [0, 7, 0x7fff_0000_0000, 0, 0, 0]),
        ("prctl", [15, 0, 0, 0, 0, 0]),
        ("execve", [0; 6]),
        ("personality", [0xffff_ffff, 0, 0, 0, 0, 0]),
    ] {
        assert_eq!(verdict(&program, call, arguments), ALLOW, "{call} {arguments:x?}");
    }
}

#[test]
fn a_profile_opens_a_call_entirely() {
    let program = compile(&changes(&["ptrace", "unshare", "clone3", "socket"], &[]), false).unwrap();
    assert_eq!(verdict(&program, "ptrace", [16; 6]), ALLOW);
    assert_eq!(verdict(&program, "unshare", [0x1000_0000; 6]), ALLOW);
    assert_eq!(verdict(&program, "clone3", [0; 6]), ALLOW);
    assert_eq!(verdict(&program, "socket", [1, 2, 0, 0, 0, 0]), ALLOW);
    assert_eq!(verdict(&program, "setns", [0; 6]), EPERM);
}

#[test]
fn deny_wins() {
    let program =
        compile(&changes(&["ptrace", "read"], &["ptrace", "read", "clone3", "socket"]), false).unwrap();
    assert_eq!(verdict(&program, "ptrace", [0; 6]), EPERM);
    assert_eq!(verdict(&program, "read", [0; 6]), EPERM);
    assert_eq!(verdict(&program, "socket", [2, 1, 0, 0, 0, 0]), EPERM);
    assert_eq!(verdict(&program, "clone3", [0; 6]), ENOSYS, "what libc does without keeps its error");
}

#[test]
fn an_unknown_name_is_an_error_with_a_suggestion() {
    for changes in [changes(&["clone33"], &[]), changes(&[], &["clone33"])] {
        let error = compile(&changes, false).unwrap_err();
        assert_eq!(error.to_string(), "unknown system call `clone33`");
        assert_eq!(error.hint().as_deref(), Some("did you mean `clone3`?"));
    }
    let near = |name: &str| match BadSyscall::check(name) {
        Err(BadSyscall::Unknown { nearest, .. }) => nearest,
        other => panic!("{other:?}"),
    };
    assert_eq!(near("umount"), Some("umount2"));
    assert_eq!(near("io_uring_setpu"), Some("io_uring_setup"));
    assert_eq!(near("nothing_like_it"), None);
    assert_eq!(near(""), None);
}

#[test]
fn explanations_say_what_the_program_does() {
    let none = Syscalls::default();
    assert_eq!(explain("read", &none, false).unwrap().verdict, Verdict::Allow);
    assert_eq!(explain("mount", &none, false).unwrap().verdict, Verdict::Errno("EPERM"));
    assert_eq!(explain("clone3", &none, false).unwrap().verdict, Verdict::Errno("ENOSYS"));
    assert!(matches!(explain("socket", &none, false).unwrap().verdict, Verdict::Conditional(_)));
    assert_eq!(explain("mount", &changes(&["mount"], &[]), false).unwrap().verdict, Verdict::Allow);
    assert_eq!(explain_number(0x4000_0001, &none, false).unwrap().verdict, Verdict::Kill);
    assert_eq!(explain_number(9999, &none, false).unwrap().verdict, Verdict::Errno("ENOSYS"));
    assert_eq!(explain_number(0, &none, false).unwrap(), explain("read", &none, false).unwrap());
    assert!(explain("raed", &none, false).is_err());
}

/// Values on which the rules turn, with or without something in the half that the kernel drops.
fn argument() -> impl Strategy<Value = u64> {
    let turning = prop::sample::select(vec![
        0_u64,
        1,
        2,
        3,
        5,
        6,
        7,
        10,
        16,
        17,
        38,
        40,
        65,
        262,
        0x11,
        0x80,
        0x1000,
        0x5412,
        0x541c,
        0x2_0000,
        0x8_0001,
        0x8_0002,
        0x8_0805,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000,
        0x5356_4d41,
        0xffff_ffff,
        0o100,
        0o644,
        0o4755,
        0o2755,
        0o20_000_000,
        0o100_644,
        0o010_666,
        0o020_600,
        0o104_755,
    ]);
    let low = prop_oneof![3 => turning, 1 => any::<u32>().prop_map(u64::from)];
    let high = prop_oneof![3 => Just(0_u64), 1 => any::<u32>().prop_map(u64::from)];
    (low, high).prop_map(|(low, high)| high << 32 | low)
}

fn call_number() -> impl Strategy<Value = u32> {
    let ruled: Vec<u32> = names().filter(|call| by_hand(call, [0; 6]).is_some()).filter_map(number).collect();
    prop_oneof![3 => prop::sample::select(ruled), 4 => 0_u32..600, 1 => any::<u32>()]
}

fn profile() -> impl Strategy<Value = Syscalls> {
    let some = |names: Vec<&'static str>| prop::collection::vec(prop::sample::select(names), 0..40);
    (some(names().filter(allowable).collect()), some(names().collect()))
        .prop_map(|(allow, deny)| changes(&allow, &deny))
}

proptest! {
    #[test]
    fn the_program_does_what_the_rules_say(
        arch in prop_oneof![9 => Just(X86_64), 1 => Just(I386), 1 => any::<u32>()],
        number in call_number(),
        arguments in prop::array::uniform6(argument()),
    ) {
        let none = Syscalls::default();
        prop_assert_eq!(run(&default_program(), arch, number, arguments).0, naive(arch, number, arguments, &none));
    }

    #[test]
    fn so_does_the_program_of_any_profile(
        changes in profile(),
        calls in prop::collection::vec((call_number(), prop::array::uniform6(argument())), 50),
    ) {
        let program = compile(&changes, false).unwrap();
        assert_well_formed(&program);
        for (number, arguments) in calls {
            prop_assert_eq!(run(&program, X86_64, number, arguments).0, naive(X86_64, number, arguments, &changes));
        }
    }

    #[test]
    fn adding_a_deny_never_allows_more(
        changes in profile(),
        more in profile(),
        calls in prop::collection::vec((call_number(), prop::array::uniform6(argument())), 50),
    ) {
        let narrower = Syscalls { deny: [changes.deny.clone(), more.deny].concat(), ..changes.clone() };
        let (wide, narrow) = (compile(&changes, false).unwrap(), compile(&narrower, false).unwrap());
        for (number, arguments) in calls {
            let allowed = |program: &[_]| run(program, X86_64, number, arguments).0 == ALLOW;
            prop_assert!(!allowed(&narrow) || allowed(&wide), "{number} {arguments:?}");
        }
    }
}

#[test]
fn an_observing_program_tells_of_refusals_opens_and_attempts_and_else_answers_the_same() {
    const NOTIFY: u32 = 0x7fc0_0000;
    let plain = default_program();
    let all = [Attempts::Untold, Attempts::Programs, Attempts::All];
    for (observe, attempts) in
        Observe::ALL.into_iter().flat_map(|observe| all.map(|attempts| (observe, attempts)))
    {
        let observing = observing(&plain, observe, attempts);
        assert_well_formed(&observing);
        for arch in [X86_64, I386] {
            for number in (0..600).chain([X32_BIT, X32_BIT | 257, u32::MAX]) {
                for arguments in [
                    [0; 6],
                    [1, 2, 0o100, 0o4000, 0, 0],
                    [0, 0, 0, 0, 1 << 32, 0],
                    [0, 0, 0, 0, 8, 0],
                    [u64::MAX; 6],
                ] {
                    let (answer, _) = run(&plain, arch, number, arguments);
                    let opened = arch == X86_64
                        && ["open", "openat", "creat"].map(super::number).contains(&Some(number));
                    let refused = answer & 0xffff_0000 == 0x0005_0000 && answer != ENOSYS;
                    let run_or_reached = |names: &[&str]| {
                        arch == X86_64 && names.iter().any(|name| super::number(name) == Some(number))
                    };
                    let tried = match attempts {
                        Attempts::Untold => false,
                        Attempts::Programs => run_or_reached(&["execve"]),
                        Attempts::All => {
                            run_or_reached(&["connect", "bind", "execve"])
                                || run_or_reached(&["sendto"]) && arguments[4] != 0
                        }
                    };
                    let told = refused || observe == Observe::Files && opened || tried;
                    let (seen, _) = run(&observing, arch, number, arguments);
                    assert_eq!(seen, if told { NOTIFY } else { answer }, "{arch:#x} {number} {arguments:?}");
                    let errno = refusal(&plain, arch, number, &arguments);
                    assert_eq!(
                        errno.map(i32::cast_unsigned),
                        (answer & 0xffff_0000 == 0x0005_0000).then_some(answer & 0xffff)
                    );
                    assert_eq!(allows(&plain, arch, number, &arguments), answer == ALLOW);
                }
            }
        }
    }
}
