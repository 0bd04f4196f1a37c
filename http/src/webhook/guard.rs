//! Which receivers the server may call. Pure.
//!
//! Whoever creates a subscription chooses a URL that *this* machine then calls, from inside its
//! network: without a guard that is a way to the operator's private services and to the
//! metadata of a cloud. So a URL is judged when the subscription is created ([`check_url`]), and
//! every address its name has is judged again when it is called ([`check_address`]), because
//! names change their minds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::http::uri::{PathAndQuery, Uri};

/// Longest URL of a receiver.
const URL_BYTES_MAX: usize = 2048;
/// Longest name that DNS knows, and longest part of one.
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Whether receivers on this machine may be called: for development and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loopback {
    /// They are refused like any other private address.
    #[default]
    Refused,
    /// `localhost`, `127.0.0.0/8` and `::1` may be called, without TLS too.
    Allowed,
}

/// How a receiver is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// A receiver, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    /// A name in lower case or an IP literal without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path_and_query: PathAndQuery,
}

/// Why a receiver may not be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Rejected {
    pub(crate) reason: &'static str,
}

const fn reject<T>(reason: &'static str) -> Result<T, Rejected> {
    Err(Rejected { reason })
}

impl Target {
    /// The authority as the `Host` header names it: the port only if it is not the scheme's.
    pub(crate) fn authority(&self) -> String {
        let standard = match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == standard { host } else { format!("{host}:{}", self.port) }
    }
}

/// Judges a URL by what it says; names are not looked up.
pub(crate) fn check_url(url: &str, loopback: Loopback) -> Result<Target, Rejected> {
    if url.len() > URL_BYTES_MAX {
        return reject("the URL is too long");
    }
    // Parsers disagree about these: some drop them, some end the host there.
    if !url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return reject("the URL has characters that must be escaped");
    }
    if url.contains('#') {
        return reject("the URL has a fragment");
    }
    let Ok(uri) = url.parse::<Uri>() else { return reject("not a URL") };
    let scheme = match uri.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        Some(_) => return reject("the URL's scheme is neither https nor http"),
        None => return reject("the URL is not absolute"),
    };
    let Some(authority) = uri.authority() else { return reject("the URL has no host") };
    if authority.as_str().contains('@') {
        return reject("the URL has user information");
    }
    let host = host(authority.host())?;
    let port = port(authority.as_str(), authority.host(), scheme)?;
    match &host {
        Host::Address(address) => check_address(*address, loopback)?,
        Host::Local if loopback == Loopback::Refused => {
            return reject("loopback receivers are refused");
        }
        Host::Local | Host::Name(_) => {}
    }
    if scheme == Scheme::Http && !host.is_loopback() {
        return reject("receivers must be called by https");
    }
    let path_and_query = match uri.path_and_query().map(PathAndQuery::as_str) {
        None | Some("") => PathAndQuery::from_static("/"),
        Some(text) if text.starts_with('/') => text.parse().expect("taken from a URL"),
        Some(query) => format!("/{query}").parse().expect("taken from a URL"),
    };
    Ok(Target { scheme, host: host.text(), port, path_and_query })
}

/// Judges an address that is about to be connected to.
pub(crate) fn check_address(address: IpAddr, loopback: Loopback) -> Result<(), Rejected> {
    match address {
        IpAddr::V4(address) => check_v4(address, loopback),
        IpAddr::V6(address) => check_v6(address, loopback),
    }
}

/// Whether an address is this machine, however it is written.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

enum Host {
    /// `localhost` or a name below it.
    Local,
    Name(String),
    Address(IpAddr),
}

impl Host {
    fn is_loopback(&self) -> bool {
        match self {
            Self::Local => true,
            Self::Name(_) => false,
            Self::Address(address) => is_loopback(*address),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Local => "localhost".to_owned(),
            Self::Name(name) => name.clone(),
            Self::Address(address) => address.to_string(),
        }
    }
}

