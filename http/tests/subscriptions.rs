//! Subscriptions over the wire (protocol §17, §26 U), where the upstream suite does not prove
//! it. What the URLs of webhooks may be and how they are delivered is tested in `webhook.rs`.

mod support;

use serde_json::{Value, json};
use support::{JSON, Reply, Server, TEXT, receiver::Receiver, until};
use weir_engine::types::OffsetFormat;
use weir_http::{
    HttpConfig, Loopback,
    config::{ApiKey, Auth},
};

const PLANE: &str = "/v1/stream/__ds";
const S: &str = "/v1/stream/__ds/subscriptions/s";
const START: &str = "-1";
const ONE: &str = "0000000000000000_0000000000000002";
const TWO: &str = "0000000000000000_0000000000000004";
const KEY: &str = "correct horse";

fn development(config: &mut HttpConfig) {
    config.loopback_webhooks = Loopback::Allowed;
}

fn with_key(config: &mut HttpConfig) {
    config.auth = Auth::ApiKey(ApiKey::new(KEY.into()).expect("long enough"));
}

fn pull() -> Value {
    json!({ "type": "pull-wake", "pattern": "e/*", "wake_stream": "wakes" })
}

fn webhook(url: &str) -> Value {
    json!({ "type": "webhook", "pattern": "e/*", "webhook": { "url": url } })
}

async fn put(server: &Server, path: &str, body: &Value) -> Reply {
    server.put(path, JSON, body.to_string()).await
}

async fn post(server: &Server, path: &str, token: Option<&str>, body: &Value) -> Reply {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = JSON.to_vec();
    headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    server.post(path, &headers, body.to_string()).await
}

/// A server with a pull-wake subscription `s` to `e/*` and one record in `e/a`.
async fn with_work(adjust: impl FnOnce(&mut HttpConfig)) -> Server {
    let server = Server::start_with(adjust).await;
    put(&server, S, &pull()).await.check(201);
    server.put("/v1/stream/e/a", TEXT, "one").await.check(201);
    server
}

/// Work that was claimed.
struct Claimed {
    token: String,
    wake_id: String,
    generation: u64,
    body: Value,
}

impl Claimed {
    /// A report with these fields.
    fn report(&self, more: &Value) -> Value {
        let mut body = json!({ "wake_id": self.wake_id, "generation": self.generation });
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        body
    }

    async fn ack(&self, server: &Server, more: &Value) -> Reply {
        post(server, &format!("{S}/ack"), Some(&self.token), &self.report(more)).await
    }

    async fn release(&self, server: &Server) -> Reply {
        let body = self.report(&json!({}));
        post(server, &format!("{S}/release"), Some(&self.token), &body).await
    }
}

async fn claim(server: &Server) -> Claimed {
    let reply = post(server, &format!("{S}/claim"), None, &json!({ "worker": "w" })).await;
    let body = reply.check(200).json();
    let text = |name: &str| body[name].as_str().expect("a string").to_owned();
    let generation = body["generation"].as_u64().expect("a number");
    Claimed { token: text("token"), wake_id: text("wake_id"), generation, body }
}

/// The first link that the subscription shows for a stream.
async fn link(server: &Server, path: &str) -> Option<Value> {
    let body = server.get(S).await.check(200).json();
    let streams = body["streams"].as_array().expect("an array").clone();
    streams.into_iter().find(|it| it["path"] == path)
}

