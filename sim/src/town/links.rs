//! What happens to links: they are cut in one direction or both, hold their packets back, lose
//! some, or are slow for a while.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{options::TownOptions, wire::SERVER};
use crate::world::Sim;

type Net = turmoil::Sim<'static>;

/// Longest that a link is in trouble.
const TROUBLE_MS_MAX: u64 = 4000;
/// Longest that one packet takes on a slow link.
const SLOW_MAX: Duration = Duration::from_millis(1500);

/// The links between the server and everybody else.
pub struct Links {
    machines: Vec<String>,
    /// Of healthy links.
    latency_max: Duration,
    /// Those in trouble, and until when.
    broken: Vec<(String, Duration)>,
}

/// What may happen to a link.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Cut,
    Deaf,
    Mute,
    Held,
    Lossy,
    Slow,
}

impl Links {
    pub fn new(machines: Vec<String>, latency_max: Duration) -> Self {
        Self { machines, latency_max, broken: Vec::new() }
    }

    /// Repairs those whose time has come.
    pub fn attend(&mut self, now: Duration, net: &mut Net) {
        let mut broken = std::mem::take(&mut self.broken);
        broken.retain(|(machine, until)| {
            if now >= *until {
                self.repair(machine, net);
            }
            now < *until
        });
        self.broken = broken;
    }

    fn repair(&self, machine: &str, net: &mut Net) {
        net.repair(machine, SERVER);
        net.release(machine, SERVER);
        net.set_link_fail_rate(machine, SERVER, 0.0);
        net.set_link_max_message_latency(machine, SERVER, self.latency_max);
    }

    /// One link gets into trouble.
    pub fn trouble(&mut self, sim: &Sim, net: &mut Net, c: &mut ChaCha8Rng) {
        let machine = self.machines[c.random_range(0..self.machines.len())].clone();
        let length = Duration::from_millis(c.random_range(10..TROUBLE_MS_MAX));
        let options: &TownOptions = &sim.options.town;
        let mut troubles = Vec::new();
        if options.cuts {
            troubles.extend([Trouble::Cut, Trouble::Deaf, Trouble::Mute, Trouble::Held]);
        }
        if options.losses {
            troubles.extend([Trouble::Lossy; 2]);
        }
        if options.delays {
            troubles.extend([Trouble::Slow; 2]);
        }
        if troubles.is_empty() || self.broken.iter().any(|(broken, _)| *broken == machine) {
            return;
        }
        let trouble = troubles[c.random_range(0..troubles.len())];
        let (link, rate) = (machine.as_str(), c.random_range(0.01..0.2));
        match trouble {
            Trouble::Cut => net.partition(link, SERVER),
            Trouble::Deaf => net.partition_oneway(SERVER, link),
            Trouble::Mute => net.partition_oneway(link, SERVER),
            Trouble::Held => {
                weir_io::sometimes!("packets were held back and came late");
                net.hold(link, SERVER);
            }
            Trouble::Lossy => {
                weir_io::sometimes!("a link lost packets");
                net.set_link_fail_rate(link, SERVER, rate);
            }
            Trouble::Slow => {
                weir_io::sometimes!("a link was slow for a while");
                net.set_link_max_message_latency(link, SERVER, SLOW_MAX);
            }
        }
        sim.note(&format!("the link of {machine} is {trouble:?} for {length:?}"));
        self.broken.push((machine, sim.now() + length));
    }

    /// Everything heals.
    pub fn heal(&mut self, net: &mut Net) {
        for (machine, _) in std::mem::take(&mut self.broken) {
            self.repair(&machine, net);
        }
    }

    /// The server's machine loses its power: nobody hears its goodbyes.
    pub fn silence(&mut self, net: &mut Net, lose: impl FnOnce(&mut Net)) {
        for machine in &self.machines {
            net.partition(machine.as_str(), SERVER);
        }
        lose(net);
        for machine in &self.machines {
            self.repair(machine, net);
        }
        self.broken.clear();
    }
}
