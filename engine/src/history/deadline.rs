//! Until when a request waits for the bucket, however many blocks it needs from there.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::request::Error;

/// How long a request waits for the bucket in all. Whoever asked can ask again, and a page that has
/// begun ends with what it has.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(20);
/// What the slowest useful connection moves in a second: a large block gets the time it needs.
const BYTES_PER_SECOND: u64 = 1 << 20;

/// A request's last moment to wait for the bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// That of a request which begins now.
    pub(crate) fn of_now() -> Self {
        Self(Instant::now() + WAIT_MAX)
    }

    /// Waits for an answer of so many bytes.
    ///
    /// # Errors
    /// [`Error::Away`]: it is too late. What was under way is dropped.
    pub(crate) async fn wait<T>(
        self,
        bytes: u64,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let until = self.0 + Duration::from_secs(bytes / BYTES_PER_SECOND);
        match timeout_at(until, answer).await {
            Ok(answer) => answer,
            Err(_) => {
                weir_io::sometimes!("a read waited for the bucket as long as it may");
                let what = format!("nothing came within {} s", WAIT_MAX.as_secs());
                Err(Error::Away(what))
            }
        }
    }
}