#[tokio::test]
async fn the_control_plane_has_its_own_paths_methods_and_errors() {
    let server = Server::start().await;
    for path in ["", "/", "/x", "/subscriptions", "/subscriptions/s/x", "/jwks.json/x"] {
        for method in ["GET", "PUT", "POST", "DELETE", "HEAD"] {
            let reply = server.send(method, &format!("{PLANE}{path}"), JSON, "{}").await.check(404);
            assert!(method == "HEAD" || reply.error().0 == "SUBSCRIPTION_NOT_FOUND", "{path}");
        }
    }
    for (path, allow) in [
        ("/jwks.json", "GET, HEAD, OPTIONS"),
        ("/subscriptions/s", "PUT, GET, HEAD, DELETE, OPTIONS"),
        ("/subscriptions/s/streams", "POST, OPTIONS"),
        ("/subscriptions/s/streams/a/b", "DELETE, OPTIONS"),
        ("/subscriptions/s/callback", "POST, OPTIONS"),
        ("/subscriptions/s/claim", "POST, OPTIONS"),
        ("/subscriptions/s/ack", "POST, OPTIONS"),
        ("/subscriptions/s/release", "POST, OPTIONS"),
    ] {
        let reply = server.send("PATCH", &format!("{PLANE}{path}"), JSON, "{}").await.check(405);
        assert_eq!(reply.header("allow"), allow, "{path}");
        server.send("OPTIONS", &format!("{PLANE}{path}"), &[], "").await.check(204);
    }
    for path in ["a%2Fb", "%zz", "%00", "."] {
        let path = format!("{PLANE}/subscriptions/{path}");
        assert_eq!(put(&server, &path, &pull()).await.check(400).error().0, "INVALID_REQUEST");
    }
    assert_eq!(server.get("/v1/streams").await.text(), "[]");
}

#[tokio::test]
async fn a_body_is_an_object_of_moderate_size() {
    let server = Server::start_with(|config| config.body_bytes_max = 100).await;
    for body in ["", "[]", "{", "\"x\""] {
        let reply = server.put(S, JSON, body).await.check(400);
        assert_eq!(reply.error().0, "INVALID_REQUEST", "{body}");
    }
    // The limit of streams' bodies is another one.
    let description = "d".repeat(200);
    let mut body = pull();
    body["description"] = description.into();
    put(&server, S, &body).await.check(201);
    body["description"] = "d".repeat(1 << 20).into();
    assert_eq!(put(&server, S, &body).await.check(413).error().0, "payload_too_large");
}

#[tokio::test]
async fn a_subscription_is_made_once_confirmed_shown_and_deleted() {
    let server = Server::start().await;
    let body = json!({
        "type": "pull-wake", "pattern": "/e/*", "streams": ["/b/", "a", "b"],
        "wake_stream": "wakes", "lease_ttl_ms": 1000, "description": "d", "unknown": true,
    });
    let made = put(&server, S, &body).await.check(201);
    assert_eq!(made.header("content-type"), "application/json; charset=utf-8");
    let made = made.json();
    let link = |path| {
        let zero = "0000000000000000_0000000000000000";
        json!({ "path": path, "link_type": "explicit", "acked_offset": START,
                "tail_offset": zero, "has_pending": false })
    };
    let mut expect = json!({
        "id": "s", "subscription_id": "s", "type": "pull-wake", "pattern": "e/*",
        "streams": [link("a"), link("b")], "pending_count": 0, "wake_stream": "wakes",
        "lease_ttl_ms": 1000, "status": "active", "description": "d",
    });
    expect["created_at"] = made["created_at"].clone();
    assert_eq!(made, expect);
    assert!(made["created_at"].as_str().is_some_and(|it| it.ends_with('Z')));

    let again = json!({
        "type": "pull-wake", "pattern": "e/*", "streams": ["b", "a"],
        "wake_stream": "wakes", "lease_ttl_ms": 1000, "description": "d",
    });
    assert_eq!(put(&server, S, &again).await.check(200).json(), made);
    let other = put(&server, S, &pull()).await.check(409);
    assert_eq!(other.error().0, "SUBSCRIPTION_ALREADY_EXISTS");
    assert_eq!(server.get("/v1/streams/__ds/subscriptions/s").await.check(200).json(), made);
    assert_eq!(server.head(S).await.check(200).text(), "");

    let server = server.restart().await;
    assert_eq!(server.get(S).await.check(200).json(), made);
    server.delete(S).await.check(204);
    assert_eq!(server.get(S).await.check(404).error().0, "SUBSCRIPTION_NOT_FOUND");
    server.delete(S).await.check(204);
    put(&server, S, &pull()).await.check(201);
}

