//! Buckets of the real world: a directory, the process's memory, or a cloud.

mod bucket;
mod cloud;
mod connector;
mod local;
mod refusal;

use std::sync::Arc;

pub use self::{
    bucket::{Bucket, Kind},
    local::Local,
};
use self::{cloud::Cloud, connector::Connector};
use crate::{
    World,
    memory::MemoryBucket,
    objects::{ObjectError, Objects, Prefixed},
};

/// Opens a bucket. A cloud is not asked anything yet: [`crate::objects::probe`] does that.
///
/// # Errors
/// A setting is missing or wrong, or the directory cannot be used.
pub async fn open(bucket: &Bucket, world: &World) -> Result<Arc<dyn Objects>, ObjectError> {
    if let Kind::Local { directory } = &bucket.kind {
        Local::open(world, directory).await?;
    }
    open_known(bucket, world)
}

/// As [`open`], for one who has used it before: a local bucket that is not there is away, not new.
///
/// # Errors
/// A setting is missing or wrong.
pub fn open_known(bucket: &Bucket, world: &World) -> Result<Arc<dyn Objects>, ObjectError> {
    match &bucket.kind {
        Kind::Local { directory } => {
            Ok(prefixed(bucket, Arc::new(Local::open_known(world, directory))))
        }
        _ => open_to_look(bucket, world),
    }
}

/// Removes what a crash left half-written in a bucket that is a directory; others have no such
/// thing. What a process that lives is writing stays. Returns how many files there were.
///
/// # Errors
/// The directory cannot be read or changed.
pub async fn sweep_staging(bucket: &Bucket, world: &World) -> Result<usize, ObjectError> {
    match &bucket.kind {
        Kind::Local { directory } => Local::open_to_look(world, directory).sweep_staging().await,
        Kind::Memory | Kind::S3 | Kind::R2 | Kind::Gcs | Kind::Azure => Ok(0),
    }
}

/// As [`open`], for one who creates nothing: the directory of a local bucket is not even made.
///
/// # Errors
/// A setting is missing or wrong.
pub fn open_to_look(bucket: &Bucket, world: &World) -> Result<Arc<dyn Objects>, ObjectError> {
    let connector = || Connector::new(world);
    let opened: Arc<dyn Objects> = match &bucket.kind {
        Kind::Local { directory } => Arc::new(Local::open_to_look(world, directory)),
        Kind::Memory => MemoryBucket::new(0).client(Arc::clone(&world.clock)),
        Kind::S3 => Arc::new(Cloud::new(bucket.s3(connector())?, world)),
        Kind::R2 => Arc::new(Cloud::new(bucket.r2(connector())?, world)),
        Kind::Gcs => Arc::new(Cloud::new(bucket.gcs(connector())?, world)),
        Kind::Azure => Arc::new(Cloud::new(bucket.azure(connector())?, world)),
    };
    Ok(prefixed(bucket, opened))
}

fn prefixed(bucket: &Bucket, opened: Arc<dyn Objects>) -> Arc<dyn Objects> {
    match &bucket.prefix {
        Some(prefix) => Arc::new(Prefixed::new(opened, prefix.clone())),
        None => opened,
    }
}
