//! Limits of what streams keep: set when they are made, changed at any time.

use std::num::NonZeroU64;

use rand::RngExt;
use weir_engine::types::Retention;

use super::{Client, Target, verbs::Said};
use crate::{
    checks::{self, Breach},
    door::Door,
    world::Host,
};

/// Limits of a moment and of a few records, so that streams are trimmed often.
#[must_use]
pub fn limits(max_age_ms: u64, max_bytes: u64) -> Retention {
    Retention { max_age_ms: NonZeroU64::new(max_age_ms), max_bytes: NonZeroU64::new(max_bytes) }
}

/// What a stream of this number is made with.
#[must_use]
pub fn of(number: u64) -> Retention {
    match number {
        0 => limits(0, 300),
        1 => limits(2_000, 0),
        2 => limits(5_000, 2_000),
        _ => Retention::NONE,
    }
}

impl Client {
    /// Any limits.
    pub(super) fn limits(&mut self) -> Retention {
        let age_ms = [0, 0, 1_000, 10_000][self.chance.random_range(0..4)];
        let bytes = [0, 1, 200, 1_000, 30_000][self.chance.random_range(0..5)];
        limits(age_ms, bytes)
    }

    /// Gives a stream other limits.
    pub(super) async fn retain(&mut self, target: &Target) {
        let retention = self.limits();
        self.host.retain(target, retention).await;
    }
}

impl Host {
    async fn retain(&self, target: &Target, retention: Retention) {
        let Door::Inside(engine) = &self.door else { return };
        let ticket = self.ticket(target);
        self.sim.model.borrow_mut().limits_asked(&target.name, retention);
        let note = format!("retain {} {retention:?}", target.name);
        self.sim.note(&note);
        let answer = engine.retain(&target.name, retention).await;
        if let Said::Yes(head) = self.sort(&ticket, &note, answer) {
            self.sim.check(self.saw_head(&ticket, &head));
        }
    }

    /// What streams with limits show at peace, long after the last write, is within them.
    ///
    /// # Errors
    /// It is not.
    pub async fn are_trimmed(&self, late_ms: u64) -> Result<(), Breach> {
        for target in super::targets() {
            let known = self.sim.model.borrow().names.get(&target.name).map(|it| it.limits.len());
            if known.is_none_or(|limits| limits == 0) {
                continue;
            }
            if let Said::Yes(head) = self.head(&target).await {
                let at = (self.sim.wall_ms(), late_ms);
                let model = self.sim.model.borrow();
                let life = (&target.name, head.next.epoch.get());
                model.is_trimmed(life, head.retention, head.earliest.next.get(), at)?;
            }
        }
        Ok(())
    }

    /// No segment holds for longer than it may what nobody may read any more.
    ///
    /// # Errors
    /// One does.
    pub fn are_erased(&self, late_ms: u64) -> Result<(), Breach> {
        let path = self.sim.options.database();
        let conn = self.world().sqlite.open(&path, weir_io::sqlite::Role::Reader);
        let first = conn.and_then(|conn| {
            conn.query_one("SELECT min(since) FROM deaths", [], |row| row.get::<_, Option<i64>>(0))
        });
        let within = u64::try_from(self.sim.options.erase_within.as_millis()).expect("short");
        match first {
            Ok(Some(since)) => {
                let since = u64::try_from(since).expect("after 1970");
                if since + within + late_ms < self.sim.wall_ms() {
                    let what = format!("what died at {since} is there at {}", self.sim.wall_ms());
                    return Breach::of(checks::ERASED, what);
                }
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                Breach::of(checks::SERVES, format!("the catalogue can't be read: {error}"))
            }
        }
    }
}
