//! An entry from untrusted bytes.
//!
//! What is checked here is the same on every node: it is part of the entry format. What a node is about to put into
//! an entry of its own must pass [`check_workload`] first, or no other node would take that entry, nor any that its
//! author writes later.

use std::sync::Arc;

use super::field::{count, size};
use super::limits::{
    MAX_ENTRY, MAX_GROUP, MAX_INPUT_NAME, MAX_INPUTS, MAX_INPUTS_BYTES, MAX_LABEL, MAX_LABELS, MAX_NAME, MAX_NOTE,
    MAX_PATH, MAX_TIME_LIMIT_S, MAX_WORD,
};
use super::{WireError, cbor};
use crate::kernel::entry::{Entry, EntryError, Event, FORMAT, MAX_CUTS, Right, Ticket};
use crate::kernel::id::MeshId;
use crate::kernel::task::{MAX_ARTIFACT_NAME, MAX_ARTIFACTS, Products, Trigger, Workload};

/// Opens an entry: size, nesting, form, signature, mesh, and the sizes of all that its events hold. Whether its author
/// is a member is not asked here.
///
/// # Errors
/// [`WireError`]; see [`WireError::is_provably_bad`] for what to do about the sender.
pub fn open(bytes: &[u8], mesh: &MeshId) -> Result<Arc<Entry>, WireError> {
    size(bytes.len(), "an entry", MAX_ENTRY)?;
    cbor::scan(bytes)?;
    if let Some(format) = later_format(bytes) {
        return Err(WireError::Entry(EntryError::Format(format)));
    }
    let entry = Entry::open(bytes).map_err(WireError::Entry)?;
    if entry.body().mesh != *mesh {
        return Err(WireError::ForeignMesh(entry.body().mesh));
    }
    entry.body().events.iter().try_for_each(check_event)?;
    Ok(Arc::new(entry))
}

/// From so many entries on they are opened on several threads.
const MANY: usize = 32;
/// The most threads for that: more would not leave a host's other work its cores.
const THREADS: usize = 4;

/// Opens each of the entries, in their order, on several threads where there are many: to be called where blocking is
/// allowed.
///
/// Each signature is checked by itself. A check of a batch as a whole (`ed25519_dalek::verify_batch`, RFC 8032's batch
/// equation without the cofactor) would cost half, but it takes some signatures that [`open`] refuses: where the key or
/// the commitment has a part of small order, the parts of a batch may cancel each other out, by chance and depending on
/// what else is in the batch. Nodes that got the same entry in different batches would then judge it differently, and
/// what counts must be the same everywhere (Chalkias, Garillot, Nikolaenko: Taming the many EdDSAs, 2020).
pub fn open_many<B: AsRef<[u8]> + Sync>(list: &[B], mesh: &MeshId) -> Vec<Result<Arc<Entry>, WireError>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let open_all = |part: &[B]| part.iter().map(|bytes| open(bytes.as_ref(), mesh)).collect::<Vec<_>>();
    if list.len() < MANY || threads < 2 {
        return open_all(list);
    }
    std::thread::scope(|scope| {
        let mut parts = list.chunks(list.len().div_ceil(threads));
        let own = parts.next().unwrap_or_default();
        let others: Vec<_> = parts.map(|part| (part, scope.spawn(move || open_all(part)))).collect();
        let mut opened = open_all(own);
        for (part, thread) in others {
            // Opening does not panic; should it all the same, this thread meets it too.
            opened.extend(thread.join().unwrap_or_else(|_| open_all(part)));
        }
        opened
    })
}

