//! A job's matrix: which legs it has.
//!
//! Owns GitHub's rules of `strategy.matrix` with `include` and `exclude`. Promises: what cannot be known before the run
//! (expressions) or is beyond GitHub's 256 legs is said to be unknown, never guessed; time and memory are bounded.

use std::collections::BTreeMap;

use serde_json::Value;

use super::tags::legible;
use super::yaml::{Map, Node};

/// The most legs of one matrix, GitHub's limit.
pub const MAX_LEGS: usize = 256;
/// The most combinations made before `exclude` is heard.
const MAX_COMBINATIONS: usize = 4_096;
/// What all matrices of a workflow may cost together: nodes and bytes of text that their legs hold, and comparisons
/// with `include` and `exclude`.
pub(super) const BUDGET: usize = 1 << 20;

/// The legs of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Legs {
    /// No matrix: the job runs once.
    Single,
    /// One run for each, 1 to [`MAX_LEGS`], in GitHub's order.
    Matrix(Vec<Leg>),
    /// Only the run will tell, and why.
    Unknown(String),
}

/// The values of `matrix.*` in one leg.
pub type Leg = BTreeMap<String, Value>;

impl Legs {
    /// How many runs the job has, where that can be known.
    pub fn count(&self) -> Option<usize> {
        match self {
            Self::Single => Some(1),
            Self::Matrix(legs) => Some(legs.len()),
            Self::Unknown(_) => None,
        }
    }

    /// Reads `strategy:`; `left` is what is left of the workflow's [`BUDGET`].
    pub(super) fn read(strategy: Option<&Node>, left: &mut usize) -> Self {
        let matrix = match strategy {
            None | Some(Node::Null) => return Self::Single,
            Some(Node::Map(strategy)) => match strategy.get("matrix") {
                None | Some(Node::Null) => return Self::Single,
                Some(matrix) => matrix,
            },
            Some(_) => return Self::Unknown("its `strategy:` is no mapping".to_owned()),
        };
        match matrix {
            Node::Map(matrix) => expand(matrix, left).map_or_else(Self::Unknown, Self::Matrix),
            Node::Text(text) if is_expression(text) => Self::Unknown(format!("its matrix is the expression `{text}`")),
            _ => Self::Unknown("its `matrix:` is no mapping".to_owned()),
        }
    }
}

pub(super) fn is_expression(text: &str) -> bool {
    text.contains("${{")
}

/// A combination in the making: values of the dimensions, and what `include` added.
struct Combination<'n> {
    own: Vec<(&'n str, &'n Node)>,
    added: BTreeMap<&'n str, &'n Node>,
}

fn expand(matrix: &Map, left: &mut usize) -> Result<Vec<Leg>, String> {
    let mut dimensions: Vec<(&str, &[Node])> = Vec::new();
    for (name, values) in &matrix.0 {
        match values {
            _ if name == "include" || name == "exclude" => {}
            Node::List(values) if !values.is_empty() => dimensions.push((name, values)),
            Node::Text(text) if is_expression(text) => {
                return Err(format!("its matrix value `{name}` is the expression `{text}`"));
            }
            _ => return Err(format!("its matrix value `{name}` is not a list with values")),
        }
    }
    let (include, exclude) = (entries(matrix, "include")?, entries(matrix, "exclude")?);
    let unknown = |(name, _): &&(String, Node)| !dimensions.iter().any(|(dimension, _)| dimension == name);
    if let Some((name, _)) = exclude.iter().flat_map(|entry| &entry.0).find(unknown) {
        return Err(format!(
            "its matrix excludes by `{}`, which is none of its values; GitHub refuses that",
            legible(name, 80)
        ));
    }
    let count = dimensions.iter().try_fold(1_usize, |count, (_, values)| {
        count.checked_mul(values.len()).filter(|count| *count <= MAX_COMBINATIONS)
    });
    let Some(count) = count else {
        return Err(format!("its matrix has more than {MAX_COMBINATIONS} combinations"));
    };
    spend(left, count.saturating_mul(1 + dimensions.len() + exclude.len() + include.len()))?;

    let mut combinations: Vec<Combination<'_>> = Vec::new();
    if !dimensions.is_empty() {
        combinations.push(Combination { own: Vec::new(), added: BTreeMap::new() });
    }
    for &(name, values) in &dimensions {
        let mut longer = Vec::with_capacity(combinations.len() * values.len());
        for one in &combinations {
            for value in values {
                let own = one.own.iter().copied().chain([(name, value)]).collect();
                longer.push(Combination { own, added: BTreeMap::new() });
            }
        }
        combinations = longer;
    }
    combinations.retain(|one| !exclude.iter().any(|entry| entry.0.iter().all(|(name, value)| one.has(name, value))));
    if combinations.len() > MAX_LEGS {
        return Err(format!("its matrix has {} legs; GitHub allows {MAX_LEGS}", combinations.len()));
    }

    let originals = combinations.len();
    for entry in include {
        let is_dimension = |name: &str| dimensions.iter().any(|(dimension, _)| *dimension == name);
        let mut taken = false;
        for one in &mut combinations[..originals] {
            if entry.0.iter().all(|(name, value)| !is_dimension(name) || one.has(name, value)) {
                taken = true;
                let added = entry.0.iter().filter(|(name, _)| !is_dimension(name));
                one.added.extend(added.map(|(name, value)| (name.as_str(), value)));
            }
        }
        if !taken {
            let added = entry.0.iter().map(|(name, value)| (name.as_str(), value)).collect();
            combinations.push(Combination { own: Vec::new(), added });
        }
        if combinations.len() > MAX_LEGS {
            return Err(format!("its matrix has more than {MAX_LEGS} legs, GitHub's limit"));
        }
    }
    if combinations.is_empty() {
        return Err("its matrix has no combination at all".to_owned());
    }
    legs(&combinations, left)
}

