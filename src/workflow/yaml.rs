//! YAML into a tree, at bounded cost.
//!
//! Owns: the only call of the YAML library. Promises: whatever the bytes, time and memory stay in proportion to the
//! file (aliases that expand beyond [`BUDGET`], and nesting that would cost the library quadratic time, are refused).
//! Leaves what the tree means to the other files of the room.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use memchr::{memchr_iter, memchr2_iter};
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::scripts::without;

/// The most that a tree may hold: nodes plus bytes of text. Without aliases a file of the largest size allowed stays
/// below it; with them it bounds what they expand to. (The library's own limit counts jumps, a hundred for each event,
/// not what lies behind them: 40 billion nodes fit into 1 MiB.)
const BUDGET: usize = 4 << 20;
/// The deepest `[` or `{` nesting. The library's tree allows no more, but reads on before it says so, in time quadratic
/// in the depth: minutes for 1 MiB.
pub(super) const MAX_FLOW_DEPTH: usize = 128;
/// The most `[` and `{` in a file, wherever they stand: what bounds the same time should the comment scanner and the
/// library ever see the nesting differently.
const MAX_BRACKETS: usize = 50_000;
/// A mapping of so many keys is looked through for each further one; a larger one has them in an index.
const FEW: usize = 16;

/// What a YAML document says, with aliases resolved and tags (`!x`) left out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

/// A mapping in the order of the file. Of a key that stands there twice, the first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Map(pub(super) Vec<(String, Node)>);

impl Map {
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }
}

impl Node {
    pub(super) fn map(&self) -> Option<&Map> {
        if let Self::Map(map) = self { Some(map) } else { None }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.map()?.get(key)
    }

    /// A scalar as GitHub would turn it into text; nothing for null, lists and mappings.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Bool(value) => Some(value.to_string()),
            Self::Number(value) => Some(value.to_string()),
            Self::Text(text) => Some(text.clone()),
            Self::Null | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The texts of a scalar, or of a list of scalars; what is neither is left out.
    pub(super) fn texts(&self) -> Vec<String> {
        match self {
            Self::List(items) => items.iter().filter_map(Self::text).collect(),
            scalar => scalar.text().into_iter().collect(),
        }
    }

    /// How large it is, in the measure of [`BUDGET`].
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => 1,
            Self::Text(text) => 1 + text.len(),
            Self::List(items) => 1 + items.iter().map(Self::size).sum::<usize>(),
            Self::Map(map) => 1 + map.0.iter().map(|(key, node)| 1 + key.len() + node.size()).sum::<usize>(),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            // Whole numbers as whole numbers: `20`, not `20.0`. 2^53 is where doubles stop counting one by one.
            Self::Number(value) if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
                Value::from(*value as i64)
            }
            Self::Number(value) => serde_json::Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Self::Text(text) => Value::String(text.clone()),
            Self::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Self::Map(map) => Value::Object(map.0.iter().map(|(key, node)| (key.clone(), node.to_json())).collect()),
        }
    }
}

/// A parsed file, and what is odd about it.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Node,
    /// Keys that stand twice in one mapping, or that merge another one (`<<`): GitHub refuses such files.
    pub(super) odd_keys: BTreeSet<String>,
}

/// Reads a workflow file. `flow_depth` is the deepest nesting that the comment scanner saw, `scripts` are the parts that
/// need not be read.
///
/// What a step does is left out except for its `uses:`, for no room needs it and it is most of every file.
///
/// # Errors
/// A sentence saying what is not YAML about it, or which limit it exceeds.
pub(super) fn parse(bytes: &[u8], flow_depth: usize, scripts: &[Range<usize>]) -> Result<Document, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8 text: {error}"))?;
    let brackets = memchr2_iter(b'[', b'{', bytes).count();
    if flow_depth > MAX_FLOW_DEPTH || brackets > MAX_BRACKETS {
        return Err(format!(
            "brackets nest {flow_depth} deep, {brackets} in all; at most {MAX_FLOW_DEPTH} and {MAX_BRACKETS} are read"
        ));
    }
    let may_alias = may_hold_anchor(bytes);
    // An anchor could make a script stand elsewhere too.
    if !may_alias && !scripts.is_empty() {
        // What is wrong is said of the whole file, at its own line.
        if let Ok(document) = build(&without(text, scripts), may_alias) {
            return Ok(document);
        }
    }
    build(text, may_alias)
}

