//! Finds the simulated disk that a path of SQLite's belongs to.
//!
//! SQLite knows VFSs by name and forgets none of their pointers while a connection lives,
//! so there is one VFS for the whole process, registered for ever, and the first component
//! of a path says which mount is meant: `/7/data/weir.db` is `/data/weir.db` on mount 7.
//! Numbers are never reused, so a connection that outlives its mount finds nothing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::{
    lock::Locks,
    shm::{Mapping, Shm},
};
use crate::memory::MemoryDisk;

static MOUNTS: Mutex<Mounts> = Mutex::new(Mounts { next: 0, mounts: BTreeMap::new() });

struct Mounts {
    next: u64,
    mounts: BTreeMap<u64, Weak<Mount>>,
}

/// A disk that SQLite can reach, and what its connections share beside the bytes.
pub(crate) struct Mount {
    number: u64,
    pub(super) disk: MemoryDisk,
    locks: Mutex<BTreeMap<PathBuf, Arc<Mutex<Locks>>>>,
    shms: Mutex<BTreeMap<PathBuf, Weak<Shm>>>,
}

impl Mount {
    /// Makes a disk reachable until the last reference, open files included, is gone.
    pub(crate) fn new(disk: MemoryDisk) -> Arc<Mount> {
        let mut mounts = MOUNTS.lock();
        let mount = Arc::new(Mount {
            number: mounts.next,
            disk,
            locks: Mutex::new(BTreeMap::new()),
            shms: Mutex::new(BTreeMap::new()),
        });
        mounts.next += 1;
        mounts.mounts.insert(mount.number, Arc::downgrade(&mount));
        mount
    }

    /// What SQLite must be told to open `path` of this mount.
    pub(crate) fn route(&self, path: &Path) -> PathBuf {
        let mut route = PathBuf::from("/");
        route.push(self.number.to_string());
        route.extend(path.components().filter(|part| {
            // The root would replace what was pushed before it.
            !matches!(part, std::path::Component::RootDir | std::path::Component::Prefix(_))
        }));
        route
    }

    /// The mount that `route` leads to, and the path on it.
    pub(super) fn find(route: &Path) -> Option<(Arc<Mount>, PathBuf)> {
        let mut parts = route.strip_prefix("/").ok()?.components();
        let number: u64 = parts.next()?.as_os_str().to_str()?.parse().ok()?;
        let mount = MOUNTS.lock().mounts.get(&number)?.upgrade()?;
        Some((mount, Path::new("/").join(parts.as_path())))
    }

    /// The locks of a file, shared by all its connections.
    pub(super) fn locks(&self, path: &Path) -> Arc<Mutex<Locks>> {
        Arc::clone(self.locks.lock().entry(path.to_owned()).or_default())
    }

    /// Joins the WAL index of a database, or begins a new one if nobody has it open.
    pub(super) fn map_shm(&self, path: &Path) -> Mapping {
        let mut shms = self.shms.lock();
        let open = shms.get(path).and_then(Weak::upgrade);
        let shm = open.unwrap_or_else(|| {
            let shm = Arc::new(Shm::default());
            shms.insert(path.to_owned(), Arc::downgrade(&shm));
            shm
        });
        Mapping::new(shm)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        MOUNTS.lock().mounts.remove(&self.number);
    }
}
