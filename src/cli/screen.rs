//! What a person sees: colours, tables, times and short names.
//!
//! Colours only where the stream is a terminal and `NO_COLOR` is not set (no-color.org); tables fit the terminal's
//! width and are never folded in a pipe, so that programs for lines of text keep working on them.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{Attribute, Color, ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

use super::failure::Failure;

/// What a stream can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Screen {
    colour: bool,
    /// Of the terminal, in columns; none in a pipe.
    width: Option<u16>,
}

/// What a piece of text means, and so how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Good,
    Bad,
    Warn,
    Strong,
    Faint,
    /// One of several actors that must be told apart, counted from 0.
    Actor(usize),
}

impl Screen {
    /// A pipe or file: no colour, no width.
    pub(super) const PLAIN: Self = Self { colour: false, width: None };

    /// What standard output can show.
    pub(super) fn stdout() -> Self {
        if std::io::stdout().is_terminal() { Self::terminal() } else { Self::PLAIN }
    }

    /// What standard error can show.
    pub(super) fn stderr() -> Self {
        if std::io::stderr().is_terminal() { Self::terminal() } else { Self::PLAIN }
    }

    fn terminal() -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour, width: Table::new().width().filter(|width| *width > 0) }
    }

    #[cfg(test)]
    pub(super) const fn of_width(width: u16) -> Self {
        Self { colour: false, width: Some(width) }
    }

    /// In columns; none in a pipe.
    pub(super) fn width(self) -> Option<usize> {
        self.width.map(usize::from)
    }

    /// Whether a person looks at it.
    pub(super) const fn is_terminal(self) -> bool {
        self.width.is_some()
    }

    /// Whether colours may be sent to it.
    pub(super) const fn has_colour(self) -> bool {
        self.colour
    }

    /// The text in the colour of what it means.
    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Good => "32",
            Paint::Bad => "1;31",
            Paint::Warn => "33",
            Paint::Strong => "1",
            Paint::Faint => "2",
            Paint::Actor(number) => ["1;36", "1;35", "1;34", "1;33"][number % 4],
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The text in lines that fit beside so many columns: broken between words, and not at all where no screen is. A
    /// word that is longer than a line stays whole, so that it can be copied.
    pub(super) fn folded(self, text: &str, beside: usize) -> Vec<String> {
        let room = self.width.map_or(usize::MAX, usize::from).saturating_sub(beside).max(20);
        let mut lines = vec![String::new()];
        let mut used = 0;
        for word in text.split_inclusive(' ') {
            let width = seen_width(word.trim_end());
            if used > 0 && used + width > room {
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                line.push_str(word);
            }
            used += seen_width(word);
        }
        lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
    }

    /// A table of which each row is one line, if it fits this screen.
    pub(super) fn unfolded<const N: usize>(self, columns: [&str; N], rows: Vec<[Cell; N]>) -> Option<String> {
        let whole = Self { width: None, ..self }.table(columns, rows, &[]);
        whole.lines().all(|line| self.width().is_none_or(|width| seen_width(line) <= width)).then_some(whole)
    }

    /// A table of these columns, without lines, fit to this screen. The columns named in `keep` never fold.
    pub(super) fn table<const N: usize>(self, columns: [&str; N], rows: Vec<[Cell; N]>, keep: &[&str]) -> String {
        if rows.is_empty() {
            return String::new();
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(columns.map(|name| Cell::painted(Paint::Faint, name).0));
        if self.colour {
            table.enforce_styling()
        } else {
            table.force_no_tty()
        };
        match self.width {
            Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        table.add_rows(rows.into_iter().map(|row| row.map(|cell| cell.0)));
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if index + 1 == N { 0 } else { 2 }));
            if keep.contains(&columns[index]) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// How many columns a text takes: its characters without those that only colour it.
fn seen_width(text: &str) -> usize {
    let mut parts = text.split('\x1b');
    let first = parts.next().map_or(0, |part| part.chars().count());
    first + parts.map(|part| part.split_once('m').map_or(0, |(_, rest)| rest.chars().count())).sum::<usize>()
}

/// Writes to standard output.
///
/// # Errors
/// When it cannot be written to; quietly when whoever read it has gone.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    say_bytes(text.as_bytes())
}

