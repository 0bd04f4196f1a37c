//! A store on the real disk: what was acked is there, sealed or not, after a restart or not.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use weir_engine::{
    Config, Engine,
    request::{Append, AppendOutcome, Create, Error, From, List, Page, Read, Rejection},
    types::{Closing, ContentType, ProducerId, ProducerTuple, Retention, StreamName},
};

struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("weir-engine-{}-{test}", std::process::id()));
        Self(dir)
    }

    fn config(&self) -> Config {
        let mut config = Config::new(self.0.join("store"));
        config.seal_age = Duration::from_secs(3600);
        config
    }

    async fn open(&self, config: Config) -> Engine {
        let world = weir_io::os::world().expect("inside a runtime");
        Engine::open(world, config, "test").await.expect("the store opens")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // Left-over files of a test do not matter.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Closes the store and checks that every seal went through.
async fn closed(engine: &Engine) {
    engine.close().await;
    assert_eq!(engine.metrics().seals_failed.get(), 0);
}

fn name(text: &str) -> StreamName {
    StreamName::new(text).expect("a good name")
}

fn create(text: &str, kind: &str) -> Create {
    Create {
        name: name(text),
        content: ContentType::parse(kind),
        expiry: None,
        fork: None,
        retention: Retention::NONE,
        closing: Closing::KeepOpen,
        body: Bytes::new(),
        key: None,
    }
}

fn append(text: &str, kind: &str, body: &str) -> Append {
    Append {
        name: name(text),
        content: ContentType::parse(kind),
        body: Bytes::copy_from_slice(body.as_bytes()),
        closing: Closing::KeepOpen,
        producer: None,
        stream_seq: None,
        expected: None,
        key: None,
        timestamp: None,
    }
}

fn read(text: &str, from: From) -> Read {
    Read { name: name(text), from, key: None, bytes_max: 1 << 20 }
}

fn text(page: &Page) -> String {
    let bytes: Vec<u8> = page.pieces.concat();
    String::from_utf8(bytes).expect("text was written")
}

fn by(producer: &str, seq: u64, append: Append) -> Append {
    let id = ProducerId::new(producer).expect("a good id");
    Append { producer: Some(ProducerTuple { id, epoch: 0, seq }), ..append }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acked_is_there_after_seal_and_restart() {
    let dir = Dir::new("restart");
    let engine = dir.open(dir.config()).await;
    engine.create(create("j", "application/json")).await.expect("creates");
    engine.append(append("j", "application/json", "[1, 2]")).await.expect("appends");
    engine
        .append(by("p", 0, append("j", "application/json", "{\"a\": 1.0}")))
        .await
        .expect("appends");
    let page = engine.read(read("j", From::Start)).await.expect("reads");
    assert_eq!(text(&page), "1,2,{\"a\": 1.0}");
    closed(&engine).await;
    drop(engine);

    let engine = dir.open(dir.config()).await;
    let page = engine.read(read("j", From::Start)).await.expect("reads from the segment");
    assert_eq!(text(&page), "1,2,{\"a\": 1.0}");
    assert!(page.up_to_date);
    let again = engine.append(by("p", 0, append("j", "application/json", "9"))).await;
    assert_eq!(again.expect("answers").outcome, AppendOutcome::Duplicate);
    engine.append(by("p", 1, append("j", "application/json", "4"))).await.expect("appends");
    let page = engine.read(read("j", From::Start)).await.expect("reads across");
    assert_eq!(text(&page), "1,2,{\"a\": 1.0},4");
    let rest = engine.read(read("j", From::At(page.next))).await.expect("reads the tail");
    assert_eq!((rest.bytes, rest.next), (0, page.next));
    closed(&engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_stream_meets_nothing_of_the_old_one() {
    let dir = Dir::new("recreate");
    let engine = dir.open(dir.config()).await;
    engine.create(create("s", "text/plain")).await.expect("creates");
    let old = engine.append(append("s", "text/plain", "old")).await.expect("appends").next;
    for reopen in [false, true] {
        engine.delete(&name("s")).await.expect("deletes");
        assert!(matches!(engine.head(&name("s")).await, Err(Error::Rejected(Rejection::NotFound))));
        let born = engine.create(create("s", "text/plain")).await.expect("creates").head.next;
        assert!(born.epoch > old.epoch, "{reopen}");
        let lost = engine.read(read("s", From::At(old))).await;
        assert!(
            matches!(lost, Err(Error::Rejected(Rejection::OffsetLost { next })) if next == born)
        );
    }
    engine.append(append("s", "text/plain", "new")).await.expect("appends");
    assert_eq!(text(&engine.read(read("s", From::Start)).await.expect("reads")), "new");
    engine.delete(&name("s")).await.expect("deletes");
    closed(&engine).await;
    drop(engine);
    let engine = dir.open(dir.config()).await;
    assert!(engine.head(&name("s")).await.is_err());
    let born = engine.create(create("s", "text/plain")).await.expect("creates").head.next;
    assert_eq!(born.epoch.get(), 3, "the epoch outlives restarts");
    closed(&engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_and_seals_read_back_whole() {
    let dir = Dir::new("many");
    let config =
        Config { memtable_bytes_max: 64 << 10, block_cache_bytes: 1 << 20, ..dir.config() };
    let engine = dir.open(config.clone()).await;
    for stream in 0..20 {
        engine.create(create(&format!("s/{stream}"), "text/plain")).await.expect("creates");
    }
    let mut writers = Vec::new();
    for stream in 0..20 {
        let engine = engine.clone();
        writers.push(tokio::spawn(async move {
            for record in 0..300 {
                let body = format!("{stream}:{record:04};{}\n", "x".repeat(50));
                let request = append(&format!("s/{stream}"), "text/plain", &body);
                while let Err(error) = engine.append(request.clone()).await {
                    assert!(matches!(error, Error::Busy), "{error}");
                    tokio::task::yield_now().await;
                }
            }
        }));
    }
    for writer in writers {
        writer.await.expect("writes");
    }
    let mut engine = engine;
    for round in 0..2 {
        for stream in 0..20 {
            let mut whole = String::new();
            let mut from = From::Start;
            loop {
                let want = Read { bytes_max: 5000, ..read(&format!("s/{stream}"), from) };
                let page = engine.read(want).await.expect("reads");
                whole.push_str(&text(&page));
                from = From::At(page.next);
                if page.up_to_date {
                    break;
                }
            }
            let expect: String = (0..300)
                .map(|record| format!("{stream}:{record:04};{}\n", "x".repeat(50)))
                .collect();
            assert!(whole == expect, "stream {stream} in round {round}");
        }
        let rows = engine.list(List { limit: 100, ..List::default() }).await.expect("lists");
        assert_eq!(rows.len(), 20);
        closed(&engine).await;
        drop(engine);
        engine = dir.open(config.clone()).await;
    }
    assert!(engine.metrics().segments.get() > 0);
    closed(&engine).await;
}
