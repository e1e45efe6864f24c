//! How many runners of which kind: this host's slots, shared between the mesh's tasks and GitHub's jobs.
//!
//! Owns the rule of DESIGN.md section 6. Promises that the slots are never exceeded, that neither kind starves, and that
//! nothing waits beside a slot that it may use. Leaves to others what is waiting for this host at all (labels, election,
//! disk floor) and which of the waiting goes first within its kind.
//!
//! The rule is the source system's, `mesh = min(pending, max / 2)`, `github = max(1, max - mesh)`, and its edges are:
//! with no slot there is none to share; a single slot goes to the kind whose oldest work has waited longest, which
//! alternates them; the division rounds up for the mesh while tasks of it wait; and as GitHub keeps one slot while
//! its jobs want one, so does the mesh. What one kind does not need the other may borrow; nothing that runs is ever
//! stopped to give it back, so a lender waits for the next slot that comes free.
//!
//! Slots that no work needs may hold runners that wait for jobs which nobody has queued yet ([`keep_warm`]). Such a runner
//! serves a job without a slot of its own, and goes as soon as any other work has a use for its slot.

/// The two kinds of work a slot can be given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Mesh,
    Github,
}

/// What one kind of work has and wants on this host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Runners that are busy or starting.
    pub running: u32,
    /// Work that could start here now, did it have a slot.
    pub waiting: u32,
    /// How long the oldest of it has waited, in milliseconds; read only while something waits.
    pub oldest_ms: u64,
}

impl Demand {
    const fn wanted(&self) -> u32 {
        self.running.saturating_add(self.waiting)
    }
}

/// The mesh's part of the slots while both kinds want them, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u8);

impl Default for Share {
    /// Half, as in the source system.
    fn default() -> Self {
        Self(50)
    }
}

impl Share {
    /// # Errors
    /// A sentence when the number is above 100.
    pub fn percent(percent: u8) -> Result<Self, String> {
        if percent <= 100 { Ok(Self(percent)) } else { Err(format!("a share of {percent} % is more than the whole")) }
    }
}

/// What happens to slots that a kind does not need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Idle {
    /// The other kind borrows them.
    #[default]
    Lent,
    /// They stay free for the kind they belong to.
    Kept,
}

/// This host's slots and how they are shared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// The most runners at once, of both kinds together.
    pub max: u32,
    pub share: Share,
    pub idle: Idle,
}

/// How many runners of each kind to start now, besides those that run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Starts {
    pub mesh: u32,
    pub github: u32,
}

/// Shares the free slots among what waits.
pub fn allocate(capacity: Capacity, mesh: Demand, github: Demand) -> Starts {
    let free = capacity.max.saturating_sub(mesh.running.saturating_add(github.running));
    let own = shares(capacity, &mesh, &github);
    // A kind that has borrowed keeps what runs; then less is free than the other kind's share has room for.
    let due = |demand: &Demand, own: u32| demand.waiting.min(own.saturating_sub(demand.running)).min(free);
    let mut starts = Starts { mesh: due(&mesh, own.mesh), github: due(&github, own.github) };
    debug_assert!(starts.mesh + starts.github <= free, "the shares add up to the slots");
    if capacity.idle == Idle::Lent {
        // At most one kind still waits when both have got what is theirs, else nothing is left.
        let mut left = free - starts.mesh - starts.github;
        let borrowed = left.min(mesh.waiting - starts.mesh);
        starts.mesh += borrowed;
        left -= borrowed;
        starts.github += left.min(github.waiting - starts.github);
    }
    starts
}

/// Runners that wait here for jobs, and how many are to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Warm {
    pub wanted: u32,
    pub idle: u32,
}

/// What is to become of the runners that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Warming {
    /// How many more are to be started.
    pub start: u32,
    /// How many of them give their slots up.
    pub retire: u32,
}

