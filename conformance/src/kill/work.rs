//! A subscription and its worker under the kill loop.
//!
//! One client appends to a few streams and is the pull-wake worker that they wake, so it knows
//! of every stream how far it was acknowledged at least and at most. After each kill the server
//! must agree, and what was appended and not acknowledged must be there to claim: at once, or as
//! soon as the lease of a worker that the kill cut off is over.

use std::{
    collections::BTreeMap,
    io, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{Round, load::REFUSED, record::Chance};
use crate::http::{Client, Response};

const PLANE: &str = "/v1/stream/__ds/subscriptions/kill";
const STREAMS: u64 = 5;
/// The shortest that a server must grant.
const LEASE_MS: u64 = 1000;
/// A lease that a kill cut off is over by then, and by far.
const CLAIM_MAX: Duration = Duration::from_secs(30);
/// Between two claims of what somebody else holds.
const CLAIM_PAUSE: Duration = Duration::from_millis(20);
/// Apart from everybody else's chances.
const PART: u64 = 1 << 41;

/// The client; outlives the server's lives.
#[derive(Default)]
pub struct Worker {
    cursors: BTreeMap<String, Cursor>,
    /// The highest that was handed out.
    generation: u64,
    held: Option<Held>,
    acks: u64,
}

/// What is known of one stream. Offsets compare as text.
#[derive(Clone, Debug)]
struct Cursor {
    /// An ack up to here was answered.
    acked: String,
    /// An ack up to here was sent.
    tried: String,
    /// An append that ends here was answered.
    tail: String,
}

/// The tail of a stream without records.
const EMPTY: &str = "0000000000000000_0000000000000000";

impl Cursor {
    fn surely_has_work(&self) -> bool {
        // Nothing was acked yet of a stream without records: the one is told as "-1", the other not.
        self.tail > self.tried && self.tail != EMPTY
    }
}

/// Work that was claimed.
#[derive(Clone, Debug)]
struct Held {
    wake_id: String,
    generation: u64,
    token: String,
    /// The tails of the streams with work.
    work: BTreeMap<String, String>,
}

/// What became of a request.
enum Outcome {
    Answer(Response),
    /// Nothing was done.
    Refused,
    Died,
}

impl Worker {
    /// Makes the streams and the subscription.
    pub fn create(&mut self, client: &mut Client) -> Result<()> {
        let text = [("Content-Type", "text/plain")];
        for number in 0..STREAMS {
            let answer = client.put(&format!("/v1/stream/{}", name(number)), &text, b"")?;
            ensure!(answer.status == 201, "{}: {}", name(number), answer.status);
        }
        let wakes = [("Content-Type", "application/json")];
        let answer = client.put("/v1/stream/kill/wakes", &wakes, b"")?;
        ensure!(answer.status == 201, "the wake stream: {}", answer.status);
        let subscription = json!({
            "type": "pull-wake", "pattern": "work/*", "wake_stream": "kill/wakes",
            "lease_ttl_ms": LEASE_MS,
        });
        let answer = client.put(PLANE, &[], subscription.to_string().as_bytes())?;
        ensure!(answer.status == 201, "{PLANE}: {} {:?}", answer.status, answer.text());
        for link in streams(&answer)? {
            let cursor = Cursor {
                acked: link.acked.clone(),
                tried: link.acked.clone(),
                // An empty stream's tail says no more than that nothing was acked.
                tail: link.acked,
            };
            self.cursors.insert(link.path, cursor);
        }
        ensure!(self.cursors.len() == usize::try_from(STREAMS)?, "{:?} are linked", self.cursors);
        Ok(())
    }

    /// Acks that were answered.
    pub fn acks(&self) -> u64 {
        self.acks
    }

    /// Appends, claims and acks until the server dies.
    pub fn run(&mut self, round: &Round, client: &mut Client) -> Result<()> {
        let mut chance = Chance::apart(round.seed, &[round.number, PART]);
        while !round.is_over() {
            let alive = match (chance.below(4), self.held.clone()) {
                (0 | 1, _) => self.append(&mut chance, round, client)?,
                (_, None) => self.claim(round, client)?,
                (2, Some(held)) => self.ack_one(&held, &mut chance, round, client)?,
                (_, Some(held)) => self.finish(&held, &mut chance, round, client)?,
            };
            if !alive {
                return Ok(());
            }
        }
        Ok(())
    }

    fn append(&mut self, chance: &mut Chance, round: &Round, client: &mut Client) -> Result<bool> {
        let name = name(chance.below(STREAMS));
        let target = format!("/v1/stream/{name}");
        let asked = client.post(&target, &[("Content-Type", "text/plain")], b"some work\n");
        let Outcome::Answer(answer) = outcome(round, asked)? else { return Ok(!round.is_over()) };
        ensure!(answer.status == 204, "{name}: {} {:?}", answer.status, answer.text());
        let tail = answer.header("Stream-Next-Offset").context("the end of an append")?;
        self.cursors.get_mut(&name).context("a stream we know")?.tail = tail.to_owned();
        Ok(true)
    }

    fn claim(&mut self, round: &Round, client: &mut Client) -> Result<bool> {
        let asked = post(client, "claim", None, &json!({ "worker": "w" }));
        match outcome(round, asked)? {
            Outcome::Died => Ok(false),
            Outcome::Refused => Ok(true),
            Outcome::Answer(answer) => {
                self.claimed(&answer)?;
                Ok(true)
            }
        }
    }

    /// What an answer to a claim says, and whether it can be true.
    fn claimed(&mut self, answer: &Response) -> Result<()> {
        match (answer.status, code(answer)?.as_deref()) {
            (200, _) => {}
            (409, Some("ALREADY_CLAIMED")) => return Ok(()),
            (409, Some("NO_PENDING_WORK")) => {
                let forgotten = self.cursors.iter().find(|(_, cursor)| cursor.surely_has_work());
                ensure!(forgotten.is_none(), "there is no work, but {forgotten:?}");
                return Ok(());
            }
            (status, _) => bail!("a claim: {status} {:?}", answer.text()),
        }
        let body: Value = serde_json::from_slice(&answer.body)?;
        let text =
            |field: &str| body[field].as_str().map(str::to_owned).context("a claim's fields");
        let generation = body["generation"].as_u64().context("a generation")?;
        let before = std::mem::replace(&mut self.generation, generation);
        ensure!(generation > before, "generation {generation} comes after {before}");
        let links = streams(answer)?;
        self.check_links(&links)?;
        let work = links.into_iter().filter(|link| link.pending);
        let work: BTreeMap<_, _> = work.map(|link| (link.path, link.tail)).collect();
        for (path, cursor) in &self.cursors {
            let found = !cursor.surely_has_work() || work.contains_key(path);
            ensure!(found, "{path} has work, {cursor:?}, but a claim names {work:?}");
        }
        ensure!(!work.is_empty(), "a claim without work: {body}");
        let (wake_id, token) = (text("wake_id")?, text("token")?);
        self.held = Some(Held { wake_id, generation, token, work });
        Ok(())
    }

    /// Acks one stream and keeps the lease.
    fn ack_one(
        &mut self,
        held: &Held,
        chance: &mut Chance,
        round: &Round,
        client: &mut Client,
    ) -> Result<bool> {
        let at = usize::try_from(chance.below(u64::try_from(held.work.len())?))?;
        let acks: Vec<_> = held.work.clone().into_iter().skip(at).take(1).collect();
        self.report(held, &acks, false, round, client)
    }

    /// Acks everything and ends the lease; or only ends it, or gives the work back.
    fn finish(
        &mut self,
        held: &Held,
        chance: &mut Chance,
        round: &Round,
        client: &mut Client,
    ) -> Result<bool> {
        let all: Vec<_> = held.work.clone().into_iter().collect();
        match chance.below(4) {
            0 => {
                let body = json!({ "wake_id": held.wake_id, "generation": held.generation });
                self.held = None;
                let asked = post(client, "release", Some(&held.token), &body);
                let Outcome::Answer(answer) = outcome(round, asked)? else {
                    return Ok(!round.is_over());
                };
                let fenced = code(&answer)?.as_deref() == Some("FENCED");
                ensure!(answer.status == 204 || fenced, "{} {:?}", answer.status, answer.text());
                Ok(true)
            }
            1 => self.report(held, &[], true, round, client),
            _ => self.report(held, &all, true, round, client),
        }
    }

    /// Reports, and keeps in mind what the server may have taken of it.
    fn report(
        &mut self,
        held: &Held,
        acks: &[(String, String)],
        done: bool,
        round: &Round,
        client: &mut Client,
    ) -> Result<bool> {
        let listed: Vec<Value> =
            acks.iter().map(|(path, to)| json!({ "stream": path, "offset": to })).collect();
        let body = json!({
            "wake_id": held.wake_id, "generation": held.generation, "acks": listed, "done": done,
        });
        let before = self.cursors.clone();
        for (path, to) in acks {
            let cursor = self.cursors.get_mut(path).context("a stream we know")?;
            cursor.tried = to.clone().max(cursor.tried.clone());
        }
        if done {
            self.held = None;
        }
        match outcome(round, post(client, "ack", Some(&held.token), &body))? {
            Outcome::Died => return Ok(false),
            Outcome::Refused => self.cursors = before,
            Outcome::Answer(answer) if answer.status == 200 => {
                for (path, to) in acks {
                    let cursor = self.cursors.get_mut(path).context("a stream we know")?;
                    cursor.acked = to.clone().max(cursor.acked.clone());
                    self.acks += 1;
                }
            }
            Outcome::Answer(answer) => {
                // The lease was over before the report came.
                let fenced = code(&answer)?.as_deref() == Some("FENCED");
                ensure!(fenced, "{held:?}: {} {:?}", answer.status, answer.text());
                self.cursors = before;
                self.held = None;
            }
        }
        Ok(true)
    }

    /// After a restart: no answered ack is forgotten, none is there that was not sent, and all
    /// work is handed out.
    pub fn check(&mut self, round: &Round, client: &mut Client) -> Result<()> {
        self.check_links(&streams(&client.get(PLANE)?)?)?;
        // Half of the time the worker goes on under the lease that it had before the kill.
        let mut chance = Chance::apart(round.seed, &[round.number, PART + 1]);
        if let Some(held) = self.held.take()
            && chance.one_in(2)
        {
            let all: Vec<_> = held.work.clone().into_iter().collect();
            self.report(&held, &all, true, round, client)?;
        }
        let began = Instant::now();
        loop {
            let answer = post(client, "claim", None, &json!({ "worker": "after the kill" }))?;
            if !REFUSED.contains(&answer.status) {
                self.claimed(&answer)?;
            }
            match self.held.take() {
                Some(held) => {
                    let all: Vec<_> = held.work.clone().into_iter().collect();
                    self.report(&held, &all, true, round, client)?;
                }
                None if code(&answer)?.as_deref() == Some("NO_PENDING_WORK") => break,
                None => {}
            }
            ensure!(began.elapsed() < CLAIM_MAX, "after {CLAIM_MAX:?}: {:?}", answer.text());
            thread::sleep(CLAIM_PAUSE);
        }
        // Whatever was in doubt is settled: the last claim found nothing to do.
        let links = streams(&client.get(PLANE)?)?;
        self.check_links(&links)?;
        for link in links {
            ensure!(!link.pending, "{link:?} has work, but a claim found none");
            let cursor = self.cursors.get_mut(&link.path).context("a stream we know")?;
            (cursor.acked, cursor.tried) = (link.acked.clone(), link.acked);
            cursor.tail = link.tail;
        }
        Ok(())
    }

    fn check_links(&self, links: &[Link]) -> Result<()> {
        for link in links {
            let cursor = self.cursors.get(&link.path).context("a stream we know")?;
            let kept = (&cursor.acked..=&cursor.tried).contains(&&link.acked);
            ensure!(kept, "{link:?} is not as acked: {cursor:?}");
            ensure!(link.tail >= cursor.tail, "{link:?} lacks what was appended: {cursor:?}");
        }
        Ok(())
    }
}

fn name(number: u64) -> String {
    format!("work/{number}")
}

/// A stream as the server shows it with the subscription.
#[derive(Clone, Debug)]
struct Link {
    path: String,
    acked: String,
    tail: String,
    pending: bool,
}

fn streams(answer: &Response) -> Result<Vec<Link>> {
    let body: Value = serde_json::from_slice(&answer.body)
        .with_context(|| format!("{} {:?}", answer.status, answer.text()))?;
    let links = body["streams"].as_array().with_context(|| format!("no streams in {body}"))?;
    let link = |link: &Value| {
        let text = |field: &str| link[field].as_str().map(str::to_owned).context("a link's fields");
        let (path, acked, tail) = (text("path")?, text("acked_offset")?, text("tail_offset")?);
        let pending = link["has_pending"].as_bool().context("a link's fields")?;
        Ok(Link { path, acked, tail, pending })
    };
    links.iter().map(link).collect()
}

fn code(answer: &Response) -> Result<Option<String>> {
    if answer.status < 400 {
        return Ok(None);
    }
    let body: Value = serde_json::from_slice(&answer.body)?;
    Ok(body["error"]["code"].as_str().map(str::to_owned))
}

fn post(
    client: &mut Client,
    verb: &str,
    token: Option<&str>,
    body: &Value,
) -> io::Result<Response> {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = bearer.iter().map(|it| ("Authorization", it.as_str())).collect();
    client.post(&format!("{PLANE}/{verb}"), &headers, body.to_string().as_bytes())
}

fn outcome(round: &Round, asked: io::Result<Response>) -> Result<Outcome> {
    match asked {
        Ok(answer) if REFUSED.contains(&answer.status) => Ok(Outcome::Refused),
        Ok(answer) => Ok(Outcome::Answer(answer)),
        Err(error) => {
            round.expect_death(&error)?;
            Ok(Outcome::Died)
        }
    }
}
