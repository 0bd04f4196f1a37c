//! A server in this process on a port of its own, with the real engine in an empty directory,
//! and a client that shows everything.
//!
//! Nothing here sleeps to wait for an effect: a wait is for a fact and ends at a deadline.
#![expect(clippy::disallowed_methods, reason = "tests use real sockets, files and clocks")]
#![allow(dead_code, unreachable_pub, reason = "every test file uses a part")]

pub mod process;
pub mod receiver;

use std::{
    collections::VecDeque,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};
use weir_engine::Engine;
use weir_http::{App, HttpConfig, ObjectStore, Webhooks, server};
use weir_io::{
    memory::MemoryBucket,
    net::Listener as _,
    os::{self, OsListener},
};

/// No fact takes longer to come true.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    dir: Arc<Dir>,
    engine: Option<Engine>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
    config: HttpConfig,
    object_store: Option<ObjectStore>,
    bucket: Option<MemoryBucket>,
    tuning: Tuning,
}

/// Settings of an engine that are not the default.
#[derive(Clone, Copy)]
struct Tuning {
    seal_age: Duration,
    /// What of published segments stays on the disk, and in memory.
    kept_bytes_max: Option<u64>,
}

impl Tuning {
    const NONE: Self = Self { seal_age: Duration::from_secs(10), kept_bytes_max: None };
    const SEALING: Self = Self { seal_age: Duration::ZERO, ..Self::NONE };
    const EVICTING: Self = Self { kept_bytes_max: Some(1), ..Self::SEALING };

    fn config(self, dir: &Path) -> weir_engine::Config {
        let config = weir_engine::Config::new(dir);
        weir_engine::Config {
            seal_age: self.seal_age,
            local_bytes_max: self.kept_bytes_max.unwrap_or(config.local_bytes_max),
            block_cache_bytes: self.kept_bytes_max.unwrap_or(config.block_cache_bytes),
            ..config
        }
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With settings of its own.
    pub async fn start_with(adjust: impl FnOnce(&mut HttpConfig)) -> Self {
        let mut config = HttpConfig::default();
        adjust(&mut config);
        Self::open(Arc::new(fresh_dir()), config, None, None, Tuning::NONE).await
    }

    /// That tells what this bucket is asked.
    pub async fn start_beside(object_store: ObjectStore) -> Self {
        let (dir, config) = (Arc::new(fresh_dir()), HttpConfig::default());
        Self::open(dir, config, Some(object_store), None, Tuning::NONE).await
    }

    /// With an engine that seals at once.
    pub async fn start_sealing() -> Self {
        let (dir, config) = (Arc::new(fresh_dir()), HttpConfig::default());
        Self::open(dir, config, None, None, Tuning::SEALING).await
    }

    /// With an engine that seals at once and publishes to this bucket.
    pub async fn start_publishing(bucket: &MemoryBucket) -> Self {
        let (dir, config) = (Arc::new(fresh_dir()), HttpConfig::default());
        Self::open(dir, config, None, Some(bucket.clone()), Tuning::SEALING).await
    }

    /// The same, with an engine that keeps nothing of what is published.
    pub async fn start_evicting(bucket: &MemoryBucket) -> Self {
        let (dir, config) = (Arc::new(fresh_dir()), HttpConfig::default());
        Self::open(dir, config, None, Some(bucket.clone()), Tuning::EVICTING).await
    }

    async fn open(
        dir: Arc<Dir>,
        config: HttpConfig,
        object_store: Option<ObjectStore>,
        bucket: Option<MemoryBucket>,
        tuning: Tuning,
    ) -> Self {
        let world = os::world().expect("a runtime is running");
        let engine = tuning.config(&dir);
        let objects = bucket.as_ref().map(|it| it.client(Arc::clone(&world.clock)));
        let engine = Engine::open_with(world.clone(), engine, objects, "a test").await;
        let engine = engine.expect("the store opens");
        let listener = OsListener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let webhooks = Webhooks::open(&world, &dir, &config, None).await.expect("keys are made");
        let mut app = App::new(engine.clone(), config.clone(), world, webhooks);
        if let Some(store) = &object_store {
            app = app.with_object_store(store.clone());
        }
        let app = Arc::new(app);
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server::serve(listener, app, async { drop(stopped.await) }));
        Self {
            address,
            dir,
            engine: Some(engine),
            stop: Some(stop),
            serving: Some(serving),
            config,
            object_store,
            bucket,
            tuning,
        }
    }

