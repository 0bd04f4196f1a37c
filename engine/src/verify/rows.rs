//! The rows of the tables beside those of the bucket, in the order of their keys: a slice of either is in
//! memory.
//!
//! Nothing is locked meanwhile, as the bucket may take its time. A server that begins counts itself
//! before it changes anything: if there is one more when the last row was read, nobody knows what the
//! rows were, and nothing is said of them.

use std::{cmp::Ordering, collections::VecDeque};

use rusqlite::Connection;
use weir_io::World;

use super::{Findings, VerifyError, local};
use crate::{
    Config,
    ledger::Change,
    publish::{listing::Entry, manifest::Manifest},
    state::{
        catalogue::{self, AllRows, Failure},
        files::Cut,
    },
    types::SegmentId,
};

/// What tells whether rows may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    /// How often the store was opened.
    writer_epoch: u64,
    cut: Option<Cut>,
    /// The ledgers say all that the tables do.
    whole: bool,
    /// Oldest first.
    ledgers: Vec<SegmentId>,
}

impl Mark {
    fn of(conn: &Connection) -> Result<Self, Failure> {
        Ok(Self {
            writer_epoch: catalogue::meta_u64(conn, "writer_epoch")?,
            cut: Cut::load(conn)?,
            whole: catalogue::meta_u64(conn, "ledgers_whole")? == 1,
            ledgers: catalogue::ledgers(conn)?.iter().map(|row| row.id).collect(),
        })
    }
}

/// The rows of the tables, while they are compared.
pub(super) struct Tables {
    world: World,
    config: Config,
    mark: Mark,
    /// `None`: there are no more, or they can't be read any further.
    rest: Option<AllRows>,
    ready: VecDeque<Change>,
    /// A row could not be read, which was said before: nothing is said of those behind it.
    cut_short: bool,
    found: Findings,
}

impl Tables {
    /// Begins to read the tables, if they show the same commits as a manifest, and nobody changes them.
    pub(super) async fn begin(
        world: &World,
        config: &Config,
        manifest: &Manifest,
        ledgers: &[Entry],
    ) -> Result<Option<Self>, VerifyError> {
        let Ok(mark) = local::asked(world, config, Mark::of).await? else { return Ok(None) };
        // After this look at the mark: who ended since has changed it, if anything.
        if local::hold(world, config).await?.is_none() {
            return Ok(None);
        }
        // After a recovery, and while files wait for a manifest, the tables are ahead of it.
        let same = mark.cut.is_some_and(|cut| cut.folded == manifest.folded)
            && ledgers.iter().map(|entry| entry.id).eq(mark.ledgers.iter().copied());
        Ok((mark.whole && same).then(|| Self {
            world: world.clone(),
            config: config.clone(),
            mark,
            rest: Some(AllRows::new()),
            ready: VecDeque::new(),
            cut_short: false,
            found: Findings::default(),
        }))
    }

    /// Compares with the next row that the bucket has.
    pub(super) async fn compare(&mut self, shown: &Change) -> Result<(), VerifyError> {
        loop {
            let order = self.head().await?.map(|own| own.key.cmp(&shown.key));
            match order {
                Some(Ordering::Less) => self.alone(),
                Some(Ordering::Equal) => {
                    if self.ready.pop_front().as_ref() != Some(shown) {
                        self.found.add("rows", &shown.key, "the tables say something else");
                    }
                    return Ok(());
                }
                None if self.cut_short => return Ok(()),
                Some(Ordering::Greater) | None => {
                    self.found.add("rows", &shown.key, "the tables do not have it");
                    return Ok(());
                }
            }
        }
    }

    /// Says what differs, if the tables held still all the time.
    pub(super) async fn end(mut self, found: &mut Findings) -> Result<(), VerifyError> {
        while self.head().await?.is_some() {
            self.alone();
        }
        let now = local::asked(&self.world, &self.config, Mark::of).await?;
        if now.is_ok_and(|now| now == self.mark) {
            found.findings.append(&mut self.found.findings);
        }
        Ok(())
    }

    fn alone(&mut self) {
        if let Some(own) = self.ready.pop_front() {
            self.found.add("rows", &own.key, "no ledger in the bucket has it");
        }
    }

    /// The next row of the tables.
    async fn head(&mut self) -> Result<Option<&Change>, VerifyError> {
        while self.ready.is_empty()
            && let Some(rest) = self.rest.take()
        {
            let slice = move |conn: &Connection| {
                let mut rest = rest.clone();
                Ok((rest.slice(conn)?, rest))
            };
            match local::asked(&self.world, &self.config, slice).await? {
                Ok((rows, _)) if rows.is_empty() => {}
                Ok((rows, rest)) => {
                    self.ready.extend(rows);
                    self.rest = Some(rest);
                }
                Err(_) => self.cut_short = true,
            }
        }
        Ok(self.ready.front())
    }
}
