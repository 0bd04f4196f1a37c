//! A bad network: loses answers, holds them, or cuts connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What it does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The answers of these numbers are lost, with their connections.
    Lose(&'static [usize]),
    /// From this number on, answers do not arrive.
    Hold(usize),
    /// A connection ends after so many bytes of answers.
    Cut(usize),
    /// A connection ends after so many bytes of requests.
    Full(u64),
}

/// A proxy in front of a server.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    held: watch::Receiver<bool>,
    /// Answers that came.
    pub(crate) answers: Arc<AtomicUsize>,
    pub(crate) faults: Arc<AtomicUsize>,
    healed: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) async fn start(server: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (sender, held) = watch::channel(false);
        let sender = Arc::new(sender);
        let (answers, faults) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let healed = Arc::new(AtomicBool::new(false));
        let (counted, well) = (Arc::clone(&faults), Arc::clone(&healed));
        let came = Arc::clone(&answers);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (answers, faults) = (Arc::clone(&came), Arc::clone(&counted));
                let sender = Arc::clone(&sender);
                let fault = if well.load(Ordering::SeqCst) { Fault::Lose(&[]) } else { fault };
                tokio::spawn(async move {
                    let server = TcpStream::connect(server).await.expect("the server runs");
                    forward(client, server, fault, &answers, &faults, &sender).await;
                });
            }
        });
        Self { address, held, answers, faults, healed }
    }

    /// From now on connections are good.
    pub(crate) fn heal(&self) {
        self.healed.store(true, Ordering::SeqCst);
    }

    /// Returns when an answer is held.
    pub(crate) async fn holds(&self) {
        let mut held = self.held.clone();
        crate::support::within(held.wait_for(|it| *it)).await.expect("the proxy runs");
    }
}

async fn forward(
    client: TcpStream,
    server: TcpStream,
    fault: Fault,
    answers: &AtomicUsize,
    faults: &AtomicUsize,
    held: &watch::Sender<bool>,
) {
    let (from_client, mut to_client) = client.into_split();
    let most = if let Fault::Full(most) = fault { most } else { u64::MAX };
    let mut from_client = from_client.take(most);
    let (mut from_server, mut to_server) = server.into_split();
    let up = async move {
        drop(tokio::io::copy(&mut from_client, &mut to_server).await);
        // The server sees the end of its client.
        drop(to_server.shutdown().await);
    };
    let down = async {
        let (mut buffer, mut sent) = (vec![0; 64 << 10], 0);
        loop {
            let Ok(read @ 1..) = from_server.read(&mut buffer).await else { return };
            let mut piece = &buffer[..read];
            let begins = piece.starts_with(b"HTTP/1.1 ");
            let number = if begins { answers.fetch_add(1, Ordering::SeqCst) } else { 0 };
            match fault {
                Fault::Lose(lost) if begins && lost.contains(&number) => {
                    faults.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                Fault::Hold(first) if begins && number >= first => {
                    held.send_replace(true);
                    std::future::pending::<()>().await;
                }
                Fault::Cut(most) => piece = &piece[..piece.len().min(most - sent)],
                Fault::Lose(_) | Fault::Hold(_) | Fault::Full(_) => {}
            }
            if to_client.write_all(piece).await.is_err() {
                return;
            }
            sent += piece.len();
            if matches!(fault, Fault::Cut(most) if sent == most) {
                faults.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
