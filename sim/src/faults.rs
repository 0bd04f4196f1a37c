//! What a seed turns on: each fault, each size, drawn from the seed's own stream, so that some
//! seeds are calm in one respect and cruel in another.

use std::{ops::Range, path::PathBuf, time::Duration};

use anyhow::Context as _;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_engine::Config;
use weir_io::memory::{Faults, STREAM_FREE, chance};

use crate::bucket::Choices;
use crate::run::Over;
use crate::town::options::TownOptions;

/// Streams of the seed used by the simulator.
pub const STREAM_OPTIONS: u64 = STREAM_FREE;
pub const STREAM_RUN: u64 = STREAM_FREE + 1;
pub const STREAM_TOWN: u64 = STREAM_FREE + 2;
pub const STREAM_DEPOT: u64 = STREAM_FREE + 3;
pub const STREAM_TOWN_OPTIONS: u64 = STREAM_FREE + 4;
pub const STREAM_CLIENTS: u64 = STREAM_FREE + 64;

/// Where the store lies on the simulated drive.
pub const DIR: &str = "/data/store";

/// A seed's choices.
#[derive(Clone, Debug)]
pub struct Options {
    pub rounds: u32,
    pub round: Duration,
    pub clients: u32,
    pub think_ms: u64,
    pub fill_max: usize,
    pub crash_at_op: bool,
    pub crash_at_time: bool,
    pub crash_in_recovery: bool,
    pub process_kill: bool,
    pub graceful: bool,
    pub sync_fails: bool,
    pub sync_forgets: bool,
    pub read_fails: bool,
    pub write_fails: bool,
    pub name_fails: bool,
    pub disk_full: bool,
    pub bit_flip: bool,
    pub wall_jumps: bool,
    pub slow_disk: bool,
    /// Failed syncs that tell of something long over.
    pub sync_late: bool,
    /// The process is stopped for seconds to hours while time goes on.
    pub stops: bool,
    /// Another process wants the directory.
    pub second_process: bool,
    /// Recovery is cut off again and again, at one of its first changes each time.
    pub crash_loop: bool,
    /// The store is one file.
    pub one_file: bool,
    /// Some deletions say where the stream ends.
    pub bound_deletions: bool,
    pub memtable_bytes_max: usize,
    pub seal_age: Duration,
    pub erase_within: Duration,
    pub streams_cached_max: usize,
    pub block_cache_bytes: u64,
    pub wal_checkpoint_bytes: u64,
    pub wal_bytes_max: u64,
    pub queue_requests_max: usize,
    pub bucket: Choices,
    pub town: TownOptions,
}

/// Switches without an effect where clients talk HTTP: a town has its own ends and stops.
const ONLY_IN_PROCESS: [&str; 2] = ["stops", "crash_loop"];

/// Whether a switch says how a bucket behaves.
fn is_of_bucket(name: &str) -> bool {
    Choices::none().switches().iter().any(|(known, _)| *known == name)
}

fn one_of<T: Copy>(chance: &mut ChaCha8Rng, choices: &[T]) -> T {
    choices[chance.random_range(0..choices.len())]
}

impl Options {
    /// What `seed` chooses.
    #[must_use]
    pub fn draw(seed: u64) -> Options {
        let c = &mut chance(seed, STREAM_OPTIONS);
        Options {
            rounds: c.random_range(2..6),
            round: Duration::from_millis(c.random_range(500..8_000)),
            clients: c.random_range(8..24),
            think_ms: one_of(c, &[5, 20, 60, 200]),
            fill_max: one_of(c, &[10, 200, 3000, 20_000]),
            crash_at_op: c.random_bool(0.7),
            crash_at_time: c.random_bool(0.5),
            crash_in_recovery: c.random_bool(0.4),
            process_kill: c.random_bool(0.4),
            graceful: c.random_bool(0.5),
            sync_fails: c.random_bool(0.3),
            sync_forgets: c.random_bool(0.5),
            read_fails: c.random_bool(0.3),
            write_fails: c.random_bool(0.3),
            name_fails: c.random_bool(0.2),
            disk_full: c.random_bool(0.3),
            bit_flip: c.random_bool(0.5),
            wall_jumps: c.random_bool(0.4),
            slow_disk: c.random_bool(0.3),
            memtable_bytes_max: one_of(c, &[1 << 10, 8 << 10, 64 << 10, 1 << 20]),
            seal_age: Duration::from_millis(one_of(c, &[50, 300, 2_000, 60_000])),
            erase_within: Duration::from_millis(one_of(c, &[1_000, 20_000, 604_800_000])),
            streams_cached_max: one_of(c, &[1, 4, 1000]),
            block_cache_bytes: one_of(c, &[1 << 10, 64 << 10, 4 << 20]),
            wal_checkpoint_bytes: one_of(c, &[16 << 10, 64 << 10, 128 << 10]),
            wal_bytes_max: one_of(c, &[256 << 10, 1 << 20]),
            queue_requests_max: one_of(c, &[3, 1000, 50_000]),
            // Later choices come last, so that the earlier ones of a seed stay what they were.
            sync_late: c.random_bool(0.4),
            stops: c.random_bool(0.3),
            second_process: c.random_bool(0.3),
            crash_loop: c.random_bool(0.3),
            one_file: c.random_bool(0.25),
            bound_deletions: c.random_bool(0.2),
            bucket: Choices::draw(seed),
            town: TownOptions::draw(seed),
        }
    }

