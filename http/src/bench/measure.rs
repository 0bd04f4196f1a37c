//! What a generator counts: times in a histogram, requests, bytes, refusals.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::{deliver::Deliveries, hdr, record::nanoseconds};

/// Longer ones count as this long.
const TIME_MAX: Duration = Duration::from_secs(600);
/// Three decimal digits of each time are kept.
const DIGITS: u8 = 3;
/// Kinds of failures that are told apart, each by the words of its first occurrence.
const FAILURES_MAX: usize = 32;

/// Times, as a histogram.
#[derive(Clone, Debug)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1_000, nanoseconds(TIME_MAX), DIGITS);
        Self(histogram.expect("the bounds make sense"))
    }

    pub(super) fn record(&mut self, time: Duration) {
        self.0.saturating_record(nanoseconds(time));
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Microseconds at a share of all, or 0 if there are none.
    pub(super) fn at(&self, share: f64) -> f64 {
        microseconds(self.0.value_at_quantile(share))
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "count": self.count(),
            "mean": round(self.0.mean() / 1e3),
            "min": microseconds(if self.count() == 0 { 0 } else { self.0.min() }),
            "p50": self.at(0.5),
            "p90": self.at(0.9),
            "p99": self.at(0.99),
            "p999": self.at(0.999),
            "max": microseconds(self.0.max()),
            // In nanoseconds: what quantiles of several runs are made of.
            "hdr": hdr::base64(&self.0),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "times of less than a day fit 53 bits")]
fn microseconds(nanoseconds: u64) -> f64 {
    round(nanoseconds as f64 / 1e3)
}

/// A count, as wide as counts are here.
pub(super) fn wide(count: usize) -> u64 {
    u64::try_from(count).expect("no machine counts further")
}

/// To a tenth.
pub(super) fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The time that is measured, which somebody may end early. Clones share that.
#[derive(Clone, Debug)]
pub(super) struct Span {
    whole: Range<Duration>,
    /// When it was ended, in nanoseconds; [`u64::MAX`]: it was not.
    stopped: Arc<AtomicU64>,
}

impl Span {
    pub(super) fn new(whole: Range<Duration>) -> Self {
        Self { whole, stopped: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// It ends now. What was said first holds.
    pub(super) fn stop(&self, now: Duration) {
        self.stopped.fetch_min(nanoseconds(now), Ordering::Relaxed);
    }

    pub(super) fn was_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) != u64::MAX
    }

    /// When it was ended early, if it was.
    pub(super) fn stopped_at(&self) -> Option<Duration> {
        let stopped = self.stopped.load(Ordering::Relaxed);
        (stopped != u64::MAX).then(|| Duration::from_nanos(stopped))
    }

    pub(super) const fn start(&self) -> Duration {
        self.whole.start
    }

    /// When it ends if nobody ends it early.
    pub(super) const fn limit(&self) -> Duration {
        self.whole.end
    }

    /// When it ends or has ended.
    fn end(&self) -> Duration {
        let stopped = Duration::from_nanos(self.stopped.load(Ordering::Relaxed));
        self.whole.end.min(stopped).max(self.whole.start)
    }

    pub(super) fn contains(&self, time: Duration) -> bool {
        time >= self.whole.start && time < self.end()
    }

    /// How long was measured.
    pub(super) fn length(&self) -> Duration {
        self.end() - self.whole.start
    }
}

/// What requests that are counted hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Records, whose number is known.
    Records,
    /// Pages of bytes, whose records nobody counts.
    Pages,
}

/// What is counted while the run is measured, and what went wrong at any time.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    span: Span,
    content: Content,
    pub(super) times: Times,
    pub(super) requests: u64,
    records: u64,
    pub(super) bytes: u64,
    /// Requests in each second of the time measured.
    pub(super) seconds: Vec<u64>,
    /// What went wrong, in words, and how often.
    pub(super) failures: BTreeMap<String, u64>,
}

/// What the tasks of one thread count, by what they do.
pub(super) struct Books {
    /// Writers, and whatever goes wrong.
    pub(super) append: Mutex<Tally>,
    /// Readers that catch up.
    pub(super) scan: Mutex<Tally>,
    /// Readers that wait.
    pub(super) tail: Mutex<Deliveries>,
}

/// The books of one thread.
pub(super) type Shared = Arc<Books>;

impl Books {
    pub(super) fn new(span: &Span) -> Self {
        Self {
            append: Mutex::new(Tally::new(span, Content::Records)),
            scan: Mutex::new(Tally::new(span, Content::Pages)),
            tail: Mutex::new(Deliveries::new()),
        }
    }

    /// Requests of all kinds.
    pub(super) fn requests(&self) -> u64 {
        self.append.lock().requests + self.scan.lock().requests
    }

    pub(super) fn add(&self, other: &Self) {
        self.append.lock().add(&other.append.lock());
        self.scan.lock().add(&other.scan.lock());
        self.tail.lock().add(&other.tail.lock());
    }
}

impl Tally {
    pub(super) fn new(span: &Span, content: Content) -> Self {
        let seconds = usize::try_from(span.limit().as_secs() + 1).expect("minutes, not ages");
        Self {
            span: span.clone(),
            content,
            times: Times::new(),
            requests: 0,
            records: 0,
            bytes: 0,
            seconds: vec![0; seconds],
            failures: BTreeMap::new(),
        }
    }

