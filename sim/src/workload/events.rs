//! Readers of server-sent events: every record once and in order, over reconnects, recycled
//! connections and restarts. Without a network there are none.

use std::time::Duration;

use rand::RngExt;
use weir_engine::{
    request::{From, Page},
    types::{Epoch, Form, Offset, Retention, Seq},
};

use super::{Client, Target};
use crate::{
    checks::{self, Breach},
    door::{
        Door,
        events::{Batch, Over},
    },
    verify::TAIL_UNTOLD,
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
            let Some(mut events) = door.events(&target.name, from).await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if target.form() == Form::Json {
                events.of_json();
            }
            let Some(life) = events.life() else {
                let what = format!("'{}' sends events and does not say its end", target.name);
                host.sim.check::<()>(Breach::of(checks::LIVE, what));
                return;
            };
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
                if over && From::At(batch.next) == from {
                    continue;
                }
                let page = page(target, from, life, &batch);
                host.sim.note(&format!("events {} {from:?} to {:?}", target.name, batch.next));
                let seen = host.take(&ticket, from, &None, &page);
                if host.sim.check(seen).is_none() || batch.closed {
                    return;
                }
                from = From::At(batch.next);
                if host.stop.get() {
                    return;
                }
            }
        }
    }
}

/// A batch as the page it would have been.
fn page(target: &Target, from: From, life: Epoch, batch: &Batch) -> Page {
    let form = target.form();
    let separator: &[u8] = if form == Form::Json { b"," } else { b"" };
    let whole = batch.data.join(separator);
    let next = batch.next;
    let records = crate::door::answer::count(form, &whole);
    let start = match from {
        From::At(offset) => offset.next,
        From::Start => Seq::ZERO,
        From::Now | From::Since(_) => Seq::new(next.next.get().saturating_sub(records)),
    };
    let untold = Offset { epoch: life, next: TAIL_UNTOLD };
    let tail = if batch.up_to_date { next } else { untold };
    Page {
        content: target.content.clone(),
        expiry: target.expiry(),
        retention: Retention::NONE,
        start: Offset { next: start, ..next },
        next,
        tail,
        up_to_date: batch.up_to_date,
        closed: batch.closed,
        beyond_tail: false,
        bytes: whole.len(),
        pieces: vec![whole.into()],
        records: next.next.since(start),
        incarnation: 0,
    }
}
