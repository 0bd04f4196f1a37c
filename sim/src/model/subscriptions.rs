//! What is known of subscriptions: which there are, what each must show as work, how far workers
//! have said that they are, and who may be at work.
//!
//! Requests are numbered in the order in which they begin. So a record whose request has a number
//! from [`Life::since`] on was sent after the subscription was known to be there: it is work until
//! somebody acks it, whatever happens in between.

use std::collections::{BTreeMap, BTreeSet};

use weir_engine::{
    subscribe::{Link, Links, Pattern, SubscriptionId, Wake},
    types::{Expiry, Offset, StreamName},
};

use super::{Checked, Fate, Model, Ticket};
use crate::{
    checks::{self, Breach},
    require,
};

/// One life of a subscription.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Records of requests from this number on are its work.
    pub since: usize,
    /// Its number, once a wake told it.
    incarnation: Option<u64>,
    /// Streams linked by name, and since which request.
    named: BTreeMap<StreamName, usize>,
    /// The highest generation seen.
    generation: u64,
    /// Generations that a worker has claimed.
    claimed: BTreeSet<u64>,
    /// Acks that were answered.
    acked: BTreeMap<StreamName, Offset>,
    /// Acks that were sent by somebody who may have been heard.
    sent: BTreeMap<StreamName, Offset>,
    hold: Option<Hold>,
    /// Generations of which somebody may have said that they are over.
    ended: BTreeSet<u64>,
}

/// Who is at work for certain.
#[derive(Clone, Copy, Debug)]
struct Hold {
    generation: u64,
    /// The lease does not end before.
    until_ms: u64,
}

/// What is known under an id.
#[derive(Clone, Debug, Default)]
pub struct Subscription {
    pub life: Option<Life>,
    /// A request that changes what is there is on its way, or its outcome is not known.
    pub busy: bool,
    /// That request can have no effect any more, but its outcome is not known.
    pub(super) over: bool,
    changes: u64,
    pattern: Option<Pattern>,
    lease_ms: u64,
}

/// What was known when a request began.
#[derive(Clone, Debug)]
pub struct Work {
    pub id: SubscriptionId,
    pub began_ms: u64,
    changes: u64,
    calm: bool,
    generation: u64,
    incarnation: Option<u64>,
    /// Acks that were answered by then: an answer may be older than others that came before it.
    acked: BTreeMap<StreamName, Offset>,
    needs: Vec<Need>,
    streams: Vec<Ticket>,
}

/// A record that must be shown as work.
#[derive(Clone, Debug)]
struct Need {
    stream: StreamName,
    epoch: u32,
    position: u64,
    deletions: u64,
}

impl Model {
    /// Everything that is known under an id; `pattern` and lease are those it is made with.
    pub fn subscription(
        &mut self,
        id: &SubscriptionId,
        pattern: Option<&Pattern>,
        lease_ms: u64,
    ) -> &mut Subscription {
        self.subscriptions.entry(id.clone()).or_insert_with(|| Subscription {
            pattern: pattern.cloned(),
            lease_ms,
            ..Subscription::default()
        })
    }

    /// Whether anything is known under an id, and if so whether it is about to change.
    #[must_use]
    pub fn knows(&self, id: &SubscriptionId) -> Option<bool> {
        self.subscriptions.get(id).map(|known| known.busy)
    }

    /// Whether a subscription is known to be there.
    #[must_use]
    pub fn has(&self, id: &SubscriptionId) -> bool {
        self.subscriptions.get(id).is_some_and(|known| !known.busy && known.life.is_some())
    }

    /// Begins a request to a subscription that is known by [`Model::subscription`].
    pub fn asks(&mut self, id: &SubscriptionId, now_ms: u64) -> Work {
        let known = &self.subscriptions[id];
        let names: Vec<_> =
            self.names.keys().filter(|name| known.concerns(name)).cloned().collect();
        let streams: Vec<_> = names.iter().map(|name| self.ticket(name, now_ms)).collect();
        let known = &self.subscriptions[id];
        let needs = match &known.life {
            Some(life) if !known.busy => {
                names.iter().filter_map(|name| self.need(known, life, name)).collect()
            }
            _ => Vec::new(),
        };
        Work {
            id: id.clone(),
            began_ms: now_ms,
            changes: known.changes,
            calm: !known.busy,
            generation: known.life.as_ref().map_or(0, |life| life.generation),
            incarnation: known.life.as_ref().and_then(|life| life.incarnation),
            acked: known.life.as_ref().map(|life| life.acked.clone()).unwrap_or_default(),
            needs,
            streams,
        }
    }

