//! Whose network a cell has: its own, or the host's, and what of the host comes with that.
//!
//! Neighbours: `policy::profile` reads the word, `policy::resolve` applies it, `plan` and `launch` make no network namespace by it.
//! Never: is set by an option, an argument of a call, a client, or a lock file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{PathRule, Policy};

/// Whose network a cell has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Its own: a loopback interface and doors.
    #[default]
    Cell,
    /// The host's, as the user has it.
    Host,
}

impl Mode {
    /// Every choice.
    pub const ALL: [Self; 2] = [Self::Cell, Self::Host];

    /// The name in a profile.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cell => "cell",
            Self::Host => "host",
        }
    }

    /// Is it the host's?
    #[must_use]
    pub const fn is_host(self) -> bool {
        matches!(self, Self::Host)
    }
}

/// How it stands in a profile.
pub const HOST: &str = "mode = \"host\"";

/// Why a key of the section cannot stand beside it, and what to do.
pub(super) fn beside_host(key: &str) -> (String, String) {
    let told = format!("`{key}` is about doors, and with `{HOST}` there are none: the network is the host's");
    (told, format!("take `{key}` out, or `{HOST}`"))
}

/// What libc looks names up by. In the host's network a cell has the host's, and no other.
pub const NAMES: [&str; 5] =
    ["/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"];

/// Where hosts have the certificates of public authorities, and what these files are links to.
const CERTIFICATES: [&str; 5] = [
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/usr/share/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
];

