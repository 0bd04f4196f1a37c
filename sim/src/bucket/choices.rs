//! What a seed chooses for the bucket of its store: how it behaves, and how little patience the
//! store has. Drawn from a stream of its own, so that what else a seed chooses stays as it was.

use std::{ops::Range, time::Duration};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_engine::Config;
use weir_io::memory::{BucketFaults, chance};

use crate::faults::STREAM_DEPOT;

/// One of so many seeds has a bucket, unless it is told.
const SHARE: u32 = 4;
/// No request is carried out later than this after it was given up.
pub(super) const LATE_MAX: Duration = Duration::from_secs(60);
/// No listing shows longer than this what was before.
pub(super) const LAG_MAX: Duration = Duration::from_secs(40);
/// What a store that evicts keeps of published segments.
const EVICTING_BYTES_MAX: u64 = 16 << 10;
/// The longest outage.
pub(super) const OUTAGE_MAX: Duration = Duration::from_secs(300);

/// A seed's choices.
#[derive(Clone, Debug)]
pub struct Choices {
    /// The store has a bucket.
    pub there: bool,
    pub grace: Duration,
    pub backlog_bytes_max: u64,
    /// How long a stop waits for the bucket.
    pub publish_at_stop: Duration,
    pub slow: bool,
    pub errors: bool,
    pub hangs: bool,
    pub lost_answers: bool,
    pub late: bool,
    pub mangled: bool,
    pub lags: bool,
    pub outages: bool,
    pub quota: bool,
    /// After everything a copy of the machine comes up beside it.
    pub rivals: bool,
    /// After everything an operator recovers a store again and again.
    pub drill: bool,
    /// Hardly anything that is published stays on the disk.
    pub evicts: bool,
    /// After everything an operator recovers the store as it was at an earlier manifest.
    pub travels: bool,
    /// After everything somebody asks what could be deleted.
    pub dry_runs: bool,
    /// After everything a damaged bucket is recovered from.
    pub ruins: bool,
    /// After everything the newest manifest is damaged beside its server.
    pub spoils: bool,
}

fn one_of<T: Copy>(chance: &mut ChaCha8Rng, choices: &[T]) -> T {
    choices[chance.random_range(0..choices.len())]
}

fn millis(range: Range<u64>) -> Range<Duration> {
    Duration::from_millis(range.start)..Duration::from_millis(range.end)
}

impl Choices {
    /// What `seed` chooses.
    #[must_use]
    pub fn draw(seed: u64) -> Choices {
        let c = &mut chance(seed, STREAM_DEPOT);
        Choices {
            there: c.random_ratio(1, SHARE),
            grace: Duration::from_secs(one_of(c, &[20, 60, 180])),
            backlog_bytes_max: one_of(c, &[32 << 10, 256 << 10, 1 << 30]),
            publish_at_stop: Duration::from_millis(one_of(c, &[1, 500, 5000])),
            slow: c.random_bool(0.5),
            errors: c.random_bool(0.5),
            hangs: c.random_bool(0.3),
            lost_answers: c.random_bool(0.5),
            late: c.random_bool(0.4),
            mangled: c.random_bool(0.3),
            lags: c.random_bool(0.4),
            outages: c.random_bool(0.4),
            quota: c.random_bool(0.2),
            rivals: c.random_bool(0.5),
            drill: c.random_bool(0.4),
            evicts: c.random_bool(0.4),
            // Later choices come last, so that the earlier ones of a seed stay what they were.
            travels: c.random_bool(0.4),
            dry_runs: c.random_bool(0.4),
            ruins: c.random_bool(0.5),
            spoils: c.random_bool(0.3),
        }
    }

    /// No bucket.
    #[must_use]
    pub fn none() -> Choices {
        let none = Choices::draw(0);
        Choices { there: false, ..none }
    }

    /// The switches and their names.
    pub fn switches(&mut self) -> [(&'static str, &mut bool); 17] {
        [
            ("bucket", &mut self.there),
            ("bucket_slow", &mut self.slow),
            ("bucket_errors", &mut self.errors),
            ("bucket_hangs", &mut self.hangs),
            ("bucket_lost_answers", &mut self.lost_answers),
            ("bucket_late", &mut self.late),
            ("bucket_mangled", &mut self.mangled),
            ("bucket_lags", &mut self.lags),
            ("bucket_outages", &mut self.outages),
            ("bucket_quota", &mut self.quota),
            ("rivals", &mut self.rivals),
            ("drill", &mut self.drill),
            ("evicts", &mut self.evicts),
            ("travels", &mut self.travels),
            ("dry_runs", &mut self.dry_runs),
            ("ruins", &mut self.ruins),
            ("spoils", &mut self.spoils),
        ]
    }

    /// Puts the choices into a configuration.
    #[must_use]
    pub fn applied(&self, config: Config) -> Config {
        if !self.there {
            return config;
        }
        Config {
            gc_grace: self.grace,
            backlog_bytes_max: self.backlog_bytes_max,
            publish_at_stop: self.publish_at_stop,
            local_bytes_max: if self.evicts { EVICTING_BYTES_MAX } else { config.local_bytes_max },
            ..config
        }
    }

    /// A bucket on a good day.
    #[must_use]
    pub fn fair(&self) -> BucketFaults {
        BucketFaults { latency: millis(2..60), ..BucketFaults::default() }
    }

    /// A bucket on a bad day, and for how long; `None` if this seed has none.
    pub fn foul(&self, c: &mut ChaCha8Rng, used: u64) -> Option<(BucketFaults, Duration)> {
        let mut faults = self.fair();
        let rate = one_of(c, &[0.02, 0.1, 0.4]);
        let mut length = Duration::from_millis(c.random_range(200..8000));
        let mut any = false;
        let mut now = |on: bool, c: &mut ChaCha8Rng| {
            let now = on && c.random_bool(0.6);
            any |= now;
            now
        };
        if now(self.slow, c) {
            faults.tail = rate;
            faults.tail_latency = millis(500..20_000);
        }
        if now(self.errors, c) {
            faults.error = rate;
            faults.burst = rate / 4.0;
            faults.burst_length = millis(100..10_000);
        }
        if now(self.hangs, c) {
            faults.hang = rate;
        }
        if now(self.lost_answers, c) {
            faults.lost_answer = rate;
        }
        if now(self.late, c) {
            faults.late = rate;
            faults.late_by = millis(100..u64::try_from(LATE_MAX.as_millis()).expect("short"));
        }
        if now(self.mangled, c) {
            faults.truncated = rate;
            faults.corrupted = rate;
        }
        if now(self.lags, c) {
            faults.list_lag = rate * 2.0;
            faults.list_lag_by = millis(10..u64::try_from(LAG_MAX.as_millis()).expect("short"));
        }
        if now(self.quota, c) && c.random_bool(0.3) {
            faults.quota_bytes = Some(used + c.random_range(0..64 << 10));
        }
        if now(self.outages, c) && c.random_bool(0.4) {
            faults.outage = true;
            length = Duration::from_millis(c.random_range(1000..300_000));
        }
        any.then_some((faults, length))
    }
}

const _: () = assert!(OUTAGE_MAX.as_millis() == 300_000);
