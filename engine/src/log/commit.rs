//! Commits: the header before a group of entries and the chain it forms.
//!
//! ```text
//!  0  magic "WEIRLOG1"        48  wall time ms u64
//!  8  version u16, flags u16  56  store time ms u64
//! 12  entries u32             64  predecessor's lsn u64
//! 16  store id 16 bytes       72  predecessor's crc u32
//! 32  lsn u64                 76  body length u32
//! 40  writer epoch u64        80  crc32c u32 of bytes 0..80 and the body
//! 84  body
//! ```
//! All integers little-endian. The same bytes can be shipped or put in a bucket as they are.

use bytes::{Bytes, BytesMut};

use super::codec::{Malformed, Take};
use crate::types::{Lsn, StoreMs, WallMs};

/// Bytes before the body.
pub(crate) const HEADER_BYTES: usize = 84;
const CRC_AT: usize = 80;
const MAGIC: [u8; 8] = *b"WEIRLOG1";
const VERSION: u16 = 3;

/// Identity of a store: random, made when its directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreId(pub(crate) [u8; 16]);

/// Where the chain of commits ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) lsn: Lsn,
    pub(crate) crc: u32,
}

/// What a commit says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) store: StoreId,
    pub(crate) lsn: Lsn,
    pub(crate) writer_epoch: u64,
    pub(crate) wall: WallMs,
    pub(crate) store_ms: StoreMs,
    pub(crate) entries: u32,
    pub(crate) before: Link,
}

/// Fills in the header of a group whose first [`HEADER_BYTES`] were left free, and returns the
/// link the next commit refers to.
pub(crate) fn finish(header: &Header, group: &mut BytesMut) -> Link {
    let body = u32::try_from(group.len() - HEADER_BYTES).expect("groups are bounded below 4 GiB");
    let mut put = |at: usize, bytes: &[u8]| group[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC);
    put(8, &VERSION.to_le_bytes());
    put(10, &[0, 0]);
    put(12, &header.entries.to_le_bytes());
    put(16, &header.store.0);
    put(32, &header.lsn.get().to_le_bytes());
    put(40, &header.writer_epoch.to_le_bytes());
    put(48, &header.wall.get().to_le_bytes());
    put(56, &header.store_ms.get().to_le_bytes());
    put(64, &header.before.lsn.get().to_le_bytes());
    put(72, &header.before.crc.to_le_bytes());
    put(76, &body.to_le_bytes());
    let crc = checksum(group);
    group[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    Link { lsn: header.lsn, crc }
}

fn checksum(commit: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&commit[..CRC_AT]), &commit[HEADER_BYTES..])
}

/// Reads a commit: its header, its link and its body.
pub(crate) fn open(commit: &Bytes) -> Result<(Header, Link, Bytes), Malformed> {
    let mut take = Take::new(commit.clone());
    let bad = |what| Malformed { what, at: 0 };
    if commit.len() < HEADER_BYTES {
        return Err(bad("commit shorter than its header"));
    }
    if take.array::<8>("magic")? != MAGIC {
        return Err(bad("commit magic"));
    }
    if take.array::<2>("version")? != VERSION.to_le_bytes() {
        return Err(bad("commit version"));
    }
    take.array::<2>("flags")?;
    let entries = take.u32("entries")?;
    let store = StoreId(take.array("store id")?);
    let lsn = Lsn::new(take.u64("lsn")?);
    let writer_epoch = take.u64("writer epoch")?;
    let wall = WallMs::new(take.u64("wall time")?);
    let store_ms = StoreMs::new(take.u64("store time")?);
    let before = Link { lsn: Lsn::new(take.u64("predecessor")?), crc: take.u32("predecessor")? };
    let body_len = usize::try_from(take.u32("body length")?).expect("u32 fits usize");
    let crc = take.u32("crc")?;
    if body_len != commit.len() - HEADER_BYTES {
        return Err(bad("commit body length"));
    }
    if crc != checksum(commit) {
        return Err(bad("commit checksum"));
    }
    let header = Header { store, lsn, writer_epoch, wall, store_ms, entries, before };
    Ok((header, Link { lsn, crc }, commit.slice(HEADER_BYTES..)))
}
