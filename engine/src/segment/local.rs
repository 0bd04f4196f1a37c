//! The local copy of a segment's file: whole, or with gaps where blocks were.
//!
//! ```text
//! whole   header │ block │ block │ block │ index │ filter │ footer │ trailer
//! bare    header │ ······· gap ········· │ index │ filter │ footer │ trailer
//! ```
//! A copy may have gaps only if the bucket has the segment. A gap satisfies no block's checksum,
//! so it is found as damage is, by reading: nothing else says which blocks are there, and nothing
//! else can be wrong about it. What opening needs is always there.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use weir_io::{Disk, File, disk::Create};

use super::{
    block,
    format::{BlockNo, HEADER_LEN, ReadError, Section},
    reader::{Segment, read, to_u64},
};

/// Why a local copy could not be changed. The one before is still in use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// What should go into it can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It would be one of another segment.
    #[error("a copy of another segment")]
    Another,
    /// The disk refused.
    #[error("the local copy can't be written")]
    Write(#[from] io::Error),
}

/// What a file system takes more than it was given at both ends of a gap.
const ROUNDING_BYTES: u64 = 8 << 10;

/// The file, and what is known of it.
pub(super) struct Local {
    file: Mutex<Arc<dyn File>>,
    /// Bytes it takes on the disk, rather too many than too few.
    bytes: AtomicU64,
    whole: AtomicBool,
    /// No block is there, or so few bytes of them that evicting frees nothing.
    bare: AtomicBool,
    /// When it was last read, as the evictor counts time.
    used: AtomicU64,
    /// Held by whoever changes it: a block written into a file that is being replaced is lost.
    turn: Mutex<()>,
}

impl Local {
    /// Takes what the file system says as the truth about gaps. `blocks`: bytes of all blocks.
    pub(super) fn new(file: Arc<dyn File>, len: u64, blocks: u64) -> io::Result<Self> {
        let allocated = file.allocated()?;
        Ok(Self {
            bare: AtomicBool::new(allocated <= len - blocks + ROUNDING_BYTES),
            file: Mutex::new(file),
            bytes: AtomicU64::new(allocated.min(len)),
            whole: AtomicBool::new(allocated >= len),
            used: AtomicU64::new(0),
            turn: Mutex::new(()),
        })
    }

    /// No copy at all.
    pub(super) fn none(file: Arc<dyn File>) -> Self {
        Self {
            bare: AtomicBool::new(true),
            file: Mutex::new(file),
            bytes: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            used: AtomicU64::new(0),
            turn: Mutex::new(()),
        }
    }

    pub(super) fn file(&self) -> Arc<dyn File> {
        Arc::clone(&self.file.lock())
    }
}

impl Segment {
    /// Bytes the local copy takes on the disk, rather too many than too few.
    pub(crate) fn local_bytes(&self) -> u64 {
        self.local.bytes.load(Ordering::Relaxed)
    }

    /// Whether every block should be there; one that is not is damaged.
    pub(crate) fn is_whole(&self) -> bool {
        self.local.whole.load(Ordering::Relaxed)
    }

    /// Notes whether every block is there.
    pub(crate) fn set_whole(&self, whole: bool) {
        self.local.whole.store(whole, Ordering::Relaxed);
    }

    /// Whether there is nothing in it that would be worth evicting.
    pub(crate) fn is_bare(&self) -> bool {
        self.local.bare.load(Ordering::Relaxed)
    }

    /// Notes that it is read now.
    pub(crate) fn touch(&self, now: u64) {
        self.local.used.store(now, Ordering::Relaxed);
    }

    /// When it was last read; zero: not since the start.
    pub(crate) fn last_used(&self) -> u64 {
        self.local.used.load(Ordering::Relaxed)
    }

    /// Whether a block seems to lie in the local copy: its first bytes are there.
    pub(crate) fn seems_there(&self, no: BlockNo) -> bool {
        let range = self.span(&(no..no.next()));
        let mut start = [0; block::MAGIC.len()];
        let read = self.local.file().read_exact_at(&mut start, range.start);
        read.is_ok() && start == *block::MAGIC
    }

