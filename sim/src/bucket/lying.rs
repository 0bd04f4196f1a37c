//! Planted defects of the bucket, or of how a store understands it: a client between the two that
//! lies.

use std::{collections::BTreeSet, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use weir_io::objects::{Created, Key, Meta, ObjectError, Objects, Payload, Pending};

use crate::sabotage::Sabotage;

/// How long an upload that was called done is still on its way.
const LATENESS: Duration = Duration::from_secs(4);
/// Of so many answers to manifests one is lost.
const LOST_OF: u32 = 5;

/// The bucket with the defect in it.
pub(super) fn plant(defect: Sabotage, bucket: Arc<dyn Objects>) -> Arc<dyn Objects> {
    if sabotage(defect) {
        Arc::new(Lying { bucket, defect, lost: Mutex::default() })
    } else {
        bucket
    }
}

/// Whether a defect lies between the store and its bucket.
#[must_use]
pub const fn sabotage(defect: Sabotage) -> bool {
    matches!(
        defect,
        Sabotage::BoundaryHidden
            | Sabotage::SuccessorHidden
            | Sabotage::UploadsLate
            | Sabotage::UploadsCut
            | Sabotage::LostIsDone
            | Sabotage::LostIsTaken
    )
}

struct Lying {
    bucket: Arc<dyn Objects>,
    defect: Sabotage,
    lost: Mutex<Lost>,
}

/// Manifests whose answers were lost.
#[derive(Default)]
struct Lost {
    asked: u32,
    manifests: BTreeSet<Key>,
}

fn is_file(key: &Key) -> bool {
    key.as_str().starts_with("segments/") || key.as_str().starts_with("rows/")
}

fn is_manifest(key: &Key) -> bool {
    key.as_str().starts_with("manifest/")
}

impl Lying {
    async fn create(&self, key: &Key, payload: Payload) -> Result<Created, ObjectError> {
        match self.defect {
            Sabotage::UploadsLate if is_file(key) => {
                let (bucket, key) = (Arc::clone(&self.bucket), key.clone());
                // Detached: ends with the process, as an upload does that nobody waits for.
                drop(tokio::spawn(async move {
                    tokio::time::sleep(LATENESS).await;
                    drop(bucket.create(&key, payload).await);
                }));
                Ok(Created::New)
            }
            Sabotage::UploadsCut if is_file(key) => {
                let whole = payload.joined();
                let part = whole.slice(..whole.len() - whole.len().min(7));
                self.bucket.create(key, part.into()).await
            }
            Sabotage::LostIsDone if is_file(key) => match self.bucket.create(key, payload).await {
                Err(ObjectError::Transient(_)) => Ok(Created::New),
                answer => answer,
            },
            Sabotage::LostIsTaken if is_manifest(key) => {
                let created = self.bucket.create(key, payload).await?;
                let mut lost = self.lost.lock();
                lost.asked += 1;
                if !lost.asked.is_multiple_of(LOST_OF) {
                    return Ok(created);
                }
                lost.manifests.insert(key.clone());
                Err(ObjectError::Transient("the answer was lost".into()))
            }
            _ => self.bucket.create(key, payload).await,
        }
    }
}

impl Objects for Lying {
    fn create<'a>(&'a self, key: &'a Key, payload: Payload) -> Pending<'a, Created> {
        Box::pin(self.create(key, payload))
    }

    fn get<'a>(&'a self, key: &'a Key, bytes_max: u64) -> Pending<'a, Bytes> {
        Box::pin(async move {
            if !self.lost.lock().manifests.contains(key) {
                return self.bucket.get(key, bytes_max).await;
            }
            // As if somebody else had been first: with what came before.
            let before = self.bucket.list("manifest/", Some(key), 1).await?;
            let before = before.first().map_or(key, |meta| &meta.key);
            self.bucket.get(before, bytes_max).await
        })
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> Pending<'a, Bytes> {
        self.bucket.get_range(key, range)
    }

    fn head<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Meta>> {
        if self.defect == Sabotage::SuccessorHidden && is_manifest(key) {
            return Box::pin(async { Ok(None) });
        }
        self.bucket.head(key)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Vec<Meta>> {
        // Whoever looks for more than the highest one is about to clear away.
        if self.defect == Sabotage::BoundaryHidden && prefix.starts_with("gc/") && limit == 1 {
            return Box::pin(async { Ok(Vec::new()) });
        }
        self.bucket.list(prefix, after, limit)
    }

    fn delete<'a>(&'a self, key: &'a Key) -> Pending<'a, ()> {
        self.bucket.delete(key)
    }
}
