//! What `weir gc --dry-run` prints: what a bucket has that its newest manifest does not need, with
//! times as people write them.

use std::fmt::Write as _;

use serde_json::{Value, json};
use weir_engine::restore::{Garbage, Unneeded};

use crate::wire::date;

/// How keys of boundaries begin, as docs/FORMATS.md has them.
const BOUNDARIES: &str = "gc/";
const UNREADABLE: &str = "what only these named is listed as if no manifest did";
const EPILOGUE: &str = "a server deletes each that is not spared once it has waited for --gc-grace\n\
                        what no manifest names may be on its way into the next one: only the \
                        server knows\n";

/// For people.
pub(super) fn text(garbage: &Garbage) -> String {
    let Garbage { newest, oldest, manifests, objects, bytes, unneeded, unreadable, .. } = garbage;
    let waiting: u64 = unneeded.iter().map(|it| it.bytes).sum();
    let mut text = format!(
        "manifests    {manifests} ({oldest} to {newest})\n\
         needed       {objects} objects, {bytes} bytes\n\
         not needed   {} objects, {waiting} bytes\n",
        unneeded.len(),
    );
    for it in unneeded {
        let line = writeln!(text, "  {}: {} bytes, {}", it.object, it.bytes, why(it));
        line.expect("a string takes everything");
    }
    if !unreadable.is_empty() {
        let line = writeln!(text, "unreadable   {}: {UNREADABLE}", unreadable.len());
        line.expect("a string takes everything");
    }
    for finding in unreadable {
        let line = writeln!(text, "  {finding}");
        line.expect("a string takes everything");
    }
    text.push_str(EPILOGUE);
    text
}

fn why(unneeded: &Unneeded) -> String {
    let since = unneeded.since.map(date::rfc3339);
    match (unneeded.named_by, since) {
        (Some(by), Some(since)) => {
            format!("manifest {by} was the last to name it; waits since {since}")
        }
        (None, Some(since)) => format!("superseded; waits since {since}"),
        (_, None) if unneeded.object.starts_with(BOUNDARIES) => {
            "a higher boundary says more".to_owned()
        }
        (_, None) if unneeded.spared => "spared: a list that may have named it is lost".to_owned(),
        (_, None) => "no manifest names it".to_owned(),
    }
}

/// For programs.
pub(super) fn json(garbage: &Garbage) -> String {
    let Garbage { newest, created, oldest, manifests, objects, bytes, unneeded, unreadable } =
        garbage;
    let unneeded: Vec<Value> = unneeded
        .iter()
        .map(|Unneeded { object, bytes, named_by, since, spared }| {
            json!({
                "object": object,
                "bytes": bytes,
                "named_by": named_by,
                "since_ms": since.map(|since| since.get()),
                "spared": spared,
            })
        })
        .collect();
    let document = json!({
        "manifests": { "count": manifests, "oldest": oldest, "newest": newest },
        "created": date::rfc3339(*created),
        "needed": { "objects": objects, "bytes": bytes },
        "not_needed": unneeded,
        "unreadable": super::work::findings(unreadable),
    });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use weir_engine::{restore::Finding, types::WallMs};

    use super::*;

    fn garbage() -> Garbage {
        let since = Some(WallMs::new(1_795_163_400_123));
        let of = |object: &str, named_by, since| Unneeded {
            object: object.to_owned(),
            bytes: 7,
            named_by,
            since,
            spared: object.ends_with("c"),
        };
        Garbage {
            newest: 9,
            oldest: 3,
            manifests: 7,
            unneeded: vec![
                of("segments/a", Some(4), since),
                of("manifests/3", None, since),
                of("segments/b", None, None),
                of("gc/1", None, None),
                of("segments/c", None, None),
            ],
            unreadable: vec![Finding {
                rule: "chain",
                object: "manifest/5".to_owned(),
                text: "it is damaged".to_owned(),
            }],
            ..Garbage::default()
        }
    }

    #[test]
    fn people_read_dates_and_programs_milliseconds() {
        let said = text(&garbage());
        for part in [
            "not needed   5 objects, 35 bytes\n",
            "manifest 4 was the last to name it; waits since 2026-11-20T08:30:00.123Z\n",
            "superseded; waits since 2026-11-20T08:30:00.123Z\n",
            "segments/b: 7 bytes, no manifest names it\n",
            "gc/1: 7 bytes, a higher boundary says more\n",
            "segments/c: 7 bytes, spared: a list that may have named it is lost\n",
            "unreadable   1: what only these named is listed as if no manifest did\n",
            "  chain: manifest/5: it is damaged\n",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let said: Value = serde_json::from_str(&json(&garbage())).expect("JSON");
        assert_eq!(said["not_needed"][0]["since_ms"], 1_795_163_400_123_u64);
        assert_eq!(said["not_needed"][2]["spared"], false);
        assert_eq!(said["not_needed"][4]["spared"], true);
        assert_eq!(said["unreadable"][0]["object"], "manifest/5");
        assert_eq!(
            (&said["manifests"]["count"], &said["not_needed"][2]["since_ms"]),
            (&7.into(), &Value::Null)
        );
    }
}
