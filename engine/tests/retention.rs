//! Retention on the simulated machine: what streams let go of, what forks keep of it, and when the
//! bytes leave the disk.

mod support;

use std::{num::NonZeroU64, path::Path, time::Duration};

use bytes::Bytes;
use support::{End, live, live_with, name};
use weir_engine::{
    Config, Engine,
    request::{Append, Create, CreateOutcome, Error, Fork, From, Read, Rejection},
    types::{ContentType, Epoch, Offset, Retention, Seq, StreamName, WallMs},
};
use weir_io::{
    Disk as _,
    memory::{EPOCH_MS, Machine},
};

const SEGMENTS: &str = "/data/store/segments";
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn by_bytes(max_bytes: u64) -> Retention {
    Retention { max_bytes: NonZeroU64::new(max_bytes), ..Retention::NONE }
}

fn by_age(max_age: Duration) -> Retention {
    let ms = u64::try_from(max_age.as_millis()).expect("small");
    Retention { max_age_ms: NonZeroU64::new(ms), ..Retention::NONE }
}

fn at(next: u64) -> Offset {
    Offset { epoch: Epoch::ZERO, next: Seq::new(next) }
}

fn kind(json: bool) -> Option<ContentType> {
    ContentType::parse(if json { "application/json" } else { "text/plain" })
}

async fn make(engine: &Engine, stream: &str, retention: Retention) {
    let create = Create { retention, ..Create::new(name(stream), kind(false)) };
    engine.create(create).await.expect("creates");
}

async fn fork(engine: &Engine, stream: &str, source: &str, point: u64) -> Result<(), Error> {
    let fork = Fork { source: name(source), at: Some(at(point)), sub_offset: 0 };
    let create = Create { fork: Some(fork), ..Create::new(name(stream), None) };
    engine.create(create).await.map(drop)
}

async fn say(engine: &Engine, stream: &str, text: &str) {
    let body = Bytes::copy_from_slice(text.as_bytes());
    engine.append(Append::new(name(stream), kind(false), body)).await.expect("appends");
}

/// Ten bytes that name their position.
fn record(position: u64) -> String {
    format!("{position:09}.")
}

/// Appends records of ten bytes at these positions.
async fn fill(engine: &Engine, stream: &str, positions: std::ops::Range<u64>) {
    for position in positions {
        say(engine, stream, &record(position)).await;
    }
}

async fn read(engine: &Engine, stream: &str, from: From) -> Result<String, Rejection> {
    let (mut text, mut from) = (Vec::new(), from);
    loop {
        let read = Read { name: name(stream), from, key: None, bytes_max: 64 };
        match engine.read(read).await {
            Ok(page) => {
                text.extend(page.pieces.concat());
                from = From::At(page.next);
                if page.up_to_date {
                    return Ok(String::from_utf8(text).expect("text was written"));
                }
            }
            Err(Error::Rejected(rejection)) => return Err(rejection),
            Err(error) => panic!("{stream}: {error}"),
        }
    }
}

fn records(positions: std::ops::Range<u64>) -> String {
    positions.map(record).collect()
}

/// Long enough for the keeper to seal, and to look at what it sealed.
async fn seal() {
    tokio::time::sleep(Duration::from_secs(13)).await;
}

async fn earliest(engine: &Engine, stream: &str) -> u64 {
    engine.head(&name(stream)).await.expect("there").earliest.next.get()
}

/// Whether any segment holds a record with these bytes.
fn on_disk(machine: &Machine, text: &str) -> bool {
    let disk = machine.drive().mount();
    let files = disk.list(Path::new(SEGMENTS)).expect("lists");
    files.iter().any(|path| {
        let file = disk.open(path).expect("opens");
        let mut bytes = vec![0; usize::try_from(file.len().expect("has a length")).expect("small")];
        file.read_exact_at(&mut bytes, 0).expect("reads");
        holds(&bytes, text)
    })
}

/// Takes the blocks of a segment apart as docs/FORMATS.md has them.
fn holds(segment: &[u8], text: &str) -> bool {
    const HEADER: usize = 24;
    let number = |at: usize| {
        let bytes = segment[at..at + 4].try_into().expect("four bytes");
        usize::try_from(u32::from_le_bytes(bytes)).expect("small")
    };
    let mut at = 40;
    let mut found = false;
    while segment[at..].starts_with(b"WBLK") {
        let (codec, raw, stored) = (segment[at + 4], number(at + 8), number(at + 12));
        let stored = &segment[at + HEADER..at + HEADER + stored];
        let plain = match codec {
            0 => stored.to_vec(),
            _ => zstd::bulk::decompress(stored, raw).expect("one frame"),
        };
        found |= plain.windows(text.len()).any(|window| window == text.as_bytes());
        at += HEADER + stored.len();
    }
    found
}

