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
//! harmed, which is what SQLite's `POWERSAFE_OVERWRITE` assumes of real drives too.

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
    volatile: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize { len: usize },
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.volatile.len()
    }

    /// The bytes from `offset` on that a reader sees; none beyond the end.
    pub(super) fn read(&self, offset: usize) -> &[u8] {
        self.volatile.get(offset..).unwrap_or(&[])
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.volatile, offset, bytes);
        self.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.volatile.resize(len, 0);
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
            if let Some(byte) = copy.get_mut(byte) {
                *byte ^= mask;
            }
        }
        byte < self.volatile.len()
    }
}

impl Change {
    fn apply(self, medium: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => put(medium, offset, &bytes),
            Change::Resize { len } => medium.resize(len, 0),
        }
    }
}

fn put(medium: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if medium.len() < end {
        medium.resize(end, 0);
    }
    medium[offset..end].copy_from_slice(bytes);
}

fn cut_write(medium: &mut Vec<u8>, offset: usize, bytes: &[u8], cut: Cut, chance: &mut ChaCha8Rng) {
    let mut at = 0;
    while at < bytes.len() {
        let sector_end = ((offset + at) / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let next = bytes.len().min(sector_end - offset);
        if chance.random_bool(cut.keep) {
            let torn = chance.random_bool(cut.tear);
            let end = if torn { chance.random_range(at..next) } else { next };
            put(medium, offset + at, &bytes[at..end]);
        }
        at = next;
    }
}
