//! What is kept of the history beneath a cut when its entries are dropped.
//!
//! A function of the entries beneath the cut, of which chains the checkpoint calls void, and of nothing else: every
//! node makes the same bytes, by whichever earlier checkpoints it came there, and a checkpoint names their hash.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clock::{ChainBase, MemberBase};
use super::entry::{Hlc, Revoke};
use super::id::{Author, Cid, Digest, MeshId, TaskId};
use super::ledger::{Kept, Paused, Submitted};

/// The format of snapshots that this version makes and reads.
pub const FORMAT: u8 = 1;

/// The most bytes of a snapshot. Own choice: some 50,000 open tasks; a state beyond it is not condensed.
pub const MAX_BYTES: usize = 64 << 20;
/// The most bytes of a part of one, as peers send it to each other: a page of entries.
pub const PART: usize = 1 << 20;
/// The most parts of one.
pub const MAX_PARTS: u32 = (MAX_BYTES / PART) as u32;
/// Heights and sequence numbers beyond this are nobody's, and would overflow soon.
const MAX_NUMBER: u64 = 1 << 48;

/// Why bytes are not a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("not a readable snapshot: {0}")]
    Malformed(String),
    #[error("snapshot format {0} is unknown here; this version reads format {FORMAT}")]
    Format(u8),
    #[error("the snapshot is of another mesh")]
    Mesh,
    #[error("the snapshot is not in canonical form")]
    NotCanonical,
    #[error("the snapshot names {0}, whom no right of this mesh's key admits")]
    Right(super::id::PeerId),
    #[error("the snapshot calls {0} revoked, and the mesh's key did not say so")]
    Revocation(super::id::PeerId),
}

/// A snapshot with its bytes and their hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub snapshot: Arc<Snapshot>,
    pub bytes: Arc<[u8]>,
    pub hash: Digest,
}

/// The state at a cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    pub format: u8,
    pub mesh: MeshId,
    /// The entry that divides what was dropped from what was not.
    pub cut: Cid,
    /// Its author. Its number is that of the author's chain.
    pub author: Author,
    pub height: u64,
    pub time: Hlc,
    /// By author.
    pub chains: Vec<ChainBase>,
    /// By peer id.
    pub members: Vec<MemberBase>,
    /// Open tasks, by id.
    pub open: Vec<(TaskId, Kept)>,
    /// Tasks that have ended not long before, and at which height; by id.
    pub closed: Vec<(TaskId, u64)>,
    /// What was submitted last of each workflow, for good; by repository and path.
    pub submitted: Vec<Submitted>,
    /// Whether the mesh is paused.
    pub paused: Option<Paused>,
    /// Whom the mesh key has put out, for good; by peer id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<Revoke>,
    /// The greatest number of rules that an entry beneath stood under, where it is beyond [`Self::RULES_UNNAMED`]: who
    /// does not know them knows by this that the snapshot may be more than it understands.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rules: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Snapshot {
    /// Up to this number every version that reads this format knows the rules, and no snapshot names them.
    pub const RULES_UNNAMED: u32 = 2;

    /// With its bytes, and their hash.
    pub fn seal(self) -> Sealed {
        match serde_cbor::to_vec(&self) {
            Ok(bytes) => Sealed { hash: hash(&bytes), snapshot: Arc::new(self), bytes: bytes.into() },
            Err(error) => unreachable!("ids, numbers and text always encode: {error}"),
        }
    }
}

impl Snapshot {
    /// Whether lists are in order and without repeats, and no number is out of all bounds.
    fn is_sound(&self) -> bool {
        let numbers = self.chains.iter().flat_map(|chain| [chain.entries, chain.void.unwrap_or(1)]);
        self.height < MAX_NUMBER
            && (self.rules == 0 || self.rules > Self::RULES_UNNAMED)
            && numbers.into_iter().all(|number| number < MAX_NUMBER)
            && self.chains.iter().all(|chain| chain.counting <= chain.entries)
            && self.chains.is_sorted_by(|a, b| a.author < b.author)
            && self.chains.iter().any(|chain| chain.author == self.author && chain.entries > 0)
            && self.members.is_sorted_by(|a, b| a.peer < b.peer)
            && self.open.is_sorted_by(|a, b| a.0 < b.0)
            && self.closed.is_sorted_by(|a, b| a.0 < b.0)
            && self.submitted.is_sorted_by(|a, b| a.workflow < b.workflow)
            && self.open.iter().all(|(task, kept)| kept.is_of(task))
            && self.revoked.is_sorted_by(|a, b| (a.peer, a.signature.0) < (b.peer, b.signature.0))
    }
}

/// The name of a snapshot of these bytes.
pub fn hash(bytes: &[u8]) -> Digest {
    Digest::of(&[b"runmesh snapshot 1", bytes])
}

impl Sealed {
    /// Reads a snapshot. Every member in it has a right that the mesh key signed. Whether it tells the truth beyond
    /// that, only a checkpoint that names its hash can say.
    ///
    /// # Errors
    /// [`SnapshotError`] says what is wrong.
    pub fn open(bytes: Arc<[u8]>, mesh: &MeshId) -> Result<Self, SnapshotError> {
        let snapshot: Snapshot =
            serde_cbor::from_slice(&bytes).map_err(|error| SnapshotError::Malformed(error.to_string()))?;
        if snapshot.format != FORMAT {
            return Err(SnapshotError::Format(snapshot.format));
        }
        if snapshot.mesh != *mesh {
            return Err(SnapshotError::Mesh);
        }
        let admitted = |member: &&MemberBase| member.rights.iter().any(|right| right.admits(mesh, &member.peer));
        if let Some(stranger) = snapshot.members.iter().find(|member| !admitted(member)) {
            return Err(SnapshotError::Right(stranger.peer));
        }
        if let Some(forged) = snapshot.revoked.iter().find(|revoke| !revoke.is_of(mesh)) {
            return Err(SnapshotError::Revocation(forged.peer));
        }
        if !snapshot.is_sound() || serde_cbor::to_vec(&snapshot).ok().as_deref() != Some(&bytes[..]) {
            return Err(SnapshotError::NotCanonical);
        }
        Ok(Self { hash: hash(&bytes), snapshot: Arc::new(snapshot), bytes })
    }
}
