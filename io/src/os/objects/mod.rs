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
    let connector = || Connector::new(world);
    let opened: Arc<dyn Objects> = match &bucket.kind {
        Kind::Local { directory } => Arc::new(Local::open(world, directory).await?),
        Kind::Memory => MemoryBucket::new(0).client(Arc::clone(&world.clock)),
        Kind::S3 => Arc::new(Cloud::new(bucket.s3(connector())?)),
        Kind::R2 => Arc::new(Cloud::new(bucket.r2(connector())?)),
        Kind::Gcs => Arc::new(Cloud::new(bucket.gcs(connector())?)),
        Kind::Azure => Arc::new(Cloud::new(bucket.azure(connector())?)),
    };
    Ok(match &bucket.prefix {
        Some(prefix) => Arc::new(Prefixed::new(opened, prefix.clone())),
        None => opened,
    })
}
