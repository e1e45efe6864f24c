//! A Fibonacci heap (Fredman and Tarjan, "Fibonacci heaps and their uses in improved network optimization algorithms",
//! J. ACM 34(3), 1987).
//!
//! Owns values under keys, the least key first. Promises the paper's amortised costs: O(1) to insert and to move ahead,
//! O(log n) to take out. Trees live in one vector and name each other by index, so there is neither `unsafe` nor
//! counting of references. Equal keys come out in no promised order; whoever needs one puts it into the key.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Names a value in the heap it was given by, until that value is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    index: usize,
    /// Which of the tenants of that place in the vector.
    tenant: u64,
}

/// Why a value was not moved ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAhead {
    #[error("the value is in the heap no more")]
    Gone,
    #[error("the new key would put the value behind its present place")]
    Behind,
}

/// Values under keys, the least key first.
#[derive(Debug, Clone)]
pub struct Heap<K, V> {
    places: Vec<Place<K, V>>,
    /// Places without a tenant.
    vacant: Vec<usize>,
    /// The root with the least key; the way into the ring of roots.
    least: Option<usize>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Place<K, V> {
    tenant: u64,
    node: Option<Node<K, V>>,
}

/// A node of a heap-ordered tree. Siblings form a ring.
#[derive(Debug, Clone)]
struct Node<K, V> {
    key: K,
    value: V,
    parent: Option<usize>,
    /// Any one of the children.
    child: Option<usize>,
    left: usize,
    right: usize,
    /// How many children.
    degree: usize,
    /// Whether it has lost a child since it became a child itself; the second loss cuts it off.
    marked: bool,
}

impl<K, V> Default for Heap<K, V> {
    fn default() -> Self {
        Self { places: Vec::new(), vacant: Vec::new(), least: None, len: 0 }
    }
}

impl<K: Ord, V> Heap<K, V> {
    pub fn new() -> Self {
        Self::default()
    }

    pub const fn len(&self) -> usize {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a value in. O(1).
    pub fn insert(&mut self, key: K, value: V) -> Handle {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.places.push(Place { tenant: 0, node: None });
            self.places.len() - 1
        });
        let node = Node { key, value, parent: None, child: None, left: index, right: index, degree: 0, marked: false };
        self.places[index].node = Some(node);
        self.add_root(index);
        self.len += 1;
        Handle { index, tenant: self.places[index].tenant }
    }

    /// The value with the least key. O(1).
    pub fn first(&self) -> Option<(&K, &V)> {
        self.least.map(|index| (&self.node(index).key, &self.node(index).value))
    }

    /// The key and value that the handle names, while they are here. O(1).
    pub fn get(&self, handle: Handle) -> Option<(&K, &V)> {
        let place = self.places.get(handle.index).filter(|place| place.tenant == handle.tenant)?;
        place.node.as_ref().map(|node| (&node.key, &node.value))
    }

    /// Takes out the value with the least key. O(log n) amortised.
    pub fn pop(&mut self) -> Option<(K, V)> {
        self.least.map(|least| self.take_root(least))
    }

    /// Moves a value ahead: gives it a key that is not greater than its present one. O(1) amortised.
    ///
    /// # Errors
    /// [`NotAhead`], with nothing changed.
    pub fn decrease(&mut self, handle: Handle, key: K) -> Result<(), NotAhead> {
        let (present, _) = self.get(handle).ok_or(NotAhead::Gone)?;
        if key > *present {
            return Err(NotAhead::Behind);
        }
        let index = handle.index;
        self.node_mut(index).key = key;
        match self.node(index).parent {
            Some(parent) if self.node(index).key < self.node(parent).key => self.cut(index),
            Some(_) => {}
            None => self.note_least(index),
        }
        Ok(())
    }

    /// Takes out the value that the handle names, while it is here. O(log n) amortised.
    pub fn remove(&mut self, handle: Handle) -> Option<(K, V)> {
        self.get(handle)?;
        if self.node(handle.index).parent.is_some() {
            self.cut(handle.index);
        }
        Some(self.take_root(handle.index))
    }