    /// Puts verified blocks back where they belong. Not synced: one that a crash tears is fetched
    /// again.
    pub(crate) fn put_back(
        &self,
        disk: &dyn Disk,
        path: &Path,
        blocks: &[(BlockNo, Bytes)],
    ) -> io::Result<()> {
        let _turn = self.local.turn.lock();
        let file = disk.open_to_write(path)?;
        for (no, stored) in blocks {
            let Range { start, .. } = self.span(&(*no..no.next()));
            file.write_all_at(stored, start)?;
            self.local.bare.store(false, Ordering::Relaxed);
            // A block that was there and damaged is counted twice, up to the length of the file.
            let bytes = self.local_bytes().saturating_add(to_u64(stored.len()));
            self.local.bytes.store(bytes.min(self.footer().file_bytes()), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Replaces the local copy by one without blocks and says how many bytes that freed. Readers
    /// of the copy before are not disturbed. The caller syncs the directory.
    pub(crate) fn evict(&self, disk: &dyn Disk, path: &Path) -> Result<u64, CopyError> {
        assert!(self.remote().is_some(), "only what the bucket has is evicted");
        let _turn = self.local.turn.lock();
        let file = self.local.file();
        let head = read(&*file, Section::Header, 0, to_u64(HEADER_LEN))?;
        let (at, len) = (self.footer().tail_start(), self.footer().file_bytes());
        let tail = read(&*file, Section::Index, at, len - at)?;
        let copy = write_bare(disk, path, &head, &tail, len, |copy| self.is(copy))?;
        Ok(self.replace(&copy))
    }

    /// As [`Segment::evict`], by a copy that was made elsewhere under the same name.
    pub(crate) fn evict_for(&self, copy: &Self) -> u64 {
        let _turn = self.local.turn.lock();
        self.replace(copy)
    }

    /// Writes the file anew: the blocks as they lie in it, each verified, and everything else out of
    /// memory. Durable but for its name: the caller syncs the directory.
    pub(crate) fn write_anew(&self, disk: &dyn Disk, path: &Path) -> Result<(), CopyError> {
        let _turn = self.local.turn.lock();
        let temporary = path.with_extension("new.tmp");
        let write = || -> Result<(), CopyError> {
            let target = disk.create(&temporary, Create::Truncate)?;
            self.write_whole(&*target)?;
            target.sync()?;
            let copy = Self::open(disk.open(&temporary)?)?;
            copy.read_through()?;
            if !self.is(&copy) {
                return Err(CopyError::Another);
            }
            Ok(disk.rename(&temporary, path)?)
        };
        if let Err(error) = write() {
            // What is left of it goes at the next start, if not now.
            drop(disk.remove(&temporary));
            return Err(error);
        }
        let copy = Self::open(disk.open(path)?)?;
        self.local.bytes.store(copy.local_bytes(), Ordering::Relaxed);
        self.set_whole(copy.is_whole());
        self.local.bare.store(copy.is_bare(), Ordering::Relaxed);
        *self.local.file.lock() = copy.local.file();
        Ok(())
    }

    fn write_whole(&self, target: &dyn File) -> Result<(), CopyError> {
        let source = self.local.file();
        target.write_all_at(&self.head(), 0)?;
        let mut streams: Vec<u64> = Vec::new();
        for no in self.blocks() {
            let Range { start, end } = self.span(&(no..no.next()));
            let stored = read(&*source, Section::Block(no), start, end - start)?;
            let block = self.decode(no, &stored).map_err(ReadError::from)?;
            streams.extend(block.parts().iter().map(|part| part.stream().get()));
            // One stream may end a block and begin the next.
            streams.dedup();
            target.write_all_at(&stored, start)?;
        }
        let tail = self.tail(&streams).map_err(ReadError::from)?;
        Ok(target.write_all_at(&tail, self.footer().tail_start())?)
    }

    /// Whether the other is a copy of the same segment.
    pub(crate) fn is(&self, copy: &Self) -> bool {
        (copy.store(), copy.id(), copy.mark()) == (self.store(), self.id(), self.mark())
    }

    fn replace(&self, copy: &Self) -> u64 {
        assert!(self.is(copy), "copies of one segment");
        let before = self.local.bytes.swap(copy.local_bytes(), Ordering::Relaxed);
        self.set_whole(copy.is_whole());
        self.local.bare.store(true, Ordering::Relaxed);
        *self.local.file.lock() = copy.local.file();
        before.saturating_sub(copy.local_bytes())
    }
}

/// Writes a segment file of `len` bytes that has nothing between `head` and `tail` but a gap:
/// under a temporary name, then, durable, verified as a start would and the one that is `wanted`,
/// under its own.
pub(crate) fn write_bare(
    disk: &dyn Disk,
    path: &Path,
    head: &[u8],
    tail: &[u8],
    len: u64,
    wanted: impl FnOnce(&Segment) -> bool,
) -> Result<Segment, CopyError> {
    let temporary = path.with_extension("tmp");
    let write = || -> Result<(), CopyError> {
        let file = disk.create(&temporary, Create::Truncate)?;
        file.set_len(len)?;
        file.write_all_at(head, 0)?;
        file.write_all_at(tail, len.saturating_sub(to_u64(tail.len())))?;
        file.sync()?;
        if !wanted(&Segment::open(disk.open(&temporary)?)?) {
            return Err(CopyError::Another);
        }
        Ok(disk.rename(&temporary, path)?)
    };
    if let Err(error) = write() {
        // What is left of it goes at the next start, if not now.
        drop(disk.remove(&temporary));
        return Err(error);
    }
    Ok(Segment::open(disk.open(path)?)?)
}
