//! What only the holder of the mesh key can say: who may join, and who may take part no longer.
//!
//! Each statement is signed by the mesh key itself, so it proves itself wherever it stands and whoever passes it on.

use std::collections::BTreeSet;

use ed25519_dalek::{Signer as _, SigningKey};
use serde::{Deserialize, Serialize};

use super::Signature;
use crate::kernel::id::{Incarnation, MeshId, PeerId};

/// The most incarnations that a revocation names. Own choice: a node makes one at each start that reaches nobody.
pub const MAX_CUTS: usize = 1024;

/// The right to join, as the mesh key's holder signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Right {
    /// The founder's own: the mesh key signed its peer id.
    Founder { signature: Signature },
    /// A ticket meant for one peer. Only the admitting member reads its time.
    Ticket { ticket: Ticket },
}

/// A short-lived right to join, meant for one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Random; the ticket's name.
    pub id: u64,
    /// Milliseconds since 1970 after which no member admits anybody by it.
    pub expires_ms: u64,
    /// The only labels that whoever joins by it may offer, lower case; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeSet<String>>,
    /// The mesh key's signature of all that.
    pub signature: Signature,
}

impl Ticket {
    /// A ticket signed by the mesh key.
    pub fn sign(mesh_key: &SigningKey, id: u64, expires_ms: u64) -> Self {
        Self::sign_for(mesh_key, id, expires_ms, None)
    }

    /// The same where whoever joins by it may offer these labels and no others.
    pub fn sign_for(mesh_key: &SigningKey, id: u64, expires_ms: u64, labels: Option<BTreeSet<String>>) -> Self {
        let mesh = MeshId(mesh_key.verifying_key().to_bytes());
        let unsigned = Self { id, expires_ms, labels, signature: Signature([0; 64]) };
        let signature = Signature(mesh_key.sign(&unsigned.signed_bytes(&mesh)).to_bytes());
        Self { signature, ..unsigned }
    }

    /// Whether that mesh's key signed it.
    pub fn is_of(&self, mesh: &MeshId) -> bool {
        self.signature.is_by(&mesh.0, &self.signed_bytes(mesh))
    }

    /// What the mesh key signs.
    fn signed_bytes(&self, mesh: &MeshId) -> Vec<u8> {
        let name: &[u8] = if self.labels.is_none() { b"runmesh ticket 1" } else { b"runmesh ticket 2" };
        let mut bytes = [name, &mesh.0, &self.id.to_be_bytes(), &self.expires_ms.to_be_bytes()].concat();
        for label in self.labels.iter().flatten() {
            bytes.extend_from_slice(&(label.len() as u64).to_be_bytes());
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes
    }
}

impl Right {
    /// The founder's right: the mesh key's signature of its peer id.
    pub fn founder(mesh_key: &SigningKey, peer: &PeerId) -> Self {
        let mesh = MeshId(mesh_key.verifying_key().to_bytes());
        Self::Founder { signature: Signature(mesh_key.sign(&founder_bytes(&mesh, peer)).to_bytes()) }
    }

    /// Whether that mesh's key gave this right to the peer.
    pub fn admits(&self, mesh: &MeshId, peer: &PeerId) -> bool {
        match self {
            Self::Founder { signature } => signature.is_by(&mesh.0, &founder_bytes(mesh, peer)),
            Self::Ticket { ticket } => ticket.is_of(mesh),
        }
    }
}

/// What the mesh key signs to name the first member.
fn founder_bytes(mesh: &MeshId, peer: &PeerId) -> Vec<u8> {
    [b"runmesh founder 1".as_slice(), &mesh.0, &peer.to_bytes()].concat()
}

/// A peer takes part no longer, by the word of the mesh key. Any entry may carry it.
///
/// Of what the peer wrote, each incarnation's entries up to the number named here count; everything else of it counts
/// for nothing, whenever it comes. Of several revocations of a peer the earliest cut of each incarnation holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    pub peer: PeerId,
    /// The number of the last entry that counts, by incarnation, ascending; at most [`MAX_CUTS`]. Of an incarnation that
    /// is not named here nothing counts.
    pub last: Vec<(Incarnation, u64)>,
    /// The mesh key's signature of all that.
    pub signature: Signature,
}

