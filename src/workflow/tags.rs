//! Tags: which words say how a workflow may run, and where they count.
//!
//! Owns the rules of DESIGN.md section 5: words of `env.WORKFLOW_TAGS` and `env.P2P_TAGS` (of the workflow or of a job)
//! and of comments `# P2P: ...` and `# Tags: ...`. Promises: text inside a script or any other value is never a tag; a
//! word that is no tag is reported with its line. Leaves reading YAML to `scan` and `yaml`.

use std::collections::BTreeSet;

use memchr::{memchr_iter, memchr2_iter};
use serde::Serialize;

use crate::kernel::task::Tag;

use super::scan::{self, Seen};
use super::yaml::{Map, Node};

/// The most words reported of one file; what is beyond them is only counted.
pub const MAX_DROPPED: usize = 100;
/// The most characters reported of a word.
const MAX_WORD: usize = 80;
/// The variables whose words are tags. Their case is folded, as the source system's patterns did.
const VARIABLES: [&str; 2] = ["WORKFLOW_TAGS", "P2P_TAGS"];
/// What a comment begins with whose words are tags, in lower case.
const KEYWORDS: [&[u8]; 2] = [b"p2p:", b"tags:"];

/// A word where tags belong that is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Dropped {
    /// The word as it stands there, at most 80 characters, control characters replaced.
    pub word: String,
    /// Its line in the file, from 1.
    pub line: u32,
}

/// The tags of a workflow file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    pub tags: BTreeSet<Tag>,
    /// Words where tags belong that are none: in the order of the file, at most [`MAX_DROPPED`].
    pub dropped: Vec<Dropped>,
    /// What else a person should know of them.
    pub warnings: Vec<String>,
}

/// Whether a file can hold a tag at all: it has a comment with one of the keywords, or the end of one of the variables'
/// names. Cheap; true more often than not needed, never false where there is a tag.
pub(super) fn may_hold_tags(bytes: &[u8]) -> bool {
    memchr2_iter(b'#', b'_', bytes).any(|at| match bytes[at] {
        b'#' => keyword(&bytes[at + 1..]).is_some(),
        _ => ends_variable(&bytes[at..]),
    })
}

/// Whether a variable of one of the names can be in the file, so that it must be parsed for its tags.
pub(super) fn may_hold_variables(bytes: &[u8]) -> bool {
    memchr_iter(b'_', bytes).any(|at| ends_variable(&bytes[at..]))
}

/// Whether what begins here with a `_` is the end of one of the variables' names.
fn ends_variable(bytes: &[u8]) -> bool {
    bytes.get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"_tags"))
}

/// What follows the keyword in a comment (without its first `#`), if it has one.
pub(super) fn keyword(comment: &[u8]) -> Option<&[u8]> {
    let hashes = comment.iter().take_while(|byte| **byte == b'#').count();
    let text = comment[hashes..].trim_ascii_start();
    KEYWORDS.iter().find_map(|keyword| {
        let (word, rest) = text.split_at_checked(keyword.len())?;
        word.eq_ignore_ascii_case(keyword).then_some(rest)
    })
}

/// Gathers tags and what is none.
#[derive(Debug, Default)]
pub(super) struct Gathered<'a> {
    tags: BTreeSet<Tag>,
    dropped: Vec<Dropped>,
    /// How many words were met that are no tags.
    met: usize,
    warnings: Vec<String>,
    /// Made when the first line of a variable's word is asked for.
    places: Option<Places<'a>>,
}

impl<'a> Gathered<'a> {
    /// Words of a comment.
    pub(super) fn comment(&mut self, line: u32, text: &[u8]) {
        let Some(words) = keyword(text) else { return };
        for word in split(&String::from_utf8_lossy(words)) {
            match word.parse() {
                Ok(tag) => drop(self.tags.insert(tag)),
                Err(()) => self.drop_word(word, || line),
            }
        }
    }

