//! A subscription as clients see it, with the streams that merely match.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use super::{
    LINKS_LISTED_MAX,
    glob::Pattern,
    request::{Link, LinkType, SubscriptionView},
    subscription::Subscription,
};
use crate::{
    core::Core,
    engine::{Listed, unreadable},
    request::{Error, ListRow},
    state::catalogue,
    types::StreamName,
};

/// Streams looked at for those that a pattern matches.
const STREAMS_EXAMINED_MAX: usize = 4096;

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

    /// Up to `limit` streams that the pattern matches, as far as can be seen with a bounded look
    /// at the names.
    async fn matching(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        limit: usize,
    ) -> Result<Vec<Link>, Error> {
        let pattern = subscription.config.pattern.as_ref().filter(|_| limit > 0);
        let Some(prefix) = pattern.map(Pattern::literal_prefix) else {
            return Ok(Vec::new());
        };
        let listed = loop {
            let asked = self.shelf.folds();
            let (shared, start) = (Arc::clone(subscription), prefix.to_owned());
            let rows = self.on_reader(move |conn| {
                let bounds = (limit, STREAMS_EXAMINED_MAX);
                catalogue::matching(conn, &start, bounds, |name| shared.merely_matches(name))
            });
            let rows = rows.await.map_err(unreadable)?.into_iter();
            let mut listed: BTreeMap<StreamName, Listed> =
                rows.map(|row| (row.identity.name.clone(), Listed::Row(Box::new(row)))).collect();
            let unfolded = self.unfolded.lock();
            if self.shelf.folds() != asked {
                // What those rows lacked is on no list any more.
                continue;
            }
            // Copied, so that no commit waits while names are matched.
            let mut differing = Vec::new();
            for names in [&unfolded.folding, &unfolded.names] {
                let inside = names
                    .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
                    .take_while(|(name, _)| name.as_str().starts_with(prefix))
                    .take(STREAMS_EXAMINED_MAX)
                    .map(|(name, stream)| (name.clone(), stream.clone()));
                differing.extend(inside);
            }
            drop(unfolded);
            for (name, stream) in differing {
                if !subscription.merely_matches(&name) {
                    continue;
                }
                match stream {
                    None => drop(listed.remove(&name)),
                    Some(stream) => drop(listed.insert(name, Listed::Stream(stream))),
                }
            }
            break listed;
        };
        let rows = listed.into_values().filter_map(|listed| self.list_row(listed)).take(limit);
        let link = |row: ListRow| {
            let (path, tail) = (row.head.name, row.head.next);
            Link { path, kind: LinkType::Glob, acked: tail, tail }
        };
        Ok(rows.map(link).collect())
    }
}
