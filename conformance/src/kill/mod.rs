//! `kill -9` in a loop under load.
//!
//! ```text
//! start ── check everything known ── writers, readers, churn, forks, a worker ── kill -9 ─┐
//!   └───────────────────── the same directory, the same clients ─────────────────────────┘
//! ```
//!
//! Each round loads a living server until a random number of appends was
//! acknowledged, kills it in the middle of the next ones, starts it again, and
//! holds it to everything any client was ever told (`history`). One kill in four
//! is followed by another in the middle of the recovery. The seed decides every
//! choice; the interleaving is the machine's.

pub mod families;
pub mod follow;
pub mod history;
pub mod load;
pub mod record;
pub mod work;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use self::{
    families::Families,
    follow::{Follower, Mode, read_from},
    history::History,
    load::{Churn, Role, Writer},
    record::{Chance, Framing},
    work::Worker,
};
use crate::server::Server;

/// Acknowledgements of a round before the kill: at least one, at most so many.
const ACKS_MAX: u64 = 600;
/// A round without that many by then has failed.
const ROUND_MAX: Duration = Duration::from_secs(120);
/// The kill comes up to so long after the last awaited acknowledgement.
const DELAY_MICROS_MAX: u64 = 3_000;
/// A second kill comes up to so long after the start it interrupts.
const RECOVERY_MICROS_MAX: u64 = 30_000;
const SECOND_KILL_ONE_IN: u64 = 4;
/// Half of the server's lives seal all the time, and are killed while they do.
const SEALING: [&str; 6] =
    ["--memtable-bytes", "256KiB", "--body-max", "256KiB", "--seal-age", "1s"];
/// Offsets of a stream read from directly after each kill.
const OFFSETS_READ: usize = 25;

/// The streams of the load, each with two writers of one role.
const STREAMS: [(&str, Framing, Role); 4] = [
    ("/v1/stream/kill/text", Framing::Text, Role::Plain),
    ("/v1/stream/kill/json", Framing::Json, Role::Plain),
    ("/v1/stream/kill/text-produced", Framing::Text, Role::Producer),
    ("/v1/stream/kill/json-produced", Framing::Json, Role::Producer),
];

/// What the threads of one round share.
pub struct Round {
    pub seed: u64,
    pub number: u64,
    over: AtomicBool,
    progress: Mutex<Progress>,
    progressed: Condvar,
}

#[derive(Default)]
struct Progress {
    acks: u64,
    /// Some client saw what cannot be; the round is over early.
    failed: bool,
}

impl Round {
    fn new(seed: u64, number: u64) -> Round {
        let (over, progressed) = (AtomicBool::new(false), Condvar::new());
        Round { seed, number, over, progress: Mutex::default(), progressed }
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub fn count_ack(&self) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).acks += 1;
        self.progressed.notify_all();
    }

    /// Ends the wait of the round when a client has failed.
    fn noting<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            self.progress.lock().unwrap_or_else(PoisonError::into_inner).failed = true;
            self.progressed.notify_all();
        }
        outcome
    }

    /// An error is unknown only when the server was being killed.
    pub fn expect_death(&self, error: &io::Error) -> Result<()> {
        if self.is_over() { Ok(()) } else { Err(anyhow!("the living server failed: {error}")) }
    }

    fn await_acks(&self, count: u64) -> Result<()> {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |progress: &mut Progress| progress.acks < count && !progress.failed;
        let waited = self.progressed.wait_timeout_while(progress, ROUND_MAX, waiting);
        let (progress, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(!timeout.timed_out(), "{} of {count} appends in {ROUND_MAX:?}", progress.acks);
        Ok(())
    }
}

/// Everything that outlives a server's life.
struct World {
    seed: u64,
    writers: Vec<Writer>,
    followers: Vec<Follower>,
    histories: BTreeMap<&'static str, History>,
    churn: Churn,
    families: Families,
    worker: Worker,
}

