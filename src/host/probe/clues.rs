//! What on this host can explain a refusal: sysctls, security modules, containers, foreign kernels. They explain
//! what a probe has found; they never decide.
//!
//! Neighbours: `probe::causes` and `host::delegation` name causes with them. Never: fails; what cannot be read is no clue.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::host::cgroups::NEEDED;
use crate::sys::{filter, identity};

/// A kernel that gives what Linux gives only in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// A program that answers system calls.
    Gvisor,
    /// Windows that answers system calls.
    Wsl1,
    /// Linux, built by Microsoft for its virtual machine.
    Wsl2,
}

/// All clues of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clues {
    /// Effective user id.
    pub uid: u32,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu).
    pub apparmor_restrict: Option<u64>,
    /// The `AppArmor` profile that confines this process, if one does.
    pub apparmor_profile: Option<String>,
    /// `kernel.unprivileged_userns_clone` (Debian).
    pub userns_clone: Option<u64>,
    /// `user.max_user_namespaces`
    pub max_user_namespaces: Option<u64>,
    /// The active security modules, comma-separated; unknown without securityfs.
    pub lsm: Option<String>,
    /// A filter was inherited (`Seccomp_filters` in `/proc/self/status` are more than this program's own).
    pub filtered: bool,
    /// Root without `CAP_SYS_ADMIN`, as containers have it (`CapEff` in `/proc/self/status`).
    pub powerless: bool,
    /// The kind of container, if there are signs of one.
    pub container: Option<String>,
    /// Something is mounted over parts of `/proc`, or it is read-only.
    pub proc_masked: bool,
    /// The kernel is one that is not Linux itself, or not a distribution's.
    pub foreign: Option<Foreign>,
    /// Type of the file system of `/`.
    pub root: Option<String>,
    /// systemd is the host's init.
    pub systemd: bool,
    /// This user has a systemd manager of his own running.
    pub user_manager: bool,
    /// That manager was not given all three controllers, as by systemd before 252.
    pub undelegated: bool,
    /// This program.
    pub program: PathBuf,
}

impl Clues {
    /// As they were when this process first asked: one that confines itself asks before.
    pub fn of_process() -> &'static Self {
        static KEPT: OnceLock<Clues> = OnceLock::new();
        KEPT.get_or_init(Self::read)
    }

    /// Reads them.
    #[must_use]
    pub fn read() -> Self {
        let (uid, _) = identity::effective();
        let text = |path: &str| {
            fs::read_to_string(path).ok().map(|text| text.trim_end_matches(['\n', '\0']).to_owned())
        };
        let number = |path: &str| text(path).and_then(|text| text.trim().parse().ok());
        let exists = |path: &str| Path::new(path).exists();
        let profile =
            text("/proc/self/attr/apparmor/current").filter(|profile| !profile.starts_with("unconfined"));
        let version = text("/proc/version").unwrap_or_default();
        let mounts = text("/proc/self/mountinfo").unwrap_or_default();
        let status = text("/proc/self/status").unwrap_or_default();
        Self {
            uid,
            apparmor_restrict: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            apparmor_profile: profile.filter(|profile| !profile.is_empty()),
            userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            lsm: text("/sys/kernel/security/lsm"),
            filtered: status
                .lines()
                .find_map(|line| line.strip_prefix("Seccomp_filters:")?.trim().parse().ok())
                .is_some_and(|filters: u32| filters > filter::own()),
            powerless: uid == 0
                && status.lines().find_map(capabilities).is_some_and(|held| held & SYS_ADMIN == 0),
            container: container(&exists),
            proc_masked: masked(&mounts),
            foreign: foreign(&version),
            root: root(&mounts),
            systemd: exists("/run/systemd/system"),
            user_manager: exists(&format!("/run/user/{uid}/systemd/private"))
                || exists(&format!("/run/user/{uid}/bus")),
            undelegated: text(&format!(
                "/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers"
            ))
            .is_some_and(|list| {
                NEEDED.iter().any(|needed| list.split_whitespace().all(|have| have != *needed))
            }),
            program: std::env::current_exe().unwrap_or_else(|_unknown| PathBuf::from("toolcell")),
        }
    }
}

/// Bit 21 (`linux/capability.h`).
const SYS_ADMIN: u64 = 1 << 21;

fn capabilities(line: &str) -> Option<u64> {
    u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok()
}

fn container(exists: &dyn Fn(&str) -> bool) -> Option<String> {
    let signs = [
        ("/.dockerenv", "Docker"),
        ("/run/.containerenv", "Podman"),
        ("/run/systemd/container", "systemd-nspawn or LXC"),
    ];
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Some("Kubernetes".to_owned());
    }
    signs.iter().find(|(path, _)| exists(path)).map(|(_, name)| (*name).to_owned())
}

/// gVisor tells of itself by the date that it gives as the kernel's, whatever version it claims; those of Microsoft by their
/// names.
fn foreign(version: &str) -> Option<Foreign> {
    let lower = version.to_ascii_lowercase();
    if lower.contains("gvisor") || version.contains("#1 SMP Sun Jan 10 15:06:54 PST 2016") {
        return Some(Foreign::Gvisor);
    }
    if lower.contains("wsl2") {
        return Some(Foreign::Wsl2);
    }
    lower.contains("microsoft").then_some(Foreign::Wsl1)
}

/// The last mount at `/` is the one that is seen.
fn root(mountinfo: &str) -> Option<String> {
    let at_root = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/"))?;
    at_root.split_once(" - ")?.1.split(' ').next().map(str::to_owned)
}

/// Anything mounted at a path of `/proc`, but for what hosts themselves put there.
fn masked(mountinfo: &str) -> bool {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).any(|target| {
        target.strip_prefix("/proc/").is_some_and(|rest| !rest.starts_with("sys/fs/binfmt_misc"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_masks_proc_and_a_host_does_not() {
        let host = "22 1 0:5 / /proc rw - proc proc rw\n30 22 0:6 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n";
        assert!(!masked(host));
        assert!(masked(&format!("{host}40 22 0:7 / /proc/kcore rw - tmpfs tmpfs rw\n")));
    }

    #[test]
    fn foreign_kernels_are_known_by_their_own_words() {
        for (version, expected) in [
            ("Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016", Some(Foreign::Gvisor)),
            ("Linux version 4.19.0-gvisor #1 SMP Sun Jan 10 15:06:54 PST 2016", Some(Foreign::Gvisor)),
            ("Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com) #1237", Some(Foreign::Wsl1)),
            ("Linux version 5.15.90.1-microsoft-standard-WSL2 (oe-user@oe-host) #1 SMP", Some(Foreign::Wsl2)),
            ("Linux version 6.12.1 (debian)", None),
        ] {
            assert_eq!(foreign(version), expected, "{version}");
        }
    }

    #[test]
    fn the_root_is_what_was_mounted_there_last() {
        let shared = "22 1 0:5 / / rw - rootfs rootfs rw\n23 22 0:6 / /proc rw - proc proc rw\n\
             24 22 0:7 / / rw,relatime shared:1 - 9p host rw,trans=virtio\n";
        assert_eq!(root(shared).as_deref(), Some("9p"));
        assert_eq!(root(""), None);
    }
}
