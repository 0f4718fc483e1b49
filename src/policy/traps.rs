//! The names in a writable directory that the host runs or trusts without being asked. A tool may read them and not
//! change or plant them, unless a `write` grant of its own spells the name out.
//!
//! Neighbours: `host::view` looks which of them exist. Never: looks itself.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{Filesystem, PathRule};

/// Where such a rule comes from.
pub const ORIGIN: &str = "protected in every writable directory";

/// One name in a directory.
#[derive(Debug)]
struct Trap {
    name: &'static str,
    /// Who runs or trusts it.
    why: &'static str,
    /// What stands in its place while a cell runs that could make it: a file with this in it, else an empty directory,
    /// which git does not take for a change of the work tree.
    content: Option<&'static str>,
}

/// A name to protect in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protected {
    /// Path and reason.
    pub rule: PathRule,
    /// As a file with this content while it does not exist, else as an empty directory.
    pub content: Option<&'static str>,
}

const fn directory(name: &'static str, why: &'static str) -> Trap {
    Trap { name, why, content: None }
}

const fn file(name: &'static str, why: &'static str, content: &'static str) -> Trap {
    Trap { name, why, content: Some(content) }
}

/// Where a repository lies in a work tree. A directory is protected by [`REPOSITORY`], so that commits go on working.
pub const GIT: &str = ".git";

/// In the granted directory itself. Each one that does not exist costs a directory and a mount for each cell, so the
/// list holds what common programs run on the next ordinary use of the directory, and no more.
const PROJECT: &[Trap] = &[
    directory(GIT, "git runs what a repository's settings name"),
    directory(".github", "workflows are run by the forge"),
    directory(".gitlab-ci.yml", "run by the forge"),
    directory(".mcp.json", "names servers that clients start"),
    directory(".claude", "settings and hooks that a client runs"),
    directory(".cursor", "settings and servers that a client starts"),
    directory(".vscode", "tasks and settings that the editor runs"),
    directory(".idea", "tasks and settings that the editor runs"),
    directory(".envrc", "run by direnv on entering the directory"),
    directory(".npmrc", "tells npm where packages come from and which shell to run"),
    directory(".cargo", "names programs that cargo runs"),
    directory(".husky", "hooks that git is told to run"),
    directory("toolcell.lock", "says what was accepted of servers"),
];

/// In a repository. Git fails on a directory where it looks for a file; with these contents it does what it does without
/// the files (gitrepository-layout(5)).
const REPOSITORY: &[Trap] = &[
    directory("hooks", "run by git on the host"),
    file("config", "names programs that git runs on the host", ""),
    file("config.worktree", "names programs that git runs on the host", ""),
    file("commondir", "tells git where its settings are", ".\n"),
    directory("modules", "settings of submodules name programs that git runs on the host"),
    directory("worktrees", "tells git where the settings of other work trees are"),
];

/// In the directory that a repository keeps for a work tree of its own, below `worktrees`.
const LINKED: &[Trap] = &[
    file("commondir", "tells git where its settings are", "../..\n"),
    file("gitdir", "tells git where the work tree is", ""),
    file("config.worktree", "names programs that git runs on the host", ""),
];

/// In the user's home directory.
const HOME: &[Trap] = &[
    directory(".bashrc", "run by the shell"),
    directory(".bash_profile", "run by the shell"),
    directory(".bash_login", "run by the shell"),
    directory(".profile", "run by the shell"),
    directory(".zshrc", "run by the shell"),
    directory(".zshenv", "run by the shell"),
    directory(".zprofile", "run by the shell"),
    directory(".zlogin", "run by the shell"),
    directory(".zlogout", "run by the shell"),
    directory(".bash_aliases", "run by the shell"),
    directory(".bash_logout", "run by the shell"),
    directory(".pam_environment", "sets the environment of every program of a session"),
    directory(".xprofile", "run by the session"),
    directory(".xsession", "run by the session"),
    directory(".xsessionrc", "run by the session"),
    directory("bin", "programs that the shell finds by their name"),
    directory(
        ".local",
        "programs that the shell finds by their name, units and desktop entries that the session starts",
    ),
    directory(".ssh", "says who may log in, and names programs that ssh runs"),
    directory(".gitconfig", "names programs that git runs"),
    directory(".gnupg", "says whom to trust, and names programs that gpg runs"),
    directory(".aws", "names programs that its clients run for credentials"),
    directory(".kube", "names programs that its clients run for credentials"),
    directory(".docker", "names programs that its clients run for credentials"),
    directory(".config", "settings of programs, units and desktop entries that the session starts"),
    directory(".claude.json", "names servers that a client starts"),
];

fn rules(directory: &Path, traps: &[Trap]) -> Vec<Protected> {
    let protected = |trap: &Trap| Protected {
        rule: PathRule {
            path: directory.join(trap.name),
            why: trap.why.to_owned(),
            origin: ORIGIN.to_owned(),
            optional: true,
        },
        content: trap.content,
    };
    traps.iter().map(protected).collect()
}

fn names(path: &Path, traps: &[Trap]) -> bool {
    path.file_name().is_some_and(|name| traps.iter().any(|trap| name == trap.name))
}

