//! Sockets of the host's that have a path, to which a cell gets a door: which path, and whether who listens there would do anything
//! for who connects.
//!
//! Neighbours: `policy::profile` reads the items of `allow-unix`. Never: looks at the file system.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::door::DoorLimits;
use super::print::quote;

/// The longest path that an address of a socket has room for (unix(7)).
const LONGEST: usize = 107;

/// One socket, and who said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixSocket {
    /// Its path on the host, and in the cell.
    pub path: String,
    /// Why it is there although whoever reaches it can do more than a tool should; empty for an ordinary one.
    pub reason: String,
    /// Where the rule comes from.
    pub origin: String,
    /// What may go through its door.
    pub limits: DoorLimits,
}

/// Why a path is none of a socket that a cell may have a door to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SocketError {
    /// It does not begin at the root, or has a component that is none.
    #[error("`{0}` is no path from the root, in its shortest form")]
    Path(String),
    /// It is longer than an address has room for.
    #[error("`{path}` is longer than the {LONGEST} bytes that the path of a socket can have")]
    Long {
        /// The path.
        path: String,
    },
    /// Who listens there does more than a tool should be able to.
    #[error("`{path}` is the socket of {who}")]
    Powerful {
        /// The path.
        path: String,
        /// Whose it is, and what that means.
        who: &'static str,
    },
}

impl SocketError {
    /// What to write.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Path(_) => {
                "write it as `/run/postgresql/.s.PGSQL.5432`, without `.`, `..` and `//`".to_owned()
            }
            Self::Long { .. } => "let the service listen at a shorter path".to_owned(),
            Self::Powerful { path, .. } => {
                let path = quote(path);
                format!(
                    "if that is what you want, say why: `allow-unix = [{{ path = {path}, reason = \"…\" }}]`"
                )
            }
        }
    }
}

impl UnixSocket {
    /// What a profile says.
    ///
    /// # Errors
    /// Why it cannot be a door, or not without a reason.
    pub fn new(path: &str, reason: &str, origin: &str) -> Result<Self, SocketError> {
        let path = plain(path);
        let components = path.strip_prefix('/').unwrap_or_default().split('/');
        let right = path.starts_with('/') && !path.chars().any(char::is_control);
        if !right || components.clone().any(|one| matches!(one, "" | "." | "..")) {
            return Err(SocketError::Path(path));
        }
        if path.len() > LONGEST {
            return Err(SocketError::Long { path });
        }
        match powerful(&path) {
            Some(who) if reason.trim().is_empty() => Err(SocketError::Powerful { path, who }),
            _ => Ok(Self {
                path,
                reason: reason.trim().to_owned(),
                origin: origin.to_owned(),
                limits: DoorLimits::default(),
            }),
        }
    }

    /// As an item of a profile's `allow-unix`.
    #[must_use]
    pub fn toml(&self) -> String {
        let reason = match self.reason.as_str() {
            "" => String::new(),
            reason => format!(", reason = {}", quote(reason)),
        };
        format!("{{ path = {}{reason}{} }}", quote(&self.path), self.limits.pairs())
    }
}

/// `/var/run` is `/run` wherever both are.
#[must_use]
pub fn plain(path: &str) -> String {
    match path.strip_prefix("/var/run/") {
        Some(rest) => format!("/run/{rest}"),
        None => path.to_owned(),
    }
}

