//! Fetches what a manifest names, several objects at a time, and verifies it: sizes, marks, every
//! block of rows. Records stay unread, their blocks are verified whenever they are read. Who only looks
//! reads one ledger after the other, a stretch of its blocks at a time.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt, stream};
use weir_io::{World, objects::Key, retry::Retrying};

use super::{
    RestoreError, blocking,
    find::Choice,
    io_error,
    object::{Bad, TRIES_MAX, download, measure, whole},
    report::{Finding, HOLE, Report},
    stretch::Stretches,
    tail, window,
};
use crate::{
    Config,
    core::{ledger_path, segment_path},
    history::{self, AdoptError, Adoption},
    ledger::{self, Change, Ledger, Lost as LostRows, LostCommits, Row, Source},
    log::commit::StoreId,
    motion::publish::Problem,
    publish::{
        keys::Nonce,
        listing::{Entry, Presence},
        manifest::Manifest,
    },
    segment::{self, InMemory, Remote, Segment},
    types::SegmentId,
};

/// Objects fetched at a time.
const OBJECTS_AT_ONCE: usize = 16;

/// What becomes of what is fetched.
pub(super) enum Wanted {
    /// It is looked at.
    Looks,
    /// It is kept in the directory of a store.
    Copies { config: Config },
}

/// What there is of what a manifest names.
#[derive(Default)]
pub(super) struct Fetched {
    /// In order.
    pub(super) segments: Vec<Entry>,
    /// Oldest first; none if nothing was to be kept.
    pub(super) ledgers: Vec<(Entry, Arc<Ledger>)>,
    /// Which rows can't be relied on.
    pub(super) lost: Lost,
    /// The commits after *folded* are whole.
    pub(super) tail_is_whole: bool,
}

/// Rows whose newest version may be lost.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost {
    /// Any row.
    pub(super) any: bool,
    /// Those of keys in these ranges, both ends included.
    pub(super) ranges: Vec<(ledger::Key, ledger::Key)>,
}

impl Lost {
    pub(super) fn nothing(&self) -> bool {
        !self.any && self.ranges.is_empty()
    }
}

/// Fetches. Remembers what it has, so that a second round fetches what is new.
pub(super) struct Fetcher<'a> {
    world: &'a World,
    bucket: &'a Retrying,
    wanted: Wanted,
    segments: BTreeMap<(SegmentId, Nonce), ()>,
    ledgers: BTreeMap<(SegmentId, Nonce), Verified>,
    /// One whole segment at a time is in memory.
    salvaging: tokio::sync::Mutex<()>,
}

/// A ledger and what could not be read of it.
#[derive(Clone)]
struct Verified {
    ledger: Option<Arc<Ledger>>,
    findings: Vec<Finding>,
    lost: Lost,
    tail: Result<(), String>,
}

impl<'a> Fetcher<'a> {
    pub(super) fn new(world: &'a World, bucket: &'a Retrying, wanted: Wanted) -> Self {
        Self {
            world,
            bucket,
            wanted,
            segments: BTreeMap::new(),
            ledgers: BTreeMap::new(),
            salvaging: tokio::sync::Mutex::default(),
        }
    }

    /// Fetches all that a manifest names. What is wrong goes into the report.
    pub(super) async fn fetch(
        &mut self,
        choice: &Choice,
        report: &mut Report,
    ) -> Result<Fetched, RestoreError> {
        let mut fetched = Fetched::default();
        fetched.lost.any = !choice.ledgers_are_known;
        self.fetch_segments(choice, report, &mut fetched).await?;
        self.fetch_ledgers(choice, report, &mut fetched).await?;
        let limits =
            fetched.ledgers.windows(2).map(|pair| (pair[0].0.last_lsn, pair[1].0.first_lsn));
        if let Some((last, first)) = limits.into_iter().find(|(last, first)| last >= first) {
            let text = format!("a ledger that begins at commit {first} after one through {last}");
            return Err(RestoreError::Foreign(text));
        }
        Ok(fetched)
    }

