//! The store behind its HTTP server on one machine of a simulated network, its clients on others.
//!
//! The supervisor steps the network a millisecond at a time and, between two steps, decides by the
//! seed what happens to it: machines lose power or are restarted, links break, hold their packets
//! back or heal, the disk and the wall clock misbehave. Clients live through all of it; what their
//! answers say is held against the same model that clients in the server's own process use.

pub mod calls;
mod defects;
pub mod doubts;
pub mod line;
pub mod links;
pub mod options;
pub mod packets;
pub mod pause;
pub mod peace;
pub mod pests;
pub mod receivers;
pub mod server;
pub mod weather;
pub mod wire;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, SystemTime},
};

use rand::RngExt;
use weir_engine::Health;
use weir_io::memory::{EPOCH_MS, chance};

use self::{links::Links, packets::Packets, server::Post, weather::Weather, wire::SERVER};
use crate::{
    checks::{self, Breach},
    door::Door,
    faults::STREAM_TOWN,
    run::round::{bounded, watched},
    workload,
    world::{Host, Sim},
};

/// One step of the network.
pub const STEP: Duration = Duration::from_millis(1);
/// How often it is looked whether memory and log are bounded.
const LOOK_MS: u128 = 10;
/// Segments under way in one direction of a connection, and connections that wait to be accepted,
/// also by a server whose process is stopped.
const SEGMENTS_MAX: usize = 4096;
/// Bytes under way to one client: what its machine would keep for it.
const WINDOWS_BYTES: [usize; 3] = [16 << 10, 64 << 10, 1 << 20];
const SLOW_READERS: u32 = 2;
/// How far a client's clock may be off.
const SKEW_MS_MAX: i64 = 30_000;
/// How long clients may take to end once nothing disturbs them any more.
const END_MAX: Duration = Duration::from_secs(60);
/// How long a live reader may take to notice that its connection is dead, and to catch up.
const POLL_MAX: Duration = Duration::from_secs(120);
/// How long writers may still be at it once they were told to end.
const WRITERS_MAX: Duration = Duration::from_secs(4);
/// How long the server may take to serve again once nothing disturbs it any more.
const HEAL_MAX: Duration = Duration::from_secs(20);

/// Lives one seed's time in the town; then everything is off and only the drive is left.
pub fn run(sim: &Rc<Sim>) {
    let packets = Packets::default();
    packets.during(|| live(sim));
    let (count, hash) = packets.so_far();
    sim.wire(&format_args!("{count} packets in all"), hash);
}

fn live(sim: &Rc<Sim>) {
    let mut c = chance(sim.seed, STREAM_TOWN);
    let options = &sim.options.town;
    let config = server::config(options, &mut c);
    let read_bytes_max = config.read_bytes_max;
    let window_bytes = WINDOWS_BYTES[c.random_range(0..WINDOWS_BYTES.len())];
    let post = Rc::new(Post::new(options, window_bytes, sim.sabotage));
    let latency_max = Duration::from_millis([2, 10, 80][c.random_range(0..3)]);
    let mut net = network(sim, latency_max);
    {
        let (sim, post) = (Rc::clone(sim), Rc::clone(&post));
        net.host(SERVER, move || {
            let (sim, post, config) = (Rc::clone(&sim), Rc::clone(&post), config.clone());
            async move {
                server::run(sim, post, config).await;
                Ok(())
            }
        });
    }
    let crowd = crowd(sim, &post, &mut net);
    let receivers = receivers::settle(sim, &post, &mut net);
    let slow_readers = if options.slow_readers { SLOW_READERS } else { 0 };
    for no in 0..slow_readers {
        let work =
            pests::slow_reader(Rc::clone(sim), Rc::clone(&post), 950 + no, sim.chance(940 + no));
        net.client(format!("slow{no}"), async move {
            work.await;
            Ok(())
        });
    }
    let machines = crowd.names.iter().chain(&receivers).cloned().collect();
    let links = Links::new(machines, latency_max);
    let mut weather = Weather::new(sim, Rc::clone(&post), c, links, receivers);
    sim.set_time(Duration::ZERO);
    let length = sim.options.round * sim.options.rounds;
    while sim.now() < length + weather.nights() && !over(sim) {
        step(sim, &mut net, &mut weather);
        weather.blow(sim, &mut net);
    }
    settle(sim, &mut net, &mut weather, &crowd);
    if !over(sim) {
        judge(sim, &mut net, &mut weather, read_bytes_max);
    }
    if !over(sim) {
        weather.stop_gracefully(sim, &mut net, |net, weather| step(sim, net, weather));
    }
    let drive = sim.machine.drive();
    drive.kill();
    post.insight.replace(None);
    drop(net);
    drive.power_cycle();
    sim.set_faults(sim.calm());
    sim.model.borrow_mut().restart();
    sim.leave_town();
}

fn over(sim: &Sim) -> bool {
    sim.breach().is_some()
}

fn network(sim: &Sim, latency_max: Duration) -> turmoil::Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(sim.seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_millis(EPOCH_MS))
        .simulation_duration(Duration::from_secs(1 << 30))
        .tick_duration(STEP)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(latency_max)
        .tcp_capacity(SEGMENTS_MAX)
        .enable_random_order()
        .build()
}

