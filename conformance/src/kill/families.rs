//! Streams and their forks under the kill loop.
//!
//! ```text
//! source ──┬── a text, and more of it ───────────── deleted: retired
//!          └─ fork ──┬── a text of its own ──────── deleted: retired
//!                    └─ leaf ────────────────────── deleted: all three are free
//! ```
//! A family goes through its steps one after the other, some of them in one life of the server
//! and the rest in later ones. After each kill all three streams must be as one step leaves
//! them: the last one that was answered, or the one that was just asked for.

use std::io;

use anyhow::{Context, Result, ensure};

use super::{
    Round,
    load::REFUSED,
    record::{Chance, Request},
};
use crate::http::{Client, Header, Response};

/// What a family has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Nothing,
    Source,
    More,
    Fork,
    Own,
    Leaf,
    SourceDeleted,
    ForkDeleted,
    LeafDeleted,
}

use Step::{Fork, ForkDeleted, Leaf, LeafDeleted, More, Nothing, Own, Source, SourceDeleted};

const STEPS: [Step; 9] =
    [Nothing, Source, More, Fork, Own, Leaf, SourceDeleted, ForkDeleted, LeafDeleted];

/// Unfinished families are taken up again this often, and each visit ends this often.
const OLDER_ONE_IN: u64 = 2;
const LEAVE_ONE_IN: u64 = 4;
/// Older families looked at again after each kill.
const SAMPLE: u64 = 50;
/// Apart from the writers of the load.
const WRITER: u64 = 1 << 40;

/// Makes forks, and deletes them with their sources.
#[derive(Default)]
pub struct Families {
    made: Vec<Family>,
}

struct Family {
    number: usize,
    acked: Step,
    tried: Step,
    /// Between the source's two texts, if its maker was told.
    middle: Option<String>,
    /// The fork begins there, and not at the source's tail.
    cut: bool,
}

/// What a read of one stream finds.
#[derive(Clone, PartialEq, Eq)]
enum Found {
    Absent,
    Retired,
    Holds(String),
}

