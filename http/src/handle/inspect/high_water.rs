//! The highest figures that anybody was told of, with the time when.
//!
//! Nothing is sampled between two looks: a peak that nobody saw is no part of it, but for the size of
//! the process, whose highest value the system keeps.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use weir_engine::types::WallMs;

use crate::wire::date;

/// By path. Their number is that of the fields of a document.
#[derive(Debug, Default)]
pub(crate) struct HighWater(BTreeMap<String, (u64, WallMs)>);

impl HighWater {
    /// Takes the figures of a group in and says what was highest: `{value, at}` instead of each
    /// number, nothing instead of what is none.
    pub(super) fn note(&mut self, group: &str, figures: &Value, now: WallMs) -> Value {
        let Value::Object(fields) = figures else { return json!({}) };
        let mut highest = Map::new();
        for (field, figure) in fields {
            let path = format!("{group}.{field}");
            if figure.is_object() {
                highest.insert(field.clone(), self.note(&path, figure, now));
            } else if let Some(value) = figure.as_u64() {
                let (most, at) = self.0.entry(path).or_insert((value, now));
                if value > *most {
                    (*most, *at) = (value, now);
                }
                let leaf = json!({ "value": *most, "at": date::rfc3339(*at) });
                highest.insert(field.clone(), leaf);
            }
        }
        Value::Object(highest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_kept_until_a_higher_one_comes() {
        let mut marks = HighWater::default();
        let mut check = |at: u64, figures: Value, expect: [(u64, u64); 2]| {
            let told = marks.note("g", &figures, WallMs::new(at * 1000));
            let leaf = |(value, at): (u64, u64)| json!({ "value": value, "at": date::rfc3339(WallMs::new(at * 1000)) });
            assert_eq!(told, json!({ "a": leaf(expect[0]), "in": { "a": leaf(expect[1]) } }));
        };
        check(1, json!({ "a": 5, "in": { "a": 0 }, "unknown": null }), [(5, 1), (0, 1)]);
        check(2, json!({ "a": 4, "in": { "a": 7 }, "word": "x" }), [(5, 1), (7, 2)]);
        check(3, json!({ "a": 6, "in": { "a": 7 } }), [(6, 3), (7, 2)]);
    }
}