/// As [`say`], with bytes that may be no text.
pub(super) fn say_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::reader_gone(),
        _ => Failure::failed("cannot write to standard output").because(&error),
    })
}

/// One value in JSON on standard output: over several lines for whoever looks once, on one line in a series.
///
/// # Errors
/// As [`say`].
pub(super) fn say_json(value: &impl Serialize, series: bool) -> Result<(), Failure> {
    let text = if series { serde_json::to_string(value) } else { serde_json::to_string_pretty(value) };
    let text = text.map_err(|error| Failure::failed("cannot write the answer as JSON").because(&error))?;
    say(&format!("{text}\n"))
}

/// Facts one below the other, their names in a column; a value of several lines stays in its column.
pub(super) fn facts(screen: Screen, facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        for (number, line) in value.lines().flat_map(|line| screen.folded(line, width + 2)).enumerate() {
            let name = match number {
                0 => screen.paint(Paint::Faint, &format!("{name:<width$}")),
                _ => " ".repeat(width),
            };
            text.push_str(format!("{name}  {line}").trim_end());
            text.push('\n');
        }
    }
    text
}

/// One field of a table.
#[derive(Clone)]
pub(super) struct Cell(comfy_table::Cell);

impl Cell {
    /// Text in the colour of what it means.
    pub(super) fn painted(paint: Paint, text: impl ToString) -> Self {
        let cell = comfy_table::Cell::new(text);
        Self(match paint {
            Paint::Good => cell.fg(Color::Green),
            Paint::Bad => cell.fg(Color::Red),
            Paint::Warn => cell.fg(Color::Yellow),
            Paint::Strong => cell.add_attribute(Attribute::Bold),
            Paint::Faint => cell.add_attribute(Attribute::Dim),
            Paint::Actor(number) => cell
                .fg([Color::Cyan, Color::Magenta, Color::Blue, Color::Yellow][number % 4])
                .add_attribute(Attribute::Bold),
        })
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(comfy_table::Cell::new(text))
    }
}

/// The colour of a conclusion or of a task's state.
pub(super) fn paint_of(word: &str) -> Paint {
    match word {
        "success" => Paint::Good,
        "failure" | "timed_out" | "lost" => Paint::Bad,
        "running" | "claimed" => Paint::Strong,
        "pending" => Paint::Warn,
        _ => Paint::Faint,
    }
}

/// The last six characters of a peer's name.
pub(super) fn short_peer(peer: &str) -> &str {
    tail(peer, 6)
}

