//! Readers of what is there: scans page by page, reads by key, reads since a time.

use bytes::Bytes;
use rand::RngExt;
use weir_engine::{
    request::{From, Rejection},
    types::{Epoch, Offset, Seq, WallMs},
};

use super::{Client, Target, verbs::Said};
use crate::{
    checks::{self, Breach},
    model::Ticket,
    verify,
};

/// Pages of one scan.
const PAGES_MAX: u32 = 60;

/// Scans, from the start, from the middle, from offsets of earlier lives.
pub(super) async fn scanner(mut client: Client) {
    while client.think().await {
        let target = client.any();
        if client.chance.random_bool(0.2) {
            client.host.head(&target).await;
            if client.host.door.may_lose() {
                client.look_at_limits(&target).await;
            }
        }
        let from = match client.chance.random_range(0..5) {
            0 => From::Now,
            1 => client.somewhere(&target),
            _ => From::Start,
        };
        client.scan(&target, from, None).await;
    }
}

/// Reads by key.
pub(super) async fn keyed(mut client: Client) {
    while client.think().await {
        let target = client.any();
        let key = client.key().unwrap_or(Bytes::from_static(b"k0"));
        let scan_first = client.chance.random_bool(0.5);
        if scan_first {
            client.scan(&target, From::Start, None).await;
        }
        client.scan(&target, From::Start, Some(key)).await;
    }
}

/// Reads since a time.
pub(super) async fn since(mut client: Client) {
    while client.think().await {
        let target = client.any();
        client.host.head(&target).await;
        let back = client.chance.random_range(0..30_000);
        let since = client.host.sim.wall_ms().saturating_sub(back) + 2_000;
        let known = client
            .host
            .sim
            .model
            .borrow()
            .names
            .get(&target.name)
            .map_or(0, |named| named.lives.last_key_value().map_or(0, |(_, life)| life.tail));
        let (ticket, said) =
            client.host.page(&target, From::Since(WallMs::new(since)), None, 2000).await;
        if let Said::Yes((page, _)) = said {
            let same = ticket.newest == Some(page.tail.epoch.get());
            let model = client.host.sim.model.borrow();
            let checked =
                verify::since(&model, &ticket, since, &page, if same { known } else { 0 });
            drop(model);
            client.host.sim.check(checked);
        }
    }
}

impl Client {
    /// Some offset: of this life, of an earlier one, beyond the end.
    fn somewhere(&mut self, target: &Target) -> From {
        let model = self.host.sim.model.borrow();
        let lives = model.names.get(&target.name).map(|named| named.lives.clone());
        drop(model);
        let lives = lives.unwrap_or_default();
        let index = self.chance.random_range(0..lives.len().max(1));
        let (epoch, tail) =
            lives.iter().nth(index).map_or((0, 0), |(epoch, life)| (*epoch, life.tail));
        let next = self.chance.random_range(0..tail + 3);
        let parts = self.host.sim.model.borrow().lineage(&target.name, epoch).unwrap_or_default();
        let minted = parts.iter().rev().find(|(_, first)| *first <= next);
        let epoch = match minted {
            Some((minted, _)) if self.chance.random_bool(0.7) => *minted,
            _ => epoch,
        };
        From::At(Offset { epoch: Epoch::new(epoch), next: Seq::new(next) })
    }

    /// Whether an offset is a position of the life that the ticket was taken for.
    fn must_mean(&self, ticket: &Ticket, offset: Offset) -> bool {
        let model = self.host.sim.model.borrow();
        let now = model.names.get(&ticket.name).and_then(|named| named.lives.last_key_value());
        let Some((epoch, life)) = now.filter(|(epoch, life)| {
            ticket.is_alive() && life.alive && ticket.newest == Some(**epoch)
        }) else {
            return false;
        };
        let parts = model.lineage(&ticket.name, *epoch);
        parts.is_some_and(|parts| verify::means(&parts, offset, life.tail))
    }

    /// Reads to the tail, in pages of drawn sizes.
    pub(super) async fn scan(&mut self, target: &Target, from: From, key: Option<Bytes>) {
        let mut from = from;
        let most = if self.chance.random_bool(0.3) { 200 } else { 100_000 };
        for _ in 0..PAGES_MAX {
            let bytes_max = self.chance.random_range(1..most);
            let (ticket, said) = self.host.page(target, from, key.clone(), bytes_max).await;
            match said {
                Said::Yes((page, _)) => {
                    if page.up_to_date || page.beyond_tail || self.host.stop.get() {
                        return;
                    }
                    from = From::At(page.next);
                }
                Said::No(Rejection::OffsetLost { next }) => {
                    if let From::At(offset) = from
                        && self.must_mean(&ticket, offset)
                    {
                        let what =
                            format!("{offset:?} of '{}' is lost, go on at {next:?}", target.name);
                        self.host.sim.check::<()>(Breach::of(checks::SAME, what));
                    }
                    return;
                }
                // From another machine somebody who was overtaken goes on where there is something.
                Said::No(Rejection::OffsetTrimmed { next }) if self.host.door.may_lose() => {
                    from = From::At(next);
                }
                Said::No(_) | Said::Nothing | Said::Unknown => return,
            }
        }
    }
}
