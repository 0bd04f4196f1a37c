//! Who only looks changes nothing, and finds what was planted.

use std::path::{Path, PathBuf};

use weir_engine::{
    Engine, OpenError,
    restore::{self, Each, Flow, Item, Rank, Value},
    verify::Depth,
};
use weir_io::{
    World,
    memory::{BucketFaults, Machine, Verb},
    objects::Key,
    sqlite::Role,
};

use crate::town::*;

const DEPTHS: [Depth; 4] = [Depth::Local, Depth::Remote, Depth::Both, Depth::Deep];

/// A closed store with two folds in its bucket, and something in the log.
fn fill(machine: &Machine) {
    life(machine, async |world| {
        let engine = open(&world, machine).await;
        for stream in ["a", "b", "gone"] {
            create(&engine, stream).await;
            append(&engine, stream, "one ").await;
        }
        pass(15).await;
        produce(&engine, "b", "two ", 0).await.unwrap();
        engine.delete(&name("gone")).await.unwrap();
        pass(15).await;
        engine.close().await;
    });
}

fn files(world: &World, dir: &str) -> Vec<PathBuf> {
    world.disk.list(&Path::new(DIR).join(dir)).unwrap()
}

#[test]
fn nothing_is_found_where_nothing_is_wrong_and_nothing_is_changed() {
    let machine = Machine::new(30);
    fill(&machine);
    let asks = |verb| machine.bucket().count(verb);
    life(&machine, async |world| {
        let before = (machine.drive().mutations(), asks(Verb::Create), asks(Verb::Delete));
        for depth in DEPTHS {
            assert_eq!(verify(&world, &machine, depth).await, [""; 0], "{depth:?}");
        }
        let after = (machine.drive().mutations(), asks(Verb::Create), asks(Verb::Delete));
        assert_eq!(after, before, "INV-45 who looks changes nothing");
    });
    // Beside a server, and after a bootstrap.
    let other = another(&machine, 31);
    life(&other, async |world| {
        let engine = recover(&world, &other).await;
        append(&engine, "a", "two ").await;
        for depth in DEPTHS {
            assert_eq!(verify(&world, &other, depth).await, [""; 0], "{depth:?}");
        }
        pass(15).await;
        for depth in DEPTHS {
            assert_eq!(verify(&world, &other, depth).await, [""; 0], "{depth:?}");
        }
        engine.close().await;
        for depth in DEPTHS {
            assert_eq!(verify(&world, &other, depth).await, [""; 0], "{depth:?}");
        }
    });
}

#[test]
fn who_was_overtaken_is_told_so() {
    let machine = Machine::new(40);
    fill(&machine);
    let other = another(&machine, 41);
    life(&other, async |world| {
        let engine = recover(&world, &other).await;
        append(&engine, "a", "new ").await;
        pass(15).await;
        engine.close().await;
        assert_eq!(verify(&world, &other, Depth::Both).await, [""; 0], "the new one is alone");
    });
    life(&machine, async |world| {
        for depth in [Depth::Both, Depth::Deep] {
            let rules = verify(&world, &machine, depth).await;
            assert!(rules.contains(&"overtaken"), "{depth:?}: {rules:?}");
        }
    });
}

#[test]
fn damage_on_the_disk_is_found() {
    for (seed, dir, byte, depths) in [(32, "segments", 50, 0..4), (33, "rows", 45, 0..4)] {
        let machine = Machine::new(seed);
        fill(&machine);
        life(&machine, async |world| {
            let [first, ..] = &files(&world, dir)[..] else { panic!("no file") };
            machine.drive().flip_bit(first, byte, 0).unwrap();
            for depth in &DEPTHS[depths] {
                let expected: &[&str] = if *depth == Depth::Remote { &[] } else { &["block"] };
                assert_eq!(verify(&world, &machine, *depth).await, expected, "{dir} {depth:?}");
            }
            machine.drive().flip_bit(first, 0, 0).unwrap();
            assert_eq!(verify(&world, &machine, Depth::Local).await, ["file"], "{dir}");
            world.disk.remove(first).unwrap();
            assert_eq!(verify(&world, &machine, Depth::Local).await, ["file"], "{dir}");
        });
    }
}

