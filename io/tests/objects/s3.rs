//! The S3 client against a small server of its own, on the simulated network.
//!
//! The server knows what the client needs of S3, and can be told to ignore conditions, as
//! some services do, or to answer with a given failure. That it is like S3 is checked
//! elsewhere, against a server that others wrote.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, Uri, body::Incoming, header, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weir_io::{
    World,
    disk::Create,
    laws,
    memory::{Machine, MemoryListener},
    net::Listener as _,
    objects::{
        Artifact, Counting, Counts, Created, ObjectError, Objects, Prefixed, Unfit, Verb, probe,
    },
    os::{
        self,
        objects::{Bucket, Kind},
    },
    retry::Outcome,
};

use super::{key, patient, simulate};

const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 9000);

/// What the server does with `If-None-Match: *`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Conditions {
    Obeyed,
    Ignored,
    /// 501, as of a header that nobody implemented.
    Unknown,
}

/// The server.
#[derive(Clone)]
struct S3 {
    state: Arc<Mutex<State>>,
}

struct State {
    conditions: Conditions,
    objects: BTreeMap<String, Bytes>,
    /// Parts of the upload under way, by number.
    parts: BTreeMap<u32, Bytes>,
    /// Given instead of the next answers. A status of zero breaks the connection, after the
    /// request has taken effect; with one of 200 nothing fails.
    failures: VecDeque<(u16, &'static str)>,
    requests: Vec<String>,
    /// Bytes of the longest body that came.
    longest: usize,
}

type Answer = Response<Full<Bytes>>;

impl S3 {
    fn new(conditions: Conditions) -> S3 {
        let (objects, parts, failures, requests) = Default::default();
        let state = State { conditions, objects, parts, failures, requests, longest: 0 };
        S3 { state: Arc::new(Mutex::new(state)) }
    }

