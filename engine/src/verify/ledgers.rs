//! The ledgers of a manifest, read together from their first key to their last: every block of each, and
//! what they say of a key together. A stretch of each is in memory.

use std::collections::VecDeque;

use weir_io::{World, objects::Key as Object, retry::Retrying};

use super::{
    Findings, VerifyError,
    chain::{Remote, is_kept},
    damage,
};
use crate::{
    ledger::{Below, Change, Overlay, Row},
    publish::listing::Entry,
    restore::{
        object::{Bad, measure},
        stretch::Stretches,
        tail::Follow,
    },
};

/// All ledgers that the newest manifest names.
pub(super) struct Ledgers<'a> {
    bucket: &'a Retrying,
    remote: &'a Remote,
    /// Oldest first.
    cursors: Vec<Cursor<'a>>,
    overlay: Overlay,
    ready: VecDeque<Change>,
    /// Of the newest.
    tail: Follow<'a>,
    /// All could be read so far.
    sound: bool,
}

struct Cursor<'a> {
    /// `None`: at the end.
    read: Option<Stretches<'a>>,
    object: Object,
    ready: VecDeque<Change>,
}

impl<'a> Ledgers<'a> {
    /// Begins to read. `None`: they do not follow each other, which breaks a rule that was asked before.
    pub(super) async fn open(
        world: &'a World,
        bucket: &'a Retrying,
        remote: &'a Remote,
        found: &mut Findings,
    ) -> Result<Option<Self>, VerifyError> {
        let mut ledgers = Self {
            bucket,
            remote,
            cursors: Vec::new(),
            overlay: Overlay::new(Below::Nothing),
            ready: VecDeque::new(),
            tail: Follow::new(&remote.newest.manifest),
            sound: true,
        };
        for entry in &remote.ledgers {
            let object = entry.ledger().key();
            let read = match opened(world, bucket, remote, entry).await {
                Ok(read) => {
                    found.checked.object_bytes += entry.bytes;
                    Some(read)
                }
                Err((rule, bad)) => {
                    ledgers.lost(&object, rule, bad, found).await?;
                    None
                }
            };
            ledgers.cursors.push(Cursor { read, object, ready: VecDeque::new() });
        }
        let read = ledgers.cursors.iter().filter_map(|cursor| cursor.read.as_ref());
        let ends = read.map(|it| (it.footer().first_lsn, it.footer().last_lsn));
        let ends: Vec<_> = ends.collect();
        let ascend = ends.windows(2).all(|pair| pair[0].1 < pair[1].0);
        Ok(ascend.then_some(ledgers))
    }

    /// What they say together of the next key of which they say anything that is left.
    pub(super) async fn next(
        &mut self,
        found: &mut Findings,
    ) -> Result<Option<Change>, VerifyError> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(Some(change));
            }
            for age in 0..self.cursors.len() {
                self.fill(age, found).await?;
            }
            let heads = self.cursors.iter().filter_map(|cursor| cursor.ready.front());
            let Some(key) = heads.map(|change| &change.key).min().cloned() else {
                return Ok(None);
            };
            for age in 0..self.cursors.len() {
                loop {
                    self.fill(age, found).await?;
                    let cursor = &mut self.cursors[age];
                    let Some(change) = cursor.ready.pop_front_if(|it| it.key == key) else { break };
                    self.overlay.take(age, change.op);
                }
            }
            self.overlay.settle(&key, &mut self.ready);
        }
    }

    /// Whether all of them could be read. The tail is looked at if the newest could.
    pub(super) fn end(self, found: &mut Findings) -> bool {
        if self.sound
            && !self.cursors.is_empty()
            && let Err(what) = self.tail.end()
        {
            found.add("tail", self.remote.newest.manifest.artifact().key(), what);
        }
        self.sound
    }

    /// Reads on in a ledger until there is a change, or nothing more.
    async fn fill(&mut self, age: usize, found: &mut Findings) -> Result<(), VerifyError> {
        let newest = self.cursors.len() - 1;
        loop {
            let cursor = &mut self.cursors[age];
            if !cursor.ready.is_empty() {
                return Ok(());
            }
            let Some(read) = &mut cursor.read else { return Ok(()) };
            let stretch = match read.next().await {
                Ok(Some(stretch)) => stretch,
                Ok(None) => {
                    cursor.read = None;
                    return Ok(());
                }
                Err(bad) => {
                    cursor.read = None;
                    let object = cursor.object.clone();
                    return self.lost(&object, "object", bad, found).await;
                }
            };
            for change in stretch.rows {
                let wrong = match &change {
                    Ok(change) => {
                        Row::decode(change).err().map(|bad| format!("{}: {bad}", change.key))
                    }
                    Err(lost) => Some(lost.to_string()),
                };
                if let Some(wrong) = wrong {
                    self.sound = false;
                    found.add("block", &cursor.object, wrong);
                }
                cursor.ready.extend(change.ok());
            }
            for commit in stretch.commits {
                match commit {
                    Ok((lsn, bytes)) if age == newest => self.tail.take(lsn, &bytes),
                    Ok(_) => {}
                    Err(lost) => {
                        self.sound = false;
                        found.add("block", &cursor.object, lost.to_string());
                    }
                }
            }
        }
    }

    /// A ledger can't be read. A server may have published, merged and collected since.
    async fn lost(
        &mut self,
        object: &Object,
        rule: &'static str,
        bad: Bad,
        found: &mut Findings,
    ) -> Result<(), VerifyError> {
        self.sound = false;
        let what = damage(bad)?;
        if is_kept(self.bucket, self.remote.newest.manifest.generation).await? {
            found.add(rule, object, what);
        }
        Ok(())
    }
}

/// Begins to read a ledger, or says by which rule it can't be.
async fn opened<'a>(
    world: &'a World,
    bucket: &'a Retrying,
    remote: &Remote,
    entry: &Entry,
) -> Result<Stretches<'a>, (&'static str, Bad)> {
    let key = entry.ledger().key();
    measure(bucket, &key, entry.bytes).await.map_err(|bad| ("object", bad))?;
    let opened = Stretches::open(world, bucket, remote.newest.manifest.store, entry);
    opened.await.map_err(|bad| match bad {
        Bad::Damaged(_) => ("block", bad),
        _ => ("object", bad),
    })
}