    /// The last record of a stream that is work.
    fn need(&self, known: &Subscription, life: &Life, name: &StreamName) -> Option<Need> {
        let since = known.since(life, name)?;
        let named = self.names.get(name)?;
        let (epoch, of) = named.lives.last_key_value()?;
        if !of.alive || of.expiry != Some(Expiry::Never) {
            return None;
        }
        let position = of.records.iter().rposition(|mark| {
            let work = |(id, _): (usize, usize)| id >= since && !self.requests[id].is_cut;
            mark.is_some_and(work)
        })?;
        let position = u64::try_from(position).expect("small");
        Some(Need { stream: name.clone(), epoch: *epoch, position, deletions: named.deletions })
    }

    /// Whether what an answer says can be held against what was known when it was asked for.
    fn is_calm(&self, asked: &Work) -> bool {
        let known = &self.subscriptions[&asked.id];
        asked.calm && known.changes == asked.changes
    }

    /// A request that changes what is under an id begins.
    pub fn changes(&mut self, id: &SubscriptionId) {
        let known = self.subscriptions.get_mut(id).expect("known by then");
        (known.busy, known.over, known.changes) = (true, false, known.changes + 1);
    }

    /// That request was answered for certain, or a restart has told what is there.
    pub fn changed(&mut self, id: &SubscriptionId, there: Option<bool>) {
        let since = self.requests.len();
        let known = self.subscriptions.get_mut(id).expect("known by then");
        (known.busy, known.over, known.changes) = (false, false, known.changes + 1);
        match there {
            Some(true) if known.life.is_none() => {
                known.life = Some(Life { since, ..Life::default() });
            }
            Some(false) => known.life = None,
            Some(true) | None => {}
        }
    }

    /// Links streams by name from here on, or (`linked` false) may no longer.
    pub fn names_stream(&mut self, id: &SubscriptionId, stream: &StreamName, linked: bool) {
        let since = self.requests.len();
        let known = self.subscriptions.get_mut(id).expect("known by then");
        let Some(life) = &mut known.life else { return };
        if linked {
            life.named.entry(stream.clone()).or_insert(since);
        } else {
            life.named.remove(stream);
        }
    }

    /// An answer said whether there is such a subscription.
    ///
    /// # Errors
    /// Nobody made it, or nobody deleted it.
    pub fn saw_subscription(&self, asked: &Work, there: bool) -> Checked {
        if !self.is_calm(asked) {
            return Ok(());
        }
        let known = self.subscriptions[&asked.id].life.is_some();
        require!(known || !there, checks::STALE, "subscription '{}' was deleted", asked.id);
        require!(there || !known, checks::ACKED, "subscription '{}' is gone", asked.id);
        Ok(())
    }

    /// An answer showed links; everything that has work is among them.
    ///
    /// # Errors
    /// A cursor went back, skips what nobody acked, or work is missing.
    pub fn saw_links(&mut self, asked: &Work, links: &Links) -> Checked {
        if !self.is_calm(asked) {
            return Ok(());
        }
        let id = &asked.id;
        for link in &links.listed {
            if link.tail.next.get() > 0
                && let Some(ticket) = asked.streams.iter().find(|it| it.name == link.path)
                && !self.is_lapsed(link)
            {
                self.saw_tail(ticket, link.tail)?;
            }
            self.saw_cursor(asked, link)?;
        }
        let pending = links.listed.iter().filter(|link| link.has_pending()).count();
        let told = usize::try_from(links.pending).unwrap_or(usize::MAX);
        require!(pending == told, checks::WOKEN, "'{id}' counts {told} streams, lists {pending}");
        self.check_needs(asked, links)
    }

    /// Whether the window of a linked stream's life is known to have passed: nobody reads it any
    /// more, and it is work until its end can be written down.
    fn is_lapsed(&self, link: &Link) -> bool {
        let named = self.names.get(&link.path);
        named.and_then(|it| it.lives.get(&link.tail.epoch.get())).is_some_and(|life| life.lapsed)
    }

    /// Nothing is pending, an answer said.
    ///
    /// # Errors
    /// Something is.
    pub fn saw_no_work(&self, asked: &Work) -> Checked {
        if !self.is_calm(asked) {
            return Ok(());
        }
        self.check_needs(asked, &Links::default())
    }