    fn fail(&self, failures: &[(u16, &'static str)]) {
        self.state.lock().unwrap().failures.extend(failures);
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Serves connections on the current `LocalSet` until the test ends.
    fn serve(&self, mut listener: MemoryListener) {
        let server = self.clone();
        tokio::task::spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let server = server.clone();
                let service = service_fn(move |request| server.clone().answer(request));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                tokio::task::spawn_local(async move { drop(connection.await) });
            }
        });
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Answer, std::io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        assert!(parts.headers.contains_key(header::AUTHORIZATION), "every request is signed");
        let state = &mut *self.state.lock().unwrap();
        state.requests.push(format!("{} {}", parts.method, parts.uri.path()));
        state.longest = state.longest.max(body.len());
        let failure = state.failures.pop_front().filter(|(status, _)| *status != 200);
        if let Some((status, code)) = failure.filter(|(status, _)| *status > 0) {
            return Ok(error(status, code, &parts.method));
        }
        let condition = parts.headers.get(header::IF_NONE_MATCH).is_some();
        if condition && state.conditions == Conditions::Unknown {
            return Ok(error(501, "NotImplemented", &parts.method));
        }
        let condition = condition && state.conditions == Conditions::Obeyed;
        let key = parts.uri.path().strip_prefix("/bucket").unwrap().trim_start_matches('/');
        let range = parts.headers.get(header::RANGE).map(|it| it.to_str().unwrap());
        let upload = parts.uri.query().filter(|query| query.contains("upload"));
        let said = match parts.method {
            _ if upload.is_some() => {
                in_parts(state, &parts.method, key, upload.unwrap_or_default(), body)
            }
            Method::PUT if condition && state.objects.contains_key(key) => {
                error(412, "PreconditionFailed", &parts.method)
            }
            Method::PUT => {
                state.objects.insert(key.to_owned(), body);
                ok(200, Bytes::new()).header(header::ETAG, "\"e\"").body(Full::default()).unwrap()
            }
            Method::DELETE => {
                state.objects.remove(key);
                ok(204, Bytes::new()).body(Full::default()).unwrap()
            }
            Method::GET if key.is_empty() => list(&state.objects, &parts.uri),
            _ => match state.objects.get(key) {
                None => error(404, "NoSuchKey", &parts.method),
                Some(object) => read(object, range, &parts.method),
            },
        };
        if failure.is_some() { Err(std::io::Error::other("broken")) } else { Ok(said) }
    }
}

/// A request of an upload in parts; there is one at a time.
fn in_parts(state: &mut State, method: &Method, key: &str, query: &str, body: Bytes) -> Answer {
    let number = query.split('&').find_map(|pair| pair.strip_prefix("partNumber="));
    match (method, number) {
        (&Method::PUT, Some(number)) => {
            state.parts.insert(number.parse().unwrap(), body);
            ok(200, Bytes::new()).header(header::ETAG, "\"p\"").body(Full::default()).unwrap()
        }
        (&Method::POST, None) if query.contains("uploadId") => {
            let parts = std::mem::take(&mut state.parts);
            assert!(parts.keys().copied().eq(1..=u32::try_from(parts.len()).unwrap()));
            let object: Vec<Bytes> = parts.into_values().collect();
            state.objects.insert(key.to_owned(), object.concat().into());
            let xml =
                "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>";
            Response::new(Full::from(xml))
        }
        (&Method::POST, None) => {
            state.parts.clear();
            let xml = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
            Response::new(Full::from(xml))
        }
        (&Method::DELETE, None) => {
            state.parts.clear();
            ok(204, Bytes::new()).body(Full::default()).unwrap()
        }
        other => panic!("no request of an upload: {other:?} {query}"),
    }
}

fn ok(status: u16, body: Bytes) -> hyper::http::response::Builder {
    let builder = Response::builder().status(status).header(header::CONTENT_LENGTH, body.len());
    builder.header(header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT")
}

fn error(status: u16, code: &str, method: &Method) -> Answer {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    let body = if method == Method::HEAD { String::new() } else { body };
    Response::builder().status(status).body(Full::from(body)).unwrap()
}

fn read(object: &Bytes, range: Option<&str>, method: &Method) -> Answer {
    let size = object.len();
    let mut status = StatusCode::OK;
    let mut part = object.clone();
    let mut described = None;
    if let Some(range) = range {
        let (start, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (start, last): (usize, usize) = (start.parse().unwrap(), last.parse().unwrap());
        if start >= size {
            return error(416, "InvalidRange", method);
        }
        let end = (last + 1).min(size);
        part = object.slice(start..end);
        status = StatusCode::PARTIAL_CONTENT;
        described = Some(format!("bytes {start}-{}/{size}", end - 1));
    }
    let mut builder = ok(status.as_u16(), part.clone()).header(header::ETAG, "\"e\"");
    if let Some(described) = described {
        builder = builder.header(header::CONTENT_RANGE, described);
    }
    let body = if method == Method::HEAD { Bytes::new() } else { part };
    builder.body(Full::from(body)).unwrap()
}

/// Pages of two, so that their seams are met.
fn list(objects: &BTreeMap<String, Bytes>, uri: &Uri) -> Answer {
    let query = uri.query().unwrap_or("").replace("%2F", "/").replace("%3D", "=");
    let field = |name: &str| {
        query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).map(str::to_owned)
    };
    let prefix = field("prefix").unwrap_or_default();
    let after = field("continuation-token").or(field("start-after")).unwrap_or_default();
    let limit: usize = field("max-keys").map_or(1000, |it| it.parse().unwrap()).min(2);
    let found: Vec<(&String, &Bytes)> = objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix) && key.as_str() > after.as_str())
        .take(limit + 1)
        .collect();
    let mut xml = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
    for (key, bytes) in found.iter().take(limit) {
        let size = bytes.len();
        xml += &format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
             <Size>{size}</Size><ETag>\"e\"</ETag></Contents>"
        );
    }
    if found.len() > limit {
        let token = found[limit - 1].0;
        xml += &format!("<NextContinuationToken>{token}</NextContinuationToken>");
    }
    xml += "</ListBucketResult>";
    Response::new(Full::from(xml))
}

fn bucket() -> Bucket {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "very-secret"),
        ("AWS_ENDPOINT_URL", "http://s3.test:9000"),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_UNKNOWN_TO_US", "ignored"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Bucket {
        kind: Kind::S3,
        name: Some("bucket".into()),
        prefix: None,
        variables: variables.into(),
    }
}

