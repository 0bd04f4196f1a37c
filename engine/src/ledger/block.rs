//! Blocks: what is read at once. A header with two checksums, then the bytes of some changes or
//! of some commits, compressed where that makes them fewer.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    change::Change,
    format::{Damaged, Section, ensure, put_crc, take_crc},
    key::Key,
};
use crate::{
    inflate::inflate,
    log::codec::{Malformed, Put, Take},
    types::Lsn,
};

const ROWS_MAGIC: &[u8; 4] = b"WROW";
const TAIL_MAGIC: &[u8; 4] = b"WLOG";
pub(super) const BLOCK_HEADER_LEN: usize = 24;
/// zstd's own default: most of the gain for a fraction of the time.
const ZSTD_LEVEL: i32 = 3;

const CODEC_NONE: u8 = 0;
const CODEC_ZSTD: u8 = 1;

/// What a block holds, from its first to its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    Rows { first: Key, last: Key },
    Tail { first: Lsn, last: Lsn },
}

impl Bounds {
    const fn magic(&self) -> &'static [u8; 4] {
        match self {
            Self::Rows { .. } => ROWS_MAGIC,
            Self::Tail { .. } => TAIL_MAGIC,
        }
    }
}

/// What the index says of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where the block's header starts in the file.
    pub(super) offset: u64,
    /// Length of the bytes after the block's header.
    pub(super) stored_len: u32,
    /// Length of what they decode to.
    pub(super) raw_len: u32,
    /// The checksum of the bytes after the header.
    pub(super) crc: u32,
    /// How many changes or commits there are.
    pub(super) count: u32,
    pub(super) bounds: Bounds,
}

/// Which kind of block an index entry is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rows,
    Tail,
}

impl Entry {
    /// Length of header and bytes.
    pub(super) fn whole_len(&self) -> u64 {
        let header = u64::try_from(BLOCK_HEADER_LEN).expect("a small constant");
        header + u64::from(self.stored_len)
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.offset);
        for value in [self.stored_len, self.raw_len, self.crc, self.count] {
            out.put_u32_le(value);
        }
        match &self.bounds {
            Bounds::Rows { first, last } => {
                out.put_string(first.bytes());
                out.put_string(last.bytes());
            }
            Bounds::Tail { first, last } => {
                out.put_u64_le(first.get());
                out.put_u64_le(last.get());
            }
        }
    }

    pub(super) fn decode(take: &mut Take, kind: Kind) -> Result<Self, Malformed> {
        let offset = take.u64("index")?;
        let stored_len = take.u32("index")?;
        let raw_len = take.u32("index")?;
        let crc = take.u32("index")?;
        let count = take.u32("index")?;
        let bounds = match kind {
            Kind::Rows => {
                let first = Key::new(take.string("index")?);
                Bounds::Rows { first, last: Key::new(take.string("index")?) }
            }
            Kind::Tail => {
                let first = Lsn::new(take.u64("index")?);
                Bounds::Tail { first, last: Lsn::new(take.u64("index")?) }
            }
        };
        ensure(take, count > 0, "empty block")?;
        ensure(take, count <= raw_len, "more changes than bytes")?;
        Ok(Self { offset, stored_len, raw_len, crc, count, bounds })
    }
}

/// Lays out a block that is written at `offset`: its bytes and its index entry.
pub(super) fn encode(offset: u64, count: u32, raw: &[u8], bounds: Bounds) -> (BytesMut, Entry) {
    // Compression can only fail for lack of memory; stored plainly, nothing is lost.
    let squeezed = zstd::bulk::compress(raw, ZSTD_LEVEL).ok();
    let (codec, body) = match &squeezed {
        Some(squeezed) if squeezed.len() < raw.len() => (CODEC_ZSTD, squeezed.as_slice()),
        _ => (CODEC_NONE, raw),
    };
    let len = |len: usize| u32::try_from(len).expect("a block is one row or near its target");
    let (raw_len, stored_len, crc) = (len(raw.len()), len(body.len()), crc32c::crc32c(body));
    let mut out = BytesMut::with_capacity(BLOCK_HEADER_LEN + body.len());
    out.put_slice(bounds.magic());
    out.put_slice(&[codec, 0, 0, 0]);
    for value in [raw_len, stored_len, crc] {
        out.put_u32_le(value);
    }
    put_crc(&mut out);
    out.put_slice(body);
    (out, Entry { offset, stored_len, raw_len, crc, count, bounds })
}

