//! Limits of what streams keep: set when they are made, changed at any time.

use std::num::NonZeroU64;

use rand::RngExt;
use weir_engine::types::Retention;

use super::{Class, Client, Target, verbs::Said};
use crate::{
    checks::{self, Breach},
    door::{Door, Kept},
    model::{Doubt, Ticket},
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

    /// Gives a stream other limits. A client on another machine looks at what came of it.
    pub(super) async fn retain(&mut self, target: &Target) {
        let retention = self.limits();
        self.host.retain(target, retention).await;
        if self.host.door.may_lose() && self.chance.random_bool(0.5) {
            self.look_at_limits(target).await;
        }
    }

    /// Asks what a stream keeps, in one of the ways in which it can be asked.
    pub(super) async fn look_at_limits(&mut self, target: &Target) {
        let details = self.chance.random_bool(0.5);
        self.host.kept(target, details).await;
    }
}

impl Target {
    /// Whether it has limits some time.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        match self.class {
            Class::Trimmed => true,
            Class::Forked => self.number.is_multiple_of(4),
            _ => false,
        }
    }
}

impl Host {
    async fn retain(&self, target: &Target, retention: Retention) {
        let sim = &self.sim;
        let ticket = self.ticket(target);
        sim.model.borrow_mut().change_begins(&target.name, retention);
        let note = format!("retain {} {retention:?}", target.name);
        sim.note(&note);
        let answer = self.door.retain(&target.name, retention).await;
        let said = self.sort(&ticket, &note, answer);
        let done = match &said {
            Said::Yes(kept) => Some(kept.retention),
            Said::No(_) | Said::Nothing => None,
            // Open until it is known to be over.
            Said::Unknown => return sim.doubt(Doubt::Limits(target.name.clone())),
        };
        let ended = sim.model.borrow_mut().change_ends(&ticket, retention, done);
        sim.check(ended);
        if let Said::Yes(kept) = said {
            sim.check(self.saw_kept(&ticket, &kept));
        }
    }

    /// Asks what a stream keeps. From within it is told with everything else.
    async fn kept(&self, target: &Target, details: bool) {
        let Door::Outside(client) = &self.door else { return };
        let ticket = self.ticket(target);
        let answer = match details {
            true => client.details(&target.name).await,
            false => client.kept(&target.name).await,
        };
        let note = format!("kept {}", target.name);
        if let Said::Yes(kept) = self.sort(&ticket, &note, answer) {
            self.sim.note(&format!("{note}: {:?} from {:?}", kept.retention, kept.earliest));
            self.sim.check(self.saw_kept(&ticket, &kept));
        }
    }

    fn saw_kept(&self, ticket: &Ticket, kept: &Kept) -> Result<(), Breach> {
        let earliest = kept.earliest;
        match &kept.head {
            Some(head) if self.door.may_lose() => {
                self.saw_state(ticket, head, None, Some(earliest))
            }
            Some(head) => self.saw_head(ticket, head),
            None => {
                let mut model = self.sim.model.borrow_mut();
                model.saw_kept(ticket, kept.retention, earliest.next.get())
            }
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