impl Revoke {
    /// A revocation signed by the mesh key.
    pub fn sign(mesh_key: &SigningKey, peer: PeerId, last: Vec<(Incarnation, u64)>) -> Self {
        let mesh = MeshId(mesh_key.verifying_key().to_bytes());
        let unsigned = Self { peer, last, signature: Signature([0; 64]) };
        let signature = Signature(mesh_key.sign(&unsigned.signed_bytes(&mesh)).to_bytes());
        Self { signature, ..unsigned }
    }

    /// Whether that mesh's key signed it, and it is well formed.
    pub fn is_of(&self, mesh: &MeshId) -> bool {
        self.last.len() <= MAX_CUTS
            && self.last.is_sorted_by(|a, b| a.0 < b.0)
            && self.signature.is_by(&mesh.0, &self.signed_bytes(mesh))
    }

    fn signed_bytes(&self, mesh: &MeshId) -> Vec<u8> {
        let mut bytes = [b"runmesh revocation 1".as_slice(), &mesh.0, &self.peer.to_bytes()].concat();
        for (incarnation, last) in &self.last {
            bytes.extend_from_slice(&incarnation.0.to_be_bytes());
            bytes.extend_from_slice(&last.to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_the_mesh_keys() {
        let (mesh_key, peer) = (SigningKey::from_bytes(&[8; 32]), PeerId::from_public_key([6; 32]));
        let mesh = MeshId(mesh_key.verifying_key().to_bytes());
        assert!(Right::founder(&mesh_key, &peer).admits(&mesh, &peer));
        assert!(!Right::founder(&mesh_key, &peer).admits(&mesh, &PeerId::from_public_key([7; 32])));
        let ticket = Ticket::sign(&mesh_key, 1, 2);
        assert!(ticket.is_of(&mesh));
        assert!(!Ticket { expires_ms: 3, ..ticket }.is_of(&mesh));
    }

    #[test]
    fn a_tickets_labels_are_signed_with_it() {
        let mesh_key = SigningKey::from_bytes(&[8; 32]);
        let mesh = MeshId(mesh_key.verifying_key().to_bytes());
        let labels = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>());
        let ticket = Ticket::sign_for(&mesh_key, 1, 2, labels(&["gpu", "linux"]));
        assert!(ticket.is_of(&mesh));
        for other in [None, labels(&[]), labels(&["gpu"]), labels(&["gpulinux"]), labels(&["gpu", "linux", "x64"])] {
            assert!(!Ticket { labels: other.clone(), ..ticket.clone() }.is_of(&mesh), "{other:?}");
        }
        assert!(!Ticket { labels: labels(&[]), ..Ticket::sign(&mesh_key, 1, 2) }.is_of(&mesh), "none is not no limit");
    }

    #[test]
    fn a_revocation_and_its_cut_are_the_mesh_keys() {
        let mesh_key = SigningKey::from_bytes(&[8; 32]);
        let mesh = MeshId(mesh_key.verifying_key().to_bytes());
        let peer = PeerId::from_public_key([6; 32]);
        let revoke = Revoke::sign(&mesh_key, peer, vec![(Incarnation(1), 7), (Incarnation(4), 2)]);
        assert!(revoke.is_of(&mesh));
        assert!(!revoke.is_of(&MeshId([5; 32])));
        assert!(!Revoke { peer: PeerId::from_public_key([7; 32]), ..revoke.clone() }.is_of(&mesh));
        assert!(!Revoke { last: vec![(Incarnation(1), 7)], ..revoke }.is_of(&mesh));
        let unsorted = vec![(Incarnation(4), 2), (Incarnation(1), 7)];
        assert!(!Revoke::sign(&mesh_key, peer, unsorted).is_of(&mesh));
        let many = (0..=MAX_CUTS as u64).map(|number| (Incarnation(number), 1)).collect();
        assert!(!Revoke::sign(&mesh_key, peer, many).is_of(&mesh));
    }
}
