//! Receivers of webhooks: machines of their own that are called, work and report, and do what
//! receivers do: refuse, take long, hang up, lose their answers, crash.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use rand::RngExt;
use turmoil::net::TcpListener;
use weir_engine::subscribe::Via;

use super::{
    calls,
    line::{Seen, Way},
    server::Post,
    wire::{self, SERVER},
};
use crate::{
    checks::{self, Breach},
    door::{
        Door,
        subscriptions::{self, Call},
    },
    require,
    workload::{
        self, Client,
        subscribers::{Kind, kinds},
    },
    world::{Host, Sim},
};

/// Longest time that a slow receiver takes: the server gives it up before.
const SLOW_MAX: Duration = Duration::from_secs(6);
/// Client numbers of receivers begin here, and their parts of chance.
const NUMBER: u32 = 700;

/// The answer that says that everything is done.
const DONE: &[u8] = br#"{"done":true}"#;

/// The receiver hung up.
#[derive(Debug)]
struct HungUp;

impl fmt::Display for HungUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the receiver hung up")
    }
}

impl std::error::Error for HungUp {}

/// Puts the receivers' machines up; their names.
pub fn settle(sim: &Rc<Sim>, post: &Rc<Post>, net: &mut turmoil::Sim<'static>) -> Vec<String> {
    let mut names = BTreeSet::new();
    for (no, (address, name)) in calls::receivers().into_iter().enumerate() {
        if !names.insert(name.clone()) {
            continue;
        }
        let (sim, post) = (Rc::clone(sim), Rc::clone(post));
        let no = NUMBER + u32::try_from(no).expect("few");
        net.host(name, move || {
            let receiver = Receiver::new(&sim, &post, no);
            async move {
                serve(Rc::new(receiver), address.port()).await?;
                Ok(())
            }
        });
    }
    names.into_iter().collect()
}

struct Receiver {
    post: Rc<Post>,
    client: RefCell<Client>,
    calls: Cell<u32>,
}

async fn serve(receiver: Rc<Receiver>, port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    loop {
        let (socket, peer) = listener.accept().await?;
        let receiver = Rc::clone(&receiver);
        let service = service_fn(move |request| Rc::clone(&receiver).answer(request, peer));
        let mut builder = http1::Builder::new();
        builder.auto_date_header(false);
        let serving = builder.serve_connection(TokioIo::new(socket), service);
        tokio::task::spawn_local(async move {
            // The server may end the call at any time, and so may the receiver.
            drop(serving.await);
        });
    }
}

impl Receiver {
    fn new(sim: &Rc<Sim>, post: &Rc<Post>, no: u32) -> Self {
        let door = Door::Outside(post.client(wire::dial(post, sim.chance(no + 50))));
        let host = Rc::new(Host {
            sim: Rc::clone(sim),
            door,
            store: None,
            stop: Cell::new(false),
            leave: Cell::new(false),
            watching: RefCell::default(),
            skew_ms: 0,
        });
        let targets = Rc::new(workload::targets());
        let client = Client { host, no, chance: sim.chance(no), targets };
        Self { post: Rc::clone(post), client: RefCell::new(client), calls: Cell::new(0) }
    }

    async fn answer(
        self: Rc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, HungUp> {
        let host = Rc::clone(&self.client.borrow().host);
        let signed = request.headers().contains_key("webhook-signature");
        // The call was given up while its body was on the way.
        let body = request.into_body().collect().await.map_err(|_| HungUp)?.to_bytes();
        let seen = Seen::new(peer, Way::Heard, &body);
        host.sim.wire(&seen, seen.hash);
        let seen = self.take(&host, peer, &body, signed);
        let Some((call, kind)) = host.sim.check(seen) else { return Err(HungUp) };
        let options = &host.sim.options.town;
        let honest = self.post.honest.get();
        let draw = |most: u32| self.client.borrow_mut().chance.random_range(0..most);
        if options.receivers_slow && !honest && draw(4) == 0 {
            weir_io::sometimes!("a receiver took longer than it was waited for");
            let most = u32::try_from(SLOW_MAX.as_millis()).expect("small");
            tokio::time::sleep(Duration::from_millis(draw(most).into())).await;
        }
        let fails = options.receivers_fail && !honest;
        match draw(10) {
            0 | 1 if fails => Ok(response(StatusCode::INTERNAL_SERVER_ERROR, b"")),
            2 if fails => Err(HungUp),
            3 if fails => {
                // It has worked, and nobody is told.
                weir_io::sometimes!("a receiver had worked and its answer was lost");
                host.worked(&kind, &call.wake);
                Err(HungUp)
            }
            4..7 if !honest => {
                let receiver = Rc::clone(&self);
                tokio::task::spawn_local(async move {
                    let mut client = receiver.worker();
                    client.work(&kind, &call.wake, Via::Callback).await;
                });
                Ok(response(StatusCode::ACCEPTED, b""))
            }
            _ => {
                host.worked(&kind, &call.wake);
                Ok(response(StatusCode::OK, DONE))
            }
        }
    }

    /// A worker beside others of this machine, with a chance of its own.
    fn worker(&self) -> Client {
        let call = self.calls.get();
        self.calls.set(call + 1);
        let client = self.client.borrow();
        let no = client.no;
        let part = no * 1000 + call;
        let chance = client.host.sim.chance(part);
        Client { host: Rc::clone(&client.host), no, chance, targets: Rc::clone(&client.targets) }
    }

    /// What a call says, held against what was known when it began.
    fn take(
        &self,
        host: &Host,
        peer: SocketAddr,
        body: &[u8],
        signed: bool,
    ) -> Result<(Call, Kind), Breach> {
        let Some(call) = subscriptions::call(body) else {
            let text = String::from_utf8_lossy(body).into_owned();
            return Breach::of(checks::WOKEN, format!("a call says {text}"));
        };
        let Some(kind) = kinds().into_iter().find(|kind| kind.id == call.id && !kind.is_pull)
        else {
            return Breach::of(checks::STALE, format!("'{}' calls, and nobody made it", call.id));
        };
        let expect = format!("http://{SERVER}{}", subscriptions::path(&call.id, "/callback"));
        require!(
            call.callback_url == expect && signed,
            checks::WOKEN,
            "'{}' is to report at {}, signed: {signed}",
            call.id,
            call.callback_url
        );
        let (generation, pending) = (call.wake.generation, call.wake.links.pending);
        host.sim.note(&format!("called {}: {generation}, {pending} pending", call.id));
        if let Door::Outside(door) = &host.door {
            door.keep(&call.id, &call.wake, call.token.clone());
        }
        host.remember(&kind, &call.wake);
        if let Some(asked) = self.post.calls.asked(peer.port(), &call.id) {
            host.sim.model.borrow_mut().saw_wake(&asked, &call.wake)?;
        }
        Ok((call, kind))
    }
}

fn response(status: StatusCode, body: &'static [u8]) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body)));
    *response.status_mut() = status;
    response
}
