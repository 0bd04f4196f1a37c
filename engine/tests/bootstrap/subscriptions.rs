//! Subscriptions come back as they were published, and their wakes are told from lost ones.

use weir_engine::{
    Engine,
    request::Error,
    subscribe::{
        Ack, Credential, Delivery, Pattern, Refused, Report, Subscribe, SubscriptionId, Via, Wake,
    },
    types::Offset,
};
use weir_io::memory::Machine;

use crate::town::*;

fn id() -> SubscriptionId {
    SubscriptionId::new("s").unwrap()
}

async fn subscribe(engine: &Engine) {
    let subscribe = Subscribe {
        id: id(),
        pattern: Some(Pattern::new("a/*").unwrap()),
        streams: vec![name("named")],
        delivery: Delivery::PullWake { wake_stream: name("wakes") },
        lease_ttl_ms: 30_000,
        description: None,
        base: None,
    };
    engine.subscriptions().put(subscribe).await.unwrap();
}

async fn claim(engine: &Engine) -> Wake {
    engine.subscriptions().claim(&id(), "worker").await.unwrap()
}

async fn ack(engine: &Engine, wake: &Wake, stream: &str, offset: Offset) -> Result<(), Error> {
    let Wake { wake_id, generation, incarnation, .. } = *wake;
    let report = Report {
        credential: Credential { incarnation, generation },
        wake_id,
        generation,
        acks: vec![Ack { stream: name(stream), offset }],
        done: true,
    };
    engine.subscriptions().report(&id(), Via::Pull, report).await.map(drop)
}

/// Where a subscription stands with a stream: acked and tail.
async fn stands(engine: &Engine, stream: &str) -> (Offset, Offset) {
    let view = engine.subscriptions().get(&id()).await.unwrap();
    let link = view.links.listed.into_iter().find(|link| link.path == name(stream)).unwrap();
    (link.acked, link.tail)
}

#[test]
fn cursors_come_back_and_reports_of_lost_wakes_change_nothing() {
    let machine = Machine::new(20);
    let (acked, lost_wake, lost_tail) = life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        for stream in ["wakes", "a/1", "named"] {
            create(&engine, stream).await;
        }
        subscribe(&engine).await;
        let acked = append(&engine, "a/1", "one ").await;
        pass(1).await;
        let wake = claim(&engine).await;
        ack(&engine, &wake, "a/1", acked).await.unwrap();
        append(&engine, "a/1", "two ").await;
        append(&engine, "named", "one ").await;
        pass(15).await;
        // Beyond what is published.
        let lost_tail = append(&engine, "a/1", "lost ").await;
        pass(1).await;
        let wake = claim(&engine).await;
        assert!(ack(&engine, &wake, "a/1", lost_tail).await.is_ok());
        append(&engine, "a/1", "lost too ").await;
        pass(1).await;
        (acked, claim(&engine).await, lost_tail)
    });
    let other = another(&machine, 21);
    life(&other, async |world| {
        let engine = recover(&world, &other).await;
        let (cursor, tail) = stands(&engine, "a/1").await;
        assert_eq!(cursor, acked);
        assert!(tail > cursor && tail.next < lost_tail.next);
        assert!(stands(&engine, "named").await.1 > stands(&engine, "named").await.0);
        let new_tail = append(&engine, "a/1", "new ").await;
        append(&engine, "a/1", "newer ").await;
        let fenced = ack(&engine, &lost_wake, "a/1", lost_tail).await.unwrap_err();
        assert!(matches!(fenced, Error::Refused(Refused::Fenced)), "{fenced}");
        assert_eq!(stands(&engine, "a/1").await.0, acked);
        // The lease of the published wake, if there was one, runs out.
        pass(100).await;
        let wake = claim(&engine).await;
        assert!(wake.generation > lost_wake.generation, "a generation never repeats");
        // What was done with lost records covers none of the new ones.
        ack(&engine, &wake, "a/1", lost_tail).await.unwrap();
        let (cursor, tail) = stands(&engine, "a/1").await;
        assert!(cursor < tail);
        assert_eq!(after(&engine, "a/1", lost(&engine, "a/1", cursor).await).await, "new newer ");
        pass(1).await;
        let wake = claim(&engine).await;
        ack(&engine, &wake, "a/1", new_tail).await.unwrap();
        assert_eq!(stands(&engine, "a/1").await.0, new_tail);
        engine.close().await;
    });
}

#[test]
fn an_ack_whose_fold_was_cut_off_anywhere_comes_back_from_the_bucket() {
    let mut cuts = 0;
    for cut in 1.. {
        let machine = Machine::new(22);
        let (acked, died) = life(&machine, async |world| {
            let engine = open(&world, &machine).await;
            for stream in ["wakes", "a/1", "named"] {
                create(&engine, stream).await;
            }
            subscribe(&engine).await;
            let acked = append(&engine, "a/1", "one ").await;
            // The bucket knows that there is work.
            pass(15).await;
            let wake = claim(&engine).await;
            ack(&engine, &wake, "a/1", acked).await.unwrap();
            machine.drive().kill_in(cut);
            let died = tokio::select! {
                () = machine.drive().death() => true,
                () = pass(15) => false,
            };
            (acked, died)
        });
        if !died {
            break;
        }
        cuts += 1;
        machine.drive().restart_process();
        life(&machine, async |world| {
            let engine = open(&world, &machine).await;
            assert_eq!(stands(&engine, "a/1").await, (acked, acked), "cut {cut}");
            append(&engine, "named", "so that there is something to publish").await;
            pass(30).await;
        });
        let other = another(&machine, 23);
        life(&other, async |world| {
            let engine = recover(&world, &other).await;
            let (cursor, tail) = stands(&engine, "a/1").await;
            assert_eq!((cursor, tail.next), (tail, acked.next), "cut {cut}: nothing is left to do");
        });
    }
    assert!(cuts > 10, "a fold, a ledger and a manifest have more than {cuts} steps");
}
