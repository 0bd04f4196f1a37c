//! Commands that work on a store or a bucket without a server: what each is asked, who does it,
//! and how the process ends.
//!
//! The [`Engine`] does the work; here is no logic but which bucket to open and how. What only
//! looks opens it without a trial, which would write.

pub mod flags;
mod garbage;
mod shown;
pub mod work;

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use weir_engine::{Layout, restore::RestoreError};
use weir_io::World;

use self::flags::{
    BootstrapFlags, GcFlags, InspectFlags, Moment, OfflineCommand, PlaceFlags, RestoreFlags,
    ServeBootstrapFlags, Stored, VerifyFlags,
};
pub use self::shown::Showing;
use super::ServeError;
use crate::{
    ObjectStore,
    config::{self, ConfigError, Environment, StoreSettings},
};

/// The exit code of a command that worked and found problems. 1 is a command that failed, 2 one
/// that was not understood.
pub const PROBLEMS: u8 = 3;

/// One of the commands with everything it needs.
#[derive(Clone, Debug)]
pub enum Offline {
    /// Make a store out of a bucket.
    Bootstrap(Place, Restore, Format),
    /// Say what that would do.
    CheckBootstrap(Place, Option<Moment>, Format),
    /// Look for damage.
    Verify(Place, Depth, Format),
    /// Print what is stored at a place.
    Inspect(Stored, PathBuf, Showing),
    /// Say what could be deleted.
    Garbage(Place, Format),
}

/// A store and its bucket.
#[derive(Clone, Debug)]
pub struct Place {
    /// Directory of everything stored; the store is `store` in it.
    pub data: PathBuf,
    /// The bucket.
    pub object_store: StoreSettings,
}

/// What to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restore {
    /// As of when; `None`: the newest manifest.
    pub at: Option<Moment>,
    /// What to do about a store that is there.
    pub existing: Existing,
    /// What to do if some of it can't be restored.
    pub losses: Losses,
    /// Time within which the store erases what was deleted.
    pub erase_within: Duration,
}

/// What to do if some of it can't be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Losses {
    /// Restore nothing.
    Refuse,
    /// Restore the rest.
    Accept,
}

/// What to do about a store that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it alone and fail.
    Keep,
    /// Restore in its place.
    Replace,
}

/// Where to look for damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// In the data directory.
    Local,
    /// In the bucket, at what tells of objects without reading them whole.
    Remote,
    /// In both.
    Both,
    /// In both, every byte.
    Deep,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one JSON document.
    Json,
}

/// What a command found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether everything is as it should be.
    pub verdict: Verdict,
    /// What to print, in the format that was asked for.
    pub text: String,
}

/// Whether everything is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Sound,
    /// It is not; the report says what is wrong.
    Problems,
}

impl Report {
    /// The exit code of the process.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self.verdict {
            Verdict::Sound => 0,
            Verdict::Problems => PROBLEMS,
        }
    }
}

/// Who does the work. Every error says what could not be done at all; what is wrong with a store
/// is a report. All but `bootstrap` change nothing.
pub trait Engine {
    /// Makes `place`'s store out of its bucket and claims the bucket for it.
    fn bootstrap(
        &self,
        world: &World,
        place: &Place,
        bucket: &ObjectStore,
        restore: Restore,
        format: Format,
    ) -> impl Future<Output = anyhow::Result<Report>>;

    /// Says what [`Engine::bootstrap`] would restore.
    fn check_bootstrap(
        &self,
        world: &World,
        bucket: &ObjectStore,
        at: Option<Moment>,
        format: Format,
    ) -> impl Future<Output = anyhow::Result<Report>>;

    /// Looks for damage; there is no bucket if only the data directory is looked at.
    fn verify(
        &self,
        world: &World,
        place: &Place,
        bucket: Option<&ObjectStore>,
        depth: Depth,
        format: Format,
    ) -> impl Future<Output = anyhow::Result<Report>>;

    /// Prints what is stored at a place, as it comes.
    fn inspect(
        &self,
        world: &World,
        what: Stored,
        place: &Path,
        showing: Showing,
        out: &mut dyn Write,
    ) -> impl Future<Output = anyhow::Result<Report>>;

    /// Says which objects a server would delete.
    fn garbage(
        &self,
        world: &World,
        bucket: &ObjectStore,
        format: Format,
    ) -> impl Future<Output = anyhow::Result<Report>>;
}

impl OfflineCommand {
    /// Puts flags and environment together.
    ///
    /// # Errors
    /// They make no sense.
    pub fn resolve(self, environment: &Environment) -> Result<Offline, ConfigError> {
        let place = |flags| Place::resolve(flags, environment);
        Ok(match self {
            Self::Bootstrap(BootstrapFlags { place: flags, check: true, json, restore }) => {
                Offline::CheckBootstrap(place(flags)?, restore.at, format(json))
            }
            Self::Bootstrap(BootstrapFlags { place: flags, check: false, json, restore }) => {
                let RestoreFlags { at, partial, force, erase_within } = restore;
                let (existing, losses) = (existing(force), losses(partial));
                let restore = Restore { at, existing, losses, erase_within };
                Offline::Bootstrap(place(flags)?, restore, format(json))
            }
            Self::Verify(flags) => {
                let (depth, format) = (depth(&flags), format(flags.json));
                Offline::Verify(place(flags.place)?, depth, format)
            }
            Self::Inspect(InspectFlags { what, place, json, skip, limit }) => {
                let showing = Showing { format: format(json), skip, limit };
                Offline::Inspect(what, place, showing)
            }
            Self::Gc(GcFlags { place: flags, dry_run: _, json }) => {
                Offline::Garbage(place(flags)?, format(json))
            }
        })
    }
}