fn host(text: &str) -> Result<Host, Rejected> {
    if let Some(inner) = text.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|it| it.parse::<Ipv6Addr>().ok());
        let Some(address) = address else { return reject("the URL's IPv6 address is malformed") };
        return Ok(Host::Address(IpAddr::V6(address)));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |it: &str| (1..=LABEL_BYTES_MAX).contains(&it.len()) && it.bytes().all(plain);
    if name.len() > HOST_BYTES_MAX || !name.split('.').all(label) {
        return reject("the URL's host is malformed");
    }
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    // 127.1, 0x7f000001 and 2130706433 are addresses to a resolver, and not names to anybody.
    let last = name.rsplit('.').next().unwrap_or_default();
    let decimal = last.bytes().all(|byte| byte.is_ascii_digit());
    let hexadecimal = last.strip_prefix("0x");
    if decimal || hexadecimal.is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return reject("the URL's IPv4 address is not written as four decimal numbers");
    }
    if name == "localhost" || name.ends_with(".localhost") {
        return if name == "localhost" {
            Ok(Host::Local)
        } else {
            reject("names below localhost are refused")
        };
    }
    Ok(Host::Name(name))
}

fn port(authority: &str, host: &str, scheme: Scheme) -> Result<u16, Rejected> {
    let rest = authority.strip_prefix(host).unwrap_or_default();
    match (rest.strip_prefix(':'), scheme) {
        (None, Scheme::Http) => Ok(80),
        (None, Scheme::Https) => Ok(443),
        (Some(digits), _) => match digits.parse::<u16>() {
            Ok(port) if port != 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
            _ => reject("the URL's port is malformed"),
        },
    }
}

/// What IANA keeps from the public Internet, in the order of the first byte.
fn check_v4(address: Ipv4Addr, loopback: Loopback) -> Result<(), Rejected> {
    match address.octets() {
        [127, ..] if loopback == Loopback::Allowed => Ok(()),
        [127, ..] => reject("loopback receivers are refused"),
        [0, ..] => reject("the address means this network"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => reject("the address is private"),
        [100, 64..=127, ..] => reject("the address is shared by a provider"),
        [169, 254, ..] => reject("the address is link-local"),
        [192, 0, 0, _] | [192, 88, 99, _] => reject("the address is reserved for protocols"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => {
            reject("the address is reserved for documentation")
        }
        [198, 18..=19, ..] => reject("the address is reserved for benchmarks"),
        [224..=239, ..] => reject("the address is multicast"),
        [240..=255, ..] => reject("the address is reserved or broadcast"),
        _ => Ok(()),
    }
}

/// Only what is handed out for the public Internet may pass: `2000::/3` without its special
/// parts, and IPv4 addresses in disguise that may pass undisguised.
fn check_v6(address: Ipv6Addr, loopback: Loopback) -> Result<(), Rejected> {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => reject("the address is unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] if loopback == Loopback::Allowed => Ok(()),
        [0, 0, 0, 0, 0, 0, 0, 1] => reject("loopback receivers are refused"),
        // Mapped: the system connects to the IPv4 address.
        [0, 0, 0, 0, 0, 0xffff, high, low] => check_v4(embedded(high, low), loopback),
        // Compatible, translated and NAT64: a router may.
        [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        // 6to4: the one tunnel that names its far end.
        | [0x2002, high, low, ..] => check_v4(embedded(high, low), Loopback::Refused),
        [0xfc00..=0xfdff, ..] => reject("the address is private"),
        [0xfe80..=0xfebf, ..] => reject("the address is link-local"),
        [0xff00..=0xffff, ..] => reject("the address is multicast"),
        [0x2001, 0..=0x01ff, ..] => reject("the address is reserved for protocols"),
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => {
            reject("the address is reserved for documentation")
        }
        [0x2000..=0x3fff, ..] => Ok(()),
        _ => reject("the address is not public"),
    }
}

#[cfg(test)]
mod tests;
