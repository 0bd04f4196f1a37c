//! What subscriptions cost: appends with and without them, a pattern over every stream, and a
//! start.
//!
//! `cargo run --release -p weir-engine --example subscriptions -- DIR STREAMS SUBSCRIPTIONS`; run
//! it again on the same directory to time a start and the same appends in a store that has them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use weir_engine::{
    Config, Engine,
    request::{Append, Create},
    subscribe::{Delivery, Pattern, Subscribe, SubscriptionId},
    types::{ContentType, StreamName},
};
use weir_io::Clock;

const CLIENTS: u64 = 256;
const APPENDS: u64 = 200_000;
const TENANTS: u64 = 1000;

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

fn name(stream: u64) -> StreamName {
    StreamName::new(&format!("tenant/{}/{stream}", stream % TENANTS)).expect("a name")
}

async fn by_clients<F>(count: u64, work: impl Fn(u64) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let step = usize::try_from(CLIENTS).expect("small");
        let turns: Vec<F> = (client..count).step_by(step).map(&work).collect();
        clients.push(tokio::spawn(async move {
            for turn in turns {
                turn.await;
            }
        }));
    }
    for client in clients {
        client.await.expect("ends");
    }
}

async fn create_all(engine: &Engine, streams: u64) {
    by_clients(streams, |stream| {
        let engine = engine.clone();
        async move {
            let create = Create::new(name(stream), ContentType::parse("application/json"));
            engine.create(create).await.expect("creates");
        }
    })
    .await;
}

/// Appends all over the streams. Returns how long one took on average, all clients together.
async fn append_all(engine: &Engine, clock: &Arc<dyn Clock>, streams: u64) -> Duration {
    let started = clock.elapsed();
    by_clients(APPENDS, |turn| {
        let engine = engine.clone();
        async move {
            let append = Append::new(
                name(turn.wrapping_mul(7919) % streams),
                ContentType::parse("application/json"),
                Bytes::from_static(b"{\"n\":1}"),
            );
            engine.append(append).await.expect("appends");
        }
    })
    .await;
    (clock.elapsed() - started) / u32::try_from(APPENDS).expect("small")
}

fn subscription(number: u64, pattern: &str) -> Subscribe {
    Subscribe {
        id: SubscriptionId::new(&format!("s-{number}")).expect("an id"),
        pattern: Pattern::new(pattern).ok(),
        streams: Vec::new(),
        delivery: Delivery::Webhook { url: "https://example.com/hook".into() },
        lease_ttl_ms: 600_000,
        description: None,
        base: None,
    }
}

/// One append to a stream that concerns every subscription.
async fn fan_out(engine: &Engine, clock: &Arc<dyn Clock>, subscriptions: u64) {
    let subscribed = clock.elapsed();
    by_clients(subscriptions, |number| {
        let subscriptions = engine.subscriptions();
        async move {
            let config = subscription(1_000_000 + number, "crowd/*");
            subscriptions.put(config).await.expect("subscribes");
        }
    })
    .await;
    println!("{subscriptions} more over one stream in {:?}", clock.elapsed() - subscribed);
    let create = Create::new(
        StreamName::new("crowd/one").expect("a name"),
        ContentType::parse("application/json"),
    );
    engine.create(create).await.expect("creates");
    let pending = engine.metrics().subscriptions_pending.get();
    for what in ["first", "second", "third"] {
        let append = Append::new(
            StreamName::new("crowd/one").expect("a name"),
            ContentType::parse("application/json"),
            Bytes::from_static(b"{\"n\":1}"),
        );
        let started = clock.elapsed();
        engine.append(append).await.expect("appends");
        println!("{what} append to it {:?}", clock.elapsed() - started);
    }
    let started = clock.elapsed();
    let expected = usize::try_from(subscriptions).expect("small");
    for _ in 0..expected {
        engine.subscriptions().next_delivery().await.expect("the store is up");
    }
    println!(
        "{expected} wakes handed out within {:?}; {} more pending",
        clock.elapsed() - started,
        engine.metrics().subscriptions_pending.get() - pending
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().expect("DIR");
    let mut number = || args.next().and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let (streams, subscriptions) = (number(), number());
    let world = weir_io::os::world().expect("inside a runtime");
    let clock = Arc::clone(&world.clock);
    let started = clock.elapsed();
    let engine = Engine::open(world, Config::new(dir), "bench").await.expect("opens");
    println!("opened in {:?}, resident {}", clock.elapsed() - started, resident());
    let had = engine.metrics().subscriptions.get();
    if had > 0 {
        println!("{had} subscriptions, {} pending", engine.metrics().subscriptions_pending.get());
        for what in ["streams not in memory", "streams in memory"] {
            let each = append_all(&engine, &clock, streams).await;
            println!("an append with them, {what} {each:?}");
        }
    } else {
        create_all(&engine, streams).await;
        println!("{streams} streams, resident {}", resident());
        for _ in 0..2 {
            println!("an append without {:?}", append_all(&engine, &clock, streams).await);
        }
        let all = clock.elapsed();
        engine.subscriptions().put(subscription(0, "**")).await.expect("subscribes");
        println!("a pattern over all of them in {:?}", clock.elapsed() - all);
        let id = SubscriptionId::new("s-0").expect("an id");
        engine.subscriptions().delete(&id).await.expect("deletes");

        let made = clock.elapsed();
        by_clients(subscriptions, |number| {
            let subscriptions = engine.subscriptions();
            async move {
                // Two thirds over a tenant each, the others over one stream each.
                let pattern = match number % 3 {
                    0 => format!("tenant/*/{number}"),
                    _ => format!("tenant/{}/**", number % TENANTS),
                };
                subscriptions.put(subscription(number, &pattern)).await.expect("subscribes");
            }
        })
        .await;
        println!("{subscriptions} subscriptions in {:?}", clock.elapsed() - made);
        let before = resident();
        println!("an append, work arising {:?}", append_all(&engine, &clock, streams).await);
        println!("resident {before}, then {}", resident());
        println!("an append, work waiting {:?}", append_all(&engine, &clock, streams).await);
        println!("{} pending", engine.metrics().subscriptions_pending.get());
        fan_out(&engine, &clock, subscriptions).await;
    }
    let closing = clock.elapsed();
    engine.close().await;
    println!(
        "closed in {:?}, resident {}, longest hold {} us",
        clock.elapsed() - closing,
        resident(),
        engine.metrics().writer_hold_max_us.get()
    );
}
