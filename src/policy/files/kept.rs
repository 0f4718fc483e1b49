//! What a policy may not show to a tool or let it change: profiles and configuration, keys, what toolcell writes of tools, what it
//! starts, where its doors lead.
//!
//! Neighbours: `policy::files` reads profiles and configuration. Never: reads a file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::Policy;
use super::super::listen::At;
use super::{FilesError, Library, real};

impl Library {
    /// Refuses a policy under which a tool could read the keys that requests are signed with, now or when they are replaced.
    /// So it does not help to deny the file, only a directory above it: a file that takes another's place is not covered.
    /// `shown` is what a cell sees beside its grants.
    ///
    /// # Errors
    /// It shows them.
    pub fn keep_keys<'p>(
        &self,
        policy: &'p Policy,
        shown: impl IntoIterator<Item = &'p Path>,
    ) -> Result<(), FilesError> {
        let Some(file) = self.tokens_file().map(|path| real(&path)) else { return Ok(()) };
        match Self::shows(policy, shown, &file) {
            Some(shown) => Err(FilesError::SigningKeys { shown, file }),
            None => Ok(()),
        }
    }

    /// Refuses a policy under which a tool could read the file of a secret, for the same reason in the same way.
    ///
    /// # Errors
    /// It shows it.
    pub fn keep_secret<'p>(
        &self,
        policy: &'p Policy,
        shown: impl IntoIterator<Item = &'p Path>,
        (name, file): (&str, &Path),
    ) -> Result<(), FilesError> {
        let file = real(file);
        match Self::shows(policy, shown, &file) {
            Some(shown) => Err(FilesError::SecretShown { name: name.to_owned(), shown, file }),
            None => Ok(()),
        }
    }

    /// Refuses a policy under which a tool could read or change a file, now or when it is replaced.
    ///
    /// # Errors
    /// It shows it.
    pub fn keep_from_tools<'p>(
        &self,
        policy: &'p Policy,
        shown: impl IntoIterator<Item = &'p Path>,
        file: &Path,
    ) -> Result<(), FilesError> {
        let file = real(file);
        match Self::shows(policy, shown, &file) {
            Some(shown) => Err(FilesError::Written { shown, file }),
            None => Ok(()),
        }
    }

    /// Refuses a policy under which a tool could change a file.
    ///
    /// # Errors
    /// It may write to it, or to a directory above.
    pub fn keep_as_it_is(&self, policy: &Policy, file: &Path) -> Result<(), FilesError> {
        let file = real(file);
        let mut grants = policy.filesystem.write.iter().map(|rule| real(&rule.path));
        match grants.find(|grant| file.starts_with(grant)) {
            Some(grant) => Err(FilesError::Started { grant, file }),
            None => Ok(()),
        }
    }

    /// Refuses a policy under which a tool could change a file of certificates, whose path is free of links.
    ///
    /// # Errors
    /// It may write to it, or to a directory above.
    pub fn keep_trusted(&self, policy: &Policy, file: &Path) -> Result<(), FilesError> {
        match changing(policy, file) {
            Some(grant) => Err(FilesError::Trusted { grant, file: file.to_owned() }),
            None => Ok(()),
        }
    }

    /// Refuses a policy under which a tool could write to what policies are read from.
    pub(super) fn protect(&self, policy: &Policy, files: Vec<PathBuf>) -> Result<(), FilesError> {
        if policy.filesystem.write.is_empty() {
            return Ok(());
        }
        let protected: BTreeSet<PathBuf> = files
            .into_iter()
            .chain(self.config.clone())
            .chain(self.lock_file().filter(|path| fs::symlink_metadata(path).is_ok()))
            // Where there is none, nobody may call anything, so that no tool could make one.
            .chain(self.tokens_file().filter(|path| fs::symlink_metadata(path).is_ok()))
            .chain(self.directories().filter(|path| path.is_dir()))
            .map(|path| real(&path))
            .collect();
        match protected.into_iter().find_map(|file| Some((changing(policy, &file)?, file))) {
            Some((grant, file)) => Err(FilesError::OwnPolicy { grant, file }),
            None => Ok(()),
        }
    }

    /// Refuses policies of one server under which a tool could put another socket in the place of one to which a door of theirs
    /// leads: who may write to its directory, or to one above, may rename. What goes to an overlay moves nothing on the host.
    ///
    /// # Errors
    /// The two lines that do not go together.
    pub fn keep_sockets<'p>(policies: impl Iterator<Item = &'p Policy> + Clone) -> Result<(), FilesError> {
        let sockets = policies.clone().flat_map(|policy| {
            let doors = policy.network.unix.iter().map(|socket| ("allow-unix", &socket.path, &socket.origin));
            let inward = policy.network.listen.iter().filter_map(|one| match &one.at {
                At::Path(path) => Some(("listen", path, &one.origin)),
                At::Any | At::Address(_) => None,
            });
            doors.chain(inward)
        });
        for (key, socket, origin) in sockets {
            // What would be renamed: the socket, or a directory or link on the way, each where it really lies.
            let above = Path::new(socket).ancestors();
            let names: Vec<PathBuf> =
                above.filter_map(|name| Some(real(name.parent()?).join(name.file_name()?))).collect();
            for policy in policies.clone().filter(|policy| !policy.filesystem.writes.overlays()) {
                let moves = |grant: &Path| {
                    let within = |name: &PathBuf| name.starts_with(grant) && name != grant;
                    names.iter().any(|name| within(name) && !hidden(policy, grant, name))
                };
                if let Some(rule) = policy.filesystem.write.iter().find(|rule| moves(&real(&rule.path))) {
                    return Err(FilesError::SocketMoved {
                        grant: rule.path.clone(),
                        write: rule.origin.clone(),
                        key,
                        socket: socket.clone(),
                        allow: origin.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// What shows a file to a tool, and is not denied again above it.
    fn shows<'p>(
        policy: &'p Policy,
        shown: impl IntoIterator<Item = &'p Path>,
        file: &Path,
    ) -> Option<PathBuf> {
        let denied = |grant: &Path| {
            let denies = policy.filesystem.deny.iter().map(|deny| real(&deny.path));
            denies.into_iter().any(|deny| deny != *file && file.starts_with(&deny) && deny.starts_with(grant))
        };
        let mut all = policy.grants().map(|rule| rule.path.as_path()).chain(shown).map(real);
        all.find(|path| file.starts_with(path) && !denied(path))
    }
}

/// The grant under which a tool could change a file or directory, both free of links.
fn changing(policy: &Policy, file: &Path) -> Option<PathBuf> {
    policy.filesystem.write.iter().map(|rule| real(&rule.path)).find(|grant| {
        let reached = file.starts_with(grant) || (grant.starts_with(file) && file.is_dir());
        reached && !hidden(policy, grant, file)
    })
}

/// Does a `deny` directly in a granted directory keep this from who may write to that? One further down could be renamed away
/// together with what it hides.
fn hidden(policy: &Policy, grant: &Path, file: &Path) -> bool {
    let denied = policy.filesystem.deny.iter().map(|deny| real(&deny.path));
    denied.into_iter().any(|deny| file.starts_with(&deny) && deny.parent() == Some(grant))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::policy::Source;
    use crate::policy::profile::World;
    use crate::policy::resolve::resolve;
    use crate::policy::syscalls::SyscallName;

    #[test]
    fn no_tool_of_a_server_may_move_what_is_on_the_way_to_a_socket() {
        let base = std::env::temp_dir().canonicalize().unwrap();
        let base = base.join(format!("toolcell-kept-{}", std::process::id()));
        for name in ["w/run", "w/other", "real"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        symlink(base.join("real"), base.join("w/link")).unwrap();
        let place = base.to_str().unwrap();
        let policy = |name: &str, text: &str| {
            let text = text.replace("BASE", place);
            let source = Source { name: name.to_owned(), path: None, text };
            let world = World { home: None, workspace: &base };
            resolve(&source, &Default::default(), world, &|_| SyscallName::Known).unwrap()
        };
        for (socket, filesystem, kept) in [
            ("w/run/s", "write = [\"BASE/w\"]", false),
            ("w/run/s", "write = [\"BASE/w/run\"]", false),
            ("w/run/s", "write = [\"BASE/w/other\", \"BASE\"]", false),
            ("w/run/new/s", "write = [\"BASE/w/run\"]", false),
            // A link that could be put elsewhere, and where it leads.
            ("w/link/s", "write = [\"BASE/w\"]", false),
            ("w/link/s", "write = [\"BASE/real\"]", false),
            ("w/run/s", "write = [\"BASE/w/other\"]", true),
            ("w/run/s", "write = [\"BASE/w/run/s\"]", true),
            ("w/run/s", "read = [\"BASE/w\"]", true),
            ("w/run/s", "write = [\"BASE/w\"]\nwrites = \"discard\"", true),
            ("w/run/s", "write = [\"BASE/w\"]\nwrites = \"review\"", true),
            ("w/run/s", "write = [\"BASE/w\"]\ndeny = [\"BASE/w/run\"]", true),
            ("w/run/s", "write = [\"BASE\"]\ndeny = [\"BASE/w/run\"]", false),
        ] {
            let filesystem = format!("[filesystem]\n{filesystem}");
            let outward = format!("allow-unix = [\"BASE/{socket}\"]");
            let inward = format!("listen = [{{ port = 8080, at = \"BASE/{socket}\" }}]");
            for network in [outward, inward].map(|line| format!("[network]\n{line}")) {
                let both = policy("both", &format!("{filesystem}\n{network}"));
                assert_eq!(
                    Library::keep_sockets([&both].into_iter()).is_ok(),
                    kept,
                    "{network}: {filesystem}"
                );
                let (writes, door) = (policy("writes", &filesystem), policy("door", &network));
                let two = Library::keep_sockets([&door, &writes].into_iter());
                assert_eq!(two.is_ok(), kept, "{network}: {filesystem}");
            }
        }
        fs::remove_dir_all(&base).unwrap();
    }
}
