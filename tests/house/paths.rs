//! The paths that a source file names, as absolute as the file alone can tell.

use std::collections::{BTreeMap, BTreeSet};

use super::tokens::{Token, tokens};

/// A path that a file names: `crate::…`, or one that starts with an external crate or an unknown name. `*` at its end is
/// a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
}

/// The module that a file is, below the crate's root: `kernel/queue.rs` is `kernel`, `queue`. The roots themselves
/// belong to no room.
pub(crate) fn module_of(file: &str) -> Vec<String> {
    match file {
        "lib.rs" | "main.rs" => Vec::new(),
        _ => file.trim_end_matches(".rs").split('/').map(str::to_owned).collect(),
    }
}

/// Every path that the file names, in `use` trees and in code.
pub(crate) fn mentions(module: &[String], text: &str) -> Vec<Mention> {
    let mut scan = Scan { tokens: tokens(text), at: 0, place: module.to_vec(), ..Scan::default() };
    scan.file();
    scan.found.iter().flat_map(|found| scan.resolve(found, &mut BTreeSet::new())).collect()
}

/// A path as it is written, and the module it is written in.
#[derive(Debug, Clone)]
struct Found {
    place: Vec<String>,
    path: Vec<String>,
    line: usize,
    is_use: bool,
}

#[derive(Default)]
struct Scan {
    tokens: Vec<(Token, usize)>,
    at: usize,
    /// The module that the scan stands in.
    place: Vec<String>,
    /// For each open brace: whether it opened a module.
    braces: Vec<bool>,
    found: Vec<Found>,
    /// What names brought in by `use` or `extern crate` stand for. One name may be brought in at several places; all
    /// are followed.
    names: BTreeMap<String, Vec<Found>>,
    /// Modules declared in this file.
    modules: BTreeSet<String>,
}