#[test]
fn a_stream_keeps_its_newest_bytes_and_says_where_they_begin() {
    let machine = Machine::new(1);
    live(&machine, End::PowerCut, async |engine| {
        make(&engine, "s", by_bytes(500)).await;
        fill(&engine, "s", 0..56).await;
        seal().await;
        assert_eq!(earliest(&engine, "s").await, 0, "an eighth more is let be");
        fill(&engine, "s", 56..60).await;
        seal().await;
        assert_eq!(earliest(&engine, "s").await, 10, "500 bytes are left");
    });
    for end in [End::PowerCut, End::Clean] {
        live(&machine, end, async |engine| {
            let kept = records(10..60);
            assert_eq!(read(&engine, "s", From::Start).await, Ok(kept.clone()));
            assert_eq!(read(&engine, "s", From::At(at(10))).await, Ok(kept.clone()));
            assert_eq!(read(&engine, "s", From::Since(WallMs::ZERO)).await, Ok(kept));
            assert_eq!(read(&engine, "s", From::Now).await, Ok(String::new()));
            let gone = Err(Rejection::OffsetTrimmed { next: at(10) });
            assert_eq!(read(&engine, "s", From::At(at(9))).await, gone);
            assert_eq!(read(&engine, "s", From::At(Offset::START)).await, gone);
            let details = engine.details(&name("s")).await.expect("there");
            assert_eq!((details.total_bytes, details.trimmed_bytes), (600, 100));
            assert_eq!(details.head.retention, by_bytes(500));
        });
    }
}

#[test]
fn what_lies_in_memory_only_is_trimmed_too() {
    let machine = Machine::new(2);
    live_with(&machine, End::PowerCut, never_sealing(), async |engine| {
        make(&engine, "s", Retention::NONE).await;
        fill(&engine, "s", 0..5).await;
    });
    live(&machine, End::PowerCut, async |engine| {
        engine.retain(&name("s"), by_bytes(20)).await.expect("retains");
        // The seal writes the row that says when to look.
        seal().await;
        assert_eq!(read(&engine, "s", From::Start).await, Ok(records(3..5)));
        fill(&engine, "s", 5..9).await;
        seal().await;
        assert_eq!(read(&engine, "s", From::Start).await, Ok(records(7..9)));
    });
    live(&machine, End::Clean, async |engine| {
        assert_eq!(read(&engine, "s", From::Start).await, Ok(records(7..9)));
        fill(&engine, "s", 9..10).await;
        assert_eq!(read(&engine, "s", From::Start).await, Ok(records(7..10)));
    });
}

fn never_sealing() -> Config {
    Config { seal_age: DAY, ..Config::new("/data/store") }
}

#[test]
fn records_go_when_they_are_too_old_and_none_goes_before() {
    let machine = Machine::new(3);
    live(&machine, End::Clean, async |engine| {
        make(&engine, "s", by_age(Duration::from_secs(1600))).await;
        fill(&engine, "s", 0..3).await;
        tokio::time::sleep(Duration::from_secs(800)).await;
        fill(&engine, "s", 3..6).await;
        // A sixteenth more than the limit is let be.
        tokio::time::sleep(Duration::from_secs(890)).await;
        assert_eq!(earliest(&engine, "s").await, 0);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(read(&engine, "s", From::Start).await, Ok(records(3..6)));
        tokio::time::sleep(Duration::from_secs(800)).await;
        assert_eq!(read(&engine, "s", From::Start).await, Ok(String::new()));
        assert_eq!(earliest(&engine, "s").await, 6);
        fill(&engine, "s", 6..7).await;
        assert_eq!(read(&engine, "s", From::Start).await, Ok(records(6..7)));
        let gone = Err(Rejection::OffsetTrimmed { next: at(6) });
        assert_eq!(read(&engine, "s", From::At(at(3))).await, gone);
        let wide = by_age(Duration::from_secs(10_000));
        engine.retain(&name("s"), wide).await.expect("retains");
        tokio::time::sleep(Duration::from_secs(9000)).await;
        assert_eq!(read(&engine, "s", From::Start).await, Ok(records(6..7)), "the new limit");
    });
}

