//! Tests of the stage as a whole: what mistakes look like, how profiles add up, what is printed is read back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::add::{AddError, Additions, parse_env};
use super::check::warnings;
use super::files::{BUILT_IN, FilesError, Library};
use super::mistakes::Mistakes;
use super::print::to_toml;
use super::profile::World;
use super::resolve::resolve;
use super::syscalls::SyscallName;
use super::{Floor, Observe, PathRule, Policy, Source, Writes, config, limits, profile};
use crate::outcome::Limit;

fn world() -> World<'static> {
    World { home: Some(Path::new("/home/u")), workspace: Path::new("/srv/p") }
}

fn known(name: &str) -> SyscallName {
    match name {
        "bpf" => SyscallName::Never("it runs in the kernel"),
        "accept" | "accept4" | "bind" | "connect" | "listen" | "socket" | "ptrace" | "openat2" => {
            SyscallName::Known
        }
        _ => SyscallName::Unknown,
    }
}

fn source(name: &str, text: &str) -> Source {
    Source {
        name: name.to_owned(),
        path: Some(format!("/etc/cells/{name}.toml").into()),
        text: text.to_owned(),
    }
}

fn all(own: &[(&str, &str)]) -> BTreeMap<String, Source> {
    let built_in = BUILT_IN.iter().map(|(name, text)| Source {
        name: (*name).to_owned(),
        path: None,
        text: (*text).to_owned(),
    });
    let own = own.iter().map(|(name, text)| source(name, text));
    built_in.chain(own).map(|source| (source.name.clone(), source)).collect()
}

fn resolved(name: &str, own: &[(&str, &str)]) -> Result<Policy, Mistakes> {
    let sources = all(own);
    resolve(&sources[name], &sources, world(), &known)
}

fn mistakes(text: &str) -> String {
    resolved("mine", &[("mine", text)]).unwrap_err().to_string()
}

fn paths(rules: &[PathRule]) -> Vec<&str> {
    rules.iter().map(|rule| rule.path.to_str().unwrap()).collect()
}

#[test]
fn every_mistake_of_a_file_is_told_at_once() {
    let text = r#"description = "two\nlines"
extends = "defualt"
floor = "ful"
memory = "1GiB"

[filesytem]
read = []

[filesystem]
read = ["data", "/proc/self", { path = "{wrokspace}/x", whi = "because" }, { why = "no path" }]
write = "/data"
execute = ["/opt/../etc", 7]

[limits]
memory = "512M"
cpu = nan
tasks = -1
time = 30
open_files = 64
output = "0B"

[syscalls]
allow = ["bpf"]
deny = ["bpf", "opneat2", "no_such_call"]

[environment]
pass = ["LC_*"]
set = { "A B" = "x", HOME = "{hone}" }

[audit]
redact = ["token"]
"#;
    insta::assert_snapshot!(mistakes(text));
}

#[test]
fn broken_syntax_is_told_with_the_rest() {
    insta::assert_snapshot!(mistakes(
        "extends = \n[limits]\nmemory = \"1GiB\nsize = 3\ntasks = 5\ntasks = 6\n"
    ));
}

#[test]
fn mistakes_of_a_configuration_are_told_at_once() {
    let text = r#"
[server.x]
[servers.git]
command = "git-server --stdio"
profile = "ofline"
env = ["1X=2", "TOKEN"]
[servers.git.tools.git_commit]
profil = "git-write"
[servers."a b"]
command = ["x"]
[servers.empty]
command = []
[servers.none]
validate = "never"
validate-output = "always"
client-roots = "on"
[servers.files]
command = ["x"]
[servers.files.tools.d]
[servers.files.tools]
a.grants = [{ argument = "path", access = "look", within = ["data", "/proc"] }, { argument = "/~", max-file-size = "1 furlong" }]
b.grants = "all"
c.grants = [{ argument = "/a", access = "read", within = [], "max-size" = 1 }]
e.grants = [{ argument = "/a", access = "list", within = [], max-file-size = "1MiB" }]
f.grants = [{ argument = "/url", access = "connect", within = ["a.example", "*.b.example:443"], max-file-size = "1MiB" }]
"#;
    let names: BTreeSet<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    insta::assert_snapshot!(config::parse(&source("config", text), &names).unwrap_err().to_string());
}

