//! What is remembered of a source from one look to the next, also over a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::forge::decide::Changed;
use crate::workflow::Workflow;

use super::File;
use super::rest::Entry;
use super::runs::Runs;

/// The form of what is kept; another one is forgotten, which costs one look more.
const FORM: u32 = 1;

/// What is remembered of a source. Losing it costs calls, nothing else.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Memory {
    form: u32,
    /// By id.
    pub(super) repositories: BTreeMap<u64, Remembered>,
    /// By blob id: the text of a file with tags, nothing for one without any.
    pub(super) texts: BTreeMap<String, Option<String>>,
    /// Lists by their address.
    pub(super) pages: BTreeMap<String, Page>,
    /// By path and blob id.
    #[serde(skip)]
    pub(super) parsed: BTreeMap<(String, String), Option<Arc<Workflow>>>,
    /// By repository and the two commits.
    #[serde(skip)]
    pub(super) compared: BTreeMap<(u64, String, String), Changed>,
    #[serde(skip)]
    pub(super) runs: Runs,
}

/// A repository at the last look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) pushed_at: String,
    /// Nothing in a repository without commits.
    pub(super) head: Option<(String, String)>,
    pub(super) files: Vec<File>,
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Page {
    pub(super) etag: String,
    pub(super) next: Option<String>,
    pub(super) entries: Vec<Entry>,
}

impl Memory {
    /// What was kept. What cannot be read any more is forgotten.
    pub fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).ok().filter(|memory: &Self| memory.form == FORM).unwrap_or_default()
    }

    /// What is to be kept.
    pub fn bytes(&self) -> Vec<u8> {
        let kept = Self {
            form: FORM,
            parsed: BTreeMap::new(),
            compared: BTreeMap::new(),
            runs: Runs::default(),
            ..self.clone()
        };
        serde_json::to_vec(&kept).unwrap_or_else(|error| unreachable!("text and numbers always encode: {error}"))
    }

    /// Whether two would be kept alike.
    pub fn is_kept_like(&self, other: &Self) -> bool {
        self.repositories == other.repositories
            && self.texts.keys().eq(other.texts.keys())
            && self
                .pages
                .iter()
                .map(|(at, page)| (at, &page.etag))
                .eq(other.pages.iter().map(|(at, page)| (at, &page.etag)))
    }

    /// Forgets what no file has any more.
    pub(super) fn prune(&mut self) {
        let files = || self.repositories.values().flat_map(|one| &one.files);
        let blobs: std::collections::BTreeSet<String> = files().map(|file| file.blob.clone()).collect();
        let pairs: std::collections::BTreeSet<(String, String)> =
            files().map(|file| (file.path.clone(), file.blob.clone())).collect();
        self.texts.retain(|blob, _| blobs.contains(blob));
        self.parsed.retain(|pair, _| pairs.contains(pair));
        let heads: BTreeMap<u64, &str> =
            self.repositories.iter().filter_map(|(id, one)| Some((*id, one.head.as_ref()?.1.as_str()))).collect();
        self.compared.retain(|(id, _, head), _| heads.get(id) == Some(&head.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_other_forms_are_forgotten() {
        let mut memory = Memory::default();
        memory.texts.insert("b".to_owned(), Some("text".to_owned()));
        let file = File { path: "p".to_owned(), blob: "b".to_owned(), size: 4 };
        let one = Remembered { pushed_at: "t".to_owned(), head: None, files: vec![file] };
        memory.repositories.insert(7, one);
        let again = Memory::read(&memory.bytes());
        assert!(again.is_kept_like(&memory));
        assert_eq!(again.texts, memory.texts);
        assert_eq!(Memory::read(b"other").repositories.len(), 0);
        memory.repositories.clear();
        memory.prune();
        assert!(memory.texts.is_empty());
    }
}