#[tokio::test]
async fn an_unsafe_url_is_refused_unless_the_name_is_taken() {
    let server = Server::start().await;
    for url in ["http://10.0.0.1/hook", "http://127.0.0.1:1/", "http://hooks.example/", "nonsense"]
    {
        let (code, message) = put(&server, S, &webhook(url)).await.check(400).error();
        assert_eq!(code, "WEBHOOK_URL_REJECTED", "{url}: {message}");
    }
    server.get(S).await.check(404);
    put(&server, S, &webhook("https://hooks.example/")).await.check(201);
    let reply = put(&server, S, &webhook("http://10.0.0.1/hook")).await.check(409);
    assert_eq!(reply.error().0, "SUBSCRIPTION_ALREADY_EXISTS");
    put(&server, S, &webhook("https://hooks.example/")).await.check(200);
}

#[tokio::test]
async fn streams_are_linked_and_unlinked_by_name() {
    let server = Server::start().await;
    let streams = format!("{S}/streams");
    let b = json!({ "streams": ["/x/b/", "e/c"] });
    assert_eq!(
        post(&server, &streams, None, &b).await.check(404).error().0,
        "SUBSCRIPTION_NOT_FOUND"
    );
    let gone = server.delete(&format!("{streams}/x/b")).await.check(404);
    assert_eq!(gone.error().0, "SUBSCRIPTION_NOT_FOUND");

    put(&server, S, &pull()).await.check(201);
    server.put("/v1/stream/e/c", TEXT, "one").await.check(201);
    server.put("/v1/stream/x/b", TEXT, "one").await.check(201);
    post(&server, &streams, None, &b).await.check(204);
    post(&server, &streams, None, &b).await.check(204);
    let explicit = link(&server, "x/b").await.expect("linked");
    assert_eq!(
        (&explicit["link_type"], &explicit["acked_offset"]),
        (&"explicit".into(), &ONE.into())
    );
    assert_eq!(link(&server, "e/c").await.expect("linked")["link_type"], "explicit");
    for wrong in [json!({}), json!({ "streams": "a" }), json!({ "streams": ["__ds/a"] })] {
        let reply = post(&server, &streams, None, &wrong).await.check(400);
        assert_eq!(reply.error().0, "INVALID_REQUEST", "{wrong}");
    }

    // A slash may stand in the path as it is or escaped.
    server.delete(&format!("{streams}/x%2Fb")).await.check(204);
    server.delete(&format!("{streams}/x/b")).await.check(204);
    assert_eq!(link(&server, "x/b").await, None);
    server.delete(&format!("{streams}/e/c")).await.check(204);
    assert_eq!(link(&server, "e/c").await.expect("still matches")["link_type"], "glob");
    server.delete(&format!("{streams}/__ds/a")).await.check(400);
}

#[tokio::test]
async fn work_is_claimed_kept_reported_and_there_again() {
    let server = with_work(|_| {}).await;
    let claimed = claim(&server).await;
    let expect = json!({
        "wake_id": claimed.wake_id, "generation": claimed.generation, "token": claimed.token,
        "lease_ttl_ms": 30_000, "pending_count": 1,
        "streams": [{ "path": "e/a", "link_type": "glob", "acked_offset": START,
                      "tail_offset": ONE, "has_pending": true }],
    });
    assert_eq!(claimed.body, expect);
    let digits = claimed.wake_id.strip_prefix("w_").expect("its prefix");
    assert!(digits.len() == 24 && digits.bytes().all(|it| it.is_ascii_hexdigit()));

    let busy = post(&server, &format!("{S}/claim"), None, &json!({ "worker": "v" })).await;
    let error = busy.check(409).json()["error"].clone();
    assert_eq!(error["code"], "ALREADY_CLAIMED");
    assert_eq!(
        (&error["current_holder"], &error["generation"]),
        (&"w".into(), &claimed.generation.into())
    );

    let ok = |next_wake: bool| json!({ "ok": true, "next_wake": next_wake });
    assert_eq!(claimed.ack(&server, &json!({})).await.check(200).json(), ok(false));
    server.append("/v1/stream/e/a", "two").await;
    let first = json!({ "acks": [{ "path": "/e/a", "offset": ONE }] });
    assert_eq!(claimed.ack(&server, &first).await.check(200).json(), ok(false));
    assert_eq!(link(&server, "e/a").await.expect("linked")["acked_offset"], ONE);
    let done = claimed.ack(&server, &json!({ "done": true })).await.check(200);
    assert_eq!(done.json(), ok(true));
    // Whoever reports twice is told that it is over.
    let replay = claimed.ack(&server, &json!({ "done": true })).await.check(409);
    assert_eq!(replay.error().0, "FENCED");

    let second = claim(&server).await;
    assert!(second.generation > claimed.generation);
    assert_eq!(second.body["streams"][0]["acked_offset"], ONE);
    assert_eq!(claimed.release(&server).await.check(409).error().0, "FENCED");
    let rest = json!({ "acks": [{ "stream": "e/a", "offset": TWO }], "done": true });
    assert_eq!(second.ack(&server, &rest).await.check(200).json(), ok(false));
    let idle = post(&server, &format!("{S}/claim"), None, &json!({ "worker": "w" })).await;
    assert_eq!(idle.check(409).error().0, "NO_PENDING_WORK");
}

