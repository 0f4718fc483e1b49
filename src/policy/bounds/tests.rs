//! Tests of what a client's words come to.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn levels(bounds: &Bounds, paths: &[&str]) -> Vec<Level> {
    paths.iter().map(|path| bounds.level(Path::new(path))).collect()
}

#[test]
fn roots_are_all_that_is_seen_but_for_the_system() {
    let roots = |value: Value| Bounds::of_roots(&json!({ "roots": value }));
    let two = roots(
        json!([{"uri": "file:///home/u/p", "name": "p"}, {"uri": "file://localhost/a%20b"}, {"uri": "memo://x"}]),
    );
    let two = two.unwrap();
    let expected = [Level::Write, Level::Write, Level::None, Level::None, Level::Read, Level::None];
    assert_eq!(levels(&two, &["/home/u/p", "/a b/c", "/home/u", "/home/u/p2", "/usr/share", "/"]), expected);
    // An empty list means nothing, never everything.
    let none = roots(json!([])).unwrap();
    assert_eq!(levels(&none, &["/home/u", "/etc/ssl"]), [Level::None, Level::Read]);
    assert_eq!(
        levels(&roots(json!([{"uri": "file:///"}])).unwrap(), &["/home", "/usr"]),
        [Level::Write, Level::Read]
    );
    for wrong in [
        json!(null),
        json!({}),
        json!([7]),
        json!([{}]),
        json!([{"uri": 7}]),
        json!([{"uri": "file:///a/../b"}]),
        json!([{"uri": "file://elsewhere/a"}]),
        json!([{"uri": "file:///a%0"}]),
        json!([{"uri": "file:relative"}]),
    ] {
        assert!(roots(wrong.clone()).is_err(), "{wrong}");
    }
    let many: Vec<Value> = (0..MOST).map(|number| json!({"uri": format!("file:///{number}")})).collect();
    assert!(roots(json!(many)).unwrap_err().contains("a client can name 256"));
}

fn codex(state: Value) -> Result<Vec<Bounds>, String> {
    Bounds::of_codex(&state)
}

#[test]
fn the_sandbox_policy_of_codex_is_read() {
    let one = |policy: Value| {
        let all = codex(
            json!({"sandboxPolicy": policy, "codexLinuxSandboxExe": null, "sandboxCwd": "/w", "useLegacyLandlock": false}),
        );
        all.unwrap().pop()
    };
    assert_eq!(one(json!({"type": "danger-full-access"})), None);
    let external = |network: &str| one(json!({"type": "external-sandbox", "network_access": network}));
    assert_eq!(external("enabled"), None);
    let offline = external("restricted").unwrap();
    assert!(offline.offline && levels(&offline, &["/"]) == [Level::Write]);
    for (policy, offline) in [
        (json!({"type": "read-only"}), true),
        (json!({"type": "read-only", "network_access": true}), false),
        (json!({"type": "workspace-write", "network_access": false}), true),
        (json!({"type": "external-sandbox"}), true),
    ] {
        let all = codex(json!({"sandboxPolicy": policy, "sandboxCwd": "/w"})).unwrap();
        assert_eq!(all.iter().any(|bounds| bounds.offline), offline, "{policy}");
    }
    let read = one(json!({"type": "read-only", "network_access": true})).unwrap();
    assert_eq!(levels(&read, &["/w", "/"]), [Level::Read; 2]);
    let some = json!({"type": "restricted", "include_platform_defaults": true, "readable_roots": ["/data"]});
    let some = one(json!({"type": "read-only", "access": some})).unwrap();
    assert_eq!(levels(&some, &["/data/x", "/usr", "/w"]), [Level::Read, Level::Read, Level::None]);
    let write = json!({"type": "workspace-write", "writable_roots": ["/extra"], "network_access": false,
        "exclude_tmpdir_env_var": false, "exclude_slash_tmp": true});
    let write = one(write).unwrap();
    assert_eq!(
        levels(&write, &["/w/a", "/extra", "/tmp/x", "/"]),
        [Level::Write, Level::Write, Level::Read, Level::Read]
    );
    let tmp = one(json!({"type": "workspace-write"})).unwrap();
    assert_eq!(levels(&tmp, &["/tmp/x"]), [Level::Write]);
}

