//! What publishing counts.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Counters and gauges of uploads, manifests and collection.
#[derive(Debug, Default)]
pub struct PublishMetrics {
    /// Files uploaded.
    pub uploads: Counter,
    /// Bytes of those files.
    pub upload_bytes: Counter,
    /// Manifests published.
    pub manifests: Counter,
    /// Tries to publish that failed and will be repeated.
    pub failed: Counter,
    /// Segments that were found damaged before they were uploaded.
    pub holes: Counter,
    /// Objects and manifests collected.
    pub collected: Counter,
    /// Bytes of sealed files that only this disk has.
    pub backlog_bytes: Gauge,
    /// 1 if another process publishes in this store's bucket, so that this one takes no writes.
    pub fenced: Gauge,
}

impl PublishMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("weir_uploads", "Files uploaded", self.uploads.clone());
        r.register("weir_upload_bytes", "Bytes of uploaded files", self.upload_bytes.clone());
        r.register("weir_manifests", "Manifests published", self.manifests.clone());
        r.register("weir_publish_failed", "Tries to publish that failed", self.failed.clone());
        r.register("weir_holes", "Segments damaged before their upload", self.holes.clone());
        r.register("weir_collected", "Objects and manifests collected", self.collected.clone());
        r.register("weir_backlog_bytes", "Sealed, not yet uploaded", self.backlog_bytes.clone());
        r.register("weir_fenced", "1: another process publishes", self.fenced.clone());
    }
}
