//! Verify: looks for damage in a store and in its bucket, and changes nothing (INV-45).
//!
//! | depth | looks at |
//! |---|---|
//! | local | pages of the database, tables against files, every block of every file, the log, the last manifest |
//! | remote | the chain of manifests, everything they name: there, as long and as marked as it should be |
//! | deep | both, indexes of the database against tables, every byte of what the newest manifest names, rows against tables, records without holes |
//!
//! A server may be running meanwhile: what it takes away while it is looked at is no damage.

mod chain;
mod compare;
mod database;
mod deep;
mod files;
mod ledgers;
mod local;
mod rows;
mod tables;

use std::sync::Arc;

use weir_io::{World, objects::Objects, retry::Retrying};

use self::local::Stillness;
use crate::{
    BadConfig, Config, Engine, Layout,
    history::Bucket,
    motion::publish::{Problem, segment_key},
    restore::{Finding, RestoreError, object::Bad},
    state::catalogue::{Failure, SegmentRow},
};

/// How much to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The store.
    Local,
    /// The bucket, without reading its objects whole.
    Remote,
    /// Both.
    Both,
    /// Both, every byte.
    Deep,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What is not as it should be; none if all is well.
    pub findings: Vec<Finding>,
    /// How much was looked at.
    pub checked: Checked,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Rows of streams in the tables.
    pub streams: u64,
    /// Commits in the log.
    pub commits: u64,
    /// Segments and ledgers of the store.
    pub files: u64,
    /// Blocks of these.
    pub blocks: u64,
    /// Manifests in the bucket.
    pub manifests: u64,
    /// Objects that these name.
    pub objects: u64,
    /// Bytes read of objects that were read whole.
    pub object_bytes: u64,
}

/// Why nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The bucket refused or did not answer.
    #[error("the bucket: {0}")]
    Bucket(String),
    /// The disk refused, or there is no store.
    #[error("{0}")]
    Local(String),
}

impl Findings {
    pub(crate) fn add(
        &mut self,
        rule: &'static str,
        object: impl std::fmt::Display,
        text: impl Into<String>,
    ) {
        self.findings.push(Finding::new(rule, object, text));
    }
}

impl From<Problem> for VerifyError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Bucket(error) => Self::Bucket(error.to_string()),
            other => Self::Local(other.to_string()),
        }
    }
}

impl From<RestoreError> for VerifyError {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Bucket(text) => Self::Bucket(text),
            other => Self::Local(other.to_string()),
        }
    }
}

impl From<Failure> for VerifyError {
    fn from(error: Failure) -> Self {
        Self::Local(error.to_string())
    }
}

/// What is wrong with an object; `Err`: nobody knows.
fn damage(bad: Bad) -> Result<String, VerifyError> {
    match bad {
        Bad::Unknown(error) => Err(error.into()),
        bad => Ok(bad.to_string()),
    }
}

/// Whether an uploaded segment that no manifest names yet is in the bucket: blocks of it may be nowhere
/// else.
async fn rented(
    world: &World,
    config: &Config,
    bucket: &Retrying,
    row: &SegmentRow,
    found: &mut Findings,
) -> Result<(), VerifyError> {
    let key = segment_key(row);
    let there = bucket.head(&key).await.map_err(|error| VerifyError::Bucket(error.to_string()))?;
    found.checked.objects += 1;
    let what = match there.map(|meta| meta.size) {
        Some(bytes) if bytes == row.bytes => return Ok(()),
        Some(bytes) => format!("it has {bytes} bytes instead of {}", row.bytes),
        None => "it is missing".to_owned(),
    };
    // A server that is running may have merged it away.
    if local::has_uploaded(world, config, row.id).await? {
        found.add("object", key, format!("{what}; no manifest names it, this store does"));
    }
    Ok(())
}

impl Engine {
    /// Looks for damage in the store in `config.dir` and in its bucket. The store need not be
    /// there if only the bucket is looked at, nor the bucket if only the store is.
    ///
    /// # Errors
    /// Disk or bucket did not answer. Damage is no error but a finding.
    pub async fn verify(
        world: World,
        config: Config,
        bucket: Option<Arc<dyn Objects>>,
        depth: Depth,
    ) -> Result<Findings, VerifyError> {
        if config.layout == Layout::OneFile && (bucket.is_some() || depth == Depth::Remote) {
            return Err(VerifyError::Local(BadConfig::Bucket.to_string()));
        }
        let bucket = bucket.map(|it| Bucket::new(it, Arc::clone(&world.entropy)));
        let mut found = Findings::default();
        let rows = match depth {
            Depth::Remote => None,
            Depth::Local | Depth::Both => {
                Some(local::look(&world, &config, (Stillness::Open, depth), &mut found).await?)
            }
            // Pages of the database that belong to nothing are known only while nobody changes them.
            Depth::Deep => {
                let held = local::hold(&world, &config).await?;
                let stillness = if held.is_some() { Stillness::Held } else { Stillness::Open };
                Some(local::look(&world, &config, (stillness, depth), &mut found).await?)
            }
        };
        let Some(bucket) = bucket.filter(|_| depth != Depth::Local) else { return Ok(found) };
        let bucket = &bucket.patient;
        let before = found.findings.len();
        let remote = chain::look(bucket, depth, &mut found).await?;
        let empty = remote.is_none() && found.findings.len() == before;
        match (&rows, &remote) {
            (Some(rows), Some(remote)) => {
                rows.compare(remote.end, &remote.newest, &mut found);
                for row in rows.unnamed(&remote.segments) {
                    rented(&world, &config, bucket, row, &mut found).await?;
                }
            }
            (Some(rows), None) if empty => rows.compare_none(&mut found),
            (None, None) if empty => found.add("manifest", "newest", "the bucket has no manifest"),
            _ => {}
        }
        if let (Depth::Deep, Some(remote)) = (depth, &remote) {
            let comparable = rows.as_ref().is_some_and(|rows| rows.comparable);
            let config = Some(&config).filter(|_| comparable);
            deep::look(&world, bucket, remote, config, &mut found).await?;
        }
        Ok(found)
    }
}
