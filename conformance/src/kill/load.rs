//! The writers of the kill loop.
//!
//! A plain writer never repeats a request: after an error its outcome is
//! unknown for ever. A producer repeats the request with the same epoch and
//! sequence until it is answered, so that nothing stays unknown. Both go on
//! after a restart where they stopped. An error while the server was not being
//! killed is a failure of the server, not an unknown outcome.

use std::io;

use anyhow::{Context, Result, bail, ensure};

use super::{
    Round,
    history::History,
    record::{Chance, Framing, Request},
};
use crate::http::{Client, Header, Response};

/// How often a producer sends what was already acknowledged once more.
const REPEAT_ONE_IN: u64 = 8;
/// How often a producer begins a new epoch when it starts again.
const EPOCH_ONE_IN: u64 = 3;

/// A full server says so, and has stored nothing of the request.
pub(super) const REFUSED: [u16; 2] = [429, 507];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Plain,
    Producer,
}

/// One writer of one stream; outlives the server's lives.
pub struct Writer {
    pub path: String,
    pub framing: Framing,
    pub role: Role,
    id: u64,
    next: u64,
    epoch: u64,
    seq: u64,
    /// Whether the request `next` of a producer was sent before, unanswered.
    pending: bool,
    /// What happened since `tell` was last asked.
    outcomes: Vec<(Request, Outcome)>,
}

enum Outcome {
    Acked(Option<String>),
    Unknown,
}

impl Writer {
    pub fn new(id: u64, path: &str, framing: Framing, role: Role) -> Writer {
        let path = path.to_owned();
        let (next, epoch, seq, pending) = (0, 0, 0, false);
        Writer { path, framing, role, id, next, epoch, seq, pending, outcomes: Vec::new() }
    }

    /// Hands over what this writer learnt.
    pub fn tell(&mut self, history: &mut History) {
        for (request, outcome) in self.outcomes.drain(..) {
            match outcome {
                Outcome::Acked(offset) => history.acked(request, offset),
                Outcome::Unknown => history.unknown(request),
            }
        }
    }

