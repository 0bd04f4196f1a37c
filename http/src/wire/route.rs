//! From a raw path to what it names.
//!
//! The path is split on raw `/`, a reserved suffix is recognised on the raw segments, and only
//! the rest is decoded. So `a/b` and `a%2Fb` are one stream, and a stream that is really called
//! `foo/_schema` is reached as `foo%2F_schema`.

use bytes::Bytes;
use weir_engine::{
    subscribe::SubscriptionId,
    types::{BadName, StreamName},
};

use super::{
    error::Refusal,
    escape::{Plus, decode},
};

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Health,
    Metrics,
    /// The list of streams.
    List,
    Stream(StreamName),
    /// The records of a stream that have this routing key.
    Keyed(StreamName, Bytes),
    /// What the server knows of a stream.
    Details(StreamName),
    /// How far a stream is uploaded and indexed.
    IndexStatus(StreamName),
    /// What gives a stream its meaning.
    Profile(StreamName),
    /// What its records must look like.
    Schema(StreamName),
    /// How much of its records a stream keeps.
    Retention(StreamName),
    /// What the server knows of itself.
    Server,
    /// What it knows of its memory.
    Memory,
    /// A part of a stream that this server does not have yet.
    SubResource(&'static str),
    /// The control plane, never a stream.
    ControlPlane(Control),
    /// `OPTIONS *`.
    Asterisk,
    Unknown,
}

/// What a path of the control plane names (protocol §17.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// The public keys that webhooks are signed with.
    Keys,
    Subscription(SubscriptionId),
    /// Its links by name.
    Streams(SubscriptionId),
    /// One of them.
    Linked(SubscriptionId, StreamName),
    /// Where webhook workers report.
    Callback(SubscriptionId),
    /// Where pull-wake workers take work.
    Claim(SubscriptionId),
    /// Where they report.
    Ack(SubscriptionId),
    /// Where they give it back.
    Release(SubscriptionId),
    Unknown,
}

const ROOTS: [&str; 2] = ["/v1/stream", "/v1/streams"];

/// Raw endings of a path that name a part of a stream.
const SUFFIXES: [&str; 12] = [
    "_otlp/v1/traces",
    "_schema",
    "_profile",
    "_search",
    "_aggregate",
    "_details",
    "_index_status",
    "_routing_keys",
    "_retention",
    "touch/templates/activate",
    "touch/meta",
    "touch/wait",
];

/// Reads a raw path.
pub(crate) fn parse(path: &str) -> Result<Route, Refusal> {
    match path {
        "/health" => return Ok(Route::Health),
        "/metrics" => return Ok(Route::Metrics),
        "/v1/server/_details" => return Ok(Route::Server),
        "/v1/server/_mem" => return Ok(Route::Memory),
        "*" => return Ok(Route::Asterisk),
        _ => {}
    }
    // The longer root first: the shorter one is its prefix.
    for root in ROOTS.iter().rev() {
        let Some(rest) = path.strip_prefix(root) else { continue };
        if !rest.is_empty() && !rest.starts_with('/') {
            continue;
        }
        let rest = rest.trim_end_matches('/');
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        return if rest.is_empty() && *root == ROOTS[1] {
            Ok(Route::List)
        } else {
            below_root(rest)
        };
    }
    Ok(Route::Unknown)
}

fn below_root(rest: &str) -> Result<Route, Refusal> {
    let first = rest.split('/').next().unwrap_or_default();
    if decode(first, Plus::Plus)?.split('/').next() == Some("__ds") {
        return control(rest).map(Route::ControlPlane);
    }
    if let Some((suffix, name)) = SUFFIXES.iter().find_map(|it| Some((*it, cut(rest, it)?))) {
        return match suffix {
            "_details" => stream_name(name).map(Route::Details),
            "_index_status" => stream_name(name).map(Route::IndexStatus),
            "_profile" => stream_name(name).map(Route::Profile),
            "_schema" => stream_name(name).map(Route::Schema),
            "_retention" => stream_name(name).map(Route::Retention),
            _ => Ok(Route::SubResource(suffix)),
        };
    }
    if let Some((name, key)) = keyed(rest) {
        let key = decode(key, Plus::Plus)?;
        return Ok(Route::Keyed(stream_name(name)?, Bytes::from(key.into_owned())));
    }
    stream_name(rest).map(Route::Stream)
}