/// Runs `test` with a client and its server.
fn against(conditions: Conditions, test: impl AsyncFnOnce(Arc<dyn Objects>, World, S3)) {
    let machine = Machine::new(1);
    let listener = machine.outbound().listen(ADDRESS).unwrap();
    machine.outbound().name("s3.test", &[ADDRESS.ip()]);
    simulate(&machine, async |world| {
        let server = S3::new(conditions);
        server.serve(listener);
        let client = os::objects::open(&bucket(), &world).await.unwrap();
        test(client, world, server).await;
    });
}

#[test]
fn the_client_keeps_the_laws() {
    against(Conditions::Obeyed, async |client, world, _server| {
        laws::objects::all(&client).await;
        probe(&patient(&client, &world), &*world.entropy).await.unwrap();
    });
}

#[test]
fn the_probe_refuses_a_server_that_ignores_the_condition() {
    against(Conditions::Ignored, async |client, world, server| {
        let said = probe(&patient(&client, &world), &*world.entropy).await;
        assert_eq!(said, Err(Unfit::NoFence));
        assert!(server.state.lock().unwrap().objects.is_empty(), "the probe cleans up");
    });
}

#[test]
fn the_probe_says_plainly_that_a_server_has_no_conditional_writes() {
    against(Conditions::Unknown, async |bucket, world, server| {
        let said = probe(&patient(&bucket, &world), &*world.entropy).await;
        let Err(Unfit::Unconditional(_)) = said else { panic!("{said:?}") };
        let text = said.unwrap_err().to_string();
        assert!(text.contains("501") && text.contains("If-None-Match"), "{text}");
        assert_eq!(server.requests().len(), 1, "it is not asked again");
    });
}

#[test]
fn one_call_is_one_request_and_failures_are_told_apart() {
    against(Conditions::Obeyed, async |client, _world, server| {
        let key = key("a");
        let transient =
            |said: &Result<Bytes, ObjectError>| matches!(said, Err(ObjectError::Transient(_)));
        let refused =
            |said: &Result<Bytes, ObjectError>| matches!(said, Err(ObjectError::Refused(_)));
        for (status, code, expect) in [
            (500, "InternalError", &transient as &dyn Fn(&Result<Bytes, ObjectError>) -> bool),
            (503, "SlowDown", &transient),
            (400, "RequestTimeout", &transient),
            (404, "NoSuchBucket", &refused),
            (403, "AccessDenied", &refused),
            (301, "PermanentRedirect", &refused),
            (0, "", &transient),
        ] {
            server.fail(&[(status, code)]);
            let said = client.get(&key, 10).await;
            assert!(expect(&said), "{status} {code}: {said:?}");
            assert_eq!(server.requests().len(), 1, "{status} {code}");
        }
        assert_eq!(client.get(&key, 10).await, Err(ObjectError::NotFound));
    });
}

#[test]
fn a_missing_bucket_never_reads_as_a_missing_object() {
    against(Conditions::Obeyed, async |client, _world, server| {
        let key = key("a");
        // The answer to HEAD has no body, so a second request has to tell.
        server.fail(&[(404, "NoSuchBucket"), (404, "NoSuchBucket")]);
        let said = client.head(&key).await;
        assert!(matches!(said, Err(ObjectError::Refused(_))), "{said:?}");
        assert_eq!(server.requests(), ["HEAD /bucket/a", "GET /bucket/a"]);
        for _ in 0..2 {
            server.fail(&[(404, "NoSuchBucket")]);
        }
        let said = client.list("", None, 10).await;
        assert!(matches!(said, Err(ObjectError::Refused(_))), "{said:?}");
        let said = client.create(&key, "some".into()).await;
        assert!(matches!(said, Err(ObjectError::Refused(_))), "{said:?}");
    });
}

