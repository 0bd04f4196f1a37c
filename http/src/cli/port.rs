//! The port of `weir serve`, which is taken before anything of the store is touched.
//!
//! Two servers of one directory have the same port more often than not: the one that comes second
//! is told who has the directory, which says more than that the address is in use.

use std::{io, net::SocketAddr, path::Path};

use weir_engine::{Layout, OpenError};
use weir_io::{World, net::Listener as _, os::OsListener};

use super::{ServeError, io_error};
use crate::{config::Settings, local::record};

/// Listens where the settings say. Returns the URL too.
pub(super) fn bind(world: &World, settings: &Settings) -> Result<(OsListener, String), ServeError> {
    let address = SocketAddr::new(settings.host, settings.port);
    let listener = OsListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => taken(world, &settings.data.join("store"), address),
        _ => io_error(&format!("cannot listen on {address}"), source),
    })?;
    let address = listener.local_addr();
    let address = address.map_err(|source| io_error("the bound address", source))?;
    Ok((listener, format!("http://{address}")))
}

/// Why an address can't be had: a server of the same store runs, or somebody else listens there.
fn taken(world: &World, store: &Path, address: SocketAddr) -> ServeError {
    match holder(world, store) {
        Some(holder) => {
            let dir = store.display().to_string();
            let source = OpenError::Locked { dir, holder };
            ServeError::Open { dir: store.to_owned(), source }
        }
        None => ServeError::Taken(address),
    }
}

/// Who has a store, if anybody has. What can't be found out is the lesser question.
fn holder(world: &World, store: &Path) -> Option<String> {
    let path = store.join(Layout::Tree.lock());
    let is_there = world.disk.exists(&path).ok()?;
    if !is_there || world.disk.lock(&path).ok()?.is_some() {
        return None;
    }
    let text = record::read(&*world.disk, &path).ok()??;
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}
