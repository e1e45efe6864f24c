//! The names of things: peers, meshes, authors, entries, tasks.
//!
//! Each is a newtype over the bytes that all nodes agree on, with one text form for people. Nothing here is ever
//! read from anywhere but those bytes.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use ipld_core::cid::{Cid as IpldCid, multihash::Multihash};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Multicodec of DAG-CBOR, the encoding of every entry (multiformats table).
const DAG_CBOR: u64 = 0x71;
/// Multicodec of plain bytes, which logs and artifacts are (multiformats table).
const RAW: u64 = 0x55;
/// Multicodec of SHA-256 (multiformats table).
const SHA2_256: u64 = 0x12;
/// What stands before the 32 key bytes in the binary PeerId of an Ed25519 key: an identity multihash (code 0,
/// 36 bytes) of the protobuf `PublicKey { Type: Ed25519, Data: 32 bytes }` (libp2p peer-ids specification).
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Why a text or some bytes are not the name they were given as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("`{0}` is not a peer id: expected the base58 name of an Ed25519 key, like 12D3KooW…")]
    Peer(String),
    #[error("`{0}` is not a mesh id: expected 64 hexadecimal digits")]
    Mesh(String),
    #[error("`{0}` is not a task id: expected 64 hexadecimal digits")]
    Task(String),
    #[error("`{0}` is not an entry id: expected the CID of a DAG-CBOR block hashed with SHA-256, like bafyrei…")]
    Entry(String),
    #[error(
        "`{0}` is not the id of a log or an artifact: expected the CID of plain bytes hashed with SHA-256, like bafkrei…"
    )]
    Blob(String),
}

/// The order of the bytes. Ids are hashes and keys, so that their first eight bytes nearly always decide: large meshes
/// look up little else.
fn order(a: &[u8; 32], b: &[u8; 32]) -> Ordering {
    let head = |bytes: &[u8; 32]| u64::from_be_bytes(std::array::from_fn(|at| bytes[at]));
    head(a).cmp(&head(b)).then_with(|| a.cmp(b))
}

macro_rules! ordered {
    ($name:ident) => {
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                order(&self.0, &other.0)
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
    };
}

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The SHA-256 of the parts, one after the other.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// The number of differing bits, 0 to 256.
    pub fn hamming(&self, other: &Self) -> u32 {
        let words = self.0.as_chunks::<8>().0.iter().zip(other.0.as_chunks::<8>().0);
        words.map(|(a, b)| (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)).count_ones()).sum()
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bytes32(deserializer).map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The identity of a node: its Ed25519 public key, named as libp2p names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerId([u8; 32]);

ordered!(PeerId);

impl PeerId {
    /// The peer whose Ed25519 public key has these bytes.
    pub const fn from_public_key(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The Ed25519 public key.
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    /// The binary form that libp2p uses: 38 bytes.
    pub fn to_bytes(self) -> [u8; 38] {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }

    /// Reads the binary form.
    ///
    /// # Errors
    /// [`IdError::Peer`] when the bytes are not the PeerId of an Ed25519 key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        let bad = || IdError::Peer(bs58::encode(&bytes[..bytes.len().min(64)]).into_string());
        let key = bytes.strip_prefix(&PEER_ID_PREFIX).ok_or_else(bad)?;
        Ok(Self(key.try_into().map_err(|_| bad())?))
    }

    /// Where the peer stands in the hash space that elections measure distances in: SHA-256 of its PeerId bytes.
    pub fn place(&self) -> Digest {
        Digest::of(&[&self.to_bytes()])
    }

    /// The last six characters of the name, for people's eyes only.
    pub fn short(&self) -> String {
        let name = self.to_string();
        name[name.len() - 6..].to_owned()
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_bytes()).into_string())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer:{}", self.short())
    }
}

impl FromStr for PeerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Peer(text.chars().take(80).collect());
        // 38 bytes take 52 or 53 base58 digits; base58 decoding takes quadratic time, so longer text is not tried.
        if text.len() > 64 {
            return Err(bad());
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| bad())?;
        Self::from_bytes(&bytes).map_err(|_| bad())
    }
}

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bytes32(deserializer).map(Self)
    }
}

macro_rules! hex_name {
    ($(#[$doc:meta])* $name:ident, $error:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; 32]);

        ordered!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", stringify!($error).to_lowercase(), self.short())
            }
        }

        impl $name {
            /// The first eight hexadecimal digits, for people's eyes only.
            pub fn short(&self) -> String {
                hex::encode(&self.0[..4])
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| IdError::$error(text.chars().take(80).collect()))?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                bytes32(deserializer).map(Self)
            }
        }
    };
}

hex_name! {
    /// The id of a mesh: the public half of its Ed25519 mesh key.
    MeshId, Mesh
}

hex_name! {
    /// The id of a task: the hash of repository, workflow path and trigger (`task::Workload::id`).
    TaskId, Task
}