#[tokio::test]
async fn work_given_back_is_announced_again() {
    let server = Server::start().await;
    server.put("/v1/stream/wakes", JSON, "[]").await.check(201);
    put(&server, S, &pull()).await.check(201);
    server.put("/v1/stream/e/a", TEXT, "one").await.check(201);
    let events = async |count: usize| {
        until("the wake is announced", || async {
            let events = server.get("/v1/stream/wakes").await.json();
            events.as_array().is_some_and(|it| it.len() >= count)
        })
        .await;
        server.get("/v1/stream/wakes").await.json()
    };
    let first = events(1).await[0].clone();
    assert_eq!(
        (&first["type"], &first["subscription_id"], &first["stream"]),
        (&"wake".into(), &"s".into(), &"e/a".into())
    );
    assert!(first["ts"].is_u64() && first["generation"].is_u64(), "{first}");
    let claimed = claim(&server).await;
    assert_eq!(first["generation"], claimed.generation);
    claimed.release(&server).await.check(204);
    let again = events(2).await[1].clone();
    assert!(again["generation"].as_u64() > Some(claimed.generation), "{again}");
}

#[tokio::test]
async fn acks_that_make_no_sense_change_nothing() {
    let server = with_work(|_| {}).await;
    server.append("/v1/stream/e/a", "two").await;
    let claimed = claim(&server).await;
    let good = json!({ "stream": "e/a", "offset": ONE });
    for (bad, status, code) in [
        (json!({ "stream": "e/a", "offset": "-1" }), 409, "INVALID_OFFSET"),
        (json!({ "stream": "e/a", "offset": "9_9" }), 409, "INVALID_OFFSET"),
        (json!({ "stream": "x", "offset": ONE }), 409, "INVALID_OFFSET"),
        (json!({ "stream": "e/a", "offset": "now" }), 400, "INVALID_REQUEST"),
        (json!({ "stream": "e/a", "offset": "" }), 400, "INVALID_REQUEST"),
        (json!({ "stream": "e/a" }), 400, "INVALID_REQUEST"),
        (json!({ "offset": ONE }), 400, "INVALID_REQUEST"),
    ] {
        let acks = json!({ "acks": [good.clone(), bad], "done": true });
        let reply = claimed.ack(&server, &acks).await;
        assert_eq!((reply.status, &*reply.error().0), (status, code), "{acks}");
    }
    assert_eq!(link(&server, "e/a").await.expect("linked")["acked_offset"], START);
    let many = vec![good; 1001];
    claimed.ack(&server, &json!({ "acks": many })).await.check(400);
    let two = json!({ "acks": [{ "stream": "e/a", "offset": TWO }] });
    claimed.ack(&server, &two).await.check(200);
    let back = json!({ "acks": [{ "stream": "e/a", "offset": ONE }] });
    assert_eq!(claimed.ack(&server, &back).await.check(409).error().0, "INVALID_OFFSET");
}