/// Where the root page of an index begins in the database of a closed store.
fn root_page(world: &World, index: &str) -> u64 {
    let path = Path::new(DIR).join("weir.sqlite");
    let conn = world.sqlite.open(&path, Role::Looker).unwrap();
    let number = |sql: &str| -> i64 { conn.query_row(sql, [], |row| row.get(0)).unwrap() };
    let root = format!("SELECT rootpage FROM sqlite_schema WHERE name = '{index}'");
    u64::try_from((number(&root) - 1) * number("PRAGMA page_size")).unwrap()
}

#[test]
fn a_damaged_index_of_the_database_is_found_and_left_as_it_is() {
    let machine = Machine::new(46);
    fill(&machine);
    life(&machine, async |world| {
        // No row is found by it here, so nothing but a look at the page can tell.
        let page = root_page(&world, "streams_due_wall");
        let database = Path::new(DIR).join("weir.sqlite");
        machine.drive().flip_bit(&database, page, 0).unwrap();
        let before = machine.drive().mutations();
        for depth in DEPTHS {
            let found = verify(&world, &machine, depth).await;
            assert_eq!(found.is_empty(), depth == Depth::Remote, "{depth:?}: {found:?}");
            assert!(found.iter().all(|rule| *rule == "database"), "{depth:?}: {found:?}");
        }
        assert_eq!(machine.drive().mutations(), before, "INV-45 who looks changes nothing");
        machine.drive().flip_bit(&database, page, 0).unwrap();
        for depth in DEPTHS {
            assert_eq!(verify(&world, &machine, depth).await, [""; 0], "{depth:?}");
        }
    });
}

/// Plants something in a bucket, looks, and repairs it.
fn planted(machine: &Machine, key: &Key, plant: impl FnOnce(&Key), expected: &[(Depth, &[&str])]) {
    let bytes = machine.bucket().peek(key).unwrap();
    plant(key);
    life(machine, async |world| {
        for (depth, rules) in expected {
            let found = verify(&world, machine, *depth).await;
            assert_eq!(found, *rules, "{key} {depth:?}");
        }
    });
    machine.bucket().put(key.clone(), bytes);
}

#[test]
fn damage_in_the_bucket_is_found() {
    let machine = Machine::new(34);
    fill(&machine);
    let bucket = machine.bucket();
    for prefix in ["segments/", "rows/"] {
        let key = &keys(bucket, prefix)[0];
        let len = bucket.peek(key).unwrap().len();
        let lost = |key: &Key| assert!(bucket.lose(key));
        let object: &[&str] = &["object"];
        planted(
            &machine,
            key,
            lost,
            &[
                (Depth::Local, &[]),
                (Depth::Remote, object),
                (Depth::Both, object),
                (Depth::Deep, &["object", "object"]),
            ],
        );
        let end = |key: &Key| assert!(bucket.flip_bit(key, len - 1, 0));
        planted(&machine, key, end, &[(Depth::Remote, &["mark"]), (Depth::Deep, &["block"])]);
        let block = |key: &Key| assert!(bucket.flip_bit(key, 50, 0));
        planted(&machine, key, block, &[(Depth::Remote, &[]), (Depth::Deep, &["block"])]);
        let other = if prefix == "rows/" { "segments/" } else { "rows/" };
        let other = bucket.peek(&keys(bucket, other)[0]).unwrap();
        let foreign = |key: &Key| bucket.put(key.clone(), other);
        planted(&machine, key, foreign, &[(Depth::Local, &[])]);
    }
}

