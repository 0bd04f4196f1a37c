//! What the writers of the kill loop send, and how it is recognised again.
//!
//! A request is a few lines, made from the seed, the writer and its number
//! alone. So a reader needs no memory of what was sent to tell a changed byte, a
//! torn request or a request nobody made. A transcript is lines whatever the
//! stream's content type: text as it is, JSON strings one a line.

use anyhow::{Context, Result, bail, ensure};

/// Lines of one request, at most.
const LINES_MAX: u64 = 4;
/// A usual line, and one in so many that is long enough to span blocks.
const PAD_MAX: u64 = 120;
const LONG_PAD: u64 = 20_000;
const LONG_ONE_IN: u64 = 64;

/// A small generator with a seed: splitmix64. Only choices are drawn from it.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// One for a part of the test that must not depend on the other parts.
    pub fn apart(seed: u64, parts: &[u64]) -> Chance {
        let mut chance = Chance(seed);
        for part in parts {
            chance = Chance(chance.draw() ^ part.wrapping_mul(0xff51_afd7_ed55_8ccd));
        }
        chance
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// How a stream's content is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Text,
    Json,
}

impl Framing {
    pub fn content_type(self) -> &'static str {
        match self {
            Framing::Text => "text/plain",
            Framing::Json => "application/json",
        }
    }

    /// The lines in a body the server answered with, each with its line feed.
    pub fn lines_of(self, body: &[u8]) -> Result<Vec<u8>> {
        if self == Framing::Text {
            return Ok(body.to_vec());
        }
        let messages: Vec<String> =
            serde_json::from_slice(body).context("a JSON read is an array of our strings")?;
        let mut lines = Vec::new();
        for message in messages {
            lines.extend_from_slice(message.as_bytes());
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

/// One request of one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    pub writer: u64,
    pub number: u64,
}

impl Request {
    /// Its lines, each with its line feed.
    pub fn lines(self, seed: u64) -> Vec<String> {
        let Request { writer, number } = self;
        let mut chance = Chance::apart(seed, &[writer, number]);
        let count = 1 + chance.below(LINES_MAX);
        let mut lines = Vec::new();
        for index in 0..count {
            let length = if chance.one_in(LONG_ONE_IN) { LONG_PAD } else { chance.below(PAD_MAX) };
            let mut pad = String::new();
            for _ in 0..length.div_ceil(16) {
                pad.push_str(&format!("{:016x}", chance.draw()));
            }
            lines.push(format!("{writer}.{number}.{index}/{count} {pad}\n"));
        }
        lines
    }

    /// Its body, as posted to a stream of that framing.
    pub fn body(self, seed: u64, framing: Framing) -> Vec<u8> {
        let lines = self.lines(seed);
        match framing {
            Framing::Text => lines.concat().into_bytes(),
            Framing::Json => {
                let strings: Vec<String> = lines
                    .iter()
                    .map(|line| format!("\"{}\"", line.trim_end_matches('\n')))
                    .collect();
                format!("[{}]", strings.join(",")).into_bytes()
            }
        }
    }
}

/// A request found in a transcript, and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub request: Request,
    pub end: usize,
}

/// Every request of a complete transcript. Fails on a torn one, on a changed
/// byte and on a line that no writer makes.
pub fn parse(seed: u64, transcript: &[u8]) -> Result<Vec<Placed>> {
    let mut placed = Vec::new();
    let mut at = 0;
    while at < transcript.len() {
        let request = first_line(&transcript[at..])
            .with_context(|| format!("no request begins at byte {at}: {}", show(transcript, at)))?;
        let expect = request.lines(seed).concat();
        let end = at + expect.len();
        let found = transcript.get(at..end);
        if found != Some(expect.as_bytes()) {
            bail!("{request:?} is torn or changed at byte {at}: {}", show(transcript, at));
        }
        placed.push(Placed { request, end });
        at = end;
    }
    Ok(placed)
}

fn first_line(bytes: &[u8]) -> Result<Request> {
    let line = bytes.split(|byte| *byte == b'\n').next().context("a split has a first part")?;
    let text = std::str::from_utf8(line)?;
    let (id, _) = text.split_once(' ').context("an id and its pad")?;
    let parts: Vec<&str> = id.split('.').collect();
    ensure!(parts.len() == 3 && parts[2].starts_with("0/"), "not a first line: {id}");
    Ok(Request { writer: parts[0].parse()?, number: parts[1].parse()? })
}

/// The bytes around a place, for a failure's text.
pub fn show(transcript: &[u8], at: usize) -> String {
    let before = at.saturating_sub(40);
    let after = (at + 60).min(transcript.len());
    let shown = String::from_utf8_lossy(&transcript[before..after]).into_owned();
    format!("{shown:?} (bytes {before}..{after} of {})", transcript.len())
}

#[cfg(test)]
mod tests {
    use super::{Framing, Placed, Request, parse};

    const SEED: u64 = 7;

    fn transcript(requests: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (writer, number) in requests {
            let request = Request { writer: *writer, number: *number };
            bytes.extend(request.lines(SEED).concat().into_bytes());
        }
        bytes
    }

    #[test]
    fn what_was_sent_is_recognised() {
        let sent: Vec<(u64, u64)> = (0..200).map(|number| (number % 3, number)).collect();
        let bytes = transcript(&sent);
        let found = parse(SEED, &bytes).expect("whole");
        let requests: Vec<(u64, u64)> =
            found.iter().map(|each| (each.request.writer, each.request.number)).collect();
        assert_eq!(requests, sent);
        let last = Placed { end: bytes.len(), ..found[found.len() - 1] };
        assert_eq!(found.last(), Some(&last));
    }

    #[test]
    fn every_missing_or_changed_byte_is_noticed() {
        let bytes = transcript(&[(1, 0), (2, 0), (1, 1)]);
        let whole = parse(SEED, &bytes).expect("whole");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(parse(SEED, &changed).is_err(), "byte {at} changed");
            let between = at == 0 || whole.iter().any(|placed| placed.end == at);
            assert_eq!(parse(SEED, &bytes[..at]).is_ok(), between, "cut at {at}");
        }
    }

    #[test]
    fn a_json_read_gives_the_same_lines_as_a_text_read() {
        for number in 0..50 {
            let request = Request { writer: 1, number };
            let text = Framing::Text.lines_of(&request.body(SEED, Framing::Text));
            let json = Framing::Json.lines_of(&request.body(SEED, Framing::Json));
            assert_eq!(text.expect("lines"), json.expect("lines"));
        }
    }
}
