//! Presence, signed: what a node says of itself now.

use std::sync::Arc;

use ed25519_dalek::{Signer as _, SigningKey};
use prost::Message as _;

use super::field::{array, cid, clip, count, decode, map, peer, set, size, task, text};
use super::limits::{
    MAX_COVERED, MAX_GOSSIP, MAX_HEADS, MAX_LABEL, MAX_LABELS, MAX_RUNNING, MAX_SOURCE, MAX_SOURCES, MAX_UNHEARD,
    MAX_VERSION,
};
use super::{WireError, proto};
use crate::kernel::entry::Signature;
use crate::kernel::id::MeshId;
use crate::kernel::io::{Offer, Presence, RepositoryMark, Signed};
use crate::kernel::task::Fence;

/// Signs a presence with its peer's key. A presence is a hint, so what is beyond a limit is left out: the last of too
/// many heads, labels, sources, running tasks or members not heard, and labels and sources that are too long. A
/// host's settings keep within [`MAX_LABELS`], [`MAX_SOURCES`] and [`MAX_RUNNING`] slots; a source or task that is
/// left out is one that others do not know of.
pub fn seal(presence: &Presence, key: &SigningKey, mesh: &MeshId) -> Vec<u8> {
    debug_assert_eq!(presence.peer.public_key(), &key.verifying_key().to_bytes());
    let Presence {
        peer,
        life,
        beat,
        every,
        attentive,
        heads,
        offer,
        free,
        draining,
        cordoned,
        running,
        unheard,
        discovered,
        covers,
        version,
    } = presence;
    let mut room = MAX_COVERED;
    let source_fits = |source: &&String| source.len() <= MAX_SOURCE;
    let message = proto::Presence {
        peer: peer.public_key().to_vec(),
        life: *life,
        beat: *beat,
        head: heads.iter().take(MAX_HEADS).map(|head| head.digest().to_vec()).collect(),
        every_ms: *every,
        attentive: *attentive,
        slots: offer.slots,
        free: *free,
        draining: *draining,
        cordoned: *cordoned,
        label: offer.labels.iter().filter(|label| label.len() <= MAX_LABEL).take(MAX_LABELS).cloned().collect(),
        source: offer.sources.iter().filter(source_fits).take(MAX_SOURCES).cloned().collect(),
        running: running
            .iter()
            .take(MAX_RUNNING)
            .map(|(task, fence)| proto::Running {
                task: task.0.to_vec(),
                attempt: fence.attempt,
                claim: fence.claim.digest().to_vec(),
            })
            .collect(),
        unheard: unheard.iter().take(MAX_UNHEARD).map(|peer| peer.public_key().to_vec()).collect(),
        discovered: discovered
            .iter()
            .filter(|(source, _)| source_fits(source))
            .take(MAX_SOURCES)
            .map(|(source, ago_ms)| proto::Discovered { source: source.clone(), ago_ms: *ago_ms })
            .collect(),
        covers: covers
            .iter()
            .filter(|(source, _)| source_fits(source))
            .take(MAX_SOURCES)
            .map(|(source, marks)| {
                let mark: Vec<u32> = marks.iter().take(room).map(|mark| mark.0).collect();
                room -= mark.len();
                proto::Covers { source: source.clone(), mark }
            })
            .collect(),
        version: clip(version, MAX_VERSION),
    };
    let payload = message.encode_to_vec();
    let signature = key.sign(&signed_bytes(mesh, &payload)).to_bytes().to_vec();
    proto::SignedPresence { payload, signature }.encode_to_vec()
}

