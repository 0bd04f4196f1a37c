//! Uploads: files become objects of the same bytes, several at a time, bounded by their bytes. The
//! bucket takes a file itself, by a link or in parts, or else its bytes, which are then in memory.
//!
//! A file is opened anew and read through once before it goes up, as a start would: one that is found
//! damaged beside its blocks is written anew ([`crate::motion::intact`]); one whose blocks are damaged
//! becomes a hole, named in the manifest and in the log, and neither stops the others nor passes for
//! whole. One that the disk does not give is left out for now ([`crate::motion::heal`]); the others go
//! up.

use std::{collections::VecDeque, future::Future, io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use weir_io::{
    objects::{Key, ObjectError, Payload},
    retry::{Outcome, Retrying},
};

use super::Problem;
use crate::{
    core::{Core, ledger_path, segment_path},
    ledger::{self, Source},
    limits::UPLOADS_MAX,
    metrics::UnderWay,
    motion::{heal, intact, ledgers, seal::Failed},
    publish::{
        keys::{Artifact, Nonce},
        listing::{Entry, Presence},
    },
    segment::{self, InMemory, Remote},
    state::{
        catalogue::{self, LedgerRow, Place, SegmentRow},
        files::{Held, Picture},
    },
    types::SegmentId,
};

/// Bytes of files that are being uploaded, a single larger one excepted: that goes alone, and a cloud
/// takes it in parts.
const BYTES_IN_FLIGHT_MAX: u64 = 128 << 20;

/// A file that the bucket does not have.
#[derive(Clone)]
enum File {
    Segment(Held),
    Ledger(LedgerRow),
}

/// How a bucket takes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By its name.
    Named,
    /// As bytes in memory.
    Bytes,
}

/// Why a file can't be uploaded.
enum Bad {
    /// Its bytes are not what was written.
    Damaged(String),
    /// The disk did not give them.
    Unread(io::Error),
}

impl From<Failed> for Bad {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Read(segment::ReadError::Failed { source, .. })
            | Failed::Ledger(ledger::ReadError::Failed { source, .. })
            | Failed::Io(source) => Self::Unread(source),
            damaged => Self::Damaged(damaged.to_string()),
        }
    }
}

impl File {
    const fn id(&self) -> SegmentId {
        match self {
            Self::Segment(held) => held.row.id,
            Self::Ledger(row) => row.id,
        }
    }

    const fn bytes(&self) -> u64 {
        match self {
            Self::Segment(held) => held.row.bytes,
            Self::Ledger(row) => row.bytes,
        }
    }

    fn key(&self) -> Key {
        match self {
            Self::Segment(held) => segment_key(&held.row),
            Self::Ledger(row) => ledger_key(row),
        }
    }

    fn path(&self, core: &Core) -> PathBuf {
        match self {
            Self::Segment(held) => segment_path(&core.config, held.row.id),
            Self::Ledger(row) => ledger_path(&core.config, row.id),
        }
    }

    /// Reads everything; says whether it is what was written. What is uploaded as bytes is what was
    /// looked at.
    fn verify(&self, core: &Core, way: Way) -> Result<Option<Bytes>, Failed> {
        let bytes = match way {
            Way::Named => None,
            Way::Bytes => Some(self.read(core)?),
        };
        match (self, &bytes) {
            (Self::Segment(held), None) => {
                intact::verify(&held.segment, core.rack.open(held.row.id)?)?;
            }
            (Self::Segment(held), Some(bytes)) => {
                intact::verify(&held.segment, Arc::new(InMemory(bytes.clone())))?;
            }
            (Self::Ledger(row), None) => ledgers::verify(core, row)?,
            (Self::Ledger(row), Some(bytes)) => {
                ledgers::verify_in(core, row, Source::Memory(bytes.clone()))?;
            }
        }
        Ok(bytes)
    }

    /// All bytes of the file, and one more if it is longer than it should be.
    fn read(&self, core: &Core) -> io::Result<Bytes> {
        let file = core.world.disk.open(&self.path(core))?;
        let len = file.len()?.min(self.bytes().saturating_add(1));
        let mut content = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_exact_at(&mut content, 0)?;
        Ok(content.into())
    }

    fn is_wanted(&self, core: &Core) -> bool {
        let files = core.files.lock();
        match self {
            Self::Segment(held) => files.segment(held.row.id).is_some(),
            Self::Ledger(row) => files.ledgers().iter().any(|it| it.id == row.id),
        }
    }
}

/// The object of a segment.
pub(crate) fn segment_key(row: &SegmentRow) -> Key {
    Artifact::Segment(row.id, Nonce::new(row.nonce)).key()
}

/// The object of a segment, for those who read it.
pub(crate) fn segment_object(row: &SegmentRow) -> Remote {
    Remote { key: segment_key(row), bytes: row.bytes }
}

/// The object of a ledger.
pub(crate) fn ledger_key(row: &LedgerRow) -> Key {
    Artifact::Ledger(row.id, Nonce::new(row.nonce)).key()
}

