//! Tests of what arguments make of a policy, on a small tree of files.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::host::view::{self, Around};
use crate::policy::add::Additions;
use crate::policy::files::Library;
use crate::policy::pointer::Pointer;
use crate::policy::profile;
use crate::policy::syscalls::SyscallName;

/// `data` with files and links, `data2` beside it, and `out` that nobody granted.
pub(in crate::host) struct Tree {
    pub(in crate::host) path: PathBuf,
}

impl Tree {
    pub(in crate::host) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("toolcell-narrow-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::fs::canonicalize(std::env::temp_dir()).unwrap();
        // A cell has a `/tmp` of its own.
        let path = if path.starts_with("/tmp") { PathBuf::from("/var/tmp") } else { path };
        let path = path.join(name);
        for directory in ["data/sub/fixed", "data/secret", "data/.git/hooks", "data2", "out"] {
            std::fs::create_dir_all(path.join(directory)).unwrap();
        }
        for file in [
            "data/a",
            "data/sub/b",
            "data/sub/fixed/f",
            "data/secret/key",
            "data/.git/hooks/h",
            "data2/c",
            "out/d",
        ] {
            std::fs::write(path.join(file), "12345").unwrap();
        }
        symlink(path.join("out"), path.join("data/away")).unwrap();
        symlink("sub/b", path.join("data/inside")).unwrap();
        symlink(path.join("out/none"), path.join("data/nowhere")).unwrap();
        symlink(path.join("data"), path.join("alias")).unwrap();
        Self { path }
    }

    pub(in crate::host) fn at(&self, name: &str) -> String {
        self.path.join(name).to_str().unwrap().to_owned()
    }

    /// `data` readable, `data/sub` writable but for `fixed` in it, `data/secret` hidden.
    pub(in crate::host) fn policy(&self) -> Policy {
        let world = profile::World { home: None, workspace: Path::new("/w") };
        let more = Additions {
            read: vec![self.at("data").into(), self.at("data/sub/fixed").into()],
            write: vec![self.at("data/sub").into()],
            ..Additions::default()
        };
        let mut policy =
            Library::new(0, None, None).load("default", world, &|_| SyscallName::Known, &more).unwrap();
        let secret = PathRule {
            path: self.at("data/secret").into(),
            why: String::new(),
            origin: String::new(),
            optional: false,
        };
        policy.filesystem.deny.push(secret);
        policy
    }

    fn grant(&self, access: Use, within: &[&str]) -> ArgumentGrant {
        let within = within.iter().map(|name| self.at(name).into()).collect();
        ArgumentGrant { argument: Pointer::parse("/path").unwrap(), access, within, largest: None }
    }

    fn apply(&self, grant: ArgumentGrant, arguments: &Value) -> Result<Policy, Unfit> {
        let (files, policy) = (Files::of_host(), self.policy());
        let whole = view::of_policy(&files, &policy.filesystem, Around::default()).unwrap();
        narrowed(&files, &policy, &whole, &[grant], arguments).map(|(policy, _)| policy)
    }

    fn ask(&self, access: Use, name: &str) -> Result<Policy, Unfit> {
        self.apply(self.grant(access, &["data"]), &json!({"path": self.at(name)}))
    }

    /// The paths of the tree that a policy grants, below the tree.
    pub(in crate::host) fn granted(&self, rules: &[PathRule]) -> Vec<String> {
        let below = rules.iter().filter_map(|rule| rule.path.strip_prefix(&self.path).ok());
        below.map(|path| path.to_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).unwrap();
    }
}

#[test]
fn a_path_is_all_that_is_left_of_its_directory() {
    let tree = Tree::new();
    for name in ["data/a", "data/sub", "data", "data/inside", "data/.git/hooks/h"] {
        let policy = tree.ask(Use::Read, name).unwrap();
        assert_eq!(tree.granted(&policy.filesystem.read), [name]);
        assert!(tree.granted(&policy.filesystem.write).is_empty());
        assert_eq!(policy.filesystem.deny, tree.policy().filesystem.deny);
        assert_eq!(policy.filesystem.execute, tree.policy().filesystem.execute);
    }
    let policy = tree.ask(Use::List, "data/sub").unwrap();
    assert_eq!(tree.granted(&policy.filesystem.list), ["data/sub"]);
    assert!(
        tree.granted(&policy.filesystem.read).is_empty() && tree.granted(&policy.filesystem.write).is_empty()
    );
    assert!(matches!(tree.ask(Use::List, "data/a"), Err(Unfit::NoDirectory { .. })));
    let policy = tree.ask(Use::Write, "data/sub/b").unwrap();
    assert_eq!(tree.granted(&policy.filesystem.write), ["data/sub/b"]);
    assert!(tree.granted(&policy.filesystem.read).is_empty());
    // Without the argument nothing is left; what another directory shows stays.
    let policy = tree.apply(tree.grant(Use::Read, &["data"]), &json!({})).unwrap();
    assert!(tree.granted(&policy.filesystem.read).is_empty());
    let policy = tree.apply(tree.grant(Use::Read, &["data/sub"]), &Value::Null).unwrap();
    assert!(tree.granted(&policy.filesystem.read).is_empty());
    let policy = tree.apply(tree.grant(Use::Read, &["data2"]), &json!({})).unwrap();
    assert_eq!(tree.granted(&policy.filesystem.read), ["data", "data/sub/fixed"]);
}

