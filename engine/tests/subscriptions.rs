//! Subscriptions on the simulated machine: what links, wakes and leases do, and what of them
//! survives.

mod subscribers;
mod support;
mod webhooks;

use std::time::Duration;

use subscribers::{
    ack, append, claim, contents, create, credential, id, link, name, pull, refused, report, view,
    webhook,
};
use support::{End, live};
use weir_engine::{
    Engine,
    subscribe::{Delivered, Due, LinkType, Pattern, Refused, Standing, Subscribe, Via},
    types::Offset,
};
use weir_io::memory::Machine;

async fn wait_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// The webhook that is due by now.
async fn due(engine: &Engine) -> Due {
    let subscriptions = engine.subscriptions();
    let next = tokio::time::timeout(Duration::from_millis(100), subscriptions.next_delivery());
    next.await.expect("something is due").expect("the store is up")
}

#[test]
fn streams_are_linked_at_their_tails_and_appends_make_work() {
    let machine = Machine::new(1);
    live(&machine, End::PowerCut, async |engine| {
        create(&engine, "a/1", "[1,2]").await;
        create(&engine, "b", "[1]").await;
        let made = engine.subscriptions().put(pull("s", Some("a/*"), &["b"])).await;
        let made = made.expect("subscribes");
        assert!(made.new);
        assert_eq!(made.subscription.links.pending, 0);
        assert_eq!(made.subscription.links.listed.len(), 2);
        let glob = link(&engine, "s", "a/1").await.expect("matches");
        let named = link(&engine, "s", "b").await.expect("is named");
        assert_eq!((glob.kind, named.kind), (LinkType::Glob, LinkType::Explicit));
        assert_eq!((glob.acked, named.acked), (glob.tail, named.tail));

        let tail = append(&engine, "a/1").await;
        let after = link(&engine, "s", "a/1").await.expect("matches");
        assert_eq!((after.acked, after.tail), (glob.tail, tail));
        assert_eq!(view(&engine, "s").await.links.pending, 1);
    });
    live(&machine, End::Clean, async |engine| {
        let after = link(&engine, "s", "a/1").await.expect("matches");
        assert!(after.has_pending(), "work survives a power cut");
    });
    live(&machine, End::Clean, async |engine| {
        assert!(link(&engine, "s", "a/1").await.expect("matches").has_pending(), "and a fold");
        assert!(!link(&engine, "s", "b").await.expect("is named").has_pending());
    });
}

#[test]
fn a_stream_that_comes_to_match_is_pending_from_its_first_record() {
    let machine = Machine::new(2);
    live(&machine, End::Clean, async |engine| {
        engine.subscriptions().put(pull("s", Some("**"), &["later"])).await.expect("subscribes");
        create(&engine, "empty", "").await;
        assert_eq!(view(&engine, "s").await.links.pending, 0, "an empty stream wakes nobody");
        create(&engine, "with/body", "[1]").await;
        let fresh = link(&engine, "s", "with/body").await.expect("matches");
        assert_eq!(fresh.acked, Offset::START);
        assert!(fresh.has_pending());
        let missing = link(&engine, "s", "later").await.expect("is named");
        assert_eq!((missing.acked, missing.tail), (Offset::START, Offset::START));
        create(&engine, "later", "[1]").await;
        let there = link(&engine, "s", "later").await.expect("is named");
        assert_eq!(there.acked, Offset::START);
        assert!(there.has_pending());
        assert_eq!(there.kind, LinkType::Explicit, "named wins over matching");
    });
}

#[test]
fn a_recreated_stream_starts_anew() {
    let machine = Machine::new(3);
    live(&machine, End::Clean, async |engine| {
        create(&engine, "b", "[1,2,3]").await;
        engine.subscriptions().put(pull("s", Some("b"), &[])).await.expect("subscribes");
        engine.subscriptions().put(pull("t", None, &["b"])).await.expect("subscribes");
        append(&engine, "b").await;
        engine.delete(&name("b")).await.expect("deletes");
        assert_eq!(view(&engine, "s").await.links.listed, [], "a match ends with its stream");
        let kept = link(&engine, "t", "b").await.expect("is named");
        assert_eq!((kept.acked, kept.has_pending()), (Offset::START, false));
        create(&engine, "b", "[4]").await;
        for subscription in ["s", "t"] {
            let anew = link(&engine, subscription, "b").await.expect("is linked");
            assert_eq!(anew.acked, Offset::START, "{subscription}");
            assert!(anew.has_pending(), "{subscription}");
        }
    });
}