#[test]
fn calls_that_take_several_requests_count_each() {
    against(Conditions::Obeyed, async |client, world, server| {
        let counts = Arc::new(Counts::new(Arc::clone(&world.clock)));
        let below: Arc<dyn Objects> = Arc::new(Prefixed::new(client, key("a/b")));
        let client = Counting::new(below, Arc::clone(&counts));
        for number in 0..5 {
            client.create(&key(&format!("rows/{number}")), "some".into()).await.unwrap();
        }
        assert_eq!(server.requests().len(), 5);
        // So far, and since this was asked before.
        let count =
            |verb| (counts.snapshot().get(Artifact::Rows, verb).requests, server.requests().len());
        assert!(client.head(&key("rows/0")).await.unwrap().is_some());
        assert_eq!(count(Verb::Head), (1, 1));
        assert_eq!(client.head(&key("rows/9")).await, Ok(None));
        assert_eq!(count(Verb::Head), (3, 2), "whether the bucket is missing is asked too");
        assert_eq!(client.list("rows/", None, 2).await.unwrap().len(), 2);
        assert_eq!(count(Verb::List), (1, 1));
        assert_eq!(client.list("rows/", None, 10).await.unwrap().len(), 5);
        assert_eq!(count(Verb::List), (4, 3), "pages of two");
    });
}

#[test]
fn a_creation_whose_answer_was_lost_is_ambiguous_and_settled_by_reading_back() {
    against(Conditions::Obeyed, async |client, world, server| {
        let client = patient(&client, &world);
        server.fail(&[(0, "")]);
        assert_eq!(client.create(&key("a"), &"mine".into()).await, Ok(Outcome::Ambiguous));
        server.fail(&[(0, "")]);
        let mine = client.create_confirmed(&key("b"), &"mine".into()).await;
        assert_eq!(mine, Ok(Created::New));
        server.fail(&[(503, "SlowDown")]);
        let other = client.create_confirmed(&key("b"), &"not mine".into()).await;
        assert_eq!(other, Ok(Created::AlreadyThere));
        assert_eq!(client.create(&key("b"), &"mine".into()).await, Ok(Outcome::AlreadyThere));
    });
}

/// A file of so many bytes, each other than those around it.
fn file(world: &World, path: &Path, size: u64) -> Bytes {
    let size = usize::try_from(size).unwrap();
    let bytes: Bytes = (0..=250).cycle().take(size).collect::<Vec<u8>>().into();
    let file = world.disk.create(path, Create::New).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file.sync().unwrap();
    bytes
}

#[test]
fn a_large_file_goes_up_in_parts_and_a_smaller_one_does_not() {
    const LIMIT: u64 = 128 << 20;
    against(Conditions::Obeyed, async |client, world, server| {
        let counts = Arc::new(Counts::new(Arc::clone(&world.clock)));
        let client: Arc<dyn Objects> = Arc::new(Counting::new(client, Arc::clone(&counts)));
        let client = patient(&client, &world);
        let path = Path::new("/large");
        let bytes = file(&world, path, LIMIT + 1);
        let name = |of: &str| key(&format!("rows/{of}"));
        let is_there = |of: &str| {
            let state = server.state.lock().unwrap();
            state.parts.is_empty() && state.objects.get(&format!("rows/{of}")) == Some(&bytes)
        };
        assert_eq!(client.create_from_file(&name("a"), path, LIMIT).await, Ok(None));
        assert!(server.requests().is_empty(), "an offer is no request");

        let sent = client.create_from_file(&name("a"), path, LIMIT + 1).await;
        assert_eq!(sent, Ok(Some(Outcome::Created)));
        assert!(is_there("a"));
        assert_eq!(server.state.lock().unwrap().longest, 32 << 20, "what was in memory at once");
        let [head, get, begin, parts @ .., end] = &server.requests()[..] else { panic!("too few") };
        assert_eq!((&**head, &**get), ("HEAD /bucket/rows/a", "GET /bucket/rows/a"));
        assert_eq!((&**begin, &**end), ("POST /bucket/rows/a", "POST /bucket/rows/a"));
        assert_eq!(parts, ["PUT /bucket/rows/a"; 5]);
        let figures = counts.snapshot().get(Artifact::Rows, Verb::Create);
        assert_eq!((figures.requests, figures.bytes), (9, LIMIT + 1));

        let again = client.create_from_file(&name("a"), path, LIMIT + 1).await;
        assert_eq!(again, Ok(Some(Outcome::AlreadyThere)));
        assert_eq!(server.requests(), ["HEAD /bucket/rows/a"]);

        // Look, look, begin, part, part.
        server.fail(&[(200, ""), (200, ""), (200, ""), (200, ""), (503, "SlowDown")]);
        let sent = client.create_from_file(&name("b"), path, LIMIT + 1).await;
        assert_eq!(sent, Ok(Some(Outcome::Created)));
        assert!(is_there("b"));
        assert_eq!(server.requests()[5], "DELETE /bucket/rows/b", "the parts of the first try go");

        // The answer to the end is lost.
        server.fail(&[(200, ""); 8]);
        server.fail(&[(0, "")]);
        let sent = client.create_from_file(&name("c"), path, LIMIT + 1).await;
        assert_eq!(sent, Ok(Some(Outcome::Ambiguous)));
        assert!(is_there("c"));

        let nowhere = client.create_from_file(&name("d"), Path::new("/none"), LIMIT + 1).await;
        assert_eq!(nowhere, Err(ObjectError::NotFound), "and it is not asked for again");
    });
}

