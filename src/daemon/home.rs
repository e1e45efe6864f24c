//! A node's data directory: whose it is, and of which mesh.

use std::io::ErrorKind;
use std::path::Path;

use super::membership::was_revoked;
use crate::kernel::entry::Right;
use crate::kernel::id::{MeshId, PeerId};
use crate::kernel::node::Entrance;
use crate::store::{
    DATABASE, DataDir, HeldDir, Holder, MEMBERSHIP, MESH_KEY, Membership, Owner, Secret, Store, StoreError,
};
use crate::wire::ticket::{Invitation, TicketError};

/// Why a data directory does not do for a node.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("this host belongs to mesh {0} already; to join another, use another --data-dir")]
    Taken(MeshId),
    #[error(
        "this host was revoked by the holder of the key of mesh {0}, and stays out for good under its present identity: \
         join with a new --data-dir"
    )]
    Revoked(MeshId),
    #[error("reading the ticket kept in the data directory: {0}; ask for another and run `runmesh mesh join` again")]
    Ticket(#[from] TicketError),
}

/// An opened data directory, held for this process.
#[derive(Debug)]
pub struct Home {
    pub dir: HeldDir,
    pub identity: Secret,
    pub membership: Membership,
    /// Whether this call made the mesh.
    pub founded: bool,
}

impl Home {
    /// Opens the directory, and makes what is missing: the directory, an identity, and a mesh of one.
    ///
    /// # Errors
    /// [`HomeError::Store`] when another process holds the directory or its files cannot be used.
    pub fn open(path: &Path) -> Result<Self, HomeError> {
        let dir = DataDir::create(path)?.hold()?;
        let identity = identity(&dir)?;
        if let Some(membership) = dir.membership()? {
            return Ok(Self { dir, identity, membership, founded: false });
        }
        let key = match dir.mesh_key()? {
            Some(key) => key,
            None => {
                let key = Secret::generate()?;
                dir.keep_mesh_key(&key)?;
                key
            }
        };
        let membership = Membership { mesh: key.mesh_id(), bootstrap: Vec::new(), ticket: None };
        dir.keep_membership(&membership)?;
        Ok(Self { dir, identity, membership, founded: true })
    }

    /// Whether [`Self::open`] would make a mesh there, and its key.
    pub fn would_found(path: &Path) -> bool {
        [DATABASE, MEMBERSHIP, MESH_KEY].iter().all(|name| path.join(name).symlink_metadata().is_err())
    }

    /// Takes away the mesh that a start of this process has made and that nobody has heard of, since it failed: this
    /// host may then join another. The host's identity stays.
    ///
    /// # Errors
    /// [`HomeError::Store`] when another process has the directory, or its files stay.
    pub fn unfound(path: &Path) -> Result<(), HomeError> {
        let me = std::process::id();
        let _held = match DataDir::open(path)?.hold() {
            // What the start has left running may have it still.
            Err(StoreError::Held { holder: Holder::Process { pid, .. }, .. }) if pid == me => None,
            held => Some(held?),
        };
        for name in [DATABASE, MEMBERSHIP, MESH_KEY] {
            let path = path.join(name);
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(StoreError::File { doing: "removing", path, source }.into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes this host a coming member of the ticket's mesh: keeps the ticket and its addresses for the next start.
    ///
    /// # Errors
    /// [`HomeError::Taken`] when the directory belongs to another mesh, or to this one through another ticket that is
    /// used up; [`HomeError::Revoked`] when the mesh has put this host out; [`HomeError::Store`] as in [`Self::open`].
    pub fn join(path: &Path, invitation: &Invitation) -> Result<Self, HomeError> {
        if is_revoked(path, invitation.mesh) {
            return Err(HomeError::Revoked(invitation.mesh));
        }
        let dir = DataDir::create(path)?.hold()?;
        let kept = dir.membership()?;
        if let Some(kept) = kept
            && kept.mesh != invitation.mesh
        {
            return Err(HomeError::Taken(kept.mesh));
        }
        let identity = identity(&dir)?;
        let membership = Membership {
            mesh: invitation.mesh,
            bootstrap: invitation.addresses.clone(),
            ticket: Some(invitation.to_string()),
        };
        dir.keep_membership(&membership)?;
        Ok(Self { dir, identity, membership, founded: false })
    }

    /// The node's name.
    pub fn peer(&self) -> PeerId {
        self.identity.peer_id()
    }

    /// How the node becomes a member, should it not be one yet.
    ///
    /// # Errors
    /// [`HomeError::Ticket`] when the kept ticket cannot be read.
    pub fn entrance(&self) -> Result<Entrance, HomeError> {
        if let Some(key) = self.dir.mesh_key()?
            && key.mesh_id() == self.membership.mesh
        {
            return Ok(Entrance::Founder(Right::founder(&key.signing_key(), &self.peer())));
        }
        match &self.membership.ticket {
            Some(text) => Ok(Entrance::Ticket(text.parse::<Invitation>()?.ticket)),
            None => Ok(Entrance::None),
        }
    }
}

/// Whether it is on disk there that the mesh has put this host out. What cannot be read says nothing of that.
fn is_revoked(path: &Path, mesh: MeshId) -> bool {
    let look = || {
        let dir = DataDir::open(path)?.hold()?;
        let Some(identity) = dir.identity_key()?.filter(|_| path.join(DATABASE).exists()) else { return Ok(false) };
        was_revoked(&Store::open(dir, Owner { mesh, peer: identity.peer_id() })?)
    };
    look().unwrap_or_else(|error: StoreError| {
        tracing::debug!("looking whether this host was revoked: {error}");
        false
    })
}

fn identity(dir: &HeldDir) -> Result<Secret, StoreError> {
    if let Some(key) = dir.identity_key()? {
        return Ok(key);
    }
    let key = Secret::generate()?;
    dir.keep_identity_key(&key)?;
    Ok(key)
}
