//! `runmesh mesh revoke`: with the mesh's key at hand in one step; with the key on a machine that no network reaches in
//! three: what is to be signed is printed here, signed there, and handed in here.

use std::path::Path;

use super::{Failure, Output, Place, connect, key_of, say, say_json};
use crate::wire::revocation::{NAME, Revocation, RevocationError};

pub(super) async fn run(place: &Place, what: &str, mesh_key: Option<&Path>, unsigned: bool) -> Result<(), Failure> {
    if !what.starts_with(NAME) {
        let client = connect(place).await?;
        let asked = read(&client.cut(what).await?)?;
        if unsigned {
            return print(place, &asked);
        }
        let key = key_of(place, mesh_key, Some(&asked.mesh.to_string()))?;
        let signed = asked.sign(&key.signing_key()).map_err(|error| Failure::of(&error))?;
        return told(place, &client.revoke(signed.to_string()).await?);
    }
    let given = read(what)?;
    if given.is_signed() {
        return told(place, &connect(place).await?.revoke(given.to_string()).await?);
    }
    let key = key_of(place, mesh_key, Some(&given.mesh.to_string()))?;
    print(place, &given.sign(&key.signing_key()).map_err(|error| Failure::of(&error))?)
}

fn read(text: &str) -> Result<Revocation, Failure> {
    text.parse().map_err(|error: RevocationError| Failure::usage("cannot use this revocation").because(&error))
}

/// The text alone on standard output, to be carried to where it is signed or handed in.
fn print(place: &Place, revocation: &Revocation) -> Result<(), Failure> {
    match place.output {
        Output::Table => say(&format!("{revocation}\n")),
        Output::Json => say_json(
            &serde_json::json!({
                "revocation": revocation.to_string(),
                "peer_id": revocation.peer.to_string(),
                "mesh_id": revocation.mesh.to_string(),
                "signed": revocation.is_signed(),
            }),
            false,
        ),
    }
}

fn told(place: &Place, peer: &str) -> Result<(), Failure> {
    match place.output {
        Output::Table => say(&format!("{peer} is revoked: every node drops it as soon as it hears of it\n")),
        Output::Json => say_json(&serde_json::json!({ "peer_id": peer }), false),
    }
}
