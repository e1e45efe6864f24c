//! A revocation as text: what the host that knows the peer's chains prints, what the holder of the mesh key signs, and
//! what any member hands to the mesh. One word to copy, so the three may be three machines.
//!
//! `revoke1` and, in base32: the DAG-CBOR map of mesh, peer, cut and signature (empty before it is signed), and the first
//! four bytes of its SHA-256 against accidents.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use super::base32;
use super::limits::MAX_REVOCATION_TEXT;
use crate::kernel::entry::{Revoke, Signature};
use crate::kernel::id::{Digest, Incarnation, MeshId, PeerId};

/// What every such text begins with.
pub const NAME: &str = "revoke1";
const CHECKSUM: usize = 4;

/// Who is to be revoked, or is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    pub mesh: MeshId,
    pub peer: PeerId,
    /// The number of the last entry that counts, by incarnation, ascending.
    pub last: Vec<(Incarnation, u64)>,
    signature: Option<Signature>,
}

/// Why a text is not a revocation, or cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    #[error("this is neither a peer's id nor a revocation, which begins with `{NAME}`; copy all of it")]
    NotOne,
    #[error("the revocation is damaged or cut; copy all of it again")]
    Damaged,
    #[error("the revocation is for mesh {0}, and this is the key of another")]
    OtherKey(MeshId),
    #[error("the revocation of {0} is not signed yet; sign it with `runmesh mesh revoke TEXT --mesh-key FILE`")]
    Unsigned(PeerId),
    #[error("the revocation is not signed by the key of its mesh {0}")]
    NotSigned(MeshId),
}

impl Revocation {
    /// What is to be signed.
    pub const fn of(mesh: MeshId, peer: PeerId, last: Vec<(Incarnation, u64)>) -> Self {
        Self { mesh, peer, last, signature: None }
    }

    /// The same, signed.
    ///
    /// # Errors
    /// [`RevocationError::OtherKey`] when the key is not this mesh's.
    pub fn sign(self, mesh_key: &SigningKey) -> Result<Self, RevocationError> {
        if mesh_key.verifying_key().to_bytes() != self.mesh.0 {
            return Err(RevocationError::OtherKey(self.mesh));
        }
        let Revoke { peer, last, signature } = Revoke::sign(mesh_key, self.peer, self.last);
        Ok(Self { mesh: self.mesh, peer, last, signature: Some(signature) })
    }

    pub const fn is_signed(&self) -> bool {
        self.signature.is_some()
    }

    /// What goes into an entry.
    ///
    /// # Errors
    /// [`RevocationError::Unsigned`], [`RevocationError::NotSigned`].
    pub fn revoke(&self) -> Result<Revoke, RevocationError> {
        let signature = self.signature.ok_or(RevocationError::Unsigned(self.peer))?;
        let revoke = Revoke { peer: self.peer, last: self.last.clone(), signature };
        if revoke.is_of(&self.mesh) { Ok(revoke) } else { Err(RevocationError::NotSigned(self.mesh)) }
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contents = serde_cbor::to_vec(self).map_err(|_| fmt::Error)?;
        write!(f, "{NAME}{}", base32::encode(&[contents.as_slice(), &checksum(&contents)].concat()))
    }
}

impl FromStr for Revocation {
    type Err = RevocationError;

    fn from_str(text: &str) -> Result<Self, RevocationError> {
        if text.len() > MAX_REVOCATION_TEXT {
            return Err(RevocationError::NotOne);
        }
        let text: String = text.chars().filter(|character| !character.is_whitespace()).collect();
        let text = text.to_ascii_lowercase();
        let digits = text.strip_prefix(NAME).ok_or(RevocationError::NotOne)?;
        let all = base32::decode(digits).map_err(|_| RevocationError::Damaged)?;
        let split = all.len().checked_sub(CHECKSUM).ok_or(RevocationError::Damaged)?;
        let (contents, sum) = all.split_at(split);
        if sum != checksum(contents) {
            return Err(RevocationError::Damaged);
        }
        let read: Self = serde_cbor::from_slice(contents).map_err(|_| RevocationError::Damaged)?;
        if read.is_signed() {
            read.revoke()?;
        }
        Ok(read)
    }
}

fn checksum(contents: &[u8]) -> [u8; CHECKSUM] {
    let digest = Digest::of(&[b"runmesh revocation text", contents]).0;
    [digest[0], digest[1], digest[2], digest[3]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::entry::MAX_CUTS;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[8; 32])
    }

    fn request(cuts: u64) -> Revocation {
        let mesh = MeshId(key().verifying_key().to_bytes());
        let last = (0..cuts).map(|number| (Incarnation(u64::MAX - cuts + number), u64::MAX)).collect();
        Revocation::of(mesh, PeerId::from_public_key([6; 32]), last)
    }

    #[test]
    fn it_is_asked_for_signed_and_handed_in_as_text() {
        let asked: Revocation = request(2).to_string().parse().expect("reads");
        assert_eq!(asked, request(2));
        assert_eq!(asked.revoke(), Err(RevocationError::Unsigned(asked.peer)));
        assert_eq!(asked.clone().sign(&SigningKey::from_bytes(&[9; 32])), Err(RevocationError::OtherKey(asked.mesh)));
        let signed: Revocation = asked.sign(&key()).expect("signs").to_string().to_uppercase().parse().expect("reads");
        assert!(signed.revoke().expect("signed").is_of(&signed.mesh));
        let forged = Revocation { last: Vec::new(), ..signed };
        assert_eq!(forged.to_string().parse::<Revocation>(), Err(RevocationError::NotSigned(forged.mesh)));
    }

    #[test]
    fn the_largest_fits_and_others_are_told_apart() {
        let largest = request(MAX_CUTS as u64).sign(&key()).expect("signs").to_string();
        assert!(largest.len() <= MAX_REVOCATION_TEXT, "{}", largest.len());
        assert!(largest.parse::<Revocation>().is_ok());
        let text = request(1).to_string();
        for end in NAME.len()..text.len() - 1 {
            assert_eq!(text[..end].parse::<Revocation>(), Err(RevocationError::Damaged), "{end}");
        }
        assert_eq!("12D3Koo".parse::<Revocation>(), Err(RevocationError::NotOne));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "(revoke1)?[a-z0-9 é]{0,200}") {
            let _ = text.parse::<Revocation>();
        }
    }
}