/// Whether a workload is within the limits that every node holds entries to. To be asked before a workload goes into
/// the kernel, wherever it comes from.
///
/// # Errors
/// [`WireError::TooLarge`], [`WireError::TooMany`] or [`WireError::Malformed`] says what is not.
pub fn check_workload(workload: &Workload) -> Result<(), WireError> {
    let Workload { repository, path, trigger, commit, r#ref, name, labels, inputs, time_limit_s, .. } = workload;
    size(repository.host.len(), "a repository's host", MAX_WORD)?;
    size(repository.id.len(), "a repository's id", MAX_WORD)?;
    size(repository.name.len(), "a repository's name", MAX_NAME)?;
    size(path.len(), "a workflow's path", MAX_PATH)?;
    check_trigger(trigger)?;
    size(commit.len(), "a commit", MAX_WORD)?;
    size(r#ref.len(), "a branch", MAX_PATH)?;
    size(name.len(), "a workflow's name", MAX_NAME)?;
    count(labels.len(), "labels of a task", MAX_LABELS)?;
    labels.iter().try_for_each(|label| size(label.len(), "a label", MAX_LABEL))?;
    count(inputs.len(), "inputs of a task", MAX_INPUTS)?;
    inputs.keys().try_for_each(|name| size(name.len(), "an input's name", MAX_INPUT_NAME))?;
    let all = inputs.iter().map(|(name, value)| name.len() + value.len()).sum();
    size(all, "the inputs of a task", MAX_INPUTS_BYTES)?;
    let group = workload.concurrency.as_ref().map_or(0, |concurrency| concurrency.group.len());
    size(group, "a concurrency group", MAX_GROUP)?;
    if !(1..=MAX_TIME_LIMIT_S).contains(time_limit_s) {
        let why = format!("{time_limit_s} seconds are not within 1 to {MAX_TIME_LIMIT_S}");
        return Err(WireError::Malformed { what: "a task's time limit", why });
    }
    Ok(())
}

fn check_event(event: &Event) -> Result<(), WireError> {
    match event {
        Event::Introduce(introduce) => check_workload(&introduce.workload),
        Event::Decline(decline) => note(&decline.why),
        Event::Release(release) => note(&release.note),
        Event::Finish(finish) => note(&finish.note).and_then(|()| check_products(&finish.products)),
        Event::Cancel(cancel) => note(&cancel.why),
        Event::Pause(pause) => note(&pause.why),
        Event::Withdraw(withdraw) => note(&withdraw.why),
        // Their size is the entry's; what they mean is a later version's matter.
        Event::Unknown { kind, contents: _ } => size(kind.len(), "an event's kind", MAX_WORD),
        Event::Admit(admit) => match &admit.right {
            Right::Ticket { ticket } => check_labels(ticket),
            Right::Founder { .. } => Ok(()),
        },
        Event::Revoke(revoke) => count(revoke.last.len(), "incarnations of a revoked peer", MAX_CUTS),
        // Numbers and names only: the entry's own size limits how many there are.
        Event::Claim(_)
        | Event::Leave(_)
        | Event::Lose(_)
        | Event::Declare(_)
        | Event::Checkpoint(_)
        | Event::Acknowledge(_)
        | Event::Retire(_)
        | Event::Resume(_) => Ok(()),
        #[cfg(feature = "later")]
        Event::CallOff(_) => Ok(()),
    }
}

/// Whether the labels in a ticket are within the limits.
///
/// # Errors
/// [`WireError::TooMany`] or [`WireError::TooLarge`] says what is not.
pub fn check_labels(ticket: &Ticket) -> Result<(), WireError> {
    let labels = ticket.labels.iter().flatten();
    count(labels.clone().count(), "labels in a ticket", MAX_LABELS)?;
    labels.into_iter().try_for_each(|label| size(label.len(), "a label", MAX_LABEL))
}

fn check_products(products: &Products) -> Result<(), WireError> {
    count(products.artifacts.len(), "artifacts of a run", MAX_ARTIFACTS)?;
    let mut names = products.artifacts.iter().map(|artifact| artifact.name.len());
    names.try_for_each(|length| size(length, "an artifact's name", MAX_ARTIFACT_NAME))
}

fn check_trigger(trigger: &Trigger) -> Result<(), WireError> {
    let word = |text: &String| size(text.len(), "a trigger", MAX_WORD);
    match trigger {
        Trigger::Revision { blob } => word(blob),
        Trigger::Push { r#ref, commit } => word(commit).and_then(|()| size(r#ref.len(), "a branch", MAX_PATH)),
        Trigger::Schedule { cron, minute: _ } => word(cron),
        Trigger::Manual { request } => word(request),
        Trigger::GithubJob { .. } => Ok(()),
    }
}

const fn note(text: &str) -> Result<(), WireError> {
    size(text.len(), "a note", MAX_NOTE)
}

/// The entry's format if it is a later one. Canonical CBOR puts the body's shortest and least key first, `v`; so a later
/// version's entry is told from a broken one even where nothing else of it can be read.
fn later_format(bytes: &[u8]) -> Option<u8> {
    let (&[_list, _map, 0x61, b'v', first, second], _) = bytes.split_first_chunk()? else { return None };
    let format = match first {
        0x00..=0x17 => first,
        0x18 => second,
        _ => return None,
    };
    (format > FORMAT).then_some(format)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ed25519_dalek::{Signer as _, SigningKey};
    use ipld_core::ipld::Ipld;
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::entry::{Body, Cancel, Hlc, Introduce, MAX_EVENTS, MAX_PARENTS};
    use crate::kernel::id::{Author, Cid, Incarnation, PeerId, TaskId};
    use crate::kernel::task::{Concurrency, Priority, Repository, RunEvent};

    const MESH: MeshId = MeshId([5; 32]);

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn body(parents: usize, events: Vec<Event>) -> Body {
        let author =
            Author { peer: PeerId::from_public_key(key().verifying_key().to_bytes()), incarnation: Incarnation(1) };
        let mut parents: Vec<Cid> = (0..parents).map(|n| Cid::of(&n.to_be_bytes())).collect();
        parents.sort();
        let time = Hlc { ms: u64::MAX, count: u32::MAX };
        Body { format: FORMAT, mesh: MESH, author, sequence: u64::MAX, parents, time, events }
    }

    fn sealed(events: Vec<Event>) -> Entry {
        Entry::seal(body(1, events), &key())
    }

    fn cancel(why: usize) -> Event {
        Event::Cancel(Cancel { task: TaskId([4; 32]), why: "w".repeat(why) })
    }

    fn introduce(workload: Workload) -> Event {
        Event::Introduce(Introduce { workload: Arc::new(workload) })
    }

    /// As large as every limit allows.
    fn largest() -> Workload {
        let text = |length: usize| "x".repeat(length);
        let input = MAX_INPUTS_BYTES / MAX_INPUTS - MAX_INPUT_NAME;
        Workload {
            repository: Repository { host: text(MAX_WORD), id: text(MAX_WORD), name: text(MAX_NAME) },
            path: text(MAX_PATH),
            trigger: Trigger::Push { r#ref: text(MAX_PATH), commit: text(MAX_WORD) },
            commit: text(MAX_WORD),
            r#ref: text(MAX_PATH),
            event: RunEvent::WorkflowDispatch,
            name: text(MAX_NAME),
            tags: crate::kernel::task::Tag::ALL.into(),
            priority: Priority::MOST,
            labels: (0..MAX_LABELS).map(|n| format!("{n:0>MAX_LABEL$}")).collect(),
            inputs: (0..MAX_INPUTS).map(|n| (format!("{n:0>MAX_INPUT_NAME$}"), text(input))).collect(),
            time_limit_s: MAX_TIME_LIMIT_S,
            fallback_s: u32::MAX,
            concurrency: Some(Concurrency { group: text(MAX_GROUP), cancel_in_progress: true }),
        }
    }

    #[test]
    fn what_was_sealed_is_opened() {
        let entry = sealed(vec![cancel(MAX_NOTE)]);
        assert_eq!(open(entry.bytes(), &MESH), Ok(Arc::new(entry)));
    }

    #[test]
    fn the_largest_task_fits_beside_the_most_parents() {
        let entry = Entry::seal(body(MAX_PARENTS, vec![introduce(largest())]), &key());
        assert!(entry.bytes().len() <= MAX_ENTRY, "{}", entry.bytes().len());
        assert!(open(entry.bytes(), &MESH).is_ok());
    }

    #[test]
    fn a_foreign_mesh_is_not_a_fault() {
        let error = open(sealed(vec![cancel(1)]).bytes(), &MeshId([6; 32])).expect_err("foreign");
        assert_eq!(error, WireError::ForeignMesh(MESH));
        assert!(!error.is_provably_bad());
    }

    #[test]
    fn a_later_format_is_not_a_fault() {
        for format in [2, 23, 24, 255] {
            let mut later = body(1, vec![cancel(1)]);
            later.format = format;
            let error = open(Entry::seal(later, &key()).bytes(), &MESH).expect_err("later");
            assert_eq!(error, WireError::Entry(EntryError::Format(format)));
            assert!(!error.is_provably_bad());
        }
        // Not even when the rest of the body is nothing that this version could read.
        let error = open(&[0x82, 0xa1, 0x61, b'v', 0x02, 0x00], &MESH).expect_err("later");
        assert!(!error.is_provably_bad());
    }

    #[test]
    fn a_wrong_signature_is_a_fault() {
        let other = SigningKey::from_bytes(&[4; 32]);
        let bytes = sealed(vec![cancel(1)]).bytes().to_vec();
        let end = bytes.len() - 64;
        let forged = [&bytes[..end], &other.sign(&bytes[1..end - 2]).to_bytes()].concat();
        let error = open(&forged, &MESH).expect_err("forged");
        assert_eq!(error, WireError::Entry(EntryError::Signature));
        assert!(error.is_provably_bad());
    }

    #[test]
    fn too_many_parents_are_a_fault() {
        let error = open(Entry::seal(body(MAX_PARENTS + 1, vec![cancel(1)]), &key()).bytes(), &MESH).expect_err("many");
        assert_eq!(error, WireError::Entry(EntryError::Parents(MAX_PARENTS + 1)));
        assert!(error.is_provably_bad());
    }

    #[test]
    fn too_large_an_entry_is_a_fault() {
        // The limit stands before everything else, so it need not be an entry at all.
        assert!(!matches!(open(&[0; MAX_ENTRY], &MESH), Err(WireError::TooLarge { .. })));
        assert!(matches!(open(&[0; MAX_ENTRY + 1], &MESH), Err(WireError::TooLarge { .. })));
    }

    #[test]
    fn too_deep_an_entry_is_a_fault() {
        let nested = (0..40).fold(Ipld::Null, |inner, _| Ipld::List(vec![inner]));
        let event = Event::Unknown { kind: "later".to_owned(), contents: nested };
        assert!(matches!(open(sealed(vec![event]).bytes(), &MESH), Err(WireError::TooDeep { .. })));
    }

    #[test]
    fn an_unknown_event_passes_unless_its_kind_is_long() {
        let unknown = |kind: usize| Event::Unknown { kind: "k".repeat(kind), contents: Ipld::Null };
        assert!(open(sealed(vec![unknown(MAX_WORD)]).bytes(), &MESH).is_ok());
        assert!(open(sealed(vec![unknown(MAX_WORD + 1)]).bytes(), &MESH).is_err_and(|error| error.is_provably_bad()));
    }

    #[test]
    fn notes_are_limited() {
        let error = open(sealed(vec![cancel(MAX_NOTE + 1)]).bytes(), &MESH).expect_err("long");
        assert_eq!(error, WireError::TooLarge { what: "a note", bytes: MAX_NOTE + 1, limit: MAX_NOTE });
    }

    #[test]
    fn every_part_of_a_workload_is_limited() {
        type Break = fn(&mut Workload);
        let breaks: [(&str, Break); 15] = [
            ("host", |w| w.repository.host.push('x')),
            ("id", |w| w.repository.id.push('x')),
            ("name", |w| w.repository.name.push('x')),
            ("path", |w| w.path.push('x')),
            ("trigger", |w| w.trigger = Trigger::Manual { request: "x".repeat(MAX_WORD + 1) }),
            ("branch of trigger", |w| {
                w.trigger = Trigger::Push { r#ref: "x".repeat(MAX_PATH + 1), commit: String::new() };
            }),
            ("commit", |w| w.commit.push('x')),
            ("branch", |w| w.r#ref.push('x')),
            ("workflow's name", |w| w.name.push('x')),
            ("labels", |w| w.labels = (0..=MAX_LABELS).map(|n| n.to_string()).collect()),
            ("label", |w| w.labels = BTreeSet::from(["x".repeat(MAX_LABEL + 1)])),
            ("inputs", |w| w.inputs = (0..=MAX_INPUTS).map(|n| (n.to_string(), String::new())).collect()),
            ("input's size", |w| w.inputs = [("a".to_owned(), "x".repeat(MAX_INPUTS_BYTES))].into()),
            ("group", |w| {
                w.concurrency = Some(Concurrency { group: "x".repeat(MAX_GROUP + 1), cancel_in_progress: false });
            }),
            ("time", |w| w.time_limit_s += 1),
        ];
        assert_eq!(check_workload(&largest()), Ok(()));
        for (what, broken) in breaks {
            let mut workload = largest();
            broken(&mut workload);
            assert!(check_workload(&workload).is_err(), "{what}");
            assert!(open(sealed(vec![introduce(workload)]).bytes(), &MESH).is_err(), "{what}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(open(&bytes, &MESH).is_err());
        }

        #[test]
        fn any_change_of_an_entry_is_answered(at in 0..200_usize, to in any::<u8>(), events in 1..MAX_EVENTS) {
            let entry = sealed((0..events).map(|_| cancel(3)).collect());
            let mut bytes = entry.bytes().to_vec();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            prop_assert!(open(&bytes, &MESH).is_err());
        }
    }
}
