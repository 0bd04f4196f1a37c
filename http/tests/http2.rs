//! HTTP/2 on the same port, by the same rules.

mod support;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Reply, Server, TEXT, within};

const S: &str = "/v1/stream/s";

struct Client {
    sender: http2::SendRequest<Full<Bytes>>,
    authority: String,
}

impl Client {
    async fn connect(server: &Server) -> Self {
        let io = TokioIo::new(server.socket().await);
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), io).await.expect("a handshake");
        tokio::spawn(async move { drop(connection.await) });
        Self { sender, authority: server.address.to_string() }
    }

    fn begin(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> impl Future<Output = hyper::Response<hyper::body::Incoming>> + Send + 'static {
        let mut request =
            Request::builder().method(method).uri(format!("http://{}{path}", self.authority));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a valid request");
        let mut sender = self.sender.clone();
        async move { sender.send_request(request).await.expect("an answer") }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let response = within(self.begin(method, path, headers, body)).await;
        let (parts, body) = response.into_parts();
        let body = within(body.collect()).await.expect("a whole body").to_bytes();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

#[tokio::test]
async fn the_protocol_is_the_same() {
    let server = Server::start_with(|config| config.body_bytes_max = 1 << 20).await;
    let client = Client::connect(&server).await;
    let reply = client.send("PUT", S, TEXT, "").await.check(201);
    assert_eq!(reply.header("location"), format!("http://{}{S}", server.address));
    client.send("POST", S, TEXT, vec![b'x'; 1 << 20]).await.check(204);
    client.send("POST", S, TEXT, "").await.check(400);
    let reply = client.send("GET", S, &[], "").await.check(200);
    assert_eq!((reply.body.len(), reply.header("x-content-type-options")), (1 << 20, "nosniff"));
    assert_eq!(server.get(S).await.body, reply.body);
    client.send("HEAD", S, &[], "").await.check(200);
    let reply = client.send("POST", S, TEXT, vec![b'x'; (1 << 20) + 1]).await.check(413);
    assert_eq!(reply.find("connection"), None);
    client.send("DELETE", S, &[], "").await.check(204);
    client.send("GET", "/nowhere", &[], "").await.check(404);
}

#[tokio::test]
async fn waiting_requests_do_not_hold_up_others_on_the_connection() {
    let server = Server::start().await;
    let client = Client::connect(&server).await;
    client.send("PUT", S, TEXT, "").await.check(201);
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let path = format!("{S}?live=long-poll&offset=-1&timeout=60s");
            tokio::spawn(client.begin("GET", &path, &[], ""))
        })
        .collect();
    let events = client.begin("GET", &format!("{S}?live=sse&offset=-1"), &[], "");
    let mut events = within(events).await.into_body();
    client.send("POST", S, TEXT, "x").await.check(204);
    for task in waiting {
        let response = within(task).await.expect("an answer");
        let body = within(response.into_body().collect()).await.expect("a body").to_bytes();
        assert_eq!(&body[..], b"x");
    }
    let mut text = String::new();
    while !text.contains("data:x\n") {
        let frame = within(events.frame()).await.expect("more").expect("a frame");
        text.push_str(std::str::from_utf8(&frame.into_data().expect("data")).expect("UTF-8"));
    }
    assert!(text.starts_with("event: "), "{text}");
}

#[tokio::test]
async fn stopping_ends_streams_and_connections() {
    let mut server = Server::start().await;
    let client = Client::connect(&server).await;
    client.send("PUT", S, TEXT, "x").await.check(201);
    let events = client.begin("GET", &format!("{S}?live=sse&offset=-1"), &[], "");
    let events = within(events).await.into_body();
    server.stop().await;
    let bytes = within(events.collect()).await.expect("a clean end").to_bytes();
    let text = std::str::from_utf8(&bytes).expect("UTF-8");
    let last = text.rsplit("event: ").next().expect("an event");
    assert!(last.contains("\"streamNextOffset\":\"0000000000000000_0000000000000002\""), "{text}");
}
