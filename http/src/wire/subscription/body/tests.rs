//! Every field of every body, right and wrong.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const WAKE: &str = "w_000102030405060708090a0b";

fn id() -> SubscriptionId {
    SubscriptionId::new("s").expect("valid")
}

fn name(text: &str) -> StreamName {
    StreamName::new(text).expect("valid")
}

/// A good body with some fields changed; `null` takes one away.
fn changed(good: &Value, changes: &Value) -> Vec<u8> {
    let mut body = good.clone();
    for (field, value) in changes.as_object().expect("an object") {
        body[field] = value.clone();
    }
    body.to_string().into_bytes()
}

fn good() -> Value {
    json!({ "type": "webhook", "pattern": "e/*", "webhook": { "url": "https://w/" } })
}

fn accept(changes: &Value) -> Subscribe {
    let body = changed(&good(), changes);
    subscribe(id(), &body).unwrap_or_else(|refusal| panic!("{changes}: {refusal:?}"))
}

#[track_caller]
fn refuse<T: std::fmt::Debug>(read: Result<T, Refusal>, says: &str) {
    let refusal = read.expect_err(says);
    assert_eq!((refusal.status.as_u16(), refusal.code), (400, "INVALID_REQUEST"), "{says}");
    assert!(refusal.message.contains(says), "{:?} does not say {says:?}", refusal.message);
}

#[test]
fn a_subscription_has_defaults_and_ignores_what_it_does_not_know() {
    let expect = Subscribe {
        id: id(),
        pattern: Some(Pattern::new("e/*").expect("valid")),
        streams: Vec::new(),
        delivery: Delivery::Webhook { url: "https://w/".into() },
        lease_ttl_ms: 30_000,
        description: None,
        base: None,
    };
    assert_eq!(accept(&json!({})), expect);
    assert_eq!(accept(&json!({ "more": [1], "streams": [], "wake_stream": "x" })), expect);
    assert_eq!(accept(&json!({ "streams": null, "description": null })), expect);
}

#[test]
fn fields_are_taken_as_they_are_meant() {
    let streams = accept(&json!({ "streams": ["/b/", "a", "b", "%61"] })).streams;
    assert_eq!(streams, ["%61", "a", "b"].map(name));
    let pull = json!({ "type": "pull-wake", "wake_stream": "/w/1/", "webhook": null });
    assert_eq!(accept(&pull).delivery, Delivery::PullWake { wake_stream: name("w/1") });
    assert_eq!(accept(&json!({ "pattern": "/a/**/" })).pattern.expect("there").as_str(), "a/**");
    for lease in [1000, 600_000] {
        assert_eq!(accept(&json!({ "lease_ttl_ms": lease })).lease_ttl_ms, lease);
    }
    let thousand: Vec<_> = (0..STREAMS_MAX).map(|number| number.to_string()).collect();
    assert_eq!(accept(&json!({ "streams": thousand })).streams.len(), STREAMS_MAX);
    assert_eq!(accept(&json!({ "description": "" })).description.as_deref(), Some(""));
}

#[test]
fn a_wrong_subscription_is_told_which_field() {
    for (changes, says) in [
        (json!({ "type": null }), "type"),
        (json!({ "type": "email" }), "type"),
        (json!({ "type": 1 }), "type"),
        (json!({ "webhook": null }), "webhook.url"),
        (json!({ "webhook": "https://w/" }), "webhook.url"),
        (json!({ "webhook": { "url": 1 } }), "webhook.url"),
        (json!({ "type": "pull-wake" }), "wake_stream"),
        (json!({ "type": "pull-wake", "wake_stream": 1 }), "wake_stream"),
        (json!({ "type": "pull-wake", "wake_stream": "//" }), "wake_stream"),
        (json!({ "type": "pull-wake", "wake_stream": "__ds/x" }), "wake_stream"),
        (json!({ "pattern": null }), "pattern or streams"),
        (json!({ "pattern": null, "streams": [] }), "pattern or streams"),
        (json!({ "pattern": 1 }), "pattern"),
        (json!({ "pattern": "" }), "pattern"),
        (json!({ "pattern": "a//b" }), "pattern"),
        (json!({ "pattern": "__ds/**" }), "pattern"),
        (json!({ "streams": "a" }), "streams"),
        (json!({ "streams": [1] }), "streams"),
        (json!({ "streams": [""] }), "streams"),
        (json!({ "streams": ["a//b"] }), "streams"),
        (json!({ "streams": ["__ds/x"] }), "streams"),
        (json!({ "streams": vec!["a"; STREAMS_MAX + 1] }), "streams has more than 1000"),
        (json!({ "lease_ttl_ms": 999 }), "lease_ttl_ms"),
        (json!({ "lease_ttl_ms": 600_001 }), "lease_ttl_ms"),
        (json!({ "lease_ttl_ms": -1 }), "lease_ttl_ms"),
        (json!({ "lease_ttl_ms": 1000.5 }), "lease_ttl_ms"),
        (json!({ "lease_ttl_ms": "1000" }), "lease_ttl_ms"),
        (json!({ "description": 1 }), "description"),
        (json!({ "description": "d".repeat(DESCRIPTION_BYTES_MAX + 1) }), "description"),
    ] {
        refuse(subscribe(id(), &changed(&good(), &changes)), says);
    }
    for body in ["", "[]", "null", "1", "{", "{}{}", "\u{feff}{}"] {
        refuse(subscribe(id(), body.as_bytes()), "the body");
    }
    refuse(subscribe(id(), b"{\"type\":\"\xff\"}"), "the body");
}