/// Opens a presence and checks that its peer signed it for this mesh. Whether that peer is a member, and whether a
/// later beat is known, is not asked here.
///
/// # Errors
/// [`WireError`], always provably bad.
pub fn open(bytes: &[u8], mesh: &MeshId) -> Result<Presence, WireError> {
    let sealed: proto::SignedPresence = decode(bytes, "a signed presence", MAX_GOSSIP)?;
    let message: proto::Presence = decode(&sealed.payload, "a presence", MAX_GOSSIP)?;
    let from = peer(&message.peer)?;
    let signature = Signature(array(&sealed.signature, "a presence's signature")?);
    if !signature.is_by(from.public_key(), &signed_bytes(mesh, &sealed.payload)) {
        return Err(WireError::Signature);
    }
    let covered = message.covers.iter().map(|one| one.mark.len()).sum();
    count(covered, "covered repositories", MAX_COVERED)?;
    Ok(Presence {
        peer: from,
        life: message.life,
        beat: message.beat,
        every: message.every_ms,
        attentive: message.attentive,
        heads: set(message.head, "heads", MAX_HEADS, |head| cid(&head))?,
        offer: Offer {
            slots: message.slots,
            labels: set(message.label, "labels", MAX_LABELS, |label| text(label, "a label", MAX_LABEL))?,
            sources: set(message.source, "sources", MAX_SOURCES, |source| text(source, "a source", MAX_SOURCE))?,
        },
        free: message.free,
        draining: message.draining,
        cordoned: message.cordoned,
        running: map(message.running, "running tasks", MAX_RUNNING, |one| {
            Ok((task(&one.task)?, Fence { attempt: one.attempt, claim: cid(&one.claim)? }))
        })?,
        unheard: set(message.unheard, "members not heard", MAX_UNHEARD, |one| peer(&one))?,
        discovered: map(message.discovered, "discovered sources", MAX_SOURCES, |one| {
            size(one.source.len(), "a source", MAX_SOURCE).map(|()| (one.source, one.ago_ms))
        })?,
        covers: map(message.covers, "covered sources", MAX_SOURCES, |one| {
            size(one.source.len(), "a source", MAX_SOURCE)?;
            Ok((one.source, one.mark.into_iter().map(RepositoryMark).collect()))
        })?,
        version: text(message.version, "a version", MAX_VERSION)?,
    })
}

/// The same, with the bytes by which it can be passed on.
///
/// # Errors
/// As [`open`].
pub fn open_signed(bytes: &[u8], mesh: &MeshId) -> Result<Arc<Signed>, WireError> {
    Ok(Arc::new(Signed { presence: open(bytes, mesh)?, bytes: bytes.into() }))
}