#[test]
fn a_tool_has_its_own_profile_else_its_servers_else_the_default() {
    let text = r#"
[servers.git]
command = ["mcp-server-git", "--repository", "/home/u/p"]
profile = "offline"
env = ["TOKEN", "MODE=a=b"]
[servers.git.tools.git_commit]
profile = "git-write"
[servers.time]
command = ["mcp-server-time"]
"#;
    let names: BTreeSet<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    let config = config::parse(&source("config", text), &names).unwrap();
    let git = config.server("git").unwrap();
    assert_eq!(git.profile_for(Some("git_commit")), "git-write");
    assert_eq!(git.profile_for(Some("git_status")), "offline");
    assert_eq!(git.profile_for(None), "offline");
    assert_eq!(git.profiles().into_iter().collect::<Vec<_>>(), ["git-write", "offline"]);
    assert_eq!(git.env, [("TOKEN".into(), None), ("MODE".into(), Some("a=b".into()))]);
    assert_eq!(config.server("time").unwrap().profile_for(Some("now")), "default");
    assert_eq!(config.server("gti").unwrap_err(), "did you mean `git`?");
}

#[test]
fn a_child_adds_to_lists_and_replaces_the_rest() {
    let parent = r#"
description = "parent"
floor = "no-cgroup"
observe = "files"
[filesystem]
read = ["/a", { path = "/b", why = "parent's", optional = true }]
scratch = "1MiB"
[limits]
memory = "64MiB"
tasks = 7
[environment]
pass = ["LANG", "A"]
set = { B = "1", C = "1" }
[syscalls]
deny = ["ptrace"]
"#;
    let child = r#"
extends = "parent"
[filesystem]
read = ["/b", "{config}/c"]
execute = ["{scratch}"]
[limits]
memory = "1GiB"
[environment]
pass = ["B"]
set = { A = "{workspace}/{{x}}" }
"#;
    let policy = resolved("child", &[("parent", parent), ("child", child)]).unwrap();
    assert_eq!((policy.name.as_str(), policy.description.as_str()), ("child", "parent"));
    assert_eq!((policy.floor, policy.observe), (Floor::NoCgroup, Observe::Files));
    assert_eq!(paths(&policy.filesystem.read), ["/a", "/b", "/etc/cells/c"]);
    let b = &policy.filesystem.read[1];
    assert_eq!((b.why.as_str(), b.origin.as_str(), b.optional), ("parent's", "profile `parent`", false));
    assert!(policy.filesystem.scratch_execute && policy.filesystem.execute.is_empty());
    assert_eq!((policy.limits.memory, policy.limits.tasks, policy.filesystem.scratch), (1 << 30, 7, 1 << 20));
    assert_eq!(policy.environment.pass, ["LANG", "B"]);
    let set: Vec<_> = policy.environment.set.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(set, [("A", "/srv/p/{x}"), ("C", "1")]);
    assert_eq!(policy.syscalls.deny, ["ptrace"]);
}

#[test]
fn an_empty_profile_grants_nothing() {
    let policy = resolved("mine", &[("mine", "")]).unwrap();
    assert_eq!(policy, Policy::nothing("mine"));
    assert_eq!(policy.grants().count(), 0);
    assert!(policy.environment.pass.is_empty() && policy.environment.set.is_empty());
}

#[test]
fn extends_in_a_circle_is_refused() {
    let own = [("a", "extends = \"b\""), ("b", "extends = \"c\""), ("c", "extends = \"b\"")];
    let error = resolved("a", &own).unwrap_err().to_string();
    assert!(error.contains("/etc/cells/c.toml:1:11: `extends` goes in a circle: `b` → `c` → `b`"), "{error}");
    let itself = resolved("a", &[("a", "extends = \"a\"")]).unwrap_err().to_string();
    assert!(itself.contains("circle: `a` → `a`"), "{itself}");
}

#[test]
fn mistakes_of_parents_are_told_too() {
    let own = [("a", "extends = \"b\"\nflor = \"full\""), ("b", "[limits]\ntasks = 1")];
    let error = resolved("a", &own).unwrap_err();
    let places: Vec<_> = error.as_slice().iter().map(|m| (m.spot.file.as_str(), m.spot.line)).collect();
    assert_eq!(places, [("/etc/cells/a.toml", 2), ("/etc/cells/b.toml", 2)]);
}

