//! Webhooks as their deliverer sees them: handed out, waiting, called, tried again, given up.

use std::time::Duration;

use weir_engine::{
    Engine,
    request::Error,
    subscribe::{Delivered, Due, Refused, Via, Wake},
};
use weir_io::memory::Machine;

use crate::{
    subscribers::{append, create, id, name, refused, report, view, webhook},
    support::{End, live},
    wait_ms,
};

/// A webhook whose call has begun.
struct Call {
    due: Due,
    wake: Wake,
}

impl Call {
    async fn finish(self, delivered: Delivered) -> Result<(), Error> {
        self.due.finish(delivered).await
    }
}

impl std::ops::Deref for Call {
    type Target = Due;

    fn deref(&self) -> &Due {
        &self.due
    }
}

/// The webhook that is due by now, being called.
async fn due(engine: &Engine) -> Call {
    due_within(engine, 100).await
}

async fn due_within(engine: &Engine, ms: u64) -> Call {
    let due = waiting(engine, ms).await;
    let wake = due.begin().await.expect("takes writes").expect("there is work");
    Call { due, wake }
}

/// The webhook that is due within this time, not called yet.
async fn waiting(engine: &Engine, ms: u64) -> Due {
    let subscriptions = engine.subscriptions();
    let next = tokio::time::timeout(Duration::from_millis(ms), subscriptions.next_delivery());
    next.await.expect("something is due").expect("the store is up")
}

async fn nothing_is_due(engine: &Engine) {
    let subscriptions = engine.subscriptions();
    let next = tokio::time::timeout(Duration::from_millis(100), subscriptions.next_delivery());
    assert!(next.await.is_err(), "nothing is due");
}

#[test]
fn a_webhook_is_handed_out_once_and_done_acknowledges_what_was_listed() {
    let machine = Machine::new(11);
    live(&machine, End::Clean, async |engine| {
        create(&engine, "a", "").await;
        create(&engine, "b", "").await;
        engine.subscriptions().put(webhook("s", "*")).await.expect("subscribes");
        nothing_is_due(&engine).await;
        let first = append(&engine, "a").await;
        let call = due(&engine).await;
        assert_eq!(
            (call.subscription.as_str(), call.url.as_str()),
            ("s", "https://example.com/hook")
        );
        assert_eq!((call.wake.generation, call.failures), (1, 0));
        assert_eq!((call.wake.links.pending, call.wake.links.listed[0].tail), (1, first));
        nothing_is_due(&engine).await;
        append(&engine, "a").await;
        append(&engine, "b").await;
        nothing_is_due(&engine).await;
        call.finish(Delivered::Done).await.expect("acks");
        let next = due(&engine).await;
        assert_eq!((next.wake.generation, next.wake.links.pending), (2, 2));
        let rest = next.wake.links.listed.iter().find(|it| it.path == name("a")).expect("a");
        assert_eq!(rest.acked, first, "no more than what was listed");
        next.finish(Delivered::Done).await.expect("acks");
        nothing_is_due(&engine).await;
        assert_eq!(view(&engine, "s").await.links.pending, 0);
    });
}

#[test]
fn a_failing_webhook_is_tried_again_on_schedule_across_a_restart() {
    let machine = Machine::new(12);
    let mut first = None;
    live(&machine, End::PowerCut, async |engine| {
        create(&engine, "a", "").await;
        engine.subscriptions().put(webhook("s", "*")).await.expect("subscribes");
        append(&engine, "a").await;
        let call = due(&engine).await;
        first = Some(call.wake.wake_id);
        call.finish(Delivered::Failed).await.expect("noted");
        assert!(view(&engine, "s").await.failing);
        wait_ms(690).await;
        nothing_is_due(&engine).await;
        wait_ms(410).await;
        let again = due(&engine).await;
        assert_eq!((again.wake.generation, again.failures), (1, 1));
        again.finish(Delivered::Failed).await.expect("noted");
    });
    live(&machine, End::PowerCut, async |engine| {
        wait_ms(1400).await;
        nothing_is_due(&engine).await;
        wait_ms(1000).await;
        let again = due(&engine).await;
        assert_eq!((again.wake.generation, again.failures), (1, 2), "the same wake");
        assert_eq!(Some(again.wake.wake_id), first);
        // Power fails while it is out.
        std::mem::forget(again);
    });
    live(&machine, End::Clean, async |engine| {
        // The store's time goes on from the last commit: up to the whole wait is left.
        let again = due_within(&engine, 2500).await;
        assert_eq!((again.wake.generation, again.failures), (1, 2), "at least once");
        again.finish(Delivered::Accepted).await.expect("noted");
        assert!(!view(&engine, "s").await.failing, "a success ends it");
        wait_ms(29_000).await;
        nothing_is_due(&engine).await;
        wait_ms(1000).await;
        let next = due(&engine).await;
        assert_eq!((next.wake.generation, next.failures), (2, 0), "the worker was silent");
    });
}