#[test]
fn a_put_confirms_the_same_and_refuses_another() {
    let machine = Machine::new(4);
    for end in [End::Clean, End::PowerCut] {
        live(&machine, end, async |engine| {
            let subscriptions = engine.subscriptions();
            subscriptions.put(pull("s", Some("a/*"), &["b"])).await.expect("subscribes");
            let again = subscriptions.put(pull("s", Some("a/*"), &["b"])).await;
            assert!(!again.expect("confirms").new);
            let other = subscriptions.put(pull("s", Some("a/**"), &["b"])).await;
            assert_eq!(refused(other.expect_err("differs")), Refused::Exists);
            let lease = Subscribe { lease_ttl_ms: 1000, ..pull("s", Some("a/*"), &["b"]) };
            assert_eq!(subscriptions.compare(&lease), Standing::Taken);
            let other = subscriptions.put(lease).await;
            assert_eq!(refused(other.expect_err("differs")), Refused::Exists);
            let standing = |asked: &Subscribe| subscriptions.compare(asked);
            assert_eq!(standing(&pull("s", Some("a/*"), &["b"])), Standing::Same);
            assert_eq!(standing(&pull("t", Some("a/*"), &["b"])), Standing::Free);
        });
    }
}

#[test]
fn a_webhook_knows_where_its_maker_saw_the_server() {
    let machine = Machine::new(20);
    let by = |base: &str| Subscribe { base: Some(base.into()), ..webhook("s", "a") };
    // From the log, from a row, and from a row once more.
    for (life, end) in [End::PowerCut, End::Clean, End::Clean].into_iter().enumerate() {
        live(&machine, end, async |engine| {
            let subscriptions = engine.subscriptions();
            if life == 0 {
                create(&engine, "a", "").await;
                subscriptions.put(by("https://out.example")).await.expect("subscribes");
            }
            for another in [by("http://in:1"), webhook("s", "a")] {
                assert!(!subscriptions.put(another).await.expect("confirms").new);
            }
            append(&engine, "a").await;
            let due = due(&engine).await;
            assert_eq!(due.base.as_deref(), Some("https://out.example"));
            due.finish(Delivered::Done).await.expect("is under way");
        });
    }
}

#[test]
fn names_are_added_and_removed_and_what_matches_stays() {
    let machine = Machine::new(5);
    live(&machine, End::PowerCut, async |engine| {
        let subscriptions = engine.subscriptions();
        create(&engine, "a", "[1]").await;
        create(&engine, "b", "[1]").await;
        subscriptions.put(pull("s", Some("a"), &[])).await.expect("subscribes");
        append(&engine, "a").await;
        let streams = vec![name("a"), name("b"), name("missing")];
        subscriptions.add(&id("s"), streams.clone()).await.expect("links");
        subscriptions.add(&id("s"), streams).await.expect("links again");
        let kept = link(&engine, "s", "a").await.expect("is linked");
        assert_eq!(kept.kind, LinkType::Explicit);
        assert!(kept.has_pending(), "what was there keeps its place");
        assert!(!link(&engine, "s", "b").await.expect("is linked").has_pending());
        append(&engine, "b").await;
        assert!(link(&engine, "s", "b").await.expect("is linked").has_pending());
        for stream in ["a", "b", "never"] {
            subscriptions.remove(&id("s"), &name(stream)).await.expect("unlinks");
        }
        assert_eq!(link(&engine, "s", "b").await, None);
        let matching = link(&engine, "s", "a").await.expect("matches");
        assert_eq!((matching.kind, matching.has_pending()), (LinkType::Glob, true));
    });
    live(&machine, End::PowerCut, async |engine| {
        append(&engine, "b").await;
        append(&engine, "a").await;
        assert_eq!(link(&engine, "s", "b").await, None);
        assert_eq!(view(&engine, "s").await.links.pending, 1);
        assert!(link(&engine, "s", "missing").await.is_some());
        let nowhere = engine.subscriptions().add(&id("t"), vec![name("a")]).await;
        assert_eq!(refused(nowhere.expect_err("none")), Refused::NotFound);
    });
}