    /// No faults and roomy sizes: what a schedule plays on.
    #[must_use]
    pub fn calm() -> Options {
        let mut options = Options {
            rounds: 0,
            round: Duration::ZERO,
            clients: 0,
            think_ms: 0,
            fill_max: 0,
            memtable_bytes_max: 1 << 20,
            seal_age: Duration::from_secs(10),
            streams_cached_max: 1000,
            block_cache_bytes: 4 << 20,
            wal_checkpoint_bytes: 1 << 20,
            wal_bytes_max: 16 << 20,
            queue_requests_max: 1000,
            bucket: Choices::none(),
            ..Options::draw(0)
        };
        for (_, switch) in options.switches() {
            *switch = false;
        }
        options
    }

    /// Overrules one choice.
    ///
    /// # Errors
    /// There is no such choice, or it can't have that value.
    pub fn set(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        let mut all: Vec<(&str, &mut bool)> = self.bucket.switches().into_iter().collect();
        all.extend(self.town.switches());
        if let Some((_, switch)) = all.into_iter().find(|(known, _)| *known == name) {
            *switch = value.parse().with_context(|| format!("{name} is true or false"))?;
            return Ok(());
        }
        if let Some((_, switch)) = self.switches().into_iter().find(|(known, _)| *known == name) {
            *switch = value.parse().with_context(|| format!("{name} is true or false"))?;
            return Ok(());
        }
        let number: u64 = value.parse().with_context(|| format!("{name} is a number"))?;
        let small = u32::try_from(number);
        let size = usize::try_from(number);
        match name {
            "rounds" => self.rounds = small?,
            "clients" => self.clients = small?,
            "round_ms" => self.round = Duration::from_millis(number),
            "think_ms" => self.think_ms = number,
            "fill_max" => self.fill_max = size?,
            "memtable_bytes_max" => self.memtable_bytes_max = size?,
            "seal_age_ms" => self.seal_age = Duration::from_millis(number),
            "erase_within_ms" => self.erase_within = Duration::from_millis(number),
            "streams_cached_max" => self.streams_cached_max = size?,
            "block_cache_bytes" => self.block_cache_bytes = number,
            "wal_checkpoint_bytes" => self.wal_checkpoint_bytes = number,
            "wal_bytes_max" => self.wal_bytes_max = number,
            "queue_requests_max" => self.queue_requests_max = size?,
            "grace_ms" => self.bucket.grace = Duration::from_millis(number),
            "backlog_bytes_max" => self.bucket.backlog_bytes_max = number,
            _ => anyhow::bail!("there is no choice '{name}'"),
        }
        Ok(())
    }