/// Landlock adds rights only, and a cell can read all of its own `/tmp`.
#[test]
fn names_alone_are_not_promised_below_the_cells_own_directory() {
    let tree = Tree::new();
    let own = Path::new("/tmp").join(tree.path.file_name().unwrap());
    std::fs::create_dir(&own).unwrap();
    let own_text = own.to_str().unwrap();
    let (files, mut policy) = (Files::of_host(), tree.policy());
    let rule = PathRule { path: own.clone(), ..policy.filesystem.deny[0].clone() };
    policy.filesystem.read.push(rule);
    let mut ask = |access, scratch| {
        policy.filesystem.scratch = scratch;
        let whole = view::of_policy(&files, &policy.filesystem, Around::default()).unwrap();
        let grant = ArgumentGrant { within: vec![own.clone()], ..tree.grant(access, &[]) };
        narrowed(&files, &policy, &whole, &[grant], &json!({"path": own_text}))
    };
    let (list, read, bare) = (ask(Use::List, 1), ask(Use::Read, 1), ask(Use::List, 0));
    std::fs::remove_dir(&own).unwrap();
    assert!(matches!(list, Err(Unfit::InScratch { .. })), "{list:?}");
    assert!(read.is_ok() && bare.is_ok());
}

#[test]
fn what_lies_elsewhere_is_refused() {
    let tree = Tree::new();
    // Also what is not there, so that nothing is told of what is.
    for name in [
        "out/d",
        "out",
        "data2/c",
        "data/away/d",
        "data/away/none",
        "data/away",
        "data/nowhere",
        "out/none",
        "",
    ] {
        assert!(matches!(tree.ask(Use::Read, name), Err(Unfit::Outside { .. })), "{name}");
    }
    for name in ["data/../out/d", "data/./a"] {
        assert!(matches!(tree.ask(Use::Read, name), Err(Unfit::NoPath { .. })), "{name}");
    }
    let ask = |value: Value| tree.apply(tree.grant(Use::Read, &["data"]), &json!({ "path": value }));
    for value in [json!("a"), json!("/proc/self/environ"), json!("/"), json!("/etc/\u{0}"), json!("")] {
        assert!(matches!(ask(value.clone()), Err(Unfit::NoPath { .. })), "{value}");
    }
    for value in [json!(7), json!(null), json!([]), json!({"x": 1})] {
        assert!(matches!(ask(value.clone()), Err(Unfit::NoText { .. })), "{value}");
    }
    let none = tree.apply(tree.grant(Use::Read, &[]), &json!({"path": tree.at("data/a")})).unwrap_err();
    assert!(none.to_string().ends_with("lies outside of everything: `within` is empty"), "{none}");
    // A directory that is a link is the one that it leads to.
    let alias = tree.grant(Use::Read, &["alias"]);
    assert!(tree.apply(alias.clone(), &json!({"path": tree.at("alias/a")})).is_ok());
    assert!(matches!(
        tree.apply(alias, &json!({"path": tree.at("alias/away/d")})),
        Err(Unfit::Outside { .. })
    ));
}

#[test]
fn what_the_profile_does_not_grant_an_argument_does_not_either() {
    let tree = Tree::new();
    for (access, name) in [
        (Use::Read, "data/secret/key"),
        (Use::Read, "data/secret"),
        (Use::Read, "data/secret/none"),
        (Use::List, "data/secret"),
        (Use::Write, "data/sub/fixed/f"),
        (Use::Write, "data/a"),
        (Use::Write, "data"),
        (Use::Write, "data/.git/hooks/h"),
    ] {
        assert!(matches!(tree.ask(access, name), Err(Unfit::NotGranted { .. })), "{name}");
    }
    let hint = tree.ask(Use::Write, "data/a").unwrap_err().hint().unwrap();
    assert!(hint.ends_with(&format!("toolcell profile why default --write {}", tree.at("data/a"))), "{hint}");
    let hint = tree.ask(Use::Read, "out/d").unwrap_err().hint().unwrap();
    assert!(hint.ends_with(&format!("within = [\"{}\"]", tree.at("out"))), "{hint}");
    let other = tree.apply(tree.grant(Use::Read, &["out"]), &json!({"path": tree.at("out/d")}));
    assert!(matches!(other, Err(Unfit::NotGranted { .. })));
}

