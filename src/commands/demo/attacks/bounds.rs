//! The attacks on limits and on the protocol, one a line, in the order in which they are made.
//!
//! Neighbours: `attacks` says what each part means, `list` has the others. Never: does anything itself.

use serde_json::json;

use super::list::{attack, mark, none};
use super::{Arguments, Attack, Sign, Wall};
use crate::outcome::Limit;

/// How far a probe goes by itself: in a cell a few times the limit, so that a limit that fails hurts nobody; without
/// a cell only so far that the machine does not notice.
const fn bound(bare: bool, small: u64, large: u64) -> u64 {
    if bare { small } else { large }
}

const RESOURCES: &str = "Resources";
const PROTOCOL: &str = "Protocol";

/// One that uses up what it can have.
const fn limit(name: &'static str, tool: &'static str, arguments: Arguments, wall: Wall) -> Attack {
    attack(RESOURCES, name, tool, arguments, Sign::Limit, wall)
}

/// Attacks that a limit or the rules of MCP are to stop.
pub(super) const ATTACKS: &[Attack] = &[
    limit(
        "fork bomb",
        "fork_bomb",
        |_, bare| json!({"limit": bound(bare, 8, 500)}),
        Wall::Limit(Limit::Tasks),
    ),
    limit(
        "memory bomb",
        "memory_bomb",
        |_, bare| json!({"limit": bound(bare, 8 << 20, 512 << 20)}),
        Wall::Limit(Limit::Memory),
    ),
    limit(
        "fill the scratch disk",
        "fill_scratch",
        |_, bare| json!({"limit": bound(bare, 1 << 20, 64 << 20)}),
        Wall::Limit(Limit::Scratch),
    ),
    limit(
        "open files without end",
        "fill_descriptors",
        |_, bare| json!({"limit": bound(bare, 16, 100_000)}),
        Wall::Limit(Limit::OpenFiles),
    ),
    limit(
        "write without end",
        "endless_output",
        |_, bare| json!({"limit": bound(bare, 1 << 16, 1 << 30)}),
        Wall::Limit(Limit::Output),
    ),
    limit(
        "fill files without a name",
        "fill_memory_files",
        |_, bare| json!({"limit": bound(bare, 1 << 20, 512 << 20)}),
        Wall::Limit(Limit::Memory),
    ),
    limit(
        "lock memory",
        "lock_memory",
        |_, bare| json!({"limit": bound(bare, 4096, 16 << 20)}),
        Wall::Rlimit,
    ),
    limit(
        "make files without end",
        "fill_names",
        |_, bare| json!({"limit": bound(bare, 16, 600)}),
        Wall::Limit(Limit::Scratch),
    ),
    limit(
        "grow one file",
        "grow_file",
        |_, bare| json!({"limit": bound(bare, 1 << 20, 1 << 40)}),
        Wall::Limit(Limit::FileSize),
    ),
    limit(
        "fill pipes",
        "fill_pipes",
        |_, bare| json!({"limit": bound(bare, 8, 10_000)}),
        Wall::Limit(Limit::OpenFiles),
    ),
    limit(
        "fill sockets",
        "fill_sockets",
        |_, bare| json!({"limit": bound(bare, 8, 10_000)}),
        Wall::Limit(Limit::OpenFiles),
    ),
    limit(
        "grow the stack",
        "grow_stack",
        |_, bare| json!({"limit": bound(bare, 16 << 20, 512 << 20)}),
        Wall::Limit(Limit::Memory),
    ),
    limit(
        "write messages without end",
        "flood_messages",
        |_, bare| json!({"limit": bound(bare, 1 << 16, 1 << 30)}),
        Wall::Limit(Limit::Output),
    ),
    attack(
        RESOURCES,
        "flood standard error",
        "flood_errors",
        |_, bare| json!({"limit": bound(bare, 1 << 17, 8 << 20)}),
        Sign::Quiet,
        Wall::Output,
    ),
    limit(
        "stop itself",
        "stop_itself",
        |_, bare| json!({"milliseconds": bound(bare, 10, 60_000)}),
        Wall::Limit(Limit::Time),
    ),
    limit(
        "spin in four threads",
        "spin",
        |_, bare| json!({"milliseconds": bound(bare, 10, 60_000)}),
        Wall::Limit(Limit::Time),
    ),
    limit(
        "hang, deaf to SIGTERM",
        "hang",
        |_, bare| json!({"milliseconds": bound(bare, 10, 60_000), "deaf": true}),
        Wall::Limit(Limit::Time),
    ),
    attack(
        PROTOCOL,
        "forge another call's answer",
        "forge_answer",
        |stage, _| json!({"id": stage.victim()}),
        Sign::VictimUnharmed,
        Wall::Protocol,
    ),
    attack(PROTOCOL, "answer twice", "answer_twice", none, Sign::OneAnswer, Wall::Protocol),
    attack(
        PROTOCOL,
        "send what is no message",
        "send_rubbish",
        |stage, _| json!({"mark": stage.secret()}),
        Sign::NoMark,
        Wall::Protocol,
    ),
    attack(PROTOCOL, "ask the client", "ask_client", mark, Sign::NoMark, Wall::Protocol),
    attack(PROTOCOL, "confuse parsers", "send_malformed", mark, Sign::NoMark, Wall::Protocol),
    attack(PROTOCOL, "inject lines into the log", "inject_into_log", mark, Sign::LogIntact, Wall::Output),
];
