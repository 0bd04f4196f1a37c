//! Objects that are damaged or gone: named each, and the rest comes back if that is enough.

use weir_engine::{
    request::{Append, Create, Error, Fork, From},
    restore::{Options, Report, RestoreError},
    types::{Epoch, Offset, Seq},
};
use weir_io::{
    memory::{Machine, Verb},
    objects::Key,
};

use crate::town::*;

/// A stream in each of three segments, the middle one large.
fn fill(machine: &Machine) -> [Key; 3] {
    life(machine, async |world| {
        let engine = open(&world, machine).await;
        let mut segments: Vec<Key> = Vec::new();
        for (stream, records) in [("a", 1), ("b", 400), ("c", 1)] {
            create(&engine, stream).await;
            for record in 0..records {
                append(&engine, stream, &format!("{record:01000} ")).await;
            }
            pass(15).await;
            let new = keys(machine.bucket(), "segments/");
            segments.extend(new.into_iter().find(|key| !segments.contains(key)));
        }
        segments.try_into().expect("a segment each")
    })
}

fn refused(result: Result<Report, RestoreError>) -> Report {
    match result {
        Err(RestoreError::Damaged(report)) => *report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_that_is_lost_costs_its_records_and_no_others() {
    for damage in 0..3 {
        let machine = Machine::new(50 + damage);
        let [_, middle, _] = fill(&machine);
        let bytes = machine.bucket().peek(&middle).unwrap();
        match damage {
            0 => assert!(machine.bucket().lose(&middle)),
            // Its last bytes, without which nothing in it is found.
            1 => assert!(machine.bucket().flip_bit(&middle, bytes.len() - 40, 0)),
            _ => machine.bucket().put(middle.clone(), bytes.slice(..bytes.len() - 1)),
        }
        let other = another(&machine, 60 + damage);
        life(&other, async |world| {
            let report = refused(bootstrap(&world, &other, Options::default()).await);
            let named: Vec<&str> = report.findings.iter().map(|it| it.object.as_str()).collect();
            assert_eq!(named, [middle.as_str()], "{report}");
            assert!(report.findings[0].text.contains("400 records"), "{report}");
            let report = bootstrap(&world, &other, partial()).await.unwrap();
            assert_eq!(report.findings.len(), 1, "{report}");
            let engine = open(&world, &other).await;
            assert_eq!(contents(&engine, "a").await.len(), 1001);
            assert_eq!(contents(&engine, "c").await.len(), 1001);
            let lost = page(&engine, "b", From::Start).await.unwrap_err();
            assert!(matches!(lost, Error::Corrupt(_)), "{lost}");
            // The stream lives on behind what is lost.
            let tail = engine.head(&name("b")).await.unwrap().next;
            append(&engine, "b", "new ").await;
            assert_eq!(after(&engine, "b", tail).await, "new ");
            pass(15).await;
            assert_eq!(after(&engine, "b", tail).await, "new ");
            engine.close().await;
        });
    }
}

#[test]
fn a_damaged_block_is_a_clear_error_for_its_records_and_no_others() {
    let machine = Machine::new(53);
    let [_, middle, _] = fill(&machine);
    let len = machine.bucket().peek(&middle).unwrap().len();
    assert!(machine.bucket().flip_bit(&middle, len / 2, 0));
    let other = another(&machine, 54);
    life(&other, async |world| {
        let engine = recover(&world, &other).await;
        let before = page(&engine, "b", From::Start).await.unwrap();
        assert!((100..300).contains(&before.records), "{}", before.records);
        let lost = page(&engine, "b", From::At(before.next)).await.unwrap_err();
        assert!(matches!(lost, Error::Corrupt(_)), "{lost}");
        assert_eq!(contents(&engine, "c").await.len(), 1001);
        engine.close().await;
    });
}

#[test]
fn a_damaged_block_hides_no_records_of_the_segments_around_it() {
    let machine = Machine::new(55);
    let segments = life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        let mut segments: Vec<Key> = Vec::new();
        for round in 0..5 {
            // Several streams in one block: its index does not tell where each of them begins.
            for stream in ["a", "b", "c"] {
                if round == 0 {
                    create(&engine, stream).await;
                }
                append(&engine, stream, &format!("{stream}{round} ")).await;
            }
            pass(15).await;
            let new = keys(machine.bucket(), "segments/");
            segments.extend(new.into_iter().find(|key| !segments.contains(key)));
        }
        segments
    });
    assert_eq!(segments.len(), 5);
    for damaged in 0..5 {
        let mut other = Machine::new(80 + damaged);
        other.share_bucket(&machine.bucket().copied(80 + damaged));
        // In the head of its only block.
        let segment = &segments[usize::try_from(damaged).unwrap()];
        assert!(other.bucket().flip_bit(segment, 50, 0));
        life(&other, async |world| {
            let engine = recover(&world, &other).await;
            for stream in ["a", "b", "c"] {
                // What was there before the recovery is counted as it was.
                let epoch = Epoch::new(0);
                for at in 0..5 {
                    let from = From::At(Offset { epoch, next: Seq::new(at) });
                    let said = page(&engine, stream, from).await;
                    match said {
                        Err(error) => {
                            assert!(matches!(error, Error::Corrupt(_)), "{error}");
                            assert_eq!(at, damaged, "of '{stream}': {error}");
                        }
                        Ok(page) => {
                            assert_ne!(at, damaged, "of '{stream}'");
                            let text = String::from_utf8(page.pieces.concat()).unwrap();
                            assert!(text.starts_with(&format!("{stream}{at} ")), "{at}: {text}");
                        }
                    }
                }
            }
            engine.close().await;
        });
    }
}

