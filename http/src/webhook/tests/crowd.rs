//! Many subscriptions of a real store at one receiver.

use tokio::sync::watch;
use weir_engine::{
    Config, Engine,
    request::{Append, Create},
    subscribe::{Delivery, Pattern, Subscribe, SubscriptionId},
    types::{ContentType, StreamName},
};

use super::{deliver::courier, *};
use crate::{app::Phase, webhook::deliver};

const SLOW: &str = "127.0.0.1:4000";
const SUBSCRIPTIONS: usize = 2000;

/// A receiver that takes long for each answer, and remembers what it was asked.
fn slow_receiver(net: &Net, pause: Duration) -> Receiver {
    let mut listener = net.machine.outbound().listen(socket(SLOW)).expect("free");
    let receiver = Receiver::default();
    let seen = receiver.clone();
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.expect("the network is up");
            let seen = seen.clone();
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                serve(io, Canned::new(200, "{\"done\":true}"), seen).await;
            });
        }
    });
    receiver
}

async fn subscribe(engine: &Engine) {
    for number in 0..SUBSCRIPTIONS {
        let subscribe = Subscribe {
            id: SubscriptionId::new(&number.to_string()).expect("a name"),
            pattern: Pattern::new("a/*").ok(),
            streams: Vec::new(),
            delivery: Delivery::Webhook { url: format!("http://{SLOW}/hook") },
            lease_ttl_ms: 30_000,
            description: None,
            base: None,
        };
        engine.subscriptions().put(subscribe).await.expect("subscribes");
    }
}

async fn append(engine: &Engine) {
    let name = StreamName::new("a/b").expect("a name");
    let create = Create::new(name.clone(), ContentType::parse("text/plain"));
    engine.create(create).await.expect("creates");
    let append = Append::new(name, ContentType::parse("text/plain"), Bytes::from_static(b"work"));
    engine.append(append).await.expect("appends");
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_of_many_fails_none_of_them() {
    // The writer's lane stays on this thread.
    tokio::task::LocalSet::new().run_until(serve_slowly()).await;
}

async fn serve_slowly() {
    let net = Net::new();
    let receiver = slow_receiver(&net, Duration::from_secs(5));
    let engine = Engine::open(net.world.clone(), Config::new("/data/store"), "test").await;
    let engine = engine.expect("opens");
    subscribe(&engine).await;
    let (keys, tokens) = net.keys().await;
    let courier = Arc::new(courier(&net, (&keys, &tokens), Loopback::Allowed));
    let (phase, follow) = watch::channel(Phase::Serving);
    let queue = engine.subscriptions();
    let running = tokio::spawn(deliver::run(courier, queue, follow, Duration::from_secs(4)));
    append(&engine).await;
    // 16 at a time: ten minutes, twenty times a lease.
    for _ in 0..1000 {
        if engine.metrics().subscriptions_pending.get() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let metrics = engine.metrics();
    assert_eq!(metrics.subscriptions_pending.get(), 0);
    let many = u64::try_from(SUBSCRIPTIONS).expect("small");
    assert_eq!(metrics.subscription_wakes.get(), many, "one wake each");
    assert_eq!(metrics.subscription_leases_expired.get(), 0);
    assert_eq!(receiver.seen().len(), SUBSCRIPTIONS, "and one call each");
    for number in 0..SUBSCRIPTIONS {
        let id = SubscriptionId::new(&number.to_string()).expect("a name");
        assert!(!engine.subscriptions().get(&id).await.expect("is there").failing);
    }
    phase.send_replace(Phase::Draining);
    running.await.expect("the loop ends");
    engine.close().await;
}
