//! Names the cause of a failed probe and what to type, from the call, its errno and the clues. Pure.
//!
//! Neighbours: `host::probe` explains its findings with it, commands the step of a launch that failed. Never: looks
//! at the host; claims a cause that no clue supports.

use libc::{EACCES, EINVAL, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM, EUSERS};

use super::clues::{Clues, Foreign};
use super::{Failed, Part, repairs};
use crate::host::delegation;
use crate::launch::LaunchError;

/// Why something is missing, and what to do about it: a sentence, and commands on lines of their own, indented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Why.
    pub cause: String,
    /// What to type.
    pub fix: String,
}

impl Explanation {
    /// Both, as a hint.
    #[must_use]
    pub fn sentence(&self) -> String {
        format!("{}; {}", self.cause, self.fix)
    }
}

fn explanation(cause: impl Into<String>, fix: impl Into<String>) -> Explanation {
    Explanation { cause: cause.into(), fix: fix.into() }
}

/// Explains a part that could not be had.
#[must_use]
pub fn explain(part: Part, failed: &Failed, clues: &Clues) -> Explanation {
    if let Some(foreign) = clues.foreign.and_then(|kernel| of_kernel(kernel, failed.errno.0)) {
        return foreign;
    }
    if clues.powerless && failed.errno.0 == EPERM && !matches!(part, Part::Landlock | Part::Seccomp) {
        return powerless(clues);
    }
    match part {
        Part::Landlock => landlock(failed, clues),
        Part::Seccomp => seccomp(failed, clues),
        Part::Cgroup => delegation::at_launch(failed, clues),
        Part::PidNamespace if matches!(failed.call.as_str(), "fsmount" | "fsconfig" | "mount-proc") => {
            proc(clues)
        }
        Part::IdmappedMounts if matches!(failed.errno.0, EINVAL | EPERM) => idmapped(clues),
        Part::Overlay if matches!(failed.errno.0, EINVAL | libc::ENODEV) => explanation(
            "this kernel makes no overlay for this user: it is older than Linux 5.11 (as root 5.19), has none (CONFIG_OVERLAY_FS, \
             or the module `overlay` that is not loaded), or not over this file system",
            "as root: `modprobe overlay`; a profile whose `writes` is `direct` needs none",
        ),
        Part::OverlayRemovals if failed.errno.0 == libc::EIO => explanation(
            "what an ordinary user's overlay notes of a directory are attributes of the user's, which tmpfs keeps from Linux 6.6 on",
            "run Linux 6.6 or newer; as root it works, and so does a profile whose `writes` is `direct`",
        ),
        Part::UserNamespace
        | Part::Overlay
        | Part::OverlayRemovals
        | Part::MountNamespace
        | Part::IdmappedMounts
        | Part::PidNamespace
        | Part::NetNamespace
        | Part::Doors
        | Part::OtherNamespaces
        | Part::Capabilities => namespaces(failed, clues),
        Part::Openat2 | Part::CloseRange | Part::Pidfd => missing_call(failed, clues),
    }
}

/// What to do about a failed step of a launch.
#[must_use]
pub(super) fn hint(error: &LaunchError, clues: &Clues) -> Option<String> {
    let explained = explain_launch(error, clues).map(|explanation| explanation.sentence());
    explained.or_else(|| error.hint())
}

