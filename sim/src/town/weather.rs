//! What happens to the town: power cuts, restarts, pauses, broken and slow links, crowds, a bad
//! disk, a jumping clock. Every draw is the seed's; nothing happens that the seed's options rule
//! out.

use std::{rc::Rc, time::Duration};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_engine::{Engine, Health};

use super::{calls::Calls, links::Links, pests, server::Post, wire::SERVER};
use crate::{
    checks::{self, Breach},
    door::{outside::Insight, subscriptions::Tokens},
    faults::Options,
    sabotage::Sabotage,
    world::Sim,
};

type Net = turmoil::Sim<'static>;

/// How long a graceful stop may take before it counts as none.
const STOP_MAX: Duration = Duration::from_secs(60);
/// Longest pause of the server's process.
const PAUSE_MS_MAX: u64 = 12_000;
/// The part of chance that decides on nights.
const NIGHTS: u32 = 980;
/// How long the machines of clients are awake after a night before the process goes on.
const DAWN: Duration = Duration::from_millis(20);
/// More operations than there are in any seed.
const NEVER: u64 = 1 << 40;
/// Bursts of one seed.
const BURSTS_MAX: u32 = 2;

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
    links: Links,
    power: Power,
    /// Nothing happens before this.
    next: Duration,
    /// When the server's process goes on.
    paused_until: Option<Duration>,
    /// What decides on nights, if there are any.
    nights: Option<ChaCha8Rng>,
    /// The night that ends the pause.
    night: Option<Duration>,
    /// The pause had one.
    slept: bool,
    /// All nights.
    nights_passed: Duration,
    /// The server was asked to stop.
    stopping: bool,
    /// When the disk is well again.
    disk_until: Option<Duration>,
    log_failed_since: Option<Duration>,
    /// Receivers, and when those that are down come back.
    receivers: Vec<(String, Option<Duration>)>,
    /// When the first burst comes.
    burst_at: Duration,
    bursts: u32,
    calm: bool,
}

impl Weather {
    pub fn new(
        sim: &Sim,
        post: Rc<Post>,
        mut chance: ChaCha8Rng,
        links: Links,
        receivers: Vec<String>,
    ) -> Self {
        let next = Duration::from_millis(chance.random_range(0..2000));
        let length = sim.options.round * sim.options.rounds;
        let burst_at = length.mul_f64(chance.random_range(0.1..0.9));
        sim.note("a town");
        Self {
            post,
            chance,
            links,
            power: Power::On,
            next,
            paused_until: None,
            nights: sim.options.town.nights.then(|| sim.chance(NIGHTS)),
            night: None,
            slept: false,
            nights_passed: Duration::ZERO,
            stopping: false,
            disk_until: None,
            log_failed_since: None,
            receivers: receivers.into_iter().map(|name| (name, None)).collect(),
            burst_at,
            bursts: 0,
            calm: false,
        }
    }

    /// Whether the server's process runs.
    pub fn runs(&self) -> bool {
        self.power == Power::On && self.paused_until.is_none()
    }

    pub fn insight(&self) -> Insight {
        Rc::clone(&self.post.insight)
    }

    pub fn tokens(&self) -> Tokens {
        Rc::clone(&self.post.tokens)
    }

    pub fn calls(&self) -> &Calls {
        &self.post.calls
    }

