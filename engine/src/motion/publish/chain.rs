//! Where a store stands with its bucket: the manifest it published last, noted in the catalogue
//! beside the one it is about to publish, so that a lost answer survives a crash too.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;

use crate::{
    core::Core,
    publish::{
        keys::Digest,
        manifest::{Encoded, Manifest, Published},
    },
    state::catalogue::{self, Failure},
    types::{StoreMs, WallMs},
};

/// The manifest in the bucket, as the catalogue keeps it.
const PUBLISHED: &str = "manifest";
/// The manifest that was on its way.
const PENDING: &str = "manifest_pending";

/// A store and its bucket.
#[derive(Default)]
pub(crate) enum Chain {
    /// Not compared with the bucket since the start.
    #[default]
    Unattached,
    Attached(Box<Attached>),
    /// Another process publishes now.
    Fenced(String),
}

/// What this process knows to be the newest manifest.
pub(crate) struct Attached {
    pub(crate) last: Option<Stored>,
    /// Its successor, if that is on its way and nobody knows whether it arrived: a request may be
    /// carried out long after it was given up, so nothing else may be tried in its slot.
    pub(crate) unresolved: Option<Stored>,
    /// Version of the picture it shows, if this process made it.
    pub(crate) version: Option<u64>,
    /// The bucket can't give back what it was given as `last`: a successor is due even if it says
    /// nothing new.
    pub(crate) is_spoiled: bool,
    pub(crate) contact: Contact,
    /// When something may last have been left in the bucket that no row tells of, and was not looked
    /// for since.
    pub(crate) unsure: Option<StoreMs>,
}

/// A manifest and its bytes.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) manifest: Manifest,
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
}

impl Stored {
    pub(crate) fn new(manifest: Manifest) -> Self {
        let Encoded { bytes, digest } = manifest.encode();
        Self { manifest, digest, bytes }
    }

    pub(crate) fn read(bytes: Bytes) -> Result<Self, Failure> {
        let manifest = Manifest::decode(&bytes)?;
        Ok(Self { manifest, digest: Digest::of(&bytes), bytes })
    }

    pub(crate) fn summary(&self) -> Published {
        Published::new(&self.manifest, self.digest)
    }
}

/// When this process began to ask for what last told it that it is the writer. Two clocks: one
/// stands still while the machine sleeps, the other may be set back.
#[derive(Clone, Copy)]
pub(crate) struct Contact {
    elapsed: Duration,
    wall: WallMs,
}

impl Contact {
    pub(crate) fn now(core: &Core) -> Self {
        Self { elapsed: core.world.clock.elapsed(), wall: core.now().wall }
    }

    /// Whether more than `limit` may have passed since.
    pub(crate) fn is_older(&self, core: &Core, limit: Duration) -> bool {
        let now = Self::now(core);
        let walled = now.wall.get().abs_diff(self.wall.get());
        now.elapsed.saturating_sub(self.elapsed) > limit || Duration::from_millis(walled) > limit
    }
}

fn read(conn: &Connection, key: &str) -> Result<Option<Stored>, Failure> {
    match catalogue::meta(conn, key)? {
        None => Ok(None),
        Some(bytes) => Stored::read(bytes.into()).map(Some),
    }
}

/// The manifest that is known to be in the bucket.
pub(crate) fn published(conn: &Connection) -> Result<Option<Stored>, Failure> {
    read(conn, PUBLISHED)
}

/// The manifest that may be in the bucket.
pub(crate) fn pending(conn: &Connection) -> Result<Option<Stored>, Failure> {
    read(conn, PENDING)
}

/// A manifest is about to be published.
pub(crate) fn put_pending(conn: &Connection, bytes: &[u8]) -> Result<(), Failure> {
    catalogue::put_meta(conn, PENDING, bytes)
}

/// A manifest is in the bucket.
pub(crate) fn put_published(conn: &Connection, bytes: &[u8]) -> Result<(), Failure> {
    catalogue::put_meta(conn, PUBLISHED, bytes)
}
