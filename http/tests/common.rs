//! Common rules: routes, methods, headers of every answer, errors, limits of requests
//! (protocol §26 C, core §10.1).

mod support;

use support::{JSON, Server, TEXT, until, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weir_http::config::{ApiKey, Auth, Hosts};

const S: &str = "/v1/stream/s";

#[tokio::test]
async fn every_answer_carries_the_headers_of_every_answer() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    let live = format!("{S}?live=long-poll&offset=-1&timeout=0");
    for (method, path, status) in [
        ("GET", S, 200),
        ("HEAD", S, 200),
        ("GET", &live, 204),
        ("PUT", S, 409),
        ("POST", S, 400),
        ("PATCH", S, 405),
        ("GET", "/v1/stream/none", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/v1/stream/%zz", 400),
        ("OPTIONS", "/v1/stream/none", 204),
        ("GET", "/health", 200),
        ("GET", "/metrics", 200),
        ("GET", "/v1/streams", 200),
        ("DELETE", S, 204),
    ] {
        let reply = server.send(method, path, &[], "").await.check(status);
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{method} {path}");
        assert_eq!(reply.header("cross-origin-resource-policy"), "cross-origin");
        assert_eq!(reply.header("access-control-allow-origin"), "*");
        let exposed = reply.header("access-control-expose-headers");
        for name in ["stream-sse-data-encoding", "location", "stream-next-offset", "retry-after"] {
            assert!(exposed.split(", ").any(|it| it == name), "{name} in {exposed}");
        }
        assert!(reply.header("date").ends_with(" GMT"));
    }
}

#[tokio::test]
async fn errors_have_one_shape_and_the_peers_codes() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    for (method, path, headers, status, code) in [
        ("GET", "/nowhere", TEXT, 404, "not_found"),
        ("GET", "/v1/stream/none", TEXT, 404, "not_found"),
        ("POST", S, TEXT, 400, "bad_request"),
        ("POST", S, JSON, 400, "bad_request"),
        ("PUT", S, JSON, 409, "conflict"),
        ("PATCH", S, TEXT, 405, "method_not_allowed"),
        ("GET", "/v1/stream/__ds/x", TEXT, 404, "SUBSCRIPTION_NOT_FOUND"),
    ] {
        let reply = server.send(method, path, headers, "").await.check(status);
        assert_eq!(reply.error().0, code, "{method} {path}");
        assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
        assert_eq!(reply.header("cache-control"), "no-store");
    }
    let reply = server.send("PATCH", S, &[], "").await;
    assert_eq!(reply.header("allow"), "GET, POST, PUT, DELETE, HEAD, OPTIONS");
    let reply = server.send("POST", "/health", &[], "").await.check(405);
    assert_eq!(reply.header("allow"), "GET, HEAD, OPTIONS");
}

#[tokio::test]
async fn one_stream_has_many_spellings() {
    let server = Server::start().await;
    server.create("/v1/stream/a/b", "text/plain").await;
    server.append("/v1/stream/a%2Fb", "x").await;
    for path in ["/v1/stream/a/b", "/v1/stream/a%2fb/", "/v1/streams/a/b", "/v1/streams/a/b//"] {
        assert_eq!(server.get(path).await.check(200).text(), "x", "{path}");
    }
    for path in ["/v1/stream", "/v1/stream/"] {
        let (code, message) = server.get(path).await.check(400).error();
        assert_eq!((&*code, &*message), ("bad_request", "missing stream name"));
    }
    for path in ["/v1/stream/%", "/v1/stream/%e", "/v1/stream/%ff", "/v1/stream/a//b"] {
        server.put(path, TEXT, "").await.check(400);
    }
    let long = format!("/v1/stream/{}", "n".repeat(1025));
    server.put(&long, TEXT, "").await.check(400);
}

