//! The directory in which a store is made, and how it takes its place: by one rename, at the end
//! (INV-44). A store that was there is set aside, never deleted.

use std::{
    io,
    path::{Path, PathBuf},
};

use weir_io::{Disk, Sabotage, World, disk::Lock};

use super::{Existing, RestoreError, blocking, io_error};
use crate::{
    Config, Layout, OpenError,
    core::{database, ledger_dir, segment_dir},
    open,
};

/// A store in the making. Its lock is held.
pub(super) struct Site {
    /// Where it will be.
    target: PathBuf,
    existing: Existing,
    /// What it is made with, in a directory of its own.
    config: Config,
    lock: Box<dyn Lock>,
    /// That of the store which is set aside: nobody opens it any more.
    old: Option<Box<dyn Lock>>,
}

impl Site {
    /// Takes the directory beside the store's and empties it of what an earlier run left.
    pub(super) async fn prepare(
        world: &World,
        config: Config,
        existing: Existing,
        holder: &str,
    ) -> Result<Self, RestoreError> {
        let (shared, holder) = (world.clone(), holder.to_owned());
        blocking(world, move || {
            let target = config.dir.clone();
            let file = target.join(Layout::OneFile.database());
            if shared.disk.exists(&file).unwrap_or(false) {
                return Err(RestoreError::OneFile { file: file.display().to_string() });
            }
            let occupied = is_occupied(&*shared.disk, &target)?;
            if occupied && existing == Existing::Keep {
                return Err(RestoreError::Occupied { dir: target.display().to_string() });
            }
            let mut old = if occupied { Some(lock_old(&shared, &target, &holder)?) } else { None };
            if shared.sabotage == Sabotage::AsideTooEarly && old.take().is_some() {
                set_aside(&*shared.disk, &target, shared.clock.wall_ms())?;
            }
            let config = Config { dir: beside(&target, "recovering"), ..config };
            let lock = open::prepare_directory(&shared, &config, &holder)?;
            clear(&*shared.disk, &config)?;
            Ok(Self { target, existing, config, lock, old })
        })
        .await
    }

    /// What the store is made with.
    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    /// Folds the log of the new store.
    pub(super) async fn fold(mut self, world: &World) -> Result<Self, RestoreError> {
        self.lock = open::fold_at_rest(world, &self.config, self.lock).await?;
        Ok(self)
    }

    /// Puts the store where it belongs. Returns where the one is now that was there.
    pub(super) async fn take_place(self, world: &World) -> Result<Option<PathBuf>, RestoreError> {
        let shared = world.clone();
        blocking(world, move || {
            let Self { target, existing, config, lock, old } = self;
            let disk = &*shared.disk;
            for dir in [&segment_dir(&config), &ledger_dir(&config), &config.dir] {
                sync(disk, dir)?;
            }
            let above = above(&target);
            let mut aside = None;
            // Whatever has come to be there since was not there when it was allowed to go.
            if let Some(old) = old {
                assert_eq!(existing, Existing::SetAside, "INV-44 no store is replaced unasked");
                aside = Some(set_aside(disk, &target, shared.clock.wall_ms())?);
                drop(old);
            }
            disk.rename(&config.dir, &target).map_err(|source| {
                io_error(format!("naming the new store {}", target.display()), source)
            })?;
            sync(disk, &above)?;
            // Held until the store is in its place: nobody has opened it in between.
            drop(lock);
            Ok(aside)
        })
        .await
    }
}

fn sync(disk: &dyn Disk, dir: &Path) -> Result<(), RestoreError> {
    disk.sync_dir(dir).map_err(|source| io_error(format!("syncing {}", dir.display()), source))
}

/// The directory that has a store's name in it.
fn above(target: &Path) -> PathBuf {
    match target.parent() {
        Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    target.with_file_name(name)
}

fn is_occupied(disk: &dyn Disk, dir: &Path) -> Result<bool, RestoreError> {
    match disk.list(dir) {
        Ok(names) => Ok(!names.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(io_error(format!("listing {}", dir.display()), source)),
    }
}

/// Makes sure that nobody has the store open, nor will.
fn lock_old(world: &World, target: &Path, holder: &str) -> Result<Box<dyn Lock>, RestoreError> {
    let path = target.join("lock");
    let locked = world.disk.lock(&path);
    let locked =
        locked.map_err(|source| io_error(format!("locking {}", path.display()), source))?;
    let Some(lock) = locked else {
        let (dir, holder) = (target.display().to_string(), open::read_holder(world, &path));
        return Err(OpenError::Locked { dir, holder }.into());
    };
    let written = lock.describe(holder);
    written.map_err(|source| io_error(format!("writing {}", path.display()), source))?;
    Ok(lock)
}

fn set_aside(disk: &dyn Disk, target: &Path, wall: u64) -> Result<PathBuf, RestoreError> {
    let aside = beside(target, &format!("before-{wall}"));
    let renamed = disk.rename(target, &aside);
    renamed.map_err(|source| io_error(format!("setting {} aside", target.display()), source))?;
    weir_io::sometimes!("a bootstrap set a store aside");
    tracing::warn!(path = %aside.display(), "the store that was there is set aside");
    Ok(aside)
}

/// Removes what an earlier run left. What is not such a run's is not touched.
fn clear(disk: &dyn Disk, config: &Config) -> Result<(), RestoreError> {
    let (segments, ledgers) = (segment_dir(config), ledger_dir(config));
    let database = database(config);
    let kept = ["lock", "reserve"].map(|name| config.dir.join(name));
    for dir in [&config.dir, &segments, &ledgers] {
        let listed = disk.list(dir);
        let listed =
            listed.map_err(|source| io_error(format!("listing {}", dir.display()), source))?;
        for path in listed {
            if path == segments || path == ledgers || kept.contains(&path) {
                continue;
            }
            let name = path.to_string_lossy();
            let ours = dir != &config.dir || name.starts_with(&*database.to_string_lossy());
            if !ours {
                let dir = config.dir.display().to_string();
                return Err(RestoreError::Occupied { dir });
            }
            weir_io::sometimes!("a bootstrap started over after one that a crash cut short");
            let removed = disk.remove(&path);
            removed.map_err(|source| io_error(format!("removing {}", path.display()), source))?;
        }
    }
    Ok(())
}
