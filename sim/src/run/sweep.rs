//! The last of a seed: everything is deleted, and nothing may be left of it, neither names that
//! are kept for forks which are no more, nor rows, nor, once segments were merged, records.

use std::{rc::Rc, time::Duration};

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use weir_engine::{
    request::{Append, Create, List, Rejection},
    types::{ContentType, StreamName},
};
use weir_io::sqlite::Role;

use crate::{
    checks::{self, Breach},
    require,
    workload::{self, subscribers, verbs::Said},
    world::Host,
};

/// Streams of a store that seals seldom are not waited for.
const SEAL_AGE_MAX: Duration = Duration::from_secs(2);
/// Erasures that take longer are not waited for.
const ERASURE_MAX: Duration = Duration::from_secs(60);
/// One more segment than are merged at once.
const SEALS: u32 = 9;
/// Segments up to this size are merged whatever lies beside them.
const SMALL_BYTES_MAX: u64 = 1 << 20;
/// What the segments of one stream with a few short records may take.
const LEFT_BYTES_MAX: u64 = 64 << 10;

/// How long all of it may take, of which most is waiting for seals.
const SWEEP_MAX: Duration = Duration::from_secs(300);

/// Deletes everything and looks for what is left.
pub(super) async fn run(host: &Rc<Host>, c: &mut ChaCha8Rng) {
    host.sim.note("sweep");
    if tokio::time::timeout(SWEEP_MAX, sweep(host, c)).await.is_err() {
        let what = "not everything can be deleted in time";
        host.sim.check::<()>(Breach::of(checks::SERVES, what));
    }
}

async fn sweep(host: &Rc<Host>, c: &mut ChaCha8Rng) {
    for kind in subscribers::kinds() {
        host.unsubscribe(&kind).await;
    }
    // There may be none.
    drop(host.engine().delete(&StreamName::new(subscribers::WAKES).expect("a good name")).await);
    let mut targets = workload::targets();
    targets.shuffle(c);
    for target in &targets {
        host.delete(target).await;
    }
    for target in &targets {
        let said = host.head(target).await;
        if !matches!(said, Said::No(Rejection::NotFound)) {
            let what = format!("everything is deleted, and of '{}': {said:?}", target.name);
            host.sim.check::<()>(Breach::of(checks::COUNTED, what));
            return;
        }
    }
    let checked = nothing_left(host).await;
    host.sim.check(checked);
}

async fn nothing_left(host: &Host) -> Result<(), Breach> {
    let listed = host.engine().list(List { limit: 10, ..List::default() }).await;
    require!(
        listed.as_ref().is_ok_and(Vec::is_empty),
        checks::LISTED,
        "everything is deleted, and the list shows {listed:?}"
    );
    if host.sim.options.seal_age > SEAL_AGE_MAX {
        return Ok(());
    }
    tokio::time::sleep(host.sim.options.seal_age + Duration::from_secs(5)).await;
    let (rows, sizes) = stored(host)?;
    require!(rows == 0, checks::COUNTED, "everything is deleted, and {rows} rows are left");
    if host.sim.options.erase_within <= ERASURE_MAX {
        // The next boot will see to it.
        return Ok(());
    }
    if sizes.iter().any(|bytes| *bytes > SMALL_BYTES_MAX) {
        return Ok(());
    }
    for _ in 0..SEALS {
        seal(host).await?;
    }
    let (_, sizes) = stored(host)?;
    let left: u64 = sizes.iter().sum();
    require!(
        left <= LEFT_BYTES_MAX,
        checks::COUNTED,
        "everything is deleted, and {left} bytes are left: {sizes:?}"
    );
    Ok(())
}

/// After a restart: what was deleted before it leaves the disk in its time, though nothing more
/// happens.
pub(super) async fn erased(host: &Host) {
    let within = host.sim.options.erase_within;
    if within > ERASURE_MAX {
        return;
    }
    tokio::time::sleep(within + Duration::from_secs(5)).await;
    let checked = stored(host).and_then(|(rows, sizes)| {
        let left: u64 = sizes.iter().sum();
        require!(
            rows == 0 && left == 0,
            checks::ERASED,
            "everything is deleted, and left are {rows} rows and segments of {sizes:?} bytes"
        );
        Ok(())
    });
    host.sim.check(checked);
}

/// One more segment, of a stream that nobody knows.
async fn seal(host: &Host) -> Result<(), Breach> {
    let name = StreamName::new("sweep").expect("a good name");
    let content = ContentType::parse("text/plain");
    let create = Create { body: bytes::Bytes::new(), ..Create::new(name.clone(), content.clone()) };
    let append = Append::new(name, content, bytes::Bytes::from_static(b"sweep"));
    let created = host.engine().create(create).await;
    let written = host.engine().append(append).await;
    if let Err(error) = created.map(drop).and(written.map(drop)) {
        return Breach::of(checks::SERVES, format!("'sweep' takes no append: {error}"));
    }
    tokio::time::sleep(host.sim.options.seal_age + Duration::from_secs(2)).await;
    Ok(())
}

/// How many rows of streams there are, and how large the segments.
fn stored(host: &Host) -> Result<(i64, Vec<u64>), Breach> {
    let world = host.world();
    let counted = || -> rusqlite::Result<(i64, Vec<i64>)> {
        let conn = world.sqlite.open(&host.sim.options.database(), Role::Reader)?;
        let rows = conn.query_one("SELECT count(*) FROM streams", [], |row| row.get(0))?;
        let mut query = conn.prepare("SELECT bytes FROM segments")?;
        let sizes = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok((rows, sizes))
    };
    match counted() {
        Ok((rows, sizes)) => {
            Ok((rows, sizes.into_iter().filter_map(|it| u64::try_from(it).ok()).collect()))
        }
        Err(error) => Breach::of(checks::SERVES, format!("the catalogue can't be read: {error}")),
    }
}