/// The clients and what they share.
struct Crowd {
    names: Vec<String>,
    hosts: Vec<Rc<Host>>,
    left: Rc<Cell<u32>>,
}

fn crowd(sim: &Rc<Sim>, post: &Rc<Post>, net: &mut turmoil::Sim<'static>) -> Crowd {
    let mut crowd = Crowd { names: Vec::new(), hosts: Vec::new(), left: Rc::default() };
    for no in 0..sim.options.clients {
        let door = Door::Outside(post.client(wire::dial(post, sim.chance(500 + no))));
        let skew_ms = skew(sim, no);
        let host = Rc::new(Host {
            sim: Rc::clone(sim),
            door,
            store: None,
            stop: Cell::new(false),
            leave: Cell::new(false),
            watching: RefCell::default(),
            skew_ms,
        });
        let name = format!("client{no}");
        let (work, left) = (workload::one(&host, no), Rc::clone(&crowd.left));
        left.set(left.get() + 1);
        net.client(name.clone(), async move {
            work.await;
            left.set(left.get() - 1);
            Ok(())
        });
        crowd.names.push(name);
        crowd.hosts.push(host);
    }
    crowd
}

/// How far a client's clock is before the server's.
fn skew(sim: &Sim, no: u32) -> i64 {
    if !sim.options.town.skew {
        return 0;
    }
    weir_io::sometimes!("the clocks of clients differed from the server's");
    sim.chance(600 + no).random_range(-SKEW_MS_MAX..=SKEW_MS_MAX)
}

/// One step of time, and what follows at once: a machine without power is off.
fn step(sim: &Rc<Sim>, net: &mut turmoil::Sim<'static>, weather: &mut Weather) {
    match net.step() {
        Ok(_) => {}
        Err(error) => {
            sim.check::<()>(Breach::of(checks::SERVES, format!("a machine failed: {error}")));
        }
    }
    sim.set_time(sim.now() + STEP + weather.night());
    if weather.runs() {
        sim.doubts.ran(STEP);
    }
    sim.close_doubts();
    weather.calls().note(sim);
    let drive = sim.machine.drive();
    if sim.now().as_millis().is_multiple_of(LOOK_MS)
        && !drive.is_dead()
        && let Some(engine) = weather.insight().borrow().as_ref()
    {
        sim.check(bounded(sim, engine, &drive.mount()));
    }
    let post = weather.post();
    if let Some(what) = post.tags.wrong() {
        sim.check::<()>(Breach::of(checks::SAME, what));
    }
    for seen in post.lines.seen() {
        sim.wire(&seen, seen.hash);
    }
    // The server's clock may be a step ahead of the supervisor's.
    sim.model.borrow_mut().wall_is(sim.wall_ms() + 2);
    weather.attend(sim, net);
}

/// Everything heals; clients end and everything is read.
fn settle(sim: &Rc<Sim>, net: &mut turmoil::Sim<'static>, weather: &mut Weather, crowd: &Crowd) {
    weather.calm_down(sim, net);
    let until = sim.now() + HEAL_MAX;
    while !over(sim) && weather.health() != Some(Health::Serving) {
        if sim.now() > until {
            let what = format!("the server does not serve {HEAL_MAX:?} after the last fault");
            sim.check::<()>(Breach::of(checks::SERVES, what));
        }
        step(sim, net, weather);
    }
    for host in &crowd.hosts {
        host.stop.set(true);
    }
    // A poll on a connection that died without a word is given up only after its time.
    let (least, most) = (sim.now() + WRITERS_MAX, sim.now() + POLL_MAX);
    let lagging = || crowd.hosts.iter().any(|host| watched(host).is_err());
    while !over(sim) && sim.now() < most && (sim.now() < least || lagging()) {
        step(sim, net, weather);
    }
    for host in &crowd.hosts {
        sim.check(watched(host));
    }
    for host in &crowd.hosts {
        host.leave.set(true);
    }
    let until = sim.now() + END_MAX;
    while !over(sim) && crowd.left.get() > 0 {
        if sim.now() > until {
            sim.check::<()>(Breach::of(checks::SERVES, "a request is not answered"));
        }
        step(sim, net, weather);
    }
}

/// Somebody new looks at everything, over HTTP, in peace.
fn judge(
    sim: &Rc<Sim>,
    net: &mut turmoil::Sim<'static>,
    weather: &mut Weather,
    read_bytes_max: usize,
) {
    let post = Rc::clone(weather.post());
    let host = Rc::new(peace::host(sim, &post));
    let work = peace::judge(host, post, read_bytes_max, sim.chance(901));
    let done = Rc::new(Cell::new(false));
    let told = Rc::clone(&done);
    net.client("judge", async move {
        work.await;
        told.set(true);
        Ok(())
    });
    let until = sim.now() + END_MAX * 10;
    while !over(sim) && !done.get() {
        if sim.now() > until {
            sim.check::<()>(Breach::of(checks::SERVES, "reading everything takes too long"));
        }
        step(sim, net, weather);
    }
}
