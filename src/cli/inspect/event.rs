//! One event as a line.

use super::super::screen::{Paint, Screen};
use crate::control::proto::Event;

/// The event's time of day in UTC, its kind and its sentence.
pub(super) fn line(screen: Screen, event: &Event) -> String {
    let paint = match event.kind.as_str() {
        "equivocation" | "missed" | "missed-events" | "peer-lost" | "refused" | "warning" => Paint::Warn,
        "ended" => match event.conclusion.as_deref() {
            Some("success") => Paint::Good,
            Some("failure" | "timed_out") => Paint::Bad,
            _ => Paint::Strong,
        },
        _ => Paint::Strong,
    };
    let time = screen.paint(Paint::Faint, &clock_time(event.time_ms));
    let kind = screen.paint(paint, &format!("{:<12}", event.kind));
    let beside = 9 + 2 + 12 + 2;
    let text = screen.folded(&event.text, beside).join(&format!("\n{}", " ".repeat(beside)));
    format!("{time}  {kind}  {text}\n")
}

/// The time of day in UTC of milliseconds since 1970, as `13:05:09Z`.
fn clock_time(ms: u64) -> String {
    let s = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}Z", s / 3600, s % 3600 / 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_time_the_kind_and_the_sentence() {
        let event = Event {
            time_ms: 86_400_000 * 20_000 + 47_109_500,
            kind: "held".into(),
            text: "b holds task 1".into(),
            ..Event::default()
        };
        assert_eq!(line(Screen::PLAIN, &event), "13:05:09Z  held          b holds task 1\n");
    }
}