    async fn fetch_segments(
        &mut self,
        choice: &Choice,
        report: &mut Report,
        fetched: &mut Fetched,
    ) -> Result<(), RestoreError> {
        let store = choice.chosen.manifest.store;
        let all = stream::iter(&choice.segments).map(|entry| async {
            if entry.presence == Presence::Hole || self.segments.contains_key(&identity(entry)) {
                return Ok(());
            }
            self.segment(store, entry).await
        });
        let results: Vec<Result<(), Bad>> = all.buffered(OBJECTS_AT_ONCE).collect().await;
        for (entry, result) in choice.segments.iter().zip(results) {
            let key = entry.segment().key();
            let commits = commits(entry);
            match result {
                Ok(()) if entry.presence == Presence::Hole => {
                    weir_io::sometimes!("a bootstrap met a hole that a manifest names");
                    let text = format!("it was lost before it was published: {commits}");
                    report.findings.push(Finding::new(HOLE, &key, text));
                }
                Ok(()) => {
                    self.segments.insert(identity(entry), ());
                    fetched.segments.push(*entry);
                }
                Err(Bad::Missing) => {
                    let text = format!("it is not in the bucket; {commits}, streams unknown");
                    report.findings.push(Finding::new("segment", &key, text));
                }
                Err(Bad::Damaged(what)) => {
                    let text = format!("{what}; {commits}");
                    report.findings.push(Finding::new("segment", &key, text));
                }
                Err(Bad::Unknown(error)) => return Err(error),
            }
        }
        Ok(())
    }

    async fn segment(&self, store: StoreId, entry: &Entry) -> Result<(), Bad> {
        let key = entry.segment().key();
        measure(self.bucket, &key, entry.bytes).await?;
        let mut wrong = Bad::Missing;
        for _ in 0..TRIES_MAX {
            let tried = match &self.wanted {
                Wanted::Looks => {
                    let opened = window::open(self.bucket, &key, entry.bytes).await;
                    opened.and_then(|it| is_the_segment(&it, store, entry))
                }
                Wanted::Copies { config } => self.adopt(store, entry, config).await,
            };
            match tried {
                Err(Bad::Damaged(what)) => wrong = Bad::Damaged(what),
                settled => return settled,
            }
        }
        if matches!((&wrong, &self.wanted), (Bad::Damaged(_), Wanted::Looks)) {
            match self.salvage(store, entry).await {
                Err(Bad::Damaged(_)) => {}
                settled => return settled,
            }
        }
        if let Bad::Damaged(what) = &mut wrong {
            let streams = window::outline(self.bucket, &key, entry.bytes).await;
            what.push_str(&format!("; {}", named(&streams)));
        }
        Err(wrong)
    }

    /// Whether a recovery could do without what is damaged of a segment.
    async fn salvage(&self, store: StoreId, entry: &Entry) -> Result<(), Bad> {
        let (key, entry) = (entry.segment().key(), *entry);
        let _turn = self.salvaging.lock().await;
        let bytes = whole(self.bucket, &key, entry.bytes).await?;
        let look = move || -> Result<Result<(), Bad>, RestoreError> {
            let damaged = |error: segment::ReadError| Bad::Damaged(error.to_string());
            let opened = Segment::salvage(Arc::new(InMemory(bytes))).map_err(damaged);
            Ok(opened.and_then(|(segment, _)| {
                segment.read_through().map_err(damaged)?;
                is_the_segment(&segment, store, &entry)
            }))
        };
        blocking(self.world, look).await?
    }

    /// Makes a local copy of a segment that has no blocks: they stay in the bucket until somebody
    /// reads them.
    async fn adopt(&self, store: StoreId, entry: &Entry, config: &Config) -> Result<(), Bad> {
        let remote = Remote { key: entry.segment().key(), bytes: entry.bytes };
        let path = segment_path(config, entry.id);
        let (id, mark) = (entry.id, Some(entry.mark));
        let adoption = Adoption { store: store.0, id, mark, remote, path };
        match history::adopt(self.world, self.bucket, &adoption).await {
            Ok(segment) => is_the_segment(&segment, store, entry),
            Err(AdoptError::Missing(_)) => Err(Bad::Missing),
            Err(AdoptError::Another(_)) => Err(another()),
            Err(AdoptError::Damaged { source, .. }) => Err(Bad::Damaged(source.to_string())),
            Err(AdoptError::Unanswered { source, .. }) => {
                Err(RestoreError::from(Problem::from(source)).into())
            }
            Err(AdoptError::Write(source)) => {
                let what = format!("writing {}", adoption.path.display());
                Err(io_error(what, source).into())
            }
            Err(gone @ AdoptError::Gone(_)) => {
                Err(io_error("restoring", std::io::Error::other(gone)).into())
            }
        }
    }

