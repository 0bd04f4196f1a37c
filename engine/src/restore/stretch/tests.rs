//! Ledgers of far more rows and commits than one stretch has.

use std::time::Duration;

use bytes::BytesMut;
use tokio::task::LocalSet;
use weir_io::memory::Machine;

use super::*;
use crate::{
    ledger::{Builder, Key as RowKey, Op},
    publish::{keys::Nonce, listing::Presence},
    types::SegmentId,
};

const STORE: StoreId = StoreId([7; 16]);

/// Rows that say nothing but how long they are.
fn rows() -> Vec<Change> {
    let row = |at: u32| {
        let key = RowKey::new(Bytes::from(format!("{at:08}")));
        Change::put(key, Bytes::from(vec![u8::try_from(at % 251).unwrap(); 200]))
    };
    (0..8000).map(row).collect()
}

/// A ledger of these rows and 4,000 commits.
fn ledger(rows: &[Change]) -> (Bytes, Entry) {
    let mut bytes = BytesMut::new();
    let mut sink = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    let id = SegmentId::new(3);
    let mut builder = Builder::new(STORE, id, &mut sink).unwrap();
    rows.iter().try_for_each(|row| builder.push(row)).unwrap();
    for lsn in 10..4010 {
        builder.commit(Lsn::new(lsn), &[1; 100]).unwrap();
    }
    let footer = builder.finish(Lsn::new(1), Lsn::new(9)).unwrap();
    let entry = Entry {
        id,
        nonce: Nonce::new(1),
        bytes: footer.file_bytes(),
        mark: footer.mark(),
        first_lsn: footer.first_lsn,
        last_lsn: footer.last_lsn,
        records: footer.rows,
        presence: Presence::Stored,
    };
    (bytes.freeze(), entry)
}

/// What is read of a ledger, and how many stretches it took.
fn read(machine: &Machine, entry: &Entry) -> (Stretch, usize) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let world = machine.boot(Duration::ZERO);
        let objects = machine.bucket().client(Arc::clone(&world.clock));
        let patience = weir_io::retry::Patience::default();
        let bucket = Retrying::new(objects, Arc::clone(&world.entropy), patience);
        let mut read = Stretches::open(&world, &bucket, STORE, entry).await.unwrap();
        let (mut all, mut count) = (Stretch::default(), 0);
        while let Some(stretch) = read.next().await.unwrap() {
            let bytes = |change: &Change| match &change.op {
                Op::Put(value) => change.key.bytes().len() + value.len(),
                Op::Delete | Op::DeleteBelow => 0,
            };
            let rows = stretch.rows.iter().flatten().map(bytes);
            let commits = stretch.commits.iter().flatten().map(|(_, bytes)| bytes.len());
            let held: usize = rows.chain(commits).sum();
            assert!(u64::try_from(held).unwrap() <= STRETCH_BYTES, "{held} bytes in memory");
            all.rows.extend(stretch.rows);
            all.commits.extend(stretch.commits);
            count += 1;
        }
        (all, count)
    })
}

#[test]
fn a_large_ledger_is_read_a_stretch_at_a_time() {
    let machine = Machine::new(1);
    let rows = rows();
    let (bytes, entry) = ledger(&rows);
    machine.bucket().put(entry.ledger().key(), bytes);
    let (read, count) = read(&machine, &entry);
    assert!(count >= 8, "{count} stretches of 2 MB");
    let found: Vec<Change> = read.rows.into_iter().map(Result::unwrap).collect();
    assert!(found == rows, "all rows, in order");
    let lsns: Vec<u64> = read.commits.into_iter().map(|it| it.unwrap().0.get()).collect();
    assert!(lsns.into_iter().eq(10..4010), "all commits, in order");
}

#[test]
fn a_damaged_block_is_named_and_costs_its_own_rows() {
    let machine = Machine::new(2);
    let rows = rows();
    let (bytes, entry) = ledger(&rows);
    let key = entry.ledger().key();
    machine.bucket().put(key.clone(), bytes);
    // Behind the header of the file and that of the first block.
    assert!(machine.bucket().flip_bit(&key, 100, 0));
    let (read, _) = read(&machine, &entry);
    let lost: Vec<&Lost> = read.rows.iter().filter_map(|row| row.as_ref().err()).collect();
    let [lost] = &lost[..] else { panic!("{lost:?}") };
    assert_eq!((lost.block, &lost.first), (0, &rows[0].key));
    let gone = usize::try_from(lost.rows).unwrap();
    let found: Vec<Change> = read.rows.into_iter().flatten().collect();
    assert!(found == rows[gone..], "everything behind it");
    assert_eq!(read.commits.len(), 4000);
}
