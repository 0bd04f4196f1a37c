//! The bucket at peace: everything that was acked is in it, everything that nobody needs goes, and
//! then nobody asks it anything.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use weir_engine::{audit::Newest, request::List, types::StoreMs};
use weir_io::objects::Key;

use super::{album, alone, look};
use crate::{
    checks::{self, Breach},
    require,
    workload::{self, Class, Client, creation::Wish, subscribers::WAKES, verbs::Said},
    world::Host,
};

/// How often the bucket is given another grace period to be rid of what nobody needs: merges and
/// what workers do may retire some more.
const TURNS_MAX: u32 = 4;
/// How long nobody must ask anything.
const SILENCE: Duration = Duration::from_secs(300);
/// Longer than a seal, an upload and a manifest take on a good day.
const UPLOAD_MAX: Duration = Duration::from_secs(10);
/// Where probes of a bucket may leave something behind.
const PROBES: &str = "probe/";

/// Waits until the bucket is at rest and looks at it.
pub(crate) async fn run(host: &Rc<Host>) {
    if host.sim.options.bucket.there {
        host.sim.note("the bucket settles");
        let settled = settle(host).await;
        host.sim.check(settled);
    }
}

async fn settle(host: &Rc<Host>) -> Result<(), Breach> {
    let options = &host.sim.options;
    let grace = options.bucket.grace;
    kept_up(host).await?;
    // What earlier processes left behind is looked for by one who has been the writer for a whole
    // grace period, when there is something to publish.
    tokio::time::sleep(grace + Duration::from_secs(1)).await;
    write(host).await;
    crate::run::drain(host).await;
    tokio::time::sleep(options.seal_age + UPLOAD_MAX).await;
    kept_up(host).await?;
    album::at_rest(&host.sim);
    let mut left = BTreeSet::new();
    for _ in 0..TURNS_MAX {
        tokio::time::sleep(grace + grace / 4 + UPLOAD_MAX).await;
        alone(host)?;
        left = superfluous(host)?;
        if left.is_empty() {
            break;
        }
    }
    require!(left.is_empty(), checks::COLLECTED, "nobody needs {left:?}, and they stay");
    album::at_rest(&host.sim);
    silent(host).await?;
    kept_up(host).await
}

fn running(host: &Host) -> StoreMs {
    host.engine().server_details().running
}

/// Everything that is there is in the newest manifest.
async fn kept_up(host: &Host) -> Result<(), Breach> {
    alone(host)?;
    let Ok(rows) = host.door.list(List { limit: 1000, ..List::default() }).await else {
        return Breach::of(checks::SERVES, "the list is not answered");
    };
    let newest = look(&host.sim, running(host))?;
    let streams = newest.as_ref().map_or(&[][..], |newest| &newest.streams);
    // The server writes wakes itself, at any time.
    for row in rows.iter().filter(|row| row.head.name.as_str() != WAKES) {
        let (head, name) = (&row.head, &row.head.name);
        let found = streams.iter().find(|stream| stream.name == *name);
        let same = found.map(|it| (it.next, it.closed)) == Some((head.next, head.closed));
        require!(
            same,
            checks::UPLOADED,
            "'{name}' ends at {:?}, closed {}, and in the bucket: {found:?}",
            head.next,
            head.closed
        );
    }
    let backlog = host.door.metrics(|metrics| metrics.publish.backlog_bytes.get());
    require!(
        backlog.is_none_or(|bytes| bytes == 0),
        checks::IDLE,
        "{backlog:?} bytes wait for their upload, and nothing hinders it"
    );
    Ok(())
}

/// One record more, so that there is something to publish.
async fn write(host: &Rc<Host>) {
    let targets = Rc::new(workload::targets());
    let target = targets.iter().find(|target| target.class == Class::Stable).expect("some are");
    let chance = host.sim.chance(901);
    let mut client =
        Client { host: Rc::clone(host), no: 901, chance, targets: Rc::clone(&targets) };
    loop {
        host.create(target, Wish::plain(target, target.expiry())).await;
        let (id, append) = client.request(target);
        match host.append(target, append, id).await {
            Said::Nothing => tokio::time::sleep(Duration::from_millis(50)).await,
            _ => return,
        }
    }
}

/// What is in the bucket and in no manifest that is kept; a manifest that was superseded long ago.
fn superfluous(host: &Host) -> Result<BTreeSet<Key>, Breach> {
    let Some(Newest { named, .. }) = look(&host.sim, running(host))? else {
        return Ok(BTreeSet::new());
    };
    let keys = host.sim.machine.bucket().keys();
    let boundaries = keys.iter().filter(|key| key.as_str().starts_with("gc/")).count();
    let left = keys.into_iter().filter(|key| {
        let boundary = key.as_str().starts_with("gc/") && boundaries == 1;
        !(named.contains(key) || boundary || key.as_str().starts_with(PROBES))
    });
    Ok(left.collect())
}

/// A store at rest asks nothing.
async fn silent(host: &Host) -> Result<(), Breach> {
    let bucket = host.sim.machine.bucket();
    let mut asked = 0;
    // Wakes of subscriptions that nobody works on any more may go on for a while.
    for _ in 0..TURNS_MAX {
        let before = bucket.requests();
        tokio::time::sleep(SILENCE).await;
        asked = bucket.requests() - before;
        if asked == 0 {
            return Ok(());
        }
    }
    let last: Vec<_> = bucket.log().into_iter().rev().take(6).collect();
    Breach::of(checks::IDLE, format!("{asked} requests in {SILENCE:?} of rest, the last: {last:?}"))
}
