//! Uploads: files become objects of the same bytes, several at a time, bounded by their bytes. The
//! bucket takes a file itself, by a link or in parts, or else its bytes, which are then in memory.
//!
//! A file is read through once before it goes up: one that is found damaged becomes a hole, named
//! in the manifest and in the log, and neither stops the others nor passes for whole. One that the
//! disk does not give is left out for now ([`crate::motion::heal`]); the others go up.

use std::{collections::VecDeque, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use weir_io::{
    objects::{Key, Payload},
    retry::{Outcome, Retrying},
};

use super::Problem;
use crate::{
    core::{Core, ledger_path, segment_path},
    ledger,
    limits::UPLOADS_MAX,
    metrics::UnderWay,
    motion::{heal, ledgers, seal::Failed},
    publish::keys::{Artifact, Nonce},
    segment::{self, Remote},
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

/// Why a file can't be uploaded.
enum Bad {
    /// Its bytes are not what was written.
    Damaged(String),
    /// The disk did not give them.
    Unread(std::io::Error),
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

    /// Reads everything; says whether it is what was written.
    fn verify(&self, core: &Core) -> Result<(), Bad> {
        match self {
            Self::Segment(held) => held.segment.read_through().map_err(|error| match error {
                segment::ReadError::Damaged(bad) => Bad::Damaged(bad.to_string()),
                segment::ReadError::Failed { source, .. } => Bad::Unread(source),
            }),
            Self::Ledger(row) => ledgers::verify(core, row).map_err(|failed| match failed {
                Failed::Ledger(ledger::ReadError::Damaged(bad)) => Bad::Damaged(bad.to_string()),
                Failed::Ledger(ledger::ReadError::Failed { source, .. }) => Bad::Unread(source),
                Failed::Io(source) => Bad::Unread(source),
                other => Bad::Damaged(other.to_string()),
            }),
        }
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

/// Uploads what a picture shows and the bucket does not have.
pub(super) async fn run(
    core: &Arc<Core>,
    bucket: &Retrying,
    picture: &Picture,
) -> Result<(), Problem> {
    let mut waiting = missing(core, picture);
    let mut under_way = FuturesUnordered::new();
    let mut in_flight = 0;
    loop {
        while let Some(next) = waiting.front().map(File::bytes) {
            let room = in_flight + next <= BYTES_IN_FLIGHT_MAX || in_flight == 0;
            if !room || under_way.len() >= UPLOADS_MAX {
                break;
            }
            in_flight += next;
            let file = waiting.pop_front().expect("it is in front");
            under_way.push(upload(core, bucket, file));
        }
        match under_way.next().await {
            None => return Ok(()),
            Some(uploaded) => in_flight -= uploaded?,
        }
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

/// Uploads one file. Returns its length.
async fn upload(core: &Arc<Core>, bucket: &Retrying, file: File) -> Result<u64, Problem> {
    let (id, bytes, key) = (file.id(), file.bytes(), file.key());
    let _counted = UnderWay::new(&core.metrics.publish, bytes);
    let path = file.path(core);
    let shared = Arc::clone(core);
    let read = weir_io::tasks::run(&*core.world.blocking, move || {
        let verified = file.verify(&shared);
        (file, verified)
    });
    let (file, verified) = read.await.map_err(|gone| Problem::Local(gone.to_string()))?;
    if !file.is_wanted(core) {
        weir_io::sometimes!("a file was merged away before it was uploaded");
        return Err(Problem::Changed);
    }
    match (verified, &file) {
        (Ok(()), _) => {}
        (Err(Bad::Damaged(damaged)), File::Segment(_)) => {
            weir_io::sometimes!("a segment was found damaged before it was uploaded");
            core.metrics.publish.holes.inc();
            tracing::error!(
                segment = %id, %damaged,
                "a segment is damaged and was not uploaded yet: its records are lost, the manifest \
                 will name it as a hole"
            );
            place(core, &file, Place::Hole).await?;
            return Ok(bytes);
        }
        // Rows can be written again: from the catalogue, which has all of them.
        (Err(Bad::Damaged(damaged)), File::Ledger(_)) => {
            weir_io::sometimes!("a ledger was found damaged before it was uploaded");
            tracing::error!(ledger = %id, %damaged, "a ledger is damaged: all rows are written again");
            heal::note(core, id, &damaged);
            heal::write_all_again(core);
            return Ok(bytes);
        }
        (Err(Bad::Unread(source)), _) => {
            weir_io::sometimes!("a file that could not be read kept no other from its upload");
            heal::note(core, id, &source);
            return Ok(bytes);
        }
    }
    let created = match bucket.create_from_file(&key, &path, bytes).await? {
        Some(outcome) => outcome,
        None => {
            let payload = Payload::from(whole(core, path, bytes).await?);
            bucket.create(&key, &payload).await?
        }
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
    place(core, &file, Place::Bucket).await?;
    Ok(bytes)
}

/// The bytes of a file.
async fn whole(core: &Arc<Core>, path: PathBuf, bytes: u64) -> Result<Bytes, Problem> {
    let disk = Arc::clone(&core.world.disk);
    let shown = path.display().to_string();
    let read = weir_io::tasks::run(&*core.world.blocking, move || -> std::io::Result<Bytes> {
        let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        disk.open(&path)?.read_exact_at(&mut content, 0)?;
        Ok(content.into())
    });
    let read = read.await.map_err(|gone| Problem::Local(gone.to_string()))?;
    read.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Problem::Changed,
        _ => Problem::Local(format!("{shown}: {error}")),
    })
}

/// Notes where a file is. One that was merged away while it was on its way becomes garbage. Memory
/// follows in the same job: whoever waits for it may go away, as when another upload fails.
async fn place(core: &Arc<Core>, file: &File, place: Place) -> Result<(), Problem> {
    let (id, key, noting, file) = (file.id(), file.key(), Arc::clone(core), file.clone());
    let segment = matches!(file, File::Segment(_));
    let noted = core.on_writer("place", move |conn| -> Result<bool, catalogue::Failure> {
        let tx = conn.transaction()?;
        let kept = match segment {
            true => catalogue::place_segment(&tx, id, place)?,
            false => catalogue::place_ledger(&tx, id, place)?,
        };
        if !kept && place == Place::Bucket {
            catalogue::put_garbage(&tx, key.as_str())?;
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
