//! The store: tables, files and log against each other.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use rusqlite::Connection;
use weir_io::{World, disk::Lock, sqlite::Role};

use super::{Findings, VerifyError};
use crate::{
    Config,
    core::{database, ledger_path, segment_path},
    ledger::{Change, Key, Ledger, Source, row},
    log::{
        commit::{self, Link, StoreId},
        entry,
    },
    motion::publish::{Stored, chain},
    open,
    publish::{listing::Entry, manifest::Manifest},
    segment::{ReadError, Segment},
    state::{
        catalogue::{self, Failure, LedgerRow, Place, SegmentRow},
        files::Cut,
    },
    types::{Lsn, SegmentId},
};

/// What the tables of a store say, for a comparison with its bucket.
pub(super) struct Rows {
    published: Option<Stored>,
    cut: Option<Cut>,
    /// The ledgers say all that the tables do.
    comparable: bool,
    /// The ledgers that the tables name, oldest first.
    ledgers: Vec<SegmentId>,
    /// As a ledger would have them.
    rows: BTreeMap<Key, Change>,
}

/// Keeps everybody from opening the store. `None`: somebody has it open.
pub(super) async fn hold(
    world: &World,
    config: &Config,
) -> Result<Option<Box<dyn Lock>>, VerifyError> {
    let path = config.dir.join("lock");
    let disk = Arc::clone(&world.disk);
    let locked = weir_io::tasks::run(&*world.blocking, move || match disk.exists(&path) {
        // The lock would be made: a store that has none is not open.
        Ok(false) => Ok(None),
        Ok(true) => disk.lock(&path),
        Err(error) => Err(error),
    });
    let locked = locked.await.map_err(|gone| VerifyError::Local(gone.to_string()))?;
    locked.map_err(|error| VerifyError::Local(format!("locking {}: {error}", config.dir.display())))
}

/// Looks at everything that is on the disk.
pub(super) async fn look(
    world: &World,
    config: &Config,
    found: &mut Findings,
) -> Result<Rows, VerifyError> {
    let (shared, config) = (world.clone(), config.clone());
    let ran = weir_io::tasks::run(&*world.blocking, move || {
        let mut found = Findings::default();
        Local { world: &shared, config: &config, found: &mut found }
            .look()
            .map(|rows| (rows, found))
    });
    let (rows, mut more) = ran.await.map_err(|gone| VerifyError::Local(gone.to_string()))??;
    found.findings.append(&mut more.findings);
    found.checked = more.checked;
    Ok(rows)
}

struct Local<'a> {
    world: &'a World,
    config: &'a Config,
    found: &'a mut Findings,
}

