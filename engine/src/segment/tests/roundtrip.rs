//! What was pushed is what is read, by every way of asking.

use std::{hash::BuildHasherDefault, ops::Range, sync::Arc};

use prometheus_client::metrics::counter::Counter;
use proptest::prelude::*;

use super::*;
use crate::{
    limits,
    segment::{Block, BlockCache, BlockNo, Part, ReadError},
};

/// A segment with its blocks decoded once, for many questions.
struct Decoded {
    segment: Segment,
    blocks: Vec<Block>,
}

impl Decoded {
    fn new(segment: Segment) -> Self {
        let blocks = segment.blocks().map(|no| segment.block(no).unwrap()).collect();
        Self { segment, blocks }
    }

    fn part(&self, no: BlockNo, stream: StreamId) -> Option<&Part> {
        self.blocks[no.index()].part(stream)
    }
}

/// The records of a stream from a position on, as a reader collects them.
fn read_from(decoded: &Decoded, stream: StreamId, from: Seq) -> BTreeMap<Seq, Record> {
    let mut found = BTreeMap::new();
    let mut next = decoded.segment.locate(stream, from);
    while let Some(no) = next {
        if let Some(part) = decoded.part(no, stream) {
            let mut seq = part.first().max(from);
            while seq < part.limit() {
                let record = Record {
                    bytes: part.slice(seq..seq.after(1)),
                    timestamp: part.timestamp_of(seq),
                    key: part.key_of(seq).cloned(),
                };
                found.insert(seq, record);
                seq = seq.after(1);
            }
        }
        next = decoded.segment.following(no, stream);
    }
    found
}

/// The first record at or after `since`, as a reader finds it.
fn first_since(decoded: &Decoded, stream: StreamId, since: WallMs) -> Option<Seq> {
    let no = decoded.segment.locate_since(stream, since)?;
    let here = decoded.part(no, stream);
    if let Some(seq) = here.and_then(|part| part.first_at_or_after(since)) {
        return Some(seq);
    }
    let next = decoded.segment.following(no, stream)?;
    let seq = decoded.part(next, stream).unwrap().first_at_or_after(since);
    assert!(seq.is_some(), "the next block's first record is the one");
    seq
}

fn joined(form: Form, records: &BTreeMap<Seq, Record>, range: Range<Seq>) -> Vec<u8> {
    let separator: &[u8] = if form == Form::Json { b"," } else { b"" };
    let records: Vec<&[u8]> = records.range(range).map(|(_, record)| &record.bytes[..]).collect();
    records.join(separator)
}

fn check(input: &Input, codec: Codec) {
    let (bytes, footer) = write(input, codec);
    check_opened(open(bytes), &footer, input);
}

