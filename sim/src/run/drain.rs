//! Subscriptions at peace: whatever is pending wakes somebody by itself, an honest worker finishes
//! it, and then nothing is pending any more.

use std::{rc::Rc, time::Duration};

use weir_engine::{
    request::{From, Read},
    subscribe::{Delivered, Via},
    types::{Offset, StreamName},
};

use crate::{
    checks::{self, Breach},
    require,
    workload::subscribers::{Kind, Told, WAKES, kinds},
    world::Host,
};

/// Longer than any lease: whoever fell silent is given up, and the work is woken again.
const SILENCE: Duration = Duration::from_secs(5);
/// Longer than a webhook waits after failures.
const CALL_MAX: Duration = Duration::from_secs(100);
/// Calls and claims that one subscription may need until nothing is pending.
const TURNS_MAX: u32 = 50;
/// How long all of it may take.
const DRAIN_MAX: Duration = Duration::from_secs(600);

/// Finishes all work.
pub(crate) async fn run(host: &Rc<Host>) {
    host.sim.note("drain");
    match tokio::time::timeout(DRAIN_MAX, drain(host)).await {
        Ok(drained) => drop(host.sim.check(drained)),
        Err(_) => {
            let what = "the work of subscriptions does not end";
            host.sim.check::<()>(Breach::of(checks::WOKEN, what));
        }
    }
}

async fn drain(host: &Host) -> Result<(), Breach> {
    tokio::time::sleep(SILENCE).await;
    for kind in kinds().iter().filter(|kind| kind.is_pull) {
        pull(host, kind).await?;
    }
    called(host).await?;
    for kind in kinds() {
        if !host.sim.model.borrow().has(&kind.id) {
            continue;
        }
        let view = host.view(&kind).await;
        let pending = view.as_ref().map(|view| view.links.pending);
        require!(pending == Some(0), checks::WOKEN, "'{}' is not done: {view:?}", kind.id);
    }
    Ok(())
}

/// Claims what is pending and finishes it.
///
/// # Errors
/// It was not announced, or has no end.
pub(crate) async fn pull(host: &Host, kind: &Kind) -> Result<(), Breach> {
    for turn in 0..TURNS_MAX {
        let Some(wake) = host.claim(kind, "honest").await else { return Ok(()) };
        // Only what was pending for a while has been announced.
        if turn == 0 {
            announced(host, kind, wake.generation).await?;
        }
        let links = wake.links.listed.iter().filter(|link| link.has_pending());
        let acks: Vec<_> = links.map(|link| (link.path.clone(), link.tail)).collect();
        if !host.report(kind, &wake, Via::Pull, &acks, true).await {
            // A stream that ended since the claim makes the whole report void.
            tokio::time::sleep(SILENCE).await;
        }
    }
    Breach::of(checks::WOKEN, format!("'{}' has no end", kind.id))
}

/// The wake stream told of a generation.
async fn announced(host: &Host, kind: &Kind, generation: u64) -> Result<(), Breach> {
    let name = StreamName::new(WAKES).expect("a good name");
    let mut from = From::At(Offset::START);
    let (head, tail) = (format!("\"{}\"", kind.id), format!("\"generation\":{generation},"));
    loop {
        let read = Read { name: name.clone(), from, key: None, bytes_max: 1 << 20 };
        let page = match host.door.read(read).await {
            Ok(page) => page,
            Err(error) => {
                return Breach::of(checks::SERVES, format!("the wake stream: {error}"));
            }
        };
        let text = String::from_utf8_lossy(&page.pieces.concat()).into_owned();
        if text.split("},{").any(|event| event.contains(&head) && event.contains(&tail)) {
            return Ok(());
        }
        if page.up_to_date {
            let what = format!("'{}' never announced generation {generation}", kind.id);
            return Breach::of(checks::WOKEN, what);
        }
        from = From::At(page.next);
    }
}

/// Answers every call.
async fn called(host: &Host) -> Result<(), Breach> {
    let (kinds, subscriptions) = (kinds(), host.engine().subscriptions());
    for _ in 0..TURNS_MAX {
        let next = tokio::time::timeout(CALL_MAX, subscriptions.next_delivery());
        let Ok(Some(due)) = next.await else { return Ok(()) };
        let Some(kind) = kinds.iter().find(|kind| kind.id == due.subscription) else {
            return Breach::of(checks::STALE, format!("'{}' wakes", due.subscription));
        };
        let asked = host.asks(kind);
        let Told::Yes(Some(wake)) = host.told("call", &asked, due.begin().await) else { continue };
        host.sim.model.borrow_mut().saw_wake(&asked, &wake)?;
        host.delivered(kind, due, &wake, Delivered::Done).await;
    }
    Breach::of(checks::WOKEN, "webhooks have no end")
}
