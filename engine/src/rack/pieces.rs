//! Segments as pieces in the store's database.
//!
//! A finished draft is in memory until its pieces are stowed, and is read there meanwhile. Pieces
//! of a segment that was merged go when nobody has it open any more: a reader that has planned to
//! read them reads them.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Weak},
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rusqlite::Connection;
use weir_io::{File, Sqlite, World, sqlite::Role};

use crate::{
    Config,
    core::database,
    state::{
        catalogue::{Failure, pieces},
        readers::Readers,
    },
    types::SegmentId,
};

/// Small neighbours share a piece up to this size.
const PIECE_BYTES_MIN: usize = 16 << 10;
/// No piece is larger: writing one must not hold the writer for long.
const PIECE_BYTES_MAX: usize = 256 << 10;

/// A stretch of a segment's bytes.
#[derive(Clone)]
pub(crate) struct Piece {
    /// Where it begins in the segment.
    pub(crate) at: u64,
    pub(crate) body: Bytes,
}

/// All of them.
pub(crate) struct Pieces {
    sqlite: Arc<dyn Sqlite>,
    path: PathBuf,
    role: Role,
    readers: Arc<Readers>,
    held: Mutex<Held>,
}

/// Who reads what.
#[derive(Default)]
struct Held {
    /// Segments that were opened and not doomed.
    open: BTreeMap<SegmentId, Weak<PieceFile>>,
    /// Segments whose pieces are to go.
    doomed: Vec<(SegmentId, Weak<PieceFile>)>,
}

impl Pieces {
    pub(super) fn new(world: &World, config: &Config, role: Role) -> Self {
        Self {
            sqlite: Arc::clone(&world.sqlite),
            path: database(config),
            role,
            readers: Readers::new(),
            held: Mutex::default(),
        }
    }

    pub(super) fn open(pieces: &Arc<Self>, id: SegmentId) -> io::Result<Arc<PieceFile>> {
        let len = pieces.ask(|conn| pieces::len(conn, id))?;
        let len = len.ok_or(io::ErrorKind::NotFound)?;
        Ok(pieces.hold(PieceFile { pieces: Arc::clone(pieces), id, len, draft: Mutex::default() }))
    }

    fn hold(&self, file: PieceFile) -> Arc<PieceFile> {
        let file = Arc::new(file);
        self.held.lock().open.insert(file.id, Arc::downgrade(&file));
        file
    }

    /// What of a segment is in memory alone.
    pub(crate) fn draft_of(&self, id: SegmentId) -> Option<Arc<[Piece]>> {
        let file = self.held.lock().open.get(&id)?.upgrade()?;
        let draft = file.draft.lock();
        draft.clone()
    }

    /// The pieces of a segment are in the database now.
    pub(crate) fn stowed(&self, id: SegmentId) {
        let file = self.held.lock().open.get(&id).and_then(Weak::upgrade);
        if let Some(file) = file {
            *file.draft.lock() = None;
        }
    }

    /// Nothing names this segment any more.
    pub(crate) fn doom(&self, id: SegmentId) {
        let mut held = self.held.lock();
        let reader = held.open.remove(&id).unwrap_or_default();
        held.doomed.push((id, reader));
    }

    /// Takes out the doomed segments that nobody reads.
    pub(crate) fn take_doomed(&self) -> Vec<SegmentId> {
        let gone = |reader: &Weak<PieceFile>| reader.strong_count() == 0;
        let doomed = &mut self.held.lock().doomed;
        doomed.extract_if(.., |(_, reader)| gone(reader)).map(|(id, _)| id).collect()
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
    }

    /// Runs where blocking is allowed.
    fn ask<R>(&self, question: impl FnOnce(&Connection) -> Result<R, Failure>) -> io::Result<R> {
        let open = || self.sqlite.open(&self.path, self.role);
        self.readers.enter().ask(open, question).map_err(io::Error::other)
    }
}

/// A segment whose bytes are being collected.
pub(crate) struct Draft {
    pieces: Arc<Pieces>,
    id: SegmentId,
    whole: Vec<Piece>,
    /// The piece that may still grow, and where it begins.
    last: BytesMut,
    at: u64,
}

impl Draft {
    pub(super) fn new(pieces: Arc<Pieces>, id: SegmentId) -> Self {
        Self { pieces, id, whole: Vec::new(), last: BytesMut::new(), at: 0 }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.last.len() + bytes.len() > PIECE_BYTES_MIN {
            self.cut();
        }
        for part in bytes.chunks(PIECE_BYTES_MAX) {
            if self.last.len() + part.len() > PIECE_BYTES_MAX {
                self.cut();
            }
            self.last.extend_from_slice(part);
        }
    }

    fn cut(&mut self) {
        let body = self.last.split().freeze();
        if !body.is_empty() {
            let at = self.at;
            self.at += u64::try_from(body.len()).expect("usize fits u64");
            self.whole.push(Piece { at, body });
        }
    }

    pub(super) fn finish(mut self) -> Arc<PieceFile> {
        self.cut();
        let draft = Mutex::new(Some(self.whole.into()));
        let pieces = Arc::clone(&self.pieces);
        self.pieces.hold(PieceFile { pieces, id: self.id, len: self.at, draft })
    }
}

/// An open segment.
pub(crate) struct PieceFile {
    pieces: Arc<Pieces>,
    id: SegmentId,
    /// A segment never changes.
    len: u64,
    /// What is not in the database yet: all or nothing.
    draft: Mutex<Option<Arc<[Piece]>>>,
}

impl File for PieceFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let draft = self.draft.lock().clone();
        let read = match draft {
            Some(draft) => copy(&draft, offset, buffer),
            None => self.pieces.ask(|conn| pieces::read(conn, self.id, offset, buffer))?,
        };
        if read == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn write_all_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// As [`pieces::read`], from memory.
fn copy(pieces: &[Piece], at: u64, buffer: &mut [u8]) -> usize {
    let first = pieces.partition_point(|piece| piece.at <= at).saturating_sub(1);
    let mut read = 0;
    for piece in pieces.get(first..).unwrap_or_default() {
        let wanted = at + u64::try_from(read).expect("usize fits u64");
        let skipped = usize::try_from(wanted.saturating_sub(piece.at)).unwrap_or(usize::MAX);
        let rest = piece.body.get(skipped..).unwrap_or_default();
        let taken = rest.len().min(buffer.len() - read);
        buffer[read..read + taken].copy_from_slice(&rest[..taken]);
        read += taken;
        if read == buffer.len() {
            break;
        }
    }
    read
}

#[cfg(test)]
mod tests;