/// Every way of asking, for every record.
pub(super) fn check_opened(segment: Segment, footer: &Footer, input: &Input) {
    let model = model(input);
    let decoded = Decoded::new(segment);
    let segment = &decoded.segment;
    assert_eq!(segment.footer(), footer);
    assert_eq!((segment.store(), segment.id()), (STORE, SegmentId::new(7)));
    assert_eq!(footer.streams, u64::try_from(model.len()).unwrap());
    let records = model.values().map(|records| u64::try_from(records.len()).unwrap());
    assert_eq!(footer.records, records.sum::<u64>());
    assert_eq!(contents(segment), model);
    for (&stream, records) in &model {
        assert!(segment.holds(stream));
        let last = segment.locate_last(stream).unwrap();
        let limit = decoded.part(last, stream).unwrap().limit();
        assert_eq!(Some(&limit), records.keys().last().map(|seq| seq.after(1)).as_ref());
        assert_eq!(&read_from(&decoded, stream, Seq::ZERO), records);
        for (&seq, record) in records {
            let no = segment.locate(stream, seq).unwrap();
            let part = decoded.part(no, stream).unwrap();
            assert_eq!(part.slice(seq..seq.after(1)), record.bytes);
            let since = WallMs::new(record.timestamp.get());
            let first = records.iter().find(|(_, record)| record.timestamp >= since);
            assert_eq!(first_since(&decoded, stream, since).as_ref(), first.map(|(seq, _)| seq));
        }
        let newest = records.values().last().unwrap().timestamp;
        assert_eq!(first_since(&decoded, stream, WallMs::new(newest.get() + 1)), None);
        assert_eq!(first_since(&decoded, stream, WallMs::ZERO).as_ref(), records.keys().next());
    }
    for stream in (0..500).map(StreamId::new).filter(|stream| !model.contains_key(stream)) {
        assert!(read_from(&decoded, stream, Seq::ZERO).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn roundtrip(input in input(), zstd in any::<bool>()) {
        check(&input, if zstd { Codec::Zstd } else { Codec::None });
    }

    #[test]
    fn slices_agree_with_the_model(
        input in input(),
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 8),
        bytes_max in 0..300usize,
    ) {
        let model = model(&input);
        let segment = open(write(&input, Codec::None).0);
        for no in segment.blocks() {
            let block = segment.block(no).unwrap();
            for part in block.parts() {
                let records = &model[&part.stream()];
                let count = usize::try_from(part.count()).unwrap();
                let at = |index: usize| part.first().after(u64::try_from(index).unwrap());
                for (start, len) in &picks {
                    let start = start.index(count);
                    let range = at(start)..at(start + len.index(count + 1 - start));
                    prop_assert_eq!(part.slice(range.clone()), joined(part.form(), records, range));

                    let limit = part.limit_within(at(start), bytes_max);
                    let taken = part.slice(at(start)..limit).len();
                    prop_assert!(taken <= bytes_max || limit == at(start + 1));
                    if limit < part.limit() {
                        prop_assert!(part.slice(at(start)..limit.after(1)).len() > bytes_max);
                    }
                }
                prop_assert_eq!(part.slice(Seq::ZERO..Seq::new(u64::MAX)), joined(part.form(), records, part.first()..part.limit()));
                prop_assert!(part.slice(part.limit()..Seq::new(u64::MAX)).is_empty());
            }
        }
    }
}

/// Records of 1 KiB, one per append, in one stream.
fn kibibytes(stream: u64, count: u64) -> Input {
    let record = [b'x'; 1024];
    (0..count)
        .map(|at| {
            (
                StreamId::new(stream),
                Form::Binary,
                chunk(at, 1000 + at, None, Form::Binary, &[&record]),
            )
        })
        .collect()
}

#[test]
fn blocks_stay_near_their_target_and_big_records_stand_alone() {
    let big = vec![b'y'; 3 * limits::BLOCK_BYTES_TARGET];
    let mut input = kibibytes(1, 200);
    input.push((StreamId::new(1), Form::Binary, chunk(200, 2000, None, Form::Binary, &[&big])));
    input.push((StreamId::new(1), Form::Binary, chunk(201, 2000, None, Form::Binary, &[b"z"])));
    input.extend(kibibytes(2, 3));
    check(&input, Codec::None);
    let segment = open(write(&input, Codec::None).0);
    let counts: Vec<Vec<u64>> = segment
        .blocks()
        .map(|no| segment.block(no).unwrap().parts().iter().map(|part| part.count()).collect())
        .collect();
    assert_eq!(counts, [vec![63], vec![63], vec![63], vec![11], vec![1], vec![1, 3]]);
}

#[test]
fn many_small_records_are_bounded_by_number() {
    let records = vec![&b"1"[..]; 3 * limits::BLOCK_RECORDS_MAX + 5];
    let input = vec![(StreamId::new(1), Form::Json, chunk(0, 5, Some("k"), Form::Json, &records))];
    let segment = open(write(&input, Codec::None).0);
    for no in segment.blocks() {
        let block = segment.block(no).unwrap();
        assert!(block.parts()[0].count() <= u64::try_from(limits::BLOCK_RECORDS_MAX).unwrap());
    }
    assert_eq!(contents(&segment), model(&input));
}

#[test]
fn thousands_of_small_streams_share_blocks() {
    let input: Input = (0..5000)
        .map(|id| {
            (StreamId::new(id * 3), Form::Json, chunk(id, 9, None, Form::Json, &[b"{\"a\":1}"]))
        })
        .collect();
    check(&input, Codec::Zstd);
    let (bytes, footer) = write(&input, Codec::None);
    assert!(footer.blocks <= 4, "{} blocks", footer.blocks);
    assert!(bytes.len() < 5000 * 32, "{} bytes", bytes.len());
}

#[test]
fn a_stream_the_filter_denies_costs_no_read() {
    let (bytes, _) = write(&kibibytes(9, 100), Codec::None);
    let file = MemoryFile::of(bytes);
    let segment = Segment::open(Arc::clone(&file) as Arc<dyn File>).unwrap();
    let reads = file.reads();
    for id in (0..1000).filter(|&id| id != 9) {
        assert_eq!(segment.locate(StreamId::new(id), Seq::ZERO), None);
    }
    assert_eq!(file.reads(), reads);
}

#[test]
fn a_segment_without_records_is_a_segment() {
    check(&Input::new(), Codec::None);
}

#[test]
fn compression_is_used_only_where_it_helps() {
    let (plain, _) = write(&kibibytes(1, 50), Codec::None);
    let (squeezed, footer) = write(&kibibytes(1, 50), Codec::Zstd);
    assert!(squeezed.len() * 10 < plain.len());
    assert!(footer.raw_bytes > 50 * 1024);
    let noise: Vec<u8> = (0..200u64).map(|at| ((at * at * 31) >> 3).to_le_bytes()[0]).collect();
    let input = vec![(StreamId::new(1), Form::Binary, chunk(0, 1, None, Form::Binary, &[&noise]))];
    assert_eq!(write(&input, Codec::Zstd).0, write(&input, Codec::None).0);
}

#[test]
fn the_cache_loads_a_block_once_and_forgets_by_bytes() {
    type Hasher = BuildHasherDefault<std::hash::DefaultHasher>;
    let (bytes, _) = write(&kibibytes(1, 2000), Codec::None);
    let file = MemoryFile::of(bytes);
    let segment = Segment::open(Arc::clone(&file) as Arc<dyn File>).unwrap();
    let cache = BlockCache::new(1 << 20, Hasher::default(), Counter::default());
    let opened = file.reads();

    file.refuse(true);
    let failed = cache.block(&segment, BlockNo(0));
    assert!(matches!(failed, Err(ReadError::Failed { .. })));
    file.refuse(false);

    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(cache.block(&segment, BlockNo(0)).unwrap().parts().len(), 1);
                }
            });
        }
    });
    assert_eq!(file.reads() - opened, 2, "one that failed, one for all");

    for no in segment.blocks() {
        cache.block(&segment, no).unwrap();
    }
    assert!(cache.bytes() <= 1 << 20, "{}", cache.bytes());
    assert!(cache.bytes() > 1 << 19, "{}", cache.bytes());
}
