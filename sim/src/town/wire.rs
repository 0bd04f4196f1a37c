//! The simulated network as the server's listener and the clients' dial.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use rand_chacha::ChaCha8Rng;
use turmoil::net::{TcpListener, TcpStream};
use weir_io::net::Listener;

use super::{
    line::{Fuse, Lines, ServerEnd},
    server::Post,
};
use crate::door::outside::{Dial, Dialed};

/// Name of the server's machine.
pub const SERVER: &str = "server";
const PORT: u16 = 4437;

/// Accepts connections of the simulated network.
pub struct TownListener {
    listener: TcpListener,
    lines: Arc<Lines>,
}

impl TownListener {
    /// Binds the server's port.
    ///
    /// # Errors
    /// It is bound already.
    pub async fn bind(lines: Arc<Lines>) -> io::Result<Self> {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        Ok(Self { listener, lines })
    }
}

impl Listener for TownListener {
    type Io = ServerEnd;

    async fn accept(&mut self) -> io::Result<(ServerEnd, SocketAddr)> {
        if !self.lines.hears() {
            return std::future::pending().await;
        }
        let (io, peer) = self.listener.accept().await?;
        Ok((self.lines.accept(io, peer), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// How a client reaches the server. What its connections meet is drawn from its chance.
#[must_use]
pub fn dial(post: &Rc<Post>, chance: ChaCha8Rng) -> Dial {
    let (resets, chance) = (Rc::clone(post), RefCell::new(chance));
    connect(post, move || match resets.resets.get() {
        true => Fuse::draw(&mut chance.borrow_mut()),
        false => Fuse::default(),
    })
}

/// How a client reaches the server that has little room for what is sent to it.
#[must_use]
pub fn narrow_dial(post: &Rc<Post>, chance: ChaCha8Rng) -> Dial {
    let chance = RefCell::new(chance);
    connect(post, move || Fuse::narrow(&mut chance.borrow_mut()))
}

fn connect(post: &Rc<Post>, fuse: impl Fn() -> Fuse + 'static) -> Dial {
    let post = Rc::clone(post);
    Rc::new(move || {
        let fuse = fuse();
        let lines = Arc::clone(&post.lines);
        Box::pin(async move {
            let stream = TcpStream::connect((SERVER, PORT)).await?;
            let torn = Arc::new(AtomicBool::new(false));
            let end = lines.connected(stream, fuse, Arc::clone(&torn))?;
            Ok(Dialed { socket: Box::new(end), torn })
        })
    })
}

#[cfg(test)]
mod tests {
    use weir_io::laws::net;

    use super::*;
    use crate::sabotage::Sabotage;

    #[test]
    fn the_listener_of_the_simulated_network_keeps_the_laws() {
        let mut town = turmoil::Builder::new().build();
        town.client(SERVER, async {
            let lines = Arc::new(Lines::new(1 << 16, Sabotage::None));
            let mut listener = TownListener::bind(Arc::clone(&lines)).await?;
            let connect = || {
                let lines = Arc::clone(&lines);
                async move {
                    let stream = TcpStream::connect((SERVER, PORT)).await?;
                    lines.connected(stream, Fuse::default(), Arc::default())
                }
            };
            net::listener(&mut listener, connect).await;
            Ok(())
        });
        town.run().expect("the laws hold");
    }
}
