//! Both worlds keep every law.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpSocket, task::LocalSet};
use weir_io::{
    Clock, World,
    disk::{Create, Disk},
    laws,
    memory::Machine,
    net::{Listener, Outbound},
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

/// Runs `test` in simulated time.
fn paused(test: impl AsyncFnOnce()) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test());
}

/// Runs `test` in the simulated world.
fn simulate(test: impl AsyncFnOnce(World)) {
    paused(async || test(Machine::new(1).boot(Duration::ZERO)).await);
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

#[test]
fn elapsed_time_of_the_simulated_world_knows_nothing_of_its_wall() {
    let machine = Machine::new(1);
    let (clock, set) = (machine.clone(), |by_ms| machine.jump_wall(by_ms));
    paused(async || {
        let clock = clock.boot(Duration::ZERO).clock;
        laws::world::elapsed_time_knows_nothing_of_the_wall(&*clock, set).await;
    });
}

/// A clock that lies about what another one says, by how often it was looked at.
struct Lying {
    clock: Arc<dyn Clock>,
    looks: AtomicU32,
    elapsed: fn(Duration, u32) -> Duration,
    wall_ms: fn(u64, u32) -> u64,
}

impl Clock for Lying {
    fn wall_ms(&self) -> u64 {
        (self.wall_ms)(self.clock.wall_ms(), self.looks.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        (self.elapsed)(self.clock.elapsed(), looks)
    }
}

#[test]
fn clocks_that_lie_break_the_laws() {
    const SECOND: Duration = Duration::from_secs(1);
    type Lies = (&'static str, fn(Duration, u32) -> Duration, fn(u64, u32) -> u64);
    let lies: [Lies; 7] = [
        ("nothing", |it, _| it, |it, _| it),
        ("fast", |it, _| it * 4, |it, _| it),
        ("slow", |it, _| it / 2, |it, _| it),
        ("stands", |_, _| SECOND, |it, _| it),
        ("goes back", |it, looks| it + SECOND - Duration::from_nanos(looks.into()), |it, _| it),
        ("the wall stands", |it, _| it, |it, _| it / 1_000_000 * 1_000_000),
        ("the wall runs", |it, _| it, |it, looks| it + u64::from(looks / 100)),
    ];
    for (name, elapsed, wall_ms) in lies {
        let ran = catch_unwind(|| {
            simulate(async |world| {
                let looks = AtomicU32::new(0);
                let clock = Lying { clock: world.clock, looks, elapsed, wall_ms };
                laws::world::all(&World { clock: Arc::new(clock), ..world }).await;
            });
        });
        assert_eq!(ran.is_ok(), name == "nothing", "{name}");
    }
}

/// Any free port of this machine.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[tokio::test]
async fn listeners_of_the_system_keep_the_laws() {
    let (alone, shared) = (os::OsListener::bind(ANY), os::OsListener::bind_shared(ANY));
    for mut listener in [alone.unwrap(), shared.unwrap()] {
        let target = listener.local_addr().unwrap();
        let connect = || async move { TcpSocket::new_v4()?.connect(target).await };
        laws::net::listener(&mut listener, connect).await;
    }
}

#[tokio::test]
async fn the_listener_of_the_simulated_world_keeps_the_laws() {
    let machine = Machine::new(1);
    let mut listener = machine.outbound().listen(ANY).unwrap();
    let target = listener.local_addr().unwrap();
    laws::net::listener(&mut listener, || machine.outbound().connect(target)).await;
}

/// Somebody answers whom the outbound reaches.
async fn reaches(mut listener: impl Listener, outbound: Arc<dyn Outbound>, nobody: SocketAddr) {
    let there = listener.local_addr().unwrap();
    let answering = async {
        loop {
            laws::net::answer(&mut listener).await;
        }
    };
    tokio::select! {
        () = answering => {}
        () = laws::net::outbound(&*outbound, there, nobody) => {}
    }
}

#[tokio::test]
async fn connections_of_the_system_keep_the_laws() {
    let listener = os::OsListener::bind(ANY).unwrap();
    let nobody = os::OsListener::bind(ANY).unwrap().local_addr().unwrap();
    reaches(listener, os::world().unwrap().outbound, nobody).await;
}

#[tokio::test]
async fn connections_of_the_simulated_world_keep_the_laws() {
    let machine = Machine::new(1);
    let listener = machine.outbound().listen(ANY).unwrap();
    let nobody = machine.outbound().listen(ANY).unwrap().local_addr().unwrap();
    reaches(listener, machine.boot(Duration::ZERO).outbound, nobody).await;
}
