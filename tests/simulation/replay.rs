//! The entries of a run, given to a node that took no part in it.

use std::collections::BTreeSet;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use runmesh::kernel::clock::Shelf;
use runmesh::kernel::entry::Entry;
use runmesh::kernel::io::{Now, Output};
use runmesh::kernel::node::Entrance;

use super::adapter::Kernel;
use super::chance::Chance;
use super::world::World;

/// How often all entries are offered; more than once only because a quarantine may have had no room.
const PASSES: usize = 10;

/// Offers the entries in any order and in any portions, some of them twice, and expects the state of the run.
pub(crate) fn any_order(world: &World<'_>, mut chance: Chance) {
    let mut entries: Vec<Arc<Entry>> = world.entries().into_values().collect();
    let again: Vec<_> = entries.iter().filter(|_| chance.permille(200)).cloned().collect();
    entries.extend(again);
    let mut stranger = stranger(world, Vec::new(), &mut chance);
    let bringers: Vec<_> = world.hosts.iter().map(|host| host.peer).collect();
    for _ in 0..PASSES {
        chance.shuffle(&mut entries);
        let mut left = entries.as_slice();
        while !left.is_empty() {
            let (portion, rest) = left.split_at((1 + chance.below(20)).min(left.len()));
            left = rest;
            let from = bringers[chance.below(bringers.len())];
            let outputs = stranger.take(Now { mono: 1, wall: chance.next() >> 20 }, from, portion.to_vec());
            assert!(
                !outputs.iter().any(|output| matches!(output, Output::Publish(_))),
                "a stranger writes {outputs:?}"
            );
        }
        if agrees(world, &stranger).is_ok() {
            break;
        }
    }
    agrees(world, &stranger).expect("the order of arrival makes no difference");
}

/// Starts a node from the entries in any order that puts parents before children, as a disk might have them.
pub(crate) fn causal_order(world: &World<'_>, mut chance: Chance) {
    let mut waiting: Vec<Arc<Entry>> = world.entries().into_values().collect();
    chance.shuffle(&mut waiting);
    let (mut kept, mut placed) = (Vec::new(), BTreeSet::new());
    while !waiting.is_empty() {
        // A random pass over what waits takes what may come now, and leaves some of it for later.
        waiting.retain(|entry| {
            let may_come = entry.body().parents.iter().all(|parent| placed.contains(parent)) && !chance.permille(300);
            if may_come {
                placed.insert(entry.cid());
                kept.push(entry.clone());
            }
            !may_come
        });
    }
    let stranger = stranger(world, kept, &mut chance);
    agrees(world, &stranger).expect("the order on disk makes no difference");
}

fn stranger(world: &World<'_>, kept: Vec<Arc<Entry>>, chance: &mut Chance) -> Kernel {
    let identity = (SigningKey::from_bytes(&chance.bytes()), world.hosts[0].mesh, Entrance::None);
    Kernel::open(Now { mono: 1, wall: 1 }, identity, chance.next(), (None, kept), &Shelf::default()).0
}

fn agrees(world: &World<'_>, stranger: &Kernel) -> Result<(), String> {
    let (_, kernel) = world.kernels().next().ok_or("nobody is up")?;
    if stranger.heads() == kernel.heads() && stranger.state_hash() == kernel.state_hash() {
        Ok(())
    } else {
        Err(format!("the run ended with {}, the stranger has {}", kernel.status(), stranger.status()))
    }
}