impl Scan {
    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|(token, _)| token)
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        match self.peek(ahead)? {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    fn file(&mut self) {
        while let Some((token, line)) = self.tokens.get(self.at).cloned() {
            match token {
                Token::Word(word) if word == "use" && self.starts_a_use() => self.use_item(line),
                Token::Word(word) if word == "extern" && self.word(1) == Some("crate") => self.extern_crate(line),
                Token::Word(word) if word == "mod" && self.word(1).is_some() => self.module(),
                Token::Word(_) => self.path(line),
                Token::Colons if !self.follows_a_path() => self.path(line),
                Token::Mark('{') => {
                    self.braces.push(false);
                    self.at += 1;
                }
                Token::Mark('}') => {
                    if self.braces.pop() == Some(true) {
                        self.place.pop();
                    }
                    self.at += 1;
                }
                _ => self.at += 1,
            }
        }
    }

    /// `use` also bounds what an opaque type captures: `impl Trait + use<'a>`.
    fn starts_a_use(&self) -> bool {
        self.peek(1) != Some(&Token::Mark('<'))
    }

    /// Whether the `::` here goes on after `>` or `]`, as in `<T as U>::V`; then it is not the head of a path.
    fn follows_a_path(&self) -> bool {
        self.at > 0 && matches!(self.tokens[self.at - 1].0, Token::Mark('>' | ']' | ')'))
    }

    fn module(&mut self) {
        let name = self.word(1).unwrap_or_default().to_owned();
        self.modules.insert(name.clone());
        if self.peek(2) == Some(&Token::Mark('{')) {
            self.braces.push(true);
            self.place.push(name);
        }
        self.at += 3;
    }

    /// A path in the code: words joined by `::`. Single words are locals, fields and the like and say nothing.
    fn path(&mut self, line: usize) {
        let mut path = Vec::new();
        if self.peek(0) == Some(&Token::Colons) {
            path.push(String::new());
            self.at += 1;
        }
        while let Some(word) = self.word(0) {
            path.push(word.to_owned());
            self.at += 1;
            if self.peek(0) == Some(&Token::Colons) && self.word(1).is_some() {
                self.at += 1;
            } else {
                break;
            }
        }
        if path.is_empty() {
            // A leading `::` before no word, as in a macro's pattern.
            self.at += usize::from(self.peek(0).is_some());
        } else if path.len() > 1 {
            self.found.push(Found { place: self.place.clone(), path, line, is_use: false });
        }
    }

    fn extern_crate(&mut self, line: usize) {
        let name = self.word(2).unwrap_or_default().to_owned();
        // `extern crate self` is the crate's root by another name.
        let path = vec![if name == "self" { "crate".to_owned() } else { name.clone() }];
        let alias = if self.word(3) == Some("as") { self.word(4).unwrap_or_default().to_owned() } else { name };
        self.bring_in(&alias, path, line);
        self.at += 3;
    }

    fn use_item(&mut self, line: usize) {
        self.at += 1;
        let mut prefix = Vec::new();
        if self.peek(0) == Some(&Token::Colons) {
            prefix.push(String::new());
            self.at += 1;
        }
        self.use_tree(&prefix, line);
    }

    fn use_tree(&mut self, prefix: &[String], line: usize) {
        let mut path = prefix.to_vec();
        loop {
            let line = self.tokens.get(self.at).map_or(line, |(_, line)| *line);
            match self.peek(0).cloned() {
                Some(Token::Word(word)) => {
                    path.push(word);
                    self.at += 1;
                    if self.peek(0) == Some(&Token::Colons) {
                        self.at += 1;
                        continue;
                    }
                    let mut alias = path.last().cloned().unwrap_or_default();
                    // `a::{self}` brings in `a`.
                    if alias == "self" && path.len() > 1 {
                        path.pop();
                        alias = path.last().cloned().unwrap_or_default();
                    }
                    if self.word(0) == Some("as") {
                        alias = self.word(1).unwrap_or_default().to_owned();
                        self.at += 2;
                    }
                    return self.bring_in(&alias, path, line);
                }
                Some(Token::Mark('*')) => {
                    self.at += 1;
                    path.push("*".to_owned());
                    return self.bring_in("", path, line);
                }
                Some(Token::Mark('{')) => {
                    self.at += 1;
                    loop {
                        match self.peek(0) {
                            Some(Token::Mark('}')) => {
                                self.at += 1;
                                return;
                            }
                            Some(Token::Mark(',')) => self.at += 1,
                            Some(_) => self.use_tree(&path, line),
                            None => return,
                        }
                    }
                }
                // A macro's `$crate`, `$name`.
                Some(_) => self.at += 1,
                None => return,
            }
        }
    }

    fn bring_in(&mut self, name: &str, path: Vec<String>, line: usize) {
        let found = Found { place: self.place.clone(), path, line, is_use: true };
        if !matches!(name, "" | "_") {
            self.names.entry(name.to_owned()).or_default().push(found.clone());
        }
        self.found.push(found);
    }

    /// What the path as written stands for, following the names that the file brings in.
    fn resolve(&self, found: &Found, seen: &mut BTreeSet<String>) -> Vec<Mention> {
        let mention = |path: Vec<String>| vec![Mention { path, line: found.line }];
        let Some((first, rest)) = found.path.split_first() else { return Vec::new() };
        match first.as_str() {
            "crate" => mention(found.path.clone()),
            "" => mention(rest.to_vec()),
            "self" | "super" => {
                let mut place = found.place.clone();
                let mut rest = found.path.as_slice();
                while let Some((step, after)) =
                    rest.split_first().filter(|(step, _)| matches!(step.as_str(), "self" | "super"))
                {
                    if step == "super" {
                        place.pop();
                    }
                    rest = after;
                }
                mention([vec!["crate".to_owned()], place, rest.to_vec()].concat())
            }
            name => {
                let declared_here = self.modules.contains(name);
                let brought_in = self.names.get(name).filter(|_| seen.insert(name.to_owned()));
                let mut all = Vec::new();
                for source in brought_in.into_iter().flatten() {
                    // `use name::…` itself is not what brings `name` in.
                    if found.is_use && source.path == found.path {
                        continue;
                    }
                    let longer = Found { path: [source.path.clone(), rest.to_vec()].concat(), ..source.clone() };
                    let resolved = self.resolve(&longer, seen).into_iter();
                    all.extend(resolved.map(|resolved| Mention { line: found.line, ..resolved }));
                }
                seen.remove(name);
                if all.is_empty() && !declared_here {
                    all = mention(found.path.clone());
                }
                all
            }
        }
    }
}
