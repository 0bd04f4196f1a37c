//! A bucket that has lost something for good: objects that are gone, cut short, or have a flipped
//! bit, and a newest manifest that is none any more. Nothing is restored of it unasked; asked, all of
//! the rest is, whatever can't be is named, and only what lay in the damaged objects can't be read.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_engine::{
    Engine,
    audit::{Newest, Published},
    request::{Error, From, Page, Rejection},
    restore::{Losses, Moment, Options, Rank, Report, RestoreError, Value},
    types::{Epoch, Offset, Seq, StoreMs},
};
use weir_io::{
    World,
    memory::{Machine, MemoryBucket},
    objects::Key,
};

use super::{
    album::Photo,
    look::audited,
    past::{Look, as_of, field, items, manifests, number, restorable},
    rehearsal::{self, Asked},
};
use crate::{
    checks::{self, Breach},
    require,
    workload::subscribers::WAKES,
};

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Lost,
    Cut,
    Flipped,
}

/// Damages a copy of the bucket and recovers what is left of it.
pub(super) fn run(look: &Look, photo: &Photo, c: &mut ChaCha8Rng) -> Result<(), Breach> {
    let Some(newest) = audited(&photo.bucket, StoreMs::new(u64::MAX))? else { return Ok(()) };
    if c.random_ratio(1, 4) {
        return headless(look, photo, &newest, c);
    }
    let is_file = |key: &&Key| !key.as_str().starts_with("manifest/");
    let files: Vec<&Key> = newest.named.iter().filter(is_file).collect();
    if files.is_empty() {
        return Ok(());
    }
    let mut machine = Machine::new(look.seed());
    machine.share_bucket(&photo.bucket.copied(look.seed()));
    let mut harmed = BTreeMap::new();
    for _ in 0..c.random_range(1..3) {
        let key = files[c.random_range(0..files.len())];
        if !harmed.contains_key(key) {
            harmed.insert(key.clone(), harm(machine.bucket(), key, c));
        }
    }
    look.note(&format!("a bucket without {harmed:?}"));
    let contents = Contents::of(&photo.bucket, &newest, &harmed);
    let checked = check(look, &machine, &harmed)?;
    let options = if checked.losses().next().is_some() {
        refused(look, &machine, &checked)?;
        Options { losses: Losses::Accept, ..Options::default() }
    } else {
        weir_io::sometimes!("damage of a bucket cost a recovery nothing");
        Options::default()
    };
    look.boot(&machine, async |world| {
        let report = recover(look, &world, &machine, options).await?;
        named(&report, &harmed)?;
        let engine = rehearsal::open(&look.sim, &world, &machine).await?;
        let left = Left { look, engine, contents, report };
        for stream in newest.streams.iter().filter(|it| !it.retired && it.name.as_str() != WAKES) {
            left.stream(stream).await?;
        }
        left.engine.close().await;
        Ok(())
    })
}

fn harm(bucket: &MemoryBucket, key: &Key, c: &mut ChaCha8Rng) -> Harm {
    let bytes = bucket.peek(key).unwrap_or_default();
    let at = c.random_range(0..bytes.len().max(1));
    match c.random_range(0..3) {
        0 => {
            let _ = bucket.lose(key);
            Harm::Lost
        }
        1 => {
            bucket.put(key.clone(), bytes.slice(..at));
            Harm::Cut
        }
        _ => {
            let _ = bucket.flip_bit(key, at, c.random_range(0..8));
            Harm::Flipped
        }
    }
}

/// A check names what is gone or too short, and changes nothing.
fn check(look: &Look, machine: &Machine, harmed: &BTreeMap<Key, Harm>) -> Result<Report, Breach> {
    let keys = machine.bucket().keys();
    let report = look.boot(machine, async |world| {
        let bucket = rehearsal::client(machine, &world);
        match Engine::check_bootstrap(world, bucket, Moment::Newest).await {
            Ok(report) => Ok(report),
            Err(error) => Breach::of(checks::RECOVERED, format!("a check: {error}")),
        }
    })?;
    require!(keys == machine.bucket().keys(), checks::LOOKED, "a check has changed the bucket");
    named(&report, harmed)?;
    Ok(report)
}

