//! Bootstrap: makes a store out of what its bucket has.
//!
//! ```text
//! find manifest ─▶ fetch and verify ─▶ claim the next generation ─▶ tables ─▶ fold the tail ─▶
//!     ▲                                    │ taken by the old writer       raise epochs ─▶ rename
//!     └────────────────────────────────────┘
//! ```
//! Everything is made in a directory beside the store's, which takes its place in one step at the
//! end (INV-44): after a crash a second run starts over. The claim comes before anything that
//! could be served (INV-43): whoever was the writer finds its next slot taken and stops. Every
//! bootstrap begins a new era of epochs (INV-42), so that no offset that was minted for records
//! which the bucket never had can meet a record to come.

mod build;
mod catch_up;
mod claim;
mod describe;
pub(crate) mod fetch;
pub(crate) mod find;
mod garbage;
pub(crate) mod object;
mod patch;
mod place;
mod report;
pub(crate) mod search;
mod settle;
mod spare;
pub(crate) mod stretch;
pub(crate) mod tail;
pub(crate) mod window;

use std::sync::Arc;

use weir_io::{World, objects::Objects};

use self::{
    build::Plan,
    claim::Claimed,
    fetch::{Fetcher, Wanted},
    find::Choice,
    place::Site,
};
pub use self::{
    describe::{Each, Field, Flow, Item, Rank, Thing, Value, describe, describe_log, unpublished},
    garbage::{Garbage, Unneeded, garbage},
    report::{Finding, Report},
};
use crate::{
    BadConfig, Config, Engine, OpenError, history::Bucket, motion::publish::Problem,
    state::catalogue::Failure, types::WallMs,
};

/// How often the old writer may publish while this runs, before this gives up.
const ROUNDS_MAX: u32 = 16;

/// Which manifest to restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Moment {
    /// The newest.
    #[default]
    Newest,
    /// The one of this generation.
    Generation(u64),
    /// The newest that was made at or before this time.
    Time(WallMs),
}

/// What to do about a store that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    #[default]
    Keep,
    /// Rename its directory.
    SetAside,
}

/// What to do if some of it can't be restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Losses {
    /// Restore nothing.
    #[default]
    Refuse,
    /// Restore the rest.
    Accept,
}

/// What to restore, and over what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// As of when.
    pub at: Moment,
    /// Over what.
    pub existing: Existing,
    /// Whether all of it.
    pub losses: Losses,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The bucket has no manifest.
    #[error(
        "the bucket has no manifest: nothing was ever published to it; is it the right one, and the prefix?"
    )]
    Empty,
    /// It has none that was asked for.
    #[error("{0}")]
    NoSuchMoment(String),
    /// There is a store, and nobody said that it may be replaced.
    #[error("{dir} is not empty: bootstrap never overwrites a store, --force sets it aside")]
    Occupied {
        /// Its directory.
        dir: String,
    },
    /// There is a store in one file, which no bucket has anything of.
    #[error(
        "{file} is a store in one file: it has no bucket, and a bootstrap leaves its directory alone"
    )]
    OneFile {
        /// The file.
        file: String,
    },
    /// Some of it can't be restored, and nobody said that the rest is enough.
    #[error("{} of what was published can't be restored; --partial restores the rest", findings(.0))]
    Damaged(Box<Report>),
    /// Another process has claimed the bucket meanwhile.
    #[error("{0}")]
    Raced(String),
    /// The bucket refused or did not answer.
    #[error("the bucket: {0}")]
    Bucket(String),
    /// The bucket holds what no process of ours would put there.
    #[error("the bucket holds something foreign: {0}")]
    Foreign(String),
    /// What must be known of it can't be read.
    #[error("{0}")]
    Unreadable(String),
    /// The settings can't be meant.
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// The store can't be made.
    #[error(transparent)]
    Local(#[from] OpenError),
}

fn findings(report: &Report) -> String {
    let count = report.losses().count();
    if count == 1 { "one thing".to_owned() } else { format!("{count} things") }
}

impl From<Problem> for RestoreError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Bucket(error) => Self::Bucket(error.to_string()),
            Problem::Foreign(text) => Self::Foreign(text),
            Problem::Fenced(text) => Self::Raced(text),
            other => Self::Foreign(other.to_string()),
        }
    }
}

