//! What a generator counts: times in a histogram, requests, bytes, refusals.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{deliver::Deliveries, record::nanoseconds};

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

/// What is counted while the run is measured, and what went wrong at any time.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    measured: Range<Duration>,
    pub(super) times: Times,
    pub(super) requests: u64,
    pub(super) records: u64,
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
    pub(super) fn new(measured: &Range<Duration>) -> Self {
        Self {
            append: Mutex::new(Tally::new(measured)),
            scan: Mutex::new(Tally::new(measured)),
            tail: Mutex::new(Deliveries::new()),
        }
    }

    pub(super) fn add(&self, other: &Self) {
        self.append.lock().add(&other.append.lock());
        self.scan.lock().add(&other.scan.lock());
        self.tail.lock().add(&other.tail.lock());
    }
}

impl Tally {
    pub(super) fn new(measured: &Range<Duration>) -> Self {
        let seconds = usize::try_from(measured.end.as_secs() + 1).expect("minutes, not ages");
        Self {
            measured: measured.clone(),
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
        if !self.measured.contains(&now) {
            return;
        }
        self.times.record(took);
        self.requests += 1;
        self.records += records;
        self.bytes += wide(bytes);
        let second = usize::try_from((now - self.measured.start).as_secs());
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
        (self.measured.end - self.measured.start).as_secs_f64()
    }

    pub(super) fn per_second(&self, count: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count of seconds' work fits 53 bits")]
        let count = count as f64;
        round(count / self.span())
    }

    /// Rates, times and failures.
    pub(super) fn to_json(&self) -> Value {
        let whole = usize::try_from((self.measured.end - self.measured.start).as_secs());
        let whole = whole.unwrap_or(0).min(self.seconds.len());
        json!({
            "seconds": round(self.span()),
            "requests": self.requests,
            "records": self.records,
            "bytes": self.bytes,
            "requests_per_second": self.per_second(self.requests),
            "records_per_second": self.per_second(self.records),
            "bytes_per_second": self.per_second(self.bytes),
            "latency_us": self.times.to_json(),
            "each_second": &self.seconds[..whole],
            "failures": self.failures,
        })
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
        let measured = Duration::from_secs(2)..Duration::from_secs(4);
        let mut tally = Tally::new(&measured);
        for tenths in [10, 19, 20, 25, 39, 40, 60] {
            tally.done(Duration::from_millis(tenths * 100), Duration::from_millis(1), 10, 100);
        }
        assert_eq!((tally.requests, tally.records, tally.bytes), (3, 30, 300));
        assert_eq!(tally.to_json()["each_second"], json!([2, 1]));
        assert_eq!(tally.to_json()["requests_per_second"], 1.5);
    }

    #[test]
    fn failures_are_counted_by_kind_and_kinds_are_bounded() {
        let mut tally = Tally::new(&(Duration::ZERO..Duration::from_secs(1)));
        for kind in 0..FAILURES_MAX + 3 {
            tally.failed(&kind.to_string());
            tally.failed("0");
        }
        assert_eq!(tally.failures["others"], 3);
        assert_eq!(tally.failures.len(), FAILURES_MAX + 1);
    }
}
