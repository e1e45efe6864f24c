//! The cordon: the operator lets this node take nothing new, for as long as she likes.
//!
//! It stays a member, keeps its duties and what runs, and says in its presence that it is no candidate; its runners that wait
//! for jobs of GitHub are retired. It is on disk before it holds, so a restart keeps it; it is no entry, for it is this
//! host's affair alone.

use serde::{Deserialize, Serialize};

use super::Daemon;
use super::chronicle::wall_ms;
use crate::control::{Refusal, proto};
use crate::kernel::io::Input;
use crate::store::{Store, StoreError};

/// Under which name the database keeps it.
const NOTE: &str = "node/cordon";

/// Since when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cordon {
    since_ms: u64,
    why: String,
}

impl Cordon {
    /// What an earlier life of this node was told.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) fn kept(store: &Store) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = store.note(NOTE)?.filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
        // Whatever is there: somebody has said that nothing new is taken.
        let unread = || Self { since_ms: wall_ms(), why: "told to an earlier version of this node".to_owned() };
        Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| unread())))
    }

    pub(super) fn shown(&self) -> proto::Cordoned {
        proto::Cordoned { since_ms: self.since_ms, why: self.why.clone() }
    }
}

impl Daemon {
    /// Begins where the earlier life ended.
    pub(super) fn begin_cordoned(&mut self) {
        if let Some(cordon) = &self.cordon {
            tracing::warn!(
                "this node is cordoned and claims nothing ({}): `runmesh node uncordon` ends that",
                cordon.why
            );
            self.inputs.push_back(Input::Cordon);
        }
    }

    /// Lets the node take nothing new for this reason, or, without one, lets it claim again. How many tasks still run.
    pub(super) fn on_cordon(&mut self, why: Option<String>) -> Result<u32, Refusal> {
        let cordon = match (why, &self.cordon) {
            (None, None) => return Err(Refusal::NotNow("this node is not cordoned".to_owned())),
            (None, Some(_)) => None,
            (Some(why), before) => {
                Some(Cordon { since_ms: before.as_ref().map_or_else(wall_ms, |before| before.since_ms), why })
            }
        };
        let bytes = cordon.as_ref().map(serde_json::to_vec).transpose();
        let bytes = bytes.map_err(|error| Refusal::Failed(error.to_string()))?.unwrap_or_default();
        tokio::task::block_in_place(|| self.store.keep_note(NOTE, &bytes))
            .map_err(|error| Refusal::Unavailable(error.to_string()))?;
        self.cordon = cordon;
        match &self.cordon {
            Some(cordon) => {
                tracing::warn!("cordoned: this node claims nothing more ({})", cordon.why);
                self.feed(Input::Cordon);
            }
            None => {
                tracing::info!("uncordoned: this node claims again");
                self.feed(Input::Uncordon);
            }
        }
        self.look_for_jobs_soon();
        Ok(u32::try_from(self.node.running().count()).unwrap_or(u32::MAX))
    }

    /// Whether runners that wait for jobs are to go, and no new ones come.
    pub(super) fn starts_nothing_new(&self) -> bool {
        self.leaving != super::Leaving::No
            || self.cordon.is_some()
            || self.node.standing() == crate::kernel::node::Standing::Draining
    }
}
