//! What to type so that toolcell may make cgroups: depends on the kind of hierarchy, the init system and the user. Pure.
//!
//! Neighbours: `host::cgroups` finds what is missing, `probe::causes` asks when a launch fails at it. Never: looks at
//! the host.

use std::path::{Path, PathBuf};

use super::probe::Failed;
use super::probe::causes::Explanation;
use super::probe::clues::Clues;

/// What keeps cgroups from being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// No hierarchy has the controllers.
    NoHierarchy,
    /// The hierarchies are mounted read-only.
    ReadOnly,
    /// v1: these directories, one a controller, belong to others.
    V1(Vec<PathBuf>),
    /// v2: the process's own cgroup is not its to arrange.
    V2,
    /// v2: its own cgroup was not given every controller.
    V2Controllers,
    /// v2: others live in its own cgroup.
    V2Busy,
    /// v2: the user's systemd was asked for a scope.
    Scope,
}

const FEWER: &str =
    "or accept fewer limits with `--floor no-cgroup`, or with `floor = \"no-cgroup\"` in the profile";

/// The sentence and the commands.
pub(super) fn remedy(obstacle: &Obstacle, clues: &Clues) -> String {
    let (first, commands) = match obstacle {
        Obstacle::NoHierarchy => (
            "mount the cgroup file system first",
            vec!["sudo mount -t cgroup2 none /sys/fs/cgroup".to_owned()],
        ),
        Obstacle::ReadOnly => match clues.container.as_deref() {
            Some("Docker") => (
                "run toolcell outside the container, or give the container cgroups of its own",
                vec!["docker run --privileged --cgroupns=private …".to_owned()],
            ),
            Some(_) => (
                "run toolcell outside the container, or give the container a writable /sys/fs/cgroup",
                vec![],
            ),
            None => ("make it writable", vec!["sudo mount -o remount,rw /sys/fs/cgroup".to_owned()]),
        },
        Obstacle::V1(directories) => (
            "let an administrator make directories of your own and move this shell into them, once a shell",
            vec![v1_commands(directories, clues.uid)],
        ),
        Obstacle::V2 | Obstacle::V2Controllers | Obstacle::V2Busy | Obstacle::Scope if clues.systemd => {
            with_systemd(obstacle, clues)
        }
        Obstacle::V2Controllers if clues.uid == 0 => (
            "enable the controllers",
            vec!["echo '+memory +pids +cpu' > /sys/fs/cgroup/cgroup.subtree_control".to_owned()],
        ),
        Obstacle::V2 | Obstacle::V2Controllers | Obstacle::V2Busy | Obstacle::Scope => (
            "let an administrator make a cgroup of your own and move this shell into it, once a shell",
            vec![v2_commands(clues.uid)],
        ),
    };
    let commands: String = commands.iter().map(|command| format!("\n  {command}")).collect();
    format!("{first}:{commands}\n{FEWER}").replace(":\nor", ",\nor")
}

fn with_systemd(obstacle: &Obstacle, clues: &Clues) -> (&'static str, Vec<String>) {
    if clues.uid == 0 {
        let command = "systemd-run --scope -p Delegate=yes -- toolcell …";
        return ("start toolcell in a scope of its own", vec![command.to_owned()]);
    }
    // A user who is still to be named will have one with his session.
    let manager = clues.user_manager || clues.uid == NOBODY;
    match obstacle {
        // systemd before 252 delegates memory and pids only.
        Obstacle::V2Controllers if manager => (
            "let systemd delegate all three controllers, and log in again",
            vec![
                "sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu memory pids\\n' | \
                 sudo tee /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload"
                    .to_owned(),
            ],
        ),
        Obstacle::Scope => (
            "look whether systemd gives others a scope, and why not",
            vec![
                "systemd-run --user --scope -p Delegate=yes -- true".to_owned(),
                "journalctl --user -n 20".to_owned(),
            ],
        ),
        _ if manager => (
            "start toolcell in a scope of its own",
            vec!["systemd-run --user --scope -p Delegate=yes -- toolcell …".to_owned()],
        ),
        _ => (
            "this user has no systemd manager running, which toolcell would ask for a scope; start one",
            vec![format!("sudo loginctl enable-linger {}", owner(clues.uid))],
        ),
    }
}

/// Nobody is no user; he only stands for one who is still to be named.
pub(super) const NOBODY: u32 = 65_534;

/// The user as chown(1) takes him.
fn owner(uid: u32) -> String {
    if uid == NOBODY { "USER".to_owned() } else { uid.to_string() }
}