/// Below `__ds` the segments are read raw too; only names that clients choose are decoded.
fn control(rest: &str) -> Result<Control, Refusal> {
    let Some((first, rest)) = rest.split_once('/') else { return Ok(Control::Unknown) };
    if decode(first, Plus::Plus)? != "__ds" {
        return Ok(Control::Unknown);
    }
    let segments: Vec<&str> = rest.splitn(4, '/').collect();
    Ok(match segments[..] {
        ["jwks.json"] => Control::Keys,
        ["subscriptions", id] => Control::Subscription(subscription_id(id)?),
        ["subscriptions", id, "streams"] => Control::Streams(subscription_id(id)?),
        ["subscriptions", id, "streams", path] => {
            Control::Linked(subscription_id(id)?, linked(path)?)
        }
        ["subscriptions", id, "callback"] => Control::Callback(subscription_id(id)?),
        ["subscriptions", id, "claim"] => Control::Claim(subscription_id(id)?),
        ["subscriptions", id, "ack"] => Control::Ack(subscription_id(id)?),
        ["subscriptions", id, "release"] => Control::Release(subscription_id(id)?),
        _ => Control::Unknown,
    })
}

fn subscription_id(raw: &str) -> Result<SubscriptionId, Refusal> {
    let bad = || Refusal::invalid_request("invalid subscription id");
    let id = decode(raw, Plus::Plus).map_err(|_| bad())?;
    SubscriptionId::new(&id).ok_or_else(bad)
}

/// The path of a linked stream: slashes may stand in it raw, as in the path of the stream.
fn linked(raw: &str) -> Result<StreamName, Refusal> {
    let invalid = |message: String| Refusal::invalid_request(message);
    let path = decode(raw, Plus::Plus).map_err(|refusal| invalid(refusal.message.into_owned()))?;
    StreamName::new(path.trim_matches('/')).map_err(|bad| invalid(bad.to_string()))
}

/// What is left of `rest` before `/suffix`, if that leaves a name.
fn cut<'p>(rest: &'p str, suffix: &str) -> Option<&'p str> {
    rest.strip_suffix(suffix)?.strip_suffix('/').filter(|name| !name.is_empty())
}

/// `name/pk/key` on raw segments.
fn keyed(rest: &str) -> Option<(&str, &str)> {
    let (before, key) = rest.rsplit_once('/')?;
    let name = cut(before, "pk")?;
    Some((name, key))
}

