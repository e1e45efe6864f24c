//! Which entries came lately: those that gossip names as heads and parents, asked for again and again.

use crate::kernel::id::Cid;

/// How many are remembered at most, each in the one place that its id gives it. Own choice: 8 KiB, the entries of some
/// seconds of a very busy mesh.
const PLACES: usize = 1 << 10;

/// A table that never says of an entry that it came when it did not, but for a chance of one in 2^64, and forgets.
#[derive(Debug)]
pub(super) struct Recent(Box<[u64]>);

impl Default for Recent {
    fn default() -> Self {
        Self(vec![0; PLACES].into())
    }
}

impl Recent {
    pub(super) fn note(&mut self, cid: &Cid) {
        let (place, name) = at(cid);
        self.0[place] = name;
    }

    pub(super) fn has(&self, cid: &Cid) -> bool {
        let (place, name) = at(cid);
        name != 0 && self.0[place] == name
    }
}

/// Where an id has its place, by other bits of its hash than those it is told by.
fn at(cid: &Cid) -> (usize, u64) {
    let [place, name, ..] = std::array::from_fn::<u64, 4, _>(|word| {
        u64::from_be_bytes(std::array::from_fn(|byte| cid.digest()[8 * word + byte]))
    });
    (place as usize % PLACES, name)
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
    }
}
