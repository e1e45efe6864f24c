//! GitHub's expressions, `${{ }}`, as far as they can be told before a run.
//!
//! Owns the language: literals, operators, properties of contexts, and the functions of texts. Promises: any text has an
//! answer; what depends on something that is not known here is [`Value::Unknown`] and names it, unless the rest decides
//! without it (`true || x`). Leaves what contexts hold to who asks. The rules are those of GitHub's page "Evaluate
//! expressions in workflows and actions".

/// The deepest nesting of parentheses, brackets and `!`.
const MAX_DEPTH: usize = 50;
/// The longest text that is evaluated, GitHub's own limit, in bytes.
const MAX_TEXT: usize = 21_000;

/// What an expression comes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    /// It depends on this, which is known only when it runs.
    Unknown(String),
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// As GitHub puts it into a text.
    fn shown(self) -> Result<String, String> {
        match self {
            Self::Null => Ok(String::new()),
            Self::Bool(value) => Ok(value.to_string()),
            Self::Number(value) => Ok(value.to_string()),
            Self::Text(text) => Ok(text),
            Self::Unknown(what) => Err(what),
        }
    }

    /// Whether it counts as true.
    pub(super) fn truth(self) -> Result<bool, String> {
        match self {
            Self::Null => Ok(false),
            Self::Bool(value) => Ok(value),
            Self::Number(value) => Ok(value != 0.0 && !value.is_nan()),
            Self::Text(text) => Ok(!text.is_empty()),
            Self::Unknown(what) => Err(what),
        }
    }

    fn number(&self) -> f64 {
        match self {
            Self::Null => 0.0,
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Number(value) => *value,
            Self::Text(text) if text.trim().is_empty() => 0.0,
            Self::Text(text) => text.trim().parse().unwrap_or(f64::NAN),
            Self::Unknown(_) => f64::NAN,
        }
    }

    /// The order of two known values; none where they cannot be compared.
    fn compare(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => Some(a.to_lowercase().cmp(&b.to_lowercase())),
            _ => self.number().partial_cmp(&other.number()),
        }
    }
}

/// Gives the property of a context that a path names, such as `["github", "ref"]`, in lower case.
pub(super) type Lookup<'a> = &'a dyn Fn(&[&str]) -> Value;

/// A text with all its expressions put in.
///
/// # Errors
/// What of it is not known here, or is no expression.
pub(super) fn fill_in(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${{") {
        filled += before;
        let (value, after) = expression(after, lookup)?;
        filled += &value.shown()?;
        rest = after;
    }
    Ok(filled + rest)
}

/// Whether a text is true: the word, or an expression alone that counts as true.
///
/// # Errors
/// As for [`fill_in`].
pub(super) fn is_true(text: &str, lookup: Lookup<'_>) -> Result<bool, String> {
    match text.trim().strip_prefix("${{").map(|rest| expression(rest, lookup)) {
        Some(Ok((value, ""))) => value.truth(),
        Some(Err(why)) => Err(why),
        Some(Ok(_)) | None => Ok(fill_in(text, lookup)?.trim() == "true"),
    }
}

/// Evaluates what stands before the next `}}`. Gives what follows it too.
fn expression<'t>(text: &'t str, lookup: Lookup<'_>) -> Result<(Value, &'t str), String> {
    if text.len() > MAX_TEXT {
        return Err(format!("an expression of more than {MAX_TEXT} bytes"));
    }
    let mut parser = Parser { rest: text, depth: 0, lookup };
    let value = parser.any()?;
    match parser.eats("}}") {
        true => Ok((value, parser.rest)),
        false => Err(parser.odd()),
    }
}

/// Reads and evaluates in one pass: no value depends on what stands behind it.
struct Parser<'t, 'l> {
    rest: &'t str,
    depth: usize,
    lookup: Lookup<'l>,
}

