//! What flags take, and what is said of what they do not.

use std::time::Duration;

use crate::{
    cli::flags::parse_duration,
    wire::{date, retention},
};

/// The largest number of a message that every client can write: 2⁵³ − 1.
pub(super) const SEQ_MAX: u64 = (1 << 53) - 1;

pub(super) fn parse_ttl(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => {
            Err("want more than no time, after which it would be gone: 30m, 7d".to_owned())
        }
        ttl => Ok(ttl),
    }
}

pub(super) fn parse_end(text: &str) -> Result<String, String> {
    match date::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("want a time like 2027-01-01T00:00:00Z; --ttl 7d counts from now".to_owned()),
    }
}

pub(super) fn parse_retention(text: &str) -> Result<String, String> {
    match retention::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("want max-age=7d, max-bytes=1000000, or both with ';' between".to_owned()),
    }
}

pub(super) fn parse_stream(text: &str) -> Result<String, String> {
    match text.trim_matches('/') {
        url if url.starts_with("http://") || url.starts_with("https://") => {
            Err("a name is wanted, not a URL: `--url http://HOST:PORT NAME`".to_owned())
        }
        "" => Err("a stream has a name: `weir ls` lists them".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

pub(super) fn parse_type(text: &str) -> Result<String, String> {
    Ok(match text {
        "json" => "application/json",
        "text" => "text/plain; charset=utf-8",
        "binary" => "application/octet-stream",
        _ if text.contains('/') => text,
        _ => return Err("want json, text, binary or a type like image/png".to_owned()),
    }
    .to_owned())
}

pub(super) fn parse_lines(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|it| (0..=1_000_000).contains(it));
    number.ok_or_else(|| "want a number up to a million".to_owned())
}

pub(super) fn parse_batch(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|it| (1..=100_000).contains(it));
    number.ok_or_else(|| "want a number from 1 to 100000".to_owned())
}
