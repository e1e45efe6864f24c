//! Where in a YAML file comments and keys stand, which the YAML library does not tell.
//!
//! Owns: the lexical structure of YAML as libyaml reads it (block scalars, quoted and plain scalars over several lines,
//! flow collections), as far as it decides whether a `#` begins a comment. Promises: one pass in linear time over any
//! bytes; exact for what libyaml accepts (the tests compare), a good guess for what it does not. Leaves values to
//! `yaml`.

use memchr::memchr2;

/// Something worth telling, in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen<'a> {
    /// A comment, without its `#`.
    Comment { line: u32, text: &'a [u8] },
    /// The key of a mapping as it is written, quotes and all.
    Key {
        line: u32,
        /// Where its value begins.
        after: usize,
        /// Bytes before it on its line.
        column: usize,
        /// How many `[` and `{` are open around it.
        flow_depth: usize,
        text: &'a [u8],
    },
    /// A block scalar, `|` or `>`.
    Block {
        /// The line of the sign.
        line: u32,
        /// The line break behind the sign.
        from: usize,
        /// The line break behind its last line, or the file's end.
        to: usize,
    },
}

/// Tells `tell` of every comment, key and block scalar in the file.
pub(super) fn scan<'a>(bytes: &'a [u8], tell: impl FnMut(Seen<'a>)) -> Shape {
    let start = if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let mut scanner = Scanner {
        bytes,
        at: start,
        line: 1,
        line_start: start,
        indents: Vec::new(),
        flow_depth: 0,
        flow_deepest: 0,
        unclosed: [false; 2],
        tell,
    };
    scanner.run();
    Shape { flow_depth: scanner.flow_deepest }
}

/// What a file looks like as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// The deepest nesting of `[` and `{`.
    pub(super) flow_depth: usize,
}

pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

struct Scanner<'a, F> {
    bytes: &'a [u8],
    at: usize,
    /// Counts from 1.
    line: u32,
    line_start: usize,
    /// Columns of the open block collections, outermost first, ascending.
    indents: Vec<usize>,
    flow_depth: usize,
    flow_deepest: usize,
    /// Whether a double or a single quote has been met that the rest of the file does not close.
    unclosed: [bool; 2],
    tell: F,
}

