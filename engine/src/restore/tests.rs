//! Listings that are too long for a test that would have to write them record by record.

use std::{ops::Range, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::LocalSet;
use weir_io::{
    World,
    memory::Machine,
    objects::{Created, Key, Meta, ObjectError, Objects, Payload, Pending},
    retry::Retrying,
};

use super::{Losses, Moment, Options, RestoreError, find, report::HOLE, search};
use crate::{
    Config, Engine,
    limits::PAGE_ENTRIES,
    log::commit::{Link, StoreId},
    motion::publish::Stored,
    publish::{
        keys::{self, Artifact, Digest, Generation, Nonce},
        listing::{Entry, Listing, Page, Presence},
        manifest::{Claim, Manifest},
    },
    types::{Lsn, SegmentId, StoreMs, StreamId, WallMs},
};

/// Holes, which need no objects: a page of them and three more.
fn holes() -> Vec<Entry> {
    let hole = |id| Entry {
        id: SegmentId::new(id),
        nonce: Nonce::new(7),
        bytes: 100,
        mark: 1,
        first_lsn: Lsn::new(id),
        last_lsn: Lsn::new(id),
        records: 1,
        presence: Presence::Hole,
    };
    (1..=u64::try_from(PAGE_ENTRIES).unwrap() + 3).map(hole).collect()
}

/// The only manifest of a store that has lost all records of one stream, and its page.
fn manifest() -> (Stored, Page) {
    let (segments, mut pages) = Listing::assemble(&holes());
    let through = Link { lsn: Lsn::new(10_000), crc: 0 };
    let stored = Stored::new(Manifest {
        store: StoreId(*b"0123456789abcdef"),
        generation: Generation::new(1),
        before: Digest::NONE,
        claim: Claim([1; 16]),
        writer_epoch: 1,
        created: WallMs::new(1),
        recoveries: 0,
        folded: through,
        through,
        next_stream: StreamId::new(2),
        next_subscription: 1,
        next_segment: SegmentId::new(10_000),
        store_ms: StoreMs::new(1),
        segments,
        ledgers: Listing::default(),
    });
    (stored, pages.remove(0))
}

/// A machine, and a bucket that has that manifest and its page.
struct Town {
    machine: Machine,
    world: World,
    objects: Arc<dyn Objects>,
    bucket: Retrying,
    page: Page,
    page_key: Key,
}

fn with_bucket(seed: u64, test: impl AsyncFnOnce(Town)) {
    let machine = Machine::new(seed);
    let (stored, page) = manifest();
    let page_key = page.reference.artifact().key();
    machine.bucket().put(stored.manifest.artifact().key(), stored.bytes.clone());
    machine.bucket().put(page_key.clone(), page.bytes.clone());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let world = machine.boot(Duration::ZERO);
        let objects = machine.bucket().client(Arc::clone(&world.clock));
        let patience = weir_io::retry::Patience::default();
        let bucket = Retrying::new(Arc::clone(&objects), Arc::clone(&world.entropy), patience);
        test(Town { machine, world, objects, bucket, page, page_key }).await;
    });
}

/// A bucket that lets nobody have its pages.
struct Forbidden(Arc<dyn Objects>);

impl Objects for Forbidden {
    fn create<'a>(&'a self, key: &'a Key, payload: Payload) -> Pending<'a, Created> {
        self.0.create(key, payload)
    }

    fn get<'a>(&'a self, key: &'a Key, bytes_max: u64) -> Pending<'a, Bytes> {
        if key.as_str().starts_with(keys::PAGES) {
            return Box::pin(async { Err(ObjectError::Refused("403".into())) });
        }
        self.0.get(key, bytes_max)
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> Pending<'a, Bytes> {
        self.0.get_range(key, range)
    }

