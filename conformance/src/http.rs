//! An HTTP/1.1 client of our own, one connection at a time.
//!
//! It does what a crash test needs and nothing more: an error of any kind means
//! that the outcome is unknown, nothing is ever retried behind the caller's
//! back, and the connection is dropped with the first error. It reads bodies by
//! length, by chunks and until the connection ends; it follows no redirect and
//! knows no encoding.

use std::{
    io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// No answer may take longer; twice the longest long-poll a server may grant.
const SILENCE_MAX: Duration = Duration::from_secs(120);
const CONNECT_MAX: Duration = Duration::from_secs(10);
const HEADERS_MAX: usize = 100;
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// A header of a request.
pub type Header<'a> = (&'a str, &'a str);

/// What is asked of the server.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub headers: &'a [Header<'a>],
    pub body: &'a [u8],
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection to a local server, opened when needed.
pub struct Client {
    port: u16,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(port: u16) -> Client {
        Client { port, connection: None }
    }

    pub fn get(&mut self, target: &str) -> io::Result<Response> {
        self.send(Request { method: "GET", target, headers: &[], body: &[] })
    }

    pub fn head(&mut self, target: &str) -> io::Result<Response> {
        self.send(Request { method: "HEAD", target, headers: &[], body: &[] })
    }

    pub fn delete(&mut self, target: &str) -> io::Result<Response> {
        self.send(Request { method: "DELETE", target, headers: &[], body: &[] })
    }

    pub fn put(
        &mut self,
        target: &str,
        headers: &[Header<'_>],
        body: &[u8],
    ) -> io::Result<Response> {
        self.send(Request { method: "PUT", target, headers, body })
    }

    pub fn post(
        &mut self,
        target: &str,
        headers: &[Header<'_>],
        body: &[u8],
    ) -> io::Result<Response> {
        self.send(Request { method: "POST", target, headers, body })
    }

    /// Sends a request and reads the whole answer. After an error the outcome of
    /// the request is unknown.
    pub fn send(&mut self, request: Request<'_>) -> io::Result<Response> {
        let mut connection = self.dispatch(request)?;
        let head = read_head(&mut connection)?;
        let framing = Framing::of(request.method, &head)?;
        let mut body = Vec::new();
        let mut reader = Body::new(connection, framing);
        reader.read_to_end(&mut body)?;
        self.connection = reader.into_connection(&head);
        Ok(Response { status: head.status, headers: head.headers, body })
    }

    /// Sends a GET and hands back its body while it is still being written. The
    /// connection belongs to the body from then on.
    pub fn open(mut self, target: &str) -> io::Result<(Head, Body)> {
        let request = Request { method: "GET", target, headers: &[], body: &[] };
        let mut connection = self.dispatch(request)?;
        let head = read_head(&mut connection)?;
        let framing = Framing::of("GET", &head)?;
        Ok((head, Body::new(connection, framing)))
    }

    fn dispatch(&mut self, request: Request<'_>) -> io::Result<BufReader<TcpStream>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(self.port)?,
        };
        connection.get_mut().write_all(&encode(self.port, request))?;
        Ok(connection)
    }
}

fn connect(port: u16) -> io::Result<BufReader<TcpStream>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let socket = TcpStream::connect_timeout(&address, CONNECT_MAX)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(SILENCE_MAX))?;
    socket.set_write_timeout(Some(SILENCE_MAX))?;
    Ok(BufReader::new(socket))
}

/// The request as one piece of bytes: a kill between two writes of ours would
/// test the client.
fn encode(port: u16, request: Request<'_>) -> Vec<u8> {
    let Request { method, target, headers, body } = request;
    let mut bytes =
        format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() || matches!(method, "PUT" | "POST") {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// Status and headers of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.as_str())
}

fn read_head(connection: &mut impl BufRead) -> io::Result<Head> {
    let line = read_line(connection)?;
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| malformed("status line", &line))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(connection)?;
        if line.is_empty() {
            return Ok(Head { status, headers });
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("header", &line))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
        if headers.len() > HEADERS_MAX {
            return Err(malformed("header count", &line));
        }
    }
}

/// One line without its CRLF.
fn read_line(connection: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    connection.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') || bytes.pop() != Some(b'\r') {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    String::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error))
}

fn malformed(what: &str, line: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("malformed {what}: {line:?}"))
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// So many bytes of the current chunk are still to come, and its line end.
    Chunked(u64),
    /// The end of the connection.
    Close,
    /// The last chunk was read.
    Ended,
}

impl Framing {
    fn of(method: &str, head: &Head) -> io::Result<Framing> {
        if method == "HEAD" || matches!(head.status, 204 | 304) {
            return Ok(Framing::Length(0));
        }
        let chunked = head.header("Transfer-Encoding");
        if chunked.is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Ok(Framing::Chunked(0));
        }
        match head.header("Content-Length") {
            Some(text) => text.parse().map(Framing::Length).map_err(|_| malformed("length", text)),
            None => Ok(Framing::Close),
        }
    }
}

/// A body as a reader: ends where the answer ends, fails where the connection
/// ends before it.
#[derive(Debug)]
pub struct Body {
    connection: BufReader<TcpStream>,
    framing: Framing,
}

impl Body {
    fn new(connection: BufReader<TcpStream>, framing: Framing) -> Body {
        Body { connection, framing }
    }

    /// The connection for the next request, if the server keeps it.
    fn into_connection(self, head: &Head) -> Option<BufReader<TcpStream>> {
        let closing = head.header("Connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        let kept = !closing && self.framing != Framing::Close;
        kept.then_some(self.connection)
    }

    fn read_some(&mut self, buffer: &mut [u8], left: u64) -> io::Result<u64> {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.connection.read(&mut buffer[..room])?;
        if count == 0 && room > 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(u64::try_from(count).expect("a buffer is shorter than 2^64"))
    }

    /// Reads the line that opens the next chunk and says how long the chunk is.
    fn next_chunk(&mut self) -> io::Result<u64> {
        let line = read_line(&mut self.connection)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(digits, 16).map_err(|_| malformed("chunk", &line))?;
        if length == 0 {
            while !read_line(&mut self.connection)?.is_empty() {}
        }
        Ok(length)
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = match self.framing {
            Framing::Ended | Framing::Length(0) => 0,
            Framing::Close => return self.connection.read(buffer),
            Framing::Length(left) => {
                let count = self.read_some(buffer, left)?;
                self.framing = Framing::Length(left - count);
                count
            }
            Framing::Chunked(0) => {
                let length = self.next_chunk()?;
                self.framing = if length == 0 { Framing::Ended } else { Framing::Chunked(length) };
                return self.read(buffer);
            }
            Framing::Chunked(left) => {
                let count = self.read_some(buffer, left)?;
                if count == left && !read_line(&mut self.connection)?.is_empty() {
                    return Err(ErrorKind::InvalidData.into());
                }
                self.framing = Framing::Chunked(left - count);
                count
            }
        };
        Ok(usize::try_from(count).expect("the count fits the buffer"))
    }
}