/// The names to protect in a repository's directory.
#[must_use]
pub fn in_repository(directory: &Path) -> Vec<Protected> {
    rules(directory, REPOSITORY)
}

/// The names to protect in what a repository keeps for a work tree of its own.
#[must_use]
pub fn in_linked(directory: &Path) -> Vec<Protected> {
    rules(directory, LINKED)
}

/// The names to protect in a directory that is granted for writing, whatever it is besides.
#[must_use]
pub fn in_grant(grant: &Path, home: Option<&Path>) -> Vec<Protected> {
    let in_git = grant.parent().is_some_and(|parent| parent.ends_with(GIT));
    let in_home = grant.parent().is_some() && grant.parent() == home;
    // A trap that is granted by its name is meant to be written, all of it.
    if names(grant, PROJECT) || in_home && names(grant, HOME) || in_git && names(grant, REPOSITORY) {
        return Vec::new();
    }
    let mut list = rules(grant, PROJECT);
    if let Some(home) = home.filter(|home| home.starts_with(grant)) {
        list.extend(rules(home, HOME));
        if home != grant {
            list.extend(rules(home, PROJECT));
        }
    }
    list
}

/// The first name on a path below a writable directory that the host would run, at whatever depth it lies. `left` are the names
/// below the directory that grants of their own leave to the tool; `has` tells what is a directory on the host. Letters are
/// taken for the same in either case, as some file systems do.
#[must_use]
pub fn on_the_way(
    grant: &Path,
    path: &Path,
    left: &[PathBuf],
    has: &dyn Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let is = |name: &OsStr, known: &str| name.eq_ignore_ascii_case(known);
    let mut in_git = grant.file_name().is_some_and(|name| is(name, GIT));
    let mut above = PathBuf::new();
    let mut names = path.iter().peekable();
    while let Some(name) = names.next() {
        above.push(name);
        let of_git: &[Trap] = if std::mem::take(&mut in_git) { REPOSITORY } else { &[] };
        let trap = PROJECT.iter().chain(of_git).any(|trap| is(name, trap.name));
        // What stands in a repository is protected by itself, whoever grants the repository.
        let repository = is(name, GIT) && names.peek().is_some() && has(&above);
        match left.contains(&above) {
            _ if repository => in_git = true,
            true => return None,
            false if trap => return Some(above),
            false => {}
        }
    }
    None
}

/// Can the tool write at this path, and does no `write` grant or `deny` name it?
#[must_use]
pub fn applies(filesystem: &Filesystem, path: &Path) -> bool {
    let depth = |rules: &[PathRule]| {
        let above = rules.iter().filter(|rule| path != rule.path && path.starts_with(&rule.path));
        above.map(|rule| rule.path.components().count()).max().unwrap_or(0)
    };
    let write = depth(&filesystem.write);
    let narrower = depth(&filesystem.read).max(depth(&filesystem.execute));
    let spelled_out = filesystem.write.iter().any(|rule| path == rule.path);
    let denied = filesystem.deny.iter().any(|deny| !deny.optional && path.starts_with(&deny.path));
    write > 0 && write >= narrower && !spelled_out && !denied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_home_is_left_to_a_tool_in_a_home_alone() {
        let home = Path::new("/h");
        let count = |grant: &str| in_grant(Path::new(grant), Some(home)).len();
        let (project, whole) = (PROJECT.len(), PROJECT.len() + HOME.len());
        assert_eq!((count("/h"), count("/"), count("/h/p")), (whole, whole + project, project));
        assert_eq!((count("/h/bin"), count("/h/.local")), (0, 0));
        assert_eq!((count("/h/p/bin"), count("/p/.docker"), count("/h/p/.ssh")), (project, project, project));
        assert_eq!((count("/h/p/.vscode"), in_grant(Path::new("/"), None).len()), (0, project));
    }

    #[test]
    fn a_trap_is_found_at_any_depth_but_where_it_is_left_to_the_tool() {
        let left = [PathBuf::from("a/.vscode"), PathBuf::from(".git"), PathBuf::from("a/.git/hooks")];
        let has = |path: &Path| path.ends_with(".git");
        let found = |grant: &str, path: &str| on_the_way(Path::new(grant), Path::new(path), &left, &has);
        for (path, trap) in [
            ("src/main.rs", None),
            (".vscode/tasks.json", Some(".vscode")),
            ("a/b/.MCP.json", Some("a/b/.MCP.json")),
            ("a/.vscode/tasks.json", None),
            ("a/.vscode/.cursor/x", None),
            ("b/.git", Some("b/.git")),
            ("b/.git/index", None),
            ("b/.git/hooks/pre-commit", Some("b/.git/hooks")),
            ("b/.git/objects/hooks/x", None),
            (".git/hooks/x", Some(".git/hooks")),
            (".git", None),
            ("a/.git/hooks/x", None),
        ] {
            assert_eq!(found("/w", path), trap.map(PathBuf::from), "{path}");
        }
        assert_eq!(found("/w/.git", "config"), Some("config".into()));
        assert_eq!(found("/w/.git", "refs/heads/config"), None);
        let planted = on_the_way(Path::new("/w"), Path::new("a/.git/index"), &[], &|_| false);
        assert_eq!(planted, Some("a/.git".into()), "a repository that the host does not have");
    }
}
