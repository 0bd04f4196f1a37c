//! From a raw path to what it names.
//!
//! The path is split on raw `/`, a reserved suffix is recognised on the raw segments, and only
//! the rest is decoded. So `a/b` and `a%2Fb` are one stream, and a stream that is really called
//! `foo/_schema` is reached as `foo%2F_schema`.

use bytes::Bytes;
use weir_engine::types::{BadName, StreamName};

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
    /// A part of a stream that this server does not have yet.
    SubResource(&'static str),
    /// The control plane, never a stream.
    ControlPlane,
    /// `OPTIONS *`.
    Asterisk,
    Unknown,
}

const ROOTS: [&str; 2] = ["/v1/stream", "/v1/streams"];

/// Raw endings of a path that name a part of a stream.
const SUFFIXES: [&str; 11] = [
    "_otlp/v1/traces",
    "_schema",
    "_profile",
    "_search",
    "_aggregate",
    "_details",
    "_index_status",
    "_routing_keys",
    "touch/templates/activate",
    "touch/meta",
    "touch/wait",
];

/// Reads a raw path.
pub(crate) fn parse(path: &str) -> Result<Route, Refusal> {
    match path {
        "/health" => return Ok(Route::Health),
        "/metrics" => return Ok(Route::Metrics),
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
        return Ok(Route::ControlPlane);
    }
    if let Some((suffix, _)) = SUFFIXES.iter().find_map(|it| Some((*it, cut(rest, it)?))) {
        return Ok(Route::SubResource(suffix));
    }
    if let Some((name, key)) = keyed(rest) {
        let key = decode(key, Plus::Plus)?;
        return Ok(Route::Keyed(stream_name(name)?, Bytes::from(key.into_owned())));
    }
    stream_name(rest).map(Route::Stream)
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
        check("/v1/stream/foo/_schema", Some(Route::SubResource("_schema")));
        check("/v1/stream/foo%2F_schema", stream("foo/_schema"));
        check("/v1/stream/foo/touch/wait", Some(Route::SubResource("touch/wait")));
        check("/v1/stream/foo/touch", stream("foo/touch"));
        check("/v1/stream/a/_otlp/v1/traces", Some(Route::SubResource("_otlp/v1/traces")));
        check("/v1/stream/_schema", stream("_schema"));
        check("/v1/stream/foo_schema", stream("foo_schema"));
    }

    #[test]
    fn a_key_follows_pk() {
        let key = Bytes::from_static(b"user/1");
        let name = StreamName::new("a/b").expect("valid");
        check("/v1/stream/a/b/pk/user%2F1", Some(Route::Keyed(name, key)));
        check("/v1/stream/a/pk", stream("a/pk"));
        check("/v1/stream/pk/x", stream("pk/x"));
    }

    #[test]
    fn the_control_plane_is_never_a_stream() {
        for path in [
            "/v1/stream/__ds",
            "/v1/stream/__ds/a",
            "/v1/streams/%5F%5Fds/a//b",
            "/v1/stream/__ds%2Fa",
        ] {
            check(path, Some(Route::ControlPlane));
        }
        check("/v1/stream/a/__ds", stream("a/__ds"));
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
        fn never_panics(path in "(/v1/streams?)?[/a-z%0-9_.]*") {
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