impl<'a, F: FnMut(Seen<'a>)> Scanner<'a, F> {
    fn run(&mut self) {
        while self.at < self.bytes.len() {
            self.block_line();
            self.next_line();
        }
    }

    /// One line in block context at whose start nothing is open, with all that its last node drags behind it. Ends on
    /// a line break or at the end.
    fn block_line(&mut self) {
        self.skip_blanks();
        let Some(column) = self.content_column() else { return };
        if self.bytes[self.at] == b'#' {
            return self.comment();
        }
        while self.indents.last().is_some_and(|top| *top > column) {
            self.indents.pop();
        }
        if column == 0 && self.document_marker() {
            self.indents.clear();
            self.at += 3;
        }
        // Where the node began that may yet turn out to be a key: anchors and tags before it count.
        let mut node: Option<(u32, usize)> = None;
        loop {
            self.skip_blanks();
            let Some(byte) = self.content() else { return };
            let here = (self.line, self.at);
            match byte {
                b'#' => return self.comment(),
                b'-' | b'?' if self.blank_at(1) && node.is_none() => {
                    self.open_collection(self.at - self.line_start);
                    self.at += 1;
                }
                b':' if self.blank_at(1) => {
                    if let Some((line, start)) = node.take()
                        && line == self.line
                    {
                        self.key(line, start, self.at);
                        self.open_collection(start - self.line_start);
                    }
                    self.at += 1;
                }
                b'&' | b'*' | b'!' => {
                    node.get_or_insert(here);
                    self.skip_word();
                }
                b'|' | b'>' => {
                    if self.block_scalar() {
                        return;
                    }
                    self.at += 1;
                }
                b'"' | b'\'' => {
                    node.get_or_insert(here);
                    self.quoted();
                }
                b'[' | b'{' => {
                    node.get_or_insert(here);
                    self.flow();
                }
                _ => {
                    node.get_or_insert(here);
                    if self.plain() {
                        return;
                    }
                }
            }
        }
    }

    /// A plain scalar in block context up to what ends it. True when its line is at an end too.
    fn plain(&mut self) -> bool {
        loop {
            while let Some(byte) = self.content() {
                match byte {
                    b':' if self.blank_at(1) => return false,
                    b'#' if self.after_blank() => {
                        self.comment();
                        return true;
                    }
                    _ => self.at += 1,
                }
            }
            if !self.goes_on_deeper() {
                return true;
            }
        }
    }

    /// At the end of a plain scalar's line: moves to its next line if there is one.
    fn goes_on_deeper(&mut self) -> bool {
        let floor = self.indents.last().map_or(0, |top| top + 1);
        let (before, line, line_start) = (self.at, self.line, self.line_start);
        while self.at < self.bytes.len() {
            self.next_line();
            self.skip_blanks();
            if let Some(column) = self.content_column() {
                let comment = self.bytes[self.at] == b'#';
                if column >= floor && !comment && !(column == 0 && self.document_marker()) {
                    return true;
                }
                break;
            }
        }
        (self.at, self.line, self.line_start) = (before, line, line_start);
        false
    }

    /// A block scalar, if its header is one: `|` or `>`, signs and digits, perhaps a comment. Ends on the line break
    /// before the first line that is not in it.
    fn block_scalar(&mut self) -> bool {
        let header = self.at;
        self.at += 1;
        let mut explicit = None;
        while let Some(byte @ (b'+' | b'-' | b'0'..=b'9')) = self.content() {
            if byte.is_ascii_digit() {
                explicit = Some(usize::from(byte - b'0'));
            }
            self.at += 1;
        }
        self.skip_blanks();
        match self.content() {
            None => {}
            Some(b'#') if self.after_blank() => self.comment(),
            Some(_) => {
                self.at = header;
                return false;
            }
        }
        let (line, from) = (self.line, self.at);
        self.block_body(explicit);
        (self.tell)(Seen::Block { line, from, to: self.at });
        true
    }

    /// The lines of a block scalar, whose header may say how far they are indented.
    fn block_body(&mut self, explicit: Option<usize>) {
        let parent = self.indents.last().copied();
        let floor = parent.map_or(1, |top| top + 1);
        let mut indent = explicit.map(|digit| parent.unwrap_or(0) + digit);
        let mut widest_empty = 0;
        while self.at < self.bytes.len() {
            let (before, line, line_start) = (self.at, self.line, self.line_start);
            self.next_line();
            let spaces = self.bytes[self.at..].iter().take_while(|byte| **byte == b' ').count();
            self.at += spaces;
            if self.content().is_none() && self.at < self.bytes.len() && indent.is_none_or(|indent| spaces <= indent) {
                widest_empty = widest_empty.max(spaces);
                continue;
            }
            let indent = *indent.get_or_insert(floor.max(widest_empty).max(spaces));
            if spaces < indent {
                (self.at, self.line, self.line_start) = (before, line, line_start);
                return;
            }
            self.skip_line();
        }
    }

    /// A quoted scalar, over as many lines as it takes. One that nothing closes is taken to end with its line.
    fn quoted(&mut self) {
        let quote = self.bytes[self.at];
        let known_unclosed = self.unclosed[usize::from(quote == b'\'')];
        self.at += 1;
        let (opened, line, line_start) = (self.at, self.line, self.line_start);
        while self.at < self.bytes.len() {
            match self.bytes[self.at] {
                b'\\' if quote == b'"' && self.content_at(1) => self.at += 2,
                b'\'' if quote == b'\'' && self.bytes.get(self.at + 1) == Some(&b'\'') => self.at += 2,
                byte if byte == quote => {
                    self.at += 1;
                    return;
                }
                _ if self.content().is_some() => self.at += 1,
                _ if known_unclosed => return,
                _ => {
                    self.next_line();
                    if self.document_marker() {
                        break;
                    }
                }
            }
        }
        if !known_unclosed {
            self.unclosed[usize::from(quote == b'\'')] = self.at >= self.bytes.len();
            (self.at, self.line, self.line_start) = (opened, line, line_start);
            self.skip_line();
        }
    }

    /// A flow collection, over as many lines as it takes.
    fn flow(&mut self) {
        let mut in_plain = false;
        // The line and place of the last node, which a `:` would make a key.
        let mut node: Option<(u32, usize, usize)> = None;
        while self.at < self.bytes.len() {
            let here = (self.line, self.at, self.at);
            let Some(byte) = self.content() else {
                self.next_line();
                if self.document_marker() {
                    break;
                }
                continue;
            };
            match byte {
                b' ' | b'\t' => self.at += 1,
                b'#' if !in_plain || self.after_blank() => {
                    self.comment();
                    in_plain = false;
                }
                b'[' | b'{' => {
                    self.flow_depth += 1;
                    self.flow_deepest = self.flow_deepest.max(self.flow_depth);
                    self.at += 1;
                    (in_plain, node) = (false, None);
                }
                b']' | b'}' => {
                    self.flow_depth -= 1;
                    self.at += 1;
                    (in_plain, node) = (false, None);
                    if self.flow_depth == 0 {
                        return;
                    }
                }
                b',' => {
                    self.at += 1;
                    (in_plain, node) = (false, None);
                }
                b':' if !in_plain || self.blank_at(1) || self.flow_indicator_at(1) => {
                    if let Some((line, start, end)) = node.take() {
                        self.key(line, start, end);
                    }
                    self.at += 1;
                    in_plain = false;
                }
                _ if in_plain => {
                    self.at += 1;
                    node = node.map(|(line, start, _)| (line, start, self.at));
                }
                b'"' | b'\'' => {
                    self.quoted();
                    node = Some((here.0, here.1, self.at));
                }
                b'&' | b'*' | b'!' => self.skip_flow_word(),
                b'?' if self.blank_at(1) => self.at += 1,
                _ => {
                    self.at += 1;
                    in_plain = true;
                    node = Some((here.0, here.1, self.at));
                }
            }
        }
        self.flow_depth = 0;
    }

    fn key(&mut self, line: u32, start: usize, end: usize) {
        let text = self.bytes[start..end].trim_ascii_end();
        let column = start.saturating_sub(self.line_start);
        (self.tell)(Seen::Key { line, after: self.at + 1, column, flow_depth: self.flow_depth, text });
    }

    fn comment(&mut self) {
        let start = self.at + 1;
        self.skip_line();
        (self.tell)(Seen::Comment { line: self.line, text: &self.bytes[start..self.at] });
    }

    fn open_collection(&mut self, column: usize) {
        if self.indents.last().is_none_or(|top| *top < column) {
            self.indents.push(column);
        }
    }

    /// The length of the line break here: 0 where there is none. YAML 1.1, as libyaml reads it, breaks lines at
    /// NEL, LS and PS too.
    fn break_len(&self, ahead: usize) -> usize {
        match self.bytes[(self.at + ahead).min(self.bytes.len())..] {
            [b'\r', b'\n', ..] | [0xc2, 0x85, ..] => 2,
            [b'\r' | b'\n', ..] => 1,
            [0xe2, 0x80, 0xa8 | 0xa9, ..] => 3,
            _ => 0,
        }
    }

    /// The byte here, unless the line ends.
    fn content(&self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        (!may_break(byte) || self.break_len(0) == 0).then_some(byte)
    }

    fn content_at(&self, ahead: usize) -> bool {
        self.break_len(ahead) == 0 && self.at + ahead < self.bytes.len()
    }

    fn content_column(&self) -> Option<usize> {
        self.content().map(|_| self.at - self.line_start)
    }

    fn blank_at(&self, ahead: usize) -> bool {
        !self.content_at(ahead) || matches!(self.bytes[self.at + ahead], b' ' | b'\t')
    }

    fn flow_indicator_at(&self, ahead: usize) -> bool {
        self.bytes.get(self.at + ahead).is_some_and(|byte| b",[]{}?".contains(byte))
    }

    /// Whether a blank or nothing stands before this place on its line.
    fn after_blank(&self) -> bool {
        self.at == self.line_start || matches!(self.bytes[self.at - 1], b' ' | b'\t')
    }

    /// Whether this is the start of a line that begins or ends a document.
    fn document_marker(&self) -> bool {
        self.at == self.line_start
            && matches!(self.bytes[self.at..], [b'-', b'-', b'-', ..] | [b'.', b'.', b'.', ..])
            && self.blank_at(3)
    }

    fn skip_blanks(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn skip_word(&mut self) {
        while self.content().is_some_and(|byte| !matches!(byte, b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn skip_flow_word(&mut self) {
        while self.content().is_some_and(|byte| !b" \t,[]{}".contains(&byte)) {
            self.at += 1;
        }
    }

    fn skip_line(&mut self) {
        while let Some(byte) = self.bytes.get(self.at..).and_then(next_break) {
            self.at += byte;
            if self.break_len(0) > 0 {
                return;
            }
            self.at += 1;
        }
        self.at = self.bytes.len();
    }

    /// From a line's end to the start of the next one.
    fn next_line(&mut self) {
        self.at += self.break_len(0);
        self.line = self.line.saturating_add(1);
        self.line_start = self.at;
    }
}

/// Whether a line break can begin with this byte.
const fn may_break(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r' | 0xc2 | 0xe2)
}

/// How far it is to the next byte that a line break can begin with.
fn next_break(bytes: &[u8]) -> Option<usize> {
    let usual = memchr2(b'\n', b'\r', bytes);
    memchr2(0xc2, 0xe2, &bytes[..usual.unwrap_or(bytes.len())]).or(usual)
}