/// How many runners wait for jobs in slots that nothing else needs. `mesh` and `github` are the work beside them: a
/// waiting runner is not among what runs, and its slot is one of `capacity`'s.
///
/// One more than is wanted is not retired for that: it goes when its time to find a job is over.
pub fn keep_warm(capacity: Capacity, mesh: Demand, github: Demand, warm: Warm) -> Warming {
    // The first jobs are those of the waiting runners, which then are waiting no more.
    let served = github.waiting.min(warm.idle);
    let github = Demand { running: github.running + served, waiting: github.waiting - served, ..github };
    let starts = allocate(capacity, mesh, github);
    let free = capacity.max.saturating_sub(mesh.running.saturating_add(github.running));
    let (room, idle) = (free - starts.mesh - starts.github, warm.idle - served);
    Warming { start: warm.wanted.min(room).saturating_sub(idle), retire: idle.saturating_sub(room) }
}

/// How many of the slots belong to each kind now; together never more than there are.
fn shares(capacity: Capacity, mesh: &Demand, github: &Demand) -> Starts {
    let max = capacity.max;
    if max <= 1 {
        let to_mesh = turn(mesh, github) == Kind::Mesh;
        return Starts { mesh: if to_mesh { max } else { 0 }, github: if to_mesh { 0 } else { max } };
    }
    let hundredths = u64::from(max) * u64::from(capacity.share.0);
    let part = if mesh.waiting > 0 { hundredths.div_ceil(100) } else { hundredths / 100 };
    let part = u32::try_from(part).unwrap_or(max);
    // One slot at least for each that wants any, whatever the share says.
    let least = u32::from(mesh.wanted() > 0);
    let most = max - u32::from(github.wanted() > 0 || capacity.idle == Idle::Kept);
    let mesh_own = part.clamp(least, most);
    match capacity.idle {
        // The source system's `min(pending, …)`: what the mesh does not need is GitHub's.
        Idle::Lent => {
            let mesh_own = mesh_own.min(mesh.wanted());
            Starts { mesh: mesh_own, github: max - mesh_own }
        }
        Idle::Kept => Starts { mesh: mesh_own, github: max - mesh_own },
    }
}

