//! Makes a local copy of a segment that only the bucket has: all that opening needs, no block.
//!
//! Two or three small requests whatever the segment's size; one for a small segment, which is then
//! here as a whole. An object whose index, filter or trailer is damaged is fetched as a whole, so that
//! its blocks can be found without.

use std::{io, ops::Range, path::PathBuf, sync::Arc};

use bytes::{Bytes, BytesMut};
use weir_io::{
    World,
    disk::Create,
    objects::{Key, ObjectError},
    retry::Retrying,
};

use crate::{
    segment::{
        self, CopyError, Damaged, HEADER_LEN, ReadError, Remote, Segment, TAIL_LEN, write_bare,
    },
    types::SegmentId,
};

/// The last bytes that are asked for first: index and filter of most segments are among them.
const TAIL_BYTES_GUESS: u64 = 64 << 10;

/// Bytes of a whole object that are fetched with one request.
const PIECE_BYTES: u64 = 8 << 20;

/// How often an object is asked for that seems damaged: it may have been spoiled on the way.
const TRIES_MAX: u32 = 3;

/// A segment to be adopted, as who published it describes it.
#[derive(Clone, Debug)]
pub(crate) struct Adoption {
    pub(crate) store: [u8; 16],
    pub(crate) id: SegmentId,
    /// Checksum of its footer; `None` if only its name is known, which no other object ever has.
    pub(crate) mark: Option<u32>,
    pub(crate) remote: Remote,
    /// The name of the local copy. Whatever has it is replaced.
    pub(crate) path: PathBuf,
}

