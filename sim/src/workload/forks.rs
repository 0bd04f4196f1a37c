//! Those who fork: any stream at any point they know of, with every kind of wish, good and bad.

use rand::RngExt;
use weir_engine::{
    Health,
    request::Rejection,
    types::{Closing, ContentType, Epoch, Expiry, Form, Offset, Retention, Seq, WallMs},
};

use super::{Class, Client, Target, creation::Wish, verbs::Said};
use crate::{
    checks::{self, Breach},
    model::{Asked, Fate, Plan},
    payload,
};

/// Forks.
pub(super) async fn forker(mut client: Client) {
    while client.think().await {
        let target = client.any();
        if target.class == Class::Forked {
            client.fork(&target).await;
        }
    }
}

/// Where a fork is to begin to differ.
struct Point {
    at: Option<Offset>,
    sub_offset: u64,
    /// The first own position, if that says it.
    point: Option<u64>,
    cut: Option<usize>,
    good: Option<bool>,
}

impl Client {
    /// Creates a stream under a name that forks use, mostly as a fork. One request at a time.
    pub(super) async fn fork(&mut self, target: &Target) {
        let busy = |host: &crate::world::Host| {
            host.sim.model.borrow().names.get(&target.name).is_some_and(|it| it.plan.is_some())
        };
        if busy(&self.host) {
            return self.look_for(target).await;
        }
        let wish = if self.chance.random_bool(0.12) {
            Wish { expiry: self.window(), ..Wish::plain(target, Expiry::Never) }
        } else {
            self.wish(target)
        };
        let said = self.born(target, wish.clone(), 1).await;
        let plain = wish.closing == Closing::KeepOpen;
        if !plain || !matches!(said, Said::Yes(_)) || self.chance.random_bool(0.8) {
            return;
        }
        // The same again, by itself or twice at once: nothing changes.
        if busy(&self.host) || wish.asked.as_ref().is_some_and(|asked| asked.cut.is_some()) {
            return;
        }
        let again = Wish { body: None, ..wish };
        if self.chance.random_bool(0.5) {
            self.fork_twice(target, again).await;
        } else {
            self.again(target, again).await;
        }
    }

    /// A creation that nobody answered is over: whether it made anything is to be seen.
    async fn look_for(&self, target: &Target) {
        let host = &self.host;
        if !host.sim.model.borrow().is_doubtful(&target.name) {
            return;
        }
        let said = host.head(target).await;
        // Without writes an end by itself is not durable: what it ended may come back.
        let written = matches!(host.door.health(), Health::Serving | Health::DiskFull);
        let gone = matches!(said, Said::No(Rejection::NotFound | Rejection::Gone)) && written;
        let mut model = host.sim.model.borrow_mut();
        if (gone || matches!(said, Said::Yes(_))) && model.is_doubtful(&target.name) {
            weir_io::sometimes!("what nobody was told of a creation was seen later");
            model.planned(&target.name);
        }
    }

    async fn born(
        &self,
        target: &Target,
        wish: Wish,
        sends: u32,
    ) -> Said<weir_engine::request::Created> {
        let plan = Plan::new(wish.asked.clone(), sends);
        self.host.sim.model.borrow_mut().plan(&target.name, plan);
        let said = self.host.create(target, wish).await;
        if !matches!(said, Said::Unknown) {
            self.host.sim.model.borrow_mut().planned(&target.name);
        }
        said
    }

    /// Confirms what is there.
    async fn again(&mut self, target: &Target, wish: Wish) {
        let ticket = self.host.ticket(target);
        let retention = wish.retention;
        let said = self.born(target, self.renewed(wish), 1).await;
        let same = {
            let model = self.host.sim.model.borrow();
            let same = model.had_limits(&ticket, retention);
            let lives = model.names.get(&target.name).map(|named| &named.lives);
            let life = ticket.newest.and_then(|epoch| lives?.get(&epoch));
            same && life.is_some_and(|life| life.alive && life.closed.is_none())
        };
        let differs = matches!(said, Said::No(Rejection::ConfigurationDiffers));
        if ticket.is_alive() && same && differs && self.host.ticket(target).newest == ticket.newest
        {
            let open = self.host.head(target).await;
            if matches!(open, Said::Yes(head) if !head.closed) {
                let what = format!("'{}' is not what it was asked for", target.name);
                self.host.sim.check::<()>(Breach::of(checks::FORKED, what));
            }
        }
    }

    /// The same creation twice at once.
    async fn fork_twice(&mut self, target: &Target, wish: Wish) {
        let wish = self.renewed(wish);
        let plan = Plan::new(wish.asked.clone(), 2);
        self.host.sim.model.borrow_mut().plan(&target.name, plan);
        let (one, two) =
            tokio::join!(self.host.create(target, wish.clone()), self.host.create(target, wish));
        if !matches!(one, Said::Unknown) && !matches!(two, Said::Unknown) {
            self.host.sim.model.borrow_mut().planned(&target.name);
        }
    }

    /// A wish with what is known of its source now.
    fn renewed(&self, wish: Wish) -> Wish {
        let asked = wish.asked.map(|asked| {
            let source = self.targets.iter().find(|it| it.name == asked.source);
            let ticket = self.host.ticket(source.expect("sources are targets"));
            Asked { ticket, good: None, ..asked }
        });
        Wish { asked, ..wish }
    }

