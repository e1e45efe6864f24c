//! What is shown: a table for people, target/bench.json for programs.

use std::path::PathBuf;

use comfy_table::{CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};
use serde_json::{Value, json};

use super::Outcome;
use super::measure::Beside;

/// What DESIGN.md section 10 asks of a number.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Measured to be known.
    None,
}

/// One number beside one rival. A number with several rivals has several rows of one name.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) ours: f64,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
    /// `None` where it cannot run here; its name then says why.
    pub(crate) rival: Option<f64>,
    pub(crate) rival_name: String,
    /// Ours divided by the rival's, as measured together.
    pub(crate) ratio: Option<f64>,
}

impl Row {
    /// A number with the rivals that were measured with it.
    pub(crate) fn beside(name: &str, unit: &'static str, goal: Goal, ours: f64, rivals: &[Beside]) -> Vec<Self> {
        let row = |rival: &Beside| Self {
            rival: Some(rival.rate),
            rival_name: rival.name.to_owned(),
            ratio: Some(rival.ratio),
            ..Self::alone(name, unit, goal, ours)
        };
        rivals.iter().map(row).collect()
    }

    pub(crate) fn alone(name: &str, unit: &'static str, goal: Goal, ours: f64) -> Self {
        Self { name: name.to_owned(), ours, unit, goal, rival: None, rival_name: String::new(), ratio: None }
    }

    /// The same with a rival's number of this run.
    pub(crate) fn against(self, rival_name: &str, rival: f64) -> Self {
        let ratio = (rival != 0.0).then(|| self.ours / rival);
        Self { rival: Some(rival), rival_name: rival_name.to_owned(), ratio, ..self }
    }

    /// The same where the rival did not run, with the reason.
    pub(crate) fn without(self, rival_name: &str) -> Self {
        Self { rival_name: rival_name.to_owned(), ..self }
    }

    fn is_met(&self) -> Option<bool> {
        match self.goal {
            Goal::AtLeast(goal) => Some(self.ours >= goal),
            Goal::AtMost(goal) => Some(self.ours <= goal),
            Goal::None => None,
        }
    }

    fn json(&self) -> Value {
        let goal = match self.goal {
            Goal::AtLeast(goal) | Goal::AtMost(goal) => Some(goal),
            Goal::None => None,
        };
        json!({
            "name": self.name, "ours": self.ours, "unit": self.unit, "goal": goal,
            "rival": self.rival, "rival_name": self.rival_name, "ratio": self.ratio,
        })
    }
}

pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["name", "ours", "unit", "goal", "met", "rival", "rival's name", "ours / rival"]);
    for row in rows {
        let goal = match row.goal {
            Goal::AtLeast(goal) => format!("≥ {}", number(goal)),
            Goal::AtMost(goal) => format!("≤ {}", number(goal)),
            Goal::None => String::new(),
        };
        let met = row.is_met().map_or("", |met| if met { "yes" } else { "NO" });
        table.add_row([
            row.name.clone(),
            number(row.ours),
            row.unit.to_owned(),
            goal,
            met.to_owned(),
            row.rival.map_or_else(String::new, number),
            row.rival_name.clone(),
            row.ratio.map_or_else(String::new, number),
        ]);
    }
    for column in [1, 3, 5, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Writes target/bench.json. What an earlier run measured and this one did not stays.
pub(crate) fn write(rows: &[Row]) -> Outcome<()> {
    let folder = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target")), PathBuf::from);
    let path = folder.join("bench.json");
    let before = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Vec<Value>>(&bytes).ok());
    let is_new = |old: &Value| rows.iter().any(|row| old["name"] == row.name.as_str());
    let mut all: Vec<Value> = before.unwrap_or_default().into_iter().filter(|old| !is_new(old)).collect();
    all.extend(rows.iter().map(Row::json));
    std::fs::write(&path, serde_json::to_vec_pretty(&all)?)?;
    Ok(())
}

/// A number for people: three digits that mean something, thousands apart.
fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 10.0 {
        let text = format!("{value:.3}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}").trim_end_matches(".0").to_owned();
    }
    let digits = format!("{:.0}", value.abs());
    let grouped: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped.join(","))
}