/// A report names what is gone or too short, and no other object.
fn named(report: &Report, harmed: &BTreeMap<Key, Harm>) -> Result<(), Breach> {
    for (key, harm) in harmed {
        let named = report.findings.iter().any(|it| it.object == key.as_str());
        require!(
            named || *harm == Harm::Flipped,
            checks::DAMAGE,
            "'{key}' is {harm:?}, and reported is {:?}",
            report.findings
        );
    }
    for finding in report.findings.iter().filter(|it| ["segment", "ledger"].contains(&it.rule)) {
        let harmed = harmed.keys().any(|key| key.as_str() == finding.object);
        require!(harmed, checks::DAMAGE, "nothing was done to it: {finding}");
    }
    Ok(())
}

/// Nobody said that the rest is enough: nothing is restored, nothing is claimed.
fn refused(look: &Look, machine: &Machine, checked: &Report) -> Result<(), Breach> {
    let keys = machine.bucket().keys();
    let options = Options::default();
    let done = look.boot(machine, async |world| {
        let (config, bucket) = (rehearsal::config(&look.sim), rehearsal::client(machine, &world));
        Ok(Engine::bootstrap(world, config, bucket, options, "a rehearsal").await)
    })?;
    let told = match &done {
        Err(RestoreError::Damaged(report)) => report.losses().count(),
        _ => 0,
    };
    require!(
        told == checked.losses().count() && keys == machine.bucket().keys(),
        checks::RECOVERED,
        "a check found {:?}, and a recovery that may lose nothing: {done:?}",
        checked.findings
    );
    Ok(())
}

async fn recover(
    look: &Look,
    world: &World,
    machine: &Machine,
    options: Options,
) -> Result<Report, Breach> {
    let (config, bucket) = (rehearsal::config(&look.sim), rehearsal::client(machine, world));
    match Engine::bootstrap(world.clone(), config, bucket, options, "a rehearsal").await {
        Ok(report) => {
            look.note(&format!("{} findings, {} streams", report.findings.len(), report.streams));
            Ok(report)
        }
        Err(error) => Breach::of(checks::RECOVERED, format!("what is left is lost too: {error}")),
    }
}

/// What lies where, as the whole bucket says.
struct Contents {
    /// Streams of a name, by number, and whether one of them is a fork.
    names: BTreeMap<String, (BTreeSet<u64>, bool)>,
    /// Streams of which a ledger tells that nothing happened to, by number.
    intact: BTreeSet<u64>,
    /// Records of damaged segments: numbers of streams and positions.
    lost: BTreeSet<(u64, u64)>,
    /// Something happened to rows.
    rows: bool,
    /// Something happened to records.
    records: bool,
}

impl Contents {
    fn of(bucket: &MemoryBucket, newest: &Newest, harmed: &BTreeMap<Key, Harm>) -> Self {
        let mut contents = Self {
            names: BTreeMap::new(),
            intact: BTreeSet::new(),
            lost: BTreeSet::new(),
            rows: false,
            records: false,
        };
        for key in &newest.named {
            let harmed = harmed.contains_key(key);
            if key.as_str().starts_with("rows/") {
                contents.rows |= harmed;
                contents.ledger(bucket, key, harmed);
            } else if harmed {
                contents.records = true;
                contents.segment(bucket, key);
            }
        }
        contents
    }

    fn ledger(&mut self, bucket: &MemoryBucket, key: &Key, harmed: bool) {
        for item in items(bucket, key).iter().filter(|it| it.rank == Rank::Entry) {
            let is_stream = item.kind == "create" || field(item, "fork_of").is_some();
            let (Some(Value::Text(name)), Some(stream)) =
                (field(item, "name"), number(item, "stream"))
            else {
                continue;
            };
            if !is_stream {
                continue;
            }
            let (numbers, fork) = self.names.entry(name.clone()).or_default();
            numbers.insert(stream);
            *fork |= field(item, "fork_of") != Some(&Value::Nothing);
            if !harmed && item.kind == "row" {
                self.intact.insert(stream);
            }
        }
    }

    fn segment(&mut self, bucket: &MemoryBucket, key: &Key) {
        for item in items(bucket, key) {
            if let (Some(stream), Some(seq)) = (number(&item, "stream"), number(&item, "seq")) {
                self.lost.insert((stream, seq));
            }
        }
    }