fn stream_name(raw: &str) -> Result<StreamName, Refusal> {
    let name = decode(raw, Plus::Plus)?;
    // Slashes at the end do not count, encoded or not.
    StreamName::new(name.trim_end_matches('/')).map_err(|bad| match bad {
        BadName::Reserved => Refusal::not_found("not_found"),
        BadName::Missing | BadName::TooLong | BadName::Control(_) | BadName::Segment => {
            Refusal::bad_request(bad.to_string())
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(name: &str) -> Option<Route> {
        Some(Route::Stream(StreamName::new(name).expect("valid")))
    }

    fn check(path: &str, expect: Option<Route>) {
        assert_eq!(parse(path).ok(), expect, "{path}");
    }

    #[test]
    fn slashes_in_names_are_the_same_raw_and_encoded() {
        for path in ["/v1/stream/a/b", "/v1/stream/a%2Fb", "/v1/stream/a%2fb/", "/v1/streams/a/b//"]
        {
            check(path, stream("a/b"));
        }
    }

    #[test]
    fn reserved_suffixes_are_seen_on_raw_segments_only() {
        check("/v1/stream/foo/_search", Some(Route::SubResource("_search")));
        check("/v1/stream/foo%2F_search", stream("foo/_search"));
        check("/v1/stream/foo%2F_schema", stream("foo/_schema"));
        check("/v1/stream/foo/touch/wait", Some(Route::SubResource("touch/wait")));
        check("/v1/stream/foo/touch", stream("foo/touch"));
        check("/v1/stream/a/_otlp/v1/traces", Some(Route::SubResource("_otlp/v1/traces")));
        check("/v1/stream/_schema", stream("_schema"));
        check("/v1/stream/foo_schema", stream("foo_schema"));
    }

    #[test]
    fn a_stream_and_the_server_can_be_inspected() {
        let name = StreamName::new("a/b").expect("valid");
        check("/v1/stream/a/b/_details", Some(Route::Details(name.clone())));
        check("/v1/streams/a%2Fb/_details/", Some(Route::Details(name.clone())));
        check("/v1/stream/a/b/_index_status", Some(Route::IndexStatus(name.clone())));
        check("/v1/stream/a/b/_profile", Some(Route::Profile(name.clone())));
        check("/v1/stream/a/b/_retention", Some(Route::Retention(name.clone())));
        check("/v1/streams/a%2Fb/_schema/", Some(Route::Schema(name)));
        check("/v1/stream//a/_schema", None);
        check("/v1/stream/a%2F_details", stream("a/_details"));
        check("/v1/stream//a/_details", None);
        check("/v1/server/_details", Some(Route::Server));
        check("/v1/server/_mem", Some(Route::Memory));
        check("/v1/server/_details/", Some(Route::Unknown));
        check("/v1/server", Some(Route::Unknown));
    }

    #[test]
    fn a_key_follows_pk() {
        let key = Bytes::from_static(b"user/1");
        let name = StreamName::new("a/b").expect("valid");
        check("/v1/stream/a/b/pk/user%2F1", Some(Route::Keyed(name, key)));
        check("/v1/stream/a/pk", stream("a/pk"));
        check("/v1/stream/pk/x", stream("pk/x"));
    }

    fn control_plane(control: Control) -> Option<Route> {
        Some(Route::ControlPlane(control))
    }

    #[test]
    fn the_control_plane_is_never_a_stream() {
        for path in [
            "/v1/stream/__ds",
            "/v1/stream/__ds/a",
            "/v1/streams/%5F%5Fds/a//b",
            "/v1/stream/__ds%2Fa",
            "/v1/stream/__ds%2Fjwks.json",
            "/v1/stream/__ds/jwks.json/a",
            "/v1/stream/__ds/subscriptions",
            "/v1/stream/__ds/subscriptions/",
            "/v1/stream/__ds/subscriptions/a/b",
            "/v1/stream/__ds/subscriptions/a/callback/b",
            "/v1/stream/__ds/a/_schema",
        ] {
            check(path, control_plane(Control::Unknown));
        }
        check("/v1/stream/a/__ds", stream("a/__ds"));
    }

    #[test]
    fn the_control_plane_has_subscriptions_and_keys() {
        let id = |text| SubscriptionId::new(text).expect("valid");
        let name = |text| StreamName::new(text).expect("valid");
        for (path, expect) in [
            ("jwks.json", Control::Keys),
            ("subscriptions/a", Control::Subscription(id("a"))),
            ("subscriptions/a%20b%25/", Control::Subscription(id("a b%"))),
            ("subscriptions/streams", Control::Subscription(id("streams"))),
            ("subscriptions/a/streams", Control::Streams(id("a"))),
            ("subscriptions/a/streams/", Control::Streams(id("a"))),
            ("subscriptions/a/streams/b", Control::Linked(id("a"), name("b"))),
            ("subscriptions/a/streams/b%2Fc", Control::Linked(id("a"), name("b/c"))),
            ("subscriptions/a/streams/b/c/d", Control::Linked(id("a"), name("b/c/d"))),
            ("subscriptions/a/streams/%2Fb/_schema", Control::Linked(id("a"), name("b/_schema"))),
            ("subscriptions/a/callback", Control::Callback(id("a"))),
            ("subscriptions/a/claim", Control::Claim(id("a"))),
            ("subscriptions/a/ack", Control::Ack(id("a"))),
            ("subscriptions/a/release", Control::Release(id("a"))),
        ] {
            check(&format!("/v1/stream/__ds/{path}"), control_plane(expect.clone()));
            check(&format!("/v1/streams/%5f_ds/{path}"), control_plane(expect));
        }
        let long = "a".repeat(SubscriptionId::BYTES_MAX + 1);
        for path in ["a%2Fb", "%zz", "%00", "..", "", &long, "a/streams/%zz", "a/streams/b//c"] {
            let path = format!("/v1/stream/__ds/subscriptions/{path}/streams/x");
            let refusal = parse(&path).expect_err(&path);
            assert_eq!(refusal.code, "INVALID_REQUEST", "{path}");
        }
        let reserved = parse("/v1/stream/__ds/subscriptions/a/streams/__ds/b");
        assert_eq!(reserved.expect_err("reserved").code, "INVALID_REQUEST");
    }

    #[test]
    fn other_paths() {
        check("/health", Some(Route::Health));
        check("/v1/streams", Some(Route::List));
        check("/v1/streams/", Some(Route::List));
        check("/v1/streamsx", Some(Route::Unknown));
        check("/", Some(Route::Unknown));
        for path in ["/v1/stream", "/v1/stream/", "/v1/stream///"] {
            assert_eq!(parse(path).expect_err("no name").message, "missing stream name");
        }
        for path in [
            "/v1/stream/%",
            "/v1/stream/%zz",
            "/v1/stream/%ff",
            "/v1/stream/a//b",
            "/v1/stream//a",
            "/v1/stream/a/../b",
            "/v1/stream/%2e%2e/b",
            "/v1/stream/a%00b",
        ] {
            check(path, None);
        }
    }

    proptest! {
        #[test]
        fn never_panics(path in "(/v1/streams?(/__ds/subscriptions)?)?[/a-z%0-9_.]*") {
            drop(parse(&path));
        }

        #[test]
        fn any_name_is_reachable_when_encoded(name in "[^/\\x00-\\x1f\\x7f]{1,20}") {
            prop_assume!(StreamName::new(&name).is_ok());
            let encoded =
                percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC);
            let route = parse(&format!("/v1/stream/{encoded}")).expect("valid");
            prop_assert_eq!(route, Route::Stream(StreamName::new(&name).expect("valid")));
        }
    }
}
