//! Patience with a bucket: time limits that grow with size, bounded retries with jitter.
//!
//! A creation whose answer was lost may have been made. If a later attempt then finds the
//! key taken, by oneself or by somebody else, that is [`Outcome::Ambiguous`], never a guess:
//! the caller reads the object and looks for its own nonce, or lets
//! [`Retrying::create_confirmed`] compare all of it. Runs on tokio's time; an attempt that
//! runs out of it is dropped, which gives it up.

use std::{ops::Range, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use tracing::debug;

use crate::{
    Entropy,
    objects::{Created, Key, Meta, ObjectError, Objects, Payload},
    sometimes,
};

/// How long to wait and how often to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Attempts in all, at least one.
    pub attempts_max: u32,
    /// Time that an attempt gets whatever its size.
    pub attempt: Duration,
    /// Bytes per second that the slowest useful connection moves: an attempt gets the time its
    /// bytes need at this rate on top.
    pub bytes_per_second: u64,
    /// The longest pause before the second attempt. It doubles with each further one.
    pub pause: Duration,
    /// The longest pause of all.
    pub pause_max: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            attempts_max: 6,
            attempt: Duration::from_secs(10),
            bytes_per_second: 256 << 10,
            pause: Duration::from_millis(200),
            pause_max: Duration::from_secs(10),
        }
    }
}

impl Patience {
    /// Time for one attempt that moves this many bytes.
    fn limit(&self, bytes: u64) -> Duration {
        self.attempt + Duration::from_secs(bytes / self.bytes_per_second.max(1))
    }

    /// The longest pause after this many attempts.
    fn pause_after(&self, attempts: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.pause.saturating_mul(doubled).min(self.pause_max)
    }
}

/// How a creation with retries ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The object is there because of this call.
    Created,
    /// The key was taken before this call changed anything.
    AlreadyThere,
    /// The key is taken, perhaps by an attempt of this call whose answer was lost.
    Ambiguous,
}

/// A bucket asked with patience. Cloning is cheap.
#[derive(Clone)]
pub struct Retrying {
    bucket: Arc<dyn Objects>,
    entropy: Arc<dyn Entropy>,
    patience: Patience,
}

impl Retrying {
    /// Asks `bucket` with `patience`, its pauses drawn from `entropy`.
    #[must_use]
    pub fn new(
        bucket: Arc<dyn Objects>,
        entropy: Arc<dyn Entropy>,
        patience: Patience,
    ) -> Retrying {
        Retrying { bucket, entropy, patience }
    }

    /// The same bucket, asked with another patience.
    #[must_use]
    pub fn with_patience(&self, patience: Patience) -> Retrying {
        Retrying { patience, ..self.clone() }
    }

    /// As [`Objects::create`].
    ///
    /// # Errors
    /// The bucket refused, or the last attempt got no answer: the object may be there, or may
    /// yet come to be.
    pub async fn create(&self, key: &Key, payload: &Payload) -> Result<Outcome, ObjectError> {
        let ask = || self.bucket.create(key, payload.clone());
        self.creation(payload.size(), ask).await
    }

    /// Whether the bucket takes a file itself, as [`Retrying::create_from_file`] would offer it.
    #[must_use]
    pub fn takes_files(&self, key: &Key, file: &Path, size: u64) -> bool {
        self.bucket.create_from_file(key, file, size).is_some()
    }

    /// As [`Objects::create_from_file`]; `None`: the bucket does not, upload instead.
    ///
    /// # Errors
    /// As [`Retrying::create`].
    pub async fn create_from_file(
        &self,
        key: &Key,
        file: &Path,
        size: u64,
    ) -> Result<Option<Outcome>, ObjectError> {
        if !self.takes_files(key, file, size) {
            return Ok(None);
        }
        let ask = || {
            let create = self.bucket.create_from_file(key, file, size);
            let create = create.expect("what a bucket can do does not change");
            async move { create.await.map(|delivery| delivery.created) }
        };
        Ok(Some(self.creation(size, ask).await?))
    }

