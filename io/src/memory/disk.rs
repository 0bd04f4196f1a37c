//! A [`Disk`] in memory, as one life of the machine sees it.
//!
//! Translates the trait's calls into changes of the [`Drive`](super::Drive), notes each in
//! the trace, and refuses all of them once its life is over. Holds no state of its own.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    drive::{Op, State, place},
    faults::broken,
    names::{FileId, Target, normal},
    trace::Trace,
};
use crate::disk::{Create, Disk, File, Lock};

/// A mounted drive. Cloning is cheap.
#[derive(Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    life: u64,
}

impl MemoryDisk {
    pub(super) fn new(state: Arc<Mutex<State>>, life: u64) -> MemoryDisk {
        MemoryDisk { state, life }
    }

    fn open_as(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let path = normal(path);
        let mut state = self.state.lock();
        state.require_alive(self.life)?;
        state.note(Op::Open, subject(&path), 0, &[]);
        let id = state.names.file(&path)?;
        Ok(self.handle(&mut state, id, access))
    }

    fn handle(&self, state: &mut State, id: FileId, access: Access) -> Arc<dyn File> {
        state.opened(id);
        Arc::new(Handle { disk: self.clone(), id, access })
    }

    /// Runs a changing operation on names and notes it.
    fn rename_like<R>(
        &self,
        op: Op,
        path: &Path,
        happen: impl FnOnce(&mut State) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut state = self.state.lock();
        let name = state.faults.name;
        let struck = state.strikes(self.life, op, path);
        let result = state.mutate(self.life, name, struck, happen);
        state.note(op, subject(path), u64::from(result.is_ok()), &[]);
        result
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open_as(path, Access::Read)
    }

