//! Creates many streams, then restarts and times the first append.
//!
//! `cargo run --release -p weir-engine --example million -- DIR STREAMS`; run it twice on one
//! directory with STREAMS 0 to time a start in a fresh process.

use bytes::Bytes;
use weir_engine::{
    Config, Engine,
    request::{Append, Create},
    types::{ContentType, StreamName},
};

const CLIENTS: u64 = 256;

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

async fn create_all(engine: &Engine, streams: u64) {
    let content = ContentType::parse("application/json").expect("a type");
    let mut tasks = Vec::new();
    for client in 0..CLIENTS {
        let (engine, content) = (engine.clone(), content.clone());
        tasks.push(tokio::spawn(async move {
            for stream in (client..streams).step_by(256) {
                let create = Create::new(
                    StreamName::new(&format!("tenant/{stream}")).expect("a name"),
                    Some(content.clone()),
                );
                engine.create(create).await.expect("creates");
            }
        }));
    }
    for task in tasks {
        task.await.expect("ends");
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().expect("DIR");
    let streams = args.next().and_then(|text| text.parse::<u64>().ok()).expect("STREAMS");
    let world = weir_io::os::world().expect("inside a runtime");
    let clock = std::sync::Arc::clone(&world.clock);
    let started = clock.elapsed();
    let engine = Engine::open(world, Config::new(dir), "bench").await.expect("opens");
    if streams > 0 {
        create_all(&engine, streams).await;
        let took = clock.elapsed() - started;
        println!("created {streams} in {took:?}, resident {}", resident());
    } else {
        let append = Append::new(
            StreamName::new("tenant/77777").expect("a name"),
            ContentType::parse("application/json"),
            Bytes::from_static(b"{\"first\":true}"),
        );
        engine.append(append).await.expect("appends");
        let took = clock.elapsed() - started;
        println!("start to first append {took:?}, resident {}", resident());
    }
    let closing = clock.elapsed();
    engine.close().await;
    println!(
        "closed in {:?}, resident {}, longest hold {} us",
        clock.elapsed() - closing,
        resident(),
        engine.metrics().writer_hold_max_us.get()
    );
}
