//! Where a server is, and how its streams are named.

use std::fmt;

use hyper::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Where streams are if a URL does not say.
pub const ROOT: &str = "/v1/stream";
/// Bytes of a name that need no escape. A slash stays one: names have parts.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Whether the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// It is not.
    Http,
    /// It is.
    Https,
}

/// A server of streams.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// How to talk to it.
    pub scheme: Scheme,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Path that its streams are under, without a slash at its end.
    pub root: String,
    /// Value of `Authorization`.
    pub auth: Option<String>,
}

/// The auth is a secret.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.authority(), self.root)
    }
}

/// Why a URL is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no URL of a server: {reason}; write http://HOST:PORT or https://HOST")]
pub struct BadUrl {
    url: String,
    reason: &'static str,
}

/// Why a value is no `Authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key or `Bearer KEY` of visible ASCII is wanted")]
pub struct BadAuth;

impl Target {
    /// The server at `url`. Its streams are under `root`; else under the path of the URL; else,
    /// if there is none, under `/v1/stream`.
    ///
    /// # Errors
    /// The URL is not `http://…` or `https://…`, or has a query.
    pub fn parse(url: &str, root: Option<&str>) -> Result<Self, BadUrl> {
        let bad = |reason| BadUrl { url: url.to_owned(), reason };
        let uri: Uri = url.parse().map_err(|_| bad("it can't be read"))?;
        let (scheme, port) = match uri.scheme_str() {
            Some("http") => (Scheme::Http, 80),
            Some("https") => (Scheme::Https, 443),
            Some(_) => return Err(bad("its scheme is neither http nor https")),
            None => return Err(bad("it has no scheme")),
        };
        if uri.query().is_some() {
            return Err(bad("it has a query"));
        }
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("a user in it is not supported"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let path = uri.path().trim_end_matches('/');
        let root = match root {
            Some(root) => format!("/{}", root.trim_matches('/')),
            None if path.is_empty() => ROOT.to_owned(),
            None => path.to_owned(),
        };
        let root = root.trim_end_matches('/').to_owned();
        let port = authority.port_u16().unwrap_or(port);
        Ok(Self { scheme, host: host.to_owned(), port, root, auth: None })
    }

    /// With `Authorization`; a value of one word is a bearer token.
    ///
    /// # Errors
    /// [`BadAuth`]: it can't stand in a header.
    pub fn with_auth(mut self, auth: Option<&str>) -> Result<Self, BadAuth> {
        self.auth = match auth.map(str::trim) {
            None => None,
            Some(auth) if auth.is_empty() || !auth.bytes().all(|it| (b' '..0x7f).contains(&it)) => {
                return Err(BadAuth);
            }
            Some(auth) if auth.contains(' ') => Some(auth.to_owned()),
            Some(auth) => Some(format!("Bearer {auth}")),
        };
        Ok(self)
    }

    /// Host and port, as `Host` has them.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        match (self.scheme, port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => host,
            _ => format!("{host}:{port}"),
        }
    }

    /// Path of a stream, from its name as it is.
    #[must_use]
    pub fn path(&self, stream: &str) -> String {
        format!("{}/{}", self.root, utf8_percent_encode(stream.trim_matches('/'), PLAIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, root: Option<&str>, shown: &str, authority: &str) {
        let target = Target::parse(url, root).expect(url);
        assert_eq!((target.to_string().as_str(), target.authority().as_str()), (shown, authority));
    }

    #[test]
    fn the_root_is_the_flag_or_the_path_or_the_default() {
        check("http://a:8080", None, "http://a:8080/v1/stream", "a:8080");
        check("http://a:8080/", None, "http://a:8080/v1/stream", "a:8080");
        check("http://a:80/v1/streams/", None, "http://a/v1/streams", "a");
        check("https://a/x", Some("y/z/"), "https://a/y/z", "a");
        check("http://[::1]:4437", Some("/"), "http://[::1]:4437", "[::1]:4437");
        let target = Target::parse("http://[::1]:4437", Some("/")).expect("valid");
        assert_eq!((target.host.as_str(), target.path("a").as_str()), ("::1", "/a"));
    }

    #[test]
    fn names_are_escaped_but_for_their_slashes() {
        let target = Target::parse("http://a", None).expect("valid");
        assert_eq!(target.path("a b/ü?/"), "/v1/stream/a%20b/%C3%BC%3F");
    }

    #[test]
    fn what_is_no_server_is_told() {
        for url in ["a:8080", "ftp://a", "http://", "http://a?x", "http://u@a", ""] {
            assert!(Target::parse(url, None).is_err(), "{url}");
        }
    }

    #[test]
    fn one_word_is_a_bearer_token_and_is_not_shown() {
        let target = || Target::parse("http://a", None).expect("valid");
        let auth = |text| target().with_auth(Some(text)).map(|it| it.auth);
        assert_eq!(auth("key"), Ok(Some("Bearer key".to_owned())));
        assert_eq!(auth("Basic xyz"), Ok(Some("Basic xyz".to_owned())));
        assert_eq!((auth(""), auth("a\nb")), (Err(BadAuth), Err(BadAuth)));
        let target = target().with_auth(Some("secret")).expect("valid");
        assert!(!format!("{target:?} {target}").contains("secret"));
    }
}
