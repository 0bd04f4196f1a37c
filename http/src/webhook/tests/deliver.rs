//! Deliveries: who waits for whom, and what the engine is told.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use weir_engine::{
    request::Error,
    subscribe::{Credential, Delivered, Link, LinkType, Links, SubscriptionId, Wake, WakeId},
    types::{Epoch, Offset, OffsetFormat, Seq, StreamName},
};
use weir_io::memory::Hang;

use super::*;
use crate::{
    app::Phase,
    metrics::Deliveries,
    webhook::{
        deliver::{self, Call, Courier, Queue},
        hosts::{Calls, Hosts},
        message::Bases,
    },
};

const FAST: &str = "127.0.0.1:4000";
const HUNG: &str = "127.0.0.2:4000";
const PATIENCE: Duration = Duration::from_secs(4);

struct Due {
    id: SubscriptionId,
    url: String,
    /// `None`: it is over when it could be called.
    wake: Option<Wake>,
    over: Arc<Notify>,
    outcomes: mpsc::Sender<(String, Delivered)>,
}

impl Call for Due {
    fn subscription(&self) -> &SubscriptionId {
        &self.id
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn base(&self) -> Option<&str> {
        None
    }

    fn failures(&self) -> u32 {
        0
    }

    async fn superseded(&self) {
        self.over.notified().await;
    }

    async fn begin(&self) -> Result<Option<Wake>, Error> {
        Ok(self.wake.clone())
    }

    async fn finish(self, delivered: Delivered) -> Result<(), Error> {
        let told = self.outcomes.send((self.id.as_str().to_owned(), delivered)).await;
        told.expect("the test listens");
        Ok(())
    }
}

struct Dues(tokio::sync::Mutex<mpsc::Receiver<Due>>);

impl Queue for Dues {
    type Due = Due;

    async fn next(&self) -> Option<Due> {
        self.0.lock().await.recv().await
    }
}

pub(super) fn courier(net: &Net, keys: (&Arc<Keys>, &Tokens), loopback: Loopback) -> Courier {
    Courier {
        client: net.client(loopback),
        keys: Arc::clone(keys.0),
        tokens: keys.1.clone(),
        tasks: Arc::clone(&net.world.tasks),
        clock: Arc::clone(&net.world.clock),
        figures: Deliveries::new(),
        bases: Bases { public: None, own: "https://ds.test".to_owned() },
        format: OffsetFormat::Reference,
        hosts: Arc::<Hosts>::default(),
        calls: Calls::default(),
    }
}

/// A delivery loop on a queue of the test's own.
struct Loop {
    net: Net,
    keys: Arc<Keys>,
    tokens: Tokens,
    dues: mpsc::Sender<Due>,
    outcomes: mpsc::Receiver<(String, Delivered)>,
    outcome: mpsc::Sender<(String, Delivered)>,
    phase: watch::Sender<Phase>,
    running: JoinHandle<()>,
}

impl Loop {
    async fn start(loopback: Loopback) -> Self {
        let net = Net::new();
        let (keys, tokens) = net.keys().await;
        let (dues, queue) = mpsc::channel(1024);
        let (outcome, outcomes) = mpsc::channel(1024);
        let (phase, follow) = watch::channel(Phase::Serving);
        let courier = courier(&net, (&keys, &tokens), loopback);
        let queue = Dues(tokio::sync::Mutex::new(queue));
        let running = tokio::spawn(deliver::run(Arc::new(courier), queue, follow, PATIENCE));
        Self { net, keys, tokens, dues, outcomes, outcome, phase, running }
    }

    /// Hands out a webhook; the handle ends its wake.
    async fn due(&self, id: &str, address: &str) -> Arc<Notify> {
        self.due_with(id, address, Links::default()).await
    }

    async fn due_with(&self, id: &str, address: &str, links: Links) -> Arc<Notify> {
        let over = Arc::new(Notify::new());
        let wake = Wake {
            incarnation: 3,
            wake_id: WakeId([1; 12]),
            generation: 5,
            lease_ttl_ms: 30_000,
            links,
        };
        let due = Due {
            id: SubscriptionId::new(id).expect("a name"),
            url: format!("http://{address}/hook"),
            wake: Some(wake),
            over: Arc::clone(&over),
            outcomes: self.outcome.clone(),
        };
        assert!(self.dues.send(due).await.is_ok(), "the loop runs");
        over
    }