    /// Asks the server to stop, without waiting for it.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Stops the server and opens the same directory again.
    pub async fn restart(mut self) -> Self {
        self.stop().await;
        let (dir, config) = (Arc::clone(&self.dir), self.config.clone());
        let (object_store, bucket) = (self.object_store.clone(), self.bucket.clone());
        Self::open(dir, config, object_store, bucket, self.tuning).await
    }

    /// Stops the server and its engine.
    pub async fn stop(&mut self) {
        self.begin_stop();
        if let Some(serving) = self.serving.take() {
            within(serving).await.expect("the server ends");
            let engine = self.engine.take().expect("taken here only");
            within(engine.close()).await;
        }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// One request on a connection of its own.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        self.client().await.send(method, path, headers, body).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    pub async fn head(&self, path: &str) -> Reply {
        self.send("HEAD", path, &[], "").await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], "").await
    }

    pub async fn put(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        self.send("PUT", path, headers, body).await
    }

    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        self.send("POST", path, headers, body).await
    }

    /// Creates a stream of this type.
    pub async fn create(&self, path: &str, content_type: &str) -> Reply {
        let reply = self.put(path, &[("content-type", content_type)], "").await;
        assert_eq!(reply.status, 201, "{path}: {reply:?}");
        reply
    }

    /// Appends to a text stream; the offset after it.
    pub async fn append(&self, path: &str, body: impl Into<Bytes>) -> String {
        let reply = self.post(path, TEXT, body).await;
        assert_eq!(reply.status, 204, "{path}: {reply:?}");
        reply.header("stream-next-offset").to_owned()
    }

    /// Opens an event stream.
    pub async fn events(&self, path: &str) -> Events {
        let mut client = self.client().await;
        let response = within(client.begin("GET", path, &[], Bytes::new())).await;
        assert_eq!(response.status(), 200, "{path}");
        let (parts, body) = response.into_parts();
        Events { headers: parts.headers, body, text: String::new(), chunks: 0, _client: client }
    }

    /// Writes bytes as they are and reads until the server closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = TcpStream::connect(self.address).await.expect("connects");
        socket.write_all(bytes).await.expect("sent");
        let mut answer = Vec::new();
        // A reset after the answer is as good as an end.
        drop(within(socket.read_to_end(&mut answer)).await);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A socket for tests that dribble.
    pub async fn socket(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connects")
    }

    /// A figure of `/metrics`; zero if it is not there yet.
    pub async fn figure(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

/// Headers of a text body.
pub const TEXT: &[(&str, &str)] = &[("content-type", "text/plain")];
/// Headers of a JSON body.
pub const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// A connection that is kept.
pub struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("connects");
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("handshake");
        tokio::spawn(async move { drop(connection.await) });
        Self { sender, host: address.to_string() }
    }

    pub async fn begin(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> hyper::Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", &self.host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("a valid request");
        // The answer before may be read to its end before the connection is free again.
        self.sender.ready().await.expect("an open connection");
        self.sender.send_request(request).await.expect("an answer")
    }

    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        within(async {
            let response = self.begin(method, path, headers, body.into()).await;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            Reply { status: parts.status.as_u16(), headers: parts.headers, body }
        })
        .await
    }
}

