//! What a run came to, for people and for programs.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Map, Value, json};
use weir_io::os::usage::Usage;

use super::{
    measure::{Span, Tally, round},
    verify::Violations,
};

/// What was used while a run was measured.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Costs {
    /// Processor time of the generator.
    generator: Duration,
    server: Option<ServerCosts>,
}

/// The same of the server, if its process is known.
#[derive(Clone, Copy, Debug)]
struct ServerCosts {
    cpu: Duration,
    resident_bytes: u64,
    resident_bytes_max: u64,
    written_bytes: u64,
}

impl Costs {
    pub(super) fn between(
        (own_before, before): (Duration, Option<Usage>),
        (own_after, after): (Duration, Option<Usage>),
    ) -> Self {
        let server = before.zip(after).map(|(before, after)| ServerCosts {
            cpu: after.cpu.saturating_sub(before.cpu),
            resident_bytes: after.resident_bytes,
            resident_bytes_max: after.resident_bytes_max,
            written_bytes: after.written_bytes.saturating_sub(before.written_bytes),
        });
        Self { generator: own_after.saturating_sub(own_before), server }
    }

    fn to_json(self, span: f64, requests: u64) -> (Value, Value) {
        // Interrupted before the measured time began, a run has no rates.
        let cores = |cpu: Duration| match span > 0.0 {
            true => (cpu.as_secs_f64() / span * 100.0).round() / 100.0,
            false => 0.0,
        };
        #[expect(clippy::cast_precision_loss, reason = "a count of seconds' work fits 53 bits")]
        let each = |cpu: Duration| round(cpu.as_secs_f64() * 1e6 / requests.max(1) as f64);
        let generator = json!({
            "cpu_seconds": self.generator.as_secs_f64(),
            "cores": cores(self.generator),
            "cpu_us_per_request": each(self.generator),
        });
        let server = self.server.map(|server| {
            json!({
                "cpu_seconds": server.cpu.as_secs_f64(),
                "cores": cores(server.cpu),
                "cpu_us_per_request": each(server.cpu),
                "resident_bytes": server.resident_bytes,
                "resident_bytes_max": server.resident_bytes_max,
                "written_bytes": server.written_bytes,
            })
        });
        (generator, server.unwrap_or(Value::Null))
    }
}

/// What a run came to.
pub(super) struct Report {
    fields: Map<String, Value>,
    /// What is wrong, in words.
    problems: Vec<String>,
    /// What else is to be known, in words.
    notes: Vec<String>,
    interrupted: bool,
}

impl Report {
    /// A report of a command with these settings.
    pub(super) fn new(command: &str, target: &str, settings: Value) -> Self {
        let mut fields = Map::new();
        fields.insert("command".into(), command.into());
        fields.insert("target".into(), target.into());
        fields.insert("settings".into(), settings);
        Self { fields, problems: Vec::new(), notes: Vec::new(), interrupted: false }
    }

    pub(super) fn put(&mut self, name: &str, value: Value) {
        self.fields.insert(name.to_owned(), value);
    }

    /// A phase: what was counted, and what that cost.
    pub(super) fn put_phase(&mut self, name: &str, tally: &Tally) {
        self.put(name, tally.to_json());
    }

    pub(super) fn put_costs(&mut self, costs: Costs, span: f64, requests: u64) {
        let (generator, server) = costs.to_json(span, requests);
        self.put("generator", generator);
        self.put("server", server);
    }

    /// What was read back.
    pub(super) fn put_verified(&mut self, records: u64, violations: Violations) {
        let Violations { lost, repeated, out_of_order, foreign, damaged } = violations;
        let value = json!({
            "records": records,
            "lost": lost,
            "repeated": repeated,
            "out_of_order": out_of_order,
            "foreign": foreign,
            "damaged": damaged,
        });
        self.put("verified", value);
        if violations.any() {
            self.problem(format!(
                "of the records read {lost} were lost, {repeated} repeated, {out_of_order} out of \
                 order, {foreign} written by nobody, and {damaged} had other bytes than were sent"
            ));
        }
    }

    /// Notes that a run was ended early, if it was, and when.
    pub(super) fn put_interrupted(&mut self, span: &Span) {
        if span.was_stopped() {
            let seconds = round(span.length().as_secs_f64());
            self.put("interrupted_after_seconds", json!(seconds));
            self.interrupt(format!("interrupted after {seconds} s: the figures are of that time"));
        }
    }

    /// Notes what somebody has ended early.
    pub(super) fn interrupt(&mut self, what: String) {
        self.interrupted = true;
        self.notes.push(what);
    }

