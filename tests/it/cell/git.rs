//! Real git at ordinary work under the profile `git-write`, in each form that a work tree has, and what stays refused to it.
//!
//! Neighbours: `traps` has the same names without git; `integration/test_work.py` has other programs. Never: reaches the network;
//! uses the settings of the user who runs it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::scene::{Scene, floor, note};

/// What somebody does in a day. It says nothing when all of it works.
const WORK: &str = "\
branch=$(git symbolic-ref --short HEAD)
echo two >> a.txt; git add a.txt; git commit -q -m second
git checkout -q -b topic; echo t > t.txt; git add t.txt; git commit -q -m topic
git checkout -q $branch; echo m > m.txt; git add m.txt; git commit -q -m third
git merge -q --no-edit topic
git checkout -q -b other HEAD~1; echo r > r.txt; git add r.txt; git commit -q -m fourth; git rebase -q topic
git checkout -q $branch; git mv a.txt b.txt; git stash -q; git stash pop -q --index; git commit -q -m fifth
git tag v1; git gc -q; git fsck --no-progress --no-dangling; git status --porcelain";

/// What a tool must not get done, one a line, where `$G` is what git keeps for the work tree and `$C` what all trees share.
const TRAPS: &[&str] = &[
    "git config core.fsmonitor /tmp/x",
    "git config --worktree core.fsmonitor /tmp/x",
    "git config core.hooksPath /tmp",
    "git remote add other /tmp/other",
    "git submodule add /tmp/other other",
    "git worktree add other",
    "echo x >> $C/config",
    "mv $C/config $C/old",
    "rm -f $C/config",
    "echo '#!/bin/sh' > $C/hooks/pre-commit",
    "mv $C/hooks $C/old",
    "echo .. > $C/commondir",
    "echo .. > $G/commondir",
    "test $G != $C && echo /tmp > $G/gitdir",
    "test $G != $C && echo /tmp > own && mv -T own $G/gitdir",
    "ln -s /tmp/x $G/config.worktree",
    "mkdir $C/worktrees/more",
    "mkdir $C/modules/more",
    "mv .git other",
    "rm -f .git && test ! -e .git",
    "echo 'gitdir: /tmp/x' > .git",
    "echo 'gitdir: /tmp/x' > own && mv -T own .git",
];

fn git(directory: &str, words: &[&str]) -> Output {
    let mut command = Command::new("git");
    command.args(words).current_dir(directory).stdin(Stdio::null());
    for (name, value) in [("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")] {
        command.env(name, value);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {words:?}: {output:?}");
    output
}

/// Is there no git? Then the test says so.
fn missing() -> bool {
    let none = Command::new("git").arg("--version").stdout(Stdio::null()).status().is_err();
    if none {
        note("no git");
    }
    none
}

fn identify(directory: &str) {
    git(directory, &["config", "user.name", "A"]);
    git(directory, &["config", "user.email", "a@b"]);
}

/// A repository with a commit.
fn repository(scene: &Scene, name: &str) -> String {
    let directory = scene.directory(name);
    git(&directory, &["init", "-q", "-b", "main"]);
    identify(&directory);
    fs::write(format!("{directory}/a.txt"), "one\n").unwrap();
    git(&directory, &["add", "."]);
    git(&directory, &["commit", "-q", "-m", "first"]);
    directory
}

/// A script in a cell of this profile, in a work tree.
fn in_cell(scene: &Scene, tree: &str, options: &[String], script: &str) -> Output {
    let mut command = scene.command("exec");
    command.current_dir(tree).env("HOME", scene.path("")).args(floor()).args(["--profile", "git-write"]);
    command.args(options).args(["--", "sh", "-e", "-c", script]).stdin(Stdio::null());
    command.output().unwrap()
}

/// Every name below a directory, and what is in it, with its inode: what is put in a place of another counts too.
fn all(top: &str) -> BTreeMap<String, (u64, String)> {
    let mut found = BTreeMap::new();
    let mut open = vec![Path::new(top).to_owned()];
    while let Some(path) = open.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let content = String::from_utf8_lossy(&content).into_owned();
        found.insert(path.to_str().unwrap().to_owned(), (metadata.ino(), content));
    }
    found
}

/// What the host's git follows or runs in a work tree.
fn protected(tree: &str) -> Vec<BTreeMap<String, (u64, String)>> {
    let asked = git(tree, &["rev-parse", "--absolute-git-dir", "--git-common-dir"]).stdout;
    let asked = String::from_utf8(asked).unwrap();
    let (own, common) = asked.trim_end().split_once('\n').unwrap();
    let common = Path::new(tree).join(common);
    let of = |directory: &Path, names: &[&str]| -> Vec<_> {
        names.iter().map(|name| all(directory.join(name).to_str().unwrap())).collect()
    };
    let mut found = of(&common, &["commondir", "config", "config.worktree", "hooks", "modules"]);
    if Path::new(own) != common {
        found.extend(of(Path::new(own), &["commondir", "gitdir", "config.worktree"]));
    }
    let link = format!("{tree}/.git");
    found.extend(fs::symlink_metadata(&link).unwrap().is_file().then(|| all(&link)));
    found
}

