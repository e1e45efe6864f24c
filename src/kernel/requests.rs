//! What a task asks of a host besides words: processors, memory, GPUs, disk, written as labels.
//!
//! A label `cpus-4`, `memory-8g`, `gpus-1` or `disk-20g` in a task's `runs-on` asks for so much for itself alone. A host says
//! in the same words how much it has, so nothing but labels is told to others: it serves a request that is no more than
//! what it has, and starts a task only where what runs already leaves that much. What asks for nothing takes nothing
//! here: slots limit it. Memory and disk are in whole gibibytes, 1 to 999,999.

use std::collections::BTreeSet;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Cpus,
    Memory,
    Gpus,
    Disk,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Cpus, Self::Memory, Self::Gpus, Self::Disk];

    /// What stands before and after the number.
    const fn form(self) -> (&'static str, &'static str) {
        match self {
            Self::Cpus => ("cpus-", ""),
            Self::Memory => ("memory-", "g"),
            Self::Gpus => ("gpus-", ""),
            Self::Disk => ("disk-", "g"),
        }
    }

    /// Reads a label of this kind.
    fn read(self, label: &str) -> Option<u32> {
        let (before, after) = self.form();
        let number = label.strip_prefix(before)?.strip_suffix(after)?;
        let plain = (1..=6).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        number.parse().ok().filter(|number| plain && *number > 0)
    }
}

/// So much of each; also what a host has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    pub cpus: u32,
    /// Gibibytes.
    pub memory: u32,
    pub gpus: u32,
    /// Gibibytes.
    pub disk: u32,
}

impl Amounts {
    /// What these labels say. Of several for one thing the greatest counts.
    pub fn of<'a>(labels: impl IntoIterator<Item = &'a String>) -> Self {
        let mut amounts = Self::default();
        for label in labels {
            for kind in Kind::ALL {
                if let Some(number) = kind.read(label) {
                    let amount = amounts.get_mut(kind);
                    *amount = number.max(*amount);
                }
            }
        }
        amounts
    }

    /// The same as labels; nothing is said of what there is none of.
    pub fn labels(&self) -> BTreeSet<String> {
        let label = |kind: Kind| {
            let ((before, after), number) = (kind.form(), self.get(kind).min(999_999));
            (number > 0).then(|| format!("{before}{number}{after}"))
        };
        Kind::ALL.into_iter().filter_map(label).collect()
    }

    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            cpus: self.cpus.saturating_add(other.cpus),
            memory: self.memory.saturating_add(other.memory),
            gpus: self.gpus.saturating_add(other.gpus),
            disk: self.disk.saturating_add(other.disk),
        }
    }

    /// Whether this much is there of everything.
    pub fn fits_in(&self, whole: &Self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.get(kind) <= whole.get(kind))
    }

    const fn get(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Cpus => self.cpus,
            Kind::Memory => self.memory,
            Kind::Gpus => self.gpus,
            Kind::Disk => self.disk,
        }
    }

    const fn get_mut(&mut self, kind: Kind) -> &mut u32 {
        match kind {
            Kind::Cpus => &mut self.cpus,
            Kind::Memory => &mut self.memory,
            Kind::Gpus => &mut self.gpus,
            Kind::Disk => &mut self.disk,
        }
    }
}

/// Whether a host that offers these labels serves one that is asked for: it has that very word, or as much.
pub fn serves(offered: &BTreeSet<String>, label: &str) -> bool {
    let enough = |kind: Kind| {
        let wanted = kind.read(label)?;
        let (before, _) = kind.form();
        let has = |own: &String| kind.read(own).is_some_and(|has| has >= wanted);
        Some(offered.range(before.to_owned()..).take_while(|own| own.starts_with(before)).any(has))
    };
    offered.contains(label) || Kind::ALL.into_iter().find_map(enough).unwrap_or(false)
}

/// Whether a host that offers these labels serves all of those.
pub fn serve_all(offered: &BTreeSet<String>, asked: &BTreeSet<String>) -> bool {
    asked.is_subset(offered) || asked.iter().all(|label| serves(offered, label))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn labels_are_read_and_others_are_words() {
        let asked = labels(&["cpus-4", "memory-8g", "gpus-1", "disk-20g", "self-hosted", "cpus-2"]);
        assert_eq!(Amounts::of(&asked), Amounts { cpus: 4, memory: 8, gpus: 1, disk: 20 });
        for word in
            ["cpus-", "cpus-x", "cpus-0", "cpus-+4", "memory-8", "memory-8gb", "gpus-1g", "cpus-1000000", "disk--1g"]
        {
            assert_eq!(Amounts::of(&labels(&[word])), Amounts::default(), "{word}");
            assert!(!serves(&labels(&["cpus-64", "memory-64g", "gpus-8", "disk-64g"]), word), "{word}");
        }
    }

    #[test]
    fn a_host_serves_what_it_has_as_much_of() {
        let host = labels(&["self-hosted", "cpus-8", "memory-16g"]);
        assert!(serve_all(&host, &labels(&["self-hosted", "cpus-8", "memory-2g"])));
        assert!(!serve_all(&host, &labels(&["cpus-9"])) && !serve_all(&host, &labels(&["gpus-1"])));
        assert!(!serve_all(&host, &labels(&["cpus-1", "big"])));
    }

    proptest! {
        #[test]
        fn what_is_said_in_labels_is_read_from_them(cpus in 0u32..1_000_000, memory in 0u32..1_000_000, gpus in 0u32..64, disk in 0u32..9) {
            let amounts = Amounts { cpus, memory, gpus, disk };
            prop_assert_eq!(Amounts::of(&amounts.labels()), amounts);
        }

        #[test]
        fn a_host_serves_a_request_exactly_when_it_fits_in_the_host(has in 1u32..99, asks in 1u32..99) {
            let (host, task) = (Amounts { memory: has, ..Amounts::default() }, Amounts { memory: asks, ..Amounts::default() });
            prop_assert_eq!(serve_all(&host.labels(), &task.labels()), task.fits_in(&host));
            prop_assert_eq!(task.fits_in(&host), asks <= has);
        }

        #[test]
        fn any_word_has_an_answer(word in "\\PC{0,20}") {
            prop_assert!(serves(&labels(&[word.as_str()]), &word));
        }
    }
}
