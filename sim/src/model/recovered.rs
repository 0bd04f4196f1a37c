//! What a recovered store must show of subscriptions: no cursor beyond what came back or beyond what
//! workers acked, and as work every record that came back and that nobody acked.

use weir_engine::{
    subscribe::{Link, Links, SubscriptionId},
    types::{Offset, StreamName},
};

use super::{
    Checked, Fate, Model,
    subscriptions::{Life, Subscription},
};
use crate::{checks, require};

impl Model {
    /// The subscriptions that are known to be there and about to change in nothing.
    #[must_use]
    pub fn calm_subscriptions(&self) -> Vec<SubscriptionId> {
        self.subscriptions.keys().filter(|id| self.has(id)).cloned().collect()
    }

    /// A recovered store shows these links; of the streams in `tails` that much was published.
    ///
    /// # Errors
    /// A cursor lies past its stream or skips what nobody acked, or work is missing.
    pub fn recovered_links(
        &self,
        id: &SubscriptionId,
        links: &Links,
        tails: &[(StreamName, Offset)],
    ) -> Checked {
        let known = &self.subscriptions[id];
        let Some(life) = &known.life else { return Ok(()) };
        for Link { path, acked, tail, .. } in &links.listed {
            let what = "has acked after a recovery";
            require!(acked <= tail, checks::CURSOR, "'{id}' {what} {path} {acked:?} of {tail:?}");
        }
        for (stream, end) in tails {
            let link = links.listed.iter().find(|link| link.path == *stream);
            self.recovered_link(id, (known, life), (stream, *end), link)?;
        }
        Ok(())
    }

    fn recovered_link(
        &self,
        id: &SubscriptionId,
        (known, life): (&Subscription, &Life),
        (stream, end): (&StreamName, Offset),
        link: Option<&Link>,
    ) -> Checked {
        let epoch = end.epoch;
        // Acks are known of the newest life of a name only.
        let newest = self.names.get(stream).and_then(|named| named.lives.last_key_value());
        let of = newest.filter(|(it, _)| **it == epoch.get()).map(|(_, of)| of);
        let (Some(since), Some(of)) = (known.since(life, stream), of) else { return Ok(()) };
        let sent = life.sent(stream).filter(|sent| sent.epoch == epoch);
        let from = sent.map_or(0, |sent| sent.next.get());
        // The records that nobody acked, of those that came back.
        let work = (from..end.next.get()).filter(|at| {
            let mark = usize::try_from(*at).ok().and_then(|at| *of.records.get(at)?);
            mark.is_some_and(|(request, _)| {
                let request_is = &self.requests[request];
                request >= since && request_is.fate == Fate::Acked && !request_is.is_cut
            })
        });
        let Some(first) = work.min() else { return Ok(()) };
        let before = |acked: Offset| acked.epoch < epoch || acked.next.get() <= first;
        let shown = link.filter(|link| link.has_pending() && before(link.acked));
        require!(
            shown.is_some(),
            checks::CURSOR,
            "'{id}': {epoch:?}_{first} of '{stream}' came back, nobody acked it, and the link is \
             {link:?}"
        );
        Ok(())
    }
}