    /// Counts a request that ended at `now` if that is in the time measured.
    pub(super) fn done(&mut self, now: Duration, took: Duration, records: u64, bytes: usize) {
        if !self.span.contains(now) {
            return;
        }
        self.times.record(took);
        self.requests += 1;
        self.records += records;
        self.bytes += wide(bytes);
        let second = usize::try_from((now - self.span.start()).as_secs());
        if let Some(count) = second.ok().and_then(|second| self.seconds.get_mut(second)) {
            *count += 1;
        }
    }

    pub(super) fn failed(&mut self, what: &str) {
        if let Some(count) = self.failures.get_mut(what) {
            *count += 1;
        } else if self.failures.len() < FAILURES_MAX {
            self.failures.insert(what.to_owned(), 1);
        } else {
            *self.failures.entry("others".to_owned()).or_default() += 1;
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.times.add(&other.times);
        self.requests += other.requests;
        self.records += other.records;
        self.bytes += other.bytes;
        for (ours, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            *ours += theirs;
        }
        for (what, count) in &other.failures {
            *self.failures.entry(what.clone()).or_default() += count;
        }
    }

    /// How long was measured, in seconds.
    pub(super) fn span(&self) -> f64 {
        self.span.length().as_secs_f64()
    }

    pub(super) fn per_second(&self, count: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count of seconds' work fits 53 bits")]
        let count = count as f64;
        // Interrupted before the measured time began, a run has no rates.
        if self.span() > 0.0 { round(count / self.span()) } else { 0.0 }
    }

    /// Rates, times and failures.
    pub(super) fn to_json(&self) -> Value {
        let whole = usize::try_from(self.span.length().as_secs());
        let whole = whole.unwrap_or(0).min(self.seconds.len());
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        put("seconds", round(self.span()).into());
        put("requests", self.requests.into());
        if self.content == Content::Records {
            put("records", self.records.into());
        }
        put("bytes", self.bytes.into());
        put("requests_per_second", self.per_second(self.requests).into());
        if self.content == Content::Records {
            put("records_per_second", self.per_second(self.records).into());
        }
        put("bytes_per_second", self.per_second(self.bytes).into());
        put("latency_us", self.times.to_json());
        put("each_second", json!(&self.seconds[..whole]));
        put("failures", json!(self.failures));
        Value::Object(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_to_three_digits() {
        let mut times = Times::new();
        for microseconds in 1..=10_000 {
            times.record(Duration::from_micros(microseconds));
        }
        for (share, expect) in [(0.5, 5_000.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let found = times.at(share);
            assert!((found / expect - 1.0).abs() < 0.002, "{share}: {found}");
        }
        times.record(TIME_MAX * 2);
        assert_eq!(times.count(), 10_001);
        assert_eq!(Times::new().to_json()["p99"], 0.0);
    }

    #[test]
    fn only_what_ends_in_the_time_measured_counts() {
        let span = Span::new(Duration::from_secs(2)..Duration::from_secs(4));
        let mut tally = Tally::new(&span, Content::Records);
        for tenths in [10, 19, 20, 25, 39, 40, 60] {
            tally.done(Duration::from_millis(tenths * 100), Duration::from_millis(1), 10, 100);
        }
        assert_eq!((tally.requests, tally.records, tally.bytes), (3, 30, 300));
        assert_eq!(tally.to_json()["each_second"], json!([2, 1]));
        assert_eq!(tally.to_json()["requests_per_second"], 1.5);
    }

    #[test]
    fn a_run_that_was_ended_early_is_as_long_as_it_was() {
        let tenths = |tenths: u64| Duration::from_millis(tenths * 100);
        let span = Span::new(tenths(20)..tenths(120));
        let mut tally = Tally::new(&span, Content::Records);
        for at in [20, 25, 39] {
            tally.done(tenths(at), tenths(1), 10, 100);
        }
        assert!(!span.was_stopped());
        span.stop(tenths(40));
        span.stop(tenths(90));
        // Was on its way: not in the time that counts.
        tally.done(tenths(41), tenths(1), 10, 100);
        let json = tally.to_json();
        assert_eq!((&json["seconds"], &json["requests"]), (&json!(2.0), &json!(3)));
        assert_eq!(json["requests_per_second"], 1.5);
        assert_eq!(json["each_second"], json!([2, 1]));
        assert!(span.was_stopped());

        let early = Span::new(tenths(20)..tenths(120));
        early.stop(tenths(5));
        let json = Tally::new(&early, Content::Records).to_json();
        assert_eq!((&json["seconds"], &json["requests_per_second"]), (&json!(0.0), &json!(0.0)));
    }

    #[test]
    fn who_reads_pages_counts_no_records() {
        let span = Span::new(Duration::ZERO..Duration::from_secs(1));
        let json = Tally::new(&span, Content::Pages).to_json();
        assert!(json.get("records").is_none() && json.get("records_per_second").is_none());
        assert!(json.get("bytes").is_some());
    }

    #[test]
    fn failures_are_counted_by_kind_and_kinds_are_bounded() {
        let span = Span::new(Duration::ZERO..Duration::from_secs(1));
        let mut tally = Tally::new(&span, Content::Records);
        for kind in 0..FAILURES_MAX + 3 {
            tally.failed(&kind.to_string());
            tally.failed("0");
        }
        assert_eq!(tally.failures["others"], 3);
        assert_eq!(tally.failures.len(), FAILURES_MAX + 1);
    }
}