/// What a peer signs to make a presence its own: of this kind, and of this mesh alone.
fn signed_bytes(mesh: &MeshId, payload: &[u8]) -> Vec<u8> {
    [b"runmesh presence 2".as_slice(), &mesh.0, payload].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::id::{Cid, PeerId, TaskId};
    use crate::kernel::io::Response;
    use crate::wire::field::arbitrary;
    use crate::wire::limits::MAX_PAGE;
    use crate::wire::response::{self, Told};

    const MESH: MeshId = MeshId([5; 32]);

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn digest(number: usize) -> [u8; 32] {
        *Cid::of(&number.to_be_bytes()).digest()
    }

    fn marks(of: usize, many: usize) -> BTreeSet<RepositoryMark> {
        let mark = |n| RepositoryMark(u32::MAX - u32::try_from(of * many + n).expect("small"));
        (0..many).map(mark).collect()
    }

    /// With so many of everything that has a number, each of the greatest size.
    fn presence(more: usize) -> Presence {
        let name = |length: usize, number: usize| format!("{number:0>length$}");
        let fence = |n| Fence { attempt: u32::MAX, claim: Cid::from_digest(digest(n)) };
        Presence {
            peer: PeerId::from_public_key(key().verifying_key().to_bytes()),
            life: u64::MAX,
            beat: u64::MAX,
            every: u32::MAX,
            attentive: true,
            heads: (0..MAX_HEADS + more).map(|n| Cid::from_digest(digest(n))).collect(),
            offer: Offer {
                slots: u32::MAX,
                labels: (0..MAX_LABELS + more).map(|n| name(MAX_LABEL, n)).collect(),
                sources: (0..MAX_SOURCES + more).map(|n| name(MAX_SOURCE, n)).collect(),
            },
            free: u32::MAX,
            draining: true,
            cordoned: true,
            running: (0..MAX_RUNNING + more).map(|n| (TaskId(digest(n)), fence(n))).collect(),
            unheard: (0..MAX_UNHEARD + more).map(|n| PeerId::from_public_key(digest(n))).collect(),
            discovered: (0..MAX_SOURCES + more).map(|n| (name(MAX_SOURCE, n), u64::MAX)).collect(),
            covers: (0..MAX_SOURCES + more)
                .map(|n| (name(MAX_SOURCE, n), marks(n, MAX_COVERED / MAX_SOURCES)))
                .collect(),
            version: "v".repeat(MAX_VERSION + more),
        }
    }

    #[test]
    fn the_largest_presence_fits_a_gossip_message() {
        let sealed = seal(&presence(0), &key(), &MESH);
        assert!(sealed.len() <= MAX_GOSSIP, "{}", sealed.len());
        assert_eq!(open(&sealed, &MESH), Ok(presence(0)));
    }

    #[test]
    fn what_is_beyond_a_limit_is_left_out() {
        let opened = open(&seal(&presence(1), &key(), &MESH), &MESH).expect("opens");
        assert_eq!(opened.heads.len(), MAX_HEADS);
        assert_eq!(opened.unheard.len(), MAX_UNHEARD);
        assert_eq!(opened.offer.labels.len(), MAX_LABELS);
        assert_eq!(opened.running.len(), MAX_RUNNING);
        assert_eq!(opened.version.len(), MAX_VERSION);
        let long = BTreeSet::from(["x".repeat(MAX_LABEL + 1), "y".to_owned()]);
        let offer = Offer { labels: long, ..Offer::default() };
        let opened = open(&seal(&Presence { offer, ..presence(0) }, &key(), &MESH), &MESH).expect("opens");
        assert_eq!(opened.offer.labels, BTreeSet::from(["y".to_owned()]));
    }

    /// Signs a message that `seal` would not make.
    fn forge(change: impl Fn(&mut proto::Presence)) -> Result<Presence, WireError> {
        let sealed = proto::SignedPresence::decode(seal(&presence(0), &key(), &MESH).as_slice()).expect("decodes");
        let mut message = proto::Presence::decode(sealed.payload.as_slice()).expect("decodes");
        change(&mut message);
        let payload = message.encode_to_vec();
        let signature = key().sign(&signed_bytes(&MESH, &payload)).to_bytes().to_vec();
        open(&proto::SignedPresence { payload, signature }.encode_to_vec(), &MESH)
    }

    #[test]
    fn limits_hold_against_those_who_do_not_keep_them() {
        type Break = fn(&mut proto::Presence);
        let breaks: [(&str, Break); 10] = [
            ("head", |p| p.head.push(vec![1; 32])),
            ("labels", |p| p.label.push("a".to_owned())),
            ("label", |p| p.label[0].push('a')),
            ("sources", |p| p.source.push("a".to_owned())),
            ("source", |p| p.source[0].push('a')),
            ("running", |p| p.running.push(proto::Running { task: vec![1; 32], attempt: 1, claim: vec![1; 32] })),
            ("unheard", |p| p.unheard.push(vec![1; 32])),
            ("covers", |p| p.covers.push(proto::Covers { source: "a".to_owned(), mark: Vec::new() })),
            ("covered", |p| p.covers[0].mark.push(1)),
            ("discovered", |p| p.discovered.push(proto::Discovered { source: "a".to_owned(), ago_ms: 1 })),
        ];
        for (what, change) in breaks {
            let error = forge(change).expect_err(what);
            assert!(matches!(error, WireError::TooMany { .. } | WireError::TooLarge { .. }), "{what}: {error}");
            assert!(!matches!(error, WireError::TooLarge { limit: MAX_GOSSIP, .. }), "{what}: {error}");
            assert!(error.is_provably_bad());
        }
        assert!(matches!(forge(|p| p.version.push('v')), Err(WireError::TooLarge { .. })));
        assert!(matches!(forge(|p| p.discovered[0].source.push('v')), Err(WireError::TooLarge { .. })));
        assert!(matches!(forge(|p| p.head[1] = p.head[0].clone()), Err(WireError::Repeated { .. })));
        assert!(matches!(forge(|p| p.unheard[0].push(0)), Err(WireError::Malformed { .. })));
        assert!(matches!(open(&vec![0; MAX_GOSSIP + 1], &MESH), Err(WireError::TooLarge { .. })));
    }

    #[test]
    fn who_passes_presences_on_passes_on_what_their_peers_signed() {
        let sealed = seal(&presence(0), &key(), &MESH);
        let answer = response::seal_presences([(sealed.as_slice(), 7)]);
        let Ok(Told::Kernel(Response::Presences { heard })) = response::open(&answer, &MESH) else {
            panic!("it opens")
        };
        assert!(heard.len() == 1 && heard[0].1 == 7 && heard[0].0.presence == presence(0));
        assert!(*heard[0].0.bytes == *sealed, "it can be passed on again");
        let mut forged = sealed.clone();
        forged[40] ^= 1;
        assert!(response::open(&response::seal_presences([(forged.as_slice(), 7)]), &MESH).is_err());
        // What does not fit is left out.
        let many = vec![(sealed.as_slice(), 0); 2 + MAX_PAGE / sealed.len()];
        let Ok(Told::Kernel(Response::Presences { heard })) = response::open(&response::seal_presences(many), &MESH)
        else {
            panic!("it opens")
        };
        assert_eq!(heard.len(), MAX_PAGE / sealed.len());
    }

    #[test]
    fn only_its_peer_in_its_mesh_signs_it() {
        let sealed = seal(&presence(0), &key(), &MESH);
        assert_eq!(open(&sealed, &MeshId([6; 32])), Err(WireError::Signature));
        let mut other = proto::SignedPresence::decode(sealed.as_slice()).expect("decodes");
        other.signature = SigningKey::from_bytes(&[4; 32]).sign(&signed_bytes(&MESH, &other.payload)).to_bytes().into();
        assert_eq!(open(&other.encode_to_vec(), &MESH), Err(WireError::Signature));
    }

    fn any_presence() -> impl Strategy<Value = Presence> {
        let fence = (any::<u32>(), arbitrary::cid()).prop_map(|(attempt, claim)| Fence { attempt, claim });
        let names = || btree_set("[a-z:/.é-]{0,20}", 0..5);
        let offer = (any::<u32>(), names(), names());
        let numbers = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<(bool, bool, bool)>());
        let sets = (
            btree_set(arbitrary::cid(), 0..5),
            btree_map(arbitrary::task(), fence, 0..5),
            btree_set(arbitrary::peer(), 0..5),
            btree_map("[a-z]{0,9}", any::<u64>(), 0..5),
            btree_map("[a-z]{0,9}", btree_set(any::<u32>().prop_map(RepositoryMark), 0..5), 0..5),
        );
        (numbers, offer, sets, "[0-9.é]{0,20}").prop_map(
            |((life, beat, every, free, (draining, attentive, cordoned)), (slots, labels, sources), sets, version)| {
                let (heads, running, unheard, discovered, covers): (_, BTreeMap<_, _>, _, _, _) = sets;
                let offer = Offer { slots, labels, sources };
                let Presence { peer, .. } = presence(0);
                Presence {
                    peer,
                    life,
                    beat,
                    every,
                    attentive,
                    heads,
                    offer,
                    free,
                    draining,
                    cordoned,
                    running,
                    unheard,
                    discovered,
                    covers,
                    version,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn every_presence_is_read_back(presence in any_presence()) {
            prop_assert_eq!(open(&seal(&presence, &key(), &MESH), &MESH), Ok(presence));
        }

        #[test]
        fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..300)) {
            prop_assert!(open(&bytes, &MESH).is_err());
            // Also behind a signature that holds.
            let signature = key().sign(&signed_bytes(&MESH, &bytes)).to_bytes().to_vec();
            let sealed = proto::SignedPresence { payload: bytes, signature };
            prop_assert!(open(&sealed.encode_to_vec(), &MESH).is_err());
        }
    }
}
