//! What happens to the town: power cuts, restarts, broken and slow links, a bad disk, a jumping
//! clock. Every draw is the seed's; nothing happens that the seed's options rule out.

use std::{rc::Rc, time::Duration};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_engine::{Engine, Health};

use super::{server::Post, wire::SERVER};
use crate::{
    checks::{self, Breach},
    door::outside::Insight,
    faults::Options,
    world::Sim,
};

type Net = turmoil::Sim<'static>;

/// How long a graceful stop may take before it counts as none.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Where the server's machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// Until this moment.
    Off(Duration),
}

/// The weather of one seed.
pub struct Weather {
    post: Rc<Post>,
    chance: ChaCha8Rng,
    clients: Vec<String>,
    power: Power,
    /// Nothing happens before this.
    next: Duration,
    /// Links and when they heal.
    broken: Vec<(String, Duration)>,
    /// When the disk is well again.
    disk_until: Option<Duration>,
    log_failed_since: Option<Duration>,
    calm: bool,
}

impl Weather {
    pub fn new(sim: &Sim, post: Rc<Post>, mut chance: ChaCha8Rng, clients: Vec<String>) -> Self {
        let next = Duration::from_millis(chance.random_range(0..2000));
        sim.note(&format!("a town of {} clients", clients.len()));
        Self {
            post,
            chance,
            clients,
            power: Power::On,
            next,
            broken: Vec::new(),
            disk_until: None,
            log_failed_since: None,
            calm: false,
        }
    }

    /// Whether the server's process runs.
    pub fn runs(&self) -> bool {
        self.power == Power::On
    }

    pub fn insight(&self) -> Insight {
        Rc::clone(&self.post.insight)
    }

    pub fn health(&self) -> Option<Health> {
        self.post.insight.borrow().as_ref().map(Engine::health)
    }

    /// What a supervisor does by itself: a dead machine is off, and comes back after a while.
    pub fn attend(&mut self, sim: &Sim, net: &mut Net) {
        match self.power {
            Power::On if sim.machine.drive().is_dead() => {
                weir_io::sometimes!("the power went in the middle of an operation");
                self.power_off(sim, net, true);
            }
            Power::On if self.post.ended.get() => {
                sim.note("the process has ended");
                self.power_off(sim, net, false);
            }
            Power::Off(until) if sim.now() >= until => self.power_on(sim, net),
            Power::On | Power::Off(_) => {}
        }
        let failed = matches!(self.health(), Some(Health::LogFailed { .. }));
        match (failed, self.log_failed_since) {
            (false, _) => self.log_failed_since = None,
            (true, None) => self.log_failed_since = Some(sim.now()),
            (true, Some(since)) if sim.now() > since + Duration::from_secs(1) => {
                sim.note("the log failed: restarting");
                self.power_off(sim, net, false);
            }
            (true, Some(_)) => {}
        }
        if self.disk_until.is_some_and(|until| sim.now() >= until) {
            self.disk_until = None;
            sim.machine.drive().set_faults(sim.calm());
            sim.machine.set_latency(Duration::from_micros(50)..Duration::from_millis(3));
            sim.note("the disk is well again");
        }
        let now = sim.now();
        self.broken.retain(|(client, until)| {
            if now >= *until {
                net.repair(client.as_str(), SERVER);
                net.release(client.as_str(), SERVER);
            }
            now < *until
        });
    }

    /// The process is gone, and with `power` everything its disk had not synced.
    fn power_off(&mut self, sim: &Sim, net: &mut Net, power: bool) {
        let drive = sim.machine.drive();
        drive.kill();
        self.post.insight.replace(None);
        // A machine without power says no goodbye to its peers.
        let silent = power && self.chance.random_bool(0.5);
        if silent {
            for client in &self.clients {
                net.partition(client.as_str(), SERVER);
            }
        }
        net.crash(SERVER);
        if silent {
            for client in &self.clients {
                net.repair(client.as_str(), SERVER);
            }
            self.broken.clear();
        }
        if power {
            drive.power_cycle()
        } else {
            drive.restart_process()
        }
        drive.set_faults(sim.calm());
        self.disk_until = None;
        self.log_failed_since = None;
        let most = if self.calm { 200 } else { 3000 };
        let off = Duration::from_millis(self.chance.random_range(1..most));
        sim.note(&format!("the server is off for {off:?}, power lost: {power}"));
        self.power = Power::Off(sim.now() + off);
    }