#[test]
fn the_limits_are_part_of_what_a_stream_is() {
    let machine = Machine::new(4);
    live(&machine, End::PowerCut, async |engine| {
        make(&engine, "s", by_bytes(500)).await;
        let again = |retention| Create { retention, ..Create::new(name("s"), kind(false)) };
        let same = engine.create(again(by_bytes(500))).await.expect("confirms");
        assert_eq!(same.outcome, CreateOutcome::Existing);
        for other in [Retention::NONE, by_bytes(501), by_age(DAY)] {
            let refused = engine.create(again(other)).await;
            assert!(
                matches!(refused, Err(Error::Rejected(Rejection::ConfigurationDiffers))),
                "{other:?}: {refused:?}"
            );
        }
        let head = engine.retain(&name("s"), by_age(DAY)).await.expect("retains");
        assert_eq!(head.retention, by_age(DAY));
        let none = engine.retain(&name("none"), by_age(DAY)).await;
        assert!(matches!(none, Err(Error::Rejected(Rejection::NotFound))));
    });
    live(&machine, End::Clean, async |engine| {
        assert_eq!(engine.head(&name("s")).await.expect("there").retention, by_age(DAY));
    });
}

#[test]
fn a_fork_reads_what_its_source_has_let_go_of() {
    let machine = Machine::new(5);
    live(&machine, End::PowerCut, async |engine| {
        make(&engine, "a", Retention::NONE).await;
        fill(&engine, "a", 0..40).await;
        seal().await;
        fork(&engine, "b", "a", 12).await.expect("forks");
        fork(&engine, "c", "b", 8).await.expect("forks");
        say(&engine, "b", "own.").await;
        engine.retain(&name("a"), by_bytes(100)).await.expect("retains");
        seal().await;
        seal().await;
        assert_eq!(read(&engine, "a", From::Start).await, Ok(records(30..40)));
        for point in [0, 12, 29] {
            let refused = fork(&engine, "d", "a", point).await;
            assert!(
                matches!(refused, Err(Error::Rejected(Rejection::ForkPoint(_)))),
                "{point}: {refused:?}"
            );
        }
        fork(&engine, "d", "a", 35).await.expect("forks");
        assert_eq!(read(&engine, "d", From::Start).await, Ok(records(30..35)));
        let gone = Err(Rejection::OffsetTrimmed { next: at(30) });
        assert_eq!(read(&engine, "d", From::At(at(3))).await, gone);
        merge(&engine).await;
        assert_eq!(read(&engine, "b", From::Start).await, Ok(records(0..12) + "own."));
    });
    live(&machine, End::PowerCut, async |engine| {
        let after = read(&engine, "b", From::Start).await;
        assert_eq!(after, Ok(records(0..12) + "own."), "after merges and a power cut");
        assert_eq!(read(&engine, "c", From::Start).await, Ok(records(0..8)));
        assert_eq!(read(&engine, "d", From::Start).await, Ok(records(30..35)));
        assert_eq!(read(&engine, "a", From::Start).await, Ok(records(30..40)));
        assert!(!on_disk(&machine, &record(20)), "nobody can read it");
        engine.delete(&name("b")).await.expect("deletes");
        seal().await;
        merge(&engine).await;
        assert_eq!(read(&engine, "c", From::Start).await, Ok(records(0..8)));
        engine.delete(&name("c")).await.expect("deletes");
        seal().await;
        merge(&engine).await;
        assert_eq!(read(&engine, "d", From::Start).await, Ok(records(30..35)));
    });
}

#[test]
fn a_fork_trims_what_it_inherits_for_itself_alone() {
    let machine = Machine::new(6);
    live(&machine, End::PowerCut, async |engine| {
        make(&engine, "a", Retention::NONE).await;
        fill(&engine, "a", 0..10).await;
        tokio::time::sleep(Duration::from_secs(1000)).await;
        fill(&engine, "a", 10..20).await;
        fork(&engine, "b", "a", 18).await.expect("forks");
        let narrow = by_age(Duration::from_secs(500));
        engine.retain(&name("b"), narrow).await.expect("retains");
        seal().await;
        assert_eq!(read(&engine, "b", From::Start).await, Ok(records(10..18)));
        assert_eq!(read(&engine, "a", From::Start).await, Ok(records(0..20)));
        engine.retain(&name("b"), by_bytes(30)).await.expect("retains");
        fill(&engine, "b", 18..20).await;
        seal().await;
        assert_eq!(earliest(&engine, "b").await, 10, "what is inherited does not count");
        fill(&engine, "b", 20..25).await;
        seal().await;
        assert_eq!(read(&engine, "b", From::Start).await, Ok(records(22..25)));
        assert_eq!(read(&engine, "a", From::Start).await, Ok(records(0..20)));
    });
}

/// One more segment than are merged at once.
async fn merge(engine: &Engine) {
    let other = StreamName::new("other").expect("a good name");
    engine.create(Create::new(other, kind(false))).await.expect("creates");
    for _ in 0..9 {
        say(engine, "other", "x").await;
        seal().await;
    }
}