    fn window(&mut self) -> Option<Expiry> {
        let wall = self.host.wall_ms();
        match self.chance.random_range(0..10) {
            0..5 => None,
            5..8 => Some(Expiry::Never),
            8 => Some(Expiry::Sliding { ttl_seconds: self.chance.random_range(1..6) }),
            _ => Some(Expiry::At(WallMs::new(wall + self.chance.random_range(500..20_000)))),
        }
    }

    fn wish(&mut self, target: &Target) -> Wish {
        let source = loop {
            let source = self.any();
            if source.content.matches(&target.content) && source.name != target.name {
                break source;
            }
        };
        let ticket = self.host.ticket(&source);
        let Point { at, sub_offset, point, cut, mut good } = self.point(target, &source, &ticket);
        let mut content = self.chance.random_bool(0.5).then(|| target.content.clone());
        if self.chance.random_bool(0.03) {
            content = ContentType::parse("image/png");
            good = Some(false);
        }
        // Over HTTP nothing says that a fork is to have no window: it gets its source's.
        let mute = self.host.door.may_lose();
        let expiry = self.window().filter(|it| !mute || *it != Expiry::Never);
        let closes = self.chance.random_bool(0.08);
        let body = self.chance.random_bool(0.4).then(|| {
            let form = target.form();
            let count = if form == Form::Json { self.chance.random_range(1..4) } else { 1 };
            let mut model = self.host.sim.model.borrow_mut();
            let wall = self.host.sim.wall_ms();
            let id = model.request(&target.name, wall, |id| {
                (0..count).map(|index| payload::record(form, id, index, 20)).collect()
            });
            (id, payload::body(form, &model.requests[id].records).into())
        });
        let asked = Asked { source: source.name, ticket, at, sub_offset, point, cut, expiry, good };
        let closing = if closes { Closing::Close } else { Closing::KeepOpen };
        // Some names only: of a fork without limits more is known.
        let limited = target.has_limits() && self.chance.random_bool(0.5);
        let retention = if limited { self.limits() } else { Retention::NONE };
        Wish { content, expiry, retention, closing, body, asked: Some(asked) }
    }

    /// Somewhere in what is known of the source, or beyond it.
    fn point(&mut self, target: &Target, source: &Target, ticket: &crate::model::Ticket) -> Point {
        let mut point = Point { at: None, sub_offset: 0, point: None, cut: None, good: None };
        let known = {
            let model = self.host.sim.model.borrow();
            let newest = ticket.newest.filter(|_| ticket.is_alive());
            newest.and_then(|epoch| {
                let named = model.names.get(&source.name)?;
                let tail = named.lives.get(&epoch)?.tail;
                Some((epoch, tail, model.lineage(&source.name, epoch)?))
            })
        };
        let Some((epoch, tail, parts)) = known else { return point };
        point.good = Some(true);
        if self.chance.random_bool(0.25) {
            if self.chance.random_bool(0.05) {
                // The tail has nothing behind it that could be cut.
                (point.sub_offset, point.good) = (1, Some(false));
            }
            return point;
        }
        let beyond = self.chance.random_bool(0.05);
        let at = self.chance.random_range(0..=tail) + if beyond { 1_000_000 } else { 0 };
        let minted = parts.iter().rev().find(|(_, first)| *first <= at);
        let minted = minted.map_or(epoch, |(epoch, _)| *epoch);
        let offset = Offset { epoch: Epoch::new(minted), next: Seq::new(at) };
        let start = at == 0 && self.chance.random_bool(0.5);
        point.at = Some(if start { Offset::START } else { offset });
        point.point = Some(at);
        if beyond {
            point.good = Some(false);
        } else if self.chance.random_bool(0.3) {
            self.refine(target, source, (epoch, at, tail), &mut point);
        }
        if at < ticket.earliest() {
            point.good = Some(false);
        } else if self.host.sim.model.borrow().lets_go(&source.name, epoch) {
            // It may be gone by then.
            point.good = point.good.filter(|good| !good);
        }
        point
    }

    /// Adds a sub-offset.
    fn refine(
        &mut self,
        target: &Target,
        source: &Target,
        (epoch, at, tail): (u32, u64, u64),
        point: &mut Point,
    ) {
        if target.form() == Form::Json {
            point.sub_offset = self.chance.random_range(1..5);
            point.point = Some(at + point.sub_offset);
            if at + point.sub_offset > tail {
                point.good = None;
            }
            return;
        }
        let mut model = self.host.sim.model.borrow_mut();
        let Some((id, index)) = model.known(&source.name, epoch, at) else { return };
        let original = model.requests[id].clone();
        let record = &original.records[index];
        let bytes = self.chance.random_range(1..=record.len() + 1);
        point.sub_offset = u64::try_from(bytes).expect("small");
        match bytes {
            _ if bytes > record.len() => point.good = Some(false),
            _ if bytes == record.len() => point.point = Some(at + 1),
            _ => {
                let part = record[..bytes].to_vec();
                let id = model.request(&target.name, 0, |_| vec![part]);
                let cut = &mut model.requests[id];
                (cut.key, cut.wall, cut.hint) = (original.key, original.wall, original.hint);
                (cut.is_cut, cut.fate) = (true, Fate::Maybe);
                point.cut = Some(id);
            }
        }
    }
}
