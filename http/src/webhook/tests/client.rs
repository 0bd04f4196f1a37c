//! Calls: what is connected to, what is sent, what is read.

use hyper::header::HeaderValue;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};
use weir_io::memory::{Hang, NetFaults};

use super::*;
use crate::webhook::client::{Answer, Failure};

const LOCAL: &str = "127.0.0.1:4000";

async fn post(net: &Net, loopback: Loopback, url: &str) -> Result<Answer, Failure> {
    let signature = HeaderValue::from_static("t=1,kid=k,ed25519=s");
    net.client(loopback).post(url, signature, Bytes::from_static(b"{}")).await
}

#[tokio::test(start_paused = true)]
async fn a_call_is_one_signed_post_of_json() {
    let net = Net::new();
    let receiver = net.receiver(LOCAL, Canned::new(200, "{\"done\":true}"));
    let answer = post(&net, Loopback::Allowed, "http://127.0.0.1:4000/a/b?c=d").await;
    let answer = answer.expect("somebody listens");
    assert_eq!(answer, Answer { status: 200, body: Some(Bytes::from_static(b"{\"done\":true}")) });
    let [request] = &receiver.seen()[..] else { panic!("one request") };
    assert_eq!((request.method().as_str(), request.uri().to_string()), ("POST", "/a/b?c=d".into()));
    let agent = concat!("streamweir/", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        ("host", "127.0.0.1:4000"),
        ("content-type", "application/json"),
        ("content-length", "2"),
        ("user-agent", agent),
        ("webhook-signature", "t=1,kid=k,ed25519=s"),
    ] {
        assert_eq!(request.headers()[name], value, "{name}");
    }
    assert_eq!(request.headers().len(), 5);
    assert_eq!(request.body(), "{}");
}

/// A name that was public when the subscription was made and is not when it is called.
#[tokio::test(start_paused = true)]
async fn a_name_that_changed_its_mind_is_not_called() {
    let net = Net::new();
    let url = "https://rebind.test/hook";
    for loopback in [Loopback::Refused, Loopback::Allowed] {
        assert!(crate::webhook::guard::check_url(url, loopback).is_ok());
        for address in ["10.0.0.1", "169.254.169.254", "192.168.1.1", "fd00::1", "::ffff:10.0.0.1"]
        {
            net.name("rebind.test", &[address]);
            let failure = post(&net, loopback, url).await.expect_err(address);
            assert!(matches!(failure, Failure::Address { .. }), "{failure}");
            assert!(failure.to_string().contains(address), "{failure}");
        }
    }
    net.name("rebind.test", &["127.0.0.1", "::1"]);
    let failure = post(&net, Loopback::Refused, url).await.expect_err("loopback");
    assert!(matches!(failure, Failure::Address { .. }), "{failure}");
    assert!(net.machine.outbound().attempts().is_empty(), "no connection was tried");
}

#[tokio::test(start_paused = true)]
async fn only_the_addresses_that_may_be_called_are() {
    let net = Net::new();
    net.name("mixed.test", &["10.0.0.1", "93.184.216.34", "127.0.0.1", "93.184.216.35"]);
    let failure = post(&net, Loopback::Refused, "https://mixed.test/").await.expect_err("nobody");
    assert!(matches!(failure, Failure::Connect { .. }), "{failure}");
    let tried: Vec<_> = net.machine.outbound().attempts().into_keys().collect();
    assert_eq!(tried, [socket("93.184.216.34:443"), socket("93.184.216.35:443")]);
}

