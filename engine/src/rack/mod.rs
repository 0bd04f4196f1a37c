//! The rack: where segments lie on this machine, as files in a directory or as pieces in the
//! store's own database.
//!
//! ```text
//! Tree      draft ─▶ temporary file ─▶ synced, renamed ─▶ its directory synced ─▶ catalogue
//! OneFile   draft ─▶ memory ─▶ pieces, slice by slice ([`crate::motion::stow`]) ─▶ catalogue
//! ```
//! Either way a segment is read through one [`File`], and whoever has it open reads it to the end
//! though it was removed. Knows nothing of what is in a segment.

mod pieces;

use std::{io, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use weir_io::{Disk, File, World, disk::Create, sqlite::Role};

pub(crate) use self::pieces::Pieces;
use crate::{
    Config, Layout,
    core::{database, segment_dir, segment_path},
    types::SegmentId,
};

/// What a segment is called where people read it.
pub(crate) fn shown(config: &Config, id: SegmentId) -> String {
    match config.layout {
        Layout::Tree => segment_path(config, id).display().to_string(),
        Layout::OneFile => format!("segment {id} in {}", database(config).display()),
    }
}

/// Where segments lie.
pub(crate) enum Rack {
    /// In files.
    Files(Box<Files>),
    /// In the database.
    Pieces(Arc<Pieces>),
}

/// A directory of files.
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    config: Config,
    /// What could not be removed.
    left: Mutex<Vec<PathBuf>>,
}

impl Rack {
    /// `role`: what for pieces are read.
    pub(crate) fn new(world: &World, config: &Config, role: Role) -> Self {
        match config.layout {
            Layout::Tree => Self::Files(Box::new(Files {
                disk: Arc::clone(&world.disk),
                config: config.clone(),
                left: Mutex::default(),
            })),
            Layout::OneFile => Self::Pieces(Arc::new(Pieces::new(world, config, role))),
        }
    }

    /// Begins a segment.
    pub(crate) fn draft(&self, id: SegmentId) -> io::Result<Draft> {
        match self {
            Self::Files(files) => files.draft(id),
            Self::Pieces(pieces) => Ok(Draft::Pieces(pieces::Draft::new(Arc::clone(pieces), id))),
        }
    }

    /// Opens a segment that is there.
    pub(crate) fn open(&self, id: SegmentId) -> io::Result<Arc<dyn File>> {
        match self {
            Self::Files(files) => files.disk.open(&segment_path(&files.config, id)),
            Self::Pieces(pieces) => Ok(Pieces::open(pieces, id)?),
        }
    }

    /// Makes the names of finished segments durable (INV-14). Pieces have none.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self {
            Self::Files(files) => files.disk.sync_dir(&segment_dir(&files.config)),
            Self::Pieces(_) => Ok(()),
        }
    }

    /// Removes a segment that no row names, whatever there is of it, as [`Files::remove`] does.
    pub(crate) fn discard(&self, id: SegmentId) {
        if let Self::Files(files) = self {
            files.remove([files.path(id)]);
        }
    }

    /// Closes what it keeps open.
    pub(crate) async fn close(&self) {
        if let Self::Pieces(pieces) = self {
            pieces.close().await;
        }
    }
}

impl Files {
    fn draft(&self, id: SegmentId) -> io::Result<Draft> {
        let path = segment_path(&self.config, id);
        let temporary = path.with_extension("tmp");
        let file = self.disk.create(&temporary, Create::Truncate)?;
        let disk = Arc::clone(&self.disk);
        Ok(Draft::File(FileDraft { disk, file, temporary, path, written: 0, named: false }))
    }

    /// Where a segment lies.
    pub(crate) fn path(&self, id: SegmentId) -> PathBuf {
        segment_path(&self.config, id)
    }

