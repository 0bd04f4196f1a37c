//! The bucket of a simulated store: its weather, what is looked for in it, and who else writes
//! there.
//!
//! ```text
//! choices ─▶ depot: the machine's bucket, fair or foul ─▶ store
//!                      └─ audit, at any moment, past all faults: INV-40, 41, 46, 48
//! at the end: everything is there, everything else goes, then silence (INV-47); a twin (INV-48);
//!            and copies that were kept: recovered as of then, asked for what is superfluous, damaged
//! ```
//! The bucket is another machine: no power cut touches it, its weather outlives boots, and a
//! request that a dead process sent may still arrive.

mod album;
mod choices;
mod drill;
mod duel;
mod frozen;
mod garbage;
mod linger;
mod look;
mod lying;
mod past;
mod rehearsal;
mod rival;
mod rot;
mod ruin;
mod settled;
mod spoiled;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    sync::Arc,
    time::Duration,
};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_engine::{OpenError, types::StreamName};
use weir_io::{World, objects::Objects};

pub use self::{choices::Choices, lying::sabotage};
pub(crate) use self::{
    drill::run as drill,
    duel::run as duel,
    linger::run as linger,
    look::{beside, look},
    past::run as look_back,
    rehearsal::run as rehearse,
    rot::run as rot,
    settled::run as settled,
};
use crate::{
    checks::{self, Breach},
    world::{Host, Sim},
};

/// How much longer a start may take while the bucket has its bad day.
pub(crate) const FOUL_OPEN_MAX: Duration = Duration::from_secs(900);

/// How long a read waits for the bucket at most, with the way there and back.
const READ_MAX: Duration = Duration::from_secs(25);

/// What the simulation knows of the bucket, over all boots.
#[derive(Default)]
pub struct Depot {
    /// When the bad day ends.
    foul_until: Cell<Option<Duration>>,
    /// When the last one ended.
    cleared_at: Cell<Option<Duration>>,
    /// How many bad days there were.
    foul_days: Cell<u32>,
    /// A start was refused because of a bad day, and nobody has asked yet.
    refused: Cell<bool>,
    /// The newest manifest that was seen.
    seen: Cell<u64>,
    /// Epoch and tail of each stream in the newest manifest.
    tails: RefCell<BTreeMap<StreamName, (u32, u64)>>,
    /// Copies that are looked at when the seed is over.
    album: album::Album,
}

impl Sim {
    /// The bucket as a store in this world asks it; `None` if the seed has none.
    #[must_use]
    pub fn bucket(&self, world: &World) -> Option<Arc<dyn Objects>> {
        if !self.options.bucket.there {
            return None;
        }
        self.pass_weather();
        let client = self.machine.bucket().client(Arc::clone(&world.clock));
        Some(lying::plant(self.sabotage, client))
    }

    /// Whether the bucket has a bad day.
    #[must_use]
    pub fn is_foul(&self) -> bool {
        self.depot.foul_until.get().is_some()
    }

    /// How many bad days the bucket has had.
    #[must_use]
    pub fn foul_days(&self) -> u32 {
        self.depot.foul_days.get()
    }

    /// Whether a start was refused because of the bucket's weather since this was asked before.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        self.depot.refused.take()
    }

    /// Ends a bad day whose time is over. Whether it did.
    pub(crate) fn pass_weather(&self) -> bool {
        let over = self.depot.foul_until.get().is_some_and(|until| self.now() >= until);
        if over {
            self.clear_up();
        }
        over
    }

    /// Whether a request that ends now may have had no answer of the bucket in time: that has a bad
    /// day, or had one when it was asked, or the process was stopped meanwhile.
    #[must_use]
    pub fn may_lack_answers(&self) -> bool {
        let lately = |at: Option<Duration>| at.is_some_and(|at| self.now() < at + READ_MAX);
        self.is_foul() || lately(self.depot.cleared_at.get()) || lately(self.resumed_at())
    }

    /// From now on the bucket is as it should be, but for what is still on its way.
    pub fn clear_up(&self) {
        if self.options.bucket.there {
            if self.depot.foul_until.take().is_some() {
                self.depot.cleared_at.set(Some(self.now()));
            }
            self.machine.bucket().set_weather(self.options.bucket.fair());
        }
    }

    /// The bucket's weather turns bad, if it ever does.
    fn cloud_over(&self, c: &mut ChaCha8Rng) -> Option<Duration> {
        let bucket = self.machine.bucket();
        let (faults, length) = self.options.bucket.foul(c, bucket.used_bytes())?;
        self.note(&format!("the bucket for {length:?}: {faults:?}"));
        if faults.outage {
            weir_io::sometimes!("the bucket was away for a while");
        }
        if faults.quota_bytes.is_some() {
            weir_io::sometimes!("the bucket was full");
        }
        bucket.set_weather(faults);
        self.depot.foul_until.set(Some(self.now() + length));
        self.depot.foul_days.set(self.depot.foul_days.get() + 1);
        Some(length)
    }

    /// Whether a start that began then may be refused like this: a store that was never published
    /// needs its bucket, and one whose last question had no answer learns nothing of better weather.
    pub(crate) fn may_refuse(&self, error: &OpenError, began: Duration) -> bool {
        let was_foul = self.depot.cleared_at.get().is_some_and(|at| at >= began);
        if matches!(error, OpenError::Bucket(_)) && (self.is_foul() || was_foul) {
            weir_io::sometimes!("a start was refused because of the bucket's weather");
            self.depot.refused.set(true);
            self.clear_up();
            return true;
        }
        false
    }
}

/// The bucket's weather changes, and now and then somebody looks what is in it.
pub(crate) async fn weather(host: &Host, c: &mut ChaCha8Rng) {
    let sim = &host.sim;
    if !sim.options.bucket.there {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(Duration::from_millis(c.random_range(50..4000))).await;
        match c.random_range(0..3) {
            0 => drop(sim.check(beside(host).await)),
            _ if sim.is_foul() => {
                if sim.pass_weather() {
                    sim.note("the bucket is well again");
                }
            }
            _ => drop(sim.cloud_over(c)),
        }
    }
}

/// Nobody else writes in this bucket, so nobody must be told so.
fn alone(host: &Host) -> Result<(), Breach> {
    let fenced = host.door.metrics(|metrics| metrics.publish.fenced.get());
    match fenced {
        Some(1) => {
            let what = format!("the only writer was fenced: {:?}", host.door.health());
            Breach::of(checks::CHAIN, what)
        }
        _ => Ok(()),
    }
}