/// Verifies block `no` as it is stored, header included, and yields its raw bytes.
fn open(no: u32, entry: &Entry, stored: &Bytes) -> Result<Bytes, Damaged> {
    unpack(entry, stored).map_err(|bad| Damaged::of(Section::Block(no), entry.offset, bad))
}

fn unpack(entry: &Entry, stored: &Bytes) -> Result<Bytes, Malformed> {
    let mut take = Take::new(stored.clone());
    let magic = take.array::<4>("block")?;
    ensure(&take, magic == *entry.bounds.magic(), "no such block")?;
    let codec = take.u8("block")?;
    let reserved = take.array::<3>("block")?;
    let raw_len = take.u32("block")?;
    let stored_len = take.u32("block")?;
    let crc = take.u32("block")?;
    take_crc(&mut take, &stored[..BLOCK_HEADER_LEN - 4])?;
    ensure(&take, reserved == [0; 3], "reserved bytes")?;
    ensure(&take, raw_len == entry.raw_len, "raw length differs from the index")?;
    ensure(&take, stored_len == entry.stored_len, "stored length differs from the index")?;
    ensure(&take, crc == entry.crc, "checksum differs from the index")?;
    let body = take.slice(take.left(), "block")?;
    ensure(&take, crc32c::crc32c(&body) == crc, "checksum differs")?;
    let raw_len = usize::try_from(raw_len).expect("u32 fits usize");
    let raw = match codec {
        CODEC_NONE => body,
        CODEC_ZSTD => inflate(&body, raw_len).ok_or(take.malformed("not decompressible"))?,
        _ => return Err(take.malformed("unknown codec")),
    };
    ensure(&take, raw.len() == raw_len, "raw length differs")?;
    Ok(raw)
}

/// Verifies and decodes a block of rows.
pub(super) fn decode_rows(no: u32, entry: &Entry, stored: &Bytes) -> Result<Vec<Change>, Damaged> {
    let raw = open(no, entry, stored)?;
    changes(entry, raw).map_err(|bad| Damaged::of(Section::Content(no), 0, bad))
}

fn changes(entry: &Entry, raw: Bytes) -> Result<Vec<Change>, Malformed> {
    let mut take = Take::new(raw);
    let mut changes: Vec<Change> = Vec::new();
    while !take.is_empty() {
        let change = Change::decode(&mut take)?;
        let ascends = changes.last().is_none_or(|before| change.may_follow(before));
        ensure(&take, ascends, "order of the changes")?;
        changes.push(change);
    }
    let count = u32::try_from(changes.len());
    ensure(&take, count == Ok(entry.count), "number of changes")?;
    let (first, last) = (changes.first(), changes.last());
    let found = first
        .zip(last)
        .map(|(first, last)| Bounds::Rows { first: first.key.clone(), last: last.key.clone() });
    ensure(&take, found.as_ref() == Some(&entry.bounds), "keys differ from the index")?;
    Ok(changes)
}

/// Appends a commit to the raw bytes of a block of them.
pub(super) fn put_commit(lsn: Lsn, commit: &[u8], raw: &mut BytesMut) {
    raw.put_varint(lsn.get());
    raw.put_string(commit);
}

/// Verifies and decodes a block of commits.
pub(super) fn decode_tail(
    no: u32,
    entry: &Entry,
    stored: &Bytes,
) -> Result<Vec<(Lsn, Bytes)>, Damaged> {
    let raw = open(no, entry, stored)?;
    commits(entry, raw).map_err(|bad| Damaged::of(Section::Content(no), 0, bad))
}

fn commits(entry: &Entry, raw: Bytes) -> Result<Vec<(Lsn, Bytes)>, Malformed> {
    let mut take = Take::new(raw);
    let mut commits: Vec<(Lsn, Bytes)> = Vec::new();
    while !take.is_empty() {
        let lsn = Lsn::new(take.varint("lsn of a commit")?);
        let ascends = commits.last().is_none_or(|(before, _)| *before < lsn);
        ensure(&take, ascends, "order of the commits")?;
        commits.push((lsn, take.string("commit")?));
    }
    let count = u32::try_from(commits.len());
    ensure(&take, count == Ok(entry.count), "number of commits")?;
    let (first, last) = (commits.first(), commits.last());
    let found = first.zip(last).map(|(first, last)| Bounds::Tail { first: first.0, last: last.0 });
    ensure(&take, found.as_ref() == Some(&entry.bounds), "commits differ from the index")?;
    Ok(commits)
}