    /// Words of the variables in the `env:` of the workflow (`path` is empty) or of a job (`path` is `jobs`, its id).
    pub(super) fn env(&mut self, bytes: &'a [u8], path: &[&str], env: Option<&Node>) {
        let Some(Node::Map(Map(pairs))) = env else { return };
        for (name, value) in pairs {
            if !VARIABLES.iter().any(|variable| variable.eq_ignore_ascii_case(name)) {
                continue;
            }
            let path = [path, &["env", name]].concat();
            let (texts, is_text) = match value {
                Node::List(_) => (value.texts(), false),
                Node::Map(map) => (map.0.iter().map(|(key, _)| key.clone()).collect(), false),
                scalar => (scalar.text().into_iter().collect(), true),
            };
            if !is_text {
                let shown = legible(&path.join("."), 2 * MAX_WORD);
                let hint = "write its words in one text, such as `p2p-only, unit-test`";
                self.warnings.push(format!("{shown} is a list or a mapping: {hint}"));
            }
            for word in texts.iter().flat_map(|text| split(text)) {
                match word.parse() {
                    Ok(tag) if is_text => drop(self.tags.insert(tag)),
                    _ => {
                        let mut places = self.places.take();
                        self.drop_word(word, || places.get_or_insert_with(|| Places::of(bytes)).line(&path, word));
                        self.places = places;
                    }
                }
            }
        }
    }

    fn drop_word(&mut self, word: &str, line: impl FnOnce() -> u32) {
        self.met += 1;
        // Beyond, not even looked up: that takes time, and nobody reads it.
        if self.met <= MAX_DROPPED {
            let dropped = Dropped { line: line(), word: legible(word, MAX_WORD) };
            if !self.dropped.contains(&dropped) {
                self.dropped.push(dropped);
            }
        }
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    pub(super) fn finish(mut self) -> Tags {
        if self.met > MAX_DROPPED {
            self.warnings.push(format!("{} more words that are no tags", self.met - MAX_DROPPED));
        }
        self.dropped.sort_by_key(|dropped| dropped.line);
        Tags { tags: self.tags, dropped: self.dropped, warnings: self.warnings }
    }
}

/// A text that people can be shown: at most so many characters, none of them a control character.
pub(super) fn legible(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The words of a text: split at commas and white space, though not inside `${{ }}`.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let separates = |c: char| c == ',' || c.is_whitespace() || c == '\u{feff}';
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(separates);
        let mut end = 0;
        while let Some(c) = rest[end..].chars().next()
            && !separates(c)
        {
            let expression = rest[end..].starts_with("${{").then(|| rest[end..].find("}}")).flatten();
            end += expression.map_or(c.len_utf8(), |close| close + 2);
        }
        let (word, after) = rest.split_at(end);
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

/// Where the variables' values stand in the file: the first [`MAX_DROPPED`], for more lines are never reported.
#[derive(Debug)]
struct Places<'a>(Vec<Place<'a>>);

/// Where the value of a key stands in the file.
#[derive(Debug)]
struct Place<'a> {
    /// The keys around it, outermost first, and its own, as they are written.
    path: Vec<&'a [u8]>,
    line: u32,
    /// From behind the key to the next one.
    value: &'a [u8],
}

impl<'a> Places<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let mut places: Vec<Place<'a>> = Vec::new();
        let mut open: Vec<(usize, &[u8])> = Vec::new();
        let mut unended = None;
        scan::scan(bytes, |seen| {
            let Seen::Key { line, after, column, flow_depth, text } = seen else { return };
            if let (Some(start), Some(place)) = (unended.take(), places.last_mut()) {
                place.value = &bytes[start..after.clamp(start, bytes.len())];
            }
            if flow_depth == 0 {
                while open.last().is_some_and(|(outer, _)| *outer >= column) {
                    open.pop();
                }
                open.push((column, text));
            }
            if places.len() < MAX_DROPPED && VARIABLES.iter().any(|variable| is_key(text, variable)) {
                let own = (flow_depth > 0).then_some(text);
                let path = open.iter().map(|(_, key)| *key).chain(own).collect();
                let start = after.min(bytes.len());
                places.push(Place { path, line, value: &bytes[start..] });
                unended = Some(start);
            }
        });
        Self(places)
    }

    /// The line of a word of the variable with this path. Where its keys are written in a way that only a parser
    /// understands, any variable of its name serves, and failing that the first line.
    fn line(&self, path: &[&str], word: &str) -> u32 {
        let is_path = |place: &&Place<'_>| {
            place.path.len() == path.len() && place.path.iter().zip(path).all(|(written, key)| is_key(written, key))
        };
        let has_name = |place: &&Place<'_>| is_key(place.path[place.path.len() - 1], path[path.len() - 1]);
        let place = self.0.iter().find(is_path).or_else(|| self.0.iter().find(has_name));
        place.map_or(1, |place| place.line_of(word))
    }
}

