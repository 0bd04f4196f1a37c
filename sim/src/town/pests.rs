//! Those who make life hard for a server without breaking a rule: readers that take a few bytes a
//! second, and a thousand short connections at once.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Semaphore,
    time::{sleep, timeout},
};
use weir_io::net::Socket;

use super::{server::Post, wire};
use crate::{
    checks::{self, Breach},
    world::Sim,
};

/// Visits at once.
const VISITS_MAX: usize = 48;
/// How long one visit may take.
const VISIT_MAX: Duration = Duration::from_secs(5);
/// Streams that slow readers read: those that nobody ends.
const STREAMS: u32 = 4;
/// Statuses that a short request may get.
const STATUSES: [&str; 9] = ["200", "404", "410", "429", "500", "503", "507", "400", "408"];

/// Reads one stream after the other, a few bytes at a time.
pub async fn slow_reader(sim: Rc<Sim>, post: Rc<Post>, no: u32, mut c: ChaCha8Rng) {
    let dial = wire::narrow_dial(&post, sim.chance(no));
    while post.sipping.get() && sim.breach().is_none() {
        sleep(Duration::from_millis(c.random_range(10..300))).await;
        let live = if c.random_bool(0.5) { "&live=sse" } else { "" };
        let stream = c.random_range(0..STREAMS);
        let Ok(Ok(dialed)) = timeout(VISIT_MAX, dial()).await else { continue };
        let mut socket = dialed.socket;
        let ask =
            format!("GET /v1/stream/s/{stream}?offset=-1{live} HTTP/1.1\r\nhost: server\r\n\r\n");
        let asked = timeout(VISIT_MAX, socket.write_all(ask.as_bytes())).await;
        let mut sip = vec![0; c.random_range(1..64)];
        let begun = timeout(VISIT_MAX, socket.read(&mut sip)).await;
        if !matches!((asked, begun), (Ok(Ok(())), Ok(Ok(1..)))) {
            continue;
        }
        post.sipped.set(post.sipped.get() + 1);
        while post.sipping.get() && sim.breach().is_none() {
            // Silence of an event stream is no end.
            if let Ok(Ok(0) | Err(_)) = timeout(VISIT_MAX, socket.read(&mut sip)).await {
                break;
            }
            sleep(Duration::from_millis(c.random_range(100..1000))).await;
        }
        post.sipped.set(post.sipped.get() - 1);
    }
}

/// Many short visits at once.
pub async fn burst(sim: Rc<Sim>, post: Rc<Post>, mut c: ChaCha8Rng, visits: u32) {
    let most = u32::try_from(VISITS_MAX).expect("small");
    let places = Arc::new(Semaphore::new(VISITS_MAX));
    let dial = wire::dial(&post, sim.chance(c.random_range(800..900)));
    for _ in 0..visits {
        let place = Arc::clone(&places).acquire_owned().await;
        let (sim, dialing, kind) = (Rc::clone(&sim), dial(), c.random_range(0..5));
        tokio::task::spawn_local(async move {
            let _place = place;
            let visit = async {
                let socket = dialing.await?.socket;
                visit(&sim, socket, kind).await
            };
            // A visit that fails is one all the same.
            drop(timeout(VISIT_MAX, visit).await);
        });
    }
    // All places are free when the last visit is over.
    drop(places.acquire_many(most).await);
    if visits >= 1000 {
        weir_io::sometimes!("a thousand short connections came and went");
    }
    sim.note("the burst is over");
}

async fn visit(sim: &Sim, mut socket: Box<dyn Socket>, kind: u32) -> io::Result<()> {
    let ask: &[u8] = match kind {
        0 => return Ok(()),
        1 => b"GET /v1/stream/s/0?off",
        2 => b"GET /health HTTP/1.1\r\nhost: server\r\n\r\n",
        3 => b"HEAD /v1/stream/s/1 HTTP/1.1\r\nhost: server\r\n\r\n",
        _ => {
            sleep(Duration::from_millis(300)).await;
            return Ok(());
        }
    };
    socket.write_all(ask).await?;
    if kind == 1 {
        return Ok(());
    }
    let mut head = [0; 12];
    socket.read_exact(&mut head).await?;
    let head = String::from_utf8_lossy(&head).into_owned();
    let good = head.strip_prefix("HTTP/1.1 ").is_some_and(|it| STATUSES.contains(&it));
    if !good {
        let what = format!("a short request was answered '{head}'");
        sim.check::<()>(Breach::of(checks::SERVES, what));
    }
    Ok(())
}
