//! Which mesh this host belongs to and how it finds it: `mesh.toml`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kernel::id::MeshId;

use super::dir::{DataDir, HeldDir};
use super::error::StoreError;

/// Which mesh this host belongs to, in the data directory.
pub const MEMBERSHIP: &str = "mesh.toml";

/// Which mesh this host belongs to and how it finds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Membership {
    pub mesh: MeshId,
    /// Multiaddrs of members to reach first.
    pub bootstrap: Vec<String>,
    /// The ticket that this host has not used yet, in its text form. It is a right, so it does not print.
    pub ticket: Option<String>,
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("mesh", &self.mesh)
            .field("bootstrap", &self.bootstrap)
            .field("ticket", &self.ticket.as_ref().map(|_| "…"))
            .finish()
    }
}

/// The file's own shape.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    mesh: String,
    #[serde(default)]
    bootstrap: Vec<String>,
    ticket: Option<String>,
}

impl DataDir {
    /// What this host knows of its mesh; `None` before it belongs to one.
    ///
    /// # Errors
    /// [`StoreError::Membership`] when the file cannot be understood, [`StoreError::Exposed`] when others can read it.
    pub fn membership(&self) -> Result<Option<Membership>, StoreError> {
        let Some(text) = self.read_private(MEMBERSHIP)? else { return Ok(None) };
        let wrong = |why: String| StoreError::Membership { path: self.path().join(MEMBERSHIP), why };
        // The parser's own message quotes the line, which may hold the ticket.
        let text: Text = toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        let mesh = text.mesh.parse().map_err(|error| wrong(format!("{error}")))?;
        Ok(Some(Membership { mesh, bootstrap: text.bootstrap, ticket: text.ticket }))
    }
}

impl HeldDir {
    /// Replaces what this host knows of its mesh, on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::File`] or [`StoreError::Full`] when it cannot be written; what was there before then stands.
    pub fn keep_membership(&self, membership: &Membership) -> Result<(), StoreError> {
        let Membership { mesh, bootstrap, ticket } = membership.clone();
        let text = toml::to_string(&Text { mesh: mesh.to_string(), bootstrap, ticket })
            .map_err(|error| StoreError::Membership { path: self.path().join(MEMBERSHIP), why: error.to_string() })?;
        self.write_private(MEMBERSHIP, &format!("# Kept by runmesh: which mesh this host belongs to.\n{text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_the_ticket_does_not_print() {
        let dir = tempfile::tempdir().expect("directory");
        let held = DataDir::open(dir.path()).and_then(DataDir::hold).expect("held");
        assert_eq!(held.membership().expect("readable"), None);
        let mut membership = Membership {
            mesh: MeshId([8; 32]),
            bootstrap: vec!["/ip4/127.0.0.1/tcp/4001".to_owned(), "/dns/a.example/tcp/1".to_owned()],
            ticket: Some("rm1\"quoted\"\n".to_owned()),
        };
        held.keep_membership(&membership).expect("kept");
        assert_eq!(held.membership().expect("readable"), Some(membership.clone()));
        assert!(!format!("{membership:?}").contains("quoted"));
        membership.ticket = None;
        held.keep_membership(&membership).expect("kept");
        assert_eq!(held.membership().expect("readable"), Some(membership));
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_refused_without_its_ticket() {
        let dir = tempfile::tempdir().expect("directory");
        let held = DataDir::open(dir.path()).and_then(DataDir::hold).expect("held");
        for text in ["mesh = \"abc\"", "ticket = \"hush-hush", "mesh = 3\nticket = \"hush-hush\"", "\0", "mash = \"\""]
        {
            held.write_private(MEMBERSHIP, text).expect("written");
            let sentence = held.membership().expect_err("not understood").to_string();
            assert!(sentence.contains("mesh.toml") && !sentence.contains("hush"), "{sentence}");
        }
    }
}