fn build(text: &str, may_alias: bool) -> Result<Document, String> {
    let context = Context { left: Cell::new(BUDGET), odd_keys: Cell::default(), may_alias };
    let root = Build { context: &context, at: At::Root }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| format!("not YAML: {error}"))?;
    Ok(Document { root, odd_keys: context.odd_keys.into_inner() })
}

/// Whether a `&name` may be an anchor: only behind these can a node begin.
fn may_hold_anchor(bytes: &[u8]) -> bool {
    let begins = |before: &u8| before.is_ascii_whitespace() || !before.is_ascii() || b"[{,:\"'".contains(before);
    let names = |after: &u8| !after.is_ascii_whitespace() && *after != b'&';
    let at = |at: usize| (at == 0 || bytes.get(at - 1).is_some_and(begins)) && bytes.get(at + 1).is_some_and(names);
    memchr_iter(b'&', bytes).any(at)
}

struct Context {
    left: Cell<usize>,
    odd_keys: Cell<BTreeSet<String>>,
    /// Without anchors every event is visited once, and what is not wanted can be skipped unread.
    may_alias: bool,
}

impl Context {
    fn spend<E: serde::de::Error>(&self, cost: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(cost);
        self.left.set(left.ok_or_else(|| E::custom("its aliases expand beyond what is read of a file"))?);
        Ok(())
    }

    fn note_odd(&self, key: &str) {
        let mut keys = self.odd_keys.take();
        // A handful says enough.
        if keys.len() < 8 {
            keys.insert(key.to_owned());
        }
        self.odd_keys.set(keys);
    }
}

/// Where in a workflow file a node stands, as far as that decides what is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Root,
    Jobs,
    Job,
    Steps,
    Step,
    /// Anywhere else: kept whole.
    Kept,
    /// Not wanted: read as null, though paid for.
    Skipped,
}

impl At {
    fn under(self, key: &str) -> Self {
        match (self, key) {
            (Self::Root, "jobs") => Self::Jobs,
            (Self::Jobs, _) => Self::Job,
            (Self::Job, "steps") => Self::Steps,
            (Self::Step, "uses") => Self::Kept,
            (Self::Step | Self::Skipped, _) => Self::Skipped,
            _ => Self::Kept,
        }
    }

    fn item(self) -> Self {
        match self {
            Self::Steps => Self::Step,
            Self::Skipped => Self::Skipped,
            _ => Self::Kept,
        }
    }
}