/// Services that do for who connects what a cell is there to keep a tool from: by a part of the path that they have everywhere.
const POWERFUL: &[(&str, &str)] = &[
    ("docker", "Docker: who reaches it is root on this host"),
    ("podman", "Podman: who reaches it starts programs outside of every cell"),
    ("containerd", "containerd: who reaches it is root on this host"),
    ("crio", "CRI-O: who reaches it is root on this host"),
    ("buildkit", "BuildKit: who reaches it starts programs outside of every cell"),
    ("lxd", "LXD: who reaches it is root on this host"),
    ("incus", "Incus: who reaches it is root on this host"),
    ("libvirt", "libvirt: who reaches it has every virtual machine"),
    ("snapd", "snapd: who reaches it installs programs"),
    ("dbus", "D-Bus: who reaches it has every service of the session or of the system"),
    ("at-spi", "the accessibility bus: who reaches it reads every window and works each of them"),
    ("/udev/", "udev: who reaches it says what is run for a device"),
    ("dconf", "dconf: who reaches it changes the settings of the session"),
    ("/systemd/", "systemd: who reaches it starts programs outside of every cell"),
    ("ssh", "an SSH agent: who reaches it signs with every key in it"),
    ("gpg", "GnuPG's agent: who reaches it signs and decrypts with every key in it"),
    ("gnupg", "GnuPG's agent: who reaches it signs and decrypts with every key in it"),
    ("keyring", "a keyring: who reaches it has what is kept there"),
    ("pcscd", "a smart card's reader: who reaches it uses the card"),
    ("x11", "an X server: who reaches it reads and types every key"),
    ("wayland", "a Wayland compositor: who reaches it has a place on the screen"),
    ("pulse", "a sound server: who reaches it hears the microphone"),
    ("pipewire", "a media server: who reaches it hears the microphone"),
    ("tmux", "tmux: who reaches it types into a shell"),
    ("vscode", "an editor: who reaches it runs its commands"),
];

fn powerful(path: &str) -> Option<&'static str> {
    let lower = path.to_ascii_lowercase();
    // The bus of a user's session has a name of its own.
    let of_bus = lower
        .ends_with("/bus")
        .then_some("D-Bus: who reaches it has every service of the session or of the system");
    of_bus.or_else(|| POWERFUL.iter().find(|(part, _)| lower.contains(part)).map(|(_, who)| *who))
}

/// The line of a profile that allows a socket.
///
/// # Errors
/// Why there is none.
pub fn allow_line(path: &str) -> Result<String, SocketError> {
    let socket = UnixSocket::new(path, "", "")?;
    Ok(format!("[network]\nallow-unix = [{}]", quote(&socket.path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_one_spelling_and_a_powerful_one_a_reason() {
        let new = |path: &str, reason: &str| UnixSocket::new(path, reason, "p").map(|socket| socket.path);
        assert_eq!(new("/var/run/postgresql/.s.PGSQL.5432", "").unwrap(), "/run/postgresql/.s.PGSQL.5432");
        for path in ["", "run/x", "/", "/a//b", "/a/../b", "/a/./b", "/a/", "/a\0b", "/a\nb", "@abstract"] {
            assert!(matches!(new(path, "wanted"), Err(SocketError::Path(_))), "{path:?}");
        }
        assert!(matches!(new(&format!("/{}", "x".repeat(107)), ""), Err(SocketError::Long { .. })));
        for path in [
            "/run/docker.sock",
            "/var/run/docker.sock",
            "/run/user/1000/podman/podman.sock",
            "/run/containerd/containerd.sock",
            "/run/dbus/system_bus_socket",
            "/run/user/1000/bus",
            "/run/user/1000/at-spi/bus_0",
            "/run/udev/control",
            "/run/user/1000/dconf/service",
            "/run/systemd/private",
            "/run/user/1000/systemd/private",
            "/tmp/ssh-x/agent.1",
            "/run/user/1000/gnupg/S.gpg-agent",
            "/home/u/.gnupg/S.gpg-agent",
            "/tmp/.X11-unix/X0",
            "/run/user/1000/wayland-0",
        ] {
            assert!(matches!(new(path, " "), Err(SocketError::Powerful { .. })), "{path}");
            assert!(new(path, "it is what this tool is for").is_ok(), "{path}");
            assert!(allow_line(path).is_err());
        }
        assert_eq!(allow_line("/run/a").unwrap(), "[network]\nallow-unix = [\"/run/a\"]");
    }
}
