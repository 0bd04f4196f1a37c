//! Sliding windows and the wall clock, on the simulated machine: hours pass in milliseconds.

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{End, live, name};
use weir_engine::{
    Engine,
    request::{Append, Create, From, Read},
    types::{Closing, ContentType, Expiry, Retention, WallMs},
};
use weir_io::memory::{EPOCH_MS, Machine};

const DAY_MS: i64 = 86_400_000;

fn create(text: &str, expiry: Expiry) -> Create {
    Create {
        name: name(text),
        content: ContentType::parse("text/plain"),
        expiry: Some(expiry),
        fork: None,
        retention: Retention::NONE,
        closing: Closing::KeepOpen,
        body: Bytes::from_static(b"x"),
        key: None,
    }
}

fn append(text: &str) -> Append {
    Append {
        name: name(text),
        content: ContentType::parse("text/plain"),
        body: Bytes::from_static(b"y"),
        closing: Closing::KeepOpen,
        producer: None,
        stream_seq: None,
        expected: None,
        key: None,
        timestamp: None,
    }
}

async fn read(engine: &Engine, text: &str) -> bool {
    let read = Read { name: name(text), from: From::Start, key: None, bytes_max: 1 << 20 };
    engine.read(read).await.is_ok()
}

#[test]
fn downtime_does_not_count_and_no_clock_jump_ends_a_window() {
    for end in [End::Clean, End::PowerCut] {
        let machine = Machine::new(1);
        live(&machine, end, async |engine| {
            let sliding = Expiry::Sliding { ttl_seconds: 100 };
            engine.create(create("s", sliding)).await.expect("creates");
            tokio::time::sleep(Duration::from_secs(60)).await;
            machine.jump_wall(10 * DAY_MS);
            assert!(engine.head(&name("s")).await.is_ok(), "a jump forward");
            machine.jump_wall(-20 * DAY_MS);
            assert!(engine.head(&name("s")).await.is_ok(), "a jump back");
            engine.append(append("s")).await.expect("appends");
        });
        machine.jump_wall(30 * DAY_MS);
        live(&machine, end, async |engine| {
            assert!(engine.head(&name("s")).await.is_ok(), "a month of downtime");
            tokio::time::sleep(Duration::from_secs(99)).await;
            assert!(engine.head(&name("s")).await.is_ok(), "99 s after the touch");
            // The exact touch is gone with the process: up to a quantum of 25 s late.
            tokio::time::sleep(Duration::from_secs(27)).await;
            assert!(engine.head(&name("s")).await.is_err(), "the window has passed");
        });
    }
}

#[test]
fn a_window_ends_to_the_millisecond_while_the_process_lives() {
    let machine = Machine::new(2);
    live(&machine, End::Clean, async |engine| {
        engine.create(create("s", Expiry::Sliding { ttl_seconds: 100 })).await.expect("creates");
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(99_900)).await;
            assert!(read(&engine, "s").await, "every read renews");
        }
        tokio::time::sleep(Duration::from_millis(99_900)).await;
        assert!(engine.head(&name("s")).await.is_ok(), "HEAD does not renew");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(engine.head(&name("s")).await.is_err());
    });
}

#[test]
fn a_read_that_was_answered_renews_even_if_power_fails_next() {
    let machine = Machine::new(3);
    live(&machine, End::PowerCut, async |engine| {
        engine.create(create("s", Expiry::Sliding { ttl_seconds: 100 })).await.expect("creates");
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert!(read(&engine, "s").await);
    });
    live(&machine, End::PowerCut, async |engine| {
        // 90 s of the window are left at least.
        tokio::time::sleep(Duration::from_secs(89)).await;
        assert!(engine.head(&name("s")).await.is_ok());
    });
}

#[test]
fn expires_at_follows_the_wall_clock_and_is_never_renewed() {
    let machine = Machine::new(4);
    live(&machine, End::Clean, async |engine| {
        let at = Expiry::At(WallMs::new(EPOCH_MS + 3_600_000));
        engine.create(create("s", at)).await.expect("creates");
        assert!(read(&engine, "s").await);
        machine.jump_wall(3_600_000);
        assert!(!read(&engine, "s").await);
        assert!(engine.create(create("s", Expiry::Never)).await.is_ok(), "the name is free");
    });
}

#[test]
fn an_attached_reader_keeps_a_window_open() {
    let machine = Machine::new(5);
    live(&machine, End::Clean, async |engine| {
        engine.create(create("s", Expiry::Sliding { ttl_seconds: 10 })).await.expect("creates");
        let watch = engine.watch(&name("s")).await.expect("attaches");
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(engine.head(&name("s")).await.is_ok());
        drop(watch);
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(engine.head(&name("s")).await.is_err());
    });
}

#[test]
fn expired_streams_go_without_being_asked_for() {
    let machine = Machine::new(6);
    live(&machine, End::Clean, async |engine| {
        for stream in 0..50 {
            let sliding = Expiry::Sliding { ttl_seconds: 60 };
            engine.create(create(&format!("s/{stream}"), sliding)).await.expect("creates");
        }
        let before = engine.metrics().entries.get();
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(engine.metrics().entries.get() - before, 50, "one expiry each");
    });
}

#[test]
fn an_attached_reader_counts_until_the_power_fails_too() {
    for end in [End::Clean, End::PowerCut] {
        for ttl_seconds in [4, 10, 1000] {
            let machine = Machine::new(7);
            live(&machine, end, async |engine| {
                engine.create(create("s", Expiry::Sliding { ttl_seconds })).await.expect("creates");
                let watch = engine.watch(&name("s")).await.expect("attaches");
                tokio::time::sleep(Duration::from_secs(ttl_seconds * 3)).await;
                drop(watch);
            });
            live(&machine, end, async |engine| {
                tokio::time::sleep(Duration::from_millis(ttl_seconds * 1000 - 100)).await;
                assert!(engine.head(&name("s")).await.is_ok(), "{ttl_seconds} s after the reader");
            });
        }
    }
}
