//! Bytes of a fork's ancestry, in CREATE entries and in stream rows alike.
//!
//! ```text
//! ancestry  0 u8 | or 1 u8, source, source name, asked + 1 (0: the tail), sub-offset,
//!           flags u8 (1: expiry inherited), count of runs, (stream, length)…
//! ```

use bytes::{BufMut, BytesMut};

use super::{
    codec::{Malformed, Put, Take},
    entry,
};
use crate::types::{Ancestry, Run, Seq, StreamId};

const EXPIRY_INHERITED: u8 = 1;

/// Writes an ancestry or that there is none.
pub(crate) fn put(ancestry: Option<&Ancestry>, out: &mut BytesMut) {
    let Some(ancestry) = ancestry else {
        out.put_u8(0);
        return;
    };
    out.put_u8(1);
    out.put_varint(ancestry.source.get());
    out.put_string(ancestry.source_name.as_str().as_bytes());
    out.put_varint(ancestry.asked.map_or(0, |asked| asked.get() + 1));
    out.put_varint(ancestry.sub_offset);
    out.put_u8(if ancestry.expiry_inherited { EXPIRY_INHERITED } else { 0 });
    out.put_varint(u64::try_from(ancestry.runs.len()).expect("usize fits u64"));
    let mut before = Seq::ZERO;
    for run in &ancestry.runs {
        out.put_varint(run.stream.get());
        out.put_varint(run.limit.since(before));
        before = run.limit;
    }
}

/// Reads what [`put`] wrote.
pub(crate) fn take(take: &mut Take) -> Result<Option<Ancestry>, Malformed> {
    match take.u8("ancestry")? {
        0 => return Ok(None),
        1 => {}
        _ => return Err(take.malformed("ancestry")),
    }
    let source = StreamId::new(take.varint("source")?);
    let source_name = entry::take_name(take)?;
    let asked = take.varint("fork point")?.checked_sub(1).map(Seq::new);
    let sub_offset = take.varint("sub-offset")?;
    let flags = take.u8("ancestry flags")?;
    if flags & !EXPIRY_INHERITED != 0 {
        return Err(take.malformed("ancestry flags of a later version"));
    }
    let mut runs = Vec::new();
    let mut before = 0u64;
    for _ in 0..take.count("runs")? {
        let stream = StreamId::new(take.varint("run")?);
        let limit = before.checked_add(take.varint("run")?);
        before = limit.ok_or(take.malformed("run"))?;
        runs.push(Run { stream, limit: Seq::new(before) });
    }
    let ancestry = Ancestry {
        source,
        source_name,
        at: Seq::new(before),
        asked,
        sub_offset,
        expiry_inherited: flags & EXPIRY_INHERITED != 0,
        runs: runs.into(),
    };
    ancestry.checked().map(Some).ok_or(take.malformed("runs"))
}
