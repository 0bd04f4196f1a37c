//! Servers behind TLS: every command, the bench as well, and none that is not believed.

use std::{net::SocketAddr, path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{Done, command, end, support::Server};

/// Valid from November 2026 on, for a hundred years; made by openssl for these tests.
const ROOT: &str = "tests/cli/fixtures/root.pem";
/// A certificate of that root for `127.0.0.1`, and its key.
const LOOPBACK: &[u8] = include_bytes!("fixtures/loopback.pem");

/// Takes the encryption off and passes on the rest.
async fn front(server: SocketAddr) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("ring has them").with_no_client_auth();
    let chain = vec![CertificateDer::from_pem_slice(LOOPBACK).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(LOOPBACK).expect("a key");
    let acceptor =
        TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).expect("they fit")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not believe us hangs up.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(server).await.expect("the server runs");
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    address
}

async fn weir(server: SocketAddr, roots: &Path, args: &[&str]) -> Done {
    let mut command = command(server, args);
    command.env("WEIR_URL", format!("https://{server}")).env("SSL_CERT_FILE", roots);
    end(command.spawn().expect("starts")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_certificate_is_used_and_measured() {
    let server = Server::start().await;
    let front = front(server.address).await;
    let roots = Path::new(env!("CARGO_MANIFEST_DIR")).join(ROOT);
    weir(front, &roots, &["append", "a", "--create", "-m", "1"]).await.ok();
    assert_eq!(weir(front, &roots, &["read", "a"]).await.ok(), "1\n");
    let short = ["--seconds", "0.3", "--warm-up", "0.1", "--json", "--connections", "2"];
    for kind in [&["append"][..], &["read", "--size", "64KiB"], &["tail", "--readers", "3"]] {
        let done = weir(front, &roots, &[&["bench"][..], kind, &short].concat()).await;
        assert_eq!(done.code, Some(0), "{kind:?}: {done:?}");
        assert!(done.json()["verified"]["records"].as_u64() > Some(0), "{kind:?}");
    }
    // Of another root, or of none.
    let stranger =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/webhook/tests/fixtures/root.pem");
    let bench = [&["bench", "append"][..], &short].concat();
    let refused = weir(front, &stranger, &bench).await;
    assert!(refused.code == Some(7) && refused.err.contains("TLS failed"), "{refused:?}");
    assert_eq!(weir(front, &stranger, &["ls", "--retry-for", "50ms"]).await.code, Some(7));
    // What answers there speaks no TLS.
    let plain = weir(server.address, &roots, &["ls", "--retry-for", "50ms"]).await;
    assert!(plain.code == Some(7) && plain.err.contains("speak http://"), "{plain:?}");
}
