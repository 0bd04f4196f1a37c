//! The end of a seed: no faults any more. The store opens in time, takes writes, holds everything,
//! lets windows pass, seals, stops, opens again, and names a flipped bit instead of serving it.

use std::{future::Future, rc::Rc, time::Duration};

use rand_chacha::ChaCha8Rng;
use weir_engine::{request::Rejection, types::Expiry};

use super::{
    boot::{self, ANSWER_MAX},
    damage, drain, round, sweep,
};
use crate::{
    bucket,
    checks::{self, Breach},
    workload::{self, Class, Client, creation::Wish, verbs::Said},
    world::{Host, Sim},
};

/// Longer than any window with its quantum, and than any seal age.
const PEACE: Duration = Duration::from_secs(75);

/// How long after their time streams are trimmed and segments written anew at the latest: the
/// longest seal age and some seconds.
const LATE_MS: u64 = 65_000;

/// Checks everything once more.
pub(super) fn run(sim: &Rc<Sim>, c: &mut ChaCha8Rng) {
    sim.machine.set_latency(Duration::from_micros(50)..Duration::from_millis(3));
    sim.clear_up();
    boot::boot(sim, true, async |world| {
        sim.note("finale");
        if let Some(host) = boot::open(sim, world, false).await {
            peace(&host, c).await;
            round::close(&host).await;
            sim.machine.drive().kill();
        }
    });
    if sim.breach().is_some() {
        return;
    }
    if sim.options.bit_flip {
        damage::run(sim, c);
    }
    boot::boot(sim, true, async |world| {
        if let Some(host) = boot::open(sim, world, false).await {
            boot::verify_all(&host, c).await;
            look(&host, host.list()).await;
            sweep::run(&host, c).await;
            round::close(&host).await;
            sim.machine.drive().kill();
        }
    });
    if sim.breach().is_some() {
        return;
    }
    boot::boot(sim, true, async |world| {
        if let Some(host) = boot::open(sim, world, false).await {
            sweep::erased(&host).await;
            sim.machine.drive().kill();
        }
    });
    if sim.breach().is_none() && sim.options.bucket.there && sim.options.bucket.rivals {
        boot::boot(sim, true, async |world| {
            bucket::duel(sim, world, c).await;
            sim.machine.drive().kill();
        });
    }
    bucket::drill(sim, c);
    bucket::look_back(sim);
}

async fn peace(host: &Rc<Host>, c: &mut ChaCha8Rng) {
    let sim = &host.sim;
    boot::verify_all(host, c).await;
    probe(host).await;
    drain::run(host).await;
    tokio::time::sleep(PEACE).await;
    look(host, async {
        sim.check(passed(host).await);
        sim.check(host.are_trimmed(LATE_MS).await);
        sim.check(host.are_erased(LATE_MS));
        host.list().await;
    })
    .await;
    let held = host.engine().metrics().memtable_bytes.get();
    if held != 0 {
        let what = format!("{held} bytes are not sealed long after their time");
        sim.check::<()>(Breach::of(checks::BOUNDED, what));
    }
    sim.check(round::bounded(&host.sim, host.engine(), &*host.world().disk));
    bucket::settled(host).await;
    boot::verify_all(host, c).await;
}

/// Asks what must be answered in time.
async fn look(host: &Host, asking: impl Future<Output = ()>) {
    if tokio::time::timeout(ANSWER_MAX, asking).await.is_err() {
        host.sim.check::<()>(Breach::of(checks::SERVES, "a look at everything is not answered"));
    }
}

/// Every stable stream takes an append.
async fn probe(host: &Rc<Host>) {
    let targets = Rc::new(workload::targets());
    let mut client =
        Client { host: Rc::clone(host), no: 900, chance: host.sim.chance(900), targets };
    for target in workload::targets() {
        if target.class != Class::Stable {
            continue;
        }
        let work = async {
            // A queue of a few places may be full of what the server itself has to write.
            loop {
                host.create(&target, Wish::plain(&target, target.expiry())).await;
                let (id, append) = client.request(&target);
                match host.append(&target, append, id).await {
                    Said::Nothing => tokio::time::sleep(Duration::from_millis(5)).await,
                    said => return said,
                }
            }
        };
        let said = tokio::time::timeout(ANSWER_MAX, work).await;
        if !matches!(said, Ok(Said::Yes(_))) {
            let what = format!("'{}' takes no append without faults: {said:?}", target.name);
            host.sim.check::<()>(Breach::of(checks::SERVES, what));
        }
    }
}

/// Windows that nobody touched have passed.
async fn passed(host: &Host) -> Result<(), Breach> {
    for target in workload::targets() {
        let over = match target.class {
            Class::Sliding => true,
            Class::Dated => {
                let model = host.sim.model.borrow();
                let dated = model.names.get(&target.name).and_then(|named| named.dated);
                dated.is_some_and(|at| at <= host.sim.wall_ms())
            }
            Class::Forked => {
                let model = host.sim.model.borrow();
                let named = model.names.get(&target.name);
                let newest = named.and_then(|named| named.lives.last_key_value());
                match newest.and_then(|(_, life)| life.expiry) {
                    Some(Expiry::Sliding { .. }) => true,
                    Some(Expiry::At(at)) => at.get() <= host.sim.wall_ms(),
                    Some(Expiry::Never) | None => false,
                }
            }
            Class::Stable | Class::Ending | Class::Churning | Class::Trimmed => continue,
        };
        let lived = host.ticket(&target).is_alive();
        let said = host.head(&target).await;
        if over && lived {
            weir_io::sometimes!("a stream ended by itself");
        }
        // It may be kept for its forks, which is checked where the answer is sorted.
        if over && !matches!(said, Said::No(Rejection::NotFound | Rejection::Gone)) {
            let what = format!("'{}' should have ended by itself: {said:?}", target.name);
            return Breach::of(checks::WINDOW, what);
        }
    }
    Ok(())
}