#[test]
fn a_broken_chain_is_found() {
    let machine = Machine::new(35);
    fill(&machine);
    let bucket = machine.bucket();
    assert_eq!(keys(bucket, "manifest/").len(), 2);
    let chain: &[&str] = &["chain"];
    // A first one that is gone, without a boundary that says so, may have been collected.
    let flip = |key: &Key| assert!(bucket.flip_bit(key, 100, 0));
    planted(&machine, &manifest(1), flip, &[(Depth::Local, &[]), (Depth::Remote, chain)]);
    planted(&machine, &manifest(2), flip, &[(Depth::Remote, &["manifest"])]);
    // A manifest of another chain in between.
    let other = Machine::new(36);
    fill(&other);
    let foreign = other.bucket().peek(&manifest(1)).unwrap();
    let swap = |key: &Key| bucket.put(key.clone(), foreign.clone());
    let broken: &[&str] = &["rule", "rule", "object", "object"];
    life(&machine, async |world| {
        let key = manifest(1);
        let bytes = bucket.peek(&key).unwrap();
        swap(&key);
        let found = verify(&world, &machine, Depth::Remote).await;
        assert!(found.iter().filter(|it| **it == "rule").count() >= 2, "{found:?} {broken:?}");
        bucket.put(key, bytes);
    });
    // The whole bucket is another store's.
    let foreign = other.bucket().peek(&manifest(2)).unwrap();
    let swap = |key: &Key| bucket.put(key.clone(), foreign);
    let key = manifest(2);
    let bytes = bucket.peek(&key).unwrap();
    swap(&key);
    life(&machine, async |world| {
        let found = verify(&world, &machine, Depth::Both).await;
        assert!(found.contains(&"manifest") && found.contains(&"object"), "{found:?}");
    });
    bucket.put(key, bytes);
}

#[test]
fn rows_that_differ_from_those_in_the_bucket_are_found_one_by_one() {
    let machine = Machine::new(48);
    fill(&machine);
    life(&machine, async |world| {
        // A name that was deleted, one that the bucket has not, and one that only the bucket has.
        for (sql, expected) in [
            ("UPDATE tombstones SET epoch = epoch + 1 WHERE name = 'gone'", 1),
            ("INSERT INTO tombstones (name, epoch) VALUES ('alone', 1)", 2),
            ("DELETE FROM tombstones WHERE name = 'gone'", 2),
        ] {
            let path = Path::new(DIR).join("weir.sqlite");
            let conn = world.sqlite.open(&path, Role::Writer).unwrap();
            assert_eq!(conn.execute(sql, []).unwrap(), 1, "{sql}");
            drop(conn);
            let found = verify(&world, &machine, Depth::Deep).await;
            assert_eq!(found, vec!["rows"; expected], "{sql}");
            assert_eq!(verify(&world, &machine, Depth::Both).await, [""; 0], "{sql}");
        }
    });
}

#[test]
fn a_store_that_is_not_there_is_no_sound_one() {
    let machine = Machine::new(37);
    life(&machine, async |world| {
        let bucket = machine.bucket().client(world.clock.clone());
        for depth in [Depth::Local, Depth::Both, Depth::Deep] {
            let verified = Engine::verify(world.clone(), config(), Some(bucket.clone()), depth);
            verified.await.unwrap_err();
        }
        assert!(!world.disk.exists(Path::new("/weir")).unwrap());
    });
}

/// Everything that is shown of a stored thing.
fn shown(show: impl FnOnce(Each<'_>) -> Flow) -> Vec<Item> {
    let mut items = Vec::new();
    let flow = show(&mut |item| {
        items.push(item);
        Flow::Continue(())
    });
    assert!(flow.is_continue(), "nobody has seen enough");
    items
}

fn field<'a>(item: &'a Item, name: &str) -> Option<&'a Value> {
    item.fields.iter().find(|(it, _)| *it == name).map(|(_, value)| value)
}

