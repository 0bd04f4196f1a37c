//! An object as a file, of which only some bytes are here: enough to open a segment without its
//! blocks.

use std::{collections::BTreeMap, io, ops::Range, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use weir_io::{File, objects::Key, retry::Retrying};

use super::object::{Bad, TRIES_MAX, piece};
use crate::{
    ledger::{self, Ledger, Source},
    segment::{self, Segment},
    types::StreamId,
};

/// The last bytes that are asked for first: all that most segments need for being opened.
const TAIL_BYTES: u64 = 64 << 10;
/// The first bytes that are asked for: a header.
const HEAD_BYTES: u64 = 256;

/// The bytes of an object that are here.
pub(crate) struct Window {
    len: u64,
    here: Mutex<BTreeMap<u64, Bytes>>,
    /// What was asked for last and is not here.
    missing: Mutex<Option<Range<u64>>>,
}

impl Window {
    fn empty(len: u64) -> Self {
        Self { len, here: Mutex::default(), missing: Mutex::default() }
    }

    /// A whole object.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        let len = u64::try_from(bytes.len()).expect("usize fits u64");
        let window = Self::empty(len);
        window.hold(0, bytes);
        window
    }

    /// From here on these bytes are here, and no others.
    pub(super) fn hold(&self, start: u64, bytes: Bytes) {
        *self.here.lock() = BTreeMap::from([(start, bytes)]);
    }
}

impl File for Window {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let wanted = u64::try_from(buffer.len()).expect("usize fits u64");
        let end = offset.checked_add(wanted).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let here = self.here.lock();
        let found = here.range(..=offset).next_back().and_then(|(start, bytes)| {
            let from = usize::try_from(offset - start).ok()?;
            bytes.get(from..from.checked_add(buffer.len())?)
        });
        if let Some(found) = found {
            buffer.copy_from_slice(found);
            return Ok(());
        }
        *self.missing.lock() = Some(offset..end);
        Err(io::Error::other("not fetched"))
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads of a damaged segment whose records it may have, as far as it tells.
pub(crate) async fn outline(bucket: &Retrying, key: &Key, len: u64) -> Vec<StreamId> {
    let window = Window::empty(len);
    loop {
        let streams = segment::outline(&window);
        let Some(range) = window.missing.lock().take() else { return streams };
        let Ok(bytes) = piece(bucket, key, range.clone()).await else { return streams };
        window.here.lock().insert(range.start, bytes);
    }
}

/// Opens a segment in the bucket by two or three small requests. Its blocks can't be read.
pub(crate) async fn open(bucket: &Retrying, key: &Key, len: u64) -> Result<Segment, Bad> {
    let opened = opened(bucket, key, len, |window| match Segment::open(window) {
        Ok(segment) => Ok(Some(segment)),
        Err(segment::ReadError::Damaged(damaged)) => Err(Bad::Damaged(damaged.to_string())),
        Err(segment::ReadError::Failed { .. }) => Ok(None),
    });
    Ok(opened.await?.0)
}

/// The same for a ledger, with the bytes that its blocks are read from once they are put there.
pub(crate) async fn open_ledger(
    bucket: &Retrying,
    key: &Key,
    len: u64,
) -> Result<(Ledger, Arc<Window>), Bad> {
    opened(bucket, key, len, |window| match Ledger::open(Source::File(window)) {
        Ok(ledger) => Ok(Some(ledger)),
        Err(ledger::ReadError::Damaged(damaged)) => Err(Bad::Damaged(damaged.to_string())),
        Err(ledger::ReadError::Failed { .. }) => Ok(None),
    })
    .await
}

/// Opens what `open` opens; that says `None` if bytes are missing.
async fn opened<T>(
    bucket: &Retrying,
    key: &Key,
    len: u64,
    open: impl Fn(Arc<dyn File>) -> Result<Option<T>, Bad>,
) -> Result<(T, Arc<Window>), Bad> {
    let mut wrong = Bad::Missing;
    for _ in 0..TRIES_MAX {
        match once(bucket, key, len, &open).await {
            // It may have been spoiled on its way.
            Err(Bad::Damaged(what)) => wrong = Bad::Damaged(what),
            settled => return settled,
        }
    }
    Err(wrong)
}

async fn once<T>(
    bucket: &Retrying,
    key: &Key,
    len: u64,
    open: impl Fn(Arc<dyn File>) -> Result<Option<T>, Bad>,
) -> Result<(T, Arc<Window>), Bad> {
    let window = Arc::new(Window::empty(len));
    let tail = len.saturating_sub(TAIL_BYTES);
    if tail > 0 {
        let head = 0..HEAD_BYTES.min(tail);
        let piece = piece(bucket, key, head).await?;
        window.here.lock().insert(0, piece);
    }
    let mut next = Some(tail..len).filter(|range| !range.is_empty());
    while let Some(range) = next.take() {
        let bytes = piece(bucket, key, range.clone()).await?;
        window.here.lock().insert(range.start, bytes);
        match open(Arc::<Window>::clone(&window))? {
            Some(opened) => return Ok((opened, window)),
            // Each round fetches a section that was not here, and there are few sections.
            None => next = window.missing.lock().take(),
        }
    }
    Err(Bad::Damaged("it can't be opened".into()))
}
