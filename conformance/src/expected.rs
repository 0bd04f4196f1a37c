//! Compares a vitest report with the committed list, test by test and by name.
//!
//! Five differences are red: a test expected to pass that fails, one expected to
//! fail that passes (the list is out of date), one that was skipped, one that
//! vanished from the suite, and one the list does not know. So the list can be
//! wrong in no direction, and a skip never looks like a pass.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Between the titles of a test's sections and its own.
const BETWEEN_TITLES: &str = " > ";
/// Lines of a failure's message worth printing.
const MESSAGE_LINES_MAX: usize = 2;

/// What the list says of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    Pass,
    Fail,
}

/// What a run says of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed {
        message: String,
    },
    /// Skipped, pending, todo or anything else that is not a verdict.
    NotRun {
        status: String,
    },
}

/// Tests by full name.
pub type List = BTreeMap<String, Expectation>;
pub type Report = BTreeMap<String, Outcome>;

/// Reads the committed list: `pass NAME` or `fail NAME` a line, `#` for remarks.
pub fn parse_list(text: &str) -> Result<List> {
    let mut list = List::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, name) = line.split_once(' ').context("a line is `pass NAME` or `fail NAME`")?;
        let expectation = match word {
            "pass" => Expectation::Pass,
            "fail" => Expectation::Fail,
            other => bail!("`{other}` is neither pass nor fail: {line}"),
        };
        let before = list.insert(name.to_owned(), expectation);
        ensure!(before.is_none(), "listed twice: {name}");
    }
    Ok(list)
}

/// Reads what vitest's JSON reporter wrote. A test file that broke before its
/// tests ran is an error with the reporter's message.
pub fn parse_report(json: &str) -> Result<Report> {
    let run: Value = serde_json::from_str(json).context("vitest writes JSON")?;
    let files = run["testResults"].as_array().context("a report has testResults")?;
    let mut report = Report::new();
    for file in files {
        let tests = file["assertionResults"].as_array().context("a file has assertionResults")?;
        let message = file["message"].as_str().unwrap_or_default();
        ensure!(!tests.is_empty(), "{} ran no test: {message}", file["name"]);
        for test in tests {
            let name = full_name(test)?;
            let before = report.insert(name.clone(), outcome(test)?);
            ensure!(before.is_none(), "two tests are named {name}");
        }
    }
    ensure!(!report.is_empty(), "vitest ran no test at all");
    Ok(report)
}

fn full_name(test: &Value) -> Result<String> {
    let sections = test["ancestorTitles"].as_array().context("a test has ancestorTitles")?;
    let titles = sections.iter().chain([&test["title"]]);
    let titles: Option<Vec<&str>> = titles.map(Value::as_str).collect();
    Ok(titles.context("titles are strings")?.join(BETWEEN_TITLES))
}

fn outcome(test: &Value) -> Result<Outcome> {
    let status = test["status"].as_str().context("a test has a status")?;
    Ok(match status {
        "passed" => Outcome::Passed,
        "failed" => {
            let text = test["failureMessages"][0].as_str().unwrap_or("no message");
            let lines: Vec<&str> = text.lines().take(MESSAGE_LINES_MAX).map(str::trim).collect();
            Outcome::Failed { message: lines.join(" | ") }
        }
        other => Outcome::NotRun { status: other.to_owned() },
    })
}

/// One reason to be red.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    Failed { name: String, message: String },
    PassedAgainstTheList { name: String },
    NotRun { name: String, status: String },
    Vanished { name: String },
    Unknown { name: String },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Failed { name, message } => write!(f, "failed: {name}\n    {message}"),
            Difference::PassedAgainstTheList { name } => {
                write!(f, "passed, but is listed as `fail`, list it as `pass`: {name}")
            }
            Difference::NotRun { name, status } => write!(f, "did not run ({status}): {name}"),
            Difference::Vanished { name } => write!(f, "listed, but not in the suite: {name}"),
            Difference::Unknown { name } => write!(f, "in the suite, but not listed: {name}"),
        }
    }
}

