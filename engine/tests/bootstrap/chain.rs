//! Manifests that can't be read: what is there all the same comes back, and what they may have named
//! is not collected.

use weir_engine::{
    Engine, OpenError,
    restore::{self, Moment, Options, Report, RestoreError},
    types::WallMs,
    verify::Depth,
};
use weir_io::{World, memory::Machine, objects::Key};

use crate::town::*;

/// A closed store of three manifests, each with a record more.
fn fill(machine: &Machine) {
    life(machine, async |world| {
        let engine = open(&world, machine).await;
        create(&engine, "a").await;
        for record in ["one ", "two ", "three "] {
            append(&engine, "a", record).await;
            pass(15).await;
        }
        engine.close().await;
    });
    assert_eq!(keys(machine.bucket(), "manifest/"), [manifest(3), manifest(2), manifest(1)]);
}

fn spoil(machine: &Machine, manifest: &Key) {
    assert!(machine.bucket().flip_bit(manifest, 100, 0));
}

async fn check(world: &World, machine: &Machine, at: Moment) -> Result<Report, RestoreError> {
    let bucket = machine.bucket().client(world.clock.clone());
    Engine::check_bootstrap(world.clone(), bucket, at).await
}

/// What a report finds fault with, and by which rule.
fn named(report: &Report) -> Vec<(&'static str, &str)> {
    report.findings.iter().map(|it| (it.rule, it.object.as_str())).collect()
}

#[test]
fn a_store_starts_though_its_newest_manifest_is_damaged_in_the_bucket() {
    let machine = Machine::new(400);
    fill(&machine);
    spoil(&machine, &manifest(3));
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        assert_eq!(contents(&engine, "a").await, "one two three ");
        pass(15).await;
        // Nothing is new, and one follows all the same that can be read.
        assert!(keys(machine.bucket(), "manifest/").contains(&manifest(4)));
        append(&engine, "a", "four ").await;
        pass(15).await;
        engine.close().await;
        assert_eq!(verify(&world, &machine, Depth::Both).await, ["chain"]);
    });
    let other = another(&machine, 401);
    life(&other, async |world| {
        let engine = recover(&world, &other).await;
        assert_eq!(contents(&engine, "a").await, "one two three four ");
        engine.close().await;
    });
}

#[test]
fn a_damaged_manifest_of_another_process_keeps_a_store_from_starting() {
    let machine = Machine::new(402);
    fill(&machine);
    let other = another(&machine, 403);
    life(&other, async |world| {
        let engine = recover(&world, &other).await;
        engine.close().await;
    });
    let manifests = keys(machine.bucket(), "manifest/");
    assert!(manifests[0] < manifest(3), "it was claimed");
    spoil(&machine, &manifests[0]);
    life(&machine, async |world| match try_open(&world, &machine).await {
        Err(OpenError::Bucket(what)) => assert!(what.contains("damaged"), "{what}"),
        other => panic!("{:?}", other.err()),
    });
}

#[test]
fn a_newest_manifest_that_is_damaged_is_named_and_the_one_before_may_do() {
    let machine = Machine::new(404);
    fill(&machine);
    let damaged = manifest(3);
    spoil(&machine, &damaged);
    let other = another(&machine, 405);
    life(&other, async |world| {
        let before = keys(other.bucket(), "");
        let looked = check(&world, &other, Moment::Newest).await.unwrap();
        assert_eq!(named(&looked), [("manifest", damaged.as_str())], "{looked}");
        assert_eq!((looked.generation, looked.oldest, looked.newest), (2, 1, 2));
        match bootstrap(&world, &other, Options::default()).await {
            Err(RestoreError::Damaged(report)) => assert_eq!(report.findings, looked.findings),
            other => panic!("{other:?}"),
        }
        assert_eq!(keys(other.bucket(), ""), before, "nothing was claimed");
        let report = bootstrap(&world, &other, partial()).await.unwrap();
        assert_eq!(report.findings, looked.findings);
        assert_eq!((report.generation, report.claimed), (2, 4));
        let engine = open(&world, &other).await;
        assert_eq!(contents(&engine, "a").await, "one two ");
        append(&engine, "a", "new ").await;
        pass(15).await;
        engine.close().await;
        assert_eq!(verify(&world, &other, Depth::Both).await, ["chain"]);
    });
    let third = another(&machine, 406);
    life(&third, async |world| {
        let engine = recover(&world, &third).await;
        assert_eq!(contents(&engine, "a").await, "one two new ");
        engine.close().await;
    });
}

