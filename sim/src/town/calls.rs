//! The server's way to receivers of webhooks: machines of the town, which the server knows as
//! addresses of its own loopback network.
//!
//! A receiver can't know what was known when the server said what it says. The server connects as
//! soon as it has put its words together, so the supervisor notes what is known as each connection
//! begins, and the receiver finds that by the port the server calls from.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use parking_lot::Mutex;
use turmoil::net::TcpStream;
use weir_engine::subscribe::SubscriptionId;
use weir_io::net::{Outbound, Pending, Socket};

use super::defects::Feigned;
use crate::{
    model::Work,
    sabotage::Sabotage,
    workload::subscribers::kinds,
    world::{Host, Sim},
};

/// Connections whose beginnings are remembered.
const CALLS_MAX: usize = 1024;

/// The receivers' machines, with their addresses as the server knows them.
#[must_use]
pub fn receivers() -> BTreeMap<SocketAddr, String> {
    let hooks = kinds().into_iter().filter(|kind| !kind.is_pull);
    let named = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => (address, format!("receiver{}", ip.octets()[3])),
        IpAddr::V6(_) => (address, "receiver".to_owned()),
    };
    hooks.map(|kind| named(kind.receiver.into())).collect()
}

/// Connections that the server began.
#[derive(Debug, Default)]
struct Begun {
    count: u64,
    /// Since somebody looked: number and address.
    fresh: Vec<(u64, SocketAddr)>,
    /// By the port that the server calls from.
    ports: BTreeMap<u16, u64>,
}

/// The server's end of it all.
#[derive(Clone)]
pub struct TownOutbound {
    receivers: Arc<BTreeMap<SocketAddr, String>>,
    begun: Arc<Mutex<Begun>>,
    /// A defect: every second call is said to be done, and nobody is called.
    feigned: bool,
}

impl Outbound for TownOutbound {
    fn resolve(&self, host: &str, port: u16) -> Pending<Vec<SocketAddr>> {
        let address = host.parse::<IpAddr>();
        Box::pin(async move {
            let address = address.map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
            Ok(vec![SocketAddr::new(address, port)])
        })
    }

    fn connect(&self, address: SocketAddr) -> Pending<Box<dyn Socket>> {
        let number = {
            let mut begun = self.begun.lock();
            begun.count += 1;
            let number = begun.count;
            begun.fresh.push((number, address));
            number
        };
        let way = self.clone();
        Box::pin(async move {
            if way.feigned && number.is_multiple_of(2) {
                return Ok(Box::new(Feigned::default()) as Box<dyn Socket>);
            }
            let name = way.receivers.get(&address).ok_or(io::ErrorKind::ConnectionRefused)?;
            let stream = TcpStream::connect((name.as_str(), address.port())).await?;
            way.begun.lock().ports.insert(stream.local_addr()?.port(), number);
            Ok(Box::new(stream) as Box<dyn Socket>)
        })
    }
}

/// What was known when calls began.
pub struct Calls {
    pub way: TownOutbound,
    known: RefCell<BTreeMap<u64, Vec<(SubscriptionId, Work)>>>,
}

impl Calls {
    /// No calls yet.
    #[must_use]
    pub fn new(defect: Sabotage) -> Self {
        let feigned = defect == Sabotage::CallsFeigned;
        let way = TownOutbound { receivers: Arc::new(receivers()), begun: Arc::default(), feigned };
        Self { way, known: RefCell::default() }
    }

    /// Notes what is known of subscriptions whose receivers are being connected to. After every
    /// step: nothing that was learned in it can be younger than the server's words.
    pub fn note(&self, sim: &Rc<Sim>) {
        let fresh = std::mem::take(&mut self.way.begun.lock().fresh);
        let mut known = self.known.borrow_mut();
        for (number, address) in fresh {
            let of = kinds().into_iter().filter(|it| SocketAddr::from(it.receiver) == address);
            let works = of.map(|kind| (kind.id.clone(), Host::work(sim, &kind))).collect();
            known.insert(number, works);
            if known.len() > CALLS_MAX {
                known.pop_first();
            }
        }
    }

    /// What was known of a subscription when the call from this port began.
    pub fn asked(&self, port: u16, id: &SubscriptionId) -> Option<Work> {
        let number = *self.way.begun.lock().ports.get(&port)?;
        let known = self.known.borrow();
        let (_, work) = known.get(&number)?.iter().find(|(of, _)| of == id)?;
        Some(work.clone())
    }
}

#[cfg(test)]
mod tests {
    use turmoil::net::TcpListener;
    use weir_io::{laws::net, net::Listener};

    use super::*;
    use crate::town::wire::SERVER;

    /// A receiver's port, whose address the server knows by another name.
    struct Receiver(TcpListener);

    impl Listener for Receiver {
        type Io = TcpStream;

        async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
            self.0.accept().await
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            self.0.local_addr()
        }
    }

    async fn answer(port: u16) -> io::Result<()> {
        let mut receiver = Receiver(TcpListener::bind(("0.0.0.0", port)).await?);
        loop {
            net::answer(&mut receiver).await;
        }
    }

    #[test]
    fn the_way_to_receivers_keeps_the_laws() {
        let mut known = receivers().into_iter();
        let (there, name) = known.next().expect("there are receivers");
        let (deaf, other) = known.find(|(_, other)| *other != name).expect("more than one");
        let stranger = SocketAddr::from(([127, 0, 0, 250], there.port()));
        let mut town = turmoil::Builder::new().build();
        town.host(name, move || async move { Ok(answer(there.port()).await?) });
        town.host(other, std::future::pending);
        town.client(SERVER, async move {
            let way = Calls::new(Sabotage::None).way;
            for nobody in [deaf, stranger] {
                net::outbound(&way, there, nobody).await;
            }
            Ok(())
        });
        town.run().expect("the laws hold");
    }

    #[test]
    fn calls_that_are_feigned_break_the_laws() {
        let way = Calls::new(Sabotage::CallsFeigned).way;
        let (there, _) = receivers().into_iter().next().expect("there are receivers");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.build().expect("a runtime");
        // The second of them never leaves the machine, so it needs no town.
        drop(way.connect(there));
        let outbound = std::panic::AssertUnwindSafe(|| {
            runtime.block_on(net::outbound(&way, there, there));
        });
        assert!(std::panic::catch_unwind(outbound).is_err());
    }
}
