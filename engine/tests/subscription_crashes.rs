//! Subscriptions over power cuts, full disks and in numbers: what was answered holds.

mod subscribers;
mod support;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use subscribers::{
    ack, append, claim, contents, create, id, link, name, pull, refused, try_append, try_create,
    view, webhook,
};
use support::{End, live};
use weir_engine::{
    Engine, Health,
    request::Error,
    subscribe::{Delivered, LINKS_LISTED_MAX, Link, LinkType, Refused},
    types::Offset,
};
use weir_io::memory::{Faults, Machine};

/// What a client was told before the power failed.
#[derive(Debug, Default)]
struct Told {
    steps: u32,
    subscribed: bool,
    deleted: bool,
    /// Tails of answered appends, by stream.
    tails: BTreeMap<&'static str, Offset>,
    /// Of answered acks.
    acked: BTreeMap<&'static str, Offset>,
    /// Of acks that were sent.
    sent: BTreeMap<&'static str, Offset>,
    /// The highest one seen.
    generation: u64,
    /// How far the other life has come: see [`call`].
    called: u32,
}

/// Long enough for everything in memory to be folded.
async fn seal() {
    tokio::time::sleep(Duration::from_secs(12)).await;
}

/// A webhook over a stream that goes and comes back, one step at a time.
async fn call(engine: &Engine, told: &RefCell<Told>, round: u32) -> Option<()> {
    let subscriptions = engine.subscriptions();
    match round {
        0 => {
            subscriptions.put(webhook("w", "c/*")).await.ok()?;
            try_create(engine, "c/1", "[1]").await.ok()?;
        }
        1 => {
            let due = subscriptions.next_delivery().await?;
            due.begin().await.ok()??;
            due.finish(Delivered::Done).await.ok()?;
        }
        2 => {
            try_append(engine, "c/1", "{}").await.ok()?;
            let due = subscriptions.next_delivery().await?;
            due.begin().await.ok()??;
            due.finish(Delivered::Failed).await.ok()?;
        }
        3 => {
            engine.delete(&name("c/1")).await.ok()?;
            try_create(engine, "c/1", "[1,2]").await.ok()?;
        }
        _ => {
            subscriptions.delete(&id("w")).await.ok()?;
            subscriptions.put(webhook("w", "c/*")).await.ok()?;
        }
    }
    told.borrow_mut().called = round + 1;
    Some(())
}

/// What must be there of it, unless the step after the last answered one was taken too.
async fn check_called(engine: &Engine, called: u32, cut: u64) {
    if called == 0 {
        return;
    }
    let found = engine.subscriptions().get(&id("w")).await;
    let Ok(found) = found else {
        assert!(called >= 4, "the webhook is gone, cut {cut} after {called}");
        return;
    };
    let link = found.links.listed.first().cloned();
    let Some(link) = link else {
        assert_eq!(called, 3, "only while its stream is gone, cut {cut}");
        return;
    };
    let (acked, tail, pending) = (link.acked.next.get(), link.tail.next.get(), link.has_pending());
    let fresh = link.acked == Offset::START && tail == 2 && pending;
    match called {
        1 => assert!(tail == 1 && acked <= 1, "cut {cut}: {link:?}"),
        2 => assert!(acked == 1 && tail <= 2, "cut {cut}: {link:?}"),
        3 => assert!(fresh || (acked == 1 && tail == 2 && found.failing), "cut {cut}: {link:?}"),
        4 => assert!(fresh || !pending, "cut {cut}: {link:?}"),
        _ => assert!(!pending && tail == 2, "made anew at the tail, cut {cut}: {link:?}"),
    }
}

/// Works until the power fails.
async fn work(engine: &Engine, told: &RefCell<Told>) -> Option<()> {
    let subscriptions = engine.subscriptions();
    let step = || told.borrow_mut().steps += 1;
    try_create(engine, "wakes", "").await.ok()?;
    try_create(engine, "a", "[1]").await.ok()?;
    try_create(engine, "b", "[1]").await.ok()?;
    subscriptions.put(pull("s", Some("*"), &["b"])).await.ok()?;
    told.borrow_mut().subscribed = true;
    step();
    for round in 0..5 {
        call(engine, told, round).await?;
        for stream in ["a", "b"] {
            let tail = try_append(engine, stream, "{}").await.ok()?;
            told.borrow_mut().tails.insert(stream, tail);
            step();
        }
        if round == 2 {
            seal().await;
        }
        let wake = subscriptions.claim(&id("s"), "w").await.ok()?;
        assert!(wake.generation > told.borrow().generation, "a generation was used twice");
        told.borrow_mut().generation = wake.generation;
        step();
        for (stream, done) in [("a", false), ("b", true)] {
            // One record is left over now and then.
            let tail = told.borrow().tails[stream];
            told.borrow_mut().sent.insert(stream, tail);
            ack(engine, "s", &wake, &[(stream, tail)], done).await.ok()?;
            told.borrow_mut().acked.insert(stream, tail);
            step();
        }
        if round == 3 {
            seal().await;
        }
    }
    subscriptions.remove(&id("s"), &name("b")).await.ok()?;
    step();
    subscriptions.delete(&id("s")).await.ok()?;
    told.borrow_mut().deleted = true;
    step();
    seal().await;
    step();
    Some(())
}

