//! TLS towards others: ring, the certificates the system trusts, and the world's clock.
//!
//! The certificates are read at the first connection that needs them, because most servers never
//! make one. What could not be read is tried again at the next.

use std::{io, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, pki_types::UnixTime, time_provider::TimeProvider};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tracing::{debug, info};

use crate::{Blocking, Clock, World, tasks};

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate was found, or none that could be read.
    #[error("the system has none that can be read: {0}")]
    NoRoots(String),
    /// The library refuses.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The process is shutting down.
    #[error(transparent)]
    Gone(#[from] tasks::Gone),
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::other(format!("no certificates to trust: {error}"))
    }
}

/// TLS towards others. Clones share it.
#[derive(Clone)]
pub struct Tls {
    blocking: Arc<dyn Blocking>,
    clock: Arc<dyn Clock>,
    connector: Arc<OnceCell<TlsConnector>>,
}

impl Tls {
    /// TLS that trusts whom the system trusts.
    #[must_use]
    pub fn new(world: &World) -> Self {
        let (blocking, clock) = (Arc::clone(&world.blocking), Arc::clone(&world.clock));
        Self { blocking, clock, connector: Arc::default() }
    }

    /// TLS that trusts these certificates and no others.
    ///
    /// # Errors
    /// The library refuses.
    pub fn trusting(world: &World, roots: RootCertStore) -> Result<Self, TlsError> {
        let connector = connector(roots, Arc::clone(&world.clock))?;
        Ok(Self { connector: Arc::new(OnceCell::new_with(Some(connector))), ..Self::new(world) })
    }

    /// What makes a socket a secure one.
    ///
    /// # Errors
    /// [`TlsError`]: there is nobody to trust.
    pub async fn connector(&self) -> Result<TlsConnector, TlsError> {
        let make = || async {
            let roots = tasks::run(&*self.blocking, system_roots).await??;
            info!(certificates = roots.len(), "trusted certificates read");
            connector(roots, Arc::clone(&self.clock))
        };
        self.connector.get_or_try_init(make).await.cloned()
    }
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems have certificates that nobody can parse beside those that are good.
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    debug!(ignored, errors = found.errors.len(), "system certificates");
    if roots.is_empty() {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::NoRoots(errors.join("; ")));
    }
    Ok(roots)
}

fn connector(roots: RootCertStore, clock: Arc<dyn Clock>) -> Result<TlsConnector, TlsError> {
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
