//! A bucket in a directory, as durable as the disk is.
//!
//! An object is written to a file of its own in `.staging`, synced, and linked to its name,
//! which fails if the name is taken; then the directory is synced. So a name never stands for
//! half an object, and an answer is given for what a power cut cannot take back. It works on
//! any [`Disk`], the simulated one too.
//!
//! `.staging` also tells a bucket from the empty place where its disk is to be mounted: without it
//! nothing is called missing, and nothing is written.
//!
//! Whoever writes there holds a lock, `.staging/<owner>.owner`, for as long as it lives, and its files
//! are called `.staging/<owner>-<number>`: so [`Local::sweep_staging`] takes away what a crash left
//! and nothing else, whoever else has the directory open.

mod listing;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tracing::{info, warn};

use self::listing::Listing;
use crate::{
    Blocking, Disk, Entropy, World,
    disk::{Create, File, Lock, is_full},
    objects::{
        Created, Delivery, Key, LIST_MAX, Meta, ObjectError, Objects, Payload, Pending, bounded,
        inside,
    },
    tasks,
};

/// Where objects are before they have a name. No key begins with a dot.
const STAGING: &str = ".staging";
/// How the locks there end that say whose files are whose.
const OWNER: &str = ".owner";
/// How often a number is drawn for an owner before that fails.
const OWNERS_MAX: usize = 4;
/// Directories known to be durable that are remembered.
const DURABLE_MAX: usize = 4096;
/// Bytes moved at once when a file has to be copied.
const COPY_BYTES: u64 = 1 << 20;

/// A bucket in a directory.
pub struct Local {
    blocking: Arc<dyn Blocking>,
    entropy: Arc<dyn Entropy>,
    shelf: Arc<Shelf>,
}

/// What the jobs of a bucket share.
struct Shelf {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    /// Whether its absence is only believed where `.staging` is.
    marked: bool,
    /// Directories below the root whose names survive a power cut.
    durable: Mutex<BTreeSet<PathBuf>>,
    /// Who this is, once it has written something.
    owner: Mutex<Option<Owner>>,
}

/// A name for this process's files, and the lock that keeps others from sweeping them.
struct Owner {
    name: String,
    _lock: Box<dyn Lock>,
}

/// An open file and its length.
type Measured = (Arc<dyn File>, u64);

/// Numbers that nobody else has drawn: for one file, and for this process if it has none.
struct Draw {
    file: String,
    owners: [String; OWNERS_MAX],
}

impl Local {
    /// Opens the bucket in `root`, which is made if it is missing.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub async fn open(world: &World, root: &Path) -> Result<Local, ObjectError> {
        let local = Self::open_known(world, root);
        local.run(|shelf| shelf.open().map_err(failed)).await?;
        Ok(local)
    }

    /// The bucket in `root` that was opened before. While it is not there, nothing is known of its
    /// objects: every request fails, and may be asked again.
    #[must_use]
    pub fn open_known(world: &World, root: &Path) -> Local {
        Self::over(world, root, true)
    }

    /// The bucket in `root` for one who creates nothing: neither is anything made.
    #[must_use]
    pub fn open_to_look(world: &World, root: &Path) -> Local {
        Self::over(world, root, false)
    }

    fn over(world: &World, root: &Path, marked: bool) -> Local {
        let shelf = Shelf {
            disk: Arc::clone(&world.disk),
            root: root.to_owned(),
            marked,
            durable: Mutex::default(),
            owner: Mutex::default(),
        };
        Local {
            blocking: Arc::clone(&world.blocking),
            entropy: Arc::clone(&world.entropy),
            shelf: Arc::new(shelf),
        }
    }

    /// Removes what a crash left half-written, whoever's it was. What belongs to a process that lives
    /// stays. Returns how many files there were.
    ///
    /// # Errors
    /// The directory cannot be read or changed.
    pub async fn sweep_staging(&self) -> Result<usize, ObjectError> {
        self.run(|shelf| shelf.sweep_staging().map_err(failed)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Shelf) -> Result<T, ObjectError> + Send + 'static,
    ) -> Result<T, ObjectError> {
        let shelf = Arc::clone(&self.shelf);
        let done = tasks::run(&*self.blocking, move || job(&shelf)).await;
        done.map_err(|gone| ObjectError::Transient(gone.to_string()))?
    }

    fn draw(&self) -> Draw {
        let number = || format!("{:016x}{:016x}", self.entropy.next_u64(), self.entropy.next_u64());
        Draw { file: number(), owners: std::array::from_fn(|_| number()) }
    }
}

