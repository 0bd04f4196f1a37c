//! Receivers behind TLS: whom the server believes.

use hyper::header::HeaderValue;
use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

use bytes::Bytes;
use weir_io::{World, net::Listener as _, os::tls::Tls};

use super::{Canned, Net, Receiver, TIMEOUT, serve, socket};
use crate::webhook::{
    client::{Answer, Client, Failure},
    guard::Loopback,
};

/// Valid from November 2026 on, for a hundred years; made by openssl for these tests.
const ROOT: &[u8] = include_bytes!("fixtures/root.pem");
/// A certificate of that root for `hooks.test`, and its key.
const HOOKS: &[u8] = include_bytes!("fixtures/hooks.test.pem");
const YEAR_MS: i64 = 365 * 86_400_000;
const ADDRESS: &str = "93.184.216.34";

fn acceptor() -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("ring has them").with_no_client_auth();
    let chain = vec![CertificateDer::from_pem_slice(HOOKS).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(HOOKS).expect("a key");
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).expect("they fit")))
}

fn trusting(world: &World, roots: RootCertStore) -> Tls {
    Tls::trusting(world, roots).expect("ring serves it")
}

fn secure_receiver(net: &Net) -> Receiver {
    let address = socket(&format!("{ADDRESS}:443"));
    let mut listener = net.machine.outbound().listen(address).expect("free");
    let (receiver, acceptor) = (Receiver::default(), acceptor());
    let seen = receiver.clone();
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.expect("the network is up");
            // A client that does not believe us hangs up.
            let Ok(io) = acceptor.accept(io).await else { continue };
            serve(io, Canned::new(200, "{}"), seen.clone()).await;
        }
    });
    receiver
}

async fn post(net: &Net, url: &str) -> Result<Answer, Failure> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(ROOT).expect("a certificate");
    roots.add(root).expect("a root");
    let tls = trusting(&net.world, roots);
    let outbound = Arc::clone(&net.world.outbound);
    let client = Client::new(outbound, tls, Loopback::Refused, TIMEOUT);
    client.post(url, HeaderValue::from_static("s"), Bytes::from_static(b"{}")).await
}

#[tokio::test(start_paused = true)]
async fn a_receiver_is_believed_for_its_name_and_by_the_worlds_clock() {
    let net = Net::new();
    for host in ["hooks.test", "other.test"] {
        net.name(host, &[ADDRESS]);
    }
    let receiver = secure_receiver(&net);
    let early = post(&net, "https://hooks.test/").await.expect_err("not valid before November");
    assert!(matches!(early, Failure::Tls(_)), "{early}");
    net.machine.jump_wall(YEAR_MS);
    let answer = post(&net, "https://HOOKS.test/x").await.expect("believed");
    assert_eq!(answer.status, 200);
    assert_eq!(receiver.seen()[0].headers()["host"], "hooks.test");
    for url in ["https://other.test/".to_owned(), format!("https://{ADDRESS}/")] {
        let other = post(&net, &url).await.expect_err("another name");
        assert!(matches!(other, Failure::Tls(_)), "{other}");
    }
    net.machine.jump_wall(YEAR_MS * 200);
    let late = post(&net, "https://hooks.test/").await.expect_err("expired");
    assert!(matches!(late, Failure::Tls(_)), "{late}");
    assert_eq!(receiver.seen().len(), 1, "nothing is sent to somebody who is not believed");
}

#[tokio::test(start_paused = true)]
async fn somebody_unknown_is_not_believed_and_plain_text_is_no_tls() {
    let net = Net::new();
    net.machine.jump_wall(YEAR_MS);
    net.name("hooks.test", &[ADDRESS]);
    let receiver = secure_receiver(&net);
    let mut roots = RootCertStore::empty();
    let leaf = CertificateDer::from_pem_slice(HOOKS).expect("a certificate");
    roots.add(leaf).expect("parsed as an anchor, though it is none for others");
    let tls = trusting(&net.world, roots);
    let client = Client::new(Arc::clone(&net.world.outbound), tls, Loopback::Refused, TIMEOUT);
    let signature = HeaderValue::from_static("s");
    let failure = client.post("https://hooks.test/", signature, Bytes::new()).await;
    assert!(matches!(failure, Err(Failure::Tls(_))), "{failure:?}");
    assert!(receiver.seen().is_empty());
    let plain = net.receiver(&format!("{ADDRESS}:8443"), Canned::new(200, "{}"));
    let failure = post(&net, "https://hooks.test:8443/").await.expect_err("it speaks HTTP");
    assert!(matches!(failure, Failure::Tls(_)), "{failure}");
    assert!(plain.seen().is_empty());
}
