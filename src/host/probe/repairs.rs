//! What can be done about a missing part by writing a file or running a program, as values. Pure.
//!
//! Neighbours: `commands::doctor` prints them and, when told to, does them; `probe::causes` says the same in words. Never: does
//! anything; names a repair that no clue asks for.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Part;
use super::clues::{Clues, Foreign};
use crate::host::delegation::NOBODY;

/// One thing to do, by root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// A file gets this content, whatever it had.
    Write {
        /// Absolute.
        path: PathBuf,
        /// All of it.
        content: String,
    },
    /// A program is run, without a shell.
    Run {
        /// The program first.
        command: Vec<String>,
    },
}

/// What mends one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// A short name.
    pub name: String,
    /// What is in the way.
    pub cause: String,
    /// In order.
    pub acts: Vec<Act>,
    /// When it holds, if not at once.
    pub then: Option<String>,
}

/// The repairs for a user with these clues, who lacks these parts. What a container's host decides is not mended inside.
#[must_use]
pub fn repairs(missing: &[Part], clues: &Clues) -> Vec<Repair> {
    let mut found = Vec::new();
    if matches!(clues.foreign, Some(Foreign::Gvisor | Foreign::Wsl1)) {
        return found;
    }
    let outside = clues.container.is_none();
    let user = clues.uid != 0;
    let namespaces = [
        Part::UserNamespace,
        Part::MountNamespace,
        Part::IdmappedMounts,
        Part::NetNamespace,
        Part::OtherNamespaces,
    ];
    let namespaces = namespaces.iter().any(|part| missing.contains(part));
    if namespaces && clues.max_user_namespaces == Some(0) {
        found.push(sysctl("user.max_user_namespaces", "15000"));
    }
    if namespaces && user && clues.userns_clone == Some(0) {
        found.push(sysctl("kernel.unprivileged_userns_clone", "1"));
    }
    let restricted = clues.apparmor_restrict.is_some_and(|on| on != 0) || clues.apparmor_profile.is_some();
    if namespaces && user && restricted && outside {
        found.extend(apparmor(&clues.program));
    }
    if missing.contains(&Part::Cgroup) && user && clues.systemd && outside {
        if clues.undelegated {
            found.push(delegation());
        }
        if !clues.user_manager && clues.uid != NOBODY {
            found.push(linger(clues.uid));
        }
    }
    found
}

fn write(path: impl Into<PathBuf>, content: String) -> Act {
    Act::Write { path: path.into(), content }
}

fn run(command: &[&str]) -> Act {
    Act::Run { command: command.iter().map(|word| (*word).to_owned()).collect() }
}

fn sysctl(name: &str, value: &str) -> Repair {
    Repair {
        name: "sysctl".to_owned(),
        cause: format!("`{name}` is 0"),
        acts: vec![
            write(format!("/etc/sysctl.d/90-toolcell-{name}.conf"), format!("{name} = {value}\n")),
            write(Path::new("/proc/sys").join(name.replace('.', "/")), format!("{value}\n")),
        ],
        then: None,
    }
}

/// The profile that lets one program use user namespaces, and confines it in no way.
pub(super) fn profile_of(program: &Path) -> [String; 3] {
    [
        "abi <abi/4.0>,".to_owned(),
        "include <tunables/global>".to_owned(),
        format!("profile toolcell \"{}\" flags=(unconfined) {{ userns, }}", program.display()),
    ]
}

/// None for a path that would be a pattern in a profile, or is a link to elsewhere.
fn apparmor(program: &Path) -> Option<Repair> {
    const FILE: &str = "/etc/apparmor.d/toolcell";
    let text = program.to_str()?;
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
    if !plain || !program.is_absolute() {
        return None;
    }
    Some(Repair {
        name: "apparmor-profile".to_owned(),
        cause: "AppArmor lets only programs with a profile use user namespaces".to_owned(),
        acts: vec![
            write(FILE, profile_of(program).join("\n") + "\n"),
            run(&["apparmor_parser", "--replace", FILE]),
        ],
        then: None,
    })
}

