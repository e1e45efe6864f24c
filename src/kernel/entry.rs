//! One signed, content-addressed event batch of the Merkle clock.
//!
//! The bytes of an entry are the DAG-CBOR list `[body, signature]`; the signature covers exactly the body's bytes as
//! they stand there, and the entry's id is the SHA-256 of the whole. What bytes are worth opening at all (sizes,
//! depth) is the wire room's to say; here stands what an entry *is*.

mod right;

use std::fmt;
use std::sync::Arc;

pub use right::{MAX_CUTS, Revoke, Right, Ticket};

use ed25519_dalek::{Signature as DalekSignature, Signer as _, SigningKey, VerifyingKey};
use ipld_core::ipld::Ipld;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Deserialize, Serialize};

use super::id::{Author, Cid, Digest, MeshId, PeerId, TaskId};
use super::task::{Conclusion, Fence, Products, ReleaseReason, Workload};

/// The format of entries written by this version.
pub const FORMAT: u8 = 1;
/// The most parents an entry may name. An author that knows more heads names these many, the rest next time.
pub const MAX_PARENTS: usize = 256;
/// The most events in one entry.
pub const MAX_EVENTS: usize = 64;
/// The most bytes of a reason or note that a person reads.
pub const MAX_NOTE: usize = 500;

/// Why bytes are not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("not a DAG-CBOR entry: {0}")]
    Malformed(String),
    #[error("entry format {0} is unknown here; this version writes and reads format {FORMAT}")]
    Format(u8),
    #[error("the entry is not in canonical form")]
    NotCanonical,
    #[error("the entry names {0} parents, more than {MAX_PARENTS}, or not in ascending order without repeats")]
    Parents(usize),
    #[error("the entry holds {0} events; 1 to {MAX_EVENTS} are allowed")]
    Events(usize),
    #[error("the entry has sequence number 0; the first is 1")]
    Sequence,
    #[error("the entry's signature is not its author's")]
    Signature,
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sig:{}", hex::encode(&self.0[..4]))
    }
}

impl Signature {
    /// Whether this is the key's signature of the message, by the strict rules (no small-order keys, canonical
    /// scalars), which every node must apply alike.
    pub fn is_by(&self, key: &[u8; 32], message: &[u8]) -> bool {
        VerifyingKey::from_bytes(key)
            .is_ok_and(|key| key.verify_strict(message, &DalekSignature::from_bytes(&self.0)).is_ok())
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Signature;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Signature, E> {
                bytes.try_into().map(Signature).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// A hybrid logical timestamp (Kulkarni et al., 2014). A label for people: no entry is refused for it and no rule of
/// folding reads it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hlc {
    /// Milliseconds since 1970, by the largest clock among the entry's author and its ancestors.
    #[serde(rename = "m")]
    pub ms: u64,
    /// Counts entries within that millisecond.
    #[serde(rename = "c")]
    pub count: u32,
}

/// What an entry says and who says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    #[serde(rename = "v")]
    pub format: u8,
    #[serde(rename = "mesh")]
    pub mesh: MeshId,
    #[serde(rename = "by")]
    pub author: Author,
    /// The author's own count of its entries, from 1.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// All heads that the author knew, ascending.
    #[serde(rename = "on")]
    pub parents: Vec<Cid>,
    #[serde(rename = "at")]
    pub time: Hlc,
    #[serde(rename = "ev")]
    pub events: Vec<Event>,
}

/// A peer becomes a member. Signed by the admitting member as part of its entry; a founder admits itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    pub peer: PeerId,
    pub right: Right,
}

/// A task exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduce {
    pub workload: Arc<Workload>,
}

/// The author takes a task for one attempt. The entry's id and the attempt are the fencing token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub task: TaskId,
    /// One more than the highest claim of the task among the entry's ancestors.
    pub attempt: u32,
    /// The introduction whose id seeds the election that the author ranks by.
    pub anchor: Cid,
}

/// The author cannot run a task and goes to the end of its ranking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decline {
    pub task: TaskId,
    pub why: String,
}

/// The author gives its claim back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub task: TaskId,
    pub fence: Fence,
    pub reason: ReleaseReason,
    /// What a person needs to know of it, at most [`MAX_NOTE`] bytes.
    pub note: String,
}

/// The workflow has run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    pub task: TaskId,
    pub fence: Fence,
    pub conclusion: Conclusion,
    pub duration_ms: u64,
    /// What a person needs to know of it, at most [`MAX_NOTE`] bytes.
    pub note: String,
    /// What it left behind at its author's host.
    #[serde(default, skip_serializing_if = "Products::is_empty")]
    pub products: Products,
}

/// Somebody asked that a task end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    pub task: TaskId,
    pub why: String,
}

/// A task that nobody had begun is not wanted any more: a newer one takes its place, or its workflow is gone. Void where
/// somebody has claimed it and the author did not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdraw {
    pub task: TaskId,
    pub why: String,
}

/// What a later version might know: a cancellation of another kind. Only in the build of tests/versions.rs.
#[cfg(feature = "later")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallOff {
    pub task: TaskId,
}

