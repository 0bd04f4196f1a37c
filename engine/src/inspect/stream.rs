//! One stream from the inside: its state, what of it lies in memory and what in segments.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;

use crate::{
    core::Core,
    engine::head_of,
    motion::publish::InBucket,
    request::{Error, Head},
    state::{
        catalogue,
        uploads::Reach,
        view::{Durable, Life, Stream, Sums, Wait},
    },
    types::{Expiry, Lsn, Offset, Seq, StreamName, WallMs},
};

/// What is known of a stream.
#[derive(Clone, Debug)]
pub struct Details {
    /// What HEAD says.
    pub head: Head,
    /// Absolute expiry in wall time if there is one (for a sliding window: as of now).
    pub expires_at: Option<WallMs>,
    /// The last accepted `Stream-Seq`.
    pub stream_seq: Option<Bytes>,
    /// Producers with state.
    pub producers: u32,
    /// Payload bytes ever appended, not counting what a fork inherits. JSON messages that came
    /// together count with the commas between them.
    pub total_bytes: u64,
    /// Bytes of its own records that it has let go of, without what stands between two.
    pub trimmed_bytes: u64,
    /// What lies in memory only, beside the log.
    pub unsealed: Unsealed,
    /// What lies in segments.
    pub sealed: Sealed,
    /// What of that is in the bucket.
    pub uploaded: Uploaded,
    /// Bytes on this disk of those of its segments that the bucket has too: whole files, other
    /// streams' records included, as they were at most a second ago.
    pub cached_bytes: u64,
    /// Where it was forked from, if it was.
    pub fork: Option<ForkOf>,
    /// Forks that draw on it directly.
    pub forks: u64,
    /// Bytes of the store's database and its write-ahead log, which all streams share; `None` if
    /// the disk did not tell.
    pub database_bytes: Option<u64>,
    /// How far its segments are stored elsewhere and indexed.
    pub index: IndexStatus,
    /// What [`Inspection::changed`] compares with.
    pub revision: Revision,
}

/// Records that no segment holds yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsealed {
    /// How many.
    pub records: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// The memory they take.
    pub memory_bytes: u64,
}

/// Records in segments, and these segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Everything before this lies in segments, those of a fork's sources included.
    pub through: Offset,
    /// How many records of the stream's own that it keeps.
    pub records: u64,
    /// Their payload bytes, before compression.
    pub bytes: u64,
    /// The payload bytes of those that no manifest shows yet: all without a bucket.
    pub pending_bytes: u64,
    /// Segments that hold some of them. Filters say so: one in 256 of those that hold none may
    /// count too.
    pub segments: usize,
    /// Bytes of these files, which may hold other streams too.
    pub file_bytes: u64,
    /// The newest record, of any stream, in the newest of these segments: it was made after that.
    pub newest: Option<WallMs>,
}

/// Records in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// Everything before this is in published segments, those of a fork's sources included.
    pub through: Seq,
    /// Segments in the bucket that hold some of the stream's records, as in [`Sealed::segments`].
    pub segments: usize,
    /// Bytes of these objects, which may hold other streams too.
    pub object_bytes: u64,
}

/// The newest manifest in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestStatus {
    /// Its place in the chain, from 1.
    pub generation: u64,
    /// The SHA-256 of its bytes.
    pub digest: [u8; 32],
    /// When it was made.
    pub created: WallMs,
    /// Its length.
    pub bytes: u64,
}

/// Where a fork comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkOf {
    /// The stream it was forked from.
    pub source: StreamName,
    /// The first position of its own.
    pub at: Seq,
    /// Streams under which its inherited records lie.
    pub runs: usize,
}

/// How far the segments of a stream are stored elsewhere and indexed; there is no index yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexStatus {
    /// Of which stream.
    pub name: StreamName,
    /// As in [`Sealed::segments`].
    pub segments: usize,
    /// As in [`Uploaded::segments`].
    pub uploaded_segments: usize,
    /// As in [`Sealed::through`].
    pub sealed_through: Offset,
    /// As in [`Uploaded::through`].
    pub uploaded_through: Offset,
    /// The newest manifest, which is the whole store's; `None` without a bucket or before the
    /// first.
    pub manifest: Option<ManifestStatus>,
    /// What [`Inspection::changed`] compares with.
    pub revision: Revision,
}

