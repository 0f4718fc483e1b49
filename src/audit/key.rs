//! The Ed25519 key of an installation, which signs checkpoints of the audit log.
//!
//! It is made at first need, in a file for its owner only. Neighbours: `audit::checkpoint` says what is signed.
//! Never: shows the secret; is loaded in a process whose memory a cell begins with.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use ed25519_compact::{KeyPair, PublicKey, Seed, Signature};

use super::file::{FileError, make_directory_for, open_private};
use crate::policy::tokens::{from_hex, to_hex};
use crate::text::quoted_path;

/// A public key, by which signatures are verified.
pub type Public = [u8; 32];

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not fit to hold a secret.
    #[error("cannot use the key of the audit log")]
    File(#[from] FileError),
    /// It cannot be read or written.
    #[error("cannot read or write the key of the audit log `{}`", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It holds something else.
    #[error("`{}` holds no key: it is not one line of 64 hexadecimal digits", .0.display())]
    Malformed(PathBuf),
}

impl KeyError {
    /// The next thing to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Io { .. } => None,
            Self::Malformed(path) => Some(format!(
                "bring it back from a backup; or remove it for a new key, and verify older records with the old public key: rm {}",
                quoted_path(path)
            )),
        }
    }
}

/// The key pair.
#[derive(Clone)]
pub struct Key(KeyPair);

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Key").field(&to_hex(&self.public())).finish()
    }
}

impl Key {
    /// Reads the key in this file of this user's, or makes one there.
    ///
    /// # Errors
    /// When the file is not for its owner only, or holds something else, or cannot be made.
    pub fn at(path: &Path, owner: u32) -> Result<Self, KeyError> {
        make_directory_for(path)?;
        let file = open_private(path, owner, false)?;
        let failed = |source| KeyError::Io { path: path.to_owned(), source };
        // Two that find it empty must not make two keys.
        file.lock().map_err(failed)?;
        let mut text = String::new();
        (&file).take(1024).read_to_string(&mut text).map_err(failed)?;
        if text.is_empty() {
            let mut secret = [0; Seed::BYTES];
            File::open("/dev/urandom")
                .and_then(|mut random| random.read_exact(&mut secret))
                .map_err(failed)?;
            text = format!("{}\n", to_hex(&secret));
            (&file).write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        let malformed = || KeyError::Malformed(path.to_owned());
        let seed = text.strip_suffix('\n').and_then(from_hex).ok_or_else(malformed)?;
        let seed = Seed::from_slice(&seed).ok().ok_or_else(malformed)?;
        let pair = KeyPair::try_from_seed(seed).ok().ok_or_else(malformed)?;
        Ok(Self(pair))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> Public {
        *self.0.pk
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        *self.0.sk.sign(message, None)
    }
}

/// Whether the holder of a key signed a message.
#[must_use]
pub(super) fn is_signed(message: &[u8], public: &Public, signature: &[u8; 64]) -> bool {
    PublicKey::new(*public).verify(message, &Signature::new(*signature)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::test_directory::TestDirectory;
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        from_hex(hex).unwrap().try_into().unwrap()
    }

    #[test]
    fn it_is_the_ed25519_of_rfc_8032() {
        let directory = TestDirectory::new();
        let path = directory.path.join("key");
        // Test 2 of section 7.1.
        fs::write(&path, "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let key = Key::at(&path, directory.owner).unwrap();
        let public = bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature = bytes(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        );
        assert_eq!((key.public(), key.sign(&[0x72])), (public, signature));
        assert!(is_signed(&[0x72], &public, &signature));
        assert!(!is_signed(&[0x73], &public, &signature));
        assert!(!format!("{key:?}").contains("4ccd089b"));
    }

    #[test]
    fn it_is_made_once_and_for_its_owner_only() {
        let directory = TestDirectory::new();
        let path = directory.path.join("state/toolcell/key");
        let publics: Vec<Public> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Key::at(&path, directory.owner).unwrap().public())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(publics.iter().all(|public| *public == publics[0]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let other = Key::at(&directory.path.join("other"), directory.owner).unwrap();
        assert_ne!(other.public(), publics[0]);

        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Key::at(&path, directory.owner), Err(KeyError::File(FileError::Mode { .. }))));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        for text in ["x", "\n", "00\n", &format!("{}\n", "0".repeat(64)), &"a".repeat(64)] {
            fs::write(&path, text).unwrap();
            let error = Key::at(&path, directory.owner).unwrap_err();
            assert!(matches!(error, KeyError::Malformed(_)) && error.hint().is_some(), "{text}");
        }
    }
}
