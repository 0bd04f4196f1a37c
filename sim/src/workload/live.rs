//! Live readers: attached to a stream, waiting for its bell, reading on.

use std::{pin::pin, time::Duration};

use rand::RngExt;
use weir_engine::{
    Change,
    request::{Error, From, Rejection},
    types::{Offset, StreamName},
};

use super::{Client, Target, verbs::Said};
use crate::{door::Watch, model::Ticket};

/// Where a live reader is.
#[derive(Clone, Debug)]
pub struct Watching {
    pub name: StreamName,
    pub at: Offset,
    /// Which life of the name it is.
    pub life: u32,
}

/// Watches one stream after the other.
pub(super) async fn watcher(mut client: Client) {
    while client.think().await {
        let target = client.any();
        client.watch(&target).await;
        client.host.watching.borrow_mut().remove(&client.no);
    }
}

impl Client {
    async fn watch(&mut self, target: &Target) {
        let host = self.host.clone();
        let ticket = host.ticket(target);
        let answer = host.door.watch(&target.name).await;
        let Said::Yes(watch) = host.sort(&ticket, &format!("watch {}", target.name), answer) else {
            return;
        };
        let patience = self.chance.random_range(1..20);
        let mut from = if self.chance.random_bool(0.5) { From::Start } else { From::Now };
        let mut idle = 0;
        while !host.leave.get() && host.sim.breach().is_none() {
            let ticket = host.ticket(target);
            let bytes_max = self.chance.random_range(1..10_000);
            let answer = watch.read(from, None, bytes_max).await;
            if let (From::At(asked), Err(Error::Rejected(Rejection::OffsetTrimmed { next }))) =
                (from, &answer)
            {
                let seen = host.sim.model.borrow_mut().saw_trimmed(&ticket, asked, *next);
                host.sim.check(seen);
                weir_io::sometimes!("a live reader was overtaken by a trim");
                from = From::At(*next);
                continue;
            }
            if matches!(answer, Err(Error::Rejected(_))) {
                // The life that is watched has ended; the name may have another one.
                host.sim.note(&format!("live {}: over", target.name));
                return;
            }
            let page = match host.sort(&ticket, &format!("live {}", target.name), answer) {
                Said::Yes(page) => page,
                Said::No(_) | Said::Unknown => return,
                Said::Nothing => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            host.sim.note(&format!("live {} {:?} to {:?}", target.name, from, page.next));
            let seen = host.take(&ticket, from, &None, &page);
            if host.sim.check(seen).is_none() || page.closed {
                return;
            }
            from = From::At(page.next);
            let (at, life) = (page.next, page.tail.epoch.get());
            let watching = Watching { name: target.name.clone(), at, life };
            host.watching.borrow_mut().insert(self.no, watching);
            // One wait until it ends: to ask anew would look anew, and hide a wake that was lost.
            let waiting = host.ticket(target);
            let mut changed = pin!(watch.changed(page.next));
            loop {
                let wait = tokio::time::timeout(Duration::from_millis(200), changed.as_mut());
                match wait.await {
                    Ok(Change::Data) => match self.polled(target, &watch, (&waiting, from)) {
                        Ok(next) => {
                            from = next;
                            break;
                        }
                        Err(()) => return,
                    },
                    Ok(Change::Closed) => break,
                    Ok(Change::Gone) => return,
                    Err(_) if host.leave.get() => return,
                    Err(_) if host.stop.get() => {}
                    Err(_) => {
                        idle += 1;
                        if idle > patience {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Looks at the page that a poll brought, if it brought one; where to go on, if anywhere.
    fn polled(
        &self,
        target: &Target,
        watch: &Watch,
        (waiting, from): (&Ticket, From),
    ) -> Result<From, ()> {
        let Some(answer) = watch.polled() else { return Ok(from) };
        let host = &self.host;
        let page = match host.sort(waiting, &format!("poll {}", target.name), answer) {
            Said::Yes(page) => page,
            Said::Nothing => return Ok(from),
            Said::No(_) | Said::Unknown => return Err(()),
        };
        weir_io::sometimes!("a poll brought the records it waited for");
        host.sim.note(&format!("poll {} {from:?} to {:?}", target.name, page.next));
        let seen = host.take(waiting, from, &None, &page);
        match host.sim.check(seen) {
            Some(_) if !page.closed => Ok(From::At(page.next)),
            _ => Err(()),
        }
    }
}
