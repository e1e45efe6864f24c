//! The root of a Merkle tree over a list of byte strings, as RFC 9162 section 2.1.1 defines it: a leaf is hashed with a
//! leading 0, two nodes with a leading 1, and the left part is the largest power of two that leaves something over.

use super::id::{Author, Digest};
use super::io::Vector;

/// The root over these leaves; over none the hash of nothing.
pub fn root(leaves: &[Vec<u8>]) -> Digest {
    match leaves {
        [] => Digest::of(&[]),
        [leaf] => Digest::of(&[&[0], leaf]),
        _ => {
            let left = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(left);
            Digest::of(&[&[1], &root(left).0, &root(right).0])
        }
    }
}

/// The root over a vector: its chains in their order, each as public key, incarnation and sequence, big-endian.
pub fn vector_root(vector: &Vector) -> Digest {
    let leaf = |(author, sequence): (&Author, &u64)| {
        let Author { peer, incarnation } = author;
        [peer.public_key().as_slice(), &incarnation.0.to_be_bytes(), &sequence.to_be_bytes()].concat()
    };
    root(&vector.iter().map(leaf).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::id::{Incarnation, PeerId};

    /// The tree that the certificate transparency project tests with (RFC 6962's hashes are the same).
    #[test]
    fn roots_are_those_of_the_standard() {
        let leaves: Vec<Vec<u8>> =
            ["", "00", "10", "2021", "3031", "40414243"].iter().map(|leaf| hex::decode(leaf).unwrap()).collect();
        let known = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        ];
        for (number, known) in known.iter().enumerate() {
            assert_eq!(hex::encode(root(&leaves[..number]).0), *known, "{number} leaves");
        }
    }

    #[test]
    fn another_vector_has_another_root() {
        let author = |n: u8| Author { peer: PeerId::from_public_key([n; 32]), incarnation: Incarnation(1) };
        let vector = Vector::from([(author(1), 3), (author(2), 5)]);
        assert_eq!(vector_root(&vector), vector_root(&vector.clone()));
        assert_ne!(vector_root(&vector), vector_root(&Vector::from([(author(1), 5), (author(2), 3)])));
        assert_ne!(vector_root(&vector), vector_root(&Vector::from([(author(1), 3)])));
    }
}