/// Explains a failed step of a launch, where it is the host that refuses, and a clue says why.
#[must_use]
pub fn explain_launch(error: &LaunchError, clues: &Clues) -> Option<Explanation> {
    let part = Part::of_step(&error.step)?;
    let errno = error.errno.0;
    let host_refuses = match part {
        Part::Cgroup => matches!(errno, EPERM | EACCES | libc::EBUSY | libc::EROFS),
        // `EACCES` is a path's, which the step's own hint is about.
        Part::Landlock => matches!(errno, EPERM | ENOSYS | EOPNOTSUPP),
        Part::UserNamespace => {
            matches!(errno, EPERM | EACCES | ENOSYS | ENOSPC | EUSERS | EOPNOTSUPP | libc::EROFS)
        }
        _ => matches!(errno, EPERM | EACCES | ENOSYS | EOPNOTSUPP),
    };
    let explained =
        host_refuses.then(|| explain(part, &Failed::new(&error.step, &error.object, error.errno), clues));
    // Where none does, the user namespace's causes were looked for all the same, and are not to be named.
    let own = !matches!(part, Part::UserNamespace | Part::MountNamespace) && error.hint().is_some();
    explained.filter(|explained| explained.cause != UNKNOWN || !own)
}

/// No clue fits.
const UNKNOWN: &str =
    "not known: no sysctl, AppArmor profile, container or filter was found that explains it";

/// What a kernel that is not Linux itself does not have, whatever it answers; and Linux built without something.
fn of_kernel(kernel: Foreign, errno: i32) -> Option<Explanation> {
    let lacks = matches!(errno, ENOSYS | EINVAL | EOPNOTSUPP | libc::ENODEV | libc::ENOENT);
    match kernel {
        Foreign::Gvisor if lacks || errno == EPERM => Some(explanation(
            "the kernel here is gVisor, a program that answers system calls, and it has not all of this",
            "run toolcell outside of gVisor, e.g. in a container of the runtime `runc` or in a virtual machine",
        )),
        Foreign::Wsl1 if lacks || errno == EPERM => Some(explanation(
            "the kernel here is WSL 1, by which Windows answers system calls, and it has not all of this",
            "let WSL 2 run this distribution, in a shell of Windows:\n  wsl --set-version DISTRIBUTION 2",
        )),
        Foreign::Wsl2 if matches!(errno, ENOSYS | EOPNOTSUPP) => Some(explanation(
            "the kernel of WSL 2 is older than this, or built without it",
            "take its newest kernel, in a shell of Windows:\n  wsl --update",
        )),
        Foreign::Gvisor | Foreign::Wsl1 | Foreign::Wsl2 => None,
    }
}

/// Shared folders of virtual machines and networks have their owners elsewhere.
fn idmapped(clues: &Clues) -> Explanation {
    let fix = "run toolcell as the user who owns the data, or keep the data on ext4, xfs or btrfs";
    match clues.root.as_deref() {
        Some(kind @ ("9p" | "virtiofs" | "fuse" | "fuseblk" | "nfs" | "nfs4" | "cifs" | "overlay")) => {
            explanation(format!("`/` is on {kind}, which cannot map file owners here (idmapped mounts)"), fix)
        }
        _ => explanation("this file system cannot map file owners (idmapped mounts)", fix),
    }
}

/// What an ordinary user may there, this one may not: his cells are made with privileges that he was not given.
fn powerless(clues: &Clues) -> Explanation {
    let fix = match clues.container.as_deref() {
        Some("Docker") => {
            "run toolcell as an ordinary user there:\n  docker run --user 1000 --security-opt seccomp=unconfined \
             --security-opt apparmor=unconfined --security-opt systempaths=unconfined …"
        }
        _ => "run toolcell as an ordinary user there, or outside of the container",
    };
    explanation("root has no CAP_SYS_ADMIN here, as in containers", fix)
}

fn in_container(kind: &str, failed: &Failed, clues: &Clues) -> Explanation {
    // A filter that answers by an errno has `EPERM` or `ENOSYS` for it, and AppArmor `EACCES`.
    let what = match &clues.apparmor_profile {
        Some(profile) if failed.errno.0 == EACCES || !clues.filtered => {
            format!("AppArmor profile `{profile}`")
        }
        _ if clues.filtered => "seccomp filter".to_owned(),
        _ => "security profile".to_owned(),
    };
    explanation(
        format!("the {what} of the container ({kind}) refuses it"),
        container_fix(
            kind,
            "--security-opt seccomp=unconfined --security-opt apparmor=unconfined \
                             --security-opt systempaths=unconfined",
        ),
    )
}