/// The values of the records among what is shown, with name and position where these are known.
fn records(items: &[Item]) -> Vec<(Option<String>, u64, String)> {
    let records = items.iter().filter(|it| it.kind == "record");
    let record = |item| {
        let Some(Value::Record(bytes, _)) = field(item, "value") else { panic!("{item:?}") };
        let Some(Value::Number(seq)) = field(item, "seq") else { panic!("{item:?}") };
        let name = match field(item, "name") {
            Some(Value::Text(name)) => Some(name.clone()),
            _ => None,
        };
        (name, *seq, String::from_utf8(bytes.to_vec()).unwrap())
    };
    records.map(record).collect()
}

#[test]
fn everything_that_is_stored_can_be_shown() {
    let machine = Machine::new(38);
    fill(&machine);
    for (prefix, kind, name) in [
        ("segments/", "record", "value"),
        ("rows/", "row", "row"),
        ("manifest/", "segment", "mark"),
    ] {
        let mut found = 0;
        for key in keys(machine.bucket(), prefix) {
            let bytes = machine.bucket().peek(&key).unwrap();
            let items = shown(|each| restore::describe(&bytes, each));
            assert_eq!(items[0].rank, Rank::Head, "{key}");
            assert!(items.iter().all(|it| it.rank != Rank::Damage), "{key}: {items:?}");
            found += items.iter().filter(|it| it.kind == kind && field(it, name).is_some()).count();
            // Whatever is cut off, it is said and not panicked about.
            for len in (0..bytes.len()).step_by(7) {
                let items = shown(|each| restore::describe(&bytes.slice(..len), each));
                assert!(items.iter().any(|it| it.rank == Rank::Damage), "{key} {len}");
            }
            // Neither is a bit that turned: the head of a file is not shown for what it is not.
            for at in (0..bytes.len()).step_by(11) {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= 0x80;
                shown(|each| restore::describe(&bytes.into(), each));
            }
        }
        assert!(found > 0, "{prefix}");
    }
    let of_segments = keys(machine.bucket(), "segments/").into_iter().flat_map(|key| {
        let bytes = machine.bucket().peek(&key).unwrap();
        records(&shown(|each| restore::describe(&bytes, each)))
    });
    let values: Vec<String> = of_segments.map(|(_, _, value)| value).collect();
    assert!(
        values.contains(&"one ".to_owned()) && values.contains(&"two ".to_owned()),
        "{values:?}"
    );
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "late").await;
        append(&engine, "late", "three").await;
        append(&engine, "a", "four").await;
        let before = machine.drive().mutations();
        let database = Path::new(DIR).join("weir.sqlite");
        let items = shown(|each| restore::describe_log(&world, &database, each));
        assert!(items.iter().any(|it| it.kind == "create"), "{items:?}");
        let record = |name: &str, seq, value: &str| (Some(name.to_owned()), seq, value.to_owned());
        assert_eq!(records(&items), [record("late", 0, "three"), record("a", 1, "four")]);
        assert_eq!(machine.drive().mutations(), before);
        engine.close().await;
    });
}