/// All the work can be done in this tree, and nothing of what would be a trap; and the host's git is content with it.
#[track_caller]
fn works(scene: &Scene, tree: &str, options: &[String]) {
    let done = in_cell(scene, tree, options, WORK);
    let said = [&done.stdout[..], &done.stderr].concat();
    assert!(done.status.success() && said.is_empty(), "{tree}: {}", String::from_utf8_lossy(&said));
    let before = protected(tree);
    let mut script =
        "G=$(git rev-parse --absolute-git-dir)\nC=$(cd $(git rev-parse --git-common-dir) && pwd)\n"
            .to_owned();
    for trap in TRAPS {
        script.push_str(&format!(
            "if ({trap}) >/dev/null 2>&1; then echo \"done: {}\"; fi\n",
            trap.replace('$', "")
        ));
    }
    script.push_str("git rev-parse --is-inside-work-tree");
    let tried = in_cell(scene, tree, options, &script);
    assert_eq!(String::from_utf8_lossy(&tried.stdout), "true\n", "{tree}: {tried:?}");
    assert_eq!(protected(tree), before, "{tree}");
    let subjects = git(tree, &["log", "--format=%s", "--no-merges"]).stdout;
    let mut subjects: Vec<_> = std::str::from_utf8(&subjects).unwrap().lines().collect();
    subjects.sort_unstable();
    subjects.retain(|subject| *subject != "sub");
    assert_eq!(subjects, ["fifth", "first", "second", "third", "topic"], "{tree}");
    let check = git(tree, &["fsck", "--no-progress", "--no-dangling"]);
    assert!(check.stdout.is_empty() && check.stderr.is_empty(), "{tree}: {check:?}");
}

fn write(path: &str) -> [String; 2] {
    ["--write".to_owned(), path.to_owned()]
}

/// Without a grant of what lies outside, git says that there is no repository, and nothing is done.
#[track_caller]
fn has_none(scene: &Scene, tree: &str, because: &str) {
    let output = in_cell(scene, tree, &[], "git commit -q --allow-empty -m none");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(because), "{tree}: {said}");
}

#[test]
fn in_a_repository_of_its_own() {
    if missing() {
        return;
    }
    let scene = Scene::new();
    let tree = repository(&scene, "plain");
    works(&scene, &tree, &[]);
    // A branch can go, though what the settings say of it stays.
    let said = in_cell(&scene, &tree, &[], "git branch -q -D topic");
    assert!(said.status.success() && !said.stderr.is_empty(), "{said:?}");
    // A hook is not run: what is granted cannot be executed.
    let hook = scene.file("plain/.git/hooks/pre-commit", 0o755);
    fs::write(&hook, "#!/bin/sh\nexit 1\n").unwrap();
    let said = in_cell(&scene, &tree, &[], "git commit -q --allow-empty -m sixth");
    assert!(
        said.status.success() && String::from_utf8_lossy(&said.stderr).contains("was ignored"),
        "{said:?}"
    );
}

#[test]
fn in_a_work_tree_beside_the_repository() {
    if missing() {
        return;
    }
    let scene = Scene::new();
    let (main, tree) = (repository(&scene, "main"), scene.path("tree"));
    git(&main, &["worktree", "add", "-q", &tree, "-b", "side"]);
    has_none(&scene, &tree, "not a git repository");
    let repository = format!("{main}/.git");
    works(&scene, &tree, &[write(&repository), write(&format!("{repository}/worktrees/tree"))].concat());
    // In the tree that has the repository, what is kept for the other stays, which an end of their logs would change.
    let of_other = all(&format!("{repository}/worktrees"));
    let said =
        in_cell(&scene, &main, &[], "git commit -q --allow-empty -m more; git rebase -q side; git stash -q");
    assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
    for refused in ["git worktree prune", "git gc -q", "git worktree remove --force ../tree"] {
        let said = in_cell(&scene, &main, &[], refused);
        assert!(
            String::from_utf8_lossy(&said.stderr).contains("Read-only file system"),
            "{refused}: {said:?}"
        );
    }
    assert_eq!(all(&format!("{repository}/worktrees")), of_other);
    git(&main, &["gc", "-q"]);
}

#[test]
fn in_a_submodule_and_around_it() {
    if missing() {
        return;
    }
    let scene = Scene::new();
    let (library, top) = (repository(&scene, "library"), repository(&scene, "top"));
    git(&top, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &library, "sub"]);
    git(&top, &["commit", "-q", "-m", "sub"]);
    let (sub, module) = (format!("{top}/sub"), format!("{top}/.git/modules/sub"));
    identify(&sub);
    works(&scene, &top, &[]);
    has_none(&scene, &sub, "not a git repository");
    let inside = in_cell(&scene, &top, &[], "cd sub; echo x >> a.txt; git commit -q -a -m inside");
    assert!(String::from_utf8_lossy(&inside.stderr).contains("Read-only file system"), "{inside:?}");
    git(&sub, &["checkout", "-q", "--", "."]);
    works(&scene, &sub, &write(&module));
    let inside = in_cell(
        &scene,
        &top,
        &write(&module),
        "cd sub; echo x >> b.txt; git commit -q -a -m inside; cd ..; git commit -q -a -m moved",
    );
    assert!(inside.status.success(), "{inside:?}");
}

#[test]
fn in_a_repository_that_borrows_objects() {
    if missing() {
        return;
    }
    let scene = Scene::new();
    let (base, shared) = (repository(&scene, "base"), scene.path("shared"));
    git(&scene.path(""), &["clone", "-q", "-s", &base, &shared]);
    identify(&shared);
    has_none(&scene, &shared, "unable to normalize alternate object path");
    let before = all(&base);
    works(&scene, &shared, &["--read".to_owned(), format!("{base}/.git/objects")]);
    assert_eq!(all(&base), before, "what is borrowed from");
}