#[test]
fn work_is_claimed_acknowledged_and_released() {
    let machine = Machine::new(6);
    live(&machine, End::Clean, async |engine| {
        let subscriptions = engine.subscriptions();
        create(&engine, "a", "").await;
        create(&engine, "wakes", "").await;
        subscriptions.put(pull("s", Some("**"), &[])).await.expect("subscribes");
        let none = subscriptions.claim(&id("s"), "w").await;
        assert_eq!(refused(none.expect_err("no work")), Refused::NoPendingWork);
        let first = append(&engine, "a").await;
        let wake = claim(&engine, "s").await;
        assert_eq!((wake.generation, wake.lease_ttl_ms, wake.links.pending), (1, 30_000, 1));
        assert_eq!(wake.links.listed[0].tail, first);
        let busy = refused(subscriptions.claim(&id("s"), "v").await.expect_err("is held"));
        assert_eq!(busy, Refused::AlreadyClaimed { holder: "worker".into(), generation: 1 });

        let second = append(&engine, "a").await;
        let beyond = Offset { next: second.next.after(1), ..second };
        for (offset, what) in [(beyond, "beyond"), (Offset::START, "start")] {
            let bad = ack(&engine, "s", &wake, &[("a", first), ("a", offset)], true).await;
            assert!(matches!(bad, Err(Refused::InvalidOffset { .. })), "{what}: {bad:?}");
        }
        let unlinked = ack(&engine, "s", &wake, &[("nowhere", first)], true).await;
        assert!(matches!(unlinked, Err(Refused::InvalidOffset { .. })), "{unlinked:?}");
        let kept = link(&engine, "s", "a").await.expect("matches");
        assert_eq!(kept.acked, Offset::START, "invalid acks change nothing");

        let beat = ack(&engine, "s", &wake, &[("a", first)], false).await.expect("acks");
        assert!(!beat.next_wake);
        assert_eq!(link(&engine, "s", "a").await.expect("matches").acked, first);
        let again = ack(&engine, "s", &wake, &[("a", first)], false).await;
        assert!(again.is_ok(), "what is acknowledged may be acknowledged again");
        let done = ack(&engine, "s", &wake, &[], true).await.expect("ends");
        assert!(done.next_wake, "the second record is still to do");
        let late = ack(&engine, "s", &wake, &[("a", second)], true).await;
        assert_eq!(late, Err(Refused::Fenced));

        let wake = claim(&engine, "s").await;
        let generation = wake.generation;
        subscriptions
            .release(&id("s"), credential(&wake), wake.wake_id, generation)
            .await
            .expect("releases");
        let wake = claim(&engine, "s").await;
        let regress = Offset { next: weir_engine::types::Seq::ZERO.after(0), ..first };
        let bad = ack(&engine, "s", &wake, &[("a", regress)], false).await;
        assert!(matches!(bad, Err(Refused::InvalidOffset { .. })));
        let done = ack(&engine, "s", &wake, &[("a", second)], true).await.expect("ends");
        assert!(!done.next_wake);
        let quiet = link(&engine, "s", "a").await.expect("matches");
        assert_eq!((quiet.acked, quiet.tail), (second, second));
    });
}

#[test]
fn a_stream_without_work_is_acknowledged_at_its_tail_only() {
    let machine = Machine::new(7);
    live(&machine, End::Clean, async |engine| {
        create(&engine, "quiet", "[1,2]").await;
        create(&engine, "busy", "").await;
        engine.subscriptions().put(pull("s", Some("*"), &[])).await.expect("subscribes");
        let tail = append(&engine, "busy").await;
        let quiet = link(&engine, "s", "quiet").await.expect("matches").tail;
        let wake = claim(&engine, "s").await;
        let half = Offset { next: weir_engine::types::Seq::new(1), ..quiet };
        let bad = ack(&engine, "s", &wake, &[("busy", tail), ("quiet", half)], true).await;
        assert!(matches!(bad, Err(Refused::InvalidOffset { .. })), "{bad:?}");
        assert_eq!(view(&engine, "s").await.links.pending, 1, "none was applied");
        let good = ack(&engine, "s", &wake, &[("busy", tail), ("quiet", quiet)], true).await;
        assert_eq!(good.map(|it| it.next_wake), Ok(false));
    });
    // None of them is in memory any more.
    live(&machine, End::Clean, async |engine| {
        let tail = append(&engine, "busy").await;
        let quiet = link(&engine, "s", "quiet").await.expect("matches").tail;
        let wake = claim(&engine, "s").await;
        let half = Offset { next: weir_engine::types::Seq::new(1), ..quiet };
        for (stream, offset) in [("quiet", half), ("missing", quiet)] {
            let bad = ack(&engine, "s", &wake, &[("busy", tail), (stream, offset)], true).await;
            assert!(matches!(bad, Err(Refused::InvalidOffset { .. })), "{stream}: {bad:?}");
        }
        let good = ack(&engine, "s", &wake, &[("busy", tail), ("quiet", quiet)], true).await;
        assert_eq!(good.map(|it| it.next_wake), Ok(false));
    });
}

