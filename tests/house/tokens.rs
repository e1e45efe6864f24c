//! Rust source into the tokens that paths are made of. Comments, strings, characters and lifetimes are left out.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// An identifier or keyword; `r#` taken off.
    Word(String),
    /// `::`
    Colons,
    /// Any other mark that is no space.
    Mark(char),
}

/// The tokens, each with its line, counted from 1.
pub(crate) fn tokens(text: &str) -> Vec<(Token, usize)> {
    let mut reader = Reader { rest: text, line: 1 };
    let mut tokens = Vec::new();
    while let Some(first) = reader.rest.chars().next() {
        let line = reader.line;
        if let Some(token) = reader.token(first) {
            tokens.push((token, line));
        }
    }
    tokens
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    fn token(&mut self, first: char) -> Option<Token> {
        if self.rest.starts_with("//") {
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            return None;
        }
        if self.rest.starts_with("/*") {
            self.comment();
            return None;
        }
        if self.raw_string() {
            return None;
        }
        match first {
            '"' => self.quoted('"'),
            '\'' => self.character_or_lifetime(),
            '0'..='9' => {
                // Takes suffixes and hexadecimal digits along, but not the dots of a range.
                let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
                self.skip(end);
            }
            _ if first.is_alphabetic() || first == '_' => return self.word(),
            _ if self.rest.starts_with("::") => {
                self.skip(2);
                return Some(Token::Colons);
            }
            _ => {
                self.skip(first.len_utf8());
                return Some(Token::Mark(first)).filter(|_| !first.is_whitespace());
            }
        }
        None
    }

    fn skip(&mut self, bytes: usize) {
        let (gone, rest) = self.rest.split_at(bytes);
        self.line += gone.matches('\n').count();
        self.rest = rest;
    }

    fn comment(&mut self) {
        let mut depth = 0;
        loop {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.skip(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.skip(2);
                if depth == 0 {
                    return;
                }
            } else {
                match self.rest.chars().next() {
                    Some(c) => self.skip(c.len_utf8()),
                    None => return,
                }
            }
        }
    }

    /// `r"…"`, `r#"…"#`, and the same with `b` or `c` in front.
    fn raw_string(&mut self) -> bool {
        let after = self.rest.strip_prefix(['b', 'c']).unwrap_or(self.rest);
        let Some(after) = after.strip_prefix('r') else { return false };
        let hashes = after.len() - after.trim_start_matches('#').len();
        let Some(inside) = after[hashes..].strip_prefix('"') else { return false };
        let end = format!("\"{}", "#".repeat(hashes));
        let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
        self.skip(self.rest.len() - inside.len() + length);
        true
    }

    fn quoted(&mut self, quote: char) {
        self.skip(quote.len_utf8());
        while let Some(c) = self.rest.chars().next() {
            self.skip(c.len_utf8());
            if c == quote {
                return;
            }
            if c == '\\'
                && let Some(escaped) = self.rest.chars().next()
            {
                self.skip(escaped.len_utf8());
            }
        }
    }

    fn character_or_lifetime(&mut self) {
        let mut chars = self.rest.chars().skip(1);
        match (chars.next(), chars.next()) {
            (Some('\\'), _) | (Some(_), Some('\'')) => self.quoted('\''),
            _ => {
                self.skip(1);
                let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
                self.skip(end);
            }
        }
    }

    fn word(&mut self) -> Option<Token> {
        let raw = self.rest.starts_with("r#");
        if raw {
            self.skip(2);
        }
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let word = self.rest[..end].to_owned();
        self.skip(end);
        // The prefix of a byte or C string or of a byte character is no word.
        let prefix = !raw && matches!(word.as_str(), "b" | "c") && self.rest.starts_with(['"', '\'']);
        (!prefix && !word.is_empty()).then_some(Token::Word(word))
    }
}