impl Families {
    pub fn run(&mut self, round: &Round, client: &mut Client) -> Result<()> {
        let mut chance = Chance::apart(round.seed, &[round.number, WRITER]);
        while !round.is_over() {
            let unfinished: Vec<usize> = (0..self.made.len())
                .filter(|number| self.made[*number].acked != LeafDeleted)
                .collect();
            let number = if unfinished.is_empty() || !chance.one_in(OLDER_ONE_IN) {
                self.made.push(Family::new(self.made.len(), &mut chance));
                self.made.len() - 1
            } else {
                let count = u64::try_from(unfinished.len())?;
                unfinished[usize::try_from(chance.below(count))?]
            };
            while self.made[number].acked != LeafDeleted {
                if !self.made[number].advance(round, client)? {
                    return Ok(());
                }
                if chance.one_in(LEAVE_ONE_IN) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// After a restart: each family is as it was acknowledged, or as it was last asked to be.
    pub fn check(&mut self, round: &Round, client: &mut Client) -> Result<()> {
        let mut chance = Chance::apart(round.seed, &[round.number, WRITER + 1]);
        let count = u64::try_from(self.made.len())?;
        for family in &mut self.made {
            if family.acked != family.tried || chance.below(count) < SAMPLE {
                family.check(round.seed, client)?;
            }
        }
        Ok(())
    }

    /// Steps that were answered.
    pub fn acked_count(&self) -> usize {
        self.made.iter().map(|family| position(family.acked)).sum()
    }
}

fn position(step: Step) -> usize {
    STEPS.iter().position(|each| *each == step).unwrap_or_default()
}

impl Family {
    fn new(number: usize, chance: &mut Chance) -> Family {
        let cut = chance.one_in(2);
        Family { number, acked: Nothing, tried: Nothing, middle: None, cut }
    }

    fn path(&self, of: &str) -> String {
        format!("/v1/stream/family/{}/{of}", self.number)
    }

    /// A few lines, some of them long.
    fn text(&self, seed: u64, which: u64) -> String {
        let writer = WRITER + u64::try_from(self.number).unwrap_or_default();
        Request { writer, number: which }.lines(seed).concat()
    }

    /// Asks for the next step until the server takes it; says whether it lives.
    fn advance(&mut self, round: &Round, client: &mut Client) -> Result<bool> {
        let step = STEPS[position(self.acked) + 1];
        if step == Fork {
            self.cut &= self.middle.is_some();
        }
        self.tried = step;
        loop {
            let answer = match self.ask(step, round.seed, client) {
                Ok(answer) => answer,
                Err(error) => {
                    round.expect_death(&error).with_context(|| format!("{self:?}"))?;
                    return Ok(false);
                }
            };
            if !REFUSED.contains(&answer.status) {
                let status = if matches!(step, Source | Fork | Leaf) { 201 } else { 204 };
                let says = answer.text();
                ensure!(answer.status == status, "{self:?}: {} {says:?}", answer.status);
                if step == Source {
                    self.middle = answer.header("Stream-Next-Offset").map(str::to_owned);
                    ensure!(self.middle.is_some(), "{self:?}: no offset in {:?}", answer.headers);
                }
                self.acked = step;
                return Ok(true);
            }
            if round.is_over() {
                self.tried = self.acked;
                return Ok(false);
            }
        }
    }

    fn ask(&self, step: Step, seed: u64, client: &mut Client) -> io::Result<Response> {
        let text: Header<'_> = ("Content-Type", "text/plain");
        let (source, fork, leaf) = (self.path("source"), self.path("fork"), self.path("leaf"));
        match step {
            Nothing | Source => client.put(&source, &[text], self.text(seed, 0).as_bytes()),
            More => client.post(&source, &[text], self.text(seed, 1).as_bytes()),
            Fork => {
                let mut headers = vec![text, ("Stream-Forked-From", source.as_str())];
                if let (true, Some(middle)) = (self.cut, &self.middle) {
                    headers.push(("Stream-Fork-Offset", middle));
                }
                client.put(&fork, &headers, b"")
            }
            Own => client.post(&fork, &[text], self.text(seed, 2).as_bytes()),
            Leaf => client.put(&leaf, &[text, ("Stream-Forked-From", &fork)], b""),
            SourceDeleted => client.delete(&source),
            ForkDeleted => client.delete(&fork),
            LeafDeleted => client.delete(&leaf),
        }
    }

    /// What source, fork and leaf are after a step.
    fn after(&self, step: Step, seed: u64) -> [Found; 3] {
        let texts = [0, 1, 2].map(|which| self.text(seed, which));
        let [first, more, own] = &texts;
        let inherited = if self.cut { first.clone() } else { format!("{first}{more}") };
        let own = format!("{inherited}{own}");
        let stream = |made: Step, retired: Step, content: String| match step {
            LeafDeleted => Found::Absent,
            _ if step < made => Found::Absent,
            _ if step >= retired => Found::Retired,
            _ => Found::Holds(content),
        };
        let source = if step < More { first.clone() } else { format!("{first}{more}") };
        let fork = if step < Own { inherited } else { own.clone() };
        [
            stream(Source, SourceDeleted, source),
            stream(Fork, ForkDeleted, fork),
            stream(Leaf, LeafDeleted, own),
        ]
    }

    fn check(&mut self, seed: u64, client: &mut Client) -> Result<()> {
        let mut found = Vec::new();
        for of in ["source", "fork", "leaf"] {
            let path = self.path(of);
            let answer = client.get(&path)?;
            found.push(match answer.status {
                200 => Found::Holds(answer.text()),
                404 => Found::Absent,
                410 => Found::Retired,
                status => anyhow::bail!("{path}: {status} {:?}", answer.text()),
            });
        }
        let step =
            [self.tried, self.acked].into_iter().find(|step| self.after(*step, seed)[..] == found);
        let step = step.with_context(|| format!("{self:?} is {found:?}"))?;
        (self.acked, self.tried) = (step, step);
        Ok(())
    }
}

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Family { number, acked, tried, cut, .. } = self;
        let at = if *cut { "in the middle" } else { "at the tail" };
        write!(f, "family {number}, forked {at}, acknowledged {acked:?} and asked {tried:?},")
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Found::Absent => f.write_str("absent"),
            Found::Retired => f.write_str("retired"),
            Found::Holds(text) => {
                let start: String = text.chars().take(40).collect();
                write!(f, "{} bytes from {start:?}", text.len())
            }
        }
    }
}
