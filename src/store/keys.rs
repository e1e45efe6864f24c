//! The keys of this host: its own identity and, where the mesh was made, the mesh's key.

use std::fmt;
use std::io;
use std::path::Path;

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::kernel::id::{MeshId, PeerId};

use super::dir::{DataDir, HeldDir, read_private};
use super::error::StoreError;

/// Who this host is.
const IDENTITY: &str = "identity.key";
/// The right to invite, only on hosts that have it.
pub const MESH_KEY: &str = "mesh.key";

/// The 32-byte seed of an Ed25519 key. It prints as nothing, and its memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; 32]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// [`StoreError::Random`] when the system has no random bytes to give.
    pub fn generate() -> Result<Self, StoreError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|error| StoreError::Random(error.to_string()))?;
        Ok(Self(seed))
    }

    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// The seed itself, for those who make a key of it.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.0)
    }

    /// A key that is kept in a file of its own, away from a data directory.
    ///
    /// # Errors
    /// [`StoreError::File`] when it cannot be read, [`StoreError::Exposed`] when others can read it, and
    /// [`StoreError::NotAKey`] when it holds something else.
    pub fn read(file: &Path) -> Result<Self, StoreError> {
        let text = read_private(file)?
            .ok_or_else(|| StoreError::file("reading", file, io::Error::from(io::ErrorKind::NotFound)))?;
        Self::parse(&text, file)
    }

    fn parse(text: &str, file: &Path) -> Result<Self, StoreError> {
        let mut seed = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), &mut *seed).map_err(|_| StoreError::NotAKey { path: file.to_owned() })?;
        Ok(Self(seed))
    }

    /// The peer whose identity this is.
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_public_key(self.signing_key().verifying_key().to_bytes())
    }

    /// The mesh whose key this is.
    pub fn mesh_id(&self) -> MeshId {
        MeshId(self.signing_key().verifying_key().to_bytes())
    }
}

impl DataDir {
    /// This host's identity; `None` before it has one.
    ///
    /// # Errors
    /// [`StoreError::Exposed`] when others can read the file, [`StoreError::NotAKey`] when it holds something else.
    pub fn identity_key(&self) -> Result<Option<Secret>, StoreError> {
        self.key(IDENTITY)
    }

    /// The mesh's key; `None` on a host that cannot invite.
    ///
    /// # Errors
    /// As [`Self::identity_key`].
    pub fn mesh_key(&self) -> Result<Option<Secret>, StoreError> {
        self.key(MESH_KEY)
    }

    fn key(&self, name: &str) -> Result<Option<Secret>, StoreError> {
        let Some(text) = self.read_private(name)? else { return Ok(None) };
        Secret::parse(&text, &self.path().join(name)).map(Some)
    }
}

impl HeldDir {
    /// Gives this host its identity, on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::KeyStands`] when it has one: a key is never replaced.
    pub fn keep_identity_key(&self, key: &Secret) -> Result<(), StoreError> {
        self.keep_key(IDENTITY, key)
    }

    /// Keeps the mesh's key, on disk when this returns.
    ///
    /// # Errors
    /// As [`Self::keep_identity_key`].
    pub fn keep_mesh_key(&self, key: &Secret) -> Result<(), StoreError> {
        self.keep_key(MESH_KEY, key)
    }

    fn keep_key(&self, name: &str, key: &Secret) -> Result<(), StoreError> {
        let path = self.path().join(name);
        if path.symlink_metadata().is_ok() {
            return Err(StoreError::KeyStands { path });
        }
        self.write_private(name, &Zeroizing::new(format!("{}\n", hex::encode(*key.0))))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn held() -> (tempfile::TempDir, HeldDir) {
        let dir = tempfile::tempdir().expect("directory");
        let held = DataDir::open(dir.path()).and_then(DataDir::hold).expect("held");
        (dir, held)
    }

    #[test]
    fn a_key_is_read_back_and_never_replaced_or_printed() {
        let (_dir, held) = held();
        assert_eq!(held.identity_key().expect("readable"), None);
        let key = Secret::generate().expect("random");
        held.keep_identity_key(&key).expect("kept");
        assert_eq!(held.identity_key().expect("readable"), Some(key.clone()));
        let path = held.path().join(IDENTITY);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o600);
        let again = held.keep_identity_key(&Secret::generate().expect("random"));
        assert!(matches!(again, Err(StoreError::KeyStands { .. })), "{again:?}");
        assert_eq!(held.identity_key().expect("readable"), Some(key.clone()));
        assert_eq!(held.mesh_key().expect("readable"), None);
        assert_eq!(format!("{key:?}"), "Secret(…)");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_command_to_run() {
        let (_dir, held) = held();
        held.keep_mesh_key(&Secret::from_seed([7; 32])).expect("kept");
        let path = held.path().join(MESH_KEY);
        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            let sentence = held.mesh_key().expect_err("exposed").to_string();
            assert!(sentence.contains(&format!("chmod 600 {}", path.display())), "{sentence}");
        }
    }

    #[test]
    fn text_that_is_no_key_is_refused_and_not_shown() {
        let (_dir, held) = held();
        let almost = "0".repeat(63);
        for text in ["", "xyz", almost.as_str(), "é"] {
            held.write_private(IDENTITY, text).expect("written");
            let sentence = held.identity_key().expect_err("no key").to_string();
            assert!(sentence.contains("64 hexadecimal digits"), "{sentence}");
            assert!(text.len() < 2 || !sentence.contains(text), "{sentence}");
        }
    }
}
