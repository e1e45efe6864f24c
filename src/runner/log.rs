//! The log of one task: lines that a person can read, within a size.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::fs::{DirBuilder, File, OpenOptions};
use tokio::io::{AsyncWriteExt as _, BufWriter};

use super::Secret;

/// How long a line may wait before somebody who follows the log can see it.
pub(crate) const FLUSH: Duration = Duration::from_millis(200);
/// The most bytes of one line.
const LINE: usize = 16 * 1024;

pub(crate) struct Log {
    /// `None` once it could not be written, which must not end the task.
    file: Option<BufWriter<File>>,
    room: u64,
    cap: u64,
    dirty: bool,
    /// What nobody may read in it, the longest first.
    masked: Vec<Secret>,
}

impl Log {
    /// Starts it anew, readable by its owner only, with the directories above it.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) async fn create(path: &Path, cap: u64) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).await?;
        }
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).await?;
        Ok(Self {
            file: Some(BufWriter::with_capacity(64 * 1024, file)),
            room: cap,
            cap,
            dirty: false,
            masked: Vec::new(),
        })
    }

    /// From now on shows `***` for these, and for each of their lines, unless it is shorter than three bytes.
    pub(crate) fn mask<'a>(&mut self, secrets: impl Iterator<Item = &'a Secret>) {
        let lines = |secret: &'a Secret| secret.expose().lines().map(str::trim).chain([secret.expose()]);
        let long = secrets.flat_map(lines).filter(|line| line.len() >= 3);
        self.masked.extend(long.map(|line| Secret::new(line.to_owned())));
        self.masked.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
    }

    /// The text without its secrets.
    pub(crate) fn masked(&self, text: &str) -> String {
        self.masked.iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose(), "***"))
    }

    /// Adds a line, as long as there is room; where it ends, a line says so once.
    pub(crate) async fn line(&mut self, text: &str) {
        let text = printable(&self.masked(text));
        let needed = text.len() as u64 + 1;
        if needed <= self.room {
            self.room -= needed;
            self.write(&text).await;
        } else if self.room > 0 {
            self.room = 0;
            let cap = self.cap;
            self.write(&format!("runmesh: the log is cut here, it reached its limit of {cap} bytes")).await;
        }
    }

    /// Adds a line of the node's own, which has room always.
    pub(crate) async fn note(&mut self, text: &str) {
        self.write(&format!("runmesh: {}", printable(&self.masked(text)))).await;
    }

    /// Whether lines wait for [`Self::flush`].
    pub(crate) const fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub(crate) async fn flush(&mut self) {
        self.dirty = false;
        if let Some(file) = &mut self.file {
            let done = file.flush().await;
            self.check(done);
        }
    }

    async fn write(&mut self, text: &str) {
        let Some(file) = &mut self.file else { return };
        self.dirty = true;
        let done = async {
            file.write_all(text.as_bytes()).await?;
            file.write_all(b"\n").await
        };
        let done = done.await;
        self.check(done);
    }

    fn check(&mut self, done: io::Result<()>) {
        if let Err(error) = done {
            tracing::warn!(%error, "writing a task's log: the rest of it is lost");
            self.file = None;
            self.dirty = false;
        }
    }
}

/// The text in one line without what could play tricks on a terminal: of control characters only tabs and the
/// sequences that set colours stay.
fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE));
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if line.len() >= LINE {
            line.push_str("\u{1b}[0m … (line cut)");
            break;
        }
        if next == '\u{1b}' {
            let end = rest[1..].strip_prefix('[').map(|codes| {
                codes.len() - codes.trim_start_matches(|code: char| code.is_ascii_digit() || code == ';').len() + 2
            });
            if let Some(end) = end.filter(|end| *end < 32 && rest[*end..].starts_with('m')) {
                line.push_str(&rest[..=end]);
                rest = &rest[end + 1..];
                continue;
            }
        } else if next == '\n' {
            line.push_str(" ⏎ ");
        } else if next == '\r' {
            // A progress bar that paints over itself.
            line.push(' ');
        } else if !next.is_control() || next == '\t' {
            line.push(next);
        }
        rest = &rest[next.len_utf8()..];
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[tokio::test]
    async fn a_log_stops_at_its_cap_says_so_once_and_still_takes_notes() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("logs/task.log");
        let mut log = Log::create(&path, 25).await.unwrap();
        for number in 0..5 {
            log.line(&format!("line {number} ...")).await;
        }
        log.note("the end").await;
        log.flush().await;
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[..2], ["line 0 ...", "line 1 ..."]);
        assert!(lines[2].contains("limit of 25 bytes"));
        assert_eq!(lines[3], "runmesh: the end");
    }

    #[test]
    fn colours_stay_and_other_controls_go() {
        assert_eq!(printable("\u{1b}[1;31mred\u{1b}[0m\ttab"), "\u{1b}[1;31mred\u{1b}[0m\ttab");
        assert_eq!(printable("\u{1b}]0;title\u{7}x\u{1b}[2Jy\rz\n"), "]0;titlex[2Jy z ⏎ ");
    }

    proptest! {
        #[test]
        fn nothing_but_colours_reaches_a_terminal(text in ".{0,200}") {
            let line = printable(&text);
            let controls = line.chars().filter(|next| next.is_control() && *next != '\t' && *next != '\u{1b}').count();
            prop_assert_eq!(controls, 0);
            for part in line.split('\u{1b}').skip(1) {
                let codes = part.strip_prefix('[').and_then(|part| part.split_once('m'));
                prop_assert!(codes.is_some_and(|(codes, _)| codes.chars().all(|code| code.is_ascii_digit() || code == ';')));
            }
        }
    }
}