#[tokio::test]
async fn reserved_suffixes_are_no_streams_unless_encoded() {
    let server = Server::start().await;
    server.create("/v1/stream/foo%2F_schema", "text/plain").await;
    server.get("/v1/stream/foo%2F_schema").await.check(200);
    for path in ["/v1/stream/foo/_search", "/v1/stream/foo/touch/wait"] {
        for method in ["GET", "PUT", "POST", "DELETE"] {
            let (code, message) = server.send(method, path, TEXT, "").await.check(404).error();
            assert_eq!(code, "not_found");
            assert!(message.contains("not available yet"), "{message}");
        }
    }
}

#[tokio::test]
async fn the_control_plane_never_becomes_a_stream() {
    let server = Server::start().await;
    for path in ["/v1/stream/__ds", "/v1/stream/__ds/foo", "/v1/streams/%5f%5fds%2Ffoo"] {
        for method in ["PUT", "POST", "GET", "HEAD", "DELETE"] {
            server.send(method, path, TEXT, "x").await.check(404);
        }
    }
    assert_eq!(server.get("/v1/streams").await.text(), "[]");
}

#[tokio::test]
async fn a_request_framed_twice_is_refused_and_the_connection_closed() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    let turned = "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n";
    let twice = "Content-Length: 5\r\nContent-Length: 5\r\n";
    let differing = "Content-Length: 5\r\nContent-Length: 6\r\n";
    let coded = "Transfer-Encoding: gzip, chunked\r\n";
    for framing in [both, turned, twice, differing, coded] {
        let head = format!("POST {S} HTTP/1.1\r\nHost: {}\r\n", server.address);
        let smuggled = format!("{head}Content-Type: text/plain\r\nContent-Length: 1\r\n\r\nx");
        let request = format!("{head}Content-Type: text/plain\r\n{framing}\r\n0\r\n\r\n{smuggled}");
        let answer = server.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{framing:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    assert_eq!(server.get(S).await.text(), "");
}

#[tokio::test]
async fn heads_have_limits() {
    let server = Server::start().await;
    let host = server.address;
    let field = format!("X-A: {}\r\n", "a".repeat(70_000));
    let many = "X-A: a\r\n".repeat(200);
    let url = "u".repeat(17_000);
    for (line, fields, status) in [
        ("GET /health HTTP/1.1", &*field, "431"),
        ("GET /health HTTP/1.1", &*many, "431"),
        (&*format!("GET /v1/stream/a?x={url} HTTP/1.1"), "Connection: close\r\n", "414"),
        ("GET /health HTTP/1.1", "Bad Name: x\r\n", "400"),
        ("GET /health HTTP/1.1", "Host: again\r\n", "400"),
    ] {
        let request = format!("{line}\r\nHost: {host}\r\n{fields}\r\n");
        let answer = server.raw(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer:.200}");
    }
    let answer = server.raw(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "no Host: {answer:.200}");
    server.get("/health").await.check(200);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let server = Server::start_with(|config| config.body_bytes_max = 1000).await;
    server.create(S, "text/plain").await;
    server.post(S, TEXT, vec![b'x'; 1000]).await.check(204);

    // From the length alone: not one byte of the body is sent.
    let head =
        format!("POST {S} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\n", server.address);
    let answer = server.raw(format!("{head}Content-Length: 1001\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.contains("body too large (max 1000)"), "{answer}");

    // Without a length: as soon as it is too much.
    let chunk = format!("3e9\r\n{}\r\n", "x".repeat(1001));
    let request = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}");
    let answer = server.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(server.get(S).await.body.len(), 1000);
}

#[tokio::test]
async fn chunked_bodies_are_stored_completely() {
    let server = Server::start().await;
    let chunks = "5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n";
    for method in ["PUT", "POST"] {
        let request = format!(
            "{method} {S} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\n\
             Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}",
            server.address
        );
        let answer = server.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    }
    assert_eq!(server.get(S).await.text(), "hello worldhello world");
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on_or_not() {
    let server = Server::start_with(|config| config.body_bytes_max = 10).await;
    server.create(S, "text/plain").await;
    for (length, expect) in [(5, "HTTP/1.1 100 Continue\r\n\r\n"), (11, "HTTP/1.1 413 ")] {
        let mut socket = server.socket().await;
        let head = format!(
            "POST {S} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
             Expect: 100-continue\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.expect("sent");
        let mut first = vec![0; expect.len()];
        within(socket.read_exact(&mut first)).await.expect("an answer before the body");
        assert_eq!(String::from_utf8_lossy(&first), expect);
        if length == 5 {
            socket.write_all(b"hello").await.expect("sent");
            let mut rest = String::new();
            within(socket.read_to_string(&mut rest)).await.expect("an answer");
            assert!(rest.starts_with("HTTP/1.1 204 "), "{rest}");
        }
    }
    assert_eq!(server.get(S).await.text(), "hello");
}

#[tokio::test]
async fn pipelined_appends_keep_their_order() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    let mut requests = String::new();
    for number in 0..50 {
        let body = format!("{number},");
        let last = if number == 49 { "Connection: close\r\n" } else { "" };
        requests.push_str(&format!(
            "POST {S} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\n{last}\
             Content-Length: {}\r\n\r\n{body}",
            server.address,
            body.len()
        ));
    }
    let answers = server.raw(requests.as_bytes()).await;
    assert_eq!(answers.matches("HTTP/1.1 204").count(), 50, "{answers}");
    let expect: String = (0..50).map(|number| format!("{number},")).collect();
    assert_eq!(server.get(S).await.text(), expect);
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let server = Server::start_with(|config| config.connections_max = 2).await;
    let mut kept = [server.client().await, server.client().await];
    for client in &mut kept {
        client.send("GET", "/health", &[], "").await.check(200);
    }
    let answer = server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    drop(kept);
    until("a place is free again", || async {
        let answer =
            server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        answer.await.starts_with("HTTP/1.1 200 ")
    })
    .await;
}

#[tokio::test]
async fn bodies_have_a_common_budget() {
    let server = Server::start_with(|config| config.bodies_bytes_max = 10_000).await;
    server.create(S, "text/plain").await;
    let reply = server.post(S, TEXT, vec![b'x'; 10_001]).await.check(429);
    assert_eq!((reply.header("retry-after"), &*reply.error().0), ("1", "overloaded"));
    for _ in 0..3 {
        server.post(S, TEXT, vec![b'x'; 9_000]).await.check(204);
    }
}

#[tokio::test]
async fn stalled_uploads_delay_nobody_and_store_nothing() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    let head = format!(
        "POST {S} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\nhalf",
        server.address
    );
    let mut stalled = Vec::new();
    for _ in 0..2 {
        let mut socket = server.socket().await;
        socket.write_all(head.as_bytes()).await.expect("sent");
        stalled.push(socket);
    }
    server.append(S, "whole").await;
    drop(stalled);
    until("the connections are gone", || async {
        server.figure("weir_http_connections").await <= 1.0
    })
    .await;
    assert_eq!(server.get(S).await.text(), "whole");
}

#[tokio::test]
async fn slow_peers_are_given_up_on() {
    let server = Server::start_with(|config| {
        config.patience.head = std::time::Duration::from_millis(100);
        config.patience.body = std::time::Duration::from_millis(100);
        config.patience.idle = std::time::Duration::from_millis(100);
    })
    .await;
    server.create(S, "text/plain").await;
    for (dribble, expect) in [
        ("", ""),
        ("GET /health HTTP/1.1\r\nHost: loc", ""),
        ("PRI * HTTP/2.0\r\n\r\nSM", ""),
        (
            "POST /v1/stream/s HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
          Content-Length: 9\r\n\r\nhalf",
            "HTTP/1.1 408 ",
        ),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200 "),
    ] {
        // `raw` returns when the server closes.
        let answer = server.raw(dribble.as_bytes()).await;
        assert!(answer.starts_with(expect) && answer.is_empty() == expect.is_empty(), "{answer}");
    }
    assert_eq!(server.get(S).await.text(), "");
}

#[tokio::test]
async fn an_api_key_is_asked_for_before_anything_is_done() {
    let key = ApiKey::new("correct horse".into()).expect("long enough");
    let server = Server::start_with(|config| config.auth = Auth::ApiKey(key)).await;
    let good = ("authorization", "bEaReR correct horse");
    for given in [
        None,
        Some("Bearer wrong horse!"),
        Some("Bearer  correct horse"),
        Some("Basic correct horse"),
        Some("Bearer"),
    ] {
        let headers: Vec<_> = given.map(|value| ("authorization", value)).into_iter().collect();
        for (method, path) in
            [("PUT", S), ("GET", "/v1/streams"), ("GET", "/metrics"), ("GET", "/x"), ("OPTIONS", S)]
        {
            let reply = server.send(method, path, &headers, "").await.check(401);
            assert_eq!(reply.header("www-authenticate"), "Bearer");
            assert_eq!(reply.error(), ("unauthorized".into(), "unauthorized".into()));
        }
    }
    server.head("/health").await.check(200);
    let preflight = [("access-control-request-method", "PUT"), ("origin", "http://a.example")];
    server.send("OPTIONS", S, &preflight, "").await.check(204);
    server.send("GET", S, &[good], "").await.check(404);
    let reply =
        server.send("PUT", S, &[good, ("content-type", "text/plain")], "x").await.check(201);
    assert_eq!(reply.next(), "0000000000000000_0000000000000002");
    let reply = server.send("GET", S, &[good], "").await.check(200);
    assert!(reply.header("cache-control").contains("private"), "{reply:?}");
}

#[tokio::test]
async fn a_web_page_cannot_reach_an_open_loopback_server_by_a_name_of_its_own() {
    let server = Server::start_with(|config| {
        config.hosts = Hosts::LoopbackAnd(vec!["mine.example".into()]);
    })
    .await;
    for (host, status) in [
        ("localhost:1", 404),
        ("127.0.0.1", 404),
        ("[::1]:80", 404),
        ("mine.example", 404),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
    ] {
        server.send("GET", S, &[("host", host)], "").await.check(status);
    }
}

#[tokio::test]
async fn a_web_page_of_another_origin_cannot_use_an_open_loopback_server() {
    let server = Server::start_with(|config| config.hosts = Hosts::LoopbackAnd(vec![])).await;
    for (origin, expect) in [
        ("https://pages.example", 403),
        ("null", 403),
        ("http://localhost:5173", 201),
        ("http://127.0.0.1:3000", 200),
    ] {
        let headers = [("origin", origin), ("content-type", "text/plain")];
        server.send("PUT", S, &headers, "").await.check(expect);
    }
    let preflight = [("access-control-request-method", "GET"), ("origin", "https://pages.example")];
    server.send("OPTIONS", S, &preflight, "").await.check(204);
}

#[tokio::test]
async fn metrics_speak_to_prometheus_and_to_the_peers_clients() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    server.append(S, "x").await;
    let reply = server.get("/metrics").await.check(200);
    assert!(reply.header("content-type").starts_with("application/openmetrics-text"));
    let text = reply.text();
    for line in [
        "weir_http_requests_total{method=\"POST\",route=\"stream\",status=\"204\"} 1",
        "weir_append_records_total 1",
        "weir_http_connections ",
        "weir_log_commit_seconds_count",
        "weir_memtable_bytes ",
        "weir_wal_bytes ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(text.ends_with("# EOF\n"));
    let reply = server.send("GET", "/metrics", &[("accept", "application/json")], "").await;
    let json = reply.json();
    assert!(json["uptime_ms"].is_u64() && json["series"].as_u64() > Some(10), "{json}");
}

#[tokio::test]
async fn health_says_ok() {
    let server = Server::start().await;
    let reply = server.get("/health").await.check(200);
    assert_eq!(reply.text(), r#"{"ok":true}"#);
    assert_eq!(reply.header("cache-control"), "no-store");
}
