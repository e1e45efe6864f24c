//! A workflow's text without what its steps do, which is most of it and which nobody here needs.
//!
//! Owns: telling a step that is surely written as plain `key: value` lines and block scalars. Promises: parsing the text
//! it gives yields the same as parsing the whole text with its steps' contents left out, errors included: a step that
//! is written in any other way stays as it is (a test compares). Line numbers stay too. Leaves reading to `yaml`.

/// Where the value of a job's `steps:` begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steps {
    /// The byte behind the colon.
    pub(super) after: usize,
    /// Bytes before the key on its line.
    pub(super) column: usize,
}

/// Finds the `steps:` of jobs among a file's keys, in the order of the file. Keys in flow collections are not told.
#[derive(Debug, Default)]
pub(super) struct Finder {
    in_jobs: bool,
    job: Option<usize>,
    property: Option<usize>,
    pub(super) found: Vec<Steps>,
}

impl Finder {
    pub(super) fn key(&mut self, column: usize, after: usize, text: &[u8]) {
        if column == 0 {
            (self.in_jobs, self.job, self.property) = (text == b"jobs", None, None);
        } else if !self.in_jobs {
        } else if self.job.is_none_or(|job| column <= job) {
            (self.job, self.property) = (Some(column), None);
        } else if self.property.is_none_or(|property| column <= property) {
            self.property = Some(column);
            if text == b"steps" {
                self.found.push(Steps { after, column });
            }
        }
    }
}

/// The text with its plain steps cut down to their first line and their `uses:`. Nothing where there is none to cut.
pub(super) fn steps(text: &str, found: &[Steps]) -> Option<String> {
    let bytes = text.as_bytes();
    let mut cut = Cut { bytes, kept: Vec::with_capacity(bytes.len()), copied: 0 };
    for steps in found {
        if steps.after >= cut.copied {
            cut.region(*steps);
        }
    }
    if cut.copied == 0 {
        return None;
    }
    cut.kept.extend_from_slice(&bytes[cut.copied..]);
    // Whole lines were left out, of which only those of ASCII.
    String::from_utf8(cut.kept).ok()
}

struct Cut<'a> {
    bytes: &'a [u8],
    kept: Vec<u8>,
    /// How far the text is in `kept`, in one form or the other.
    copied: usize,
}

/// A line without its end.
#[derive(Clone, Copy)]
struct Line<'a> {
    start: usize,
    /// Where the next one begins.
    next: usize,
    indent: usize,
    /// Behind the indent.
    text: &'a [u8],
}

impl Line<'_> {
    const fn is_blank(&self) -> bool {
        self.text.is_empty()
    }

    fn is_comment(&self) -> bool {
        self.text.first() == Some(&b'#')
    }
}

impl<'a> Cut<'a> {
    fn line(&self, start: usize) -> Option<Line<'a>> {
        if start >= self.bytes.len() {
            return None;
        }
        let rest = &self.bytes[start..];
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let next = start + (end + 1).min(rest.len());
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        let indent = line.iter().take_while(|byte| **byte == b' ').count();
        Some(Line { start, next, indent, text: &line[indent..] })
    }

    fn region(&mut self, steps: Steps) {
        let Some(head) = self.line(steps.after) else { return };
        if !(head.is_blank() || head.indent > 0 && head.is_comment()) {
            return;
        }
        let (mut at, mut dash) = (head.next, None);
        while let Some(line) = self.line(at) {
            if line.is_blank() || line.is_comment() {
                at = line.next;
                continue;
            }
            let column = *dash.get_or_insert(line.indent);
            let is_item = line.text.starts_with(b"- ") && line.indent == column && column >= steps.column;
            if !is_item {
                return;
            }
            at = self.item(line);
        }
    }

    /// Takes one step. Gives where the next line behind it begins.
    fn item(&mut self, first: Line<'a>) -> usize {
        let dash = first.indent;
        let inner = first.text[1..].iter().take_while(|byte| **byte == b' ').count() + 1;
        let column = dash + inner;
        let mut step = Step { columns: vec![column], opened: false, scalar: None, uses: None, plain: true };
        step.entry(first, column, &first.text[inner.min(first.text.len())..], true);
        let (mut at, mut end) = (first.next, first.next);
        while let Some(line) = self.line(at) {
            if !line.is_blank() && !line.is_comment() && line.indent <= dash {
                break;
            }
            at = line.next;
            if !(line.is_blank() || line.is_comment()) {
                end = line.next;
            }
            step.line(line);
        }
        // Blank lines and comments behind it belong to nobody; as content of a last scalar they say nothing either.
        if step.plain && end > first.next {
            self.kept.extend_from_slice(&self.bytes[self.copied..first.next]);
            let mut line = first.next;
            while line < end {
                let Some(of_it) = self.line(line) else { break };
                if step.uses == Some(of_it.start) {
                    self.kept.extend_from_slice(&self.bytes[of_it.start..of_it.next]);
                } else {
                    self.kept.push(b'\n');
                }
                line = of_it.next;
            }
            self.copied = end;
        }
        at
    }
}

