//! Drafts in memory and pieces in a database read alike.

use std::time::Duration;

use weir_io::memory::Machine;

use super::*;
use crate::{Layout, state::catalogue};

const WRITES: [usize; 9] = [32, 5, 70_000, 16_000, 300, 600_000, 65_536, 40, 20];
const ID: SegmentId = SegmentId::new(7);

fn written() -> Vec<Vec<u8>> {
    let byte = |at: usize| u8::try_from(at % 251).expect("below 251");
    let mut at = 0;
    let mut write = |len: usize| {
        at += len;
        (at - len..at).map(byte).collect()
    };
    WRITES.iter().map(|len| write(*len)).collect()
}

fn rack() -> (Arc<Pieces>, Connection) {
    let world = Machine::new(1).boot(Duration::ZERO);
    let config = Config::one_file("/data");
    world.disk.create_dir_all(&config.dir).unwrap();
    let mut conn = world.sqlite.open(&database(&config), Role::Writer).unwrap();
    catalogue::create(&mut conn, Layout::OneFile, &[]).unwrap();
    (Arc::new(Pieces::new(&world, &config, Role::Reader)), conn)
}

fn finished(pieces: &Arc<Pieces>) -> Arc<PieceFile> {
    let mut draft = Draft::new(Arc::clone(pieces), ID);
    written().iter().for_each(|bytes| draft.write(bytes));
    draft.finish()
}

fn stow(pieces: &Pieces, conn: &Connection) {
    for piece in pieces.draft_of(ID).unwrap().iter() {
        pieces::put(conn, ID, piece.at, &piece.body).unwrap();
    }
    pieces.stowed(ID);
}

#[test]
fn every_range_reads_alike_before_and_after_it_is_stowed() {
    let (rack, conn) = rack();
    let file = finished(&rack);
    let whole = written().concat();
    let borders: Vec<usize> =
        WRITES.iter().scan(0, |at, len| Some(std::mem::replace(at, *at + len))).collect();
    let check = |file: &PieceFile, what: &str| {
        for start in borders.iter().flat_map(|at| [at.saturating_sub(1), *at, at + 1]) {
            for len in [0, 1, 31, 20_000, 100_000, 700_000] {
                let mut buffer = vec![0; len];
                let read = file.read_exact_at(&mut buffer, u64::try_from(start).unwrap());
                let expect = whole.get(start..start + len);
                assert_eq!(read.is_ok(), expect.is_some(), "{what}: {len} bytes at {start}");
                assert!(expect.is_none_or(|it| it == buffer), "{what}: {len} bytes at {start}");
            }
        }
        assert_eq!(file.len().unwrap(), u64::try_from(whole.len()).unwrap());
    };
    check(&file, "draft");
    stow(&rack, &conn);
    assert!(rack.draft_of(ID).is_none(), "it takes no memory any more");
    check(&file, "stowed");
    check(&Pieces::open(&rack, ID).unwrap(), "opened");
}

#[test]
fn pieces_are_neither_tiny_nor_huge() {
    let (rack, _conn) = rack();
    let _file = finished(&rack);
    let draft = rack.draft_of(ID).unwrap();
    let sizes: Vec<usize> = draft.iter().map(|piece| piece.body.len()).collect();
    assert_eq!(sizes, [37, 70_000, 16_300, 262_144, 262_144, 75_712, 65_536, 60]);
}

#[test]
fn a_doomed_segment_is_let_go_of_when_its_last_reader_is_gone() {
    let (rack, conn) = rack();
    let file = finished(&rack);
    stow(&rack, &conn);
    rack.doom(ID);
    assert_eq!(rack.take_doomed(), []);
    drop(file);
    assert_eq!(rack.take_doomed(), [ID]);
    assert_eq!(rack.take_doomed(), []);
}

#[test]
fn a_gap_reads_as_the_end() {
    let (rack, conn) = rack();
    let file = finished(&rack);
    stow(&rack, &conn);
    conn.execute("DELETE FROM pieces WHERE at = 37", []).unwrap();
    let mut buffer = [0; 8];
    file.read_exact_at(&mut buffer, 0).unwrap();
    for (len, at) in [(8, 35), (8, 37), (1, 70_036)] {
        let error = file.read_exact_at(&mut buffer[..len], at).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{len} bytes at {at}");
    }
}
