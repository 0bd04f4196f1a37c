//! A store that is used little for minutes, longer than the grace period: what rounds of seconds
//! never show, manifests that follow each other, objects that are collected while the bucket has its
//! bad days.

use std::{rc::Rc, time::Duration};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_engine::Health;

use super::{beside, weather};
use crate::{
    workload::{self, Class, Client, creation::Wish},
    world::Host,
};

/// Writes now and then, for some grace periods.
pub(crate) async fn run(host: &Rc<Host>, c: &mut ChaCha8Rng) {
    let sim = &host.sim;
    if !sim.options.bucket.there || c.random_bool(0.5) {
        return;
    }
    sim.note("linger");
    let time = sim.options.bucket.grace.mul_f64(c.random_range(0.5..3.0));
    let mut foul = sim.chance(1011);
    tokio::select! {
        biased;
        () = trickle(host, c, time) => {}
        () = weather(host, &mut foul) => {}
    }
    sim.clear_up();
    let checked = beside(host).await;
    sim.check(checked);
}

async fn trickle(host: &Rc<Host>, c: &mut ChaCha8Rng, time: Duration) {
    let sim = &host.sim;
    let targets = Rc::new(workload::targets());
    let chance = sim.chance(902);
    let mut client = Client { host: Rc::clone(host), no: 902, chance, targets };
    let until = sim.now() + time;
    while sim.now() < until && sim.breach().is_none() && host.door.health() == Health::Serving {
        let pause = time.mul_f64(c.random_range(0.0..0.2)).max(Duration::from_millis(1));
        tokio::time::sleep(pause.min(Duration::from_secs(30))).await;
        let target = client.any_of(&[Class::Stable, Class::Churning]);
        if target.class == Class::Churning && c.random_bool(0.3) {
            host.delete(&target).await;
            continue;
        }
        host.create(&target, Wish::plain(&target, target.expiry())).await;
        let (id, append) = client.request(&target);
        drop(host.append(&target, append, id).await);
    }
}