    fn check_needs(&self, asked: &Work, links: &Links) -> Checked {
        let known = &self.subscriptions[&asked.id];
        let Some(life) = &known.life else { return Ok(()) };
        for need in &asked.needs {
            let Need { stream, epoch, position, deletions } = need;
            let done = life
                .sent
                .get(stream)
                .is_some_and(|sent| (sent.epoch.get(), sent.next.get()) > (*epoch, *position));
            let there = self.names.get(stream).is_some_and(|named| {
                named.deletions == *deletions
                    && named
                        .lives
                        .last_key_value()
                        .is_some_and(|(it, life)| it == epoch && life.alive)
            });
            if done || !there || known.since(life, stream).is_none() {
                continue;
            }
            let shown = links.listed.iter().any(|link| {
                let ahead = (link.tail.epoch.get(), link.tail.next.get()) > (*epoch, *position);
                link.path == *stream && link.has_pending() && ahead
            });
            require!(
                shown,
                checks::WOKEN,
                "'{}' shows no work in '{stream}', nobody acked {epoch}_{position}: {links:?}",
                asked.id
            );
        }
        Ok(())
    }

    fn saw_cursor(&self, asked: &Work, link: &Link) -> Checked {
        let id = &asked.id;
        let known = &self.subscriptions[id];
        let Some(life) = &known.life else { return Ok(()) };
        let Link { path, acked, tail, .. } = link;
        require!(acked <= tail, checks::CURSOR, "'{id}' has acked {path} {acked:?} of {tail:?}");
        if let Some(before) = asked.acked.get(path)
            && before.epoch == tail.epoch
            && tail.next.get() > 0
        {
            require!(
                acked >= before,
                checks::CURSOR,
                "'{id}' has acked {path} up to {acked:?}, it was at {before:?}"
            );
        }
        let Some(since) = known.since(life, path) else { return Ok(()) };
        let epoch = tail.epoch.get();
        let of = self.names.get(path).and_then(|named| named.lives.get(&epoch));
        let Some(of) = of.filter(|_| acked.epoch == tail.epoch) else { return Ok(()) };
        let sent = life.sent.get(path).filter(|sent| sent.epoch == tail.epoch);
        let from = sent.map_or(0, |sent| sent.next.get());
        let skipped = (from..acked.next.get()).find(|at| {
            let mark = usize::try_from(*at).ok().and_then(|at| *of.records.get(at)?);
            mark.is_some_and(|(request, _)| {
                request >= since && self.requests[request].fate == Fate::Acked
            })
        });
        require!(
            skipped.is_none(),
            checks::CURSOR,
            "'{id}' has acked {path} up to {acked:?}, nobody sent more than {sent:?}: {skipped:?}"
        );
        Ok(())
    }

    /// A wake was handed out.
    ///
    /// # Errors
    /// Its generation was used before, or what it lists is wrong.
    pub fn saw_wake(&mut self, asked: &Work, wake: &Wake) -> Checked {
        self.saw_links(asked, &wake.links)?;
        if !self.is_calm(asked) {
            return Ok(());
        }
        let id = &asked.id;
        let known = self.subscriptions.get_mut(id).expect("asked");
        let Some(life) = &mut known.life else {
            return Breach::of(checks::STALE, format!("'{id}' was deleted, and wakes"));
        };
        let incarnation = *life.incarnation.get_or_insert(wake.incarnation);
        require!(
            incarnation == wake.incarnation,
            checks::STALE,
            "'{id}' is number {incarnation}, its wake says {}",
            wake.incarnation
        );
        require!(
            wake.generation >= asked.generation,
            checks::FENCED,
            "'{id}' had generation {}, its wake is {}",
            asked.generation,
            wake.generation
        );
        life.generation = life.generation.max(wake.generation);
        Ok(())
    }

    /// A worker has claimed a wake.
    ///
    /// # Errors
    /// Somebody else has, or holds another.
    pub fn saw_claim(&mut self, asked: &Work, wake: &Wake, now_ms: u64) -> Checked {
        self.saw_wake(asked, wake)?;
        if !self.is_calm(asked) {
            return Ok(());
        }
        let (id, generation) = (&asked.id, wake.generation);
        let known = self.subscriptions.get_mut(id).expect("asked");
        let Some(life) = &mut known.life else { return Ok(()) };
        require!(
            life.claimed.insert(generation),
            checks::HOLDER,
            "'{id}' gave generation {generation} to two workers"
        );
        if generation < life.generation {
            weir_io::sometimes!("a worker heard of its claim when it was over");
            return Ok(());
        }
        let until_ms = asked.began_ms + known.lease_ms;
        if let Some(hold) = life.hold.replace(Hold { generation, until_ms }) {
            let ended = life.ended.contains(&hold.generation);
            require!(
                ended || hold.until_ms <= now_ms + 2 || hold.generation == generation,
                checks::HOLDER,
                "'{id}' gave {generation} away at {now_ms} ms, {hold:?} is at work"
            );
        }
        Ok(())
    }