#[test]
fn a_ledger_that_is_lost_costs_what_only_it_knew() {
    for damage in 0..2 {
        let machine = Machine::new(70 + damage);
        let ledgers = life(&machine, async |world| {
            let engine = open(&world, &machine).await;
            let mut ledgers: Vec<Key> = Vec::new();
            for stream in ["a", "b", "c"] {
                create(&engine, stream).await;
                // Each fold changes the first stream too.
                append(&engine, "a", stream).await;
                append(&engine, stream, "own ").await;
                pass(15).await;
                let new = keys(machine.bucket(), "rows/");
                ledgers.extend(new.into_iter().find(|key| !ledgers.contains(key)));
            }
            let fork = Fork { source: name("b"), at: None, sub_offset: 0 };
            let fork = Create { fork: Some(fork), ..Create::new(name("fork"), None) };
            engine.create(fork).await.unwrap();
            append(&engine, "fork", "forked ").await;
            pass(15).await;
            ledgers
        });
        // The last one that knew of "c"; "a" and "b" were changed after it or before it.
        let lost = &ledgers[2];
        match damage {
            0 => assert!(machine.bucket().lose(lost)),
            _ => assert!(machine.bucket().flip_bit(lost, 100, 0)),
        }
        let other = another(&machine, 80 + damage);
        life(&other, async |world| {
            let report = refused(bootstrap(&world, &other, Options::default()).await);
            assert!(report.findings.iter().any(|it| it.object == lost.as_str()), "{report}");
            let report = bootstrap(&world, &other, partial()).await.unwrap();
            println!("{report}");
            let engine = open(&world, &other).await;
            // Its row is old, its records are where they were.
            assert_eq!(contents(&engine, "a").await, "aown bc");
            assert_eq!(contents(&engine, "b").await, "own ");
            assert_eq!(contents(&engine, "fork").await, "own forked ");
            assert!(engine.head(&name("c")).await.is_err());
            // All of it goes on.
            for stream in ["a", "b", "fork"] {
                append(&engine, stream, "new ").await;
            }
            create(&engine, "c").await;
            append(&engine, "c", "new ").await;
            engine.delete(&name("b")).await.unwrap();
            assert_eq!(contents(&engine, "fork").await, "own forked new ");
            engine.delete(&name("fork")).await.unwrap();
            create(&engine, "b").await;
            pass(30).await;
            engine.close().await;
        });
        // What was published since is whole again.
        let third = another(&machine, 90 + damage);
        life(&third, async |world| {
            let engine = recover(&world, &third).await;
            assert_eq!(contents(&engine, "a").await, "aown bcnew ");
            assert_eq!(contents(&engine, "c").await, "new ");
            assert_eq!(contents(&engine, "b").await, "");
            engine.close().await;
        });
    }
}

