//! What GitHub may know of this host: each runner's registration, in the ledger before GitHub is asked for it.
//!
//! A record is struck out when a list of GitHub's that was asked for after the runner had gone does not show it, or when
//! GitHub said that it made or keeps none. As long as there is one, the runners of its scope are looked at: a scope that the
//! settings name no more is taken care of too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::daemon::Daemon;
use crate::daemon::chronicle::wall_ms;
use crate::forge::github::{Registered, Scope};
use crate::store::{Book, Store, StoreError};

/// GitHub removes an ephemeral runner that was not connected for a day (its documentation of self-hosted runners); a job here
/// may take five days at most. In milliseconds.
const FORGOTTEN: u64 = 7 * 86_400_000;

/// As it is written, under the runner's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    scope: Scope,
    /// When GitHub was about to be asked, in milliseconds since 1970.
    at_ms: u64,
}

struct Entry {
    scope: Scope,
    /// In milliseconds since 1970.
    at_ms: u64,
    /// Since when no runner here stands behind it, by the daemon's clock.
    loose: Option<u64>,
}

/// The records, by the runners' names.
#[derive(Default)]
pub(super) struct Registrations(BTreeMap<String, Entry>);

impl Registrations {
    /// What an earlier life of the node has entered.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) fn kept(store: &Store) -> Result<Self, StoreError> {
        let mut all = BTreeMap::new();
        for (name, bytes) in store.records(Book::Registrations)? {
            match serde_json::from_slice(&bytes) {
                Ok(Record { scope, at_ms }) => drop(all.insert(name, Entry { scope, at_ms, loose: Some(0) })),
                Err(error) => tracing::warn!("the ledger's record {name} cannot be read: {error}"),
            }
        }
        Ok(Self(all))
    }

    /// Where this host's runners may be registered.
    pub(super) fn scopes(&self) -> BTreeSet<Scope> {
        self.0.values().map(|entry| entry.scope.clone()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The names that GitHub has forgotten by itself, as where its lists cannot be read any more: of a repository that is gone.
    fn forgotten(&self, wall: u64, is_here: impl Fn(&str) -> bool) -> Vec<String> {
        let forgotten =
            |(name, entry): &(&String, &Entry)| !is_here(name) && wall.saturating_sub(entry.at_ms) > FORGOTTEN;
        self.0.iter().filter(forgotten).map(|(name, _)| name.clone()).collect()
    }

    /// The names that a list of GitHub's, asked for at `asked`, shows to be gone. `is_here` says whether a runner is here.
    fn gone(
        &mut self,
        now: u64,
        asked: u64,
        scope: &Scope,
        listed: &[Registered],
        is_here: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut gone = Vec::new();
        for (name, entry) in self.0.iter_mut().filter(|(_, entry)| entry.scope == *scope) {
            if is_here(name) {
                entry.loose = None;
                continue;
            }
            // A list that was asked for before its runner had gone may be older than its registration.
            let since = *entry.loose.get_or_insert(now);
            if since <= asked && !listed.iter().any(|one| one.name == *name) {
                gone.push(name.clone());
            }
        }
        gone
    }
}

impl Daemon {
    /// Takes up what an earlier life of this node has left at GitHub.
    pub(in crate::daemon) fn take_up_registrations(&mut self) {
        match tokio::task::block_in_place(|| Registrations::kept(&self.store)) {
            Ok(kept) => self.scale.registrations = kept,
            Err(error) => self.chronicle.warn(format!("what GitHub may know of this host is not known: {error}")),
        }
        let left = self.scale.registrations.len();
        if left > 0 && self.scale.settings.is_none() {
            let scopes: Vec<String> = self.scale.registrations.scopes().iter().map(ToString::to_string).collect();
            self.chronicle.warn(format!(
                "{left} runners of this host may still be registered with {}, and the autoscaler is off: with \
                 --autoscaler it takes them back, or remove them there",
                scopes.join(", ")
            ));
        }
    }

    /// Enters a runner that GitHub is about to be asked for; on disk when the answer is there.
    pub(super) fn enter_registration(
        &mut self,
        name: &str,
        scope: &Scope,
    ) -> impl Future<Output = Result<(), String>> + Send + 'static {
        let at_ms = wall_ms();
        self.scale.registrations.0.insert(name.to_owned(), Entry { scope: scope.clone(), at_ms, loose: None });
        let (store, name) = (Arc::clone(&self.store), name.to_owned());
        let record = serde_json::to_vec(&Record { scope: scope.clone(), at_ms });
        async move {
            let record = record.map_err(|error| error.to_string())?;
            let entered = spawn_blocking(move || store.enter(Book::Registrations, &name, &record)).await;
            entered.map_err(|fault| fault.to_string())?.map_err(|error| error.to_string())
        }
    }

    /// Strikes out what a list of GitHub's does not show any more.
    pub(super) fn settle_registrations(&mut self, now: u64, asked: u64, scope: &Scope, listed: &[Registered]) {
        let pool = &self.scale.pool;
        let gone = self.scale.registrations.gone(now, asked, scope, listed, |name| pool.has(name));
        self.strike_registrations(&gone.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Strikes out what GitHub has forgotten by itself.
    pub(super) fn strike_forgotten_registrations(&mut self) {
        let forgotten = self.scale.registrations.forgotten(wall_ms(), |name| self.scale.pool.has(name));
        self.strike_registrations(&forgotten.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Strikes runners out that GitHub does not know any more.
    pub(super) fn strike_registrations(&mut self, names: &[&str]) {
        if names.is_empty() {
            return;
        }
        match tokio::task::block_in_place(|| self.store.strike(Book::Registrations, names)) {
            Ok(()) => names.iter().for_each(|name| drop(self.scale.registrations.0.remove(*name))),
            // The next list is compared again.
            Err(error) => tracing::warn!("{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_list_that_was_asked_for_after_the_runner_had_gone_strikes_it_out() {
        let scope = Scope::Repository("o/r".to_owned());
        let entry = || Entry { scope: scope.clone(), at_ms: 1, loose: None };
        let mut all = Registrations(["a", "b", "c"].map(|name| (name.to_owned(), entry())).into());
        let listed = [Registered { id: 1, name: "b".to_owned(), busy: false, status: "offline".to_owned() }];
        // `c` is here; the list was asked for at 5, and that `a` is not here was seen at 7.
        assert_eq!(all.gone(7, 5, &scope, &listed, |name| name == "c"), [""; 0]);
        assert_eq!(all.gone(9, 8, &scope, &listed, |name| name == "c"), ["a"]);
        let other = Scope::Organization("o".to_owned());
        assert_eq!(all.gone(20, 19, &other, &[], |_| false), [""; 0]);
        // Now `c` has gone too, which is seen at 20; and GitHub lists `b` no more.
        assert_eq!(all.gone(20, 19, &scope, &[], |_| false), ["a", "b"]);
        assert_eq!(all.gone(22, 21, &scope, &[], |_| false), ["a", "b", "c"]);
        // And where no list can be read, GitHub's own time does it.
        assert_eq!(all.forgotten(FORGOTTEN + 1, |_| false), [""; 0]);
        assert_eq!(all.forgotten(FORGOTTEN + 2, |name| name == "b"), ["a", "c"]);
    }
}