    pub fn post(&self) -> &Rc<Post> {
        &self.post
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
            sim.set_faults(sim.calm());
            sim.machine.set_latency(Duration::from_micros(50)..Duration::from_millis(3));
            sim.note("the disk is well again");
        }
        if self.paused_until.is_some_and(|until| sim.now() >= until) {
            self.sleep_or_resume(sim);
        }
        for (name, until) in &mut self.receivers {
            if until.is_some_and(|until| sim.now() >= until) {
                *until = None;
                sim.note(&format!("{name} is back"));
                net.bounce(name.as_str());
            }
        }
        self.links.attend(sim.now(), net);
    }

    /// The process is gone, and with `power` everything its disk had not synced.
    fn power_off(&mut self, sim: &Sim, net: &mut Net, power: bool) {
        let drive = sim.machine.drive();
        drive.kill();
        self.post.insight.replace(None);
        self.paused_until = None;
        (self.night, self.slept, self.stopping) = (None, false, false);
        self.post.night.forget();
        // A machine without power says no goodbye to its peers.
        if power && self.chance.random_bool(0.5) {
            self.links.silence(net, |net| net.crash(SERVER));
        } else {
            net.crash(SERVER);
        }
        if power {
            drive.power_cycle()
        } else {
            drive.restart_process()
        }
        sim.set_faults(sim.calm());
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
    pub fn blow(&mut self, sim: &Rc<Sim>, net: &mut Net) {
        let bursts = sim.options.town.bursts;
        if bursts && self.bursts == 0 && sim.now() >= self.burst_at {
            self.burst(sim, net);
        }
        if sim.now() < self.next {
            return;
        }
        self.next = sim.now() + Duration::from_millis(self.chance.random_range(20..1500));
        let options = &sim.options;
        match self.chance.random_range(0..11) {
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
                self.stopping = true;
                self.post.stop.borrow().notify_one();
            }
            4 if options.wall_jumps => {
                let by_ms = self.chance.random_range(-20_000..20_000);
                sim.note(&format!("the wall clock jumps by {by_ms} ms"));
                sim.jump_wall(by_ms);
            }
            5 if self.power == Power::On => self.trouble_disk(sim),
            6 | 7 => self.links.trouble(sim, net, &mut self.chance),
            8 if options.town.pauses && self.runs() => self.pause(sim),
            9 if bursts && (1..BURSTS_MAX).contains(&self.bursts) => self.burst(sim, net),
            10 if options.town.receivers_crash => self.crash_receiver(sim, net),
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
            sim.set_faults(faults);
        } else {
            return;
        }
        self.post.troubled.set(true);
        self.disk_until = Some(sim.now() + length);
    }

    fn pause(&mut self, sim: &Sim) {
        let most = 1 << self.chance.random_range(4..14);
        let length = Duration::from_millis(self.chance.random_range(1..most).min(PAUSE_MS_MAX));
        sim.note(&format!("the server's process stops for {length:?}"));
        self.post.gate.borrow().shut();
        self.paused_until = Some(sim.now() + length);
        // Starts and stops have their time, which is not stretched.
        let serves = self.post.insight.borrow().is_some() && !self.stopping;
        let nights = self.nights.as_mut().filter(|_| serves);
        self.night = nights.and_then(|c| c.random_bool(0.6).then(|| Options::pause(c)));
    }

    /// The pause is over, or the rest of it is slept through.
    fn sleep_or_resume(&mut self, sim: &Sim) {
        let Some(night) = self.night.take() else { return self.resume(sim) };
        sim.note(&format!("everybody sleeps for {night:?}"));
        if night > Duration::from_secs(3600) {
            weir_io::sometimes!("the server's process was stopped for more than an hour");
        }
        self.post.night.fall(night);
        self.slept = true;
        self.paused_until = Some(sim.now() + night + DAWN);
    }

    /// A step is over: how much longer it was because everybody slept.
    pub fn night(&mut self) -> Duration {
        let passed = self.post.night.passed();
        self.nights_passed += passed;
        passed
    }

    /// How long everybody slept, all in all.
    pub fn nights(&self) -> Duration {
        self.nights_passed
    }

    fn resume(&mut self, sim: &Sim) {
        weir_io::sometimes!("the server's process stopped and went on");
        sim.note("the server's process goes on");
        self.paused_until = None;
        self.night = None;
        self.post.night.forget();
        if std::mem::take(&mut self.slept) {
            sim.goes_on();
        }
        let lost = (sim.sabotage == Sabotage::TasksOversleep).then_some(3);
        self.post.gate.borrow().open(lost);
    }

    fn burst(&mut self, sim: &Rc<Sim>, net: &mut Net) {
        self.bursts += 1;
        let visits = [200, 1000][self.chance.random_range(0..2)];
        sim.note(&format!("{visits} short connections"));
        let name = format!("mob{}", self.bursts);
        let work = pests::burst(
            Rc::clone(sim),
            Rc::clone(&self.post),
            sim.chance(920 + self.bursts),
            visits,
        );
        net.client(name, async move {
            work.await;
            Ok(())
        });
    }

    fn crash_receiver(&mut self, sim: &Sim, net: &mut Net) {
        let index = self.chance.random_range(0..self.receivers.len());
        let length = Duration::from_millis(self.chance.random_range(1..4000));
        let (name, until) = &mut self.receivers[index];
        if until.is_none() {
            weir_io::sometimes!("a receiver crashed");
            sim.note(&format!("{name} is down for {length:?}"));
            *until = Some(sim.now() + length);
            net.crash(name.as_str());
        }
    }

    /// No more faults; what is off comes back.
    pub fn calm_down(&mut self, sim: &Sim, net: &mut Net) {
        sim.note("calm");
        self.calm = true;
        self.links.heal(net);
        self.post.resets.set(false);
        self.post.honest.set(true);
        self.post.still();
        sim.clear_up();
        if self.paused_until.is_some() {
            self.resume(sim);
        }
        for (name, until) in &mut self.receivers {
            if until.take().is_some() {
                net.bounce(name.as_str());
            }
        }
        let drive = sim.machine.drive();
        if self.power == Power::On && !drive.is_dead() {
            // A cut that was to come at some operation comes no more.
            drive.kill_in(NEVER);
            // Half of the servers must be well without a restart.
            if self.chance.random_bool(0.5) {
                self.power_off(sim, net, false);
            }
        }
        sim.set_faults(sim.calm());
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
