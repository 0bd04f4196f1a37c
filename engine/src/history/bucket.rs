//! The bucket of a store: one set of objects, asked with two kinds of patience.

use std::{sync::Arc, time::Duration};

use weir_io::{
    Entropy,
    objects::Objects,
    retry::{Patience, Retrying},
};

/// How long a reader's request to the bucket is tried. Somebody waits for the answer and can ask
/// again, so it is given up long before work in the background would be.
const READING: Patience = Patience {
    attempts_max: 3,
    attempt: Duration::from_secs(5),
    bytes_per_second: 1 << 20,
    pause: Duration::from_millis(100),
    pause_max: Duration::from_secs(1),
};

/// Where a store keeps its segments for good.
pub(crate) struct Bucket {
    /// For work that nobody waits for: uploads, manifests, collection, merges.
    pub(crate) patient: Retrying,
    /// For readers.
    pub(crate) reading: Retrying,
}

impl Bucket {
    pub(crate) fn new(objects: Arc<dyn Objects>, entropy: Arc<dyn Entropy>) -> Self {
        let patient =
            Retrying::new(Arc::clone(&objects), Arc::clone(&entropy), Patience::default());
        Self { patient, reading: Retrying::new(objects, entropy, READING) }
    }
}