    /// Whether a ledger that nothing happened to tells of the stream that has a name now: of all that ever
    /// had it, it is the last.
    fn is_known(&self, name: &str) -> bool {
        let last = self.names.get(name).and_then(|(numbers, _)| numbers.last());
        last.is_some_and(|stream| self.intact.contains(stream))
    }

    /// Whether a position of a stream may lie in a damaged segment.
    fn may_lack(&self, name: &str, position: u64) -> bool {
        let Some((numbers, fork)) = self.names.get(name) else { return false };
        let own = numbers.iter().any(|it| self.lost.contains(&(*it, position)));
        own || *fork && self.lost.iter().any(|(_, at)| *at == position)
    }
}

/// A store that was recovered from what was left.
struct Left<'a> {
    look: &'a Look,
    engine: Engine,
    contents: Contents,
    report: Report,
}

impl Left<'_> {
    fn era(&self) -> Epoch {
        Epoch::first_of(self.report.recoveries)
    }

    async fn stream(&self, stream: &Published) -> Result<(), Breach> {
        let sim = &self.look.sim;
        let page = match rehearsal::read(&self.engine, &stream.name, From::Now).await {
            Ok(page) => page,
            Err(error) if rehearsal::may_be_over(sim, stream, &error) => return Ok(()),
            Err(error) => return self.absent(stream, &error),
        };
        if self.contents.rows {
            return self.older(stream, &page).await;
        }
        let tail = Offset { epoch: stream.next.epoch.max(self.era()), next: stream.next.next };
        require!(
            page.tail == tail && page.closed == stream.closed,
            checks::RECOVERED,
            "no row was lost, '{}' is published as {stream:?}, and ends at {:?}, closed {}",
            stream.name,
            page.tail,
            page.closed
        );
        self.scan(stream).await?;
        if stream.closed {
            return Ok(());
        }
        rehearsal::takes(sim, &self.engine, stream, &page, self.era()).await
    }

    /// A stream is not there: only if nothing that is left tells of it, or it is named.
    fn absent(&self, stream: &Published, error: &Error) -> Result<(), Breach> {
        let name = &stream.name;
        let known = self.contents.is_known(name.as_str());
        let rows = self.contents.rows && matches!(error, Error::Rejected(_));
        require!(
            rows && (!known || self.is_named(stream)),
            checks::RECOVERED,
            "'{name}' is gone, other ledgers tell of it: {known}; {error}; {:?}",
            self.report.findings
        );
        weir_io::sometimes!("a stream was lost with the rows that told of it");
        Ok(())
    }

    fn is_named(&self, stream: &Published) -> bool {
        let quoted = format!("'{}'", stream.name);
        self.report
            .findings
            .iter()
            .any(|it| it.object.contains(&quoted) || it.text.contains(&quoted))
    }

    /// Rows are lost: what a stream shows is true, though it may be of before, or of a stream that had
    /// the name before.
    async fn older(&self, stream: &Published, shown: &Page) -> Result<(), Breach> {
        let sim = &self.look.sim;
        let page = match rehearsal::read(&self.engine, &stream.name, From::Start).await {
            Ok(page) => page,
            // It may show what has been dropped since.
            Err(Error::Corrupt(_)) => return Ok(()),
            Err(error) if rehearsal::may_be_over(sim, stream, &error) => return Ok(()),
            Err(error) => return self.absent(stream, &error),
        };
        let epoch = page.start.epoch;
        rehearsal::same(&sim.model.borrow(), &stream.name, epoch.get(), &page)?;
        if epoch != stream.next.epoch {
            return Ok(());
        }
        let (tail, end) = (shown.tail.next, stream.next.next);
        require!(
            tail <= end
                && (tail >= stream.sealed.next || self.contents.records || self.is_named(stream)),
            checks::RECOVERED,
            "'{}' is published as {stream:?}, and what is left of it ends at {tail}",
            stream.name
        );
        Ok(())
    }

    /// Every record can be read that lay in no damaged segment.
    async fn scan(&self, stream: &Published) -> Result<(), Breach> {
        let (sim, name, epoch) = (&self.look.sim, &stream.name, stream.next.epoch);
        if stream.earliest.epoch != epoch {
            return Ok(());
        }
        let mut at = stream.earliest.next.get();
        let mut bytes_max = 64 << 20;
        while at < stream.next.next.get() {
            let from = From::At(Offset { epoch, next: Seq::new(at) });
            match rehearsal::part(&self.engine, name, from, bytes_max).await {
                Ok(page) => {
                    rehearsal::same(&sim.model.borrow(), name, epoch.get(), &page)?;
                    let next = page.next.next.get();
                    require!(next > at, checks::RECOVERED, "'{name}' goes on nowhere from {at}");
                    at = next;
                    bytes_max = 64 << 20;
                }
                Err(Error::Corrupt(_)) if bytes_max > 1 => bytes_max = 1,
                Err(Error::Corrupt(what)) => {
                    require!(
                        self.contents.may_lack(name.as_str(), at),
                        checks::RECOVERED,
                        "'{name}' {epoch}_{at} lay in no damaged segment: {what}"
                    );
                    weir_io::sometimes!("a record of a damaged segment was named as such");
                    at += 1;
                }
                // Its oldest records grow older.
                Err(Error::Rejected(Rejection::OffsetTrimmed { next }))
                    if next.next.get() > at && sim.model.borrow().lets_go(name, epoch.get()) =>
                {
                    at = next.next.get();
                }
                Err(error) if rehearsal::may_be_over(sim, stream, &error) => return Ok(()),
                Err(error) => {
                    return Breach::of(checks::RECOVERED, format!("'{name}' {at}: {error}"));
                }
            }
        }
        Ok(())
    }
}

