//! Objects as they are asked for: is one there, some of its bytes, all of them, in memory or as a file.
//! What seems damaged may have been spoiled on its way, and is asked for again by whoever can tell.

use std::{ops::Range, path::Path, sync::Arc};

use bytes::{Bytes, BytesMut};
use weir_io::{
    World,
    disk::Create,
    objects::{Key, ObjectError},
    retry::Retrying,
};

use super::{RestoreError, blocking, io_error};
use crate::motion::publish::Problem;

/// How often an object is asked for that seems damaged: it may have been spoiled on the way.
pub(crate) const TRIES_MAX: u32 = 5;
/// Bytes of one request: times the objects that are fetched together the bytes in memory.
const PIECE_BYTES: u64 = 8 << 20;

/// What is wrong with an object.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Bad {
    /// It is not there.
    #[error("it is not in the bucket")]
    Missing,
    /// It is not what was published.
    #[error("{0}")]
    Damaged(String),
    /// Nobody knows: the bucket did not answer, or the local disk refused.
    #[error("{0}")]
    Unknown(#[source] RestoreError),
}

impl From<RestoreError> for Bad {
    fn from(error: RestoreError) -> Self {
        Self::Unknown(error)
    }
}

/// Whether an object is there and as long as it should be.
pub(crate) async fn measure(bucket: &Retrying, key: &Key, bytes: u64) -> Result<(), Bad> {
    match bucket.head(key).await {
        Ok(None) | Err(ObjectError::NotFound) => Err(Bad::Missing),
        Ok(Some(meta)) if meta.size == bytes => Ok(()),
        Ok(Some(meta)) => Err(Bad::Damaged(format!("it has {} bytes, not {bytes}", meta.size))),
        Err(error) => Err(RestoreError::from(Problem::from(error)).into()),
    }
}

/// A few bytes of an object.
pub(crate) async fn piece(bucket: &Retrying, key: &Key, range: Range<u64>) -> Result<Bytes, Bad> {
    let expected = range.end - range.start;
    let mut wrong = Bad::Missing;
    for _ in 0..TRIES_MAX {
        match bucket.get_range(key, range.clone()).await {
            Ok(bytes) if u64::try_from(bytes.len()) == Ok(expected) => return Ok(bytes),
            Ok(bytes) => {
                let text = format!("bytes {range:?} were answered by {} bytes", bytes.len());
                wrong = Bad::Damaged(text);
            }
            Err(ObjectError::NotFound) => return Err(Bad::Missing),
            Err(error) => return Err(RestoreError::from(Problem::from(error)).into()),
        }
    }
    Err(wrong)
}

fn pieces(bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let starts = (0..bytes).step_by(usize::try_from(PIECE_BYTES).expect("a small constant"));
    starts.map(move |start| start..bytes.min(start + PIECE_BYTES))
}

/// All bytes of an object.
pub(crate) async fn whole(bucket: &Retrying, key: &Key, bytes: u64) -> Result<Bytes, Bad> {
    let mut all = BytesMut::new();
    for range in pieces(bytes) {
        all.extend_from_slice(&piece(bucket, key, range).await?);
    }
    Ok(all.freeze())
}

/// Makes a synced file of an object. The caller makes its name durable.
pub(super) async fn download(
    world: &World,
    bucket: &Retrying,
    key: &Key,
    bytes: u64,
    path: &Path,
) -> Result<(), Bad> {
    let shown = path.display().to_string();
    let failed = move |source| io_error(format!("writing {shown}"), source);
    let (disk, path) = (Arc::clone(&world.disk), path.to_owned());
    let sink = failed.clone();
    let file = blocking(world, move || disk.create(&path, Create::Truncate).map_err(sink)).await?;
    for range in pieces(bytes) {
        let start = range.start;
        let some = piece(bucket, key, range).await?;
        let (target, sink) = (Arc::clone(&file), failed.clone());
        blocking(world, move || target.write_all_at(&some, start).map_err(sink)).await?;
    }
    blocking(world, move || file.sync().map_err(failed)).await?;
    Ok(())
}