    async fn fetch_ledgers(
        &mut self,
        choice: &Choice,
        report: &mut Report,
        fetched: &mut Fetched,
    ) -> Result<(), RestoreError> {
        let manifest = &choice.chosen.manifest;
        let all = stream::iter(&choice.ledgers).map(|entry| async {
            if let Some(known) = self.ledgers.get(&identity(entry)) {
                return Ok(known.clone());
            }
            match &self.wanted {
                Wanted::Looks => {
                    let newest = choice.ledgers.last() == Some(entry);
                    self.look_at_ledger(entry, (manifest, newest)).await
                }
                Wanted::Copies { config } => self.ledger(manifest.store, entry, config).await,
            }
        });
        let results: Vec<Result<Verified, Bad>> = match self.wanted {
            Wanted::Looks => all.buffered(1).collect().await,
            Wanted::Copies { .. } => all.buffered(OBJECTS_AT_ONCE).collect().await,
        };
        let mut tail = Ok(());
        for (entry, result) in choice.ledgers.iter().zip(results) {
            let verified = match result {
                Ok(verified) => verified,
                Err(Bad::Unknown(error)) => return Err(error),
                Err(bad) => {
                    fetched.lost.any = true;
                    tail = Err("its ledger is lost".to_owned());
                    report.findings.push(lost_ledger(entry, &bad));
                    continue;
                }
            };
            report.findings.extend(verified.findings.iter().cloned());
            fetched.lost.ranges.extend(verified.lost.ranges.iter().cloned());
            tail = verified.tail.clone();
            if let Some(ledger) = &verified.ledger {
                fetched.ledgers.push((*entry, Arc::clone(ledger)));
            }
            if matches!(self.wanted, Wanted::Copies { .. }) {
                self.ledgers.insert(identity(entry), verified);
            }
        }
        if let Some((_, newest)) = fetched.ledgers.last().filter(|_| tail.is_ok()) {
            let (shared, manifest) = (Arc::clone(newest), manifest.clone());
            tail = blocking(self.world, move || Ok(tail::check(&shared, &manifest))).await?;
        }
        if tail.is_ok() && !fetched.lost.nothing() {
            // They would be folded into rows that are not what they were decided on.
            tail = Err("rows that they change are lost".to_owned());
        }
        fetched.tail_is_whole = tail.is_ok();
        if let Err(what) = tail
            && manifest.folded != manifest.through
        {
            let (folded, through) = (manifest.folded.lsn.next(), manifest.through.lsn);
            let object = format!("commits {folded} to {through}");
            report.findings.push(Finding::new("tail", object, what));
        }
        Ok(())
    }

    /// Makes a copy of a ledger, and verifies it.
    async fn ledger(
        &self,
        store: StoreId,
        entry: &Entry,
        config: &Config,
    ) -> Result<Verified, Bad> {
        let key = entry.ledger().key();
        measure(self.bucket, &key, entry.bytes).await?;
        let mut wrong = Err(Bad::Missing);
        for _ in 0..TRIES_MAX {
            let source = self.source(entry, &key, config).await?;
            let entry = *entry;
            let verify = move || Ok(verify(source, store, &entry));
            match blocking(self.world, verify).await? {
                Ok(verified) if verified.findings.is_empty() => {
                    return self.keep(&entry, verified, config).await;
                }
                other => wrong = other,
            }
        }
        self.keep(entry, wrong?, config).await
    }

    /// The bytes of a ledger, in a file that has no name yet.
    async fn source(&self, entry: &Entry, key: &Key, config: &Config) -> Result<Source, Bad> {
        let temporary = ledger_path(config, entry.id).with_extension("tmp");
        download(self.world, self.bucket, key, entry.bytes, &temporary).await?;
        let opened = self.world.disk.open(&temporary);
        let opened =
            opened.map_err(|source| io_error(format!("opening {}", temporary.display()), source));
        Ok(Source::File(opened?))
    }

    async fn keep(
        &self,
        entry: &Entry,
        mut verified: Verified,
        config: &Config,
    ) -> Result<Verified, Bad> {
        let path = ledger_path(config, entry.id);
        let disk = Arc::clone(&self.world.disk);
        let file = blocking(self.world, move || {
            let renamed = disk.rename(&path.with_extension("tmp"), &path);
            let named = |source| io_error(format!("naming {}", path.display()), source);
            renamed.and_then(|()| disk.open(&path)).map_err(named)
        });
        // Opened and verified a moment ago under another name.
        let ledger = Ledger::open(Source::File(file.await?));
        verified.ledger = Some(Arc::new(ledger.map_err(|bad| Bad::Damaged(bad.to_string()))?));
        Ok(verified)
    }

