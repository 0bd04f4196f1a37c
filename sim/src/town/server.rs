//! The server's machine: what runs there from one start to the next.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;
use weir_http::{App, HttpConfig, Webhooks, config::Hosts, server};

use super::wire::TownListener;
use crate::{
    checks::{self, Breach},
    door::outside::Insight,
    faults::DIR,
    run::boot,
    world::Sim,
};

/// How long a graceful stop may take, connections included.
const STOP_MAX: Duration = Duration::from_secs(40);

/// What the supervisor and the server's machine share.
#[derive(Default)]
pub struct Post {
    /// The engine, while it serves.
    pub insight: Insight,
    /// Rings when the server is to stop gracefully.
    pub stop: Rc<RefCell<Arc<Notify>>>,
    /// The process has ended by itself: stopped, or it would not start.
    pub ended: Cell<bool>,
    /// Something was done to the machine since it started.
    pub troubled: Cell<bool>,
}

/// One run of the process.
pub async fn run(sim: Rc<Sim>, post: Rc<Post>, config: HttpConfig) {
    let world = sim.plug();
    let stop = Arc::new(Notify::new());
    post.stop.replace(Arc::clone(&stop));
    let opened = boot::open(&sim, world.clone(), true).await;
    if opened.is_none() && !post.troubled.get() && !sim.machine.drive().is_dead() {
        sim.check::<()>(Breach::of(checks::SERVES, "the store does not open"));
    }
    if let Some(host) = opened {
        let engine = host.engine().clone();
        post.insight.replace(Some(engine.clone()));
        match TownListener::bind().await {
            Ok(listener) => {
                let dir = std::path::Path::new(DIR);
                let webhooks = match Webhooks::open(&world, dir, &config, None).await {
                    Ok(webhooks) => webhooks,
                    Err(error) => {
                        sim.note(&format!("keys: {error}"));
                        post.ended.set(true);
                        return;
                    }
                };
                let app = Arc::new(App::new(engine.clone(), config, world, webhooks));
                server::serve(listener, app, async move { stop.notified().await }).await;
                sim.note("the server has stopped serving");
            }
            Err(error) => {
                let what = format!("the port can't be bound: {error}");
                sim.check::<()>(Breach::of(checks::SERVES, what));
            }
        }
        post.insight.replace(None);
        if tokio::time::timeout(STOP_MAX, engine.close()).await.is_err() {
            sim.check::<()>(Breach::of(checks::SERVES, "the store does not stop"));
        }
    }
    post.ended.set(true);
}

/// The server's settings of a seed.
#[must_use]
pub fn config(read_bytes_max: usize) -> HttpConfig {
    HttpConfig {
        hosts: Hosts::Any,
        read_bytes_max,
        long_poll_timeout: Duration::from_secs(2),
        sse_recycle: Duration::from_secs(7),
        sse_keepalive: Duration::from_secs(3),
        ..HttpConfig::default()
    }
}