    fn power_on(&mut self, sim: &Sim, net: &mut Net) {
        sim.note("the server starts");
        self.post.ended.set(false);
        self.post.troubled.set(false);
        if sim.options.crash_in_recovery && !self.calm && self.chance.random_bool(0.3) {
            sim.machine.drive().kill_in(self.chance.random_range(1..80));
        }
        net.bounce(SERVER);
        self.power = Power::On;
    }

    /// Something may happen now.
    pub fn blow(&mut self, sim: &Sim, net: &mut Net) {
        if sim.now() < self.next {
            return;
        }
        self.next = sim.now() + Duration::from_millis(self.chance.random_range(20..1500));
        let options = &sim.options;
        match self.chance.random_range(0..8) {
            0 if options.crash_at_op && self.power == Power::On => {
                let op = 1 << self.chance.random_range(0..10);
                sim.machine.drive().kill_in(self.chance.random_range(1..=op));
            }
            1 if options.crash_at_time && self.power == Power::On => {
                self.power_off(sim, net, true);
            }
            2 if options.process_kill && self.power == Power::On => {
                self.power_off(sim, net, false);
            }
            3 if options.graceful && self.power == Power::On => {
                sim.note("the server is asked to stop");
                self.post.stop.borrow().notify_one();
            }
            4 if options.wall_jumps => {
                let by_ms = self.chance.random_range(-20_000..20_000);
                sim.note(&format!("the wall clock jumps by {by_ms} ms"));
                sim.jump_wall(by_ms);
            }
            5 if self.power == Power::On => self.trouble_disk(sim),
            6 | 7 => self.trouble_link(sim, net),
            _ => {}
        }
    }

    fn trouble_disk(&mut self, sim: &Sim) {
        let length = Duration::from_millis(self.chance.random_range(1..3000));
        let drive = sim.machine.drive();
        if sim.options.slow_disk && self.chance.random_bool(0.5) {
            sim.machine.set_latency(Options::slowness(&mut self.chance));
            sim.note("the disk is slow");
        } else if let Some(faults) = sim.options.burst(&mut self.chance, drive.used_bytes()) {
            sim.note(&format!("{faults:?}"));
            drive.set_faults(faults);
        } else {
            return;
        }
        self.post.troubled.set(true);
        self.disk_until = Some(sim.now() + length);
    }

    fn trouble_link(&mut self, sim: &Sim, net: &mut Net) {
        let client = self.clients[self.chance.random_range(0..self.clients.len())].clone();
        if self.broken.iter().any(|(broken, _)| *broken == client) {
            return;
        }
        let length = Duration::from_millis(self.chance.random_range(10..4000));
        let what = match self.chance.random_range(0..4) {
            0 => {
                net.partition(client.as_str(), SERVER);
                "is cut off"
            }
            1 => {
                net.partition_oneway(SERVER, client.as_str());
                "hears nothing"
            }
            2 => {
                net.partition_oneway(client.as_str(), SERVER);
                "is not heard"
            }
            _ => {
                weir_io::sometimes!("packets were held back and came late");
                net.hold(client.as_str(), SERVER);
                "waits"
            }
        };
        sim.note(&format!("{client} {what} for {length:?}"));
        self.broken.push((client, sim.now() + length));
    }

    /// No more faults; what is off comes back.
    pub fn calm_down(&mut self, sim: &Sim, net: &mut Net) {
        sim.note("calm");
        self.calm = true;
        for (client, _) in std::mem::take(&mut self.broken) {
            net.repair(client.as_str(), SERVER);
            net.release(client.as_str(), SERVER);
        }
        let drive = sim.machine.drive();
        if self.power == Power::On && !drive.is_dead() {
            // A cut that was to come at some operation comes no more.
            self.power_off(sim, net, false);
        }
        drive.set_faults(sim.calm());
        sim.machine.set_latency(Duration::from_micros(50)..Duration::from_millis(3));
        self.disk_until = None;
    }

    /// The last stop, which must be one.
    pub fn stop_gracefully(
        &mut self,
        sim: &Sim,
        net: &mut Net,
        mut step: impl FnMut(&mut Net, &mut Self),
    ) {
        self.post.stop.borrow().notify_one();
        let until = sim.now() + STOP_MAX;
        while sim.breach().is_none() && self.power == Power::On {
            if sim.now() > until {
                sim.check::<()>(Breach::of(checks::SERVES, "the server does not stop"));
            }
            step(net, self);
        }
    }
}