/// Every difference between the list and the run.
pub fn compare(list: &List, report: &Report) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (name, outcome) in report {
        let name = name.clone();
        let Some(expectation) = list.get(&name) else {
            differences.push(Difference::Unknown { name });
            continue;
        };
        match (expectation, outcome) {
            (Expectation::Pass, Outcome::Passed) => {}
            (Expectation::Fail, Outcome::Failed { .. }) => {}
            (Expectation::Fail, Outcome::Passed) => {
                differences.push(Difference::PassedAgainstTheList { name });
            }
            (Expectation::Pass, Outcome::Failed { message }) => {
                differences.push(Difference::Failed { name, message: message.clone() });
            }
            (_, Outcome::NotRun { status }) => {
                differences.push(Difference::NotRun { name, status: status.clone() });
            }
        }
    }
    let vanished = list.keys().filter(|name| !report.contains_key(*name)).cloned();
    differences.extend(vanished.map(|name| Difference::Vanished { name }));
    differences
}

/// Fails with every difference on a line of its own.
pub fn ensure_same(list: &List, report: &Report) -> Result<()> {
    let differences = compare(list, report);
    if differences.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = differences.iter().map(|each| format!("  {each}")).collect();
    bail!("{} of {} tests differ from the list:\n{}", lines.len(), list.len(), lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::{compare, parse_list, parse_report};

    const LIST: &str = "# remark\npass A > one\npass A > two\nfail B > three\n";

    fn test(title: &str, status: &str) -> String {
        let (section, title) = title.split_once(" > ").expect("a section and a title");
        let message = if status == "failed" { r#""expected 1\nto be 2""# } else { "" };
        format!(
            r#"{{"ancestorTitles":["{section}"],"title":"{title}","status":"{status}",
                "failureMessages":[{message}]}}"#
        )
    }

    fn check(tests: &[(&str, &str)], expect: &[&str]) {
        let tests: Vec<String> = tests.iter().map(|(name, status)| test(name, status)).collect();
        let json = format!(r#"{{"testResults":[{{"assertionResults":[{}]}}]}}"#, tests.join(","));
        let list = parse_list(LIST).expect("well formed");
        let report = parse_report(&json).expect("well formed");
        let found: Vec<String> = compare(&list, &report).iter().map(ToString::to_string).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_run_as_listed_is_green() {
        check(&[("A > one", "passed"), ("A > two", "passed"), ("B > three", "failed")], &[]);
    }

    #[test]
    fn every_kind_of_difference_is_red_and_named() {
        check(
            &[("A > one", "failed"), ("A > two", "passed"), ("B > three", "failed")],
            &["failed: A > one\n    expected 1 | to be 2"],
        );
        check(
            &[("A > one", "passed"), ("A > two", "skipped"), ("B > three", "pending")],
            &["did not run (skipped): A > two", "did not run (pending): B > three"],
        );
        check(
            &[("A > one", "passed"), ("A > two", "passed"), ("B > three", "passed")],
            &["passed, but is listed as `fail`, list it as `pass`: B > three"],
        );
        check(
            &[("A > one", "passed"), ("B > three", "failed"), ("C > new", "passed")],
            &["in the suite, but not listed: C > new", "listed, but not in the suite: A > two"],
        );
    }

    #[test]
    fn a_broken_list_or_report_is_an_error() {
        for text in ["pass\n", "maybe A > one\n", "pass A > one\nfail A > one\n"] {
            assert!(parse_list(text).is_err(), "{text}");
        }
        let broken = r#"{"testResults":[{"assertionResults":[],"message":"no such module"}]}"#;
        for json in ["", "{}", r#"{"testResults":[]}"#, broken] {
            assert!(parse_report(json).is_err(), "{json}");
        }
    }

    #[test]
    fn the_committed_list_holds_all_tests_of_the_pinned_suite() {
        let list = parse_list(include_str!("../expected.txt")).expect("well formed");
        assert_eq!(list.len(), 338);
    }
}
