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
    /// Files that are being uploaded.
    pub under_way: Gauge,
    /// Bytes of these.
    pub under_way_bytes: Gauge,
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

/// A file that is being uploaded, counted while this lives: whoever uploads may be given up.
pub(crate) struct UnderWay<'a> {
    metrics: &'a PublishMetrics,
    bytes: i64,
}

impl<'a> UnderWay<'a> {
    pub(crate) fn new(metrics: &'a PublishMetrics, bytes: u64) -> Self {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        metrics.under_way.inc();
        metrics.under_way_bytes.inc_by(bytes);
        Self { metrics, bytes }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.metrics.under_way.dec();
        self.metrics.under_way_bytes.dec_by(self.bytes);
    }
}

impl PublishMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("weir_uploads", "Files uploaded", self.uploads.clone());
        r.register("weir_upload_bytes", "Bytes of uploaded files", self.upload_bytes.clone());
        r.register("weir_uploads_under_way", "Files being uploaded", self.under_way.clone());
        r.register(
            "weir_uploads_under_way_bytes",
            "Bytes of files being uploaded",
            self.under_way_bytes.clone(),
        );
        r.register("weir_manifests", "Manifests published", self.manifests.clone());
        r.register("weir_publish_failed", "Tries to publish that failed", self.failed.clone());
        r.register("weir_holes", "Segments damaged before their upload", self.holes.clone());
        r.register("weir_collected", "Objects and manifests collected", self.collected.clone());
        r.register("weir_backlog_bytes", "Sealed, not yet uploaded", self.backlog_bytes.clone());
        r.register("weir_fenced", "1: another process publishes", self.fenced.clone());
    }
}