fn spend(left: &mut usize, cost: usize) -> Result<(), String> {
    *left = left
        .checked_sub(cost)
        .ok_or("its matrix, or those of all jobs together, are larger than is read of one file")?;
    Ok(())
}

impl Combination<'_> {
    fn has(&self, name: &str, value: &Node) -> bool {
        self.own.iter().any(|(own, held)| *own == name && *held == value)
    }

    fn values(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.own.iter().copied().chain(self.added.iter().map(|(name, value)| (*name, *value)))
    }
}

fn legs(combinations: &[Combination<'_>], left: &mut usize) -> Result<Vec<Leg>, String> {
    let mut legs = Vec::new();
    for one in combinations {
        let size: usize = one.values().map(|(name, value)| name.len() + value.size()).sum();
        spend(left, size)?;
        legs.push(one.values().map(|(name, value)| (name.to_owned(), value.to_json())).collect());
    }
    Ok(legs)
}

/// The mappings in `include:` or `exclude:`.
fn entries<'n>(matrix: &'n Map, key: &str) -> Result<Vec<&'n Map>, String> {
    match matrix.get(key) {
        None | Some(Node::Null) => Ok(Vec::new()),
        Some(Node::List(items)) => {
            let bad = || format!("its matrix has an entry in `{key}` that is no mapping");
            items.iter().map(|item| item.map().ok_or_else(bad)).collect()
        }
        Some(_) => Err(format!("`{key}` of its matrix is an expression, or no list")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml::parse;
    use super::*;

    fn legs_of(matrix: &str) -> Legs {
        let document = parse(format!("matrix: {matrix}\n").as_bytes(), 0, &[]).expect("is YAML");
        Legs::read(Some(&document.root), &mut { BUDGET })
    }

    fn shown(matrix: &str) -> Vec<String> {
        match legs_of(matrix) {
            Legs::Matrix(legs) => {
                legs.iter().map(|leg| serde_json::to_string(leg).expect("is JSON").replace('"', "")).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// The example of GitHub's documentation ("Expanding or adding matrix configurations").
    #[test]
    fn include_follows_githubs_example() {
        let legs = shown(
            "{fruit: [apple, pear], animal: [cat, dog], include: [{color: green}, {color: pink, animal: cat}, \
             {fruit: apple, shape: circle}, {fruit: banana}, {fruit: banana, animal: cat}]}",
        );
        assert_eq!(
            legs,
            [
                "{animal:cat,color:pink,fruit:apple,shape:circle}",
                "{animal:dog,color:green,fruit:apple,shape:circle}",
                "{animal:cat,color:pink,fruit:pear}",
                "{animal:dog,color:green,fruit:pear}",
                "{fruit:banana}",
                "{animal:cat,fruit:banana}",
            ]
        );
    }

    #[test]
    fn exclude_takes_out_partial_matches() {
        let legs = shown("{os: [a, b], v: [1, 2], exclude: [{os: a, v: 1}, {os: b}], include: [{os: b, v: 9}]}");
        assert_eq!(legs, ["{os:a,v:2}", "{os:b,v:9}"]);
    }

    #[test]
    fn include_alone_makes_the_legs() {
        assert_eq!(
            shown("{include: [{a: 1}, {a: 1.5, b: {c: [x]}}, {a: true}]}"),
            ["{a:1}", "{a:1.5,b:{c:[x]}}", "{a:true}"]
        );
    }

    #[test]
    fn what_only_the_run_can_tell_is_unknown() {
        for (matrix, word) in [
            ("${{ fromJSON(needs.a.outputs.m) }}", "expression"),
            ("{a: '${{ fromJSON(x) }}'}", "expression"),
            ("{a: [1], include: '${{ fromJSON(x) }}'}", "include"),
            ("{a: []}", "not a list with values"),
            ("{a: 5}", "not a list with values"),
            ("{}", "no combination"),
            ("{a: [1], exclude: [{a: 1}]}", "no combination"),
            ("{a: [1], include: [5]}", "no mapping"),
            ("{a: [1], exclude: [{a: 1, b: 2}]}", "excludes by `b`"),
            ("[a]", "no mapping"),
        ] {
            let legs = legs_of(matrix);
            assert!(matches!(&legs, Legs::Unknown(why) if why.contains(word)), "{matrix}: {legs:?}");
            assert_eq!(legs.count(), None);
        }
        assert_eq!(Legs::read(None, &mut 0), Legs::Single);
        assert_eq!(Legs::Single.count(), Some(1));
    }

    #[test]
    fn sizes_are_bounded() {
        let list = |count: usize| format!("[{}]", (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(", "));
        assert_eq!(legs_of(&format!("{{a: {}}}", list(256))).count(), Some(256));
        assert_eq!(legs_of(&format!("{{a: {}}}", list(257))).count(), None);
        assert_eq!(legs_of(&format!("{{a: {}, exclude: [{{a: 0}}]}}", list(257))).count(), Some(256));
        let ten = list(10);
        let wide = (0..60).map(|n| format!("d{n}: {ten}")).collect::<Vec<_>>().join(", ");
        assert_eq!(legs_of(&format!("{{{wide}}}")).count(), None);
        let long = "x".repeat(10_000);
        assert_eq!(legs_of(&format!("{{a: {}, b: [{long}]}}", list(256))).count(), None);
    }
}
