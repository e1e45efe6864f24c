//! A mesh's history, written as honest nodes would: tasks introduced, claimed by the nearest, finished.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use runmesh::kernel::clock::{Clock, Placing};
use runmesh::kernel::election::{Place, Seed};
use runmesh::kernel::entry::{Admit, Claim, Entry, Event, Finish, Introduce, Right, Ticket};
use runmesh::kernel::id::{Author, Cid, Digest, Incarnation, MeshId, PeerId, TaskId};
use runmesh::kernel::task::{Conclusion, Fence, Priority, Products, Repository, RunEvent, Tag, Trigger, Workload};

use super::Outcome;

/// How many members write at once, not knowing of each other's entries: what a busy mesh looks like.
const AT_ONCE: usize = 4;

/// The entries of a mesh, parents before children.
pub(crate) struct History {
    pub(crate) mesh_key: SigningKey,
    /// The members' keys, the founder's first.
    pub(crate) keys: Vec<SigningKey>,
    pub(crate) entries: Vec<Arc<Entry>>,
    clock: Clock,
}

impl History {
    /// A mesh of so many members that has at least so many entries.
    pub(crate) fn of(members: usize, entries: usize) -> Outcome<Self> {
        let key = |n: usize| SigningKey::from_bytes(&Digest::of(&[b"a member's key", &n.to_be_bytes()]).0);
        let mesh_key = SigningKey::from_bytes(&[7; 32]);
        let clock = Clock::new(MeshId(mesh_key.verifying_key().to_bytes()));
        let mut history = Self { mesh_key, keys: (0..members).map(key).collect(), entries: Vec::new(), clock };
        let founder = history.author(0).peer;
        let right = Right::founder(&history.mesh_key, &founder);
        history.write(BTreeMap::from([(0, vec![Event::Admit(Admit { peer: founder, right })])]))?;
        for n in 1..members {
            let right = Right::Ticket { ticket: Ticket::sign(&history.mesh_key, n as u64, u64::MAX) };
            let admit = Event::Admit(Admit { peer: history.author(n).peer, right });
            history.write(BTreeMap::from([(0, vec![admit])]))?;
        }
        let places: Vec<Place> = (0..members).map(|n| Place::of(history.author(n).peer)).collect();
        let mut tasks = 0;
        while history.entries.len() < entries {
            history.run_tasks(&places, tasks)?;
            tasks += AT_ONCE;
        }
        Ok(history)
    }

    pub(crate) fn mesh(&self) -> MeshId {
        MeshId(self.mesh_key.verifying_key().to_bytes())
    }

    fn author(&self, member: usize) -> Author {
        let peer = PeerId::from_public_key(self.keys[member].verifying_key().to_bytes());
        Author { peer, incarnation: Incarnation(1) }
    }

    /// Some tasks from their introduction to their end.
    fn run_tasks(&mut self, places: &[Place], first: usize) -> Outcome<()> {
        let mut introductions: BTreeMap<usize, Vec<Event>> = BTreeMap::new();
        let mut tasks: Vec<(usize, TaskId)> = Vec::new();
        for n in first..first + AT_ONCE {
            let workload = Arc::new(workload(n));
            let member = n % self.keys.len();
            tasks.push((member, workload.id()));
            introductions.entry(member).or_default().push(Event::Introduce(Introduce { workload }));
        }
        let anchors = self.write(introductions)?;
        let mut claims: BTreeMap<usize, Vec<Event>> = BTreeMap::new();
        let mut holders = Vec::new();
        for (member, task) in tasks {
            let anchor = anchors[&member];
            let nearest = Seed::of(&anchor, &task).nearest(places).map(|ranked| ranked.peer);
            let holder = places.iter().position(|place| Some(place.peer()) == nearest).unwrap_or_default();
            claims.entry(holder).or_default().push(Event::Claim(Claim { task, attempt: 1, anchor }));
            holders.push((holder, task));
        }
        let claims = self.write(claims)?;
        let mut finishes: BTreeMap<usize, Vec<Event>> = BTreeMap::new();
        for (holder, task) in holders {
            let fence = Fence { attempt: 1, claim: claims[&holder] };
            let finish = Finish {
                task,
                fence,
                conclusion: Conclusion::Success,
                duration_ms: 61_000,
                note: String::new(),
                products: Products::default(),
            };
            finishes.entry(holder).or_default().push(Event::Finish(finish));
        }
        self.write(finishes)?;
        Ok(())
    }

    /// Writes an entry of each of these members, none of which knows the others'.
    fn write(&mut self, events: BTreeMap<usize, Vec<Event>>) -> Outcome<BTreeMap<usize, Cid>> {
        let wall = 1_700_000_000_000 + self.entries.len() as u64 * 1_000;
        let sealed: Vec<(usize, Arc<Entry>)> = events
            .into_iter()
            .map(|(member, events)| {
                let body = self.clock.next_body(self.author(member), wall, events, |_| false);
                (member, Arc::new(Entry::seal(body, &self.keys[member])))
            })
            .collect();
        let mut cids = BTreeMap::new();
        for (member, entry) in sealed {
            match self.clock.place(&entry, false) {
                (Placing::Placed { counts: true }, _) => {}
                (other, _) => return Err(format!("the made-up history does not hold: {other:?}").into()),
            }
            cids.insert(member, entry.cid());
            self.entries.push(entry);
        }
        Ok(cids)
    }
}

/// The n-th thing to run.
pub(crate) fn workload(n: usize) -> Workload {
    let commit = Digest::of(&[b"commit", &n.to_be_bytes()]).to_string()[..40].to_owned();
    let blob = Digest::of(&[b"blob", &n.to_be_bytes()]).to_string()[..40].to_owned();
    Workload {
        repository: Repository { host: "git".to_owned(), id: "bench".to_owned(), name: "bench".to_owned() },
        path: format!(".github/workflows/check-{}.yml", n % 50),
        trigger: Trigger::Revision { blob },
        commit,
        r#ref: "refs/heads/main".to_owned(),
        event: RunEvent::Push,
        name: "Check".to_owned(),
        tags: BTreeSet::from([Tag::P2pOnly]),
        priority: Priority::of(&BTreeSet::from([Tag::P2pOnly])),
        labels: BTreeSet::from(["ubuntu-latest".to_owned()]),
        inputs: BTreeMap::new(),
        time_limit_s: 3_600,
        fallback_s: 600,
        concurrency: None,
    }
}