#[test]
fn what_is_granted_and_denied_is_refused() {
    let text = "[filesystem]\nread = [\"/data/x\", \"/data/y/z\", \"/database\"]\ndeny = [\"/data\"]";
    insta::assert_snapshot!(mistakes(text));
    assert!(mistakes("[filesystem]\nread = [\"/x\"]\ndeny = [\"/x\"]").contains("hidden by `deny` of `/x`"));
    resolved("mine", &[("mine", "[filesystem]\nread = [\"/x\"]\ndeny = [\"/x/y\"]")]).unwrap();
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let text = r#"
floor = "landlock"
[filesystem]
read = ["/var/run/x.sock", "/var/lib"]
write = ["/data"]
execute = ["/data/bin", "{scratch}"]
deny = ["/nowhere", "/data/secret"]
scratch = "0B"
[syscalls]
allow = ["ptrace"]
deny = ["ptrace"]
"#;
    let mut policy = resolved("mine", &[("mine", text)]).unwrap();
    insta::assert_snapshot!(warnings(&policy).join("\n"));
    policy.filesystem.scratch = 1 << 40;
    assert!(
        warnings(&policy).contains(&"scratch of 1TiB counts as memory, of which there are 512MiB".to_owned())
    );
}

#[test]
fn built_in_profiles_are_whole() {
    for (name, text) in BUILT_IN {
        let policy = resolved(name, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!policy.description.is_empty(), "{name}");
        assert!(text.starts_with("# "), "{name} says in its first line what it is for");
        for rule in policy.grants().chain(&policy.filesystem.deny) {
            assert!(!rule.why.is_empty(), "{name}: {}", rule.path.display());
        }
        assert_eq!(warnings(&policy), Vec::<String>::new(), "{name}");
        assert_eq!(policy.floor, Floor::Full, "{name}");
    }
    let default = resolved("default", &[]).unwrap();
    assert!(default.grants().all(|rule| ["/etc", "/usr"].iter().any(|d| rule.path.starts_with(d))));
    assert!(default.filesystem.write.is_empty());
    assert_eq!(default.limits, super::Limits::default());
}

#[test]
fn the_reference_names_every_key_and_default() {
    let reference = include_str!("../../docs/profiles.md");
    let alerts = include_str!("../../docs/alerts.md");
    for (section, keys) in config::guard::SECTIONS {
        assert!(alerts.contains(&format!("`[{section}]`")), "`[{section}]`");
        for key in *keys {
            assert!(alerts.contains(&format!("`{key}`")), "`{key}` of `[{section}]`");
        }
    }
    let profiles = profile::SECTIONS.iter().chain(profile::HTTP_SECTIONS);
    let configs = [config::SECTIONS, config::access::SECTIONS, config::secrets::SECTIONS];
    for (section, keys) in profiles.chain(configs.into_iter().flatten()) {
        let heading = format!("`[{section}]`");
        assert!(section.is_empty() || reference.contains(&heading), "{heading}");
        let elsewhere = |key: &&&str| !config::guard::SECTIONS.iter().any(|(section, _)| section == *key);
        for key in keys
            .iter()
            .filter(elsewhere)
            .chain(profile::RULE_KEYS)
            .chain(config::access::RATE_KEYS)
            .chain(config::grants::KEYS)
        {
            assert!(reference.contains(&format!("`{key}`")), "`{key}` of {heading}");
        }
    }
    let nothing = Policy::nothing("p");
    for limit in limits::ALL {
        let value = limits::print(limit, nothing.limit(limit));
        let row = reference.lines().find(|line| line.starts_with(&format!("| `{}` |", limit.name())));
        assert!(row.unwrap().contains(&format!("`{value}`")), "{} = {value}", limit.name());
    }
    for (name, _) in BUILT_IN {
        assert!(reference.contains(&format!("`{name}`")), "{name}");
    }
    for variable in super::path::VARIABLES {
        assert!(reference.contains(&format!("`{{{variable}}}`")), "{variable}");
    }
}

#[test]
fn examples_of_the_reference_are_right() {
    let reference = include_str!("../../docs/profiles.md");
    let blocks: Vec<&str> =
        reference.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 2);
    let names: BTreeSet<String> =
        BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).chain(["mine".to_owned()]).collect();
    for block in blocks {
        if block.contains("[servers.") {
            config::parse(&source("config", block), &names)
                .unwrap_or_else(|error| panic!("{block}\n{error}"));
        } else {
            resolved("mine", &[("mine", block)]).unwrap_or_else(|error| panic!("{block}\n{error}"));
        }
    }
}