#[test]
fn a_body_that_ends_early_is_no_object() {
    let machine = Machine::new(1);
    let mut listener = machine.outbound().listen(ADDRESS).unwrap();
    machine.outbound().name("s3.test", &[ADDRESS.ip()]);
    simulate(&machine, async |world| {
        tokio::task::spawn_local(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = [0; 64];
            socket.read_exact(&mut head).await.unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\netag: \"e\"\r\n\
                          last-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\nonly this";
            socket.write_all(answer.as_bytes()).await.unwrap();
        });
        let client = os::objects::open(&bucket(), &world).await.unwrap();
        let said = client.get(&key("a"), 1000).await;
        assert!(matches!(said, Err(ObjectError::Transient(_))), "{said:?}");
    });
}

#[test]
fn plain_http_goes_no_further_than_this_machine_unless_it_is_allowed() {
    let mut bucket = bucket();
    bucket.variables.remove("AWS_ALLOW_HTTP");
    simulate(&Machine::new(1), async |world| {
        let client = os::objects::open(&bucket, &world).await.unwrap();
        let said = client.get(&key("a"), 10).await;
        assert!(matches!(said, Err(ObjectError::Refused(_))), "{said:?}");
    });
}

#[test]
fn a_bucket_is_shown_without_its_secrets() {
    let shown = format!("{:?}", bucket());
    assert!(shown.contains("S3") && shown.contains("bucket"), "{shown}");
    assert!(!shown.contains("secret") && !shown.contains("AKIA"), "{shown}");
}

#[test]
fn every_cloud_is_opened_by_its_own_variables_and_says_what_is_missing() {
    let open = |kind: Kind, variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let bucket = Bucket { kind, name: None, prefix: None, variables: variables.collect() };
        simulate(&Machine::new(1), async |world| os::objects::open(&bucket, &world).await.map(drop))
    };
    let r2 = [
        ("DURABLE_STREAMS_R2_BUCKET", "b"),
        ("DURABLE_STREAMS_R2_ACCOUNT_ID", "account"),
        ("DURABLE_STREAMS_R2_ACCESS_KEY_ID", "id"),
        ("DURABLE_STREAMS_R2_SECRET_ACCESS_KEY", "secret"),
    ];
    open(Kind::R2, &r2).unwrap();
    for left_out in 0..r2.len() {
        let (missing, _) = r2[left_out];
        let rest: Vec<_> = r2.into_iter().filter(|(name, _)| *name != missing).collect();
        let said = open(Kind::R2, &rest).unwrap_err().to_string();
        assert!(said.contains(missing), "{said}");
    }
    open(Kind::S3, &[("AWS_BUCKET", "b"), ("AWS_REGION", "eu-west-1")]).unwrap();
    open(Kind::S3, &[("AWS_REGION", "eu-west-1")]).unwrap_err();
    let key = "c2VjcmV0";
    let azure = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_STORAGE_ACCOUNT_KEY", key),
        ("AZURE_CONTAINER_NAME", "b"),
    ];
    open(Kind::Azure, &azure).unwrap();
    open(Kind::Azure, &azure[..2]).unwrap_err();
    open(Kind::Gcs, &[("GOOGLE_BUCKET", "b")]).unwrap();
    open(Kind::Gcs, &[]).unwrap_err();
}