    /// Writes until the server dies.
    pub fn run(&mut self, round: &Round, client: &mut Client) -> Result<()> {
        let mut chance = Chance::apart(round.seed, &[round.number, self.id]);
        if !self.pending && self.next > 0 && chance.one_in(EPOCH_ONE_IN) {
            (self.epoch, self.seq) = (self.epoch + 1, 0);
        }
        while !round.is_over() {
            let alive = self.write_one(round, client)?;
            if !alive {
                return Ok(());
            }
            if self.role == Role::Producer && chance.one_in(REPEAT_ONE_IN) {
                let alive = self.repeat_last(round, client)?;
                if !alive {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A producer's unanswered request, sent to a living server: the last one is
    /// never left unknown. A plain writer has nothing to settle.
    pub fn settle(&mut self, round: &Round, client: &mut Client) -> Result<()> {
        if self.pending {
            let alive = self.write_one(round, client)?;
            ensure!(alive, "{self:?} could not settle its last request");
        }
        Ok(())
    }

    /// Sends the next request; says whether the server lives.
    fn write_one(&mut self, round: &Round, client: &mut Client) -> Result<bool> {
        let request = Request { writer: self.id, number: self.next };
        let answer = match self.send(round, client, request, self.seq) {
            Ok(answer) => answer,
            Err(error) => {
                round.expect_death(&error).with_context(|| format!("{self:?}"))?;
                self.outcomes.push((request, Outcome::Unknown));
                match self.role {
                    Role::Plain => self.next += 1,
                    Role::Producer => self.pending = true,
                }
                return Ok(false);
            }
        };
        if REFUSED.contains(&answer.status) {
            // Not sent, then: if it is found later, the refusal was a lie. The
            // producer's earlier attempt stays unknown.
            if self.role == Role::Plain {
                self.next += 1;
            }
            return Ok(true);
        }
        let repeated = self.pending && answer.status == 204;
        let expected = match self.role {
            Role::Plain => answer.status == 204,
            Role::Producer => answer.status == 200 || repeated,
        };
        ensure!(expected, "{self:?}: {} {:?}", answer.status, answer.text());
        let offset = answer.header("Stream-Next-Offset").map(str::to_owned);
        ensure!(offset.is_some() || repeated, "{self:?}: no offset in {:?}", answer.headers);
        self.outcomes.push((request, Outcome::Acked(offset)));
        self.next += 1;
        self.seq += 1;
        self.pending = false;
        round.count_ack();
        Ok(true)
    }

    /// Sends the last acknowledged request again: a duplicate, and the same
    /// answer. Says whether the server lives.
    fn repeat_last(&mut self, round: &Round, client: &mut Client) -> Result<bool> {
        let Some(seq) = self.seq.checked_sub(1) else { return Ok(true) };
        let request = Request { writer: self.id, number: self.next - 1 };
        let answer = match self.send(round, client, request, seq) {
            Ok(answer) => answer,
            Err(error) => {
                round.expect_death(&error).with_context(|| format!("{self:?}"))?;
                return Ok(false);
            }
        };
        if REFUSED.contains(&answer.status) {
            return Ok(true);
        }
        ensure!(answer.status == 204, "{self:?}: a duplicate got {}", answer.status);
        let offset = answer.header("Stream-Next-Offset").map(str::to_owned);
        if offset.is_some() {
            self.outcomes.push((request, Outcome::Acked(offset)));
        }
        Ok(true)
    }

    fn send(
        &self,
        round: &Round,
        client: &mut Client,
        request: Request,
        seq: u64,
    ) -> io::Result<Response> {
        let body = request.body(round.seed, self.framing);
        let content_type: [Header<'_>; 1] = [("Content-Type", self.framing.content_type())];
        if self.role == Role::Plain {
            return client.post(&self.path, &content_type, &body);
        }
        let (id, epoch, seq) = (self.id.to_string(), self.epoch.to_string(), seq.to_string());
        let producer: [Header<'_>; 3] =
            [("Producer-Id", &id), ("Producer-Epoch", &epoch), ("Producer-Seq", &seq)];
        client.post(&self.path, &[&content_type[..], &producer[..]].concat(), &body)
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Writer { id, path, role, next, epoch, seq, .. } = self;
        write!(f, "writer {id} ({role:?}) of {path} at {next}, epoch {epoch}, sequence {seq}")
    }
}

/// How far a short-lived stream got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Absent,
    Open,
    Closed,
    Deleted,
}

/// Makes streams, closes some and deletes some, and remembers how far each got.
pub struct Churn {
    made: Vec<Made>,
}

struct Made {
    path: String,
    acked: Stage,
    tried: Stage,
}

/// What the first request of a short-lived stream puts into it.
const CONTENT: &str = "made by the kill loop";
/// Older streams looked at again after each kill.
const SAMPLE: u64 = 50;

impl Churn {
    pub fn new() -> Churn {
        Churn { made: Vec::new() }
    }

    pub fn run(&mut self, round: &Round, client: &mut Client) -> Result<()> {
        let mut chance = Chance::apart(round.seed, &[round.number, u64::MAX]);
        while !round.is_over() {
            let path = format!("/v1/stream/churn/{}/{}", round.number, self.made.len());
            self.made.push(Made { path, acked: Stage::Absent, tried: Stage::Open });
            let made = self.made.last_mut().context("just pushed")?;
            let last = [Stage::Open, Stage::Closed, Stage::Deleted];
            let last = last[usize::try_from(chance.below(3))?];
            for stage in [Stage::Open, Stage::Closed, Stage::Deleted] {
                let wanted = stage == Stage::Open || stage == last;
                if wanted && !made.advance(stage, round, client)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// After a restart: each stream is as it was acknowledged, or as it was last
    /// asked to become.
    pub fn check(&mut self, round: &Round, client: &mut Client) -> Result<()> {
        let mut chance = Chance::apart(round.seed, &[round.number, u64::MAX - 1]);
        let count = u64::try_from(self.made.len())?;
        for made in &mut self.made {
            if made.acked != made.tried || chance.below(count) < SAMPLE {
                made.check(client)?;
            }
        }
        Ok(())
    }
}

impl Made {
    /// Asks for the next stage until the server takes it; says whether it lives.
    fn advance(&mut self, stage: Stage, round: &Round, client: &mut Client) -> Result<bool> {
        self.tried = stage;
        loop {
            let answer = match self.ask(stage, client) {
                Ok(answer) => answer,
                Err(error) => {
                    round.expect_death(&error).with_context(|| self.path.clone())?;
                    return Ok(false);
                }
            };
            if !REFUSED.contains(&answer.status) {
                let status = if stage == Stage::Open { 201 } else { 204 };
                ensure!(answer.status == status, "{}: {} {stage:?}", self.path, answer.status);
                self.acked = stage;
                return Ok(true);
            }
            if round.is_over() {
                self.tried = self.acked;
                return Ok(false);
            }
        }
    }

    fn ask(&self, stage: Stage, client: &mut Client) -> io::Result<Response> {
        let text = ("Content-Type", "text/plain");
        match stage {
            Stage::Open => client.put(&self.path, &[text], CONTENT.as_bytes()),
            Stage::Closed => client.post(&self.path, &[text, ("Stream-Closed", "true")], b""),
            Stage::Deleted | Stage::Absent => client.delete(&self.path),
        }
    }

    fn check(&mut self, client: &mut Client) -> Result<()> {
        let answer = client.get(&self.path)?;
        let found = match (answer.status, answer.header("Stream-Closed")) {
            (404, _) if self.tried == Stage::Deleted => Stage::Deleted,
            (404, _) => Stage::Absent,
            (200, Some("true")) => Stage::Closed,
            (200, _) => Stage::Open,
            (status, _) => bail!("{}: {status} {:?}", self.path, answer.text()),
        };
        let Made { path, acked, tried } = &*self;
        ensure!(
            found == *acked || found == *tried,
            "{path} is {found:?}, was acknowledged {acked:?} and asked to be {tried:?}"
        );
        let whole = answer.status == 404 || answer.text() == CONTENT;
        ensure!(whole, "{path} holds {:?}", answer.text());
        (self.acked, self.tried) = (found, found);
        Ok(())
    }
}

impl Default for Churn {
    fn default() -> Churn {
        Churn::new()
    }
}