#[test]
fn options_add_to_a_profile_and_win_over_it() {
    let policy = resolved("offline", &[]).unwrap();
    let additions = Additions {
        read: vec!["/data/".into(), "/srv/p".into()],
        write: vec!["/out".into()],
        env: vec![parse_env("HOME").unwrap(), parse_env("LANG=C").unwrap()],
        memory: Some(1 << 30),
        cpu: Some(2000),
        scratch: Some(0),
        floor: Some(Floor::NoCgroup),
        ..Additions::default()
    };
    let added = policy.clone().with(&additions).unwrap();
    let last = added.filesystem.read.last().unwrap();
    assert_eq!((last.path.to_str(), last.origin.as_str()), (Some("/data"), "`--read`"));
    assert_eq!(added.filesystem.read.len(), policy.filesystem.read.len() + 1);
    assert_eq!(added.filesystem.write[0].origin, "`--write`");
    assert_eq!((added.limits.memory, added.limits.cpu, added.limits.tasks), (1 << 30, 2000, 64));
    assert_eq!((added.filesystem.scratch, added.floor), (0, Floor::NoCgroup));
    assert!(
        added.environment.pass.contains(&"HOME".to_owned()) && !added.environment.set.contains_key("HOME")
    );
    assert_eq!(added.environment.set["LANG"], "C");

    let refused = |additions: Additions| policy.clone().with(&additions).unwrap_err();
    let read = |path: &str| refused(Additions { read: vec![path.into()], ..Additions::default() });
    assert!(matches!(read("data"), AddError::Path { option: "--read", .. }));
    assert!(matches!(read("/proc/1"), AddError::Path { .. }));
    assert!(matches!(read("/a/../b"), AddError::Path { .. }));
    assert!(matches!(read("/srv/p/.env"), AddError::Denied(_)));
    assert!(matches!(refused(Additions { tasks: Some(0), ..Additions::default() }), AddError::Limit { .. }));
    assert!(matches!(parse_env("A B=1"), Err(AddError::Variable(_))));
    assert!(matches!(parse_env("A=\0"), Err(AddError::Value(_))));
}

/// A directory of the test's own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("toolcell-policy-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    fn library(&self) -> Library {
        let uid = fs::metadata(&self.0).unwrap().uid();
        Library::new(uid, Some(&self.0.join("toolcell.toml")), Some(&self.0.join("user")))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn own_profiles_are_found_in_three_places() {
    let scratch = Scratch::new("find");
    scratch.file("toolcell.toml", "[servers.a]\ncommand = [\"a\"]\nprofile = \"beside\"\n");
    scratch.file("beside.toml", "extends = \"in-profiles\"");
    scratch.file("profiles/in-profiles.toml", "extends = \"of-user\"");
    scratch.file("user/of-user.toml", "extends = \"default\"\n[filesystem]\nread = [\"{config}/data\"]");
    let library = scratch.library();
    let policy = library.load("beside", world(), &known, &Additions::default()).unwrap();
    let real = fs::canonicalize(&scratch.0).unwrap();
    assert_eq!(policy.filesystem.read.last().unwrap().path, real.join("user/data"));
    assert_eq!(library.config().unwrap().server("a").unwrap().profile_for(None), "beside");
    let file = scratch.0.join("beside.toml");
    let by_file = library.load(file.to_str().unwrap(), world(), &known, &Additions::default()).unwrap();
    assert_eq!(by_file, policy);
    let names: Vec<String> = library.list(world(), &known).into_iter().map(|listed| listed.name).collect();
    assert_eq!(names[BUILT_IN.len()..], ["in-profiles", "of-user"]);
    assert!(matches!(library.find("toolcell"), Err(FilesError::NoProfile { .. })));
    let error = library.find("besid").unwrap_err();
    assert_eq!(error.hint().unwrap(), "did you mean `beside`?");
    assert!(matches!(library.find("../beside"), Err(FilesError::NoProfile { .. })));
}