    /// Removes files that nothing names. What can't be removed is tried again by
    /// [`Files::remove_left`], and by the next start.
    pub(crate) fn remove(&self, paths: impl IntoIterator<Item = PathBuf>) {
        for path in paths {
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a file that nothing names stays");
                    self.left.lock().push(path);
                }
                _ => {}
            }
        }
    }

    /// Whether there is something that could not be removed.
    pub(crate) fn has_left(&self) -> bool {
        !self.left.lock().is_empty()
    }

    /// Removes what could not be removed before.
    pub(crate) fn remove_left(&self) {
        let left = std::mem::take(&mut *self.left.lock());
        self.remove(left);
    }
}

/// A segment that is being written.
pub(crate) enum Draft {
    /// Into a file.
    File(FileDraft),
    /// Into memory.
    Pieces(pieces::Draft),
}

/// A file under a temporary name.
pub(crate) struct FileDraft {
    disk: Arc<dyn Disk>,
    file: Arc<dyn File>,
    temporary: PathBuf,
    path: PathBuf,
    written: u64,
    named: bool,
}

impl Drop for FileDraft {
    fn drop(&mut self) {
        if !self.named {
            // What is left of it goes at the next start, if not now.
            drop(self.disk.remove(&self.temporary));
        }
    }
}

impl Draft {
    /// Adds bytes after those added before.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(draft) => {
                draft.file.write_all_at(bytes, draft.written)?;
                draft.written += u64::try_from(bytes.len()).expect("usize fits u64");
            }
            Self::Pieces(draft) => draft.write(bytes),
        }
        Ok(())
    }

    /// What was written, complete. A file is durable then, under its own name once the caller has
    /// synced the rack; pieces are not before they are stowed.
    pub(crate) fn finish(self) -> io::Result<Arc<dyn File>> {
        match self {
            Self::File(mut draft) => {
                draft.file.sync()?;
                draft.disk.rename(&draft.temporary, &draft.path)?;
                draft.named = true;
                draft.disk.open(&draft.path)
            }
            Self::Pieces(draft) => Ok(draft.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weir_io::memory::{Faults, Machine};

    use super::*;

    #[test]
    fn what_is_discarded_is_gone_and_what_was_never_there_is_no_matter() {
        const ID: SegmentId = SegmentId::new(7);
        let world = Machine::new(1).boot(Duration::ZERO);
        let config = Config::new("/data");
        world.disk.create_dir_all(&segment_dir(&config)).unwrap();
        let rack = Rack::new(&world, &config, Role::Reader);
        rack.discard(ID);
        let mut draft = rack.draft(ID).unwrap();
        draft.write(b"bytes").unwrap();
        let file = draft.finish().unwrap();
        rack.sync().unwrap();
        rack.discard(SegmentId::new(8));
        assert_eq!(rack.open(ID).unwrap().len().unwrap(), 5, "another one's discard");
        rack.discard(ID);
        assert_eq!(rack.open(ID).err().map(|it| it.kind()), Some(io::ErrorKind::NotFound));
        let mut start = [0; 5];
        file.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"bytes", "whoever has it open reads it");
        assert_eq!(world.disk.list(&segment_dir(&config)).unwrap(), [""; 0].map(PathBuf::from));
    }

    #[test]
    fn what_could_not_be_removed_is_tried_again() {
        let machine = Machine::new(1);
        let world = machine.boot(Duration::ZERO);
        let config = Config::new("/data");
        world.disk.create_dir_all(&segment_dir(&config)).unwrap();
        let Rack::Files(files) = Rack::new(&world, &config, Role::Reader) else { unreachable!() };
        let paths = [1, 2].map(|id| files.path(SegmentId::new(id)));
        for path in &paths {
            drop(world.disk.create(path, Create::New).unwrap());
        }
        machine.drive().set_faults(Faults { name: 1.0, ..Faults::default() });
        files.remove(paths.clone());
        machine.drive().set_faults(Faults::default());
        assert_eq!(world.disk.list(&segment_dir(&config)).unwrap(), paths);
        assert!(files.has_left());
        files.remove_left();
        assert!(!files.has_left());
        assert_eq!(world.disk.list(&segment_dir(&config)).unwrap(), [""; 0].map(PathBuf::from));
    }
}