#[test]
fn wakes_are_announced_and_what_nobody_claims_is_announced_again() {
    let machine = Machine::new(8);
    live(&machine, End::Clean, async |engine| {
        create(&engine, "wakes", "").await;
        create(&engine, "a", "").await;
        engine.subscriptions().put(pull("s\"1", Some("**"), &[])).await.expect("subscribes");
        append(&engine, "a").await;
        wait_ms(100).await;
        let events = contents(&engine, "wakes").await;
        assert_eq!(events.len(), 1, "its own wakes wake it not: {events:?}");
        let event = events[0].as_object().expect("an object");
        assert_eq!(event["type"], "wake");
        assert_eq!(event["subscription_id"], "s\"1");
        assert_eq!(event["stream"], "a");
        assert_eq!(event["generation"], 1);
        assert!(event["ts"].is_u64());
        wait_ms(30_000).await;
        assert_eq!(contents(&engine, "wakes").await.len(), 2, "after a lease's time");
        wait_ms(3_600_000).await;
        let hour = contents(&engine, "wakes").await.len();
        assert!((9..14).contains(&hour), "ever more rarely: {hour}");
        let wake = claim(&engine, "s\"1").await;
        assert_eq!(usize::try_from(wake.generation), Ok(hour), "every announcement counts");
    });
}

#[test]
fn a_wake_without_a_stream_for_it_can_still_be_claimed() {
    let machine = Machine::new(9);
    live(&machine, End::PowerCut, async |engine| {
        engine.subscriptions().put(pull("s", Some("a"), &[])).await.expect("subscribes");
        create(&engine, "a", "[1]").await;
        wait_ms(100).await;
        assert_eq!(claim(&engine, "s").await.generation, 1);
    });
}

#[test]
fn a_lease_ends_and_the_next_holder_has_a_higher_generation() {
    let machine = Machine::new(10);
    live(&machine, End::Clean, async |engine| {
        create(&engine, "wakes", "").await;
        create(&engine, "a", "").await;
        engine.subscriptions().put(pull("s", Some("a"), &[])).await.expect("subscribes");
        let tail = append(&engine, "a").await;
        let wake = claim(&engine, "s").await;
        for _ in 0..3 {
            wait_ms(29_000).await;
            ack(&engine, "s", &wake, &[], false).await.expect("heartbeats extend the lease");
        }
        wait_ms(30_100).await;
        let late = ack(&engine, "s", &wake, &[("a", tail)], true).await;
        assert_eq!(late, Err(Refused::Fenced));
        let events = contents(&engine, "wakes").await;
        let last = events.last().expect("announced")["generation"].as_u64().expect("a number");
        assert!(last > wake.generation, "the work is announced again");
        let next = claim(&engine, "s").await;
        assert_eq!(next.generation, last);
        assert_ne!(next.wake_id, wake.wake_id);
        assert!(ack(&engine, "s", &next, &[("a", tail)], true).await.is_ok());
        assert_eq!(engine.metrics().subscription_leases_expired.get(), 1);
    });
}

#[test]
fn a_deleted_subscription_is_gone_and_its_name_is_free() {
    let machine = Machine::new(14);
    live(&machine, End::PowerCut, async |engine| {
        let subscriptions = engine.subscriptions();
        create(&engine, "a", "").await;
        subscriptions.put(pull("s", Some("*"), &[])).await.expect("subscribes");
        append(&engine, "a").await;
        let wake = claim(&engine, "s").await;
        subscriptions.delete(&id("s")).await.expect("deletes");
        subscriptions.delete(&id("s")).await.expect("deletes nothing");
        assert_eq!(ack(&engine, "s", &wake, &[], true).await, Err(Refused::NotFound));
        let anew = subscriptions.put(pull("s", Some("**"), &[])).await.expect("subscribes");
        assert!(anew.new);
        assert_eq!(anew.subscription.links.pending, 0, "linked at the tail");
        let old = ack(&engine, "s", &wake, &[], true).await;
        assert_eq!(old, Err(Refused::Fenced), "a token of its predecessor");
        append(&engine, "a").await;
    });
    live(&machine, End::PowerCut, async |engine| {
        assert_eq!(view(&engine, "s").await.links.pending, 1);
        let pattern = view(&engine, "s").await.config.pattern.clone();
        assert_eq!(pattern, Pattern::new("**").ok());
    });
}

#[test]
fn each_kind_refuses_the_others_ways() {
    let machine = Machine::new(15);
    live(&machine, End::Clean, async |engine| {
        let subscriptions = engine.subscriptions();
        create(&engine, "a", "").await;
        subscriptions.put(pull("p", Some("*"), &[])).await.expect("subscribes");
        subscriptions.put(webhook("w", "*")).await.expect("subscribes");
        append(&engine, "a").await;
        let claimed = subscriptions.claim(&id("w"), "x").await;
        assert!(matches!(refused(claimed.expect_err("a webhook")), Refused::WrongType(_)));
        let wake = claim(&engine, "p").await;
        let called = subscriptions.report(&id("p"), Via::Callback, report(&wake, &[], true)).await;
        assert!(matches!(refused(called.expect_err("no callback")), Refused::WrongType(_)));
        let missing = subscriptions.claim(&id("nobody"), "x").await;
        assert_eq!(refused(missing.expect_err("none")), Refused::NotFound);
    });
}
