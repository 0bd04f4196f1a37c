//! Times of the engine's steps: codecs, decisions, memtable, segments.
//!
//! `cargo bench -p weir-engine` — or with a filter: `cargo bench -p weir-engine -- segment`

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use weir_engine::{
    measured::{Blocks, Decision, Entries, Memtable, Sealed, split_json},
    types::{Offset, OffsetFormat},
};

fn codecs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codecs");
    for (count, bytes) in [(1, 100), (256, 100), (256, 1024), (16, 65_536)] {
        let entries = Entries::new(count, bytes);
        group.throughput(Throughput::Bytes(wide(entries.bytes())));
        group.bench_function(format!("encode {count} entries of {bytes} B"), |bencher| {
            bencher.iter(|| entries.encode());
        });
        group.bench_function(format!("decode {count} entries of {bytes} B"), |bencher| {
            bencher.iter(|| entries.decode());
        });
    }
    let record = format!(r#"{{"user":"user-17","text":"{}"}}"#, "x".repeat(60));
    for count in [1, 1_000] {
        let body = match count {
            1 => record.clone(),
            count => format!("[{}]", vec![record.as_str(); count].join(",")),
        };
        let body = Bytes::from(body);
        group.throughput(Throughput::Bytes(wide(body.len())));
        group.bench_function(format!("split JSON of {count} messages"), |bencher| {
            bencher.iter(|| split_json(black_box(&body)));
        });
    }
    group.finish();
}

fn offsets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("offsets");
    for (name, format) in [("reference", OffsetFormat::Reference), ("peer", OffsetFormat::Peer)] {
        let offset = Offset::parse("0000000000000000_0000000000000002").expect("an offset");
        let text = offset.mint(format);
        group.bench_function(format!("write {name}"), |bencher| {
            bencher.iter(|| black_box(offset).mint(format));
        });
        group.bench_function(format!("parse {name}"), |bencher| {
            bencher.iter(|| Offset::parse(black_box(&text)));
        });
    }
    group.finish();
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for (name, decision) in
        [("a plain append", Decision::plain()), ("a producer's append", Decision::produced())]
    {
        group.bench_function(name, |bencher| bencher.iter(|| black_box(&decision).decide()));
    }
    group.finish();
}

fn memtable(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memtable");
    for (count, bytes) in [(10_000, 100), (10_000, 1024), (64, 65_536)] {
        let memtable = Memtable::new(count, bytes);
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("apply {count} appends of {bytes} B"), |bencher| {
            bencher.iter(|| memtable.fill());
        });
        group.throughput(Throughput::Bytes(count * wide(bytes)));
        group.bench_function(format!("read {count} appends of {bytes} B"), |bencher| {
            bencher.iter(|| memtable.read(1 << 30));
        });
    }
    group.finish();
}

fn segments(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment");
    group.sample_size(20);
    for (streams, records, bytes) in [(1, 40_000, 100), (1_000, 40, 100), (1, 4_000, 1024)] {
        for blocks in [Blocks::Plain, Blocks::Compressed] {
            let sealed = Sealed::new(streams, records, bytes, blocks);
            let name = format!("{streams} × {records} × {bytes} B, {blocks:?}");
            group.throughput(Throughput::Bytes(sealed.raw_bytes()));
            group.bench_function(format!("build {name}"), |bencher| {
                bencher.iter_batched(|| (), |()| sealed.build(), BatchSize::LargeInput);
            });
            group.bench_function(format!("read {name}"), |bencher| {
                bencher.iter(|| sealed.read());
            });
            let opened = sealed.open();
            let mut stream = 0;
            group.throughput(Throughput::Elements(1));
            group.bench_function(format!("find one stream in {name}"), |bencher| {
                bencher.iter(|| {
                    stream += 1;
                    sealed.locate(&opened, stream)
                });
            });
        }
    }
    group.finish();
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).expect("usize fits u64")
}

criterion_group!(benches, codecs, offsets, decisions, memtable, segments);
criterion_main!(benches);
