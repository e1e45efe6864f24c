//! Peer exchange: who is where. Addresses are binary multiaddresses without `/p2p`; what they mean is net's matter.

use prost::Message as _;

use super::field::{count, decode, map, peer, size};
use super::limits::{MAX_ADDRESS, MAX_ADDRESSES, MAX_KNOWN, MAX_PEERS};
use super::{WireError, proto};
use crate::kernel::id::PeerId;

/// A peer and its addresses.
pub type Known = (PeerId, Vec<Vec<u8>>);

/// The question, with the asker's own addresses; those beyond the limits are left out.
pub fn seal_question(addresses: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    proto::WhoIsThere { address: fitting(addresses) }.encode_to_vec()
}

/// The asker's own addresses.
///
/// # Errors
/// [`WireError`], always provably bad.
pub fn open_question(bytes: &[u8]) -> Result<Vec<Vec<u8>>, WireError> {
    addresses(decode::<proto::WhoIsThere>(bytes, "a question for peers", MAX_PEERS)?.address)
}

/// The answer: peers and their addresses; those beyond the limits are left out.
pub fn seal_answer(peers: impl IntoIterator<Item = Known>) -> Vec<u8> {
    let mut answer = proto::Peers::default();
    let mut size = 0;
    for (peer, addresses) in peers.into_iter().take(MAX_KNOWN) {
        let known = proto::Known { peer: peer.public_key().to_vec(), address: fitting(addresses) };
        // A field's tag and length take at most four bytes here.
        size += known.encoded_len() + 4;
        if size > MAX_PEERS {
            break;
        }
        answer.known.push(known);
    }
    answer.encode_to_vec()
}

/// The peers and addresses of an answer.
///
/// # Errors
/// [`WireError`], always provably bad.
pub fn open_answer(bytes: &[u8]) -> Result<Vec<Known>, WireError> {
    let message: proto::Peers = decode(bytes, "an answer with peers", MAX_PEERS)?;
    let peers = map(message.known, "peers", MAX_KNOWN, |known| Ok((peer(&known.peer)?, addresses(known.address)?)))?;
    Ok(peers.into_iter().collect())
}

fn fitting(addresses: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    addresses.into_iter().filter(|address| address.len() <= MAX_ADDRESS).take(MAX_ADDRESSES).collect()
}

fn addresses(list: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, WireError> {
    count(list.len(), "addresses of a peer", MAX_ADDRESSES)?;
    list.iter().try_for_each(|address| size(address.len(), "an address", MAX_ADDRESS))?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::id::Cid;
    use crate::wire::field::arbitrary;

    fn peers(count: usize, addresses: usize, length: usize) -> Vec<Known> {
        let peer = |n: usize| PeerId::from_public_key(*Cid::of(&n.to_be_bytes()).digest());
        (0..count).map(|n| (peer(n), vec![vec![7; length]; addresses])).collect()
    }

    #[test]
    fn what_is_beyond_a_limit_is_left_out() {
        let opened = open_answer(&seal_answer(peers(MAX_KNOWN + 1, MAX_ADDRESSES + 1, 30))).expect("opens");
        assert_eq!(opened.len(), MAX_KNOWN);
        assert!(opened.iter().all(|(_, addresses)| addresses.len() == MAX_ADDRESSES));
        let sealed = seal_answer(peers(MAX_KNOWN, MAX_ADDRESSES, MAX_ADDRESS));
        assert!(sealed.len() <= MAX_PEERS);
        assert!(!open_answer(&sealed).expect("opens").is_empty());
        let long = vec![vec![0; MAX_ADDRESS + 1], vec![1]];
        assert_eq!(open_question(&seal_question(long)), Ok(vec![vec![1]]));
    }

    #[test]
    fn limits_hold() {
        let question = |address| open_question(&proto::WhoIsThere { address }.encode_to_vec());
        assert!(matches!(question(vec![vec![0]; MAX_ADDRESSES + 1]), Err(WireError::TooMany { .. })));
        assert!(matches!(question(vec![vec![0; MAX_ADDRESS + 1]]), Err(WireError::TooLarge { .. })));
        let known = |n: u8| proto::Known { peer: vec![n; 32], address: Vec::new() };
        let answer = |known| open_answer(&proto::Peers { known }.encode_to_vec());
        assert!(matches!(answer((0..=64).map(known).collect()), Err(WireError::TooMany { .. })));
        assert!(matches!(answer(vec![known(1), known(1)]), Err(WireError::Repeated { .. })));
        assert!(matches!(open_answer(&vec![0; MAX_PEERS + 1]), Err(WireError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn peers_are_read_back(peers in btree_map(arbitrary::peer(), vec(vec(any::<u8>(), 0..20), 0..5), 0..9)) {
            let peers: Vec<_> = peers.into_iter().collect();
            prop_assert_eq!(open_answer(&seal_answer(peers.clone())), Ok(peers));
        }

        #[test]
        fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..300)) {
            let _ = open_answer(&bytes);
            let _ = open_question(&bytes);
        }
    }
}
