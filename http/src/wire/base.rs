//! Where the client sees this server: what stands before the path in the URLs of answers.
//!
//! The operator's word (`--public-url`) comes first. Else a proxy that the operator trusts says
//! what it was asked for, in `Forwarded` (RFC 7239) or in `X-Forwarded-Proto` and
//! `X-Forwarded-Host`; the right-most element is that proxy's own, those before it may be
//! anybody's. Else it is what the request itself names. What makes no sense is not looked at: an
//! answer with another URL is better than none.

use std::{borrow::Cow, net::IpAddr};

use hyper::{
    header::{FORWARDED, HOST, HeaderMap, HeaderName},
    http::{request::Parts, uri::Authority},
};

use super::names;
use crate::config::HttpConfig;

/// Scheme and authority, and the path before all paths if `--public-url` has one; no slash at
/// the end.
pub(crate) fn of<'c>(config: &'c HttpConfig, parts: &Parts, peer: IpAddr) -> Cow<'c, str> {
    if let Some(public) = &config.public_url {
        return Cow::Borrowed(public.as_str());
    }
    let trusted = config.trusted_proxies.iter().any(|network| network.contains(peer));
    let told = if trusted { told(&parts.headers) } else { Told::default() };
    let scheme = told.scheme.unwrap_or("http");
    let host = match told.host {
        Some(host) => Cow::Owned(host),
        None => requested(parts),
    };
    Cow::Owned(format!("{scheme}://{host}"))
}

/// What the request itself names.
fn requested(parts: &Parts) -> Cow<'_, str> {
    let header = || parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let named = parts.uri.authority().map(Authority::as_str).or_else(header);
    // Only HTTP/1.0 may leave it out.
    named.and_then(authority).unwrap_or(Cow::Borrowed("localhost"))
}

/// What a proxy says it was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    scheme: Option<&'static str>,
    host: Option<String>,
}

/// One family of headers, never a mixture: a proxy that writes the one may pass the other on as
/// its client wrote it.
fn told(headers: &HeaderMap) -> Told {
    if headers.contains_key(FORWARDED) {
        return forwarded(last(headers, FORWARDED).unwrap_or_default());
    }
    let element =
        |name: HeaderName| last(headers, name).map(|list| list.rsplit(',').next().unwrap_or(list));
    let host = element(names::X_FORWARDED_HOST).and_then(|it| authority(it.trim_ascii()));
    Told {
        scheme: element(names::X_FORWARDED_PROTO).and_then(|it| scheme(it.trim_ascii())),
        host: host.map(Cow::into_owned),
    }
}

/// The last line of a header.
fn last(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get_all(name).iter().next_back().and_then(|value| value.to_str().ok())
}

/// The right-most element of a `Forwarded` list.
fn forwarded(list: &str) -> Told {
    let mut told = Told::default();
    let Some(element) = split(list, ',').pop() else { return told };
    for pair in split(element, ';') {
        let Some((name, value)) = pair.split_once('=') else { continue };
        let Some(value) = unquoted(value.trim_ascii()) else { continue };
        match name.trim_ascii() {
            name if name.eq_ignore_ascii_case("proto") => told.scheme = scheme(&value),
            name if name.eq_ignore_ascii_case("host") => {
                told.host = authority(&value).map(Cow::into_owned);
            }
            _ => {}
        }
    }
    told
}

/// Splits where the separator stands outside of quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(move |it: char| {
        let cut = it == separator && !quoted;
        match it {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ => {}
        }
        cut
    });
    parts.collect()
}

/// A token as it stands, or what a quoted string means; `None` if the quotes do not close.
fn unquoted(text: &str) -> Option<Cow<'_, str>> {
    let Some(rest) = text.strip_prefix('"') else { return Some(Cow::Borrowed(text)) };
    let inner = rest.strip_suffix('"')?;
    if !inner.contains(['\\', '"']) {
        return Some(Cow::Borrowed(inner));
    }
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.push(characters.next()?),
            '"' => return None,
            _ => plain.push(character),
        }
    }
    Some(Cow::Owned(plain))
}

fn scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| known.eq_ignore_ascii_case(text))
}

/// A host and perhaps a port, and nothing that could stand for more in a URL.
fn authority(text: &str) -> Option<Cow<'_, str>> {
    let parsed: Authority = text.parse().ok()?;
    let port = match text.rsplit_once(':') {
        // The colons of an IPv6 address stand before its bracket.
        Some((_, port)) if !port.ends_with(']') => Some(port),
        _ => None,
    };
    let host = parsed.host();
    let named = host.starts_with('[') && host.ends_with(']')
        || !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    let plain = named && port.is_none_or(|port| port.parse::<u16>().is_ok());
    (plain && !text.contains('@')).then_some(Cow::Borrowed(text))
}

