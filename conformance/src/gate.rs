//! A way to another server that can be shut: then nobody gets through, and whoever was on the way is
//! cut off, as when a network goes down. A shut gate answers at once; one that is to say nothing is for
//! the server behind it ([`Moto::pause`](crate::moto::Moto::pause)).

use std::{
    io,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result};

/// An address in front of a local server's.
pub struct Gate {
    port: u16,
    passage: Arc<Passage>,
}

/// What the gate lets through.
struct Passage {
    target: u16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shut: bool,
    /// Both ends of every connection since it was shut last.
    passing: Vec<TcpStream>,
}

impl Gate {
    /// An open gate to this port.
    pub fn before(target: u16) -> Result<Gate> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a free port")?;
        let port = listener.local_addr()?.port();
        let passage = Arc::new(Passage { target, state: Mutex::default() });
        let shared = Arc::clone(&passage);
        // Ends with the process: a test has a gate or two.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Who can't be let through finds the connection closed.
                drop(shared.admit(client));
            }
        });
        Ok(Gate { port, passage })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Cuts off whoever is on the way and lets nobody through any more.
    pub fn shut(&self) {
        let mut state = self.passage.state();
        state.shut = true;
        for socket in state.passing.drain(..) {
            // It may be closed already.
            drop(socket.shutdown(Shutdown::Both));
        }
    }

    /// Lets everybody through again.
    pub fn open(&self) {
        self.passage.state().shut = false;
    }
}

impl Passage {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, client: TcpStream) -> io::Result<()> {
        let mut state = self.state();
        if state.shut {
            return Ok(());
        }
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.target))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        state.passing.extend([client.try_clone()?, server.try_clone()?]);
        let there = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || pass(there));
        thread::spawn(move || pass((server, client)));
        Ok(())
    }
}

/// Carries bytes one way until either end is closed.
fn pass((mut from, mut to): (TcpStream, TcpStream)) {
    // However it ends, the other side is told.
    drop(io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
}
