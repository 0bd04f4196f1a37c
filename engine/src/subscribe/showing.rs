//! A subscription as clients see it, with the streams that merely match.

use std::sync::Arc;

use super::{
    LINKS_LISTED_MAX,
    request::{Link, LinkType, SubscriptionView},
    subscription::Subscription,
};
use crate::{
    core::Core,
    request::{Error, List},
};

/// Streams looked at for those that a pattern matches.
const STREAMS_EXAMINED_MAX: usize = 4096;
/// Streams asked for at a time.
const PAGE: usize = 256;

impl Core {
    /// A subscription as it is.
    pub(super) async fn view(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
    ) -> Result<SubscriptionView, Error> {
        let room = {
            let durable = subscription.durable.lock();
            let kept = durable.links.pending() + durable.links.explicit();
            LINKS_LISTED_MAX.saturating_sub(kept)
        };
        let matching = self.matching(subscription, room).await?;
        // Between two commits: a tail that the links have not been told of must not be shown as
        // acknowledged.
        let _whole = self.settling.lock();
        let durable = subscription.durable.lock();
        let mut links = durable.links.list(LINKS_LISTED_MAX);
        let room = LINKS_LISTED_MAX - links.listed.len();
        let quiet = matching.into_iter().filter(|link| durable.links.get(&link.path).is_none());
        links.listed.extend(quiet.take(room));
        Ok(SubscriptionView {
            config: Arc::clone(&subscription.config),
            created: subscription.created,
            failing: durable.control.failing,
            links,
        })
    }

    /// Up to `limit` streams that the pattern matches and that have no work, as far as can be
    /// seen with a bounded look at the names.
    async fn matching(
        self: &Arc<Self>,
        subscription: &Subscription,
        limit: usize,
    ) -> Result<Vec<Link>, Error> {
        let mut found = Vec::new();
        let Some(pattern) = subscription.config.pattern.as_ref().filter(|_| limit > 0) else {
            return Ok(found);
        };
        let prefix = Some(pattern.literal_prefix().to_owned());
        let mut after = None;
        for _ in 0..STREAMS_EXAMINED_MAX / PAGE {
            let list = List { skip: 0, after, prefix: prefix.clone(), limit: PAGE };
            let rows = self.list(list).await?;
            let full = rows.len() == PAGE;
            after = rows.last().map(|row| row.head.name.as_str().to_owned());
            for row in rows {
                let kept = subscription.durable.lock().links.get(&row.head.name).is_some();
                if !kept && subscription.matches(&row.head.name) {
                    let (kind, tail) = (LinkType::Glob, row.head.next);
                    found.push(Link { path: row.head.name, kind, acked: tail, tail });
                }
            }
            if !full || found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }
}
