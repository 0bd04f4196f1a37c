//! The profile and the schema registry of a stream, as the peer writes and reads them.
//!
//! Every stream has the profile `generic` and an empty registry. So an update that asks for
//! what is there anyway succeeds; one that asks for more is refused in the peer's words if the
//! peer would refuse it too, and with 501 if not.

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use weir_engine::types::StreamName;

use super::error::Refusal;

const PROFILE_VERSION: &str = "durable.streams/profile/v1";
const REGISTRY_VERSION: &str = "durable.streams/schema-registry/v1";
/// Kinds of profiles that the peer has, in its order.
const KINDS: [&str; 5] = ["evlog", "generic", "metrics", "otel-traces", "state-protocol"];

/// The profile of a stream.
pub(crate) fn profile() -> Value {
    json!({ "apiVersion": PROFILE_VERSION, "profile": { "kind": "generic" } })
}

/// The schema registry of a stream.
pub(crate) fn schema(name: &StreamName) -> Value {
    json!({
        "apiVersion": REGISTRY_VERSION,
        "schema": name.as_str(),
        "currentVersion": 0,
        "boundaries": [],
        "schemas": {},
        "lenses": {},
    })
}

/// Judges a new profile: fine if it is the one that every stream has.
pub(crate) fn judge_profile(body: &[u8]) -> Result<(), Refusal> {
    let update = object(body, "profile")?;
    check_members(&update, "profileUpdate", &["apiVersion", "profile"])?;
    check_version(&update, "profile", PROFILE_VERSION)?;
    let profile = update.get("profile").ok_or_else(|| Refusal::bad_request("missing profile"))?;
    let Value::Object(profile) = profile else {
        return Err(Refusal::bad_request("profile must be an object"));
    };
    let given = profile.get("kind").and_then(Value::as_str).unwrap_or_default();
    let kind = given.trim();
    if kind.is_empty() {
        return Err(Refusal::bad_request("profile.kind must be a non-empty string"));
    }
    if !KINDS.contains(&kind) {
        let message = format!("profile.kind must be {}", KINDS.join("|"));
        return Err(Refusal::bad_request(message));
    }
    if given != kind {
        return Err(Refusal::bad_request(format!("profile.kind must be {kind}")));
    }
    if kind != "generic" {
        return Err(not_yet(format!("the profile {kind} is not available yet")));
    }
    check_members(profile, "profile", &["kind"])
}

/// Judges a change of the registry: fine if it takes away what is not there.
pub(crate) fn judge_schema(body: &[u8]) -> Result<(), Refusal> {
    let update = object(body, "schema")?;
    let members = ["apiVersion", "schema", "lens", "routingKey", "search"];
    check_members(&update, "schemaUpdate", &members)?;
    check_version(&update, "schema", REGISTRY_VERSION)?;
    let [schema, key, search] = ["schema", "routingKey", "search"].map(|it| update.get(it));
    if schema.is_none() && key.is_none() && search.is_none() {
        let message = "schema update must include schema, routingKey, or search";
        return Err(Refusal::bad_request(message));
    }
    if schema.is_none() && update.contains_key("lens") {
        return Err(Refusal::bad_request("schema update lens requires schema"));
    }
    if schema.is_some() {
        return Err(not_yet("schemas are not available yet"));
    }
    if key.is_some_and(|key| !key.is_null()) {
        return Err(not_yet("routing keys by JSON pointer are not available yet"));
    }
    if search.is_some_and(|search| !search.is_null()) {
        return Err(Refusal::bad_request("search config requires an installed schema version"));
    }
    Ok(())
}

fn object(body: &[u8], what: &str) -> Result<Map<String, Value>, Refusal> {
    let value = serde_json::from_slice(body)
        .map_err(|_| Refusal::bad_request(format!("{what} update must be valid JSON")))?;
    match value {
        Value::Object(update) => Ok(update),
        _ => Err(Refusal::bad_request(format!("{what} update must be a JSON object"))),
    }
}

fn check_members(object: &Map<String, Value>, path: &str, known: &[&str]) -> Result<(), Refusal> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Refusal::bad_request(format!("{path}.{name} is not supported"))),
        None => Ok(()),
    }
}

