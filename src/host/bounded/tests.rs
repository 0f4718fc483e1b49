//! Tests of what a client's words leave of a policy, on the tree of files of `narrow`.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::host::narrow::tests::Tree;
use crate::host::view::{self, Around};
use crate::policy::network::{Allowed, Network};

/// `data` writable but for `data/sub/fixed`, with `data/secret` hidden, and the programs of `data2`.
fn policy(tree: &Tree) -> Policy {
    let mut policy = tree.policy();
    let rule = |name: &str| PathRule { path: tree.at(name).into(), ..policy.filesystem.deny[0].clone() };
    let (data, programs) = (rule("data"), rule("data2"));
    policy.filesystem.read.retain(|rule| rule.path != data.path);
    policy.filesystem.write = vec![data];
    policy.filesystem.execute.push(programs);
    policy
}

fn seen(policy: &Policy) -> View {
    view::of_policy(&Files::of_host(), &policy.filesystem, Around::default()).unwrap()
}

fn codex(tree: &Tree, entries: &[(&str, &str)]) -> Bounds {
    let entry = |(name, access): &(&str, &str)| {
        let path = if name.is_empty() { "/".to_owned() } else { tree.at(name) };
        json!({"path": {"type": "path", "path": path}, "access": access})
    };
    let entries: Vec<_> = entries.iter().map(entry).collect();
    let managed = json!({"type": "managed", "network": "restricted", "file_system": {"type": "restricted", "entries": entries}});
    Bounds::of_codex(&json!({"permissionProfile": managed})).unwrap().pop().unwrap()
}

/// What is granted below the tree, and what is hidden.
fn apply(tree: &Tree, entries: &[(&str, &str)]) -> [Vec<String>; 4] {
    let policy = policy(tree);
    let left = bounded(&Files::of_host(), &policy, &seen(&policy), &codex(tree, entries));
    seen(&left);
    let filesystem = &left.filesystem;
    [&filesystem.read, &filesystem.write, &filesystem.execute, &filesystem.deny]
        .map(|rules| tree.granted(rules))
}

#[test]
fn a_rule_stays_is_read_only_is_taken_apart_or_goes() {
    let tree = Tree::new();
    let all = [vec!["data/sub/fixed"], vec!["data"], vec!["data2"], vec!["data/secret"]];
    assert_eq!(apply(&tree, &[("", "write")]), all);
    assert_eq!(apply(&tree, &[("data", "write"), ("data2", "read")]), all);
    let read = [vec!["data/sub/fixed", "data"], vec![], vec!["data2"], vec!["data/secret"]];
    assert_eq!(apply(&tree, &[("", "read")]), read);
    let none: [Vec<&str>; 4] = [vec![], vec![], vec![], vec!["data/secret"]];
    assert_eq!(apply(&tree, &[]), none);
    // The deepest that the policy says of a place is what is left of it.
    let part = [vec!["data/sub/fixed/f"], vec!["data/a"], vec!["data2/c"], vec!["data/secret"]];
    let asked = [
        ("data/a", "write"),
        ("data/sub/fixed/f", "write"),
        ("data2/c", "write"),
        ("data/secret/key", "read"),
    ];
    assert_eq!(apply(&tree, &asked), part);
    let mixed = [vec!["data/sub/fixed", "data"], vec!["data/a"], vec!["data2"], vec!["data/secret"]];
    assert_eq!(apply(&tree, &[("", "read"), ("data/a", "write")]), mixed);
}

#[test]
fn what_the_client_forbids_in_what_it_allows_is_hidden_or_read_only() {
    let tree = Tree::new();
    let carved = [vec!["data/sub/fixed", "data/a"], vec!["data"], vec!["data2"], vec!["data/secret"]];
    assert_eq!(apply(&tree, &[("", "write"), ("data/a", "read")]), carved);
    let hidden = [vec![], vec!["data"], vec!["data2"], vec!["data/secret", "data/sub"]];
    assert_eq!(apply(&tree, &[("", "write"), ("data/sub", "none")]), hidden);
    // A part of what is hidden is hidden too.
    assert_eq!(apply(&tree, &[("", "write"), ("data/sub", "none"), ("data/sub/fixed", "read")]), hidden);
    // What does not exist, and is not to be changed, must not come to.
    let absent = [vec!["data/sub/fixed"], vec!["data"], vec!["data2"], vec!["data/secret", "data/new"]];
    assert_eq!(apply(&tree, &[("", "write"), ("data/new", "read")]), absent);
    assert_eq!(apply(&tree, &[("", "write"), ("data/new", "none")]), absent);
}

/// A trap for the host, which no tool may change, is not left to one by a client's word.
#[test]
fn a_client_does_not_spell_out_a_trap() {
    let tree = Tree::new();
    let [read, write, ..] = apply(&tree, &[("data/.git/hooks", "write")]);
    assert_eq!((read, write), (vec!["data/.git/hooks".to_owned()], vec![]));
}