/// Uploads what a picture shows and the bucket does not have. After something went wrong no further
/// file is begun, but those under way come to their ends: what was sent is not sent again.
pub(super) async fn run(
    core: &Arc<Core>,
    bucket: &Retrying,
    picture: &Picture,
) -> Result<(), Problem> {
    let waiting = missing(core, picture);
    drain(waiting, File::bytes, |file| upload(core, bucket, file)).await
}

/// Does something with all of these, oldest first, as many at a time as there is room for. Returns what
/// went wrong first, when nothing is under way any more.
async fn drain<T, F>(
    mut waiting: VecDeque<T>,
    bytes: impl Fn(&T) -> u64,
    send: impl Fn(T) -> F,
) -> Result<(), Problem>
where
    F: Future<Output = Result<(), Problem>>,
{
    let mut under_way = FuturesUnordered::new();
    let (mut in_flight, mut ended) = (0, Ok(()));
    loop {
        while ended.is_ok()
            && under_way.len() < UPLOADS_MAX
            && let Some(next) = waiting.front().map(&bytes)
            && (in_flight + next <= BYTES_IN_FLIGHT_MAX || in_flight == 0)
        {
            in_flight += next;
            let sent = send(waiting.pop_front().expect("it is in front"));
            under_way.push(async move { (next, sent.await) });
        }
        let Some((done, sent)) = under_way.next().await else { return ended };
        in_flight -= done;
        if sent.is_err() && !under_way.is_empty() {
            weir_io::sometimes!("an upload failed while others were under way");
        }
        ended = ended.and(sent);
    }
}

/// The files that the bucket does not have and that can be read, oldest first.
fn missing(core: &Core, picture: &Picture) -> VecDeque<File> {
    let unreadable = core.unreadable.lock();
    let is_missing = |id, place| place == Place::Local && !unreadable.has(id);
    let segments = picture.segments.iter().filter(|held| is_missing(held.row.id, held.row.place));
    let ledgers = picture.ledgers.iter().filter(|row| is_missing(row.id, row.place));
    segments.cloned().map(File::Segment).chain(ledgers.copied().map(File::Ledger)).collect()
}

/// Uploads one file.
async fn upload(core: &Arc<Core>, bucket: &Retrying, file: File) -> Result<(), Problem> {
    let (id, bytes, key) = (file.id(), file.bytes(), file.key());
    let _counted = UnderWay::new(&core.metrics.publish, bytes);
    let path = file.path(core);
    let way = match bucket.takes_files(&key, &path, bytes) {
        true => Way::Named,
        false => Way::Bytes,
    };
    let content = match verified(core, &file, way).await? {
        Ok(content) => content,
        Err(bad) => return set_aside(core, &file, bad).await,
    };
    let created = match content {
        None => bucket
            .create_from_file(&key, &path, bytes)
            .await
            .map(|taken| taken.expect("what a bucket can do does not change")),
        Some(content) => bucket.create(&key, &Payload::from(content)).await,
    };
    let created = match created {
        // Its file went before the bucket had it.
        Err(ObjectError::NotFound) if !file.is_wanted(core) => return Err(Problem::Changed),
        created => created?,
    };
    if created != Outcome::Created {
        // The name is this file's alone, so whoever took it was this store.
        weir_io::sometimes!("an upload found that an earlier try had succeeded");
        let there = bucket.head(&key).await?.map(|meta| meta.size);
        if there != Some(bytes) {
            return Err(Problem::Foreign(format!(
                "'{key}' has {there:?} bytes instead of {bytes}"
            )));
        }
    }
    core.metrics.publish.uploads.inc();
    core.metrics.publish.upload_bytes.inc_by(bytes);
    tracing::debug!(file = %id, bytes, "uploaded");
    place(core, &file, Place::Bucket).await
}

/// Reads a file through, after it was written anew if that is what it takes. Returns its bytes if they
/// are to be uploaded.
async fn verified(
    core: &Arc<Core>,
    file: &File,
    way: Way,
) -> Result<Result<Option<Bytes>, Bad>, Problem> {
    let looked = match (look(core, file, way).await?, file) {
        (Err(failed), File::Segment(held)) if intact::is_beside_the_blocks(&failed) => {
            match intact::mend(core, &held.segment, failed).await {
                Ok(()) => look(core, file, way).await?.map_err(once_more),
                Err(failed) => Err(failed),
            }
        }
        (looked, _) => looked,
    };
    if !file.is_wanted(core) {
        weir_io::sometimes!("a file was merged away before it was uploaded");
        return Err(Problem::Changed);
    }
    match looked {
        Err(Failed::Gone(gone)) => Err(Problem::Local(gone.to_string())),
        looked => Ok(looked.map_err(Bad::from)),
    }
}

/// What was whole a moment ago, and has its blocks, is no hole: it is looked at again.
fn once_more(failed: Failed) -> Failed {
    match intact::is_beside_the_blocks(&failed) {
        true => Failed::Io(io::Error::other(failed)),
        false => failed,
    }
}

