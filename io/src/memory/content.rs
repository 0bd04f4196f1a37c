//! The bytes of one file: what a reader sees, what the medium holds, and the difference.
//!
//! ```text
//! volatile  what every read sees                     written at once
//! pending   changes since the last good sync         in order
//! durable   what a power cut leaves                  durable + any part of pending
//! ```
//!
//! A power cut keeps, drops or tears each 512-byte sector of each pending write by itself:
//! that is loss, reordering and tearing in one. Bytes outside a written range are never
//! harmed, which is what SQLite's `POWERSAFE_OVERWRITE` assumes of real drives too. Holes are
//! known by byte: they cost memory as any byte does, but no room on the drive.

use std::{collections::BTreeMap, ops::Range};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// What a drive writes whole or not at all, unless torn.
const SECTOR_BYTES: usize = 512;

/// How cruel one power cut is.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Probability that an unsynced sector or name change survives.
    pub keep: f64,
    /// Probability that a surviving sector survives only in part.
    pub tear: f64,
}

impl Cut {
    /// Draws one of the extremes or something between: uniform draws would rarely show a cut
    /// that loses everything, or nothing but one sector.
    pub(super) fn draw(chance: &mut ChaCha8Rng) -> Cut {
        const KEEP: [f64; 5] = [0.0, 0.1, 0.5, 0.9, 1.0];
        const TEAR: [f64; 3] = [0.0, 0.05, 0.5];
        Cut {
            keep: KEEP[chance.random_range(0..KEEP.len())],
            tear: TEAR[chance.random_range(0..TEAR.len())],
        }
    }
}

/// A file's bytes.
#[derive(Debug, Default)]
pub(super) struct Content {
    volatile: Medium,
    durable: Medium,
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize { len: usize },
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.volatile.bytes.len()
    }

    /// Bytes that are no hole.
    pub(super) fn allocated(&self) -> usize {
        let holes: usize = self.volatile.holes.iter().map(|(start, end)| end - start).sum();
        self.len() - holes
    }

    /// How many bytes of a range are a hole or beyond the end.
    pub(super) fn unallocated(&self, range: Range<usize>) -> usize {
        let beyond = range.end.saturating_sub(range.start.max(self.len()));
        let holes = self.volatile.holes.iter();
        let within =
            holes.map(|(&start, &end)| end.min(range.end).saturating_sub(start.max(range.start)));
        beyond + within.sum::<usize>()
    }

    /// The bytes from `offset` on that a reader sees; none beyond the end.
    pub(super) fn read(&self, offset: usize) -> &[u8] {
        self.volatile.bytes.get(offset..).unwrap_or(&[])
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.volatile.put(offset, bytes);
        self.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.volatile.resize(len);
        self.pending.push(Change::Resize { len });
    }

    /// A good sync: all pending changes reach the medium.
    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A failed sync of the worst kind: about half of the pending changes reached the medium,
    /// and all of them count as written from now on.
    pub(super) fn sync_forgetting(&mut self, chance: &mut ChaCha8Rng) {
        for change in self.pending.drain(..) {
            if chance.random_bool(0.5) {
                change.apply(&mut self.durable);
            }
        }
    }

    /// Power is lost and comes back.
    pub(super) fn cut(&mut self, cut: Cut, chance: &mut ChaCha8Rng) {
        for change in self.pending.drain(..) {
            match change {
                Change::Write { offset, bytes } => {
                    cut_write(&mut self.durable, offset, &bytes, cut, chance);
                }
                Change::Resize { .. } => {
                    if chance.random_bool(cut.keep) {
                        change.apply(&mut self.durable);
                    }
                }
            }
        }
        self.volatile.clone_from(&self.durable);
    }

    /// Inverts one bit on the medium and in the cache, as a decayed cell read back would.
    /// False if the file has no such byte.
    pub(super) fn flip(&mut self, byte: usize, bit: u8) -> bool {
        let mask = 1_u8 << (bit % 8);
        for copy in [&mut self.volatile, &mut self.durable] {
            if let Some(byte) = copy.bytes.get_mut(byte) {
                *byte ^= mask;
            }
        }
        byte < self.len()
    }
}

impl Change {
    fn apply(self, medium: &mut Medium) {
        match self {
            Change::Write { offset, bytes } => medium.put(offset, &bytes),
            Change::Resize { len } => medium.resize(len),
        }
    }
}

/// Bytes, and which of them were never written.
#[derive(Clone, Debug, Default)]
struct Medium {
    bytes: Vec<u8>,
    /// Where holes start and end.
    holes: BTreeMap<usize, usize>,
}

impl Medium {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.resize(end);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        self.fill(offset..end);
    }

    fn resize(&mut self, len: usize) {
        let old = self.bytes.len();
        self.bytes.resize(len, 0);
        if old < len {
            self.holes.insert(old, len);
        } else {
            self.fill(len..old);
        }
    }

    /// There is no hole in this range any more.
    fn fill(&mut self, range: Range<usize>) {
        // Holes don't overlap, so from the back the first that ends before the range is the last
        // one to look at: a file that was torn in thousands of places is filled place by place.
        let before = self.holes.range(..range.end).rev();
        let touched = before.take_while(|(_, end)| **end > range.start);
        let touched: Vec<(usize, usize)> = touched.map(|(start, end)| (*start, *end)).collect();
        for (start, end) in touched {
            self.holes.remove(&start);
            if start < range.start {
                self.holes.insert(start, range.start);
            }
            if range.end < end {
                self.holes.insert(range.end, end);
            }
        }
    }
}

fn cut_write(medium: &mut Medium, offset: usize, bytes: &[u8], cut: Cut, chance: &mut ChaCha8Rng) {
    let mut at = 0;
    while at < bytes.len() {
        let sector_end = ((offset + at) / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let next = bytes.len().min(sector_end - offset);
        if chance.random_bool(cut.keep) {
            let torn = chance.random_bool(cut.tear);
            let end = if torn { chance.random_range(at..next) } else { next };
            medium.put(offset + at, &bytes[at..end]);
        }
        at = next;
    }
}
