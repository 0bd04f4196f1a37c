//! Plain writers: appends of every kind, many of them to be refused, and closures.

use bytes::Bytes;
use rand::RngExt;
use weir_engine::{
    request::{Append, AppendOutcome, From, Rejection},
    types::{Closing, ContentType, Form, ProducerId, ProducerTuple},
};

use super::{Class, Client, Target, verbs::Said};
use crate::{
    checks::{self, Breach},
    model::Fate,
};

/// Appends to any stream.
pub(super) async fn appender(mut client: Client) {
    // Stream-Seq values of one boot lie above those of the boots before.
    let mut seq = u64::from(client.host.sim.boots()) * 1_000_000;
    while client.think().await {
        let target = client.any();
        let (id, mut append) = client.request(&target);
        match client.chance.random_range(0..12) {
            0 => client.spoil(&target, id, append).await,
            1 => client.expect(&target, id, append).await,
            2 => {
                seq += client.chance.random_range(1..5);
                append.stream_seq = Some(Bytes::from(format!("{seq:012}")));
                client.host.sim.model.borrow_mut().requests[id].stream_seq = Some(seq);
                client.host.append(&target, append, id).await;
            }
            _ => {
                let said = client.host.append(&target, append, id).await;
                if let Said::Yes(appended) = said
                    && appended.outcome != AppendOutcome::Written
                {
                    let what = format!("request {id} was answered {:?}", appended.outcome);
                    client.host.sim.check::<()>(Breach::of(checks::ONCE, what));
                }
            }
        }
    }
}

/// Closes streams, with and without last records, by name and by producer.
pub(super) async fn closer(mut client: Client) {
    while client.think().await {
        let target = client.any_of(&[Class::Ending, Class::Churning]);
        let (id, mut append) = client.request(&target);
        append.closing = Closing::Close;
        if client.chance.random_bool(0.4) {
            append.body = Bytes::new();
            client.host.sim.model.borrow_mut().requests[id].records.clear();
        }
        if client.chance.random_bool(0.3) {
            let name = format!("closer-{id}");
            let id = ProducerId::new(&name).expect("a good id");
            append.producer = Some(ProducerTuple { id, epoch: 0, seq: 0 });
        }
        // Endings are rare, so that there is something to end in later rounds.
        if client.chance.random_bool(0.8) && target.class == Class::Ending {
            continue;
        }
        let said = client.host.append(&target, append.clone(), id).await;
        // Where a stream is deleted and made again, the repetition could meet its next life.
        let twice = append.producer.is_some() && target.keeps();
        if twice && matches!(said, Said::Yes(_) | Said::Unknown) {
            client.host.sim.model.borrow_mut().requests[id].in_doubt = true;
            client.host.append(&target, append, id).await;
        }
    }
}

impl Client {
    /// Sends something that must be refused.
    async fn spoil(&mut self, target: &Target, id: usize, mut append: Append) {
        let kinds = if target.form() == Form::Json { 4 } else { 3 };
        match self.chance.random_range(0..kinds) {
            0 => append.content = ContentType::parse("image/png"),
            1 => append.content = None,
            2 => append.body = Bytes::new(),
            _ => {
                let mut body = append.body.to_vec();
                body.pop();
                body.extend(b", {]");
                append.body = body.into();
            }
        }
        self.host.sim.note(&format!("spoil {} #{id}", target.name));
        let said = self.host.append(target, append, id).await;
        self.must_be_refused(id, &said);
    }

    /// Sends with an expected offset, half the time a wrong one.
    async fn expect(&mut self, target: &Target, id: usize, mut append: Append) {
        let wrong = self.chance.random_bool(0.5);
        let (_, said) = self.host.page(target, From::Now, None, 100).await;
        let Said::Yes((page, _)) = said else {
            self.host.sim.model.borrow_mut().refuse(id);
            return;
        };
        let mut expected = page.tail;
        if wrong {
            expected.next = weir_engine::types::Seq::new(expected.next.get() + 1_000_000);
        }
        append.expected = Some(expected);
        let said = self.host.append(target, append, id).await;
        if wrong {
            self.must_be_refused(id, &said);
        } else if let Said::No(rejection) = said {
            let known = matches!(
                rejection,
                Rejection::ExpectedOffset { .. }
                    | Rejection::Closed { .. }
                    | Rejection::NotFound
                    | Rejection::Gone
            );
            if !known {
                let what = format!("request {id} was refused: {rejection}");
                self.host.sim.check::<()>(Breach::of(checks::TRACE, what));
            }
        }
    }

    /// The request was nonsense: a yes is a breach, and its records must never be seen.
    pub(super) fn must_be_refused<T: std::fmt::Debug>(&self, id: usize, said: &Said<T>) {
        if let Said::Yes(yes) = said {
            let what = format!("request {id} had to be refused: {yes:?}");
            self.host.sim.check::<()>(Breach::of(checks::TRACE, what));
        }
        self.host.sim.model.borrow_mut().requests[id].fate = Fate::Refused;
    }
}
