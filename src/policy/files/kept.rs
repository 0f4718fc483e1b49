//! What a policy may not show to a tool or let it change: keys, what toolcell writes of tools, what it starts.
//!
//! Neighbours: `policy::files` keeps profiles and configuration in the same way. Never: reads a file.

use std::path::{Path, PathBuf};

use super::super::Policy;
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
pub(super) fn changing(policy: &Policy, file: &Path) -> Option<PathBuf> {
    let denied: Vec<PathBuf> = policy.filesystem.deny.iter().map(|deny| real(&deny.path)).collect();
    policy.filesystem.write.iter().map(|rule| real(&rule.path)).find(|grant| {
        let reached = file.starts_with(grant) || (grant.starts_with(file) && file.is_dir());
        let hidden = |deny: &PathBuf| file.starts_with(deny) && deny.parent() == Some(grant);
        reached && !denied.iter().any(hidden)
    })
}