/// Why there is no local copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptError {
    /// The object is not there.
    #[error("object {0} is not in the bucket")]
    Missing(Key),
    /// The bucket did not answer, or refused.
    #[error("object {key}: {source}")]
    Unanswered { key: Key, source: ObjectError },
    /// The object is not what was published.
    #[error("object {key}: {source}")]
    Damaged { key: Key, source: ReadError },
    /// The object is a whole segment, but another one.
    #[error("object {0} is another segment")]
    Another(Key),
    /// The local disk refused.
    #[error("the local copy can't be written")]
    Write(#[source] io::Error),
    /// The process is going down.
    #[error(transparent)]
    Gone(#[from] weir_io::tasks::Gone),
}

/// Fetches what opening needs, verifies it and writes the local copy. Durable but for its name: the
/// caller syncs the directory.
pub(crate) async fn adopt(
    world: &World,
    bucket: &Retrying,
    adoption: &Adoption,
) -> Result<Segment, AdoptError> {
    for _ in 1..TRIES_MAX {
        match once(world, bucket, adoption).await {
            Err(AdoptError::Damaged { .. }) => {}
            settled => return settled,
        }
    }
    match once(world, bucket, adoption).await {
        Err(AdoptError::Damaged { source, .. }) if source.is_dispensable() => {
            weir_io::sometimes!("an object was damaged beside its blocks");
            tracing::error!(
                segment = %adoption.id, key = %adoption.remote.key, %source,
                "an object is damaged beside its blocks"
            );
            salvage(world, bucket, adoption).await
        }
        settled => settled,
    }
}

/// Fetches all of a damaged object and makes a local copy of its blocks and what they tell.
async fn salvage(
    world: &World,
    bucket: &Retrying,
    adoption: &Adoption,
) -> Result<Segment, AdoptError> {
    let Adoption { store, id, mark, remote, path } = adoption.clone();
    let fetched = path.with_extension("tmp");
    let (disk, name) = (Arc::clone(&world.disk), fetched.clone());
    let blocking = &*world.blocking;
    let create = move || disk.create(&name, Create::Truncate);
    let file = weir_io::tasks::run(blocking, create).await?.map_err(AdoptError::Write)?;
    let fetch = async {
        let mut at = 0;
        while at < remote.bytes {
            let limit = remote.bytes.min(at + PIECE_BYTES);
            let (piece, target) = (get(bucket, &remote, at..limit).await?, Arc::clone(&file));
            let write = move || target.write_all_at(&piece, at);
            weir_io::tasks::run(blocking, write).await?.map_err(AdoptError::Write)?;
            at = limit;
        }
        Ok(())
    };
    let arrived: Result<(), AdoptError> = fetch.await;
    let (disk, key) = (Arc::clone(&world.disk), remote.key.clone());
    let copy = move || {
        let damaged = |source| AdoptError::Damaged { key: key.clone(), source };
        let copied = arrived.and_then(|()| {
            let (found, _) = Segment::salvage(file).map_err(damaged)?;
            let is_wanted = (found.store(), found.id()) == (store, id)
                && mark.is_none_or(|mark| found.footer().mark() == mark);
            if !is_wanted {
                return Err(AdoptError::Another(key.clone()));
            }
            found.write_anew(&*disk, &path).map_err(|error| match error {
                CopyError::Read(error) => damaged(error),
                CopyError::Another => AdoptError::Another(key.clone()),
                CopyError::Write(error) => AdoptError::Write(error),
            })?;
            let file = disk.open(&path).map_err(AdoptError::Write)?;
            Segment::open(file).map_err(damaged)
        });
        // If it can't be removed now it goes at the next start.
        drop(disk.remove(&fetched));
        copied
    };
    let segment = weir_io::tasks::run(blocking, copy).await??;
    segment.set_remote(remote);
    Ok(segment)
}

async fn once(
    world: &World,
    bucket: &Retrying,
    adoption: &Adoption,
) -> Result<Segment, AdoptError> {
    let Adoption { store, id, mark, remote, path } = adoption.clone();
    let Remote { key, bytes } = remote.clone();
    let damaged = |source: ReadError| AdoptError::Damaged { key: key.clone(), source };
    let (head, tail) = ends(bucket, &remote, mark).await?;
    let disk = std::sync::Arc::clone(&world.disk);
    let written = weir_io::tasks::run(&*world.blocking, move || {
        write_bare(&*disk, &path, &head, &tail, bytes, |it| {
            (it.store(), it.id()) == (store, id)
                && mark.is_none_or(|mark| it.footer().mark() == mark)
        })
    });
    let segment = written.await?.map_err(|error| match error {
        CopyError::Read(error) => damaged(error),
        CopyError::Another => AdoptError::Another(key.clone()),
        CopyError::Write(error) => AdoptError::Write(error),
    })?;
    segment.set_remote(remote);
    Ok(segment)
}

/// The bytes before the blocks and those after them, or all of a small segment and nothing.
async fn ends(
    bucket: &Retrying,
    remote: &Remote,
    mark: Option<u32>,
) -> Result<(Bytes, Bytes), AdoptError> {
    let len = remote.bytes;
    let head = u64::try_from(HEADER_LEN).expect("a small constant");
    let tail = u64::try_from(TAIL_LEN).expect("a small constant");
    if len < head + tail {
        let reason = "shorter than any segment";
        let damaged = Damaged { section: segment::Section::Trailer, at: len, reason };
        return Err(AdoptError::Damaged { key: remote.key.clone(), source: damaged.into() });
    }
    let start = len.saturating_sub(TAIL_BYTES_GUESS);
    if start <= head {
        let whole = get(bucket, remote, 0..len).await?;
        found(remote, mark, &whole)?;
        return Ok((whole, Bytes::new()));
    }
    let end = get(bucket, remote, start..len).await?;
    let tail_start = found(remote, mark, &end)?;
    let tail = if tail_start < start {
        let mut tail = BytesMut::from(&*get(bucket, remote, tail_start..start).await?);
        tail.extend_from_slice(&end);
        tail.freeze()
    } else {
        let skip = usize::try_from(tail_start - start).expect("within the guess");
        end.slice(skip..)
    };
    Ok((get(bucket, remote, 0..head).await?, tail))
}

/// Where the bytes after the blocks begin.
fn found(remote: &Remote, mark: Option<u32>, end: &[u8]) -> Result<u64, AdoptError> {
    let key = &remote.key;
    let (start, found) = segment::tail_start(end, remote.bytes)
        .map_err(|source| AdoptError::Damaged { key: key.clone(), source: source.into() })?;
    match mark {
        Some(mark) if found != mark => Err(AdoptError::Another(key.clone())),
        _ => Ok(start),
    }
}

async fn get(bucket: &Retrying, remote: &Remote, range: Range<u64>) -> Result<Bytes, AdoptError> {
    let Remote { key, .. } = remote;
    let expected = range.end - range.start;
    let answer = bucket.get_range(key, range).await.map_err(|source| match source {
        ObjectError::NotFound => AdoptError::Missing(key.clone()),
        source => AdoptError::Unanswered { key: key.clone(), source },
    })?;
    if u64::try_from(answer.len()) == Ok(expected) {
        return Ok(answer);
    }
    let reason = "the answer was cut short";
    let damaged = Damaged { section: segment::Section::Trailer, at: remote.bytes, reason };
    Err(AdoptError::Damaged { key: key.clone(), source: damaged.into() })
}