/// Runs so many rounds on a fresh server; fails with the first thing that cannot
/// be true.
pub fn run(server: &mut Server, seed: u64, rounds: u64) -> Result<()> {
    let mut world = World::new(seed);
    world.create(server)?;
    for number in 0..rounds {
        let round = Round::new(seed, number);
        world.load(&round, server).with_context(|| format!("round {number}"))?;
        let mut chance = Chance::apart(seed, &[number, 1]);
        while chance.one_in(SECOND_KILL_ONE_IN) {
            let delay = Duration::from_micros(chance.below(RECOVERY_MICROS_MAX));
            server.start_and_kill_after(delay).context("a kill in the middle of a start")?;
        }
        server.set_flags(if chance.one_in(2) { &SEALING } else { &[] });
        server.restart()?;
        world.check(&round, server).with_context(|| format!("after kill {number}"))?;
        let acked: usize = world.histories.values().map(History::acked_count).sum();
        println!(
            "kill {number}: {acked} acknowledged requests are where they were, \
             {} steps of forks and {} acks of work hold",
            world.families.acked_count(),
            world.worker.acks()
        );
    }
    world.settle(server)?;
    world.check(&Round::new(seed, rounds), server).context("after the last request")
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            seed,
            writers: Vec::new(),
            followers: Vec::new(),
            histories: BTreeMap::new(),
            churn: Churn::new(),
            families: Families::default(),
            worker: Worker::default(),
        };
        for (path, framing, role) in STREAMS {
            world.histories.insert(path, History::new(seed));
            for _ in 0..2 {
                let id = u64::try_from(world.writers.len()).expect("few writers");
                world.writers.push(Writer::new(id, path, framing, role));
            }
            for mode in [Mode::LongPoll, Mode::Sse] {
                world.followers.push(Follower::new(path, framing, mode));
            }
        }
        world
    }

    fn create(&mut self, server: &Server) -> Result<()> {
        let mut client = server.client();
        for (path, framing, _) in STREAMS {
            let answer = client.put(path, &[("Content-Type", framing.content_type())], b"")?;
            ensure!(answer.status == 201, "{path}: {} {:?}", answer.status, answer.text());
        }
        self.worker.create(&mut client)
    }

    /// Loads the server, kills it, and collects what everybody learnt.
    fn load(&mut self, round: &Round, server: &mut Server) -> Result<()> {
        let mut chance = Chance::apart(self.seed, &[round.number, 0]);
        let acks = 1 + chance.below(ACKS_MAX);
        let delay = Duration::from_micros(chance.below(DELAY_MICROS_MAX));
        let World { writers, followers, churn, families, worker, histories, .. } = self;
        let server_port = server.port();
        let outcomes = thread::scope(|scope| {
            let mut threads = Vec::new();
            for writer in writers.iter_mut() {
                let mut client = server.client();
                threads.push(scope.spawn(move || round.noting(writer.run(round, &mut client))));
            }
            for follower in followers.iter_mut() {
                threads.push(scope.spawn(move || round.noting(follower.run(round, server_port))));
            }
            let mut client = server.client();
            threads.push(scope.spawn(move || round.noting(churn.run(round, &mut client))));
            let mut client = server.client();
            threads.push(scope.spawn(move || round.noting(families.run(round, &mut client))));
            let mut client = server.client();
            threads.push(scope.spawn(move || round.noting(worker.run(round, &mut client))));

            let awaited = round.await_acks(acks);
            thread::sleep(delay);
            round.over.store(true, Ordering::SeqCst);
            let killed = server.kill();
            let mut outcomes = vec![killed];
            for thread in threads {
                outcomes.push(thread.join().unwrap_or_else(|_| bail!("a client panicked")));
            }
            outcomes.push(awaited);
            outcomes
        });
        for writer in writers {
            let history = histories.get_mut(writer.path.as_str()).context("a stream's history")?;
            writer.tell(history);
        }
        // Several clients of a failing server complain; the first says most.
        outcomes.into_iter().collect()
    }

    /// Every stream against everything known of it.
    fn check(&mut self, round: &Round, server: &Server) -> Result<()> {
        let mut client = server.client();
        let World { followers, histories, churn, families, worker, .. } = self;
        for (path, framing, _) in STREAMS {
            let history = histories.get_mut(path).context("a stream's history")?;
            let read = read_from(&mut client, path, framing, None)?;
            let readers: Vec<_> = followers
                .iter()
                .filter(|follower| follower.path == path)
                .map(|follower| &follower.transcript)
                .collect();
            history.check(&read, &readers).with_context(|| path.to_owned())?;

            let places: Vec<_> = history.places().iter().collect();
            let mut chance = Chance::apart(round.seed, &[round.number, 2]);
            for _ in 0..OFFSETS_READ.min(places.len()) {
                let count = u64::try_from(places.len())?;
                let (offset, length) = places[usize::try_from(chance.below(count))?];
                let rest = read_from(&mut client, path, framing, Some(offset))?;
                let same = rest.bytes == read.bytes[*length..];
                ensure!(same, "{path} read from {offset} is not its rest from byte {length}");
            }
        }
        churn.check(round, &mut client)?;
        families.check(round, &mut client)?;
        worker.check(round, &mut client)
    }

    /// Lets each producer get an answer to its last request.
    fn settle(&mut self, server: &Server) -> Result<()> {
        let round = Round::new(self.seed, u64::MAX);
        for writer in &mut self.writers {
            writer.settle(&round, &mut server.client())?;
            let history = self.histories.get_mut(writer.path.as_str());
            writer.tell(history.context("a stream's history")?);
        }
        Ok(())
    }
}