impl Objects for Local {
    fn create<'a>(&'a self, key: &'a Key, payload: Payload) -> Pending<'a, Created> {
        let (key, draw) = (key.clone(), self.draw());
        Box::pin(self.run(move |shelf| {
            shelf.create(&key, |name| {
                shelf.stage(&draw, name, |file| {
                    let mut at = 0;
                    for part in payload.parts() {
                        file.write_all_at(part, at)?;
                        at += crate::objects::length(part);
                    }
                    Ok(())
                })
            })
        }))
    }

    fn create_from_file<'a>(
        &'a self,
        key: &'a Key,
        file: &'a Path,
        _size: u64,
    ) -> Option<Pending<'a, Delivery>> {
        let (key, source, draw) = (key.clone(), file.to_owned(), self.draw());
        Some(Box::pin(self.run(move |shelf| {
            let created = shelf.create(&key, |name| match shelf.disk.link(&source, name) {
                // Without hard links the copy fails too, and says why.
                Err(error)
                    if error.kind() == io::ErrorKind::CrossesDevices || is_linkless(&error) =>
                {
                    shelf.stage(&draw, name, |file| copy(&*shelf.disk.open(&source)?, file))
                }
                linked => linked,
            });
            let created = created.map_err(|error| match shelf.disk.exists(&source) {
                Ok(false) => ObjectError::NotFound,
                _ => error,
            })?;
            // A copy stays on this machine: nobody bills its bytes.
            Ok(Delivery { created, requests: 1, bytes: 0 })
        })))
    }

    fn get<'a>(&'a self, key: &'a Key, bytes_max: u64) -> Pending<'a, Bytes> {
        let key = key.clone();
        Box::pin(self.run(move |shelf| {
            let (file, size) = shelf.open_object(&key)?.ok_or(ObjectError::NotFound)?;
            bounded(size, bytes_max)?;
            read(&*file, 0..size)
        }))
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> Pending<'a, Bytes> {
        let key = key.clone();
        Box::pin(self.run(move |shelf| {
            let (file, size) = shelf.open_object(&key)?.ok_or(ObjectError::NotFound)?;
            inside(&range, size)?;
            read(&*file, range)
        }))
    }

    fn head<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Meta>> {
        let key = key.clone();
        Box::pin(self.run(move |shelf| {
            let object = shelf.open_object(&key)?;
            Ok(object.map(|(_, size)| Meta { key, size, etag: None }))
        }))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Vec<Meta>> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        Box::pin(self.run(move |shelf| {
            let mut listing =
                Listing { shelf, prefix, after, limit: limit.min(LIST_MAX), found: Vec::new() };
            listing.walk("")?;
            if listing.found.is_empty() {
                shelf.demand()?;
            }
            Ok(listing.found)
        }))
    }

    fn delete<'a>(&'a self, key: &'a Key) -> Pending<'a, ()> {
        let key = key.clone();
        Box::pin(self.run(move |shelf| shelf.delete(&key)))
    }
}