impl Policy {
    /// In the host's network names lead where they lead outside, and the same authorities are trusted. What is denied stays so.
    pub(super) fn show_names(&mut self) {
        if !self.network.mode.is_host() {
            return;
        }
        let why = ["names are looked up as outside", "the same authorities are trusted as outside"];
        let names = NAMES.map(|path| (path, why[0])).into_iter();
        for (path, why) in names.chain(CERTIFICATES.map(|path| (path, why[1]))) {
            let path = Path::new(path);
            let denied = self.filesystem.deny.iter().any(|deny| path.starts_with(&deny.path));
            if !denied && !self.grants().any(|grant| grant.path == path) {
                self.filesystem.read.push(PathRule {
                    path: path.to_owned(),
                    why: why.to_owned(),
                    origin: format!("`{HOST}`"),
                    optional: true,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::add::Additions;
    use super::super::print::to_toml;
    use super::super::resolve::tests::read;
    use super::super::{Floor, check};
    use super::*;

    const OUTSIDE: &str = "floor = \"host-network\"\n[network]\nmode = \"host\"\n";

    #[test]
    fn the_hosts_network_is_there_where_a_profile_says_so_and_nowhere_else() {
        let mode = |text: &str, parent: &str| read(text, parent).unwrap().network.mode;
        assert_eq!(mode("", ""), Mode::Cell);
        assert_eq!(mode(OUTSIDE, ""), Mode::Host);
        assert_eq!(mode("extends = \"parent\"", OUTSIDE), Mode::Host);
        assert_eq!(mode("extends = \"parent\"\n[network]\nmode = \"cell\"", OUTSIDE), Mode::Cell);
        let told = read("[network]\nmode = \"hots\"", "").unwrap_err();
        assert!(told.contains("unknown mode `hots`") && told.contains("did you mean `host`?"), "{told}");
        let told = read("[network]\nmode = true", "").unwrap_err();
        assert!(told.contains("`mode` must be a string"), "{told}");
    }

    #[test]
    fn whatever_says_something_of_doors_is_a_mistake_beside_it_also_in_a_parent() {
        let keys = [
            "allow = [\"a.example:443\"]",
            "deny = [\"a.example:443\"]",
            "allow-unix = [\"/run/a.sock\"]",
            "listen = [8080]",
            "hosts = { a = \"10.0.0.1\" }",
            "private = [\"10.0.0.0/8\"]",
            "sni = \"any\"",
            "connections = 3",
            "up = \"1MiB\"",
            "down = \"1MiB\"",
            "time = \"1s\"",
            "rate = 3",
            "http.\"a.example:443\" = { tls = \"end\" }",
            // What is as if it were not there is written all the same.
            "allow = []",
        ];
        for line in keys {
            let key = line.split([' ', '.']).next().unwrap();
            let told = format!(
                "`{key}` is about doors, and with `mode = \"host\"` there are none: the network is the host's"
            );
            let beside = read(&format!("{OUTSIDE}{line}"), "").unwrap_err();
            assert!(beside.contains(&told) && beside.contains("p.toml (built in):4:"), "{beside}");
            let above = read(&format!("extends = \"parent\"\n{OUTSIDE}"), &format!("[network]\n{line}"));
            let above = above.unwrap_err();
            assert!(above.contains(&told) && above.contains("parent.toml (built in):2:"), "{above}");
            let below = read(&format!("extends = \"parent\"\n[network]\n{line}"), OUTSIDE).unwrap_err();
            assert!(below.contains(&told), "{below}");
        }
        let known = super::super::profile::SECTIONS.iter().find(|(name, _)| *name == "network").unwrap().1;
        let missing: Vec<_> = known
            .iter()
            .filter(|key| **key != "mode" && !keys.iter().any(|line| line.starts_with(**key)))
            .collect();
        assert_eq!(missing, [""; 0].iter().collect::<Vec<_>>());
    }

    #[test]
    fn it_shows_what_names_are_looked_up_by_and_nothing_that_is_denied() {
        let shown = |text: &str| {
            let policy = read(text, "").unwrap();
            let all: Vec<String> =
                policy.filesystem.read.iter().map(|rule| rule.path.display().to_string()).collect();
            all
        };
        assert_eq!(shown(""), [""; 0]);
        let all = shown(OUTSIDE);
        assert!(NAMES.iter().chain(&CERTIFICATES).all(|path| all.contains(&(*path).to_owned())), "{all:?}");
        let granted = shown(&format!("{OUTSIDE}[filesystem]\nread = [\"/etc/hosts\"]"));
        assert_eq!(granted.len(), all.len());
        let less = shown(&format!("{OUTSIDE}[filesystem]\ndeny = [\"/etc/ssl\", \"/etc/hosts\"]"));
        assert_eq!(all.len() - less.len(), 3);
        assert!(
            read("extends = \"parent\"\n[network]\nmode = \"cell\"", OUTSIDE)
                .unwrap()
                .filesystem
                .read
                .is_empty()
        );
    }

    #[test]
    fn what_is_printed_resolves_to_the_same() {
        let policy = read(OUTSIDE, "").unwrap();
        let again = read(&to_toml(&policy), "").unwrap();
        assert_eq!((&again.network, again.floor), (&policy.network, Floor::HostNetwork));
        let paths = |policy: &Policy| -> Vec<_> {
            policy.filesystem.read.iter().map(|rule| (rule.path.clone(), rule.optional)).collect()
        };
        assert_eq!(paths(&again), paths(&policy));
    }

    #[test]
    fn no_option_opens_a_door_beside_it_and_a_floor_alone_changes_nothing() {
        let policy = read(OUTSIDE, "").unwrap();
        let net = Additions { net: vec!["a.example:443".parse().unwrap()], ..Additions::default() };
        let listen = Additions { listen: vec!["8080".parse().unwrap()], ..Additions::default() };
        for (additions, option) in [(net, "--net"), (listen, "--listen")] {
            let error = policy.clone().with(&additions).unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{option}` opens a door")), "{error}");
            assert!(error.hint().unwrap().starts_with(&format!("leave `{option}` out")));
        }
        let floor = Additions { floor: Some(Floor::HostNetwork), ..Additions::default() };
        let cell = read("", "").unwrap().with(&floor).unwrap();
        assert_eq!((cell.network.mode, cell.floor), (Mode::Cell, Floor::HostNetwork));
        assert_eq!(policy.tightened().network.mode, Mode::Host);
    }

    #[test]
    fn a_floor_accepts_what_is_as_good_in_each_part_alone() {
        let accepted = |floor: Floor| -> Vec<&str> {
            Floor::ALL.into_iter().filter(|rung| floor.accepts(*rung)).map(Floor::name).collect()
        };
        assert_eq!(accepted(Floor::Full), ["full"]);
        assert_eq!(accepted(Floor::NoCgroup), ["full", "no-cgroup"]);
        assert_eq!(accepted(Floor::Landlock), ["full", "no-cgroup", "landlock"]);
        assert_eq!(accepted(Floor::HostNetwork), ["full", "host-network"]);
        let less = ["full", "no-cgroup", "host-network", "host-network-no-cgroup"];
        assert_eq!(accepted(Floor::HostNetworkNoCgroup), less);
        assert_eq!(accepted(Floor::HostNetworkLandlock).len(), Floor::ALL.len());
        for floor in Floor::ALL {
            assert_eq!(floor.with_host_network().with_own_network(), floor.with_own_network());
            assert_ne!(floor.has_own_network(), floor == floor.with_host_network());
        }
    }

    #[test]
    fn who_checks_such_a_profile_is_told_what_it_gives_away() {
        let warned = |text: &str| check::warnings(&read(text, "").unwrap()).join("\n");
        assert!(warned(OUTSIDE).starts_with("`mode = \"host\"`: a tool reaches all that this user does"));
        assert!(!warned(OUTSIDE).contains("floor"), "{}", warned(OUTSIDE));
        let told = warned("[network]\nmode = \"host\"");
        assert!(told.contains("the floor `full` does not accept that"), "{told}");
        assert!(told.contains("write `floor = \"host-network\"` at the top"), "{told}");
        let told = warned("floor = \"host-network\"");
        assert_eq!(
            told,
            "the floor `host-network` is for `mode = \"host\"`, which this profile does not have"
        );
        let told = warned(&format!("{OUTSIDE}[syscalls]\nallow = [\"socket\"]"));
        assert!(told.contains("`socket` in `[syscalls]` opens what else"), "{told}");
    }
}
