//! Blocks: what is read at once. A header with two checksums, then the parts of one or more
//! streams, possibly compressed.
//!
//! ```text
//! header 24 │ directory │ tables of all parts │ payloads of all parts
//!             └────────────── raw bytes ─────────────────────────────┘
//! ```

use bytes::Bytes;

use super::{
    fields::{Take, put_len, put_varint},
    format::{BlockNo, Codec, Damaged, Entry, Section, put_crc, take_crc},
    part::{Outline, Part},
    reader::to_u64,
};
use crate::{
    inflate::inflate,
    types::{Form, Seq, StreamId},
};

pub(super) const MAGIC: &[u8; 4] = b"WBLK";
pub(super) const BLOCK_HEADER_LEN: usize = 24;
/// Level 3 is zstd's own default: most of the gain for a fraction of the time.
const ZSTD_LEVEL: i32 = 3;

const CODEC_NONE: u8 = 0;
const CODEC_ZSTD: u8 = 1;

/// A decoded block: its parts in order of their streams.
#[derive(Debug)]
pub(crate) struct Block {
    parts: Box<[Part]>,
    bytes: usize,
}

impl Block {
    /// The records of one stream, if the block has any.
    pub(crate) fn part(&self, stream: StreamId) -> Option<&Part> {
        let found = self.parts.binary_search_by_key(&stream, Part::stream);
        found.ok().map(|index| &self.parts[index])
    }

    /// All parts, in order of their streams; at least one.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Bytes held in memory: the raw bytes and the tables made of them.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Verifies and decodes a block as it is stored, header included.
    pub(super) fn decode(no: BlockNo, entry: &Entry, stored: &Bytes) -> Result<Self, Damaged> {
        let head = Head::decode(no, entry.offset, stored)?;
        let at = entry.offset.saturating_add(to_u64(BLOCK_HEADER_LEN));
        let differs = |reason| Damaged { section: Section::Block(no), at, reason };
        if head.raw_len != entry.raw_len {
            return Err(differs("raw length differs from the index"));
        }
        if head.stored_len != entry.stored_len {
            return Err(differs("stored length differs from the index"));
        }
        let (parts, raw_len) = head.open(no, entry.offset, stored)?;
        agree(no, entry, &parts)?;
        Ok(Self::of(parts, raw_len))
    }

    /// The same of a block that no index describes; says what one would say of it.
    pub(super) fn decode_alone(
        no: BlockNo,
        offset: u64,
        stored: &Bytes,
    ) -> Result<(Self, Entry), Damaged> {
        let head = Head::decode(no, offset, stored)?;
        let (parts, raw_bytes) = head.open(no, offset, stored)?;
        let first = parts.first().expect("checked: at least one part");
        let last = parts.last().expect("checked: at least one part");
        let entry = Entry {
            offset,
            stored_len: head.stored_len,
            raw_len: head.raw_len,
            first: (first.stream(), first.first()),
            first_timestamp: first.timestamp_of(first.first()),
            limit: (last.stream(), last.limit()),
        };
        Ok((Self::of(parts, raw_bytes), entry))
    }

    fn of(parts: Box<[Part]>, raw_len: usize) -> Self {
        let tables: usize = parts.iter().map(Part::table_bytes).sum();
        Self { parts, bytes: raw_len + tables }
    }
}

/// What the first bytes of a block say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    codec: u8,
    raw_len: u32,
    /// Length of the bytes that follow.
    pub(super) stored_len: u32,
    crc: u32,
}

impl Head {
    /// Verifies the header of a block that begins with these bytes.
    pub(super) fn decode(no: BlockNo, offset: u64, stored: &[u8]) -> Result<Self, Damaged> {
        let mut take = Take::new(stored, Section::Block(no), offset);
        let magic = take.array::<4>()?;
        take.check(magic == *MAGIC, "no block")?;
        let codec = take.u8()?;
        let reserved = take.array::<3>()?;
        let raw_len = take.u32()?;
        let stored_len = take.u32()?;
        let crc = take.u32()?;
        take_crc(&mut take, stored, 0)?;
        take.check(reserved == [0; 3], "reserved bytes")?;
        Ok(Self { codec, raw_len, stored_len, crc })
    }

    /// Verifies and decodes what follows. Says also how long it is, decompressed.
    fn open(
        &self,
        no: BlockNo,
        offset: u64,
        stored: &Bytes,
    ) -> Result<(Box<[Part]>, usize), Damaged> {
        let mut take = Take::new(stored, Section::Block(no), offset);
        take.range(BLOCK_HEADER_LEN)?;
        let body = stored.slice(take.range(stored.len() - take.at())?);
        take.check(crc32c::crc32c(&body) == self.crc, "checksum differs")?;

        let raw_len = usize::try_from(self.raw_len).expect("u32 fits usize");
        let raw = match self.codec {
            CODEC_NONE => body,
            CODEC_ZSTD => inflate(&body, raw_len).ok_or(take.damaged("not decompressible"))?,
            _ => return Err(take.damaged("unknown codec")),
        };
        take.check(raw.len() == raw_len, "raw length differs")?;
        Ok((parts(no, &raw)?, raw_len))
    }
}

