//! Readers of server-sent events: every record once and in order, over reconnects, recycled
//! connections and restarts. Without a network there are none.

use std::time::Duration;

use rand::RngExt;
use weir_engine::{
    request::{Error, From, Page, Rejection},
    types::{Epoch, Form, Offset, Retention},
};

use super::{Client, Target};
use crate::{
    checks::{self, Breach},
    door::{
        Door,
        events::{Batch, Over},
    },
    model::Ticket,
    require,
    verify::TAIL_UNTOLD,
    world::Host,
};

/// Follows one stream after the other.
pub(super) async fn follower(mut client: Client) {
    while client.think().await {
        let target = client.any();
        // What is sent over events changes line breaks: only JSON and bytes come back as sent.
        if target.form() != Form::Text {
            client.follow(&target).await;
        }
    }
}

impl Client {
    async fn follow(&mut self, target: &Target) {
        let host = self.host.clone();
        let Door::Outside(door) = &host.door else { return };
        let mut from = if self.chance.random_bool(0.7) { From::Start } else { From::Now };
        let mut patience = self.chance.random_range(1..6);
        while patience > 0 && !host.stop.get() && host.sim.breach().is_none() {
            patience -= 1;
            // An event says how things were when it was sent, which may be long ago: all that is
            // certain is that it was after the request.
            let ticket = host.ticket(target);
            let mut events = match door.events(&target.name, from).await {
                Ok(events) => events,
                Err(error) => {
                    from = host.refused_events(&ticket, from, &error);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if target.form() == Form::Json {
                events.of_json();
            }
            let Some((start, end)) = events.told() else {
                let what = format!("'{}' sends events and does not say of what", target.name);
                host.sim.check::<()>(Breach::of(checks::LIVE, what));
                return;
            };
            let life = end.epoch;
            if host.sim.check(host.saw_events_begin(&ticket, from, (start, end))).is_none() {
                return;
            }
            let mut at = start;
            from = From::At(at);
            let mut over = false;
            loop {
                let batch = match events.next().await {
                    Ok(batch) => batch,
                    Err(Over::Ended) => {
                        weir_io::sometimes!("an event stream was ended by the server");
                        break;
                    }
                    Err(Over::Lost) => {
                        weir_io::sometimes!("an event stream broke");
                        break;
                    }
                    Err(Over::Strange(what)) => {
                        let what = format!("'{}' sent {what}", target.name);
                        host.sim.check::<()>(Breach::of(checks::SENT, what));
                        return;
                    }
                };
                // The last word on a stream that ended, or could not be read: where the reader is.
                if over {
                    let what = format!("'{}' sends events after its last", target.name);
                    host.sim.check::<()>(Breach::of(checks::LIVE, what));
                    return;
                }
                over = batch.data.is_empty() && !batch.up_to_date;
                if over && batch.next == at {
                    continue;
                }
                let page = page(target, at, life, &batch);
                host.sim.note(&format!("events {} {at:?} to {:?}", target.name, batch.next));
                let seen = host.take(&ticket, From::At(at), &None, &page);
                if host.sim.check(seen).is_none() || batch.closed {
                    return;
                }
                (at, from) = (batch.next, From::At(batch.next));
                if host.stop.get() {
                    return;
                }
            }
        }
    }
}

impl Host {
    /// No events are sent from there. Where to ask next.
    fn refused_events(&self, ticket: &Ticket, from: From, error: &Error) -> From {
        let (From::At(asked), Error::Rejected(Rejection::OffsetTrimmed { next })) = (from, error)
        else {
            return from;
        };
        weir_io::sometimes!("a reader of events was overtaken by a trim");
        let seen = self.sim.model.borrow_mut().saw_trimmed(ticket, asked, *next);
        self.sim.check(seen);
        From::At(*next)
    }

    /// The head of an answer says where its events begin, and where the stream ended then.
    fn saw_events_begin(
        &self,
        ticket: &Ticket,
        from: From,
        (start, end): (Offset, Offset),
    ) -> Result<(), Breach> {
        let mut model = self.sim.model.borrow_mut();
        let name = &ticket.name;
        self.sim.note(&format!("events {name} {from:?}: from {start:?} of {end:?}"));
        model.saw_tail(ticket, end)?;
        match from {
            From::Start => model.saw_earliest(ticket, end.epoch.get(), start.next.get()),
            From::At(asked) => {
                let there = start.next == asked.next;
                require!(there, checks::DENSE, "'{name}' sends {start:?}, asked for {asked:?}");
                Ok(())
            }
            From::Now | From::Since(_) => {
                require!(start == end, checks::DENSE, "'{name}' sends {start:?}, ends at {end:?}");
                Ok(())
            }
        }
    }
}

/// A batch as the page it would have been.
fn page(target: &Target, start: Offset, life: Epoch, batch: &Batch) -> Page {
    let form = target.form();
    let separator: &[u8] = if form == Form::Json { b"," } else { b"" };
    let whole = batch.data.join(separator);
    let next = batch.next;
    let untold = Offset { epoch: life, next: TAIL_UNTOLD };
    let tail = if batch.up_to_date { next } else { untold };
    Page {
        content: target.content.clone(),
        expiry: target.expiry(),
        retention: Retention::NONE,
        start: Offset { next: start.next, ..next },
        next,
        tail,
        up_to_date: batch.up_to_date,
        closed: batch.closed,
        beyond_tail: false,
        bytes: whole.len(),
        pieces: vec![whole.into()],
        records: next.next.since(start.next),
        incarnation: 0,
    }
}