fn container_fix(kind: &str, docker: &str) -> String {
    match kind {
        "Docker" => format!("run toolcell outside the container, or start that with:\n  docker run {docker} …"),
        "Podman" => {
            "run toolcell outside the container, or start that with:\n  podman run --security-opt seccomp=unconfined \
             --security-opt unmask=ALL --security-opt label=disable …"
                .to_owned()
        }
        "Kubernetes" => {
            "give the pod `hostUsers: false` and the container `securityContext: {seccompProfile: {type: Unconfined}, \
             procMount: Unmasked}`"
                .to_owned()
        }
        _ => "run toolcell outside the container, or lift the container's restrictions on namespaces".to_owned(),
    }
}

fn namespaces(failed: &Failed, clues: &Clues) -> Explanation {
    let refused = matches!(failed.errno.0, EPERM | EACCES);
    if failed.errno.0 == libc::EROFS {
        return explanation(
            "/proc/sys is read-only here, so a cell cannot be kept from namespaces of its own",
            fresh_proc(clues),
        );
    }
    if matches!(failed.errno.0, ENOSPC | EUSERS) {
        // The clone of root makes all but that one.
        let others = clues.uid == 0 && failed.call == "clone";
        return match clues.max_user_namespaces {
            _ if others => explanation(
                "as many namespaces of one kind as are allowed exist already (`user.max_net_namespaces` and its neighbours)",
                "raise the one that is too low:\n  sysctl -a 2>/dev/null | grep '^user.max_.*_namespaces'",
            ),
            Some(0) => {
                explanation("`user.max_user_namespaces` is 0", sysctl("user.max_user_namespaces=15000"))
            }
            _ => explanation(
                "as many user namespaces as this or an outer namespace allows exist already",
                sysctl("user.max_user_namespaces=15000"),
            ),
        };
    }
    if refused && clues.userns_clone == Some(0) {
        return explanation(
            "`kernel.unprivileged_userns_clone` is 0",
            sysctl("kernel.unprivileged_userns_clone=1"),
        );
    }
    if let (true, Some(kind)) = (refused || failed.errno.0 == ENOSYS, &clues.container) {
        return in_container(kind, failed, clues);
    }
    if refused && clues.apparmor_restrict.is_some_and(|on| on != 0) {
        return explanation(
            "`kernel.apparmor_restrict_unprivileged_userns` is on: AppArmor lets only programs with a profile use \
             user namespaces",
            apparmor_profile(clues),
        );
    }
    if let (true, Some(profile)) = (refused, &clues.apparmor_profile) {
        return explanation(
            format!("the AppArmor profile `{profile}` confines this process"),
            format!(
                "start toolcell from a process that is not confined, after:\n{}",
                apparmor_commands(clues)
            ),
        );
    }
    missing_call(failed, clues)
}

fn sysctl(setting: &str) -> String {
    format!(
        "now, and after the next boot:\n  sudo sysctl -w {setting}\n  echo {setting} | sudo tee -a /etc/sysctl.d/90-toolcell.conf"
    )
}

fn apparmor_profile(clues: &Clues) -> String {
    format!("give toolcell's own path such a profile:\n{}", apparmor_commands(clues))
}

fn apparmor_commands(clues: &Clues) -> String {
    let lines = repairs::profile_of(&clues.program).map(|line| format!("'{line}'")).join(" ");
    format!(
        "  printf '%s\\n' {lines} | sudo tee /etc/apparmor.d/toolcell\n  \
         sudo apparmor_parser -r /etc/apparmor.d/toolcell"
    )
}

fn fresh_proc(clues: &Clues) -> String {
    clues.container.as_deref().map_or_else(
        || "unmount what lies over /proc".to_owned(),
        |kind| container_fix(kind, "--security-opt systempaths=unconfined"),
    )
}

