//! Counters of one server, in a registry of its own together with its engine's.

mod bucket;

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::object_store::ObjectStore;

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Stream,
    List,
    Control,
    Server,
    Health,
    Metrics,
    Other,
}

/// What it wanted there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Get,
    Head,
    Put,
    Post,
    Delete,
    Options,
    Other,
}

/// How a live reader waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    LongPoll,
    Sse,
    /// For a change of what inspection tells.
    Inspection,
}

/// How a webhook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// The receiver has processed everything.
    Done,
    /// It will report.
    Accepted,
    /// It refused or did not answer.
    Failed,
    /// The wake was over, or the server went down.
    Abandoned,
}

/// How the values of a label are written.
macro_rules! words {
    ($label:ident { $($value:ident: $word:literal),* $(,)? }) => {
        impl $label {
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)*
                }
            }
        }

        impl EncodeLabelValue for $label {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                self.as_str().encode(encoder)
            }
        }
    };
}

words!(Place {
    Stream: "stream",
    List: "list",
    Control: "control",
    Server: "server",
    Health: "health",
    Metrics: "metrics",
    Other: "other",
});
words!(Verb {
    Get: "GET",
    Head: "HEAD",
    Put: "PUT",
    Post: "POST",
    Delete: "DELETE",
    Options: "OPTIONS",
    Other: "other",
});
words!(Outcome { Done: "done", Accepted: "accepted", Failed: "failed", Abandoned: "abandoned" });
words!(Mode { LongPoll: "long-poll", Sse: "sse", Inspection: "inspection" });

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: Verb,
    route: Place,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    method: Verb,
    route: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waiting {
    mode: Mode,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: Outcome,
}

/// Everything the server counts.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    seconds: Family<Timed, Histogram>,
    live: Family<Waiting, Gauge>,
    pub(crate) deliveries: Deliveries,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
}

impl Metrics {
    pub(crate) fn new(engine: &weir_engine::Metrics) -> Self {
        let buckets = || {
            Histogram::new([
                0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0,
                5.0,
            ])
        };
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(buckets),
            live: Family::default(),
            deliveries: Deliveries::new(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
        };
        metrics.register();
        engine.register(&mut metrics.registry);
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("weir_http_requests", "Requests answered", self.requests.clone());
        r.register(
            "weir_http_request_seconds",
            "Time to the head of an answer, live reads excepted",
            self.seconds.clone(),
        );
        r.register("weir_http_live_readers", "Live readers by mode", self.live.clone());
        self.deliveries.register(r);
        r.register("weir_http_connections", "Open connections", self.connections.clone());
        r.register(
            "weir_http_connections_refused",
            "Connections turned away because there were too many",
            self.connections_refused.clone(),
        );
        r.register("weir_http_received_bytes", "Bytes read from sockets", self.bytes_in.clone());
        r.register("weir_http_sent_bytes", "Bytes written to sockets", self.bytes_out.clone());
    }

    /// Tells what a bucket is asked, too.
    pub(crate) fn watch(&mut self, store: &ObjectStore) {
        self.registry.register_collector(Box::new(bucket::Bucket::new(store)));
    }

    /// Counts an answer; `took` is missing where waiting was the request's purpose.
    pub(crate) fn answered(&self, verb: Verb, place: Place, status: u16, took: Option<Duration>) {
        self.requests.get_or_create(&Answered { method: verb, route: place, status }).inc();
        if let Some(took) = took {
            let timed = Timed { method: verb, route: place };
            self.seconds.get_or_create(&timed).observe(took.as_secs_f64());
        }
    }

    /// Counts a live reader until the guard drops.
    pub(crate) fn reader(&self, mode: Mode) -> Reader {
        let gauge = self.live.get_or_create(&Waiting { mode }).clone();
        gauge.inc();
        Reader(gauge)
    }

    /// Live readers that wait in this way.
    pub(crate) fn readers(&self, mode: Mode) -> i64 {
        self.live.get_or_create(&Waiting { mode }).get()
    }

    /// Figures in the exposition text.
    pub(crate) fn series(&self) -> usize {
        self.text().lines().filter(|line| !line.starts_with('#')).count()
    }

    /// The exposition text.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("a string takes it");
        out
    }
}

/// Figures of webhooks. Clones share them.
#[derive(Clone)]
pub(crate) struct Deliveries {
    ended: Family<Ended, Counter>,
    seconds: Histogram,
    under_way: Gauge,
}

impl Deliveries {
    pub(crate) fn new() -> Self {
        let seconds = Histogram::new([0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0]);
        Self { ended: Family::default(), seconds, under_way: Gauge::default() }
    }

    fn register(&self, r: &mut Registry) {
        r.register("weir_webhook_deliveries", "Webhooks by how they ended", self.ended.clone());
        r.register(
            "weir_webhook_delivery_seconds",
            "Time from the look-up of a receiver to the end of its answer",
            self.seconds.clone(),
        );
        r.register(
            "weir_webhook_deliveries_in_flight",
            "Receivers being called",
            self.under_way.clone(),
        );
    }

    /// Counts a call until the guard drops.
    pub(crate) fn begin(&self) -> UnderWay {
        self.under_way.inc();
        UnderWay(self.under_way.clone())
    }

    /// Calls under way.
    pub(crate) fn in_flight(&self) -> i64 {
        self.under_way.get()
    }

    pub(crate) fn took(&self, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        self.ended.get_or_create(&Ended { outcome }).inc();
    }
}

/// One call under way, counted while this lives.
pub(crate) struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One live reader, counted while this lives.
pub(crate) struct Reader(Gauge);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.dec();
    }
}