impl<'t> Parser<'t, '_> {
    fn any(&mut self) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("an expression that nests more than {MAX_DEPTH} deep"));
        }
        let mut value = self.all()?;
        while self.eats("||") {
            let right = self.all()?;
            value = match value.clone().truth() {
                Ok(false) => right,
                Ok(true) | Err(_) => value,
            };
        }
        self.depth -= 1;
        Ok(value)
    }

    fn all(&mut self) -> Result<Value, String> {
        let mut value = self.equality()?;
        while self.eats("&&") {
            let right = self.equality()?;
            value = match value.clone().truth() {
                Ok(true) => right,
                Ok(false) | Err(_) => value,
            };
        }
        Ok(value)
    }

    fn equality(&mut self) -> Result<Value, String> {
        let mut value = self.relation()?;
        loop {
            let equal = match () {
                () if self.eats("==") => true,
                () if self.eats("!=") => false,
                () => return Ok(value),
            };
            let right = self.relation()?;
            value = both(value, right, |a, b| Value::Bool((a.compare(b) == Some(std::cmp::Ordering::Equal)) == equal));
        }
    }

    fn relation(&mut self) -> Result<Value, String> {
        let mut value = self.not()?;
        loop {
            let holds: fn(std::cmp::Ordering) -> bool = match () {
                () if self.eats("<=") => std::cmp::Ordering::is_le,
                () if self.eats(">=") => std::cmp::Ordering::is_ge,
                () if self.eats("<") => std::cmp::Ordering::is_lt,
                () if self.eats(">") => std::cmp::Ordering::is_gt,
                () => return Ok(value),
            };
            let right = self.not()?;
            value = both(value, right, |a, b| Value::Bool(a.compare(b).is_some_and(holds)));
        }
    }

    fn not(&mut self) -> Result<Value, String> {
        let mut turns = 0_usize;
        while !self.rest.trim_start().starts_with("!=") && self.eats("!") {
            turns += 1;
        }
        let value = self.primary()?;
        Ok(match (turns, value) {
            (0, value) => value,
            (_, value) => value.truth().map_or_else(Value::Unknown, |truth| Value::Bool(truth ^ (turns % 2 == 1))),
        })
    }

    fn primary(&mut self) -> Result<Value, String> {
        if self.eats("(") {
            let value = self.any()?;
            return if self.eats(")") { Ok(value) } else { Err(self.odd()) };
        }
        self.rest = self.rest.trim_start();
        match self.rest.chars().next() {
            Some('\'') => self.literal().map(Value::Text),
            Some(c) if c.is_ascii_digit() || "+-.".contains(c) => self.number(),
            _ => self.named(),
        }
    }

    /// A text in single quotes, in which two of them stand for one.
    fn literal(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut rest = &self.rest[1..];
        loop {
            let (before, after) = rest.split_once('\'').ok_or_else(|| self.odd())?;
            text += before;
            match after.strip_prefix('\'') {
                Some(more) => rest = more,
                None => {
                    self.rest = after;
                    return Ok(text);
                }
            }
            text.push('\'');
        }
    }

    fn number(&mut self) -> Result<Value, String> {
        let of_it = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let (word, rest) = self.rest.split_at(self.rest.find(|c| !of_it(c)).unwrap_or(self.rest.len()));
        let hexadecimal = word.strip_prefix("0x").map(|digits| u32::from_str_radix(digits, 16).map(f64::from).ok());
        let number = hexadecimal.unwrap_or_else(|| word.parse().ok()).ok_or_else(|| self.odd())?;
        self.rest = rest;
        Ok(Value::Number(number))
    }

    /// A word, a function's value, or a property.
    fn named(&mut self) -> Result<Value, String> {
        let name = self.name()?;
        match name.as_str() {
            "true" => return Ok(Value::Bool(true)),
            "false" => return Ok(Value::Bool(false)),
            "null" => return Ok(Value::Null),
            _ => {}
        }
        if self.eats("(") {
            let mut arguments = Vec::new();
            while !self.eats(")") {
                if !arguments.is_empty() && !self.eats(",") {
                    return Err(self.odd());
                }
                arguments.push(self.any()?);
            }
            return Ok(call(&name, arguments));
        }
        let mut path = vec![name];
        loop {
            if self.eats(".") {
                path.push(if self.eats("*") { "*".to_owned() } else { self.name()? });
            } else if self.eats("[") {
                match self.any()? {
                    Value::Text(key) => path.push(key.to_lowercase()),
                    Value::Unknown(what) => return Err(what),
                    _ => path.push("*".to_owned()),
                }
                if !self.eats("]") {
                    return Err(self.odd());
                }
            } else {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                return Ok((self.lookup)(&path));
            }
        }
    }

    fn name(&mut self) -> Result<String, String> {
        self.rest = self.rest.trim_start();
        let of_it = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let end = self.rest.find(|c| !of_it(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() {
            return Err(self.odd());
        }
        self.rest = rest;
        Ok(name.to_lowercase())
    }

    fn eats(&mut self, sign: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn odd(&self) -> String {
        let rest: String = self.rest.trim_start().chars().take(20).collect();
        format!("what stands at `{rest}` is no expression")
    }
}

fn both(a: Value, b: Value, decide: impl FnOnce(&Value, &Value) -> Value) -> Value {
    match (&a, &b) {
        (Value::Unknown(_), _) => a,
        (_, Value::Unknown(_)) => b,
        _ => decide(&a, &b),
    }
}

fn call(name: &str, arguments: Vec<Value>) -> Value {
    let shown: Result<Vec<String>, String> = arguments.into_iter().map(Value::shown).collect();
    let texts = match shown {
        Ok(texts) => texts,
        Err(what) => return Value::Unknown(what),
    };
    let lower: Vec<String> = texts.iter().map(|text| text.to_lowercase()).collect();
    match (name, lower.as_slice()) {
        ("contains", [all, part]) => Value::Bool(all.contains(part)),
        ("startswith", [all, part]) => Value::Bool(all.starts_with(part)),
        ("endswith", [all, part]) => Value::Bool(all.ends_with(part)),
        ("format", [_, ..]) => format(&texts[0], &texts[1..]).map_or_else(Value::Unknown, Value::Text),
        _ => Value::Unknown(format!("the function `{name}`")),
    }
}

/// `{0}` stands for the first of the values; `{{` and `}}` for one brace.
fn format(pattern: &str, values: &[String]) -> Result<String, String> {
    let bad = || format!("the pattern `{}` of `format`", pattern.chars().take(40).collect::<String>());
    let (mut text, mut rest) = (String::new(), pattern);
    while let Some(at) = rest.find(['{', '}']) {
        text += &rest[..at];
        let (brace, after) = rest[at..].split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            text += brace;
            rest = after;
            continue;
        }
        let (number, after) = after.split_once('}').filter(|_| brace == "{").ok_or_else(bad)?;
        let value = number.trim().parse::<usize>().ok().and_then(|number| values.get(number));
        text += value.ok_or_else(bad)?;
        rest = after;
    }
    Ok(text + rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(path: &[&str]) -> Value {
        match path {
            ["github", "ref"] => Value::text("refs/heads/Main"),
            ["github", "none"] => Value::Null,
            ["inputs", "yes"] => Value::Bool(true),
            ["inputs", "odd-name"] => Value::text("x"),
            other => Value::Unknown(other.join(".")),
        }
    }

    fn filled(text: &str) -> Result<String, String> {
        fill_in(text, &lookup)
    }

    #[test]
    fn what_is_known_is_put_in() {
        for (text, expected) in [
            ("plain", "plain"),
            ("ci-${{ github.ref }}", "ci-refs/heads/Main"),
            ("${{github.REF}}${{ 'a''b }}' }}", "refs/heads/Maina'b }}"),
            ("${{ github.none || github.ref }}", "refs/heads/Main"),
            ("${{ inputs.yes && 'a' || 'b' }}", "a"),
            ("${{ !inputs.yes && 'a' || 'b' }}", "b"),
            ("${{ github['ref'] == 'REFS/heads/main' && 1 || 2.50 }}", "1"),
            ("${{ github.ref != 'x' }} ${{ null }}${{ 0x10 }}", "true 16"),
            ("${{ inputs['odd-name'] }}${{ inputs.odd-name }}", "xx"),
            ("${{ format('{0}-{{{1}}}', github.ref, (1 < 2)) }}", "refs/heads/Main-{true}"),
            ("${{ contains(github.ref, 'MAIN') && startsWith('ab', 'A') && endsWith('ab', 'b') }}", "true"),
            ("${{ '' == 0 }}${{ 'x' == 0 }}${{ null >= 0 }}${{ !!'x' }}", "truefalsetruetrue"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(is_true("${{ github.ref != 'refs/heads/main' }}", &lookup), Ok(false));
        assert_eq!(is_true(" ${{ 'x' }} ", &lookup), Ok(true));
        assert_eq!((is_true("true", &lookup), is_true("yes", &lookup)), (Ok(true), Ok(false)));
    }

    #[test]
    fn what_is_not_known_matters_only_where_it_decides() {
        assert_eq!(filled("${{ github.ref || vars.x }}").as_deref(), Ok("refs/heads/Main"));
        assert_eq!(filled("${{ false && vars.x }}").as_deref(), Ok("false"));
        for text in [
            "${{ vars.x }}",
            "${{ vars.x || 'a' }}",
            "${{ !vars.x }}",
            "${{ 'a' == vars.x }}",
            "${{ true && vars.x }}",
            "${{ format('{0}', vars.x) }}",
        ] {
            assert_eq!(filled(text), Err("vars.x".to_owned()), "{text}");
        }
        assert_eq!(filled("${{ toJSON(github.ref) }}"), Err("the function `tojson`".to_owned()));
    }

    #[test]
    fn what_is_no_expression_is_said() {
        for text in
            ["${{ }}", "${{ a b }}", "${{ 'a }}", "${{ (a }}", "${{ a.", "${{ 1x }}", "${{ a[1 }}", "${{ f(a b) }}"]
        {
            assert!(filled(text).is_err(), "{text}");
        }
        assert!(filled(&format!("${{{{ {}1 }}}}", "(".repeat(10_000))).is_err_and(|why| why.contains("deep")));
        assert!(filled("${{ format('{9}', 1) }}").is_err() && filled("${{ format('{', 1) }}").is_err());
    }

    proptest! {
        #[test]
        fn any_text_has_an_answer(text in "[a-z0-9'(){}\\[\\]$|&=!<>., \\-]{0,40}") {
            let _ = filled(&format!("${{{{ {text} }}}}"));
            let _ = is_true(&text, &lookup);
        }
    }
}
