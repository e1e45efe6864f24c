//! GitHub's filter patterns for branches, tags and paths.
//!
//! Owns the rules of the "filter pattern cheat sheet" of GitHub's workflow syntax. Promises: a match costs at most the
//! product of pattern and text. Leaves which filters there are to `trigger`.

/// The longest pattern read, in bytes; a longer one matches nothing.
pub(super) const MAX_PATTERN: usize = 512;
/// The most patterns of one filter.
pub(super) const MAX_PATTERNS: usize = 256;

/// A list of patterns in the order of the file; a later one overrules an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    /// Begins with `!`: takes out what earlier ones let in.
    negative: bool,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    One(Set),
    /// `x?`
    Maybe(Set),
    /// `x+`
    Many(Set),
    /// `*`: anything but `/`.
    Star,
    /// `**`: anything.
    DoubleStar,
    /// `**/` at the start or after a `/`: any folders, or none, in which case the piece behind it is left out.
    Folders,
    /// The folders of the piece before it, up to a `/`.
    Inside,
    /// Nothing matches it.
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Set {
    Char(char),
    /// `[a-z0]`: ranges, ends included.
    Ranges(Vec<(char, char)>),
}

impl Set {
    fn holds(&self, c: char) -> bool {
        match self {
            Self::Char(char) => *char == c,
            Self::Ranges(ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)),
        }
    }
}

impl Patterns {
    pub(super) fn new(texts: &[String]) -> Self {
        Self(texts.iter().take(MAX_PATTERNS).map(|text| Pattern::new(text)).collect())
    }

