//! Both worlds keep every law.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::TcpSocket, task::LocalSet};
use weir_io::{
    World,
    disk::{Create, Disk},
    laws,
    memory::Machine,
    net::Listener,
    os,
};

/// A directory that is removed with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let unique = format!("weir-io-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        os::OsDisk.create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Runs `test` in the simulated world.
fn simulate(test: impl AsyncFnOnce(World)) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        test(Machine::new(1).boot(Duration::ZERO)).await;
    });
}

#[test]
fn the_disk_of_the_system_keeps_the_laws() {
    let scratch = Scratch::new("disk");
    laws::disk::all(&os::OsDisk, &scratch.0);
}

#[test]
fn a_private_file_of_the_system_is_its_owners() {
    use std::os::unix::fs::PermissionsExt as _;

    let scratch = Scratch::new("private");
    let dir = scratch.0.join("keys");
    let (file, lock) = (dir.join("file"), dir.join("lock"));
    os::OsDisk.create_private_dir(&dir).unwrap();
    os::OsDisk.create(&file, Create::Private).unwrap();
    drop(os::OsDisk.lock(&lock).unwrap());
    let open = scratch.0.join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o775)).unwrap();
    os::OsDisk.create_private_dir(&open).unwrap();
    for (path, expect) in [(dir, 0o700), (open, 0o700), (file, 0o600), (lock, 0o600)] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, expect, "{}", path.display());
    }
}

#[test]
fn the_simulated_disk_keeps_the_laws() {
    let machine = Machine::new(1);
    laws::disk::all(&machine.drive().mount(), Path::new("/"));
}

#[test]
fn sqlite_on_the_system_keeps_the_laws() {
    let scratch = Scratch::new("sqlite");
    laws::sqlite::all(&os::OsSqlite, &scratch.0);
}

#[test]
fn sqlite_on_the_simulated_disk_keeps_the_laws() {
    simulate(async |world| {
        world.disk.create_dir_all(Path::new("/data")).unwrap();
        laws::sqlite::all(&*world.sqlite, Path::new("/data"));
    });
}

#[tokio::test]
async fn the_production_world_keeps_the_laws() {
    laws::world::all(&os::world().unwrap()).await;
}

#[test]
fn the_simulated_world_keeps_the_laws() {
    simulate(async |world| laws::world::all(&world).await);
}

#[tokio::test]
async fn the_listener_of_the_system_keeps_the_laws() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut listener = os::OsListener::bind(address).await.unwrap();
    let target = listener.local_addr().unwrap();
    let connect = async move { TcpSocket::new_v4()?.connect(target).await };
    laws::net::a_connection_carries_bytes_both_ways(&mut listener, connect).await;
}

#[tokio::test]
async fn connections_of_the_system_keep_the_laws() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut listener = os::OsListener::bind(address).await.unwrap();
    let target = listener.local_addr().unwrap();
    let outbound = os::world().unwrap().outbound;
    let shared = outbound.clone();
    laws::net::an_outbound_connects_to_the_address_it_resolved(&mut listener, shared).await;
    drop(listener);
    laws::net::an_outbound_is_refused_where_nobody_listens(outbound, target).await;
}

#[tokio::test]
async fn connections_of_the_simulated_world_keep_the_laws() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let machine = Machine::new(1);
    let mut listener = machine.outbound().listen(address).unwrap();
    let target = listener.local_addr().unwrap();
    let outbound = machine.boot(Duration::ZERO).outbound;
    let shared = outbound.clone();
    laws::net::an_outbound_connects_to_the_address_it_resolved(&mut listener, shared).await;
    drop(listener);
    laws::net::an_outbound_is_refused_where_nobody_listens(outbound, target).await;
}
