//! `runmesh mesh`: make a mesh, invite to it, join one, see who takes part.

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
use crate::store::DataDir;
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
        MeshCommand::Invite { ttl } => invite(place, *ttl).await,
        MeshCommand::Join { ticket } => join(place, ticket),
        MeshCommand::Members => members(place).await,
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

async fn invite(place: &Place, ttl: Duration) -> Result<(), Failure> {
    let invite = connect(place).await?.invite().await?;
    let key = DataDir::open(&place.data_dir).and_then(|dir| dir.mesh_key()).map_err(|error| Failure::of(&error))?;
    let key = key.filter(|key| key.mesh_id().to_string() == invite.mesh_id).ok_or_else(|| {
        Failure::failed(format!("this host does not have the key of mesh {}, so it cannot invite", invite.mesh_id))
            .hint("run `runmesh mesh invite` on the host that made the mesh")
    })?;
    if invite.addresses.is_empty() {
        return Err(Failure::failed("the node listens nowhere, so nobody could follow an invitation")
            .hint("start it with --listen"));
    }
    let id = getrandom::u64().map_err(|error| Failure::failed("cannot get random bytes").because(&error))?;
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let expires_ms = now_ms().saturating_add(ttl_ms);
    let ticket = Ticket::sign(&key.signing_key(), id, expires_ms);
    let invitation = Invitation { mesh: key.mesh_id(), ticket, addresses: invite.addresses };
    match place.output {
        Output::Table => say(&format!("{invitation}\n")),
        Output::Json => say_json(
            &serde_json::json!({
                "ticket": invitation.to_string(),
                "mesh_id": invitation.mesh.to_string(),
                "addresses": invitation.addresses,
                "expires_ms": expires_ms,
            }),
            false,
        ),
    }
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
        [Cell::from(&member.peer_id), state, ago(now.saturating_sub(member.admitted_ms)).into(), by.into()]
    };
    screen.table(
        ["member", "state", "admitted", "by"],
        members.iter().map(row).collect(),
        &["member", "state", "admitted"],
    )
}

fn unusable(error: HomeError) -> Failure {
    Failure::of(&error)
}