fn check(links: &[Link], told: &Told, cut: u64) {
    for stream in ["a", "b"] {
        let Some(link) = links.iter().find(|link| link.path == name(stream)) else {
            panic!("{stream} is not linked, cut {cut}: {told:?}");
        };
        if let Some(tail) = told.tails.get(stream) {
            assert!(link.tail >= *tail, "{stream} misses a write, cut {cut}: {link:?} {told:?}");
        }
        if let Some(acked) = told.acked.get(stream) {
            assert!(link.acked >= *acked, "{stream} forgot an ack, cut {cut}: {link:?} {told:?}");
        }
        // Linked at the tail of one record, so nothing but acks moves it on.
        let most = told.sent.get(stream).map_or(1, |sent| sent.next.get());
        assert!(link.acked.next.get() <= most, "{stream} skips, cut {cut}: {link:?} {told:?}");
    }
}

#[test]
fn answered_acks_hold_and_no_work_is_lost_whenever_the_power_fails() {
    let mut reached = BTreeSet::new();
    for cut in (1..360).step_by(2) {
        let machine = Machine::new(4000 + cut);
        let told = RefCell::new(Told::default());
        live(&machine, End::PowerCut, async |engine| {
            machine.drive().kill_in(cut);
            // The machine may be dead: then nothing goes on.
            drop(tokio::time::timeout(Duration::from_secs(600), work(&engine, &told)).await);
        });
        let told = told.into_inner();
        reached.insert(told.steps);
        let mut before = None;
        for end in [End::PowerCut, End::Clean, End::PowerCut] {
            live(&machine, end, async |engine| {
                check_called(&engine, told.called, cut).await;
                let found = engine.subscriptions().get(&id("s")).await;
                let found = match found {
                    Ok(found) => found,
                    Err(error) => {
                        assert_eq!(refused(error), Refused::NotFound);
                        assert!(!told.subscribed || told.steps > 26, "cut {cut}: {told:?}");
                        return;
                    }
                };
                assert!(!told.deleted, "deleted, and back, cut {cut}");
                if told.subscribed {
                    check(&found.links.listed, &told, cut);
                }
                let links = found.links;
                let same = before.replace(links.clone()).is_none_or(|before| before == links);
                assert!(same, "a restart changed the links, cut {cut}");
                let pending = links.pending;
                if end == End::Clean && pending > 0 {
                    // A lease of the life before may have to end first.
                    tokio::time::sleep(Duration::from_secs(31)).await;
                    let wake = claim(&engine, "s").await;
                    assert!(wake.generation > told.generation, "cut {cut}: {told:?}");
                    assert_eq!(wake.links.pending, pending);
                }
            });
        }
    }
    assert!(reached.len() >= 15, "the power failed at too few moments: {reached:?}");
}

