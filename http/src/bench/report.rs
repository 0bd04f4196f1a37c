//! What a run came to, for people and for programs.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Map, Value, json};
use weir_io::os::usage::Usage;

use super::{
    measure::{Span, Tally, round},
    verify::{Kind, Verdict, Violation, Violations},
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
            "cpu_seconds": seconds(self.generator),
            "cores": cores(self.generator),
            "cpu_us_per_request": each(self.generator),
        });
        let server = self.server.map(|server| {
            json!({
                "cpu_seconds": seconds(server.cpu),
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

/// To a thousandth.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

/// How a report of JSON is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Line,
    Indented,
}

/// What a run came to.
pub(super) struct Report {
    fields: Map<String, Value>,
    /// What is wrong, in words.
    problems: Vec<String>,
    /// What else is to be known, in words.
    notes: Vec<String>,
    interrupted: bool,
    /// What came of reading back, if that was done.
    verdict: Option<Verdict>,
    /// Why nobody knows whether everything is there.
    unverified: Option<String>,
}

impl Report {
    /// A report of a command with these settings.
    pub(super) fn new(command: &str, target: &str, settings: Value) -> Self {
        let mut fields = Map::new();
        fields.insert("command".into(), command.into());
        fields.insert("target".into(), target.into());
        fields.insert("settings".into(), settings);
        Self {
            fields,
            problems: Vec::new(),
            notes: Vec::new(),
            interrupted: false,
            verdict: None,
            unverified: None,
        }
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

    /// What was read, and what is wrong with it.
    pub(super) fn verified(&mut self, verdict: Verdict) {
        self.verdict.get_or_insert_default().add(verdict);
    }

    /// Says what is wrong, if something is, now that all is read; `name` says how a stream is
    /// called.
    pub(super) fn judge(&mut self, name: impl Fn(usize) -> String) {
        let Some(verdict) = &self.verdict else { return };
        let Verdict { records, counts, found } = verdict.clone();
        let Violations { lost, repeated, out_of_order, foreign, damaged, changed } = counts;
        let value = json!({
            "records": records,
            "lost": lost,
            "repeated": repeated,
            "out_of_order": out_of_order,
            "foreign": foreign,
            "damaged": damaged,
            "changed": changed,
        });
        self.put("verified", value);
        self.put("violations", found.iter().map(|it| violation(it, &name)).collect());
        let kinds = [
            (lost, "lost"),
            (repeated, "repeated"),
            (out_of_order, "out of order"),
            (foreign, "written by nobody"),
            (damaged, "with other bytes than were sent"),
        ];
        let wrong: Vec<String> = kinds
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if !wrong.is_empty() {
            let mut what = format!("of the records read {}", wrong.join(", "));
            let first = found.iter().find(|it| it.kind != Kind::Changed);
            if let Some(Violation { kind, stream, offset, record, .. }) = first {
                let (kind, stream) = (kind.name(), name(*stream));
                let record = record.map_or_else(
                    || "something that is no record of a bench".to_owned(),
                    |(writer, number)| format!("number {number} of writer {writer}"),
                );
                what.push_str(&format!("; the first: {record} in {stream} at {offset}, {kind}"));
            }
            self.problem(what);
        }
        if changed > 0 {
            let mut what = format!("{changed} whole reads did not hold what one before had held");
            let first = found.iter().find(|it| it.kind == Kind::Changed);
            if let Some(Violation { stream, offset, bytes: Some((before, now)), .. }) = first {
                let stream = name(*stream);
                what.push_str(&format!(
                    "; the first: {stream} up to {offset}, {now} bytes and {before} before"
                ));
            }
            self.problem(what);
        }
    }

    /// Whether what was read is not what was written.
    pub(super) fn has_violations(&self) -> bool {
        self.verdict.as_ref().is_some_and(|it| it.counts.any())
    }

    /// Nobody could be asked whether everything is there.
    pub(super) fn not_verified(&mut self, why: String) {
        self.put("not_verified", why.clone().into());
        self.note(format!("not verified: {why}"));
        self.unverified = Some(why);
    }

    pub(super) const fn is_unverified(&self) -> bool {
        self.unverified.is_some()
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

    /// Notes something that is no problem.
    pub(super) fn note(&mut self, what: String) {
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

    /// One line, or indented for people.
    pub(super) fn to_json(&self, layout: Layout) -> String {
        let mut fields = self.fields.clone();
        fields.insert("notes".into(), json!(self.notes));
        fields.insert("problems".into(), json!(self.problems));
        let text = match layout {
            Layout::Line => serde_json::to_string(&fields),
            Layout::Indented => serde_json::to_string_pretty(&fields),
        };
        let mut text = text.expect("values are values");
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

fn violation(violation: &Violation, name: impl Fn(usize) -> String) -> Value {
    let Violation { kind, stream, record, offset, bytes } = violation;
    let mut value = json!({ "stream": name(*stream), "kind": kind.name(), "offset": offset });
    if let Some((writer, number)) = record {
        value["writer"] = (*writer).into();
        value["number"] = (*number).into();
    }
    if let Some((before, now)) = bytes {
        value["bytes_before"] = (*before).into();
        value["bytes"] = (*now).into();
    }
    value
}

fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let row = match value {
        Value::Null => return,
        Value::Array(_) => return,
        Value::Object(fields) if name.ends_with("_us") => times(fields),
        Value::Object(fields) if name == "settings" => words(fields),
        Value::Object(fields) if name == "verified" => counts(fields),
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

/// What was counted; kinds of which there is nothing are not told.
fn counts(fields: &Map<String, Value>) -> String {
    let there = |(name, count): &(&String, &Value)| *name == "records" || **count != 0;
    let counted = fields.iter().filter(there).map(|(name, count)| format!("{name}={count}"));
    counted.collect::<Vec<_>>().join(" ")
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
        let json: Value = serde_json::from_str(&report.to_json(Layout::Line)).expect("JSON");
        assert_eq!(json["interrupted_after_seconds"], 3.5);
        assert!(json["notes"][0].as_str().is_some_and(|it| it.contains("interrupted after 3.5 s")));
        assert!(!report.to_text().contains("PROBLEM"), "{}", report.to_text());
    }

    #[test]
    fn problems_stand_in_both_forms() {
        let mut report = Report::new("append", "http://a", json!({"connections": 4, "rate": null}));
        let span = Span::new(Duration::ZERO..Duration::from_secs(1));
        report.put_phase("append", &Tally::new(&span, Content::Records));
        let mut verdict = Verdict::default();
        verdict.changed(2, "0_9", (100, 90));
        report.verified(verdict);
        let counts = Violations { lost: 1, ..Violations::default() };
        let offset = "0_7".to_owned();
        let (kind, record) = (Kind::Lost, Some((4, 5)));
        let found = vec![Violation { kind, stream: 1, record, offset, bytes: None }];
        report.verified(Verdict { records: 7, counts, found });
        report.judge(|stream| format!("s{stream}"));
        assert!(report.has_violations() && report.problems().len() == 2);
        let line = report.to_json(Layout::Line);
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(report.to_json(Layout::Indented).lines().count() > 10);
        let json: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            json["violations"],
            json!([
                { "stream": "s2", "kind": "changed", "offset": "0_9", "bytes_before": 100, "bytes": 90 },
                { "stream": "s1", "kind": "lost", "offset": "0_7", "writer": 4, "number": 5 },
            ])
        );
        assert_eq!(
            (&json["verified"]["lost"], &json["append"]["requests"]),
            (&json!(1), &json!(0))
        );
        let text = report.to_text();
        let lost =
            "PROBLEM  of the records read 1 lost; the first: number 5 of writer 4 in s1 at 0_7";
        assert!(text.contains(lost) && !text.contains("repeated"), "{text}");
        assert!(text.contains("s2 up to 0_9, 90 bytes and 100 before"), "{text}");
        assert!(text.contains("records=7 lost=1 changed=1") || text.contains("lost=1"), "{text}");
        assert!(text.contains("settings") && text.contains("connections=4"), "{text}");
        let counts = Violations { foreign: 1, ..Violations::default() };
        let (kind, record, offset) = (Kind::Foreign, None, "0_7".to_owned());
        let found = vec![Violation { kind, stream: 1, record, offset, bytes: None }];
        let mut report = Report::new("append", "http://a", json!({}));
        report.verified(Verdict { records: 7, counts, found });
        report.judge(|stream| format!("s{stream}"));
        let text = report.to_text();
        let foreign = "1 written by nobody; the first: something that is no record of a bench in s1 \
                       at 0_7, foreign";
        assert!(text.contains(foreign), "{text}");
    }
}
