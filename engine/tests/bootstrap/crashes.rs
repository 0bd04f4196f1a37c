//! A bootstrap that dies at any moment, and a bucket that answers badly: INV-44 it is whole or nothing.

use std::{path::Path, time::Duration};

use weir_engine::restore::Options;
use weir_io::memory::{BucketFaults, Machine};

use crate::town::*;

/// Publishes a little of everything.
fn fill(machine: &Machine) {
    life(machine, async |world| {
        let engine = open(&world, machine).await;
        for stream in ["a", "b"] {
            create(&engine, stream).await;
            append(&engine, stream, "one ").await;
        }
        pass(15).await;
        produce(&engine, "b", "two ", 0).await.unwrap();
        pass(15).await;
    });
}

#[test]
fn a_bootstrap_that_is_cut_off_leaves_nothing_or_all() {
    let machine = Machine::new(40);
    fill(&machine);
    let (mut k, mut left_nothing, mut left_all) = (1, 0, 0);
    loop {
        let other = another(&machine, 1000 + k);
        other.drive().kill_in(k);
        let done = life(&other, async |world| {
            let bootstrap = bootstrap(&world, &other, Options::default());
            tokio::time::timeout(Duration::from_secs(600), bootstrap).await.is_ok()
        });
        if done {
            break;
        }
        match k % 2 {
            0 => other.drive().power_cycle(),
            _ => other.drive().restart_process(),
        }
        life(&other, async |world| {
            let there = world.disk.list(Path::new(DIR)).is_ok_and(|names| !names.is_empty());
            if there {
                left_all += 1;
            } else {
                left_nothing += 1;
                bootstrap(&world, &other, Options::default()).await.unwrap();
            }
            let engine = open(&world, &other).await;
            // All lives have one bucket: what one of them appends may be published before it ends, and
            // comes back to the next.
            let before = contents(&engine, "a").await;
            let later = before.strip_prefix("one ").map(|rest| rest.replace("three ", ""));
            assert_eq!(later.as_deref(), Some(""), "killed at {k}: {before}");
            assert_eq!(contents(&engine, "b").await, "one two ", "killed at {k}");
            append(&engine, "a", "three ").await;
            assert_eq!(contents(&engine, "a").await, format!("{before}three "), "killed at {k}");
        });
        k += 1;
    }
    assert!(left_nothing > 50 && left_all > 0, "{left_nothing} and {left_all}");
}

#[test]
fn a_bucket_that_answers_badly_costs_time_and_nothing_else() {
    let machine = Machine::new(41);
    fill(&machine);
    for seed in 0..30 {
        let other = another(&machine, 2000 + seed);
        life(&other, async |world| {
            other.bucket().set_faults(BucketFaults {
                latency: Duration::from_millis(1)..Duration::from_millis(300),
                error: 0.1,
                lost_answer: 0.1,
                late: 0.1,
                late_by: Duration::from_secs(1)..Duration::from_secs(90),
                hang: 0.05,
                truncated: 0.1,
                corrupted: 0.1,
                list_lag: 0.5,
                list_lag_by: Duration::from_secs(1)..Duration::from_secs(60),
                ..BucketFaults::default()
            });
            let report = bootstrap(&world, &other, Options::default()).await;
            other.bucket().set_faults(BucketFaults::default());
            let report = report.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
            assert_eq!(report.findings, [], "seed {seed}");
            let engine = open(&world, &other).await;
            assert_eq!(contents(&engine, "b").await, "one two ");
            // What is late still arrives, and changes nothing.
            pass(200).await;
            append(&engine, "b", "three ").await;
            pass(30).await;
            assert_eq!(engine.health(), weir_engine::Health::Serving, "seed {seed}");
            engine.close().await;
        });
        // Back to what was there before this life.
        let claimed = keys(machine.bucket(), "manifest/");
        claimed.iter().filter(|key| **key < manifest(2)).for_each(|key| {
            machine.bucket().lose(key);
        });
    }
}