fn proc(clues: &Clues) -> Explanation {
    let fix = fresh_proc(clues);
    if clues.proc_masked {
        return explanation("parts of /proc are covered here, so the kernel refuses a fresh one", fix);
    }
    explanation(
        "the kernel refuses a fresh /proc: the one here is read-only, covered in part, or not fully visible",
        fix,
    )
}

fn landlock(failed: &Failed, clues: &Clues) -> Explanation {
    let wanted = clues.lsm.as_deref().filter(|list| !list.split(',').any(|name| name == "landlock"));
    match failed.errno.0 {
        EOPNOTSUPP => {
            // The kernel puts the capability module first by itself.
            let list = wanted.map_or_else(
                || "landlock,…".to_owned(),
                |list| {
                    format!(
                        "landlock,{}",
                        list.strip_prefix("capability,").unwrap_or(list).replace(",capability,", ",")
                    )
                },
            );
            explanation(
                "Landlock is built in, but not in the list of security modules that this kernel was booted with",
                format!(
                    "boot with `lsm={list}`, e.g. with GRUB:\n  \
                     sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&lsm={list} /' /etc/default/grub && sudo update-grub && sudo reboot"
                ),
            )
        }
        ENOSYS if clues.filtered || clues.container.is_some() => explanation(
            "a seccomp filter hides the call, or this kernel is built without Landlock (CONFIG_SECURITY_LANDLOCK)",
            "look outside the container; there must be a line of output:\n  grep CONFIG_SECURITY_LANDLOCK=y /boot/config-$(uname -r)",
        ),
        ENOSYS => explanation(
            "this kernel is built without Landlock (CONFIG_SECURITY_LANDLOCK), which is in Linux since 5.13",
            "install and boot a kernel that has it: those of Debian 12, Ubuntu 22.04, Fedora 35 and newer do",
        ),
        _ => missing_call(failed, clues),
    }
}

fn seccomp(failed: &Failed, clues: &Clues) -> Explanation {
    if matches!(failed.errno.0, EINVAL | ENOSYS) && clues.container.is_none() {
        return explanation(
            "this kernel is built without system call filters (CONFIG_SECCOMP_FILTER)",
            "install and boot a kernel of a distribution; all of them have it",
        );
    }
    missing_call(failed, clues)
}