/// Whose turn a single slot is: the longest waiting goes first, the mesh if both waited as long.
fn turn(mesh: &Demand, github: &Demand) -> Kind {
    match (mesh.waiting > 0, github.waiting > 0) {
        (true, true) if github.oldest_ms > mesh.oldest_ms => Kind::Github,
        (false, true) => Kind::Github,
        _ => Kind::Mesh,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn capacity(max: u32) -> Capacity {
        Capacity { max, ..Capacity::default() }
    }

    fn waiting(waiting: u32) -> Demand {
        Demand { waiting, ..Demand::default() }
    }

    fn starts(mesh: u32, github: u32) -> Starts {
        Starts { mesh, github }
    }

    #[test]
    fn the_source_systems_rule() {
        assert_eq!(allocate(capacity(10), waiting(20), waiting(20)), starts(5, 5));
        assert_eq!(allocate(capacity(10), waiting(2), waiting(20)), starts(2, 8));
        assert_eq!(allocate(capacity(10), waiting(0), waiting(20)), starts(0, 10));
    }

    #[test]
    fn an_odd_slot_is_the_meshs_while_its_tasks_wait() {
        assert_eq!(allocate(capacity(3), waiting(9), waiting(9)), starts(2, 1));
        let busy = Demand { running: 1, ..Demand::default() };
        assert_eq!(allocate(capacity(3), busy, waiting(9)), starts(0, 2));
    }

    #[test]
    fn no_slot_and_one_slot() {
        assert_eq!(allocate(capacity(0), waiting(9), waiting(9)), starts(0, 0));
        let (young, old) = (Demand { oldest_ms: 1, ..waiting(3) }, Demand { oldest_ms: 2, ..waiting(3) });
        assert_eq!(allocate(capacity(1), young, old), starts(0, 1));
        assert_eq!(allocate(capacity(1), old, young), starts(1, 0));
        assert_eq!(allocate(capacity(1), young, young), starts(1, 0));
    }

    #[test]
    fn idle_slots_are_lent_unless_they_are_kept() {
        assert_eq!(allocate(capacity(4), waiting(9), waiting(0)), starts(4, 0));
        let kept = Capacity { idle: Idle::Kept, ..capacity(4) };
        assert_eq!(allocate(kept, waiting(9), waiting(0)), starts(2, 0));
        assert_eq!(allocate(kept, waiting(0), waiting(9)), starts(0, 2));
    }

    #[test]
    fn a_lender_gets_the_next_free_slot() {
        let borrower = Demand { running: 3, waiting: 5, oldest_ms: 9 };
        assert_eq!(allocate(capacity(4), borrower, waiting(1)), starts(0, 1));
        assert_eq!(allocate(capacity(4), waiting(1), borrower), starts(1, 0));
    }

    #[test]
    fn the_share_is_a_setting_with_one_slot_for_each() {
        let shared = |percent| Capacity { share: Share::percent(percent).unwrap(), ..capacity(10) };
        assert_eq!(allocate(shared(80), waiting(20), waiting(20)), starts(8, 2));
        assert_eq!(allocate(shared(100), waiting(20), waiting(20)), starts(9, 1));
        assert_eq!(allocate(shared(0), waiting(20), waiting(20)), starts(1, 9));
        assert!(Share::percent(101).is_err());
    }

    #[test]
    fn runners_wait_in_slots_that_nothing_else_needs() {
        let warm = |wanted, idle| Warm { wanted, idle };
        let busy = |running, waiting| Demand { running, waiting, oldest_ms: 0 };
        let none = Demand::default();
        assert_eq!(keep_warm(capacity(4), none, none, warm(2, 0)), Warming { start: 2, retire: 0 });
        assert_eq!(keep_warm(capacity(1), none, none, warm(2, 0)), Warming { start: 1, retire: 0 });
        assert_eq!(keep_warm(capacity(4), none, none, warm(2, 2)), Warming::default());
        // A job takes one of them, and another waits in its place as long as there is room.
        assert_eq!(keep_warm(capacity(4), none, busy(0, 1), warm(2, 2)), Warming { start: 1, retire: 0 });
        assert_eq!(keep_warm(capacity(2), none, busy(0, 3), warm(2, 2)), Warming::default());
        assert_eq!(keep_warm(capacity(4), none, busy(1, 0), warm(2, 1)), Warming { start: 1, retire: 0 });
        assert_eq!(keep_warm(capacity(2), none, busy(1, 0), warm(2, 1)), Warming::default());
        // Work of the mesh has the first right.
        assert_eq!(keep_warm(capacity(4), busy(2, 1), none, warm(2, 2)), Warming { start: 0, retire: 1 });
        assert_eq!(keep_warm(capacity(4), busy(2, 9), none, warm(2, 2)), Warming { start: 0, retire: 2 });
    }

    fn any_capacity() -> impl Strategy<Value = Capacity> {
        (0u32..12, 0u8..=100, any::<bool>()).prop_map(|(max, percent, lent)| Capacity {
            max,
            share: Share(percent),
            idle: if lent { Idle::Lent } else { Idle::Kept },
        })
    }

    fn any_demand() -> impl Strategy<Value = Demand> {
        (0u32..10, 0u32..20, 0u64..1000).prop_map(|(running, waiting, oldest_ms)| Demand {
            running,
            waiting,
            oldest_ms,
        })
    }

    proptest! {
        #[test]
        fn never_over_the_maximum_nor_over_the_demand(c in any_capacity(), mesh in any_demand(), github in any_demand()) {
            let starts = allocate(c, mesh, github);
            let running = mesh.running + github.running;
            prop_assert!(running + starts.mesh + starts.github <= c.max.max(running));
            prop_assert!(starts.mesh <= mesh.waiting && starts.github <= github.waiting);
        }

        #[test]
        fn nothing_waits_beside_a_slot_it_may_use(c in any_capacity(), mesh in any_demand(), github in any_demand()) {
            let s = allocate(c, mesh, github);
            let free = c.max.saturating_sub(mesh.running + github.running + s.mesh + s.github);
            let waits = mesh.waiting > s.mesh || github.waiting > s.github;
            if c.idle == Idle::Lent {
                prop_assert!(free == 0 || !waits);
            } else if free > 0 {
                // A kind that still waits has all that is its own.
                let own = shares(c, &mesh, &github);
                prop_assert!(mesh.waiting == s.mesh || mesh.running + s.mesh >= own.mesh);
                prop_assert!(github.waiting == s.github || github.running + s.github >= own.github);
            }
        }

        #[test]
        fn what_waits_for_jobs_is_in_nobodys_way(
            c in any_capacity(), mesh in any_demand(), github in any_demand(), wanted in 0u32..8, idle in 0u32..8,
        ) {
            let warm = Warm { wanted, idle };
            let Warming { start, retire } = keep_warm(c, mesh, github, warm);
            let served = github.waiting.min(idle);
            let github = Demand { running: github.running + served, waiting: github.waiting - served, ..github };
            prop_assert!(retire <= idle - served && (start == 0 || retire == 0));
            let kept = idle - served - retire + start;
            prop_assert!(start == 0 || kept <= wanted, "more than are wanted");
            // Never over the maximum, with all that may start beside them.
            let starts = allocate(c, mesh, github);
            let running = mesh.running + github.running;
            let all = running + kept + starts.mesh + starts.github;
            prop_assert!(all <= c.max.max(running));
            // Nor is a slot left unused that one is wanted for.
            prop_assert!(kept >= wanted || all >= c.max);
            if c.idle == Idle::Lent {
                // They take nothing from either kind: as many start in the slots that are left.
                prop_assert_eq!(allocate(Capacity { max: c.max - kept.min(c.max), ..c }, mesh, github), starts);
                // What was done is not undone.
                let after = |demand: Demand, starts| Demand {
                    running: demand.running + starts, waiting: demand.waiting - starts, ..demand
                };
                let (mesh, github) = (after(mesh, starts.mesh), after(github, starts.github));
                prop_assert_eq!(keep_warm(c, mesh, github, Warm { wanted, idle: kept }).retire, 0);
            }
        }

        #[test]
        fn each_kind_that_wants_one_owns_one(c in any_capacity(), mesh in any_demand(), github in any_demand()) {
            prop_assume!(c.max >= 2);
            let own = shares(c, &mesh, &github);
            prop_assert_eq!(own.mesh + own.github, c.max);
            prop_assert!(mesh.wanted() == 0 || own.mesh >= 1);
            prop_assert!(github.wanted() == 0 || own.github >= 1);
        }

        /// A host under a flood of both kinds: whatever the arrivals, nobody waits longer than all work that stood
        /// before it takes when done one after the other, and all of it is done in the end.
        #[test]
        fn nobody_starves(
            c in any_capacity(),
            arrivals in prop::collection::vec((any::<bool>(), 0u64..4, 1u64..6), 1..150),
        ) {
            prop_assume!(c.max > 0);
            let mut now = 0;
            let mut coming: VecDeque<_> = arrivals.iter().scan(0, |at, (is_mesh, gap, takes)| {
                *at += gap;
                Some((*at, *is_mesh, *takes))
            }).collect();
            let mut queues = [VecDeque::new(), VecDeque::new()];
            let mut running: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
            // With one slot of several for a kind, its work is done one after the other; with a single slot, so is all.
            let total: u64 = arrivals.iter().map(|(.., takes)| takes).sum();
            while !coming.is_empty() || queues.iter().any(|queue| !queue.is_empty()) {
                while let Some((_, is_mesh, takes)) = coming.pop_front_if(|(at, ..)| *at <= now) {
                    queues[usize::from(!is_mesh)].push_back((now, takes));
                }
                running.iter_mut().for_each(|ends| ends.retain(|end| *end > now));
                let demand = |kind: usize| Demand {
                    running: running[kind].len() as u32,
                    waiting: queues[kind].len() as u32,
                    oldest_ms: queues[kind].front().map_or(0, |(since, _)| now - since),
                };
                let starts = allocate(c, demand(0), demand(1));
                for (kind, count) in [starts.mesh, starts.github].into_iter().enumerate() {
                    for _ in 0..count {
                        let (since, takes) = queues[kind].pop_front().unwrap();
                        prop_assert!(now - since <= total, "{kind} waited from {since} to {now}");
                        running[kind].push(now + takes);
                    }
                }
                prop_assert!(running[0].len() + running[1].len() <= c.max as usize);
                now += 1;
                prop_assert!(now < 10_000, "work is left for ever: {queues:?}");
            }
        }
    }
}