#[test]
fn what_an_overtaken_store_has_alone_can_be_got_out_of_it() {
    let machine = Machine::new(43);
    fill(&machine);
    let outage = BucketFaults { outage: true, ..BucketFaults::default() };
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        pass(1).await;
        machine.bucket().set_faults(outage.clone());
        append(&engine, "a", "sealed ").await;
        create(&engine, "new").await;
        append(&engine, "new", "first").await;
        pass(30).await;
        append(&engine, "a", "in the log").await;
        machine.drive().kill();
    });
    machine.drive().power_cycle();
    machine.bucket().set_faults(BucketFaults::default());
    let other = another(&machine, 44);
    life(&other, async |world| {
        let engine = recover(&world, &other).await;
        append(&engine, "a", "other").await;
        pass(15).await;
        engine.close().await;
    });
    life(&machine, async |world| {
        let look = || {
            let before = (machine.drive().mutations(), machine.bucket().requests());
            let items = shown(|each| restore::unpublished(&world, &config(), each).unwrap());
            let after = (machine.drive().mutations(), machine.bucket().requests());
            assert_eq!(after, before, "who looks changes nothing");
            items
        };
        let record = |name: &str, seq, value: &str| (Some(name.to_owned()), seq, value.to_owned());
        let mut alone = records(&look());
        alone.sort();
        let expect =
            [record("a", 1, "sealed "), record("a", 2, "in the log"), record("new", 0, "first")];
        assert_eq!(alone, expect);
        let streams = look();
        let new = streams.iter().find(|it| {
            it.kind == "stream" && field(it, "name") == Some(&Value::Text("new".to_owned()))
        });
        let content = new.and_then(|it| field(it, "content_type"));
        assert_eq!(content, Some(&Value::Text("text/plain".to_owned())));
        // It does not start any more.
        match try_open(&world, &machine).await {
            Err(OpenError::Bucket(_)) => {}
            other => panic!("{:?}", other.err()),
        }
        assert_eq!(records(&look()).len(), 3);
    });
    let nowhere = Machine::new(45);
    life(&nowhere, async |world| {
        let said = restore::unpublished(&world, &config(), &mut |_| Flow::Continue(()));
        assert!(said.unwrap_err().contains("there is no store"));
    });
}

#[test]
fn what_is_no_longer_needed_is_listed_and_left_alone() {
    let machine = Machine::new(39);
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        let orphan = Key::new(format!("segments/{:016x}-{:016x}.seg", 999, 1)).unwrap();
        machine.bucket().put(orphan.clone(), "left behind".into());
        create(&engine, "a").await;
        for record in 0..10 {
            append(&engine, "a", &format!("record {record} ")).await;
            pass(15).await;
        }
        let all = keys(machine.bucket(), "");
        let bucket = machine.bucket().client(world.clock.clone());
        let garbage = restore::garbage(&world, bucket).await.unwrap();
        assert_eq!(keys(machine.bucket(), ""), all);
        let merged = garbage.unneeded.iter().filter(|it| it.named_by.is_some()).count();
        assert!(merged >= 14, "segments and ledgers were merged\n{garbage:#?}");
        let orphans: Vec<&str> = garbage
            .unneeded
            .iter()
            .filter(|it| it.named_by.is_none() && it.since.is_none())
            .map(|it| it.object.as_str())
            .collect();
        assert!(orphans.contains(&orphan.as_str()), "{garbage:#?}");
        let objects =
            keys(machine.bucket(), "segments/").len() + keys(machine.bucket(), "rows/").len();
        // A server deletes manifests of old too, and lists them as what they are.
        let (manifests, others): (Vec<_>, Vec<_>) =
            garbage.unneeded.iter().partition(|it| it.object.starts_with("manifest/"));
        assert_eq!(usize::try_from(garbage.objects).unwrap() + others.len(), objects);
        assert_eq!(manifests.len() + 1, keys(machine.bucket(), "manifest/").len());
        assert!(manifests.iter().all(|it| it.since.is_some() && it.bytes > 0));
        // Once the grace period is over, what was listed is gone, and nothing else is.
        let doomed: Vec<String> = garbage.unneeded.iter().map(|it| it.object.clone()).collect();
        pass(2000).await;
        let left: Vec<String> =
            keys(machine.bucket(), "").iter().map(|key| key.as_str().to_owned()).collect();
        assert!(doomed.iter().all(|key| !left.contains(key)), "{doomed:?} {left:?}");
        let kept = all.iter().map(|key| key.as_str().to_owned());
        for key in kept.filter(|key| !doomed.contains(key) && !key.starts_with("gc/")) {
            assert!(left.contains(&key), "{key} was not listed, and is gone");
        }
        engine.close().await;
    });
}
