//! The simulated network: names, faults, and receivers that outlive the machine.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use weir_io::{
    memory::{Hang, Machine, NetFaults},
    net::Listener,
};

const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), 443);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_name_has_the_addresses_it_was_given_last() {
    let machine = Machine::new(1);
    let outbound = machine.boot(Duration::ZERO).outbound;
    assert_eq!(outbound.resolve("hooks.test", 443).await.unwrap_err().kind(), ErrorKind::NotFound);
    for address in [ADDRESS.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST)] {
        machine.outbound().name("Hooks.test", &[address]);
        let found = outbound.resolve("hooks.TEST", 443).await.unwrap();
        assert_eq!(found, [SocketAddr::new(address, 443)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_outlives_the_machine_and_its_address_is_free_after_it() {
    let machine = Machine::new(1);
    let mut listener = machine.outbound().listen(ADDRESS).unwrap();
    assert_eq!(machine.outbound().listen(ADDRESS).err().unwrap().kind(), ErrorKind::AddrInUse);
    for _ in 0..2 {
        let world = machine.boot(Duration::ZERO);
        let mut near = world.outbound.connect(ADDRESS).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        near.write_all(b"x").await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'x');
        machine.drive().kill();
        machine.drive().power_cycle();
    }
    drop(listener);
    machine.outbound().listen(ADDRESS).unwrap();
    assert_eq!(machine.outbound().attempts().into_iter().collect::<Vec<_>>(), [(ADDRESS, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_address_never_connects_or_never_answers() {
    let machine = Machine::new(1);
    let _listener = machine.outbound().listen(ADDRESS).unwrap();
    let outbound = machine.boot(Duration::ZERO).outbound;
    machine.outbound().hang(ADDRESS, Some(Hang::Connecting));
    assert!(timeout(HOUR, outbound.connect(ADDRESS)).await.is_err());
    machine.outbound().hang(ADDRESS, Some(Hang::Answering));
    let mut socket = outbound.connect(ADDRESS).await.unwrap();
    socket.write_all(b"anybody?").await.unwrap();
    assert!(timeout(HOUR, socket.read_u8()).await.is_err());
    machine.outbound().hang(ADDRESS, None);
    outbound.connect(ADDRESS).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn faults_come_from_the_seed() {
    let run = async |seed| {
        let machine = Machine::new(seed);
        machine.outbound().set_faults(NetFaults { refuse: 0.3, reset: 0.3 });
        let mut listener = machine.outbound().listen(ADDRESS).unwrap();
        let outbound = machine.boot(Duration::ZERO).outbound;
        let mut seen = Vec::new();
        for _ in 0..64 {
            let Ok(mut socket) = outbound.connect(ADDRESS).await else {
                seen.push('r');
                continue;
            };
            let _far = listener.accept().await.unwrap();
            let written = socket.write_all(b"x").await;
            seen.push(if written.is_ok() { 'w' } else { 'x' });
        }
        (seen, machine.fingerprint())
    };
    let (seen, fingerprint) = run(7).await;
    assert_eq!((seen.clone(), fingerprint), run(7).await);
    for kind in ['r', 'w', 'x'] {
        assert!(seen.contains(&kind), "{seen:?}");
    }
    assert_ne!(fingerprint, run(8).await.1);
}