#[cfg(test)]
mod tests {
    use hyper::{Request, header::HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::config::PublicUrl;

    const PROXY: &str = "10.0.0.9";

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn base(headers: &[(&str, &str)], peer: &str) -> String {
        let config = HttpConfig {
            trusted_proxies: vec!["10.0.0.0/8".parse().expect("a network")],
            ..HttpConfig::default()
        };
        let headers: Vec<_> = [("host", "inner:8080")].iter().chain(headers).copied().collect();
        of(&config, &parts("/x", &headers), peer.parse().expect("an address")).into_owned()
    }

    #[test]
    fn the_operators_word_comes_first() {
        let public = PublicUrl::new("https://streams.example/api/").expect("a URL");
        let config = HttpConfig {
            public_url: Some(public),
            trusted_proxies: vec!["0.0.0.0/0".parse().expect("a network")],
            ..HttpConfig::default()
        };
        let parts = parts("/x", &[("host", "a"), ("forwarded", "host=b")]);
        let peer = PROXY.parse().expect("an address");
        assert_eq!(of(&config, &parts, peer), "https://streams.example/api");
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let headers = [("forwarded", "host=out.example;proto=https")];
        assert_eq!(base(&headers, PROXY), "https://out.example");
        assert_eq!(base(&headers, "::ffff:10.1.2.3"), "https://out.example");
        assert_eq!(base(&headers, "11.0.0.9"), "http://inner:8080");
    }

    #[test]
    fn the_right_most_element_counts_and_garbage_does_not() {
        for (headers, expect) in [
            (&[][..], "http://inner:8080"),
            (&[("forwarded", "host=a;proto=https, host=b")], "http://b"),
            (&[("forwarded", "host=a"), ("forwarded", "HOST=b;Proto=HTTPS")], "https://b"),
            (&[("forwarded", r#"for="[::1]";host="b:8443";proto=https"#)], "https://b:8443"),
            (&[("forwarded", r#"for="x, y;host=evil";host=b"#)], "http://b"),
            (&[("forwarded", r#"host="b\:1""#)], "http://b:1"),
            (&[("forwarded", "proto=https")], "https://inner:8080"),
            (&[("forwarded", "host=\"b")], "http://inner:8080"),
            (&[("forwarded", "host=u@b")], "http://inner:8080"),
            (&[("forwarded", "host=b/c;proto=ftp")], "http://inner:8080"),
            (&[("forwarded", "host=[::1]:80")], "http://[::1]:80"),
            (&[("forwarded", "host=b:99999")], "http://inner:8080"),
            (&[("forwarded", "host=b:")], "http://inner:8080"),
            (&[("forwarded", "host=")], "http://inner:8080"),
            (&[("forwarded", "")], "http://inner:8080"),
            (&[("x-forwarded-proto", "http,https"), ("x-forwarded-host", "a, b:1")], "https://b:1"),
            (&[("x-forwarded-proto", "https")], "https://inner:8080"),
            (&[("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a b")], "http://inner:8080"),
            // What stands in the other family may be the client's own.
            (&[("forwarded", "proto=https"), ("x-forwarded-host", "evil")], "https://inner:8080"),
        ] {
            assert_eq!(base(headers, PROXY), expect, "{headers:?}");
        }
    }

    #[test]
    fn a_request_names_its_host_in_its_uri_or_beside_it() {
        let peer = PROXY.parse().expect("an address");
        let config = HttpConfig::default();
        for (uri, headers, expect) in [
            ("http://a:1/x", &[("host", "b")][..], "http://a:1"),
            ("/x", &[("host", "b")], "http://b"),
            ("/x", &[("host", "127.0.0.1:4437")], "http://127.0.0.1:4437"),
            ("/x", &[], "http://localhost"),
        ] {
            assert_eq!(of(&config, &parts(uri, headers), peer), expect, "{uri} {headers:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_always_gives_a_url(value in "[ -~]{0,60}", which in 0_usize..3) {
            let name = ["forwarded", "x-forwarded-host", "x-forwarded-proto"][which];
            prop_assume!(HeaderValue::from_str(&value).is_ok());
            let base = base(&[(name, value.as_str())], PROXY);
            let uri: hyper::Uri = format!("{base}/x").parse().expect("a URL");
            prop_assert_eq!(uri.path(), "/x");
        }
    }
}