#[test]
fn who_looks_goes_on_with_the_newest_manifest_that_can_be_read() {
    let machine = Machine::new(418);
    fill(&machine);
    spoil(&machine, &manifest(3));
    let lost = keys(machine.bucket(), "rows/").remove(0);
    life(&machine, async |world| {
        // What this store published itself is no other finding.
        for depth in [Depth::Remote, Depth::Both, Depth::Deep] {
            assert_eq!(verify(&world, &machine, depth).await, ["manifest"], "{depth:?}");
        }
        assert!(machine.bucket().lose(&lost));
        let found = verify(&world, &machine, Depth::Remote).await;
        assert!(found.contains(&"manifest") && found.contains(&"object"), "{found:?}");
        // The one below goes, too.
        spoil(&machine, &manifest(2));
        let found = verify(&world, &machine, Depth::Remote).await;
        assert_eq!(found.iter().filter(|it| **it == "manifest").count(), 2, "{found:?}");
        spoil(&machine, &manifest(1));
        assert_eq!(verify(&world, &machine, Depth::Remote).await, ["manifest"; 3]);
    });
}

#[test]
fn nothing_is_called_unneeded_by_what_a_damaged_newest_manifest_leaves_open() {
    let machine = Machine::new(419);
    fill(&machine);
    spoil(&machine, &manifest(3));
    life(&machine, async |world| {
        let before = keys(machine.bucket(), "");
        let listed = || {
            let bucket = machine.bucket().client(world.clock.clone());
            restore::garbage(&world, bucket)
        };
        match listed().await {
            Err(RestoreError::Unreadable(what)) => {
                assert!(what.starts_with(manifest(3).as_str()), "{what}");
                assert!(what.contains("is damaged") && what.contains("start the server"), "{what}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(keys(machine.bucket(), ""), before);
        // What was to be done, was done: another one follows, and the damaged one is named.
        let engine = open(&world, &machine).await;
        pass(15).await;
        engine.close().await;
        let garbage = listed().await.unwrap();
        assert!(garbage.newest >= 4, "{garbage:#?}");
        let [unreadable] = &garbage.unreadable[..] else { panic!("{garbage:#?}") };
        assert_eq!(unreadable.object, manifest(3).as_str());
        let old = |generation| {
            let key = manifest(generation);
            garbage.unneeded.iter().any(|it| it.object == key.as_str() && it.since.is_some())
        };
        assert!((1..4).all(old) && !old(garbage.newest), "{garbage:#?}");
    });
}

#[test]
fn a_manifest_that_can_be_read_is_restored_as_asked_whatever_the_newest_is() {
    let machine = Machine::new(407);
    fill(&machine);
    let damaged = manifest(3);
    spoil(&machine, &damaged);
    let other = another(&machine, 408);
    life(&other, async |world| {
        match bootstrap(&world, &other, at(Moment::Generation(3))).await {
            Err(RestoreError::NoSuchMoment(what)) => {
                assert!(what.contains("manifest 3 is damaged"), "{what}");
            }
            other => panic!("{other:?}"),
        }
        let report = bootstrap(&world, &other, at(Moment::Generation(2))).await.unwrap();
        assert_eq!(named(&report), [("chain", damaged.as_str())], "{report}");
        assert_eq!((report.generation, report.claimed), (2, 4));
        assert_eq!(keys(other.bucket(), "spared/"), [], "who goes back in time loses nothing");
        let engine = open(&world, &other).await;
        assert_eq!(contents(&engine, "a").await, "one two ");
        engine.close().await;
    });
}

#[test]
fn a_chain_without_a_manifest_that_can_be_read_is_no_store() {
    let machine = Machine::new(409);
    fill(&machine);
    keys(machine.bucket(), "manifest/").iter().for_each(|key| spoil(&machine, key));
    let other = another(&machine, 410);
    life(&other, async |world| match bootstrap(&world, &other, partial()).await {
        Err(RestoreError::NoSuchMoment(what)) => assert!(what.contains("can be read"), "{what}"),
        other => panic!("{other:?}"),
    });
}

#[test]
fn an_era_whose_manifests_can_not_be_read_is_over_all_the_same() {
    let machine = Machine::new(411);
    fill(&machine);
    let other = another(&machine, 412);
    let old = life(&other, async |world| {
        let engine = recover(&world, &other).await;
        append(&engine, "a", "lost ").await
    });
    let claimed = keys(machine.bucket(), "manifest/").into_iter().filter(|it| *it < manifest(3));
    let claimed: Vec<Key> = claimed.collect();
    assert!(!claimed.is_empty());
    claimed.iter().for_each(|key| spoil(&machine, key));
    let third = another(&machine, 413);
    life(&third, async |world| {
        let report = bootstrap(&world, &third, partial()).await.unwrap();
        assert_eq!(report.generation, 3);
        // Each of those that can't be read may have been the claim of a recovery.
        assert_eq!(usize::try_from(report.recoveries).unwrap(), claimed.len() + 1);
        let engine = open(&world, &third).await;
        for record in ["new ", "newer "] {
            append(&engine, "a", record).await;
        }
        assert_eq!(after(&engine, "a", lost(&engine, "a", old).await).await, "new newer ");
        engine.close().await;
    });
}

#[test]
fn a_search_by_time_steps_over_what_can_not_be_read() {
    let machine = Machine::new(414);
    let times: Vec<Moment> = life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        let mut times = Vec::new();
        for record in 0..5 {
            append(&engine, "a", &format!("{record} ")).await;
            pass(15).await;
            times.push(Moment::Time(WallMs::new(world.clock.wall_ms())));
            pass(30).await;
        }
        engine.close().await;
        times
    });
    let other = another(&machine, 415);
    life(&other, async |world| {
        let mut whole = Vec::new();
        for time in &times {
            let report = check(&world, &other, *time).await.unwrap();
            assert_eq!(report.findings, []);
            whole.push(report.generation);
        }
        assert!(whole.is_sorted_by(|a, b| a < b), "{whole:?}");
        for spoiled in whole.clone() {
            spoil(&machine, &manifest(spoiled));
            for (time, meant) in times.iter().zip(&whole) {
                let report = match check(&world, &other, *time).await {
                    Ok(report) => report,
                    Err(RestoreError::NoSuchMoment(_)) if *meant == 1 => continue,
                    Err(error) => panic!("{error}"),
                };
                let expected = if *meant == spoiled { meant - 1 } else { *meant };
                assert_eq!(report.generation, expected, "{meant} without {spoiled}");
                // The one that is spoiled may have been made before that time, too.
                let losses = usize::from(expected + 1 == spoiled);
                assert_eq!(report.losses().count(), losses, "{meant} without {spoiled}: {report}");
            }
            // It flips back.
            spoil(&machine, &manifest(spoiled));
        }
    });
}

#[test]
fn what_a_lost_list_may_have_named_is_kept_until_somebody_says_otherwise() {
    let machine = Machine::new(416);
    let alone = life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        append(&engine, "a", "one ").await;
        pass(15).await;
        let before = keys(machine.bucket(), "");
        append(&engine, "a", "two ").await;
        pass(15).await;
        engine.close().await;
        let mut after = keys(machine.bucket(), "segments/");
        after.retain(|key| !before.contains(key));
        after
    });
    let [alone] = &alone[..] else { panic!("{alone:?}") };
    spoil(&machine, &manifest(2));
    // Of a number that no store has come to.
    let orphan = Key::new(format!("segments/{:016x}-{:016x}.seg", 1_u64 << 40, 1)).unwrap();
    machine.bucket().put(orphan.clone(), "left behind".into());
    let other = another(&machine, 417);
    let is_there = |key: &Key| other.bucket().peek(key).is_some();
    life(&other, async |world| {
        bootstrap(&world, &other, partial()).await.unwrap();
        let [spared] = &keys(other.bucket(), "spared/")[..] else { panic!("it is not said") };
        let engine = open(&world, &other).await;
        append(&engine, "a", "new ").await;
        pass(3000).await;
        append(&engine, "a", "newer ").await;
        pass(3000).await;
        assert!(!is_there(&orphan) && !is_there(&manifest(2)), "nothing was collected");
        assert!(is_there(alone), "it may be all that is left of what was lost");
        let bucket = other.bucket().client(world.clock.clone());
        let garbage = restore::garbage(&world, bucket).await.unwrap();
        let shown = garbage.unneeded.iter().find(|it| it.object == alone.as_str());
        assert!(shown.is_some_and(|it| it.spared), "{garbage:#?}");
        // Who has seen enough of it deletes what spares it.
        assert!(other.bucket().lose(spared));
        append(&engine, "a", "newest ").await;
        pass(3000).await;
        assert!(!is_there(alone), "nobody needs it any more");
        assert_eq!(contents(&engine, "a").await, "one new newer newest ");
        engine.close().await;
    });
}
