//! Where the scripts of steps stand in a file, so that they need not be parsed.
//!
//! Owns which text can be left out of a file without changing what `yaml` makes of it: the block scalars that are the
//! `run:` of a step, of which nothing is kept and in which nothing can be wrong. They are a third of most files. Whether
//! a file may be cut at all (it has no anchors) is known to `yaml`.

use std::ops::Range;

use super::scan::Seen;

/// The scripts seen so far.
#[derive(Debug, Default)]
pub(super) struct Scripts<'a> {
    /// The keys around the last one and itself, outermost first, with their columns.
    open: Vec<(usize, &'a [u8])>,
    /// The line of the last key.
    line: u32,
    found: Vec<Range<usize>>,
}

impl<'a> Scripts<'a> {
    /// Takes what the scanner tells of a file, in its order.
    pub(super) fn see(&mut self, bytes: &'a [u8], seen: &Seen<'a>) {
        match *seen {
            Seen::Key { line, column, flow_depth: 0, text, .. } => {
                while self.open.last().is_some_and(|(outer, _)| *outer >= column) {
                    self.open.pop();
                }
                self.open.push((column, text));
                self.line = line;
            }
            // Only what begins on its key's own line is sure to be the value of that key.
            Seen::Block { line, from, to } if line == self.line => {
                let [(_, b"jobs"), _, (_, b"steps"), (column, b"run")] = self.open[..] else { return };
                let is_plain = bytes[from..to].iter().all(|byte| matches!(byte, b'\r' | b'\n' | b' '..=b'~'));
                if is_plain && ends(&bytes[to..], column) {
                    self.found.push(from..to);
                }
            }
            _ => {}
        }
    }

    /// Where the bodies of scripts stand: from the break that ends the line of the `|` to the one that ends the last line.
    pub(super) fn found(self) -> Vec<Range<usize>> {
        self.found
    }
}

/// Whether the next line is none that would be taken for a script's if that is cut off before it.
fn ends(rest: &[u8], column: usize) -> bool {
    let Some(next) = [b"\r\n".as_slice(), b"\n", b"\r"].iter().find_map(|end| rest.strip_prefix(*end)) else {
        return rest.is_empty();
    };
    next.iter().take_while(|byte| **byte == b' ').count() <= column
}

/// The text without these parts of it.
pub(super) fn without(text: &str, parts: &[Range<usize>]) -> String {
    let mut left = String::with_capacity(text.len());
    let mut at = 0;
    for part in parts {
        left.push_str(text.get(at..part.start).unwrap_or_default());
        at = part.end;
    }
    left.push_str(text.get(at..).unwrap_or_default());
    left
}

#[cfg(test)]
mod tests {
    use super::super::scan::scan;
    use super::*;

    fn cut(text: &str) -> String {
        let mut scripts = Scripts::default();
        scan(text.as_bytes(), |seen| scripts.see(text.as_bytes(), &seen));
        without(text, &scripts.found())
    }

    #[test]
    fn scripts_of_steps_are_cut_and_nothing_else() {
        let steps = |body: &str| format!("jobs:\n  a:\n    steps:\n      - {body}\n        name: x\n");
        assert_eq!(cut(&steps("run: |\n          make\n\n          make test")), steps("run: |"));
        assert_eq!(cut(&steps("run: >2- # folded\n          make")), steps("run: >2- # folded"));
        for kept in ["run: make", "with: |\n          run", "run: |\n          a\tb", "run: |\n          é", "run: 'a'"]
        {
            assert_eq!(cut(&steps(kept)), steps(kept));
        }
        let odd = "jobs:\n  a:\n    steps:\n      - run: x\n        ? uses\n        : |\n          docker://x\n";
        assert_eq!(cut(odd), odd);
        let elsewhere = "run: |\n  x\njobs:\n  run: |\n    x\n  a:\n    env:\n      run: |\n        x\n";
        assert_eq!(cut(elsewhere), elsewhere);
        assert_eq!(cut("jobs:\n  a:\n    steps:\n    - run: |\n       x"), "jobs:\n  a:\n    steps:\n    - run: |");
    }
}