/// The first eight digits of a task's id.
pub(super) fn short_task(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// The last eight characters of an entry's id.
pub(super) fn short_entry(cid: &str) -> &str {
    tail(cid, 8)
}

/// The first twelve digits of a long hexadecimal number.
pub(super) fn short_hash(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

fn tail(text: &str, length: usize) -> &str {
    text.len().checked_sub(length).and_then(|start| text.get(start..)).unwrap_or(text)
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How long something took or has lasted: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub(super) fn span(ms: u64) -> String {
    let s = ms / 1000;
    let pair = |large: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {part}"),
    };
    match s {
        0..10 => format!("{}.{} s", s, ms % 1000 / 100),
        10..60 => format!("{s} s"),
        60..3600 => pair(s / 60, "min", s % 60, "s"),
        3600..86_400 => pair(s / 3600, "h", s % 3600 / 60, "min"),
        _ => pair(s / 86_400, "d", s % 86_400 / 3600, "h"),
    }
}

/// How long ago something was, in one unit: `now`, `5 s ago`, `3 min ago`.
pub(super) fn ago(ms: u64) -> String {
    match ms / 1000 {
        0 => "now".to_owned(),
        s @ 1..60 => format!("{s} s ago"),
        s @ 60..3600 => format!("{} min ago", s / 60),
        s @ 3600..86_400 => format!("{} h ago", s / 3600),
        s => format!("{} d ago", s / 86_400),
    }
}

/// A number and its word, in the plural where that is right.
pub(super) fn count(number: impl TryInto<u64>, word: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {word}"),
        number => format!("{number} {word}s"),
    }
}

/// A repository and the file's own name: `.github/workflows/` says nothing to a person.
pub(super) fn workflow(repository: &str, path: &str) -> String {
    format!("{repository}/{}", path.strip_prefix(".github/workflows/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_say_them() {
        assert_eq!(span(449), "0.4 s");
        assert_eq!(span(12_000), "12 s");
        assert_eq!(span(185_000), "3 min 5 s");
        assert_eq!(span(7_200_000), "2 h");
        assert_eq!(span(97 * 3_600_000), "4 d 1 h");
        assert_eq!(ago(900), "now");
        assert_eq!(ago(61_000), "1 min ago");
        assert_eq!(count(1_usize, "task"), "1 task");
        assert_eq!(count(0_u32, "task"), "0 tasks");
    }

    #[test]
    fn names_are_cut_where_all_of_them_differ() {
        assert_eq!(short_peer("12D3KooWabcdef"), "abcdef");
        assert_eq!(short_peer("x"), "x");
        assert_eq!(short_task("0123456789"), "01234567");
        assert_eq!(workflow("api", ".github/workflows/ci.yml"), "api/ci.yml");
        assert_eq!(workflow("api", "ci.yml"), "api/ci.yml");
    }

    #[test]
    fn a_table_in_a_pipe_is_one_line_a_row_without_colours() {
        let long = "word ".repeat(60).trim().to_owned();
        let rows = vec![[Cell::painted(Paint::Good, 1), Cell::from(&long)]];
        assert_eq!(Screen::PLAIN.table(["id", "note"], rows, &[]), format!("id  note\n1   {long}\n"));
        assert_eq!(Screen::PLAIN.table(["id"], vec![], &[]), "");
    }

    #[test]
    fn a_table_on_a_terminal_folds_only_what_may_fold() {
        let screen = Screen { colour: false, width: Some(40) };
        let rows = vec![[Cell::from("0123456789abcdef"), Cell::from("some words ".repeat(8))]];
        let text = screen.table(["id", "note"], rows, &["id"]);
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.contains("0123456789abcdef"), "{text}");
        assert!(text.lines().count() > 3, "{text}");
    }

    #[test]
    fn facts_fold_between_words_and_leave_long_words_whole() {
        let screen = Screen { colour: true, width: Some(30) };
        let address = "/ip4/127.0.0.1/tcp/4477/p2p/12D3KooW";
        let warning = screen.paint(Paint::Warn, "a word that is not short at all");
        let text = facts(screen, &[("at", address.to_owned()), ("note", warning)]);
        let seen: Vec<usize> = text.lines().map(seen_width).collect();
        assert_eq!(seen, [6 + address.len(), 30, 12], "{text}");
        assert_eq!(facts(Screen::PLAIN, &[("a", "b ".repeat(99))]).lines().count(), 1);
    }

    #[test]
    fn colours_are_sent_only_where_they_are_wanted() {
        let screen = Screen { colour: true, width: Some(40) };
        let row = || vec![[Cell::painted(Paint::Bad, "failure")]];
        assert!(screen.table(["state"], row(), &[]).contains("\x1b["));
        assert!(!Screen::PLAIN.table(["state"], row(), &[]).contains('\x1b'));
        assert_eq!(Screen::PLAIN.paint(Paint::Bad, "failure"), "failure");
        assert_eq!(screen.paint(Paint::Good, "ok"), "\x1b[32mok\x1b[0m");
    }
}