/// The newest manifest is none any more: what comes back is what the one before it showed, asked for
/// that or for whatever is left, and what only the damaged one named is spared.
fn headless(look: &Look, photo: &Photo, newest: &Newest, c: &mut ChaCha8Rng) -> Result<(), Breach> {
    let oldest = *restorable(look, photo)?.start();
    let mut machine = Machine::new(look.seed());
    machine.share_bucket(&photo.bucket.copied(look.seed()));
    if !behead(machine.bucket(), c) {
        return Ok(());
    }
    let before = newest.generation.checked_sub(1).filter(|it| *it >= oldest && *it > 0);
    look.note(&format!("manifest {} is damaged, {before:?} is left", newest.generation));
    let keys = machine.bucket().keys();
    let done = look.boot(&machine, async |world| {
        let (config, bucket) = (rehearsal::config(&look.sim), rehearsal::client(&machine, &world));
        let options = Options::default();
        Ok(Engine::bootstrap(world, config, bucket, options, "a rehearsal").await)
    })?;
    let right = match (&done, before) {
        (Err(RestoreError::Damaged(report)), Some(before)) => report.generation == before,
        (Err(RestoreError::NoSuchMoment(_)), None) => true,
        _ => false,
    };
    require!(
        right && keys == machine.bucket().keys(),
        checks::RECOVERED,
        "manifest {} is damaged, {before:?} is left, and: {done:?}",
        newest.generation
    );
    let Some(before) = before else { return Ok(()) };
    let shown = as_of(&photo.bucket, before)?;
    let losses = Options { losses: Losses::Accept, ..Options::default() };
    let as_of = Options { at: Moment::Generation(before), ..Options::default() };
    let by_losses = c.random_bool(0.5);
    let asked = Asked {
        options: if by_losses { losses } else { as_of },
        shown: &shown,
        end: newest.generation,
        // The damaged one may have been the claim of a recovery.
        recoveries: shown.recoveries + 2,
    };
    look.boot(&machine, async |world| rehearsal::play(&look.sim, world, &machine, &asked).await)?;
    let spared = machine.bucket().keys().iter().any(|key| key.as_str().starts_with("spared/"));
    require!(
        spared == by_losses,
        checks::COLLECTED,
        "a list was lost: {by_losses}, what it may have named is spared: {spared}"
    );
    weir_io::sometimes!("a store was recovered though its newest manifest was damaged");
    Ok(())
}

/// Damages the newest manifest. Whether there is one.
pub(super) fn behead(bucket: &MemoryBucket, c: &mut ChaCha8Rng) -> bool {
    let Some(newest) = manifests(bucket).pop() else { return false };
    let bytes = bucket.peek(&newest.key).unwrap_or_default();
    let at = c.random_range(0..bytes.len().max(1));
    if c.random_bool(0.5) {
        bucket.flip_bit(&newest.key, at, c.random_range(0..8))
    } else {
        bucket.put(newest.key, bytes.slice(..at));
        true
    }
}
