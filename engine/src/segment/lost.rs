//! A segment whose file is gone after a manifest has named it as a hole, or can't be opened. What that
//! manifest, or what is left of the file, says of it keeps its place among the others, so that the next
//! manifest names it too; it has no record to show, and whoever looks for one of its records finds none.

use std::{io, sync::Arc};

use weir_io::File;

use super::{
    filter::Filter,
    format::{Footer, HEADER_LEN, Header, Span},
    local::Local,
    reader::{Segment, TAIL_LEN, to_u64},
};
use crate::types::{Lsn, SegmentId, WallMs};

/// What is known of a segment without its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) store: [u8; 16],
    pub(crate) id: SegmentId,
    /// Length of its file.
    pub(crate) bytes: u64,
    /// Checksum of its footer.
    pub(crate) mark: u32,
    pub(crate) first_lsn: Lsn,
    pub(crate) last_lsn: Lsn,
    pub(crate) records: u64,
}

/// The file that is not there.
struct Nothing;

impl Segment {
    /// What stands for a segment that is lost.
    pub(crate) fn lost(lost: &Lost) -> Self {
        let offset = to_u64(HEADER_LEN);
        // All between header and footer, so that the file is as long as it was.
        let len = lost.bytes.saturating_sub(to_u64(HEADER_LEN + TAIL_LEN));
        let footer = Footer {
            blocks: 0,
            records: lost.records,
            streams: 0,
            raw_bytes: 0,
            first_lsn: lost.first_lsn,
            last_lsn: lost.last_lsn,
            oldest: WallMs::ZERO,
            newest: WallMs::ZERO,
            index: Span { offset, len: 0, crc: 0 },
            filter: Span { offset, len, crc: 0 },
        };
        let header = Header { store: lost.store, segment: lost.id };
        let mut segment =
            Self::of(Local::none(Arc::new(Nothing)), header, footer, (Box::new([]), Filter::Open));
        segment.lost = Some(lost.mark);
        segment
    }
}

impl File for Nothing {
    fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