/// A step while its lines are looked at.
struct Step {
    /// Columns of the open mappings, outermost first.
    columns: Vec<usize>,
    /// The last key has no value yet.
    opened: bool,
    /// In a block scalar: the column of its key, and that of its text once it has any.
    scalar: Option<(usize, Option<usize>)>,
    /// Where the line of its `uses:` begins, unless that is the first.
    uses: Option<usize>,
    /// All lines so far are of the plain kind.
    plain: bool,
}

impl Step {
    fn line(&mut self, line: Line<'_>) {
        if !self.plain {
            return;
        }
        if let Some((key, body)) = self.scalar {
            match body {
                _ if line.is_blank() => {
                    // An empty line that is wider than the text after it is an error, or is not: left to the parser.
                    self.plain = line.indent == 0 || body.is_some_and(|body| line.indent <= body);
                    return;
                }
                Some(body) if line.indent >= body => return self.content(line),
                None if line.indent > key => {
                    self.scalar = Some((key, Some(line.indent)));
                    return self.content(line);
                }
                _ => self.scalar = None,
            }
        }
        if line.is_blank() {
            return;
        }
        if line.is_comment() {
            return self.content(line);
        }
        let top = self.columns.last().copied().unwrap_or(0);
        if self.opened && line.indent > top {
            self.columns.push(line.indent);
        } else {
            while self.columns.last().is_some_and(|top| *top > line.indent) {
                self.columns.pop();
            }
            if self.columns.last() != Some(&line.indent) {
                self.plain = false;
                return;
            }
        }
        let column = line.indent;
        self.entry(line, column, line.text, false);
    }

    /// Text that is not read: a comment, or a block scalar's.
    fn content(&mut self, line: Line<'_>) {
        self.plain &= line.text.iter().all(|byte| matches!(byte, b' '..=b'~')) && line.text.first() != Some(&b'\t');
    }

    /// A `key: value`.
    fn entry(&mut self, line: Line<'_>, column: usize, text: &[u8], is_first: bool) {
        self.opened = false;
        let key = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte)).count();
        let named = (1..=100).contains(&key) && text[0].is_ascii_alphabetic() && text.get(key) == Some(&b':');
        let value = if named { &text[key + 1..] } else { &[] };
        let spaced = value.is_empty() || value[0] == b' ';
        if !named || !spaced || !text.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            self.plain = false;
            return;
        }
        if &text[..key] == b"uses" && self.columns.len() == 1 {
            // A second one is an oddity for the parser to see.
            self.plain &= self.uses.is_none();
            self.uses = (!is_first).then_some(line.start);
        }
        match value.trim_ascii() {
            [] => self.opened = true,
            [b'#', ..] => self.opened = true,
            [b'|' | b'>'] | [b'|' | b'>', b'-' | b'+'] => self.scalar = Some((column, None)),
            value => self.plain &= is_plain(value),
        }
    }
}

