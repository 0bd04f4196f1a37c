//! Files, synchronous: every caller runs where blocking is allowed.
//!
//! Contract (tested by `laws::disk`): written bytes are visible to later reads of the
//! same process at once; they survive a crash only after [`File::sync`] returned Ok; a
//! file's name survives a crash only after [`Disk::sync_dir`] of its directory returned
//! Ok; unsynced writes may survive in part, in any order, torn at any byte. A failed
//! sync leaves the fate of every write since the last good one unknown for ever.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};

/// How to open a file for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// The file must not exist.
    New,
    /// Create it or empty it.
    Truncate,
    /// The file must not exist, and nobody but its owner may read or write it.
    Private,
}

/// Whether an error says that there is no room: the disk is full, or who asks has had all that it may take.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A directory tree of files.
pub trait Disk: Send + Sync {
    /// Opens an existing file for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading and writing.
    fn open_to_write(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Creates a file for reading and writing.
    fn create(&self, path: &Path, how: Create) -> io::Result<Arc<dyn File>>;
    /// Creates a directory and its missing parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// As [`Disk::create_dir_all`], and nobody but its owner may enter the directories made, nor
    /// `path` itself if it was there.
    fn create_private_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Atomically replaces `to` by `from`; both in the same file system. A directory moves with all
    /// that is in it, to a free name or that of an empty directory (`DirectoryNotEmpty`); what
    /// is not durable in it then may be lost as long as the directory above is not synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; both in the same file system (`CrossesDevices`). A name that
    /// is taken is `AlreadyExists`: of several who link to one name exactly one succeeds.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. A missing one is `NotFound`.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The paths of the files and directories in `path`, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether something has this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Takes an exclusive advisory lock on the file `path` (created if missing) that ends
    /// with the process or with the returned guard. `Ok(None)`: somebody else holds it. A file
    /// made for it is its owner's: whoever may open it could hold it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;
    /// Whether the simulated machine has lost power: whoever blocked on this disk must then
    /// never act on the result, not even on an error. A lane asks after every blocking call
    /// and waits for ever if so; [`crate::tasks::run`] does it for blocking jobs. Always
    /// false on a real machine, where nobody is left to ask.
    fn is_dead(&self) -> bool {
        false
    }
}

/// Held as long as the lock is. The file's content is the holder's to write and
/// everybody's to read who may open it.
pub trait Lock: Send + Sync {
    /// Replaces the content of the lock file: who holds it, for the next one's message.
    fn describe(&self, holder: &str) -> io::Result<()>;
}

/// An open file.
pub trait File: Send + Sync {
    /// Reads exactly `buffer.len()` bytes at `offset`; `UnexpectedEof` if there are fewer.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// The `len` bytes at `offset`, in memory of their own; `UnexpectedEof` if there are fewer. The caller
    /// knows that a file may be as long as that: the memory is reserved first.
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = BytesMut::zeroed(len);
        self.read_exact_at(&mut buffer, offset)?;
        Ok(buffer.freeze())
    }
    /// Writes all of `bytes` at `offset`, growing the file if needed.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or zero-extends the file to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Current length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Bytes it takes on the medium. A hole, which is what nobody ever wrote between the start and
    /// the end of a file, reads as zeros and takes none where the file system knows holes; what is
    /// taken is counted in blocks of the file system.
    fn allocated(&self) -> io::Result<u64>;
    /// Whether the file holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Makes everything written durable.
    fn sync(&self) -> io::Result<()>;
}