/// Nobody took a `p2p-eligible` task in its time; GitHub keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    pub task: TaskId,
}

/// The last attempt was lost too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lose {
    pub task: TaskId,
    /// The attempt that was the last.
    pub attempt: u32,
}

/// The author's version knows the rules of folding up to this number ([`super::rules`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declare {
    pub rules: u32,
}

/// The author proposes that what lies beneath an entry be dropped, and a snapshot be kept instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The entry that divides the history: every other one is its ancestor or its descendant.
    pub cut: Cid,
    /// The hash of the snapshot of the state at the cut.
    pub hash: Digest,
    /// Chains that count only up to a number, as the author knows them: from this one on they are void. Ascending.
    pub void: Vec<(Author, u64)>,
}

/// The author agrees to what an entry proposes. To a [`Checkpoint`]: it has folded the state at the cut for itself and
/// found the same. To a [`Retire`]: it has not heard of that member for as long either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledge {
    /// The entry that proposes it.
    pub proposal: Cid,
}

/// The author proposes that a member that has stayed away be waited for no longer. Once more than half of the members
/// agree, of that member's entries those that this entry knows count, and what new incarnations of it write in knowledge
/// of this entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retire {
    pub peer: PeerId,
}

/// No node shall claim anything before somebody who knows of this resumes the mesh. What runs goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// What a person needs to know of it, at most [`MAX_NOTE`] bytes.
    pub why: String,
}

/// The pauses that the entry knows are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {}