/// Reads a file through.
async fn look(
    core: &Arc<Core>,
    file: &File,
    way: Way,
) -> Result<Result<Option<Bytes>, Failed>, Problem> {
    let (shared, file) = (Arc::clone(core), file.clone());
    let looked = weir_io::tasks::run(&*core.world.blocking, move || file.verify(&shared, way));
    looked.await.map_err(|gone| Problem::Local(gone.to_string()))
}

/// Goes on without a file that can't be uploaded.
async fn set_aside(core: &Arc<Core>, file: &File, bad: Bad) -> Result<(), Problem> {
    let id = file.id();
    match (bad, file) {
        (Bad::Damaged(damaged), File::Segment(_)) => {
            weir_io::sometimes!("a segment was found damaged before it was uploaded");
            core.metrics.publish.holes.inc();
            tracing::error!(
                segment = %id, %damaged,
                "a segment is damaged and was not uploaded yet: its records are lost, the manifest \
                 will name it as a hole"
            );
            place(core, file, Place::Hole).await?;
        }
        // Rows can be written again: from the catalogue, which has all of them.
        (Bad::Damaged(damaged), File::Ledger(_)) => {
            weir_io::sometimes!("a ledger was found damaged before it was uploaded");
            tracing::error!(ledger = %id, %damaged, "a ledger is damaged: all rows are written again");
            heal::note(core, id, &damaged);
            heal::write_all_again(core);
        }
        (Bad::Unread(source), _) => {
            weir_io::sometimes!("a file that could not be read kept no other from its upload");
            heal::note(core, id, &source);
        }
    }
    Ok(())
}

/// Notes where a file is. One that was merged away while it was on its way becomes garbage. Memory
/// follows in the same job: whoever waits for it may go away, as when another upload fails.
async fn place(core: &Arc<Core>, file: &File, place: Place) -> Result<(), Problem> {
    let (id, key, noting, file) = (file.id(), file.key(), Arc::clone(core), file.clone());
    let segment = matches!(file, File::Segment(_));
    let hole = match &file {
        File::Segment(held) if place == Place::Hole => {
            Some(Entry { presence: Presence::Hole, ..super::segment_entry(held) })
        }
        _ => None,
    };
    let noted = core.on_writer("place", move |conn| -> Result<bool, catalogue::Failure> {
        let tx = conn.transaction()?;
        let kept = match segment {
            true => catalogue::place_segment(&tx, id, place)?,
            false => catalogue::place_ledger(&tx, id, place)?,
        };
        if !kept && place == Place::Bucket {
            catalogue::put_garbage(&tx, key.as_str())?;
        }
        if let Some(hole) = hole.filter(|_| kept) {
            catalogue::put_hole(&tx, &hole)?;
        }
        tx.commit()?;
        if kept {
            noting.placed(&file, place);
        }
        Ok(kept)
    });
    let kept = noted.await.map_err(|gone| Problem::Local(gone.to_string()))?;
    let kept = kept.map_err(|bad| Problem::Local(bad.to_string()))?;
    if kept { Ok(()) } else { Err(Problem::Changed) }
}

impl Core {
    /// The catalogue says where a file is.
    fn placed(&self, file: &File, place: Place) {
        let mut files = self.files.lock();
        match file {
            File::Segment(held) => {
                files.place_segment(held.row.id, place);
                if place == Place::Bucket {
                    held.segment.set_remote(segment_object(&held.row));
                }
            }
            File::Ledger(row) => files.place_ledger(row.id, place),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use super::*;

    /// Sends files that take so many seconds and fail or not; says which came to their ends.
    fn sent(files: &[(u64, bool)], bytes: u64) -> (Vec<u64>, Result<(), Problem>) {
        let ended = Cell::new(Vec::new());
        let note = |seconds| {
            let mut all = ended.take();
            all.push(seconds);
            ended.set(all);
        };
        let send = |(seconds, fails): (u64, bool)| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            note(seconds);
            if fails { Err(Problem::Local(format!("{seconds}"))) } else { Ok(()) }
        };
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        let waiting = files.iter().copied().collect();
        let drained = runtime.block_on(drain(waiting, |_| bytes, send));
        (ended.take(), drained)
    }

    #[test]
    fn a_file_that_fails_cuts_off_no_other_and_nothing_is_begun_after_it() {
        let files = [(5, false), (1, true), (3, false), (2, true)];
        let (ended, problem) = sent(&files, 1);
        assert_eq!(ended, [1, 2, 3, 5], "all were under way");
        assert!(matches!(problem, Err(Problem::Local(first)) if first == "1"));

        let (ended, problem) = sent(&files, BYTES_IN_FLIGHT_MAX / 2);
        assert_eq!(ended, [1, 5], "two at a time");
        assert!(matches!(problem, Err(Problem::Local(first)) if first == "1"));

        let (ended, problem) = sent(&[(2, false), (1, false)], BYTES_IN_FLIGHT_MAX * 2);
        assert_eq!(ended, [2, 1], "one that is larger goes alone");
        assert!(problem.is_ok());
    }
}