    /// All keys and values in order. Each step costs O(log n) comparisons at most, more only for what was put in since
    /// the last value was taken out.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let mut ahead: BinaryHeap<_> =
            self.ring(self.least).map(|root| Reverse((&self.node(root).key, root))).collect();
        std::iter::from_fn(move || {
            let Reverse((key, index)) = ahead.pop()?;
            let node = self.node(index);
            ahead.extend(self.ring(node.child).map(|child| Reverse((&self.node(child).key, child))));
            Some((key, &node.value))
        })
    }

    /// The ring of siblings that this node belongs to.
    fn ring(&self, entrance: Option<usize>) -> impl Iterator<Item = usize> {
        let mut next = entrance;
        std::iter::from_fn(move || {
            let index = next?;
            next = Some(self.node(index).right).filter(|right| Some(*right) != entrance);
            Some(index)
        })
    }

    fn node(&self, index: usize) -> &Node<K, V> {
        match &self.places[index].node {
            Some(node) => node,
            None => unreachable!("the trees name only places that are taken"),
        }
    }

    fn node_mut(&mut self, index: usize) -> &mut Node<K, V> {
        match &mut self.places[index].node {
            Some(node) => node,
            None => unreachable!("the trees name only places that are taken"),
        }
    }

    /// Makes a node that belongs to no ring a root.
    fn add_root(&mut self, index: usize) {
        let node = self.node_mut(index);
        node.parent = None;
        node.marked = false;
        (node.left, node.right) = (index, index);
        if let Some(least) = self.least {
            self.join(least, index);
        }
        self.note_least(index);
    }

    /// Remembers the root if its key is the least now.
    fn note_least(&mut self, root: usize) {
        if self.least.is_none_or(|least| self.node(root).key < self.node(least).key) {
            self.least = Some(root);
        }
    }

    /// Makes one ring of two.
    fn join(&mut self, a: usize, b: usize) {
        let (after_a, before_b) = (self.node(a).right, self.node(b).left);
        self.node_mut(a).right = b;
        self.node_mut(b).left = a;
        self.node_mut(before_b).right = after_a;
        self.node_mut(after_a).left = before_b;
    }

    /// Takes a node out of its ring; says who stands beside it there.
    fn leave_ring(&mut self, index: usize) -> Option<usize> {
        let (left, right) = (self.node(index).left, self.node(index).right);
        self.node_mut(left).right = right;
        self.node_mut(right).left = left;
        let node = self.node_mut(index);
        (node.left, node.right) = (index, index);
        Some(right).filter(|right| *right != index)
    }

    /// Cuts a child off its parent and makes it a root; every ancestor that thereby loses its second child follows.
    fn cut(&mut self, index: usize) {
        let mut next = Some(index);
        while let Some(index) = next {
            let Some(parent) = self.node(index).parent else { return };
            let beside = self.leave_ring(index);
            let above = self.node_mut(parent);
            above.child = beside;
            above.degree -= 1;
            next = Some(parent).filter(|_| above.marked);
            above.marked = above.parent.is_some();
            self.add_root(index);
        }
    }

    /// Takes out a root; its children become roots.
    fn take_root(&mut self, index: usize) -> (K, V) {
        let children: Vec<_> = self.ring(self.node(index).child).collect();
        let beside = self.leave_ring(index);
        let was_least = self.least == Some(index);
        if was_least {
            // Any root will do until `consolidate` has looked at all.
            self.least = beside;
        }
        for child in children {
            self.add_root(child);
        }
        if was_least {
            self.consolidate();
        }
        let place = &mut self.places[index];
        place.tenant += 1;
        self.vacant.push(index);
        self.len -= 1;
        match place.node.take() {
            Some(node) => (node.key, node.value),
            None => unreachable!("the trees name only places that are taken"),
        }
    }

    /// Links trees of equal degree until all degrees differ, and finds the least root.
    fn consolidate(&mut self) {
        let roots: Vec<_> = self.ring(self.least).collect();
        let mut by_degree: Vec<Option<usize>> = Vec::new();
        for mut root in roots {
            loop {
                let degree = self.node(root).degree;
                if by_degree.len() <= degree {
                    by_degree.resize(degree + 1, None);
                }
                let Some(other) = by_degree[degree].take() else {
                    by_degree[degree] = Some(root);
                    break;
                };
                root = self.link(root, other);
            }
        }
        self.least = None;
        for root in by_degree.into_iter().flatten() {
            self.note_least(root);
        }
    }

    /// Puts one root below the other; says which one stayed.
    fn link(&mut self, a: usize, b: usize) -> usize {
        let (above, below) = if self.node(b).key < self.node(a).key { (b, a) } else { (a, b) };
        self.leave_ring(below);
        match self.node(above).child {
            Some(child) => self.join(child, below),
            None => self.node_mut(above).child = Some(below),
        }
        self.node_mut(below).parent = Some(above);
        self.node_mut(above).degree += 1;
        above
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    impl<K: Ord, V> Heap<K, V> {
        /// Everything the paper's bounds stand on.
        fn check(&self) {
            let mut seen = BTreeSet::new();
            for root in self.ring(self.least) {
                let node = self.node(root);
                assert_eq!(node.parent, None);
                assert!(!node.marked, "a root is never marked");
                assert!(node.key >= self.node(self.least.unwrap()).key);
                self.check_tree(root, &mut seen);
            }
            assert_eq!(seen.len(), self.len);
            let taken = self.places.iter().filter(|place| place.node.is_some()).count();
            assert_eq!((taken, taken + self.vacant.len()), (self.len, self.places.len()));
        }

        fn check_tree(&self, index: usize, seen: &mut BTreeSet<usize>) -> usize {
            assert!(seen.insert(index), "a node stands in one place only");
            let node = self.node(index);
            assert_eq!(self.node(node.right).left, index);
            assert_eq!(self.node(node.left).right, index);
            let (mut size, mut degree) = (1, 0);
            for child in self.ring(node.child) {
                assert_eq!(self.node(child).parent, Some(index));
                assert!(self.node(child).key >= node.key, "heap order");
                size += self.check_tree(child, seen);
                degree += 1;
            }
            assert_eq!(node.degree, degree);
            // Lemma 1 of the paper: a node of degree k has at least F(k + 2) descendants, itself among them.
            let (fibonacci, _) = (0..degree + 1).fold((1, 1), |(a, b), _| (b, a + b));
            assert!(size >= fibonacci, "degree {degree} with {size} nodes");
            size
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u16),
        Pop,
        /// Of the values that are or were there, the one at this place; how much its key sinks.
        Decrease(prop::sample::Index, u16),
        Remove(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<u16>().prop_map(Step::Insert),
            2 => Just(Step::Pop),
            3 => (any::<prop::sample::Index>(), any::<u16>()).prop_map(|(which, by)| Step::Decrease(which, by)),
            1 => any::<prop::sample::Index>().prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn a_heap_is_a_sorted_set(steps in prop::collection::vec(step(), 1..400)) {
            let mut heap = Heap::new();
            // The model: what is in it, and every handle ever given.
            let mut model: BTreeSet<(u16, usize)> = BTreeSet::new();
            let mut keys: BTreeMap<usize, u16> = BTreeMap::new();
            let mut handles = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(key) => {
                        let value = handles.len();
                        handles.push(heap.insert((key, value), value));
                        model.insert((key, value));
                        keys.insert(value, key);
                    }
                    Step::Pop => {
                        let expected = model.pop_first();
                        prop_assert_eq!(heap.pop(), expected.map(|pair| (pair, pair.1)));
                        expected.map(|(_, value)| keys.remove(&value));
                    }
                    Step::Decrease(which, by) if !handles.is_empty() => {
                        let value = which.index(handles.len());
                        let Some(&key) = keys.get(&value) else {
                            prop_assert_eq!(heap.decrease(handles[value], (0, value)), Err(NotAhead::Gone));
                            continue;
                        };
                        if let Some(behind) = key.checked_add(1) {
                            let answer = heap.decrease(handles[value], (behind, value));
                            prop_assert_eq!(answer, Err(NotAhead::Behind));
                        }
                        let ahead = key.saturating_sub(by);
                        prop_assert_eq!(heap.decrease(handles[value], (ahead, value)), Ok(()));
                        model.remove(&(key, value));
                        model.insert((ahead, value));
                        keys.insert(value, ahead);
                    }
                    Step::Remove(which) if !handles.is_empty() => {
                        let value = which.index(handles.len());
                        let expected = keys.remove(&value).map(|key| (key, value));
                        expected.map(|pair| model.remove(&pair));
                        prop_assert_eq!(heap.remove(handles[value]), expected.map(|pair| (pair, value)));
                        prop_assert_eq!(heap.get(handles[value]), None);
                    }
                    Step::Decrease(..) | Step::Remove(_) => {}
                }
                heap.check();
                prop_assert_eq!(heap.len(), model.len());
                prop_assert_eq!(heap.first().map(|(key, _)| key), model.first());
            }
            prop_assert!(heap.iter().map(|(key, _)| key).eq(model.iter()));
            let drained: Vec<_> = std::iter::from_fn(|| heap.pop()).map(|(key, _)| key).collect();
            prop_assert!(drained.iter().eq(model.iter()));
        }
    }

    /// Counts how often it is compared.
    #[derive(Debug, PartialEq, Eq)]
    struct Counted<'a>(u64, &'a std::cell::Cell<u64>);

    impl Ord for Counted<'_> {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            self.1.set(self.1.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Counted<'_> {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }

    #[test]
    fn moving_ahead_costs_no_logarithm() {
        let (comparisons, n) = (std::cell::Cell::new(0), 20_000);
        let mut heap = Heap::new();
        let handles: Vec<_> = (0..n).map(|i| heap.insert(Counted(n + i * 7919 % n, &comparisons), i)).collect();
        heap.pop();
        comparisons.set(0);
        for round in 1..=4 {
            for (i, handle) in handles.iter().enumerate() {
                let Some((Counted(key, _), _)) = heap.get(*handle) else { continue };
                let ahead = Counted(key - (i as u64 % 13) * round, &comparisons);
                heap.decrease(*handle, ahead).unwrap();
            }
        }
        assert!(comparisons.get() <= 4 * 4 * n, "{} comparisons", comparisons.get());
        heap.check();
    }
}
