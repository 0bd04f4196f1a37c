//! `weir bench`: what it measures is there, and a server that lies is caught.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    Done, command, end, signal,
    support::{Server, until},
    weir,
};

async fn bench(at: SocketAddr, args: &str) -> Done {
    let common = " --seconds 0.4 --warm-up 0.1 --json";
    let args = format!("bench {args}{common}");
    weir(at, &args.split(' ').collect::<Vec<_>>()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_server_is_measured_and_found_sound() {
    let server = Server::start().await;
    for (args, phase) in [
        ("append --connections 4 --streams 3", "append"),
        ("append --connections 2 --streams 5 --producers --batch 10 --order random", "append"),
        ("append --rate 200 --content-type text/plain", "append"),
        ("create --connections 4", "create"),
        ("read --size 300KiB --streams 2", "read"),
        ("read --size 64KiB --keys 3 --connections 3", "read"),
        ("tail --readers 12 --streams 3", "append"),
        ("tail --readers 5 --live long-poll", "append"),
        ("mixed --readers 6 --scanners 2 --connections 4 --streams 2", "append"),
    ] {
        let done = bench(server.address, args).await;
        assert_eq!(done.code, Some(0), "{args}: {done:?}");
        let report = done.json();
        assert!(report[phase]["requests"].as_u64() > Some(0), "{args}: {report}");
        assert_eq!(report["problems"], serde_json::json!([]), "{args}");
        assert!(report["generator"]["cpu_seconds"].as_f64() > Some(0.0), "{args}");
        if phase != "create" {
            assert!(report["verified"]["records"].as_u64() > Some(0), "{args}: {report}");
            assert_eq!(report["verified"]["lost"], 0, "{args}");
        }
        if phase == "read" {
            assert!(report["read"].get("records").is_none(), "nobody counts them: {report}");
            assert!(report["whole_reads"].as_u64() > Some(0), "{report}");
            // Each of these is one page.
            assert!(report["whole_reads"].as_u64() <= report["read"]["requests"].as_u64());
        }
        if args.contains("readers") {
            assert!(report["tail"]["delivered"].as_u64() > Some(0), "{args}: {report}");
            assert!(report["tail"]["to_last_reader_us"]["count"].as_u64() > Some(0), "{args}");
        }
    }
    assert_eq!(weir(server.address, &["ls", "bench-"]).await.ok(), "", "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_kept_is_replaced_or_stays_as_it_is() {
    let server = Server::start().await;
    for kind in ["append --producers", "read --size 20KiB", "tail --readers 2"] {
        let kept = format!("{kind} --name mine --streams 2 --keep");
        bench(server.address, &kept).await.ok();
        let there = weir(server.address, &["ls", "bench-mine-", "--json"]).await.ok();
        assert_eq!(there.lines().count(), 2, "{there}");
        let refused = bench(server.address, &kept.replace("--streams 2", "--streams 3")).await;
        assert!(refused.code == Some(1) && refused.err.contains("--replace"), "{refused:?}");
        let same = weir(server.address, &["ls", "bench-mine-", "--json"]).await.ok();
        assert_eq!(same, there, "{kind}: what is another's stays, and nothing else does");
        let replaced = bench(server.address, &format!("{kept} --replace")).await;
        assert_eq!(replaced.json()["verified"]["repeated"], 0, "{replaced:?}");
        assert_eq!(replaced.code, Some(0), "{replaced:?}");
        let gone = ["rm", "bench-mine-00000000", "bench-mine-00000001"];
        weir(server.address, &gone).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_leaves_nothing_and_says_how() {
    let server = Server::start_with(|config| config.body_bytes_max = 1_000).await;
    let done = bench(server.address, "append --bytes 2KiB --streams 2").await;
    assert_eq!(done.code, Some(1), "{done:?}");
    let error: serde_json::Value = serde_json::from_str(&done.err).expect("one line of JSON");
    assert!(error["error"]["message"].as_str().is_some_and(|it| it.contains("413")), "{error}");
    assert_eq!(weir(server.address, &["ls", "bench-"]).await.ok(), "");
    let nobody = bench(([127, 0, 0, 1], 1).into(), "append --streams 1").await;
    assert_eq!(nobody.code, Some(7), "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_kept_and_a_pause_of_the_server_is_seen() {
    let server = Liar::start(Lie::Pause).await;
    let done = bench(server, "append --connections 2 --rate 100 --content-type text/plain").await;
    let report = done.json();
    // The schedule goes on while the server sleeps: the requests it delays are late, all of them.
    let requests = report["append"]["requests"].as_u64().expect("a count");
    assert!((35..=45).contains(&requests), "{report}");
    let late = report["append"]["latency_us"]["p90"].as_f64().expect("a time");
    assert!(late > 50_000.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_is_caught() {
    for (lie, field) in [
        (Lie::Lose, "lost"),
        (Lie::Repeat, "repeated"),
        (Lie::Swap, "out_of_order"),
        (Lie::Invent, "foreign"),
        (Lie::Damage, "damaged"),
    ] {
        let server = Liar::start(lie).await;
        let done = bench(server, "append --connections 1 --content-type text/plain").await;
        assert_eq!(done.code, Some(3), "{lie:?}: {done:?}");
        let verified = &done.json()["verified"];
        for (name, count) in verified.as_object().expect("an object") {
            if name != "records" {
                assert_eq!(count.as_u64() > Some(0), name == field, "{lie:?}: {verified}");
            }
        }
        assert!(done.err.contains("of the records"), "{done:?}");
    }
    let honest = Liar::start(Lie::None).await;
    bench(honest, "append --connections 1 --content-type text/plain").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_verifies_and_cleans_up() {
    let server = Server::start().await;
    for name in ["INT", "TERM"] {
        let args = ["bench", "append", "--seconds", "600", "--json", "--connections", "2"];
        let child = command(server.address, &args).spawn().expect("starts");
        until("it writes", || async {
            let there = weir(server.address, &["ls", "bench-", "--json"]).await.out;
            there.contains("\"next_offset\":\"1")
        })
        .await;
        signal(&child, name);
        let done = end(child).await;
        assert!(done.code == Some(130) && done.err.contains("interrupted"), "{done:?}");
        let report = done.json();
        assert_eq!(report["verified"]["records"], report["acked_records"], "{report}");
        assert_eq!(report["problems"], serde_json::json!([]), "{report}");
        let note = report["notes"][0].as_str().expect("a note");
        assert!(note.starts_with("interrupted after") && done.err.contains(note), "{done:?}");
        assert_eq!(report["append"]["seconds"], report["interrupted_after_seconds"]);
        assert!(report["append"]["seconds"].as_f64() < Some(60.0), "{report}");
        assert_eq!(weir(server.address, &["ls", "bench-"]).await.ok(), "", "nothing is left");
    }
    // Not even before there is anything to report.
    let args = ["bench", "read", "--size", "64GiB", "--json"];
    let child = command(server.address, &args).spawn().expect("starts");
    until("it fills", || async { !weir(server.address, &["ls", "bench-"]).await.out.is_empty() })
        .await;
    signal(&child, "TERM");
    let done = end(child).await;
    assert_eq!((done.code, done.out.as_str()), (Some(130), ""), "{done:?}");
    assert_eq!(weir(server.address, &["ls", "bench-"]).await.ok(), "", "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_does_not_wait_for_a_server_that_says_nothing() {
    for args in ["append --connections 2", "read --size 1MiB", "mixed --readers 2 --live long-poll"]
    {
        let (server, liar) = Liar::watched(Lie::Stall).await;
        let args = format!("bench {args} --seconds 600 --content-type text/plain --json");
        let child = command(server, &args.split(' ').collect::<Vec<_>>()).spawn().expect("starts");
        until("it writes", || async { liar.appends() > 0 }).await;
        signal(&child, "INT");
        let done = end(child).await;
        assert_eq!(done.code, Some(130), "{args}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_ends_the_run_with_its_words() {
    let server = Liar::start(Lie::Refuse).await;
    let done = bench(server, "append --content-type text/plain").await;
    assert!(done.code == Some(1) && done.err.contains("no such thing"), "{done:?}");
}

/// What a server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    Lose,
    Repeat,
    Swap,
    Invent,
    /// One byte behind the mark of a record is another.
    Damage,
    /// One append takes a quarter of a second, and all others wait for it.
    Pause,
    Refuse,
    /// Appends have no answer.
    Stall,
}

/// A server of streams in memory that answers what it likes.
pub(crate) struct Liar {
    lie: Lie,
    streams: Mutex<BTreeMap<String, Vec<Vec<u8>>>>,
    turn: tokio::sync::Mutex<()>,
}

impl Liar {
    pub(crate) async fn start(lie: Lie) -> SocketAddr {
        Self::watched(lie).await.0
    }

    /// How many appends it got.
    fn appends(&self) -> usize {
        self.streams.lock().values().map(Vec::len).sum()
    }

    async fn watched(lie: Lie) -> (SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let liar =
            Arc::new(Self { lie, streams: Mutex::default(), turn: tokio::sync::Mutex::default() });
        let serving = Arc::clone(&liar);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).serve(socket));
            }
        });
        (address, liar)
    }

    async fn serve(self: Arc<Self>, mut socket: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n").map(|at| at + 4) else {
                match socket.read_buf(&mut bytes).await {
                    Ok(1..) => continue,
                    _ => return,
                }
            };
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then_some(value)
            });
            let length: usize = length.map_or(0, |text| text.parse().expect("a number"));
            while bytes.len() < end + length {
                if !matches!(socket.read_buf(&mut bytes).await, Ok(1..)) {
                    return;
                }
            }
            let body = bytes[end..end + length].to_vec();
            bytes.drain(..end + length);
            let answer = self.answer(&head, body).await;
            if socket.write_all(&answer).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, head: &str, body: Vec<u8>) -> Vec<u8> {
        let mut words = head.split([' ', '?']);
        let (method, path) = (words.next().expect("a verb"), words.next().expect("a path"));
        match (method, self.lie) {
            ("POST", Lie::Refuse) => {
                b"HTTP/1.1 400 Bad\r\nContent-Length: 13\r\n\r\nno such thing".to_vec()
            }
            ("POST", lie) => {
                // One at a time, so that a pause is everybody's.
                let _turn = self.turn.lock().await;
                let count = {
                    let mut streams = self.streams.lock();
                    let stream = streams.entry(path.to_owned()).or_default();
                    stream.push(body);
                    stream.len()
                };
                if lie == Lie::Stall {
                    std::future::pending::<()>().await;
                }
                if lie == Lie::Pause && count == 12 {
                    // What is measured is real time.
                    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
                }
                b"HTTP/1.1 204 OK\r\n\r\n".to_vec()
            }
            ("GET", lie) => {
                let mut records = self.streams.lock().get(path).cloned().unwrap_or_default();
                if head.contains("live=") {
                    return b"HTTP/1.1 204 OK\r\nStream-Next-Offset: end\r\n\r\n".to_vec();
                }
                tell(&mut records, lie);
                let body = records.concat();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nStream-Next-Offset: end\r\nStream-Up-To-Date: true\r\n\
                     Content-Length: {}\r\n\r\n",
                    body.len()
                );
                [head.into_bytes(), body].concat()
            }
            ("HEAD", _) => b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\
                Stream-Next-Offset: end\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
            ("DELETE", _) => b"HTTP/1.1 204 OK\r\n\r\n".to_vec(),
            _ => b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        }
    }
}

fn tell(records: &mut Vec<Vec<u8>>, lie: Lie) {
    let middle = records.len() / 2;
    match lie {
        Lie::Lose => drop(records.remove(middle)),
        Lie::Repeat => records.push(records[middle].clone()),
        Lie::Swap => records.swap(middle, middle + 1),
        Lie::Damage => records[middle][70] ^= 1,
        Lie::Invent => {
            // Of a writer that does not exist.
            let mut record = records[middle].clone();
            record[6..14].copy_from_slice(b"00000007");
            record[15..27].copy_from_slice(b"000000000000");
            records.push(record);
        }
        Lie::None | Lie::Pause | Lie::Refuse | Lie::Stall => {}
    }
}
