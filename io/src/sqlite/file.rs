//! One file as SQLite sees it: the disk's calls, answered with SQLite's result codes.
//!
//! Follows the unix VFS where SQLite relies on it: reads past the end are filled with
//! zeros, a journal created here has its directory synced with its first sync, a locked
//! byte is a level of [`Locks`]. Safe code; `vfs` does the pointers.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rusqlite::ffi;

use super::{
    lock::{Level, Locks},
    mount::Mount,
    shm::{Mapping, REGION_BYTES, Request},
};
use crate::{
    Disk,
    disk::{Create, File, is_full},
    memory::Drive,
};

/// A SQLite result code.
pub(super) type Code = i32;

/// Files whose name must survive as soon as their content does.
const JOURNALS: Code =
    ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_WAL;

/// A file that SQLite has open.
pub(super) struct OpenFile {
    mount: Arc<Mount>,
    path: PathBuf,
    file: Arc<dyn File>,
    locks: Arc<Mutex<Locks>>,
    level: Level,
    shm: Option<Mapping>,
    /// The directory to sync with the first sync of the file.
    directory: Option<PathBuf>,
    delete_on_close: bool,
}

impl OpenFile {
    /// Opens what `route` leads to.
    pub(super) fn open(route: &Path, flags: Code) -> Result<OpenFile, Code> {
        let (mount, path) = Mount::find(route).ok_or(ffi::SQLITE_CANTOPEN)?;
        let create = flags & ffi::SQLITE_OPEN_CREATE != 0;
        let exclusive = flags & ffi::SQLITE_OPEN_EXCLUSIVE != 0;
        let existing = mount.disk.open_to_write(&path);
        let (file, created) = match existing {
            Ok(_) if create && exclusive => return Err(ffi::SQLITE_CANTOPEN),
            Ok(file) => (file, false),
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                let made = mount.disk.create(&path, Create::New);
                (made.map_err(|error| code(&error, ffi::SQLITE_CANTOPEN))?, true)
            }
            Err(_) => return Err(ffi::SQLITE_CANTOPEN),
        };
        let journal = created && flags & JOURNALS != 0;
        Ok(OpenFile {
            locks: mount.locks(&path),
            directory: path.parent().filter(|_| journal).map(Path::to_owned),
            mount,
            path,
            file,
            level: Level::None,
            shm: None,
            delete_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
        })
    }

    /// A file without a name, for what SQLite spills from its memory. It has a healthy drive
    /// of its own: nothing in it is meant to outlive the statement.
    pub(super) fn open_anonymous() -> Result<OpenFile, Code> {
        let mount = Mount::new(Drive::new(0).mount());
        let route = mount.route(Path::new("/spill"));
        OpenFile::open(&route, ffi::SQLITE_OPEN_CREATE)
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Code {
        match self.file.read_exact_at(buffer, offset) {
            Ok(()) => ffi::SQLITE_OK,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.read_short(buffer, offset)
            }
            Err(_) => ffi::SQLITE_IOERR_READ,
        }
    }

    /// Reads what there is and fills the rest with zeros, which SQLite relies on.
    fn read_short(&self, buffer: &mut [u8], offset: u64) -> Code {
        buffer.fill(0);
        let Ok(len) = self.file.len() else {
            return ffi::SQLITE_IOERR_READ;
        };
        let left = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let there = left.min(buffer.len());
        match self.file.read_exact_at(&mut buffer[..there], offset) {
            Ok(()) => ffi::SQLITE_IOERR_SHORT_READ,
            Err(_) => ffi::SQLITE_IOERR_READ,
        }
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Code {
        result(self.file.write_all_at(bytes, offset), ffi::SQLITE_IOERR_WRITE)
    }

    pub(super) fn truncate(&self, len: u64) -> Code {
        result(self.file.set_len(len), ffi::SQLITE_IOERR_TRUNCATE)
    }

    pub(super) fn sync(&mut self) -> Code {
        if self.file.sync().is_err() {
            return ffi::SQLITE_IOERR_FSYNC;
        }
        let Some(directory) = self.directory.take() else {
            return ffi::SQLITE_OK;
        };
        if self.mount.disk.sync_dir(&directory).is_err() {
            // Not done: the next sync tries again.
            self.directory = Some(directory);
            return ffi::SQLITE_IOERR_DIR_FSYNC;
        }
        ffi::SQLITE_OK
    }

    pub(super) fn len(&self) -> Result<u64, Code> {
        self.file.len().map_err(|_| ffi::SQLITE_IOERR_FSTAT)
    }

    pub(super) fn lock(&mut self, level: Level) -> Code {
        busy_unless(self.locks.lock().raise(&mut self.level, level))
    }

    pub(super) fn unlock(&mut self, level: Level) {
        self.locks.lock().lower(&mut self.level, level);
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.locks.lock().is_reserved()
    }

    /// The address of a region of the WAL index.
    pub(super) fn shm_map(
        &mut self,
        region: usize,
        bytes: usize,
        extend: bool,
    ) -> Result<Option<*mut u64>, Code> {
        if bytes != REGION_BYTES {
            return Err(ffi::SQLITE_IOERR_SHMMAP);
        }
        if self.mount.disk.is_dead() {
            return Err(ffi::SQLITE_IOERR_SHMMAP);
        }
        let mapping = self.shm.get_or_insert_with(|| self.mount.map_shm(&self.path));
        Ok(mapping.region(region, extend))
    }

    pub(super) fn shm_lock(&mut self, first: usize, count: usize, request: Request) -> Code {
        match &mut self.shm {
            Some(mapping) => busy_unless(mapping.request(first, count, request)),
            None => ffi::SQLITE_IOERR_SHMLOCK,
        }
    }

    pub(super) fn shm_unmap(&mut self) {
        self.shm = None;
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.unlock(Level::None);
        if self.delete_on_close {
            // Nobody needs the file any more; left behind by a fault it only takes space.
            drop(self.mount.disk.remove(&self.path));
        }
    }
}