#[derive(Clone, Copy)]
struct Build<'c> {
    context: &'c Context,
    at: At,
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        if self.at == At::Skipped && !self.context.may_alias {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|_| Node::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        self.context.spend(1)?;
        Ok(Node::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Node, E> {
        self.context.spend(1)?;
        Ok(Node::Bool(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "GitHub's numbers are doubles")]
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node, E> {
        self.visit_f64(value as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "GitHub's numbers are doubles")]
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        self.visit_f64(value as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "GitHub's numbers are doubles")]
    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Node, E> {
        self.visit_f64(value as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "GitHub's numbers are doubles")]
    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Node, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        self.context.spend(1)?;
        Ok(Node::Number(value))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Node, E> {
        self.context.spend(1 + text.len())?;
        Ok(if self.at == At::Skipped { Node::Null } else { Node::Text(text.to_owned()) })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        self.context.spend(1)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self { at: self.at.item(), ..self })? {
            if self.at != At::Skipped {
                list.push(item);
            }
        }
        Ok(if self.at == At::Skipped { Node::Null } else { Node::List(list) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Node, A::Error> {
        self.context.spend(1)?;
        let mut map = Map::default();
        let mut many = BTreeSet::new();
        while let Some(key) = pairs.next_key_seed(Self { at: At::Kept, ..self })? {
            let key = match key {
                Node::Text(text) => text,
                Node::List(_) | Node::Map(_) => return Err(A::Error::custom("a key that is a list or a mapping")),
                scalar => scalar.text().unwrap_or_default(),
            };
            let node = pairs.next_value_seed(Self { at: self.at.under(&key), ..self })?;
            if matches!(self.at, At::Step | At::Skipped) && node == Node::Null {
                continue;
            }
            if map.0.len() == FEW {
                many = map.0.iter().map(|(name, _)| name.clone()).collect();
            }
            let is_new = if map.0.len() < FEW { map.get(&key).is_none() } else { many.insert(key.clone()) };
            if key == "<<" || !is_new {
                self.context.note_odd(&key);
            } else {
                map.0.push((key, node));
            }
        }
        Ok(if self.at == At::Skipped { Node::Null } else { Node::Map(map) })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        use serde::de::VariantAccess as _;
        let (IgnoredAny, contents) = tagged.variant()?;
        contents.newtype_variant_seed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Node, String> {
        parse(text.as_bytes(), 0, &[]).map(|document| document.root)
    }

    #[test]
    fn scalars_are_what_github_takes_them_for() {
        let node = read("{a: 1.10, b: 'x', c: true, d: ~, e: 0x10, f: !!str 5, g: !own 7, h: 12345678901234567890123}")
            .expect("is YAML");
        let text = |key| node.get(key).and_then(Node::text);
        assert_eq!(text("a").as_deref(), Some("1.1"));
        assert_eq!(text("b").as_deref(), Some("x"));
        assert_eq!(text("c").as_deref(), Some("true"));
        assert_eq!(text("d"), None);
        assert_eq!(text("e").as_deref(), Some("16"));
        assert_eq!(text("f").as_deref(), Some("5"));
        assert_eq!(text("g").as_deref(), Some("7"));
        assert!(text("h").is_some());
    }

    #[test]
    fn what_steps_do_is_left_out() {
        let node = read(
            "jobs:\n  a:\n    steps:\n      - run: |\n          much\n      - uses: docker://x\n        with: {a: b}\n",
        )
        .expect("is YAML");
        let steps = node.get("jobs").and_then(|jobs| jobs.get("a")).and_then(|job| job.get("steps"));
        let uses = Node::Map(Map(vec![("uses".to_owned(), Node::Text("docker://x".to_owned()))]));
        assert_eq!(steps, Some(&Node::List(vec![Node::Map(Map::default()), uses])));
    }

    #[test]
    fn odd_keys_are_told() {
        let document = parse(b"a: &x {p: 1}\nb: {<<: *x}\na: 2\n", 0, &[]).expect("is YAML");
        assert_eq!(document.odd_keys, BTreeSet::from(["<<".to_owned(), "a".to_owned()]));
        assert!(document.root.get("a").and_then(Node::map).is_some(), "the first of two");
    }

    #[test]
    fn a_billion_laughs_cost_little() {
        let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..=9 {
            let below = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", vec![below; 9].join(", "));
        }
        // Either limit may strike first, the library's or this one.
        assert!(read(&text).is_err_and(|error| error.contains("expand") || error.contains("repetition limit")));
    }

    #[test]
    fn what_the_library_would_expand_forty_billionfold_costs_little() {
        // A flat list and many aliases of it: within the library's limit of a hundred jumps an event.
        let mut text = format!("a: &a [{}]\nb: [", "x,".repeat(150_000));
        text += &"*a,".repeat(220_000);
        text += "]\n";
        assert!(text.len() < 1 << 20);
        assert!(read(&text).is_err_and(|error| error.contains("expand")));
        // The same where nothing is kept.
        let steps = format!(
            "x: &a [{}]\njobs: {{j: {{steps: [{{with: [{}]}}]}}}}\n",
            "x,".repeat(150_000),
            "*a,".repeat(200_000)
        );
        assert!(read(&steps).is_err_and(|error| error.contains("expand")));
        // And of one long text.
        let texts = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), "*a,".repeat(100_000));
        assert!(read(&texts).is_err_and(|error| error.contains("expand")));
    }

    #[test]
    fn an_alias_of_itself_ends() {
        assert!(read("a: &a [*a]\n").is_err());
    }

    #[test]
    fn deep_nesting_is_refused_before_the_library_sees_it() {
        let text = "{a: ".repeat(100_000);
        assert!(parse(text.as_bytes(), 100_000, &[]).is_err_and(|error| error.contains("deep")));
        assert!(parse(text.as_bytes(), 0, &[]).is_err_and(|error| error.contains("in all")));
        // In block style the library itself is linear.
        assert!(read(&"- ".repeat(500_000)).is_err());
    }

    #[test]
    fn anchors_are_seen_wherever_a_node_can_begin() {
        for text in ["&a x", "a: &a x", "[&a x]", "- &a\n", "{a: 1,&b c: 2}", "[a,\t&b x]", "{\"k\":&a x}"] {
            assert!(may_hold_anchor(text.as_bytes()), "{text}");
        }
        for text in ["a && b", "a & b", "2>&1", "x", "&"] {
            assert!(!may_hold_anchor(text.as_bytes()), "{text}");
        }
    }
}
