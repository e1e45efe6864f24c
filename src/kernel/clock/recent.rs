//! Which entries came lately: those that gossip names as heads and parents, asked for again and again.

use crate::kernel::id::Cid;

/// How many are remembered at most, each in the one place that its id gives it. Own choice: 32 KiB, the entries of some
/// seconds of a very busy mesh.
const PLACES: usize = 1 << 10;

/// A table that never says of an entry that it came when it did not, and forgets. Whole ids are compared: a parent's is what
/// its child's author says, and need not be the hash of anything.
#[derive(Debug)]
pub(super) struct Recent(Box<[[u8; 32]]>);

impl Default for Recent {
    fn default() -> Self {
        Self(vec![[0; 32]; PLACES].into())
    }
}

impl Recent {
    pub(super) fn note(&mut self, cid: &Cid) {
        self.0[place_of(cid)] = *cid.digest();
    }

    pub(super) fn has(&self, cid: &Cid) -> bool {
        *cid.digest() != [0; 32] && self.0[place_of(cid)] == *cid.digest()
    }
}

fn place_of(cid: &Cid) -> usize {
    let [.., last, first] = *cid.digest();
    usize::from(u16::from_be_bytes([last, first])) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_lately_is_known_and_nothing_else() {
        let mut recent = Recent::default();
        let cids: Vec<Cid> = (0_u64..3000).map(|n| Cid::of(&n.to_be_bytes())).collect();
        cids[..2000].iter().for_each(|cid| recent.note(cid));
        assert!(recent.has(&cids[1999]));
        assert!(cids[..2000].iter().filter(|cid| recent.has(cid)).count() > 500);
        assert!(!cids[2000..].iter().any(|cid| recent.has(cid)));
        for byte in 0..32 {
            let mut other = *cids[1999].digest();
            other[byte] ^= 1;
            assert!(!recent.has(&Cid::from_digest(other)), "it differs in byte {byte}");
        }
    }
}
