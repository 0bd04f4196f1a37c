//! A server of streams in memory that answers what it likes.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Which of the bodies of a stream, or of a key of it, a lie is about.
const VICTIM: usize = 1;
/// How long a long-poll waits.
const LONG_POLL: Duration = Duration::from_millis(20);

/// What a server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    Lose,
    Repeat,
    Swap,
    Invent,
    /// There is something else between two records.
    Intrude,
    /// There is white space between two records, which nobody wrote.
    Blank,
    /// One byte behind the mark of a record is another.
    Damage,
    /// The same in every other read.
    Rot,
    /// The same in one read, not waiting.
    Slip,
    /// Every other read does not get all of it.
    Shrink,
    /// One append takes a quarter of a second, and all others wait for it.
    Pause,
    Refuse,
    /// It makes no streams, and says so with a page for browsers.
    Lack,
    /// Appends have no answer.
    Stall,
}

/// What was appended at once, and with which key.
#[derive(Clone)]
struct Body {
    bytes: Vec<u8>,
    key: Option<String>,
}

/// The server.
pub(crate) struct Liar {
    lie: Lie,
    streams: Mutex<BTreeMap<String, Vec<Body>>>,
    /// How often each stream, or key of it, was read from its beginning.
    reads: Mutex<BTreeMap<String, usize>>,
    turn: tokio::sync::Mutex<()>,
    gone: watch::Sender<bool>,
    paused: AtomicBool,
    slipped: AtomicBool,
}

impl Liar {
    pub(crate) async fn start(lie: Lie) -> SocketAddr {
        Self::watched(lie).await.0
    }

    /// How many appends it got.
    pub(crate) fn appends(&self) -> usize {
        self.streams.lock().values().map(Vec::len).sum()
    }

    /// How often a stream was read from its beginning, not waiting.
    pub(crate) fn reads(&self) -> usize {
        self.reads.lock().values().sum()
    }

    /// It is not there any more.
    pub(crate) fn leave(&self) {
        self.gone.send_replace(true);
    }