    /// Names of the faults that are on, where clients talk to that.
    #[must_use]
    pub fn switched_on(&self, over: Over) -> Vec<&'static str> {
        let all = self.effective(over).into_iter();
        all.filter(|(name, on)| *on && (self.bucket.there || !is_of_bucket(name)))
            .map(|(name, _)| name)
            .collect()
    }

    /// The switches that change anything where clients talk to that, and whether they are on.
    pub(crate) fn effective(&self, over: Over) -> Vec<(&'static str, bool)> {
        let (mut own, mut bucket, mut town) =
            (self.clone(), self.bucket.clone(), self.town.clone());
        let town = town.switches().into_iter().filter(|_| over == Over::Http);
        let all = own.switches().into_iter().chain(bucket.switches()).chain(town);
        all.filter(|(name, _)| over == Over::Engine || !ONLY_IN_PROCESS.contains(name))
            .map(|(name, on)| (name, *on))
            .collect()
    }

    fn switches(&mut self) -> [(&'static str, &mut bool); 20] {
        [
            ("crash_at_op", &mut self.crash_at_op),
            ("crash_at_time", &mut self.crash_at_time),
            ("crash_in_recovery", &mut self.crash_in_recovery),
            ("process_kill", &mut self.process_kill),
            ("graceful", &mut self.graceful),
            ("sync_fails", &mut self.sync_fails),
            ("sync_forgets", &mut self.sync_forgets),
            ("read_fails", &mut self.read_fails),
            ("write_fails", &mut self.write_fails),
            ("name_fails", &mut self.name_fails),
            ("disk_full", &mut self.disk_full),
            ("bit_flip", &mut self.bit_flip),
            ("slow_disk", &mut self.slow_disk),
            ("wall_jumps", &mut self.wall_jumps),
            ("sync_late", &mut self.sync_late),
            ("stops", &mut self.stops),
            ("second_process", &mut self.second_process),
            ("crash_loop", &mut self.crash_loop),
            ("one_file", &mut self.one_file),
            ("bound_deletions", &mut self.bound_deletions),
        ]
    }

    /// The store's configuration.
    #[must_use]
    pub fn config(&self) -> Config {
        let config = Config {
            memtable_bytes_max: self.memtable_bytes_max,
            seal_age: self.seal_age,
            erase_within: self.erase_within,
            streams_cached_max: self.streams_cached_max,
            block_cache_bytes: self.block_cache_bytes,
            wal_checkpoint_bytes: self.wal_checkpoint_bytes,
            wal_bytes_max: self.wal_bytes_max,
            queue_requests_max: self.queue_requests_max,
            ..if self.is_one_file() { Config::one_file(DIR) } else { Config::new(DIR) }
        };
        self.bucket.applied(config)
    }

    /// Whether the store is one file: such a one has no bucket.
    #[must_use]
    pub fn is_one_file(&self) -> bool {
        self.one_file && !self.bucket.there
    }

    /// Where the store's database is.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        let Config { dir, layout, .. } = self.config();
        dir.join(layout.database())
    }

    /// Whether local copies of what the bucket has are damaged while they are in use.
    #[must_use]
    pub fn rots(&self) -> bool {
        self.bit_flip && self.bucket.there
    }

    /// Whether a read may fail because only the bucket has what it needs.
    #[must_use]
    pub fn keeps_readers_waiting(&self) -> bool {
        self.bucket.there && (self.bucket.evicts || self.rots())
    }

    /// Whether any fault makes writes fail in a way that needs a restart.
    #[must_use]
    pub fn disturbs(&self) -> bool {
        self.sync_fails || self.read_fails || self.write_fails || self.name_fails || self.disk_full
    }

    /// One burst of disk faults, `None` if this seed has none.
    pub fn burst(&self, c: &mut ChaCha8Rng, used: u64) -> Option<Faults> {
        let mut faults = Faults::default();
        let rate = one_of(c, &[0.01, 0.1, 0.5, 1.0]);
        let kinds =
            [self.sync_fails, self.read_fails, self.write_fails, self.name_fails, self.disk_full];
        let on: Vec<usize> = (0..kinds.len()).filter(|kind| kinds[*kind]).collect();
        if on.is_empty() {
            return None;
        }
        match one_of(c, &on) {
            0 => {
                faults.sync = rate;
                faults.sync_forgets = if self.sync_forgets { 0.5 } else { 0.0 };
                faults.sync_late = if self.sync_late { 0.5 } else { 0.0 };
            }
            1 => faults.read = rate,
            2 => faults.write = rate,
            3 => faults.name = rate,
            _ if c.random_bool(0.5) => faults.full = rate,
            _ => faults.capacity_bytes = Some(used + c.random_range(0..64 << 10)),
        }
        Some(faults)
    }

    /// How long the process is stopped: a second to three hours, each order of magnitude alike.
    #[must_use]
    pub fn pause(c: &mut ChaCha8Rng) -> Duration {
        let most = one_of(c, &[10_u64, 100, 1000, 10_800]);
        Duration::from_millis(c.random_range(most * 100..=most * 1000))
    }

    /// How long blocking jobs wait while the disk is slow.
    #[must_use]
    pub fn slowness(c: &mut ChaCha8Rng) -> Range<Duration> {
        let most = one_of(c, &[20_u64, 200, 1000]);
        Duration::from_millis(most / 10)..Duration::from_millis(most)
    }
}