impl Local<'_> {
    fn open(&self) -> Result<Connection, VerifyError> {
        let path = database(self.config);
        if !self.world.disk.exists(&path).unwrap_or(false) {
            return Err(VerifyError::Local(format!(
                "there is no store in {}",
                self.config.dir.display()
            )));
        }
        let failed =
            |error: rusqlite::Error| VerifyError::Local(format!("{}: {error}", path.display()));
        let conn = self.world.sqlite.open(&path, Role::Looker).map_err(failed)?;
        let is_readonly = conn.is_readonly("main").map_err(failed)?;
        assert!(is_readonly, "INV-45 who verifies changes nothing");
        Ok(conn)
    }

    fn look(mut self) -> Result<Rows, VerifyError> {
        let conn = self.open()?;
        let format = catalogue::meta_u64(&conn, "format")?;
        if format != open::FORMAT {
            let text = format!("it is {format}, this program reads {}", open::FORMAT);
            self.found.add("format", database(self.config).display(), text);
            return Ok(Rows::nothing());
        }
        // One moment for all tables: a server may be writing.
        let tx = conn.unchecked_transaction().map_err(Failure::from)?;
        let store: [u8; 16] = catalogue::meta(&tx, "store")?
            .unwrap_or_default()
            .try_into()
            .map_err(|_| VerifyError::Local("the store has no identity".into()))?;
        let store = StoreId(store);
        let cut = Cut::load(&tx)?;
        let rows = self.rows(&tx)?;
        self.log(&tx, store, cut.as_ref())?;
        let segments = catalogue::segments(&tx)?;
        let ledgers = catalogue::ledgers(&tx)?;
        let whole = catalogue::meta_u64(&tx, "ledgers_whole")? == 1;
        if whole {
            self.order(&ledgers, cut.as_ref());
        }
        let published = match chain::published(&tx) {
            Ok(published) => published,
            Err(bad) => {
                self.found.add("manifest", "published", bad.to_string());
                None
            }
        };
        drop(tx);
        drop(conn);
        for row in &segments {
            self.segment(row, store)?;
        }
        for row in &ledgers {
            self.ledger(row, store)?;
        }
        let ledgers = ledgers.iter().map(|row| row.id).collect();
        Ok(Rows { published, cut, comparable: whole, ledgers, rows })
    }

    /// Reads every row, and counts forks.
    fn rows(&mut self, conn: &Connection) -> Result<BTreeMap<Key, Change>, VerifyError> {
        let mut rows = BTreeMap::new();
        let mut keep = |change: Change| drop(rows.insert(change.key.clone(), change));
        let mut wrong = Vec::new();
        let mut streams = 0;
        let scanned = catalogue::scan_streams(conn, |stream| {
            streams += 1;
            let name = &stream.identity.name;
            let forks = catalogue::forks(conn, stream.identity.id)?;
            if forks != stream.state.refs {
                let text = format!("it counts {} forks, there are {forks}", stream.state.refs);
                wrong.push((format!("stream '{name}'"), text));
            }
            let source = stream.identity.fork.as_ref().map(|fork| fork.source);
            if let Some(source) = source
                && catalogue::find_id(conn, source)?.is_none()
            {
                let text = format!("stream {source}, which it was forked from, is nowhere");
                wrong.push((format!("stream '{name}'"), text));
            }
            keep(row::stream(&stream));
            let id = stream.identity.id;
            catalogue::scan_producers(conn, id, |name, producer, lsn| {
                keep(row::producer(id, &name, &producer, lsn));
                Ok(())
            })
        });
        let scanned = scanned.and_then(|()| {
            catalogue::scan_tombstones(conn, |name, epoch| {
                keep(row::tombstone(&name, epoch));
                Ok(())
            })?;
            catalogue::scan_subscriptions(conn, |subscription| {
                let number = subscription.number;
                keep(ledger_row(crate::ledger::Row::Subscription(Box::new(subscription))));
                catalogue::scan_links_of(conn, number, |link| {
                    keep(ledger_row(crate::ledger::Row::Link(link)));
                    Ok(())
                })
            })
        });
        if let Err(bad) = scanned {
            wrong.push((database(self.config).display().to_string(), bad.to_string()));
        }
        self.found.checked.streams = streams;
        wrong.into_iter().for_each(|(object, text)| self.found.add("row", object, text));
        Ok(rows)
    }

    /// Follows the log from the cut on.
    fn log(
        &mut self,
        conn: &Connection,
        store: StoreId,
        cut: Option<&Cut>,
    ) -> Result<(), VerifyError> {
        let start = cut.map_or(Link { lsn: Lsn::ZERO, crc: 0 }, |cut| cut.folded);
        let mut link = start;
        let mut wrong: Option<(Lsn, String)> = None;
        let mut commits = 0;
        catalogue::scan_log(conn, start.lsn, |lsn, bytes| {
            commits += 1;
            if wrong.is_none() {
                match follows(lsn, bytes, link, store) {
                    Ok(next) => link = next,
                    Err(what) => wrong = Some((lsn, what)),
                }
            }
            Ok(())
        })?;
        self.found.checked.commits = commits;
        if let Some((lsn, what)) = wrong {
            self.found.add("log", format!("commit {lsn}"), what);
        }
        Ok(())
    }

    /// Whether ledgers follow each other up to the cut.
    fn order(&mut self, ledgers: &[LedgerRow], cut: Option<&Cut>) {
        let mut limit = Lsn::ZERO.next();
        for (at, ledger) in ledgers.iter().enumerate() {
            if ledger.first_lsn != limit && (at > 0 || ledger.first_lsn > limit) {
                let text = format!("it begins at {} instead of {limit}", ledger.first_lsn);
                self.found.add("ledgers", format!("ledger {}", ledger.id), text);
            }
            limit = ledger.last_lsn.next();
        }
        let (Some(last), Some(cut)) = (ledgers.last(), cut) else { return };
        if last.last_lsn != cut.folded.lsn {
            let text = format!("it ends at {}, the fold at {}", last.last_lsn, cut.folded.lsn);
            self.found.add("ledgers", format!("ledger {}", last.id), text);
        }
    }

    fn segment(&mut self, row: &SegmentRow, store: StoreId) -> Result<(), VerifyError> {
        let path = segment_path(self.config, row.id);
        let shown = path.display().to_string();
        if row.place == Place::Hole {
            let text = "it was damaged before it was uploaded: what it held is lost";
            self.found.add("hole", shown, text);
            return Ok(());
        }
        let Some(file) = self
            .file(&path, |conn| Ok(catalogue::segments(conn)?.iter().any(|it| it.id == row.id)))?
        else {
            return Ok(());
        };
        self.found.checked.files += 1;
        let segment = match Segment::open(file) {
            Ok(segment) => segment,
            Err(bad) => {
                self.found.add("file", shown, bad.to_string());
                return Ok(());
            }
        };
        let bytes = segment.footer().file_bytes();
        if (segment.store(), segment.id(), bytes) != (store.0, row.id, row.bytes) {
            self.found.add("file", shown, "it is another segment than the tables say");
            return Ok(());
        }
        for no in segment.blocks() {
            // What the bucket has may have been evicted here.
            if row.place == Place::Bucket && !segment.seems_there(no) {
                continue;
            }
            self.found.checked.blocks += 1;
            match segment.block(no) {
                Ok(_) => {}
                Err(bad @ ReadError::Damaged(_)) => {
                    self.found.add("block", &shown, bad.to_string())
                }
                Err(failed) => return Err(VerifyError::Local(format!("{shown}: {failed}"))),
            }
        }
        Ok(())
    }

    fn ledger(&mut self, row: &LedgerRow, store: StoreId) -> Result<(), VerifyError> {
        let path = ledger_path(self.config, row.id);
        let shown = path.display().to_string();
        let Some(file) = self
            .file(&path, |conn| Ok(catalogue::ledgers(conn)?.iter().any(|it| it.id == row.id)))?
        else {
            return Ok(());
        };
        self.found.checked.files += 1;
        let ledger = match Ledger::open(Source::File(file)) {
            Ok(ledger) => Arc::new(ledger),
            Err(bad) => {
                self.found.add("file", shown, bad.to_string());
                return Ok(());
            }
        };
        let footer = ledger.footer();
        let known = (ledger.store(), ledger.id(), footer.file_bytes(), footer.mark());
        if known != (store, row.id, row.bytes, row.mark) {
            self.found.add("file", shown, "it is another ledger than the tables say");
            return Ok(());
        }
        let blocks = u64::from(footer.row_blocks) + u64::from(footer.tail_blocks);
        self.found.checked.blocks += blocks;
        let lost = ledger.rows().filter_map(Result::err).map(|it| it.to_string());
        let lost = lost.chain(ledger.commits().filter_map(Result::err).map(|it| it.to_string()));
        lost.for_each(|what| self.found.add("block", &shown, what));
        Ok(())
    }

    /// Opens a file. `None`: it is missing, which is a finding unless the tables have meanwhile
    /// forgotten it.
    fn file(
        &mut self,
        path: &Path,
        is_named: impl FnOnce(&Connection) -> Result<bool, Failure>,
    ) -> Result<Option<Arc<dyn weir_io::File>>, VerifyError> {
        match self.world.disk.open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if is_named(&self.open()?)? {
                    self.found.add("file", path.display(), "it is missing");
                }
                Ok(None)
            }
            Err(error) => Err(VerifyError::Local(format!("{}: {error}", path.display()))),
        }
    }
}