/// Distinguishes the chains that one peer has written with different databases. Random, made with the database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Who writes a chain of entries: a peer in one of its incarnations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Author {
    #[serde(rename = "p")]
    pub peer: PeerId,
    #[serde(rename = "i")]
    pub incarnation: Incarnation,
}

impl fmt::Debug for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}", self.peer, self.incarnation)
    }
}

macro_rules! content_id {
    ($(#[$doc:meta])* $name:ident, $codec:expr, $error:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);

        ordered!($name);

        impl $name {
            /// The id of exactly these bytes.
            pub fn of(bytes: &[u8]) -> Self {
                Self(Digest::of(&[bytes]).0)
            }

            /// The id with this SHA-256 digest.
            pub const fn from_digest(digest: [u8; 32]) -> Self {
                Self(digest)
            }

            /// The SHA-256 digest in it.
            pub const fn digest(&self) -> &[u8; 32] {
                &self.0
            }

            /// The last eight characters, for people's eyes only.
            pub fn short(&self) -> String {
                let text = self.to_string();
                text[text.len() - 8..].to_owned()
            }

            fn to_ipld(self) -> IpldCid {
                match Multihash::wrap(SHA2_256, &self.0) {
                    Ok(hash) => IpldCid::new_v1($codec, hash),
                    Err(_) => unreachable!("a multihash holds up to 64 bytes"),
                }
            }

            fn from_ipld(cid: &IpldCid) -> Option<Self> {
                let hash = cid.hash();
                let fits = cid.version() == ipld_core::cid::Version::V1 && cid.codec() == $codec && hash.code() == SHA2_256;
                if fits { hash.digest().try_into().ok().map(Self) } else { None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.to_ipld(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", stringify!($error).to_lowercase(), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bad = || IdError::$error(text.chars().take(80).collect());
                if text.len() > 128 {
                    return Err(bad());
                }
                let cid: IpldCid = text.parse().map_err(|_| bad())?;
                Self::from_ipld(&cid).ok_or_else(bad)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.to_ipld().serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let cid = IpldCid::deserialize(deserializer)?;
                Self::from_ipld(&cid)
                    .ok_or_else(|| serde::de::Error::custom(concat!("not the CID of ", $what, " hashed with SHA-256")))
            }
        }
    };
}

content_id! {
    /// The id of an entry: the SHA-256 of its DAG-CBOR bytes, written as a CID version 1.
    Cid, DAG_CBOR, Entry, "a DAG-CBOR block"
}

content_id! {
    /// The id of a log or an artifact: the SHA-256 of its bytes, written as a CID version 1.
    BlobId, RAW, Blob, "plain bytes"
}

fn bytes32<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    struct Visitor;

    impl serde::de::Visitor<'_> for Visitor {
        type Value = [u8; 32];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("32 bytes")
        }

        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
        }
    }

    deserializer.deserialize_bytes(Visitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_are_read_back() {
        let peer = PeerId::from_public_key([7; 32]);
        assert!(peer.to_string().starts_with("12D3KooW"));
        assert_eq!(peer.to_string().parse(), Ok(peer));
        let cid = Cid::of(b"block");
        assert!(cid.to_string().starts_with("bafyrei"));
        assert_eq!(cid.to_string().parse(), Ok(cid));
        let blob = BlobId::of(b"block");
        assert!(blob.to_string().starts_with("bafkrei"));
        assert_eq!(blob.to_string().parse(), Ok(blob));
        assert!(blob.to_string().parse::<Cid>().is_err() && cid.to_string().parse::<BlobId>().is_err());
        let task = TaskId([9; 32]);
        assert_eq!(task.to_string().parse(), Ok(task));
        assert!("12D3KooWnot".parse::<PeerId>().is_err());
        assert!("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG".parse::<Cid>().is_err());
    }

    #[test]
    fn ids_stand_in_the_order_of_their_bytes() {
        let mut all: Vec<[u8; 32]> = (0..64_u8).map(|n| Digest::of(&[&[n]]).0).collect();
        // Some that only their last bytes tell apart.
        all.extend((0..8).map(|n| std::array::from_fn(|at| if at == 31 - n { 1 } else { 200 })));
        let mut ids: Vec<Cid> = all.iter().map(|bytes| Cid::from_digest(*bytes)).collect();
        let mut peers: Vec<PeerId> = all.iter().map(|bytes| PeerId::from_public_key(*bytes)).collect();
        all.sort_unstable();
        ids.sort_unstable();
        peers.sort_unstable();
        assert!(all.iter().eq(ids.iter().map(Cid::digest)) && all.iter().eq(peers.iter().map(PeerId::public_key)));
    }

    #[test]
    fn hamming_counts_bits() {
        let (zero, mut other) = (Digest([0; 32]), [0; 32]);
        other[0] = 0b101;
        other[31] = 0x80;
        assert_eq!(zero.hamming(&Digest(other)), 3);
        assert_eq!(zero.hamming(&Digest([0xff; 32])), 256);
    }
}
