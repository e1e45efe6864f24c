//! `runmesh mesh`: make a mesh, invite to it, join one, see who takes part, put one out.

mod revoke;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::args::{MeshCommand, Output};
use super::failure::Failure;
use super::link::connect;
use super::screen::{Cell, Paint, Screen, ago, now_ms, say, say_json, short_peer, span};
use super::settings::Place;
use crate::control::proto::Member;
use crate::daemon::{Home, HomeError};
use crate::kernel::entry::Ticket;
use crate::store::{DataDir, Secret, StoreError};
use crate::wire::entry::check_labels;
use crate::wire::ticket::Invitation;

/// Whose a data directory is, as `mesh init` and `mesh join` answer.
#[derive(Serialize)]
struct Membership {
    peer_id: String,
    mesh_id: String,
    data_dir: String,
    bootstrap: Vec<String>,
}

impl Membership {
    fn of(home: &Home) -> Self {
        Self {
            peer_id: home.peer().to_string(),
            mesh_id: home.membership.mesh.to_string(),
            data_dir: home.dir.path().display().to_string(),
            bootstrap: home.membership.bootstrap.clone(),
        }
    }
}

/// Does what the command says.
pub(super) async fn run(place: &Place, command: &MeshCommand) -> Result<(), Failure> {
    match command {
        MeshCommand::Init => init(place),
        MeshCommand::Invite { ttl, labels, mesh_key, addresses } => {
            let invite = Invite { ttl: *ttl, labels, mesh_key: mesh_key.as_deref(), addresses };
            invite.print(place).await
        }
        MeshCommand::Join { ticket } => join(place, ticket),
        MeshCommand::Members => members(place).await,
        MeshCommand::Revoke { what, mesh_key, unsigned } => {
            revoke::run(place, what, mesh_key.as_deref(), *unsigned).await
        }
    }
}

/// Presses the stop button.
pub(super) async fn pause(place: &Place, why: &str) -> Result<(), Failure> {
    connect(place).await?.pause(why).await?;
    told(place, true, &format!("the mesh is paused: what runs goes on\nnext: runmesh resume{}\n", place.flag()))
}

/// Releases it.
pub(super) async fn resume(place: &Place) -> Result<(), Failure> {
    connect(place).await?.resume().await?;
    told(place, false, "the mesh is resumed\n")
}

fn told(place: &Place, paused: bool, text: &str) -> Result<(), Failure> {
    match place.output {
        Output::Json => say_json(&serde_json::json!({ "paused": paused }), false),
        Output::Table => say(text),
    }
}

fn init(place: &Place) -> Result<(), Failure> {
    let home = Home::open(&place.data_dir).map_err(unusable)?;
    if !home.founded {
        let mesh = home.membership.mesh;
        return Err(Failure::failed(format!("this host belongs to mesh {mesh} already"))
            .hint("make another mesh with another --data-dir"));
    }
    let made = Membership::of(&home);
    match place.output {
        Output::Json => say_json(&made, false),
        Output::Table => say(&format!(
            "made mesh {}\nthis host is its founder: {}\nnext: runmesh node run{}\n",
            made.mesh_id,
            made.peer_id,
            place.flag()
        )),
    }
}

/// What `mesh invite` is told.
struct Invite<'a> {
    ttl: Duration,
    labels: &'a [String],
    mesh_key: Option<&'a Path>,
    addresses: &'a [String],
}

impl Invite<'_> {
    async fn print(&self, place: &Place) -> Result<(), Failure> {
        let (key, addresses) = self.made_of(place).await?;
        let id = getrandom::u64().map_err(|error| Failure::failed("cannot get random bytes").because(&error))?;
        let ttl_ms = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        let expires_ms = now_ms().saturating_add(ttl_ms);
        let labels: BTreeSet<String> = self.labels.iter().map(|label| label.to_lowercase()).collect();
        let labels = Some(labels).filter(|labels| !labels.is_empty());
        let ticket = Ticket::sign_for(&key.signing_key(), id, expires_ms, labels);
        check_labels(&ticket).map_err(|error| Failure::usage("cannot make this ticket").because(&error))?;
        let invitation = Invitation { mesh: key.mesh_id(), ticket, addresses };
        match place.output {
            Output::Table => say(&format!("{invitation}\n")),
            Output::Json => say_json(
                &serde_json::json!({
                    "ticket": invitation.to_string(),
                    "mesh_id": invitation.mesh.to_string(),
                    "addresses": invitation.addresses,
                    "labels": invitation.ticket.labels,
                    "expires_ms": expires_ms,
                }),
                false,
            ),
        }
    }

    /// The key to sign with, and where the mesh can be reached.
    async fn made_of(&self, place: &Place) -> Result<(Secret, Vec<String>), Failure> {
        if let (Some(file), false) = (self.mesh_key, self.addresses.is_empty()) {
            return Ok((key_of(place, Some(file), None)?, self.addresses.to_vec()));
        }
        let invite = connect(place).await?.invite().await?;
        let key = key_of(place, self.mesh_key, Some(&invite.mesh_id))?;
        let addresses = if self.addresses.is_empty() { invite.addresses } else { self.addresses.to_vec() };
        if addresses.is_empty() {
            return Err(Failure::failed("the node listens nowhere, so nobody could follow an invitation")
                .hint("start it with --listen"));
        }
        Ok((key, addresses))
    }
}

