//! Whether the mesh is paused: the stop button that every member can press.
//!
//! Of all that was said of it, what nothing else knows of counts. So who resumes a mesh ends the pauses that he knows,
//! and no other: concurrent words of one who pauses and one who resumes leave it paused.

use serde::{Deserialize, Serialize};

use super::Fact;
use crate::kernel::entry::{Event, Hlc};
use crate::kernel::id::{Cid, PeerId};

/// Why nothing is claimed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paused {
    pub by: PeerId,
    /// The label of time of the entry that says so.
    pub since: Hlc,
    pub entry: Cid,
    pub why: String,
}

/// What the facts say, above what a checkpoint has kept, which all of them know.
pub(super) fn fold<'a>(kept: Option<&Paused>, facts: impl Iterator<Item = &'a Fact>) -> Option<Paused> {
    let facts: Vec<&Fact> = facts.collect();
    if facts.is_empty() {
        return kept.cloned();
    }
    let is_last = |fact: &&&Fact| !facts.iter().any(|other| other.mark.knows(&fact.mark));
    let pauses = facts.iter().filter(is_last).filter_map(|fact| match fact.event() {
        Event::Pause(pause) => {
            Some(Paused { by: fact.author().peer, since: fact.time(), entry: fact.mark.cid, why: pause.why.clone() })
        }
        _ => None,
    });
    pauses.min_by_key(|paused| paused.entry)
}