    fn head<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Meta>> {
        self.0.head(key)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Vec<Meta>> {
        self.0.list(prefix, after, limit)
    }

    fn delete<'a>(&'a self, key: &'a Key) -> Pending<'a, ()> {
        self.0.delete(key)
    }
}

#[test]
fn a_page_that_nobody_gives_out_is_not_lost() {
    with_bucket(2, async |Town { machine, world, objects, bucket, page, page_key }| {
        let forbidden: Arc<dyn Objects> = Arc::new(Forbidden(Arc::clone(&objects)));
        let before = machine.bucket().keys();
        let options = Options { losses: Losses::Accept, ..Options::default() };
        let config = Config::new("/weir/store");
        let refused = Engine::bootstrap(world.clone(), config, forbidden, options, "test").await;
        let Err(RestoreError::Bucket(what)) = refused else { panic!("{refused:?}") };
        assert!(what.contains("403"), "{what}");
        assert_eq!(machine.bucket().keys(), before, "nothing was claimed");
        assert!(!world.disk.exists(Path::new("/weir/store")).unwrap());

        // One that is too long to be a page is none, however it is refused.
        let longer = [&page.bytes[..], b"x"].concat();
        machine.bucket().put(page_key.clone(), longer.into());
        let damaged = find::find(&bucket, Moment::Newest).await.unwrap();
        let [finding] = &damaged.findings[..] else { panic!("{:?}", damaged.findings) };
        assert_eq!((finding.rule, finding.object.as_str()), ("page", page_key.as_str()));
    });
}

#[test]
fn a_page_that_is_gone_is_named_and_costs_what_it_lists() {
    with_bucket(1, async |Town { machine, world, objects, bucket, page_key, .. }| {
        let all = find::find(&bucket, Moment::Newest).await.unwrap();
        assert_eq!((all.segments, all.findings), (holes(), Vec::new()));

        assert!(machine.bucket().flip_bit(&page_key, 1000, 3));
        let damaged = find::find(&bucket, Moment::Newest).await.unwrap();
        assert_eq!(damaged.segments, holes()[PAGE_ENTRIES..]);
        let [finding] = &damaged.findings[..] else { panic!("{:?}", damaged.findings) };
        assert_eq!((finding.rule, finding.object.as_str()), ("page", page_key.as_str()));

        assert!(machine.bucket().lose(&page_key));
        // What the page named may be there, and so may what was to be named next.
        let later = Artifact::Segment(SegmentId::new(20_000), Nonce::new(1)).key();
        machine.bucket().put(later, "uploaded".into());
        let config = Config::new("/weir/store");
        let bootstrap = |losses| {
            let options = Options { losses, ..Options::default() };
            Engine::bootstrap(world.clone(), config.clone(), Arc::clone(&objects), options, "test")
        };
        let Err(RestoreError::Damaged(report)) = bootstrap(Losses::Refuse).await else {
            panic!("it was restored")
        };
        assert_eq!(report.losses().count(), 1, "{report}");
        let report = bootstrap(Losses::Accept).await.unwrap();
        assert_eq!(report.findings.iter().filter(|it| it.rule == HOLE).count(), 3, "{report}");
        let spared = Artifact::Spared(SegmentId::new(20_001)).key();
        assert!(machine.bucket().keys().contains(&spared), "what is older is spared");
        let found = search::newest_readable(&bucket).await.unwrap().unwrap();
        let claimed = found.newest.unwrap().manifest;
        assert_eq!(claimed.next_segment, SegmentId::new(20_001), "what is new is not older");
        let engine =
            Engine::open_with(world.clone(), config.clone(), Some(objects), "test").await.unwrap();
        engine.close().await;
    });
}

#[test]
fn what_may_be_dead_after_a_recovery_is_not_due_all_at_once() {
    use crate::types::WallMs;
    let within = std::time::Duration::from_millis(1000);
    let since = super::build::spread([100, 100, 600, 200].into_iter(), WallMs::new(5000), within);
    assert_eq!(since, [4100, 4200, 4800, 5000].map(WallMs::new));
    assert_eq!(super::build::spread([0, 0].into_iter(), WallMs::new(1), within).len(), 2);
}
