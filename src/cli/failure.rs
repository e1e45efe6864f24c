//! How a command ends badly: an exit status, a sentence, its causes and what to do about it.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use super::screen::{Paint, Screen};

/// Exit status of what did not work.
const FAILED: u8 = 1;
/// Exit status of wrong usage or settings; clap uses the same.
const USAGE: u8 = 2;
/// Exit status when no node answers at the data directory.
const NO_NODE: u8 = 3;

/// Why a command did not do what it was asked to, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    status: u8,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// The command itself failed: exit status 1.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { status: FAILED, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// This failed, and what stands behind it: exit status 1.
    pub(super) fn of(error: &dyn Error) -> Self {
        let failure = Self::failed(error.to_string());
        match error.source() {
            Some(source) if !failure.message.contains(&source.to_string()) => failure.because(source),
            _ => failure,
        }
    }

    /// Wrong usage or settings: exit status 2.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { status: USAGE, ..Self::failed(message) }
    }

    /// Nothing answers at a data directory: exit status 3.
    pub(super) fn no_node(data_dir: &Path) -> Self {
        let dir = data_dir.display();
        Self { status: NO_NODE, ..Self::failed(format!("no node answers at {dir}")) }
            .hint(format!("start one with `runmesh node run --data-dir {dir}`, or name another one with --data-dir"))
    }

    /// Whoever read the output has gone, as `head` does: nothing to report, exit status 0.
    pub(super) fn reader_gone() -> Self {
        Self { status: 0, ..Self::failed("") }
    }

    /// What the person can do.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What it came from, with all that stands behind that.
    pub(super) fn because(mut self, cause: &dyn Error) -> Self {
        let mut next = Some(cause);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many errors repeat the text of what they wrap.
            if !self.causes.last().is_some_and(|last| last.contains(&text)) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// The exit status: 1, 2 or 3, and 0 when there is nothing to report.
    pub(super) const fn status(&self) -> u8 {
        self.status
    }

    /// The lines that go to standard error.
    pub(super) fn text(&self, screen: Screen) -> String {
        let fold = |said: &str, beside: usize| screen.folded(said, beside).join("\n  ");
        let mut text = format!("{} {}\n", screen.paint(Paint::Bad, "error:"), fold(&self.message, 7));
        for cause in &self.causes {
            let _ = writeln!(text, "  because: {}", fold(cause, 11));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "  {} {}", screen.paint(Paint::Strong, "hint:"), fold(hint, 8));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("reading the file")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn shows_causes_once_and_the_hint_last() {
        let cause = Outer(std::io::Error::other("disk is gone"));
        let failure = Failure::failed("cannot start").because(&cause).hint("buy a disk");
        let expected =
            "error: cannot start\n  because: reading the file\n  because: disk is gone\n  hint: buy a disk\n";
        assert_eq!(failure.text(Screen::PLAIN), expected);
        assert_eq!(failure.status(), 1);
    }

    #[test]
    fn a_missing_node_is_status_3_and_says_how_to_start_one() {
        let failure = Failure::no_node(Path::new("/srv/x"));
        assert_eq!(failure.status(), 3);
        assert!(failure.text(Screen::PLAIN).contains("runmesh node run --data-dir /srv/x"));
    }
}
