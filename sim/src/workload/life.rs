//! Those who make streams, end them, and ask which there are.

use rand::RngExt;
use weir_engine::{
    request::{From, List, Rejection},
    types::{Closing, Expiry, Offset, Seq, WallMs},
};

use super::{Class, Client, Target, creation::Wish, verbs::Said};
use crate::{
    checks::{self, Breach},
    model::{Doubt, Ticket},
    payload, verify,
    world::Host,
};

/// Records that no stream has.
const BEYOND: u64 = 1_000_000;

/// Creates whatever may be missing.
pub(super) async fn creator(mut client: Client) {
    let all = client.targets.clone();
    for target in all.iter() {
        client.create(target).await;
    }
    while client.think().await {
        let target = client.any();
        // Limits of forks change over HTTP.
        let away = client.host.door.may_lose();
        let changes =
            if target.class == Class::Trimmed || away { target.has_limits() } else { false };
        if changes && client.chance.random_bool(0.7) {
            client.retain(&target).await;
        } else {
            client.create(&target).await;
        }
    }
}

/// Deletes churning streams, and others that may end.
pub(super) async fn deleter(mut client: Client) {
    while client.think().await {
        let ending = [Class::Churning, Class::Sliding, Class::Dated, Class::Forked];
        let target = client.any_of(&ending);
        let spared = match target.class {
            Class::Churning => 0.0,
            Class::Forked => 0.5,
            _ => 0.8,
        };
        if client.chance.random_bool(spared) {
            continue;
        }
        let mut expected = None;
        if client.host.sim.options.bound_deletions && client.chance.random_bool(0.5) {
            expected = client.tail(&target).await;
            if expected.is_none() {
                continue;
            }
        }
        client.host.delete_at(&target, expected).await;
        if client.chance.random_bool(0.5) {
            client.create(&target).await;
        }
    }
}

/// Lists streams.
pub(super) async fn lister(mut client: Client) {
    while client.think().await {
        client.host.list().await;
    }
}

impl Client {
    /// Where a stream ends, three of ten times far beyond. `None`: that is not to be had.
    async fn tail(&mut self, target: &Target) -> Option<Offset> {
        let wrong = self.chance.random_bool(0.3);
        let (_, said) = self.host.page(target, From::Now, None, 100).await;
        let Said::Yes((page, _)) = said else { return None };
        let next = page.tail.next.get() + if wrong { BEYOND } else { 0 };
        Some(Offset { next: Seq::new(next), ..page.tail })
    }

    async fn create(&mut self, target: &Target) {
        if target.class == Class::Forked {
            return self.fork(target).await;
        }
        let closing = if target.class == Class::Churning && self.chance.random_bool(0.1) {
            Closing::Close
        } else {
            Closing::KeepOpen
        };
        let expiry = self.expiry(target);
        let body = self.chance.random_bool(0.4).then(|| {
            let form = target.form();
            let mut model = self.host.sim.model.borrow_mut();
            let wall = self.host.sim.wall_ms();
            let id = model.request(&target.name, wall, |id| vec![payload::record(form, id, 0, 20)]);
            let body = payload::body(form, &model.requests[id].records);
            (id, body.into())
        });
        self.host.create(target, Wish { closing, body, ..Wish::plain(target, expiry) }).await;
    }

    fn expiry(&mut self, target: &Target) -> Expiry {
        if target.class != Class::Dated {
            return target.expiry();
        }
        let wall = self.host.wall_ms();
        let later = wall + self.chance.random_range(500..20_000);
        let mut model = self.host.sim.model.borrow_mut();
        let dated = &mut model.names.entry(target.name.clone()).or_default().dated;
        let at = dated.filter(|at| *at > wall).unwrap_or(later);
        *dated = Some(at);
        Expiry::At(WallMs::new(at))
    }
}

impl Host {
    /// Deletes a stream.
    pub async fn delete(&self, target: &Target) {
        self.delete_at(target, None).await;
    }

    /// Deletes a stream if it ends where it is expected to.
    async fn delete_at(&self, target: &Target, expected: Option<Offset>) {
        let ticket = self.ticket(target);
        self.sim.model.borrow_mut().deletion_begins(&target.name);
        let bound = expected.map(|at| format!(" at {}_{}", at.epoch, at.next)).unwrap_or_default();
        self.sim.note(&format!("delete {}{bound}", target.name));
        let answer = self.door.delete(&target.name, expected).await;
        let said = self.sort(&ticket, &format!("delete {}", target.name), answer);
        let mut model = self.sim.model.borrow_mut();
        match said {
            Said::Yes(()) => {
                let checked = match expected {
                    Some(tail) if tail.next.get() >= BEYOND => {
                        Breach::of(checks::TRACE, format!("a deletion at {tail:?} is done"))
                    }
                    Some(tail) => model.saw_tail(&ticket, tail),
                    None => Ok(()),
                };
                self.sim.check(checked);
                model.deletion_ends(&ticket, true);
                drop(model);
                self.sim.note(&format!("delete {}: done", target.name));
            }
            Said::No(Rejection::ExpectedOffset { tail }) => {
                weir_io::sometimes!("a deletion met another tail than it was bound to");
                let checked = match expected {
                    Some(expected) if expected != tail => model.saw_tail(&ticket, tail),
                    _ => Breach::of(checks::TRACE, format!("a deletion at {tail:?} met that tail")),
                };
                self.sim.check(checked);
                model.deletion_ends(&ticket, false);
            }
            Said::No(_) | Said::Nothing => model.deletion_ends(&ticket, false),
            // Open until it is known to be over.
            Said::Unknown => self.sim.doubt(Doubt::Deletion(target.name.clone())),
        }
    }

    /// Lists everything and compares.
    pub async fn list(&self) {
        let tickets = self.tickets();
        let Some(any) = tickets.first().cloned() else { return };
        let answer = self.door.list(List { limit: 1000, ..List::default() }).await;
        if let Said::Yes(rows) = self.sort(&any, "list", answer) {
            self.sim.note(&format!("list: {} streams", rows.len()));
            let now_ms = self.sim.now_ms();
            let checked = verify::list(&mut self.sim.model.borrow_mut(), &tickets, &rows, now_ms);
            self.sim.check(checked);
        }
    }

    /// One ticket per name that is known or may be used.
    fn tickets(&self) -> Vec<Ticket> {
        let now_ms = self.sim.now_ms();
        let mut model = self.sim.model.borrow_mut();
        let mut names: Vec<_> = model.names.keys().cloned().collect();
        names.extend(super::targets().into_iter().map(|target| target.name));
        names.sort();
        names.dedup();
        names.iter().map(|name| model.ticket(name, now_ms)).collect()
    }
}