impl Engine {
    /// Makes the store in `config.dir` out of what `bucket` has, and claims the bucket for it: no
    /// process that wrote there before can publish again. [`Engine::open_with`] opens it then.
    /// `holder` is what the next process to try is told of this one.
    ///
    /// # Errors
    /// [`RestoreError`]; then there is no store that was not there before. The bucket may have
    /// been claimed all the same if it was the local disk that failed.
    pub async fn bootstrap(
        world: World,
        config: Config,
        bucket: Arc<dyn Objects>,
        options: Options,
        holder: &str,
    ) -> Result<Report, RestoreError> {
        config.check()?;
        let bucket = Bucket::new(bucket, Arc::clone(&world.entropy));
        Box::pin(bootstrap(&world, config, &bucket, options, holder)).await
    }

    /// Says what [`Engine::bootstrap`] would restore, and changes nothing.
    ///
    /// # Errors
    /// [`RestoreError`]; damage is in the report.
    pub async fn check_bootstrap(
        world: World,
        bucket: Arc<dyn Objects>,
        at: Moment,
    ) -> Result<Report, RestoreError> {
        let bucket = Bucket::new(bucket, Arc::clone(&world.entropy));
        let choice = find::find(&bucket.patient, at).await?;
        let mut fetcher = Fetcher::new(&world, &bucket.patient, Wanted::Looks);
        let mut report = Report::of(&choice);
        fetcher.fetch(&choice, &mut report).await?;
        Ok(report)
    }
}

async fn bootstrap(
    world: &World,
    config: Config,
    bucket: &Bucket,
    options: Options,
    holder: &str,
) -> Result<Report, RestoreError> {
    let bucket = &bucket.patient;
    let mut site = Site::prepare(world, config, options.existing, holder).await?;
    let wanted = Wanted::Copies { config: site.config().clone() };
    let mut fetcher = Fetcher::new(world, bucket, wanted);
    // The era of the manifest that was the newest when this began: who takes a slot after it?
    let mut began = None;
    for _ in 0..ROUNDS_MAX {
        let choice = find::find(bucket, options.at).await?;
        let era = began.get_or_insert_with(|| choice.end.recoveries.clone());
        if !era.contains(&choice.newest.manifest.recoveries) {
            return Err(raced(&choice));
        }
        let mut report = Report::of(&choice);
        let fetched = fetcher.fetch(&choice, &mut report).await?;
        if options.losses == Losses::Refuse && report.losses().next().is_some() {
            return Err(RestoreError::Damaged(Box::new(report)));
        }
        let next_segment = spare::spare(bucket, &choice).await?;
        let claimed = match claim::claim(world, bucket, &choice, next_segment).await? {
            Claimed::Mine(claimed) => *claimed,
            Claimed::Taken => {
                weir_io::sometimes!("the old writer published while a bootstrap was under way");
                continue;
            }
        };
        report.claimed = claimed.manifest.generation.get();
        report.recoveries = claimed.manifest.recoveries;
        let erase_within = site.config().erase_within;
        let now = claimed.manifest.created;
        let plan = Arc::new(Plan { now, erase_within, choice, claimed, fetched });
        build::build(world, site.config(), &plan, &mut report).await?;
        if !plan.fetched.lost.nothing() || !plan.fetched.tail_is_whole {
            patch::align(world, bucket, site.config(), &plan, &mut report).await?;
        }
        site = site.fold(world).await?;
        settle::settle(world, site.config(), &mut report).await?;
        report.set_aside = site.take_place(world).await?;
        tracing::info!(
            from = report.generation,
            generation = report.claimed,
            streams = report.streams,
            problems = report.findings.len(),
            "recovered the store from its bucket"
        );
        return Ok(report);
    }
    Err(RestoreError::Raced(format!(
        "another process has published {ROUNDS_MAX} times meanwhile: stop it first"
    )))
}

fn raced(choice: &Choice) -> RestoreError {
    RestoreError::Raced(format!(
        "another process has recovered from this bucket meanwhile and claimed manifest {}",
        choice.end.generation
    ))
}

/// Runs a job where blocking is allowed.
async fn blocking<R: Send + 'static>(
    world: &World,
    job: impl FnOnce() -> Result<R, RestoreError> + Send + 'static,
) -> Result<R, RestoreError> {
    let ran = weir_io::tasks::run(&*world.blocking, job).await;
    ran.unwrap_or_else(|gone| Err(io_error("restoring", std::io::Error::other(gone))))
}

fn io_error(what: impl Into<String>, source: std::io::Error) -> RestoreError {
    OpenError::Io { what: what.into(), source }.into()
}

fn failure(error: Failure) -> RestoreError {
    match error {
        Failure::Sqlite(source) => {
            OpenError::Sqlite { what: "the tables of the new store".into(), source }.into()
        }
        other => OpenError::Corrupt(other.to_string()).into(),
    }
}

#[cfg(test)]
mod tests;
