//! What the clocks of one process may share.
//!
//! Where an entry stands follows from its ancestors alone, so it is the same for all nodes that have it. A process with
//! one node has nothing to share; one with a thousand, as the simulation of a large mesh, cannot hold a copy for each.
//! A shelf saves memory and time; nothing that a clock says depends on whether it has one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Mark;
use crate::kernel::entry::Admit;
use crate::kernel::id::{Author, Cid, MeshId};

/// The marks that several clocks of one mesh share. By default there are none.
#[derive(Debug, Clone, Default)]
pub struct Shelf(Option<Arc<Mutex<Shared>>>);

#[derive(Debug, Default)]
struct Shared {
    numbers: BTreeMap<Author, u32>,
    authors: Vec<Author>,
    marks: BTreeMap<Cid, Arc<Mark>>,
    /// Whether the mesh key gave the right that stands at a place in an entry.
    rights: BTreeMap<(Cid, usize), bool>,
}

/// By whose key rights are given, and where it is kept which are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights<'a> {
    pub(super) mesh: &'a MeshId,
    pub(super) shelf: &'a Shelf,
}

impl Rights<'_> {
    /// Whether the mesh key gave this right, which stands at that place in an entry.
    pub(super) fn admit(&self, admit: &Admit, place: (Cid, usize)) -> bool {
        let check = || admit.right.admits(self.mesh, &admit.peer);
        self.shelf.with(|shared| *shared.rights.entry(place).or_insert_with(check)).unwrap_or_else(check)
    }
}

impl Shelf {
    /// A shelf for all clocks of one mesh that are given a clone of it.
    pub fn shared() -> Self {
        Self(Some(Arc::default()))
    }

    /// The author's number; `next` where nobody else gives any.
    pub(super) fn number(&self, author: Author, next: u32) -> u32 {
        self.with(|shared| {
            let authors = &mut shared.authors;
            *shared.numbers.entry(author).or_insert_with(|| {
                authors.push(author);
                authors.len() as u32 - 1
            })
        })
        .unwrap_or(next)
    }

    /// The author with this number, if somebody has met it.
    pub(super) fn author(&self, number: u32) -> Option<Author> {
        self.with(|shared| shared.authors.get(number as usize).copied()).flatten()
    }

    pub(super) fn mark(&self, cid: &Cid) -> Option<Arc<Mark>> {
        self.with(|shared| shared.marks.get(cid).cloned()).flatten()
    }

    /// Puts a mark there for the others, or gives back the one that is there.
    pub(super) fn put(&self, mark: Arc<Mark>) -> Arc<Mark> {
        self.with(|shared| shared.marks.entry(mark.cid).or_insert_with(|| mark.clone()).clone()).unwrap_or(mark)
    }

    fn with<T>(&self, look: impl FnOnce(&mut Shared) -> T) -> Option<T> {
        let shared = self.0.as_ref()?;
        Some(look(&mut shared.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
