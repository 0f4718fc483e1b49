//! What stopped an attack: the record's own word, or else the layer that gives what the probe saw, if that was seen to be on.
//!
//! Neighbours: `judge` asks, `render` shows. Never: names a layer that the cell did not have.

use super::attacks::{Attack, Wall};
use super::judge::Word;
use super::record::Record;
use crate::outcome::{Layer, Limit, Violation};

/// Where the knowledge of what stopped an attack comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// From the call's record.
    Record,
    /// From the errno that the probe saw and the wall that gives it.
    Inferred,
}

/// What stopped an attack.
#[derive(Debug)]
pub(super) struct Stopper {
    /// The layer's name, or the section of the profile that left it out.
    pub(super) layer: &'static str,
    pub(super) rule: String,
    pub(super) known: Known,
}

/// What stopped it: what the record says, or else what gives the errno that the probe saw.
pub(super) fn stopper(attack: &Attack, word: &Word, record: Option<&Record>) -> Option<Stopper> {
    let violations = record.map(|record| record.violations.as_slice()).unwrap_or_default();
    let fits = |violation: &&Violation| match attack.wall {
        Wall::Limit(limit) => violation.limit == Some(limit),
        Wall::Protocol => violation.layer == Layer::Protocol,
        Wall::Review | Wall::Agreed if violation.layer == Layer::Review => true,
        // Whatever else was refused on the way, the probe tells of what stopped it.
        _ => {
            let file = violation.layer != Layer::Root || violation.object == word.object;
            violation.limit.is_none() && word.errno.is_some() && violation.errno == word.errno && file
        }
    };
    // What takes too much of one thing can come to the limit of another first.
    let another = |violation: &&Violation| matches!(attack.wall, Wall::Limit(_)) && violation.limit.is_some();
    if let Some(violation) = violations.iter().find(fits).or_else(|| violations.iter().find(another)) {
        let rule = match (violation.limit, violation.layer) {
            (Some(limit), _) => limit_key(limit),
            (None, Layer::Seccomp | Layer::Root) => violation.operation.clone(),
            (None, _) => violation.rule.replace('`', ""),
        };
        return Some(Stopper { layer: violation.layer.name(), rule, known: Known::Record });
    }
    let (layer, rule) = match record {
        Some(record) => in_this_cell(inferred(attack.wall, word), attack, word, record)?,
        None => inferred(attack.wall, word),
    };
    Some(Stopper { layer, rule, known: Known::Inferred })
}