    pub(super) const fn was_interrupted(&self) -> bool {
        self.interrupted
    }

    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(super) fn problem(&mut self, what: String) {
        self.problems.push(what);
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    pub(super) fn to_json(&self) -> String {
        let mut fields = self.fields.clone();
        fields.insert("notes".into(), json!(self.notes));
        fields.insert("problems".into(), json!(self.problems));
        let mut text = serde_json::to_string_pretty(&fields).expect("values are values");
        text.push('\n');
        text
    }

    /// A table of two columns, one part under the other.
    pub(super) fn to_text(&self) -> String {
        let mut rows = Vec::new();
        for (name, value) in &self.fields {
            flatten(name, value, &mut rows);
        }
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in rows {
            writeln!(text, "{name:width$}  {value}").expect("a string takes it");
        }
        for problem in &self.problems {
            writeln!(text, "PROBLEM  {problem}").expect("a string takes it");
        }
        text
    }
}

fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let row = match value {
        Value::Null => return,
        Value::Array(_) => return,
        Value::Object(fields) if name.ends_with("_us") => times(fields),
        Value::Object(fields) if name == "settings" || name == "verified" => words(fields),
        Value::Object(fields) => {
            for (field, value) in fields {
                flatten(&format!("{name}.{field}"), value, rows);
            }
            return;
        }
        Value::Number(number) => grouped(number.as_f64().unwrap_or(0.0)),
        Value::String(text) => text.clone(),
        Value::Bool(it) => it.to_string(),
    };
    rows.push((name.to_owned(), row));
}

/// The times of a histogram in one line.
fn times(fields: &Map<String, Value>) -> String {
    let part = |name: &str| format!("{name} {}", grouped(fields[name].as_f64().unwrap_or(0.0)));
    ["p50", "p90", "p99", "p999", "max", "mean"].map(part).join("  ")
}

fn words(fields: &Map<String, Value>) -> String {
    let word = |(name, value): (&String, &Value)| match value {
        Value::Null => None,
        Value::String(text) => Some(format!("{name}={text}")),
        other => Some(format!("{name}={other}")),
    };
    fields.iter().filter_map(word).collect::<Vec<_>>().join(" ")
}

/// A number with its thousands apart.
fn grouped(number: f64) -> String {
    let text = if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.1}") };
    let (whole, fraction) =
        text.split_once('.').map_or((text.as_str(), None), |(whole, part)| (whole, Some(part)));
    let mut digits = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            digits.push(',');
        }
        digits.push(digit);
    }
    match fraction {
        Some(fraction) => format!("{digits}.{fraction}"),
        None => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::Content;

    #[test]
    fn numbers_are_grouped() {
        for (number, expect) in
            [(0.0, "0"), (999.0, "999"), (1_000.0, "1,000"), (1_234_567.25, "1,234,567.2")]
        {
            assert_eq!(grouped(number), expect);
        }
    }

    #[test]
    fn an_interruption_is_a_note_with_its_time_and_no_problem() {
        let mut report = Report::new("append", "http://a", json!({}));
        let span = Span::new(Duration::from_secs(2)..Duration::from_secs(600));
        report.put_interrupted(&span);
        assert!(!report.was_interrupted());
        span.stop(Duration::from_millis(5_500));
        report.put_interrupted(&span);
        assert!(report.was_interrupted() && report.problems().is_empty());
        let json: Value = serde_json::from_str(&report.to_json()).expect("JSON");
        assert_eq!(json["interrupted_after_seconds"], 3.5);
        assert!(json["notes"][0].as_str().is_some_and(|it| it.contains("interrupted after 3.5 s")));
        assert!(!report.to_text().contains("PROBLEM"), "{}", report.to_text());
    }

    #[test]
    fn problems_stand_in_both_forms() {
        let mut report = Report::new("append", "http://a", json!({"connections": 4, "rate": null}));
        let span = Span::new(Duration::ZERO..Duration::from_secs(1));
        report.put_phase("append", &Tally::new(&span, Content::Records));
        report.put_verified(7, Violations { lost: 1, ..Violations::default() });
        assert_eq!(report.problems().len(), 1);
        let json: Value = serde_json::from_str(&report.to_json()).expect("JSON");
        assert_eq!(
            (&json["verified"]["lost"], &json["append"]["requests"]),
            (&json!(1), &json!(0))
        );
        let text = report.to_text();
        assert!(text.contains("PROBLEM  of the records read 1 were lost"), "{text}");
        assert!(text.contains("settings") && text.contains("connections=4"), "{text}");
    }
}