fn check_version(update: &Map<String, Value>, what: &str, want: &str) -> Result<(), Refusal> {
    match update.get("apiVersion") {
        Some(version) if version != want => {
            Err(Refusal::bad_request(format!("invalid {what} apiVersion")))
        }
        _ => Ok(()),
    }
}

fn not_yet(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(
        judge: fn(&[u8]) -> Result<(), Refusal>,
        body: &str,
        expect: Result<(), (u16, &'static str)>,
    ) {
        let refusal = judge(body.as_bytes()).err();
        let said = refusal.as_ref().map_or(Ok(()), |it| Err((it.status.as_u16(), &*it.message)));
        assert_eq!(said, expect, "{body}");
    }

    #[test]
    fn a_profile_is_judged_in_the_peers_words() {
        let bad = |message| Err((400, message));
        let not_yet = |message| Err((501, message));
        for (body, expect) in [
            ("{", bad("profile update must be valid JSON")),
            ("", bad("profile update must be valid JSON")),
            ("[1]", bad("profile update must be a JSON object")),
            ("{}", bad("missing profile")),
            (r#"{"profile":null}"#, bad("profile must be an object")),
            (r#"{"profile":{}}"#, bad("profile.kind must be a non-empty string")),
            (r#"{"profile":{"kind":7}}"#, bad("profile.kind must be a non-empty string")),
            (r#"{"profile":{"kind":" "}}"#, bad("profile.kind must be a non-empty string")),
            (
                r#"{"profile":{"kind":"nope"}}"#,
                bad("profile.kind must be evlog|generic|metrics|otel-traces|state-protocol"),
            ),
            (r#"{"profile":{"kind":" generic"}}"#, bad("profile.kind must be generic")),
            (
                r#"{"apiVersion":"x","profile":{"kind":"generic"}}"#,
                bad("invalid profile apiVersion"),
            ),
            (
                r#"{"apiVersion":null,"profile":{"kind":"generic"}}"#,
                bad("invalid profile apiVersion"),
            ),
            (r#"{"profile":{"kind":"generic"},"x":1}"#, bad("profileUpdate.x is not supported")),
            (r#"{"profile":{"kind":"generic","x":1}}"#, bad("profile.x is not supported")),
            (
                r#"{"profile":{"kind":"evlog","redactKeys":[]}}"#,
                not_yet("the profile evlog is not available yet"),
            ),
            (r#"{"profile":{"kind":"generic"}}"#, Ok(())),
            (r#"{"apiVersion":"durable.streams/profile/v1","profile":{"kind":"generic"}}"#, Ok(())),
        ] {
            check(judge_profile, body, expect);
        }
    }

    #[test]
    fn a_registry_is_judged_in_the_peers_words() {
        let bad = |message| Err((400, message));
        let not_yet = |message| Err((501, message));
        let nothing = "schema update must include schema, routingKey, or search";
        for (body, expect) in [
            ("{", bad("schema update must be valid JSON")),
            ("[]", bad("schema update must be a JSON object")),
            ("{}", bad(nothing)),
            (r#"{"lens":{}}"#, bad(nothing)),
            (r#"{"foo":1}"#, bad("schemaUpdate.foo is not supported")),
            (r#"{"routing_key":1}"#, bad("schemaUpdate.routing_key is not supported")),
            (r#"{"apiVersion":"x","routingKey":null}"#, bad("invalid schema apiVersion")),
            (r#"{"lens":{},"routingKey":null}"#, bad("schema update lens requires schema")),
            (
                r#"{"search":{"fields":{}}}"#,
                bad("search config requires an installed schema version"),
            ),
            (r#"{"schema":{"type":"object"}}"#, not_yet("schemas are not available yet")),
            (
                r#"{"routingKey":{"jsonPointer":"/a","required":true}}"#,
                not_yet("routing keys by JSON pointer are not available yet"),
            ),
            (r#"{"routingKey":null}"#, Ok(())),
            (r#"{"search":null,"routingKey":null}"#, Ok(())),
        ] {
            check(judge_schema, body, expect);
        }
    }

    proptest! {
        #[test]
        fn no_body_is_too_strange_to_be_refused(body in any::<Vec<u8>>()) {
            prop_assert!(judge_profile(&body).is_err());
            prop_assert!(judge_schema(&body).is_err());
        }
    }
}
