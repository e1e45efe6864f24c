//! Which entries stand below one: for every author, up to which sequence number.
//!
//! A persistent vector, so that an entry shares with its parents all that it does not change: nodes of 64 bytes behind
//! `Arc`s (the array-mapped tries of Bagwell, 2000, without the compression). Authors are named by small numbers that
//! the clock gives out. One more entry costs a leaf and a node a level above it, whatever the number of authors.

use std::sync::Arc;

/// Numbers in a leaf, as a power of two.
const LEAF_BITS: u32 = 4;
const LEAF: usize = 1 << LEAF_BITS;
/// Branches of a node above the leaves, as a power of two.
const FAN_BITS: u32 = 3;
const FAN: usize = 1 << FAN_BITS;

/// The greatest sequence number there can be: a leaf is half as large for it. At one entry a second it takes an author a
/// century.
pub const MAX_SEQUENCE: u64 = u32::MAX as u64;

/// A map from author number to sequence number, 0 where nothing is known. Grows only upward.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    root: Option<Arc<Branch>>,
    /// Levels below the root; the vector has room for `16 * 8^height` authors.
    height: u32,
}

#[derive(Debug)]
enum Branch {
    Leaf([u32; LEAF]),
    Inner([Option<Arc<Self>>; FAN]),
}

impl Reach {
    /// The sequence number up to which the author's entries are below.
    pub fn get(&self, author: u32) -> u64 {
        if !fits(author, self.height) {
            return 0;
        }
        let mut at = self.root.as_deref();
        let mut height = self.height;
        loop {
            match at {
                None => return 0,
                Some(Branch::Leaf(numbers)) => return u64::from(numbers[slot(author, 0)]),
                Some(Branch::Inner(below)) => at = below[slot(author, height)].as_deref(),
            }
            height -= 1;
        }
    }

    /// The same with the author's number set, which is at most [`MAX_SEQUENCE`].
    #[must_use]
    pub fn with(&self, author: u32, sequence: u64) -> Self {
        let mut grown = self.clone();
        while !fits(author, grown.height) {
            grown = grown.raised();
        }
        let sequence = u32::try_from(sequence).unwrap_or(u32::MAX);
        Self { root: Some(set(grown.root.as_ref(), grown.height, author, sequence)), height: grown.height }
    }

    /// For every author the larger number of the two.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let (mut a, mut b) = (self.clone(), other.clone());
        while a.height < b.height {
            a = a.raised();
        }
        while b.height < a.height {
            b = b.raised();
        }
        Self { root: join(a.root.as_ref(), b.root.as_ref()), height: a.height }
    }

    fn raised(&self) -> Self {
        let root = self.root.clone().map(|root| {
            let mut below = [const { None }; FAN];
            below[0] = Some(root);
            Arc::new(Branch::Inner(below))
        });
        Self { root, height: self.height + 1 }
    }
}

/// Whether a vector of this height has room for the author.
fn fits(author: u32, height: u32) -> bool {
    u64::from(author) < 1u64 << (LEAF_BITS + FAN_BITS * height).min(63)
}

/// Which branch of a node at this height, or number of a leaf, is the author's.
fn slot(author: u32, height: u32) -> usize {
    match height.checked_sub(1) {
        None => author as usize % LEAF,
        Some(below) => (u64::from(author) >> (LEAF_BITS + FAN_BITS * below).min(63)) as usize % FAN,
    }
}

fn set(branch: Option<&Arc<Branch>>, height: u32, author: u32, sequence: u32) -> Arc<Branch> {
    let at = slot(author, height);
    if height == 0 {
        let mut numbers = match branch.map(Arc::as_ref) {
            Some(Branch::Leaf(numbers)) => *numbers,
            _ => [0; LEAF],
        };
        numbers[at] = sequence;
        return Arc::new(Branch::Leaf(numbers));
    }
    let mut below = match branch.map(Arc::as_ref) {
        Some(Branch::Inner(below)) => below.clone(),
        _ => [const { None }; FAN],
    };
    below[at] = Some(set(below[at].as_ref(), height - 1, author, sequence));
    Arc::new(Branch::Inner(below))
}

fn join(a: Option<&Arc<Branch>>, b: Option<&Arc<Branch>>) -> Option<Arc<Branch>> {
    let (a, b) = match (a, b) {
        (Some(a), Some(b)) => (a, b),
        (one, None) | (None, one) => return one.cloned(),
    };
    if Arc::ptr_eq(a, b) {
        return Some(a.clone());
    }
    match (a.as_ref(), b.as_ref()) {
        (Branch::Leaf(x), Branch::Leaf(y)) => {
            // One side often holds all that the other does: sharing it keeps later joins short.
            if x.iter().zip(y).all(|(x, y)| x >= y) {
                return Some(a.clone());
            }
            if x.iter().zip(y).all(|(x, y)| x <= y) {
                return Some(b.clone());
            }
            Some(Arc::new(Branch::Leaf(std::array::from_fn(|i| x[i].max(y[i])))))
        }
        (Branch::Inner(x), Branch::Inner(y)) => {
            let below: [Option<Arc<Branch>>; FAN] = std::array::from_fn(|i| join(x[i].as_ref(), y[i].as_ref()));
            let same = |side: &[Option<Arc<Branch>>; FAN]| {
                side.iter().zip(&below).all(|(s, j)| match (s, j) {
                    (Some(s), Some(j)) => Arc::ptr_eq(s, j),
                    (None, None) => true,
                    _ => false,
                })
            };
            if same(x) {
                Some(a.clone())
            } else if same(y) {
                Some(b.clone())
            } else {
                Some(Arc::new(Branch::Inner(below)))
            }
        }
        _ => unreachable!("branches of one height are of one kind"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn build(pairs: &BTreeMap<u32, u64>) -> Reach {
        pairs.iter().fold(Reach::default(), |reach, (author, sequence)| reach.with(*author, *sequence))
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_join_is_the_maximum(
            a in prop::collection::btree_map(0u32..5000, 1u64..9, 0..40),
            b in prop::collection::btree_map(0u32..5000, 1u64..9, 0..40),
        ) {
            let joined = build(&a).join(&build(&b));
            for author in a.keys().chain(b.keys()).copied().chain([0, 15, 16, 127, 128, 1023, 1024, 8191, 8192, u32::MAX]) {
                let of = |map: &BTreeMap<u32, u64>| map.get(&author).copied().unwrap_or(0);
                prop_assert_eq!(build(&a).get(author), of(&a));
                prop_assert_eq!(joined.get(author), of(&a).max(of(&b)));
            }
        }
    }
}
