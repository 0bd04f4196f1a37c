//! What a bucket is asked, read from its counts at every scrape.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use weir_io::objects::{Counts, Figures, Snapshot};

use crate::{cli::store::StoreKind, object_store::ObjectStore, prices};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    artifact: &'static str,
    verb: &'static str,
}

/// The counts of one bucket.
pub(super) struct Bucket {
    counts: Arc<Counts>,
    kind: StoreKind,
}

impl Bucket {
    pub(super) fn new(store: &ObjectStore) -> Self {
        Self { counts: Arc::clone(&store.counts), kind: store.kind }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Collector for Bucket {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let snapshot = self.counts.snapshot();
        let mut out = |name, help, figure: fn(Figures) -> u64| {
            counters(&mut encoder, &snapshot, name, help, figure)
        };
        out("weir_bucket_requests", "Requests to the bucket, every attempt", |it| it.requests)?;
        out("weir_bucket_bytes", "Bytes of objects sent and received", |it| it.bytes)?;
        out("weir_bucket_errors", "Requests refused, unanswered or given up", |it| it.errors)?;
        seconds(&mut encoder, &snapshot)?;
        let dollars = prices::dollars_per_hour(self.kind, &self.counts.recent());
        let gauge = ConstGauge::new(dollars);
        let help = "Cost of an hour like the last one by list prices, in US dollars";
        let name = "weir_bucket_estimated_dollars_per_hour";
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
    }
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    snapshot: &Snapshot,
    name: &str,
    help: &str,
    figure: impl Fn(Figures) -> u64,
) -> Result<(), fmt::Error> {
    let kind = ConstCounter::new(0_u64).metric_type();
    let mut encoder = encoder.encode_descriptor(name, help, None, kind)?;
    for (artifact, verb, figures) in snapshot.iter() {
        let labels = Asked { artifact: artifact.as_str(), verb: verb.as_str() };
        ConstCounter::new(figure(figures)).encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}

fn seconds(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
    let kind = ConstCounter::new(0.0).metric_type();
    let help = "Time that requests to the bucket took";
    let mut encoder = encoder.encode_descriptor("weir_bucket_seconds", help, None, kind)?;
    for (artifact, verb, figures) in snapshot.iter() {
        let labels = Asked { artifact: artifact.as_str(), verb: verb.as_str() };
        let seconds = std::time::Duration::from_micros(figures.micros).as_secs_f64();
        ConstCounter::new(seconds).encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}