/// The mesh's key: from that file, else this host's own. It must be this mesh's where one is named.
fn key_of(place: &Place, file: Option<&Path>, mesh: Option<&str>) -> Result<Secret, Failure> {
    let key = match file {
        Some(file) => Some(Secret::read(file).map_err(|error| Failure::of(&error))?),
        None => DataDir::open(&place.data_dir).and_then(|dir| dir.mesh_key()).map_err(|error| Failure::of(&error))?,
    };
    let fits = |key: &Secret| mesh.is_none_or(|mesh| key.mesh_id().to_string() == mesh);
    key.filter(fits).ok_or_else(|| {
        let mesh = mesh.map(|mesh| format!(" {mesh}")).unwrap_or_default();
        Failure::failed(format!("the key of mesh{mesh} is not here"))
            .hint("run this on the host that made the mesh, or name its key with --mesh-key FILE")
    })
}

fn join(place: &Place, ticket: &str) -> Result<(), Failure> {
    let invitation: Invitation =
        ticket.parse().map_err(|error| Failure::usage("cannot use this ticket").because(&error))?;
    let home = Home::join(&place.data_dir, &invitation).map_err(unusable)?;
    let expires_ms = invitation.ticket.expires_ms;
    let joined = Membership::of(&home);
    match place.output {
        Output::Json => say_json(&joined, false),
        Output::Table => {
            let left = expires_ms.saturating_sub(now_ms());
            let time = if left == 0 {
                "the ticket has expired by this host's clock: if no member admits this host, ask for another".to_owned()
            } else {
                format!("start it within {}, while the ticket is good", span(left))
            };
            say(&format!(
                "this host is {} and will join mesh {}\nnext: runmesh node run{}  ({time})\n",
                joined.peer_id,
                joined.mesh_id,
                place.flag()
            ))
        }
    }
}

async fn members(place: &Place) -> Result<(), Failure> {
    let members = connect(place).await?.members().await?;
    match place.output {
        Output::Json => say_json(&members, false),
        Output::Table if members.is_empty() => {
            say("no members known yet: this node waits for a member that admits it by its ticket\n")
        }
        Output::Table => say(&member_table(Screen::stdout(), &members, now_ms())),
    }
}

fn member_table(screen: Screen, members: &[Member], now: u64) -> String {
    let row = |member: &Member| {
        let state = match (member.self_, member.heard) {
            (true, _) => Cell::painted(Paint::Strong, "self"),
            (false, true) => Cell::painted(Paint::Good, "heard"),
            (false, false) => Cell::painted(Paint::Faint, "silent"),
        };
        let by = if member.admitted_by == member.peer_id { "itself" } else { short_peer(&member.admitted_by) };
        let seen = match (member.self_, member.heard_ago_ms) {
            (true, _) => "-".to_owned(),
            (false, Some(heard)) => ago(heard),
            (false, None) => format!("wrote {}", ago(now.saturating_sub(member.written_ms))),
        };
        [
            Cell::from(&member.peer_id),
            state,
            ago(now.saturating_sub(member.admitted_ms)).into(),
            by.into(),
            seen.into(),
            member.version.clone().into(),
        ]
    };
    screen.table(
        ["member", "state", "admitted", "by", "last heard", "version"],
        members.iter().map(row).collect(),
        &["member", "state", "admitted"],
    )
}

/// A data directory that does not do for a node.
pub(super) fn unusable(error: HomeError) -> Failure {
    let is_none = matches!(error, HomeError::Store(StoreError::Directory { .. } | StoreError::File { .. }));
    let failure = Failure::of(&error);
    if is_none { failure.hint("name another data directory with --data-dir") } else { failure }
}
