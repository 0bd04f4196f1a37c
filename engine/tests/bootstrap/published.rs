//! What comes back when nothing is damaged, and what never does: INV-42 an era has epochs of its own,
//! INV-43 a recovery fences before it serves.

use weir_engine::{
    Health,
    request::{AppendOutcome, Create, Error, Fork, From, Rejection},
    restore::{Moment, Options, RestoreError},
    types::{Closing, Expiry},
};
use weir_io::memory::Machine;

use crate::town::*;

#[test]
fn everything_that_was_published_comes_back() {
    let machine = Machine::new(1);
    let tails = life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        for stream in ["a", "b", "gone", "shut"] {
            create(&engine, stream).await;
        }
        append(&engine, "a", "one ").await;
        append(&engine, "gone", "nothing").await;
        assert_eq!(produce(&engine, "b", "first ", 0).await.unwrap(), AppendOutcome::Written);
        pass(15).await;
        append(&engine, "a", "two ").await;
        assert_eq!(produce(&engine, "b", "second ", 1).await.unwrap(), AppendOutcome::Written);
        let fork = Fork { source: name("a"), at: None, sub_offset: 0 };
        let fork = Create { fork: Some(fork), ..Create::new(name("fork"), None) };
        engine.create(fork).await.unwrap();
        append(&engine, "fork", "three ").await;
        let shut = Create {
            closing: Closing::Close,
            body: "the end".into(),
            ..Create::new(name("last"), text())
        };
        engine.create(shut).await.unwrap();
        engine.delete(&name("gone")).await.unwrap();
        pass(15).await;
        (engine.head(&name("a")).await.unwrap().next, engine.head(&name("b")).await.unwrap().next)
    });
    let other = another(&machine, 2);
    life(&other, async |world| {
        let engine = recover(&world, &other).await;
        assert_eq!(contents(&engine, "a").await, "one two ");
        assert_eq!(contents(&engine, "b").await, "first second ");
        assert_eq!(contents(&engine, "fork").await, "one two three ");
        assert_eq!(contents(&engine, "last").await, "the end");
        assert!(engine.head(&name("last")).await.unwrap().closed);
        assert!(engine.head(&name("gone")).await.is_err());
        assert_eq!(produce(&engine, "b", "second ", 1).await.unwrap(), AppendOutcome::Duplicate);
        assert_eq!(produce(&engine, "b", "third ", 2).await.unwrap(), AppendOutcome::Written);
        assert_eq!(contents(&engine, "b").await, "first second third ");
        // Nothing was lost, so the tails of before still mean what they meant.
        append(&engine, "a", "four ").await;
        assert_eq!(after(&engine, "a", tails.0).await, "four ");
        assert_eq!(after(&engine, "b", tails.1).await, "third ");
        pass(30).await;
        engine.close().await;
    });
    // And again from what the recovered store has published.
    let third = another(&machine, 3);
    life(&third, async |world| {
        let engine = recover(&world, &third).await;
        assert_eq!(contents(&engine, "a").await, "one two four ");
        assert_eq!(contents(&engine, "fork").await, "one two three ");
        assert_eq!(after(&engine, "a", tails.0).await, "four ");
        engine.close().await;
    });
}

#[test]
fn offsets_of_what_was_lost_say_where_reading_goes_on() {
    let machine = Machine::new(4);
    let (kept, lost_tail) = life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        let kept = append(&engine, "a", "kept ").await;
        pass(15).await;
        append(&engine, "a", "lost ").await;
        (kept, append(&engine, "a", "lost too ").await)
    });
    let other = another(&machine, 5);
    life(&other, async |world| {
        let engine = recover(&world, &other).await;
        let next = lost(&engine, "a", lost_tail).await;
        assert_eq!(next, engine.head(&name("a")).await.unwrap().next);
        assert_eq!(next.next, kept.next);
        for record in ["new ", "newer ", "newest "] {
            append(&engine, "a", record).await;
        }
        // However much is written since, it is nothing that the old offset ever meant.
        assert_eq!(lost(&engine, "a", lost_tail).await, next);
        assert_eq!(after(&engine, "a", next).await, "new newer newest ");
        assert_eq!(after(&engine, "a", kept).await, "new newer newest ");
        engine.close().await;
    });
}

#[test]
fn a_name_that_was_used_in_the_lost_part_never_meets_its_old_offsets() {
    let machine = Machine::new(6);
    let old = life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        append(&engine, "a", "kept ").await;
        pass(15).await;
        engine.delete(&name("a")).await.unwrap();
        create(&engine, "a").await;
        create(&engine, "b").await;
        (append(&engine, "a", "lost ").await, append(&engine, "b", "lost ").await)
    });
    let other = another(&machine, 7);
    life(&other, async |world| {
        let engine = recover(&world, &other).await;
        assert_eq!(contents(&engine, "a").await, "kept ");
        append(&engine, "a", "new ").await;
        lost(&engine, "a", old.0).await;
        create(&engine, "b").await;
        append(&engine, "b", "new ").await;
        append(&engine, "b", "newer ").await;
        lost(&engine, "b", old.1).await;
        // Once more in the next life of the name.
        engine.delete(&name("a")).await.unwrap();
        create(&engine, "a").await;
        append(&engine, "a", "newest ").await;
        lost(&engine, "a", old.0).await;
        engine.close().await;
    });
}