#[test]
fn a_link_is_what_it_leads_to() {
    let tree = Tree::new();
    let [read, write, ..] = apply(&tree, &[("alias/a", "write"), ("data/away", "write")]);
    assert_eq!((read, write), (vec![], vec!["data/a".to_owned()]));
    // Also where it leads to is not there yet: that must not come to be.
    for access in ["none", "read"] {
        let [.., deny] = apply(&tree, &[("data", "write"), ("alias/new/deep", access)]);
        assert_eq!(deny, ["data/secret", "data/new/deep"], "{access}");
    }
}

/// What a cell lets be done with a path: of several grants in one place, all of them.
fn together(view: &View, path: &Path) -> Option<Access> {
    let innermost =
        view.granted.iter().filter(|seen| path.starts_with(&seen.source)).map(|seen| &seen.source).max()?;
    let same = view.granted.iter().filter(|seen| seen.source == *innermost).map(|seen| seen.access);
    reach(view, path)?;
    let most = same.reduce(|one, other| Access {
        write: one.write || other.write,
        execute: one.execute || other.execute,
        names: one.names && other.names,
    });
    most.map(|access| Access {
        write: access.write && view.protected.iter().all(|seen| !path.starts_with(&seen.source)),
        ..access
    })
}

const PLACES: &[&str] = &[
    "",
    "data",
    "data/a",
    "data/sub",
    "data/sub/b",
    "data/sub/fixed",
    "data/sub/fixed/f",
    "data/secret",
    "data/secret/key",
    "data/.git",
    "data/.git/hooks",
    "data/.git/hooks/h",
    "data/inside",
    "data/new",
    "data2",
    "data2/c",
    "out",
    "out/d",
    "alias",
    "alias/sub",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever a `deny` of a profile hides, it shows nothing.
    #[test]
    fn adding_a_deny_never_shows_more(
        denied in prop::collection::vec((prop::sample::select(PLACES), any::<bool>()), 1..4),
        offline in any::<bool>(),
    ) {
        let tree = Tree::new();
        let files = Files::of_host();
        let before = if offline { tree.policy() } else { policy(&tree) };
        let mut after = before.clone();
        for (place, optional) in denied {
            let path = tree.at(place).into();
            after.filesystem.deny.push(PathRule { path, optional, ..before.filesystem.deny[0].clone() });
        }
        let (wide, narrow) = (seen(&before), seen(&after));
        for place in PLACES {
            let Ok(found) = files.resolve(Path::new(&tree.at(place))) else { continue };
            let Some(has) = together(&narrow, &found.real) else { continue };
            let had = together(&wide, &found.real).expect(place);
            prop_assert!((had.write || !has.write) && (had.execute || !has.execute), "{place}");
        }
    }

    #[test]
    fn no_bounds_make_a_policy_wider(
        first in prop::collection::vec((prop::sample::select(PLACES), prop::sample::select(vec!["none", "read", "write"])), 0..6),
        second in prop::collection::vec((prop::sample::select(PLACES), prop::sample::select(vec!["none", "read", "write"])), 0..4),
        offline in any::<bool>(),
    ) {
        let tree = Tree::new();
        let files = Files::of_host();
        let policy = if offline { tree.policy() } else { policy(&tree) };
        let mut left = policy.clone();
        let mut bounds = vec![codex(&tree, &first)];
        bounds.extend((!second.is_empty()).then(|| codex(&tree, &second)));
        for bounds in &bounds {
            left = bounded(&files, &left, &seen(&left), bounds);
        }
        let (before, after) = (seen(&policy), seen(&left));
        for place in PLACES {
            let Ok(found) = files.resolve(Path::new(&tree.at(place))) else { continue };
            let (had, has) = (reach(&before, &found.real), together(&after, &found.real));
            let Some(has) = has else { continue };
            let had = had.expect(place);
            prop_assert!(had.write || !has.write, "{place}");
            prop_assert!(had.execute || !has.execute, "{place}");
            prop_assert!(!had.names || has.names, "{place}");
            for bounds in &bounds {
                let real = |path: &Path| files.resolve(path).map_or_else(|_| path.to_owned(), |found| found.real);
                let level = bounds.led(real).level(&found.real);
                let needed = if has.write { Level::Write } else { Level::Read };
                prop_assert!(level >= needed, "{place}: {level:?}");
            }
        }
        for denied in &policy.filesystem.deny {
            prop_assert!(left.filesystem.deny.contains(denied));
        }
    }
}

#[test]
fn a_client_without_network_takes_the_doors_and_nothing_else() {
    let tree = Tree::new();
    let mut policy = policy(&tree);
    policy.network.allow =
        vec![Allowed { destination: "a.example:443".parse().unwrap(), origin: String::new() }];
    let state = |network: &str| json!({"permissionProfile": {"type": "external", "network": network}});
    assert_eq!(Bounds::of_codex(&state("enabled")).unwrap(), []);
    let bounds = Bounds::of_codex(&state("restricted")).unwrap();
    let left = bounded(&Files::of_host(), &policy, &seen(&policy), &bounds[0]);
    assert!(policy.network.is_open() && !left.network.is_open());
    assert_eq!(left.filesystem, policy.filesystem);
    policy.network = Network { mode: Mode::Host, ..Network::default() };
    let left = bounded(&Files::of_host(), &policy, &seen(&policy), &bounds[0]);
    assert_eq!(left.network, Network::default());
}