#[test]
fn the_permission_profile_of_codex_is_read() {
    let of = |entries: Value| {
        codex(json!({"permissionProfile": {"type": "managed", "network": "restricted",
            "file_system": {"type": "restricted", "entries": entries}}, "sandboxCwd": "file:///w%20s"}))
    };
    let special =
        |value: Value, access: &str| json!({"path": {"type": "special", "value": value}, "access": access});
    let path = |path: &str, access: &str| json!({"path": {"type": "path", "path": path}, "access": access});
    let all = of(json!([
        special(json!({"kind": "root"}), "read"),
        special(json!({"kind": "project_roots"}), "write"),
        special(json!({"kind": "project_roots", "subpath": ".git"}), "read"),
        special(json!({"kind": "tmpdir"}), "write"),
        special(json!({"kind": "unknown", "path": ":new"}), "write"),
        path("/home/u/.ssh", "none"),
        path("/home/u/.aws", "deny"),
        path("/home/u/.ssh", "read"),
    ]));
    let bounds = all.unwrap().pop().unwrap();
    let expected = [Level::Write, Level::Read, Level::None, Level::None, Level::Read];
    assert_eq!(
        levels(&bounds, &["/w s/a", "/w s/.git/x", "/home/u/.ssh/id", "/home/u/.aws", "/home/u"]),
        expected
    );
    let minimal = of(json!([special(json!({"kind": "minimal"}), "read")])).unwrap().pop().unwrap();
    assert_eq!(levels(&minimal, &["/usr/bin", "/home"]), [Level::Read, Level::None]);
    let nothing = of(json!([])).unwrap();
    assert!(nothing[0].offline && levels(&nothing[1], &["/"]) == [Level::None]);
    for open in [json!({"type": "disabled"}), json!({"type": "external", "network": "enabled"})] {
        assert_eq!(codex(json!({"permissionProfile": open, "sandboxCwd": "/w"})), Ok(vec![]));
    }
    // What is forbidden and has no place here is not left out.
    for value in [json!({"kind": "tmpdir"}), json!({"kind": "unknown", "path": ":new"})] {
        assert!(of(json!([special(value, "none")])).unwrap_err().contains("cannot be kept out of a cell"));
    }
    let pattern = |access: &str| {
        of(json!([{"path": {"type": "glob_pattern", "pattern": "**/.env"}, "access": access}]))
    };
    assert!(pattern("none").is_err() && pattern("read").is_ok());
}

#[test]
fn what_is_not_understood_is_refused() {
    for state in [
        json!(null),
        json!({}),
        json!({"sandboxCwd": "/w"}),
        json!("read-only"),
        json!({"sandboxPolicy": "read-only"}),
        json!({"sandboxPolicy": {"type": "read-mostly"}}),
        json!({"sandboxPolicy": {"type": "read-only", "never": ["/etc"]}}),
        json!({"sandboxPolicy": {"type": "danger-full-access", "but": 1}}),
        json!({"sandboxPolicy": {"type": "read-only"}, "more": 1}),
        json!({"sandboxPolicy": {"type": "workspace-write"}}),
        json!({"sandboxPolicy": {"type": "workspace-write", "writable_roots": ["rel"]}, "sandboxCwd": "/w"}),
        json!({"sandboxPolicy": {"type": "workspace-write"}, "sandboxCwd": "/w/../x"}),
        json!({"permissionProfile": "workspace-write", "sandboxCwd": "/w"}),
        json!({"permissionProfile": {"type": "managed", "network": "restricted"}}),
        json!({"permissionProfile": {"type": "managed", "network": "some", "file_system": {"type": "unrestricted"}}}),
        json!({"permissionProfile": {"type": "disabled", "but": 1}}),
    ] {
        assert!(codex(state.clone()).is_err(), "{state}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let words = vec![
        "type",
        "kind",
        "path",
        "access",
        "entries",
        "file_system",
        "network",
        "managed",
        "restricted",
        "special",
        "value",
        "root",
        "read",
        "write",
        "none",
        "/w",
        "sandboxPolicy",
        "permissionProfile",
        "sandboxCwd",
        "read-only",
        "workspace-write",
        "writable_roots",
        "roots",
        "uri",
        "file:///w",
    ];
    let word = prop::sample::select(words).prop_map(str::to_owned);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        word.clone().prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..5)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    /// Whatever is sent, it is read or refused.
    #[test]
    fn any_value_is_read_or_refused(value in any_json()) {
        drop((Bounds::of_codex(&value), Bounds::of_roots(&value)));
    }

    /// What lies in a path that may be seen to some degree is decided by the longest rule, in whatever order rules stand.
    #[test]
    fn the_order_of_rules_means_nothing(
        rules in prop::collection::vec(("(/[ab]){1,3}", prop::sample::select(vec![Level::None, Level::Read, Level::Write])), 0..6),
        path in "(/[ab]){1,4}",
    ) {
        let rules: Vec<_> = rules.into_iter().map(|(path, level)| (PathBuf::from(path), level)).collect();
        let reversed: Vec<_> = rules.iter().rev().cloned().collect();
        let level = |rules| Bounds::new("a test", Level::None, rules).unwrap().level(Path::new(&path));
        prop_assert_eq!(level(rules.clone()), level(reversed));
    }
}