#[test]
fn a_block_is_fetched_once_for_all_streams_whose_rows_are_old() {
    let machine = Machine::new(430);
    let streams: Vec<String> = (0..50).map(|number| format!("s{number}")).collect();
    let lost = life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        for stream in &streams {
            create(&engine, stream).await;
            append(&engine, stream, "one ").await;
        }
        pass(15).await;
        let before = keys(machine.bucket(), "rows/");
        for stream in &streams {
            append(&engine, stream, "two ").await;
        }
        pass(15).await;
        let mut ledgers = keys(machine.bucket(), "rows/");
        ledgers.retain(|key| !before.contains(key));
        ledgers.pop().expect("a fold had its ledger")
    });
    assert!(machine.bucket().lose(&lost));
    let other = another(&machine, 431);
    life(&other, async |world| {
        let asked = || other.bucket().count(Verb::Get);
        let before = asked();
        bootstrap(&world, &other, partial()).await.unwrap();
        let asked = usize::try_from(asked() - before).unwrap();
        assert!(asked < streams.len() / 2, "{asked} requests for {} streams", streams.len());
        let engine = open(&world, &other).await;
        for stream in &streams {
            assert_eq!(contents(&engine, stream).await, "one two ", "{stream}");
        }
        engine.close().await;
    });
}

#[test]
fn forks_of_a_stream_that_is_lost_are_kept_and_end_in_peace() {
    let machine = Machine::new(55);
    let first = life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "source").await;
        append(&engine, "source", "inherited ").await;
        pass(15).await;
        let first = keys(machine.bucket(), "rows/");
        let fork = Fork { source: name("source"), at: None, sub_offset: 0 };
        let fork = Create { fork: Some(fork), ..Create::new(name("fork"), None) };
        engine.create(fork).await.unwrap();
        pass(15).await;
        first
    });
    let second = keys(machine.bucket(), "rows/");
    // The source's row is in both: its count of forks is in the second.
    let [both] = &second.iter().filter(|key| !first.contains(key)).collect::<Vec<_>>()[..] else {
        panic!("{second:?}")
    };
    assert!(machine.bucket().lose(&first[0]) && machine.bucket().peek(both).is_some());
    let other = another(&machine, 56);
    life(&other, async |world| {
        bootstrap(&world, &other, partial()).await.unwrap();
        let engine = open(&world, &other).await;
        assert_eq!(contents(&engine, "fork").await, "inherited ");
        let append = Append::new(name("fork"), text(), "own ".into());
        engine.append(append).await.unwrap();
        assert_eq!(contents(&engine, "fork").await, "inherited own ");
        engine.delete(&name("fork")).await.unwrap();
        pass(15).await;
        engine.close().await;
    });
}

/// Publishes a ledger with records in its tail, and none after it. Returns how many records there
/// are in all, and the ledger.
fn fill_a_tail(machine: &Machine) -> (usize, Key) {
    life(machine, async |world| {
        let config = weir_engine::Config { memtable_bytes_max: 64 << 10, ..config() };
        let bucket = machine.bucket().client(world.clock.clone());
        let opened = weir_engine::Engine::open_with(world, config, Some(bucket), "a test").await;
        let engine = opened.unwrap();
        create(&engine, "a").await;
        // The seal begins with the 60th; those after it come while its rows are written.
        let mut records = 0;
        while records < 80 {
            append(&engine, "a", &format!("{records:01000} ")).await;
            records += 1;
        }
        pass(5).await;
        let ledgers = keys(machine.bucket(), "rows/");
        assert_eq!(ledgers.len(), 1, "one fold");
        (records, ledgers.into_iter().next().unwrap())
    })
}

#[test]
fn a_tail_that_is_lost_costs_no_record_that_a_segment_has() {
    let machine = Machine::new(57);
    let (written, ledger) = fill_a_tail(&machine);
    let bytes = machine.bucket().peek(&ledger).unwrap();
    // A block behind those of the rows.
    let mut tail = bytes.windows(4).enumerate().filter(|(_, it)| *it == b"WLOG").map(|(at, _)| at);
    let tail = tail.next_back().expect("it has blocks");
    assert!(machine.bucket().flip_bit(&ledger, tail + 60, 0));
    let other = another(&machine, 58);
    life(&other, async |world| {
        let report = refused(bootstrap(&world, &other, Options::default()).await);
        assert!(report.findings.iter().any(|it| it.rule == "tail"), "{report}");
        bootstrap(&world, &other, partial()).await.unwrap();
        let engine = open(&world, &other).await;
        let left = contents(&engine, "a").await;
        let whole: String = (0..written).map(|record| format!("{record:01000} ")).collect();
        assert!(whole.starts_with(&left) && left.len() > 60_000, "{} bytes", left.len());
        let details = engine.details(&name("a")).await.unwrap();
        assert_eq!(details.total_bytes, u64::try_from(left.len()).unwrap());
        append(&engine, "a", "new ").await;
        pass(15).await;
        assert_eq!(contents(&engine, "a").await, format!("{left}new "));
        assert_eq!(verify(&world, &other, weir_engine::verify::Depth::Deep).await, [""; 0]);
        engine.close().await;
    });
}