    fn open_to_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open_as(path, Access::Write)
    }

    fn create(&self, path: &Path, how: Create) -> io::Result<Arc<dyn File>> {
        let path = normal(path);
        let id = self.rename_like(Op::Create, &path, |state| {
            require_parent(state, &path)?;
            match state.names.get(&path) {
                None => {
                    let id = state.new_file();
                    state.names.link(path.clone(), Target::File(id));
                    Ok(id)
                }
                Some(Target::Directory) => Err(io::ErrorKind::IsADirectory.into()),
                Some(Target::File(_)) if how != Create::Truncate => {
                    Err(io::ErrorKind::AlreadyExists.into())
                }
                Some(Target::File(id)) => {
                    state.resize(id, 0)?;
                    Ok(id)
                }
            }
        })?;
        Ok(self.handle(&mut self.state.lock(), id, Access::Write))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = normal(path);
        self.rename_like(Op::CreateDir, &path, |state| {
            let mut ancestors: Vec<&Path> = path.ancestors().collect();
            ancestors.reverse();
            for directory in ancestors {
                if state.names.get(directory).is_none() {
                    state.names.link(directory.to_owned(), Target::Directory);
                }
                state.names.require_directory(directory)?;
            }
            Ok(())
        })
    }

    fn create_private_dir(&self, path: &Path) -> io::Result<()> {
        self.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = normal(path);
        self.rename_like(Op::SyncDir, &path, |state| {
            state.names.require_directory(&path)?;
            state.names.sync(&path);
            state.forget_lost();
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (normal(from), normal(to));
        self.rename_like(Op::Rename, &to, |state| {
            let target = state.names.get(&from).ok_or(io::ErrorKind::NotFound)?;
            require_parent(state, &to)?;
            let inside = target == Target::Directory && to.starts_with(&from);
            if from != to && inside {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            match (target, state.names.get(&to)) {
                (Target::File(_), Some(Target::Directory)) => {
                    return Err(io::ErrorKind::IsADirectory.into());
                }
                (Target::Directory, Some(Target::File(_))) => {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
                (Target::Directory, Some(Target::Directory))
                    if from != to && state.names.children(&to).next().is_some() =>
                {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                _ => {}
            }
            if from != to {
                state.names.rename(from, to.clone(), target);
            }
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (normal(from), normal(to));
        self.rename_like(Op::Link, &to, |state| {
            let id = state.names.file(&from)?;
            require_parent(state, &to)?;
            if state.names.get(&to).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.names.link(to.clone(), Target::File(id));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = normal(path);
        self.rename_like(Op::Remove, &path, |state| {
            state.names.file(&path)?;
            state.names.unlink(path.clone());
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let directory = normal(path);
        let mut state = self.state.lock();
        state.require_alive(self.life)?;
        state.note(Op::List, subject(&directory), 0, &[]);
        state.names.require_directory(&directory)?;
        let names = state.names.children(&directory).filter_map(Path::file_name);
        Ok(names.map(|name| path.join(name)).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let path = normal(path);
        let mut state = self.state.lock();
        state.require_alive(self.life)?;
        state.note(Op::Exists, subject(&path), 0, &[]);
        Ok(state.names.get(&path).is_some())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let file = match self.open_to_write(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create(path, Create::New)?
            }
            opened => opened?,
        };
        let mut state = self.state.lock();
        state.require_alive(self.life)?;
        let path = normal(path);
        state.note(Op::Lock, subject(&path), 0, &[]);
        let id = state.names.file(&path)?;
        let free = state.locked.insert(id);
        drop(state);
        if !free {
            return Ok(None);
        }
        Ok(Some(Box::new(Held { disk: self.clone(), id, file })))
    }

    fn is_dead(&self) -> bool {
        self.state.lock().is_dead(self.life)
    }
}

/// What a handle may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// An open file.
struct Handle {
    disk: MemoryDisk,
    id: FileId,
    access: Access,
}

impl Handle {
    /// Runs a changing operation on the file and notes it.
    fn mutate(
        &self,
        op: Op,
        at: u64,
        bytes: &[u8],
        happen: impl FnOnce(&mut State, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.access == Access::Read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let index = place(at)?;
        let mut state = self.disk.state.lock();
        let write = state.faults.write;
        let struck = state.strikes_file(self.disk.life, op, self.id);
        let result = state.mutate(self.disk.life, write, struck, |state| happen(state, index));
        state.note(op, self.id.0, at, bytes);
        state.trace.add(u64::from(result.is_ok()));
        result
    }
}

impl File for Handle {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = place(offset)?;
        let mut state = self.disk.state.lock();
        state.require_alive(self.disk.life)?;
        state.note(Op::Read, self.id.0, offset, &[]);
        let read = state.faults.read;
        if state.roll(read) || state.unreadable.contains(&self.id) {
            return Err(broken("the simulated drive failed to read"));
        }
        let bytes = state.content(self.id).read(start);
        let Some(bytes) = bytes.get(..buffer.len()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.mutate(Op::Write, offset, bytes, |state, at| state.write(self.id, at, bytes))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.mutate(Op::Resize, len, &[], |state, len| state.resize(self.id, len))
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state.lock();
        state.require_alive(self.disk.life)?;
        state.note(Op::Len, self.id.0, 0, &[]);
        let len = state.content(self.id).len();
        Ok(u64::try_from(len).expect("lengths fit 64 bits"))
    }

    fn allocated(&self) -> io::Result<u64> {
        let mut state = self.disk.state.lock();
        state.require_alive(self.disk.life)?;
        state.note(Op::Allocated, self.id.0, 0, &[]);
        let allocated = state.content(self.id).allocated();
        Ok(u64::try_from(allocated).expect("lengths fit 64 bits"))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let struck = state.strikes_file(self.disk.life, Op::Sync, self.id);
        let result = state.mutate(self.disk.life, 0.0, struck, |state| state.sync(self.id));
        state.note(Op::Sync, self.id.0, u64::from(result.is_ok()), &[]);
        result
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.state.lock().closed(self.id, self.disk.life);
    }
}

/// A held lock. The life of the machine ends it too.
struct Held {
    disk: MemoryDisk,
    id: FileId,
    file: Arc<dyn File>,
}

impl Lock for Held {
    fn describe(&self, holder: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(holder.as_bytes(), 0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if !state.is_dead(self.disk.life) {
            state.locked.remove(&self.id);
        }
    }
}

fn require_parent(state: &State, path: &Path) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::AlreadyExists)?;
    state.names.require_directory(parent)
}

fn subject(path: &Path) -> u64 {
    let mut trace = Trace::new();
    trace.add_bytes(path.as_os_str().as_encoded_bytes());
    trace.value()
}