impl Place<'_> {
    /// The line of a word in the value; the key's own where it is not spelled out there.
    fn line_of(&self, word: &str) -> u32 {
        let word = word.as_bytes();
        let bounds =
            |byte: Option<&u8>| byte.is_none_or(|byte| byte.is_ascii_whitespace() || b",'\"[]{}".contains(byte));
        let mut start = 0;
        while let Some(step) = self.value[start..].windows(word.len()).position(|window| window == word) {
            let at = start + step;
            let before = at.checked_sub(1).and_then(|before| self.value.get(before));
            if bounds(before) && bounds(self.value.get(at + word.len())) {
                let breaks = self.value[..at].iter().filter(|byte| **byte == b'\n').count();
                return self.line.saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
            }
            start = at + 1;
        }
        self.line
    }
}

/// Whether a key as it is written is this one, but for its case.
fn is_key(written: &[u8], key: &str) -> bool {
    let quoted = |quote: u8| written.strip_prefix(&[quote]).and_then(|rest| rest.strip_suffix(&[quote]));
    quoted(b'"').or_else(|| quoted(b'\'')).unwrap_or(written).eq_ignore_ascii_case(key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_commas_spaces_and_line_ends_but_not_in_expressions() {
        let words = |text| split(text).collect::<Vec<_>>();
        assert_eq!(words(" a,b c\n\td,, \r\ne "), ["a", "b", "c", "d", "e"]);
        assert_eq!(words("a ${{ x && 'y z' }}, p-${{ q r }}-s"), ["a", "${{ x && 'y z' }}", "p-${{ q r }}-s"]);
        assert_eq!(words("${{ never closed"), ["${{", "never", "closed"]);
        assert!(words(" ,, \n").is_empty());
        assert_eq!(words("é,\u{a0}ü"), ["é", "ü"]);
    }

    #[test]
    fn keywords_are_those_of_the_design() {
        for yes in [" P2P: x", "P2P:x", "\tp2p: x", "# Tags: x", " TAGS:x", " tags: "] {
            assert!(keyword(yes.as_bytes()).is_some(), "{yes}");
        }
        for no in [" P2P x", " my tags: x", " P2P_TAGS: x", "", " Tag: x", " - tags: x"] {
            assert!(keyword(no.as_bytes()).is_none(), "{no}");
        }
    }

    #[test]
    fn the_fast_look_misses_nothing_wherever_it_stands() {
        for needle in ["# p2p:", "#Tags:", "P2P_TAGS", "workflow_tags", "## \t TAGS:"] {
            for before in 0..70 {
                let text = format!("{}{needle}", "x".repeat(before));
                assert!(may_hold_tags(text.as_bytes()), "{before} {needle}");
                assert!(may_hold_tags(format!("{text}{}", "y".repeat(70)).as_bytes()), "{before} {needle}");
            }
        }
        for none in ["tags: [v1]", "p2p:", "# a comment", "MY_TAG: x", "_T", "#"] {
            assert!(!may_hold_tags(none.as_bytes()), "{none}");
        }
    }

    #[test]
    fn the_line_of_a_word_is_found_by_the_path_of_its_key() {
        let text = b"env:\n  P2P_TAGS: one\njobs:\n  a:\n    steps:\n      - env:\n          P2P_TAGS: two\n    env:\n      P2P_TAGS: >\n        p2p-only\n        two\n";
        let job = ["jobs", "a", "env", "P2P_TAGS"];
        let places = Places::of(text);
        assert_eq!(places.line(&["env", "P2P_TAGS"], "one"), 2);
        assert_eq!((places.line(&job, "two"), places.line(&job, "three")), (11, 9));
        assert_eq!(Places::of(b"\nenv: {\"P2P_TAGS\": x}").line(&["env", "P2P_TAGS"], "x"), 2);
        assert_eq!(Places::of(b"\nenv:\n  ? P2P_TAGS\n  : x").line(&["env", "P2P_TAGS"], "x"), 1);
    }
}
