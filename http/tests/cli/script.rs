//! A server that answers as a test says.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// An answer: its status, other headers with their line breaks, and its body.
pub(crate) type Said = (&'static str, &'static str, &'static str);

/// A status that breaks off in its body.
pub(crate) const CUT: &str = "200 Cut";

/// What to say to a method and path that was asked so often before.
type Say = fn(&str, usize) -> Said;

/// The server.
pub(crate) struct Script {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request: its first line without the version, and all of its head.
struct Asked {
    line: String,
    head: String,
}

impl Script {
    pub(crate) async fn start(say: Say) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let all = Arc::clone(&all);
                tokio::spawn(async move { answer(socket, say, &all).await });
            }
        });
        Self { address, asked }
    }

    /// How often it was asked for what begins so.
    pub(crate) fn asked(&self, what: &str) -> usize {
        self.asked.lock().iter().filter(|asked| asked.line.starts_with(what)).count()
    }

    /// The values of a header in the requests that begin so.
    pub(crate) fn sent(&self, what: &str, header: &str) -> Vec<String> {
        let asked = self.asked.lock();
        let heads = asked.iter().filter(|asked| asked.line.starts_with(what));
        let lines = heads.flat_map(|asked| asked.head.lines().filter_map(|it| it.split_once(": ")));
        lines
            .filter(|(name, _)| name.eq_ignore_ascii_case(header))
            .map(|it| it.1.to_owned())
            .collect()
    }
}

/// Answers one request: the next one has a connection of its own.
async fn answer(mut socket: TcpStream, say: Say, all: &Mutex<Vec<Asked>>) {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break String::from_utf8_lossy(&bytes[..at + 4]).into_owned();
        }
        if !matches!(socket.read_buf(&mut bytes).await, Ok(1..)) {
            return;
        }
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
    });
    while bytes.len() < head.len() + length.unwrap_or(0) {
        if !matches!(socket.read_buf(&mut bytes).await, Ok(1..)) {
            return;
        }
    }
    let line = head.split(" HTTP/").next().expect("a request").to_owned();
    let before = {
        let mut all = all.lock();
        all.push(Asked { line: line.clone(), head: head.clone() });
        all.iter().filter(|other| other.line == line).count() - 1
    };
    let (status, headers, body) = say(&line, before);
    let more = if status == CUT { 10 } else { 0 };
    let length = body.len() + more;
    let text = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    // A client that is gone needs no answer.
    drop(socket.write_all(text.as_bytes()).await);
}