#[tokio::test(start_paused = true)]
async fn plain_http_goes_to_this_machine_whatever_localhost_means() {
    let net = Net::new();
    net.name("localhost", &["93.184.216.34"]);
    let url = "http://localhost:4000/";
    let failure = post(&net, Loopback::Allowed, url).await.expect_err("not this machine");
    assert!(matches!(failure, Failure::Address { .. }), "{failure}");
    net.receiver(LOCAL, Canned::new(204, ""));
    net.name("localhost", &["::1", "127.0.0.1"]);
    assert_eq!(post(&net, Loopback::Allowed, url).await.expect("listens").status, 204);
    let failure = post(&net, Loopback::Refused, url).await.expect_err("no leave");
    assert!(matches!(failure, Failure::Url(_)), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_not_followed() {
    let net = Net::new();
    let other = net.receiver("127.0.0.1:5000", Canned::new(200, "{\"done\":true}"));
    for status in [301, 302, 303, 307, 308] {
        let address = format!("127.0.0.2:{status}");
        net.receiver(&address, Canned::redirect(status, "http://127.0.0.1:5000/"));
        let answer = post(&net, Loopback::Allowed, &format!("http://{address}/")).await;
        assert_eq!(answer.expect("an answer").status, status);
    }
    assert!(other.seen().is_empty());
    assert_eq!(net.attempts("127.0.0.1:5000"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_read_up_to_its_bound() {
    let net = Net::new();
    for (port, len, whole) in [(1, 0, true), (2, 65_536, true), (3, 65_537, false)] {
        let address = format!("127.0.0.1:{port}");
        net.receiver(&address, Canned::new(200, vec![b' '; len]));
        let answer = post(&net, Loopback::Allowed, &format!("http://{address}/")).await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.body.map(|it| it.len())), (200, whole.then_some(len)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_end_is_cut() {
    let net = Net::new();
    let mut listener = net.machine.outbound().listen(socket(LOCAL)).expect("free");
    let endless = tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.expect("connected");
        io.read_u8().await.expect("a request");
        io.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("read");
        while io.write_all(&[b' '; 1024]).await.is_ok() {}
    });
    let answer = post(&net, Loopback::Allowed, "http://127.0.0.1:4000/").await;
    assert_eq!(answer.expect("an answer"), Answer { status: 200, body: None });
    endless.await.expect("the connection was dropped");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_costs_the_time_limit_and_no_more() {
    let net = Net::new();
    for (hang, limit) in [(Hang::Connecting, 5), (Hang::Answering, 15)] {
        net.machine.outbound().hang(socket(LOCAL), Some(hang));
        let began = Instant::now();
        post(&net, Loopback::Allowed, "http://127.0.0.1:4000/").await.expect_err("it hangs");
        let took = began.elapsed();
        assert!((limit..limit + 1).contains(&took.as_secs()), "{hang:?} {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_a_failure() {
    let net = Net::new();
    let url = "http://127.0.0.1:4000/";
    let failure = post(&net, Loopback::Allowed, url).await.expect_err("nobody listens");
    assert!(matches!(failure, Failure::Connect { .. }), "{failure}");
    let failure = post(&net, Loopback::Refused, "https://unknown.test/").await;
    let failure = failure.expect_err("no such name");
    assert!(matches!(failure, Failure::Resolve(_)), "{failure}");
    net.receiver(LOCAL, Canned::new(200, "{\"done\":true}"));
    net.machine.outbound().set_faults(NetFaults { reset: 1.0, ..NetFaults::default() });
    let failure = post(&net, Loopback::Allowed, url).await.expect_err("reset");
    assert!(matches!(failure, Failure::Http(_)), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_http_is_a_failure() {
    let net = Net::new();
    let long = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 100_000]].concat();
    let many = [&b"HTTP/1.1 200 OK\r\n"[..], &b"x: y\r\n".repeat(101), b"\r\n"].concat();
    for (port, bytes) in [
        (1, b"".to_vec()),
        (2, b"hello\r\n\r\n".to_vec()),
        (3, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc".to_vec()),
        (4, long),
        (5, many),
    ] {
        let address = format!("127.0.0.1:{port}");
        let mut listener = net.machine.outbound().listen(socket(&address)).expect("free");
        tokio::spawn(async move {
            let (mut io, _) = listener.accept().await.expect("connected");
            io.read_u8().await.expect("a request");
            // The client may hang up in the middle.
            drop(io.write_all(&bytes).await);
        });
        let answer = post(&net, Loopback::Allowed, &format!("http://{address}/")).await;
        let failure = answer.expect_err("not HTTP");
        assert!(matches!(failure, Failure::Http(_)), "{port}: {failure}");
    }
}