/// Whether a value is surely one scalar on one line: quoted without quotes inside, or plain and beginning harmlessly.
fn is_plain(value: &[u8]) -> bool {
    let comment = value.windows(2).position(|pair| pair == b" #");
    let value = value[..comment.unwrap_or(value.len())].trim_ascii_end();
    match value {
        [b'\'', inner @ .., b'\''] => !inner.contains(&b'\''),
        [b'"', inner @ .., b'"'] => !inner.iter().any(|byte| matches!(byte, b'"' | b'\\')),
        [first, ..] if first.is_ascii_alphanumeric() || b"$./_(".contains(first) => {
            value.last() != Some(&b':') && !value.windows(2).any(|pair| pair == b": ")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::workflow::scan::{self, Seen};
    use crate::workflow::yaml;

    fn cut(text: &str) -> Option<String> {
        let mut finder = Finder::default();
        scan::scan(text.as_bytes(), |seen| {
            if let Seen::Key { after, column, flow_depth: 0, text, .. } = seen {
                finder.key(column, after, text);
            }
        });
        steps(text, &finder.found)
    }

    const HEAD: &str = "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n";

    #[test]
    fn what_steps_do_is_cut_and_lines_stay() {
        let text = format!(
            "{HEAD}      - uses: actions/checkout@v4 # why\n        with:\n          ref: ${{{{ github.ref }}}}\n      - name: Test\n        run: |\n          make: test\n\n          # more\n        uses: b@1\n    timeout-minutes: 3\n  b:\n    steps:\n    - run: >-\n        x\n      env: {{A: b}}\n"
        );
        let short = cut(&text).expect("something to cut");
        let expected = format!(
            "{HEAD}      - uses: actions/checkout@v4 # why\n\n\n      - name: Test\n\n\n\n\n        uses: b@1\n    timeout-minutes: 3\n  b:\n    steps:\n    - run: >-\n        x\n      env: {{A: b}}\n"
        );
        assert_eq!(short, expected, "the last step is not of the plain kind");
        assert_eq!(short.lines().count(), text.lines().count());
    }

    #[test]
    fn steps_elsewhere_are_no_steps() {
        let inside =
            "env:\n  WORKFLOW_TAGS: |\n    jobs:\n      a:\n        steps:\n          - a: b\n            c: d\n";
        assert_eq!(cut(inside), None);
        assert_eq!(cut("steps:\n  - a: b\n    c: d\n"), None);
        assert_eq!(cut("jobs:\n  a:\n    with:\n      steps:\n        - a: b\n          c: d\n"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever stands in the steps, the parser makes the same of the cut text as of the whole one.
        #[test]
        fn the_parser_sees_no_difference(lines in proptest::collection::vec((0_usize..6, 0_usize..LINES.len()), 0..14), crlf in any::<bool>()) {
            let mut text = HEAD.to_owned();
            for (depth, line) in lines {
                text += &format!("{}{}\n", " ".repeat([4, 6, 8, 10, 12, 7][depth]), LINES[line]);
            }
            text += "  b:\n    runs-on: y\n";
            if crlf {
                text = text.replace('\n', "\r\n");
            }
            if let Some(short) = cut(&text) {
                let (whole, short) = (yaml::parse(text.as_bytes(), 0), yaml::parse(short.as_bytes(), 0));
                match (whole, short) {
                    (Ok(whole), Ok(short)) => {
                        prop_assert_eq!(whole.root, short.root);
                        prop_assert_eq!(whole.odd_keys, short.odd_keys);
                    }
                    (whole, short) => prop_assert_eq!(whole.is_err(), short.is_err(), "{:?}", text),
                }
            }
        }
    }

    const LINES: &[&str] = &[
        "- uses: a@1",
        "- name: x",
        "- run: |",
        "- run: echo a: b",
        "-",
        "- - x: y",
        "run: |",
        "run: >-",
        "run: |2",
        "with:",
        "env: # why",
        "uses: b@2",
        "key: value",
        "key: 'quoted # not a comment'",
        "key: \"open",
        "key: \"a\\n\"",
        "key: {a: b}",
        "key: ${{ a.b }}",
        "key: &x y",
        "key: *x",
        "text that goes on",
        "# a comment",
        "",
        "  ",
        "\tx",
        "a: b: c",
        "a: b # c",
        "a:b",
        "- [x",
        "? x",
        "--- x",
        "é: ü",
    ];
}