/// When nothing better is known: by the errno alone.
fn missing_call(failed: &Failed, clues: &Clues) -> Explanation {
    let call = &failed.call;
    if let (ENOSYS | EPERM, Some(kind)) = (failed.errno.0, &clues.container) {
        return in_container(kind, failed, clues);
    }
    match failed.errno.0 {
        ENOSYS if clues.filtered => explanation(
            format!("a seccomp filter that this process inherited hides `{call}`, or the kernel lacks it"),
            "start toolcell from a process without a filter (`grep Seccomp: /proc/self/status` says 0 there)",
        ),
        ENOSYS => explanation(
            format!("this kernel lacks `{call}`; Linux 5.12 has every call that toolcell needs"),
            "install and boot a newer kernel",
        ),
        EINVAL => explanation(
            format!("this kernel is built without what `{call}` asks for"),
            "install and boot a kernel of a distribution; those have every namespace",
        ),
        EPERM | EACCES if clues.filtered => explanation(
            format!("a seccomp filter that this process inherited refuses `{call}`"),
            "start toolcell from a process without a filter (`grep Seccomp: /proc/self/status` says 0 there)",
        ),
        _ => explanation(UNKNOWN, "look for a security module's message:\n  sudo dmesg | tail"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Errno;

    fn cause(part: Part, call: &str, errno: i32, clues: &Clues) -> String {
        explain(part, &Failed::new(call, "", Errno(errno)), clues).cause
    }

    #[test]
    fn each_way_to_forbid_user_namespaces_has_its_own_cause() {
        let none = Clues { max_user_namespaces: Some(15_000), ..Clues::default() };
        let user = |errno, clues: &Clues| cause(Part::UserNamespace, "clone3", errno, clues);
        let zero = Clues { max_user_namespaces: Some(0), ..none.clone() };
        assert_eq!(user(ENOSPC, &zero), "`user.max_user_namespaces` is 0");
        let debian = Clues { userns_clone: Some(0), ..none.clone() };
        assert_eq!(user(EPERM, &debian), "`kernel.unprivileged_userns_clone` is 0");
        let docker = Clues { container: Some("Docker".to_owned()), filtered: true, ..none.clone() };
        assert_eq!(user(ENOSYS, &docker), "the seccomp filter of the container (Docker) refuses it");
        let profiled = Clues { apparmor_profile: Some("docker-default".to_owned()), ..docker.clone() };
        let by_profile = "the AppArmor profile `docker-default` of the container (Docker) refuses it";
        assert_eq!(cause(Part::MountNamespace, "mount", EACCES, &profiled), by_profile);
        assert_eq!(user(EPERM, &profiled), "the seccomp filter of the container (Docker) refuses it");
        let ubuntu = Clues { apparmor_restrict: Some(1), ..none.clone() };
        assert!(
            cause(Part::UserNamespace, "write", EPERM, &ubuntu)
                .contains("apparmor_restrict_unprivileged_userns")
        );
        assert!(user(EPERM, &none).starts_with("not known"));
    }

    #[test]
    fn a_clue_that_does_not_fit_the_errno_explains_nothing() {
        let clues = Clues { max_user_namespaces: Some(0), apparmor_restrict: Some(1), ..Clues::default() };
        assert!(!cause(Part::NetNamespace, "clone3", EINVAL, &clues).contains("apparmor"));
        let off = Clues { apparmor_restrict: Some(0), userns_clone: Some(1), ..Clues::default() };
        assert!(cause(Part::UserNamespace, "clone3", EPERM, &off).starts_with("not known"));
    }

    #[test]
    fn the_profile_for_apparmor_names_this_program() {
        let clues = Clues { apparmor_restrict: Some(1), program: "/opt/toolcell".into(), ..Clues::default() };
        let fix = explain(Part::UserNamespace, &Failed::new("write", "", Errno(EACCES)), &clues).fix;
        assert!(fix.contains("profile toolcell \"/opt/toolcell\" flags=(unconfined) { userns, }"), "{fix}");
    }

    #[test]
    fn landlock_is_absent_in_two_ways() {
        let clues = Clues { lsm: Some("lockdown,capability,yama".to_owned()), ..Clues::default() };
        let explained = |errno| {
            explain(Part::Landlock, &Failed::new("landlock_create_ruleset", "", Errno(errno)), &clues)
        };
        assert!(explained(EOPNOTSUPP).fix.contains("lsm=landlock,lockdown,yama"));
        assert!(explained(ENOSYS).cause.contains("built without Landlock"));
    }

    #[test]
    fn a_step_of_a_launch_is_explained_like_its_part() {
        let clues = Clues { max_user_namespaces: Some(0), uid: 1000, ..Clues::default() };
        let at = |step: &str, errno, clues| explain_launch(&LaunchError::new(step, "", Errno(errno)), clues);
        assert_eq!(at("clone", ENOSPC, &clues).unwrap().cause, "`user.max_user_namespaces` is 0");
        assert_eq!(at("bind", EPERM, &clues), None);
        // The user namespace of root comes later.
        let root = Clues { uid: 0, ..clues.clone() };
        assert!(at("clone", ENOSPC, &root).unwrap().cause.contains("`user.max_net_namespaces`"));
        assert_eq!(at("unshare-user", ENOSPC, &root).unwrap().cause, "`user.max_user_namespaces` is 0");
    }

    #[test]
    fn what_is_not_the_hosts_to_refuse_is_the_steps_own_to_tell() {
        let clues = Clues {
            max_user_namespaces: Some(0),
            filtered: true,
            container: Some("Docker".to_owned()),
            ..Clues::default()
        };
        for (step, errno, words) in [
            ("mount-scratch", ENOSPC, "fs.mount-max"),
            ("create-cgroup", ENOSPC, "ids for cgroups of memory"),
            ("join-cgroup", ENOSPC, "user.max_cgroup_namespaces"),
            ("landlock", EACCES, "may not get to this path"),
            ("landlock", libc::ENOENT, "not any more"),
        ] {
            let told = hint(&LaunchError::new(step, "/x", Errno(errno)), &clues).unwrap_or_default();
            assert!(told.contains(words), "{step}: {told}");
        }
        // And where it might be the host's, and shows nothing.
        let told =
            |step: &str, errno| hint(&LaunchError::new(step, "/x", Errno(errno)), &Clues::default()).unwrap();
        assert!(told("mount-overlay", EPERM).contains("`writes = \"direct\"`"));
        assert!(told("mount-overlay", EACCES).contains("may not get to this path"));
        assert!(told("clone", EPERM).starts_with("not known"));
    }

    #[test]
    fn a_kernel_that_is_not_linux_is_the_cause_before_all_others() {
        let lsm = Some("capability".to_owned());
        for (kernel, errno, word, fix) in [
            (Foreign::Gvisor, EINVAL, "gVisor", "runc"),
            (Foreign::Wsl1, ENOSYS, "WSL 1", "wsl --set-version"),
            (Foreign::Wsl2, ENOSYS, "WSL 2", "wsl --update"),
        ] {
            let clues = Clues { foreign: Some(kernel), lsm: lsm.clone(), ..Clues::default() };
            for part in [Part::Landlock, Part::MountNamespace, Part::Seccomp] {
                let explained = explain(part, &Failed::new("call", "", Errno(errno)), &clues);
                assert!(explained.cause.contains(word) && explained.fix.contains(fix), "{explained:?}");
            }
        }
        // It is Linux, and a sysctl stays one.
        let zero = Clues { foreign: Some(Foreign::Wsl2), max_user_namespaces: Some(0), ..Clues::default() };
        assert_eq!(cause(Part::UserNamespace, "clone3", ENOSPC, &zero), "`user.max_user_namespaces` is 0");
    }

    #[test]
    fn shared_folders_map_no_owners() {
        for kind in ["9p", "virtiofs"] {
            let clues = Clues { root: Some(kind.to_owned()), ..Clues::default() };
            assert!(cause(Part::IdmappedMounts, "mount_setattr", EINVAL, &clues).contains(kind));
        }
        let disk = Clues { root: Some("ext4".to_owned()), ..Clues::default() };
        assert!(!cause(Part::IdmappedMounts, "mount_setattr", EINVAL, &disk).contains("ext4"));
    }

    #[test]
    fn a_containers_root_is_known_by_what_it_lacks() {
        let clues = Clues { container: Some("Docker".to_owned()), powerless: true, ..Clues::default() };
        for part in [Part::UserNamespace, Part::MountNamespace, Part::IdmappedMounts, Part::PidNamespace] {
            let explained = explain(part, &Failed::new("clone3", "", Errno(EPERM)), &clues);
            assert!(
                explained.cause.contains("CAP_SYS_ADMIN") && explained.fix.contains("docker run --user"),
                "{part:?} {explained:?}"
            );
        }
        let filtered = explain(Part::UserNamespace, &Failed::new("clone3", "", Errno(ENOSYS)), &clues);
        assert!(filtered.cause.contains("refuses it"), "{filtered:?}");
    }

    #[test]
    fn a_masked_proc_is_the_containers_doing() {
        let clues = Clues { container: Some("Docker".to_owned()), proc_masked: true, ..Clues::default() };
        let explained = explain(Part::PidNamespace, &Failed::new("fsmount", "proc", Errno(EPERM)), &clues);
        assert!(
            explained.cause.starts_with("parts of /proc are covered")
                && explained.fix.contains("systempaths=unconfined")
        );
    }
}