/// Names what a stream looked like: the same revision, the same figures but those of the clock, and
/// of the database, the segments and the manifest, which are everybody's: a segment is merged, or
/// passes a filter, because of other streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision {
    lsn: Lsn,
    life: Life,
    /// Everything before this lies in segments.
    sealed: Seq,
    /// Everything before this is published.
    uploaded: Seq,
}

/// A hold on one incarnation of a stream for looking at it. Keeps nothing alive.
pub struct Inspection {
    core: Arc<Core>,
    stream: Arc<Stream>,
}

impl Inspection {
    pub(super) const fn new(core: Arc<Core>, stream: Arc<Stream>) -> Self {
        Self { core, stream }
    }

    /// What is known of the stream now.
    ///
    /// # Errors
    /// [`Rejection::NotFound`](crate::request::Rejection::NotFound) and [`Rejection::Gone`](crate::request::Rejection::Gone) if it has ended.
    pub async fn details(&self) -> Result<Details, Error> {
        let mut details = self.gather()?;
        let now = self.core.store_now();
        details.cached_bytes = self.core.files.lock().cached_bytes(&self.stream, now);
        let file_bytes = self.core.on_reader(catalogue::database_bytes).await;
        details.database_bytes = match file_bytes {
            Ok(bytes) => Some(bytes + self.core.wal_bytes()),
            Err(error) => {
                tracing::debug!(%error, "the size of the database is not known");
                None
            }
        };
        Ok(details)
    }

    /// How far its segments are stored elsewhere and indexed now.
    ///
    /// # Errors
    /// As [`Inspection::details`].
    pub fn index_status(&self) -> Result<IndexStatus, Error> {
        Ok(self.gather()?.index)
    }

    /// Waits until the stream's figures may differ from what they were at `seen`. Cancel safe.
    pub async fn changed(&self, seen: Revision) {
        let _counted = Looking::new(self);
        let mut moves = self.core.moves.subscribe();
        loop {
            let mut bell = pin!(self.stream.bell.notified());
            // Enlist before looking, or a ring in between would be missed.
            bell.as_mut().enable();
            if self.revision() != seen {
                return;
            }
            tokio::select! {
                biased;
                () = &mut bell => {}
                moved = moves.changed() => moved.expect("the core that is held here rings it"),
            }
        }
    }

    fn revision(&self) -> Revision {
        let in_bucket = *self.core.in_bucket.lock();
        let _whole = self.core.settling.lock();
        revision_of(&self.stream.durable.lock(), in_bucket)
    }

    fn gather(&self) -> Result<Details, Error> {
        let in_bucket = *self.core.in_bucket.lock();
        // Between two commits: a commit may change a stream in several steps.
        let whole = self.core.settling.lock();
        let durable = self.stream.durable.lock();
        durable.presence()?;
        let identity = &self.stream.identity;
        let state = &durable.state;
        let revision = revision_of(&durable, in_bucket);
        let unsealed = unsealed(&durable);
        let uploaded = reach(&durable, in_bucket);
        let sealed_through = state.lineage.offset(durable.sealed);
        let details = Details {
            head: head_of(&self.stream, state),
            expires_at: self.expires_at(&durable),
            stream_seq: state.stream_seq.clone(),
            producers: state.producers,
            total_bytes: state.bytes,
            trimmed_bytes: state.kept.dropped,
            unsealed,
            sealed: Sealed {
                through: sealed_through,
                records: durable.sealed.since(identity.own_start().max(state.kept.earliest)),
                bytes: sealed_bytes(&durable, unsealed),
                pending_bytes: pending_bytes(&durable, unsealed, uploaded),
                segments: 0,
                file_bytes: 0,
                newest: None,
            },
            uploaded: Uploaded { through: uploaded.seq, segments: 0, object_bytes: 0 },
            cached_bytes: 0,
            fork: identity.fork.as_ref().map(|fork| ForkOf {
                source: fork.source_name.clone(),
                at: fork.at,
                runs: fork.runs.len(),
            }),
            forks: state.refs,
            database_bytes: None,
            index: IndexStatus {
                name: identity.name.clone(),
                segments: 0,
                uploaded_segments: 0,
                sealed_through,
                uploaded_through: state.lineage.offset(uploaded.seq),
                manifest: in_bucket.map(manifest_status),
                revision,
            },
            revision,
        };
        drop(durable);
        drop(whole);
        Ok(self.with_segments(details))
    }