fn ledger_row(row: crate::ledger::Row) -> Change {
    row.put()
}

/// Whether a commit of the log follows the one before it.
fn follows(lsn: Lsn, bytes: Vec<u8>, before: Link, store: StoreId) -> Result<Link, String> {
    let (header, link, body) = commit::open(&Bytes::from(bytes)).map_err(|bad| bad.to_string())?;
    if header.store != store || header.lsn != lsn {
        return Err("it belongs to another store or place".to_owned());
    }
    if header.before != before {
        return Err(format!("it does not follow commit {}", before.lsn));
    }
    let entries = entry::decode_all(body).map_err(|bad| bad.to_string())?;
    if u32::try_from(entries.len()) != Ok(header.entries) {
        return Err("it has another number of entries than it says".to_owned());
    }
    Ok(link)
}

impl Rows {
    fn nothing() -> Self {
        Self {
            published: None,
            cut: None,
            comparable: false,
            ledgers: Vec::new(),
            rows: BTreeMap::new(),
        }
    }

    /// Somebody may be changing them.
    pub(super) fn changing(self) -> Self {
        Self { comparable: false, ..self }
    }

    /// Whether the bucket's newest manifest is this store's.
    pub(super) fn compare(&self, newest: &Stored, found: &mut Findings) {
        let Some(published) = &self.published else { return };
        let (mine, theirs) = (published.manifest.generation, newest.manifest.generation);
        // Manifests that follow mine may be this store's, of a process that is running.
        if mine == theirs && published.digest != newest.digest {
            let text = "the one in the bucket is not the one that this store published";
            found.add("manifest", newest.manifest.artifact().key(), text);
        }
        if newest.manifest.store != published.manifest.store {
            let text = "the bucket belongs to another store";
            found.add("manifest", newest.manifest.artifact().key(), text);
        } else if mine > theirs {
            let text = format!("the bucket's newest is {theirs}, this store published {mine}");
            found.add("manifest", published.manifest.artifact().key(), text);
        }
    }