fn parts(no: BlockNo, raw: &Bytes) -> Result<Box<[Part]>, Damaged> {
    let mut take = Take::new(raw, Section::Content(no), 0);
    let count = take.count()?;
    take.check(count > 0, "no part")?;
    let mut outlines: Vec<Outline> = Vec::with_capacity(count);
    for _ in 0..count {
        let before = outlines.last().map(|outline| outline.stream);
        outlines.push(Outline::decode(&mut take, before)?);
    }
    let tables_len = sum(outlines.iter().map(|outline| outline.table_len));
    let payloads_len = sum(outlines.iter().map(|outline| outline.payload_len));
    let payloads_at = tables_len.and_then(|len| take.at().checked_add(len));
    let end = payloads_at.zip(payloads_len).and_then(|(at, len)| at.checked_add(len));
    let mut payload_at = match (payloads_at, end) {
        (Some(at), Some(end)) if end == raw.len() => at,
        _ => return Err(take.damaged("lengths of the parts")),
    };
    let mut parts = Vec::with_capacity(count);
    for outline in outlines {
        let payload = raw.slice(payload_at..payload_at + outline.payload_len);
        payload_at += outline.payload_len;
        parts.push(outline.fill(&mut take, raw, payload)?);
    }
    Ok(parts.into_boxed_slice())
}

fn sum(mut lens: impl Iterator<Item = usize>) -> Option<usize> {
    lens.try_fold(0usize, |sum, len| sum.checked_add(len))
}

/// The same things the builder wrote into the index must be found in the block.
fn agree(no: BlockNo, entry: &Entry, parts: &[Part]) -> Result<(), Damaged> {
    let first = parts.first().expect("checked: at least one part");
    let last = parts.last().expect("checked: at least one part");
    let found = (first.stream(), first.first(), first.timestamp_of(first.first()));
    let damaged = |reason| Damaged { section: Section::Content(no), at: 0, reason };
    if found != (entry.first.0, entry.first.1, entry.first_timestamp) {
        return Err(damaged("first record differs from the index"));
    }
    if (last.stream(), last.limit()) != entry.limit {
        return Err(damaged("last record differs from the index"));
    }
    Ok(())
}

impl Outline {
    /// Appends the directory entry of a part that follows one of `before`.
    pub(super) fn encode(&self, before: Option<StreamId>, out: &mut Vec<u8>) {
        put_varint(out, self.stream.get() - before.map_or(0, StreamId::get));
        out.push(match self.form {
            Form::Binary => 0,
            Form::Json => 1,
            Form::Text => 2,
        });
        put_varint(out, self.first.get());
        put_len(out, self.count);
        put_len(out, self.table_len);
        put_len(out, self.payload_len);
    }

    fn decode(take: &mut Take<'_>, before: Option<StreamId>) -> Result<Self, Damaged> {
        let delta = take.varint()?;
        take.check(before.is_none() || delta > 0, "stream repeated")?;
        let stream = before.map_or(0, StreamId::get).checked_add(delta);
        let stream = StreamId::new(stream.ok_or(take.damaged("stream over 64 bits"))?);
        let form = match take.u8()? {
            0 => Form::Binary,
            1 => Form::Json,
            2 => Form::Text,
            _ => return Err(take.damaged("unknown form")),
        };
        let first = Seq::new(take.varint()?);
        let count = take.count()?;
        take.check(count > 0, "part without a record")?;
        let room = u64::MAX - first.get();
        let fits = u64::try_from(count).is_ok_and(|count| count <= room);
        take.check(fits, "sequence over 64 bits")?;
        Ok(Self { stream, form, first, count, table_len: take.len()?, payload_len: take.len()? })
    }
}

/// Lays out a block: header and stored bytes. The codec is a wish: bytes that do not shrink
/// are stored as they are.
pub(super) fn encode(raw: &[u8], codec: Codec) -> Vec<u8> {
    let squeezed = match codec {
        Codec::None => None,
        // Compression can only fail for lack of memory; stored plainly, nothing is lost.
        Codec::Zstd => zstd::bulk::compress(raw, ZSTD_LEVEL).ok(),
    };
    let (codec, body) = match &squeezed {
        Some(squeezed) if squeezed.len() < raw.len() => (CODEC_ZSTD, squeezed.as_slice()),
        _ => (CODEC_NONE, raw),
    };
    let mut out = Vec::with_capacity(BLOCK_HEADER_LEN + body.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[codec, 0, 0, 0]);
    for len in [raw.len(), body.len()] {
        let len = u32::try_from(len).expect("a block is one record or near its target");
        out.extend_from_slice(&len.to_le_bytes());
    }
    out.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    put_crc(&mut out, 0);
    out.extend_from_slice(body);
    out
}
