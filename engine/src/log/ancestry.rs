//! Bytes of a fork's ancestry, in CREATE entries and in stream rows alike.
//!
//! ```text
//! ancestry  0 u8 | or 1 u8, source, source name, flags u8 (1: expiry inherited,
//!           2: a point was named), epoch and position of that point if it was, anchor,
//!           sub-offset, depth, count of runs, (stream, length)…
//! ```

use bytes::{BufMut, BytesMut};

use super::{
    codec::{Malformed, Put, Take},
    entry,
};
use crate::types::{Ancestry, Offset, Run, Seq, StreamId};

const EXPIRY_INHERITED: u8 = 1;
const POINT_NAMED: u8 = 2;

/// Writes an ancestry or that there is none.
pub(crate) fn put(ancestry: Option<&Ancestry>, out: &mut BytesMut) {
    let Some(ancestry) = ancestry else {
        out.put_u8(0);
        return;
    };
    out.put_u8(1);
    out.put_varint(ancestry.source.get());
    out.put_string(ancestry.source_name.as_str().as_bytes());
    let flag = |bit: u8, on: bool| if on { bit } else { 0 };
    out.put_u8(
        flag(EXPIRY_INHERITED, ancestry.expiry_inherited)
            | flag(POINT_NAMED, ancestry.asked.is_some()),
    );
    if let Some(asked) = ancestry.asked {
        out.put_varint(u64::from(asked.epoch.get()));
        out.put_varint(asked.next.get());
    }
    out.put_varint(ancestry.anchor.get());
    out.put_varint(ancestry.sub_offset);
    out.put_varint(u64::from(ancestry.depth));
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
    let flags = take.u8("ancestry flags")?;
    if flags & !(EXPIRY_INHERITED | POINT_NAMED) != 0 {
        return Err(take.malformed("ancestry flags of a later version"));
    }
    let asked = match flags & POINT_NAMED {
        0 => None,
        _ => Some(Offset {
            epoch: entry::take_epoch(take)?,
            next: Seq::new(take.varint("fork point")?),
        }),
    };
    let anchor = Seq::new(take.varint("anchor")?);
    let sub_offset = take.varint("sub-offset")?;
    let depth = u32::try_from(take.varint("depth")?).map_err(|_| take.malformed("depth"))?;
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
        anchor,
        depth,
        sub_offset,
        expiry_inherited: flags & EXPIRY_INHERITED != 0,
        runs: runs.into(),
    };
    ancestry.checked().map(Some).ok_or(take.malformed("runs"))
}
