//! What passes the door, checked against a table, serde_json and mutated input.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::{prepare, rejection_of_nothing};
use crate::{
    limits,
    request::{Prepared, Rejection},
    types::{ContentType, Ends, Form, Records},
};

fn json(body: &[u8]) -> Prepared {
    let content = ContentType::parse("application/json; charset=utf-8").unwrap();
    prepare(&content, &Bytes::copy_from_slice(body))
}

/// The messages one by one, cut out of the wire form.
fn messages(records: &Records) -> Vec<Bytes> {
    let count = usize::try_from(records.count()).unwrap();
    let len = records.payload.len();
    (0..count)
        .map(|index| records.payload.slice(records.ends.slice(index..index + 1, len, Form::Json)))
        .collect()
}

#[track_caller]
fn check(body: &str, wire: &str, ends: &[u32]) {
    let records = json(body.as_bytes()).unwrap().unwrap();
    assert_eq!(std::str::from_utf8(&records.payload).unwrap(), wire);
    match &records.ends {
        Ends::One => assert_eq!(ends, [u32::try_from(wire.len()).unwrap()]),
        Ends::Many(many) => assert_eq!(ends, &many[..]),
    }
}

#[track_caller]
fn refuses(body: impl AsRef<[u8]>, reason: &str, at: usize) {
    match json(body.as_ref()) {
        Err(Rejection::InvalidJson { reason: found, at: found_at }) => {
            assert_eq!((found, found_at), (reason, at));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_keep_their_bytes_and_lose_what_is_around_them() {
    check("{\"a\":1}", "{\"a\":1}", &[7]);
    check(" \t\r\n{ \"a\" : 1 }\n", "{ \"a\" : 1 }", &[11]);
    check("[{\"a\":1},{\"b\":2}]", "{\"a\":1},{\"b\":2}", &[7, 15]);
    check(" [ 1,2 , 3\n] ", "1,2,3", &[1, 3, 5]);
    check("[1, 2]", "1,2", &[1, 3]);
    check("[ 7 ]", "7", &[1]);
    check("[[1, 2],[]]", "[1, 2],[]", &[6, 9]);
    check("\"x\"", "\"x\"", &[3]);
    check("-0.5e+10", "-0.5e+10", &[8]);
    check("[true,false,null,{}]", "true,false,null,{}", &[4, 10, 15, 18]);
    check("\"\\ud800 \\u00e9\\/\\\"\"", "\"\\ud800 \\u00e9\\/\\\"\"", &[19]);
    check("{\"a\":1,\"a\":2}", "{\"a\":1,\"a\":2}", &[13]);
    check("[\"]\",\",\"]", "\"]\",\",\"", &[3, 7]);
}

#[test]
fn a_compact_array_is_not_copied() {
    let content = ContentType::parse("application/json").unwrap();
    for text in [" [1,{\"a\": 2},3 ] ", "{}", " [5]"] {
        let body = Bytes::copy_from_slice(text.as_bytes());
        let records = prepare(&content, &body).unwrap().unwrap();
        assert!(body.as_ptr_range().contains(&records.payload.as_ptr()), "{text}");
    }
}

#[test]
fn what_is_not_json_is_refused_and_the_place_is_named() {
    refuses(" ", "unexpected end", 1);
    refuses("\u{feff}1", "byte order mark", 0);
    refuses(b"\"\xff\"", "not UTF-8", 1);
    refuses("1 2", "characters after the end", 2);
    refuses("[1]]", "characters after the end", 3);
    refuses("[1,]", "expected a value", 3);
    refuses("[,1]", "expected a value", 1);
    refuses("[1 2]", "expected ',' or ']'", 3);
    refuses("[1", "unexpected end", 2);
    refuses("[[1}]", "expected ',' or ']'", 3);
    refuses("{\"a\":1,}", "expected a key", 7);
    refuses("{a:1}", "expected a key", 1);
    refuses("{\"a\"}", "expected ':'", 4);
    refuses("{\"a\":1]", "expected ',' or '}'", 6);
    refuses("\"a\nb\"", "control character in a string", 2);
    refuses("\"abcdefghijk\u{1}\"", "control character in a string", 12);
    refuses("\"a", "unexpected end", 2);
    refuses("\"\\x\"", "unknown escape", 2);
    refuses("\"\\u12g4\"", "expected a hexadecimal digit", 5);
    refuses("01", "characters after the end", 1);
    refuses("-", "unexpected end", 1);
    refuses("1.", "unexpected end", 2);
    refuses(".5", "expected a value", 0);
    refuses("+1", "expected a value", 0);
    refuses("1e+", "unexpected end", 3);
    refuses("tru", "expected a value", 0);
    refuses("NaN", "expected a value", 0);
    refuses("'a'", "expected a value", 0);
    refuses("1 // one", "characters after the end", 2);
    refuses("\u{a0}1", "expected a value", 0);
}

#[test]
fn nesting_is_bounded_per_message() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let most = limits::JSON_DEPTH_MAX;
    // The outermost array is taken off before the message is counted.
    assert!(json(deep(most + 1).as_bytes()).unwrap().is_some());
    refuses(deep(most + 2), "nested too deeply", most + 1);
    let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert!(json(objects(most).as_bytes()).unwrap().is_some());
    refuses(objects(most + 1), "nested too deeply", most * 5);
    refuses("[".repeat(1 << 20), "nested too deeply", most + 1);
}

#[test]
fn nothing_is_told_from_no_body() {
    for body in ["", "[]", " [ \n] "] {
        assert_eq!(json(body.as_bytes()), Ok(None));
    }
    assert_eq!(rejection_of_nothing(&Bytes::new()), Rejection::EmptyBody);
    assert_eq!(rejection_of_nothing(&Bytes::from_static(b"[]")), Rejection::EmptyArray);
}

#[test]
fn other_types_are_one_record_as_they_came() {
    let body = Bytes::from_static(b"[1,");
    for content in ["text/plain", "application/octet-stream", "application/x-ndjson"] {
        let content = ContentType::parse(content).unwrap();
        assert_eq!(prepare(&content, &body), Ok(Some(Records::one(body.clone()))));
        assert_eq!(prepare(&content, &Bytes::new()), Ok(None));
    }
}

/// What serde_json makes of the same body. It accepts what we do but for the depth bound:
/// raw values are skipped without one.
fn serde(body: &[u8]) -> Option<Vec<String>> {
    let text = |raw: &RawValue| raw.get().to_owned();
    let first = body.iter().find(|byte| !b" \t\r\n".contains(byte));
    if first == Some(&b'[') {
        let values: Vec<Box<RawValue>> = serde_json::from_slice(body).ok()?;
        return Some(values.iter().map(|raw| text(raw)).collect());
    }
    let value: Box<RawValue> = serde_json::from_slice(body).ok()?;
    Some(vec![text(&value)])
}

/// Ours must say the same, in the same words.
#[track_caller]
fn agrees(body: &[u8]) {
    let ours = match json(body) {
        Ok(None) => Some(Vec::new()),
        Ok(Some(records)) => {
            let messages = messages(&records);
            assert_eq!(messages.join(&b','), records.payload, "wire form");
            Some(
                messages
                    .iter()
                    .map(|message| String::from_utf8(message.to_vec()).unwrap())
                    .collect(),
            )
        }
        Err(Rejection::InvalidJson { reason: "nested too deeply", .. }) => return,
        Err(Rejection::InvalidJson { at, .. }) => {
            assert!(at <= body.len());
            None
        }
        Err(other) => panic!("{other}"),
    };
    let body_text = String::from_utf8_lossy(body);
    if body.is_empty() {
        assert_eq!(ours, Some(Vec::new()), "nothing sent");
    } else {
        assert_eq!(ours, serde(body), "{body_text:?}");
    }
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|pairs| pairs.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_serde_on_generated_values(value in value(), pretty in any::<bool>()) {
        let text = if pretty {
            serde_json::to_string_pretty(&value)
        } else {
            serde_json::to_string(&value)
        };
        agrees(text.unwrap().as_bytes());
    }

    #[test]
    fn agrees_with_serde_on_arbitrary_text(text in ".{0,64}") {
        agrees(text.as_bytes());
    }

    #[test]
    fn agrees_with_serde_on_the_alphabet_of_json(text in r#"[\[\]{},:"\\ 0-9.eE+tfrualsn-]{0,24}"#) {
        agrees(text.as_bytes());
    }

    #[test]
    fn agrees_with_serde_on_damaged_values(
        value in value(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut text = serde_json::to_vec(&value).unwrap();
        for (index, byte) in damage {
            let at = index.index(text.len());
            text[at] = byte;
        }
        agrees(&text);
    }

    #[test]
    fn never_panics(body in prop::collection::vec(any::<u8>(), 0..256)) {
        agrees(&body);
    }
}

/// A small generator, so that the inputs below are the same in every run.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[test]
fn mutated_bodies_agree_with_serde() {
    const INPUTS: usize = 200_000;
    const TOKENS: [&[u8]; 24] = [
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\\u00",
        b"\\ud800",
        b"-",
        b"0",
        b"1e5",
        b".",
        b"true",
        b"null",
        b" ",
        b"\n",
        b"\x00",
        b"\xff",
        b"\xc3\xa9",
        b"\xef\xbb\xbf",
        b"\"a\":",
        b"e+",
    ];
    let mut corpus: Vec<Vec<u8>> = [
        r#"[{"a":1},{"b":[true,false,null]},"x\u00e9\n",-1.5e-7]"#,
        r#"{"nested":{"deep":[[[[{"k":"v"}]]]]},"empty":[],"none":{}}"#,
        "[ 1 , 2\t,\r\n3 ]",
        r#""a long string without anything special in it, \"quoted\" at the end""#,
        "0",
        "[]",
        "[[],[[]],{}]",
        "\"\u{1f600}\"",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    let mut chance = Lcg(0x5eed);
    for _ in 0..INPUTS {
        let source = chance.below(corpus.len());
        let mut body = corpus[source].clone();
        for _ in 0..=chance.below(3) {
            let at = chance.below(body.len() + 1);
            let end = (at + chance.below(4)).min(body.len());
            let piece = match chance.below(4) {
                0 => Vec::new(),
                1 => vec![u8::try_from(chance.below(256)).unwrap()],
                2 => TOKENS[chance.below(TOKENS.len())].to_vec(),
                _ => body[at..].iter().take(8).copied().collect(),
            };
            let until = if chance.below(2) == 0 { at } else { end };
            body.splice(at..until, piece);
        }
        agrees(&body);
        // Valid mutants breed, so that later ones are deeper than the seeds.
        if body.len() <= 512 && json(&body).is_ok() {
            if corpus.len() < 256 {
                corpus.push(body);
            } else {
                let victim = 8 + chance.below(248);
                corpus[victim] = body;
            }
        }
    }
}