    pub(crate) async fn watched(lie: Lie) -> (SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let liar = Arc::new(Self {
            lie,
            streams: Mutex::default(),
            reads: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            gone: watch::Sender::new(false),
            paused: AtomicBool::new(false),
            slipped: AtomicBool::new(false),
        });
        let serving = Arc::clone(&liar);
        tokio::spawn(async move {
            let mut gone = serving.gone.subscribe();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = gone.wait_for(|it| *it) => return,
                };
                let Ok((socket, _)) = accepted else { return };
                let (serving, mut gone) = (Arc::clone(&serving), serving.gone.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        () = serving.serve(socket) => {}
                        _ = gone.wait_for(|it| *it) => {}
                    }
                });
            }
        });
        (address, liar)
    }

    async fn serve(&self, mut socket: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n").map(|at| at + 4) else {
                match socket.read_buf(&mut bytes).await {
                    Ok(1..) => continue,
                    _ => return,
                }
            };
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = header(&head, "content-length");
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

    async fn answer(&self, head: &str, bytes: Vec<u8>) -> Vec<u8> {
        let mut words = head.split(' ');
        let (method, target) = (words.next().expect("a verb"), words.next().expect("a path"));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match (method, self.lie) {
            ("PUT", Lie::Lack) => {
                let page =
                    "<!DOCTYPE HTML>\n<html>\n  <title>Error</title>\n  <p>No PUT here.</p>\n";
                let length = page.len();
                let head = format!("HTTP/1.1 501 No\r\nContent-Length: {length}\r\n\r\n");
                [head, page.to_owned()].concat().into_bytes()
            }
            ("POST", Lie::Refuse) => {
                b"HTTP/1.1 400 Bad\r\nContent-Length: 13\r\n\r\nno such thing".to_vec()
            }
            ("POST", lie) => {
                // One at a time, so that a pause is everybody's.
                let _turn = self.turn.lock().await;
                let key = header(head, "stream-key").map(str::to_owned);
                let count = {
                    let mut streams = self.streams.lock();
                    let stream = streams.entry(path.to_owned()).or_default();
                    stream.push(Body { bytes, key });
                    stream.len()
                };
                if lie == Lie::Stall {
                    std::future::pending::<()>().await;
                }
                if lie == Lie::Pause && count >= 12 && !self.paused.swap(true, Ordering::SeqCst) {
                    // What is measured is real time.
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                b"HTTP/1.1 204 OK\r\n\r\n".to_vec()
            }
            ("GET", _) => self.read(path, query).await,
            ("HEAD", _) => b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\
                Stream-Next-Offset: end\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
            ("DELETE", _) => b"HTTP/1.1 204 OK\r\n\r\n".to_vec(),
            _ => b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        }
    }

    /// Offsets are how many of the bodies that it tells of stand before them.
    async fn read(&self, path: &str, query: &str) -> Vec<u8> {
        let field = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        let (key, live) = (field("key"), field("live").is_some());
        let from: usize = field("offset").and_then(|text| text.parse().ok()).unwrap_or(0);
        let is_other = match live {
            true => false,
            false => {
                let mut reads = self.reads.lock();
                let times = reads.entry(format!("{path} {key:?}")).or_default();
                *times += 1;
                match self.lie {
                    Lie::Slip => {
                        let is_long =
                            self.streams.lock().get(path).is_some_and(|it| it.len() > VICTIM);
                        is_long && !self.slipped.swap(true, Ordering::SeqCst)
                    }
                    _ => times.is_multiple_of(2),
                }
            }
        };
        let told = || {
            let bodies = self.streams.lock().get(path).cloned().unwrap_or_default();
            let bodies =
                bodies.into_iter().filter(|body| key.is_none() || body.key.as_deref() == key);
            tell(bodies.map(|body| body.bytes).collect(), self.lie, is_other)
        };
        if live && told().len() <= from {
            tokio::time::sleep(LONG_POLL).await;
        }
        let told = told();
        let body = told.get(from..).unwrap_or_default().concat();
        let status = if live && body.is_empty() { "204 No Content" } else { "200 OK" };
        let head = format!(
            "HTTP/1.1 {status}\r\nStream-Next-Offset: {}\r\nStream-Up-To-Date: true\r\n\
             Content-Length: {}\r\n\r\n",
            told.len().max(from),
            body.len()
        );
        [head.into_bytes(), body].concat()
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// What it tells of these bodies. But for every other read, what it told once is the beginning of
/// what it tells later.
fn tell(mut bodies: Vec<Vec<u8>>, lie: Lie, is_other: bool) -> Vec<Vec<u8>> {
    if bodies.len() <= VICTIM {
        return bodies;
    }
    match lie {
        Lie::Lose => drop(bodies.remove(VICTIM)),
        Lie::Shrink if is_other => drop(bodies.remove(VICTIM)),
        Lie::Repeat => bodies.insert(VICTIM, bodies[VICTIM].clone()),
        Lie::Swap if bodies.len() == VICTIM + 1 => bodies.truncate(VICTIM),
        Lie::Swap => bodies.swap(VICTIM, VICTIM + 1),
        Lie::Damage => bodies[VICTIM][70] ^= 1,
        Lie::Rot | Lie::Slip if is_other => bodies[VICTIM][70] ^= 1,
        Lie::Invent => {
            // Of a writer that does not exist.
            let whole = &bodies[VICTIM];
            let end = whole.iter().position(|byte| *byte == b'\n').expect("a record") + 1;
            let mut record = whole[..end].to_vec();
            record[6..14].copy_from_slice(b"00000007");
            record[15..27].copy_from_slice(b"000000000000");
            bodies.insert(VICTIM, record);
        }
        Lie::Intrude => bodies.insert(VICTIM, b"{\"x\":1}\n".to_vec()),
        Lie::Blank => bodies.insert(VICTIM, b" \n".to_vec()),
        Lie::None
        | Lie::Rot
        | Lie::Slip
        | Lie::Shrink
        | Lie::Pause
        | Lie::Refuse
        | Lie::Lack
        | Lie::Stall => {}
    }
    bodies
}