/// What of that the cell had: where a layer is not there, what stands in its place, or nothing that can be told.
fn in_this_cell(
    (layer, rule): (&'static str, String),
    attack: &Attack,
    word: &Word,
    record: &Record,
) -> Option<(&'static str, String)> {
    let errno = word.errno.as_deref().unwrap_or_default();
    let landlock = |rule: &str| Some((Layer::Landlock.name(), rule.to_owned()));
    match layer {
        // Without a private root, where what is not there may be not there on the host.
        "root" if !record.verified("root") => match errno {
            "EACCES" => landlock("not granted"),
            "EXDEV" => landlock("not to be moved"),
            "EPERM" if attack.wall == Wall::Execute => landlock("no execute"),
            _ => None,
        },
        // There `/proc` is the host's, and not granted.
        "capabilities" if errno == "EACCES" && !record.verified("root") => landlock("not granted"),
        // Init does what a pid namespace would.
        "namespaces" if attack.wall == Wall::End && record.verified("processes") => Some(("processes", rule)),
        "namespaces" if !record.verified("namespaces") => None,
        "cgroup" if !record.verified("cgroup") => Some((Layer::Rlimit.name(), rule)),
        // The filter tells of what it refuses, but for these two. What it has not told of, something else refused.
        "seccomp" if !matches!(errno, "SIGSYS" | "ENOSYS") && tells_each_call(record) => {
            let scoped = word.operation == "kill" && errno == "EPERM" && record.verified("landlock");
            if scoped { landlock("signals stay inside") } else { None }
        }
        _ => Some((layer, rule)),
    }
}

/// Is each call that the filter refused named? In the cell of a session those that come after many others are counted together.
fn tells_each_call(record: &Record) -> bool {
    let counted = |violation: &Violation| violation.layer == Layer::Seccomp && violation.errno.is_none();
    record.tells(Layer::Seccomp) && !record.violations.iter().any(counted)
}

/// The key of a profile that holds a limit.
fn limit_key(limit: Limit) -> String {
    format!("{}.{}", limit.section(), limit.name())
}

/// The layer that stands there, and gives this errno.
pub(super) fn inferred(wall: Wall, word: &Word) -> (&'static str, String) {
    let errno = word.errno.as_deref().unwrap_or_default();
    let (layer, rule) = match (wall, errno) {
        (_, "SIGSYS") => (Layer::Seccomp, "killed"),
        (Wall::View, "EACCES") => (Layer::Landlock, "not granted"),
        (Wall::View | Wall::Review | Wall::Agreed | Wall::Discarded, "EROFS") => (Layer::Root, "read-only"),
        // What is mounted on itself cannot be moved or replaced, and a directory keeps the place of what is not there.
        (Wall::View | Wall::Review | Wall::Agreed | Wall::Discarded, "EBUSY" | "EISDIR") => {
            (Layer::Root, "protected")
        }
        (Wall::View, "EPERM") => (Layer::Seccomp, "not allowed"),
        (Wall::View | Wall::Call | Wall::Network, "EAFNOSUPPORT" | "ESOCKTNOSUPPORT" | "EPROTONOSUPPORT") => {
            (Layer::Seccomp, "socket family")
        }
        (Wall::Network, "EOPNOTSUPP") => (Layer::Seccomp, "no Fast Open"),
        (Wall::Discarded, "") => (Layer::Root, "thrown away"),
        (Wall::View | Wall::Review | Wall::Agreed | Wall::Discarded, _) => (Layer::Root, "not granted"),
        // mmap(2) says it so.
        (Wall::Execute, "EACCES" | "EPERM") => (Layer::Root, "scratch is noexec"),
        (Wall::Execute, _) => (Layer::Landlock, "no execute"),
        (Wall::Privilege, "EINVAL") => (Layer::Namespaces, "no root there"),
        (Wall::Privilege, _) => (Layer::Capabilities, "all dropped"),
        (Wall::Call, "ENOENT" | "ENOTTY") => (Layer::Root, "not granted"),
        (Wall::Call, _) => (Layer::Seccomp, "not allowed"),
        (Wall::Processes, "ENOENT" | "ESRCH") => (Layer::Namespaces, "own processes"),
        (Wall::Processes, "EACCES") => (Layer::Capabilities, "not dumpable"),
        (Wall::Processes, _) => (Layer::Seccomp, "not allowed"),
        (Wall::End, _) => (Layer::Namespaces, "ends with call"),
        (Wall::Names, _) => (Layer::Namespaces, "own host name"),
        (Wall::Network, "EPERM") => (Layer::Seccomp, "not allowed"),
        (Wall::Network, "EACCES") => (Layer::Landlock, "no port allowed"),
        (Wall::Network, _) => (Layer::Namespaces, "own network"),
        (Wall::Protocol, _) => (Layer::Protocol, "not forwarded"),
        (Wall::Output, _) => (Layer::Output, "escaped and bounded"),
        (Wall::Rlimit, _) => (Layer::Rlimit, "fixed"),
        (Wall::Descriptors, _) => return ("descriptors", "its own pipes".to_owned()),
        // The place where it wanted too much is not its own.
        (Wall::Limit(_), "EACCES") => (Layer::Landlock, "not granted"),
        (Wall::Limit(limit), _) => return (limit_layer(limit).name(), limit_key(limit)),
        (Wall::Environment, _) => return ("environment", "not passed".to_owned()),
    };
    (layer.name(), rule.to_owned())
}

/// The layer that enforces a limit.
const fn limit_layer(limit: Limit) -> Layer {
    match limit {
        Limit::Memory | Limit::Cpu | Limit::Tasks => Layer::Cgroup,
        Limit::Time => Layer::Deadline,
        Limit::Output => Layer::Output,
        Limit::OpenFiles | Limit::FileSize => Layer::Rlimit,
        Limit::Scratch => Layer::Root,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::attacks;
    use super::super::client::Exchange;
    use super::super::judge::word;
    use super::*;

    fn refused(operation: &str, errno: &str) -> Word {
        let report =
            json!({"outcome": "blocked", "operation": operation, "object": "", "errno": errno, "saw": ""});
        let answer = Some(json!({"result": {"structuredContent": report}}));
        word(&Exchange { answer, ..Exchange::default() })
    }

    fn record(violations: &Value, layers: &Value, coverage: &str) -> Record {
        let line = json!({"event": "finished", "call": {"id": "r-1-2", "target": "bpf"}, "status": {"kind": "completed"},
            "violations": violations,
            "receipt": {"floor": "full", "layers": layers, "coverage": {"seccomp": coverage}}});
        Record::parse(line.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_the_filter_has_not_told_of_was_not_the_filter() {
        let attack = attacks::direct().find(|attack| attack.tool == "bpf").unwrap();
        let told = |coverage: &str, errno: &str| {
            let violation = json!({"layer": "seccomp", "limit": null, "operation": "bpf", "object": "", "errno": errno,
                "count": 1, "value": null, "peak": null, "rule": "", "allow": null, "evidence": "kernel"});
            let record = record(&json!([violation]), &json!({"seccomp": "filter"}), coverage);
            let stopper = stopper(attack, &refused("bpf", "EPERM"), Some(&record));
            stopper.map(|stopper| (stopper.layer, stopper.known))
        };
        assert_eq!(told("complete", "EPERM"), Some(("seccomp", Known::Record)));
        assert_eq!(told("complete", "ENOSPC"), None);
        assert_eq!(told("blind", "ENOSPC"), Some(("seccomp", Known::Inferred)));
    }

    #[test]
    fn what_the_filter_has_only_counted_may_have_been_any_call() {
        let attack = attacks::direct().find(|attack| attack.tool == "bpf").unwrap();
        let counted = |layer: &str| {
            let violation = json!({"layer": layer, "limit": null, "operation": "other refused calls", "object": "", "errno": null,
                "count": 1, "value": null, "peak": null, "rule": "", "allow": null, "evidence": "kernel"});
            let record = record(&json!([violation]), &json!({"seccomp": "filter"}), "complete");
            stopper(attack, &refused("bpf", "EPERM"), Some(&record))
                .map(|stopper| (stopper.layer, stopper.known))
        };
        assert_eq!(counted("seccomp"), Some(("seccomp", Known::Inferred)));
        assert_eq!(counted("landlock"), None);
    }

    #[test]
    fn no_layer_is_named_that_the_cell_did_not_have() {
        let named = |title: &str, operation: &str, errno: &str, layers: &Value| {
            let attack = attacks::direct().find(|attack| attack.title == title).unwrap();
            let record = record(&json!([]), layers, "complete");
            stopper(attack, &refused(operation, errno), Some(&record)).map(|stopper| stopper.layer)
        };
        let alone = json!({"landlock": "abi 7", "seccomp": "filter", "processes": "", "capabilities": ""});
        let full = json!({"landlock": "abi 7", "seccomp": "filter", "root": "", "namespaces": "",
            "capabilities": "", "cgroup": ""});
        for (title, operation, errno, lower, higher) in [
            ("read an ssh private key", "open", "EACCES", Some("landlock"), Some("landlock")),
            ("read an ssh private key", "open", "ENOENT", None, Some("root")),
            ("read it by a hard link", "link", "EXDEV", Some("landlock"), Some("root")),
            ("run a program it dropped", "execve", "EACCES", Some("landlock"), Some("root")),
            ("read its command line", "open", "EACCES", Some("landlock"), Some("capabilities")),
            ("end a process of the host", "kill", "EPERM", Some("landlock"), Some("landlock")),
            ("end a process of the host", "kill", "ESRCH", None, Some("namespaces")),
            ("attach to it as a debugger", "ptrace", "EPERM", None, None),
            ("daemonise and stay", "fork twice", "", Some("processes"), Some("namespaces")),
            ("memory bomb", "brk", "ENOMEM", Some("rlimit"), Some("cgroup")),
            ("leave its cgroup", "open", "ENOENT", None, Some("root")),
        ] {
            assert_eq!(named(title, operation, errno, &alone), lower, "{title}: {errno}, without namespaces");
            assert_eq!(named(title, operation, errno, &full), higher, "{title}: {errno}");
        }
    }
}