/// Removes the file at `route`.
pub(super) fn delete(route: &Path, sync_directory: bool) -> Code {
    let Some((mount, path)) = Mount::find(route) else {
        return ffi::SQLITE_IOERR_DELETE;
    };
    match mount.disk.remove(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return ffi::SQLITE_IOERR_DELETE_NOENT;
        }
        Err(_) => return ffi::SQLITE_IOERR_DELETE,
    }
    match path.parent() {
        Some(parent) if sync_directory => {
            result(mount.disk.sync_dir(parent), ffi::SQLITE_IOERR_DIR_FSYNC)
        }
        _ => ffi::SQLITE_OK,
    }
}

/// Whether SQLite should take the file at `route` for present.
pub(super) fn access(route: &Path, flags: Code) -> Result<bool, Code> {
    let Some((mount, path)) = Mount::find(route) else {
        return Ok(false);
    };
    if !mount.disk.exists(&path).map_err(|_| ffi::SQLITE_IOERR_ACCESS)? {
        return Ok(false);
    }
    if flags != ffi::SQLITE_ACCESS_EXISTS {
        return Ok(true);
    }
    // An empty journal or WAL is as good as none; the unix VFS says so too.
    let file = mount.disk.open(&path).map_err(|_| ffi::SQLITE_IOERR_ACCESS)?;
    let empty = file.is_empty().map_err(|_| ffi::SQLITE_IOERR_ACCESS)?;
    Ok(!empty)
}

fn busy_unless(granted: bool) -> Code {
    if granted { ffi::SQLITE_OK } else { ffi::SQLITE_BUSY }
}

fn result(result: io::Result<()>, failed: Code) -> Code {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(error) => code(&error, failed),
    }
}

fn code(error: &io::Error, failed: Code) -> Code {
    if is_full(error) { ffi::SQLITE_FULL } else { failed }
}