    /// Adds what segments hold of the stream. After `sealed` was read: whatever it promises is in
    /// one of them.
    fn with_segments(&self, mut details: Details) -> Details {
        let Sums { segments, file_bytes, uploaded_segments, object_bytes, newest } =
            self.core.files.lock().sums(&self.stream);
        if details.sealed.records == 0 {
            return details;
        }
        details.sealed = Sealed { segments, file_bytes, newest, ..details.sealed };
        let through = details.uploaded.through;
        details.uploaded = Uploaded { through, segments: uploaded_segments, object_bytes };
        details.index = IndexStatus { segments, uploaded_segments, ..details.index };
        details
    }

    fn expires_at(&self, durable: &Durable) -> Option<WallMs> {
        match self.stream.identity.expiry {
            Expiry::Never => None,
            Expiry::At(at) => Some(at),
            Expiry::Sliding { .. } => durable.state.deadline.map(|deadline| {
                let now = self.core.now();
                let left_ms = deadline.get().saturating_sub(now.store.get());
                WallMs::new(now.wall.get().saturating_add(left_ms))
            }),
        }
    }
}

/// One who waits for a change, counted while this lives.
struct Looking<'a>(&'a Inspection);

impl<'a> Looking<'a> {
    fn new(inspection: &'a Inspection) -> Self {
        inspection.core.crowds.lock().enter(&inspection.stream, Wait::Look);
        Self(inspection)
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.core.crowds.lock().leave(&self.0.stream, Wait::Look);
    }
}

fn revision_of(durable: &Durable, in_bucket: Option<InBucket>) -> Revision {
    let uploaded = reach(durable, in_bucket).seq;
    let (lsn, life) = (durable.state.lsn, durable.life);
    Revision { lsn, life, sealed: durable.sealed, uploaded }
}

/// How far a stream is in the bucket.
pub(super) fn reach(durable: &Durable, in_bucket: Option<InBucket>) -> Reach {
    durable.uploads.reach(in_bucket.map_or(Lsn::ZERO, |it| it.folded))
}

/// Payload bytes of its own that a stream keeps in segments.
fn sealed_bytes(durable: &Durable, unsealed: Unsealed) -> u64 {
    let ever_sealed = durable.state.bytes.saturating_sub(unsealed.bytes);
    ever_sealed.saturating_sub(durable.state.kept.dropped)
}

/// Those of them that no manifest shows.
pub(super) fn pending_bytes(durable: &Durable, unsealed: Unsealed, uploaded: Reach) -> u64 {
    let ever_sealed = durable.state.bytes.saturating_sub(unsealed.bytes);
    // What it has let go of is the oldest, so some of what is pending only if all of what is
    // uploaded.
    ever_sealed.saturating_sub(uploaded.bytes).min(sealed_bytes(durable, unsealed))
}

const fn manifest_status(in_bucket: InBucket) -> ManifestStatus {
    ManifestStatus {
        generation: in_bucket.generation.get(),
        digest: *in_bucket.digest.get(),
        created: in_bucket.created,
        bytes: in_bucket.bytes,
    }
}

/// What a stream has in memory only.
pub(super) fn unsealed(durable: &Durable) -> Unsealed {
    let memory_bytes = u64::try_from(durable.chunks.weight().cost).expect("usize fits u64");
    let bytes = u64::try_from(durable.chunks.weight().payload).expect("usize fits u64");
    Unsealed { records: durable.state.next.since(durable.sealed), bytes, memory_bytes }
}