/// A name that is protected in every writable directory is not spelled out by an argument.
#[test]
fn an_argument_does_not_spell_out_a_trap() {
    let tree = Tree::new();
    let mut policy = tree.policy();
    policy.filesystem.read.retain(|rule| !rule.path.starts_with(&tree.path));
    policy.filesystem.write =
        vec![PathRule { path: tree.at("data").into(), ..policy.filesystem.deny[0].clone() }];
    let files = Files::of_host();
    let whole = view::of_policy(&files, &policy.filesystem, Around::default()).unwrap();
    let ask = |name: &str| {
        let arguments = json!({"path": tree.at(name)});
        narrowed(&files, &policy, &whole, &[tree.grant(Use::Write, &["data"])], &arguments)
    };
    assert!(ask("data/a").is_ok() && ask("data/sub").is_ok() && ask("data").is_ok());
    for name in ["data/.git/hooks", "data/.git/hooks/h"] {
        assert!(matches!(ask(name), Err(Unfit::NotGranted { .. })), "{name}");
    }
}

#[test]
fn a_file_is_no_larger_than_allowed() {
    let tree = Tree::new();
    let ask = |access, name: &str, most| {
        let grant = ArgumentGrant { largest: Some(most), ..tree.grant(access, &["data"]) };
        tree.apply(grant, &json!({"path": tree.at(name)}))
    };
    assert!(ask(Use::Read, "data/a", 5).is_ok());
    assert!(matches!(ask(Use::Read, "data/sub", 9), Err(Unfit::Unbounded { .. })));
    // What is hidden has no size.
    assert!(matches!(ask(Use::Read, "data/secret/key", 4), Err(Unfit::NotGranted { .. })));
    let refused = ask(Use::Read, "data/a", 4).unwrap_err();
    assert!(matches!(refused, Unfit::Large { size: 5, most: 4, .. }), "{refused}");
    assert_eq!(ask(Use::Write, "data/sub/b", 7).unwrap().limits.file_size, 7);
    assert_eq!(ask(Use::Read, "data/a", 7).unwrap().limits, tree.policy().limits);
}

#[test]
fn a_rule_inside_of_what_is_written_to_stays() {
    let tree = Tree::new();
    let policy = tree.ask(Use::Write, "data/sub").unwrap();
    assert_eq!(tree.granted(&policy.filesystem.write), ["data/sub"]);
    assert_eq!(tree.granted(&policy.filesystem.read), ["data/sub/fixed"]);
}

#[test]
fn a_call_names_a_bounded_number_of_paths() {
    let tree = Tree::new();
    let grant =
        ArgumentGrant { argument: Pointer::parse("/paths/*").unwrap(), ..tree.grant(Use::Read, &["data"]) };
    let ask = |count: usize| tree.apply(grant.clone(), &json!({"paths": vec![tree.at("data/a"); count]}));
    assert!(ask(MOST).is_ok());
    assert!(matches!(ask(MOST + 1), Err(Unfit::Many { count: 65, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_grant_is_never_wider_than_its_policy(
        access in prop::sample::select(vec![Use::Read, Use::Write, Use::List]),
        within in prop::sample::subsequence(vec!["data", "data/sub", "data2", "out", "alias", ""], 0..4),
        path in prop_oneof![
            prop::sample::select(vec!["data", "data/sub", "data/sub/fixed", "data/sub/b", "data/a", "alias/sub", "data2"])
                .prop_map(str::to_owned),
            prop::collection::vec(
                prop::sample::select(vec!["data", "data2", "out", "alias", "sub", "fixed", "f", "secret", ".git", "hooks", "away", "inside", "a", "b", "key", "d", "..", "."]),
                0..5,
            ).prop_map(|parts| parts.join("/")),
        ],
    ) {
        let tree = Tree::new();
        let files = Files::of_host();
        let arguments = json!({"path": tree.at(&path)});
        if let Ok(policy) = tree.apply(tree.grant(access, &within), &arguments) {
            let before = view::of_policy(&files, &tree.policy().filesystem, Around::default()).unwrap();
            let after = view::of_policy(&files, &policy.filesystem, Around::default()).unwrap();
            for seen in &after.granted {
                let known = before.granted.contains(seen);
                prop_assert!(known || allows(&before, &seen.source, seen.access.write), "{seen:?}");
                let asked = access == Use::List && *seen.target == *Path::new(&tree.at(&path));
                prop_assert!(known || seen.access.names == asked, "{seen:?}");
            }
            for kept in before.granted.iter().filter(|seen| !seen.access.write).chain(&before.protected) {
                // What could be read only is not written to by way of what it lies in.
                let over = |seen: &&Seen| seen.access.write && kept.source.starts_with(&seen.source);
                prop_assert!(!after.granted.iter().any(|seen| over(&seen)) || !allows(&after, &kept.source, true));
            }
            prop_assert_eq!(after.hidden, before.hidden);
        }
    }
}