    /// Whether it may be that the bucket has no manifest.
    pub(super) fn compare_none(&self, found: &mut Findings) {
        if let Some(published) = &self.published {
            let generation = published.manifest.generation;
            let text = format!("the bucket has none, this store published {generation}");
            found.add("manifest", published.manifest.artifact().key(), text);
        }
    }

    /// Whether the bucket's rows are those of the tables, if these show the same commits.
    pub(super) fn compare_all(
        &self,
        manifest: &Manifest,
        ledgers: &[Entry],
        shown: &[Change],
        found: &mut Findings,
    ) {
        // After a recovery, and while files wait for a manifest, the tables are ahead of it.
        let same = self.cut.is_some_and(|cut| cut.folded == manifest.folded)
            && ledgers.iter().map(|entry| entry.id).eq(self.ledgers.iter().copied());
        if !self.comparable || !same {
            return;
        }
        for change in shown {
            match self.rows.get(&change.key) {
                Some(row) if row == change => {}
                Some(_) => found.add("rows", &change.key, "the tables say something else"),
                None => found.add("rows", &change.key, "the tables do not have it"),
            }
        }
        let known: std::collections::BTreeSet<&Key> = shown.iter().map(|it| &it.key).collect();
        for key in self.rows.keys().filter(|key| !known.contains(key)) {
            found.add("rows", key, "no ledger in the bucket has it");
        }
    }
}