macro_rules! events {
    ($($(#[$attribute:meta])* $name:ident $kind:literal,)*) => {
        /// One event of an entry. On the wire: a map of one pair, kind and contents.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Event {
            $($(#[$attribute])* $name($name),)*
            /// An event of a kind that a later version defines. It is kept and passed on as it came, and means nothing here.
            Unknown { kind: String, contents: Ipld },
        }

        impl Event {
            /// The kind, as it stands on the wire.
            pub fn kind(&self) -> &str {
                match self {
                    $($(#[$attribute])* Self::$name(_) => $kind,)*
                    Self::Unknown { kind, .. } => kind,
                }
            }
        }

        impl Serialize for Event {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(1))?;
                match self {
                    $($(#[$attribute])* Self::$name(contents) => map.serialize_entry($kind, contents)?,)*
                    Self::Unknown { kind, contents } => map.serialize_entry(kind, contents)?,
                }
                map.end()
            }
        }

        impl<'de> Deserialize<'de> for Event {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct OnePair;

                impl<'de> Visitor<'de> for OnePair {
                    type Value = Event;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a map of one pair: an event's kind and its contents")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event, A::Error> {
                        let kind: String = map.next_key()?.ok_or_else(|| A::Error::custom("an event without a kind"))?;
                        let event = match kind.as_str() {
                            $($(#[$attribute])* $kind => Event::$name(map.next_value()?),)*
                            _ => Event::Unknown { kind, contents: map.next_value()? },
                        };
                        match map.next_key::<String>()? {
                            None => Ok(event),
                            Some(second) => Err(A::Error::custom(format!("an event of two kinds: `{second}` too"))),
                        }
                    }
                }

                deserializer.deserialize_map(OnePair)
            }
        }
    };
}

events! {
    Admit "admit",
    Introduce "introduce",
    Claim "claim",
    Decline "decline",
    Release "release",
    Finish "finish",
    Cancel "cancel",
    Leave "leave",
    Lose "lose",
    Declare "declare",
    Checkpoint "checkpoint",
    Acknowledge "acknowledge",
    Retire "retire",
    Revoke "revoke",
    Pause "pause",
    Resume "resume",
    Withdraw "withdraw",
    #[cfg(feature = "later")]
    CallOff "call-off",
}

/// An entry whose form and signature have been checked. There is no other way to make one.
#[derive(Clone, PartialEq)]
pub struct Entry {
    cid: Cid,
    body: Arc<Body>,
    bytes: Arc<[u8]>,
}

impl Entry {
    /// Signs a body. The author in it must be the key's.
    pub fn seal(body: Body, key: &SigningKey) -> Self {
        debug_assert_eq!(body.author.peer.public_key(), &key.verifying_key().to_bytes());
        let mut bytes = vec![LIST_OF_TWO];
        let body_bytes = match serde_cbor::to_vec(&body) {
            Ok(bytes) => bytes,
            Err(error) => unreachable!("an entry's body always encodes: {error}"),
        };
        let signature = key.sign(&body_bytes).to_bytes();
        bytes.extend_from_slice(&body_bytes);
        bytes.extend_from_slice(&BYTES_OF_64);
        bytes.extend_from_slice(&signature);
        Self { cid: Cid::of(&bytes), body: Arc::new(body), bytes: bytes.into() }
    }

    /// Reads an entry and checks its form, its canonical encoding and its signature. Who the author is to the mesh,
    /// and whether the mesh is the right one, is not asked here.
    ///
    /// # Errors
    /// [`EntryError`] says what is wrong; such bytes are provably bad, whoever sent them.
    pub fn open(bytes: &[u8]) -> Result<Self, EntryError> {
        let malformed = |what: &str| EntryError::Malformed(what.to_owned());
        let rest = bytes.strip_prefix(&[LIST_OF_TWO]).ok_or_else(|| malformed("not a list of body and signature"))?;
        let split = rest.len().checked_sub(BYTES_OF_64.len() + 64).ok_or_else(|| malformed("too short"))?;
        let (body_bytes, tail) = rest.split_at(split);
        let signature = tail.strip_prefix(&BYTES_OF_64).ok_or_else(|| malformed("no signature at the end"))?;
        let signature = Signature(signature.try_into().map_err(|_| malformed("no signature at the end"))?);
        let body: Body =
            serde_cbor::from_slice(body_bytes).map_err(|error| EntryError::Malformed(error.to_string()))?;
        body.check()?;
        // A second spelling of the same body would be a second id for it.
        if serde_cbor::to_vec(&body).ok().as_deref() != Some(body_bytes) {
            return Err(EntryError::NotCanonical);
        }
        if !signature.is_by(body.author.peer.public_key(), body_bytes) {
            return Err(EntryError::Signature);
        }
        Ok(Self { cid: Cid::of(bytes), body: Arc::new(body), bytes: bytes.into() })
    }

    pub const fn cid(&self) -> Cid {
        self.cid
    }

    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The body, for whoever keeps it longer than the entry and its bytes.
    pub const fn shared_body(&self) -> &Arc<Body> {
        &self.body
    }

    pub fn author(&self) -> Author {
        self.body.author
    }

    pub fn sequence(&self) -> u64 {
        self.body.sequence
    }

    /// The signed bytes, as they are stored and sent.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} by {:?} #{} on {:?}: {:?}",
            self.cid,
            self.author(),
            self.sequence(),
            self.body.parents,
            self.body.events
        )
    }
}

/// CBOR head of a list of two.
const LIST_OF_TWO: u8 = 0x82;
/// CBOR head of a byte string of 64.
const BYTES_OF_64: [u8; 2] = [0x58, 64];

impl Body {
    fn check(&self) -> Result<(), EntryError> {
        if self.format != FORMAT {
            return Err(EntryError::Format(self.format));
        }
        if self.parents.len() > MAX_PARENTS || !self.parents.is_sorted_by(|a, b| a < b) {
            return Err(EntryError::Parents(self.parents.len()));
        }
        if self.events.is_empty() || self.events.len() > MAX_EVENTS {
            return Err(EntryError::Events(self.events.len()));
        }
        if self.sequence == 0 {
            return Err(EntryError::Sequence);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::id::Incarnation;
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn body(events: Vec<Event>) -> Body {
        let author =
            Author { peer: PeerId::from_public_key(key().verifying_key().to_bytes()), incarnation: Incarnation(1) };
        let parents = vec![Cid::from_digest([1; 32]), Cid::from_digest([2; 32])];
        Body {
            format: FORMAT,
            mesh: MeshId([5; 32]),
            author,
            sequence: 1,
            parents,
            time: Hlc { ms: 7, count: 0 },
            events,
        }
    }

    fn cancel() -> Event {
        Event::Cancel(Cancel { task: TaskId([4; 32]), why: "because".to_owned() })
    }

    #[test]
    fn an_entry_is_read_back_as_it_was_sealed() {
        let sealed = Entry::seal(body(vec![cancel()]), &key());
        assert_eq!(Entry::open(sealed.bytes()), Ok(sealed));
    }

    #[test]
    fn an_event_of_a_later_version_is_kept_as_it_came() {
        let later =
            Event::Unknown { kind: "later".to_owned(), contents: Ipld::List(vec![Ipld::Integer(1), Ipld::Null]) };
        let sealed = Entry::seal(body(vec![later.clone()]), &key());
        let opened = Entry::open(sealed.bytes()).expect("opens");
        assert_eq!(opened.body().events, vec![later]);
        assert_eq!(opened.cid(), sealed.cid());
    }

    #[test]
    fn any_changed_byte_is_refused() {
        let sealed = Entry::seal(body(vec![cancel()]), &key());
        for at in 0..sealed.bytes().len() {
            let mut bytes = sealed.bytes().to_vec();
            bytes[at] ^= 1;
            assert!(Entry::open(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn limits_hold() {
        let mut many = body(vec![cancel()]);
        many.parents = (0..=MAX_PARENTS).map(|n| Cid::of(&n.to_be_bytes())).collect();
        many.parents.sort();
        assert!(matches!(Entry::open(Entry::seal(many, &key()).bytes()), Err(EntryError::Parents(257))));
        assert!(matches!(Entry::open(Entry::seal(body(vec![]), &key()).bytes()), Err(EntryError::Events(0))));
        let mut unsorted = body(vec![cancel()]);
        unsorted.parents.reverse();
        assert!(matches!(Entry::open(Entry::seal(unsorted, &key()).bytes()), Err(EntryError::Parents(2))));
    }
}
