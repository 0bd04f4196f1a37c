//! The store: tables and log against each other, then its files.
//!
//! A server may be running: whatever is asked of the tables is asked in a short transaction of a
//! connection of its own, so that SQLite's log can start over in between.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use rusqlite::Connection;
use weir_io::{World, disk::Lock, sqlite::Role};

use super::{Depth, Findings, VerifyError, compare::Rows};
use crate::{
    Config,
    core::database,
    log::{
        commit::{self, Link, StoreId},
        entry,
    },
    motion::publish::{Stored, chain},
    open,
    state::{
        catalogue::{self, Failure, LedgerRow, Origin, Place, SegmentRow},
        files::Cut,
    },
    types::{Lsn, SegmentId},
};

/// How often something is asked again because a server has begun meanwhile.
const ASKS_MAX: u32 = 4;

/// Whether anybody may be changing the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stillness {
    /// Nobody can.
    Held,
    /// A server may be running.
    Open,
}

/// Keeps everybody from opening the store. `None`: somebody has it open.
pub(super) async fn hold(
    world: &World,
    config: &Config,
) -> Result<Option<Box<dyn Lock>>, VerifyError> {
    let path = config.dir.join(config.layout.lock());
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
    (stillness, depth): (Stillness, Depth),
    found: &mut Findings,
) -> Result<Rows, VerifyError> {
    let (shared, config) = (world.clone(), config.clone());
    let ran = weir_io::tasks::run(&*world.blocking, move || {
        let mut found = Findings::default();
        let local = Local { world: &shared, config: &config, stillness, found: &mut found };
        local.look(depth).map(|rows| (rows, found))
    });
    let (rows, mut more) = ran.await.map_err(|gone| VerifyError::Local(gone.to_string()))??;
    found.findings.append(&mut more.findings);
    found.checked = more.checked;
    Ok(rows)
}

/// Whether the tables still name a segment that was uploaded.
pub(super) async fn has_uploaded(
    world: &World,
    config: &Config,
    id: SegmentId,
) -> Result<bool, VerifyError> {
    let segments = asked(world, config, catalogue::segments).await??;
    Ok(segments.iter().any(|row| row.id == id && row.place == Place::Bucket))
}

/// Asks the tables, all at one moment, whether a server is running or not.
pub(super) async fn asked<R: Send + 'static>(
    world: &World,
    config: &Config,
    question: impl Fn(&Connection) -> Result<R, Failure> + Send + 'static,
) -> Result<Result<R, Failure>, VerifyError> {
    let (shared, config) = (world.clone(), config.clone());
    let ran = weir_io::tasks::run(&*world.blocking, move || {
        let mut found = Findings::default();
        let stillness = Stillness::Open;
        Local { world: &shared, config: &config, stillness, found: &mut found }.ask(question)
    });
    ran.await.map_err(|gone| VerifyError::Local(gone.to_string()))?
}

pub(super) struct Local<'a> {
    pub(super) world: &'a World,
    pub(super) config: &'a Config,
    pub(super) stillness: Stillness,
    pub(super) found: &'a mut Findings,
}

/// What is asked at one moment, beside the rows.
struct Head {
    cut: Option<Cut>,
    whole: bool,
    segments: Vec<SegmentRow>,
    ledgers: Vec<LedgerRow>,
    published: Result<Option<Stored>, String>,
    commits: u64,
    /// The first commit that does not follow the one before it.
    wrong: Option<(Lsn, String)>,
}

impl Local<'_> {
    fn look(mut self, depth: Depth) -> Result<Rows, VerifyError> {
        self.pages(depth)?;
        if self.found.findings.is_empty() {
            return self.tables();
        }
        // What is asked of such a database it may not be able to say.
        self.tables().or_else(|error| {
            self.found.add("database", database(self.config).display(), error.to_string());
            Ok(Rows::nothing())
        })
    }

    fn tables(&mut self) -> Result<Rows, VerifyError> {
        let format = self.sure(|conn| catalogue::meta_u64(conn, "format"))?;
        if format != open::FORMAT {
            let text = format!("it is {format}, this program reads {}", open::FORMAT);
            self.found.add("format", database(self.config).display(), text);
            return Ok(Rows::nothing());
        }
        let store = self.sure(|conn| catalogue::meta(conn, "store"))?;
        let store = store.unwrap_or_default().try_into();
        let store = store.map_err(|_| VerifyError::Local("the store has no identity".into()))?;
        let store = StoreId(store);
        self.rows()?;
        let head = self.sure(|conn| head(conn, store))?;
        self.found.checked.commits = head.commits;
        if let Some((lsn, what)) = head.wrong {
            self.found.add("log", format!("commit {lsn}"), what);
        }
        if head.whole {
            self.order(&head.ledgers, head.cut.as_ref());
        }
        let published = head.published.unwrap_or_else(|bad| {
            self.found.add("manifest", "published", bad);
            None
        });
        for row in &head.segments {
            self.segment(row, store)?;
        }
        for row in &head.ledgers {
            self.ledger(row, store)?;
        }
        let uploaded = head.segments.into_iter().filter(|row| row.place == Place::Bucket).collect();
        let comparable = self.stillness == Stillness::Held;
        Ok(Rows { published, comparable, uploaded })
    }

    /// Asks the tables, all at one moment.
    pub(super) fn ask<R>(
        &self,
        question: impl Fn(&Connection) -> Result<R, Failure>,
    ) -> Result<Result<R, Failure>, VerifyError> {
        let mut asks = 1;
        loop {
            // Without SQLite's log the file is taken to hold still. If there is one afterwards, a
            // server has begun, and it did not.
            let was_open = self.has_log();
            let conn = self.open()?;
            let tx = conn.unchecked_transaction().map_err(Failure::from)?;
            let answer = question(&tx);
            drop(tx);
            if was_open || !self.has_log() || asks == ASKS_MAX {
                return Ok(answer);
            }
            weir_io::sometimes!("a server began while its store was verified");
            asks += 1;
        }
    }

    /// Asks what must be known.
    pub(super) fn sure<R>(
        &self,
        question: impl Fn(&Connection) -> Result<R, Failure>,
    ) -> Result<R, VerifyError> {
        Ok(self.ask(question)??)
    }

    fn has_log(&self) -> bool {
        let mut log = database(self.config).into_os_string();
        log.push("-wal");
        self.world.disk.exists(&PathBuf::from(log)).unwrap_or(true)
    }

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
        if catalogue::origin(&conn)? == Origin::Foreign {
            return Err(VerifyError::Local(format!("{} is another program's", path.display())));
        }
        Ok(conn)
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
}

fn head(conn: &Connection, store: StoreId) -> Result<Head, Failure> {
    let cut = Cut::load(conn)?;
    let mut link = cut.map_or(Link { lsn: Lsn::ZERO, crc: 0 }, |cut| cut.folded);
    let mut wrong: Option<(Lsn, String)> = None;
    let mut commits = 0;
    catalogue::scan_log(conn, link.lsn, |lsn, bytes| {
        commits += 1;
        if wrong.is_none() {
            match follows(lsn, bytes, link, store) {
                Ok(next) => link = next,
                Err(what) => wrong = Some((lsn, what)),
            }
        }
        Ok(())
    })?;
    Ok(Head {
        cut,
        whole: catalogue::meta_u64(conn, "ledgers_whole")? == 1,
        segments: catalogue::segments(conn)?,
        ledgers: catalogue::ledgers(conn)?,
        published: chain::published(conn).map_err(|bad| bad.to_string()),
        commits,
        wrong,
    })
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