    async fn outcome(&mut self) -> (String, Delivered) {
        self.outcomes.recv().await.expect("the test keeps a sender")
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_can_verify_and_use_what_it_gets() {
    let mut it = Loop::start(Loopback::Allowed).await;
    let receiver = it.net.receiver(FAST, Canned::new(200, "{\"done\":true}"));
    it.due("a b", FAST).await;
    it.due("c", FAST).await;
    for _ in 0..2 {
        assert_eq!(it.outcome().await.1, Delivered::Done);
    }
    let set: Value = serde_json::from_str(&it.keys.jwks_json()).expect("JSON");
    let x = BASE64_URL_SAFE_NO_PAD.decode(set["keys"][0]["x"].as_str().expect("text"));
    let x = x.expect("base64url").try_into().expect("32 bytes");
    let key = VerifyingKey::from_bytes(&x).expect("a point");
    for request in receiver.seen() {
        let header = request.headers()["webhook-signature"].to_str().expect("ASCII").to_owned();
        let parts: Vec<&str> = header.split(',').collect();
        let [t, kid, signature] = parts[..] else { panic!("three parts: {header}") };
        assert_eq!(kid, format!("kid={}", it.keys.active_kid()));
        let t = t.strip_prefix("t=").expect("the time");
        assert_eq!(t.parse(), Ok(it.net.world.clock.wall_ms() / 1000));
        let signature = signature.strip_prefix("ed25519=").expect("the signature");
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let signature = Signature::from_slice(&signature).expect("64 bytes");
        let signed = [t.as_bytes(), b".", request.body()].concat();
        key.verify(&signed, &signature).expect("signed by the published key");

        let body: Value = serde_json::from_slice(request.body()).expect("JSON");
        let id = body["subscription_id"].as_str().expect("text");
        let token = body["callback_token"].as_str().expect("text");
        let credential = it.tokens.check(&SubscriptionId::new(id).expect("a name"), token);
        assert_eq!(credential, Ok(Credential { incarnation: 3, generation: 5 }));
        let url = body["callback_url"].as_str().expect("text");
        let path = "https://ds.test/v1/stream/__ds/subscriptions/";
        assert_eq!(url, format!("{path}{}/callback", id.replace(' ', "%20")));
    }
}

#[tokio::test(start_paused = true)]
async fn the_engine_is_told_how_it_went() {
    let mut it = Loop::start(Loopback::Allowed).await;
    for (port, answer, expect) in [
        (1, Canned::new(204, ""), Delivered::Accepted),
        (2, Canned::new(503, ""), Delivered::Failed),
        (3, Canned::redirect(302, "http://127.0.0.1:1/"), Delivered::Failed),
        (4, Canned::new(200, vec![b' '; 70_000]), Delivered::Accepted),
    ] {
        let address = format!("127.0.0.1:{port}");
        it.net.receiver(&address, answer);
        it.due("a", &address).await;
        assert_eq!(it.outcome().await, ("a".to_owned(), expect), "{port}");
    }
    it.due("nobody", "127.0.0.1:5").await;
    assert_eq!(it.outcome().await.1, Delivered::Failed);
    it.due("refused by now", "10.0.0.1:5").await;
    assert_eq!(it.outcome().await.1, Delivered::Failed);
    assert_eq!(it.net.attempts("10.0.0.1:5"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_delays_nobody_else() {
    for hang in [Hang::Connecting, Hang::Answering] {
        let mut it = Loop::start(Loopback::Allowed).await;
        it.net.machine.outbound().hang(socket(HUNG), Some(hang));
        it.net.receiver(FAST, Canned::new(200, "{\"done\":true}"));
        for n in 0..500 {
            it.due(&format!("hung {n}"), HUNG).await;
        }
        let began = Instant::now();
        for n in 0..100 {
            it.due(&format!("fast {n}"), FAST).await;
        }
        for _ in 0..100 {
            let (id, delivered) = it.outcome().await;
            assert!(id.starts_with("fast"), "{id}");
            assert_eq!(delivered, Delivered::Done);
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(it.net.attempts(HUNG), 16, "the others wait for room");
        let (id, delivered) = it.outcome().await;
        assert!(id.starts_with("hung"), "{id}");
        assert_eq!(delivered, Delivered::Failed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_delays_nobody_however_much_it_is_to_be_told() {
    let mut it = Loop::start(Loopback::Allowed).await;
    it.net.machine.outbound().hang(socket(HUNG), Some(Hang::Answering));
    it.net.receiver(FAST, Canned::new(200, "{\"done\":true}"));
    let at = |next| Offset { epoch: Epoch::ZERO, next: Seq::new(next) };
    let link = |number| Link {
        path: StreamName::new(&format!("a/{number}")).expect("a name"),
        kind: LinkType::Glob,
        acked: at(0),
        tail: at(1),
    };
    let links = Links { listed: (0..1000).map(link).collect(), pending: 1000 };
    for n in 0..1100 {
        it.due_with(&format!("hung {n}"), HUNG, links.clone()).await;
    }
    let began = Instant::now();
    it.due("fast", FAST).await;
    assert_eq!(it.outcome().await, ("fast".to_owned(), Delivered::Done));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_called_for_a_wake_that_ended_while_it_waited() {
    let mut it = Loop::start(Loopback::Allowed).await;
    let receiver = it.net.receiver(FAST, Canned::new(200, "{\"done\":true}"));
    let over = Due {
        id: SubscriptionId::new("over").expect("a name"),
        url: format!("http://{FAST}/hook"),
        wake: None,
        over: Arc::new(Notify::new()),
        outcomes: it.outcome.clone(),
    };
    assert!(it.dues.send(over).await.is_ok(), "the loop runs");
    it.due("next", FAST).await;
    assert_eq!(it.outcome().await, ("next".to_owned(), Delivered::Done));
    assert!(timeout(Duration::from_secs(60), it.outcome()).await.is_err(), "nobody is told");
    assert_eq!(receiver.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_whose_wake_is_over_is_abandoned_wherever_it_stands() {
    let mut it = Loop::start(Loopback::Allowed).await;
    it.net.machine.outbound().hang(socket(HUNG), Some(Hang::Answering));
    let mut wakes = Vec::new();
    for n in 0..17 {
        wakes.push(it.due(&format!("{n}"), HUNG).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(it.net.attempts(HUNG), 16);
    // The one that waits for room, then one that is under way.
    wakes[16].notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    it.due("next", HUNG).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(it.net.attempts(HUNG), 16);
    wakes[0].notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(it.net.attempts(HUNG), 17, "its room is somebody else's");
    for _ in 0..16 {
        let (id, _) = it.outcome().await;
        assert!(id != "16" && id != "0", "nobody is told of {id}");
    }
    assert!(timeout(Duration::from_secs(60), it.outcome()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_waits_for_calls_and_not_for_the_rest() {
    let mut it = Loop::start(Loopback::Allowed).await;
    it.net.machine.outbound().hang(socket(HUNG), Some(Hang::Answering));
    for n in 0..20 {
        it.due(&format!("{n}"), HUNG).await;
    }
    let mut listener = it.net.machine.outbound().listen(socket(FAST)).expect("free");
    it.due("slow", FAST).await;
    let (io, _) = weir_io::net::Listener::accept(&mut listener).await.expect("called");
    let began = Instant::now();
    it.phase.send_replace(Phase::Draining);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answering = serve(io, Canned::new(200, "{\"done\":true}"), Receiver::default());
    let answering = tokio::spawn(answering);
    assert_eq!(it.outcome().await, ("slow".to_owned(), Delivered::Done));
    (&mut it.running).await.expect("the loop ends");
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs(), "then those that hang are cut");
    answering.abort();
    assert!(timeout(Duration::from_secs(60), it.outcome()).await.is_err(), "nobody is told");
}

#[tokio::test(start_paused = true)]
async fn the_loop_ends_when_there_will_be_no_more() {
    let Loop { dues, running, .. } = Loop::start(Loopback::Allowed).await;
    drop(dues);
    running.await.expect("it ends");
}