#[tokio::test]
async fn a_report_is_about_the_wake_that_its_token_is_for() {
    let server = with_work(|_| {}).await;
    let claimed = claim(&server).await;
    let ack = format!("{S}/ack");
    for fields in [
        json!({ "wake_id": "w_000000000000000000000000" }),
        json!({ "wake_id": "w_1" }),
        json!({ "generation": claimed.generation + 1 }),
        json!({ "generation": 0 }),
    ] {
        let reply = claimed.ack(&server, &fields).await.check(409);
        assert_eq!(reply.error().0, "FENCED", "{fields}");
    }
    for fields in [json!({ "wake_id": null }), json!({ "generation": "1" }), json!({ "done": 1 })] {
        let reply = claimed.ack(&server, &fields).await.check(400);
        assert_eq!(reply.error().0, "INVALID_REQUEST", "{fields}");
    }
    let body = claimed.report(&json!({}));
    let callback = post(&server, &format!("{S}/callback"), Some(&claimed.token), &body).await;
    assert_eq!(callback.check(400).error().0, "INVALID_REQUEST");
    // Nothing of all that has ended the lease.
    post(&server, &ack, Some(&claimed.token), &body).await.check(200);
    server.delete(S).await.check(204);
    let reply = post(&server, &ack, Some(&claimed.token), &body).await.check(404);
    assert_eq!(reply.error().0, "SUBSCRIPTION_NOT_FOUND");
}

#[tokio::test]
async fn a_report_without_its_token_is_told_nothing() {
    let server = with_work(|_| {}).await;
    put(&server, &format!("{PLANE}/subscriptions/other"), &pull()).await.check(201);
    let claimed = claim(&server).await;
    let token = &claimed.token;
    let body = claimed.report(&json!({ "done": true }));
    let tampered = format!("{}A", &token[..token.len() - 1]);
    let tampered =
        if tampered == *token { format!("{}B", &token[..token.len() - 1]) } else { tampered };
    for (path, token) in [
        ("s/ack", None),
        ("s/ack", Some("")),
        ("s/ack", Some("x")),
        ("s/ack", Some(&*tampered)),
        ("s/release", Some(&*tampered)),
        ("s/callback", None),
        ("other/ack", Some(&**token)),
        ("none/ack", Some(&**token)),
        ("none/ack", None),
    ] {
        let path = format!("{PLANE}/subscriptions/{path}");
        let reply = post(&server, &path, token, &body).await.check(401);
        assert_eq!(reply.error().0, "TOKEN_INVALID", "{path}");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
    }
    claimed.release(&server).await.check(204);
}

#[tokio::test]
async fn tokens_and_leases_survive_a_restart() {
    let server = with_work(|_| {}).await;
    let claimed = claim(&server).await;
    let keys = server.get(&format!("{PLANE}/jwks.json")).await.json();
    let server = server.restart().await;
    assert_eq!(server.get(&format!("{PLANE}/jwks.json")).await.json(), keys);
    let done = json!({ "acks": [{ "stream": "e/a", "offset": ONE }], "done": true });
    claimed.ack(&server, &done).await.check(200);
    assert_eq!(link(&server, "e/a").await.expect("linked")["acked_offset"], ONE);
}