    /// Whether the text is let in: the last pattern that matches it decides, and none lets nothing in.
    pub fn admit(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.0.iter().rev().find(|pattern| pattern.matches(&text)).is_some_and(|pattern| !pattern.negative)
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        let (negative, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if text.len() > MAX_PATTERN {
            return Self { negative, pieces: vec![Piece::Never] };
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut chars = text.chars().peekable();
        let mut folder_start = true;
        while let Some(c) = chars.next() {
            let piece = match (c, pieces.last_mut()) {
                ('?', Some(Piece::One(set))) => {
                    let set = set.clone();
                    pieces.pop();
                    Piece::Maybe(set)
                }
                ('+', Some(Piece::One(set))) => {
                    let set = set.clone();
                    pieces.pop();
                    Piece::Many(set)
                }
                ('*', _) if chars.next_if_eq(&'*').is_some() => {
                    while chars.next_if_eq(&'*').is_some() {}
                    if folder_start && chars.next_if_eq(&'/').is_some() { Piece::Folders } else { Piece::DoubleStar }
                }
                ('*', _) => Piece::Star,
                ('[', _) => match ranges(&mut chars) {
                    Some(ranges) => Piece::One(Set::Ranges(ranges)),
                    None => Piece::One(Set::Char('[')),
                },
                ('\\', _) => Piece::One(Set::Char(chars.next().unwrap_or('\\'))),
                (c, _) => Piece::One(Set::Char(c)),
            };
            folder_start = matches!(piece, Piece::Folders | Piece::One(Set::Char('/')));
            let inside = (piece == Piece::Folders).then_some(Piece::Inside);
            pieces.extend([piece].into_iter().chain(inside));
        }
        Self { negative, pieces }
    }

    /// Follows all ways through the pattern at once: `open[i]` says whether the pieces before `i` match the text so
    /// far.
    fn matches(&self, text: &[char]) -> bool {
        let mut open = vec![false; self.pieces.len() + 1];
        let mut next = open.clone();
        open[0] = true;
        self.skip_empty(&mut open);
        for c in text {
            next.fill(false);
            for (index, piece) in self.pieces.iter().enumerate().filter(|(index, _)| open[*index]) {
                let (stay, go) = match piece {
                    Piece::One(set) | Piece::Maybe(set) => (false, set.holds(*c)),
                    Piece::Many(set) => (set.holds(*c), set.holds(*c)),
                    Piece::Star => (*c != '/', false),
                    Piece::DoubleStar => (true, false),
                    Piece::Inside => (true, *c == '/'),
                    Piece::Folders | Piece::Never => (false, false),
                };
                next[index] |= stay;
                next[index + 1] |= go;
            }
            std::mem::swap(&mut open, &mut next);
            self.skip_empty(&mut open);
            if !open.contains(&true) {
                return false;
            }
        }
        open[self.pieces.len()]
    }

    /// Opens what lies behind pieces that need no text.
    fn skip_empty(&self, open: &mut [bool]) {
        for (index, piece) in self.pieces.iter().enumerate() {
            if open[index] {
                match piece {
                    Piece::Maybe(_) | Piece::Star | Piece::DoubleStar => open[index + 1] = true,
                    Piece::Folders => (open[index + 1], open[index + 2]) = (true, true),
                    Piece::One(_) | Piece::Many(_) | Piece::Inside | Piece::Never => {}
                }
            }
        }
    }
}

/// What stands in brackets, after the `[`; nothing, and nothing consumed, where no `]` closes them.
fn ranges(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Vec<(char, char)>> {
    let mut ahead = chars.clone();
    let mut ranges = Vec::new();
    loop {
        let from = match ahead.next()? {
            ']' => break,
            '\\' => ahead.next()?,
            c => c,
        };
        let mut after = ahead.clone();
        match (after.next(), after.next()) {
            (Some('-'), Some(to)) if to != ']' => {
                ranges.push((from, to));
                ahead = after;
            }
            _ => ranges.push((from, from)),
        }
    }
    *chars = ahead;
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn admits(patterns: &[&str], text: &str) -> bool {
        Patterns::new(&patterns.iter().map(|&pattern| pattern.to_owned()).collect::<Vec<_>>()).admit(text)
    }

    /// The examples of GitHub's cheat sheet, branches and tags, then paths.
    #[test]
    fn the_cheat_sheet_holds() {
        let cases: &[(&[&str], &[&str], &[&str])] = &[
            (&["feature/*"], &["feature/my-branch", "feature/your-branch"], &["feature/a/b", "feature", "xfeature/a"]),
            (
                &["feature/**"],
                &["feature/beta-a/my-branch", "feature/your-branch", "feature/mona/the/octocat"],
                &["main"],
            ),
            (&["main", "releases/mona-the-octocat"], &["main", "releases/mona-the-octocat"], &["Main", "mainx"]),
            (&["*"], &["main", "releases"], &["all/the/branches"]),
            (&["**"], &["all/the/branches", "every/tag"], &[]),
            (&["*feature"], &["mona-feature", "feature", "ver-10-feature"], &["feature-x", "a/feature"]),
            (&["v2*"], &["v2", "v2.0", "v2.9"], &["v1"]),
            (&["v[12].[0-9]+.[0-9]+"], &["v1.10.1", "v2.0.0"], &["v3.0.0", "v1..1", "v1.1"]),
            (&["*.jsx?"], &["page.js", "page.jsx"], &["page.jsxx", "a/page.js"]),
            (&["*.js"], &["app.js", "index.js"], &["js/app.js"]),
            (&["**.js"], &["index.js", "js/index.js", "src/js/app.js"], &["index.jsx"]),
            (&["docs/*"], &["docs/README.md", "docs/file.txt"], &["docs/a/b.md", "docs"]),
            (&["docs/**"], &["docs/README.md", "docs/mona/octocat.txt"], &["xdocs/a"]),
            (
                &["docs/**/*.md"],
                &["docs/README.md", "docs/mona/hello-world.md", "docs/a/markdown/file.md"],
                &["docs/a/b.txt"],
            ),
            (&["**/docs/**"], &["docs/hello.md", "dir/docs/my-file.txt", "space/docs/plan/space.doc"], &["xdocs/a"]),
            (&["**/README.md"], &["README.md", "js/README.md"], &["xREADME.md", "js/xREADME.md"]),
            (&["**/*src/**"], &["a/src/app.js", "my-src/code/js/app.js"], &["src2/app.js"]),
            (&["**/*-post.md"], &["my-post.md", "path/their-post.md"], &["post.md"]),
            (
                &["**/migrate-*.sql"],
                &["migrate-10909.sql", "db/migrate-v1.0.sql", "db/sept/migrate-v1.sql"],
                &["migrate.sql"],
            ),
            (&["*.md", "!README.md"], &["hello.md"], &["README.md", "docs/hello.md"]),
            (&["*.md", "!README.md", "README*"], &["hello.md", "README.md", "README.doc"], &["x.doc"]),
            (&["!main"], &[], &["main", "other"]),
            (&["\\*x", "a\\?"], &["*x", "a?"], &["yx", "a"]),
            (&["[", "x[a-"], &["[", "x[a-"], &["x", "xa"]),
            (&[""], &[""], &["a"]),
            (&["?a", "+b"], &["?a", "+b"], &["a", "b"]),
        ];
        for (patterns, yes, no) in cases {
            yes.iter().for_each(|text| assert!(admits(patterns, text), "{patterns:?} lets {text} in"));
            no.iter().for_each(|text| assert!(!admits(patterns, text), "{patterns:?} keeps {text} out"));
        }
    }

    #[test]
    fn a_hostile_pattern_costs_little() {
        let pattern = "**a".repeat(MAX_PATTERN / 3);
        assert!(!admits(&[&pattern], &"a".repeat(100).repeat(10).replace("aaaaaaaaaa", "aaaab")));
        assert!(!admits(&[&"a".repeat(MAX_PATTERN + 1)], &"a".repeat(MAX_PATTERN + 1)), "too long matches nothing");
    }

    proptest! {
        #[test]
        fn any_pattern_can_be_asked(pattern in "\\PC{0,40}", text in "\\PC{0,40}") {
            admits(&[&pattern], &text);
        }

        #[test]
        fn a_text_without_special_characters_matches_itself_alone(a in "[a-z/.]{0,12}", b in "[a-z/.]{0,12}") {
            prop_assert_eq!(admits(&[&a], &b), a == b);
        }
    }
}