    /// Reads a ledger through and keeps nothing of it. The tail of the newest must be what the manifest
    /// says.
    async fn look_at_ledger(
        &self,
        entry: &Entry,
        (manifest, newest): (&Manifest, bool),
    ) -> Result<Verified, Bad> {
        let key = entry.ledger().key();
        measure(self.bucket, &key, entry.bytes).await?;
        let mut read = Stretches::open(self.world, self.bucket, manifest.store, entry).await?;
        let mut verified = Verified::new();
        let mut tail = tail::Follow::new(manifest);
        while let Some(stretch) = read.next().await? {
            stretch.rows.into_iter().for_each(|change| verified.row(&key, change));
            for commit in stretch.commits {
                if let Ok((lsn, bytes)) = &commit {
                    tail.take(*lsn, bytes);
                }
                verified.commit(&key, commit.map(drop));
            }
        }
        if newest && verified.tail.is_ok() {
            verified.tail = tail.end();
        }
        Ok(verified)
    }
}

impl Verified {
    fn new() -> Self {
        Self { ledger: None, findings: Vec::new(), lost: Lost::default(), tail: Ok(()) }
    }

    fn row(&mut self, key: &Key, change: Result<Change, LostRows>) {
        match change.map(|change| (Row::decode(&change), change)) {
            Ok((Ok(_), _)) => {}
            Ok((Err(malformed), change)) => {
                let text = format!("{}: {malformed}; the row is lost", change.key);
                self.findings.push(Finding::new("ledger", key, text));
                self.lost.ranges.push((change.key.clone(), change.key));
            }
            Err(lost) => {
                let text = format!("{lost}: {}", lost.error);
                self.findings.push(Finding::new("ledger", key, text));
                self.lost.ranges.push((lost.first, lost.last));
            }
        }
    }

    fn commit(&mut self, key: &Key, commit: Result<(), LostCommits>) {
        if let Err(lost) = commit {
            self.tail = Err(lost.to_string());
            // Asked for again: it may have been spoiled on the way.
            self.findings.push(Finding::new("ledger", key, lost.to_string()));
        }
    }
}

fn identity(entry: &Entry) -> (SegmentId, Nonce) {
    (entry.id, entry.nonce)
}

fn commits(entry: &Entry) -> String {
    let Entry { records, first_lsn, last_lsn, .. } = entry;
    format!("{records} records of commits {first_lsn} to {last_lsn}")
}

fn named(streams: &[crate::types::StreamId]) -> String {
    match (streams.first(), streams.last()) {
        (Some(first), Some(last)) => format!("of streams {first} to {last} by number"),
        _ => "streams unknown".to_owned(),
    }
}

fn lost_ledger(entry: &Entry, bad: &Bad) -> Finding {
    let Entry { records, first_lsn, last_lsn, .. } = entry;
    let text = format!("{bad}; {records} rows of commits {first_lsn} to {last_lsn}");
    Finding::new("ledger", entry.ledger().key(), text)
}

fn another() -> Bad {
    Bad::Damaged("it is not what was published under this name".into())
}

/// Whether an open segment is the one that a manifest names.
pub(crate) fn is_the_segment(segment: &Segment, store: StoreId, entry: &Entry) -> Result<(), Bad> {
    let footer = segment.footer();
    let found = (segment.store(), segment.id(), footer.mark(), footer.file_bytes());
    let range = (footer.first_lsn, footer.last_lsn, footer.records);
    if found == (store.0, entry.id, entry.mark, entry.bytes)
        && range == (entry.first_lsn, entry.last_lsn, entry.records)
    {
        return Ok(());
    }
    Err(another())
}

/// Whether an open ledger is the one that a manifest names.
pub(crate) fn is_the_ledger(ledger: &Ledger, store: StoreId, entry: &Entry) -> Result<(), Bad> {
    let footer = ledger.footer();
    let found = (ledger.store(), ledger.id(), footer.mark(), footer.file_bytes());
    let range = (footer.first_lsn, footer.last_lsn, footer.rows);
    if found == (store, entry.id, entry.mark, entry.bytes)
        && range == (entry.first_lsn, entry.last_lsn, entry.records)
    {
        return Ok(());
    }
    Err(another())
}

/// Reads everything in a ledger.
fn verify(source: Source, store: StoreId, entry: &Entry) -> Result<Verified, Bad> {
    let ledger = Ledger::open(source).map_err(|bad| match bad {
        ledger::ReadError::Damaged(damaged) => Bad::Damaged(damaged.to_string()),
        error @ ledger::ReadError::Failed { .. } => {
            io_error(error.to_string(), std::io::Error::other(error)).into()
        }
    })?;
    is_the_ledger(&ledger, store, entry)?;
    let ledger = Arc::new(ledger);
    let key = entry.ledger().key();
    let mut verified = Verified { ledger: Some(Arc::clone(&ledger)), ..Verified::new() };
    ledger.rows().for_each(|change| verified.row(&key, change));
    ledger.commits().for_each(|commit| verified.commit(&key, commit.map(drop)));
    Ok(verified)
}
