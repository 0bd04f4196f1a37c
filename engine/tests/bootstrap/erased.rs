//! INV-30 what was deleted is in no file of the store and in no object of its bucket once its time
//! is up: not in segments, not behind the rows of ledgers, not in the pages of the database.

use std::{collections::BTreeSet, path::Path, time::Duration};

use bytes::Bytes;
use weir_engine::{
    Config, Engine,
    request::{Append, Create, From},
    types::ContentType,
};
use weir_io::{World, memory::Machine};

use crate::town::*;

const HOUR: u64 = 3600;

fn config() -> Config {
    Config {
        erase_within: Duration::from_secs(2 * HOUR),
        // A seal begins while records come: some of them are in the tail of its ledger.
        memtable_bytes_max: 128 << 10,
        ..crate::town::config()
    }
}

fn bytes() -> Option<ContentType> {
    ContentType::parse("application/octet-stream")
}

/// What no codec makes smaller.
fn secret(number: u64) -> Bytes {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut secret = Vec::new();
    for _ in 0..250 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        secret.extend_from_slice(&state.to_le_bytes());
    }
    secret.into()
}

/// The files and objects that have one of these.
fn traces(world: &World, machine: &Machine, secrets: &[Bytes]) -> BTreeSet<String> {
    let known: BTreeSet<&[u8]> = secrets.iter().map(|secret| &secret[1000..1032]).collect();
    let has = |bytes: &[u8]| bytes.windows(32).any(|window| known.contains(window));
    let mut found = BTreeSet::new();
    for dir in ["", "segments", "rows"] {
        for path in world.disk.list(&Path::new(DIR).join(dir)).unwrap() {
            let Ok(file) = world.disk.open(&path) else { continue };
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            if has(&bytes) {
                found.insert(path.display().to_string());
            }
        }
    }
    for key in machine.bucket().keys() {
        if has(&machine.bucket().peek(&key).unwrap()) {
            found.insert(key.to_string());
        }
    }
    found
}

async fn open(world: &World, machine: &Machine) -> Engine {
    let bucket = machine.bucket().client(world.clock.clone());
    Engine::open_with(world.clone(), config(), Some(bucket), "a test").await.unwrap()
}

#[test]
fn what_was_deleted_is_nowhere_once_its_time_is_up() {
    let machine = Machine::new(300);
    let secrets: Vec<Bytes> = (1..200).map(secret).collect();
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        for stream in ["gone", "keep"] {
            engine.create(Create::new(name(stream), bytes())).await.unwrap();
        }
        for secret in &secrets {
            let append = Append::new(name("gone"), bytes(), secret.clone());
            while engine.append(append.clone()).await.is_err() {
                pass(1).await;
            }
        }
        let kept = Append::new(name("keep"), bytes(), "kept".into());
        engine.append(kept).await.unwrap();
        pass(30).await;
        let found = traces(&world, &machine, &secrets);
        for place in
            ["/weir/store/weir.sqlite", "/weir/store/weir.sqlite-wal", "segments/", "rows/"]
        {
            let is_there = found.iter().any(|it| it.starts_with(place));
            assert!(is_there, "nothing to be erased in {place}: {found:?}");
        }
        engine.delete(&name("gone")).await.unwrap();
        pass(2 * HOUR + 1800).await;
        assert_eq!(traces(&world, &machine, &secrets), BTreeSet::new());
        let page = page(&engine, "keep", From::Start).await.unwrap();
        assert_eq!(page.pieces.concat(), b"kept");
        engine.close().await;
    });
}
