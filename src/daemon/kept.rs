//! The history that the database holds at the start.
//!
//! Every version notes in the database which rules of folding it knows. So of what a version cannot read it can tell
//! whether the disk is to blame, or a later version has written it: then nothing is wrong but the version.

use std::sync::Arc;

use super::DaemonError;
use crate::kernel::entry::{Entry, EntryError};
use crate::kernel::id::MeshId;
use crate::kernel::rules::RULES;
use crate::kernel::snapshot::{Sealed, SnapshotError};
use crate::store::Store;
use crate::wire::limits::MAX_PAGE_ENTRIES;
use crate::wire::{self, WireError};

/// The greatest number of rules that any version knew which wrote here: four bytes, the highest first.
const NOTE: &str = "rules";

/// The snapshot of what was dropped, and the entries, opened and checked, in their order.
pub(super) fn history(store: &Store, mesh: &MeshId) -> Result<(Option<Sealed>, Vec<Arc<Entry>>), DaemonError> {
    let noted = store.note(NOTE)?.and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?))).unwrap_or(0);
    let history = (snapshot(store, mesh, noted)?, entries(store, mesh, noted)?);
    if noted < RULES {
        store.keep_note(NOTE, &RULES.to_be_bytes())?;
    }
    Ok(history)
}

fn snapshot(store: &Store, mesh: &MeshId, noted: u32) -> Result<Option<Sealed>, DaemonError> {
    let opened = store.snapshot()?.map(|bytes| Sealed::open(bytes.into(), mesh)).transpose();
    opened.map_err(|error| match error {
        SnapshotError::Format(_) => DaemonError::Later(error.to_string()),
        _ if noted > RULES => DaemonError::Later(error.to_string()),
        _ => DaemonError::DamagedSnapshot(error.to_string()),
    })
}

fn entries(store: &Store, mesh: &MeshId, noted: u32) -> Result<Vec<Arc<Entry>>, DaemonError> {
    let mut kept = Vec::new();
    let mut entries = store.entries()?;
    loop {
        let some: Vec<Vec<u8>> = entries.by_ref().take(MAX_PAGE_ENTRIES).collect::<Result<_, _>>()?;
        if some.is_empty() {
            return Ok(kept);
        }
        for opened in wire::entry::open_many(&some, mesh) {
            kept.push(opened.map_err(|error| match error {
                WireError::Entry(EntryError::Format(_)) => DaemonError::Later(error.to_string()),
                _ if noted > RULES => DaemonError::Later(error.to_string()),
                _ => DaemonError::Damaged { at: kept.len() as u64, why: error.to_string() },
            })?);
        }
    }
}