#[test]
fn a_full_disk_leaves_nothing_half_done_and_no_wake_is_lost() {
    let machine = Machine::new(2);
    live(&machine, End::PowerCut, async |engine| {
        let subscriptions = engine.subscriptions();
        create(&engine, "wakes", "").await;
        create(&engine, "a", "").await;
        subscriptions.put(pull("s", Some("a"), &[])).await.expect("subscribes");
        let tail = append(&engine, "a").await;
        let wake = claim(&engine, "s").await;
        let capacity_bytes = Some(machine.drive().used_bytes() + (128 << 10));
        machine.drive().set_faults(Faults { capacity_bytes, ..Faults::default() });
        let body = format!("\"{}\"", "b".repeat(1 << 20));
        let refused = try_append(&engine, "a", &body).await;
        assert!(matches!(refused, Err(Error::DiskFull)), "{refused:?}");
        let other = subscriptions.put(pull("t", Some("*"), &[])).await;
        assert!(matches!(other, Err(Error::DiskFull)), "{other:?}");
        let late = subscriptions.claim(&id("s"), "v").await;
        assert!(matches!(late, Err(Error::Refused(Refused::AlreadyClaimed { .. }))));
        assert_eq!(link(&engine, "s", "a").await.expect("matches").tail, tail);
        // The lease ends while nothing can be written.
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(view(&engine, "s").await.links.pending, 1);

        machine.drive().set_faults(Faults::default());
        while engine.health() != Health::Serving {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let events = contents(&engine, "wakes").await;
        let last = events.last().expect("announced")["generation"].as_u64();
        assert!(last > Some(wake.generation), "the work is announced again: {events:?}");
        let gone = engine.subscriptions().get(&id("t")).await;
        assert_eq!(refused_of(gone), Refused::NotFound);
    });
}

fn refused_of<T: std::fmt::Debug>(answer: Result<T, Error>) -> Refused {
    refused(answer.expect_err("is refused"))
}

#[test]
fn ten_thousand_subscriptions_are_woken_by_one_append_in_a_few_commits() {
    const MANY: u32 = 10_000;
    let machine = Machine::new(3);
    live(&machine, End::Clean, async |engine| {
        let subscriptions = engine.subscriptions();
        create(&engine, "a/b", "").await;
        for number in 0..MANY {
            let pattern = if number % 2 == 0 { "a/*" } else { "**" };
            subscriptions
                .put(webhook(&format!("s/{number}").replace('/', "-"), pattern))
                .await
                .expect("subscribes");
        }
        let before = engine.metrics().commits.get();
        append(&engine, "a/b").await;
        let mut called = BTreeSet::new();
        while called.len() < usize::try_from(MANY).expect("small") {
            let call = subscriptions.next_delivery().await.expect("the store is up");
            assert!(called.insert(call.subscription.clone()), "each is called once");
            assert!(call.begin().await.expect("takes writes").is_some(), "there is work");
            if called.len() % 1000 == 0 {
                call.finish(Delivered::Done).await.expect("acks");
            }
        }
        let commits = engine.metrics().commits.get() - before;
        assert!(commits < 100, "{commits} commits");
        assert_eq!(engine.metrics().subscriptions.get(), i64::from(MANY));
        assert_eq!(engine.metrics().subscriptions_pending.get(), i64::from(MANY) - 10);
    });
    live(&machine, End::PowerCut, async |engine| {
        assert_eq!(engine.metrics().subscriptions.get(), i64::from(MANY));
        assert_eq!(engine.metrics().subscriptions_pending.get(), i64::from(MANY) - 10);
    });
}

#[test]
fn a_list_is_bounded_and_shows_work_first() {
    let machine = Machine::new(5);
    live(&machine, End::PowerCut, async |engine| {
        for stream in 0..1500 {
            create(&engine, &format!("s/{stream:04}"), "").await;
        }
        let subscriptions = engine.subscriptions();
        subscriptions.put(pull("s", Some("s/*"), &["s/0700"])).await.expect("subscribes");
        append(&engine, "s/1400").await;
        let links = view(&engine, "s").await.links;
        assert_eq!((links.listed.len(), links.pending), (LINKS_LISTED_MAX, 1));
        assert_eq!(links.listed[0].path, name("s/1400"));
        assert_eq!(links.listed[1].path, name("s/0700"));
        assert_eq!(links.listed[1].kind, LinkType::Explicit);
        assert_eq!(links.listed[2].path, name("s/0000"));
        for stream in 0..1200 {
            append(&engine, &format!("s/{stream:04}")).await;
        }
        let wake = claim(&engine, "s").await;
        assert_eq!((wake.links.listed.len(), wake.links.pending), (LINKS_LISTED_MAX, 1201));
    });
}

#[test]
fn a_request_that_is_dropped_does_not_let_another_decide_on_the_same_state() {
    let machine = Machine::new(6);
    live(&machine, End::Clean, async |engine| {
        let subscriptions = engine.subscriptions();
        create(&engine, "a", "").await;
        subscriptions.put(pull("s", Some("a"), &[])).await.expect("subscribes");
        append(&engine, "a").await;
        // The wake is written first, so that nobody has the turn.
        tokio::time::sleep(Duration::from_millis(50)).await;
        // Polled once, so that it is decided; then its client goes away.
        let dropped = id("s");
        let mut first = Box::pin(subscriptions.claim(&dropped, "gone"));
        let decided = std::future::poll_fn(|context| {
            std::task::Poll::Ready(first.as_mut().poll(context).is_ready())
        });
        assert!(!decided.await, "it waits for its commit");
        drop(first);
        let second = subscriptions.claim(&id("s"), "w").await;
        let second = refused(second.expect_err("the dropped one holds it"));
        assert_eq!(second, Refused::AlreadyClaimed { holder: "gone".into(), generation: 1 });
    });
}