#[test]
fn a_profile_of_ones_own_takes_no_other_ones_place() {
    let scratch = Scratch::new("shadow");
    scratch.file("toolcell.toml", "");
    scratch.file("profiles/node.toml", "");
    scratch.file("profiles/mine.toml", "");
    scratch.file("user/mine.toml", "");
    scratch.file("user/child.toml", "extends = \"node\"");
    let library = scratch.library();
    assert!(matches!(library.find("node"), Err(FilesError::Shadows(_))));
    assert!(matches!(library.find("mine"), Err(FilesError::Twice { .. })));
    let child = library.load("child", world(), &known, &Additions::default());
    assert!(matches!(child, Err(FilesError::Shadows(_))));
    let file = scratch.0.join("profiles/node.toml");
    assert!(matches!(library.file(&file), Err(FilesError::Shadows(_))));
}

#[test]
fn a_file_that_others_can_change_is_refused() {
    let scratch = Scratch::new("unsafe");
    let path = scratch.file("user/mine.toml", "");
    let library = scratch.library();
    library.find("mine").unwrap();
    let file = path.display();
    for (mode, to_whom) in [(0o664, "g"), (0o646, "o"), (0o666, "go")] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = library.find("mine").unwrap_err();
        assert_eq!(error.to_string(), format!("`{file}` can be changed by others: its mode is {mode:04o}"));
        assert_eq!(error.hint().unwrap(), format!("chmod {to_whom}-w '{file}'"));
    }
    // What a umask of 0002 makes: one command mends both.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    let user = scratch.0.join("user");
    fs::set_permissions(&user, fs::Permissions::from_mode(0o775)).unwrap();
    let hint = library.find("mine").unwrap_err().hint().unwrap();
    assert_eq!(hint, format!("chmod g-w '{file}' '{}'", user.display()));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(scratch.0.join("user"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(library.find("mine"), Err(FilesError::Unsafe { .. })));
    fs::set_permissions(scratch.0.join("user"), fs::Permissions::from_mode(0o755)).unwrap();
    let owner = fs::metadata(&path).unwrap().uid();
    let other = Library::new(owner + 1, None, Some(&scratch.0.join("user")));
    assert_eq!(other.find("mine").is_err(), owner != 0, "files of root are trusted, those of others are not");
    assert!(matches!(library.file(Path::new("/dev/null.toml")), Err(FilesError::Read { .. })));
    assert!(matches!(library.file(&scratch.0), Err(FilesError::Misnamed(_))));
    fs::create_dir(scratch.0.join("user/dir.toml")).unwrap();
    assert!(matches!(library.find("dir"), Err(FilesError::Read { .. })));
}

#[test]
fn no_tool_can_write_its_own_policy() {
    let scratch = Scratch::new("own");
    scratch.file("ws/toolcell.toml", "");
    scratch.file("ws/out/keep", "");
    scratch.file("ws/conf/deep.toml", "[filesystem]\nwrite = [\"{workspace}/out\"]");
    let ws = scratch.0.join("ws");
    std::os::unix::fs::symlink(&ws, scratch.0.join("link")).unwrap();
    let uid = fs::metadata(&ws).unwrap().uid();
    let library = Library::new(uid, Some(&ws.join("toolcell.toml")), None);
    let link = scratch.0.join("link");
    let load = |profile: &str, workspace: &Path, write: Option<PathBuf>| {
        let world = World { home: None, workspace };
        let additions = Additions { write: write.into_iter().collect(), ..Additions::default() };
        library.load(profile, world, &known, &additions)
    };
    for workspace in [&ws, &link] {
        let error = load("workspace", workspace, None).unwrap_err();
        assert!(matches!(error, FilesError::OwnPolicy { .. }), "{error}");
        assert!(error.hint().unwrap().contains("ws/toolcell.toml\"]"), "{error:?}");
    }
    load("offline", &ws, None).unwrap();
    load("default", &ws, Some(ws.join("out"))).unwrap();
    let deep = ws.join("conf/deep.toml");
    load(deep.to_str().unwrap(), &ws, None).unwrap();
    let error = load(deep.to_str().unwrap(), &ws, Some(ws.join("conf"))).unwrap_err();
    assert!(matches!(error, FilesError::OwnPolicy { .. }), "{error}");
    let hidden = scratch.file(
        "else/hidden.toml",
        "[filesystem]\nwrite = [\"{workspace}\"]\ndeny = [\"{workspace}/toolcell.toml\"]",
    );
    load(hidden.to_str().unwrap(), &ws, None).unwrap();
    // The hashes of tokens are not a tool's to write either.
    scratch.file("ws/tokens.toml", "");
    let error = load(hidden.to_str().unwrap(), &ws, None).unwrap_err();
    assert!(matches!(error, FilesError::OwnPolicy { .. }), "{error}");
    assert!(!library.names().contains("tokens"));
}