impl Shelf {
    fn open(&self) -> io::Result<()> {
        let staging = self.root.join(STAGING);
        self.disk.create_dir_all(&staging)?;
        for directory in self.root.ancestors() {
            let here = directory.as_os_str().is_empty();
            let directory = if here { Path::new(".") } else { directory };
            // Above the data directory there may be some that belong to others.
            if let Err(error) = self.disk.sync_dir(directory)
                && error.kind() != io::ErrorKind::PermissionDenied
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Refuses to speak for a bucket that is not there.
    fn demand(&self) -> Result<(), ObjectError> {
        if !self.marked || self.disk.exists(&self.root.join(STAGING)).map_err(failed)? {
            return Ok(());
        }
        let root = self.root.display();
        Err(ObjectError::Transient(format!(
            "there is no bucket in '{root}', which lacks its directory '{STAGING}': is its disk mounted?"
        )))
    }

    fn sweep_staging(&self) -> io::Result<usize> {
        let staging = self.root.join(STAGING);
        let left = match self.disk.list(&staging) {
            Err(error) if is_absent(&error) => return Ok(0),
            listed => listed?,
        };
        let mut owners: BTreeMap<&str, Vec<&PathBuf>> = BTreeMap::new();
        for path in &left {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some((owner, _)) = name.split_once('-') {
                owners.entry(owner).or_default().push(path);
            } else if let Some(owner) = name.strip_suffix(OWNER) {
                owners.entry(owner).or_default();
            }
        }
        let mut swept = 0;
        for (owner, files) in owners {
            let path = staging.join(format!("{owner}{OWNER}"));
            // Held until its files are gone: nobody else can take that name meanwhile.
            let Some(_lock) = self.disk.lock(&path)? else { continue };
            for file in files.into_iter().chain([&path]) {
                match self.disk.remove(file) {
                    // Somebody else is sweeping too.
                    Err(error) if is_absent(&error) => {}
                    removed => {
                        removed?;
                        swept += usize::from(*file != path);
                    }
                }
            }
        }
        if swept > 0 {
            info!(objects = swept, "removed what a crash left half-written");
        }
        Ok(swept)
    }

    /// Where to write a file that has no name yet. Its owner's lock is held from before it is there.
    fn staged(&self, draw: &Draw) -> io::Result<PathBuf> {
        let staging = self.root.join(STAGING);
        let mut owner = self.owner.lock();
        for name in &draw.owners {
            if owner.is_some() {
                break;
            }
            // Not held by us: somebody was sweeping just then.
            if let Some(lock) = self.disk.lock(&staging.join(format!("{name}{OWNER}")))? {
                *owner = Some(Owner { name: name.clone(), _lock: lock });
            }
        }
        let busy = || io::Error::other("somebody else holds every lock that this process makes");
        let Owner { name, .. } = owner.as_ref().ok_or_else(busy)?;
        Ok(staging.join(format!("{name}-{}", draw.file)))
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Gives an object its name by `link`, which fails if the name is taken, and makes the
    /// name durable, its own or the other's: whoever hears that it is there may rely on it.
    fn create(
        &self,
        key: &Key,
        link: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<Created, ObjectError> {
        self.demand()?;
        let path = self.path(key);
        let parent = path.parent().expect("an object lies below the root");
        self.make_durable(parent).map_err(failed)?;
        // Asked first only to save the bytes: `link` decides.
        let taken = self.disk.exists(&path).map_err(failed)?;
        let created = if taken { Created::AlreadyThere } else { named(link(&path))? };
        self.disk.sync_dir(parent).map_err(failed)?;
        Ok(created)
    }

    /// Writes a file, syncs it and gives it its name.
    fn stage(
        &self,
        draw: &Draw,
        name: &Path,
        write: impl FnOnce(&dyn File) -> io::Result<()>,
    ) -> io::Result<()> {
        let staged = &self.staged(draw)?;
        let linked = self.disk.create(staged, Create::New).and_then(|file| {
            write(&*file)?;
            file.sync()?;
            self.disk.link(staged, name).map_err(|error| without_links(error, &self.root))
        });
        // What cannot be removed now is swept at some start.
        match self.disk.remove(staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(%error, path = %staged.display(), "a staged object was left behind");
            }
            _ => {}
        }
        linked
    }

    /// Makes a directory and every name that leads to it survive a power cut.
    fn make_durable(&self, directory: &Path) -> io::Result<()> {
        if directory == self.root || self.durable.lock().contains(directory) {
            return Ok(());
        }
        self.disk.create_dir_all(directory)?;
        let below = directory.ancestors().take_while(|it| *it != self.root);
        for directory in below.collect::<Vec<_>>().into_iter().rev() {
            self.disk.sync_dir(directory.parent().expect("a directory below the root has one"))?;
        }
        let mut durable = self.durable.lock();
        if durable.len() >= DURABLE_MAX {
            durable.clear();
        }
        durable.insert(directory.to_owned());
        Ok(())
    }

    /// The object's file and its size.
    fn open_object(&self, key: &Key) -> Result<Option<Measured>, ObjectError> {
        let path = self.path(key);
        let opened = self.disk.open(&path).and_then(|file| {
            let size = file.len()?;
            Ok((file, size))
        });
        match opened {
            // A directory can be opened, and has a length that means nothing.
            Ok(_) if self.disk.list(&path).is_ok() => Ok(None),
            Ok(object) => Ok(Some(object)),
            Err(error) if is_absent(&error) => self.demand().map(|()| None),
            Err(error) => Err(failed(error)),
        }
    }

    fn delete(&self, key: &Key) -> Result<(), ObjectError> {
        if self.open_object(key)?.is_none() {
            return Ok(());
        }
        let path = self.path(key);
        match self.disk.remove(&path) {
            Err(error) if is_absent(&error) => return Ok(()),
            removed => removed.map_err(failed)?,
        }
        let parent = path.parent().expect("an object lies below the root");
        self.disk.sync_dir(parent).map_err(failed)
    }
}

fn read(file: &dyn File, range: Range<u64>) -> Result<Bytes, ObjectError> {
    let size = usize::try_from(range.end - range.start);
    let size = size.map_err(|_| ObjectError::Refused("larger than the memory".into()))?;
    file.read_at(range.start, size).map_err(failed)
}

fn copy(source: &dyn File, target: &dyn File) -> io::Result<()> {
    let size = source.len()?;
    let mut at = 0;
    while at < size {
        let step = usize::try_from((size - at).min(COPY_BYTES)).expect("a megabyte fits memory");
        let mut bytes = vec![0; step];
        source.read_exact_at(&mut bytes, at)?;
        target.write_all_at(&bytes, at)?;
        at += crate::objects::length(&bytes);
    }
    Ok(())
}

/// How giving a name ended.
fn named(linked: io::Result<()>) -> Result<Created, ObjectError> {
    match linked {
        Ok(()) => Ok(Created::New),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Created::AlreadyThere),
        Err(error) => Err(failed(error)),
    }
}

/// Whether a link was refused because the file system has none. Linux says that it is not permitted.
fn is_linkless(error: &io::Error) -> bool {
    let not_permitted = rustix::io::Errno::PERM.raw_os_error();
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(not_permitted)
}

/// Says so plainly of a file system that has no hard links.
fn without_links(error: io::Error, root: &Path) -> io::Error {
    if !is_linkless(&error) {
        return error;
    }
    let text = format!(
        "the file system of '{}' has no hard links ({error}), and a local bucket needs them so that \
         no object is ever replaced: put --bucket-dir on another one, or use another --object-store",
        root.display()
    );
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory)
}

/// A full disk and a forbidden one say the same the next time; whatever else failed may have
/// happened.
fn failed(error: io::Error) -> ObjectError {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    if is_full(&error) || matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) {
        return ObjectError::Refused(error.to_string());
    }
    ObjectError::Transient(error.to_string())
}
