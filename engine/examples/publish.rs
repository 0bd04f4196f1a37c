//! How long it takes until many small streams are in the bucket, and with how many requests.
//!
//! ```sh
//! cargo run --release -p weir-engine --example publish -- DIR [STREAMS]
//! ```
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, run by hand")]

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::JoinSet;
use weir_engine::{
    Config, Engine,
    request::{Append, Create},
    types::{ContentType, StreamName},
};
use weir_io::{
    objects::{Counting, Counts, Objects, Verb},
    os::{
        self,
        objects::{Bucket, Kind},
    },
};

/// Requests at a time.
const CLIENTS: usize = 64;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().expect("a directory");
    let streams: usize = arguments.next().map_or(100_000, |it| it.parse().unwrap());
    let world = os::world().unwrap();
    let kind = Kind::Local { directory: Path::new(&dir).join("bucket") };
    let bucket = Bucket { kind, name: None, prefix: None, variables: [].into() };
    let bucket = os::objects::open(&bucket, &world).await.unwrap();
    let counts = Arc::new(Counts::new(Arc::clone(&world.clock)));
    let bucket: Arc<dyn Objects> = Arc::new(Counting::new(bucket, Arc::clone(&counts)));
    let store = Path::new(&dir).join("store");
    world.disk.create_dir_all(&store).unwrap();
    let config = Config::new(store);
    let engine = Engine::open_with(world.clone(), config, Some(bucket), "example").await.unwrap();

    let clock = Arc::clone(&world.clock);
    let started = clock.elapsed();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let engine = engine.clone();
        clients.spawn(async move {
            let content = ContentType::parse("application/json").unwrap();
            for stream in (client..streams).step_by(CLIENTS) {
                let name = StreamName::new(&format!("small/{stream}")).unwrap();
                engine.create(Create::new(name.clone(), content.clone())).await.unwrap();
                let body = Bytes::from(format!("{{\"stream\":{stream}}}"));
                engine.append(Append::new(name, content.clone(), body)).await.unwrap();
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let acked = clock.elapsed();
    let durable = engine.server_details().commits.durable;
    loop {
        let published = engine.server_details().publishing.unwrap();
        if published.newest.is_some_and(|newest| newest.through >= durable) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let published = clock.elapsed();
    let asked = counts.snapshot();
    println!("streams                      {streams}");
    println!("created and appended in      {:.2?}", acked - started);
    println!("all in the bucket after      {:.2?} more", published - acked);
    for verb in Verb::ALL {
        let figures = asked.of_verb(verb);
        println!("{:<28} {} requests, {} bytes", verb.as_str(), figures.requests, figures.bytes);
    }
    engine.close().await;
    world.tasks.lanes_ended().await;
}
