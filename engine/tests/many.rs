//! Segments that are too large to be merged any more: their number grows with what is stored, what a
//! read looks at does not.

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{End, live_with, name};
use weir_engine::{
    Config, Engine,
    request::{Append, Create, From, Read},
    types::{ContentType, Offset},
};
use weir_io::memory::Machine;

const SEGMENTS: usize = 300;

/// Nothing is small enough to be merged.
fn config() -> Config {
    Config { merged_bytes_max: 1, ..Config::new("/data/store") }
}

fn kind() -> Option<ContentType> {
    ContentType::parse("text/plain")
}

async fn make(engine: &Engine, stream: &str) {
    engine.create(Create::new(name(stream), kind())).await.expect("creates");
}

async fn say(engine: &Engine, stream: &str, text: &str) -> Offset {
    let body = Bytes::copy_from_slice(text.as_bytes());
    engine.append(Append::new(name(stream), kind(), body)).await.expect("appends").next
}

/// Blocks that were asked for to read the record at a position.
async fn blocks(engine: &Engine, stream: &str, from: From, expect: &str) -> u64 {
    let before = engine.metrics().blocks_asked.get();
    let read = Read { name: name(stream), from, key: None, bytes_max: 1 };
    let page = engine.read(read).await.expect("reads");
    let text = page.pieces.concat();
    assert!(text.starts_with(expect.as_bytes()), "{expect}");
    engine.metrics().blocks_asked.get() - before
}

#[test]
fn a_read_asks_for_a_logarithm_of_the_segments() {
    let machine = Machine::new(1);
    let mut ends = vec![Offset::START];
    live_with(&machine, End::Clean, config(), async |engine| {
        make(&engine, "everywhere").await;
        for segment in 0..SEGMENTS {
            let own = format!("own-{segment}");
            make(&engine, &own).await;
            say(&engine, &own, &own).await;
            ends.push(say(&engine, "everywhere", &format!("{segment:04}")).await);
            tokio::time::sleep(Duration::from_secs(13)).await;
        }
        assert_eq!(usize::try_from(engine.metrics().segments.get()), Ok(SEGMENTS));
    });
    live_with(&machine, End::PowerCut, config(), async |engine| {
        for segment in [0, 1, 77, 150, 298, 299] {
            let from = From::At(ends[segment]);
            let asked = blocks(&engine, "everywhere", from, &format!("{segment:04}")).await;
            // Halving 300 takes nine; then that one is read.
            assert!(asked <= 12, "{asked} blocks for record {segment}");
            // A filter is wrong about one segment in 256.
            let own = format!("own-{segment}");
            let asked = blocks(&engine, &own, From::Start, &own).await;
            assert!(asked <= 6, "{asked} blocks for {own}");
        }
    });
}