#[test]
fn a_read_that_a_trim_and_a_merge_overtake_is_told_where_to_go_on() {
    let machine = Machine::new(8);
    live(&machine, End::Clean, async |engine| {
        make(&engine, "s", Retention::NONE).await;
        fill(&engine, "s", 0..40).await;
        seal().await;
        machine.set_latency(HOUR..HOUR);
        let reader = engine.clone();
        let from = From::At(Offset { epoch: Epoch::ZERO, next: Seq::ZERO });
        let late = tokio::spawn(async move { read(&reader, "s", from).await });
        tokio::task::yield_now().await;
        // Its job begins in an hour; what comes now does not wait.
        machine.set_latency(Duration::ZERO..Duration::ZERO);
        engine.retain(&name("s"), by_bytes(100)).await.expect("retains");
        seal().await;
        assert_eq!(earliest(&engine, "s").await, 30);
        merge(&engine).await;
        assert!(!on_disk(&machine, &record(20)), "the merge left it out");
        assert!(!late.is_finished(), "the read is under way");
        let told = late.await.expect("ends by itself");
        assert_eq!(told, Err(Rejection::OffsetTrimmed { next: at(30) }));
    });
    let mark = "a read was overtaken by a trim and a merge";
    assert!(weir_io::sometimes::reached().contains(mark), "the read found what was merged");
}

#[test]
fn what_was_deleted_or_let_go_of_leaves_the_disk_in_time() {
    let machine = Machine::new(7);
    let config = || Config { erase_within: HOUR * 3, ..Config::new("/data/store") };
    live_with(&machine, End::PowerCut, config(), async |engine| {
        make(&engine, "keep", Retention::NONE).await;
        make(&engine, "gone", Retention::NONE).await;
        make(&engine, "trim", by_age(HOUR / 2)).await;
        say(&engine, "keep", &"k".repeat(100_000)).await;
        say(&engine, "gone", "secret of gone").await;
        say(&engine, "trim", "secret of trim").await;
        seal().await;
        assert!(on_disk(&machine, "secret of gone"));
        engine.delete(&name("gone")).await.expect("deletes");
        tokio::time::sleep(HOUR).await;
        assert_eq!(read(&engine, "trim", From::Start).await, Ok(String::new()));
        assert!(on_disk(&machine, "secret of gone"), "it is too little to be in a hurry");
    });
    // Each life of the machine begins at the same hour.
    machine.jump_wall(3_600_000);
    live_with(&machine, End::PowerCut, config(), async |engine| {
        tokio::time::sleep(HOUR + Duration::from_secs(60)).await;
        assert!(on_disk(&machine, "secret of gone"), "a restart is no reason to hurry either");
        tokio::time::sleep(HOUR).await;
        assert!(!on_disk(&machine, "secret of gone"));
        assert!(!on_disk(&machine, "secret of trim"));
        assert_eq!(read(&engine, "keep", From::Start).await, Ok("k".repeat(100_000)));
    });
}

#[test]
fn a_quarter_of_a_segment_is_reason_enough() {
    let machine = Machine::new(8);
    live(&machine, End::Clean, async |engine| {
        make(&engine, "keep", Retention::NONE).await;
        make(&engine, "gone", Retention::NONE).await;
        say(&engine, "keep", &"k".repeat(100_000)).await;
        say(&engine, "gone", &"secret".repeat(10_000)).await;
        seal().await;
        engine.delete(&name("gone")).await.expect("deletes");
        assert!(on_disk(&machine, "secretsecret"));
        seal().await;
        assert!(!on_disk(&machine, "secretsecret"));
        assert_eq!(read(&engine, "keep", From::Start).await, Ok("k".repeat(100_000)));
    });
}

#[test]
fn separators_do_not_count_and_a_jump_of_the_clock_is_a_jump_of_ages() {
    let machine = Machine::new(9);
    live(&machine, End::Clean, async |engine| {
        let retention = by_bytes(4);
        let create = Create { retention, ..Create::new(name("j"), kind(true)) };
        engine.create(create).await.expect("creates");
        let body = Bytes::from_static(b"[1,2,3,4,5,6,7]");
        engine.append(Append::new(name("j"), kind(true), body)).await.expect("appends");
        seal().await;
        assert_eq!(read(&engine, "j", From::Start).await.as_deref(), Ok("4,5,6,7"));
        make(&engine, "s", by_age(DAY)).await;
        fill(&engine, "s", 0..2).await;
        let since = WallMs::new(EPOCH_MS);
        seal().await;
        machine.jump_wall(2 * 86_400_000);
        fill(&engine, "s", 2..3).await;
        seal().await;
        assert_eq!(read(&engine, "s", From::Since(since)).await, Ok(records(2..3)));
    });
}