fn rule() -> impl Strategy<Value = PathRule> {
    ("(/[a-z{}\" ]{1,6}){1,3}", "[ -~]{0,12}", any::<bool>()).prop_map(|(path, why, optional)| PathRule {
        path: Path::new("/data").join(path.trim_start_matches('/')),
        why,
        origin: "profile `mine`".to_owned(),
        optional,
    })
}

fn rules() -> impl Strategy<Value = Vec<PathRule>> {
    prop::collection::vec(rule(), 0..4).prop_map(|mut rules| {
        let mut seen = BTreeSet::new();
        rules.retain(|rule| seen.insert(rule.path.clone()));
        rules
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let amounts = limits::ALL.map(|limit| {
        // Time is written to the millisecond.
        let step = if limit == Limit::Time { 1000 } else { 1 };
        let bounds = limits::bounds(limit);
        (bounds.start() / step..=bounds.end() / step).prop_map(move |n| n * step).boxed()
    });
    let amounts = amounts.into_iter().collect::<Vec<_>>();
    let variables =
        prop::collection::btree_map("[A-M][A-Z0-9_]{0,4}", "\\PC{0,8}|[\\\\\"\n\t\u{1b}{}]{0,4}", 0..4);
    let pass = prop::collection::btree_set("[N-Z][A-Z0-9_]{0,4}", 0..3);
    let redact = prop::collection::btree_set("(/[a-z]{1,3}(~0|~1)?){0,2}", 0..3);
    let description = "[ -~äöü]{0,20}";
    (rules(), rules(), rules(), amounts, variables, pass, redact, description, 0_usize..3, any::<bool>())
        .prop_map(
            |(read, write, execute, amounts, set, pass, redact, description, floor, scratch_execute)| {
                let mut policy = Policy::nothing("mine");
                policy.description = description;
                let files = &mut policy.filesystem;
                (files.read, files.write, files.execute) = (read, write, execute);
                (files.scratch_execute, files.writes) = (scratch_execute, Writes::ALL[floor]);
                for (limit, amount) in limits::ALL.into_iter().zip(amounts) {
                    policy.set_limit(limit, amount).unwrap();
                }
                policy.environment.set = set;
                policy.environment.pass = pass.into_iter().collect();
                policy.audit.redact = redact.into_iter().collect();
                policy.syscalls.allow = vec!["ptrace".to_owned()];
                policy.floor = Floor::ALL[floor];
                policy.observe = Observe::ALL[floor % 2];
                policy
            },
        )
}

proptest! {
    #[test]
    fn what_is_shown_resolves_to_the_same_policy(policy in policy()) {
        let text = to_toml(&policy);
        let read = resolved("mine", &[("mine", &text)]);
        prop_assert_eq!(read.map_err(|error| format!("{text}\n{error}")), Ok(policy));
    }

    #[test]
    fn no_text_stops_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        if let Err(error) = resolved("mine", &[("mine", &text)]) {
            prop_assert!(error.to_string().lines().count() >= 4);
        }
    }

    #[test]
    fn no_toml_stops_the_reader(
        lines in prop::collection::vec(
            ("\\[?\\[?(filesystem|limits|syscalls|environment|servers\\.x|audit)?\\]?\\]?",
             "(read|set\\.A|memory|extends|floor|allow|redact|command|\"\")",
             "(= )?(\"[a-z{}/\\\\\"]{0,4}\"|-?[0-9x_.e]{0,3}|\\[[a-z\",{}= ]{0,6}\\]?|\\{ ?path ?= ?[\"a-z/]{0,4}\\}?)"),
            0..6,
        )
    ) {
        let text: String = lines.iter().map(|(section, key, value)| format!("{section}\n{key} {value}\n")).collect();
        drop(resolved("mine", &[("mine", &text)]));
        drop(config::parse(&source("config", &text), &BTreeSet::new()));
    }
}
