//! What could be deleted, as `weir gc --dry-run` says, against what an audit of the same bucket finds
//! to be superfluous, and against what the server then deletes.

use std::collections::BTreeSet;

use weir_engine::{
    audit::Newest,
    restore::{Garbage, RestoreError, garbage},
    types::StoreMs,
};
use weir_io::{
    memory::{Machine, MemoryBucket, Verb},
    objects::Key,
};

use super::{album::Photo, look::audited, past::Look, rehearsal};
use crate::{
    checks::{self, Breach},
    require,
};

/// Kinds of objects that a server deletes.
const COLLECTED: [&str; 5] = ["segments/", "rows/", "pages/", "manifest/", BOUNDARIES];
const BOUNDARIES: &str = "gc/";

/// Asks of every bucket that was kept.
pub(super) fn run(
    look: &Look,
    photos: &[Photo],
    rest: Option<[MemoryBucket; 2]>,
) -> Result<(), Breach> {
    for photo in photos {
        let Some(newest) = audited(&photo.bucket, StoreMs::new(u64::MAX))? else { continue };
        is_told(look, &photo.bucket, &newest)?;
    }
    let Some([before, after]) = rest else { return Ok(()) };
    let newest = audited(&before, StoreMs::new(u64::MAX))?;
    let last = audited(&after, StoreMs::new(u64::MAX))?;
    let (Some(newest), Some(last)) = (newest, last) else { return Ok(()) };
    let told = is_told(look, &before, &newest)?;
    is_done(&told, (&before, &newest), (&after, &last))?;
    let left = is_told(look, &after, &last)?;
    require!(
        left.unneeded.is_empty(),
        checks::COLLECTED,
        "everything has gone that nobody needs, and a dry run shows {:?}",
        left.unneeded
    );
    Ok(())
}

/// Who asks changes nothing, and is told exactly what the newest manifest does not name.
fn is_told(look: &Look, bucket: &MemoryBucket, newest: &Newest) -> Result<Garbage, Breach> {
    let mut machine = Machine::new(look.seed());
    machine.share_bucket(&bucket.copied(look.seed()));
    let said = look.boot(&machine, async |world| {
        let client = rehearsal::client(&machine, &world);
        Ok::<Result<Garbage, RestoreError>, Breach>(garbage(&world, client).await)
    })?;
    let garbage = match said {
        Ok(garbage) => garbage,
        Err(error) => return Breach::of(checks::SERVES, format!("a dry run: {error}")),
    };
    let changes = machine.bucket().count(Verb::Create) + machine.bucket().count(Verb::Delete);
    require!(changes == 0, checks::LOOKED, "a dry run has made {changes} changes");
    let found: BTreeSet<String> = superfluous(bucket, newest).iter().map(Key::to_string).collect();
    let told: BTreeSet<String> = garbage.unneeded.iter().map(|it| it.object.clone()).collect();
    let differs: Vec<&String> = found.symmetric_difference(&told).collect();
    require!(
        differs.is_empty() && told.len() == garbage.unneeded.len(),
        checks::COLLECTED,
        "a dry run tells of {}, {} are superfluous; they differ in {differs:?}",
        told.len(),
        found.len()
    );
    counted(bucket, newest, &garbage)?;
    if !told.is_empty() {
        weir_io::sometimes!("a dry run showed what nobody needs");
    }
    Ok(garbage)
}

/// What a bucket has and its newest manifest does not need, of what a server may delete.
fn superfluous(bucket: &MemoryBucket, newest: &Newest) -> BTreeSet<Key> {
    let keys = bucket.keys();
    // The highest boundary has the first key.
    let boundary = keys.iter().find(|key| key.as_str().starts_with(BOUNDARIES)).cloned();
    let kind = |key: &Key| COLLECTED.iter().any(|prefix| key.as_str().starts_with(prefix));
    keys.into_iter()
        .filter(|key| kind(key) && !newest.named.contains(key) && Some(key) != boundary.as_ref())
        .collect()
}

/// Figures, lengths, and whether a manifest that is kept needs something.
fn counted(bucket: &MemoryBucket, newest: &Newest, garbage: &Garbage) -> Result<(), Breach> {
    let length = |key: &Key| {
        let bytes = bucket.peek(key).map_or(0, |bytes| bytes.len());
        u64::try_from(bytes).expect("simulated objects are small")
    };
    let files = newest.named.iter().filter(|key| !key.as_str().starts_with("manifest/"));
    let (count, bytes) = files.fold((0, 0), |(count, sum), key| (count + 1, sum + length(key)));
    require!(
        (garbage.newest, garbage.objects, garbage.bytes) == (newest.generation, count, bytes),
        checks::COLLECTED,
        "manifest {} needs {count} objects of {bytes} bytes, a dry run says {garbage:?}",
        newest.generation
    );
    for it in &garbage.unneeded {
        let Some(key) = bucket.keys().into_iter().find(|key| key.as_str() == it.object) else {
            return Breach::of(checks::COLLECTED, format!("'{}' is not there", it.object));
        };
        let file = !key.as_str().starts_with("manifest/");
        let named = !(file && newest.kept.contains(&key)) || it.named_by.is_some();
        require!(
            named && it.bytes == length(&key) && !it.spared,
            checks::COLLECTED,
            "a dry run says {it:?}, needed by a kept manifest: {}",
            newest.kept.contains(&key)
        );
    }
    Ok(())
}

/// What was told has gone, but for what was on its way into the next manifest; nothing else has, but
/// for what that manifest does without.
fn is_done(
    told: &Garbage,
    (before, newest): (&MemoryBucket, &Newest),
    (after, last): (&MemoryBucket, &Newest),
) -> Result<(), Breach> {
    let left: BTreeSet<Key> = after.keys().into_iter().collect();
    let unneeded = |key: &Key| told.unneeded.iter().find(|it| it.object == key.as_str());
    for key in before.keys() {
        let gone = !left.contains(&key);
        let right = match unneeded(&key) {
            Some(it) => gone || (it.named_by.is_none() && last.named.contains(&key)),
            None => !gone || !last.named.contains(&key) && is_of_manifest(&key, newest),
        };
        require!(right, checks::COLLECTED, "'{key}' was not told of as it went: gone {gone}");
    }
    weir_io::sometimes!("what a dry run had shown was collected");
    Ok(())
}

/// Whether a manifest needed it, or it was the boundary then, or a probe.
fn is_of_manifest(key: &Key, newest: &Newest) -> bool {
    let is_file = key.as_str().starts_with("segments/")
        || key.as_str().starts_with("rows/")
        || key.as_str().starts_with("pages/")
        || key.as_str().starts_with("manifest/");
    newest.named.contains(key) || !is_file
}