    /// Whether somebody with this wake is known to be over.
    #[must_use]
    pub fn is_fenced(&self, asked: &Work, wake: &Wake) -> bool {
        let other = asked.incarnation.is_some_and(|it| it != wake.incarnation);
        asked.calm && (other || (asked.incarnation.is_some() && asked.generation > wake.generation))
    }

    /// A worker sends acks (and, `done`, the end of its work).
    pub fn acks(&mut self, asked: &Work, wake: &Wake, acks: &[(StreamName, Offset)], done: bool) {
        if self.is_fenced(asked, wake) {
            return;
        }
        let known = self.subscriptions.get_mut(&asked.id).expect("asked");
        let Some(life) = &mut known.life else { return };
        for (stream, offset) in acks {
            let sent = life.sent.entry(stream.clone()).or_insert(*offset);
            *sent = (*sent).max(*offset);
        }
        // Whether that generation is known to be held may be seen only later.
        if done && life.incarnation.is_none_or(|it| it == wake.incarnation) {
            life.ended.insert(wake.generation);
        }
    }

    /// Acks were taken.
    ///
    /// # Errors
    /// The worker was over.
    pub fn acked(
        &mut self,
        asked: &Work,
        wake: &Wake,
        acks: &[(StreamName, Offset)],
        done: bool,
    ) -> Checked {
        require!(
            !self.is_fenced(asked, wake) || !self.is_calm(asked),
            checks::FENCED,
            "'{}' heard generation {}, it was at {}",
            asked.id,
            wake.generation,
            asked.generation
        );
        if !self.is_calm(asked) {
            return Ok(());
        }
        let known = self.subscriptions.get_mut(&asked.id).expect("asked");
        let Some(life) = &mut known.life else { return Ok(()) };
        for (stream, offset) in acks {
            let acked = life.acked.entry(stream.clone()).or_insert(*offset);
            *acked = (*acked).max(*offset);
        }
        // What is heard is of this life.
        life.incarnation = Some(wake.incarnation);
        if wake.generation < life.generation {
            // An answer that took long: somebody else is known to have been woken since.
            return Ok(());
        }
        let until_ms = asked.began_ms + known.lease_ms;
        match life.hold.as_mut().filter(|hold| hold.generation == wake.generation) {
            Some(hold) => hold.until_ms = hold.until_ms.max(until_ms),
            None if done => {}
            None => life.hold = Some(Hold { generation: wake.generation, until_ms }),
        }
        Ok(())
    }

    /// A worker was told that its wake is over.
    ///
    /// # Errors
    /// Its lease had not passed.
    pub fn fenced(&self, asked: &Work, wake: &Wake, now_ms: u64) -> Checked {
        if !self.is_calm(asked) {
            return Ok(());
        }
        let life = self.subscriptions[&asked.id].life.as_ref();
        let own = life.filter(|life| life.incarnation == Some(wake.incarnation));
        let Some((life, hold)) = own.and_then(|life| Some((life, life.hold?))) else {
            return Ok(());
        };
        let ended = life.ended.contains(&hold.generation);
        require!(
            hold.generation != wake.generation || ended || hold.until_ms <= now_ms + 2,
            checks::HOLDER,
            "'{}' fenced generation {} at {now_ms} ms, {hold:?}",
            asked.id,
            wake.generation
        );
        Ok(())
    }
}

impl Life {
    /// How far somebody who may have been heard has acked a stream.
    pub(super) fn sent(&self, stream: &StreamName) -> Option<Offset> {
        self.sent.get(stream).copied()
    }
}

impl Subscription {
    /// From which request on a stream's records are work.
    pub(super) fn since(&self, life: &Life, name: &StreamName) -> Option<usize> {
        let matches = self.pattern.as_ref().is_some_and(|it| it.matches(name.as_str()));
        let named = life.named.get(name).copied();
        if matches { Some(life.since) } else { named }
    }

    fn concerns(&self, name: &StreamName) -> bool {
        let matches = self.pattern.as_ref().is_some_and(|it| it.matches(name.as_str()));
        matches || self.life.as_ref().is_some_and(|life| life.named.contains_key(name))
    }
}