#[test]
fn an_era_that_published_nothing_but_its_claim_is_over_all_the_same() {
    let machine = Machine::new(8);
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        append(&engine, "a", "kept ").await;
        pass(15).await;
    });
    let other = another(&machine, 9);
    let old = life(&other, async |world| {
        let engine = recover(&world, &other).await;
        create(&engine, "b").await;
        (append(&engine, "a", "lost ").await, append(&engine, "b", "lost ").await)
    });
    let third = another(&machine, 10);
    life(&third, async |world| {
        let engine = recover(&world, &third).await;
        create(&engine, "b").await;
        for record in ["new ", "newer "] {
            append(&engine, "a", record).await;
            append(&engine, "b", record).await;
        }
        assert_eq!(after(&engine, "a", lost(&engine, "a", old.0).await).await, "new newer ");
        assert_eq!(after(&engine, "b", lost(&engine, "b", old.1).await).await, "new newer ");
        engine.close().await;
    });
}

#[test]
fn the_old_writer_is_fenced_and_takes_no_more() {
    let machine = Machine::new(11);
    let other = another(&machine, 12);
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        append(&engine, "a", "kept ").await;
        pass(15).await;
        // On another disk, at the same time.
        let elsewhere = other.boot(std::time::Duration::ZERO);
        let recovered = recover(&elsewhere, &other).await;
        append(&engine, "a", "lost ").await;
        append(&recovered, "a", "new ").await;
        pass(15).await;
        let Health::LogFailed { reason } = engine.health() else { panic!("not fenced") };
        assert!(reason.contains("fenced"), "{reason}");
        let refused =
            engine.append(weir_engine::request::Append::new(name("a"), text(), "refused".into()));
        assert!(matches!(refused.await, Err(Error::Overtaken)));
        assert_eq!(recovered.health(), Health::Serving);
        assert_eq!(contents(&recovered, "a").await, "kept new ");
        engine.close().await;
        recovered.close().await;
    });
}

#[test]
fn of_two_bootstraps_at_once_one_wins() {
    for seed in 0..20 {
        let machine = Machine::new(100 + seed);
        life(&machine, async |world| {
            let engine = open(&world, &machine).await;
            create(&engine, "a").await;
            append(&engine, "a", "kept ").await;
            pass(15).await;
        });
        let (one, two) = (another(&machine, 200 + seed), another(&machine, 300 + seed));
        life(&one, async |world| {
            let elsewhere = two.boot(std::time::Duration::ZERO);
            let (first, second) = tokio::join!(
                bootstrap(&world, &one, Options::default()),
                bootstrap(&elsewhere, &two, Options::default())
            );
            let won = [&first, &second].iter().filter(|it| it.is_ok()).count();
            // One may have been done before the other began to look.
            let raced = |it: &Result<_, _>| matches!(it, Err(RestoreError::Raced(_)));
            assert!(won == 2 || raced(&first) || raced(&second), "{first:?} {second:?}");
            assert!(won >= 1);
        });
    }
}

#[test]
fn a_store_that_is_there_is_never_overwritten() {
    let machine = Machine::new(13);
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        append(&engine, "a", "kept ").await;
        pass(15).await;
        let refused = bootstrap(&world, &machine, Options::default()).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Occupied { .. }), "{refused}");
        // Nor while somebody has it open.
        let refused = bootstrap(&world, &machine, forced()).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Local(_)), "{refused}");
        append(&engine, "a", "more ").await;
        engine.close().await;
        drop(engine);
        let report = bootstrap(&world, &machine, forced()).await.unwrap();
        let aside = report.set_aside.expect("it was set aside");
        assert!(world.disk.exists(&aside.join("weir.sqlite")).unwrap());
        let engine = open(&world, &machine).await;
        assert_eq!(contents(&engine, "a").await, "kept more ");
        engine.close().await;
    });
}

#[test]
fn the_directory_of_a_store_in_one_file_is_left_alone() {
    let machine = Machine::new(15);
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        engine.close().await;
    });
    let other = another(&machine, 16);
    life(&other, async |world| {
        let local = weir_engine::Config::one_file(DIR);
        let engine = weir_engine::Engine::open(world.clone(), local, "test").await.unwrap();
        create(&engine, "own").await;
        for running in [true, false] {
            if !running {
                engine.close().await;
            }
            let names = || world.disk.list(std::path::Path::new("/weir")).unwrap();
            let before = (other.drive().mutations(), names(), keys(machine.bucket(), ""));
            for options in [Options::default(), forced()] {
                let refused = bootstrap(&world, &other, options).await.unwrap_err();
                assert!(matches!(refused, RestoreError::OneFile { .. }), "{refused}");
            }
            let after = (other.drive().mutations(), names(), keys(machine.bucket(), ""));
            assert_eq!(after, before);
        }
    });
}