/// `$$` is the caller's shell: the outer one expands it and hands it over as `$0`.
fn v1_commands(directories: &[PathBuf], uid: u32) -> String {
    let mut list: Vec<String> = directories.iter().map(|path| quoted(path)).collect();
    list.dedup();
    let owner = owner(uid);
    let name = format!("toolcell-user-{owner}");
    format!(
        "sudo sh -c 'for d in {}; do mkdir -p $d/{name} && chown {owner} $d/{name} $d/{name}/cgroup.procs && \
         echo $0 > $d/{name}/cgroup.procs; done' $$",
        list.join(" ")
    )
}

/// The shell goes into a leaf, because a cgroup that gives controllers to its children holds no process.
fn v2_commands(uid: u32) -> String {
    let owner = owner(uid);
    let name = format!("toolcell-user-{owner}");
    format!(
        "sudo sh -c 'cd /sys/fs/cgroup && echo \"+memory +pids +cpu\" > cgroup.subtree_control && mkdir -p {name}/shell && \
         echo \"+memory +pids +cpu\" > {name}/cgroup.subtree_control && chown {owner} {name} {name}/cgroup.procs \
         {name}/shell/cgroup.procs && echo $0 > {name}/shell/cgroup.procs' $$"
    )
}

/// A path inside a single-quoted script: mount points have plain names, others are shown between double quotes.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-,@:".contains(c));
    if plain { text.into_owned() } else { format!("\"{text}\"") }
}

/// The making or joining of a cell's cgroup failed although the directory looked usable.
pub(super) fn at_launch(failed: &Failed, clues: &Clues) -> Explanation {
    let (cause, obstacle) = match failed.errno.0 {
        libc::EBUSY => (
            "other processes live in this cgroup, so it cannot give controllers to children",
            Obstacle::V2Busy,
        ),
        libc::EROFS => ("the cgroup file system is mounted read-only here", Obstacle::ReadOnly),
        _ => ("this cgroup is not this user's to arrange", Obstacle::V2),
    };
    Explanation { cause: cause.to_owned(), fix: remedy(&obstacle, clues) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_v1_every_hierarchy_gets_a_directory_once() {
        let clues = Clues { uid: 1000, ..Clues::default() };
        let paths = ["/c/memory", "/c/pids", "/c/cpu,cpuacct"].map(PathBuf::from);
        let text = remedy(&Obstacle::V1(paths.to_vec()), &clues);
        assert!(
            text.contains("for d in /c/memory /c/pids /c/cpu,cpuacct; do mkdir -p $d/toolcell-user-1000"),
            "{text}"
        );
        let one = remedy(&Obstacle::V1(vec![PathBuf::from("/c/a"), PathBuf::from("/c/a")]), &clues);
        assert!(one.contains("for d in /c/a; do"), "{one}");
        assert!(text.ends_with("\nor accept fewer limits with `--floor no-cgroup`, or with `floor = \"no-cgroup\"` in the profile"));
    }

    #[test]
    fn systemd_is_asked_only_where_it_runs() {
        let user = Clues { uid: 1000, systemd: true, user_manager: true, ..Clues::default() };
        assert!(remedy(&Obstacle::V2, &user).contains("\n  systemd-run --user --scope"));
        let root = Clues { uid: 0, ..user.clone() };
        assert!(remedy(&Obstacle::V2Busy, &root).contains("\n  systemd-run --scope"));
        let alone = Clues { user_manager: false, ..user.clone() };
        assert!(remedy(&Obstacle::V2, &alone).contains("loginctl enable-linger 1000"));
        assert!(
            remedy(&Obstacle::Scope, &user)
                .contains("\n  systemd-run --user --scope -p Delegate=yes -- true")
        );
        assert!(remedy(&Obstacle::V2Controllers, &user).contains("delegate.conf"));
        let without = Clues { systemd: false, ..user };
        assert!(!remedy(&Obstacle::V2, &without).contains("systemd"));
    }

    #[test]
    fn a_container_is_not_told_to_remount() {
        let clues = Clues { container: Some("Docker".to_owned()), ..Clues::default() };
        assert!(remedy(&Obstacle::ReadOnly, &clues).contains("docker run"));
        let podman = Clues { container: Some("Podman".to_owned()), ..Clues::default() };
        assert_eq!(
            remedy(&Obstacle::ReadOnly, &podman),
            "run toolcell outside the container, or give the container a writable /sys/fs/cgroup,\n\
             or accept fewer limits with `--floor no-cgroup`, or with `floor = \"no-cgroup\"` in the profile"
        );
    }
}