#[test]
fn streams_and_workers_are_named() {
    assert_eq!(streams(br#"{"streams":["b","/a"]}"#).expect("valid"), ["a", "b"].map(name));
    assert_eq!(streams(br#"{"streams":[]}"#).expect("valid"), []);
    refuse(streams(b"{}"), "streams is missing");
    refuse(streams(br#"{"streams":[{}]}"#), "streams");
    assert_eq!(worker(br#"{"worker":"w 1"}"#).expect("valid"), "w 1");
    for wrong in [json!({}), json!({ "worker": "" }), json!({ "worker": 1 }), {
        json!({ "worker": "w".repeat(WORKER_BYTES_MAX + 1) })
    }] {
        refuse(worker(wrong.to_string().as_bytes()), "worker");
    }
}

const CREDENTIAL: Credential = Credential { incarnation: 1, generation: 2 };

fn heartbeat() -> Value {
    json!({ "wake_id": WAKE, "generation": 2 })
}

#[test]
fn a_report_is_a_heartbeat_unless_it_is_done() {
    let body = |changes: Value| {
        report(&changed(&heartbeat(), &changes), CREDENTIAL).expect("a valid report")
    };
    let plain = body(json!({}));
    let wake_id = WakeId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!((plain.credential, plain.wake_id), (CREDENTIAL, wake_id));
    assert_eq!((plain.generation, plain.done, plain.acks), (2, false, vec![]));
    assert!(body(json!({ "done": true })).done);
    let acks = json!([{ "stream": "/a/", "offset": "0_2" }, { "path": "b", "offset": "0_0" }]);
    let at = |text| Offset::parse(text).expect("valid");
    let expect = vec![
        Ack { stream: name("a"), offset: at("0_2") },
        Ack { stream: name("b"), offset: Offset::START },
    ];
    assert_eq!(body(json!({ "acks": acks })).acks, expect);
    let about = about(&changed(&heartbeat(), &json!({}))).expect("valid");
    assert_eq!(about, About { wake_id, generation: 2 });
}

#[test]
fn a_wrong_report_is_told_which_field() {
    for (changes, says) in [
        (json!({ "wake_id": null }), "wake_id"),
        (json!({ "wake_id": 1 }), "wake_id"),
        (json!({ "generation": null }), "generation"),
        (json!({ "generation": "2" }), "generation"),
        (json!({ "generation": -2 }), "generation"),
        (json!({ "done": 1 }), "done"),
        (json!({ "acks": {} }), "acks"),
        (json!({ "acks": [1] }), "acks"),
        (json!({ "acks": [{ "offset": "0_0" }] }), "acks"),
        (json!({ "acks": [{ "stream": "a" }] }), "acks"),
        (json!({ "acks": [{ "stream": "a", "offset": 0 }] }), "acks"),
        (json!({ "acks": [{ "stream": "a", "offset": "now" }] }), "acks"),
        (json!({ "acks": [{ "stream": "a", "offset": "" }] }), "acks"),
        (json!({ "acks": [{ "stream": "", "offset": "0_0" }] }), "acks"),
        (json!({ "acks": vec![json!({ "stream": "a", "offset": "0_0" }); ACKS_MAX + 1] }), "acks"),
    ] {
        refuse(report(&changed(&heartbeat(), &changes), CREDENTIAL), says);
    }
    for changes in [json!({ "wake_id": null }), json!({ "generation": 1.5 })] {
        assert!(about(&changed(&heartbeat(), &changes)).is_err());
    }
}

#[test]
fn no_wake_and_no_place_are_conflicts() {
    let code = |changes: Value| {
        let refusal = report(&changed(&heartbeat(), &changes), CREDENTIAL).expect_err("refused");
        (refusal.status.as_u16(), refusal.code)
    };
    assert_eq!(code(json!({ "wake_id": "w_1" })), (409, "FENCED"));
    let start = json!({ "acks": [{ "stream": "a", "offset": "-1" }] });
    assert_eq!(code(start), (409, "INVALID_OFFSET"));
}

proptest! {
    #[test]
    fn never_panics(body: Vec<u8>, text in "\\PC*") {
        for body in [&body[..], text.as_bytes()] {
            drop(subscribe(id(), body));
            drop(streams(body));
            drop(worker(body));
            drop(about(body));
            drop(report(body, CREDENTIAL));
        }
    }

    #[test]
    fn any_worker_name_in_bounds_is_taken(text in "\\PC{1,64}") {
        let body = json!({ "worker": text }).to_string();
        prop_assert_eq!(worker(body.as_bytes()).expect("in bounds"), text);
    }
}