#[tokio::test]
async fn with_an_api_key_workers_report_by_their_token_alone() {
    let server = Server::start_with(with_key).await;
    let key = format!("Bearer {KEY}");
    let signed = [JSON[0], ("authorization", key.as_str())];
    let body = pull().to_string();
    for (method, path) in [
        ("PUT", S.to_owned()),
        ("GET", S.to_owned()),
        ("DELETE", S.to_owned()),
        ("POST", format!("{S}/streams")),
        ("DELETE", format!("{S}/streams/a")),
        ("POST", format!("{S}/claim")),
        ("GET", format!("{S}/ack")),
        ("GET", format!("{PLANE}/x")),
    ] {
        let reply = server.send(method, &path, JSON, body.clone()).await.check(401);
        assert_eq!(reply.error().0, "unauthorized", "{method} {path}");
    }
    server.put(S, &signed, body).await.check(201);
    let records = [TEXT[0], signed[1]];
    server.put("/v1/stream/e/a", &records, "one").await.check(201);
    let worker = json!({ "worker": "w" }).to_string();
    let claimed = server.post(&format!("{S}/claim"), &signed, worker).await.check(200).json();
    let token = claimed["token"].as_str().expect("a string");
    let report = json!({ "wake_id": claimed["wake_id"], "generation": claimed["generation"] });
    let ack = format!("{S}/ack");
    post(&server, &ack, Some(token), &report).await.check(200);
    // The key is no token, and a token opens nothing but its own door.
    assert_eq!(post(&server, &ack, Some(KEY), &report).await.check(401).error().0, "TOKEN_INVALID");
    let bearer = format!("Bearer {token}");
    let with_token = [("authorization", bearer.as_str())];
    server.send("GET", S, &with_token, "").await.check(401);
    server.send("GET", "/v1/stream/e/a", &with_token, "").await.check(401);
    let reply = server.get(&format!("{PLANE}/jwks.json")).await.check(200);
    assert_eq!(reply.header("cache-control"), "private, max-age=300");
    post(&server, &format!("{S}/release"), Some(token), &report).await.check(204);
}

#[tokio::test]
async fn the_keys_are_published() {
    let server = Server::start_with(development).await;
    let reply = server.get(&format!("{PLANE}/jwks.json")).await.check(200);
    assert_eq!(reply.header("content-type"), "application/jwk-set+json");
    assert_eq!(reply.header("cache-control"), "public, max-age=300");
    let key = reply.json()["keys"][0].clone();
    let field = |name: &str| key[name].as_str().expect("a string").to_owned();
    let kind = ["kty", "crv", "use", "alg"].map(field);
    assert_eq!(kind, ["OKP", "Ed25519", "sig", "EdDSA"]);
    let made = put(&server, S, &webhook("https://hooks.example/")).await.check(201).json();
    let expect = json!({
        "url": "https://hooks.example/",
        "signing": { "alg": "ed25519", "kid": key["kid"],
                     "jwks_url": format!("http://{}{PLANE}/jwks.json", server.address) },
    });
    assert_eq!(made["webhook"], expect);
    assert_eq!(made.get("webhook_secret"), None);
    assert!(field("kid").starts_with("ds_"));
    server.head(&format!("{PLANE}/jwks.json")).await.check(200);
}

