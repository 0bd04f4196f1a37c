//! What a wake stream says, and rounds in which somebody else has a turn.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use weir_io::memory::Machine;

use super::super::{
    Delivery, Due, Subscriptions,
    glob::Pattern,
    request::{Subscribe, SubscriptionId},
};
use crate::{
    Config, Engine,
    request::Create,
    types::{ContentType, StreamName},
};

#[test]
fn an_event_quotes_what_clients_may_name() {
    for text in ["plain", "a\"b\\c", "\u{85}é🦀/x", "\\\""] {
        let mut quoted = String::new();
        super::put_quoted(text, &mut quoted);
        let read: String = serde_json::from_str(&quoted).expect("valid JSON");
        assert_eq!(read, text);
    }
}

async fn due(subscriptions: &Subscriptions, ms: u64) -> Option<Due> {
    let next = tokio::time::timeout(Duration::from_millis(ms), subscriptions.next_delivery());
    next.await.ok().flatten()
}

#[tokio::test(start_paused = true)]
async fn whoever_has_a_turn_keeps_no_other_subscription_waiting() {
    // The writer's lane stays on this thread.
    tokio::task::LocalSet::new().run_until(keep_a_turn()).await;
}

async fn keep_a_turn() {
    let machine = Machine::new(1);
    let world = machine.boot(Duration::ZERO);
    let engine = Engine::open(world, Config::new("/data/store"), "test").await.expect("opens");
    let subscriptions = engine.subscriptions();
    let id = |text| SubscriptionId::new(text).expect("a good id");
    for name in ["busy", "free"] {
        let subscribe = Subscribe {
            id: id(name),
            pattern: Pattern::new("**").ok(),
            streams: Vec::new(),
            delivery: Delivery::Webhook { url: "https://example.com".to_owned() },
            lease_ttl_ms: 30_000,
            description: None,
            base: None,
        };
        subscriptions.put(subscribe).await.expect("subscribes");
    }
    let busy = subscriptions.core.subscriptions.find(&id("busy")).expect("is there");
    let turn = Arc::clone(&busy.turn).lock_owned().await;
    let create = Create {
        body: Bytes::from_static(b"work"),
        ..Create::new(StreamName::new("a").expect("a good name"), ContentType::parse("text/plain"))
    };
    engine.create(create).await.expect("creates");
    let first = due(&subscriptions, 1000).await.expect("the other one is due");
    assert_eq!(first.subscription, id("free"));
    assert!(due(&subscriptions, 60_000).await.is_none(), "as long as it takes");
    drop(turn);
    let second = due(&subscriptions, 100).await.expect("its turn is over");
    assert_eq!(second.subscription, id("busy"));
    drop((first, second));
    engine.close().await;
}