/// A complete answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// A header, which must be there.
    pub fn header(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    pub fn find(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    pub fn next(&self) -> &str {
        self.header("stream-next-offset")
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("UTF-8")
    }

    /// The error's code and message; the body must be exactly one error.
    pub fn error(&self) -> (String, String) {
        let json = self.json();
        let error = json.as_object().filter(|it| it.len() == 1).and_then(|it| it.get("error"));
        let error = error.and_then(|it| it.as_object()).filter(|it| it.len() == 2);
        let error = error.unwrap_or_else(|| panic!("no error: {self:?}"));
        let field = |name: &str| error[name].as_str().expect("a string").to_owned();
        (field("code"), field("message"))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    #[track_caller]
    pub fn check(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// An event stream being read.
pub struct Events {
    pub headers: HeaderMap,
    body: Incoming,
    text: String,
    /// Frames received so far: each is one chunk of the chunked body.
    pub chunks: usize,
    _client: Client,
}

/// One event, or a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: String,
    pub data: String,
}

impl Event {
    pub fn control(&self) -> serde_json::Value {
        assert_eq!(self.kind, "control", "{self:?}");
        serde_json::from_str(&self.data).expect("control is JSON")
    }

    pub fn next_offset(&self) -> String {
        self.control()["streamNextOffset"].as_str().expect("always there").to_owned()
    }
}

impl Events {
    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        within(async {
            loop {
                if let Some((event, rest)) = self.text.split_once("\n\n") {
                    let event = parse_event(event);
                    self.text = rest.to_owned();
                    return Some(event);
                }
                self.frame().await?;
            }
        })
        .await
    }

    /// The next event, which must be of this kind.
    pub async fn expect(&mut self, kind: &str) -> Event {
        let event = self.next().await.unwrap_or_else(|| panic!("ended before {kind}"));
        assert_eq!(event.kind, kind, "{event:?}");
        event
    }

    /// Goes on to the data that ends with this.
    pub async fn until(&mut self, end: &str) {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("ended before {end}"));
            if event.kind == "data" && event.data.ends_with(end) {
                return;
            }
        }
    }

    /// All remaining events until the server ends the stream.
    pub async fn rest(&mut self) -> VecDeque<Event> {
        let mut events = VecDeque::new();
        while let Some(event) = self.next().await {
            events.push_back(event);
        }
        events
    }

    /// One frame of the body, as text.
    async fn frame(&mut self) -> Option<()> {
        let frame = self.body.frame().await?.expect("a clean stream");
        let bytes = frame.into_data().expect("only data");
        self.chunks += 1;
        self.text.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
        Some(())
    }
}

fn parse_event(text: &str) -> Event {
    let (mut kind, mut data) = (String::new(), Vec::new());
    for line in text.split('\n') {
        match line.split_once(':').expect("a field or a comment") {
            ("", _) => kind = "comment".to_owned(),
            ("event", value) => kind = value.strip_prefix(' ').expect("one space").to_owned(),
            ("data", value) => data.push(value.strip_prefix(' ').unwrap_or(value)),
            other => panic!("unknown field {other:?}"),
        }
    }
    Event { kind, data: data.join("\n") }
}

/// Waits for a future, but not for ever.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

/// Asks again and again until the answer is true.
pub async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let begin = tokio::time::Instant::now();
    while !ask().await {
        assert!(begin.elapsed() < DEADLINE, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A connection, or why there is none.
pub async fn try_connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect(address).await
}

/// What the wall clock shows.
pub fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("64 bits")
}

/// A directory that nobody else uses, removed when dropped.
pub struct Dir(PathBuf);

impl std::ops::Deref for Dir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left behind fails no test.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// An empty directory.
pub fn fresh_dir() -> Dir {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("weir-http-{}-{count}", std::process::id());
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Left over from a process that had the same number and was killed.
    drop(std::fs::remove_dir_all(&dir));
    std::fs::create_dir_all(&dir).expect("created");
    Dir(dir)
}