#[tokio::test]
async fn urls_begin_where_the_client_sees_the_server() {
    let server = Server::start_with(|config| {
        development(config);
        config.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    let mut receiver = Receiver::start().await;
    let body = webhook(&receiver.url()).to_string();
    let seen = [
        JSON[0],
        ("x-forwarded-proto", "http, https"),
        ("x-forwarded-host", "evil.example, streams.example"),
    ];
    let url = |reply: &Reply| reply.json()["webhook"]["signing"]["jwks_url"].clone();
    let made = server.put(S, &seen, body.clone()).await.check(201);
    assert_eq!(url(&made), format!("https://streams.example{PLANE}/jwks.json"));
    let direct = server.put(S, JSON, body).await.check(200);
    assert_eq!(url(&direct), format!("http://{}{PLANE}/jwks.json", server.address));
    // The receiver is told the way that the subscription's maker came, and a request that only
    // confirms does not change it.
    server.put("/v1/stream/e/a", TEXT, "one").await.check(201);
    let call = receiver.call().await;
    let callback = call.json()["callback_url"].clone();
    assert_eq!(callback, format!("https://streams.example{S}/callback"));
    call.answer(200, r#"{"done":true}"#);
    let forwarded = [TEXT[0], ("forwarded", "host=a, host=\"b:1\";proto=https")];
    let made = server.put("/v1/stream/a%20b", &forwarded, "").await.check(201);
    assert_eq!(made.header("location"), "https://b:1/v1/stream/a%20b");
}

#[tokio::test]
async fn a_webhook_brings_work_and_its_worker_calls_back() {
    let server = Server::start_with(development).await;
    let mut receiver = Receiver::start().await;
    put(&server, S, &webhook(&receiver.url())).await.check(201);
    server.put("/v1/stream/e/a", TEXT, "one").await.check(201);
    let call = receiver.call().await;
    assert_eq!(call.path, "/hook");
    assert_eq!(call.headers["content-type"], "application/json");
    let body = call.json();
    call.answer(202, "");
    let callback = format!("http://{}{S}/callback", server.address);
    assert_eq!((&body["subscription_id"], &body["callback_url"]), (&"s".into(), &callback.into()));
    assert_eq!(body["streams"][0]["tail_offset"], ONE);
    let token = body["callback_token"].as_str().expect("a string");
    let report = |more: &Value| {
        let mut report = json!({ "wake_id": body["wake_id"], "generation": body["generation"] });
        for (name, value) in more.as_object().expect("an object") {
            report[name] = value.clone();
        }
        report
    };
    let callback = format!("{S}/callback");
    let beat = post(&server, &callback, Some(token), &report(&json!({}))).await.check(200);
    assert_eq!(beat.text(), r#"{"ok":true,"next_wake":false}"#);
    server.append("/v1/stream/e/a", "two").await;
    let done = report(&json!({ "acks": [{ "stream": "e/a", "offset": ONE }], "done": true }));
    let ended = post(&server, &callback, Some(token), &done).await.check(200);
    assert_eq!(ended.text(), r#"{"ok":true,"next_wake":true}"#);
    let stale = post(&server, &callback, Some(token), &done).await.check(409);
    assert_eq!(stale.error().0, "FENCED");

    // The next wake is answered at once.
    let call = receiver.call().await;
    assert!(call.json()["generation"].as_u64() > body["generation"].as_u64());
    call.answer(200, r#"{"done":true}"#);
    until("the snapshot is acked", || async {
        link(&server, "e/a").await.is_some_and(|it| it["acked_offset"] == TWO)
    })
    .await;
    // Webhook workers don't claim.
    let wrong = post(&server, &format!("{S}/claim"), None, &json!({ "worker": "w" })).await;
    assert_eq!(wrong.check(400).error().0, "INVALID_REQUEST");
}

#[tokio::test]
async fn a_receiver_that_fails_is_shown_and_called_again() {
    let server = Server::start_with(development).await;
    let mut receiver = Receiver::start().await;
    put(&server, S, &webhook(&receiver.url())).await.check(201);
    server.put("/v1/stream/e/a", TEXT, "one").await.check(201);
    let first = receiver.call().await;
    let body = first.json();
    first.answer(500, "");
    until("the failure is shown", || async { server.get(S).await.json()["status"] == "failed" })
        .await;
    let second = receiver.call().await;
    assert_eq!(second.json()["subscription_id"], body["subscription_id"]);
    second.answer(200, r#"{"done":true}"#);
    until("the success is shown", || async { server.get(S).await.json()["status"] == "active" })
        .await;
}

#[tokio::test]
async fn offsets_are_written_as_everywhere_and_read_in_both_spellings() {
    let server = with_work(|config| config.offset_format = OffsetFormat::Peer).await;
    let claimed = claim(&server).await;
    assert_eq!(claimed.body["streams"][0]["tail_offset"], "0000000000000000000G000000");
    let done = json!({ "acks": [{ "stream": "e/a", "offset": "0_2" }], "done": true });
    claimed.ack(&server, &done).await.check(200);
    let acked = link(&server, "e/a").await.expect("linked")["acked_offset"].clone();
    assert_eq!(acked, "0000000000000000000G000000");
}

#[tokio::test]
async fn what_a_subscription_links_may_be_gone() {
    let server = with_work(|_| {}).await;
    let claimed = claim(&server).await;
    claimed.release(&server).await.check(204);
    server.delete("/v1/stream/e/a").await.check(204);
    until("the link is gone", || async { link(&server, "e/a").await.is_none() }).await;
    let reply = post(&server, &format!("{S}/claim"), None, &json!({ "worker": "w" })).await;
    assert_eq!(reply.check(409).error().0, "NO_PENDING_WORK");
}
