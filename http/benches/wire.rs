//! Times of what is done to bytes between the engine and a socket: server-sent events.
//!
//! `cargo bench -p weir-http`

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weir_engine::types::Form;
use weir_http::measured::events;

const OFFSET: &str = "0000000000000000_0000000000001234";

fn sse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sse");
    let line = "all work and no play makes a long event, "; // 41 bytes
    for (name, form, piece) in [
        ("JSON", Form::Json, format!(r#"{{"text":"{}"}}"#, line.repeat(2))),
        ("text in one line", Form::Text, line.repeat(2)),
        ("text in many lines", Form::Text, format!("{line}\n{line}\r\n")),
        ("bytes", Form::Binary, line.repeat(2)),
    ] {
        for count in [1, 100, 10_000] {
            let separator = if form == Form::Json { "," } else { "" };
            let payload = Bytes::from(vec![piece.as_str(); count].join(separator));
            group.throughput(Throughput::Bytes(u64::try_from(payload.len()).expect("fits")));
            let pieces = [payload];
            group.bench_function(format!("{count} × {name}"), |bencher| {
                bencher.iter(|| events(form, black_box(&pieces), OFFSET));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, sse);
criterion_main!(benches);
