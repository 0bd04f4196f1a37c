//! What the clients of one stream know, and whether the server still agrees.
//!
//! Pure: fed with acknowledgements, unknown outcomes, the transcripts of live
//! readers and complete reads, it says whether all of them can be true of one
//! append-only stream:
//!
//! - every acknowledged request is there exactly once, whole, and ends at the
//!   offset it was acknowledged with;
//! - a request of unknown outcome is there once or not at all, and nothing is
//!   there that nobody sent;
//! - the requests of a writer are in the order they were sent;
//! - an offset stands for one place for ever, and offsets sort like places;
//! - what a reader has seen stays, byte for byte, where it was.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

use super::record::{self, Request, show};

/// What one reader has received so far.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    pub bytes: Vec<u8>,
    /// Offsets the server named, each with the length of `bytes` it stands at.
    pub marks: Vec<(String, usize)>,
}

/// What a writer was told, or not told, of its requests.
#[derive(Clone, Debug, Default)]
struct Claims {
    /// With every offset the request was ever acknowledged with.
    acked: BTreeMap<u64, BTreeSet<String>>,
    unknown: BTreeSet<u64>,
}

/// All that is known of one stream.
#[derive(Clone, Debug)]
pub struct History {
    seed: u64,
    claims: BTreeMap<u64, Claims>,
    /// The last complete read.
    seen: Vec<u8>,
    /// Where each offset anyone was told stands.
    places: BTreeMap<String, usize>,
}

impl History {
    pub fn new(seed: u64) -> History {
        History { seed, claims: BTreeMap::new(), seen: Vec::new(), places: BTreeMap::new() }
    }

    /// The server said that the request is kept, and where it ends.
    pub fn acked(&mut self, request: Request, offset: Option<String>) {
        let claims = self.claims.entry(request.writer).or_default();
        claims.unknown.remove(&request.number);
        claims.acked.entry(request.number).or_default().extend(offset);
    }

    /// The request was sent and no answer came.
    pub fn unknown(&mut self, request: Request) {
        let claims = self.claims.entry(request.writer).or_default();
        claims.unknown.insert(request.number);
    }

    pub fn acked_count(&self) -> usize {
        self.claims.values().map(|claims| claims.acked.len()).sum()
    }

    /// Offsets anyone was told, and the place each stands for.
    pub fn places(&self) -> &BTreeMap<String, usize> {
        &self.places
    }

    /// Holds a complete read, and what the readers saw, to everything known.
    pub fn check(&mut self, read: &Transcript, readers: &[&Transcript]) -> Result<()> {
        keeps("the last complete read", &self.seen, &read.bytes)?;
        for (number, reader) in readers.iter().enumerate() {
            keeps(&format!("what live reader {number} saw"), &reader.bytes, &read.bytes)?;
        }
        let ends = self.check_requests(&read.bytes)?;
        self.check_offsets(read, readers, &ends)?;
        self.seen.clone_from(&read.bytes);
        Ok(())
    }

    /// Checks presence, absence and order; returns where each request ends.
    fn check_requests(&self, bytes: &[u8]) -> Result<BTreeMap<Request, usize>> {
        let mut ends = BTreeMap::new();
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for placed in record::parse(self.seed, bytes)? {
            let Request { writer, number } = placed.request;
            let before = last.insert(writer, number);
            if before.is_some_and(|before| before >= number) {
                bail!("{:?} comes after {before:?}: repeated or out of order", placed.request);
            }
            let claims = self.claims.get(&writer).context("a writer we know")?;
            let sent = claims.acked.contains_key(&number) || claims.unknown.contains(&number);
            ensure!(sent, "{:?} is there but was never sent", placed.request);
            ends.insert(placed.request, placed.end);
        }
        for (&writer, claims) in &self.claims {
            for &number in claims.acked.keys() {
                let request = Request { writer, number };
                ensure!(ends.contains_key(&request), "{request:?} was acknowledged and is lost");
            }
        }
        Ok(ends)
    }

    /// Enters every offset anyone was told; fails where two claims disagree.
    fn check_offsets(
        &mut self,
        read: &Transcript,
        readers: &[&Transcript],
        ends: &BTreeMap<Request, usize>,
    ) -> Result<()> {
        for (&writer, claims) in &self.claims {
            for (&number, offsets) in &claims.acked {
                let request = Request { writer, number };
                let end = *ends.get(&request).context("an acknowledged request was found")?;
                for offset in offsets {
                    place(&mut self.places, offset, end)
                        .with_context(|| format!("the acknowledgement of {request:?}"))?;
                }
            }
        }
        for transcript in readers.iter().copied().chain([read]) {
            for (offset, length) in &transcript.marks {
                place(&mut self.places, offset, *length).context("an offset of a read")?;
            }
        }
        let mut before: Option<(&String, usize)> = None;
        for (offset, &length) in &self.places {
            if let Some((lower, shorter)) = before {
                ensure!(
                    shorter < length,
                    "{lower} sorts before {offset} but stands at byte {shorter}, not before {length}"
                );
            }
            before = Some((offset, length));
        }
        Ok(())
    }
}

fn place(places: &mut BTreeMap<String, usize>, offset: &str, length: usize) -> Result<()> {
    let known = places.entry(offset.to_owned()).or_insert(length);
    ensure!(*known == length, "offset {offset} stood at byte {known} and now at {length}");
    Ok(())
}

fn keeps(what: &str, known: &[u8], now: &[u8]) -> Result<()> {
    if now.starts_with(known) {
        return Ok(());
    }
    let at = known.iter().zip(now).take_while(|(a, b)| a == b).count();
    bail!(
        "{what} is no longer there from byte {at} on:\n  known {}\n  now   {}",
        show(known, at),
        show(now, at)
    );
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