#[test]
fn an_empty_bucket_is_no_store() {
    let machine = Machine::new(14);
    life(&machine, async |world| {
        let refused = bootstrap(&world, &machine, Options::default()).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Empty), "{refused}");
        assert!(!world.disk.exists(std::path::Path::new(DIR)).unwrap());
    });
}

#[test]
fn an_earlier_manifest_is_restored_and_what_came_after_it_is_lost() {
    let machine = Machine::new(15);
    let (early, middle) = life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        append(&engine, "a", "one ").await;
        pass(15).await;
        let early = world.clock.wall_ms();
        pass(30).await;
        let middle = append(&engine, "a", "two ").await;
        create(&engine, "b").await;
        pass(15).await;
        append(&engine, "a", "three ").await;
        pass(15).await;
        (early, middle)
    });
    let too_early = weir_engine::types::WallMs::new(1);
    for (seed, moment, expected) in [
        (16, Moment::Generation(2), "one two "),
        (17, Moment::Time(weir_engine::types::WallMs::new(early)), "one "),
        (18, Moment::Generation(1), "one "),
    ] {
        let other = another(&machine, seed);
        life(&other, async |world| {
            let refused = bootstrap(&world, &other, at(Moment::Generation(99))).await.unwrap_err();
            assert!(matches!(refused, RestoreError::NoSuchMoment(_)), "{refused}");
            let refused = bootstrap(&world, &other, at(Moment::Time(too_early))).await.unwrap_err();
            assert!(matches!(refused, RestoreError::NoSuchMoment(_)), "{refused}");
            let report = bootstrap(&world, &other, at(moment)).await.unwrap();
            assert_eq!(report.findings, []);
            let engine = open(&world, &other).await;
            assert_eq!(contents(&engine, "a").await, expected);
            if expected == "one " {
                lost(&engine, "a", middle).await;
                assert!(matches!(
                    engine.head(&name("b")).await,
                    Err(Error::Rejected(Rejection::NotFound))
                ));
            }
            append(&engine, "a", "new ").await;
            assert_eq!(contents(&engine, "a").await, format!("{expected}new "));
            engine.close().await;
        });
        // What was restored at last is the newest now; go back to the chain of before.
        let claimed = keys(machine.bucket(), "manifest/");
        claimed.iter().filter(|key| **key < manifest(3)).for_each(|key| {
            machine.bucket().lose(key);
        });
    }
}

#[test]
fn windows_and_deadlines_stand_still_until_the_store_is_back() {
    let machine = Machine::new(19);
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        let expiry = Some(Expiry::Sliding { ttl_seconds: 600 });
        let sliding = Create { expiry, ..Create::new(name("sliding"), text()) };
        engine.create(sliding).await.unwrap();
        append(&engine, "sliding", "kept ").await;
        pass(15).await;
    });
    let other = another(&machine, 20);
    life(&other, async |world| {
        // An hour later by the wall.
        let engine = recover(&world, &other).await;
        pass(300).await;
        let sliding = engine.head(&name("sliding")).await;
        assert!(sliding.is_ok(), "downtime does not count");
        pass(700).await;
        assert!(engine.head(&name("sliding")).await.is_err(), "the window passes");
        engine.close().await;
    });
}

#[test]
fn a_store_that_was_once_open_without_its_bucket_publishes_all_it_has() {
    let machine = Machine::new(21);
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        append(&engine, "a", "one ").await;
        pass(15).await;
        engine.close().await;
        drop(engine);
        let alone = weir_engine::Engine::open(world.clone(), config(), "alone").await.unwrap();
        create(&alone, "b").await;
        append(&alone, "a", "two ").await;
        append(&alone, "b", "three ").await;
        pass(15).await;
        alone.close().await;
        drop(alone);
        let engine = open(&world, &machine).await;
        pass(15).await;
        drop(engine);
    });
    let other = another(&machine, 22);
    life(&other, async |world| {
        let engine = recover(&world, &other).await;
        assert_eq!(contents(&engine, "a").await, "one two ");
        assert_eq!(contents(&engine, "b").await, "three ");
        let page = page(&engine, "a", From::Start).await.unwrap();
        assert!(page.up_to_date);
        engine.close().await;
    });
}

#[test]
fn a_manifest_whose_files_may_be_gone_is_refused_though_it_is_still_there() {
    let machine = Machine::new(60);
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        for text in ["one ", "two ", "three "] {
            append(&engine, "a", text).await;
            pass(15).await;
        }
        engine.close().await;
    });
    // Whoever collected has raised the boundary, and ended before the manifests below it went.
    let boundary = weir_io::objects::Key::new(format!("gc/{:020}", u64::MAX - 3)).unwrap();
    machine.bucket().put(boundary, "boundary\n".into());
    let other = another(&machine, 61);
    life(&other, async |world| {
        let refused = bootstrap(&world, &other, at(Moment::Generation(2))).await.unwrap_err();
        let RestoreError::NoSuchMoment(what) = refused else { panic!("{refused}") };
        assert!(what.contains("may be gone: it has 3 to 3"), "{what}");
        let report = bootstrap(&world, &other, at(Moment::Generation(3))).await.unwrap();
        assert_eq!(report.findings, []);
    });
}