#[test]
fn a_delivery_is_given_up_when_its_wake_is_over() {
    let machine = Machine::new(13);
    live(&machine, End::Clean, async |engine| {
        let subscriptions = engine.subscriptions();
        create(&engine, "a", "").await;
        subscriptions.put(webhook("s", "*")).await.expect("subscribes");
        let tail = append(&engine, "a").await;
        // The worker calls back before it answers.
        let call = due(&engine).await;
        let beat = report(&call.wake, &[], false);
        subscriptions.report(&id("s"), Via::Callback, beat).await.expect("is heard");
        let over = tokio::time::timeout(Duration::from_secs(5), call.superseded());
        assert!(over.await.is_err(), "a heartbeat is no end");
        let last = report(&call.wake, &[("a", tail)], true);
        subscriptions.report(&id("s"), Via::Callback, last).await.expect("is heard");
        call.superseded().await;
        let late = call.finish(Delivered::Done).await;
        assert_eq!(refused(late.expect_err("is over")), Refused::Fenced);

        // The receiver hangs until the lease is over.
        append(&engine, "a").await;
        let call = due(&engine).await;
        let hung = tokio::time::timeout(Duration::from_millis(30_100), call.superseded());
        hung.await.expect("the lease ends");
        let next = due_within(&engine, 1300).await;
        assert!(next.wake.generation > call.wake.generation);
        assert!(view(&engine, "s").await.failing);

        // The subscription goes.
        subscriptions.delete(&id("s")).await.expect("deletes");
        next.superseded().await;
        let gone = next.finish(Delivered::Accepted).await;
        assert_eq!(refused(gone.expect_err("is gone")), Refused::Fenced);
        nothing_is_due(&engine).await;
    });
}

#[test]
fn a_webhook_may_wait_for_its_receiver_as_long_as_it_takes() {
    let machine = Machine::new(16);
    live(&machine, End::PowerCut, async |engine| {
        let subscriptions = engine.subscriptions();
        create(&engine, "a", "").await;
        subscriptions.put(webhook("s", "*")).await.expect("subscribes");
        append(&engine, "a").await;
        let wait = waiting(&engine, 100).await;
        let commits = engine.metrics().commits.get();
        wait_ms(3_600_000).await;
        nothing_is_due(&engine).await;
        assert_eq!(engine.metrics().commits.get(), commits, "waiting is nothing to write down");
        assert!(!view(&engine, "s").await.failing, "and no failure");
        append(&engine, "a").await;
        let last = append(&engine, "a").await;
        let wake = wait.begin().await.expect("takes writes").expect("there is work");
        assert_eq!((wake.generation, wait.failures), (1, 0));
        assert_eq!(wake.links.listed[0].tail, last, "what there is to do now");
        // From here on the lease runs, all of it.
        assert!(tokio::time::timeout(Duration::from_secs(29), wait.superseded()).await.is_err());
        let tail = report(&wake, &[("a", last)], false);
        subscriptions.report(&id("s"), Via::Callback, tail).await.expect("holds the lease");
        wait.finish(Delivered::Done).await.expect("acks");
        assert_eq!(view(&engine, "s").await.links.pending, 0);

        // It waits again, and the power fails.
        append(&engine, "a").await;
        std::mem::forget(waiting(&engine, 100).await);
    });
    live(&machine, End::Clean, async |engine| {
        let again = due_within(&engine, 100).await;
        assert_eq!((again.wake.generation, again.failures), (2, 0), "handed out again");
        wait_ms(30_100).await;
        again.superseded().await;
        assert!(view(&engine, "s").await.failing, "a call that takes longer than its lease fails");
    });
}

#[test]
fn a_webhook_that_was_not_called_is_handed_out_again() {
    let machine = Machine::new(17);
    live(&machine, End::Clean, async |engine| {
        let subscriptions = engine.subscriptions();
        create(&engine, "a", "").await;
        subscriptions.put(webhook("s", "*")).await.expect("subscribes");
        append(&engine, "a").await;
        drop(waiting(&engine, 100).await);
        nothing_is_due(&engine).await;
        let again = waiting(&engine, 1000).await;
        again.finish(Delivered::Failed).await.expect("it was not called: nothing is noted");
        let again = waiting(&engine, 1100).await;
        assert_eq!(again.failures, 0);
        assert!(!view(&engine, "s").await.failing);

        // Its work goes while it waits.
        engine.delete(&name("a")).await.expect("deletes");
        assert!(again.begin().await.expect("takes writes").is_none());
        drop(again);
        wait_ms(2000).await;
        nothing_is_due(&engine).await;

        // The subscription goes while it waits.
        create(&engine, "a", "[1]").await;
        let last = waiting(&engine, 100).await;
        subscriptions.delete(&id("s")).await.expect("deletes");
        last.superseded().await;
        assert!(last.begin().await.expect("takes writes").is_none());
    });
}
