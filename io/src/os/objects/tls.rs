//! TLS towards clouds: ring, and whom the system trusts.
//!
//! The system's certificates are read at the first connection that needs them.

use std::{io, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, pki_types::UnixTime, time_provider::TimeProvider};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use crate::{Blocking, Clock, World, tasks};

/// TLS by the system's certificates and the world's clock.
pub(super) struct Tls {
    blocking: Arc<dyn Blocking>,
    clock: Arc<dyn Clock>,
    connector: OnceCell<TlsConnector>,
}

impl Tls {
    pub(super) fn new(world: &World) -> Tls {
        Tls {
            blocking: Arc::clone(&world.blocking),
            clock: Arc::clone(&world.clock),
            connector: OnceCell::new(),
        }
    }

    pub(super) async fn connector(&self) -> io::Result<&TlsConnector> {
        let make = || async {
            let roots = tasks::run(&*self.blocking, roots).await.map_err(io::Error::other)??;
            connector(roots, Arc::clone(&self.clock)).map_err(io::Error::other)
        };
        self.connector.get_or_try_init(make).await
    }
}

fn roots() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems have certificates that nobody can parse beside those that are good.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let reason = format!("the system has no certificates to trust: {}", errors.join("; "));
        return Err(io::Error::other(reason));
    }
    Ok(roots)
}

fn connector(roots: RootCertStore, clock: Arc<dyn Clock>) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(Time(clock)));
    let builder = builder.with_safe_default_protocol_versions()?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Certificates expire by the world's clock.
struct Time(Arc<dyn Clock>);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.wall_ms())))
    }
}