fn delegation() -> Repair {
    Repair {
        name: "delegation".to_owned(),
        cause: "systemd gives this user's manager not all of the controllers cpu, memory and pids".to_owned(),
        acts: vec![
            run(&["mkdir", "-p", "/etc/systemd/system/user@.service.d"]),
            write(
                "/etc/systemd/system/user@.service.d/delegate.conf",
                "[Service]\nDelegate=cpu memory pids\n".to_owned(),
            ),
            run(&["systemctl", "daemon-reload"]),
        ],
        then: Some("it holds when the user has logged out of all sessions and in again".to_owned()),
    }
}

fn linger(uid: u32) -> Repair {
    Repair {
        name: "linger".to_owned(),
        cause: format!("user {uid} has no systemd manager running, which gives out cgroups"),
        // The second waits until it is there.
        acts: vec![
            run(&["loginctl", "enable-linger", &uid.to_string()]),
            run(&["systemctl", "start", &format!("user@{uid}.service")]),
        ],
        then: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(missing: &[Part], clues: &Clues) -> Vec<String> {
        repairs(missing, clues)
            .into_iter()
            .map(|repair| format!("{}: {}", repair.name, repair.cause))
            .collect()
    }

    fn user() -> Clues {
        Clues { uid: 1000, program: "/opt/toolcell".into(), max_user_namespaces: Some(9), ..Clues::default() }
    }

    #[test]
    fn a_host_in_order_needs_no_repair_whatever_its_settings_are() {
        let odd = Clues { max_user_namespaces: Some(0), apparmor_restrict: Some(1), systemd: true, ..user() };
        assert_eq!(names(&[], &odd), [""; 0]);
        assert_eq!(names(&[Part::Landlock, Part::Seccomp], &odd), [""; 0]);
    }

    #[test]
    fn each_cause_has_its_own_repair() {
        let zero = Clues { max_user_namespaces: Some(0), ..user() };
        assert_eq!(names(&[Part::UserNamespace], &zero), ["sysctl: `user.max_user_namespaces` is 0"]);
        let debian = Clues { userns_clone: Some(0), ..user() };
        let [repair] = repairs(&[Part::UserNamespace], &debian).try_into().unwrap();
        assert_eq!(repair.acts[1], write("/proc/sys/kernel/unprivileged_userns_clone", "1\n".to_owned()));
        let ubuntu = Clues { apparmor_restrict: Some(1), ..user() };
        let [repair] = repairs(&[Part::MountNamespace], &ubuntu).try_into().unwrap();
        let Act::Write { content, .. } = &repair.acts[0] else { panic!("{repair:?}") };
        assert!(
            content.ends_with("profile toolcell \"/opt/toolcell\" flags=(unconfined) { userns, }\n"),
            "{content}"
        );
        let alone = Clues { systemd: true, ..user() };
        assert_eq!(repairs(&[Part::Cgroup], &alone), [linger(1000)]);
        let old = Clues { systemd: true, user_manager: true, undelegated: true, ..user() };
        assert_eq!(repairs(&[Part::Cgroup], &old), [delegation()]);
    }

    #[test]
    fn a_path_that_is_a_pattern_gets_no_profile() {
        for program in
            ["/home/*/toolcell", "/opt/{a,b}", "/opt/a\" flags=(unconfined) { capability, }", "toolcell"]
        {
            let clues = Clues { apparmor_restrict: Some(1), program: program.into(), ..user() };
            assert_eq!(names(&[Part::UserNamespace], &clues), [""; 0], "{program}");
        }
    }

    #[test]
    fn a_container_and_a_foreign_kernel_are_mended_elsewhere() {
        let ubuntu = Clues { apparmor_restrict: Some(1), max_user_namespaces: Some(0), ..user() };
        let inside = Clues { container: Some("Docker".to_owned()), systemd: true, ..ubuntu.clone() };
        let all = [Part::UserNamespace, Part::Cgroup];
        assert_eq!(names(&all, &inside), ["sysctl: `user.max_user_namespaces` is 0"]);
        let foreign = Clues { foreign: Some(Foreign::Gvisor), ..ubuntu };
        assert_eq!(names(&all, &foreign), [""; 0]);
    }
}