    /// As [`Retrying::create`], and an ambiguous outcome is settled by reading the object: it is
    /// new if it has exactly these bytes. The payload must hold something that no other writer
    /// would write, or another's equal object is taken for this one.
    ///
    /// # Errors
    /// As [`Retrying::create`], or the object could not be read back.
    pub async fn create_confirmed(
        &self,
        key: &Key,
        payload: &Payload,
    ) -> Result<Created, ObjectError> {
        match self.create(key, payload).await? {
            Outcome::Created => return Ok(Created::New),
            Outcome::AlreadyThere => return Ok(Created::AlreadyThere),
            Outcome::Ambiguous => {}
        }
        sometimes!("a lost answer of the bucket was settled by reading back");
        let size = payload.size();
        let same = match self.head(key).await? {
            Some(meta) if meta.size == size => payload.is(&self.get(key, size).await?),
            // Deleted meanwhile: whoever did that knew more than this call.
            None => return Err(ObjectError::NotFound),
            Some(_) => false,
        };
        Ok(if same { Created::New } else { Created::AlreadyThere })
    }

    /// As [`Objects::get`].
    ///
    /// # Errors
    /// There is no such object, the bucket refused, or the last attempt got no answer.
    pub async fn get(&self, key: &Key, bytes_max: u64) -> Result<Bytes, ObjectError> {
        self.persist(bytes_max, || self.bucket.get(key, bytes_max)).await
    }

    /// As [`Objects::get_range`].
    ///
    /// # Errors
    /// As [`Retrying::get`].
    pub async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let bytes = range.end.saturating_sub(range.start);
        self.persist(bytes, || self.bucket.get_range(key, range.clone())).await
    }

    /// As [`Objects::head`].
    ///
    /// # Errors
    /// The bucket refused, or the last attempt got no answer.
    pub async fn head(&self, key: &Key) -> Result<Option<Meta>, ObjectError> {
        self.persist(0, || self.bucket.head(key)).await
    }

    /// As [`Objects::list`].
    ///
    /// # Errors
    /// As [`Retrying::head`].
    pub async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Meta>, ObjectError> {
        self.persist(0, || self.bucket.list(prefix, after, limit)).await
    }

    /// As [`Objects::delete`].
    ///
    /// # Errors
    /// As [`Retrying::head`]; the object may be gone, or may yet go.
    pub async fn delete(&self, key: &Key) -> Result<(), ObjectError> {
        self.persist(0, || self.bucket.delete(key)).await
    }

    async fn creation<F>(&self, bytes: u64, ask: impl Fn() -> F) -> Result<Outcome, ObjectError>
    where
        F: Future<Output = Result<Created, ObjectError>>,
    {
        let mut asked = 0_u32;
        let counted = || {
            asked += 1;
            ask()
        };
        let created = self.persist(bytes, counted).await?;
        Ok(match created {
            Created::New => Outcome::Created,
            // Only an attempt without an answer is followed by another one.
            Created::AlreadyThere if asked > 1 => Outcome::Ambiguous,
            Created::AlreadyThere => Outcome::AlreadyThere,
        })
    }

    async fn persist<T, F>(&self, bytes: u64, mut ask: impl FnMut() -> F) -> Result<T, ObjectError>
    where
        F: Future<Output = Result<T, ObjectError>>,
    {
        let limit = self.patience.limit(bytes);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let answer = tokio::time::timeout(limit, ask()).await;
            let reason = match answer {
                Ok(Err(ObjectError::Transient(reason))) => reason,
                Ok(answer) => return answer,
                Err(_) => format!("none within {limit:?}"),
            };
            if attempts >= self.patience.attempts_max {
                return Err(ObjectError::Transient(format!("{reason} ({attempts} attempts)")));
            }
            sometimes!("a request to the bucket was repeated");
            let pause = self.jitter(self.patience.pause_after(attempts));
            debug!(attempts, reason, ?pause, "a request to the bucket is repeated");
            tokio::time::sleep(pause).await;
        }
    }

    /// Anything from nothing to `longest`, so that those who failed together do not come back
    /// together.
    fn jitter(&self, longest: Duration) -> Duration {
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.entropy.next_u64() % micros.saturating_add(1))
    }
}