impl ServeBootstrapFlags {
    /// What a server that erases within this time is to restore before it serves; `None`: nothing.
    #[must_use]
    pub fn restore(self, erase_within: Duration) -> Option<Restore> {
        let Self { bootstrap, at, partial, force } = self;
        let (existing, losses) = (existing(force), losses(partial));
        bootstrap.then_some(Restore { at, existing, losses, erase_within })
    }
}

impl Place {
    fn resolve(flags: PlaceFlags, environment: &Environment) -> Result<Self, ConfigError> {
        let data = config::data(flags.data, environment);
        let object_store = StoreSettings::resolve(&flags.store, &data, environment)?;
        Ok(Self { data, object_store })
    }

    /// The directory of a store in one file, if that is what there is.
    fn one_file(&self, world: &World) -> Option<PathBuf> {
        let name = Layout::OneFile.database();
        if self.data.file_name().is_some_and(|it| it == name) {
            return self.data.parent().map(Path::to_owned);
        }
        let is_there = |name| world.disk.exists(&self.data.join(name)).unwrap_or(false);
        (is_there(name) && !is_there("store")).then(|| self.data.clone())
    }

    /// The bucket of a store that is to be recovered: it is there, or its disk is not mounted.
    async fn open(&self, world: &World) -> Result<ObjectStore, ServeError> {
        let opened = ObjectStore::open_known(world, &self.object_store).await;
        opened.map_err(|source| ServeError::object_store(&self.object_store, source))
    }

    async fn open_to_look(&self, world: &World) -> Result<ObjectStore, ServeError> {
        let opened = ObjectStore::open_to_look(world, &self.object_store).await;
        opened.map_err(|source| ServeError::object_store(&self.object_store, source))
    }
}

/// Has a command done. What it prints goes to `out` if it may be long, and is in the report else.
///
/// # Errors
/// The bucket can't be used, or the work could not be done.
pub async fn run(
    engine: &impl Engine,
    world: &World,
    task: Offline,
    out: &mut dyn Write,
) -> anyhow::Result<Report> {
    match task {
        Offline::Bootstrap(place, restore, format) => {
            refuse_one_file(world, &place.data)?;
            let bucket = place.open(world).await?;
            engine.bootstrap(world, &place, &bucket, restore, format).await
        }
        Offline::CheckBootstrap(place, at, format) => {
            refuse_one_file(world, &place.data)?;
            let bucket = place.open_to_look(world).await?;
            engine.check_bootstrap(world, &bucket, at, format).await
        }
        Offline::Verify(place, depth, format) if place.one_file(world).is_some() => {
            anyhow::ensure!(
                depth != Depth::Remote,
                "{} is a store in one file: it has no bucket to look at",
                place.data.display()
            );
            engine.verify(world, &place, None, Depth::Local, format).await
        }
        Offline::Verify(place, Depth::Local, format) => {
            engine.verify(world, &place, None, Depth::Local, format).await
        }
        Offline::Verify(place, depth, format) => {
            let bucket = place.open_to_look(world).await?;
            engine.verify(world, &place, Some(&bucket), depth, format).await
        }
        Offline::Inspect(what, place, showing) => {
            engine.inspect(world, what, &place, showing, out).await
        }
        Offline::Garbage(place, format) => {
            refuse_one_file(world, &place.data)?;
            let bucket = place.open_to_look(world).await?;
            engine.garbage(world, &bucket, format).await
        }
    }
}

/// Refuses a data directory that a local server keeps its file in: no bucket has anything of that,
/// and nothing is to be made beside it.
pub(super) fn refuse_one_file(world: &World, data: &Path) -> Result<(), RestoreError> {
    let name = Layout::OneFile.database();
    let file = match data.file_name() {
        Some(it) if it == name => data.to_owned(),
        _ => data.join(name),
    };
    if world.disk.exists(&file).unwrap_or(false) {
        return Err(RestoreError::OneFile { file: file.display().to_string() });
    }
    Ok(())
}

const fn existing(force: bool) -> Existing {
    if force { Existing::Replace } else { Existing::Keep }
}

const fn losses(partial: bool) -> Losses {
    if partial { Losses::Accept } else { Losses::Refuse }
}

const fn depth(flags: &VerifyFlags) -> Depth {
    match (flags.local, flags.remote, flags.deep) {
        (true, _, _) => Depth::Local,
        (_, true, _) => Depth::Remote,
        (_, _, true) => Depth::Deep,
        (false, false, false) => Depth::Both,
    }
}

const fn format(json: bool) -> Format {
    if json { Format::Json } else { Format::Text }
}

#[cfg(test)]
mod tests;
