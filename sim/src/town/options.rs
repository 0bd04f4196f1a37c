//! What a seed turns on in a town, beside what it turns on everywhere.

use rand::RngExt;
use weir_io::memory::chance;

use crate::faults::STREAM_TOWN_OPTIONS;

/// A seed's choices for the network and for what is behind it.
#[derive(Clone, Debug)]
pub struct TownOptions {
    /// Links are cut, in one direction or both, or hold packets back.
    pub cuts: bool,
    /// Connections are reset in the middle of requests, answers and event streams.
    pub resets: bool,
    /// Links lose packets.
    pub losses: bool,
    /// Links are slow for a while.
    pub delays: bool,
    /// The server's process stops for a while; its clock goes on.
    pub pauses: bool,
    /// Readers take a few bytes a second.
    pub slow_readers: bool,
    /// A thousand short connections at once.
    pub bursts: bool,
    /// Clients' clocks differ from the server's.
    pub skew: bool,
    /// The server waits for slow peers for seconds only, and lets in a crowd and no more.
    pub impatient: bool,
    /// Receivers of webhooks refuse, hang up, and lose their answers.
    pub receivers_fail: bool,
    /// Receivers of webhooks take longer than they are waited for.
    pub receivers_slow: bool,
    /// Receivers of webhooks crash.
    pub receivers_crash: bool,
    /// A pause may last for hours; machines of clients sleep through most of it.
    pub nights: bool,
}

impl TownOptions {
    /// What `seed` chooses.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let c = &mut chance(seed, STREAM_TOWN_OPTIONS);
        Self {
            cuts: c.random_bool(0.6),
            resets: c.random_bool(0.5),
            losses: c.random_bool(0.3),
            delays: c.random_bool(0.4),
            pauses: c.random_bool(0.4),
            slow_readers: c.random_bool(0.4),
            bursts: c.random_bool(0.2),
            skew: c.random_bool(0.4),
            impatient: c.random_bool(0.4),
            receivers_fail: c.random_bool(0.5),
            receivers_slow: c.random_bool(0.4),
            receivers_crash: c.random_bool(0.4),
            // Later choices come last, so that the earlier ones of a seed stay what they were.
            nights: c.random_bool(0.4),
        }
    }

    /// The faults by name.
    pub fn switches(&mut self) -> [(&'static str, &mut bool); 13] {
        [
            ("cuts", &mut self.cuts),
            ("resets", &mut self.resets),
            ("losses", &mut self.losses),
            ("delays", &mut self.delays),
            ("pauses", &mut self.pauses),
            ("slow_readers", &mut self.slow_readers),
            ("bursts", &mut self.bursts),
            ("skew", &mut self.skew),
            ("impatient", &mut self.impatient),
            ("receivers_fail", &mut self.receivers_fail),
            ("receivers_slow", &mut self.receivers_slow),
            ("receivers_crash", &mut self.receivers_crash),
            ("nights", &mut self.nights),
        ]
    }
}
